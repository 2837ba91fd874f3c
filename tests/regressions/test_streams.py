"""Stream transports: what is written arrives in order, and every way of ending is told once."""

from __future__ import annotations

import array
import asyncio
import gc
import socket
import sys
import weakref
from typing import Any

import pytest

from tests.support.net import (
    connected,
    fill_send_queue,
    in_thread,
    receive_to_eof,
    reset,
    settled,
)
from tests.support.protocols import BufferedRecorder, HalfOpenRecorder, Recorder

pytestmark = pytest.mark.flavours(
    "asyncio", "tokioloop", reason="the peers have the defects these tests are about"
)
Loop = asyncio.AbstractEventLoop


def test_a_written_byte_is_at_the_peer_before_the_loop_turns(loop: Loop) -> None:
    async def main() -> None:
        async with connected("client") as (transport, _, peer):
            transport.write(b"x")
            assert peer.recv(1) == b"x"

    loop.run_until_complete(main())


@pytest.mark.flavours("tokioloop", reason="asyncio 3.12 raises TypeError from writelines")
def test_writes_to_a_closed_transport_are_dropped(loop: Loop) -> None:
    async def main() -> None:
        async with connected("client") as (transport, protocol, peer):
            transport.write(b"kept")
            transport.close()
            for _ in range(2):
                transport.write(b"lost")
                transport.writelines([b"lost"])
                transport.write_eof()
                transport.pause_reading()
                await protocol.until_lost()
            assert receive_to_eof(peer) == b"kept"

    loop.run_until_complete(main())


def test_writing_after_write_eof_is_an_error(loop: Loop) -> None:
    async def main() -> None:
        async with connected("client", HalfOpenRecorder) as (transport, _, peer):
            transport.write_eof()
            for call, argument in (("write", b""), ("write", b"x"), ("writelines", [b"x"])):
                with pytest.raises(RuntimeError, match=r"after write_eof"):
                    getattr(transport, call)(argument)
            assert peer.recv(10) == b""

    loop.run_until_complete(main())


def test_aborting_with_data_queued_ends_without_an_error(loop: Loop) -> None:
    async def main() -> None:
        async with connected("client") as (transport, protocol, _peer):
            fill_send_queue(transport)
            transport.abort()
            assert transport.get_write_buffer_size() == 0
            assert await protocol.until_lost() is None

    loop.run_until_complete(main())


def test_a_protocol_that_closes_from_pause_writing_is_not_resumed(loop: Loop) -> None:
    class Closing(Recorder):
        def pause_writing(self) -> None:
            super().pause_writing()
            self.transport.abort()

    async def main() -> None:
        async with connected("client", Closing) as (transport, protocol, _peer):
            transport.write(bytes(16 << 20))
            await protocol.until_lost()
            await settled()
            assert "resume_writing" not in protocol.calls

    loop.run_until_complete(main())


def test_a_protocol_that_raises_gets_no_more_data(loop: Loop, loop_errors: Any) -> None:
    class Failing(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            raise ValueError("once")

    async def main() -> None:
        async with connected("client", Failing) as (_transport, protocol, peer):
            for _ in range(10):
                peer.send(b"x")
            assert isinstance(await protocol.until_lost(), ValueError)
            await settled()
            assert len(protocol.chunks) == 1

    loop.run_until_complete(main())
    assert isinstance(loop_errors.take()["exception"], ValueError)


def test_a_buffered_protocol_takes_over_a_live_transport(loop: Loop) -> None:
    async def main() -> None:
        async with connected("client") as (transport, first, peer):
            peer.send(b"one")
            await first.until_received(3)
            second = BufferedRecorder()
            transport.set_protocol(second)
            peer.send(b"two")
            while len(second.received) < 3:
                await asyncio.sleep(0)
            transport.set_protocol(first)
            assert bytes(first.received + second.received) == b"onetwo"

    loop.run_until_complete(main())


def test_all_bytes_come_before_the_end_of_file(loop: Loop) -> None:
    data = bytes(range(256)) * (1 << 14)

    async def main() -> None:
        async with connected("client", HalfOpenRecorder) as (transport, _, peer):
            transport.write(data)
            transport.write_eof()
            assert await in_thread(receive_to_eof, peer) == data

    loop.run_until_complete(main())


def test_pause_writing_may_write(loop: Loop) -> None:
    class Eager(Recorder):
        def pause_writing(self) -> None:
            super().pause_writing()
            for _ in range(4):
                self.transport.write(b"tail")

    async def main() -> None:
        async with connected("client", Eager) as (transport, protocol, peer):
            count = fill_send_queue(transport)
            while "pause_writing" not in protocol.calls:
                transport.write(bytes(1 << 16))
                count += 1 << 16
            transport.close()
            received = await in_thread(receive_to_eof, peer)
            assert len(received) == count + 16 * protocol.calls.count("pause_writing")
            assert received.endswith(b"tail" * 4)

    loop.run_until_complete(main())


def test_drain_returns_with_limits_of_zero(loop: Loop) -> None:
    async def main() -> None:
        ours, peer = socket.socketpair()
        with peer:
            _reader, writer = await asyncio.open_connection(sock=ours)
            writer.transport.set_write_buffer_limits(0)
            writer.write(b"x")
            await asyncio.wait_for(writer.drain(), 5)
            writer.close()
            await writer.wait_closed()

    loop.run_until_complete(main())


def test_drain_raises_when_the_peer_resets(loop: Loop) -> None:
    async def main() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        with listener:
            _reader, writer = await asyncio.open_connection(*listener.getsockname())
            peer, _ = listener.accept()
        reset(peer)
        with pytest.raises(ConnectionError):
            while True:
                writer.write(bytes(1 << 16))
                await writer.drain()
        with pytest.raises(ConnectionError):
            await writer.wait_closed()

    loop.run_until_complete(main())


@pytest.mark.parametrize("call", ["pause_reading", "close", "abort"])
def test_get_buffer_may_end_or_pause_the_transport(loop: Loop, call: str) -> None:
    class Ending(BufferedRecorder):
        def get_buffer(self, sizehint: int) -> Any:
            getattr(self.transport, call)()
            return super().get_buffer(sizehint)

    async def main() -> None:
        async with connected("client", Ending) as (transport, protocol, peer):
            peer.send(b"data")
            await settled()
            # asyncio finishes the read it had begun; no read follows it.
            assert len(protocol.hints) == 1
            transport.abort()
            await protocol.lost

    loop.run_until_complete(main())


@pytest.mark.flavours("tokioloop", reason="asyncio takes a view's items for bytes once it queues")
def test_a_view_of_wide_items_arrives_whole(loop: Loop) -> None:
    numbers = array.array("i", range(1000))

    async def main() -> None:
        async with connected("client") as (transport, _, peer):
            count = fill_send_queue(transport)
            transport.write(memoryview(numbers))
            transport.writelines([memoryview(numbers), b"end"])
            transport.close()
            received = await in_thread(receive_to_eof, peer)
            assert received[count:] == bytes(numbers) * 2 + b"end"

    loop.run_until_complete(main())


def test_a_failing_writelines_leaves_no_reference(loop: Loop) -> None:
    async def main() -> None:
        async with connected("client") as (transport, _, _peer):
            big = bytes(1 << 16)
            before = sys.getrefcount(big)
            with pytest.raises(TypeError):
                transport.writelines([big, 5])
            gc.collect()
            assert sys.getrefcount(big) <= before

    loop.run_until_complete(main())


def test_a_dropped_transport_still_receives(loop: Loop) -> None:
    async def main() -> None:
        received = loop.create_future()

        class Forgetful(asyncio.Protocol):
            def data_received(self, data: bytes) -> None:
                received.set_result(data)

        ours, peer = socket.socketpair()
        with peer:
            ours.setblocking(False)
            await loop.create_connection(Forgetful, sock=ours)
            del ours
            gc.collect()
            peer.send(b"kept alive")
            assert await received == b"kept alive"
            peer.close()
            await settled()

    loop.run_until_complete(main())


def test_transports_take_weak_references_and_attributes(loop: Loop) -> None:
    async def main() -> None:
        async with connected("client") as (transport, _, _peer):
            assert weakref.ref(transport)() is transport
            transport.note = 1
            assert transport.note == 1

    loop.run_until_complete(main())


@pytest.mark.parametrize("how", ["data", "eof"])
def test_a_reset_before_the_accept_still_has_a_peername(loop: Loop, how: str) -> None:
    async def main() -> None:
        made: list[Recorder] = []

        def factory() -> Recorder:
            made.append(Recorder())
            return made[-1]

        server = await loop.create_server(factory, "127.0.0.1", 0)
        client = socket.create_connection(server.sockets[0].getsockname())
        address = client.getsockname()
        if how == "data":
            client.send(b"x")
        client.close()
        while not made:
            await asyncio.sleep(0)
        await made[0].until_lost()
        assert made[0].transport.get_extra_info("peername") == address
        server.close()
        await server.wait_closed()

    loop.run_until_complete(main())
