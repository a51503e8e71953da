"""The spec of a Hub: what is wrong is told with its line, also a CSV's own; what is right means the same anywhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from vcluster.capacity import group_of
from vcluster.errors import Problem, SpecError
from vcluster.spec import ClusterSpec
from vcluster.spec_hub import HubSpec, ProfileSpec, SecretRef
from vcluster.spec_hub_k3s import first_group

ROOT = Path(__file__).parents[2]
OK = "name: demo\ncloud: cloud9\n"
ED25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA+cMUjwyKSdrRS2OZuaCwOSzyKtJEOXcHGKOlK2HI/O"
SECRET = "hunter2-hunter2"
PROVIDER = "client_id: x, client_secret: {env: S}"


class Bad(NamedTuple):
    """A Hub whose third line begins with ``jupyterhub:``, and what is said about it."""

    id: str
    text: str
    where: str
    message: str
    remedy: str = ""
    more: str = ""


def auth(id: str, text: str, where: str, message: str, remedy: str = "") -> Bad:  # noqa: A002
    return Bad(id, f"auth: {{{text}}}", f"auth.{where}", message, remedy)


def people(id: str, text: str, where: str, message: str, remedy: str = "") -> Bad:  # noqa: A002
    return Bad(id, f"people: {{{text}}}", f"people.{where}", message, remedy)


def profile(id: str, text: str, where: str, message: str, remedy: str = "", *, more: str = "") -> Bad:  # noqa: A002
    return Bad(id, f"profiles: [{{{text}}}]", f"profiles[0].{where}", message, remedy, more)


SECRETS = [
    auth("secret-as-text", f"password: {SECRET}", "password", "does not belong into the spec", "where it is found"),
    auth("secret-as-number", "password: 12345678", "password", "must be {env: NAME} or {file: path}"),
    auth("secret-in-list", f"password: [{SECRET}]", "password", "must be {env: NAME} or {file: path}"),
    auth("secret-nowhere", "password: {}", "password", "must be {env: NAME} or {file: path}"),
    auth("secret-twice", "password: {env: A, file: b}", "password.file", "given beside env", "leave one"),
    auth("secret-as-variable", f"password: {{env: '{SECRET}'}}", "password.env", "an environment variable's name"),
    auth("secret-dollar", "password: {env: $PASSWORD}", "password.env", "variable's name", "without a $"),
    auth("secret-in-file-key", f'password: {{file: "{SECRET}\\n"}}', "password.file", "must be a file's name"),
    auth("secret-key", "password: {var: X}", "password.var", "unknown key", "known: env, file"),
]

AUTH = [
    auth("method", "method: gitub", "method", "must be one of shared-password, native, firstuse, github"),
    auth("no-client", "method: github, client_secret: {env: S}", "client_id", "missing: method github needs it"),
    auth("no-secret", "method: globus, client_id: x", "client_secret", "missing: method globus", "{env: NAME}"),
    auth("client-unused", "client_id: x", "client_id", "means nothing with method shared-password", "leave it out"),
    auth("password-unused", "method: pam, password: {env: A}", "password", "means nothing with method pam"),
    auth(
        "admin-unused",
        f"method: oidc, admin_password: {{env: A}}, {PROVIDER}, options: {{issuer: 'https://a.org'}}",
        "admin_password",
        "means nothing with method oidc",
    ),
    auth(
        "client-quote", f"method: github, {PROVIDER.replace('x', chr(39) + 'a b' + chr(39))}", "client_id", "client id"
    ),
    auth("no-issuer", f"method: oidc, {PROVIDER}", "options.issuer", "needs it", "or authorize_url, token_url"),
    auth("no-idps", f"method: cilogon, {PROVIDER}", "options.idps", "is missing: method cilogon needs it"),
    auth(
        "option-typo", f"method: oidc, {PROVIDER}, options: {{isuer: a}}", "options.isuer", "no option", "mean issuer"
    ),
    auth("option-none", "options: {scope: x}", "options.scope", "is no option of method shared-password", "leave it"),
    auth(
        "issuer-http",
        f"method: oidc, {PROVIDER}, options: {{issuer: 'http://a.org'}}",
        "options.issuer",
        "must be an https",
    ),
    auth("option-number", f"method: oidc, {PROVIDER}, options: {{issuer: 7}}", "options.issuer", "must be text, got 7"),
    auth("options-text", "options: issuer", "options", "must be a mapping of texts, got 'issuer'"),
    auth("nobody", "allow: {users: false}", "allow.users", "lets nobody in", "leave it out"),
    auth("rule-unused", "allow: {organizations: [lab]}", "allow.organizations", "means nothing", "it is for github"),
    auth(
        "rule-beside-all",
        f"method: github, {PROVIDER}, allow: {{users: true, organizations: [lab]}}",
        "allow.users",
        "lets everybody in, whatever organizations says",
    ),
    auth(
        "rule-shell",
        f"method: github, {PROVIDER}, allow: {{organizations: ['a;b']}}",
        "allow.organizations[0]",
        "a name",
    ),
]

PEOPLE = [
    people("no-csv", "csv: missing.csv", "csv", "there is no file"),
    people("csv-empty", "csv: empty.csv", "csv", "empty.csv names nobody"),
    people("csv-double", "csv: double.csv", "csv", "double.csv, line 5: 'bob' stands in line 2 already"),
    people("csv-illegal", "csv: illegal.csv", "csv", "illegal.csv, line 3: must be a user's name, got 'Bob Smith'"),
    people("csv-system", "csv: illegal.csv", "csv", "illegal.csv, line 4: root is the name of an account"),
    people("csv-nameless", "csv: illegal.csv", "csv", "illegal.csv, line 5: has no name"),
    people("csv-email", "csv: illegal.csv", "csv", "illegal.csv, line 6: must be an e-mail address, got 'dora'"),
    people(
        "csv-key", "csv: illegal.csv", "csv", "illegal.csv, line 7: the key is not a public key", "copy the whole line"
    ),
    people("csv-email-twice", "csv: illegal.csv", "csv", "illegal.csv, line 8: has the e-mail address of al in line 2"),
    people("csv-columns", "csv: illegal.csv", "csv", "illegal.csv, line 9: has 4 columns, there are 3", "quotes"),
    people("csv-rehearsal", "csv: illegal.csv", "csv", "illegal.csv, line 10: rehearsal-1: names that begin with"),
    people(
        "csv-header", "csv: header.csv", "csv", "header.csv, line 1: unknown column 'shoe size'", "known: name, email"
    ),
    people("csv-quote", "csv: quote.csv", "csv", "quote.csv, line 2: is not CSV", "close the quotation"),
    people("csv-latin1", "csv: latin1.csv", "csv", "is not UTF-8 text"),
    people("csv-binary", "csv: binary.csv", "csv", "control characters", "UTF-8"),
    people("csv-inline", r'csv: "al\nal\n"', "csv", "line 2: 'al' stands in line 1 already"),
    people("csv-pool", r'csv: "student-002\n", count: 3', "csv", "line 1 of the CSV: student-002 is the name of a num"),
    people("count-negative", "count: -1", "count", "must be a whole number of at least 0 and at most 4000"),
    people("count-huge", "count: 5000", "count", "at most 4000, got 5000"),
    people("prefix", "prefix: Student", "prefix", "the beginning of users' names, got 'Student'"),
    people("prefix-rehearsal", "prefix: rehearsal", "prefix", "names that vcluster uses itself"),
    people("quota-small", "quota: 10M", "quota", "must be at least 100M"),
    Bad(
        "csv-user",
        r'people: {csv: "\nal,\n"}',
        "people.csv",
        "line 2 of the CSV: al is one of users",
        "",
        "users: [{name: al}]",
    ),
    Bad(
        "pool-user", "people: {count: 2}", "people.prefix", "student-002 is one of", "", "users: [{name: student-002}]"
    ),
    Bad("user-rehearsal", "{}", "", "'rehearsal-7' of users begins with rehearsal", "", "users: [{name: rehearsal-7}]"),
    Bad("instructor-twice", "instructors: [al, al]", "instructors[1]", "'al' stands here twice"),
    Bad("instructor-root", "instructors: [root]", "instructors[0]", "an account or group of the system"),
    Bad("admin-caddy", "admins: [caddy]", "admins[0]", "an account or group of the system"),
]

REST = [
    Bad("domain-url", "domain: 'https://hub.example.org'", "domain", "must be a host name", "without https://"),
    Bad("domain-address", "domain: 192.0.2.7", "domain", "must be a host name, got '192.0.2.7'"),
    Bad("domain-word", "domain: hub", "domain", "must be a host name", "hub.example.org"),
    Bad("domain-local", "domain: hub.example.org", "domain", "means nothing on the local cloud", "", "cloud: local"),
    Bad("domain-hidden", "domain: a.org", "domain", "head has no public address", "", "access: {public_ip: false}"),
    Bad("email", "domain: a.org, email: me", "email", "must be an e-mail address, got 'me'"),
    Bad("email-alone", "email: me@example.org", "email", "is given without domain", "Let's Encrypt"),
    Bad("from-nowhere", "allow_from: []", "allow_from", "nobody could reach"),
    Bad("class-zero", "class_size: 0", "class_size", "must be a whole number of at least 1"),
    Bad("shared-zero", "cpu_oversubscribe: 0", "cpu_oversubscribe", "at least 1 and at most 64, got 0"),
    Bad("profiles-none", "profiles: []", "profiles", "must not be empty", "1 CPU and 1G"),
    Bad("profiles-twice", "profiles: [{}, {cpus: 2}]", "profiles[1].name", "two profiles are called 'standard'"),
    profile("profile-name", "name: Big One", "name", "must be a profile's name"),
    profile("profile-line", r'description: "a\nb"', "description", "must be one line"),
    profile("profile-memory", "memory: 100M", "memory", "must be at least 384M", "1G is a good beginning"),
    profile("profile-unit", "memory: 2GB", "memory", "must be a size such as 1G", "write 2G"),
    profile("profile-cpus", "cpus: 0", "cpus", "of at least 1 and at most 1024, got 0"),
    profile("profile-time", "time: 90 minutes", "time", "must be a time as Slurm writes it"),
    profile("profile-gpus", "gpus: 1", "gpus", "must be 0, got 1: a worker", "workers[].gpus"),
    profile("profile-group", "partition: gpu", "partition", "there is no group 'gpu'", "there is: cpu"),
    profile("profile-limit", "time: 9:00:00", "time", "at most slurm's max_time", more="slurm: {max_time: '8:00:00'}"),
    Bad("package", "environment: {packages: ['numpy; reboot']}", "environment.packages[0]", "a Python package's name"),
    Bad("package-url", "environment: {packages: ['git+https://a.org/b']}", "environment.packages[0]", "package's name"),
    Bad("package-option", "environment: {packages: ['--pre']}", "environment.packages[0]", "a Python package's name"),
    Bad("pins", "environment: {requirements: pins.txt}", "environment.requirements", "pins.txt, line 3: options of"),
    Bad("no-pins", "environment: {requirements: none.txt}", "environment.requirements", "there is no file"),
    Bad("pins-empty", r'environment: {requirements: "# a\n"}', "environment.requirements", "holds no package"),
    Bad("git-ssh", "repository: {url: 'git@example.org:a.git'}", "repository.url", "an http:// or https:// address"),
    Bad("git-host", "repository: {url: 'https://example.org'}", "repository.url", "must be a repository's address"),
    Bad("git-password", f"repository: {{url: 'https://me:{SECRET}@a.org/b'}}", "repository.url", "without a user"),
    Bad("git-branch", "repository: {branch: main}", "repository.branch", "is given without url"),
    Bad("git-option", "repository: {url: 'https://a.org/b', branch: --x}", "repository.branch", "a branch's name"),
    Bad("git-folder", "repository: {url: 'https://a.org/b', folder: ../x}", "repository.folder", "a folder's name"),
    Bad("idle-short", "idle: {server: 5m}", "idle.server", "must be at least 10m"),
    Bad("idle-number", "idle: {kernel: 2}", "idle.kernel", "must be a span of time", "write 2m for minutes, 2h"),
    Bad("idle-longest", "idle: {longest: 30m}", "idle.longest", "must be at least server, which is 1h"),
    Bad("unknown", "oversubscribe: 2", "oversubscribe", "unknown key", "did you mean cpu_oversubscribe?"),
    Bad("text", "yes", "", "must be a mapping of keys to values, got true"),
]  # fmt: skip

REST.append(
    Bad(
        "csv-github",
        f"{{auth: {{method: github, {PROVIDER}}}, people: {{csv: github.csv}}}}",
        "people.csv",
        "line 4 of the CSV: carl has an e-mail address and no login",
        "add a column login",
    )
)


def k3s(id: str, text: str, where: str, message: str, remedy: str = "") -> Bad:  # noqa: A002
    return Bad(f"k3s-{id}", text, where, message, remedy, "scheduler: k3s")


IMAGE = "environment: {image: "
THREE = "scheduler: k3s\nhead: {count: 3}"
K3S = [
    Bad("storage-slurm", "storage: nfs", "storage", "means nothing with scheduler slurm", "homes are on the head"),
    Bad("image-slurm", f"{IMAGE}'a/b:1'}}", "environment.image", "means nothing with scheduler slurm", "name packages"),
    k3s("storage", "storage: ceph", "storage", "must be none, cinder or nfs, got 'ceph'"),
    k3s("cinder", "storage: cinder", "storage", "cinder has nobody who makes volumes", "add k3s.openstack"),
    k3s("quota-nfs", "{storage: nfs, people: {quota: 5G}}", "people.quota", "means nothing with storage nfs", "cinder"),
    Bad("k3s-nfs-3", "storage: nfs", "storage", "nfs lies on the head alone", "take cinder, or one server", THREE),
    k3s("pam", "auth: {method: pam}", "auth.method", "pam means nothing with scheduler k3s", "no accounts on machines"),
    k3s("packages", "environment: {packages: [xarray]}", "environment.packages", "means nothing", "name an image"),
    k3s("pins", r'environment: {requirements: "xarray\n"}', "environment.requirements", "means nothing", "an image"),
    k3s("image-latest", f"{IMAGE}'a/b:latest'}}", "environment.image", "which version, got 'a/b:latest'", "with a tag"),
    k3s("image-bare", f"{IMAGE}'a.org:5000/b'}}", "environment.image", "must say which version, got 'a.org:5000/b'"),
    k3s("image-digest", f"{IMAGE}'a/b@sha256:12'}}", "environment.image", "must be a container image, got"),
    k3s("image-shell", f"{IMAGE}'a/b:1;id'}}", "environment.image", "must be a container image, got 'a/b:1;id'"),
    k3s("gpus", "profiles: [{gpus: 1}]", "profiles[0].gpus", "must be 0, got 1: a worker of group 'cpu' has no GPUs"),
]
TABLE = [*SECRETS, *AUTH, *PEOPLE, *REST, *K3S]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files that the table's specs name."""
    files = {
        "empty.csv": "name,email\n\n# nobody yet\n",
        "double.csv": "name;e-mail\nbob;bob@example.org\n\ncarl;\nbob;\n",
        "github.csv": "name,email,login\nal,al@example.org,octocat\nbob,,\ncarl,c@example.org,\n",
        "illegal.csv": "name,email,key\nal,al@example.org\nBob Smith,\nroot,\n,no@example.org\ndora,dora\n"
        "emil,,keys/emil.pub\nfritz,AL@example.org\ngerd,g@example.org,,x\nrehearsal-1,\n",
        "header.csv": "Name,shoe size\nal,43\n",
        "quote.csv": 'name\n"al\n',
        "binary.csv": "name\nal\x00\n",
        "pins.txt": "numpy==2.4.6 # exactly\n\n--index-url https://example.org\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "latin1.csv").write_bytes(b"name\nandr\xe9\n")
    return tmp_path


def problems(folder: Path, bad: Bad) -> tuple[Problem, ...]:
    file = folder / "spec.yaml"
    body = bad.text if bad.text.startswith("{") or ":" not in bad.text else f"{{{bad.text}}}"
    start = "name: demo\n" if bad.more.startswith("cloud:") else OK
    file.write_text(f"{start}{bad.more or '#'}\njupyterhub: {body}\n")
    with pytest.raises(SpecError) as caught:
        ClusterSpec.load(file)
    assert SECRET not in str(caught.value)
    assert caught.value.__context__ is None or SECRET not in str(caught.value.__context__)
    return caught.value.problems


def test_the_table_is_long() -> None:
    assert len(TABLE) >= 80
    assert len({bad.id for bad in TABLE}) == len(TABLE)


@pytest.mark.parametrize("bad", TABLE, ids=lambda bad: bad.id)
def test_bad_hub(folder: Path, bad: Bad) -> None:
    found = problems(folder, bad)
    where = f"jupyterhub.{bad.where}".rstrip(".")
    matching = [p for p in found if p.where == where and bad.message in p.message and bad.remedy in p.remedy]
    assert matching, "\n".join(map(str, found))
    line = (3 if bad.more.startswith("cloud:") else 4) + bad.more.count("\n")
    assert matching[0].line == line
    assert matching[0].column >= 1
    assert all(text.isprintable() for problem in found for text in str(problem).splitlines())


@pytest.mark.parametrize("bad", [bad for bad in TABLE if "illegal.csv" not in bad.text], ids=lambda bad: bad.id)
def test_one_mistake_is_one_problem(folder: Path, bad: Bad) -> None:
    assert len(problems(folder, bad)) == 1


def test_every_wrong_line_of_a_csv_is_told_at_once(folder: Path) -> None:
    found = problems(folder, Bad("", "people: {csv: illegal.csv}", "", ""))
    lines = [int(match[1]) for problem in found if (match := re.search(r"line (\d+): ", problem.message))]
    assert lines == [3, 4, 5, 6, 7, 8, 9, 10]


def test_a_csv_that_is_all_wrong_does_not_fill_the_screen(folder: Path) -> None:
    (folder / "all.csv").write_text("A B\n" * 300)
    found = problems(folder, Bad("", "people: {csv: all.csv}", "", ""))
    assert len(found) == 21
    assert "all.csv, and 280 more lines" in found[-1].message


def test_a_class_without_logins_does_not_fill_the_screen_either(folder: Path) -> None:
    rows = "".join(f"p{n},p{n}@example.org\n" for n in range(127))
    (folder / "class.csv").write_text(f"name,email\n{rows}")
    spec = f"{{auth: {{method: METHOD, {PROVIDER}}}, people: {{csv: class.csv}}}}"
    found = problems(folder, Bad("", spec.replace("METHOD", "github"), "", ""))
    assert len(found) == 21
    assert found[-1].message.endswith("and 107 more lines without a login")
    assert hub(spec.replace("METHOD", "globus"), folder=folder).people.csv


def hub(text: str = "{}", more: str = "", *, folder: Path | None = None) -> HubSpec:
    found = ClusterSpec.from_yaml(f"{OK}jupyterhub: {text}\n{more}", folder=folder).jupyterhub
    assert found is not None
    return found


def test_nothing_is_needed() -> None:
    found = hub()
    assert found.auth.method == "shared-password"
    assert found.auth.allow.users
    assert found.profiles == (ProfileSpec(),)
    assert (found.profiles[0].cpus, found.profiles[0].memory, found.profiles[0].time) == (1, 1024, "8:00:00")
    assert found.idle.seconds == {"server": 3600, "kernel": 3600, "longest": 0}
    assert ClusterSpec(name="demo", cloud="local").jupyterhub is None


def test_the_key_alone_is_a_hub() -> None:
    alone = ClusterSpec.from_yaml(f"{OK}jupyterhub:\n  # people: {{count: 5}}\n")
    assert alone.jupyterhub == hub()
    assert "jupyterhub" not in ClusterSpec.from_yaml(OK).to_yaml()
    assert ClusterSpec(name="demo", cloud="local", jupyterhub=None).jupyterhub is None


def test_a_spec_without_a_hub_is_what_it_was_before_there_were_hubs() -> None:
    plain = ClusterSpec(name="demo", cloud="local")
    assert "jupyterhub" not in plain.canonical()
    assert plain.digest == "b61ea13f2bd9bc0d"


def test_what_was_read_needs_no_file_any_more(folder: Path) -> None:
    (folder / "class.csv").write_text(
        "\ufeffname,email,key\r\n\r\n# a comment\r\nal,al@example.org," + ED25519 + "\r\n"
    )
    (folder / "more.txt").write_text("xarray == 2025.9.0  # pinned\n\nzarr\n")
    (folder / "spec.yaml").write_text(
        f"{OK}jupyterhub:\n  people: {{csv: class.csv}}\n  environment: {{packages: [numpy], requirements: more.txt}}\n"
        "  auth: {password: {file: class.secret}}\n"
    )
    spec = ClusterSpec.load(folder / "spec.yaml")
    again = ClusterSpec.from_yaml(spec.to_yaml())
    assert again == spec
    assert again.digest == spec.digest
    found = again.jupyterhub
    assert found is not None
    assert found.environment.every == ("numpy", "xarray == 2025.9.0", "zarr")
    assert found.auth.password == SecretRef(file=str(folder / "class.secret"))
    assert found.people.csv is not None
    assert "\r" not in found.people.csv


@pytest.mark.parametrize(
    ("allow", "everybody"),
    [("{}", True), ("{users: true}", True), ("{organizations: []}", True), ("{organizations: [lab]}", False)],
)
def test_another_rule_takes_the_place_of_everybody(allow: str, everybody: bool) -> None:
    found = hub(f"{{auth: {{method: github, {PROVIDER}, allow: {allow}}}}}")
    assert found.auth.allow.users is everybody
    assert hub(f"{{auth: {found.auth.model_dump(mode='json', exclude_none=True)}}}").auth == found.auth


@pytest.mark.parametrize(
    "text",
    [
        "{domain: Hub.Example.org., email: me@example.org}",
        f"{{auth: {{method: cilogon, {PROVIDER}, options: {{idps: 'https://idp.example.edu/entity'}}}}}}",
        f"{{auth: {{method: globus, {PROVIDER}, allow: {{groups: [6b1c2f3e-6a0f-4c4e-9a53-0e3b1b0a7d11]}}}}}}",
        f"{{auth: {{method: oidc, {PROVIDER}, options: {{authorize_url: 'https://a/1', token_url: 'https://a/2', "
        "userdata_url: 'https://a/3'}}}",
        "{auth: {method: pam}}",
        "{auth: {method: native, admin_password: {env: A}}}",
        "{idle: {server: 0, kernel: 0, longest: 12h}}",
        "{environment: {packages: ['dask[complete]>=2025,<2026', 'x; python_version < \"3.13\"']}}",
        "{repository: {url: 'https://git.example.org/a/course.git', branch: 2026/spring, folder: course}}",
        "{class_size: 5, cpu_oversubscribe: 64}",
    ],
)
def test_these_are_right(text: str) -> None:
    found = hub(text)
    spec = ClusterSpec(name="demo", cloud="cloud9", jupyterhub=found)
    assert ClusterSpec.from_yaml(spec.to_yaml()) == spec


def test_a_secret_file_is_found_beside_the_spec_and_not_read_with_it(tmp_path: Path) -> None:
    found = hub("{auth: {password: {file: class.secret}}}", folder=tmp_path)
    assert found.auth.password == SecretRef(file=str(tmp_path / "class.secret"))
    with pytest.raises(SpecError, match="names a file"):
        hub("{auth: {password: {file: class.secret}}}")


K3S_SPEC = "name: demo\ncloud: cloud9\nscheduler: k3s\n"


@pytest.mark.parametrize(
    ("version", "taken"),
    [
        ("v1.29.15+k3s1", False),
        ("v1.30.11+k3s1", False),
        ("v1.30.12+k3s1", True),
        ("v1.31.7+k3s1", False),
        ("v1.32.4+k3s1", True),
        ("v1.33.0+k3s1", True),
    ],
)
def test_the_hub_s_chart_takes_a_k3s_that_keeps_its_secrets(version: str, taken: bool) -> None:
    source = f"binary: {{source: 'https://example.org/k3s', sha256: {'a' * 64}}}"
    text = f"{K3S_SPEC}k3s: {{version: {version}, {source}}}\njupyterhub:"
    if taken:
        assert ClusterSpec.from_yaml(text).jupyterhub is not None
        return
    with pytest.raises(SpecError) as caught:
        ClusterSpec.from_yaml(text)
    assert [problem.where for problem in caught.value.problems] == ["k3s.version"]
    assert "keeps no secrets" in caught.value.problems[0].message


def test_on_k3s_notebooks_are_not_on_the_group_of_the_hub_s_own_pods() -> None:
    groups = "workers: [{name: core}, {name: gpu, gpus: 1}]\n"
    found = ClusterSpec.from_yaml(f"{K3S_SPEC}{groups}jupyterhub: {{profiles: [{{gpus: 1}}]}}")
    assert found.jupyterhub is not None
    assert (group_of(found, found.jupyterhub.profiles[0]), first_group(["core"], "k3s")) == ("gpu", 0)
    assert first_group(["core", "cpu"], "slurm") == 0


def test_what_k3s_alone_has_changes_no_old_digest() -> None:
    assert hub().storage is None
    assert hub().environment.image is None
    assert ClusterSpec.from_yaml(f"{OK}jupyterhub: {{people: {{count: 3}}}}").digest == "9c9a6ae7e71a5970"
    kept = ClusterSpec.from_yaml(f"{K3S_SPEC}jupyterhub: {{storage: nfs, environment: {{image: 'a/b:1'}}}}")
    assert ClusterSpec.from_yaml(kept.to_yaml()) == kept
    assert kept.digest != ClusterSpec.from_yaml(f"{K3S_SPEC}jupyterhub:").digest
