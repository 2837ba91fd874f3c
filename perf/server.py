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
import ssl
import sys
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import handlers
import loops


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--loop", required=True)
    parser.add_argument("--mode", required=True, choices=sorted(MODES))
    parser.add_argument("--core", type=int, help="bind the process to this core")
    parser.add_argument("--unix", metavar="PATH", help="listen on a Unix socket instead of TCP")
    parser.add_argument("--certificate", metavar="PEM", help="serve TLS with this key and chain")
    parser.add_argument("--contend", action="store_true", help="run a busy thread beside the loop")
    arguments = parser.parse_args()
    loop = prepared_loop(arguments.loop, arguments.core)
    if arguments.contend:
        threading.Thread(target=busy_thread, daemon=True).start()
    options = Options(arguments.unix, arguments.certificate)
    loop.run_until_complete(serve(arguments.mode, options))


def prepared_loop(name: str, core: int | None) -> asyncio.AbstractEventLoop:
    """Make this process a server process and return its loop."""
    if core is not None:
        os.sched_setaffinity(0, {core})
    raise_file_limit()
    age_allocator()
    scatter()
    try:
        loop = loops.loop_factory(name)()
    except loops.LoopUnavailable as error:
        sys.exit(f"{name}: {error}")
    asyncio.set_event_loop(loop)
    return loop


async def serve(mode: str, options: Options) -> None:
    """Listen, say where, and serve for ever."""
    loop = asyncio.get_running_loop()
    announce(await MODES[mode](loop, options))
    await loop.create_future()


def announce(place: Place) -> None:
    """Tell the harness where this process listens."""
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    print(json.dumps({"pid": os.getpid(), "gil": gil, **place}), flush=True)


Place = dict[str, "int | str"]


@dataclass(frozen=True)
class Options:
    """Where and how to listen."""

    path: str | None = None
    certificate: str | None = None

    def tls(self) -> ssl.SSLContext | None:
        if self.certificate is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate)
        return context


Start = Callable[[asyncio.AbstractEventLoop, Options], Awaitable[Place]]


def listening_socket(path: str | None = None) -> socket.socket:
    """A non-blocking listener on a Unix socket or on a port of the kernel's choice."""
    if path is not None:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
    else:
        # With its protocol's number, as `create_server(host, port)` gets it from getaddrinfo:
        # asyncio switches Nagle's algorithm off only for sockets that have it.
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", 0))
    listener.listen(BACKLOG)
    listener.setblocking(False)
    return listener


def place_of(listener: socket.socket) -> Place:
    """Where a listener can be reached."""
    name = listener.getsockname()
    return {"path": name} if isinstance(name, str) else {"port": name[1]}


def _protocol_mode(protocol: Callable[[], asyncio.BaseProtocol]) -> Start:
    async def start(loop: asyncio.AbstractEventLoop, options: Options) -> Place:
        listener = listening_socket(options.path)
        # Asked before: some loops take the descriptor out of the socket object.
        place = place_of(listener)
        if options.path is not None:
            KEPT.append(await loop.create_unix_server(protocol, sock=listener, backlog=BACKLOG))
        else:
            tls = options.tls()
            server = await loop.create_server(protocol, sock=listener, backlog=BACKLOG, ssl=tls)
            KEPT.append(server)
        return place

    return start


async def _stream_mode(loop: asyncio.AbstractEventLoop, options: Options) -> Place:
    listener = listening_socket(options.path)
    place = place_of(listener)
    start = asyncio.start_server if options.path is None else asyncio.start_unix_server
    KEPT.append(await start(handlers.echo_stream, sock=listener, backlog=BACKLOG))
    return place


async def _raw_mode(loop: asyncio.AbstractEventLoop, options: Options) -> Place:
    listener = listening_socket(options.path)

    async def accept() -> None:
        tasks: set[asyncio.Task[None]] = set()
        while True:
            connection, _ = await loop.sock_accept(listener)
            connection.setblocking(False)
            if options.path is None:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            task = loop.create_task(handlers.echo_raw(loop, connection))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    KEPT.append(loop.create_task(accept()))
    return place_of(listener)


async def _datagram_mode(loop: asyncio.AbstractEventLoop, options: Options) -> Place:
    transport, protocol = await loop.create_datagram_endpoint(
        handlers.DatagramEcho, local_addr=("127.0.0.1", 0)
    )
    KEPT.extend((transport, protocol))
    return {"port": transport.get_extra_info("sockname")[1]}


def busy_thread() -> None:
    """Compute for ever, as a thread pool under load does, and compete for the GIL."""
    total = 0
    while True:
        for number in range(10_000):
            total ^= number


def raise_file_limit() -> None:
    """Thousands of connections need more descriptors than the usual soft limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def age_allocator() -> None:
    """Free one large block, as every program has done before it serves for long.

    Until then glibc maps and unmaps every block over 128 KB, and a loop that allocates
    256 KB for each read would be measured in a state that real services leave at once.
    """
    block = bytearray(AGEING_BLOCK)
    del block


def scatter() -> None:
    """Keep some small blocks, as many of each size as the hash seed says; none for seed 0.

    An allocator is slower for a size of which all blocks but a few are in use for good, and
    the interpreter's caches collide for some addresses. The layout of a program's memory
    decides that by chance. It costs a web server 2 % and more of its requests and is no
    property of a loop, so it is drawn anew for each round, the same for all loops.
    """
    if sys.flags.hash_randomization:
        for size in range(1, LARGEST_SCATTERED + 1):
            KEPT.extend([None] * size for _ in range(hash(str(size)) % SCATTERED))


# Servers and tasks that must live as long as the process.
KEPT: list[object] = []

BACKLOG = 4096
AGEING_BLOCK = 512 * 1024
# Words of the largest blocks that are kept, and a bound of how many of each size.
LARGEST_SCATTERED = 16
SCATTERED = 64

MODES: dict[str, Start] = {
    "proto": _protocol_mode(handlers.Echo),
    "buffered": _protocol_mode(handlers.BufferedEcho),
    "stream": _stream_mode,
    "raw": _raw_mode,
    "udp": _datagram_mode,
    "responder": _protocol_mode(handlers.Responder),
}


if __name__ == "__main__":
    main()
