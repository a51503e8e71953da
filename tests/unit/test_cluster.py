"""The facade on the memory cloud: the real spec, the real stack's user data, a pretended world."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest

from vcluster import Cluster, ClusterSpec
from vcluster.clouds.memory import FaultScript, MemoryCloud, Trouble
from vcluster.errors import CancelledError, PermanentError, QuotaError, SpecError, UsageError
from vcluster.events import Done, Event, StepFinished
from vcluster.model import Health, Observed
from vcluster.views import PlanView

SPEC = {"name": "demo", "cloud": "memory", "workers": [{"name": "cpu", "count": 2, "max_count": 3}]}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def spec(**more: object) -> ClusterSpec:
    return ClusterSpec.model_validate({**SPEC, **more})


def cluster(home: Path, cloud: MemoryCloud, what: ClusterSpec | str | None = None, **more: object) -> Cluster:
    return Cluster(what or spec(), cloud=cloud, home=home, **more)  # type: ignore[arg-type]


def test_up_status_run_down(home: Path) -> None:
    cloud, events = MemoryCloud(), list[Event]()
    with cluster(home, cloud, on_event=events.append) as demo:
        result = demo.up()
        assert result.changed
        assert result.status.state == "ready"
        assert [m.name for m in demo.status().machines] == ["head", "cpu-1", "cpu-2"]
        assert demo.run("srun -N2 -l hostname").stdout == "cpu-1\ncpu-2\n"
        assert demo.plan().empty
        assert not demo.up().changed
        assert demo.down().status.state == "absent"
    assert cloud.resources() == []
    assert not demo.folder.path.exists()
    assert [e.changed for e in events if isinstance(e, Done)] == [True, False, True]


def test_a_name_alone_finds_the_cluster_and_its_spec(home: Path) -> None:
    cloud = MemoryCloud()
    cluster(home, cloud).up()
    assert cluster(home, cloud, "demo").plan().empty
    assert cluster(home, cloud, "demo").status().state == "ready"


def test_status_and_down_work_without_any_local_file(home: Path, tmp_path: Path) -> None:
    cloud = MemoryCloud()
    cluster(home, cloud).up()
    elsewhere = cluster(tmp_path / "elsewhere", cloud, "demo")
    assert len(elsewhere.status().machines) == 3
    elsewhere.down()
    assert cloud.resources() == []


def test_everything_on_the_users_disk_is_private(home: Path) -> None:
    cloud = MemoryCloud(faults=FaultScript(once={"cpu-1": (Trouble.ERROR, 1.0)}))
    cluster(home, cloud).up()
    files = [path for path in home.rglob("*") if path.is_file()]
    assert {"secret", "spec.yaml"} <= {path.name for path in files}
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in files)
    assert all(stat.S_IMODE(p.stat().st_mode) == 0o700 for p in home.rglob("*") if p.is_dir())


def test_a_name_used_by_another_spec_is_refused_and_nothing_changes(home: Path) -> None:
    cloud = MemoryCloud()
    cluster(home, cloud).up()
    before = cloud.resources()
    with pytest.raises(UsageError, match=r"demo exists already, made from another spec:\n  head.flavor"):
        cluster(home, cloud, spec(head={"flavor": "large"})).up()
    assert cloud.resources() == before


def test_scale_up_to_max_and_down_again(home: Path) -> None:
    cloud = MemoryCloud()
    demo = cluster(home, cloud)
    demo.up()
    assert len(demo.scale("cpu", 3).status.machines) == 4
    assert len(cluster(home, cloud, "demo").scale("cpu", 1).status.machines) == 2
    assert len(demo.up().status.machines) == 3


def test_replace_makes_a_worker_anew_and_gives_a_new_budget(home: Path) -> None:
    cloud = MemoryCloud()
    demo = cluster(home, cloud)
    old = {m.name: m.uuid for m in demo.up().status.machines}
    new = {m.name: m.uuid for m in demo.replace("cpu-2").status.machines}
    assert new["cpu-2"] != old["cpu-2"]
    assert new["cpu-1"] == old["cpu-1"]
    cloud.faults.machines["cpu-1"] = (Trouble.ERROR, 1.0)
    cloud.kill("cpu-1")
    with pytest.raises(PermanentError):
        demo.up()
    cloud.faults.machines.clear()
    with pytest.raises(PermanentError, match="failed 3 times"):
        demo.up()
    assert demo.replace("cpu-1").status.state == "ready"


def test_replace_leaves_the_number_of_workers_whatever_the_file_says(home: Path) -> None:
    cloud = MemoryCloud()
    demo = cluster(home, cloud)
    demo.up()
    old = {m.name: m.uuid for m in demo.scale("cpu", 3).status.machines}
    new = {m.name: m.uuid for m in cluster(home, cloud).replace("cpu-3").status.machines}
    assert {name for name in old if old[name] != new[name]} == {"cpu-3"}
    assert set(new) == set(old)
    # The file's own number is for up, and a number that its group has no room for any more is nobody's.
    assert len(cluster(home, cloud).up().status.machines) == 3
    few = spec(workers=[{"name": "cpu", "count": 1, "max_count": 1}])
    assert few.with_counts_of(spec()).workers[0].count == 1
    assert few.with_counts_of(None) is few


def test_the_head_is_not_replaced(home: Path) -> None:
    demo = cluster(home, MemoryCloud())
    demo.up()
    with pytest.raises(UsageError, match="its disk holds /home"):
        demo.replace("head")


def test_stop_and_start(home: Path) -> None:
    demo = cluster(home, MemoryCloud())
    demo.up()
    assert demo.stop().status.state == "stopped"
    assert demo.start().status.state == "ready"


def test_down_shows_every_uuid_and_a_no_changes_nothing(home: Path) -> None:
    cloud = MemoryCloud()
    demo = cluster(home, cloud)
    demo.up()
    shown: list[PlanView] = []

    def refuse(plan: PlanView) -> bool:
        shown.append(plan)
        return False

    with pytest.raises(CancelledError):
        demo.down(confirm=refuse)
    uuids = [action.uuid for action in shown[0].actions]
    assert len(uuids) == 3 + 4 + 1
    assert all(uuids)
    assert len(cloud.resources()) == 8


def test_up_asks_before_it_rebuilds_a_cluster_whose_head_is_gone(home: Path) -> None:
    cloud = MemoryCloud()
    demo = cluster(home, cloud)
    demo.up(confirm=lambda plan: pytest.fail("nothing to ask about"))
    cloud.lose("head")
    with pytest.raises(CancelledError):
        demo.up(confirm=lambda plan: False)
    assert demo.up(confirm=lambda plan: True).status.state == "ready"


def test_no_room_is_said_before_anything_is_made(home: Path) -> None:
    cloud = MemoryCloud(quota=2)
    with pytest.raises(QuotaError, match="3 asked, 0 used, 2 allowed"):
        cluster(home, cloud).up()
    assert cloud.resources() == []
    assert not cluster(home, cloud).folder.path.exists()


class SmallSeeds(MemoryCloud):
    """A cloud that gives a machine little at its creation."""

    def check_user_data(self, user_data: str) -> None:
        if "MUCH" in user_data:
            raise PermanentError("too large", remedy="say less")


def test_too_much_user_data_is_said_before_anything_is_made(home: Path) -> None:
    cloud = SmallSeeds()
    much = {"setup": {"workers": "#!/bin/sh\necho MUCH\n"}}
    with cluster(home, cloud, spec(**much)) as demo:
        for act in (demo.plan, demo.up):
            with pytest.raises(PermanentError, match="cpu-1: too large"):
                act()
    assert cloud.resources() == []
    assert not demo.folder.known


class Flavors(MemoryCloud):
    """A cloud whose machines have the sizes of its flavors only."""

    any_size = False


def test_a_size_that_the_cloud_does_not_make_is_said_before_anything_is_made(home: Path) -> None:
    cloud = Flavors()
    sized = spec(head={"flavor": {"cpus": 2, "memory": "2G"}})
    with cluster(home, cloud, sized) as demo:
        for act in (demo.plan, demo.up):
            with pytest.raises(SpecError, match="memory has no machines of any size, only its flavors"):
                act()
    assert cloud.resources() == []


def test_a_failure_ends_with_what_the_console_said(home: Path) -> None:
    cloud = MemoryCloud(faults=FaultScript(machines={"cpu-1": (Trouble.ERROR, 1.0)}))
    demo = cluster(home, cloud)
    with pytest.raises(PermanentError, match="its console ended with") as caught:
        demo.up()
    assert "the whole console is in" in caught.value.message
    assert "vcluster replace demo cpu-1" in caught.value.remedy
    assert demo.logs("cpu-1")


def test_many_clusters_in_threads(home: Path) -> None:
    cloud = MemoryCloud()
    errors: list[BaseException] = []

    def life(number: int) -> None:
        try:
            mine = cluster(home, cloud, spec(name=f"c{number}"))
            assert mine.up().status.state == "ready"
            mine.down()
        except BaseException as error:  # noqa: BLE001 - reported by the assertion below
            errors.append(error)

    threads = [threading.Thread(target=life, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not errors
    assert cloud.resources() == []


def test_render_writes_private_files_and_makes_nothing(home: Path, tmp_path: Path) -> None:
    cloud = MemoryCloud()
    target = tmp_path / "out"
    written = cluster(home, cloud).render(target)
    assert [p.name for p in written] == [
        "install.sh",
        "head.user-data.yaml",
        "cpu-1.user-data.yaml",
        "cpu-2.user-data.yaml",
        "cpu-3.user-data.yaml",
    ]
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in written)
    assert cloud.resources() == []
    assert not home.exists()


def test_what_does_not_exist_is_said(home: Path) -> None:
    for call in ("stop", "start", "plan", "ssh_command"):
        with pytest.raises(UsageError, match="there is no cluster 'nope'"):
            getattr(cluster(home, MemoryCloud(), "nope"), call)()
    assert not cluster(home, MemoryCloud(), "nope").down().changed


def test_a_head_that_was_ready_once_is_never_made_anew_though_a_worker_failed(home: Path) -> None:
    cloud = MemoryCloud(faults=FaultScript(machines={"cpu-2": (Trouble.NEVER_READY, 0.0)}))
    demo = cluster(home, cloud)
    with pytest.raises(PermanentError):
        demo.up()
    before = demo.status().machines[0].uuid
    cloud.faults.machines.clear()
    cloud.kill("head")
    with pytest.raises(PermanentError, match="cpu-2"):
        demo.up()
    assert demo.replace("cpu-2").status.machines[0].uuid == before


def test_a_silent_moment_of_a_machine_that_worked_for_days_is_borne(home: Path) -> None:
    cloud = MemoryCloud()
    demo = cluster(home, cloud)
    before = {m.uuid for m in demo.up().status.machines}
    cloud.clock.sleep(86_400.0)
    real, silent = cloud.control, 3

    class Deaf(type(real(demo.ref))):  # type: ignore[misc]
        def health(self, observed: Observed) -> dict[str, Health]:
            nonlocal silent
            silent -= 1
            return {} if silent >= 0 else super().health(observed)

    cloud.control = lambda ref: Deaf(cloud, ref)  # type: ignore[method-assign]
    assert {m.uuid for m in demo.up().status.machines} == before


def test_a_head_out_of_reboots_is_told_and_start_tries_again(home: Path) -> None:
    cloud = MemoryCloud()
    demo = cluster(home, cloud)
    before = demo.up().status.machines[0].uuid
    cloud.annotate(demo.ref, {"attempts/head": "2 long-ago@1"})
    cloud.kill("head")
    with pytest.raises(PermanentError) as caught:
        demo.up()
    assert "vcluster start demo" in caught.value.remedy
    assert demo.start().status.machines[0].uuid == before


def test_down_called_during_scale_wins(home: Path) -> None:
    cloud = MemoryCloud()
    cluster(home, cloud).up()
    called: list[Event] = []

    def interfere(event: Event) -> None:
        if isinstance(event, StepFinished) and not called:
            called.append(event)
            cluster(home, cloud, "demo").down()

    with pytest.raises(CancelledError, match=r"taken down meanwhile|`vcluster down demo` was called meanwhile"):
        cluster(home, cloud, on_event=interfere).scale("cpu", 3)
    assert called
    assert cloud.resources() == []


@pytest.mark.parametrize("finished", [True, False])
def test_an_up_that_was_called_before_a_down_does_not_undo_it(home: Path, *, finished: bool) -> None:
    cloud = MemoryCloud()
    cluster(home, cloud).up()
    cloud.kill("cpu-1")
    cloud.clock.sleep(1.0)

    def meanwhile(_: PlanView) -> bool:
        """What happens while a person reads what would be deleted."""
        if finished:
            cluster(home, cloud, "demo").down()
        else:
            cloud.annotate(cloud.ref("demo"), {"leaving": "down-5"})  # the first act of a `down`
        return True

    cloud.lose("head")
    with pytest.raises(CancelledError, match=r"taken down meanwhile|`vcluster down demo` was called meanwhile"):
        cluster(home, cloud).up(confirm=meanwhile)
    if finished:
        assert cloud.resources() == []
    else:
        assert cloud.observe(cloud.ref("demo")).notes["leaving"] == "down-5"


def test_up_called_during_down_wins(home: Path) -> None:
    cloud = MemoryCloud(delete_time=30.0)
    cluster(home, cloud).up()
    called: list[Event] = []

    def interfere(event: Event) -> None:
        if isinstance(event, StepFinished) and not called:
            called.append(event)
            cloud.annotate(cloud.ref("demo"), {"leaving": "up-5"})  # the first act of an `up`

    with pytest.raises(CancelledError, match="another command brings demo up again"):
        cluster(home, cloud, on_event=interfere).down()
    assert cluster(home, cloud).up(confirm=lambda plan: True).status.state == "ready"


def test_an_unagreed_loss_of_data_ends_the_run_before_it(home: Path) -> None:
    cloud = MemoryCloud()
    demo = cluster(home, cloud)
    demo.up()
    cloud.kill("cpu-1")
    lost = []

    def lose(number: int) -> None:
        if not lost:
            lost.append(number)
            cloud.lose("head")

    cloud.after_effect = lose
    with pytest.raises(CancelledError, match="not agreed to"):
        demo.up(confirm=lambda plan: pytest.fail("there was nothing to ask about when it began"))


def test_stop_stops_a_machine_in_error_too(home: Path) -> None:
    cloud = MemoryCloud()
    demo = cluster(home, cloud)
    demo.up()
    cloud.kill("cpu-1")
    assert demo.stop().status.state == "stopped"


def test_looking_from_another_computer_makes_no_secret(home: Path, tmp_path: Path) -> None:
    cloud = MemoryCloud()
    cluster(home, cloud).up()
    other = cluster(tmp_path / "elsewhere", cloud)
    other.plan()
    other.status()
    assert not other.folder.known


def test_start_makes_no_new_head(home: Path) -> None:
    cloud = MemoryCloud()
    demo = cluster(home, cloud)
    demo.up()
    demo.stop()
    cloud.lose("head")
    with pytest.raises(UsageError, match="has no head to start"):
        demo.start()
