"""Which fault a seed gives to which request, and what counts as the same kind of request: no sockets."""

from __future__ import annotations

import pytest

from tests.lab import proxy_faults as faults
from tests.lab.proxy_faults import Seeded
from tests.lab.proxy_record import Recorded, template_of

NET = "11111111-2222-3333-4444-555555555555"


def seeded(seed: int, order: list[str], **options: float) -> dict[str, list[str]]:
    """Names of the faults that requests to these paths draw, by path."""
    dice = Seeded(seed, options.get("rate", 0.2), streak=int(options.get("streak", 3)))
    drawn: dict[str, list[str]] = {path: [] for path in order}
    for number, path in enumerate(order):
        fault = dice.draw(Recorded(number, "compute", "GET", path, path, "", 0.0), 99)
        drawn[path].append(fault.name if fault else "")
    return drawn


def test_a_seed_gives_each_class_its_faults_in_whatever_order() -> None:
    one = seeded(1, ["/a", "/b", "/c"] * 400)
    assert one == seeded(1, ["/c"] * 400 + ["/b", "/a"] * 400)
    assert one != seeded(2, ["/a", "/b", "/c"] * 400)
    assert one["/a"] != one["/b"]
    names = [name for column in one.values() for name in column]
    assert {fault.name for fault in faults.TEMPORARY} == set(names) - {""}
    assert 0.15 < sum(map(bool, names)) / len(names) < 0.25


def test_a_streak_of_faults_ends() -> None:
    drawn = seeded(1, ["/a"] * 40, rate=1, streak=3)["/a"]
    assert [bool(name) for name in drawn] == [True, True, True, False] * 10


@pytest.mark.parametrize(
    ("path", "template"),
    [
        ("/", "/"),
        ("/v2.1/servers/detail", "/v2.1/servers/detail"),
        (f"/v2.1/servers/{NET}/os-interface", "/v2.1/servers/{id}/os-interface"),
        ("/v2.1/servers/demo-head", "/v2.1/servers/{id}"),
        (f"/v3/{NET.replace('-', '')}/volumes/detail", "/v3/{id}/volumes/detail"),
        (f"/v2.0/ports/{NET}/tags/vcluster%2Fx", "/v2.0/ports/{id}/tags/{id}"),
        (f"/v2.0/quotas/{NET}/details.json", "/v2.0/quotas/{id}/details.json"),
        ("/v2.1/os-keypairs/mine", "/v2.1/os-keypairs/{id}"),
        ("/v2/images", "/v2/images"),
    ],
)
def test_templates(path: str, template: str) -> None:
    assert template_of(path) == template
