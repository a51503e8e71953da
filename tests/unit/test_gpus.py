"""GPUs of a worker group: what Slurm is told of them, how many notebooks they hold, and what is refused."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from slurm_kit import parsed, site

from vcluster import ClusterSpec
from vcluster.capacity import Capacity, capacity, refuse_too_large
from vcluster.errors import SpecError
from vcluster.model import Flavor
from vcluster.render import render
from vcluster.stacks.slurm import SlurmStack

WORKERS: list[dict[str, Any]] = [
    {"name": "cpu", "count": 2},
    {"name": "gpu", "count": 2, "gpus": 4},
    {"name": "one", "count": 1, "gpus": 1},
]


def written(workers: list[dict[str, Any]], name: str, **spec: Any) -> dict[str, str]:
    """The files of a machine."""
    groups = [(str(group["name"]), int(group["count"])) for group in workers]
    where = site(*groups, cloud="openstack", **{"workers": workers, **spec})
    slot = next(slot for slot in where.slots if slot.name == name)
    return {path: file["content"] for path, file in parsed(SlurmStack().user_data(where, slot))[1].items()}


def test_slurm_knows_which_machine_has_which_devices() -> None:
    head = written(WORKERS, "head")
    conf = head["/etc/slurm/slurm.conf"]
    nodes = {line.split()[0]: line.split()[-1] for line in conf.splitlines() if line.startswith("NodeName=")}
    assert nodes == {
        "NodeName=cpu-[1-2]": "RealMemory=3891",
        "NodeName=gpu-[1-2]": "Gres=gpu:4",
        "NodeName=one-1": "Gres=gpu:1",
    }
    assert "\nGresTypes=gpu\n" in conf
    assert "\nAccountingStorageTRES=gres/gpu\n" in conf
    assert [line for line in head["/etc/slurm/gres.conf"].splitlines() if not line.startswith("#")] == [
        "NodeName=gpu-[1-2] Name=gpu File=/dev/nvidia[0-3]",
        "NodeName=one-1 Name=gpu File=/dev/nvidia0",
    ]
    # Nobody's job touches a GPU that was not given to it; NVML would be needed to find them by themselves.
    assert "\nConstrainDevices=yes\n" in head["/etc/slurm/cgroup.conf"]
    assert "AutoDetect" not in head["/etc/slurm/gres.conf"]


def test_without_gpus_nothing_is_said_of_them() -> None:
    head, worker = (written(WORKERS[:1], name) for name in ("head", "cpu-1"))
    assert "/etc/slurm/gres.conf" not in head
    for text in (head["/etc/slurm/slurm.conf"], *worker.values()):
        assert "nvidia" not in text
        assert "gres" not in text.lower()


def test_accounting_that_is_off_stays_off() -> None:
    assert "Accounting" not in written(WORKERS, "head", slurm={"accounting": False})["/etc/slurm/slurm.conf"]


def gpu_step(script: str) -> str:
    begin = script.index("step gpus")
    return script[begin : script.index("step slurmd")]


@pytest.mark.parametrize("there", [0, 1, 4])
def test_a_worker_without_its_devices_says_so(tmp_path: Path, there: int) -> None:
    worker = written(WORKERS, "gpu-2", setup={"workers": "#!/bin/sh\n"})
    script = worker["/usr/local/sbin/vcluster-configure"]
    # A site's own step may bring the driver.
    assert script.index("step setup") < script.index("step gpus") < script.index("step slurmd")
    for n in range(there):
        (tmp_path / f"nvidia{n}").symlink_to("/dev/null")
    shell = 'set -eu; now=; step() { :; }; nvidia-smi() { false; }; failed() { echo "$now"; exit 1; }\n'
    done = subprocess.run(
        ["bash", "-c", shell + gpu_step(script).replace("/dev/", f"{tmp_path}/")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == (0 if there == 4 else 1), done.stderr
    said = "" if there == 4 else f"no {tmp_path}/nvidia{there}: the image must bring the driver of 4 NVIDIA GPUs\n"
    assert done.stdout == said


def test_the_devices_are_made_before_slurmd_looks_for_them() -> None:
    unit = "/etc/systemd/system/slurmd.service.d/vcluster.conf"
    assert "\nExecStartPre=-/usr/bin/nvidia-smi -L\n" in written(WORKERS, "gpu-1")[unit]
    assert "step gpus" not in written(WORKERS, "cpu-1")["/usr/local/sbin/vcluster-configure"]


# Notebooks ----------------------------------------------------------------------------------------------------------

SIZE = Flavor("g3", 32, 128 * 1024, 60)


def spec(profiles: list[dict[str, Any]], *, gpus: int = 4, count: int = 2, **hub: Any) -> ClusterSpec:
    data = {"name": "demo", "cloud": "openstack", "workers": [{"count": count, "flavor": "g3", "gpus": gpus}]}
    return ClusterSpec.model_validate({**data, "jupyterhub": {"profiles": profiles, **hub}})


def reckoned(what: ClusterSpec) -> Capacity:
    found = capacity(what, what.slots(lambda _: SIZE))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("profile", "each", "limit"),
    [
        ({"gpus": 1}, 4, "GPUs are"),
        ({"gpus": 2}, 2, "GPUs are"),
        ({"gpus": 3}, 1, "GPUs are"),
        ({"gpus": 1, "memory": "40G"}, 3, "memory is"),
        ({"gpus": 1, "cpus": 16}, 2, "processors are"),
        ({}, 32, "processors are"),
    ],
)
def test_gpus_are_a_third_limit(profile: dict[str, Any], each: int, limit: str) -> None:
    (group,) = reckoned(spec([profile])).groups
    assert (group.each, group.total) == (each, 2 * each)
    assert f"({limit} the limit" in str(group)
    assert ("GPU" in str(group).partition("(")[0]) == ("gpus" in profile)


def test_gpus_are_not_shared_however_many_share_a_processor() -> None:
    found = reckoned(spec([{"gpus": 1}], people={"count": 20}, cpu_oversubscribe=8))
    assert (found.total, found.fits) == (8, False)
    assert [str(proposal) for proposal in found.proposals] == ["workers[cpu].count: 5"]
    with pytest.raises(SpecError, match=r"1 cpu, 1 GPU and 1024 MiB each \(GPUs are the limit"):
        refuse_too_large(spec([{"gpus": 1}], people={"count": 20}), found)


def test_more_to_a_processor_is_proposed_as_far_as_gpus_go() -> None:
    found = reckoned(spec([{"gpus": 1, "cpus": 16}], people={"count": 8}))
    assert [dict(proposal.settings) for proposal in found.proposals] == [
        {"workers[cpu].count": 4},
        {"workers[cpu].count": 2, "cpu_oversubscribe": 2},
    ]


def test_the_hub_lets_in_as_many_as_have_a_gpu() -> None:
    hub = {"profiles": [{"name": "g", "gpus": 2, "partition": "gpu", "memory": "512M"}]}
    facts = json.loads(written(WORKERS, "head", jupyterhub=hub)["/etc/vcluster/hub/hub.json"])
    assert (facts["capacity"], facts["profiles"][0]["gpus"]) == (4, 2)


def test_people_read_of_gpus_where_they_choose() -> None:
    text = render("jupyterhub/vcluster_spawner.py")
    begin = text.index("def form(profiles)")
    known: dict[str, Any] = {}
    exec("import html\n" + text[begin : text.index("async def ask_helper")], known)
    profile = {"name": "a", "description": "", "cpus": 2, "memory_mib": 2048, "time": "1:00:00"}
    form = known["form"]([{**profile, "gpus": 1}, {**profile, "gpus": 0}])
    assert ">a – 2 CPU, 1 GPU, 2 GiB, 1:00:00<" in form
    assert ">a – 2 CPU, 2 GiB, 1:00:00<" in form


# What is refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[{gpus: 2}]", "must be at most 1, got 2: a worker of group 'a' has 1 GPU"),
        ("[{gpus: 5, partition: b}]", "must be at most 4, got 5: a worker of group 'b' has 4 GPUs"),
        ("[{gpus: 1, partition: c}]", "must be 0, got 1: a worker of group 'c' has no GPUs"),
    ],
)
def test_a_profile_gets_no_more_than_its_workers_have(text: str, said: str) -> None:
    workers = "[{name: a, gpus: 1}, {name: b, gpus: 4}, {name: c}]"
    with pytest.raises(SpecError) as caught:
        ClusterSpec.from_yaml(f"name: demo\ncloud: x\nworkers: {workers}\njupyterhub: {{profiles: {text}}}\n")
    (problem,) = caught.value.problems
    assert (problem.where, problem.line, problem.message) == ("jupyterhub.profiles[0].gpus", 4, said)


def test_the_local_clouds_machines_have_none() -> None:
    with pytest.raises(SpecError, match="must be 0 on the local cloud: its machines have none") as caught:
        ClusterSpec.from_yaml("name: demo\ncloud: local\nworkers:\n- gpus: 1\n")
    assert (caught.value.problems[0].where, caught.value.problems[0].line) == ("workers[0].gpus", 4)


@pytest.mark.parametrize("value", ["-1", "65", "one", "true", "1.5"])
def test_a_number_of_gpus_is_a_whole_number(value: str) -> None:
    with pytest.raises(SpecError, match="whole number"):
        ClusterSpec.from_yaml(f"name: demo\ncloud: x\nworkers: [{{gpus: {value}}}]\n")


def test_none_is_the_same_as_not_written() -> None:
    """So that clusters keep their digests though a new version knows this field."""
    text = "name: demo\ncloud: x\nworkers: [{%s}]\n"
    none, zero, one = (ClusterSpec.from_yaml(text % group) for group in ("", "gpus: 0", "gpus: 1"))
    assert "gpus" not in none.canonical()["workers"][0]
    assert none.digest == zero.digest != one.digest
