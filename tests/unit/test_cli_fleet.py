"""Commands about a project's clusters and their time, with the real library on the memory cloud."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

import vcluster.cluster
import vcluster.commands.fleet
import vcluster.commands.look
import vcluster.reaper
import vcluster.sweeper
from vcluster.cli import main
from vcluster.clouds.memory import MemoryCloud
from vcluster.connect import default_cloud

SPEC = """\
name: demo
cloud: memory
workers:
  - {name: cpu, count: 2, max_count: 4}
prices:
  - {flavor: "*", per_vcpu_hour: 2}
expires: 8h
"""
ON = ["--cloud", "memory"]
HOUR = 3600.0


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> MemoryCloud:
    """One memory cloud for all commands of a test, whose clock is everybody's, and a spec in the folder."""
    made = MemoryCloud(parts=True, limits={"instances": 20})
    for module in (vcluster.commands.fleet, vcluster.commands.look):
        monkeypatch.setattr(module, "time", SimpleNamespace(time=made.now))
    for module in (vcluster.cluster, vcluster.reaper, vcluster.sweeper):
        monkeypatch.setattr(module, "connect", lambda name, home: made)
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.chdir(tmp_path)
    Path("demo.yaml").write_text(SPEC)
    return made


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command line that must end with 0 (or ``code``) and gives its standard output."""

    def run(*words: str, code: int = 0) -> str:
        capsys.readouterr()
        assert main(list(words)) == code, capsys.readouterr().err
        return capsys.readouterr().out

    return run


def test_a_plan_says_where_and_what_it_takes(cloud: MemoryCloud, said: Callable[..., str]) -> None:
    text = said("plan", "demo.yaml", code=10)
    assert re.match(r"demo: \d+ actions\n", text)
    assert "  place: memory-project, as me\n" in text
    assert "  + create floating ip head\n" in text
    assert "  quota: instances: 3 asked, 0 used, 20 allowed\n" in text
    assert text.endswith("  cost: 6 SU an hour (now 0 SU), 48 SU until it expires\n")
    told = json.loads(said("plan", "demo.yaml", "--json", code=10))
    assert told["place"] == "memory-project, as me"
    assert told["quota"] == [{"resource": "instances", "asked": 3, "used": 0, "limit": 20, "fits": True}]
    assert told["cost"] == {"per_hour": 6.0, "now": 0, "total": 48.0, "unit": "SU"}


def test_a_plan_says_what_does_not_fit(cloud: MemoryCloud, said: Callable[..., str]) -> None:
    cloud.limits["instances"] = 2
    text = said("plan", "demo.yaml", code=10)
    assert "instances: 3 asked, 0 used, 2 allowed  DOES NOT FIT\n  ! `vcluster up` would refuse this" in text
    said("up", "demo.yaml", code=3)
    assert cloud.resources() == []


def test_a_plan_without_a_price_says_so(cloud: MemoryCloud, said: Callable[..., str]) -> None:
    Path("demo.yaml").write_text(SPEC.replace('flavor: "*"', "flavor: other"))
    text = said("plan", "demo.yaml", code=10)
    assert text.endswith("  cost: unknown: a flavor has no known price; `prices:` in the spec sets one\n")
    assert "would refuse" not in text


def test_a_plan_tells_the_present_cost_only_where_it_differs(cloud: MemoryCloud, said: Callable[..., str]) -> None:
    said("up", "demo.yaml")
    assert "  cost: 6 SU an hour, 4" in said("plan", "demo.yaml")
    said("stop", "demo", *ON)
    assert "  cost: 6 SU an hour (now 3 SU), 4" in said("plan", "demo.yaml", code=10)


def test_a_life_with_an_end(cloud: MemoryCloud, said: Callable[..., str]) -> None:
    said("up", "demo.yaml")
    text = said("status", "demo", *ON)
    assert re.match(r"demo on memory: ready, expires \S+ \S+ UTC \(in 7h5\dm\), costs 6 SU an hour\n", text)
    assert re.search(r"^demo +memory +you +3 +3 .* 6 SU .* UTC \(in 7h5\dm\) +\w+$", said("list", *ON), re.M)

    said("stop", "demo", *ON)
    assert "costs 3 SU an hour" in said("status", "demo", *ON)
    assert re.search(r" 3 SU ", said("list", *ON)), "a machine that is off costs half its price"
    said("start", "demo", *ON)

    assert said("shelve", "demo", *ON).startswith("demo is shelved; next: vcluster unshelve demo --cloud memory")
    assert "demo on memory: shelved" in said("status", "demo", *ON)
    assert said("unshelve", "demo", *ON).startswith("demo is ready")
    assert re.match(r"demo expires .* UTC \(in 11h5\dm\)\n", said("extend", "demo", "4h", *ON))
    assert json.loads(said("extend", "demo", "30m", *ON, "--json").splitlines()[-1])["cluster"] == "demo"

    assert said("reap", *ON) == "no cluster's time is up\n"
    assert said("reap", *ON, "--quiet") == "", "cron mails whatever is printed"
    cloud.clock.sleep(13 * HOUR)
    assert said("reap", *ON, "--dry-run").startswith("demo: would be shelved; it is deleted ")
    assert said("reap", *ON, "--quiet").startswith("demo: shelved; it is deleted ")
    assert said("reap", *ON).startswith("demo: is shelved; it is deleted ")
    cloud.clock.sleep(25 * HOUR)
    told = json.loads(said("reap", *ON, "--json").splitlines()[-1])
    assert [(c["name"], c["act"], c["done"]) for c in told["clusters"]] == [("demo", "delete", True)]
    assert cloud.resources() == []
    assert said("list", *ON) == ""


def test_a_reaper_that_fails_with_one_says_so(
    cloud: MemoryCloud, said: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from vcluster.errors import PermanentError

    said("up", "demo.yaml")
    cloud.clock.sleep(9 * HOUR)

    def broken(ref: object, uuid: str) -> None:
        raise PermanentError("policy forbids it")

    monkeypatch.setattr(cloud, "shelve_machine", broken)
    assert "demo: failed: policy forbids it" in said("reap", *ON, code=1)


def test_leftovers_are_swept_when_somebody_agrees(
    cloud: MemoryCloud, said: Callable[..., str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said("up", "demo.yaml")
    assert said("sweep", *ON) == "nothing is left over\n"
    cloud.lose("head")
    cloud.clock.sleep(2 * HOUR)
    assert "demo (leftovers)" in said("list", *ON)
    shown = said("sweep", *ON, "--dry-run")
    assert re.search(r"^left of cluster 'demo' \(\w{10}\):$", shown, re.M)
    assert re.search(r"^  - port head [0-9a-f-]{36}$", shown, re.M)
    assert re.search(r"^  - network [0-9a-f-]{36}$", shown, re.M)

    before = cloud.resources()
    said("sweep", *ON, code=2)
    assert "there is no terminal to ask at" not in capsys.readouterr().out
    typed = iter(["no\n", "y\n"])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("sys.stdin.readline", lambda: next(typed))
    said("sweep", *ON, code=130)
    assert cloud.resources() == before
    assert said("sweep", *ON).endswith("is swept away\n")
    assert cloud.resources() == []


def test_sweeping_without_questions(cloud: MemoryCloud, said: Callable[..., str]) -> None:
    said("up", "demo.yaml")
    cloud.lose("head")
    cloud.clock.sleep(60.0)
    assert said("sweep", *ON, "--yes") == "nothing is left over\n"
    told = json.loads(said("sweep", *ON, "--yes", "--older-than", "30s", "--json").splitlines()[-1])
    assert [(c["name"], c["deleted"]) for c in told["clusters"]] == [("demo", True)]
    assert all(thing["uuid"] for thing in told["clusters"][0]["things"])


def test_a_colleagues_cluster(cloud: MemoryCloud, said: Callable[..., str], capsys: pytest.CaptureFixture[str]) -> None:
    cloud.creator = "dora"
    said("up", "demo.yaml")
    cloud.creator = "me"
    assert main(["status", "demo", *ON]) == 2
    assert "a colleague has one of that name: --owner dora" in capsys.readouterr().err
    assert main(["stop", "demo", *ON]) == 2
    assert "--owner dora" in capsys.readouterr().err
    assert main(["down", "demo", *ON, "--yes"]) == 0
    assert "--owner dora" in capsys.readouterr().err
    assert main(["status", "demo", *ON, "--owner", "carl"]) == 2
    assert "'carl' has no cluster 'demo' on memory" in capsys.readouterr().err
    assert "demo on memory: ready" in said("status", "demo", *ON, "--owner", "dora")
    assert re.search(r"^demo +memory +dora +3", said("list", *ON), re.M)
    assert said("list", *ON, "--mine") == ""
    assert said("down", "demo", *ON, "--owner", "dora", "--yes").startswith("demo is gone")
    assert cloud.resources() == []


BAD = [
    ("shelve nobody", "there is no cluster 'nobody'"),
    ("unshelve demo", "demo is not shelved: its head is ACTIVE"),
    ("extend nobody 4h", "there is no cluster 'nobody'"),
    ("extend demo", "Missing argument 'TIME'"),
    ("extend demo soon", "'soon' is no time span; write 90m, 8h"),
    ("extend demo 4", "'4' is a number without a unit; a span of time is as 90m, 8h or 2d\nremedy: write 4h for hours"),
    ("extend demo 1.5", "remedy: write 1.5h for hours, 1.5d for days"),
    ("extend demo 0", "'0' is a number without a unit"),
    ("extend demo -4h", "No such option"),
    ("stop demo --wait-jobs never", "'never' is no time span"),
    ("sweep --older-than 0", "'0' is no time span"),
    ("down demo --keep-volumes --yes", "demo has no volume to keep"),
    (
        "status demo --owner nobody",
        "'nobody' has no cluster 'demo'\u0020on memory\nremedy: one of that name is owned by: me",
    ),
]


@pytest.mark.parametrize(("words", "says"), BAD, ids=[row[0] for row in BAD])
def test_bad_situations_change_nothing(
    cloud: MemoryCloud, said: Callable[..., str], capsys: pytest.CaptureFixture[str], words: str, says: str
) -> None:
    said("up", "demo.yaml")
    before = cloud.resources()
    assert main([*words.split(), *ON]) == 2
    out, err = capsys.readouterr()
    assert says in err
    assert (out, cloud.resources()) == ("", before)


def test_the_cloud_that_is_meant_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OS_CLOUD", "jetstream2")
    monkeypatch.delenv("VCLUSTER_CLOUD", raising=False)
    assert default_cloud() == "local"
    monkeypatch.setenv("VCLUSTER_CLOUD", "jetstream2")
    assert default_cloud() == "jetstream2"
    monkeypatch.setenv("VCLUSTER_CLOUD", "")
    assert default_cloud() == "local"


def test_names_are_looked_for_where_the_environment_says(
    cloud: MemoryCloud, said: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said("up", "demo.yaml")
    asked: list[str] = []

    def connect(name: str, home: Path) -> MemoryCloud:
        asked.append(name)
        return cloud

    monkeypatch.setattr(vcluster.cluster, "connect", connect)
    monkeypatch.setenv("VCLUSTER_CLOUD", "memory")
    said("status", "demo")
    said("status", "demo", "--cloud", "other")
    said("plan", "demo.yaml")
    assert asked == ["memory", "other", "memory"]
