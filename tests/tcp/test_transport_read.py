"""Receiving: pausing and resuming, changing the protocol, fairness between connections."""

from __future__ import annotations

import asyncio
import threading

import pytest

from tests.support.net import SIDES, ask, connected, eventually, in_thread, receive_to_eof, settled
from tests.support.protocols import BufferedRecorder, EchoProtocol, Recorder

pytestmark = pytest.mark.parametrize("side", SIDES)

PAUSES = "uvloop ignores a pause in connection_made, rloop delivers on after one in data_received"
NO_CHANGE = "rloop cannot change the protocol of a TCP transport"


class PausesAtOnce(Recorder):
    def connection_made(self, transport):
        transport.pause_reading()
        super().connection_made(transport)


class PausesOnData(Recorder):
    def data_received(self, data):
        self.transport.pause_reading()
        super().data_received(data)


def test_data_is_bytes(loop, side):
    async def main():
        async with connected(side) as (_transport, protocol, peer):
            peer.sendall(b"data")
            await protocol.until_received(4)
            assert [type(chunk) for chunk in protocol.chunks] == [bytes]

    loop.run_until_complete(main())


@pytest.mark.flavours("asyncio", "tokioloop", reason="uvloop's largest chunk is 256,000 bytes")
def test_no_chunk_is_larger_than_256_kib(loop, side):
    async def main():
        async with connected(side) as (transport, protocol, peer):
            transport.pause_reading()
            peer.setblocking(False)
            sent = 0
            try:
                while True:
                    sent += peer.send(bytes(1 << 16))
            except BlockingIOError:
                pass
            transport.resume_reading()
            await protocol.until_received(sent)
            assert max(map(len, protocol.chunks)) <= 1 << 18

    loop.run_until_complete(main())


def test_a_paused_transport_delivers_nothing_until_it_is_resumed(loop, side):
    async def main():
        async with connected(side) as (transport, protocol, peer):
            transport.pause_reading()
            assert not transport.is_reading()
            peer.sendall(b"held back")
            await settled()
            assert protocol.received == b""
            transport.resume_reading()
            assert transport.is_reading()
            assert await protocol.until_received(9) == b"held back"

    loop.run_until_complete(main())


def test_data_that_came_before_the_pause_and_after_it_is_complete(loop, side):
    """Edges: the kernel tells of new data once, so a pause must not swallow the news."""

    async def main():
        async with connected(side) as (transport, protocol, peer):
            expected = b""
            for number in range(50):
                peer.sendall(b"%03d" % number)
                expected += b"%03d" % number
                transport.pause_reading()
                if number % 2:
                    await asyncio.sleep(0)
                peer.sendall(b"+%03d" % number)
                expected += b"+%03d" % number
                if number % 3:
                    await settled()
                transport.resume_reading()
                assert await protocol.until_received(len(expected)) == expected

    loop.run_until_complete(main())


@pytest.mark.flavours("asyncio", "tokioloop", reason="the others read at once")
def test_what_is_scheduled_behind_resume_reading_runs_before_the_data_comes(loop, side):
    async def main():
        async with connected(side) as (transport, protocol, peer):
            transport.pause_reading()
            peer.sendall(b"data")
            await settled()
            transport.resume_reading()
            loop.call_soon(lambda: seen.append(bytes(protocol.received)))
            await protocol.until_received(4)
            assert seen == [b""]

    seen = []
    loop.run_until_complete(main())


def test_pausing_and_resuming_twice_is_harmless(loop, side):
    async def main():
        async with connected(side) as (transport, protocol, peer):
            transport.resume_reading()
            transport.pause_reading()
            transport.pause_reading()
            transport.resume_reading()
            transport.resume_reading()
            peer.sendall(b"still reading")
            assert await protocol.until_received(13) == b"still reading"

    loop.run_until_complete(main())


def test_pausing_and_resuming_after_close_is_harmless(loop, side):
    async def main():
        async with connected(side) as (transport, protocol, _peer):
            transport.close()
            transport.pause_reading()
            transport.resume_reading()
            await protocol.until_lost()
            transport.pause_reading()
            transport.resume_reading()
            assert not transport.is_reading()

    loop.run_until_complete(main())


@pytest.mark.min_python(3, 11)
@pytest.mark.flavours("asyncio", "tokioloop", "rloop", reason=PAUSES)
def test_a_pause_in_connection_made_holds(loop, side):
    async def main():
        async with connected(side, PausesAtOnce) as (transport, protocol, peer):
            peer.sendall(b"held back")
            await settled()
            assert protocol.received == b""
            transport.resume_reading()
            assert await protocol.until_received(9) == b"held back"

    loop.run_until_complete(main())


@pytest.mark.flavours("asyncio", "tokioloop", "uvloop", reason=PAUSES)
def test_a_pause_in_data_received_holds_after_one_chunk(loop, side):
    async def main():
        async with connected(side, PausesOnData) as (transport, protocol, peer):
            transport.pause_reading()
            peer.setblocking(False)
            sent = 0
            try:
                while True:
                    sent += peer.send(bytes(1 << 16))
            except BlockingIOError:
                pass
            chunks = 0
            while len(protocol.received) < sent:
                transport.resume_reading()
                chunks += 1
                await protocol.until(lambda protocol: len(protocol.chunks) >= chunks)  # noqa: B023
                await settled()
                assert len(protocol.chunks) == chunks

    loop.run_until_complete(main())


@pytest.mark.flavours("asyncio", "tokioloop", "uvloop", reason="rloop delivers the rest")
def test_close_in_data_received_ends_the_delivery(loop, side):
    class ClosesOnData(Recorder):
        def data_received(self, data):
            super().data_received(data)
            self.transport.close()

    async def main():
        async with connected(side, ClosesOnData) as (transport, protocol, peer):
            transport.pause_reading()
            peer.setblocking(False)
            try:
                while True:
                    peer.send(bytes(1 << 16))
            except BlockingIOError:
                pass
            transport.resume_reading()
            assert await protocol.until_lost() is None
            assert len(protocol.chunks) == 1

    loop.run_until_complete(main())


def test_close_with_data_waiting_delivers_none_of_it(loop, side):
    async def main():
        async with connected(side) as (transport, protocol, peer):
            peer.sendall(b"too late")
            transport.close()
            assert await protocol.until_lost() is None
            await settled()
            assert protocol.received == b""

    loop.run_until_complete(main())


@pytest.mark.flavours("asyncio", "tokioloop", "uvloop", reason="rloop never closes it here")
@pytest.mark.parametrize("paused", [False, True], ids=["reading", "paused"])
def test_data_and_end_of_file_come_in_order(loop, side, paused):
    async def main():
        async with connected(side) as (transport, protocol, peer):
            if paused:
                transport.pause_reading()
            peer.sendall(b"last words")
            peer.close()
            if paused:
                await settled()
                assert protocol.calls == ["connection_made"]
                transport.resume_reading()
            assert await protocol.until_lost() is None
            assert protocol.received == b"last words"
            assert protocol.calls == [
                "connection_made",
                "data_received",
                "eof_received",
                "connection_lost",
            ]

    loop.run_until_complete(main())


class TestSetProtocol:
    def test_get_protocol_returns_the_protocol(self, loop, side):
        async def main():
            async with connected(side) as (transport, protocol, _peer):
                assert transport.get_protocol() is protocol

        loop.run_until_complete(main())

    @pytest.mark.flavours("asyncio", "tokioloop", "uvloop", reason=NO_CHANGE)
    def test_the_next_data_goes_to_the_new_protocol(self, loop, side):
        async def main():
            async with connected(side) as (transport, first, peer):
                peer.sendall(b"one")
                await first.until_received(3)
                second = Recorder()
                transport.set_protocol(second)
                assert transport.get_protocol() is second
                peer.sendall(b"two")
                assert await second.until_received(3) == b"two"
                assert first.received == b"one"
                transport.set_protocol(first)
                peer.sendall(b"three")
                assert await first.until_received(8) == b"onethree"
                assert second.calls == ["data_received"]

        loop.run_until_complete(main())

    @pytest.mark.flavours("asyncio", "tokioloop", "uvloop", reason=NO_CHANGE)
    def test_it_may_change_in_data_received(self, loop, side):
        class HandsOver(Recorder):
            def data_received(self, data):
                super().data_received(data)
                second.transport = self.transport
                self.transport.set_protocol(second)
                self.transport.write(b"next")

        async def main():
            async with connected(side, HandsOver) as (transport, first, peer):
                peer.sendall(b"one")
                assert await in_thread(peer.recv, 100) == b"next"
                assert transport.get_protocol() is second
                assert await in_thread(ask, peer, b"two") == b"two"
                assert first.received == b"one"
                transport.set_protocol(first)

        second = EchoProtocol()
        loop.run_until_complete(main())

    @pytest.mark.flavours("asyncio", "tokioloop", "uvloop", reason=NO_CHANGE)
    def test_from_simple_to_buffered_and_back(self, loop, side):
        async def main():
            async with connected(side) as (transport, simple, peer):
                buffered = BufferedRecorder()
                transport.set_protocol(buffered)
                peer.sendall(b"into the buffer")
                await eventually(lambda: len(buffered.received) == 15)
                transport.set_protocol(simple)
                peer.sendall(b"as bytes")
                assert await simple.until_received(8) == b"as bytes"
                assert buffered.received == b"into the buffer"

        loop.run_until_complete(main())

    @pytest.mark.flavours("asyncio", "tokioloop", "uvloop", reason=NO_CHANGE)
    def test_connection_lost_goes_to_the_protocol_of_the_moment(self, loop, side):
        async def main():
            async with connected(side) as (transport, first, _peer):
                second = Recorder()
                transport.set_protocol(second)
                transport.close()
                assert await second.until_lost() is None
                assert not first.is_lost
                first.connection_lost(None)  # so that the fixture does not wait for it

        loop.run_until_complete(main())


@pytest.mark.flavours("asyncio", "tokioloop", reason="the peers stay with the flooder for seconds")
def test_a_busy_connection_does_not_starve_the_others(loop, side):
    """One peer never stops sending; another gets its answers all the same."""
    if side == "client":
        pytest.skip("the same code path, once is enough")

    class Discards(Recorder):
        def data_received(self, data):
            pass

    async def main():
        async with connected(side, Discards) as (_busy, _flooded, flooder):
            stopped = threading.Event()

            def flood():
                chunk = bytes(1 << 16)
                while not stopped.is_set():
                    flooder.sendall(chunk)
                flooder.close()

            thread = threading.Thread(target=flood)
            thread.start()
            try:
                async with connected("client", EchoProtocol) as (_transport, _echo, peer):
                    for number in range(20):
                        assert await in_thread(ask, peer, b"%02d" % number) == b"%02d" % number
            finally:
                stopped.set()
            await eventually(lambda: not thread.is_alive())
            thread.join()

    loop.run_until_complete(main())


@pytest.mark.flavours("asyncio", "tokioloop", "uvloop", reason="rloop closes it too late")
def test_bytes_for_a_closed_transport_go_nowhere(loop, side):
    async def main():
        async with connected(side) as (transport, protocol, peer):
            transport.close()
            await protocol.until_lost()
            await settled()
            assert receive_to_eof(peer) == b""

    loop.run_until_complete(main())
