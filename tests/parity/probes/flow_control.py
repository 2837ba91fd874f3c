"""Water marks: when writing pauses and resumes, and which limits are refused."""

from __future__ import annotations

import sys
from typing import Any

from ..harness import Trace
from ..registry import probe
from ..wires import Told, fill, read_all, turns, until, wired

Loop = Any

LIMITS: dict[str, tuple[Any, ...]] = {
    "nothing": (),
    "high": (1000,),
    "both": (1000, 10),
    "low only": (None, 256),
    "zero": (0,),
    "zero and zero": (0, 0),
    "low above high": (1, 2),
    "negative": (-1,),
    "negative low": (5, -1),
    "fraction": (1.5,),
    "text": ("x",),
    "huge": (sys.maxsize,),
    "huge low": (None, sys.maxsize),
    "true": (True,),
}


@probe("B.set_write_buffer_limits", each=LIMITS)
async def limits_are_checked(loop: Loop, trace: Trace, what: str) -> None:
    async with wired(loop, lambda: Told(trace)) as (transport, _, __):
        trace("default", transport.get_write_buffer_limits())
        trace.attempt("set", transport.set_write_buffer_limits, *LIMITS[what])
        trace("now", transport.get_write_buffer_limits())
        if len(LIMITS[what]) == 2:
            high, low = LIMITS[what]
            trace.attempt("by name", lambda: transport.set_write_buffer_limits(low=low, high=high))


@probe("C.47")
async def writing_pauses_inside_write(loop: Loop, trace: Trace) -> None:
    async with wired(loop, lambda: Told(trace)) as (transport, protocol, peer):
        transport.set_write_buffer_limits(high=1000, low=100)
        fill(transport, 1)
        trace("paused before write returned", "pause_writing" in protocol.calls)
        transport.write(b"more")
        transport.write(b"more")
        trace("once", protocol.calls.count("pause_writing"))
        peer.setblocking(False)
        while transport.get_write_buffer_size() > 0:
            await loop.sock_recv(peer, 1 << 20)
        await turns(2)
        trace("resumed", protocol.calls.count("resume_writing"))


@probe("C.47")
async def lower_limits_pause_at_once(loop: Loop, trace: Trace) -> None:
    async with wired(loop, lambda: Told(trace)) as (transport, protocol, peer):
        transport.set_write_buffer_limits(1 << 30)
        fill(transport, 5000)
        trace("under the limit", "pause_writing" in protocol.calls)
        trace.attempt("set", transport.set_write_buffer_limits, 100)
        trace("over it", "pause_writing" in protocol.calls)
        transport.write(b"x")
        trace("after a write", "pause_writing" in protocol.calls)
        transport.set_write_buffer_limits(1 << 30)
        await turns(2)
        trace("raised again", "resume_writing" in protocol.calls)
        transport.close()
        await read_all(loop, peer)
        await until(lambda: protocol.lost)


@probe("C.48")
async def nothing_pauses_when_all_is_sent_at_once(loop: Loop, trace: Trace) -> None:
    async with wired(loop, lambda: Told(trace)) as (transport, protocol, peer):
        transport.set_write_buffer_limits(0)
        transport.write(b"x")
        await turns(1)
        transport.writelines([b"y", b"z"])
        await turns(2)
        trace("paused", "pause_writing" in protocol.calls, transport.get_write_buffer_size())
        trace("peer", peer.recv(10))


@probe("C.47", each=["close", "abort"])
async def closing_from_pause_writing(loop: Loop, trace: Trace, name: str) -> None:
    quirk = lambda protocol: getattr(protocol.transport, name)()  # noqa: E731
    async with wired(loop, lambda: Told(trace, pause_writing=quirk)) as (transport, protocol, peer):
        transport.write(bytes(8 << 20))
        trace("closing", transport.is_closing())
        if name == "close":
            trace("peer", len(await read_all(loop, peer)))
        await until(lambda: protocol.lost)


@probe("C.47")
async def writing_from_resume_writing(loop: Loop, trace: Trace) -> None:
    def again(protocol: Told) -> None:
        if protocol.calls.count("resume_writing") < 3:
            protocol.transport.write(bytes(8 << 20))
        else:
            protocol.transport.close()

    # A Unix socket: TCP's buffers grow with the traffic, until one of them takes 8 MB at once.
    async with wired(loop, lambda: Told(trace, resume_writing=again), "unix") as (
        transport,
        protocol,
        peer,
    ):
        transport.write(bytes(8 << 20))
        trace("peer", len(await read_all(loop, peer)))
        await until(lambda: protocol.lost)


@probe("C.47")
async def drain_waits_for_the_buffer(loop: Loop, trace: Trace) -> None:
    import asyncio
    import socket

    ours, peer = socket.socketpair()
    with ours, peer:
        ours.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=ours)
        writer.write(bytes(4 << 20))
        drain = loop.create_task(writer.drain())
        await turns(5)
        trace("waiting", drain.done())
        peer.setblocking(False)
        while not drain.done():
            await loop.sock_recv(peer, 1 << 18)
        trace("drained", drain.result())
        writer.transport.abort()
        await trace.attempt_await("wait_closed", writer.wait_closed)
        await trace.attempt_await("drain after close", writer.drain)
