"""What a Hub adds to a Slurm cluster's machines: complete, and secrets where they belong."""

from __future__ import annotations

import ast
import base64
import gzip
import json
import re
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hub_kit import PROGRAMS
from slurm_kit import KEY, parsed, site

from vcluster.model import Role
from vcluster.render import render
from vcluster.stacks import jupyterhub
from vcluster.stacks.slurm import SlurmStack
from vcluster.stacks.userdata import lean

LIBRARY = "/usr/local/lib/vcluster/jupyterhub"
NOVA = 48 * 1024


def files(role: Role, secrets: Mapping[str, str] | None = None, **hub: Any) -> dict[str, str]:
    """The files of a machine by path, as text."""
    where = replace(site(jupyterhub=hub), secrets=secrets or {})
    slot = next(slot for slot in where.slots if slot.role is role)
    found = parsed(SlurmStack().user_data(where, slot))[1]
    return {
        path: base64.b64decode(file["content"]).decode("utf-8", "replace") if file.get("encoding") else file["content"]
        for path, file in found.items()
    }


@pytest.fixture(scope="module")
def head() -> dict[str, str]:
    return files(Role.HEAD)


@pytest.fixture(scope="module")
def worker() -> dict[str, str]:
    return files(Role.WORKER)


def test_without_a_hub_there_is_nothing_of_it() -> None:
    where = site()
    for slot in where.slots[:2]:
        text = SlurmStack().user_data(where, slot)
        assert "AuthorizedKeysFile" not in text
        assert not re.search(r"(?i)caddy|extrausers|srv/shared|opt/vcluster|vcluster-notebook", text)


def test_programs_are_whole(head: dict[str, str], worker: dict[str, str]) -> None:
    github = {"method": "github", "client_id": "abcdefgh", "client_secret": {"env": "S"}}
    others = (
        files(Role.HEAD, {"client_secret": "s"}, auth=auth)
        for auth in ({"method": "native"}, {"method": "firstuse"}, github)
    )
    every = {**head, **worker, **{path: text for each in others for path, text in each.items()}}
    for path, text in every.items():
        if (path.startswith(LIBRARY) and not path.endswith("prolog")) or re.search(
            r"sbin/vcluster-(hub|notebook)$", path
        ):
            ast.parse(text, path)
    named = {path.rsplit("/", 1)[1] for path in every}
    assert {path.name for path in PROGRAMS.glob("*.py")} <= named


def test_no_template_is_left_as_it_is(head: dict[str, str], worker: dict[str, str]) -> None:
    for path, text in {**head, **worker}.items():
        if not path.endswith("install.sh"):
            assert not re.search(r"\{%|\{\{ ", text), path


def test_shell_is_shell(head: dict[str, str], worker: dict[str, str]) -> None:
    for texts in (head, worker):
        for path in ("/usr/local/sbin/vcluster-configure", "/usr/local/lib/vcluster/install.sh"):
            done = subprocess.run(["bash", "-n"], input=texts[path], text=True, capture_output=True, check=False)
            assert done.returncode == 0, done.stderr


def test_all_that_a_unit_starts_is_there(head: dict[str, str], worker: dict[str, str]) -> None:
    for texts in (head, worker):
        for path, text in texts.items():
            if not path.startswith("/etc/systemd") and path != "/etc/slurm/slurm.conf":
                continue
            for wanted in re.findall(rf"({LIBRARY}/\S+|/usr/local/sbin/\S+)", text):
                assert wanted in {**head, **worker}, f"{path} wants {wanted}"


SSHD = "/etc/ssh/sshd_config.d/20-vcluster-people.conf"


def test_who_may_come_by_ssh_is_roots_matter(head: dict[str, str], worker: dict[str, str]) -> None:
    """The spec's users are in no group yet while a machine boots for the first time."""
    for text in (head[SSHD], worker[SSHD]):
        assert "Match Group notebooks\n  AuthorizedKeysFile /etc/vcluster/keys/%u\n" in text
        assert "Match User" not in text
    where = site(users=[{"name": "alice", "ssh_keys": [KEY]}, {"name": "bob"}], jupyterhub={})
    for slot in where.slots[:2]:
        found = parsed(SlurmStack().user_data(where, slot))[1]
        assert found[SSHD]["content"].endswith("Match User alice,bob\n  AuthorizedKeysFile none\n")
        assert ("/etc/vcluster/keys/alice" in found) == (slot.role is Role.HEAD)


def test_on_a_worker_nothing_starts_outside_a_job(worker: dict[str, str]) -> None:
    text = worker["/usr/local/sbin/vcluster-configure"]
    assert "echo root | tee /etc/cron.allow > /etc/at.allow\nsystemctl -q mask user@.service\n" in text


def test_a_heads_services_outlive_what_people_start_there(head: dict[str, str]) -> None:
    slices = {path: text for path, text in head.items() if ".slice.d/" in path}
    assert {path.split("/")[-2]: text.split()[-1] for path, text in slices.items()} == {
        "user-.slice.d": "MemoryMax=25%",
        "user-2000.slice.d": "MemoryMax=infinity",
    }
    assert len({path.split("/")[-1] for path in slices}) == 1, "the administrator's does not stand for the other"
    for name in ("jupyterhub.service", "jupyterhub-proxy.service", "slurmctld.service.d/vcluster.conf"):
        assert "OOMScoreAdjust=-900" in head[f"/etc/systemd/system/{name}"]
    assert "OOMScoreAdjust=-900" in head["/etc/systemd/system/caddy.service.d/vcluster.conf"]


def test_a_worker_knows_no_secret_of_the_hub(head: dict[str, str], worker: dict[str, str]) -> None:
    env = head["/etc/vcluster/secrets/jupyterhub.env"] + head["/etc/vcluster/secrets/proxy.env"]
    passwords = json.loads(head["/etc/vcluster/hub/passwords.initial.json"])
    secrets = {line.split("=", 1)[1] for line in env.splitlines()} | {word for word in passwords.values() if word}
    assert len(secrets) == 6
    for secret in secrets:
        assert len(secret) >= 16
        assert not any(secret in text for text in worker.values())
        holders = {path for path, text in head.items() if secret in text}
        assert holders <= {
            "/etc/vcluster/secrets/jupyterhub.env",
            "/etc/vcluster/secrets/proxy.env",
            "/etc/vcluster/hub/passwords.initial.json",
        }


def test_the_proxy_knows_its_own_token_alone(head: dict[str, str]) -> None:
    """Whoever broke into what everybody comes through would else do anything in the Hub."""
    names = [line.partition("=")[0] for line in head["/etc/vcluster/secrets/proxy.env"].splitlines()]
    assert names == ["CONFIGPROXY_AUTH_TOKEN"]


def test_secrets_are_nobodys_but_roots_and_the_hubs() -> None:
    where = site(jupyterhub={})
    found = parsed(SlurmStack().user_data(where, where.slots[0]))[1]
    modes = {path: file["permissions"] for path, file in found.items()}
    assert {modes[f"/etc/vcluster/secrets/{name}.env"] for name in ("jupyterhub", "proxy")} == {"0600"}
    assert {modes[path] for path in modes if path.startswith("/etc/vcluster/hub/")} == {"0640"}
    assert modes["/etc/sudoers.d/vcluster-jupyterhub"] == "0440"
    assert modes["/usr/local/sbin/vcluster-notebook"] == "0700"


def test_the_class_password_is_readable_and_stays(head: dict[str, str]) -> None:
    word = json.loads(head["/etc/vcluster/hub/passwords.initial.json"])["class"]
    assert re.fullmatch(r"([a-hjkmnp-z2-9]{4}-){3}[a-hjkmnp-z2-9]{4}", word)
    assert json.loads(files(Role.HEAD)["/etc/vcluster/hub/passwords.initial.json"])["class"] == word


def test_passwords_of_the_users_choice() -> None:
    given = {"password": "our-own-class-word", "admin_password": "an-admins-own-password"}
    auth = {"password": {"env": "A"}, "admin_password": {"env": "B"}}
    found = files(Role.HEAD, given, auth=auth)
    passwords = json.loads(found["/etc/vcluster/hub/passwords.initial.json"])
    assert (passwords["class"], passwords["admin"]) == ("our-own-class-word", "an-admins-own-password")
    assert "our-own-class-word" not in found["/var/lib/vcluster/spec.yaml"]


def test_pam_has_a_service_of_its_own_that_holds_nobody_up(head: dict[str, str]) -> None:
    path = "/etc/pam.d/vcluster-jupyterhub"
    assert path not in head
    text = files(Role.HEAD, auth={"method": "pam"})[path]
    rules = [line for line in text.splitlines() if not line.startswith("#")]
    assert rules == ["auth required pam_unix.so nodelay", "@include common-account"]
    assert 'own.service = "vcluster-jupyterhub"' in head[f"{LIBRARY}/hub_login.py"]


def test_what_a_visitor_says_of_where_they_are_does_not_get_through_the_front_door(head: dict[str, str]) -> None:
    values = {"cluster": "demo", "domain": "hub.example.org", "email": None, "proxy_port": 8000}
    for text in (head["/etc/caddy/Caddyfile"], render("jupyterhub/Caddyfile.j2", **values)):
        assert re.search(r"reverse_proxy [^}]*header_up -X-Real-Ip", text)


def test_a_client_secret_is_as_systemd_reads_it() -> None:
    auth = {"method": "github", "client_id": "abcdefgh", "client_secret": {"env": "S"}}
    found = files(Role.HEAD, {"client_secret": 'a"b\\c$d e'}, auth=auth)
    line = next(x for x in found["/etc/vcluster/secrets/jupyterhub.env"].splitlines() if "CLIENT" in x)
    assert line == 'VCLUSTER_CLIENT_SECRET="a\\"b\\\\c\\$d e"'
    assert sum('a"b' in text or 'a\\"b' in text for text in found.values()) == 1


def test_facts_name_each_worker_that_may_ever_be(head: dict[str, str]) -> None:
    facts = json.loads(head["/etc/vcluster/hub/hub.json"])
    assert facts["nodes"] == {"cpu-1": "10.77.0.11", "cpu-2": "10.77.0.12"}
    assert facts["profiles"][0]["partition"] == "cpu"
    assert facts["fits"] == {"cpu": min(2, 4096 * 95 // 100 // 1024)}
    assert facts["capacity"] == 2 * facts["fits"]["cpu"]


def test_processors_are_shared_where_notebooks_run_and_nowhere_else() -> None:
    hub = {"cpu_oversubscribe": 3, "profiles": [{"name": "a", "partition": "big"}]}
    where = site(("cpu", 1), ("big", 1), jupyterhub=hub)
    conf = parsed(SlurmStack().user_data(where, where.slots[0]))[1]["/etc/slurm/slurm.conf"]["content"]
    lines = {line.split()[0]: line for line in conf.splitlines() if line.startswith("PartitionName=")}
    assert lines["PartitionName=big"].endswith("OverSubscribe=FORCE:3")
    assert "OverSubscribe" not in lines["PartitionName=cpu"] + lines["PartitionName=vcluster-probe"]
    assert "default_queue_depth=1000" in conf


@pytest.mark.parametrize("method", ["shared-password", "native", "firstuse", "pam", "github"])
def test_a_class_of_127_fits_into_novas_user_data(method: str) -> None:
    auth = {"client_id": "abcdefgh", "client_secret": {"env": "S"}} if method == "github" else {}
    hub = {"people": {"count": 127, "quota": "300M"}, "class_size": 80, "auth": {"method": method, **auth}}
    where = replace(site(("cpu", 40), jupyterhub=hub), secrets={"client_secret": "s" * 40})
    text = SlurmStack().user_data(where, where.slots[0])
    assert len(gzip.compress(text.encode(), mtime=0)) < NOVA
    # Each has what its way to log in needs, and not what others do.
    ways = {"vcluster_own.py", "vcluster_native.py", "vcluster_firstuse.py", "vcluster_provider.py"}
    wanted = {
        "native": {"vcluster_own.py", "vcluster_native.py"},
        "firstuse": {"vcluster_own.py", "vcluster_firstuse.py"},
        "github": {"vcluster_provider.py"},
    }
    assert {path.rpartition("/")[2] for path in parsed(text)[1]} & ways == wanted.get(method, set())


def test_people_are_in_the_first_list(head: dict[str, str]) -> None:
    where = site(
        users=[{"name": "alice", "ssh_keys": [KEY]}],
        jupyterhub={
            "people": {"csv": f"name,email,key\ndora,d@example.org,{KEY}"},
            "instructors": ["teacher"],
            "admins": ["alice"],
        },
    )
    found = parsed(SlurmStack().user_data(where, where.slots[0]))[1]
    people = json.loads(found["/etc/vcluster/hub/people.initial.json"]["content"])["people"]
    assert {name: (entry["uid"], entry["kind"]) for name, entry in people.items()} == {
        "alice": (2001, "user"),
        "dora": (10001, "student"),
        "teacher": (10002, "instructor"),
    }
    assert people["dora"]["keys"][0].startswith("ssh-ed25519 ")
    assert people["alice"]["admin"]
    assert "keys" not in people["alice"]


def test_the_install_script_names_no_cluster_and_holds_the_pins() -> None:
    one, other = (
        SlurmStack().install_script(site(name=name, jupyterhub={"people": {"count": n}}).spec)
        for name, n in (("demo", 1), ("other", 9))
    )
    assert one == other
    assert one != SlurmStack().install_script(site().spec)
    assert re.search(r"(?m)^# disk: \d+G$", one)
    for name in ("hub.txt", "user.txt", "node.txt", "package-lock.json"):
        assert (PROGRAMS / name).read_text().strip() in one


def test_a_sites_authority_is_believed_by_pip_and_node() -> None:
    without = SlurmStack().install_script(site(jupyterhub={}).spec)
    pem = "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n"
    spec = site(jupyterhub={}).spec
    ours = spec.mirrors.model_copy(update={"ca": pem})
    with_ca = SlurmStack().install_script(spec.model_copy(update={"mirrors": ours}))
    assert "PIP_CERT" not in without
    assert with_ca.index("export PIP_CERT=") < with_ca.index("hub_install()")
    assert "export NODE_EXTRA_CA_CERTS=" in with_ca


def test_own_packages_are_asked_for_beside_the_pins() -> None:
    hub = {"environment": {"packages": ["xarray==2025.9.0"], "requirements": "dask\nzarr"}}
    text = SlurmStack().install_script(site(jupyterhub=hub).spec)
    part = text.split("own_packages() {")[1].split("END_OF_PACKAGES\n}")[0]
    assert part.split()[-3:] == ["xarray==2025.9.0", "dask", "zarr"]


def test_pins_are_complete_and_name_no_registry() -> None:
    for name in ("hub.txt", "user.txt", "node.txt"):
        lines = [line for line in (PROGRAMS / name).read_text().splitlines() if not line.startswith("#")]
        assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][A-Za-z0-9.]*", line) for line in lines)
    lock = json.loads((PROGRAMS / "package-lock.json").read_text())
    assert all("integrity" in package for path, package in lock["packages"].items() if path)
    assert not any("resolved" in package for package in lock["packages"].values())
    hub, user = ((PROGRAMS / name).read_text() for name in ("hub.txt", "user.txt"))
    for line in user.splitlines():
        if line.startswith(("jupyterhub==", "SQLAlchemy==", "tornado==")):
            assert line in hub.splitlines()


PROGRAM = '''#!/usr/bin/python3
"""What it does."""

import os  # beside

# alone


class A(Exception):
    """Nothing more."""

    x = "# no comment"

    def f(self):
        """Said."""
        return """one

# two
"""
'''


def test_a_lean_program_does_the_same() -> None:
    text = lean(PROGRAM)
    assert text.startswith("#!/usr/bin/python3\nimport os  # beside\n")
    assert '"""What' not in text
    assert "# alone" not in text
    space: dict[str, Any] = {}
    exec(text, space)
    assert space["A"]().f() == "one\n\n# two\n"
    assert space["A"].x == "# no comment"
    assert lean("class A:\n    '''Nothing.'''\n") == "class A:\n    pass\n"


def test_every_program_is_the_same_when_lean() -> None:
    def said(each: ast.stmt) -> bool:
        return isinstance(each, ast.Pass) or (isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant))

    def bare(text: str) -> str:
        tree = ast.parse(text)
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if isinstance(body, list):
                body[:] = [each for each in body if not said(each)]
        return ast.dump(tree)

    paths = [
        *PROGRAMS.glob("*.py"),
        *(PROGRAMS / name for name in ("notebook", "hub-sync", "vcluster-hub", "vcluster-notebook")),
    ]
    for path in paths:
        assert bare(lean(path.read_text())) == bare(path.read_text()), path


def test_no_program_is_too_long() -> None:
    for path in filter(Path.is_file, PROGRAMS.iterdir()):
        assert len(path.read_text().splitlines()) < 400, path
    assert jupyterhub.FOLDER == "/etc/vcluster/hub"
