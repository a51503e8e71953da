"""Who has an account, under which number: from the spec alone, and never two of a name or number."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from vcluster import Cluster
from vcluster.clouds.memory import MemoryCloud
from vcluster.people import FIRST_PERSON, FIRST_UID, FIRST_USER, Person, class_size, parse_csv, people, pool
from vcluster.spec import ClusterSpec
from vcluster.stacks.machines import FIRST_USER_UID

OK = "name: demo\ncloud: local\n"
ED25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA+cMUjwyKSdrRS2OZuaCwOSzyKtJEOXcHGKOlK2HI/O"


def spec(text: str) -> ClusterSpec:
    return ClusterSpec.from_yaml(f"{OK}{text}")


def test_everybody_by_kind_rank_and_number() -> None:
    found = people(
        spec(f"""
users: [{{name: alice}}, {{name: bob, ssh_keys: ["{ED25519}"]}}]
jupyterhub:
  people: {{csv: "name,login,email\\ncarl,,carl@example.org\\ndora,dora42,\\n", count: 2}}
  instructors: [bob, dora, teacher]
  admins: [alice, boss]
""")
    )
    assert found == (
        Person("alice", 2001, "user", admin=True, instructor=True),
        Person("bob", 2002, "user", instructor=True, ssh_keys=(ED25519,)),
        Person("carl", 10001, "student", email="carl@example.org"),
        Person("dora", 10002, "instructor", instructor=True, login="dora42"),
        Person("student-001", 10003, "student"),
        Person("student-002", 10004, "student"),
        Person("teacher", 10005, "instructor", instructor=True),
        Person("boss", 10006, "instructor", admin=True, instructor=True),
    )


def test_users_have_the_numbers_that_the_machines_give_them() -> None:
    assert FIRST_USER == FIRST_USER_UID
    assert [person.uid for person in people(spec("users: [{name: al}, {name: bo}]"))] == [2001, 2002]


def test_a_class_of_127() -> None:
    found = people(spec("jupyterhub: {people: {count: 127}}"))
    assert [found[0].name, found[-1].name] == ["student-001", "student-127"]
    assert [found[0].uid, found[-1].uid] == [10001, 10127]
    assert class_size(spec("jupyterhub: {people: {count: 127}}")) == 127
    assert class_size(spec("jupyterhub: {people: {count: 127}, class_size: 40}")) == 40
    assert class_size(spec("users: [{name: al}]")) == 0


def test_the_names_of_a_class_that_grows_stay() -> None:
    assert pool(127, "student")[:9] == pool(9, "student")
    assert pool(1000, "s")[0] == "s-0001"
    assert pool(0, "s") == ()


def test_a_csv_as_spreadsheets_write_it() -> None:
    rows, wrong = parse_csv(f'E-Mail;User Name;SSH Key\r\n"al@example.org";al;"{ED25519} al@home"\r\n;bo;\r\n;;\r\n')
    assert not wrong
    assert [(row.name, row.email, row.key, row.line) for row in rows] == [
        ("al", "al@example.org", f"{ED25519} al@home", 2),
        ("bo", "", "", 3),
    ]
    assert [row.name for row in parse_csv("al\nbo\n")[0]] == ["al", "bo"]
    assert [row.email for row in parse_csv("al\tal@example.org\n")[0]] == ["al@example.org"]


def test_lines_are_counted_as_an_editor_does() -> None:
    rows, wrong = parse_csv('# the class\nname,email\n\n"al",\n"b\no",\nal,\n')
    assert [row.line for row in rows] == [4]
    assert [line for line, *_ in wrong] == [5, 7]


NAMES = st.lists(st.from_regex(r"[a-d][a-c]?", fullmatch=True), max_size=8, unique=True)


@given(csv=NAMES, users=NAMES, teachers=NAMES, admins=NAMES, count=st.integers(0, 12))
@settings(max_examples=60, deadline=None)
def test_no_two_have_a_name_or_a_number(
    csv: list[str], users: list[str], teachers: list[str], admins: list[str], count: int
) -> None:
    named = [name for name in csv if name not in users]
    data = {
        "name": "demo",
        "cloud": "local",
        "users": [{"name": name} for name in users],
        "jupyterhub": {
            "people": {"count": count, **({"csv": "".join(f"{name},\n" for name in named)} if named else {})},
            "instructors": teachers,
            "admins": admins,
        },
    }
    found = people(ClusterSpec.model_validate(data))
    assert {person.name for person in found} == {*users, *named, *pool(count, "student"), *teachers, *admins}
    assert len({person.name for person in found}) == len({person.uid for person in found}) == len(found)
    assert all((FIRST_USER <= p.uid < FIRST_PERSON) == (p.kind == "user") for p in found)
    assert all(p.uid < FIRST_UID for p in found)
    assert {p.name for p in found if p.instructor} == {*teachers, *admins}
    assert {p.name for p in found if p.admin} == set(admins)


def test_up_tells_the_head_whom_the_spec_names_now(tmp_path: Path) -> None:
    cloud = MemoryCloud()
    text = "name: demo\ncloud: memory\nworkers: [{flavor: medium}]\njupyterhub: {class_size: 2, people: {count: 2}}\n"
    for count, changed in ((2, ["student-001", "student-002"]), (1, ["student-001"])):
        now = ClusterSpec.from_yaml(text.replace("{count: 2}", f"{{count: {count}}}"))
        with Cluster(now, cloud=cloud, home=tmp_path) as demo:
            demo.up()
            (named,) = (entry.head.hub.named for entry in cloud.entries(demo.ref) if entry.head)
            assert [person["name"] for person in named] == changed
            assert {(person["kind"], person["uid"] >= FIRST_PERSON) for person in named} == {("student", True)}
