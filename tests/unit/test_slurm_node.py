"""The head's own program, with Slurm's commands played by a dictionary."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import io
import os
import random
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from k3s_machines_kit import beside

from vcluster.resources import templates

NOW = int(time.time())
BOOT = NOW - 600
CLUSTER: dict[str, Any] = {
    "head": "head",
    "probe": "vcluster-probe",
    "reports": 6815,
    "workers": {f"cpu-{n}": f"10.0.0.{n}" for n in (1, 2, 3)},
}


class Slurm:
    """What the commands answer, and what was asked of them."""

    def __init__(self, node: ModuleType) -> None:
        self.node = node
        self.states = {f"cpu-{n}": ("IDLE", str(BOOT)) for n in (1, 2)} | {"cpu-3": ("DOWN*", "None")}
        self.reasons: dict[str, str] = {}
        self.jobs = ""
        self.broken: set[str] = set()
        self.away = False
        self.asked: list[tuple[str, ...]] = []

    def run(self, *command: str, timeout: float = 0) -> str:
        self.asked.append(command)
        if self.away:
            raise self.node.Sorry("slurmctld is not there")
        if command[0] == "scontrol" and "show" in command:
            lines = (
                f"NodeName={name} Arch=x86_64 State={state} BootTime={boot} Reason={self.reasons.get(name, '')}"
                for name, (state, boot) in self.states.items()
            )
            return "\n".join(lines)
        if command[0] == "squeue":
            return self.jobs
        if command[0] == "srun" and command[command.index("-w") + 1] in self.broken:
            raise self.node.Sorry("srun: error")
        return ""

    def probed(self) -> set[str]:
        return {command[command.index("-w") + 1] for command in self.asked if command[0] == "srun"}


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Slurm:
    loader = importlib.machinery.SourceFileLoader("vcluster_node", str(templates() / "slurm" / "vcluster-node"))
    beside(monkeypatch)
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec
    node = importlib.util.module_from_spec(spec)
    loader.exec_module(node)
    fake = Slurm(node)
    monkeypatch.setattr(node, "run", fake.run)
    for name in ("STATE", "PROOFS"):
        monkeypatch.setattr(node, name, tmp_path / name)
    monkeypatch.setattr("vcluster_reports.REPORTS", tmp_path / "REPORTS")
    (tmp_path / "STATE").mkdir()
    (tmp_path / "STATE" / "configured").touch()
    return fake


def health(slurm: Slurm, **started: float) -> dict[str, str]:
    slurm.asked.clear()
    answer = slurm.node.health(CLUSTER, {name.replace("_", "-"): at for name, at in started.items()})
    return dict(answer)


def test_a_worker_is_probed_once_per_boot(slurm: Slurm) -> None:
    expected = {"head": "ready", "cpu-1": "ready", "cpu-2": "ready", "cpu-3": "booting"}
    assert health(slurm) == expected
    assert slurm.probed() == {"cpu-1", "cpu-2"}
    assert health(slurm) == expected
    assert slurm.probed() == set()
    slurm.states["cpu-1"] = ("IDLE", str(BOOT + 3))  # the same boot, worked out anew
    health(slurm)
    assert slurm.probed() == set()
    slurm.states["cpu-1"] = ("IDLE", str(BOOT + 300))
    health(slurm)
    assert slurm.probed() == {"cpu-1"}


def test_a_probe_that_fails_is_asked_again(slurm: Slurm) -> None:
    slurm.broken = {"cpu-2"}
    assert health(slurm)["cpu-2"] == "booting"
    slurm.broken = set()
    assert health(slurm)["cpu-2"] == "ready"
    assert slurm.probed() == {"cpu-2"}


def test_silent_workers_do_not_keep_the_others_from_being_asked(slurm: Slurm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is time for two probes only, everybody's turn comes all the same."""
    names = [f"cpu-{n}" for n in range(10, 30)]
    slurm.states = dict.fromkeys(names, ("IDLE", str(BOOT)))
    slurm.broken = {f"cpu-{n}" for n in range(10, 15)}  # the first by name
    monkeypatch.setattr(slurm.node, "PROBES_AT_ONCE", 1)
    calls: list[int] = []

    def clock() -> int:
        calls.append(len(calls))
        return 0 if len(calls) <= 3 else 1000

    monkeypatch.setattr(slurm.node.time, "monotonic", clock)
    monkeypatch.setattr(slurm.node.random, "shuffle", random.Random(7).shuffle)
    cluster = {**CLUSTER, "workers": dict.fromkeys(names, "10.0.0.1")}
    ready: set[str] = set()
    for _ in range(100):
        calls.clear()
        answer = slurm.node.health(cluster, {})
        ready |= {name for name, word in answer.items() if word == "ready"}
    assert ready == {"head", *names} - slurm.broken


def test_a_worker_with_users_jobs_is_never_probed(slurm: Slurm) -> None:
    slurm.jobs = f"{NOW - 100} cpu cpu-[1-2]\n"
    slurm.states["cpu-2"] = ("ALLOCATED", str(NOW))  # it booted after the job began: that was another machine
    answer = health(slurm)
    assert (answer["cpu-1"], slurm.probed()) == ("ready", {"cpu-2"})
    slurm.node.PROOFS.joinpath("cpu-1").unlink()
    slurm.jobs = f"{int(time.time())} cpu cpu-1\n"
    assert health(slurm)["cpu-1"] == "booting"
    assert "cpu-1" not in slurm.probed()


def test_our_own_probes_prove_nothing_while_they_run(slurm: Slurm) -> None:
    slurm.jobs = f"{NOW - 100} vcluster-probe cpu-1\n"
    health(slurm)
    assert "cpu-1" in slurm.probed()


@pytest.mark.parametrize(
    ("state", "reason", "says"),
    [
        ("IDLE+DRAIN", "vcluster: scale", "drained"),
        ("ALLOCATED+DRAIN", "vcluster: scale", "busy"),
        ("MIXED+DRAIN", "vcluster: scale", "busy"),
        ("IDLE*", "", "booting"),
        ("DOWN+DRAIN", "vcluster: scale", "booting"),
        ("IDLE+NOT_RESPONDING", "", "booting"),
        ("UNKNOWN", "", "booting"),
    ],
)
def test_states(slurm: Slurm, state: str, reason: str, says: str) -> None:
    slurm.states["cpu-1"] = (state, str(BOOT))
    slurm.reasons["cpu-1"] = reason
    assert health(slurm)["cpu-1"] == says
    assert "cpu-1" not in slurm.probed()


def test_a_boot_before_the_machine_was_started_is_another_machines(slurm: Slurm) -> None:
    health(slurm)
    assert health(slurm, cpu_1=BOOT + 100)["cpu-1"] == "booting"
    assert health(slurm, cpu_1=BOOT - 5)["cpu-1"] == "ready"


def test_without_slurmctld_everything_boots(slurm: Slurm) -> None:
    slurm.away = True
    assert set(health(slurm).values()) == {"booting"}
    (slurm.node.STATE / "failed").write_text("database\n")
    assert health(slurm)["head"] == "failed"


def _report(slurm: Slurm, monkeypatch: pytest.MonkeyPatch, address: str, port: int) -> None:
    monkeypatch.setenv("REMOTE_ADDR", address)
    monkeypatch.setenv("REMOTE_PORT", str(port))
    monkeypatch.setattr(slurm.node.sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"setup\n")))
    slurm.node.listen(CLUSTER)


@pytest.mark.parametrize("address", ["10.0.0.1", "::ffff:10.0.0.1"])
def test_a_worker_says_that_it_failed(slurm: Slurm, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    _report(slurm, monkeypatch, address, 1001)
    answer = health(slurm)
    assert (answer["cpu-1"], answer["cpu-2"]) == ("failed", "ready")
    old = time.time() - 60
    os.utime(sys.modules["vcluster_reports"].REPORTS / "cpu-1", (old, old))
    assert health(slurm)["cpu-1"] == "ready"


@pytest.mark.parametrize(("address", "port"), [("10.0.0.1", 40000), ("10.0.0.9", 1001), ("", 1001)])
def test_not_everybody_is_believed(slurm: Slurm, monkeypatch: pytest.MonkeyPatch, address: str, port: int) -> None:
    with pytest.raises(slurm.node.Sorry, match="not believed"):
        _report(slurm, monkeypatch, address, port)
    assert "failed" not in health(slurm).values()


def test_drain_and_resume_are_only_for_our_workers(slurm: Slurm) -> None:
    for names in ([], ["head"], ["cpu-1", "nope"]):
        with pytest.raises(slurm.node.Sorry):
            slurm.node.drain(CLUSTER, names, "why")
        with pytest.raises(slurm.node.Sorry):
            slurm.node.resume(CLUSTER, names)
    slurm.asked.clear()
    slurm.node.drain(CLUSTER, ["cpu-1", "cpu-2"], "scale")
    assert slurm.asked[-1][2:] == ("NodeName=cpu-1,cpu-2", "State=DRAIN", "Reason=vcluster: scale")


@pytest.mark.parametrize(
    ("state", "boot", "reason", "words"),
    [
        ("IDLE+DRAIN", BOOT, "vcluster: scale", ["State=UNDRAIN"]),
        ("IDLE+DRAIN", BOOT, "bad disk", []),
        ("DOWN", BOOT, "", ["State=RESUME"]),
        ("DOWN*", BOOT, "", []),
        ("DOWN", None, "", []),
        ("IDLE", BOOT, "", []),
    ],
    ids=["ours", "a person's", "down", "not answering", "never there", "well"],  # a boot's time makes no name
)
def test_resume(slurm: Slurm, state: str, boot: int | None, reason: str, words: list[str]) -> None:
    health(slurm)
    slurm.states["cpu-1"], slurm.reasons["cpu-1"] = (state, str(boot)), reason
    slurm.asked.clear()
    slurm.node.resume(CLUSTER, ["cpu-1"])
    assert [command[3] for command in slurm.asked if "update" in command] == words
    assert not (slurm.node.PROOFS / "cpu-1").exists()


def test_an_error_is_a_sentence_and_a_status(slurm: Slurm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(slurm.node, "CLUSTER", tmp_path / "cluster.json")
    (tmp_path / "cluster.json").write_text('{"workers": {}}')
    with pytest.raises(slurm.node.Sorry, match="usage"):
        slurm.node.main(["dance"])
