"""What each of the class may store: which programs are asked, in which order, and with which numbers."""

from __future__ import annotations

import json
import os
import subprocess

import pytest
from hub_head_kit import Head, head
from test_hub_people import begin, extra, student
from test_jupyterhub import files

from vcluster.model import Role

__all__ = ["head"]

ON = "user quota on / (/dev/vda) is on\n"
QUIET = ("apt-get", "modprobe", "mount", "quotacheck", "setquota")
OFF = "user quota on / (/dev/vda) is off\n"


def programs(head: Head, *, kind: str = "ext4", state: str = OFF, fail: tuple[str, ...] = ()) -> None:
    """Programs that note how they were called, and what they were told; some of them fail."""
    where = json.dumps({"filesystems": [{"target": "/", "fstype": kind}]})
    answers = {"findmnt": where, "quotaon": state, **dict.fromkeys(QUIET, "")}
    for name, answer in answers.items():
        told = '| sed "s/^/setquota reads /"' if name == "setquota" else "> /dev/null"
        script = head.root / "bin" / name
        script.write_text(
            f"#!/bin/sh\necho \"{name} $*\" >> {head.calls}\ncat {told} >> {head.calls}\nprintf '%s' '{answer}'\n"
            + (f"case \"$*\" in *print-state*) ;; *) echo '{name}: no' >&2; exit 1 ;; esac\n" if name in fail else "")
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
        "modprobe quota_v2",
        "mount -o remount,usrjquota=aquota.user,jqfmt=vfsv1 /",
        "quotacheck --user --create-files --no-remount --format=vfsv1 /",
        "quotaon --user /",
    ]


def test_a_later_boot_believes_the_counts(head: Head) -> None:
    head.facts(quota_mib=200)
    programs(head)
    (head.root / "aquota.user").touch()
    head.module("hub_quota").switch_on()
    assert [call.split()[0] for call in asked(head)] == ["quotaon", "modprobe", "mount", "quotaon"]


def test_what_is_on_is_left_alone(head: Head) -> None:
    head.facts(quota_mib=200)
    programs(head, state=ON)
    head.module("hub_quota").switch_on()
    assert [call.split()[0] for call in asked(head)] == ["quotaon"]


def test_a_kernel_without_the_module_is_told_with_what_helps(head: Head) -> None:
    head.facts(quota_mib=200)
    programs(head, fail=("modprobe", "apt-get", "quotaon"))
    quota, kernel = head.module("hub_quota"), os.uname().release
    with pytest.raises(head.module("hub_state").Sorry, match="needs the module quota_v2") as caught:
        quota.switch_on()
    assert f"linux-modules-extra-{kernel}" in str(caught.value)
    assert [call.split()[0] for call in asked(head)] == [
        *("quotaon", "modprobe", "apt-get", "mount", "quotacheck", "quotaon")
    ]
    assert f"install linux-modules-extra-{kernel}" in next(call for call in asked(head) if "apt-get" in call)


def test_a_kernel_that_has_it_built_in_needs_no_module(head: Head) -> None:
    head.facts(quota_mib=200)
    programs(head, fail=("modprobe", "apt-get"))
    assert head.module("hub_quota").switch_on() == {"quota": "/"}


def test_what_else_the_kernel_says_is_told_as_it_is(head: Head) -> None:
    head.facts(quota_mib=200)
    programs(head, fail=("quotaon",))
    with pytest.raises(head.module("hub_state").Sorry, match=r"^quotaon: quotaon: no$"):
        head.module("hub_quota").switch_on()


def test_a_quota_that_cannot_be_set_keeps_nobody_out(head: Head) -> None:
    head.facts(quota_mib=200)
    programs(head, fail=("setquota",))
    people = begin(head, ann=student(10001))
    assert people.add([{"name": "bob"}]) == {
        "added": ["bob"],
        "problem": "new people are held to no quota: setquota: setquota: no",
    }
    assert [line.split(":")[0] for line in extra(head, "passwd")] == ["ann", "bob"]


def test_why_the_head_is_not_configured_is_on_its_console() -> None:
    text = files(Role.HEAD, people={"count": 2, "quota": "5G"})["/usr/local/sbin/vcluster-configure"]
    step = text[text.index("if ! told=") : text.index("systemctl restart vcluster-quota")]
    told = json.dumps({"error": 'this "kernel" has not', "temporary": False})
    script = 'failed() { echo "$now"; }\n' + step.replace("/usr/local/sbin/vcluster-hub quota", "tell")
    done = subprocess.run(
        ["bash", "-ec", f"tell() {{ cat <<'END'\n{told}\nEND\nreturn 1; }}\n{script}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == 'hub, this \\"kernel\\" has not\n'


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
        "setquota reads 10003 0 0 0 0",
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
