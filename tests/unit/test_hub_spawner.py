"""Notebooks as Slurm jobs: what the Hub asks Slurm, and what it believes a notebook."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hub_kit import FACTS, programs, write
from sqlalchemy.exc import SQLAlchemyError

HOSTILE = (
    "9_[1-3]|PENDING||bob|None",
    "²|RUNNING|cpu-2|bob|None",
    "9+1|RUNNING|cpu-2|bob|None",
    "9|x",
    "\x0b7|b|c|d|e",
)
RUNNING = "7|RUNNING|cpu-1|ann|None"


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
        ("8|PENDING|cpu-1|bob|Resources", {8: ("PENDING", "")}),
        ("8|PENDING||bob|(a|b)", {8: ("PENDING", "")}),
        ("9|COMPLETING|cpu-1|bob|None", {}),
        (f"{RUNNING}\n8|CONFIGURING|cpu-2|bob|None", {7: ("RUNNING", "cpu-1"), 8: ("CONFIGURING", "cpu-2")}),
        # What a user could bring about hides nobody's row, and stops nobody.
        *((f"{line}\n{RUNNING}\n{line}", {7: ("RUNNING", "cpu-1")}) for line in HOSTILE),
    ],
)
def test_jobs_that_are_not_over(hub: SimpleNamespace, text: str, jobs: dict[int, tuple[str, str]]) -> None:
    found = hub.queue.parse(text)
    assert {number: (job.state, job.node) for number, job in found.items()} == jobs


@pytest.mark.parametrize(
    "text", ["slurm_load_jobs error: Unable to contact", "x|RUNNING|cpu-1|ann|None", "7|RUN", *HOSTILE]
)
def test_what_is_no_answer_is_none(hub: SimpleNamespace, text: str) -> None:
    assert hub.queue.parse(text) is None


def test_one_squeue_answers_all(hub: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = queue_of(hub, tmp_path, f"echo '{RUNNING}'")
    monkeypatch.setattr(hub.queue, "time", SimpleNamespace(monotonic=lambda: 1000.0))  # all ask in one moment

    async def all_at_once() -> list[Any]:
        return await asyncio.gather(*(queue.look(2.0) for _ in range(127)))

    assert all(set(jobs) == {7} for jobs in asyncio.run(all_at_once()))
    assert calls(tmp_path) == 1


@pytest.mark.parametrize("script", ["exit 1", "echo 'slurm_load_jobs error'", "exec nothing-like-that"])
def test_a_slurm_that_is_away_is_asked_once_a_second_and_means_nothing(
    hub: SimpleNamespace, tmp_path: Path, script: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = queue_of(hub, tmp_path, script)
    now = [1000.0]
    monkeypatch.setattr(hub.queue, "time", SimpleNamespace(monotonic=lambda: now[0]))

    async def all_at_once() -> None:
        for count in (1, 2):
            assert await asyncio.gather(*(queue.look(2.0) for _ in range(50))) == [None] * 50
            assert calls(tmp_path) == count
            now[0] += 1.1

    asyncio.run(all_at_once())


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
    own = {"_waiting": False, "_port": 0, "_submitted": 0.0, "_word": "", "asked": []}
    for key, value in own.items():
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
    waits = jobs_of(hub, "7|PENDING||ann|Resources")
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
    assert server.told(40123)  # whose answer was lost on the way


def test_a_job_that_ended_is_told_in_a_sentence(hub: SimpleNamespace, server: Any) -> None:
    hub.spawner.Shared.queue = Queue({})
    with pytest.raises(hub.spawner.SpawnException, match=r"Job 7 ended before the server was up"):
        asyncio.run(server.start())
    assert server.job_id == ""


def test_a_job_of_somebody_else_is_no_server(hub: SimpleNamespace, server: Any) -> None:
    hub.spawner.Shared.queue = Queue(jobs_of(hub, "7|RUNNING|cpu-2|bob|None"))
    server.job_id = "7"
    assert asyncio.run(server.poll()) == 0

    async def start() -> None:
        task = asyncio.create_task(server.start())
        while not task.done() and not server.told(40123):
            await asyncio.sleep(0.005)
        await task

    with pytest.raises(hub.spawner.SpawnException, match="Job 7 ended before the server was up"):
        asyncio.run(start())


@pytest.mark.parametrize(("job", "jobs", "status"), [("", {}, 1), ("7", None, None), ("7", {}, 0)])
def test_a_silent_slurm_ends_no_server(hub: SimpleNamespace, server: Any, job: str, jobs: Any, status: Any) -> None:
    server.job_id = job
    hub.spawner.Shared.queue = Queue(jobs)
    assert asyncio.run(server.poll()) == status


@pytest.mark.parametrize(
    ("row", "lost"),
    [
        (RUNNING, False),
        ("7|SUSPENDED|cpu-1|ann|None", False),
        ("7|PENDING||ann|BeginTime", True),
        ("7|COMPLETING|cpu-1|ann|None", True),  # it may be queued again when that is done
        ("7|PENDING||bob|BeginTime", True),  # somebody else's; the helper cancels nobody's but ann's
    ],
)
def test_a_job_that_slurm_queues_once_more_is_no_server_and_is_cancelled(
    hub: SimpleNamespace, server: Any, row: str, lost: bool
) -> None:
    hub.spawner.Shared.queue = Queue(jobs_of(hub, RUNNING))

    async def start() -> None:
        task = asyncio.create_task(server.start())
        while not server.told(40123):
            await asyncio.sleep(0.005)
        await task

    asyncio.run(start())
    server.asked.clear()
    hub.spawner.Shared.queue = Queue(jobs_of(hub, row))
    assert [asyncio.run(server.poll()), asyncio.run(server.poll())] == ([0, 1] if lost else [None, None])
    assert server.asked == ([{"do": "cancel", "job": 7}] if lost else [])


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

    rows, full = [SimpleNamespace(state={"job_id": "7"} if known else {})], [SQLAlchemyError("the disk is full")]

    def query(_kind: Any) -> list[SimpleNamespace]:
        if full:
            raise full.pop()
        return rows

    app = SimpleNamespace(log=Log(), db=SimpleNamespace(query=query))
    monkeypatch.setattr(hub.spawner, "ORPHANS_EVERY", 0.0)
    monkeypatch.setattr(hub.spawner, "ask_helper", helper)
    monkeypatch.setattr(hub.spawner.Shared, "queue", Queue(*[hub.queue.parse(RUNNING)] * 3, None))

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
