"""The main job on real VMs: what acceptance 2, 3, 7 and 8 of the first issue ask for, on one booted cluster.

The tests run in the order of this file; the last ones break the cluster and repair it.
"""

from __future__ import annotations

import os
import shlex
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from conftest import VCLUSTER, Cli, Watch, on, wait_for
from secret_search import forms, search

from tests.lab.layout import free_ports
from vcluster import Cluster
from vcluster.model import Endpoint
from vcluster.remote import answers

pytestmark = pytest.mark.vm

ACCOUNTS = "sacct -a -n -P -X -o JobName,State,NNodes"
HELLO_MPI = Path(__file__).parents[2] / "examples/hello_mpi.c"


def machines(cli: Cli) -> dict[str, dict[str, str]]:
    status = cli.json("status", "demo")
    found: list[dict[str, str]] = status["machines"]  # type: ignore[assignment]
    return {machine["name"]: machine for machine in found}


def test_srun_prints_two_workers(cli: Cli, demo: Cluster) -> None:
    out = cli("ssh", "demo", "--", "srun", "-N2", "-l", "hostname").stdout
    assert sorted(out.split()) == ["0:", "1:", "cpu-1", "cpu-2"]
    assert cli("ssh", "demo", "--", "exit", "7", code=7).returncode == 7


def test_a_second_up_changes_nothing_and_says_so(cli: Cli, demo: Cluster) -> None:
    result = cli.json("up", str(demo.spec_path), "--yes")  # type: ignore[attr-defined]
    assert result["changed"] is False
    assert cli("plan", str(demo.spec_path)).returncode == 0  # type: ignore[attr-defined]


def test_status_names_every_machine_with_state_address_and_uuid(cli: Cli, demo: Cluster) -> None:
    # It looks once: a machine that answers late on a busy host is unknown.
    wait_for("all are ready", lambda: {m["health"] for m in machines(cli).values()} == {"ready"})
    found = machines(cli)
    assert list(found) == ["head", "cpu-1", "cpu-2"]
    assert {m["state"] for m in found.values()} == {"ACTIVE"}
    assert len({m["uuid"] for m in found.values()}) == 3
    assert len({m["address"] for m in found.values()}) == 3


def test_an_mpi_program_runs_across_the_workers_and_is_accounted(cli: Cli, demo: Cluster) -> None:
    cli("cp", "demo", str(HELLO_MPI), ":hello_mpi.c")
    on(demo, "mpicc -o /home/vcluster/hello hello_mpi.c")
    out = on(demo, "srun -N2 --ntasks-per-node=1 --mpi=pmix /home/vcluster/hello")
    assert {line.rsplit(" on ", 1)[1] for line in out.splitlines() if " on " in line} == {"cpu-1", "cpu-2"}
    # slurmctld tells the accounting in its own time.
    wait_for("the job in the accounts", lambda: "hello|COMPLETED|2" in on(demo, ACCOUNTS))


def test_users_have_one_uid_everywhere_and_their_homes_are_shared_and_private(demo: Cluster) -> None:
    uids = {on(demo, "id -u alice", machine) for machine in ("head", "cpu-1", "cpu-2")}
    assert len(uids) == 1
    on(demo, "sudo -u alice sh -c 'echo mine > ~/note && chmod 600 ~/note'")
    assert on(demo, "sudo -u alice cat /home/alice/note", "cpu-2") == "mine\n"
    assert "ermission denied" in on(demo, "sudo -u bob cat /home/alice/note", check=False)
    assert "ermission denied" in on(demo, "sudo -u bob cat /home/alice/note", "cpu-1", check=False)


def test_a_users_job_is_confined_by_its_cgroup(demo: Cluster) -> None:
    hog = "x = bytearray(600 * 2**20); print(len(x))"
    job = f"cd /tmp && srun --mem=100M -w cpu-1 python3 -c {shlex.quote(hog)}"
    out = on(demo, f"sudo -u alice sh -c {shlex.quote(job)}", check=False)
    assert "oom" in out.lower() or "out of memory" in out.lower()
    assert str(600 * 2**20) not in out
    small = hog.replace("600", "20")
    job = f"cd /tmp && srun --mem=100M -w cpu-1 python3 -c {shlex.quote(small)}"
    assert str(20 * 2**20) in on(demo, f"sudo -u alice sh -c {shlex.quote(job)}")


FETCH = "import socket; socket.create_connection(({host!r}, {port}), 60); print('open')"


@pytest.mark.parametrize("machine", ["head", "cpu-1"])
@pytest.mark.parametrize("address", ["169.254.169.254", "10.0.2.2", "10.0.2.3"])
def test_an_ordinary_user_reaches_neither_metadata_nor_the_hosts_loopback(
    demo: Cluster, machine: str, address: str
) -> None:
    command = f"sudo -u alice python3 -c {shlex.quote(FETCH.format(host=address, port=80))}"
    out = on(demo, command, machine, check=False)
    assert "open" not in out
    # The machine's own firewall says so; a port where nobody listens would be "refused".
    assert "No route to host" in out


def test_root_alone_passes_the_guard_to_the_hosts_loopback(demo: Cluster) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        fetch = shlex.quote(FETCH.format(host="10.0.2.2", port=port))
        assert "open" in on(demo, f"sudo python3 -c {fetch}")
        assert "open" not in on(demo, f"sudo -u alice python3 -c {fetch}", check=False)


def test_no_password_logs_in_and_root_does_not(demo: Cluster) -> None:
    config = on(demo, "sudo sshd -T")
    assert "passwordauthentication no" in config
    assert "kbdinteractiveauthentication no" in config
    assert "permitrootlogin no" in config


def test_ssh_audit_finds_no_failure(demo: Cluster) -> None:
    endpoint = demo.status().machines[0].endpoint
    assert endpoint is not None
    audit = Path(sys.executable).with_name("ssh-audit")
    words = [str(audit), "-t", "60", "-l", "fail", "-p", str(endpoint.port), endpoint.host]
    done = subprocess.run(words, capture_output=True, text=True, timeout=900, check=False)
    assert "[fail]" not in done.stdout, done.stdout
    assert done.returncode in (0, 2), done.stdout + done.stderr


def test_the_user_data_passes_cloud_inits_schema(demo: Cluster) -> None:
    for machine in ("head", "cpu-1"):
        out = on(demo, "sudo cloud-init schema --system", machine)
        assert "Valid" in out


def test_a_worker_holds_only_what_a_worker_needs(demo: Cluster) -> None:
    keyring = demo.folder.keyring()
    secrets = [keyring.host("head").private.encode(), keyring.admin.private.encode()]
    secrets.append((demo.folder.path / "secret").read_bytes())
    assert search(demo, "cpu-1", forms(secrets), readable=False) == ""
    own = forms([keyring.host("cpu-1").private.encode()])
    assert "/etc/ssh/ssh_host_ed25519_key" in search(demo, "cpu-1", own, readable=False).splitlines()


def test_plain_ssh_and_a_forwarded_port_reach_the_machines(cli: Cli, demo: Cluster, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(cli("ssh-config", "demo").stdout)
    words = ["ssh", "-F", str(config), "demo-cpu-2", "hostname"]
    assert subprocess.run(words, capture_output=True, text=True, timeout=300, check=True).stdout == "cpu-2\n"
    (port,) = free_ports(1)
    forward = subprocess.Popen([VCLUSTER, "forward", "demo", "22", "--local-port", str(port)], stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 300
        while not answers(Endpoint("127.0.0.1", port)) and time.monotonic() < deadline:
            time.sleep(1)
        assert answers(Endpoint("127.0.0.1", port))
    finally:
        forward.terminate()
        forward.communicate(timeout=120)


# Secrets -------------------------------------------------------------------------------------------------------


def all_secrets(demo: Cluster) -> list[bytes]:
    keyring = demo.folder.keyring()
    hosts = [keyring.host(name).private.encode() for name in ("head", "cpu-1", "cpu-2", "cpu-3")]
    raw = (demo.folder.path / "secret").read_bytes()
    return [raw, keyring.key("munge", 128), keyring.admin.private.encode(), *hosts]


def test_the_search_for_secrets_finds_one_where_there_is_one(demo: Cluster) -> None:
    on(demo, "echo planted-needle-1234 > /tmp/planted && chmod 644 /tmp/planted")
    assert search(demo, "head", [b"planted-needle-1234"], readable=True) == "/tmp/planted"
    on(demo, "rm /tmp/planted")


@pytest.mark.parametrize("machine", ["head", "cpu-1"])
def test_no_secret_in_logs_or_in_what_others_can_read_on_the_machines(demo: Cluster, machine: str) -> None:
    assert search(demo, machine, forms(all_secrets(demo)), readable=True) == ""


def test_no_secret_in_output_arguments_or_readable_files_on_the_host(
    demo: Cluster, watch: Watch, vm_home: Path
) -> None:
    needles = forms(all_secrets(demo))
    places = [text.encode() for text in (*watch.printed, *watch.seen)]
    assert len(watch.seen) > 50
    assert any(b"qemu" in place for place in places)
    assert not [place[:200] for place in places if any(needle in place for needle in needles)]
    for path in vm_home.rglob("*"):
        info = path.lstat()
        assert not info.st_mode & 0o077 or stat.S_ISLNK(info.st_mode), path
        console = path.name == "console.log"
        if console:
            data = path.read_bytes()
            assert not any(needle in data for needle in needles), path


# Breaking and mending ------------------------------------------------------------------------------------------


def qemu_of(vm_home: Path, name: str) -> psutil.Process:
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if any(word.split(",")[0] == name for word in words) and str(vm_home) in " ".join(words):
            return process
    raise AssertionError(f"no QEMU is called {name}")


def test_a_killed_worker_is_seen_replaced_and_works_again(cli: Cli, demo: Cluster, vm_home: Path) -> None:
    before = machines(cli)
    process = qemu_of(vm_home, "demo/cpu-2")
    os.kill(process.pid, signal.SIGKILL)
    process.wait(120)
    seen = machines(cli)
    assert seen["cpu-2"]["state"] == "ERROR"
    assert seen["cpu-2"]["fault"]
    result = cli.json("up", str(demo.spec_path), "--yes")  # type: ignore[attr-defined]
    assert result["changed"] is True
    after = machines(cli)
    assert after["cpu-2"]["uuid"] != before["cpu-2"]["uuid"]
    assert after["cpu-1"]["uuid"] == before["cpu-1"]["uuid"]
    out = cli("ssh", "demo", "--", "srun", "-N2", "-l", "hostname").stdout
    assert sorted(out.split()) == ["0:", "1:", "cpu-1", "cpu-2"]


def test_growing_needs_no_restart_and_shrinking_drains_first(cli: Cli, demo: Cluster) -> None:
    started = on(demo, "systemctl show -p ActiveEnterTimestampMonotonic slurmctld")
    cli("scale", "demo", "cpu", "3", "--yes")
    out = cli("ssh", "demo", "--", "srun", "-N3", "hostname").stdout
    assert sorted(out.split()) == ["cpu-1", "cpu-2", "cpu-3"]
    assert on(demo, "getent hosts cpu-3", "cpu-1")
    job = on(demo, "cd /tmp && sbatch --parsable -w cpu-3 --wrap 'sleep 20'").strip()
    deadline = time.monotonic() + 300
    while on(demo, f"squeue -h -o %T -j {job}").strip() in ("PENDING", "CONFIGURING") and time.monotonic() < deadline:
        time.sleep(1)
    cli("scale", "demo", "cpu", "2", "--yes")
    wait_for("the job's end", lambda: on(demo, f"sacct -n -P -X -o State -j {job}").strip() == "COMPLETED")
    assert set(machines(cli)) == {"head", "cpu-1", "cpu-2"}
    assert on(demo, "systemctl show -p ActiveEnterTimestampMonotonic slurmctld") == started


def test_stop_and_start_keep_the_homes_and_the_jobs_history(cli: Cli, demo: Cluster) -> None:
    cli("stop", "demo")
    assert {m["state"] for m in machines(cli).values()} == {"SHUTOFF"}
    cli("start", "demo")
    assert on(demo, "sudo cat /home/alice/note") == "mine\n"
    assert "hello|COMPLETED|2" in on(demo, ACCOUNTS)
    out = cli("ssh", "demo", "--", "srun", "-N2", "-l", "hostname").stdout
    assert sorted(out.split()) == ["0:", "1:", "cpu-1", "cpu-2"]
