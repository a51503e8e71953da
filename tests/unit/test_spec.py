"""What a right spec means: defaults, canonical values, slots, texts read from files, and the way out and back in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from vcluster.errors import PermanentError, SpecError
from vcluster.model import Flavor, Role
from vcluster.spec import (
    AccessSpec,
    ClusterSpec,
    FlavorSpec,
    HeadSpec,
    ImageSpec,
    SetupSpec,
    SlurmSpec,
    UserSpec,
    WorkerGroup,
)
from vcluster.spec_checks import slurm_time
from vcluster.spec_file import plain

ROOT = Path(__file__).parents[2]
SMALL = Flavor("small", 1, 1024, 8)
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA+cMUjwyKSdrRS2OZuaCwOSzyKtJEOXcHGKOlK2HI/O"
OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIYoo0YsC8KL9WuoTOulHF5g952BpqcPqsd1F+SOnn/j"


def spec(text: str, folder: Path | None = None) -> ClusterSpec:
    return ClusterSpec.from_yaml(f"name: demo\ncloud: local\n{text}", folder=folder)


def test_smallest() -> None:
    smallest = ClusterSpec(name="demo", cloud="local")
    assert smallest == spec("")
    assert smallest.head.flavor == "small"
    assert [(g.name, g.count, g.minimum, g.maximum) for g in smallest.workers] == [("cpu", 2, 2, 2)]
    assert smallest.access.allow_from == ("0.0.0.0/0",)
    assert smallest.access.ssh_keys == ()


def test_frozen_and_hashable() -> None:
    one = spec("users: [{name: al}]")
    assert {one: 1}[spec("users: [{name: al}]")] == 1
    with pytest.raises(ValueError, match="frozen"):
        one.name = "other"


def test_a_key_without_a_value_means_its_default() -> None:
    assert spec("packages:\nusers:\nhead:\nworkers:\n") == spec("")


@pytest.mark.parametrize(
    ("memory", "disk", "expected"),
    [
        ("1G", "6G", (1024, 6)),
        ("1.5G", "1T", (1536, 1024)),
        ("512M", "6GiB", (512, 6)),
        ("1048576k", "6gi", (1024, 6)),
        (1024, 6, (1024, 6)),
        ("0.25T", "8192M", (262144, 8)),
    ],
)
def test_sizes(memory: object, disk: object, expected: tuple[int, int]) -> None:
    size = FlavorSpec.model_validate({"cpus": 2, "memory": memory, "disk": disk})
    assert (size.memory, size.disk) == expected
    assert size.flavor() == Flavor(f"2c-{expected[0]}m-{expected[1]}g", 2, *expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30", "0:30:00"),
        ("90:30", "1:30:30"),
        ("1:00:00", "1:00:00"),
        ("25:00:00", "1-01:00:00"),
        ("2-0", "2-00:00:00"),
        ("1-12:30", "1-12:30:00"),
        ("1-02:03:04", "1-02:03:04"),
        ("unlimited", "UNLIMITED"),
        ("INFINITE", "UNLIMITED"),
    ],
)
def test_times_are_those_of_slurm(text: str, expected: str) -> None:
    assert spec(f"slurm: {{default_time: 1, max_time: {text}}}").slurm.max_time == expected
    assert slurm_time(expected) == expected


def test_times_without_quotes_stay_times() -> None:
    # YAML 1.1 would make 3600 of it, and Slurm 60 hours of that.
    assert spec("slurm: {default_time: 1:00:00}").slurm.default_time == "1:00:00"
    assert spec("slurm: {default_time: 45}").slurm.default_time == "0:45:00"


def test_yes_and_no_are_flags() -> None:
    assert spec("slurm: {accounting: no}").slurm.accounting is False
    assert spec("users: [{name: al, sudo: Yes}]").users[0].sudo is True


def test_networks_are_canonical_and_do_not_overlap() -> None:
    found = spec('access: {allow_from: [192.0.2.7, 10.1.0.0/16, "2001:DB8::/32", 10.0.0.0/8]}').access.allow_from
    assert found == ("10.0.0.0/8", "192.0.2.7/32", "2001:db8::/32")


def test_slots_are_head_first_and_reach_the_maximum() -> None:
    text = (
        "workers:\n- {name: a, count: 1, max_count: 3}\n- {name: b, count: 1, flavor: {cpus: 2, memory: 2G, disk: 9G}}"
    )
    asked = []

    def flavor_of(name: str) -> Flavor:
        asked.append(name)
        return SMALL

    slots = spec(text).slots(flavor_of)
    assert [slot.name for slot in slots] == ["head", "a-1", "a-2", "a-3", "b-1"]
    assert [slot.role for slot in slots] == [Role.HEAD, *[Role.WORKER] * 4]
    assert slots[0].flavor == SMALL
    assert slots[4].flavor == Flavor("2c-2048m-9g", 2, 2048, 9)
    assert asked == ["small", "small"]


def test_an_unknown_flavor_is_the_clouds_to_refuse() -> None:
    def flavor_of(name: str) -> Flavor:
        raise PermanentError(f"no flavor {name}")

    with pytest.raises(PermanentError, match="no flavor huge"):
        spec("head: {flavor: huge}").slots(flavor_of)


def test_with_count_keeps_the_room() -> None:
    grown = spec("workers: [{name: a, count: 1, max_count: 4}]").with_count("a", 4)
    assert [(g.count, g.minimum, g.maximum) for g in grown.workers] == [(4, 4, 4)]
    shrunk = spec("workers: [{name: a, count: 3}]").with_count("a", 1)
    assert [(g.count, g.minimum, g.maximum) for g in shrunk.workers] == [(1, 1, 3)]
    with pytest.raises(SpecError, match="there is no group 'b'"):
        shrunk.with_count("b", 1)
    with pytest.raises(SpecError, match="group a has room for 3, not for 4"):
        shrunk.with_count("a", 4)


def test_an_ecdsa_key_is_of_its_curve() -> None:
    point = "AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAAABBA=="
    assert spec(f"access: {{ssh_keys: [ecdsa-sha2-nistp256 {point}]}}").access.ssh_keys
    with pytest.raises(SpecError, match="not a whole public key"):
        spec(f"access: {{ssh_keys: [ecdsa-sha2-nistp384 {point}]}}")


@pytest.mark.parametrize(
    "size", ["1\u212a", "1G\u0130", "\u0661G", "1e3G", "-1G", "1G\n2", "1 G G", "", True, 1.5, [1]]
)
def test_what_only_looks_like_a_size(size: object) -> None:
    with pytest.raises(SpecError, match="memory: must be"):
        FlavorSpec.model_validate({"cpus": 1, "memory": size})


def test_digest_is_of_the_meaning() -> None:
    base = spec("")
    assert base.digest == spec("# words\nhead: {flavor: 'small'}\nslurm: {default_time: 60}").digest
    assert base.digest != spec("packages: [gcc]").digest
    assert len(base.digest) == 16
    assert int(base.digest, 16) >= 0


def test_digest_is_the_same_in_another_process() -> None:
    code = "from vcluster.spec import ClusterSpec; import sys; sys.stdout.write(ClusterSpec.load(sys.argv[1]).digest)"
    file = ROOT / "examples/full.yaml"
    done = subprocess.run([sys.executable, "-c", code, file], capture_output=True, text=True, check=True)
    assert done.stdout == ClusterSpec.load(file).digest


def test_files_are_read_relative_to_the_spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home/.ssh").mkdir(parents=True)
    (tmp_path / "home/.ssh/id.pub").write_text(f'{KEY} it\'s "me"; reboot\n')
    (tmp_path / "two.pub").write_text(f"# of the group\n{KEY} again\n\n{OTHER} b@c\n")
    (tmp_path / "head.sh").write_text("#!/bin/sh\necho 'hi'\n")
    text = "access: {ssh_keys: [~/.ssh/id.pub, two.pub]}\nsetup: {head: ./head.sh}\n"
    (tmp_path / "spec.yaml").write_text(f"name: demo\ncloud: local\n{text}")
    loaded = ClusterSpec.load(tmp_path / "spec.yaml")
    assert loaded.access.ssh_keys == (f"{KEY} its me reboot", f"{OTHER} b@c")
    assert loaded.setup.head == "#!/bin/sh\necho 'hi'\n"
    assert ClusterSpec.from_yaml(loaded.to_yaml()) == loaded


def test_a_text_from_somebody_else_cannot_name_files() -> None:
    for text in (
        "setup: {head: /etc/init.d/ssh}",
        "access: {ssh_keys: [/etc/hosts]}",
        "mirrors: {ca: /etc/hosts}",
        "image: /x",
    ):
        with pytest.raises(SpecError, match="this spec came as text alone"):
            spec(text)


def test_missing_public_key_says_which_there_are(tmp_path: Path) -> None:
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/id_rsa.pub").touch()
    with pytest.raises(SpecError, match=r"there is id_rsa\.pub; or leave it out"):
        spec("access: {ssh_keys: [.ssh/id_ed25519.pub]}", tmp_path)


def test_image_forms() -> None:
    check = "a" * 64
    assert spec("image: Featured-Ubuntu24").image == ImageSpec(source="Featured-Ubuntu24")
    assert spec("image: /var/x.qcow2", Path("/srv")).image.source == "/var/x.qcow2"
    assert spec("image: ./x.qcow2", Path("/srv")).image.source == "/srv/x.qcow2"
    by_url = spec(f"image: {{url: 'https://example.org/x.img', sha256: {check.upper()}}}").image
    assert by_url == ImageSpec(source="https://example.org/x.img", sha256=check)


def test_python_raises_the_same_error() -> None:
    with pytest.raises(SpecError) as caught:
        ClusterSpec(name="Demo", cloud="local", users=(UserSpec(name="al"), UserSpec(name="al")))
    assert [p.where for p in caught.value.problems] == ["name", "users[1].name"]
    assert caught.value.problems[0].file == ""
    with pytest.raises(SpecError, match="count: must be a whole number of at least 0"):
        WorkerGroup(count=-1)
    with pytest.raises(SpecError, match="default_time: must be at most max_time"):
        SlurmSpec(default_time="2:00:00", max_time="1:00:00")
    with pytest.raises(SpecError, match="ssh_keys: must be a list of public keys, got a set"):
        AccessSpec(ssh_keys={KEY})  # type: ignore[arg-type]


def test_after_an_error_the_next_one_is_whole_too() -> None:
    for _ in range(2):
        with pytest.raises(SpecError) as caught:
            HeadSpec(flavor=3)  # type: ignore[arg-type]
        assert len(caught.value.problems) == 1
    assert SetupSpec(head="#!/bin/sh\n").head == "#!/bin/sh\n"


def test_a_password_in_an_address_is_not_repeated() -> None:
    with pytest.raises(SpecError) as caught:
        spec("mirrors: {apt: 'https://me:hunter2@example.org'}")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "message"),
    [("none.yaml", "there is no such file"), (".", "is a directory"), ("huge.yaml", "is larger than 1024 KiB")],
)
def test_unreadable_files(tmp_path: Path, path: str, message: str) -> None:
    (tmp_path / "huge.yaml").write_text("#" * (1024 * 1024 + 1))
    with pytest.raises(SpecError, match=message) as caught:
        ClusterSpec.load(tmp_path / path)
    assert caught.value.problems[0].file == str(tmp_path / path)


def test_examples(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # For anybody who has a key, and from any folder.
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/id_ed25519.pub").write_text(f"{KEY} me\n")
    monkeypatch.chdir(tmp_path)
    loaded = {file.name: ClusterSpec.load(file) for file in (ROOT / "examples").glob("*.yaml")}
    assert loaded["minimal.yaml"] == ClusterSpec(name="demo", cloud="local")
    local = loaded["local-slurm.yaml"]
    assert (local.name, local.cloud, local.workers) == ("demo", "local", (WorkerGroup(name="cpu", count=2),))
    full = ("full.yaml", "full-openstack.yaml", "full-k3s.yaml")
    differ = {key for key in local.canonical() if local.canonical()[key] != loaded["local-k3s.yaml"].canonical()[key]}
    assert differ == {"scheduler"}
    shown = {field for name in full for field in loaded[name].model_fields_set}
    assert not [name for name in ClusterSpec.model_fields if name not in shown]
    for each in loaded.values():
        assert ClusterSpec.model_validate(each.canonical()) == each
        assert ClusterSpec.from_yaml(each.to_yaml()) == each


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("on", True),
        ("No", False),
        ("nO", "nO"),
        ("y", "y"),
        ("", None),
        ("~", None),
        ("12", 12),
        ("-0", 0),
        ("0x1F", "0x1F"),
        ("1_000", "1_000"),
        ("1:00:00", "1:00:00"),
        ("2001-01-01", "2001-01-01"),
        ("1e3", 1000.0),
        (".5", 0.5),
        (".nan", ".nan"),
        ("=", "="),
    ],
)
def test_plain_scalars(text: str, expected: object) -> None:
    value = plain(text)
    assert (value, type(value)) == (expected, type(expected))
