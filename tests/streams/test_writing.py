"""The writer's methods over the transport, flow control by `drain`, and patched classes."""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import Any

import pytest

from tests.streams.support import accepted, opened, run
from tests.support.net import receive_exactly, reset, settled

Loop = asyncio.AbstractEventLoop


def test_the_methods_reach_the_transport(loop: Loop) -> None:
    async def converse(_reader: Any, writer: Any, peer: socket.socket) -> None:
        assert writer.write(b"one") is None
        writer.write(data=b"two")
        assert writer.writelines([b"th", b"ree"]) is None
        await writer.drain()
        assert receive_exactly(peer, 11) == b"onetwothree"
        assert writer.get_extra_info("sockname") == peer.getpeername()
        assert writer.get_extra_info("nothing") is None
        assert writer.get_extra_info("nothing", 7) == 7
        assert writer.get_extra_info(name="nothing", default=8) == 8
        assert not writer.is_closing()
        assert writer.close() is None
        assert writer.is_closing()

    run(loop, converse)


@pytest.mark.parametrize(
    "call",
    [
        lambda writer: writer.write(),
        lambda writer: writer.write(b"", b""),
        lambda writer: writer.write(1),
        lambda writer: writer.write(other=b""),
        lambda writer: writer.writelines(),
        lambda writer: writer.close(1),
        lambda writer: writer.drain(1),
    ],
)
def test_wrong_arguments_are_type_errors(loop: Loop, call: Any) -> None:
    async def converse(_reader: Any, writer: Any, _peer: socket.socket) -> None:
        with pytest.raises(TypeError):
            call(writer)

    run(loop, converse)


def test_drain_waits_for_room(loop: Loop) -> None:
    async def converse(_reader: Any, writer: Any, peer: socket.socket) -> None:
        writer.transport.set_write_buffer_limits(high=1000)
        size = 0
        while writer.transport.get_write_buffer_size() <= 1000:
            writer.write(bytes(1 << 16))
            size += 1 << 16
        drains = [asyncio.ensure_future(writer.drain())]
        await settled()
        assert not drains[0].done()
        received = await asyncio.get_running_loop().run_in_executor(
            None, receive_exactly, peer, size
        )
        assert len(received) == size
        assert await asyncio.gather(*drains) == [None]
        await writer.drain()

    run(loop, converse)


def test_drain_lets_the_loop_turn_while_closing(loop: Loop) -> None:
    async def converse(_reader: Any, writer: Any, _peer: socket.socket) -> None:
        writer.close()
        turned: list[int] = []
        asyncio.get_running_loop().call_soon(turned.append, 1)
        with pytest.raises(ConnectionResetError, match="Connection lost"):
            for _ in range(3):
                await writer.drain()
        assert turned

    run(loop, converse)


def test_writing_and_draining_ends_after_a_reset(loop: Loop) -> None:
    async def converse(_reader: Any, writer: Any, peer: socket.socket) -> None:
        reset(peer)
        with pytest.raises(ConnectionError):
            while True:
                writer.write(b"x")
                await writer.drain()

    run(loop, converse)


def test_a_patched_writer_is_honoured(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    original = asyncio.StreamWriter.write

    def write(self: asyncio.StreamWriter, data: bytes) -> None:
        original(self, data.upper())

    async def drain(self: asyncio.StreamWriter) -> None:
        raise ZeroDivisionError

    async def converse(_reader: Any, writer: Any, peer: socket.socket) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(asyncio.StreamWriter, "write", write)
            patch.setattr(asyncio.StreamWriter, "drain", drain)
            writer.write(b"patched")
            with pytest.raises(ZeroDivisionError):
                await writer.drain()
        writer.write(b"plain")
        await writer.drain()
        assert receive_exactly(peer, 12) == b"PATCHEDplain"

    run(loop, converse)


def test_a_patched_drain_helper_is_awaited(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    async def helper(self: asyncio.StreamReaderProtocol) -> None:
        calls.append(self)
        await asyncio.sleep(0)

    async def converse(_reader: Any, writer: Any, _peer: socket.socket) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(asyncio.StreamReaderProtocol, "_drain_helper", helper)
            await writer.drain()
        await writer.drain()
        assert calls.pop() is writer.transport.get_protocol()

    run(loop, converse)
    assert not calls


def test_a_replaced_transport_is_written_to(loop: Loop) -> None:
    class Transport(asyncio.Transport):
        def __init__(self) -> None:
            super().__init__()
            self.written: list[bytes] = []

        def write(self, data: bytes) -> None:
            self.written.append(data)

        def is_closing(self) -> bool:
            return False

    async def converse(_reader: Any, writer: Any, _peer: socket.socket) -> None:
        own, replacement = writer._transport, Transport()
        writer._transport = replacement
        assert writer.transport is replacement
        writer.write(b"elsewhere")
        await writer.drain()
        writer._transport = own
        assert replacement.written == [b"elsewhere"]

    run(loop, converse)


def test_a_transport_with_methods_of_its_own_is_written_to(loop: Loop) -> None:
    async def converse(_reader: Any, writer: Any, _peer: socket.socket) -> None:
        writer.write(b"")
        written: list[bytes] = []
        closing: list[bool] = []

        def is_closing() -> bool:
            closing.append(True)
            return False

        try:
            writer.transport.write = written.append
            writer.transport.is_closing = is_closing
        except AttributeError:
            pytest.skip("the transports of this loop take no attributes")
        writer.write(b"elsewhere")
        await writer.drain()
        del writer.transport.write, writer.transport.is_closing
        assert written == [b"elsewhere"]
        assert closing

    run(loop, converse)


@pytest.mark.flavours("asyncio", "tokioloop", reason="the peers' classes cannot be changed")
def test_a_patched_transport_class_is_honoured(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    async def converse(_reader: Any, writer: Any, _peer: socket.socket) -> None:
        writer.write(b"")
        written: list[bytes] = []
        with monkeypatch.context() as patch:
            write = lambda _transport, data: written.append(data)  # noqa: E731
            patch.setattr(type(writer.transport), "write", write)
            writer.write(b"patched")
            await writer.drain()
        assert written == [b"patched"]

    run(loop, converse)


def test_the_servers_callback_is_what_the_user_gave(loop: Loop) -> None:
    async def main() -> None:
        async with accepted() as (_reader, writer, _peer):
            callback = writer._protocol._client_connected_cb
            assert type(callback).__name__ == "function"
        async with opened() as (_reader, writer, _peer):
            assert writer._protocol._client_connected_cb is None

    loop.run_until_complete(main())


@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio reports it since Python 3.11")
def test_a_failing_callback_is_reported(loop: Loop, loop_errors: Any) -> None:
    async def main() -> None:
        done = asyncio.Event()

        async def failing(_reader: Any, writer: Any) -> None:
            done.set()
            raise ZeroDivisionError("in the callback")

        server = await asyncio.start_server(failing, "127.0.0.1", 0)
        with socket.create_connection(server.sockets[0].getsockname()):
            await done.wait()
            await settled()
        server.close()
        await server.wait_closed()
        context = loop_errors.take()
        assert context["message"] == "Unhandled exception in client_connected_cb"
        assert isinstance(context["exception"], ZeroDivisionError)

    loop.run_until_complete(main())
