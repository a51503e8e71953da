"""Notes as Neutron tags, of which a resource may have 50."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote

import pytest
from openstack_kit import NEUTRON, REF, FakeCloud, cloud, fake, group

from vcluster.clouds.openstack import OpenStackCloud
from vcluster.clouds.openstack.notes import ATTEMPTS_ROOM
from vcluster.errors import PermanentError

__all__ = ["cloud", "fake"]

LIMIT = 50


class TaggedGroup:
    """A security group whose tags Neutron counts."""

    def __init__(self, fake: FakeCloud, tags: Iterable[str] = ()) -> None:
        self.tags = set(tags)
        fake.neutron("GET", "/security-groups", json=self.listed)
        matcher = re.compile(f"{NEUTRON}/v2.0/security-groups/g1/tags/")
        fake.mocker.put(matcher, json=self.put)
        fake.mocker.delete(matcher, text=self.delete)

    def listed(self, asked: Any, context: Any) -> dict[str, Any]:
        return {"security_groups": [group(REF, "members", "g1", tags=sorted(self.tags))]}

    def put(self, asked: Any, context: Any) -> dict[str, Any]:
        context.status_code = 201
        tag = unquote(asked._request.url.rpartition("/")[2])
        if len(self.tags | {tag}) > LIMIT:
            context.status_code = 400
            said = f"Bad security_groups request: The number of tags exceed the per-resource limit of {LIMIT}."
            return {"NeutronError": {"type": "BadRequest", "message": said, "detail": ""}}
        self.tags.add(tag)
        return {}

    def delete(self, asked: Any, context: Any) -> str:
        context.status_code = 204
        self.tags.discard(unquote(asked._request.url.rpartition("/")[2]))
        return ""


def test_failures_of_many_workers_leave_room_for_what_commands_say(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    around = TaggedGroup(fake)
    notes = {f"attempts/cpu-{n}": "1 abcd@t1" for n in range(1, 61)}
    for key, value in notes.items():
        cloud.annotate(REF, {key: value})
    cloud.annotate(REF, {"leaving": "down-1", "spec": "1"})
    assert len(around.tags) == ATTEMPTS_ROOM + 2
    assert cloud.observe(REF).notes == notes | {"leaving": "down-1", "spec": "1"}  # the rest is known to this process
    cloud.annotate(REF, {"attempts/cpu-60": "2 abcd@t2", "attempts/cpu-1": "2 abcd@t2"})
    seen = cloud.observe(REF).notes
    assert (seen["attempts/cpu-60"], seen["attempts/cpu-1"]) == ("2 abcd@t2", "2 abcd@t2")
    assert len(around.tags) == ATTEMPTS_ROOM + 2
    cloud.annotate(REF, dict.fromkeys(notes, ""))
    assert cloud.observe(REF).notes == {"leaving": "down-1", "spec": "1"}


def test_a_full_group_takes_the_new_word_for_the_old_one(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    around = TaggedGroup(fake, [f"x{n}" for n in range(LIMIT - 1)] + ["leaving=up-1"])
    cloud.annotate(REF, {"leaving": "down-1"})
    assert len(around.tags) == LIMIT
    assert cloud.observe(REF).notes == {"leaving": "down-1"}


def test_in_a_full_group_a_count_of_failures_gives_way(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    counts = {f"attempts:cpu-{n}=1 abcd@t" for n in range(LIMIT)}
    around = TaggedGroup(fake, counts)
    cloud.annotate(REF, {"leaving": "down-1"})
    assert around.tags - counts == {"leaving=down-1"}
    assert cloud.observe(REF).notes["attempts/cpu-0"] == "1 abcd@t"


def test_a_group_full_of_other_peoples_tags(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    around = TaggedGroup(fake, [f"x{n}" for n in range(LIMIT)])
    cloud.annotate(REF, {"attempts/cpu-1": "1 abcd@t"})  # a failed machine can be deleted all the same
    with pytest.raises(PermanentError, match="number of tags"):
        cloud.annotate(REF, {"leaving": "down-1"})
    assert len(around.tags) == LIMIT
    assert cloud.observe(REF).notes == {"attempts/cpu-1": "1 abcd@t"}


def test_what_did_not_fit_is_forgotten_with_its_cluster(fake: FakeCloud, cloud: OpenStackCloud) -> None:
    TaggedGroup(fake, [f"x{n}" for n in range(LIMIT)])
    cloud.annotate(REF, {"attempts/cpu-1": "1 abcd@t"})
    fake.neutron("GET", "/security-groups", json={"security_groups": []})
    cloud.observe(REF)
    assert cloud.observe(REF).notes == {}
