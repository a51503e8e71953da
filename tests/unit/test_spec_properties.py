"""Whatever is written, a spec is right or a SpecError says why not; what is right survives the way out and in."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vcluster import spec_checks as checks
from vcluster import spec_text as texts
from vcluster.errors import Problem, SpecError
from vcluster.spec import AccessSpec, ClusterSpec, PriceSpec, SetupSpec, SlurmSpec, UserSpec, WorkerGroup

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA+cMUjwyKSdrRS2OZuaCwOSzyKtJEOXcHGKOlK2HI/O"

WORDS = """
    name cloud workers count min_count max_count flavor head cpus memory disk users access ssh_keys allow_from packages
    setup slurm default_time mirrors ca image x <size> network expires grace_period root_disk availability_zone jump
    public_ip floating_ip prices per_hour per_vcpu_hour
"""
KEYS = st.sampled_from(WORDS.split())
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(
        [
            "demo",
            "local",
            "small",
            "1G",
            "8h",
            "me@bastion",
            "~/x",
            "../..",
            "on",
            "010",
            "10.0.0.0/8",
            KEY,
            "#!/bin/sh",
            "\0",
        ]
    ),
)
DATA = st.dictionaries(
    KEYS,
    st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4)),
    max_size=6,
)


def outcome(make: Callable[[], ClusterSpec]) -> tuple[ClusterSpec | None, tuple[Problem, ...]]:
    """A spec, or what is wrong with it; anything else that is raised passes through."""
    try:
        return make(), ()
    except SpecError as error:
        return None, error.problems


@given(data=DATA)
@settings(max_examples=200, deadline=None)
def test_any_data_is_a_spec_or_a_spec_error(data: dict[str, object]) -> None:
    made, problems = outcome(lambda: ClusterSpec.model_validate({"name": "demo", "cloud": "local", **data}))
    assert all(problem.message for problem in problems)
    assert made is None or ClusterSpec.model_validate(made.canonical()) == made


@given(
    text=st.text(max_size=60)
    | st.text(alphabet="ab:-[]{}&*!|>'\"#%@`,? \n\t0", max_size=60)
    | st.lists(
        st.sampled_from(["name:", " ", "\n", "- ", "workers:", "{", "}", "&a ", "*a", "<<:", "demo", "? ", "|\n"])
    ).map("".join)
)
@example(text="name: demo\ncloud: local\nhead: !!set {a}")
@example(text="? [a]\n: b")
@example(text="\ufeffname: demo")
@example(text="%YAML 3.0\n---\na: b")
@example(text="- " * 3000)
@example(text="\ud800")
@settings(max_examples=300, deadline=None)
def test_any_text_is_a_spec_or_a_spec_error(text: str) -> None:
    for prefix in ("", "name: demo\ncloud: local\n"):
        made, problems = outcome(lambda: ClusterSpec.from_yaml(prefix + text))  # noqa: B023
        assert all(problem.line >= 1 and problem.column >= 1 for problem in problems)
        assert (made is None) == bool(problems)


@given(data=st.binary(max_size=100))
@settings(max_examples=100, deadline=None)
def test_any_file_is_a_spec_or_a_spec_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_bytes(data)
    with pytest.raises(SpecError) as caught:
        ClusterSpec.load(file)
    assert caught.value.problems


def place(**fields: str) -> ClusterSpec:
    return ClusterSpec.model_validate({"name": "demo", "cloud": "x", **fields})


SINGLE = {
    "name": checks.cluster_name,
    "cloud": checks.cloud_name,
    "group": checks.group_name,
    "user": checks.user_name,
    "package": checks.package,
    "flavor": checks.flavor_name,
    "sha256": checks.sha256,
    "url": checks.url,
    "time": checks.slurm_time,
    "network": lambda value: checks.networks([value])[0],
    "image": lambda value: texts.image_source(value, Path("/srv")),
    "key": lambda value: texts.public_keys([f"{KEY} {value}"], None)[0],
    "jump": lambda value: AccessSpec(jump=value).jump,
    "floating-ip": lambda value: AccessSpec(floating_ip=value).floating_ip,
    "cloud-network": lambda value: place(network=value).network,
    "zone": lambda value: place(availability_zone=value).availability_zone,
    "expires": lambda value: place(expires=value).expires,
    "price": lambda value: PriceSpec(flavor=value, per_hour=1).flavor,
}
SEEDS = [
    "me@b.org:22",
    "192.0.2.1",
    "8h",
    "m3.*",
    "demo",
    "30",
    "https://a.org/",
    "10.0.0.0/8",
    "fe80::%",
    "a" * 64,
    "x.img",
    "1-2",
    "",
    "https://[::1]:80/x",
]


@pytest.mark.parametrize("check", SINGLE.values(), ids=SINGLE)
@given(
    seed=st.sampled_from(SEEDS),
    tail=st.text(max_size=4) | st.sampled_from(["\u2028", "\n", "\n#", '"', "'", "\\", "$(x)", "`x`"]),
)
@settings(max_examples=150, deadline=None)
def test_no_value_can_end_a_line_or_a_quotation(check: Callable[[str], str], seed: str, tail: str) -> None:
    for value in (seed + tail, tail + seed):
        with contextlib.suppress(checks.RefusedError, SpecError):
            assert not set(check(value)) & set("\n\r\0\t\x0b\x0c\x1b\x85\u2028\"'\\`$")


SCRIPTS = st.text(st.characters(exclude_categories=["Cc", "Cs"]) | st.sampled_from("\n\t"), max_size=40)
SPECS = st.builds(
    lambda groups, script, users, time: ClusterSpec(
        name="demo",
        cloud="local",
        workers=tuple(WorkerGroup(name=name, count=n, max_count=n + 1) for name, n in groups.items()),
        setup=SetupSpec(head=f"#!{script}"),
        users=tuple(UserSpec(name=f"u{name}", ssh_keys=(f"{KEY} {script}",)) for name in users),
        slurm=SlurmSpec(max_time=f"{time}-0"),
    ),
    st.dictionaries(st.from_regex(r"g[a-z0-9]{0,8}", fullmatch=True), st.integers(0, 9), min_size=1, max_size=4),
    SCRIPTS,
    st.sets(st.from_regex(r"[a-z0-9_-]{0,8}", fullmatch=True), max_size=3).filter(lambda names: "sers" not in names),
    st.integers(1, 3000),
)


@given(made=SPECS)
@settings(max_examples=50, deadline=None)
def test_round_trip(made: ClusterSpec) -> None:
    assert ClusterSpec.model_validate(made.canonical()) == made
    assert ClusterSpec.from_yaml(made.to_yaml()) == made
    assert ClusterSpec.from_yaml(made.to_yaml()).digest == made.digest
