"""The table of changes: complete, and applied to what really differs."""

from __future__ import annotations

import pytest

from vcluster.changes import TABLE, ChangeKind, remedies, spec_changes
from vcluster.spec import ClusterSpec, FlavorSpec, PriceSpec
from vcluster.spec_docs import sections
from vcluster.spec_hub import ProfileSpec
from vcluster.spec_k3s import FileSpec, RegistrySpec
from vcluster.spec_secret import SecretRef


def spec(text: str = "") -> ClusterSpec:
    return ClusterSpec.from_yaml(f"name: demo\ncloud: local\n{text}")


def test_every_field_is_in_the_table() -> None:
    every = {f"{place}.{name}" if place else name for place, model in sections() for name in model.model_fields}
    whole = (FileSpec, FlavorSpec, PriceSpec, ProfileSpec, RegistrySpec, SecretRef)
    inside = {f"{place}.{name}" for place, model in sections() if model in whole for name in model.model_fields}
    parents = {place.removesuffix("[]") for place, model in sections() if place and model not in whole}
    assert every - inside - parents == set(TABLE)
    assert len(TABLE) >= 26


def test_what_changes_in_place_is_exactly_this() -> None:
    in_place = {field for field, kind in TABLE.items() if kind is ChangeKind.IN_PLACE}
    people = {f"jupyterhub.{key}" for key in ("people.csv", "people.count", "people.prefix", "instructors", "admins")}
    assert in_place == {"workers[].count", "workers[].min_count", "expires", "grace_period", "prices", *people}


@pytest.mark.parametrize(("backend", "changes"), [("", True), (", flannel_backend: vxlan", False)])
def test_a_version_that_brings_another_backend_changes_that_too(backend: str, *, changes: bool) -> None:
    """Machines made after such an upgrade would not hear those made before it."""
    text = "scheduler: k3s\nk3s: {{version: {}, binary: {{sha256: {}}}{}}}\n"
    old, new = (spec(text.format(version, "a" * 64, backend)) for version in ("v1.22.17+k3s1", "v1.23.17+k3s1"))
    found = {change.field: change.remedy for change in spec_changes(old, new)}
    assert ("k3s.flannel_backend" in found) is changes
    # The user never wrote it, and to make the cluster anew would lose all that Kubernetes has.
    assert found.get("k3s.flannel_backend", "").startswith("write `flannel_backend: vxlan` under k3s, ") is changes
    assert "take the cluster down" not in remedies(spec_changes(old, new))


def test_an_older_version_is_no_upgrade() -> None:
    text = "scheduler: k3s\nk3s: {{version: {}, binary: {{sha256: {}}}}}\n"
    old, new = (spec(text.format(version, "a" * 64)) for version in ("v1.37.1+k3s1", "v1.36.5+k3s1"))
    (back,) = (change.remedy for change in spec_changes(old, new) if change.field == "k3s.version")
    assert back.startswith("Kubernetes does not go back: write `version: v1.37.1+k3s1` under k3s")
    (on,) = (change.remedy for change in spec_changes(new, old) if change.field == "k3s.version")
    assert on.startswith("`vcluster upgrade`")


def test_nothing_differs() -> None:
    assert spec_changes(spec(), spec("head: {flavor: small}\nslurm: {max_time: INFINITE}")) == []


GROUP = "workers: [{name: a, count: 2, max_count: 4}]"
SIZED = "workers: [{name: a, count: 2, max_count: 4, flavor: {cpus: 1, memory: 1G, disk: 6G}}]"
TWO = "workers: [{name: a, count: 2, max_count: 4}, {name: b}]"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (GROUP, GROUP.replace("2", "3"), {"workers[a].count": "changed in place"}),
        (GROUP, GROUP.replace("count: 2", "count: 2, min_count: 1"), {"workers[a].min_count": "changed in place"}),
        (GROUP, GROUP.replace("4", "5"), {"workers[a].max_count": "refused"}),
        (GROUP, SIZED, {"workers[a].flavor": "refused"}),
        (SIZED, SIZED.replace("1G", "2G"), {"workers[a].flavor": "refused"}),
        (GROUP, TWO, {"workers[b]": "refused"}),
        (TWO, GROUP, {"workers[b]": "refused"}),
        (GROUP, GROUP.replace("name: a", "name: b"), {"workers[a]": "refused", "workers[b]": "refused"}),
        ("users: [{name: al}]", "users: [{name: al, sudo: true}]", {"users[al].sudo": "refused"}),
        ("", "users: [{name: al}]", {"users[al]": "refused"}),
        ("", "packages: [gcc]", {"packages": "refused"}),
        ("", "setup: {head: '#!/bin/sh'}", {"setup.head": "refused"}),
        ("", "slurm: {memory_per_cpu: 1G}", {"slurm.memory_per_cpu": "refused"}),
        ("", "head: {flavor: large}", {"head.flavor": "refused"}),
        ("", "access: {allow_from: [10.0.0.0/8]}", {"access.allow_from": "refused"}),
        ("", "expires: 8h", {"expires": "changed in place"}),
        ("expires: 8h", "expires: 8h\ngrace_period: 2d", {"grace_period": "changed in place"}),
        ("", "prices: [{flavor: small, per_hour: 1}]", {"prices": "changed in place"}),
        ("", "jupyterhub: {}", {"jupyterhub": "refused"}),
        ("jupyterhub: {}", "jupyterhub: {people: {count: 3}}", {"jupyterhub.people.count": "changed in place"}),
        ("jupyterhub: {}", "jupyterhub: {profiles: [{cpus: 2}]}", {"jupyterhub.profiles": "refused"}),
        (
            "jupyterhub: {auth: {password: {env: A}}}",
            "jupyterhub: {auth: {password: {file: /a}}}",
            {"jupyterhub.auth.password": "refused"},
        ),
        ("jupyterhub: {}", "jupyterhub: {idle: {longest: 1d}}", {"jupyterhub.idle.longest": "refused"}),
        (
            "scheduler: k3s\njupyterhub: {}",
            "scheduler: k3s\njupyterhub: {storage: nfs, environment: {image: 'a/b:1'}}",
            {"jupyterhub.storage": "refused", "jupyterhub.environment.image": "refused"},
        ),
    ],
)
def test_changes(old: str, new: str, expected: dict[str, str]) -> None:
    found = spec_changes(spec(old), spec(new))
    assert {change.field: str(change.kind) for change in found} == expected
    assert all(bool(change.remedy) == (change.kind is ChangeKind.REFUSED) for change in found)
    assert all(str(change).startswith(f"{change.field}: ") for change in found)


def test_people_come_and_go_in_place() -> None:
    class_of = 'jupyterhub: {{people: {{csv: "{}\\n"}}, instructors: [{}]}}'
    found = spec_changes(spec(class_of.format("al,", "bo")), spec(class_of.format("al,\\ncy,", "di")))
    assert [change.field for change in found] == ["jupyterhub.people.csv", "jupyterhub.instructors"]
    assert str(found[0]) == "jupyterhub.people.csv: (a long text) → (a long text): changed in place"


def test_count_without_max_count_changes_the_room_too() -> None:
    found = {
        change.field: change for change in spec_changes(spec("workers: [{count: 2}]"), spec("workers: [{count: 1}]"))
    }
    assert set(found) == {"workers[cpu].count", "workers[cpu].max_count"}
    assert "set max_count: 2" in found["workers[cpu].max_count"].remedy
    kept = spec_changes(spec("workers: [{count: 2}]"), spec("workers: [{count: 1, max_count: 2}]"))
    assert [change.field for change in kept] == ["workers[cpu].count"]


def test_order_of_users_and_groups_does_not_matter() -> None:
    one, other = "users: [{name: a}, {name: b}]", "users: [{name: b}, {name: a}]"
    assert spec_changes(spec(one), spec(other)) == []


def test_old_and_new_values() -> None:
    (change,) = spec_changes(spec(GROUP), spec(GROUP.replace("2", "3")))
    assert (change.old, change.new) == (2, 3)
    assert str(change) == "workers[a].count: 2 → 3: changed in place"
    (removed,) = spec_changes(spec("users: [{name: al}]"), spec())
    assert removed.new is None


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("", "head: {flavor: {cpus: 2, memory: 4G, disk: 20G}}", "small → {cpus: 2, memory: 4096M, disk: 20G}"),
        ("users: [{name: al}]", "users: [{name: al, sudo: true}]", "false → true"),
        ("", "users: [{name: al}]", "not set → {name: al, sudo: false}"),
        ("", "packages: [gcc, make]", "not set → [gcc, make]"),
        ("", "setup: {head: '#!/bin/sh'}", "not set → #!/bin/sh"),
        ("", f"packages: [{'g' * 70}]", "not set → (a long text)"),
    ],
)
def test_values_are_shown_as_in_a_spec(old: str, new: str, expected: str) -> None:
    (change,) = spec_changes(spec(old), spec(new))
    assert str(change) == f"{change.field}: {expected}: refused"


def test_each_change_has_its_own_remedy() -> None:
    again = "take the cluster down and up again, or give the new one another name"
    changes = spec_changes(spec(GROUP), spec(GROUP.replace("4", "5") + "\npackages: [gcc]\nhead: {flavor: large}"))
    told = remedies(changes)
    assert f"head.flavor, packages: {again}" in told
    assert "\n  workers[a].max_count: set max_count: 4 to keep the cluster's room" in told
    assert remedies([change for change in changes if change.field == "packages"]) == again
    assert remedies(spec_changes(spec(GROUP), spec(GROUP.replace("2", "3")))) == ""
