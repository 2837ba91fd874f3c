"""The reader's coroutine methods: results, limits, errors and their texts, waits and patches."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from tests.streams.support import run, until_held
from tests.support.net import settled

Loop = asyncio.AbstractEventLoop


async def held(reader: Any, peer: socket.socket, data: bytes) -> None:
    """Sends data and waits until it lies in the reader's buffer."""
    before = len(reader._buffer)
    peer.sendall(data)
    await until_held(reader, before + len(data))


def test_a_factorys_objects_look_like_asyncios(loop: Loop) -> None:
    async def converse(reader: Any, writer: Any, _peer: socket.socket) -> None:
        assert isinstance(reader, asyncio.StreamReader)
        assert isinstance(writer, asyncio.StreamWriter)
        for stream, name in ((reader, "StreamReader"), (writer, "StreamWriter")):
            assert type(stream).__name__ == type(stream).__qualname__ == name
            assert type(stream).__module__ == "asyncio.streams"
            assert type(stream).__doc__ == getattr(asyncio, name).__doc__
            assert repr(stream).startswith(f"<{name}")

    run(loop, converse)


def test_read_takes_what_is_there(loop: Loop) -> None:
    async def converse(reader: Any, _writer: Any, peer: socket.socket) -> None:
        await held(reader, peer, b"abcdef")
        assert await reader.read(0) == b""
        assert await reader.read(2) == b"ab"
        assert await reader.read(n=3) == b"cde"
        assert await reader.read(100) == b"f"
        assert reader._buffer == b""
        assert await reader.read(0) == b""

    run(loop, converse)


def test_read_to_the_end_joins_blocks(loop: Loop) -> None:
    data = bytes(range(256)) * 40

    async def converse(reader: Any, _writer: Any, peer: socket.socket) -> None:
        task = asyncio.ensure_future(reader.read())
        peer.sendall(data)
        await asyncio.sleep(0.01)
        peer.sendall(data)
        peer.shutdown(socket.SHUT_WR)
        assert await task == data * 2
        assert reader.at_eof()
        assert await reader.read(-1) == await reader.read(5) == b""

    run(loop, converse, limit=100)


def test_readexactly(loop: Loop) -> None:
    async def converse(reader: Any, _writer: Any, peer: socket.socket) -> None:
        assert await reader.readexactly(0) == b""
        task = asyncio.ensure_future(reader.readexactly(4))
        await held(reader, peer, b"ab")
        await settled()
        assert not task.done()
        peer.sendall(b"cde")
        assert await task == b"abcd"
        peer.shutdown(socket.SHUT_WR)
        with pytest.raises(asyncio.IncompleteReadError) as caught:
            await reader.readexactly(3)
        assert (caught.value.partial, caught.value.expected) == (b"e", 3)
        assert reader._buffer == b""
        with pytest.raises(ValueError, match=r"^readexactly size can not be less than zero$"):
            await reader.readexactly(-1)

    run(loop, converse)


@pytest.mark.parametrize("separator", [b"\n", b"||", b"END"])
def test_readuntil_finds_a_separator_that_comes_in_pieces(loop: Loop, separator: bytes) -> None:
    async def converse(reader: Any, _writer: Any, peer: socket.socket) -> None:
        task = asyncio.ensure_future(reader.readuntil(separator))
        await held(reader, peer, b"line")
        for position in range(len(separator)):
            await settled()
            assert not task.done()
            peer.sendall(separator[position : position + 1])
        assert await task == b"line" + separator
        await held(reader, peer, separator + b"x" + separator + b"rest")
        assert await reader.readuntil(separator) == separator
        assert await reader.readuntil(separator=separator) == b"x" + separator
        peer.shutdown(socket.SHUT_WR)
        with pytest.raises(asyncio.IncompleteReadError) as caught:
            await reader.readuntil(separator)
        assert (caught.value.partial, caught.value.expected) == (b"rest", None)
        assert reader._buffer == b""

    run(loop, converse)


def test_readuntil_of_an_empty_separator(loop: Loop) -> None:
    async def converse(reader: Any, _writer: Any, _peer: socket.socket) -> None:
        with pytest.raises(ValueError, match=r"^Separator should be at least one-byte string$"):
            await reader.readuntil(b"")

    run(loop, converse)


@pytest.mark.min_python(3, 13)
def test_readuntil_of_several_separators(loop: Loop) -> None:
    async def converse(reader: Any, _writer: Any, peer: socket.socket) -> None:
        peer.sendall(b"one\rtwo\n")
        assert await reader.readuntil((b"\n", b"\r")) == b"one\r"
        assert await reader.readuntil((b"\n", b"\r")) == b"two\n"

    run(loop, converse)


def test_readuntil_beyond_the_limit_leaves_the_data(loop: Loop) -> None:
    async def converse(reader: Any, _writer: Any, peer: socket.socket) -> None:
        await held(reader, peer, b"x" * 11)
        with pytest.raises(asyncio.LimitOverrunError) as caught:
            await reader.readuntil(b"ab")
        assert str(caught.value) == "Separator is not found, and chunk exceed the limit"
        assert caught.value.consumed == 10
        assert reader._buffer == b"x" * 11
        await held(reader, peer, b"ab")
        with pytest.raises(asyncio.LimitOverrunError) as caught:
            await reader.readuntil(b"ab")
        assert str(caught.value) == "Separator is found, but chunk is longer than limit"
        assert caught.value.consumed == 11
        assert await reader.readexactly(13) == b"x" * 11 + b"ab"

    run(loop, converse, limit=9)


def test_readline(loop: Loop) -> None:
    async def converse(reader: Any, _writer: Any, peer: socket.socket) -> None:
        await held(reader, peer, b"one\n\nthree\nfo")
        assert await reader.readline() == b"one\n"
        assert [await reader.readline(), await reader.readline()] == [b"\n", b"three\n"]
        task = asyncio.ensure_future(reader.readline())
        peer.sendall(b"ur\nlast")
        assert await task == b"four\n"
        peer.shutdown(socket.SHUT_WR)
        assert await reader.readline() == b"last"
        assert await reader.readline() == b""
        assert [line async for line in reader] == []

    run(loop, converse)


def test_readline_drops_a_line_that_is_too_long(loop: Loop) -> None:
    async def converse(reader: Any, _writer: Any, peer: socket.socket) -> None:
        await held(reader, peer, b"12345678\nok\n")
        message = r"^Separator is found, but chunk is longer than limit$"
        with pytest.raises(ValueError, match=message) as caught:
            await reader.readline()
        assert isinstance(caught.value.__context__, asyncio.LimitOverrunError)
        assert await reader.readline() == b"ok\n"
        await held(reader, peer, b"12345678")
        message = r"^Separator is not found, and chunk exceed the limit$"
        with pytest.raises(ValueError, match=message):
            await reader.readline()
        assert reader._buffer == b""

    run(loop, converse, limit=5)


def test_lines_by_iteration(loop: Loop) -> None:
    async def converse(reader: Any, _writer: Any, peer: socket.socket) -> None:
        peer.sendall(b"a\nb\nc")
        peer.shutdown(socket.SHUT_WR)
        assert [line async for line in reader] == [b"a\n", b"b\n", b"c"]

    run(loop, converse)


@pytest.mark.parametrize(
    ("method", "args", "name"),
    [
        ("read", (10,), "read"),
        ("read", (-1,), "read"),
        ("readexactly", (10,), "readexactly"),
        ("readuntil", (b"x",), "readuntil"),
        ("readline", (), "readuntil"),
    ],
)
def test_a_second_read_while_one_waits_is_refused(
    loop: Loop, method: str, args: Any, name: str
) -> None:
    async def converse(reader: Any, _writer: Any, peer: socket.socket) -> None:
        first = asyncio.ensure_future(reader.read(10))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError) as caught:
            await getattr(reader, method)(*args)
        assert str(caught.value) == (
            f"{name}() called while another coroutine is already waiting for incoming data"
        )
        peer.sendall(b"data")
        assert await first == b"data"

    run(loop, converse)


def test_a_stored_exception_is_raised_first(loop: Loop) -> None:
    async def converse(reader: Any, writer: Any, peer: socket.socket) -> None:
        await held(reader, peer, b"data\n")
        error = ZeroDivisionError("stored")
        reader.set_exception(error)
        for call in (
            lambda: reader.read(0),
            lambda: reader.read(),
            lambda: reader.readline(),
            lambda: reader.readuntil(b"t"),
            lambda: reader.readexactly(1),
            lambda: writer.drain(),
        ):
            with pytest.raises(ZeroDivisionError) as caught:
                await call()
            assert caught.value is error
        assert reader._buffer == b"data\n"

    run(loop, converse)


def test_an_exception_ends_a_wait(loop: Loop) -> None:
    async def converse(reader: Any, _writer: Any, _peer: socket.socket) -> None:
        task = asyncio.ensure_future(reader.readline())
        await asyncio.sleep(0)
        reader.set_exception(ZeroDivisionError())
        with pytest.raises(ZeroDivisionError):
            await task
        assert reader._waiter is None

    run(loop, converse)


def test_a_wait_resumes_a_paused_transport(loop: Loop) -> None:
    async def converse(reader: Any, writer: Any, peer: socket.socket) -> None:
        await held(reader, peer, bytes(30))
        assert not writer.transport.is_reading()
        task = asyncio.ensure_future(reader.readexactly(40))
        await asyncio.sleep(0)
        assert writer.transport.is_reading()
        peer.sendall(bytes(10))
        assert await task == bytes(40)

    run(loop, converse, limit=10)


def test_a_method_patched_on_the_class_is_called(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def patched(self: Any, n: int = -1) -> bytes:
        return b"patched"

    async def converse(reader: Any, _writer: Any, peer: socket.socket) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(asyncio.StreamReader, "read", patched)
            assert await reader.read(5) == b"patched"
        await held(reader, peer, b"data")
        assert await reader.read(5) == b"data"

    run(loop, converse)


def test_a_method_of_the_instance_is_called(loop: Loop) -> None:
    async def converse(reader: Any, _writer: Any, peer: socket.socket) -> None:
        calls: list[str] = []
        wait = reader._wait_for_data

        async def counted(name: str) -> None:
            calls.append(name)
            await wait(name)

        reader._wait_for_data = counted
        task = asyncio.ensure_future(reader.readexactly(4))
        await asyncio.sleep(0)
        peer.sendall(b"data")
        assert await task == b"data"
        assert set(calls) == {"readexactly"}

    run(loop, converse)


def test_a_replaced_buffer_is_read(loop: Loop) -> None:
    async def converse(reader: Any, _writer: Any, _peer: socket.socket) -> None:
        reader._buffer = bytearray(b"mine\n")
        assert await reader.readline() == b"mine\n"
        reader._buffer.extend(b"more")
        assert await reader.read(2) == b"mo"
        reader.feed_data(b"!")
        assert await reader.read(10) == b"re!"

    run(loop, converse)


@pytest.mark.parametrize("size", [True, 2.5, None, "1"])
def test_an_odd_size_is_treated_as_asyncio_does(loop: Loop, size: Any) -> None:
    async def outcome(read: Any, reader: Any) -> Any:
        try:
            return await read(reader, size)
        except Exception as error:
            return type(error), str(error)

    async def converse(reader: Any, _writer: Any, peer: socket.socket) -> None:
        await held(reader, peer, b"data")
        ours = await outcome(type(reader).read, reader)
        reader._buffer = bytearray(b"data")
        assert ours == await outcome(asyncio.StreamReader.read, reader)

    run(loop, converse)
