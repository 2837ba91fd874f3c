"""The end of one direction: `eof_received` and what its result decides."""

from __future__ import annotations

import socket

import pytest

from tests.support.net import SIDES, connected, fill_send_queue, in_thread, receive_to_eof, settled
from tests.support.protocols import HalfOpenRecorder, Recorder

pytestmark = [
    pytest.mark.parametrize("side", SIDES),
    pytest.mark.flavours(
        "asyncio", "tokioloop", "uvloop", reason="rloop closes the descriptor with the object only"
    ),
]


@pytest.mark.parametrize("result", [None, False, 0, ""], ids=repr)
def test_a_false_result_closes_the_transport(loop, side, result):
    class Answers(Recorder):
        def eof_received(self):
            super().eof_received()
            return result

    async def main():
        async with connected(side, Answers) as (transport, protocol, peer):
            peer.shutdown(socket.SHUT_WR)
            assert await protocol.until_lost() is None
            assert transport.is_closing()
            await settled()
            assert receive_to_eof(peer) == b""
            assert protocol.calls == ["connection_made", "eof_received", "connection_lost"]

    loop.run_until_complete(main())


@pytest.mark.parametrize("result", [True, 1, "x"], ids=repr)
def test_a_true_result_keeps_the_other_direction_open(loop, side, result):
    class Answers(Recorder):
        def eof_received(self):
            super().eof_received()
            return result

    async def main():
        async with connected(side, Answers) as (transport, protocol, peer):
            peer.shutdown(socket.SHUT_WR)
            await protocol.until(lambda protocol: "eof_received" in protocol.calls)
            await settled()
            assert not transport.is_closing()
            transport.write(b"still talking")
            assert peer.recv(100) == b"still talking"
            transport.close()
            assert await protocol.until_lost() is None
            assert protocol.calls.count("eof_received") == 1

    loop.run_until_complete(main())


def test_what_is_queued_is_sent_before_the_transport_closes(loop, side):
    async def main():
        async with connected(side) as (transport, protocol, peer):
            written = fill_send_queue(transport)
            transport.write(b"last words")
            peer.shutdown(socket.SHUT_WR)
            await protocol.until(lambda protocol: "eof_received" in protocol.calls)
            received = await in_thread(receive_to_eof, peer)
            assert len(received) == written + 10
            assert received.endswith(b"last words")
            assert await protocol.until_lost() is None

    loop.run_until_complete(main())


def test_writing_in_eof_received_reaches_the_peer(loop, side):
    class SaysGoodbye(Recorder):
        def eof_received(self):
            super().eof_received()
            self.transport.write(b"goodbye")

    async def main():
        async with connected(side, SaysGoodbye) as (_transport, protocol, peer):
            peer.sendall(b"hello")
            peer.shutdown(socket.SHUT_WR)
            assert await protocol.until_lost() is None
            assert protocol.received == b"hello"
            await settled()
            assert receive_to_eof(peer) == b"goodbye"

    loop.run_until_complete(main())


def test_both_ends_finish_writing_and_the_connection_ends(loop, side):
    async def main():
        async with connected(side, HalfOpenRecorder) as (transport, protocol, peer):
            transport.write(b"mine")
            transport.write_eof()
            assert await in_thread(receive_to_eof, peer) == b"mine"
            peer.sendall(b"yours")
            peer.shutdown(socket.SHUT_WR)
            await protocol.until(lambda protocol: "eof_received" in protocol.calls)
            assert protocol.received == b"yours"
            transport.close()
            assert await protocol.until_lost() is None

    loop.run_until_complete(main())


def test_end_of_file_comes_once(loop, side):
    async def main():
        async with connected(side, HalfOpenRecorder) as (transport, protocol, peer):
            peer.shutdown(socket.SHUT_WR)
            await protocol.until(lambda protocol: "eof_received" in protocol.calls)
            for _ in range(3):
                transport.write(b"x")
                await settled()
            assert protocol.calls.count("eof_received") == 1
            peer.close()
            transport.close()
            await protocol.until_lost()

    loop.run_until_complete(main())
