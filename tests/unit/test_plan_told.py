"""What a plan says of project, quota, price and line before anything is made."""

from __future__ import annotations

from pathlib import Path

import pytest
from lifecycle_kit import HOUR, cloud, cluster, home, spec

from vcluster import ClusterSpec
from vcluster.clouds.memory import MemoryCloud
from vcluster.errors import QuotaError, SpecError
from vcluster.events import Event, Log

__all__ = ["cloud", "home"]


def test_a_plan_says_where_how_much_and_for_what_price(home: Path) -> None:
    cloud = MemoryCloud(parts=True, limits={"instances": 10, "floating_ips": 1, "ports": -1})
    prices = [{"flavor": "small", "per_vcpu_hour": 2}]
    demo = cluster(home, cloud, spec(expires="8h", prices=prices))
    view = demo.plan()
    assert "memory-project" in view.place
    assert {need.resource: (need.asked, need.limit) for need in view.quota} == {
        "instances": (3, 10),
        "floating_ips": (1, 1),
        "ports": (5, -1),
    }
    assert view.cost is not None
    assert (view.cost.per_hour, view.cost.now, view.cost.total) == (6.0, 0.0, 48.0)
    kinds = {(action.verb, action.kind, action.name) for action in view.actions}
    assert {
        ("create", "security group", "head"),
        ("create", "floating ip", "head"),
        ("create", "gateway", "gateway"),
    } <= kinds
    assert view.to_dict()["quota"][0]["fits"] is True
    demo.up()
    cloud.clock.sleep(4 * HOUR)
    view = demo.plan()
    assert (view.empty, view.quota) == (True, ())
    assert view.cost is not None
    assert view.cost.total == pytest.approx(24.0, abs=1.0)
    assert demo.status().cost == 6.0


def test_a_price_that_is_not_known_is_not_made_up(home: Path, cloud: MemoryCloud) -> None:
    demo = cluster(home, cloud)
    assert demo.plan().cost is None
    assert demo.status().cost == 0


def test_quota_that_cannot_fit_is_refused_before_anything_is_made(home: Path) -> None:
    cloud = MemoryCloud(parts=True, limits={"instances": 2, "floating_ips": 0})
    demo = cluster(home, cloud)
    assert [need.fits for need in demo.plan().quota] == [False, False]
    with pytest.raises(QuotaError, match="instances: 3 asked, 0 used, 2 allowed") as caught:
        demo.up()
    assert "floating ips: 1 asked, 0 used, 0 allowed" in caught.value.message
    assert cloud.resources() == []
    assert not demo.folder.path.exists()


def test_quota_for_the_minimum_is_enough_to_go_on(home: Path) -> None:
    cloud = MemoryCloud(parts=True, quota=2)
    said: list[Event] = []
    workers = [{"name": "cpu", "count": 3, "min_count": 1}]
    demo = cluster(home, cloud, spec(workers=workers), on_event=said.append)
    result = demo.up()
    assert result.status.state == "degraded"
    assert len(result.status.machines) == 2
    warnings = [event.message for event in said if isinstance(event, Log) and event.level == "warning"]
    assert any("instances: 4 asked, 0 used, 2 allowed" in warning for warning in warnings)


def test_a_network_that_is_not_there_is_said_with_its_line(home: Path, cloud: MemoryCloud) -> None:
    text = "name: demo\ncloud: memory\nnetwork: lost\n"
    demo = cluster(home, cloud, ClusterSpec.from_yaml(text, file="demo.yaml"))
    for call in (demo.plan, demo.up):
        with pytest.raises(SpecError, match=r"demo.yaml:3:10: network: there is no network 'lost'"):
            call()
    assert cloud.resources() == []


def test_a_flavor_that_is_not_there_is_said_with_its_line(home: Path, cloud: MemoryCloud) -> None:
    text = "name: demo\ncloud: memory\nworkers:\n  - name: a\n    flavor: huge\n"
    demo = cluster(home, cloud, ClusterSpec.from_yaml(text, file="demo.yaml"))
    with pytest.raises(SpecError, match=r"demo.yaml:5:13: workers\[0\].flavor: there is no flavor 'huge'"):
        demo.up()
    assert cloud.resources() == []
