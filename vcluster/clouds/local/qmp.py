"""QEMU's control socket. One conversation a call, in a loop of its own, so that any thread may call."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Events", "answered", "power_down", "read_events", "resume"]

FULL = "the host's disk is full"
"""Why a machine is paused that could not write to its disk."""

HANDSHAKE = b'{"execute":"qmp_capabilities"}\n'


def power_down(socket: Path) -> bool:
    """Press the machine's power button; False when nobody answers."""
    return asyncio.run(_execute(socket, "system_powerdown"))


def resume(socket: Path) -> bool:
    """Let a paused machine go on, its failed writes tried again; False when nobody answers."""
    return asyncio.run(_execute(socket, "cont"))


async def _execute(socket: Path, command: str) -> bool:
    from qemu.qmp import QMPClient, QMPError

    client = QMPClient()
    try:
        async with asyncio.timeout(10):
            await client.connect(str(socket))
            await client.execute(command)
    except (QMPError, OSError, TimeoutError):
        return False
    finally:
        with contextlib.suppress(QMPError, OSError):
            await client.disconnect()
    return True


@dataclass(frozen=True, slots=True)
class Events:
    """What a machine's QEMU has told since it started.

    Attributes:
        ended: why it ended, in QEMU's word (``guest-shutdown``, ``host-signal``, …), or empty.
        stuck: why the machine is paused (the host's disk is full, or fails), or empty.
        reset: when the guest last booted itself anew, seconds since the epoch; 0 when it did not.
    """

    ended: str = ""
    stuck: str = ""
    reset: float = 0.0


def answered(path: Path) -> bool:
    """Whether QEMU has answered the handshake, which it does once its main loop runs."""
    try:
        return b'{"return"' in path.read_bytes()
    except OSError:
        return False


def read_events(path: Path) -> Events:
    """Read the file that the second monitor writes. Not there, or cut off by a full disk: what can be read counts."""
    ended = stuck = trouble = ""
    reset = 0.0
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return Events()
    for line in lines:
        try:
            message = json.loads(line)
            event, data = message["event"], message.get("data", {})
            when = float(message["timestamp"]["seconds"])
        except (ValueError, KeyError, TypeError):
            continue
        if event == "SHUTDOWN":
            ended = str(data.get("reason", "unknown"))
        elif event == "RESET":
            reset = when
        elif event == "BLOCK_IO_ERROR":
            trouble = FULL if data.get("nospace") else f"disk error: {data.get('reason', '?')}"
        elif event == "STOP":
            stuck = trouble or "it was paused"
        elif event == "RESUME":
            stuck = trouble = ""
    return Events(ended=ended, stuck=stuck, reset=reset)
