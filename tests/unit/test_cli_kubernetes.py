"""The command line on the memory cloud: kubeconfig, backup, restore and upgrade of a Kubernetes cluster."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

import vcluster.cluster
from vcluster.cli import main
from vcluster.clouds.memory import MemoryCloud
from vcluster.clouds.memory_k3s import PretendedK3s

SPEC = """\
name: demo
cloud: memory
scheduler: k3s
workers:
  - {name: cpu, count: 1}
"""
NEW = """\
k3s:
  version: v1.37.1+k3s1
  binary: {source: https://example.org/k3s, sha256: "%s"}
""" % ("a" * 64)
ON_MEMORY = ["--cloud", "memory"]
KEY = "U0VDUkVULUtFWQ"
TOKEN = "t0ken-of-the-servers"


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> MemoryCloud:
    made, real = MemoryCloud(), vcluster.cluster.connect
    monkeypatch.setattr(vcluster.cluster, "connect", lambda name, home: made if name == "memory" else real(name, home))
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    return made


@pytest.fixture
def k3s(cloud: MemoryCloud, capsys: pytest.CaptureFixture[str]) -> PretendedK3s:
    """The Kubernetes of a cluster that is up."""
    Path("demo.yaml").write_text(SPEC)
    assert main(["up", "demo.yaml"]) == 0
    capsys.readouterr()
    return next(entry.head for entry in cloud.entries(cloud.ref("demo")) if entry.head).k3s


def result(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    lines = capsys.readouterr().out.splitlines()
    last: dict[str, object] = json.loads(lines[-1])
    assert not any(secret in line for secret in (KEY, TOKEN) for line in lines[:-1])
    return last


def test_a_kubeconfig_is_printed_and_nothing_else_with_it(
    k3s: PretendedK3s, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["kubeconfig", "demo", *ON_MEMORY]) == 0
    shown = capsys.readouterr()
    assert yaml.safe_load(shown.out)["clusters"][0]["cluster"]["server"] == "https://127.0.0.1:6443"
    assert KEY in shown.out
    assert shown.err == "kubectl reaches it while this runs: vcluster forward demo 6443 --cloud memory\n"
    assert main(["kubeconfig", "demo.yaml", "--port", "7000", "--quiet"]) == 0
    shown = capsys.readouterr()
    assert "https://127.0.0.1:7000" in shown.out
    assert shown.err == ""


def test_status_calls_a_server_a_server(cloud: MemoryCloud, capsys: pytest.CaptureFixture[str]) -> None:
    Path("demo.yaml").write_text(f"{SPEC}head: {{count: 3}}\n")
    assert main(["up", "demo.yaml"]) == 0
    capsys.readouterr()
    assert main(["status", "demo", *ON_MEMORY]) == 0
    rows = [line.split()[:3] for line in capsys.readouterr().out.splitlines()[3:]]
    assert rows == [
        ["head", "head", "-"],
        *([name, "server", "-"] for name in ("head-2", "head-3")),
        ["cpu-1", "worker", "cpu"],
    ]


def test_a_program_gets_it_as_json(k3s: PretendedK3s, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kubeconfig", "demo", *ON_MEMORY, "--json", "-p", "7000"]) == 0
    told = result(capsys)
    assert (told["context"], told["server"]) == ("demo", "https://127.0.0.1:7000")
    assert told["forward"] == "vcluster forward demo 6443 -l 7000 --cloud memory"
    assert KEY in str(told["kubeconfig"])


def test_merged_it_lies_where_kubectl_looks_and_is_not_printed(
    k3s: PretendedK3s, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["kubeconfig", "demo", *ON_MEMORY, "--merge"]) == 0
    path = tmp_path / ".kube/config"
    shown = capsys.readouterr()
    assert shown.out == f"context demo is in {path}\n"
    assert "vcluster forward demo 6443" in shown.err
    assert KEY in path.read_text()
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path / 'mine'}:{path}")
    (tmp_path / "mine").write_text("kind: Config\ncurrent-context: prod\n")
    assert main(["kubeconfig", "demo", *ON_MEMORY, "--merge", "--json"]) == 0
    told = result(capsys)
    assert told["file"] == str(tmp_path / "mine")
    assert KEY not in str(told)
    assert yaml.safe_load((tmp_path / "mine").read_text())["current-context"] == "prod"
    assert main(["kubeconfig", "demo", *ON_MEMORY, "--merge", "--use"]) == 0
    assert yaml.safe_load((tmp_path / "mine").read_text())["current-context"] == "demo"


def test_a_file_of_its_own(k3s: PretendedK3s, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kubeconfig", "demo", *ON_MEMORY, "-o", "demo.kubeconfig"]) == 0
    assert KEY not in "".join(capsys.readouterr())
    assert (tmp_path / "demo.kubeconfig").stat().st_mode & 0o777 == 0o600
    assert KEY in (tmp_path / "demo.kubeconfig").read_text()


def test_down_leaves_a_persons_file_alone(
    k3s: PretendedK3s, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["kubeconfig", "demo", *ON_MEMORY, "--merge"]) == 0
    before = (tmp_path / ".kube/config").read_bytes()
    assert main(["down", "demo", *ON_MEMORY, "--yes"]) == 0
    assert (tmp_path / ".kube/config").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--merge", "--output", "x"], "--merge and --output are two ways"),
        (["--use"], "--use goes with --merge"),
        (["--port", "0"], "0 is not in the range"),
    ],
)
def test_a_wrong_command_line(
    cloud: MemoryCloud, words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["kubeconfig", "demo", *ON_MEMORY, *words]) == 2
    assert says in capsys.readouterr().err


def test_slurm_has_no_kubeconfig(cloud: MemoryCloud, capsys: pytest.CaptureFixture[str]) -> None:
    Path("slurm.yaml").write_text("name: slurm\ncloud: memory\n")
    assert main(["up", "slurm.yaml"]) == 0
    for words in (["kubeconfig", "slurm"], ["backup", "slurm"]):
        assert main([*words, *ON_MEMORY]) == 2
        assert "slurm runs Slurm, not Kubernetes" in capsys.readouterr().err


def test_there_and_back(k3s: PretendedK3s, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["backup", "demo", "demo.tar", *ON_MEMORY]) == 0
    shown = capsys.readouterr()
    assert shown.out == "demo.tar: demo at 2026-11-27T22:49:11Z, 0.0 MiB\n"
    k3s.objects.append("after")
    assert main(["restore", "demo", "demo.tar", *ON_MEMORY]) == 2
    assert "no terminal to ask at" in capsys.readouterr().err
    assert k3s.objects == ["before", "after"]
    assert main(["restore", "demo", "demo.tar", *ON_MEMORY, "--yes", "--json"]) == 0
    told = result(capsys)
    assert (told["kind"], told["machines"]) == ("result", ["head", "cpu-1"])
    assert k3s.objects == ["before"]
    assert main(["backup", "demo", "demo.tar", *ON_MEMORY, "--json"]) == 2
    assert "there already" in str(result(capsys)["message"])


def test_what_is_half_restored_says_what_to_do(k3s: PretendedK3s, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["backup", "demo", "demo.tar", *ON_MEMORY]) == 0
    k3s.faults["cpu-1 rejoin"] = "out of luck"
    assert main(["restore", "demo", "demo.tar", *ON_MEMORY, "--yes"]) == 1
    said = capsys.readouterr().err
    assert "cpu-1: out of luck" in said
    assert "the same `vcluster restore demo --cloud memory` again" in said
    assert not any(secret in said for secret in (KEY, TOKEN))


def test_an_upgrade_tells_what_it_changes(k3s: PretendedK3s, capsys: pytest.CaptureFixture[str]) -> None:
    Path("demo.yaml").write_text(SPEC + NEW)
    assert main(["up", "demo.yaml"]) == 2
    assert "`vcluster upgrade` with this spec does it" in capsys.readouterr().err
    assert main(["upgrade", "demo.yaml"]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("demo runs v1.37.1+k3s1: 2 changed, in ")
    assert "head: v1.36.5+k3s1 → v1.37.1+k3s1 (1 of 2)" in shown.err
    assert main(["upgrade", "demo.yaml"]) == 0
    assert capsys.readouterr().out == "demo runs v1.37.1+k3s1: nothing to do\n"
    assert main(["upgrade", "demo.yaml", "--json"]) == 0
    told = result(capsys)
    assert (told["changed"], told["before"]) == ([], ["head", "cpu-1"])
    assert main(["plan", "demo.yaml"]) == 0


def test_an_upgrade_by_name_is_told_what_it_needs(
    k3s: PretendedK3s, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VCLUSTER_CLOUD", "memory")
    assert main(["upgrade", "demo"]) == 2
    assert "needs the spec with the new version" in capsys.readouterr().err
