"""What clusters cost."""

from __future__ import annotations

import pytest

from vcluster.errors import PermanentError
from vcluster.model import Flavor
from vcluster.prices import Price, PriceTable, prices_of, shipped
from vcluster.spec import ClusterSpec

SIZES = {"m3.tiny": 1, "m3.quad": 4, "m3.2xl": 64, "r3.large": 64, "g3.small": 4, "other": 2}


def size_of(name: str) -> Flavor:
    if name not in SIZES:
        raise PermanentError(f"there is no flavor {name!r}")
    return Flavor(name, SIZES[name], 1024, 20)


@pytest.mark.parametrize(
    ("flavor", "per_hour"), [("m3.tiny", 1), ("m3.quad", 4), ("m3.2xl", 64), ("r3.large", 128), ("g3.small", 16)]
)
def test_jetstream2(flavor: str, per_hour: float) -> None:
    assert shipped().per_hour(flavor, size_of) == per_hour
    assert shipped().unit == "SU"


@pytest.mark.parametrize(
    ("state", "share"), [("ACTIVE", 1), ("BUILD", 1), ("ERROR", 1), ("SHUTOFF", 0.5), ("SHELVED", 0)]
)
def test_what_does_not_run_costs_less(state: str, share: float) -> None:
    assert shipped().per_hour("m3.quad", size_of, state) == 4 * share


def test_a_sum_that_leaves_something_out_is_no_sum() -> None:
    assert shipped().total([("m3.quad", "ACTIVE"), ("m3.tiny", "SHUTOFF")], size_of) == 4.5
    assert shipped().total([("m3.quad", "ACTIVE"), ("other", "ACTIVE")], size_of) is None
    assert shipped().total([], size_of) == 0


def test_the_first_entry_that_fits_counts_and_the_specs_go_first() -> None:
    spec = ClusterSpec.model_validate(
        {
            "name": "demo",
            "cloud": "x",
            "prices": [{"flavor": "m3.quad", "per_hour": 1.5}, {"flavor": "o*", "per_vcpu_hour": 3}],
        }
    )
    table = prices_of(spec)
    assert table.per_hour("m3.quad", size_of) == 1.5
    assert table.per_hour("other", size_of) == 6
    assert table.per_hour("m3.tiny", size_of) == 1
    assert prices_of(None) is shipped()


def test_sizes_are_asked_for_only_where_a_price_needs_them() -> None:
    table = PriceTable((Price("big", per_hour=7.0), Price("gone", per_vcpu_hour=1.0)), states={"SHELVED": 0.0})
    assert table.per_hour("big", size_of) == 7.0
    assert table.per_hour("gone", size_of, "SHELVED") == 0.0
    with pytest.raises(PermanentError):
        table.per_hour("gone", size_of)


def test_patterns_are_exact_about_case_and_anchored() -> None:
    table = PriceTable((Price("m3.*", per_hour=1.0),))
    assert table.per_hour("M3.tiny", size_of) is None
    assert table.per_hour("xm3.tiny", size_of) is None
