"""connect_read_pipe and connect_write_pipe: pipes, terminals, wrong files, closing from both ends."""

from __future__ import annotations

import asyncio
import os
import pty
import socket
import tempfile
from typing import Any

from ..harness import Trace
from ..registry import probe
from ..wires import Told, pipe_ends, turns, until

Loop = Any


@probe("A.connect_read_pipe")
async def data_and_eof_of_a_pipe(loop: Loop, trace: Trace) -> None:
    reader, writer = pipe_ends()
    transport, protocol = await loop.connect_read_pipe(lambda: Told(trace), reader)
    trace(
        "is a",
        isinstance(transport, asyncio.ReadTransport),
        isinstance(transport, asyncio.Transport),
    )
    writer.write(b"hello")
    await until(lambda: protocol.received)
    trace("received", protocol.received, transport.is_closing())
    writer.close()
    await until(lambda: protocol.lost)
    await turns(2)
    trace("closed", reader.closed, transport.is_closing())
    trace.attempt("close", transport.close)


@probe("A.connect_read_pipe", since=(3, 11))
async def reading_a_pipe_pauses(loop: Loop, trace: Trace) -> None:
    reader, writer = pipe_ends()
    transport, protocol = await loop.connect_read_pipe(lambda: Told(trace), reader)
    for name in ("pause_reading", "pause_reading"):
        trace.attempt(name, getattr(transport, name))
    trace("reading", transport.is_reading())
    writer.write(b"held")
    await asyncio.sleep(0.01)
    trace("held back", protocol.received)
    transport.resume_reading()
    trace("reading", transport.is_reading())
    await until(lambda: protocol.received)
    transport.close()
    trace("closing", transport.is_closing(), transport.is_reading())
    await until(lambda: protocol.lost)
    await turns(2)
    for name in ("pause_reading", "resume_reading", "close"):
        trace.attempt(name, getattr(transport, name))
    writer.close()


@probe("B.repr")
async def pipe_transports_show_themselves(loop: Loop, trace: Trace) -> None:
    reader, writer = pipe_ends()
    incoming, one = await loop.connect_read_pipe(lambda: Told(trace), reader)
    outgoing, two = await loop.connect_write_pipe(lambda: Told(trace), writer)
    await turns(2)
    trace("open", repr(incoming), repr(outgoing))
    for transport in (incoming, outgoing):
        for name in ("pipe", "socket", "sockname", "nonsense"):
            trace(name, type(transport.get_extra_info(name)).__name__)
        trace("default", transport.get_extra_info("nonsense", 5))
    for transport in (outgoing, incoming):
        transport.close()
    await until(lambda: one.lost and two.lost)
    await turns(2)
    trace("closed", repr(incoming), repr(outgoing))


@probe("A.connect_write_pipe")
async def writing_to_a_pipe(loop: Loop, trace: Trace) -> None:
    reader, writer = pipe_ends()
    transport, protocol = await loop.connect_write_pipe(lambda: Told(trace), writer)
    trace(
        "is a",
        isinstance(transport, asyncio.WriteTransport),
        isinstance(transport, asyncio.Transport),
    )
    for value in (b"bytes", bytearray(b"bytearray"), memoryview(b"view")):
        trace.attempt("write", transport.write, value)
        trace("read", os.read(reader.fileno(), 100))
    for value in ("text", 5, None):
        trace.attempt("write", transport.write, value)
    trace.attempt("writelines", transport.writelines, [b"a", b"b"])
    trace("read", os.read(reader.fileno(), 100))
    trace("limits", transport.get_write_buffer_limits(), transport.can_write_eof())
    transport.write(b"end")
    trace.attempt("write_eof", transport.write_eof)
    trace("closing", transport.is_closing())
    trace.attempt("write", transport.write, b"x")
    await until(lambda: protocol.lost)
    trace("read", os.read(reader.fileno(), 100), os.read(reader.fileno(), 100))
    reader.close()


@probe("A.connect_write_pipe", each=["close", "abort"])
async def a_full_pipe_pauses_and_closes(loop: Loop, trace: Trace, name: str) -> None:
    reader, writer = pipe_ends()
    transport, protocol = await loop.connect_write_pipe(lambda: Told(trace), writer)
    transport.write(bytes(1 << 20))
    trace("queued", transport.get_write_buffer_size() > 0)
    os.set_blocking(reader.fileno(), False)
    getattr(transport, name)()
    trace("closing", transport.is_closing())
    received = 0
    loop.add_reader(reader, lambda: None)
    while not protocol.lost:
        try:
            received += len(os.read(reader.fileno(), 1 << 16))
        except BlockingIOError:
            pass
        await turns(1)
    loop.remove_reader(reader)
    trace("received", received if name == "close" else received < 1 << 20)
    reader.close()


@probe("A.connect_write_pipe")
async def the_reader_of_a_pipe_goes_away(loop: Loop, trace: Trace) -> None:
    reader, writer = pipe_ends()
    transport, protocol = await loop.connect_write_pipe(lambda: Told(trace), writer)
    reader.close()
    await until(lambda: protocol.lost)
    for _ in range(7):
        trace.attempt("write", transport.write, b"x")
    trace.attempt("abort", transport.abort)


@probe("A.connect_write_pipe")
async def the_reader_goes_away_with_data_queued(loop: Loop, trace: Trace) -> None:
    reader, writer = pipe_ends()
    transport, protocol = await loop.connect_write_pipe(lambda: Told(trace), writer)
    transport.write(bytes(1 << 20))
    reader.close()
    await until(lambda: protocol.lost)


@probe("A.connect_write_pipe")
async def sockets_are_pipes_too(loop: Loop, trace: Trace) -> None:
    ours, theirs = socket.socketpair()
    theirs.settimeout(2)
    transport, protocol = await loop.connect_write_pipe(lambda: Told(trace), ours)
    transport.write(b"hello")
    trace("peer", theirs.recv(100))
    theirs.close()
    await until(lambda: protocol.lost)
    ours, theirs = socket.socketpair()
    transport, protocol = await loop.connect_read_pipe(lambda: Told(trace), ours)
    theirs.send(b"hello")
    theirs.close()
    await until(lambda: protocol.lost)
    trace("received", protocol.received)


@probe("A.connect_read_pipe")
async def a_terminal_is_a_pipe(loop: Loop, trace: Trace) -> None:
    master, slave = pty.openpty()
    transport, protocol = await loop.connect_read_pipe(
        lambda: Told(trace), os.fdopen(master, "rb", 0)
    )
    os.write(slave, b"hello\n")
    await until(lambda: len(protocol.received) >= 7)
    trace("received", protocol.received)
    os.close(slave)
    await until(lambda: protocol.lost)
    await turns(2)


@probe("A.connect_read_pipe", each=["connect_read_pipe", "connect_write_pipe"])
async def what_is_no_pipe(loop: Loop, trace: Trace, name: str) -> None:
    connect = getattr(loop, name)
    with tempfile.TemporaryFile() as file:
        await trace.attempt_await("regular file", connect, lambda: Told(trace), file)
        trace("left", file.closed)
    await trace.attempt_await("closed file", connect, lambda: Told(trace), file)
    for value in (5000, "x", None, object()):
        await trace.attempt_await(type(value).__name__, connect, lambda: Told(trace), value)
    reader, writer = pipe_ends()
    with reader, writer:
        await trace.attempt_await("no factory", connect, None, reader)
        await trace.attempt_await("nothing", connect)
        trace("left open", reader.closed)


@probe("A.connect_read_pipe", each=["connect_read_pipe", "connect_write_pipe"])
async def the_null_device(loop: Loop, trace: Trace, name: str) -> None:
    with open(os.devnull, "r+b", 0) as device:
        result = await trace.attempt_await(name, getattr(loop, name), lambda: Told(trace), device)
        await turns(3)
        if result:
            result[0].close()
            await turns(3)


@probe(
    "A.connect_read_pipe",
    each=["data_received", "eof_received", "connection_lost", "connection_made"],
)
async def errors_in_the_protocol_of_a_pipe(loop: Loop, trace: Trace, which: str) -> None:
    reader, writer = pipe_ends()
    factory = lambda: Told(trace, **{which: ValueError("probe")})  # noqa: E731
    transport, protocol = await loop.connect_read_pipe(factory, reader)
    writer.write(b"x")
    writer.close()
    await asyncio.sleep(0.02)
    trace("state", protocol.lost, transport.is_closing())
    transport.close()
    await turns(3)


@probe("A.connect_read_pipe")
async def the_pipe_becomes_non_blocking(loop: Loop, trace: Trace) -> None:
    reader, writer = pipe_ends()
    trace("before", os.get_blocking(reader.fileno()))
    transport, protocol = await loop.connect_read_pipe(lambda: Told(trace), reader)
    trace("after", os.get_blocking(reader.fileno()), os.get_blocking(writer.fileno()))
    transport.close()
    await until(lambda: protocol.lost)
    writer.close()
