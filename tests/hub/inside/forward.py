"""Hands a port of this host's loopback on to a port of the bed's head, as QEMU does for a local cluster.

``forward.py PID PORT ADDRESS TARGET``: the network of process PID, the port here (0: any), the head's. Prints the port.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
import sys


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass  # one side went away: the other is told so below
    finally:
        writer.close()


async def serve(listening: socket.socket, address: str, target: int) -> None:
    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there_reader, there_writer = await asyncio.open_connection(address, target)
        except OSError:
            writer.close()
            return
        await asyncio.gather(pump(reader, there_writer), pump(there_reader, writer))

    server = await asyncio.start_server(one, sock=listening)
    await server.serve_forever()


def main() -> None:
    pid, port, address, target = sys.argv[1:]
    listening = socket.create_server(("127.0.0.1", int(port)), backlog=1024)
    sys.stdout.write(f"{listening.getsockname()[1]}\n")
    sys.stdout.flush()
    # A socket stays in the network that it was made in; those made from here on are in the bed's.
    network = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    if ctypes.CDLL(None, use_errno=True).setns(network, 0):
        raise OSError(ctypes.get_errno(), "setns")
    asyncio.run(serve(listening, address, int(target)))


if __name__ == "__main__":
    main()
