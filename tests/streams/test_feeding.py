"""Data on its way into a StreamReader: the state it leaves, flow control, and changed classes."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from tests.streams.support import accepted, opened, run, until_held
from tests.support.net import eventually, settled

Loop = asyncio.AbstractEventLoop


def test_data_lies_in_the_readers_buffer_until_it_is_read(loop: Loop) -> None:
    async def converse(reader: Any, _writer: Any, peer: socket.socket) -> None:
        buffer = reader._buffer
        peer.sendall(b"one")
        await until_held(reader, 3)
        peer.sendall(b"two")
        await until_held(reader, 6)
        assert reader._buffer is buffer
        assert type(buffer) is bytearray
        assert buffer == b"onetwo"
        assert (reader._eof, reader._paused, reader._waiter) == (False, False, None)
        assert repr(reader).startswith("<StreamReader 6 bytes transport=")
        assert await reader.read(100) == b"onetwo"

    run(loop, converse)


def test_a_reader_stops_the_transport_above_twice_its_limit(loop: Loop) -> None:
    async def converse(reader: Any, writer: Any, peer: socket.socket) -> None:
        peer.sendall(bytes(200))
        await until_held(reader, 200)
        assert writer.transport.is_reading()
        assert not reader._paused
        peer.sendall(b"x")
        await until_held(reader, 201)
        assert not writer.transport.is_reading()
        assert reader._paused
        peer.sendall(b"rest")
        assert await reader.read(100) == bytes(100)
        assert reader._paused, "101 bytes are more than the limit"
        assert await reader.read(1) == bytes(1)
        assert not reader._paused
        assert writer.transport.is_reading()
        assert await reader.readexactly(104) == bytes(99) + b"xrest"

    run(loop, converse, limit=100)


def test_a_waiting_reader_is_woken_once(loop: Loop) -> None:
    async def converse(reader: Any, _writer: Any, peer: socket.socket) -> None:
        task = asyncio.ensure_future(reader.read(100))
        await settled()
        waiter = reader._waiter
        assert not waiter.done()
        peer.sendall(b"data")
        await asyncio.wait([waiter])
        assert waiter.result() is None
        assert reader._waiter is None
        assert await task == b"data"

    run(loop, converse)


async def answered(coroutine: Any) -> None:
    """Starts a read that has to wait, and waits for its data without going on with it."""
    future = coroutine.send(None)
    await eventually(future.done)


def test_data_for_a_waiting_read_lies_in_the_buffer_meanwhile(loop: Loop) -> None:
    async def converse(reader: Any, _writer: Any, peer: socket.socket) -> None:
        buffer = reader._buffer
        for look in (False, True):
            coroutine = reader.read(100)
            peer.sendall(b"message")
            await answered(coroutine)
            if look:
                assert reader._buffer is buffer
                assert buffer == b"message"
                assert not reader.at_eof()
            with pytest.raises(StopIteration) as end:
                coroutine.send(None)
            assert end.value.value == b"message"
            assert reader._buffer == b""

    run(loop, converse)


@pytest.mark.parametrize("count", [3, 7, 20])
@pytest.mark.parametrize("method", ["read", "readexactly", "readline", "readuntil"])
def test_data_that_a_closed_read_has_left_is_read_by_the_next(
    loop: Loop, method: str, count: int
) -> None:
    async def converse(reader: Any, _writer: Any, peer: socket.socket) -> None:
        coroutine = reader.read(count)
        peer.sendall(b"abc\ndef")
        await answered(coroutine)
        coroutine.close()
        peer.sendall(b"ghi\njklmnopqrs")
        args = {"readline": (), "readuntil": (b"\n",)}.get(method, (count,))
        got = b"".join([await getattr(reader, method)(*args) for _ in range(1)])
        peer.shutdown(socket.SHUT_WR)
        assert got + await reader.read() == b"abc\ndefghi\njklmnopqrs"

    run(loop, converse)


def test_a_read_that_wants_less_leaves_the_rest(loop: Loop) -> None:
    async def converse(reader: Any, _writer: Any, peer: socket.socket) -> None:
        coroutine = reader.read(3)
        peer.sendall(b"message")
        await answered(coroutine)
        with pytest.raises(StopIteration) as end:
            coroutine.send(None)
        assert end.value.value == b"mes"
        assert reader._buffer == b"sage"
        assert await reader.readexactly(4) == b"sage"

    run(loop, converse)


def test_a_buffer_put_in_place_of_unread_data_is_what_is_read(loop: Loop) -> None:
    async def converse(reader: Any, _writer: Any, peer: socket.socket) -> None:
        coroutine = reader.read(100)
        peer.sendall(b"message")
        await answered(coroutine)
        reader._buffer = bytearray(b"another")
        with pytest.raises(StopIteration) as end:
            coroutine.send(None)
        assert end.value.value == b"another"

    run(loop, converse)


def test_a_read_waits_with_what_the_loop_makes(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    original = type(loop).create_future

    def create_future(*_self: Any) -> Any:
        made.append(original(loop))
        return made[-1]

    async def converse(reader: Any, _writer: Any, peer: socket.socket) -> None:
        for owner in (type(loop), loop):
            with monkeypatch.context() as patch:
                patch.setattr(owner, "create_future", create_future)
                made.clear()
                task = asyncio.ensure_future(reader.read(10))
                await asyncio.sleep(0)
                assert reader._waiter in made
            peer.sendall(b"data")
            assert await task == b"data"

    run(loop, converse)


def test_a_cancelled_read_takes_no_data(loop: Loop) -> None:
    async def converse(reader: Any, _writer: Any, peer: socket.socket) -> None:
        task = asyncio.ensure_future(reader.read(100))
        await settled()
        task.cancel()
        peer.sendall(b"data")
        with pytest.raises(asyncio.CancelledError):
            await task
        assert reader._waiter is None
        assert await reader.read(100) == b"data"

    run(loop, converse)


def test_the_end_follows_the_data(loop: Loop) -> None:
    async def converse(reader: Any, _writer: Any, peer: socket.socket) -> None:
        peer.sendall(b"last")
        peer.shutdown(socket.SHUT_WR)
        assert await reader.read() == b"last"
        assert reader.at_eof()
        assert await reader.read(10) == b""

    run(loop, converse)


def test_data_for_nobody_is_dropped(loop: Loop) -> None:
    async def main() -> None:
        async with opened() as (reader, writer, peer):
            protocol = writer.transport.get_protocol()
            protocol._stream_reader_wr = None
            peer.sendall(b"lost")
            protocol.eof_received()
            await asyncio.sleep(0.02)
            assert reader._buffer == b""
            assert not writer.is_closing()

    loop.run_until_complete(main())


def test_a_patched_feed_data_is_called(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    fed: list[bytes] = []
    original = asyncio.StreamReader.feed_data

    def feed_data(self: asyncio.StreamReader, data: bytes) -> None:
        fed.append(data)
        original(self, data.upper())

    async def converse(reader: Any, _writer: Any, peer: socket.socket) -> None:
        peer.sendall(b"before")
        assert await reader.readexactly(6) == b"before"
        with monkeypatch.context() as patch:
            patch.setattr(asyncio.StreamReader, "feed_data", feed_data)
            peer.sendall(b"patched")
            assert await reader.readexactly(7) == b"PATCHED"
        peer.sendall(b"after")
        assert await reader.readexactly(5) == b"after"
        assert fed.pop() == b"patched"

    run(loop, converse)
    assert not fed


def test_an_instance_may_hide_feed_data(loop: Loop) -> None:
    async def converse(reader: Any, _writer: Any, peer: socket.socket) -> None:
        fed: list[bytes] = []
        reader.feed_data = fed.append
        peer.sendall(b"elsewhere")
        await eventually(lambda: fed)
        del reader.feed_data
        peer.sendall(b"here")
        assert await reader.readexactly(4) == b"here"
        assert fed == [b"elsewhere"]

    run(loop, converse)


def test_an_attribute_of_ones_own_makes_no_difference(loop: Loop) -> None:
    async def converse(reader: Any, _writer: Any, peer: socket.socket) -> None:
        reader.name = "mine"
        peer.sendall(b"data")
        assert await reader.read(10) == b"data"
        assert reader.name == "mine"

    run(loop, converse)


@pytest.mark.parametrize("method", ["feed_data", "_wakeup_waiter"])
def test_a_readers_subclass_is_fed_by_its_own_methods(loop: Loop, method: str) -> None:
    calls: list[str] = []

    def counted(self: asyncio.StreamReader, *args: Any) -> Any:
        calls.append(method)
        return getattr(asyncio.StreamReader, method)(self, *args)

    reader_class = type("Reader", (asyncio.StreamReader,), {method: counted})

    async def main() -> None:
        reader = reader_class(loop=loop)
        ours, theirs = socket.socketpair()
        with theirs:
            protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
            transport, _ = await loop.create_connection(lambda: protocol, sock=ours)
            assert type(reader) is reader_class
            theirs.sendall(b"data")
            assert await reader.readexactly(4) == b"data"
            assert calls == [method]
            transport.close()
            await settled()

    loop.run_until_complete(main())


def test_a_protocols_subclass_gets_its_data(loop: Loop) -> None:
    received: list[bytes] = []

    class Protocol(asyncio.StreamReaderProtocol):
        def data_received(self, data: bytes) -> None:
            received.append(data)
            super().data_received(data)

    async def main() -> None:
        reader = asyncio.StreamReader(loop=loop)
        ours, theirs = socket.socketpair()
        with theirs:
            transport, _ = await loop.create_connection(
                lambda: Protocol(reader, loop=loop), sock=ours
            )
            theirs.sendall(b"data")
            assert await reader.readexactly(4) == b"data"
            assert received == [b"data"]
            transport.close()
            await settled()

    loop.run_until_complete(main())


def test_data_after_a_fed_end_is_a_fatal_error(loop: Loop, loop_errors: Any) -> None:
    async def main() -> None:
        async with accepted() as (reader, writer, peer):
            reader.feed_eof()
            peer.sendall(b"late")
            await eventually(writer.is_closing)
            context = loop_errors.take()
            assert context["message"] == "Fatal error: protocol.data_received() call failed."
            assert str(context["exception"]) == "feed_data after feed_eof"

    loop.run_until_complete(main())


def test_a_buffer_that_is_looked_at_cannot_grow(loop: Loop, loop_errors: Any) -> None:
    async def main() -> None:
        async with accepted() as (reader, writer, peer):
            peer.sendall(b"data")
            await until_held(reader, 4)
            with memoryview(reader._buffer):
                peer.sendall(b"more")
                await eventually(writer.is_closing)
            assert isinstance(loop_errors.take()["exception"], BufferError)

    loop.run_until_complete(main())
