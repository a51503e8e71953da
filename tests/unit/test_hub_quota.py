"""What each of the class may store: which programs are asked, in which order, and with which numbers."""

from __future__ import annotations

import json

import pytest
from hub_head_kit import Head, head
from test_jupyterhub import files

from vcluster.model import Role

__all__ = ["head"]

ON = "user quota on / (/dev/vda) is on\n"
OFF = "user quota on / (/dev/vda) is off\n"


def programs(head: Head, *, kind: str = "ext4", state: str = OFF) -> None:
    """Programs that note how they were called, and what they were told."""
    where = json.dumps({"filesystems": [{"target": "/", "fstype": kind}]})
    answers = {"findmnt": where, "quotaon": state, "mount": "", "quotacheck": "", "setquota": ""}
    for name, answer in answers.items():
        told = '| sed "s/^/setquota reads /"' if name == "setquota" else "> /dev/null"
        script = head.root / "bin" / name
        script.write_text(
            f"#!/bin/sh\necho \"{name} $*\" >> {head.calls}\ncat {told} >> {head.calls}\nprintf '%s' '{answer}'\n"
        )
        script.chmod(0o755)


def asked(head: Head) -> list[str]:
    return [call for call in head.called() if not call.startswith("findmnt")]


def test_the_first_boot_counts_once(head: Head) -> None:
    head.facts(quota_mib=200)
    programs(head)
    assert head.module("hub_quota").switch_on() == {"quota": "/"}
    assert asked(head) == [
        "quotaon --print-state --user /",
        "mount -o remount,usrjquota=aquota.user,jqfmt=vfsv1 /",
        "quotacheck --user --create-files --no-remount --format=vfsv1 /",
        "quotaon --user /",
    ]


def test_a_later_boot_believes_the_counts(head: Head) -> None:
    head.facts(quota_mib=200)
    programs(head)
    (head.root / "aquota.user").touch()
    head.module("hub_quota").switch_on()
    assert [call.split()[0] for call in asked(head)] == ["quotaon", "mount", "quotaon"]


def test_what_is_on_is_left_alone(head: Head) -> None:
    head.facts(quota_mib=200)
    programs(head, state=ON)
    head.module("hub_quota").switch_on()
    assert [call.split()[0] for call in asked(head)] == ["quotaon"]


def test_another_file_system_is_refused_by_name(head: Head) -> None:
    head.facts(quota_mib=200)
    programs(head, kind="btrfs")
    quota = head.module("hub_quota")
    with pytest.raises(head.module("hub_state").Sorry, match=r"people\.quota needs ext4 below /home, and / is btrfs"):
        quota.switch_on()
    assert asked(head) == []


def test_the_class_is_limited_and_nobody_else(head: Head) -> None:
    head.facts(quota_mib=200)
    programs(head)
    kinds = ("student", "rehearsal", "instructor", "user")
    head.module("hub_quota").limit({f"n{uid}": {"uid": uid, "kind": kind} for uid, kind in enumerate(kinds, 10001)})
    assert asked(head) == [
        "setquota --user --batch /",
        "setquota reads 10001 0 204800 0 0",
        "setquota reads 10002 0 204800 0 0",
    ]


def test_without_a_quota_nothing_is_asked(head: Head) -> None:
    programs(head)
    quota = head.module("hub_quota")
    assert quota.switch_on() == {"quota": None}
    quota.limit({"ann": {"uid": 10001, "kind": "student"}})
    assert head.called() == []


def test_the_head_alone_has_the_unit_and_only_with_a_quota() -> None:
    unit = "/etc/systemd/system/vcluster-quota.service"
    limited = files(Role.HEAD, people={"count": 2, "quota": "5G"})
    assert "vcluster-hub quota" in limited[unit]
    assert json.loads(limited["/etc/vcluster/hub/hub.json"])["quota_mib"] == 5120
    assert "restart vcluster-quota.service" in limited["/usr/local/sbin/vcluster-configure"]
    unlimited = files(Role.HEAD, people={"count": 2})
    assert unit not in unlimited
    assert "quota" not in unlimited["/usr/local/sbin/vcluster-configure"]
    assert unit not in files(Role.WORKER, people={"count": 2, "quota": "5G"})
