"""The server side of every network workload, for one loop, as a process of its own.

`python perf/server.py --loop uvloop --mode proto` prints one JSON line with its port (or
path) and process id once it listens, and serves until it is killed. There is no
shutdown path on purpose: nothing but the workload may show up in a count.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import socket
import sys
from collections.abc import Awaitable, Callable

import loops


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--loop", required=True)
    parser.add_argument("--mode", required=True, choices=sorted(MODES))
    parser.add_argument("--core", type=int, help="bind the process to this core")
    parser.add_argument("--unix", metavar="PATH", help="listen on a Unix socket instead of TCP")
    arguments = parser.parse_args()
    if arguments.core is not None:
        os.sched_setaffinity(0, {arguments.core})
    _raise_file_limit()
    _age_allocator()
    try:
        factory = loops.loop_factory(arguments.loop)
    except loops.LoopUnavailable as error:
        sys.exit(f"{arguments.loop}: {error}")
    loop = factory()
    asyncio.set_event_loop(loop)
    loop.run_until_complete(serve(arguments.mode, arguments.unix))


async def serve(mode: str, path: str | None) -> None:
    """Listen, say where, and serve for ever."""
    loop = asyncio.get_running_loop()
    place = await MODES[mode](loop, path)
    print(json.dumps({"pid": os.getpid(), **place}), flush=True)
    await loop.create_future()


Place = dict[str, "int | str"]


class Echo(asyncio.Protocol):
    """The plain protocol: every delivery is written back."""

    __slots__ = ("transport",)

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class BufferedEcho(asyncio.BufferedProtocol):
    """The buffered protocol: the loop receives into one buffer per connection."""

    __slots__ = ("buffer", "transport")

    def __init__(self) -> None:
        self.buffer = memoryview(bytearray(BUFFER_SIZE))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.transport.write(self.buffer[:nbytes])  # type: ignore[attr-defined]


async def echo_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Streams as they are usually written: read, write, drain."""
    try:
        while data := await reader.read(STREAM_READ):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def echo_raw(loop: asyncio.AbstractEventLoop, connection: socket.socket) -> None:
    """The `sock_*` methods on a plain socket."""
    with connection:
        try:
            while data := await loop.sock_recv(connection, RAW_READ):
                await loop.sock_sendall(connection, data)
        except ConnectionError:
            pass


def _listening_socket(path: str | None) -> socket.socket:
    if path is not None:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
    else:
        listener = socket.socket(socket.AF_INET)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", 0))
    listener.listen(BACKLOG)
    listener.setblocking(False)
    return listener


def _place_of(listener: socket.socket) -> Place:
    name = listener.getsockname()
    return {"path": name} if isinstance(name, str) else {"port": name[1]}


def _protocol_mode(
    protocol: Callable[[], asyncio.BaseProtocol],
) -> Callable[[asyncio.AbstractEventLoop, str | None], Awaitable[Place]]:
    async def start(loop: asyncio.AbstractEventLoop, path: str | None) -> Place:
        listener = _listening_socket(path)
        # Asked before: some loops take the descriptor out of the socket object.
        place = _place_of(listener)
        if path is not None:
            KEPT.append(await loop.create_unix_server(protocol, sock=listener, backlog=BACKLOG))
        else:
            KEPT.append(await loop.create_server(protocol, sock=listener, backlog=BACKLOG))
        return place

    return start


async def _stream_mode(loop: asyncio.AbstractEventLoop, path: str | None) -> Place:
    listener = _listening_socket(path)
    place = _place_of(listener)
    start = asyncio.start_server if path is None else asyncio.start_unix_server
    KEPT.append(await start(echo_stream, sock=listener, backlog=BACKLOG))
    return place


async def _raw_mode(loop: asyncio.AbstractEventLoop, path: str | None) -> Place:
    listener = _listening_socket(path)

    async def accept() -> None:
        tasks: set[asyncio.Task[None]] = set()
        while True:
            connection, _ = await loop.sock_accept(listener)
            connection.setblocking(False)
            if path is None:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            task = loop.create_task(echo_raw(loop, connection))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    KEPT.append(loop.create_task(accept()))
    return _place_of(listener)


def _raise_file_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _age_allocator() -> None:
    """Free one large block, as every program has done before it serves for long.

    Until then glibc maps and unmaps every block over 128 KB, and a loop that allocates
    256 KB for each read would be measured in a state that real services leave at once.
    """
    block = bytearray(AGEING_BLOCK)
    del block


# Servers and tasks that must live as long as the process.
KEPT: list[object] = []

# As in the benchmarks that loops usually publish: more than a message for streams,
# and for sockets, where asyncio allocates the whole size for each read, 100 KB.
STREAM_READ = 1_000_000
RAW_READ = 102_400
BUFFER_SIZE = 256 * 1024
BACKLOG = 4096
AGEING_BLOCK = 512 * 1024

MODES: dict[str, Callable[[asyncio.AbstractEventLoop, str | None], Awaitable[Place]]] = {
    "proto": _protocol_mode(Echo),
    "buffered": _protocol_mode(BufferedEcho),
    "stream": _stream_mode,
    "raw": _raw_mode,
}


if __name__ == "__main__":
    main()
