"""doctor and image: what they print and how they end, with the host's state made up."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

import vcluster.cluster
from vcluster.cli import main
from vcluster.clouds.local import doctor
from vcluster.clouds.local.doctor import Check
from vcluster.clouds.memory import MemoryCloud
from vcluster.errors import UsageError
from vcluster.model import ImageRequest


@dataclass
class Image:
    id: str
    disk: Path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Image]:
    """Images in a cache that is only pretended; ``used`` is one that machines stand on."""
    images = {}
    for name in ("abc123", "used"):
        (tmp_path / name).write_bytes(b"x" * 2_000_000)
        images[name] = Image(name, tmp_path / name)

    def remove_image(_root: Path, identity: str) -> None:
        if identity == "used":
            raise UsageError("image used is in use by demo", remedy="vcluster down demo")
        del images[identity]

    module = ModuleType("vcluster.clouds.local.image")
    module.list_images = lambda _root: list(images.values())  # type: ignore[attr-defined]
    module.remove_image = remove_image  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vcluster.clouds.local.image", module)
    return images


@pytest.mark.parametrize(
    ("found", "code", "says"),
    [
        ([Check("qemu", True, "7.2")], 0, "ok       qemu: 7.2"),
        (
            [Check("qemu", True, "7.2"), Check("vde", False, "not\x1b[1m installed", "apt-get install vde2")],
            1,
            "MISSING  vde: not installed\n         apt-get install vde2",
        ),
    ],
)
def test_doctor(
    found: list[Check], code: int, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "checks", lambda: found)
    assert main(["doctor"]) == code
    assert says in capsys.readouterr().out
    assert main(["doctor", "--json"]) == code
    result = json.loads(capsys.readouterr().out)
    assert (result["kind"], result["ok"]) == ("result", code == 0)
    assert [check["name"] for check in result["checks"]] == [check.name for check in found]


def test_doctor_on_this_host_names_every_tool(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) in {0, 1}
    result = json.loads(capsys.readouterr().out)
    assert {"qemu", "vde_switch", "memory", "disk"} <= {check["name"] for check in result["checks"]}
    assert all(check["remedy"] for check in result["checks"] if not check["ok"])


def test_images_are_listed(cache: dict[str, Image], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["image", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["ID", "SIZE", "PATH"]
    assert lines[1].split() == ["abc123", "2", "MiB", str(cache["abc123"].disk)]
    assert main(["image", "list", "--json"]) == 0
    assert [image["id"] for image in json.loads(capsys.readouterr().out)["images"]] == ["abc123", "used"]
    cache.clear()
    assert main(["image", "list"]) == 0
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("no images in ")


def test_images_are_removed(cache: dict[str, Image], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["image", "remove", "abc123"]) == 0
    assert capsys.readouterr().out == "abc123 is removed\n"
    assert list(cache) == ["used"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["abc132"], "there is no image 'abc132'\nremedy: did you mean abc123?"),
        (["abc123", "zzz"], "there is no image 'zzz'\nremedy: `vcluster image list`"),
        (["used"], "image used is in use by demo\nremedy: vcluster down demo"),
        ([], "Missing argument 'ID...'"),
    ],
)
def test_an_image_that_cannot_go_takes_none_with_it(
    words: list[str], says: str, cache: dict[str, Image], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["image", "remove", *words]) == 2
    assert says in capsys.readouterr().err
    assert sorted(cache) == ["abc123", "used"]


def test_image_build_asks_the_cloud_for_what_the_spec_wants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[ImageRequest] = []

    class Cloud(MemoryCloud):
        def image(self, request: ImageRequest, notify: object, cancel: object = None) -> str:
            asked.append(request)
            assert callable(notify)
            notify("building the base image")
            return "abc123"

    monkeypatch.setattr(vcluster.cluster, "connect", lambda name, home: Cloud())
    monkeypatch.setenv("TERM", "dumb")
    spec = tmp_path / "demo.yaml"
    spec.write_text("{name: demo, cloud: local, image: my-image}\n")
    assert main(["image", "build"]) == 0
    out, err = capsys.readouterr()
    assert out == "abc123 is there\n"
    assert "building the base image" in err
    assert main(["image", "build", str(spec), "--json"]) == 0
    log, result = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (log["kind"], result["id"]) == ("log", "abc123")
    assert [request.source for request in asked] == ["", "my-image"]
    assert "slurm" in asked[0].install
