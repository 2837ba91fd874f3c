"""`BufferedProtocol`: the bytes arrive in the protocol's own buffer."""

from __future__ import annotations

import socket

import pytest

from tests.support.net import SIDES, connected, eventually, settled
from tests.support.protocols import BufferedRecorder

pytestmark = pytest.mark.parametrize("side", SIDES)

OWN_ERRORS = "uvloop words it differently; rloop stalls, aborts, or writes into a bytes object"


def test_data_arrives_in_the_protocols_buffer(loop, side):
    async def main():
        async with connected(side, BufferedRecorder) as (transport, protocol, peer):
            peer.sendall(b"hello")
            await eventually(lambda: len(protocol.received) == 5)
            assert protocol.received == b"hello"
            assert protocol.buffer[:5] == b"hello"
            assert sum(protocol.updates) == 5
            transport.abort()
            assert await protocol.lost is None

    loop.run_until_complete(main())


@pytest.mark.flavours("asyncio", "tokioloop", "rloop", reason="uvloop asks for 65536")
def test_the_size_hint_is_minus_one(loop, side):
    async def main():
        async with connected(side, BufferedRecorder) as (transport, protocol, peer):
            peer.sendall(b"x")
            await eventually(lambda: protocol.received)
            assert set(protocol.hints) == {-1}
            transport.abort()
            await protocol.lost

    loop.run_until_complete(main())


@pytest.mark.parametrize("size", [1, 7, 4096, 1 << 17])
def test_no_more_than_the_buffer_holds_arrives_at_once(loop, side, size):
    payload = bytes(range(256)) * (4 if size == 1 else 64)

    async def main():
        async with connected(side, lambda: BufferedRecorder(size)) as (transport, protocol, peer):
            peer.sendall(payload)
            await eventually(lambda: len(protocol.received) == len(payload))
            assert protocol.received == payload
            assert max(protocol.updates) <= size
            assert min(protocol.updates) >= 1
            transport.abort()
            await protocol.lost

    loop.run_until_complete(main())


def test_a_part_of_a_buffer_is_filled_from_its_start(loop, side):
    class FillsBehindAHeader(BufferedRecorder):
        """Receives behind what is there already."""

        filled = 0

        def get_buffer(self, sizehint):
            return memoryview(self.buffer)[self.filled :]

        def buffer_updated(self, nbytes):
            self.filled += nbytes

    async def main():
        async with connected(side, FillsBehindAHeader) as (transport, protocol, peer):
            for number in range(20):
                peer.sendall(b"%02d" % number)
                await settled()
            await eventually(lambda: protocol.filled == 40)
            expected = b"".join(b"%02d" % number for number in range(20))
            assert protocol.buffer[:40] == expected
            assert not any(protocol.buffer[40:])
            transport.abort()
            await protocol.lost

    loop.run_until_complete(main())


@pytest.mark.flavours("asyncio", "tokioloop", "uvloop", reason="rloop does not close it")
def test_end_of_file_and_connection_lost_follow(loop, side):
    async def main():
        async with connected(side, BufferedRecorder) as (_transport, protocol, peer):
            peer.sendall(b"last words")
            peer.shutdown(socket.SHUT_WR)
            assert await protocol.lost is None
            assert protocol.received == b"last words"
            assert protocol.calls == ["connection_made", "eof_received", "connection_lost"]

    loop.run_until_complete(main())


def test_the_buffer_is_free_between_the_calls(loop, side):
    """No export may outlive `buffer_updated`: the protocol can resize its bytearray."""

    class Resizes(BufferedRecorder):
        def buffer_updated(self, nbytes):
            super().buffer_updated(nbytes)
            resized.append(len(self.buffer))

    async def main():
        async with connected(side, Resizes) as (transport, protocol, peer):
            for _ in range(3):
                received = len(protocol.received)
                peer.sendall(b"x")
                await eventually(lambda count=received: len(protocol.received) > count)
                await settled()
                protocol.buffer += bytes(100)  # BufferError while it is exported
            assert resized == [4096, 4196, 4296]
            transport.abort()
            await protocol.lost

    resized = []
    loop.run_until_complete(main())


@pytest.mark.flavours("asyncio", "tokioloop", reason=OWN_ERRORS)
class TestErrors:
    def lost_with(self, loop, side, loop_errors, get_buffer):
        class Broken(BufferedRecorder):
            def get_buffer(self, sizehint):
                return get_buffer()

        async def main():
            async with connected(side, Broken) as (_transport, protocol, peer):
                peer.sendall(b"data")
                return await protocol.lost

        error = loop.run_until_complete(main())
        report = loop_errors.take()
        assert report["exception"] is error
        assert report["message"] == "Fatal error: protocol.get_buffer() call failed."
        return error

    def test_an_empty_buffer_is_fatal(self, loop, side, loop_errors):
        error = self.lost_with(loop, side, loop_errors, bytearray)
        assert isinstance(error, RuntimeError)
        assert str(error) == "get_buffer() returned an empty buffer"

    def test_an_exception_in_get_buffer(self, loop, side, loop_errors):
        def broken():
            raise LookupError("no buffer today")

        assert isinstance(self.lost_with(loop, side, loop_errors, broken), LookupError)

    @pytest.mark.parametrize("answer", [None, 5], ids=repr)
    def test_something_that_is_no_buffer(self, loop, side, loop_errors, answer):
        error = self.lost_with(loop, side, loop_errors, lambda: answer)
        assert isinstance(error, TypeError)

    def test_a_read_only_buffer_is_fatal(self, loop, side, loop_errors):
        immutable = bytes(10)

        class Broken(BufferedRecorder):
            def get_buffer(self, sizehint):
                return immutable

        async def main():
            async with connected(side, Broken) as (_transport, protocol, peer):
                peer.sendall(b"data")
                return await protocol.lost

        assert isinstance(loop.run_until_complete(main()), (TypeError, BufferError))
        loop_errors.clear()
        assert immutable == bytes(10)

    def test_an_exception_in_buffer_updated(self, loop, side, loop_errors):
        class Broken(BufferedRecorder):
            def buffer_updated(self, nbytes):
                raise LookupError("cannot use it")

        async def main():
            async with connected(side, Broken) as (_transport, protocol, peer):
                peer.sendall(b"data")
                return await protocol.lost

        error = loop.run_until_complete(main())
        assert isinstance(error, LookupError)
        report = loop_errors.take()
        assert report["message"] == "Fatal error: protocol.buffer_updated() call failed."
        assert report["exception"] is error
