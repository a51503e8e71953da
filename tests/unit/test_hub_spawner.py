"""Notebooks as Slurm jobs: what the Hub asks Slurm, what it believes a notebook, and what root's helper does for it."""

from __future__ import annotations

import asyncio
import importlib.machinery
import importlib.util
import io
import json
import pwd
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hub_kit import FACTS, PROGRAMS, person, programs, write

RUNNING = "7|RUNNING|cpu-1|None|ann|vcluster"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[SimpleNamespace]:
    write(tmp_path)
    with programs(tmp_path, "vcluster_spawner", "hub_queue") as [spawner, queue]:
        yield SimpleNamespace(spawner=spawner, queue=queue)


class Log:
    def warning(self, *_words: Any) -> None: ...


def queue_of(hub: SimpleNamespace, folder: Path, script: str) -> Any:
    """A queue whose squeue is a script; it notes each call."""
    program = folder / "squeue"
    program.write_text(f"#!/bin/sh\necho call >> {folder}/calls\n{script}\n")
    program.chmod(0o755)
    return hub.queue.Queue([str(program)], Log())


def calls(folder: Path) -> int:
    return len((folder / "calls").read_text().splitlines()) if (folder / "calls").exists() else 0


# -- what Slurm says ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "jobs"),
    [
        ("", {}),
        (RUNNING, {7: ("RUNNING", "cpu-1")}),
        ("8|PENDING|cpu-1|Resources|bob|vcluster", {8: ("PENDING", "")}),
        ("9|COMPLETING|cpu-1|None|bob|vcluster", {}),
        (f"{RUNNING}\n8|CONFIGURING|cpu-2|None|bob|(null)", {7: ("RUNNING", "cpu-1"), 8: ("CONFIGURING", "cpu-2")}),
    ],
)
def test_jobs_that_are_not_over(hub: SimpleNamespace, text: str, jobs: dict[int, tuple[str, str]]) -> None:
    found = hub.queue.parse(text)
    assert {number: (job.state, job.node) for number, job in found.items()} == jobs


@pytest.mark.parametrize(
    "text", ["slurm_load_jobs error: Unable to contact", "x|RUNNING|cpu-1|None|ann|vcluster", "7|RUN"]
)
def test_what_is_no_answer_is_none(hub: SimpleNamespace, text: str) -> None:
    assert hub.queue.parse(text) is None


def test_one_squeue_answers_all(hub: SimpleNamespace, tmp_path: Path) -> None:
    queue = queue_of(hub, tmp_path, f"echo '{RUNNING}'")

    async def all_at_once() -> list[Any]:
        return await asyncio.gather(*(queue.look(2.0) for _ in range(127)))

    assert all(set(jobs) == {7} for jobs in asyncio.run(all_at_once()))
    assert calls(tmp_path) == 1


@pytest.mark.parametrize("script", ["exit 1", "echo 'slurm_load_jobs error'", "exec nothing-like-that"])
def test_a_slurm_that_is_away_is_asked_once_a_second_and_means_nothing(
    hub: SimpleNamespace, tmp_path: Path, script: str
) -> None:
    queue = queue_of(hub, tmp_path, script)

    async def all_at_once() -> list[Any]:
        return await asyncio.gather(*(queue.look(2.0) for _ in range(50)))

    assert asyncio.run(all_at_once()) == [None] * 50
    assert calls(tmp_path) <= 2


# -- a server's life ---------------------------------------------------------------------------------------------


class Queue:
    """Answers in turn; the last one stays."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)

    async def look(self, _age: float, _since: float = 0.0) -> Any:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@pytest.fixture
def server(hub: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A spawner without a Hub around it; ``asked`` has what the helper was asked."""
    monkeypatch.setattr(hub.spawner, "LOOK_STARTING", 0.01)
    spawner = hub.spawner.NotebookSpawner.__new__(hub.spawner.NotebookSpawner)
    hub.spawner.Shared.queue, hub.spawner.Shared.helpers = Queue({}), None
    spawner.cluster = FACTS
    for key, value in (("_waiting", False), ("_port", 0), ("_submitted", 0.0), ("_word", ""), ("asked", [])):
        object.__setattr__(spawner, key, value)
    object.__setattr__(spawner, "_arrived", asyncio.Event())
    spawner.orm_spawner = None
    spawner.user_options = {}
    object.__setattr__(spawner, "user", SimpleNamespace(name="ann"))

    async def help_me(**request: Any) -> dict[str, Any]:
        spawner.asked.append(request)
        return {"job": 7}

    object.__setattr__(spawner, "_help", help_me)
    object.__setattr__(spawner, "_environment", dict)
    monkeypatch.setattr(hub.spawner, "object_session", lambda _row: SimpleNamespace(commit=lambda: None))
    monkeypatch.setattr(type(spawner), "orm_spawner", SimpleNamespace(state=None), raising=False)
    monkeypatch.setattr(type(spawner), "_log_name", "ann", raising=False)
    return spawner


def jobs_of(hub: SimpleNamespace, text: str) -> Any:
    return hub.queue.parse(text)


def test_a_server_is_where_its_job_runs_at_the_port_that_it_told(hub: SimpleNamespace, server: Any) -> None:
    waits = jobs_of(hub, "7|PENDING|n/a|Resources|ann|vcluster")
    hub.spawner.Shared.queue = Queue(None, waits, jobs_of(hub, RUNNING))

    async def start() -> str:
        task = asyncio.create_task(server.start())
        while not server.told(40123):
            await asyncio.sleep(0.005)
        assert not server.told(40124)
        return await task

    assert asyncio.run(start()) == "http://10.77.0.11:40123"
    assert server.asked[0]["do"] == "submit"
    assert server.orm_spawner.state == {"job_id": "7"}
    assert not server.told(40125)


def test_a_job_that_ended_is_told_in_a_sentence(hub: SimpleNamespace, server: Any) -> None:
    hub.spawner.Shared.queue = Queue({})
    with pytest.raises(hub.spawner.SpawnException, match=r"Job 7 ended before the server was up"):
        asyncio.run(server.start())
    assert server.job_id == ""


@pytest.mark.parametrize(("job", "jobs", "status"), [("", {}, 1), ("7", None, None), ("7", {}, 0)])
def test_a_silent_slurm_ends_no_server(hub: SimpleNamespace, server: Any, job: str, jobs: Any, status: Any) -> None:
    server.job_id = job
    hub.spawner.Shared.queue = Queue(jobs)
    assert asyncio.run(server.poll()) == status


def test_no_job_is_cancelled_without_its_number(hub: SimpleNamespace, server: Any) -> None:
    server.job_id = ""
    asyncio.run(server.stop())
    assert server.asked == []
    server.job_id = "7"
    asyncio.run(server.stop())
    assert server.asked == [{"do": "cancel", "job": 7}]


@pytest.mark.parametrize(
    ("options", "profile"),
    [
        ({}, "small"),
        ({"profile": "large"}, "large"),
        ({"profile": "huge"}, "small"),
        ({"profile": ["large"]}, "small"),
        ({"profile": "large", "options": "--exclusive", "memory": "1T", "cpus": 64}, "large"),
    ],
)
def test_of_what_is_posted_only_a_profiles_name_counts(server: Any, options: Any, profile: str) -> None:
    server.user_options = options
    assert server.profile["name"] == profile


def test_what_the_watch_made_serves_spawners_too(hub: SimpleNamespace) -> None:
    shared = hub.spawner.Shared
    shared.ready(FACTS, Log())
    made = (shared.queue, shared.helpers)
    assert None not in made
    shared.ready(FACTS, Log())
    assert (shared.queue, shared.helpers) == made


@pytest.mark.parametrize("known", [True, False])
def test_a_job_of_no_server_is_cancelled_when_seen_twice(
    hub: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    asked: list[dict[str, Any]] = []

    async def helper(_command: Any, request: dict[str, Any]) -> dict[str, Any]:
        asked.append(request)
        return {}

    rows = [SimpleNamespace(state={"job_id": "7"} if known else {})]
    app = SimpleNamespace(log=Log(), db=SimpleNamespace(query=lambda _kind: rows))
    monkeypatch.setattr(hub.spawner, "ORPHANS_EVERY", 0.0)
    monkeypatch.setattr(hub.spawner, "ask_helper", helper)
    monkeypatch.setattr(hub.spawner.Shared, "queue", Queue(hub.queue.parse(RUNNING), hub.queue.parse(RUNNING), None))

    async def watched() -> None:
        task = asyncio.create_task(hub.spawner.watch(app, FACTS))
        for _ in range(50):
            await asyncio.sleep(0)
        task.cancel()

    asyncio.run(watched())
    assert asked == ([] if known else [{"do": "cancel", "user": "ann", "job": 7}])


def test_a_choice_is_offered_and_escaped(hub: SimpleNamespace) -> None:
    profiles = [{**FACTS["profiles"][0], "description": "<script>"}, FACTS["profiles"][1]]
    text = hub.spawner.form(profiles)
    assert text.count("<option") == 2
    assert "<script>" not in text


def test_batchspawners_hole_is_shut(hub: SimpleNamespace) -> None:
    from jupyterhub.apihandlers import default_handlers

    paths = [entry[0] for entry in default_handlers]
    assert "/api/vcluster/port" in paths
    assert not any("batchspawner" in path for path in paths)


# -- root's helper -----------------------------------------------------------------------------------------------


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
    (tmp_path / "people.json").write_text(json.dumps({"people": people}))
    module.FOLDER = tmp_path
    uids = {"ann": 10001, "root": 0, "odd": 1000, "stranger": 10002}

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
    assert argv == ["scancel", "--quiet", "--name=jupyter", "7"]
    assert how["user"] == 10001


# -- a user's own environments -----------------------------------------------------------------------------------


def test_environments_with_a_kernel_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stub: Any = ModuleType("jupyter_client.kernelspec")
    stub.KernelSpecManager = type("KernelSpecManager", (), {})
    monkeypatch.setitem(sys.modules, "jupyter_client", ModuleType("jupyter_client"))
    monkeypatch.setitem(sys.modules, "jupyter_client.kernelspec", stub)
    for place, name, kernel in ((".venvs", "My Work", True), ("miniforge3/envs", "r", True), (".venvs", "bare", False)):
        folder = tmp_path / place / name
        (folder / "bin").mkdir(parents=True)
        (folder / "bin/python").touch()
        if kernel:
            package = folder / "lib/python3.11/site-packages/ipykernel"
            package.mkdir(parents=True)
            (package / "__main__.py").touch()
    write(tmp_path)
    with programs(tmp_path, "vcluster_kernels") as [kernels]:
        assert kernels.environments(tmp_path) == {
            "env-my-work": str(tmp_path / ".venvs/My Work/bin/python"),
            "env-r": str(tmp_path / "miniforge3/envs/r/bin/python"),
        }
