"""A machine of the bed: namespaces of this host's kernel over one tree of files, with a network cable to the others."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

INSIDE = Path(__file__).parent / "inside"
SBIN = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"

# The kernel kills the child when its parent is gone, however that ended.
END_WITH = ("setpriv", "--pdeathsig", "KILL", "--")

# A parent is a thread there, and one of asyncio's ends with its loop: a machine that is booted from it would end then.
PARENT = ThreadPoolExecutor(1, "machines")


@dataclass(frozen=True)
class Hall:
    """The network that the machines are in, with a bridge, and nothing else of this host."""

    process: subprocess.Popen[bytes]

    @classmethod
    def open(cls, address: str) -> Hall:
        """Make it.

        Args:
            address: of the bridge, with the bits of the network.
        """
        script = (
            "ip link set lo up && ip link add br0 type bridge && ip link set br0 up && "
            f"ip address add {address} dev br0 && echo ready && exec sleep infinity"
        )
        argv = [*END_WITH, "unshare", "--net", "sh", "-ec", script]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, env=os.environ | {"PATH": SBIN})
        assert process.stdout is not None
        if process.stdout.readline() != b"ready\n":
            raise RuntimeError("no network could be made for the bed: it takes root on this machine")
        return cls(process)

    def within(self, argv: Sequence[str]) -> list[str]:
        """The argv of a program that is in this network, with this host's files."""
        return ["nsenter", f"--net=/proc/{self.process.pid}/ns/net", "--", *argv]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()


@dataclass
class Machine:
    """One machine. It is there after :meth:`boot`, and all of its processes are gone after :meth:`kill`.

    Attributes:
        folder: its own files: what it changed of the tree is in ``upper``.
    """

    name: str
    address: str
    folder: Path
    hall: Hall
    process: subprocess.Popen[bytes] | None = None
    pid: int = 0
    boots: int = field(default=0)

    def boot(self, tree: Path, shared: Path) -> None:
        """Start it, with the files that it had when it was killed.

        Raises:
            RuntimeError: it did not come up; the reason is in the message.
        """
        for name in ("upper", "work", "root"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self._own_systemctl()
        self.boots += 1
        cable, plug = f"m-{self.name[-9:]}", f"p{self.boots}-{self.name[-9:]}"
        # It waits a moment for a worker that was just killed: the kernel takes a cable away after its network.
        self._ip(f"link add {cable} type veth peer name {plug}", patience=60.0)
        self._ip(f"link set {cable} master br0 up")
        log = self.folder / "boot.log"
        boot = ["sh", INSIDE / "boot.sh", self.folder, tree, shared, self.name, f"{self.address}/16"]
        unshare = ["unshare", "--mount", "--uts", "--ipc", "--net", "--pid", "--fork", "--kill-child=KILL"]
        with log.open("wb") as out:
            self.process = PARENT.submit(
                subprocess.Popen,
                [*END_WITH, *self.hall.within([*unshare, *map(str, boot)])],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=os.environ | {"PATH": SBIN},
                start_new_session=True,
            ).result()
        self.pid = self._wait_for(self._first_process)
        self._ip(f"link set {plug} netns {self.pid} name eth0")
        self._wait_for(lambda: Path(f"/proc/{self.pid}/root/run/bed.sock").exists())

    def kill(self) -> None:
        """Pull the plug; not a process of it is left, nor a file that one has open.

        Raises:
            RuntimeError: one does not die.
        """
        if self.process is None:
            return
        with contextlib.ExitStack() as stack:
            first = None
            with contextlib.suppress(ProcessLookupError):
                first = os.pidfd_open(self.pid)
                stack.callback(os.close, first)
            self.process.kill()
            self.process.wait()
            self.process = None
            # The first process of a namespace ends after all others there.
            if first is not None and not select.select([first], [], [], 300.0)[0]:
                raise RuntimeError(f"{self.name} does not end")

    def argv(self, words: Sequence[str]) -> list[str]:
        """The argv of a program that runs on this machine as root."""
        inside = ["nsenter", "-t", str(self.pid), "-m", "-u", "-i", "-n", "-p", "--root", "--wd", "--"]
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return [*inside, "env", "-i", path, "LANG=C.UTF-8", "HOME=/root", *words]

    def run(
        self, *words: str, stdin: str = "", check: bool = True, timeout: float = 300.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a program on it as root.

        Raises:
            RuntimeError: ``check`` is set and it failed; what it said is in the message.
        """
        done = subprocess.run(
            self.argv(words), input=stdin, capture_output=True, text=True, check=False, timeout=timeout
        )
        if check and done.returncode:
            told = (done.stderr or done.stdout)[-3000:]
            raise RuntimeError(f"{self.name}: {' '.join(words)[:200]} ended with {done.returncode}:\n{told}")
        return done

    def write(self, files: Mapping[str, tuple[bytes, int]]) -> None:
        """Files with their modes, as cloud-init writes them before anything runs; the machine runs already."""
        root = Path(f"/proc/{self.pid}/root")
        for path, (content, mode) in files.items():
            file = root / path.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch(mode=0o600)
            file.write_bytes(content)
            file.chmod(mode)

    def _own_systemctl(self) -> None:
        for place in ("usr/local/lib/bed/units.py", "usr/bin/systemctl"):
            file = self.folder / "upper" / place
            file.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(INSIDE / "units.py", file)
            file.chmod(0o755)

    def _ip(self, words: str, patience: float = 0.0) -> None:
        end = time.monotonic() + patience
        while True:
            argv = self.hall.within(["ip", *words.split()])
            done = subprocess.run(argv, capture_output=True, text=True, check=False, env=os.environ | {"PATH": SBIN})
            if not done.returncode:
                return
            if time.monotonic() > end:
                raise RuntimeError(f"ip {words}: {done.stderr.strip()}")
            time.sleep(0.1)

    def _first_process(self) -> int:
        assert self.process is not None
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return int(children[0]) if children else 0

    def _wait_for(self, look: object, seconds: float = 120.0) -> int:
        assert callable(look)
        assert self.process is not None
        end = time.monotonic() + seconds
        while not (found := look()):
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{self.name} did not come up:\n{(self.folder / 'boot.log').read_text()[-2000:]}")
            time.sleep(0.02)
        return int(found)
