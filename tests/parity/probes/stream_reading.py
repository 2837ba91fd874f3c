"""What stream protocols are told: data, end of file, errors in callbacks, buffers, pausing."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.support.net import reset

from ..harness import Trace
from ..registry import probe
from ..wires import KINDS, Told, ToldBuffered, read_all, turns, until, wired

Loop = Any
EOF_VALUES = {"None": None, "False": False, "True": True, "1": 1, "text": "x", "zero": 0}


@probe("C.10", each=EOF_VALUES)
async def what_eof_received_returns_decides(loop: Loop, trace: Trace, value: str) -> None:
    async with wired(loop, lambda: Told(trace, eof=EOF_VALUES[value])) as (
        transport,
        protocol,
        peer,
    ):
        peer.send(b"last")
        peer.shutdown(1)
        await until(lambda: "eof_received" in protocol.calls)
        await turns(3)
        trace("state", protocol.lost, transport.is_closing(), transport.is_reading())
        trace("data", protocol.received)
        if not protocol.lost:
            transport.write(b"answer")
            trace("peer", peer.recv(100))
            transport.close()
            await until(lambda: protocol.lost)


@probe("C.11", each=KINDS)
async def an_error_in_eof_received_closes(loop: Loop, trace: Trace, kind: str) -> None:
    factory = lambda: Told(trace, eof_received=ValueError("probe"))  # noqa: E731
    async with wired(loop, factory, kind) as (_, protocol, peer):
        peer.shutdown(1)
        await until(lambda: protocol.lost)


@probe("C.12")
async def data_and_eof_wait_while_reading_is_paused(loop: Loop, trace: Trace) -> None:
    async with wired(loop, lambda: Told(trace)) as (transport, protocol, peer):
        transport.pause_reading()
        peer.send(b"data")
        peer.shutdown(1)
        await asyncio.sleep(0.02)
        trace("paused", protocol.received, transport.is_reading())
        transport.resume_reading()
        await until(lambda: protocol.lost)
        trace("resumed", protocol.received)


@probe("C.13", each=["close", "abort"])
async def no_data_comes_after_closing(loop: Loop, trace: Trace, name: str) -> None:
    quirk = lambda protocol: getattr(protocol.transport, name)()  # noqa: E731
    async with wired(loop, lambda: Told(trace, data_received=quirk)) as (_, protocol, peer):
        peer.send(bytes(600_000)[: 1 << 17])
        await until(lambda: protocol.lost)
        trace("calls", protocol.calls.count("data_received"))


@probe("C.13")
async def no_data_comes_when_closed_with_data_waiting(loop: Loop, trace: Trace) -> None:
    async with wired(loop, lambda: Told(trace)) as (transport, protocol, peer):
        peer.send(b"waiting")
        transport.close()
        await until(lambda: protocol.lost)
        trace("data", protocol.received)


@probe("C.14", each=KINDS)
async def the_protocol_can_be_changed(loop: Loop, trace: Trace, kind: str) -> None:
    async with wired(loop, lambda: Told(trace), kind) as (transport, first, peer):
        trace("first", transport.get_protocol() is first)
        peer.send(b"one")
        await until(lambda: len(first.received) == 3)
        buffered = ToldBuffered(trace)
        transport.set_protocol(buffered)
        trace("second", transport.get_protocol() is buffered)
        peer.send(b"two")
        await until(lambda: len(buffered.received) == 3)
        third = Told(trace)
        transport.set_protocol(third)
        peer.send(b"three")
        await until(lambda: len(third.received) == 5)
        trace("received", first.received, buffered.received, third.received)
        peer.close()
        await until(lambda: third.lost)


@probe("C.15", each=KINDS)
async def an_error_in_connection_made_is_reported(loop: Loop, trace: Trace, kind: str) -> None:
    factory = lambda: Told(trace, connection_made=ValueError("probe"))  # noqa: E731
    async with wired(loop, factory, kind) as (transport, protocol, peer):
        trace("returned", transport.is_closing(), protocol.lost)
        peer.send(b"x")
        await until(lambda: protocol.received)
        transport.close()
        await until(lambda: protocol.lost)


@probe("C.16", each=KINDS)
async def an_error_in_data_received_closes(loop: Loop, trace: Trace, kind: str) -> None:
    factory = lambda: Told(trace, data_received=ValueError("probe"))  # noqa: E731
    async with wired(loop, factory, kind) as (_, protocol, peer):
        peer.send(b"x")
        await until(lambda: protocol.lost)


@probe("C.17", each=KINDS)
async def an_error_in_connection_lost_is_reported(loop: Loop, trace: Trace, kind: str) -> None:
    factory = lambda: Told(trace, connection_lost=ValueError("probe"))  # noqa: E731
    async with wired(loop, factory, kind) as (transport, protocol, peer):
        transport.close()
        await until(lambda: protocol.lost)
        await turns(2)
        trace("peer", await read_all(loop, peer))


@probe("C.18")
async def errors_in_flow_control_are_reported(loop: Loop, trace: Trace) -> None:
    factory = lambda: Told(  # noqa: E731
        trace, pause_writing=ValueError("pause"), resume_writing=ValueError("resume")
    )
    async with wired(loop, factory) as (transport, protocol, peer):
        transport.write(bytes(8 << 20))
        transport.close()
        trace("peer", await read_all(loop, peer))
        await until(lambda: protocol.lost)


GETS: dict[str, Any] = {
    "empty": lambda hint: bytearray(),
    "raises": lambda hint: 1 / 0,
    "None": lambda hint: None,
    "bytes": lambda hint: bytes(10),
    "number": lambda hint: 5,
    "read-only view": lambda hint: memoryview(b"0123456789"),
    "wide view": lambda hint: memoryview(bytearray(16)).cast("i"),
}


@probe("C.19", each=GETS)
async def odd_buffers(loop: Loop, trace: Trace, what: str) -> None:
    async with wired(loop, lambda: ToldBuffered(trace, get=GETS[what])) as (
        transport,
        protocol,
        peer,
    ):
        peer.send(b"0123456789")
        try:
            await until(lambda: protocol.lost or len(protocol.received) >= 10, 0.5)
        except TimeoutError:
            trace("nothing happened")
        trace("state", protocol.lost, transport.is_closing())


@probe("C.19", each=["buffer_updated", "eof_received"])
async def errors_in_buffered_protocols(loop: Loop, trace: Trace, which: str) -> None:
    class Failing(ToldBuffered):
        def buffer_updated(self, nbytes: int) -> None:
            if which == "buffer_updated":
                raise ValueError("probe")

        def eof_received(self) -> None:
            raise ValueError("eof")

    async with wired(loop, lambda: Failing(trace)) as (_, protocol, peer):
        peer.send(b"x")
        peer.shutdown(1)
        await until(lambda: protocol.lost)


@probe("B.sizehint", each=KINDS)
async def a_buffered_protocol_is_asked_for_any_size(loop: Loop, trace: Trace, kind: str) -> None:
    hints: list[int] = []
    buffer = bytearray(4)

    def get(hint: int) -> Any:
        hints.append(hint)
        return buffer

    class Small(ToldBuffered):
        def buffer_updated(self, nbytes: int) -> None:
            self.received += buffer[:nbytes]

    async with wired(loop, lambda: Small(trace, get=get), kind) as (_, protocol, peer):
        peer.send(b"0123456789")
        await until(lambda: len(protocol.received) == 10)
        trace("hints", set(hints))
        trace("received", protocol.received)
        peer.close()
        await until(lambda: protocol.lost)


@probe("B.max_size")
async def a_chunk_is_bytes_of_at_most_256_kib(loop: Loop, trace: Trace) -> None:
    chunks: list[Any] = []

    class Keeper(Told):
        def data_received(self, data: bytes) -> None:
            chunks.append(data)
            super().data_received(data)

    async with wired(loop, lambda: Keeper(trace), "unix") as (transport, protocol, peer):
        transport.get_extra_info("socket")
        await asyncio.gather(
            _send(loop, peer, bytes(1 << 21)), until(lambda: len(protocol.received) == 1 << 21)
        )
        trace("types", {type(chunk) for chunk in chunks})
        trace("bounded", max(map(len, chunks)) <= 1 << 18)


async def _send(loop: Loop, peer: Any, data: bytes) -> None:
    peer.setblocking(False)
    await loop.sock_sendall(peer, data)


@probe("B.pause_reading", each=KINDS)
async def reading_pauses_and_resumes(loop: Loop, trace: Trace, kind: str) -> None:
    async with wired(loop, lambda: Told(trace), kind) as (transport, protocol, peer):
        trace("reading", transport.is_reading())
        for name in ("pause_reading", "pause_reading"):
            trace.attempt(name, getattr(transport, name))
            trace("reading", transport.is_reading())
        peer.send(b"held")
        await asyncio.sleep(0.01)
        trace("held back", protocol.received)
        for name in ("resume_reading", "resume_reading"):
            trace.attempt(name, getattr(transport, name))
            trace("reading", transport.is_reading())
        await until(lambda: protocol.received)
        trace("after", protocol.received)
        transport.close()
        trace("closed", transport.is_reading())
        trace.attempt("pause", transport.pause_reading)
        trace.attempt("resume", transport.resume_reading)
        await until(lambda: protocol.lost)


@probe("B.pause_reading", each=KINDS, since=(3, 11))
async def reading_pauses_in_connection_made(loop: Loop, trace: Trace, kind: str) -> None:
    def pause(protocol: Told) -> None:
        trace("reading", protocol.transport.is_reading())
        protocol.transport.pause_reading()

    async with wired(loop, lambda: Told(trace, connection_made=pause), kind) as (
        transport,
        protocol,
        peer,
    ):
        peer.send(b"held")
        await asyncio.sleep(0.01)
        trace("held back", protocol.received, transport.is_reading())
        transport.resume_reading()
        await until(lambda: protocol.received)


@probe("B.pause_reading")
async def pausing_in_data_received_holds_the_rest_back(loop: Loop, trace: Trace) -> None:
    quirk = lambda protocol: protocol.transport.pause_reading()  # noqa: E731
    async with wired(loop, lambda: Told(trace, data_received=quirk), "unix") as (
        transport,
        protocol,
        peer,
    ):
        peer.setblocking(False)
        sender = loop.create_task(loop.sock_sendall(peer, bytes(1 << 20)))
        await until(lambda: protocol.received)
        await asyncio.sleep(0.02)
        trace("calls", protocol.calls.count("data_received"))
        while len(protocol.received) < 1 << 20:
            calls = protocol.calls.count("data_received")
            transport.resume_reading()
            await until(lambda calls=calls: protocol.calls.count("data_received") > calls)
        await sender
        trace("all", len(protocol.received))


@probe("B.weak")
async def transports_take_weak_references_and_attributes(loop: Loop, trace: Trace) -> None:
    import weakref

    async with wired(loop, lambda: Told(trace)) as (transport, _, __):
        trace("weak", weakref.ref(transport)() is transport)
        transport.anything = 5
        trace("attribute", transport.anything)
        for kind in (
            asyncio.Transport,
            asyncio.ReadTransport,
            asyncio.WriteTransport,
            asyncio.BaseTransport,
        ):
            trace("is a", isinstance(transport, kind))
        for name in ("_sock", "_protocol", "_loop", "_sock_fd", "_extra", "_closing"):
            trace(name, hasattr(transport, name))


@probe("B.repr", each=KINDS)
async def transports_show_themselves(loop: Loop, trace: Trace, kind: str) -> None:
    async with wired(loop, lambda: Told(trace), kind) as (transport, protocol, peer):
        await turns(2)
        trace("idle", repr(transport))
        transport.pause_reading()
        trace("paused", repr(transport))
        transport.write(bytes(8 << 20))
        trace("writing", repr(transport).partition("bufsize")[0])
        transport.resume_reading()
        transport.close()
        trace("closing", repr(transport).partition("bufsize")[0])
        await read_all(loop, peer)
        await until(lambda: protocol.lost)
        await turns(2)
        trace("closed", repr(transport))


@probe("C.6")
async def a_reset_in_the_middle_of_data(loop: Loop, trace: Trace) -> None:
    async with wired(loop, lambda: Told(trace, tell=False)) as (_, protocol, peer):
        peer.send(b"some")
        await until(lambda: len(protocol.received) == 4)
        reset(peer)
        await until(lambda: protocol.lost)
        trace("received", protocol.received)
