"""The command line on the memory cloud, with the real library below it: a cluster's life, and what goes wrong."""

from __future__ import annotations

import json
import re
import runpy
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

import vcluster.cluster
from vcluster.cli import main
from vcluster.clouds.memory import MemoryCloud

SPEC = """\
name: demo
cloud: memory
workers:
  - {name: cpu, count: 2, max_count: 4}
"""
ON_MEMORY = ["--cloud", "memory"]


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> MemoryCloud:
    """One memory cloud for all commands of a test, in the place of the clouds that there really are."""
    made, real = MemoryCloud(), vcluster.cluster.connect
    monkeypatch.setattr(vcluster.cluster, "connect", lambda name, home: made if name == "memory" else real(name, home))
    monkeypatch.setenv("TERM", "dumb")
    return made


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = Path("demo.yaml")
    path.write_text(SPEC)
    return path


@pytest.fixture
def demo(cloud: MemoryCloud, spec: Path, capsys: pytest.CaptureFixture[str]) -> MemoryCloud:
    """A cluster that is up."""
    assert main(["up", str(spec)]) == 0
    capsys.readouterr()
    return cloud


def machines(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """Machine to UUID, from ``status --json``."""
    capsys.readouterr()
    assert main(["status", "demo", *ON_MEMORY, "--json"]) == 0
    return {m["name"]: m["uuid"] for m in json.loads(capsys.readouterr().out)["machines"]}


def test_a_life(cloud: MemoryCloud, spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(spec)]) == 10
    assert "+ create machine head" in capsys.readouterr().out
    assert cloud.resources() == []

    assert main(["up", str(spec)]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("demo is ready: a head and 2 workers, in ")
    assert "vcluster ssh demo --cloud memory -- srun -N2 -l hostname" in out
    assert re.search(r"\] cpu-2: ACTIVE, ready, 10\.77\.", err)

    assert main(["plan", str(spec)]) == 0
    assert main(["up", "demo", *ON_MEMORY]) == 0
    assert "demo is ready: nothing to do" in capsys.readouterr().out

    before = machines(capsys)
    assert sorted(before) == ["cpu-1", "cpu-2", "head"]
    assert main(["scale", "demo", "cpu", "4", *ON_MEMORY]) == 0
    assert "group cpu has now 4 workers" in capsys.readouterr().out
    assert main(["replace", "demo", "cpu-1", *ON_MEMORY, "--yes"]) == 0
    after = machines(capsys)
    assert sorted(after) == ["cpu-1", "cpu-2", "cpu-3", "cpu-4", "head"]
    assert [name for name, uuid in before.items() if after[name] != uuid] == ["cpu-1"]

    assert main(["stop", "demo", *ON_MEMORY]) == 0
    assert main(["status", "demo", *ON_MEMORY]) == 0
    assert "demo on memory: stopped" in capsys.readouterr().out
    assert main(["start", "demo", *ON_MEMORY]) == 0
    assert main(["list", *ON_MEMORY]) == 0
    assert re.search(r"^demo +memory +you +5 +5 ", capsys.readouterr().out, re.M)
    assert main(["logs", "demo", "cpu-2", *ON_MEMORY]) == 0
    assert capsys.readouterr().out == "cpu-2: booted\n"

    assert main(["down", "demo", *ON_MEMORY, "--yes"]) == 0
    assert "demo is gone" in capsys.readouterr().out
    assert cloud.resources() == []
    assert main(["down", "demo", *ON_MEMORY, "--yes"]) == 0
    assert "nothing is there of 'demo'" in capsys.readouterr().out


def test_a_dead_worker_is_shown_and_replaced(demo: MemoryCloud, capsys: pytest.CaptureFixture[str]) -> None:
    before = machines(capsys)
    demo.kill("cpu-2")
    assert main(["status", "demo", *ON_MEMORY]) == 0
    shown = capsys.readouterr().out
    assert "demo on memory: degraded" in shown
    assert not re.search(r"^cpu-2 .*ready", shown, re.M)
    assert main(["up", "demo.yaml"]) == 0
    assert set(machines(capsys)) == set(before)
    assert main(["plan", "demo.yaml"]) == 0


@pytest.mark.slow
def test_a_thousand_workers(cloud: MemoryCloud, spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec.write_text(SPEC.replace("count: 2, max_count: 4", "count: 1000"))
    assert main(["up", str(spec), "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["kind"] for line in lines} >= {"machine", "done", "result"}
    assert len(lines[-1]["status"]["machines"]) == 1001
    assert main(["down", "demo", *ON_MEMORY, "--yes", "-q"]) == 0
    assert cloud.resources() == []


def test_render_writes_files_for_the_owner_alone(
    cloud: MemoryCloud, spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["render", str(spec), "-o", "out"]) == 0
    written = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert {path.name for path in written} >= {"install.sh", "head.user-data.yaml", "cpu-1.user-data.yaml"}
    assert {path.stat().st_mode & 0o777 for path in written} == {0o600}
    assert cloud.resources() == []


def test_the_example_runs(cloud: MemoryCloud, capsys: pytest.CaptureFixture[str]) -> None:
    example = Path(__file__).parents[2] / "examples" / "python_api.py"
    assert runpy.run_path(str(example))["main"]("memory") == 0
    out, err = capsys.readouterr()
    assert "api-demo is ready" in out
    assert {"cpu-1", "cpu-2"} <= set(out.split())
    assert "cpu-2: ACTIVE ready" in err


@dataclass(frozen=True)
class Bad:
    """A command line, how it ends, and what its error says."""

    words: str
    code: int
    says: str
    spec: str = SPEC


WITHOUT_A_CLUSTER = [
    Bad("statu demo", 2, "there is no command 'statu'\nremedy: did you mean status?"),
    Bad("frobnicate", 2, "there is no command 'frobnicate'\nremedy: `vcluster --help` lists them"),
    Bad("demo.yaml", 2, "did you mean `vcluster up demo.yaml`?"),
    Bad("--nope", 2, "No such option '--nope'"),
    Bad("up", 2, "Missing argument 'SPEC|NAME'"),
    Bad("up demo.yaml --nope", 2, "No such option '--nope'"),
    Bad("up demo.yaml more", 2, "Got unexpected extra argument (more)"),
    Bad("up missing.yaml", 2, "missing.yaml"),
    Bad("plan no/such/file", 2, "no/such/file"),
    Bad("up nobody --cloud memory", 2, "there is no cluster 'nobody'"),
    Bad("plan nobody --cloud memory", 2, "there is no cluster 'nobody'"),
    Bad("status nobody --cloud memory", 2, "there is no cluster 'nobody' on memory"),
    Bad("stop nobody --cloud memory", 2, "there is no cluster 'nobody'"),
    Bad("start nobody --cloud memory", 2, "there is no cluster 'nobody'"),
    Bad("scale nobody cpu 2 --cloud memory", 2, "there is no cluster 'nobody'"),
    Bad("replace nobody cpu-1 --cloud memory", 2, "there is no cluster 'nobody'"),
    Bad("ssh nobody --cloud memory", 2, "there is no cluster 'nobody'"),
    Bad("logs nobody --cloud memory", 2, "there is no cluster 'nobody'"),
    Bad("forward nobody 8000 --local-port {free} --cloud memory", 2, "there is no cluster 'nobody'"),
    Bad("ssh-config nobody --cloud memory", 2, "there is no cluster 'nobody'"),
    Bad("up demo.yaml --cloud memory", 2, "--cloud goes with a cluster's name"),
    Bad("list --cloud nimbus", 2, "there is no cloud `nimbus`"),
    Bad("status demo --cloud nimbus", 2, "there is no cloud `nimbus`"),
    Bad("up demo.yaml", 2, "there is no cloud `nimbus`", SPEC.replace("memory", "nimbus")),
    Bad("up demo.yaml", 2, "demo.yaml:3:1: workerz: ", SPEC.replace("workers", "workerz")),
    Bad("up demo.yaml", 2, "demo.yaml:4:24: workers[0].count: ", SPEC.replace("count: 2,", "count: x,")),
    Bad("up demo.yaml", 2, "demo.yaml:1:7: name: ", SPEC.replace("demo", "Demo!")),
    Bad("render demo.yaml -o out", 2, "demo.yaml:1:7: name: ", SPEC.replace("demo", "Demo!")),
    Bad("up demo.yaml", 2, "head.flavor: there is no flavor 'huge'", SPEC + "head: {flavor: huge}\n"),
    Bad("up demo.yaml --timeout soon", 2, "'soon' is no time span; write 90, 90s, 15m, 2h, 1h30m or 2d"),
    Bad("up demo.yaml --timeout 0", 2, "'0' is no time span"),
    Bad("up demo.yaml --timeout -5", 2, "'-5' is no time span"),
    Bad("up demo.yaml --timeout 3w", 2, "'3w' is no time span"),
    Bad("scale demo cpu -3", 2, "-3 is not in the range x>=0"),
    Bad("scale demo cpu many", 2, "'many' is not a valid integer range"),
    Bad("forward demo 0", 2, "0 is not in the range 1<=x<=65535"),
    Bad("forward demo 70000", 2, "70000 is not in the range 1<=x<=65535"),
    Bad("forward demo ssh", 2, "'ssh' is not a valid integer range"),
    Bad("forward demo 8000 --local-port {taken} --cloud memory", 2, "port {taken} of this computer cannot be used"),
    Bad("logs demo -n 0", 2, "0 is not in the range 1<=x<=100000"),
    Bad("render demo.yaml", 2, "Missing option '-o'"),
    Bad("render demo.yaml -o full", 2, "the folder 'full' is not empty"),
    Bad("render demo.yaml -o demo.yaml", 2, "'demo.yaml' is a file"),
    Bad("render demo -o out", 2, "'demo' is no spec file"),
    Bad("ssh demo srun -N2 hostname", 2, "No such option '-N'.\nremedy: a command with options goes after --"),
    Bad("cp demo a b", 2, "none of these files is on the cluster"),
    Bad("cp demo absent.csv :x", 2, "there is no file 'absent.csv' on this computer"),
    Bad("image", 2, "Missing command.\nremedy: see `vcluster image --help`"),
    Bad("image buil", 2, "No such command 'buil'"),
    Bad("image build nowhere.yaml", 2, "nowhere.yaml"),
    Bad("completion tcsh", 2, "'tcsh' is not one of 'bash', 'zsh', 'fish'"),
]

WITH_A_CLUSTER = [
    Bad("down demo --cloud memory", 2, "there is no terminal to ask at\nremedy: run it on a terminal, or with --yes"),
    Bad("down demo.yaml", 2, "there is no terminal to ask at"),
    Bad("status dmo --cloud memory", 2, "there is no cluster 'dmo' on memory\nremedy: did you mean demo?"),
    Bad("scale demo gpu 2 --cloud memory", 2, "there is no group 'gpu'"),
    Bad("scale demo cpu 9 --cloud memory", 2, "max_count"),
    Bad("replace demo cpu-7 --cloud memory", 2, "demo has no machine 'cpu-7'"),
    Bad("replace demo head --cloud memory", 2, "the head is not replaced"),
    Bad("ssh demo -m cpu-9 --cloud memory", 2, "there is no machine 'cpu-9'\nremedy: there are: cpu-1, cpu-2, head"),
    Bad("cp demo cpu-9:a . --cloud memory", 2, "there is no machine 'cpu-9'"),
    Bad("logs demo cpu-9 --cloud memory", 2, "demo has no machine 'cpu-9'"),
    Bad("up demo.yaml", 2, "demo exists already, made from another spec", SPEC + "packages: [gfortran]\n"),
    Bad("plan demo.yaml", 2, "demo exists already, made from another spec", SPEC + "packages: [gfortran]\n"),
]


@contextmanager
def ports() -> Iterator[Callable[[str], str]]:
    """Fills in a port that is taken and one that is free."""
    with socket.socket() as taken, socket.socket() as free:
        for one in (taken, free):
            one.bind(("127.0.0.1", 0))
        taken.listen()
        numbers = {"taken": str(taken.getsockname()[1]), "free": str(free.getsockname()[1])}
        free.close()
        yield lambda text: text.replace("{taken}", numbers["taken"]).replace("{free}", numbers["free"])


def attempt(bad: Bad, spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Run the bad command line, for people and as JSON, and compare how it ended."""
    spec.write_text(bad.spec)
    Path("full").mkdir()
    Path("full", "something").write_text("")
    with ports() as filled:
        words = filled(bad.words).split()
        assert main(words) == bad.code
        out, err = capsys.readouterr()
        assert filled(bad.says) in err
        assert not out
        assert "Traceback" not in err
        command = words[0]
        if command in {"up", "plan", "status", "down", "scale", "replace", "list", "stop", "start"}:
            assert main([*words, "--json"]) == bad.code
            report = json.loads(capsys.readouterr().out.splitlines()[-1])
            assert (report["kind"], report["exit_code"]) == ("error", bad.code)
            assert report["message"]


@pytest.mark.parametrize("bad", WITHOUT_A_CLUSTER, ids=lambda bad: bad.words)
def test_bad_situations_create_nothing(
    bad: Bad, cloud: MemoryCloud, spec: Path, vcluster_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    attempt(bad, spec, capsys)
    assert cloud.resources() == []
    assert not list(vcluster_home.glob("clusters/*"))
    assert not Path("out").exists()


@pytest.mark.parametrize("bad", WITH_A_CLUSTER, ids=lambda bad: bad.words)
def test_bad_situations_change_nothing(
    bad: Bad, demo: MemoryCloud, spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, uuids = demo.resources(), machines(capsys)
    attempt(bad, spec, capsys)
    assert demo.resources() == before
    assert machines(capsys) == uuids


def test_no_room_is_exit_3(cloud: MemoryCloud, spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cloud.quota = 2
    assert main(["up", str(spec)]) == 3
    assert "quota is too small: instances: 3 asked, 0 used, 2 allowed\nremedy: " in capsys.readouterr().err
    assert cloud.resources() == []


def test_a_deadline_is_exit_4(cloud: MemoryCloud, spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["up", str(spec), "--timeout", "15s"]) == 4
    assert "error: " in capsys.readouterr().err
    assert cloud.resources(), "what was made stays"
    assert main(["up", str(spec)]) == 0, "and the same command again goes on"
