"""write, writelines, write_eof, close and abort of stream transports, and what the peer gets."""

from __future__ import annotations

import array
import asyncio
import mmap
import socket
from typing import Any

from tests.support.net import reset

from ..harness import Trace
from ..registry import probe
from ..wires import KINDS, Told, fill, read_all, turns, until, wired

Loop = Any


@probe("C.1", each=KINDS)
async def a_write_is_at_the_peer_before_it_returns(loop: Loop, trace: Trace, kind: str) -> None:
    async with wired(loop, lambda: Told(trace), kind) as (transport, _, peer):
        transport.write(b"first")
        trace("write", peer.recv(100))
        await turns(1)
        transport.writelines([b"a", b"b", b"c"])
        trace("writelines", peer.recv(100))


@probe("C.1", each=KINDS)
async def several_writes_of_one_callback_are_at_the_peer_after_it(
    loop: Loop, trace: Trace, kind: str
) -> None:
    async with wired(loop, lambda: Told(trace), kind) as (transport, _, peer):
        for _ in range(3):
            for number in range(10):
                transport.write(b"%d" % number)
            transport.writelines([b"a", b"b", b"c"])
            await turns(1)
            trace("peer", peer.recv(100))


@probe("C.1", each=KINDS)
async def a_write_in_connection_made_is_sent_at_once(loop: Loop, trace: Trace, kind: str) -> None:
    def greet(protocol: Told) -> None:
        protocol.transport.write(b"hello")

    async with wired(loop, lambda: Told(trace, connection_made=greet), kind) as (_, __, peer):
        trace("peer", peer.recv(100))


@probe("C.2", each=KINDS)
async def empty_writes_do_nothing(loop: Loop, trace: Trace, kind: str) -> None:
    async with wired(loop, lambda: Told(trace), kind) as (transport, _, peer):
        trace.attempt("bytes", transport.write, b"")
        trace.attempt("bytearray", transport.write, bytearray())
        trace.attempt("view", transport.write, memoryview(b""))
        trace.attempt("lines", transport.writelines, [])
        trace.attempt("lines of nothing", transport.writelines, [b"", b""])
        trace.attempt("iterator", transport.writelines, iter([b"x", b"y"]))
        await turns(1)
        trace("peer", peer.recv(100), transport.get_write_buffer_size())


@probe("C.3", each=["write", "writelines"])
async def writes_after_close_are_dropped(loop: Loop, trace: Trace, name: str) -> None:
    async with wired(loop, lambda: Told(trace)) as (transport, protocol, peer):
        data: Any = b"lost" if name == "write" else [b"lo", b"st"]
        transport.write(b"kept")
        transport.close()
        trace("closing", transport.is_closing())
        for _ in range(7):
            trace.attempt(name, getattr(transport, name), data)
        await until(lambda: protocol.lost)
        await turns(2)
        trace("peer", await read_all(loop, peer))


@probe("C.4", each=["write", "writelines", "write_eof", "close", "abort", "pause", "resume", "set"])
async def calls_after_connection_lost(loop: Loop, trace: Trace, what: str) -> None:
    async with wired(loop, lambda: Told(trace)) as (transport, protocol, _peer):
        transport.close()
        await until(lambda: protocol.lost)
        await turns(2)
        call = {
            "write": lambda: transport.write(b"x"),
            "writelines": lambda: transport.writelines([b"x"]),
            "write_eof": transport.write_eof,
            "close": transport.close,
            "abort": transport.abort,
            "pause": transport.pause_reading,
            "resume": transport.resume_reading,
            "set": lambda: transport.set_protocol(Told(trace)),
        }[what]
        for _ in range(7 if what == "write" else 2):
            trace.attempt(what, call)
        trace(
            "state",
            transport.is_closing(),
            transport.is_reading(),
            transport.get_write_buffer_size(),
        )
        trace("limits", transport.get_write_buffer_limits())
        trace("protocol", type(transport.get_protocol()).__name__)
        await turns(2)


@probe("C.5")
async def writes_after_a_reset_that_the_loop_has_not_seen(loop: Loop, trace: Trace) -> None:
    async with wired(loop, lambda: Told(trace)) as (transport, protocol, peer):
        reset(peer)
        for _ in range(8):
            trace.attempt("write", transport.write, b"x")
        await until(lambda: protocol.lost)


@probe("C.6", each=["idle", "queued"])
async def a_reset_by_the_peer(loop: Loop, trace: Trace, state: str) -> None:
    async with wired(loop, lambda: Told(trace)) as (transport, protocol, peer):
        if state == "queued":
            fill(transport)
        reset(peer)
        await until(lambda: protocol.lost)
        trace("state", transport.is_closing(), transport.get_write_buffer_size())


@probe("C.6")
async def a_reset_while_reading_is_paused_shows_after_resuming(loop: Loop, trace: Trace) -> None:
    async with wired(loop, lambda: Told(trace)) as (transport, protocol, peer):
        transport.pause_reading()
        reset(peer)
        await asyncio.sleep(0.03)
        trace("paused", protocol.lost)
        transport.resume_reading()
        await until(lambda: protocol.lost)


@probe("C.7", each=["close", "abort"])
async def connection_lost_comes_once_in_the_next_turn(loop: Loop, trace: Trace, name: str) -> None:
    async with wired(loop, lambda: Told(trace)) as (transport, protocol, _peer):
        loop.call_soon(trace, "before")
        getattr(transport, name)()
        getattr(transport, name)()
        transport.close()
        trace("still here", protocol.lost, transport.is_closing())
        loop.call_soon(trace, "after")
        await turns(4)


@probe("C.8", each=KINDS)
async def close_flushes_what_is_queued(loop: Loop, trace: Trace, kind: str) -> None:
    async with wired(loop, lambda: Told(trace), kind) as (transport, protocol, peer):
        transport.set_write_buffer_limits(1 << 30)
        transport.write(bytes(range(256)) * (6 << 12))
        transport.close()
        trace("queued", transport.get_write_buffer_size() > 0, protocol.lost)
        trace("peer", await read_all(loop, peer))
        await until(lambda: protocol.lost)


@probe("C.8")
async def abort_drops_what_is_queued(loop: Loop, trace: Trace) -> None:
    async with wired(loop, lambda: Told(trace)) as (transport, protocol, peer):
        transport.set_write_buffer_limits(1 << 30)
        fill(transport)
        transport.abort()
        trace("queued", transport.get_write_buffer_size(), protocol.lost, transport.is_closing())
        await until(lambda: protocol.lost)
        await turns(2)
        trace("peer got less", len(await read_all(loop, peer)) > 0)


@probe("C.9")
async def inside_connection_lost_the_socket_is_still_there(loop: Loop, trace: Trace) -> None:
    def look(protocol: Told) -> None:
        transport = protocol.transport
        sock = transport.get_extra_info("socket")
        trace("inside", transport.is_closing(), sock.fileno() >= 0)
        trace("names", transport.get_extra_info("peername"), transport.get_extra_info("sockname"))

    async with wired(loop, lambda: Told(trace, connection_lost=look)) as (
        transport,
        protocol,
        _peer,
    ):
        transport.close()
        await until(lambda: protocol.lost)
        await turns(2)
        trace("after", transport.get_extra_info("socket").fileno())
        trace("peername", transport.get_extra_info("peername"))


@probe("B.write", each=["tcp", "unix"])
async def types_that_can_be_written(loop: Loop, trace: Trace, kind: str) -> None:
    class Text(bytes):
        pass

    async with wired(loop, lambda: Told(trace), kind) as (transport, _, peer):
        good = (b"bytes", bytearray(b"bytearray"), memoryview(b"view"), Text(b"subclass"),
                memoryview(b"0123456789")[3:6], memoryview(bytearray(b"rw")))  # fmt: skip
        for value in good:
            trace.attempt(type(value).__name__, transport.write, value)
            await turns(1)
            trace("peer", peer.recv(100))
        trace.attempt("lines", transport.writelines, list(good))
        await turns(1)
        trace("peer", peer.recv(100))
        trace.attempt("keyword", lambda: transport.write(data=b"x"))
        trace.attempt("keyword lines", lambda: transport.writelines(list_of_data=[b"y"]))
        await turns(1)
        trace("peer", peer.recv(100))
        for value in ("text", 5, None, [1, 2], (3,), object()):
            trace.attempt(f"write {type(value).__name__}", transport.write, value)


@probe("B.write")
async def other_buffers_than_bytes(loop: Loop, trace: Trace) -> None:
    async with wired(loop, lambda: Told(trace)) as (transport, _, __):
        with mmap.mmap(-1, 16) as mapped:
            for value in (array.array("i", [1]), mapped):
                trace.attempt(type(value).__name__, transport.write, value)
                await turns(1)


@probe("B.write", each=["none", "text", "numbers", "mixed", "int", "dict", "bytes"])
async def writelines_of_other_things(loop: Loop, trace: Trace, what: str) -> None:
    value: Any = {
        "none": None,
        "text": ["a", "b"],
        "numbers": [1, 2],
        "mixed": [b"x", 5],
        "int": 5,
        "dict": {b"k": 1},
        "bytes": b"ab",
    }[what]
    async with wired(loop, lambda: Told(trace)) as (transport, protocol, _peer):
        trace.attempt("writelines", transport.writelines, value)
        await turns(3)
        trace("state", protocol.lost, transport.is_closing(), transport.get_write_buffer_size())


@probe("B.write", each=["free", "queued"])
async def a_view_of_wide_items_counts_its_bytes(loop: Loop, trace: Trace, state: str) -> None:
    async with wired(loop, lambda: Told(trace)) as (transport, _, peer):
        queued = fill(transport, 1) if state == "queued" else 0
        size = transport.get_write_buffer_size()
        transport.write(memoryview(array.array("i", [1, 2, 3])))
        trace("size", transport.get_write_buffer_size() - size)
        transport.write(b"end")
        transport.close()
        trace("peer", (await read_all(loop, peer))[queued:])


@probe("B.write", each=["free", "queued"])
async def a_view_with_gaps(loop: Loop, trace: Trace, state: str) -> None:
    async with wired(loop, lambda: Told(trace)) as (transport, protocol, peer):
        queued = fill(transport, 1) if state == "queued" else 0
        trace.attempt("write", transport.write, memoryview(b"0123456789")[::2])
        if not transport.is_closing():
            transport.close()
        trace("peer", (await read_all(loop, peer))[queued:])
        await until(lambda: protocol.lost)


@probe("B.write")
async def a_bytearray_may_change_after_the_write(loop: Loop, trace: Trace) -> None:
    async with wired(loop, lambda: Told(trace)) as (transport, protocol, peer):
        queued = fill(transport, 1)
        data = bytearray(b"before")
        transport.write(data)
        data[:] = b"after!"
        transport.close()
        trace("peer", (await read_all(loop, peer))[queued:])
        await until(lambda: protocol.lost)


@probe("B.writelines", each=["bytes", "views", "generator", "bytearrays", "empty parts"])
async def writelines_behind_a_queue_keeps_the_order(loop: Loop, trace: Trace, what: str) -> None:
    lines: Any = {
        "bytes": [b"one", b"two"],
        "views": [memoryview(b"one"), memoryview(b"two")],
        "generator": (part for part in (b"one", b"two")),
        "bytearrays": [bytearray(b"one"), bytearray(b"two")],
        "empty parts": [b"", b"one", b"", b"two", b""],
    }[what]
    async with wired(loop, lambda: Told(trace, tell=False)) as (transport, protocol, peer):
        queued = fill(transport, 1)
        size = transport.get_write_buffer_size()
        transport.writelines(lines)
        trace("size grew", transport.get_write_buffer_size() >= size)
        transport.write(b"three")
        transport.close()
        trace("peer", (await read_all(loop, peer))[queued:])
        await until(lambda: protocol.lost)


@probe("B.writelines")
async def writelines_of_many_parts(loop: Loop, trace: Trace) -> None:
    async with wired(loop, lambda: Told(trace, tell=False)) as (transport, protocol, peer):
        transport.writelines([b"%06d" % number for number in range(5000)])
        transport.close()
        trace("peer", await read_all(loop, peer))
        await until(lambda: protocol.lost)


@probe("B.writelines")
async def writelines_beyond_the_limit_pauses_writing(loop: Loop, trace: Trace) -> None:
    async with wired(loop, lambda: Told(trace)) as (transport, protocol, peer):
        transport.writelines([bytes(1 << 20)] * 16)
        trace("queued", transport.get_write_buffer_size() > 1 << 17)
        transport.close()
        await read_all(loop, peer)
        await until(lambda: protocol.lost)


@probe("B.write_eof", each=KINDS)
async def write_eof_half_closes(loop: Loop, trace: Trace, kind: str) -> None:
    async with wired(loop, lambda: Told(trace), kind) as (transport, protocol, peer):
        trace("can", transport.can_write_eof())
        transport.write(b"last words")
        trace.attempt("write_eof", transport.write_eof)
        trace.attempt("again", transport.write_eof)
        for label, call in (
            ("write", lambda: transport.write(b"x")),
            ("write nothing", lambda: transport.write(b"")),
            ("writelines", lambda: transport.writelines([b"x"])),
            ("writelines nothing", lambda: transport.writelines([])),
        ):
            trace.attempt(label, call)
        trace("peer", await read_all(loop, peer))
        trace("state", transport.is_closing(), transport.is_reading())
        await loop.sock_sendall(peer, b"still reading")
        await until(lambda: len(protocol.received) == 13)
        peer.close()
        await until(lambda: protocol.lost)


@probe("B.write_eof")
async def write_eof_flushes_first(loop: Loop, trace: Trace) -> None:
    async with wired(loop, lambda: Told(trace, tell=False)) as (transport, protocol, peer):
        transport.write(bytes(range(256)) * (1 << 14))
        transport.write_eof()
        trace("queued", transport.get_write_buffer_size() > 0)
        trace("peer", await read_all(loop, peer))
        trace("state", transport.is_closing(), transport.get_write_buffer_size(), protocol.lost)


@probe("B.write_eof", each=["before", "after"])
async def write_eof_and_close(loop: Loop, trace: Trace, order: str) -> None:
    async with wired(loop, lambda: Told(trace)) as (transport, protocol, peer):
        transport.write(b"x")
        calls = [transport.write_eof, transport.close]
        for call in calls if order == "before" else reversed(calls):
            trace.attempt("call", call)
        await until(lambda: protocol.lost)
        trace("peer", await read_all(loop, peer))


@probe("B.get_write_buffer_size")
async def the_buffer_size_is_what_was_not_sent(loop: Loop, trace: Trace) -> None:
    async with wired(loop, lambda: Told(trace, tell=False)) as (transport, _, peer):
        trace("empty", transport.get_write_buffer_size())
        fill(transport, 1)
        size = transport.get_write_buffer_size()
        transport.write(b"12345")
        trace("grew by", transport.get_write_buffer_size() - size)
        transport.write(bytearray(7))
        trace("grew by", transport.get_write_buffer_size() - size)
        transport.abort()
        trace("after abort", transport.get_write_buffer_size())
        peer.shutdown(socket.SHUT_RD)


@probe("Z.61")
async def writes_from_inside_pause_writing_are_sent(loop: Loop, trace: Trace) -> None:
    def more(protocol: Told) -> None:
        for _ in range(4):
            protocol.transport.write(b"tail")

    async with wired(loop, lambda: Told(trace, pause_writing=more)) as (transport, protocol, peer):
        transport.write(bytes(8 << 20))
        transport.close()
        trace("peer", await read_all(loop, peer))
        await until(lambda: protocol.lost)


@probe("B.abort")
async def abort_after_a_close_that_flushed(loop: Loop, trace: Trace) -> None:
    async with wired(loop, lambda: Told(trace)) as (transport, protocol, peer):
        transport.set_write_buffer_limits(1 << 30)
        transport.write(bytes(8 << 20))
        transport.close()
        await read_all(loop, peer)
        await until(lambda: protocol.lost)
        await turns(2)
        trace.attempt("abort", transport.abort)
        await turns(2)
