"""What must not be lost on an OpenStack: volumes that are kept, living servers that a listing leaves out."""

from __future__ import annotations

from typing import Any

import pytest
from openstack_kit import REF, FakeCloud, cloud, fake, server

from vcluster.actions import Goal, Power, Verb
from vcluster.clouds.openstack import OpenStackCloud, marks
from vcluster.errors import ConflictError
from vcluster.model import MachineState, Part, PartKind
from vcluster.plan_absent import plan_absent

__all__ = ["cloud", "fake"]

TIES = "/servers/s1/os-volume_attachments"


def home(**more: Any) -> dict[str, Any]:
    metadata = marks.volume_mark(REF, REF.tag(PartKind.VOLUME), "head")
    return {"id": "v1", "status": "reserved", "attachments": [], "metadata": metadata} | more


def shelved(fake: FakeCloud, *volumes: str) -> None:
    """A shelved head: Cinder lists its volume as nobody's, Nova may tell of it."""
    held = {"os-extended-volumes:volumes_attached": [{"id": v} for v in volumes]}
    fake.nova("GET", "/servers/detail", json={"servers": [server(status="SHELVED_OFFLOADED", **held)]})
    fake.cinder("GET", "/volumes/detail", json={"volumes": [home()]})
    fake.cinder("POST", "/volumes/v1/metadata", json={"metadata": {}})


def kept_by(seen: Any) -> tuple[Part, ...]:
    """The volumes that `down --keep-volumes` keeps first."""
    planned = plan_absent(Goal(Power.ABSENT, keep_volumes=True), seen).actions
    (action,) = (a for a in planned if a.verb is Verb.KEEP_VOLUMES)
    return action.kept


@pytest.mark.parametrize("volumes", [(), ("v1",)])
def test_a_shelved_heads_volume_is_untied_before_it_is_marked(
    fake: FakeCloud, cloud: OpenStackCloud, volumes: tuple[str, ...]
) -> None:
    shelved(fake, *volumes)
    fake.nova("PUT", f"{TIES}/v1", status_code=202)
    seen = cloud.observe(REF)
    assert [m.state for m in seen.machines] == [MachineState.SHELVED]
    cloud.keep_volumes(REF, kept_by(seen))
    (put,) = fake.asked("PUT", TIES)
    assert put.json()["volumeAttachment"] == {"volumeId": "v1", "delete_on_termination": False}
    order = [r.path for r in fake.mocker.request_history if r.method in ("PUT", "POST") and "v1" in r.path.split("/")]
    assert [path.rpartition("/")[2] for path in order] == ["v1", "metadata"]


def test_nova_is_asked_who_has_a_volume_that_is_nobodys(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    shelved(fake, "v1")
    fake.nova("PUT", f"{TIES}/v1", status_code=202)
    fake.cinder("GET", "/volumes/v1", json={"volume": home()})
    cloud.keep_volumes(REF, [Part("v1", REF.tag(PartKind.VOLUME), PartKind.VOLUME, "head")])
    assert len(fake.asked("PUT", TIES)) == 1


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        ({"status_code": 404}, True),
        ({"json": {"volumeAttachments": [{"volumeId": "v2"}]}}, True),
        ({"json": {"volumeAttachments": [{"volumeId": "v1"}]}}, False),
    ],
)
def test_a_volume_counts_as_kept_only_when_no_server_takes_it_along(
    fake: FakeCloud, cloud: OpenStackCloud, answer: dict[str, Any], kept: bool
) -> None:
    shelved(fake)
    fake.nova("PUT", f"{TIES}/v1", status_code=404, json={"itemNotFound": {"message": "no", "code": 404}})
    fake.nova("GET", TIES, **answer)
    parts = kept_by(cloud.observe(REF))
    if kept:
        cloud.keep_volumes(REF, parts)
    else:
        with pytest.raises(ConflictError):
            cloud.keep_volumes(REF, parts)
    assert len(fake.asked("POST", "/metadata")) == kept
