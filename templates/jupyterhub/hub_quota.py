"""How much each of the class may store: the kernel's own disk quota on the file system of /home, kept for whoever
writes, over NFS too.
"""

import contextlib
import json
import os

from hub_state import ROOT, Sorry, facts, run

KINDS = ("student", "rehearsal")
"""Whose files are counted: the class's. Instructors and the spec's users store what fits."""

MODULE = "quota_v2"
COUNTS = "aquota.user"
"""Where ext4 keeps the counts of a file system that was not made with quotas."""


def switch_on():
    """Let the kernel count and refuse, if it does not yet. Each boot asks for it anew.

    Raises:
        Sorry: the file system of /home is of a kind that was not tried, or the kernel cannot count.
    """
    if not facts().get("quota_mib"):
        return {"quota": None}
    where, kind = _file_system()
    if kind != "ext4":
        raise Sorry(f"jupyterhub.people.quota needs ext4 below /home, and {where} is {kind}")
    # Its exit status says nothing that is the same in all versions.
    if " is on" not in run("quotaon", "--print-state", "--user", where, check=False):
        missing = _missing()
        # Journaled: after a power cut the counts are right without a look at every file.
        run("mount", "-o", f"remount,usrjquota={COUNTS},jqfmt=vfsv1", where)
        if not (ROOT / where.lstrip("/") / COUNTS).exists():
            run("quotacheck", "--user", "--create-files", "--no-remount", "--format=vfsv1", where, timeout=1800)
        try:
            run("quotaon", "--user", where)
        except Sorry as error:
            raise Sorry(missing or str(error)) from error
    return {"quota": where}


def limit(people):
    """Give everybody of the class their limit, and take it from instructors, who may have been of the class."""
    size = facts().get("quota_mib")
    if not size:
        return
    # In KiB: soft and hard, then the same for numbers of files; 0 is no limit.
    counted = [entry for entry in people.values() if entry["kind"] != "user"]
    rows = [f"{entry['uid']} 0 {size << 10 if entry['kind'] in KINDS else 0} 0 0\n" for entry in counted]
    if rows:
        run("setquota", "--user", "--batch", _file_system()[0], stdin="".join(rows), timeout=300)


def _missing():
    """What this kernel lacks, and what to do then; empty when it has the module, or gets it here.

    Ubuntu's kernels for clouds have it in a package of its own.
    """
    kernel = os.uname().release
    package = f"linux-modules-extra-{kernel}"
    try:
        run("modprobe", MODULE)
        return ""
    except Sorry:
        with contextlib.suppress(Sorry):
            options = ("--quiet", "--yes", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=600")
            run("apt-get", *options, "install", package, timeout=1200)
            run("modprobe", MODULE)
            return ""
    return (
        f"jupyterhub.people.quota needs the module {MODULE}, which this image's kernel ({kernel}) has not: take an "
        f"image with {package} (Ubuntu) or an ordinary kernel, or leave quota out of the spec"
    )


def _file_system():
    """Where the file system of /home is mounted, and of which kind it is."""
    told = json.loads(run("findmnt", "--json", "--output=TARGET,FSTYPE", "--target=/home"))["filesystems"][0]
    return told["target"], told["fstype"]
