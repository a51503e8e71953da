"""A kernel over a websocket, in the protocol that JupyterLab speaks (``v1.kernel.websocket.jupyter.org``)."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import aiohttp

from vcluster.rehearsal.browser import Failed

__all__ = ["PROTOCOL", "Cells", "pack", "unpack"]

PROTOCOL = "v1.kernel.websocket.jupyter.org"
PARTS = ("header", "parent_header", "metadata", "content")


def pack(channel: str, parts: Sequence[bytes]) -> bytes:
    """A message as one frame: how many offsets, the offsets, then what lies between them."""
    pieces = [channel.encode(), *parts]
    offsets = [8 * (len(pieces) + 2)]
    for piece in pieces:
        offsets.append(offsets[-1] + len(piece))
    return b"".join([*(n.to_bytes(8, "little") for n in (len(offsets), *offsets)), *pieces])


def unpack(frame: bytes) -> tuple[str, list[bytes]]:
    """The channel and the parts of a frame.

    Raises:
        Failed: the frame is cut off or none at all.
    """
    count = int.from_bytes(frame[:8], "little")
    if len(frame) < 8 * (count + 1) or count < 2:
        raise Failed("a frame from the kernel makes no sense")
    offsets = [int.from_bytes(frame[8 * i : 8 * i + 8], "little") for i in range(1, count + 1)]
    pieces = [frame[a:b] for a, b in pairwise(offsets)]
    return pieces[0].decode(errors="replace"), pieces[1:]


def _read(parts: Sequence[bytes]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """The header, the parent's header and the content of a message."""
    try:
        header, parent, _, content = (dict(json.loads(part)) for part in parts[: len(PARTS)])
    except (TypeError, ValueError):
        raise Failed("a message from the kernel makes no sense") from None
    return header, parent, content


class Cells:
    """Runs cells, one after the other."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, session: str, user: str) -> None:
        self._socket, self._session, self._user = socket, session, user

    async def run(self, code: str, timeout: float) -> str:
        """Run a cell and return what it printed.

        Args:
            timeout: seconds until it counts as failed.

        Raises:
            Failed: it raised an error, took too long, or the connection was cut.
        """
        try:
            async with asyncio.timeout(timeout):
                return await self._run(code)
        except TimeoutError:
            raise Failed(f"a cell took longer than {timeout:.0f} s") from None
        except (aiohttp.ClientError, ConnectionError) as error:
            raise Failed("the connection to the kernel was cut") from error

    async def _run(self, code: str) -> str:
        mine = uuid.uuid4().hex
        await self._socket.send_bytes(pack("shell", [json.dumps(part).encode() for part in self._request(mine, code)]))
        printed: list[str] = []
        trouble = ""
        idle = replied = False
        while not (idle and replied):
            kind, content = await self._next(mine)
            if kind == "stream":
                printed.append(str(content.get("text", "")))
            elif kind == "execute_reply":
                replied = True
                if content.get("status") != "ok":
                    trouble = trouble or str(content.get("ename", content.get("status")))
            elif kind == "error":
                trouble = str(content.get("ename"))
            elif kind == "status":
                idle = content.get("execution_state") == "idle"
        if trouble:
            raise Failed(f"a cell ended with {trouble}")
        return "".join(printed)

    def _request(self, mine: str, code: str) -> tuple[dict[str, Any], ...]:
        header = {
            "msg_id": mine,
            "session": self._session,
            "username": self._user,
            "date": datetime.now(UTC).isoformat(),
            "msg_type": "execute_request",
            "version": "5.3",
        }
        content = {
            "code": code,
            "silent": False,
            "store_history": False,
            "user_expressions": {},
            "allow_stdin": False,
            "stop_on_error": True,
        }
        return header, {}, {}, content

    async def _next(self, mine: str) -> tuple[str, dict[str, Any]]:
        """The next message that answers ``mine``; a kernel that died raises."""
        while True:
            message = await self._socket.receive()
            if message.type is not aiohttp.WSMsgType.BINARY:
                if message.type in {aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR}:
                    raise Failed("the connection to the kernel was cut")
                continue
            _, parts = unpack(message.data)
            header, parent, content = _read(parts)
            if content.get("execution_state") in {"dead", "autorestarting"}:
                raise Failed("the kernel died")
            if parent.get("msg_id") == mine:
                return str(header.get("msg_type")), content
