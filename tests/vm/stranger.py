"""A machine that is no member, on a cluster's own network: speaks ARP and enough of TCP to knock at every port."""

from __future__ import annotations

import ipaddress
import select
import struct
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

MAC = bytes.fromhex("02000000beef")
ARP, IPV4 = b"\x08\x06", b"\x08\x00"
SYN, RST, SYN_ACK = 0x02, 0x04, 0x12

TCP, ICMP = 6, 1

BATCH, PING_EVERY = 128, 32
"""Ports that are knocked at before one listens."""

PATIENCE = 5.0
"""Seconds for the answers; then a batch is knocked at again."""

TRIES = 6


class Stranger:
    """Plugged into a switch; a context manager.

    Args:
        sockets: the switch's folder.
        address: its own, which no machine has.
    """

    def __init__(self, sockets: Path, address: str) -> None:
        self._ip = ipaddress.ip_address(address).packed
        self._seen = b""
        self._source = 20000
        self._macs: dict[bytes, bytes] = {}
        self._process = subprocess.Popen(
            ["vde_plug", str(sockets)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._process.kill()
        self._process.wait()

    def open_ports(self, address: str) -> set[int]:
        """Every TCP port at which a connection is taken.

        Pings go between the knocks, and all must be answered: frames do not overtake each other, so a machine that
        answers has had the ports before, and is silent about them by its own will.

        Raises:
            AssertionError: the machine does not answer pings.
        """
        found: set[int] = set()
        for first in range(1, 65536, BATCH):
            found |= self._batch(address, range(first, min(first + BATCH, 65536)))
        return found

    def _batch(self, address: str, ports: Sequence[int]) -> set[int]:
        target = ipaddress.ip_address(address).packed
        for _ in range(TRIES):
            self._source += 1
            mark = self._source
            pings = set()
            for n, port in enumerate(ports, start=1):
                self._send_ip(target, TCP, _segment(self._ip, target, (mark, port), SYN))
                if n % PING_EVERY == 0 or n == len(ports):
                    self._send_ip(target, ICMP, _ping(mark, n))
                    pings.add(n)
            found: set[int] = set()
            for protocol, data in self._heard(target, PATIENCE):
                if protocol == ICMP and data[:1] == b"\0" and data[4:6] == struct.pack(">H", mark):
                    pings.discard(int.from_bytes(data[6:8], "big"))
                    if not pings:
                        return found
                elif protocol == TCP and data[2:4] == struct.pack(">H", mark) and data[13] & SYN_ACK == SYN_ACK:
                    port, number = struct.unpack(">H6xI", data[:12])
                    found.add(port)
                    self._send_ip(target, TCP, _segment(self._ip, target, (mark, port), RST, number))
        raise AssertionError(f"{address} does not answer")

    # Frames ----------------------------------------------------------------------------------------------------

    def _send(self, to: bytes, kind: bytes, data: bytes) -> None:
        frame = (to + MAC + kind + data).ljust(60, b"\0")
        assert self._process.stdin is not None
        self._process.stdin.write(struct.pack(">H", len(frame)) + frame)

    def _send_ip(self, target: bytes, protocol: int, body: bytes) -> None:
        head = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 0, 0, 64, protocol, 0, self._ip, target)
        head = head[:10] + struct.pack(">H", _checksum(head)) + head[12:]
        self._send(self._mac(target), IPV4, head + body)

    def _mac(self, target: bytes) -> bytes:
        for _ in range(TRIES):
            if target in self._macs:
                return self._macs[target]
            self._send(b"\xff" * 6, ARP, _arp(1, self._ip, b"\0" * 6, target))
            for _ in self._heard(b"", 1.0):
                pass
        raise AssertionError(f"no machine at {ipaddress.ip_address(target)}")

    def _heard(self, wanted: bytes, seconds: float) -> Iterator[tuple[int, bytes]]:
        """Protocol and data of each packet from there within so many seconds, or, from nowhere, until ARP tells
        something. Who asks for us by ARP is answered.
        """
        for frame in self._frames(seconds):
            if frame[12:14] == ARP:
                kind, sender, who, target = frame[20:22], frame[22:28], frame[28:32], frame[38:42]
                if target == self._ip:
                    self._macs[who] = sender
                    if kind == b"\0\x01":
                        self._send(sender, ARP, _arp(2, self._ip, sender, who))
                    if not wanted:
                        return
            elif frame[12:14] == IPV4 and frame[26:30] == wanted and frame[30:34] == self._ip:
                size = 4 * (frame[14] & 15)
                yield frame[23], frame[14 + size :]

    def _frames(self, seconds: float) -> Iterator[bytes]:
        assert self._process.stdout is not None
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if select.select([self._process.stdout], [], [], left)[0]:
                self._seen += self._process.stdout.read(65536) or b""
            while len(self._seen) > 2 and len(self._seen) >= 2 + (size := int.from_bytes(self._seen[:2], "big")):
                frame, self._seen = self._seen[2 : 2 + size], self._seen[2 + size :]
                yield frame


def _arp(kind: int, sender: bytes, to: bytes, target: bytes) -> bytes:
    return struct.pack(">HHBBH", 1, 0x0800, 6, 4, kind) + MAC + sender + to + target


def _checksum(data: bytes) -> int:
    padded = data + b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f">{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _ping(mark: int, number: int) -> bytes:
    plain = struct.pack(">BBHHH", 8, 0, 0, mark, number)
    return plain[:2] + struct.pack(">H", _checksum(plain)) + plain[4:]


def _segment(source: bytes, target: bytes, ports: tuple[int, int], flags: int, number: int = 0) -> bytes:
    """A TCP segment without data, from one port to the other."""
    parts = (*ports, number, 0, 0x50, flags, 1024)
    plain = struct.pack(">HHIIBBHHH", *parts, 0, 0)
    false_head = source + target + struct.pack(">BBH", 0, 6, len(plain))
    return struct.pack(">HHIIBBHHH", *parts, _checksum(false_head + plain), 0)
