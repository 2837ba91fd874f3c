"""sendfile and sock_sendfile: ranges, positions, fallback, wrong files and wrong transports."""

from __future__ import annotations

import asyncio
import io
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.net import socket_pair

from ..harness import Trace
from ..registry import probe
from ..wires import Told, client_tls, pipe_ends, read_all, server_tls, turns, until, wired

Loop = Any
DATA = bytes(range(256)) * 4096

RANGES: dict[str, tuple[Any, ...]] = {
    "all": (),
    "from": (1000,),
    "range": (1000, 5000),
    "beyond the end": (len(DATA) + 10,),
    "count beyond the end": (1000, 1 << 30),
    "count 0": (0, 0),
    "negative offset": (-1,),
    "negative count": (0, -5),
    "text as offset": ("x",),
    "fraction as count": (0, 1.5),
    "None as offset": (None,),
}


@contextmanager
def _file() -> Iterator[Any]:
    with tempfile.TemporaryFile(buffering=0) as file:
        file.write(DATA)
        file.seek(7)
        yield file


@probe("A.sendfile", each=RANGES)
async def ranges_of_a_file_over_a_transport(loop: Loop, trace: Trace, what: str) -> None:
    with _file() as file:
        async with wired(loop, lambda: Told(trace, tell=False)) as (transport, protocol, peer):
            reader = loop.create_task(read_all(loop, peer))
            transport.write(b"head")
            await trace.attempt_await("sendfile", loop.sendfile, transport, file, *RANGES[what])
            trace("position", file.tell())
            transport.write(b"tail")
            transport.close()
            trace("peer", await reader)


@probe("A.sock_sendfile", each=RANGES)
async def ranges_of_a_file_over_a_socket(loop: Loop, trace: Trace, what: str) -> None:
    with _file() as file, socket_pair() as (ours, theirs):
        reader = loop.create_task(read_all(loop, theirs))
        await trace.attempt_await("sock_sendfile", loop.sock_sendfile, ours, file, *RANGES[what])
        trace("position", file.tell())
        ours.close()
        trace("peer", await reader)


FILES = ("text file", "BytesIO", "closed", "write only", "number", "None", "object", "pipe")


@contextmanager
def _odd_file(what: str) -> Iterator[Any]:
    with tempfile.NamedTemporaryFile(buffering=0) as file, open(os.devnull, "wb") as sink:
        file.write(b"0123456789")
        file.seek(0)
        with open(file.name, encoding="ascii") as text:
            reader, writer = pipe_ends()
            with reader, writer:
                writer.write(b"from a pipe")
                if what == "closed":
                    file.close()
                yield {
                    "text file": text, "BytesIO": io.BytesIO(b"0123456789"), "closed": file,
                    "write only": sink, "number": 5, "None": None, "object": object(), "pipe": reader,
                }[what]  # fmt: skip


@probe(
    "A.sendfile",
    each=[f"{what}, fallback {allowed}" for what in FILES for allowed in (True, False)],
)
async def odd_files(loop: Loop, trace: Trace, case: str) -> None:
    what, _, allowed = case.partition(", fallback ")
    fallback = allowed == "True"
    if what == "pipe" and fallback:
        return  # reading a pipe to its end blocks an executor's thread for ever
    with _odd_file(what) as file:
        async with wired(loop, lambda: Told(trace, tell=False)) as (transport, _, peer):
            await trace.attempt_await(
                "transport", loop.sendfile, transport, file, fallback=fallback
            )
            transport.close()
            trace("peer", await read_all(loop, peer))
    with _odd_file(what) as file, socket_pair() as (ours, theirs):
        await trace.attempt_await("socket", loop.sock_sendfile, ours, file, fallback=fallback)
        ours.close()
        trace("peer", await read_all(loop, theirs))


@probe("A.sendfile")
async def transports_that_cannot_take_a_file(loop: Loop, trace: Trace) -> None:
    with _file() as file:
        async with wired(loop, lambda: Told(trace)) as (transport, protocol, _peer):
            transport.close()
            await trace.attempt_await("closing", loop.sendfile, transport, file)
            await until(lambda: protocol.lost)
            await trace.attempt_await("closed", loop.sendfile, transport, file)
        await trace.attempt_await("number", loop.sendfile, 5, file)
        endpoint, protocol = await loop.create_datagram_endpoint(
            lambda: Told(trace), local_addr=("127.0.0.1", 0)
        )
        await trace.attempt_await("datagrams", loop.sendfile, endpoint, file)
        endpoint.close()
        await turns(3)
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            await trace.attempt_await("datagram socket", loop.sock_sendfile, sock, file)
        await trace.attempt_await("no socket", loop.sock_sendfile, 5, file)


@probe("A.sendfile")
async def a_file_goes_behind_what_is_queued(loop: Loop, trace: Trace) -> None:
    with _file() as file:
        async with wired(loop, lambda: Told(trace)) as (transport, protocol, peer):
            transport.set_write_buffer_limits(1 << 24)
            transport.write(b"x" * (4 << 20))
            task = loop.create_task(loop.sendfile(transport, file))
            await turns(2)
            trace("protocol is kept from writing", transport.get_protocol() is protocol)
            reader = loop.create_task(read_all(loop, peer))
            trace("sent", await task)
            trace("protocol is back", transport.get_protocol() is protocol, transport.is_reading())
            transport.write(b"tail")
            transport.close()
            data = await reader
            trace("peer", data)


@probe("A.sendfile")
async def cancelling_a_file(loop: Loop, trace: Trace) -> None:
    with tempfile.TemporaryFile(buffering=0) as file:
        os.truncate(file.fileno(), 64 << 20)
        async with wired(loop, lambda: Told(trace)) as (transport, protocol, peer):
            task = loop.create_task(loop.sendfile(transport, file))
            await asyncio.sleep(0.02)
            trace("waits", task.done())
            task.cancel()
            trace("result", await asyncio.gather(task, return_exceptions=True))
            trace("protocol is back", transport.get_protocol() is protocol)
            trace("state", transport.is_closing(), transport.is_reading())


@probe("A.sendfile")
async def the_peer_goes_away_during_a_file(loop: Loop, trace: Trace) -> None:
    with tempfile.TemporaryFile(buffering=0) as file:
        os.truncate(file.fileno(), 64 << 20)
        # Whether the end of the stream or the error comes first is chance.
        async with wired(loop, lambda: Told(trace, tell=False)) as (transport, protocol, peer):
            task = loop.create_task(loop.sendfile(transport, file))
            await asyncio.sleep(0.02)
            peer.close()
            result = (await asyncio.gather(asyncio.wait_for(task, 3), return_exceptions=True))[0]
            await until(lambda: protocol.lost)
            trace("ended with a connection error", isinstance(result, ConnectionError))


@probe("A.sendfile", each=[True, False])
async def a_file_over_tls(loop: Loop, trace: Trace, fallback: bool) -> None:
    received = bytearray()

    class Sink(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            received.extend(data)

    server = await loop.create_server(Sink, "127.0.0.1", 0, ssl=server_tls())
    transport, protocol = await loop.create_connection(
        lambda: Told(trace), *server.sockets[0].getsockname(), ssl=client_tls()
    )
    with _file() as file:
        await trace.attempt_await(
            "sendfile", loop.sendfile, transport, file, 100, 300_000, fallback=fallback
        )
    transport.close()
    await until(lambda: protocol.lost)
    await turns(3)
    trace("received", bytes(received))
    server.close()
    await server.wait_closed()
