"""A peer that resets the connection, in every state that the transport can be in."""

from __future__ import annotations

import socket

import pytest

from tests.support.net import SIDES, connected, eventually, fill_send_queue, reset, settled
from tests.support.protocols import HalfOpenRecorder, Recorder

pytestmark = [
    pytest.mark.parametrize("side", SIDES),
    pytest.mark.flavours(
        "asyncio", "tokioloop", "uvloop", reason="rloop never tells, or with a RuntimeError"
    ),
]


def test_a_reset_of_an_idle_connection_is_told(loop, side):
    async def main():
        async with connected(side) as (transport, protocol, peer):
            reset(peer)
            assert isinstance(await protocol.until_lost(), ConnectionResetError)
            assert protocol.calls == ["connection_made", "connection_lost"]
            assert transport.is_closing()

    loop.run_until_complete(main())


def test_a_reset_after_data_is_told(loop, side):
    async def main():
        async with connected(side) as (_transport, protocol, peer):
            peer.sendall(b"data")
            await protocol.until_received(4)
            reset(peer)
            assert isinstance(await protocol.until_lost(), ConnectionResetError)

    loop.run_until_complete(main())


def test_with_data_queued_for_the_peer(loop, side):
    async def main():
        async with connected(side) as (transport, protocol, peer):
            fill_send_queue(transport)
            reset(peer)
            assert isinstance(await protocol.until_lost(), (ConnectionResetError, BrokenPipeError))
            assert transport.get_write_buffer_size() == 0

    loop.run_until_complete(main())


def test_while_writing_is_paused_the_protocol_is_lost_not_resumed(loop, side):
    async def main():
        async with connected(side) as (transport, protocol, peer):
            fill_send_queue(transport)
            transport.write(bytes(1 << 18))
            assert protocol.calls[-1] == "pause_writing"
            reset(peer)
            await protocol.until_lost()
            assert protocol.calls == ["connection_made", "pause_writing", "connection_lost"]

    loop.run_until_complete(main())


def test_while_reading_is_paused_it_shows_on_resume(loop, side):
    async def main():
        async with connected(side) as (transport, protocol, peer):
            transport.pause_reading()
            reset(peer)
            await settled()
            assert not protocol.is_lost
            transport.resume_reading()
            assert isinstance(await protocol.until_lost(), ConnectionResetError)

    loop.run_until_complete(main())


def test_while_reading_is_paused_a_write_finds_out(loop, side):
    async def main():
        async with connected(side) as (transport, protocol, peer):
            transport.pause_reading()
            reset(peer)
            await settled()
            transport.write(b"into the void")
            assert isinstance(await protocol.until_lost(), (ConnectionResetError, BrokenPipeError))

    loop.run_until_complete(main())


def test_before_the_loop_notices_writes_are_silent(loop, side):
    async def main():
        async with connected(side) as (transport, protocol, peer):
            reset(peer)
            for _ in range(4):
                transport.write(b"into the void")
            assert isinstance(await protocol.until_lost(), (ConnectionResetError, BrokenPipeError))
            assert protocol.calls.count("connection_lost") == 1

    loop.run_until_complete(main())


def test_after_close_in_the_same_turn(loop, side):
    async def main():
        async with connected(side) as (transport, protocol, peer):
            transport.close()
            reset(peer)
            assert await protocol.until_lost() is None
            await settled()
            assert protocol.calls.count("connection_lost") == 1

    loop.run_until_complete(main())


def test_while_close_waits_for_the_queue(loop, side):
    async def main():
        async with connected(side) as (transport, protocol, peer):
            fill_send_queue(transport)
            transport.close()
            await settled()
            assert not protocol.is_lost
            reset(peer)
            await protocol.until_lost()
            await settled()
            assert protocol.calls.count("connection_lost") == 1

    loop.run_until_complete(main())


def test_after_our_end_of_file(loop, side):
    async def main():
        async with connected(side) as (transport, protocol, peer):
            transport.write_eof()
            await settled()
            assert peer.recv(10) == b""
            reset(peer)
            assert isinstance(await protocol.until_lost(), ConnectionResetError)

    loop.run_until_complete(main())


@pytest.mark.flavours("asyncio", "tokioloop", reason="uvloop raises when a lost one is written to")
def test_after_the_peers_end_of_file_a_write_finds_out(loop, side):
    async def main():
        async with connected(side, HalfOpenRecorder) as (transport, protocol, peer):
            peer.shutdown(socket.SHUT_WR)
            await protocol.until(lambda protocol: "eof_received" in protocol.calls)
            reset(peer)
            await settled()
            for _ in range(3):
                transport.write(b"into the void")
                await settled()
            assert isinstance(await protocol.until_lost(), (ConnectionResetError, BrokenPipeError))

    loop.run_until_complete(main())


def test_a_reset_before_connection_made_returns_is_told(loop, side):
    """The connection was there and is gone again when the protocol hears of it."""

    async def main():
        async with connected(side) as (_transport, protocol, peer):
            peer.sendall(b"x")
            reset(peer)
            error = await protocol.until_lost()
            assert isinstance(error, ConnectionResetError)
            assert protocol.received in (b"", b"x")  # the kernel may drop what was not read

    loop.run_until_complete(main())


def test_a_reset_before_data_received_returns_is_told(loop, side):
    class ResetByPeer(Recorder):
        def data_received(self, data):
            super().data_received(data)
            reset(peer)
            self.transport.write(b"into the void")

    async def main():
        nonlocal peer
        async with connected(side, ResetByPeer) as (_transport, protocol, peer):
            peer.sendall(b"x")
            assert isinstance(await protocol.until_lost(), (ConnectionResetError, BrokenPipeError))
            assert protocol.calls == ["connection_made", "data_received", "connection_lost"]

    peer = None
    loop.run_until_complete(main())


def test_of_many_connections_at_once_each_is_lost_once(loop, side):
    async def main():
        async with connected(side) as (_transport, first, first_peer):
            server_protocols = []

            class Listed(Recorder):
                def connection_made(self, transport):
                    super().connection_made(transport)
                    server_protocols.append(self)

            server = await loop.create_server(Listed, "127.0.0.1", 0)
            peers = [
                socket.create_connection(server.sockets[0].getsockname(), timeout=5)
                for _ in range(50)
            ]
            await eventually(lambda: len(server_protocols) == 50)
            for peer in (*peers, first_peer):
                reset(peer)
            for protocol in (*server_protocols, first):
                assert isinstance(await protocol.until_lost(), ConnectionResetError)
            await settled()
            assert all(p.calls.count("connection_lost") == 1 for p in server_protocols)
            server.close()
            await server.wait_closed()

    loop.run_until_complete(main())
