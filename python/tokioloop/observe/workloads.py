"""Servers that a profile can be made of, and the client that keeps them busy.

The server runs in the profiled process, the client in another: `proto` echoes
from a protocol, `stream` from asyncio's streams, `timers` arms and cancels
timers, `tasks` creates tasks; the last two need no client.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

__all__ = ["WORKLOADS", "drive", "main", "run_profiled"]

LOOPS = {
    "asyncio": "asyncio",
    "tokioloop": "tokioloop",
    "uvloop": "uvloop",
    "rloop": "rloop",
}
_CONNECTIONS = 16
_MESSAGE = b"x" * 1024


class _Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


async def _proto(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Echo, "127.0.0.1", 0, backlog=_CONNECTIONS)
    await _serve(server, seconds)


async def _stream(seconds: float) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    await _serve(await asyncio.start_server(echo, "127.0.0.1", 0), seconds)


async def _serve(server: asyncio.AbstractServer, seconds: float) -> None:
    sockets: Any = server.sockets
    print(sockets[0].getsockname()[1], flush=True)
    await asyncio.sleep(seconds)
    server.close()


async def _timers(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while loop.time() < until:
        for handle in [loop.call_later(number, int) for number in range(1, 100)]:
            handle.cancel()
        await asyncio.sleep(0)


async def _tasks(seconds: float) -> None:
    async def nothing() -> None:
        await asyncio.sleep(0)

    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while loop.time() < until:
        await asyncio.gather(*[nothing() for _ in range(100)])


WORKLOADS: dict[str, tuple[Callable[[float], Awaitable[None]], bool]] = {
    "proto": (_proto, True),
    "stream": (_stream, True),
    "timers": (_timers, False),
    "tasks": (_tasks, False),
}
"""By name: the coroutine, and whether it prints a port that a client must keep busy."""


def drive(port: int, seconds: float) -> int:
    """Keep an echo server busy over many connections; return the messages that came back."""
    until = time.monotonic() + seconds
    counts = [0] * _CONNECTIONS

    def talk(number: int) -> None:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                while time.monotonic() < until:
                    connection.sendall(_MESSAGE)
                    left = len(_MESSAGE)
                    while left:
                        received = len(connection.recv(left))
                        if not received:
                            return
                        left -= received
                    counts[number] += 1
        except OSError:
            return  # The server has ended first.

    threads = [threading.Thread(target=talk, args=(n,)) for n in range(_CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts)


def main() -> None:
    """Run a workload on a loop; this is what gets profiled."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workload", choices=sorted(WORKLOADS))
    parser.add_argument("--loop", default="tokioloop", choices=sorted(LOOPS))
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    loop = importlib.import_module(LOOPS[options.loop]).new_event_loop()
    try:
        run_profiled(loop, WORKLOADS[options.workload][0](options.seconds))
    finally:
        loop.close()


def run_profiled(loop: asyncio.AbstractEventLoop, coroutine: Awaitable[None]) -> None:
    """Run the workload; a profile has only what is called from here."""
    loop.run_until_complete(coroutine)


if __name__ == "__main__":
    main()
