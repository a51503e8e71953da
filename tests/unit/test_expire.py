"""The head's own program that shelves an expired cluster, run as it is against a small cloud on loopback."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from slurm_kit import parsed, site

from vcluster.actions import NOTE_EXPIRES
from vcluster.clouds.openstack import marks
from vcluster.model import PartKind, Role
from vcluster.stacks.slurm import SlurmStack

SITE = site(("cpu", 2), cloud="somewhere", expires="8h")
REF = SITE.ref
SECRET = "app-cred-secret"


@dataclass
class SmallCloud:
    """As much of Keystone, Neutron and Nova as the program asks for."""

    expires: list[str] = field(default_factory=list)
    head_mark: str = REF.tag(Role.HEAD)
    group_mark: str = REF.tag(PartKind.SECURITY_GROUP)
    broken: str = ""
    peers: dict[str, tuple[str, str]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    url: str = ""

    def answer(self, method: str, target: str, body: Any, token: str | None) -> tuple[int, Any]:
        parts = urlsplit(target)
        query = parse_qs(parts.query)
        self.requests.append(f"{method} {parts.path}")
        if parts.path == self.broken:
            return 503, {}
        if parts.path == "/identity/v3/auth/tokens":
            told = body["auth"]["identity"]["application_credential"]
            return (201, {"token": {"catalog": self.catalog()}}) if told["secret"] == SECRET else (401, {})
        return self.service(method, parts.path, query, body) if token == "a-token" else (401, {})

    def service(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> tuple[int, Any]:
        if path == "/network/v2.0/security-groups":
            return 200, {"security_groups": [group for group in self.groups() if group["name"] in query["name"]]}
        if method == "GET" and path == "/compute/v2.1/servers/own":
            return 200, {"server": {"id": "own", "metadata": {marks.MARK: self.head_mark}}}
        if method == "POST" and path.endswith("/action"):
            assert body == {"shelve": None}
        if method == "GET" and path == "/compute/v2.1/servers/detail":
            assert query["tags"] == [marks.server_tag(REF)]
            return 200, {"servers": [] if "marker" in query else self.servers()}
        return (204, None) if method == "DELETE" else (202, None)

    def groups(self) -> list[dict[str, Any]]:
        name, mark = marks.group_name(REF, "members"), marks.signed(REF, self.group_mark)
        tags = ["spec=abc", *(marks.note_tag(NOTE_EXPIRES, moment) for moment in self.expires)]
        return [
            {"id": "neighbour", "name": name, "description": "", "tags": [marks.note_tag(NOTE_EXPIRES, "1")]},
            {"id": "ours", "name": name, "description": mark, "tags": tags},
        ]

    def servers(self) -> list[dict[str, Any]]:
        def one(uuid: str, tag: str, group: str, status: str = "ACTIVE", task: str = "") -> dict[str, Any]:
            metadata = {marks.MARK: tag, marks.GROUP: group}
            return {"id": uuid, "metadata": metadata, "status": status, "OS-EXT-STS:task_state": task or None}

        worker = REF.tag(Role.WORKER)
        peers = [one(uuid, worker, "head", *state) for uuid, state in self.peers.items()]
        machines = [*peers, one("w1", worker, "cpu"), one("own", self.head_mark, "head"), one("w2", worker, "cpu")]
        # A neighbour may write our tag on his server; without our mark in its metadata it is his.
        return [*machines, {"id": "neighbours"}]

    def catalog(self) -> list[dict[str, Any]]:
        def places(path: str) -> list[dict[str, str]]:
            return [
                {"interface": "internal", "region": "here", "url": "http://127.0.0.1:1"},
                {"interface": "public", "region": "elsewhere", "url": "http://127.0.0.1:1"},
                {"interface": "public", "region": "here", "url": f"{self.url}{path}"},
            ]

        return [
            {"type": "compute", "endpoints": places("/compute/v2.1")},
            {"type": "network", "endpoints": places("/network")},
        ]


@pytest.fixture
def cloud() -> Iterator[SmallCloud]:
    small = SmallCloud()

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            code, content = small.answer(self.command, self.path, body, self.headers.get("X-Auth-Token"))
            data = b"" if content is None else json.dumps(content).encode()
            self.send_response(code)
            self.send_header("X-Subject-Token", "a-token")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_DELETE = _serve  # noqa: N815 - http.server's names

        def log_message(self, *_: object) -> None:
            """Nothing to say."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        small.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield small
        server.shutdown()
        thread.join()


@dataclass
class Head:
    """A head's disk, moved to a folder."""

    folder: Path
    cloud: SmallCloud

    def openrc(self, secret: str = SECRET, mode: int = 0o600, more: str = "export OS_REGION_NAME=here\n") -> None:
        file = self.folder / "openrc"
        file.write_text(
            "#!/usr/bin/env bash\n"
            f"export OS_AUTH_URL={self.cloud.url}/identity/v3/\n"
            "export OS_AUTH_TYPE=v3applicationcredential\n"
            'export OS_APPLICATION_CREDENTIAL_ID="an-id"\n'
            f"export OS_APPLICATION_CREDENTIAL_SECRET='{secret}'\n{more}"
        )
        file.chmod(mode)

    def run(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(self.folder / "vcluster-expire")],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    @property
    def drained(self) -> str:
        file = self.folder / "drained"
        return file.read_text() if file.exists() else ""


@pytest.fixture
def head(tmp_path: Path, cloud: SmallCloud) -> Head:
    _, files = parsed(SlurmStack().user_data(SITE, SITE.slots[0]))
    text = files["/usr/local/sbin/vcluster-expire"]["content"]
    text = text.replace("/etc/vcluster/secrets/openrc", str(tmp_path / "openrc"))
    text = text.replace("/var/lib/vcluster/cluster.json", str(tmp_path / "cluster.json"))
    text = text.replace("/var/lib/cloud/data/instance-id", str(tmp_path / "instance-id"))
    text = text.replace("/usr/local/sbin/vcluster-node", str(tmp_path / "helper"))
    (tmp_path / "vcluster-expire").write_text(text)
    (tmp_path / "cluster.json").write_text(files["/var/lib/vcluster/cluster.json"]["content"])
    (tmp_path / "instance-id").write_text("own\n")
    (tmp_path / "helper").write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/drained\n')
    (tmp_path / "helper").chmod(0o755)
    return Head(tmp_path, cloud)


PAST, FUTURE = str(int(time.time()) - 60), str(int(time.time()) + 36000)
CHANGES = [
    "DELETE /compute/v2.1/servers/w1",
    "DELETE /compute/v2.1/servers/w2",
    "POST /compute/v2.1/servers/own/action",
]


def test_an_expired_cluster_is_drained_its_workers_go_and_the_head_is_shelved(head: Head) -> None:
    head.openrc()
    head.cloud.expires = [PAST]
    done = head.run()
    assert (done.returncode, done.stderr) == (0, "")
    assert "demo expired" in done.stdout
    assert head.drained == "drain cpu-1 cpu-2 --reason expired\n"
    assert acts(head) == CHANGES
    assert SECRET not in done.stdout


def acts(head: Head) -> list[str]:
    return [request for request in head.cloud.requests if not request.startswith("GET")][1:]  # the first is Keystone's


ON, ERROR = ("ACTIVE", ""), ("ERROR", "")
GOES = [f"DELETE /compute/v2.1/servers/{name}" for name in ("w1", "w2")]
SHELVES = {name: f"POST /compute/v2.1/servers/{name}/action" for name in ("head-2", "head-3", "own")}


@pytest.mark.parametrize(
    ("peers", "shelved"),
    [
        ((ON, ON), ["head-2", "head-3"]),
        ((("SHUTOFF", ""), ("PAUSED", "")), ["head-2", "head-3"]),
        ((("SHELVED", ""), ON), ["head-3"]),
        ((("SHELVED_OFFLOADED", ""), ("SHELVED", "shelving_offloading")), []),
        ((("ACTIVE", "shelving"), ON), ["head-3"]),
        ((ERROR, ON), ["head-3"]),
        ((("ACTIVE", "deleting"), ON), ["head-3"]),
        # Both are most of the database: nobody knows what is left of it on these two disks.
        ((ERROR, ERROR), []),
        ((ERROR, ("ACTIVE", "deleting")), []),
        ((ERROR, ("SOFT_DELETED", "")), []),
    ],
)
def test_a_heads_peers_are_shelved_before_it_and_never_deleted(
    head: Head, peers: tuple[tuple[str, str], tuple[str, str]], shelved: list[str]
) -> None:
    head.openrc()
    head.cloud.expires = [PAST]
    head.cloud.peers = dict(zip(("head-2", "head-3"), peers, strict=True))
    done = head.run()
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 workers go" in done.stdout
    # The head stays to see that it is done: what the cloud took may fail later.
    assert acts(head) == [*GOES, *(SHELVES[name] for name in shelved or ["own"])]


@pytest.mark.parametrize("task", ["shelving", "shelving_image_pending_upload", "shelving_image_uploading"])
def test_the_head_waits_until_its_peers_are_on_the_shelf(head: Head, task: str) -> None:
    head.openrc()
    head.cloud.expires = [PAST]
    head.cloud.peers = {"head-2": ("ACTIVE", task), "head-3": ("SHELVED_OFFLOADED", "")}
    assert head.run().returncode == 0
    assert acts(head) == GOES
    head.cloud.requests.clear()
    head.cloud.peers["head-2"] = ("SHELVED", "shelving_offloading")
    assert head.run().returncode == 0
    assert acts(head)[-1] == SHELVES["own"]


def test_a_peer_that_is_not_shelved_keeps_the_head_to_try_again(head: Head) -> None:
    head.openrc()
    head.cloud.expires = [PAST]
    head.cloud.peers = {"head-2": ON, "head-3": ON}
    head.cloud.broken = "/compute/v2.1/servers/head-2/action"
    done = head.run()
    assert done.returncode == 1
    assert "POST /compute/v2.1/servers/head-2/action: 503" in done.stderr
    assert acts(head) == [*GOES, SHELVES["head-2"], SHELVES["head-3"]]


@pytest.mark.parametrize("moments", [[FUTURE], [], ["soon"], [PAST, FUTURE]])
def test_a_cluster_that_has_time_left_is_left_alone(head: Head, moments: list[str]) -> None:
    head.openrc()
    head.cloud.expires = moments
    done = head.run()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert head.cloud.requests == ["POST /identity/v3/auth/tokens", "GET /network/v2.0/security-groups"]
    assert head.drained == ""


def test_without_a_credential_nobody_is_asked(head: Head) -> None:
    assert head.run().returncode == 0
    assert head.cloud.requests == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"head_mark": "vcluster/0123456789/head"}, "is not this cluster's head"),
        ({"head_mark": REF.tag(Role.WORKER)}, "is not this cluster's head"),
        ({"group_mark": "vcluster/0123456789/security-group"}, "security group is gone"),
        ({"broken": "/network/v2.0/security-groups"}, "GET /network/v2.0/security-groups: 503"),
        ({"broken": "/identity/v3/auth/tokens"}, "POST /identity/v3/auth/tokens: 503"),
    ],
)
def test_what_is_not_certain_changes_nothing(head: Head, changes: dict[str, str], says: str) -> None:
    head.openrc()
    head.cloud.expires = [PAST]
    for name, value in changes.items():
        setattr(head.cloud, name, value)
    done = head.run()
    assert (done.returncode, done.stdout) == (1, "")
    assert says in done.stderr
    assert not set(CHANGES) & set(head.cloud.requests)


def test_a_wrong_secret_is_said_and_not_shown(head: Head) -> None:
    head.openrc(secret="hush-hush")
    done = head.run()
    assert done.returncode == 1
    assert "401" in done.stderr
    assert "hush-hush" not in done.stderr


def test_a_credential_that_others_may_read_is_refused(head: Head) -> None:
    head.openrc(mode=0o640)
    done = head.run()
    assert "mode 0600" in done.stderr
    assert head.cloud.requests == []


def test_a_file_of_a_password_is_refused_by_what_it_lacks(head: Head) -> None:
    head.openrc()
    (head.folder / "openrc").write_text("export OS_AUTH_URL=http://x\nexport OS_PASSWORD=p\n")
    done = head.run()
    assert "has no OS_APPLICATION_CREDENTIAL_ID, OS_APPLICATION_CREDENTIAL_SECRET" in done.stderr


def test_the_file_is_read_and_not_run(head: Head) -> None:
    head.openrc(more=f"export OS_REGION_NAME=here\nexport OS_X=$(touch {head.folder}/ran)\ntouch {head.folder}/ran\n")
    head.cloud.expires = [FUTURE]
    assert head.run().returncode == 0
    assert not (head.folder / "ran").exists()


def test_a_local_cluster_has_no_such_program() -> None:
    where = site()
    _, files = parsed(SlurmStack().user_data(where, where.slots[0]))
    assert not [path for path in files if "expire" in path]
