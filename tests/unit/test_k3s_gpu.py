"""GPUs for Kubernetes."""

from __future__ import annotations

import pytest
from k3s_kit import check, containers, objects, release, site

from vcluster.stacks.k3s_gpu import IMAGE, gpu_files

WORKERS = [{"name": "gpu", "count": 1, "flavor": "big", "gpus": 1}, {"name": "cpu", "count": 1, "flavor": "big"}]


@pytest.mark.parametrize(
    ("version", "kinds"),
    [
        ("v1.36.5+k3s1", {"DaemonSet"}),
        ("v1.29.0+k3s1", {"DaemonSet"}),
        ("v1.28.4+k3s1", {"DaemonSet", "RuntimeClass"}),
        ("v1.25.0+k3s1", {"DaemonSet", "RuntimeClass"}),
    ],
)
def test_who_tells_kubernetes_of_them_runs_where_they_are(version: str, kinds: set[str]) -> None:
    (file,) = gpu_files(site(release(version), workers=WORKERS))
    assert file.mode == 0o600
    found = objects([file])
    assert {each["kind"] for each in found} == kinds
    check(found, version.partition("+")[0].removeprefix("v"))
    (pods,) = [each["spec"]["template"]["spec"] for each in found if each["kind"] == "DaemonSet"]
    assert pods["nodeSelector"] == {"vcluster/gpu": "true"}
    assert pods["tolerations"] == [{"operator": "Exists"}]
    assert pods["runtimeClassName"] == "nvidia"
    assert [container["image"] for container in containers(found).values()] == [IMAGE]
    assert IMAGE.rpartition(":")[2].startswith("v")


def test_nothing_where_there_are_none() -> None:
    assert list(gpu_files(site({}))) == []
