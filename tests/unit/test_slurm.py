"""What lies on a Slurm cluster's machines: each has what it needs, and no secret that it does not."""

from __future__ import annotations

import base64
import gzip
import ipaddress
import json
import random
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_private_key
from slurm_kit import KEY, SECRET, parsed, site

from vcluster.model import Role
from vcluster.stacks.base import ADMIN_USER
from vcluster.stacks.slurm import PROBE_PARTITION, SlurmStack
from vcluster.stacks.userdata import File, write_files

USERS = [{"name": "alice", "ssh_keys": [KEY], "sudo": True}, {"name": "bob"}]
NOVA = 48 * 1024


def _forms(secret: bytes | str) -> Iterator[str]:
    raw = secret.encode() if isinstance(secret, str) else secret
    yield raw.hex()
    yield base64.b64encode(raw).decode()
    if isinstance(secret, str):
        yield secret.strip()


def _without_key(text: str) -> str:
    """OpenSSH's format has a random number in it, so the same private key is not always the same text."""
    return re.sub(r"(?s)-----BEGIN OPENSSH.*KEY-----", "", text)


@pytest.mark.parametrize("role", list(Role)[1:])
def test_user_data_is_what_cloud_init_wants(role: Role) -> None:
    where = site(users=USERS, access={"ssh_keys": [KEY]})
    slot = next(slot for slot in where.slots if slot.role is role)
    text = SlurmStack().user_data(where, slot)
    data, files = parsed(text)
    assert data["hostname"] == slot.name
    assert data["ssh_keys"]["ed25519_public"] == where.keyring.host(slot.name).public
    private = load_ssh_private_key(data["ssh_keys"]["ed25519_private"].encode(), None)
    public = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    assert data["ssh_keys"]["ed25519_public"] == f"{public} {slot.name}"
    assert data["users"][0]["name"] == ADMIN_USER
    assert data["users"][0]["ssh_authorized_keys"] == [where.keyring.admin.public, KEY]
    assert not data["ssh_pwauth"]
    assert data["disable_root"]
    assert data["runcmd"] == [["/usr/local/sbin/vcluster-configure"]]
    assert all(file["permissions"].startswith("0") for file in files.values())
    assert len(gzip.compress(text.encode())) < NOVA


def test_equal_sites_give_equal_text_and_machines_differ() -> None:
    one, other = site(("cpu", 3)), site(("cpu", 3))
    stack = SlurmStack()
    texts = [_without_key(stack.user_data(one, slot)) for slot in one.slots]
    assert [_without_key(stack.user_data(other, slot)) for slot in other.slots] == texts
    assert len(set(texts)) == len(texts)


def test_a_worker_gets_only_what_a_worker_needs() -> None:
    where = site(users=USERS)
    head, worker, other = where.slots
    text = SlurmStack().user_data(where, worker)
    keys = where.keyring
    forbidden = {
        "the cluster's secret": SECRET,
        "the administrator's key": keys.admin.private,
        "the head's host key": keys.host(head.name).private,
        "another worker's host key": keys.host(other.name).private,
    }
    _, files = parsed(text)
    for what, secret in forbidden.items():
        for form in _forms(secret):
            assert form not in text, what
            # Of a key in PEM the line with its bytes would do.
            assert not [line for line in form.splitlines()[3:5] if line in text], what
    assert not [path for path in files if "slurmdbd" in path or path.startswith("/etc/slurm/")]
    assert KEY not in text  # alice's key is in her home, which the head serves


def test_the_munge_key_is_for_root_alone_and_the_same_everywhere() -> None:
    where = site()
    found = set()
    for slot in where.slots:
        _, files = parsed(SlurmStack().user_data(where, slot))
        entry = files["/etc/vcluster/secrets/munge.key"]
        assert (entry["permissions"], entry["encoding"]) == ("0600", "b64")
        found.add(base64.b64decode(entry["content"]))
    assert found == {where.keyring.key("munge", 128)}


def test_nodes_are_ranges_and_each_group_is_a_partition() -> None:
    where = site(("cpu", 3), ("gpu", 2), slurm={"memory_per_cpu": "100M", "max_time": "2:00:00"})
    _, files = parsed(SlurmStack().user_data(where, where.slots[0]))
    conf = files["/etc/slurm/slurm.conf"]["content"]
    memory = int(4096 * 0.95)
    assert f"NodeName=cpu-[1-3] NodeAddr=10.77.0.[11-13] CPUs=2 RealMemory={memory}\n" in conf
    assert f"NodeName=gpu-[1-2] NodeAddr=10.77.0.[14-15] CPUs=2 RealMemory={memory}\n" in conf
    assert "PartitionName=cpu Nodes=cpu-[1-3] Default=YES PriorityTier=1 DefaultTime=1:00:00 MaxTime=2:00:00" in conf
    assert "PartitionName=gpu Nodes=gpu-[1-2] PriorityTier=1" in conf
    assert conf.count("DefMemPerCPU=100\n") == 2
    assert f"PartitionName={PROBE_PARTITION} Nodes=ALL Hidden=YES RootOnly=YES" in conf
    assert "SlurmctldHost=head(10.77.0.10)" in conf


def test_addresses_with_a_gap_are_separate_nodes() -> None:
    where = site(("cpu", 4))
    ports = dict(where.ports)
    ports["cpu-3"], ports["cpu-4"] = ports["cpu-4"], ports["cpu-3"]
    moved = type(where)(where.ref, where.spec, where.network, where.slots, ports, where.keyring, where.guarded)
    _, files = parsed(SlurmStack().user_data(moved, moved.slots[0]))
    lines = [line for line in files["/etc/slurm/slurm.conf"]["content"].splitlines() if line.startswith("NodeName")]
    assert [line.split(" CPUs")[0] for line in lines] == [
        "NodeName=cpu-[1-2] NodeAddr=10.77.0.[11-12]",
        "NodeName=cpu-3 NodeAddr=10.77.0.14",
        "NodeName=cpu-4 NodeAddr=10.77.0.13",
    ]


def test_without_accounting_there_is_no_database() -> None:
    where = site(slurm={"accounting": False})
    _, files = parsed(SlurmStack().user_data(where, where.slots[0]))
    assert "Accounting" not in files["/etc/slurm/slurm.conf"]["content"]
    assert "mariadb" not in files["/usr/local/sbin/vcluster-configure"]["content"]


def test_the_firewall_knows_members_guests_and_guarded_addresses() -> None:
    guarded = ("10.0.2.2", "169.254.169.254", "fec0::2")
    where = site(("cpu", 3), guarded=guarded, access={"allow_from": ["192.0.2.0/24", "2001:db8::/32"]})
    _, files = parsed(SlurmStack().user_data(where, where.slots[1]))
    rules = files["/etc/nftables.conf"]["content"]
    assert "elements = { 10.77.0.10-10.77.0.13 }" in rules
    assert "dport 22" not in rules
    assert "meta skuid != 0 ip daddr @guarded_ipv4 reject" in rules
    assert "meta skuid != 0 ip6 daddr @guarded_ipv6 reject" in rules
    assert "masquerade" not in rules
    _, files = parsed(SlurmStack().user_data(where, where.slots[0]))
    rules = files["/etc/nftables.conf"]["content"]
    assert "masquerade" in rules
    assert "ip saddr { 192.0.2.0/24 } tcp dport 22 accept" in rules
    assert "ip6 saddr { 2001:db8::/32 } tcp dport 22 accept" in rules


@pytest.mark.parametrize("slot", [0, 1])
def test_scripts_are_scripts(slot: int) -> None:
    where = site(users=USERS, setup={"head": "#!/bin/sh\ntrue\n", "workers": "#!/bin/sh\ntrue\n"})
    _, files = parsed(SlurmStack().user_data(where, where.slots[slot]))
    seen = 0
    for file in files.values():
        text = file.get("content", "")
        if text.startswith(("#!/bin/bash", "#!/bin/sh")):
            done = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True, check=False)
            assert (done.returncode, done.stderr) == (0, ""), file["path"]
            seen += 1
        elif text.startswith("#!/usr/bin/python3"):
            compile(text, file["path"], "exec")
            seen += 1
    assert seen >= 4


def test_users_have_their_numbers_everywhere_and_sudo_where_said() -> None:
    where = site(users=USERS)
    for slot in where.slots:
        _, files = parsed(SlurmStack().user_data(where, slot))
        script = files["/usr/local/sbin/vcluster-configure"]["content"]
        assert "account alice 2001 /home/alice" in script
        assert "account bob 2002 /home/bob" in script
        sudoers = files["/etc/sudoers.d/vcluster"]
        assert "alice ALL=" in sudoers["content"]
        assert "bob" not in sudoers["content"]
        assert sudoers["permissions"] == "0440"


def test_the_install_steps_know_packages_and_mirrors_and_no_cluster() -> None:
    where = site(
        packages=["gfortran"],
        mirrors={"apt": "https://mirror.example.org/debian", "pypi": "https://mirror.example.org/simple"},
    )
    text = SlurmStack().install_script(where.spec)
    assert " gfortran\n" in text
    assert "#https://mirror.example.org/debian\\4#" in text
    assert "index-url = https://mirror.example.org/simple" in text
    assert "demo" not in text
    _, files = parsed(SlurmStack().user_data(where, where.slots[0]))
    assert files["/usr/local/lib/vcluster/install.sh"]["content"] == text


def test_facts_for_the_head_program() -> None:
    where = site(("cpu", 2))
    _, files = parsed(SlurmStack().user_data(where, where.slots[0]))
    facts = json.loads(files["/var/lib/vcluster/cluster.json"]["content"])
    assert facts["workers"] == {"cpu-1": "10.77.0.11", "cpu-2": "10.77.0.12"}
    assert facts["head"] == "head"


def test_a_thousand_machines_in_a_second() -> None:
    where = site(("cpu", 1000))
    stack = SlurmStack()
    begin = time.process_time()
    texts = [stack.user_data(where, slot) for slot in where.slots]
    assert time.process_time() - begin < 2.0  # the sharp limit is in tests/bench; this one is for a busy machine
    assert max(len(gzip.compress(text.encode())) for text in (texts[0], texts[1])) < NOVA


@pytest.mark.parametrize(
    "content",
    [
        "a\n",
        "a",
        "",
        "\n",
        " indented\n",
        "tab\tin\n",
        "cr\r\n",
        "two\n\n",
        "x\n\n\ny\n",
        "é☃\n",
        "\x00\n",
        "# a: b\n",
        b"\xff\n",
    ],
)
def test_files_arrive_as_they_were(content: str | bytes) -> None:
    data = yaml.safe_load("write_files:\n" + write_files([File("/a b", content, 0o600)]) + "\n")
    (entry,) = data["write_files"]
    found = base64.b64decode(entry["content"]) if entry.get("encoding") == "b64" else entry["content"].encode()
    assert found == (content.encode() if isinstance(content, str) else content)
    assert (entry["path"], entry["permissions"]) == ("/a b", "0600")


def test_a_file_keeps_its_content_to_itself() -> None:
    assert "hush" not in repr(File("/x", "hush"))


def test_a_sites_own_steps_run_by_the_interpreter_that_they_name() -> None:
    made = site(setup={"head": "#!/usr/bin/python3\nprint(1)\n", "workers": "#!/usr/bin/python3\nprint(2)\n"})
    for slot in made.slots[:2]:
        _, files = parsed(SlurmStack().user_data(made, slot))
        assert int(files["/usr/local/lib/vcluster/setup.sh"]["permissions"], 8) == 0o700
        lines = files["/usr/local/sbin/vcluster-configure"]["content"].splitlines()
        assert "$library/setup.sh" in lines


def test_a_keys_comment_is_no_yaml() -> None:
    made = site(access={"ssh_keys": [KEY.rsplit(" ", 1)[0] + " me: laptop"]})
    data, _ = parsed(SlurmStack().user_data(made, made.slots[0]))
    keys = data["users"][0]["ssh_authorized_keys"]
    assert all(isinstance(key, str) for key in keys)
    assert keys[-1].endswith("me: laptop")


RELEASES = {
    'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n': "",
    'ID=debian\nVERSION_ID="13"\nPRETTY_NAME="Debian GNU/Linux 13 (trixie)"\n': "",
    'ID=ubuntu\nVERSION_ID="24.04"\nPRETTY_NAME="Ubuntu 24.04.3 LTS"\n': "",
    'ID=ubuntu\nVERSION_ID="22.04"\nPRETTY_NAME="Ubuntu 22.04.5 LTS"\n': "Ubuntu 22.04.5 LTS is not supported",
    'ID=debian\nPRETTY_NAME="Debian GNU/Linux trixie/sid"\n': "Debian GNU/Linux trixie/sid is not supported",
    'ID="rocky"\nVERSION_ID="9.4"\nPRETTY_NAME="Rocky Linux 9.4 (Blue Onyx)"\n': "Rocky Linux 9.4 (Blue Onyx) is not",
    "": "this system is not supported",
}


@pytest.mark.parametrize("release", RELEASES)
def test_a_system_that_was_not_tried_is_refused_by_its_name(release: str, tmp_path: Path) -> None:
    (tmp_path / "os-release").write_text(release)
    text = SlurmStack().install_script(site().spec)
    check = text[: text.index("# Nothing starts while")].replace("/etc/os-release", str(tmp_path / "os-release"))
    done = subprocess.run(["bash", "-c", check], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr[: len(RELEASES[release])]) == (int(bool(RELEASES[release])), RELEASES[release])


@pytest.mark.parametrize("slot", [0, 1])
def test_such_a_system_says_so_on_its_console_before_anything_else(slot: int, tmp_path: Path) -> None:
    """The first step of the configure script, run up to there with its folders moved."""
    where = site()
    _, files = parsed(SlurmStack().user_data(where, where.slots[slot]))
    text = files["/usr/local/sbin/vcluster-configure"]["content"]
    (tmp_path / "os-release").write_text('ID=rocky\nVERSION_ID=9.4\nPRETTY_NAME="Rocky Linux 9.4"\n')
    moved = ["/var/lib/vcluster", "/run/vcluster-configure.lock", "/var/log/vcluster-configure.log", "/dev/console"]
    for place in moved:
        text = text.replace(place, str(tmp_path / place.rpartition("/")[2]))
    text = text.replace("systemctl", "true")
    text = text.replace("/etc/os-release", str(tmp_path / "os-release"))
    (tmp_path / "console").touch()
    done = subprocess.run(["bash", "-s"], input=text, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "\nVCLUSTER FAILED: Rocky Linux 9.4 is not supported: a machine" in (tmp_path / "console").read_text()
    assert (tmp_path / "vcluster" / "failed").read_text().startswith("Rocky Linux 9.4 is not supported")


@pytest.mark.parametrize(("workers", "most"), [(40, 24), (127, 28), (400, 40)])
def test_user_data_fits_what_nova_takes(workers: int, most: int) -> None:
    """In KiB of base64 of gzip, as Nova counts it (64 are allowed), at its worst: no two addresses in a row."""
    where = site(("cpu", workers), users=[{"name": f"user{n}", "ssh_keys": [KEY]} for n in range(20)])
    addresses = random.Random(1).sample(range(10, 60000), len(where.ports))
    scattered = [str(ipaddress.IPv4Address("10.77.0.0") + n) for n in addresses]
    ports = {name: replace(port, address=to) for (name, port), to in zip(where.ports.items(), scattered, strict=True)}
    where = replace(where, ports=ports)
    for slot in where.slots[:2]:
        text = SlurmStack().user_data(where, slot)
        assert len(base64.b64encode(gzip.compress(text.encode()))) < most * 1024


def test_a_machine_with_one_interface_and_one_with_two() -> None:
    """OpenStack's machines have one, with a router behind it; the local cloud's get out by a second."""
    where = site(guarded=("169.254.169.254/32", "fe80::a9fe:a9fe/128"))
    _, head = parsed(SlurmStack().user_data(where, where.slots[0]))
    _, worker = parsed(SlurmStack().user_data(where, where.slots[1]))
    # Only a head with two forwards, and only a worker without a way out is sent to it.
    assert "/etc/sysctl.d/90-vcluster.conf" not in head
    script = head["/usr/local/sbin/vcluster-configure"]["content"]
    assert "-gt 1 ]; then\n  echo 'net.ipv4.ip_forward = 1' > /etc/sysctl.d/90-vcluster.conf" in script
    route = worker["/etc/systemd/system/vcluster-route.service"]["content"]
    assert "ip route show default | grep -q . || ip route replace default via 10.77.0.10 metric 60000" in route
    for files in (head, worker):
        rules = files["/etc/nftables.conf"]["content"]
        assert "elements = { 169.254.169.254/32 }" in rules
        assert "elements = { fe80::a9fe:a9fe/128 }" in rules
        assert "meta skuid != 0 ip6 daddr @guarded_ipv6 reject" in rules
        # No template may know an interface by its name: every cloud and system has its own.
        text = "".join(file["content"] for file in files.values() if file.get("encoding") != "b64")
        assert not re.search(r"\b(eth0|ens3|enp1s0|iifname|oifname)\b", text)
    # The image's own user is not made: whoever has the key pair of somebody's project would be in.
    assert [user["name"] for user in parsed(SlurmStack().user_data(where, where.slots[0]))[0]["users"]] == [ADMIN_USER]
