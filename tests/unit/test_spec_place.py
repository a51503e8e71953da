"""The fields for clouds beyond this computer: canonical values, what is refused, and where it is said to stand."""

from __future__ import annotations

import pytest

from vcluster import spans
from vcluster.errors import SpecError
from vcluster.model import Flavor, Slot
from vcluster.spec import ClusterSpec, PriceSpec

SMALL = Flavor("small", 1, 1024, 8)


def spec(text: str = "", cloud: str = "jetstream2") -> ClusterSpec:
    return ClusterSpec.from_yaml(f"name: demo\ncloud: {cloud}\n{text}", file="demo.yaml")


def test_what_is_left_out_is_absent() -> None:
    """So that clusters keep their digests when a new version knows more fields."""
    assert set(spec().canonical()) == {
        *("name", "cloud", "scheduler", "head", "workers", "access", "users", "packages", "setup", "slurm", "mirrors"),
        *("image", "prices"),
    }
    assert spec().canonical()["head"] == {"flavor": "small"}
    assert set(spec().canonical()["access"]) == {"ssh_keys", "allow_from"}
    assert spec().digest == "d500b3c9e1c3b525"


def test_prices_are_no_part_of_the_digest() -> None:
    assert spec("prices: [{flavor: m3.*, per_vcpu_hour: 2}]").digest == spec().digest
    assert spec("expires: 8h").digest != spec().digest


def test_slots_know_their_disks_zones_and_images() -> None:
    text = (
        "availability_zone: nova\n"
        "head: {root_disk: 100G, image: Debian}\n"
        "workers: [{name: a, count: 1, availability_zone: far}, {name: b, count: 1, root_disk: 20}]"
    )
    head, a, b = spec(text).slots(lambda _: SMALL)
    assert (head.root_disk, head.zone, head.image) == (100, "nova", "Debian")
    assert (a.root_disk, a.zone, a.image) == (0, "far", "")
    assert (b.root_disk, b.zone) == (20, "nova")
    assert spec().slots(lambda _: SMALL)[0] == Slot("head", head.role, "", SMALL)


@pytest.mark.parametrize(
    ("text", "public"),
    [("", True), ("jump: me@bastion", False), ("public_ip: false", False), ("floating_ip: 192.0.2.7", True)],
)
def test_a_jump_host_is_instead_of_a_public_address(text: str, public: bool) -> None:
    assert spec(f"access: {{{text}}}").access.public is public


@pytest.mark.parametrize(
    ("text", "expected"),
    [("8h", "8h"), ("90m", "1h30m"), ("36h", "1d12h"), ("2d", "2d"), ("1h30m", "1h30m"), ("90s", "1m30s")],
)
def test_lifetimes(text: str, expected: str) -> None:
    assert spec(f"expires: {text}").expires == expected
    assert spans.seconds(expected) == spans.seconds(text)


@pytest.mark.parametrize("text", ["", "8x", "h", "-1h", "1 h", "1e3", "٣h", "0s", "0h0m", "8hours"])
def test_what_is_no_span(text: str) -> None:
    assert spans.seconds(text) is None


def test_spans_are_spelled_as_they_are_read() -> None:
    for seconds in (1, 59, 60, 3600, 5400, 86400, 90061, 10**8):
        assert spans.seconds(spans.spell(seconds)) == seconds
    assert spans.spell(0) == "0s"


def test_prices() -> None:
    (price,) = spec("prices: [{flavor: 'g3.*', per_hour: 3}]").prices
    assert price == PriceSpec(flavor="g3.*", per_hour=3.0)


ON_LOCAL = [
    ("network: a", 3, 1, "network"),
    ("external_network: a", 3, 1, "external_network"),
    ("availability_zone: a", 3, 1, "availability_zone"),
    ("head: {root_disk: 10}", 3, 8, "head.root_disk"),
    ("head: {image: Debian}", 3, 8, "head.image"),
    ("workers:\n- name: a\n- availability_zone: a", 5, 3, "workers[1].availability_zone"),
    ("access: {public_ip: true}", 3, 10, "access.public_ip"),
    ("access: {floating_ip: 192.0.2.7}", 3, 10, "access.floating_ip"),
    ("access: {jump: me@bastion}", 3, 10, "access.jump"),
]


@pytest.mark.parametrize(("text", "line", "column", "where"), ON_LOCAL, ids=[row[0] for row in ON_LOCAL])
def test_the_local_cloud_refuses_what_means_nothing_there(text: str, line: int, column: int, where: str) -> None:
    with pytest.raises(SpecError, match="means nothing on the local cloud") as caught:
        spec(text, "local")
    (problem,) = caught.value.problems
    assert (problem.line, problem.column, problem.where) == (line, column, where)
    assert spec(text).name == "demo"


def test_the_local_cloud_knows_lifetimes_and_prices() -> None:
    local = spec("expires: 8h\ngrace_period: 1d\nprices: [{flavor: small, per_hour: 1}]", "local")
    assert (local.expires, local.grace_period) == ("8h", "1d")


WRONG = [
    ("access: {jump: bastion}", 16, "access.jump", "must be a bastion as user@host", "the user's name"),
    ("access: {jump: 'me@-oProxyCommand=x'}", 16, "access.jump", "must be a bastion", ""),
    ("access: {jump: 'me@b:70000'}", 16, "access.jump", "has a port from 1 to 65535", "leave it out for 22"),
    ("access: {jump: me@b, public_ip: true}", 16, "access.jump", "although the head has a public address", "one of"),
    ("access: {jump: me@b, floating_ip: 192.0.2.7}", 35, "access.floating_ip", "although jump is given", "one of"),
    ("access: {floating_ip: 192.0.2.7, public_ip: no}", 23, "access.floating_ip", "although public_ip is false", ""),
    ("access: {floating_ip: 300.0.0.1}", 23, "access.floating_ip", "must be an IPv4 address", "floating ip list"),
    ("access: {public_ip: 1}", 21, "access.public_ip", "must be true or false, got 1", ""),
    ("network: -x", 10, "network", "must be a name or an id", "letters"),
    ("network: 5", 10, "network", "must be a name or id, got 5", 'write "5"'),
    ("availability_zone: nova:host", 20, "availability_zone", "must be an availability zone's name", ""),
    ("head: {root_disk: 1}", 19, "head.root_disk", "must be at least 3G", "write 3G"),
    ("head: {root_disk: big}", 19, "head.root_disk", "must be a size", ""),
    ("head: {image: ''}", 15, "head.image", "must be an image's name or id", ""),
    ("expires: 8", 10, "expires", "must be a span of time", "write 8h for hours"),
    ("expires: 8 hours", 10, "expires", "must be a span of time", "as in 1d12h"),
    ("expires: 30s", 10, "expires", "must be from one minute", ""),
    ("expires: true", 10, "expires", "must be a span of time", ""),
    ("grace_period: 1d", 1, "grace_period", "is given without expires", "expires: 8h"),
    ("prices: {flavor: x}", 9, "prices", "must be a list of prices", "begin each item"),
    ("prices: [{flavor: x}]", 10, "prices[0].per_vcpu_hour", "is missing", "per_hour"),
    ("prices: [{flavor: x, per_hour: -1}]", 32, "prices[0].per_hour", "must be a number of service units", ""),
    ("prices: [{flavor: x, per_hour: 1, per_vcpu_hour: 1}]", 32, "prices[0].per_hour", "beside per_vcpu_hour", "one"),
    ("prices: [{flavor: 'x y', per_hour: 1}]", 19, "prices[0].flavor", "must be a flavor's name or pattern", "m3.*"),
]


@pytest.mark.parametrize(("text", "column", "where", "message", "remedy"), WRONG, ids=[row[0] for row in WRONG])
def test_wrong_values(text: str, column: int, where: str, message: str, remedy: str) -> None:
    with pytest.raises(SpecError) as caught:
        spec(text)
    (problem,) = caught.value.problems
    assert (problem.file, problem.line, problem.column, problem.where) == ("demo.yaml", 3, column, where)
    assert message in problem.message
    assert remedy in problem.remedy


def test_a_cloud_can_say_in_which_line_its_trouble_stands() -> None:
    read = spec("workers:\n- name: a\n  flavor: huge\n- name: b")
    assert str(read.problem(("workers", 0, "flavor"), "there is none")).startswith("demo.yaml:5:11: workers[0].flavor")
    assert read.problem(("workers", 1, "flavor"), "there is none").line == 6
    assert read.with_count("b", 1).problem(("workers", 0, "flavor"), "there is none").line == 5
    assert read == ClusterSpec.model_validate(read.canonical())
    assert ClusterSpec(name="demo", cloud="x").problem(("head", "flavor"), "there is none").line == 0
