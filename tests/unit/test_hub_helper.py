"""What root's helper does for the Hub with notebooks' jobs, and what it does not."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import io
import json
import pwd
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hub_kit import PROGRAMS, person, programs, write


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The helper as a module; ``did`` has what it ran as whom."""
    loader = importlib.machinery.SourceFileLoader("vcluster_notebook", str(PROGRAMS / "vcluster-notebook"))
    spec = importlib.util.spec_from_loader("vcluster_notebook", loader)
    assert spec
    module: Any = importlib.util.module_from_spec(spec)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    loader.exec_module(module)
    write(tmp_path)
    people = {"ann": person(10001), "root": person(0), "odd": person(10009)}
    removed = {"gone": person(10003, leaving=True), "recycled": person(10004)}
    (tmp_path / "people.json").write_text(json.dumps({"people": people, "removed": removed}))
    module.FOLDER = tmp_path
    uids = {"ann": 10001, "root": 0, "odd": 1000, "stranger": 10002, "gone": 10003, "recycled": 10005}

    def getpwnam(name: str) -> Any:
        if name not in uids:
            raise KeyError(name)
        return pwd.struct_passwd((name, "*", uids[name], uids[name], "", f"/home/{name}", "/bin/bash"))

    monkeypatch.setattr(module, "pwd", SimpleNamespace(getpwnam=getpwnam))
    module.did = []

    def run(argv: list[str], **how: Any) -> Any:
        module.did.append((argv, how))
        return SimpleNamespace(returncode=0, stdout="12;demo\n", stderr="")

    monkeypatch.setattr(module.subprocess, "run", run)
    monkeypatch.setattr(module.os, "getgrouplist", lambda _name, gid: [gid, 2500])
    return module


def asked(helper: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], request: Any) -> Any:
    text = request if isinstance(request, bytes) else json.dumps(request).encode()
    monkeypatch.setattr(helper.sys, "stdin", SimpleNamespace(buffer=io.BytesIO(text)))
    code = helper.main()
    answer = json.loads(capsys.readouterr().out)
    assert code == (1 if "error" in answer else 0)
    return answer


def test_a_job_is_submitted_as_its_user_within_the_profiles_limits(
    helper: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = {"JUPYTERHUB_API_TOKEN": "a-token", "LD_PRELOAD": "/x", "PATH": "/x", "SBATCH_EXCLUSIVE": "1"}
    request = {"do": "submit", "user": "ann", "profile": "large", "environment": environment}
    assert asked(helper, monkeypatch, capsys, request) == {"job": 12}
    [(argv, how)] = helper.did
    assert argv[0] == "sbatch"
    assert f"--job-name={helper.JOB_NAME}" in argv
    assert {"--cpus-per-task=2", "--mem=1024M", "--time=8:00:00", "--partition=cpu", "--no-requeue"} <= set(argv)
    assert (how["user"], how["group"], how["extra_groups"]) == (10001, 10001, [10001, 2500])
    assert how["env"]["JUPYTERHUB_API_TOKEN"] == "a-token"
    assert how["env"]["PATH"] == "/usr/local/bin:/usr/bin:/bin"
    assert not {"LD_PRELOAD", "SBATCH_EXCLUSIVE"} & set(how["env"])
    assert not any("a-token" in word for word in argv)
    assert "a-token" not in how["input"]


@pytest.mark.parametrize(
    "request_",
    [
        b"",
        b"[]",
        b"\xff",
        {"do": "run", "user": "ann"},
        {"do": "submit", "user": "root", "profile": "small", "environment": {}},
        {"do": "submit", "user": "odd", "profile": "small", "environment": {}},
        {"do": "submit", "user": "stranger", "profile": "small", "environment": {}},
        {"do": "submit", "user": ["ann"], "profile": "small", "environment": {}},
        {"do": "submit", "user": "ann", "profile": "huge", "environment": {}},
        {"do": "submit", "user": "ann", "profile": "small", "environment": {"A": 1}},
        {"do": "submit", "user": "ann", "profile": "small", "environment": "A=1"},
        {"do": "cancel", "user": "ann", "job": "7"},
        {"do": "cancel", "user": "ann", "job": -1},
        {"do": "cancel", "user": "ann", "job": True},
        {"do": "cancel", "user": "ann"},
        {"do": "cancel", "user": "stranger", "job": 7},
        {"do": "cancel", "user": "recycled", "job": 7},
        {"do": "submit", "user": "gone", "profile": "small", "environment": {}},
    ],
)
def test_what_the_hub_may_not_ask(
    helper: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], request_: Any
) -> None:
    assert set(asked(helper, monkeypatch, capsys, request_)) == {"error"}
    assert helper.did == []


def test_only_a_notebook_is_cancelled_and_as_its_user(
    helper: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert asked(helper, monkeypatch, capsys, {"do": "cancel", "user": "ann", "job": 7}) == {}
    [(argv, how)] = helper.did
    assert argv == ["scancel", "--quiet", "--name=jupyter-vcluster", "7"]
    assert how["user"] == 10001


def test_the_server_of_somebody_who_was_just_removed_can_be_ended(
    helper: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert asked(helper, monkeypatch, capsys, {"do": "cancel", "user": "gone", "job": 7}) == {}
    [(_argv, how)] = helper.did
    assert how["user"] == 10003


def test_the_hub_looks_for_what_the_helper_submits_and_asks_for_no_text_of_a_users(tmp_path: Path, helper: Any) -> None:
    """A name, a comment or a folder may hold what looks like another's row."""
    with programs(tmp_path, "hub_queue") as [queue]:
        assert queue.JOB_NAME == helper.JOB_NAME
        assert set(re.findall(r"%[^a-zA-Z]*([a-zA-Z])", queue.FIELDS)) == set("ATNur")
