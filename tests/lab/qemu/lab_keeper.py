"""The parent of every process of the lab's machines: they end with it, and it ends with whoever started it.

Nova's threads come and go, and the kernel's parent-death signal fires when the *thread* that forked ends. So a small
process of one thread starts them all. It hears of its owner's death, ``kill -9`` included, by the end of its standard
input; then it ends its children in order. Should it be killed itself, the kernel kills them.

The protocol is one JSON object a line. In: ``{"name", "argv", "log"}``. Out: ``{"name", "pid"}``, then once
``{"name", "pid", "code"}`` when the child has ended.
"""

from __future__ import annotations

import ctypes
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

__all__ = ["Child", "Keeper"]

_PR_SET_PDEATHSIG = 1
_GRACE = 5.0
"""Seconds that children have at the end to write what they hold."""
_SURELY = 120.0
"""Seconds after which what takes milliseconds has not happened because it never will, however busy the machine."""


@dataclass
class Child:
    """A process that the keeper runs.

    Attributes:
        gone: set once it has ended.
        wanted: whether it ended because it was told to.
    """

    name: str
    pid: int = 0
    error: str = ""
    wanted: bool = False
    started: threading.Event = field(default_factory=threading.Event)
    gone: threading.Event = field(default_factory=threading.Event)

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.pid > 0 and not self.gone.is_set()

    def end(self, grace: float) -> None:
        """Ask it to end, then make it; returns when it is gone.

        Args:
            grace: seconds from SIGTERM to SIGKILL.

        Raises:
            TimeoutError: it does not die.
        """
        self.wanted = True
        for number, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, _SURELY)):
            if self.gone.is_set():
                return
            # The keeper reaps a child before it tells, so for an instant the number may be nobody's.
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                patience = _SURELY  # noqa: PLW2901
            if self.gone.wait(patience):
                return
        raise TimeoutError(f"{self.name} (process {self.pid}) does not die")


class Keeper:
    """The owner's side. Any thread may call.

    Args:
        on_exit: called from a thread of the keeper's, with each child that has ended.
    """

    def __init__(self, on_exit: Callable[[Child], None] = lambda _child: None) -> None:
        self._on_exit = on_exit
        self._children: dict[str, Child] = {}
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            umask=0o077,
        )
        self._reader = threading.Thread(target=self._read, name="lab-keeper", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The keeper's own process."""
        return self._process.pid

    def start(self, name: str, argv: Sequence[str], log: Path) -> Child:
        """Run a program; its output is appended to ``log``.

        Args:
            name: for which no other child is alive.

        Raises:
            RuntimeError: there is one, the program cannot be run, or the keeper is gone.
        """
        child = Child(name)
        with self._lock:
            if name in self._children:
                raise RuntimeError(f"{name} runs already")
            self._children[name] = child
            self._send({"name": name, "argv": list(argv), "log": str(log)})
        if not child.started.wait(_SURELY):
            raise RuntimeError(f"the keeper did not start {name}")
        if child.error:
            raise RuntimeError(f"cannot run {name}: {child.error}")
        return child

    def close(self) -> None:
        """End every child, and the keeper. Called twice: no error."""
        with self._lock:
            children = list(self._children.values())
        for child in children:
            child.wanted = True
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(_GRACE + _SURELY)
        self._reader.join(_SURELY)
        self._process.stdout.close()

    def _send(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        except (OSError, ValueError) as error:
            self._children.pop(message["name"], None)
            raise RuntimeError("the keeper of the lab's machines is gone") from error

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            message = json.loads(line)
            self._hear(message)
        with self._lock:  # the kernel killed them with the keeper
            left = list(self._children.values())
            self._children.clear()
        for child in left:
            self._finish(child, "the keeper is gone")

    def _hear(self, message: dict[str, Any]) -> None:
        with self._lock:
            ended = "code" in message or "error" in message
            child = self._children.pop(message["name"]) if ended else self._children[message["name"]]
        child.pid = message.get("pid", 0)
        if ended:
            self._finish(child, message.get("error", ""))
        child.started.set()

    def _finish(self, child: Child, error: str) -> None:
        child.error = child.error or error
        child.gone.set()
        child.started.set()
        self._on_exit(child)


class _Server:
    """The keeper's own side: one thread, so that it is the parent in the kernel's eyes for as long as it lives."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self._running: dict[int, tuple[str, subprocess.Popen[bytes]]] = {}
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._rest = b""

    def serve(self) -> None:
        wake, waker = os.pipe()
        os.set_blocking(wake, False)
        os.set_blocking(waker, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        os.set_blocking(self._source.fileno(), False)
        with selectors.DefaultSelector() as selector:
            selector.register(wake, selectors.EVENT_READ)
            selector.register(self._source, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fd == wake:
                        os.read(wake, 4096)
                    elif not self._take():
                        self._end()
                        return
                self._reap()

    def _take(self) -> bool:
        chunk = os.read(self._source.fileno(), 1 << 16)
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            self._start(**json.loads(line))
        return bool(chunk)

    def _start(self, name: str, argv: list[str], log: str) -> None:
        owner = os.getpid()

        def tie() -> None:
            self._libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != owner:  # it died before that took effect
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            with Path(log).open("ab") as out:
                process = subprocess.Popen(
                    argv,
                    # Held open and never written to: vde_switch takes the end of its input for an order to quit.
                    stdin=subprocess.PIPE,
                    stdout=out,
                    stderr=out,
                    start_new_session=True,
                    preexec_fn=tie,  # noqa: PLW1509 (one thread)
                    cwd="/",
                )
        except OSError as error:
            _tell({"name": name, "error": str(error)})
            return
        self._running[process.pid] = (name, process)
        _tell({"name": name, "pid": process.pid})

    def _reap(self) -> None:
        for pid, (name, process) in list(self._running.items()):
            if process.poll() is not None:
                del self._running[pid]
                _tell({"name": name, "pid": pid, "code": process.returncode})

    def _end(self) -> None:
        for _, process in self._running.values():
            process.terminate()
        deadline = time.monotonic() + _GRACE
        for _, process in self._running.values():
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._reap()


def _tell(message: dict[str, Any]) -> None:
    try:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:  # the owner is dead, as the end of our input tells next
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115


if __name__ == "__main__":
    for _number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(_number, signal.SIG_IGN)
    _Server(sys.stdin.buffer).serve()
