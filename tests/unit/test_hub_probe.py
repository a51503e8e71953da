"""Ready means that the Hub started a server: once for each boot of the head, and never in people's way."""

from __future__ import annotations

import fcntl
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hub_head_kit import Head, head

from vcluster import Cluster, ClusterSpec
from vcluster.clouds.memory import MemoryCloud
from vcluster.clouds.memory_hub import PretendedHub
from vcluster.errors import CancelledError, DeadlineError, TemporaryError
from vcluster.events import Event, Log
from vcluster.hub import Hub

__all__ = ["head"]

# On the head --------------------------------------------------------------------------------------------------------


@pytest.fixture
def module(head: Head, monkeypatch: pytest.MonkeyPatch) -> Any:
    head.module("hub_people").init()
    found = head.module("hub_probe")
    monkeypatch.setattr(found.time, "sleep", lambda _: None)
    return found


def nothing_is_left(head: Head) -> bool:
    homes = head.root / "home/.rehearsal"
    known = head.read("people.json")["people"]
    accounts = (head.root / "var/lib/extrausers/passwd").read_text()
    no_home = not homes.exists() or not any(homes.iterdir())
    return "rehearsal-probe" not in {**head.hub.users, **known} and "rehearsal" not in accounts and no_home


def started(head: Head) -> int:
    return head.hub.asked.count(("POST", "/hub/api/users/rehearsal-probe/server"))


def test_a_server_is_started_and_taken_away_once_a_boot(head: Head, module: Any) -> None:
    head.program("squeue", 'case "$*" in *--user*) echo "RUNNING|None|cpu-2";; esac')
    assert not module.proved()
    told = module.probe({"seconds": 60})
    assert (told["host"], told["skipped"], told["problem"]) == ("cpu-2", "", "")
    assert told["seconds"] >= 0
    assert nothing_is_left(head)
    assert "scancel --quiet --user=rehearsal-probe" in head.called()
    assert module.proved()
    assert module.probe({}) == told
    assert started(head) == 1
    head.booted("second-boot")
    assert not module.proved()
    module.probe({})
    assert started(head) == 2


def test_it_has_an_account_while_it_runs_and_no_password(head: Head, module: Any) -> None:
    seen: list[str] = []

    def start(user: dict[str, Any]) -> tuple[int, Any]:
        seen.append((head.root / "var/lib/extrausers/passwd").read_text())
        seen.append(str((head.root / "home/.rehearsal/rehearsal-probe").is_dir()))
        user["servers"] = {"": {"ready": True}}
        return 202, None

    head.hub.start = start
    module.probe({})
    assert seen == ["rehearsal-probe:*:60000:60000::/home/.rehearsal/rehearsal-probe:/bin/bash\n", "True"]
    assert head.read("passwords.json")["rehearsal"] is None


def people_work(head: Head, since: float, count: int = 1, ready: bool = True) -> None:
    moment = datetime.fromtimestamp(since, UTC).isoformat()
    server = {"ready": ready, "started": moment}
    head.hub.users = {f"ann{n}": {"servers": {"": server}, "last_activity": None} for n in range(count)}


def test_people_whose_servers_started_since_the_boot_are_proof(head: Head, module: Any) -> None:
    people_work(head, time.time() - 30)
    assert module.probe({})["skipped"] == "people's servers run"
    assert (started(head), module.proved()) == (0, True)


def test_servers_that_a_reboot_outlived_prove_nothing(head: Head, module: Any) -> None:
    people_work(head, time.time() - 3600)
    assert module.probe({})["skipped"] == ""
    assert (started(head), module.proved()) == (1, True)


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        ("rehearsal", "a rehearsal is going on"),
        ("full", "no room is left"),
        ("queue", "jobs wait for the workers"),
        ("workers", "no worker is there for it"),
        ("busy", "the Hub is busy with people's servers"),
    ],
)
def test_it_is_in_nobodys_way(head: Head, module: Any, trouble: str, said: str) -> None:
    match trouble:
        case "rehearsal":
            head.module("hub_front").leaf()
            head.module("hub_rehearsal").begin({"users": 2})
        case "full":
            people_work(head, time.time() - 3600, count=12)
        case "queue":
            head.program("squeue", 'case "$*" in *PENDING*) echo 17;; esac')
        case "workers":
            head.program("sinfo")
        case _:
            head.hub.start = lambda _: (429, {"message": "too many"})
    before = set(head.read("people.json")["people"])
    assert module.probe({})["skipped"] == said
    assert not module.proved()
    assert set(head.read("people.json")["people"]) == before
    assert "rehearsal-probe" not in head.hub.users


def pending(user: dict[str, Any]) -> tuple[int, Any]:
    user["servers"] = {"": {"ready": False}}
    return 202, None


def test_it_does_not_wait_behind_other_peoples_jobs(head: Head, module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUEUE_SECONDS", 0.05)
    head.hub.start = pending
    head.program(
        "squeue",
        'case "$*" in *--user*) echo "PENDING|Resources|";; *RUNNING*) echo ann;; esac',
    )
    assert module.probe({"seconds": 60})["skipped"] == "the workers are busy with other jobs"
    assert nothing_is_left(head)
    assert not module.proved()


def test_a_job_that_waits_for_no_reason_of_others_is_a_failure(head: Head, module: Any) -> None:
    head.hub.start = pending
    head.program("squeue", 'case "$*" in *--user*) echo "PENDING|PartitionConfig|";; esac')
    with pytest.raises(module.Sorry, match=r"none was ready within 0 seconds: its job is PENDING \(PartitionConfig\)"):
        module.probe({"seconds": 0.01})
    assert nothing_is_left(head)


def test_a_server_that_does_not_start_is_told_with_the_hubs_words_and_its_own(head: Head, module: Any) -> None:
    def start(user: dict[str, Any]) -> tuple[int, Any]:
        log = head.root / "home/.rehearsal/rehearsal-probe" / module.LOG
        log.parent.mkdir(parents=True)
        log.write_text("one\nNo module named 'jupyterlab'\n\n")
        return 202, None

    head.hub.start, head.hub.failure = start, "Spawn failed: Job 7 ended before the server was up"
    with pytest.raises(
        module.Sorry, match=r"Job 7 ended before .* the last line of its log: No module named 'jupyterlab'"
    ):
        module.probe({})
    assert nothing_is_left(head)
    assert not module.proved()
    head.hub.start = head.hub._started
    module.probe({})
    assert module.proved()


def test_a_rehearsal_that_begins_takes_it_away(head: Head, module: Any) -> None:
    head.module("hub_front").leaf()
    rehearsal = head.module("hub_rehearsal")

    def start(user: dict[str, Any]) -> tuple[int, Any]:
        rehearsal.begin({"users": 1})
        return 202, None

    head.hub.start = start
    assert module.probe({})["skipped"] == "a rehearsal began"
    assert set(head.read("people.json")["people"]) == {"rehearsal-001"}


def test_what_a_killed_one_left_is_taken_away_first(head: Head, module: Any) -> None:
    known = head.read("people.json")
    entry = {"uid": 60000, "kind": "rehearsal", "admin": False, "instructor": False, "email": "", "login": ""}
    head.write("people.json", {**known, "people": {"rehearsal-probe": entry}})
    head.hub.users = {"rehearsal-probe": {"servers": {"": {"ready": True}}}}
    assert module.probe({})["skipped"] == ""
    assert head.hub.asked.index(("DELETE", "/hub/api/users/rehearsal-probe")) < head.hub.asked.index(
        ("POST", "/hub/api/users/rehearsal-probe/server")
    )
    assert nothing_is_left(head)


def test_whoever_comes_second_waits_for_the_first(head: Head, module: Any) -> None:
    told: list[Any] = []
    module.LOCK.parent.mkdir(parents=True, exist_ok=True)
    with module.LOCK.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        second = threading.Thread(target=lambda: told.append(module.probe({})))
        second.start()
        second.join(0.3)
        assert second.is_alive()
        module._remember(3.0, "cpu-1")
    second.join(30)
    assert told == [{"seconds": 3.0, "host": "cpu-1", "skipped": "", "problem": ""}]
    assert started(head) == 0


def test_a_server_that_does_not_go_is_told_beside_the_proof(
    head: Head, module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STOP_SECONDS", 0)
    head.hub.busy["rehearsal-probe"] = 99
    told = module.probe({})
    assert "did not stop" in told["problem"]
    assert (told["skipped"], module.proved()) == ("", True)


# At the launcher's -------------------------------------------------------------------------------------------------

SPEC = ClusterSpec.model_validate(
    {
        "name": "demo",
        "cloud": "memory",
        "head": {"flavor": "medium"},
        "workers": [{"name": "cpu", "count": 2, "flavor": "large"}],
        "jupyterhub": {"people": {"count": 4}},
    }
)


@pytest.fixture
def cloud() -> MemoryCloud:
    return MemoryCloud()


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def cluster(cloud: MemoryCloud, events: list[Event], tmp_path: Path) -> Cluster:
    return Cluster(SPEC, cloud=cloud, home=tmp_path, on_event=events.append)


def said(events: list[Event]) -> list[str]:
    return [event.message for event in events if isinstance(event, Log)]


def pretended(cloud: MemoryCloud) -> PretendedHub:
    return next(entry.head for entry in cloud.entries(cloud.ref("demo")) if entry.head).hub


def test_up_asks_for_a_server_once_a_boot(cloud: MemoryCloud, cluster: Cluster, events: list[Event]) -> None:
    cluster.up()
    assert said(events)[-1] == "a notebook server started on cpu-1 in 7 s"
    cluster.up()
    assert pretended(cloud).proofs == 1
    cluster.stop()
    cluster.start()
    assert pretended(cloud).proofs == 2


def test_a_hub_that_is_busy_is_asked_another_time(cloud: MemoryCloud, cluster: Cluster, events: list[Event]) -> None:
    cluster.up()
    hub = pretended(cloud)
    hub.proved, hub.busy = False, "a rehearsal is going on"
    cluster.up()
    assert said(events)[-1] == "the Hub was not asked for a notebook server: a rehearsal is going on"
    hub.busy = ""
    cluster.up()
    assert (hub.proofs, hub.proved) == (3, True)


def test_a_hub_that_starts_no_server_is_not_ready(cloud: MemoryCloud, cluster: Cluster, events: list[Event]) -> None:
    cluster.up()
    hub = pretended(cloud)
    hub.proved, hub.seen, hub.sick = False, False, "Job 7 ended before the server was up"
    with pytest.raises(TemporaryError, match="the Hub starts no notebook server: Job 7 ended") as caught:
        cluster.up()
    assert "vcluster ssh demo -- sudo journalctl -u jupyterhub" in caught.value.remedy
    assert hub.proofs == 4  # three times, because it may have been weather
    hub.sick = ""
    result = cluster.up()
    assert result.hub is not None
    # Passwords are shown once, and not to somebody who sees an error instead.
    assert result.hub.passwords is not None


def test_time_is_up_for_the_proof_too(cloud: MemoryCloud, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[float] = []
    real = Hub.probe

    def probe(self: Hub, seconds: float) -> Any:
        given.append(seconds)
        cloud.clock.sleep(seconds, threading.Event())
        pretended(cloud).sick = "none was ready"
        return real(self, seconds)

    cluster.up()
    pretended(cloud).proved = False
    monkeypatch.setattr(Hub, "probe", probe)
    with pytest.raises(DeadlineError, match="none was ready"):
        cluster.up(timeout=300)
    assert len(given) == 1
    assert 200 < given[0] <= 300


def test_who_interrupts_does_not_wait_for_the_proof(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    cancel, over = threading.Event(), threading.Event()

    def probe(self: Hub, seconds: float) -> Any:
        cancel.set()
        waited.append(over.wait(250))

    monkeypatch.setattr(Hub, "probe", probe)
    waited = list[bool]()
    try:
        with pytest.raises(CancelledError, match="while the Hub started a notebook server"):
            cluster.up(cancel=cancel)
        assert waited == []
    finally:
        over.set()
