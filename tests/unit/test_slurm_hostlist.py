"""Host lists: as short as can be, and the same hosts when Slurm's rule expands them."""

from __future__ import annotations

import runpy

import pytest
from hypothesis import given
from hypothesis import strategies as st
from k3s_machines_kit import beside

from vcluster.resources import templates
from vcluster.stacks.hostlist import compress, runs

with pytest.MonkeyPatch.context() as patch:
    beside(patch)
    expand = runpy.run_path(str(templates() / "slurm" / "vcluster-node"), run_name="node")["expand"]


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ([], ""),
        (["cpu-1"], "cpu-1"),
        (["cpu-1", "cpu-2", "cpu-3"], "cpu-[1-3]"),
        (["cpu-1", "cpu-2", "cpu-4"], "cpu-[1-2,4]"),
        (["cpu-9", "cpu-10"], "cpu-[9-10]"),
        (["cpu-1", "gpu-2"], "cpu-1,gpu-2"),
        (["login"], "login"),
        (["a", "b"], "a,b"),
        (["10.0.0.254", "10.0.0.255", "10.0.1.0"], "10.0.0.[254-255],10.0.1.0"),
        (["cpu-2", "cpu-1"], "cpu-[2,1]"),
    ],
)
def test_compress(names: list[str], text: str) -> None:
    assert compress(names) == text


@given(st.lists(st.tuples(st.sampled_from(["cpu-", "gpu-", "x1-"]), st.integers(1, 2000)), max_size=60))
def test_the_program_on_the_head_reads_what_is_written(parts: list[tuple[str, int]]) -> None:
    names = [f"{prefix}{number}" for prefix, number in parts]
    assert list(expand(compress(names))) == names


@given(st.lists(st.tuples(st.integers(1, 300), st.integers(1, 254)), min_size=1, max_size=40))
def test_runs_keep_pairs_together(numbers: list[tuple[int, int]]) -> None:
    pairs = [(f"cpu-{n}", f"10.0.0.{a}") for n, a in numbers]
    found = []
    for names, addresses in runs(pairs):
        found += list(zip(expand(names), expand(addresses), strict=True))
    assert found == pairs
