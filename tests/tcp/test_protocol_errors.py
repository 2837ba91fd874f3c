"""An exception in each protocol callback: who is told, and what becomes of the connection."""

from __future__ import annotations

import asyncio
import socket

import pytest

from tests.support.net import (
    SIDES,
    connected,
    eventually,
    fill_send_queue,
    in_thread,
    receive_exactly,
    settled,
)
from tests.support.protocols import Recorder

pytestmark = [
    pytest.mark.parametrize("side", SIDES),
    pytest.mark.flavours(
        "asyncio", "tokioloop", reason="rloop swallows or aborts, uvloop words it otherwise"
    ),
]


class Deliberate(Exception):
    """Raised by a protocol on purpose."""


def raising_in(callback):
    """A protocol class whose `callback` records the call and raises."""

    def broken(self, *args):
        result = getattr(Recorder, callback)(self, *args)
        raise Deliberate(callback) from None
        return result

    return type(f"RaisesIn_{callback}", (Recorder,), {callback: broken})


def test_in_connection_made_the_transport_stays_open(loop, side, loop_errors):
    async def main():
        async with connected(side, raising_in("connection_made")) as (transport, protocol, peer):
            await settled()
            assert isinstance(loop_errors.take()["exception"], Deliberate)
            assert not protocol.is_lost
            peer.sendall(b"data")
            assert await protocol.until_received(4) == b"data"
            transport.write(b"answer")
            assert peer.recv(100) == b"answer"

    loop.run_until_complete(main())


def test_in_data_received_the_connection_is_lost_with_it(loop, side, loop_errors):
    async def main():
        async with connected(side, raising_in("data_received")) as (transport, protocol, peer):
            peer.sendall(b"data")
            error = await protocol.until_lost()
            assert isinstance(error, Deliberate)
            report = loop_errors.take()
            assert report["message"] == "Fatal error: protocol.data_received() call failed."
            assert report["exception"] is error
            assert report["transport"] is transport
            assert report["protocol"] is protocol
            assert protocol.calls == ["connection_made", "data_received", "connection_lost"]

    loop.run_until_complete(main())


def test_in_data_received_with_more_data_waiting_it_is_called_once(loop, side, loop_errors):
    async def main():
        async with connected(side, raising_in("data_received")) as (transport, protocol, peer):
            transport.pause_reading()
            peer.setblocking(False)
            try:
                while True:
                    peer.send(bytes(1 << 16))
            except BlockingIOError:
                pass
            transport.resume_reading()
            await protocol.until_lost()
            await settled()
            assert len(protocol.chunks) == 1
            assert len(loop_errors) == 1
            loop_errors.clear()

    loop.run_until_complete(main())


def test_in_eof_received_the_connection_is_lost_with_it(loop, side, loop_errors):
    async def main():
        async with connected(side, raising_in("eof_received")) as (_transport, protocol, peer):
            peer.shutdown(socket.SHUT_WR)
            error = await protocol.until_lost()
            assert isinstance(error, Deliberate)
            report = loop_errors.take()
            assert report["message"] == "Fatal error: protocol.eof_received() call failed."
            assert report["exception"] is error

    loop.run_until_complete(main())


def test_in_connection_lost_it_is_reported_and_the_socket_closed(loop, side, loop_errors):
    async def main():
        async with connected(side, raising_in("connection_lost")) as (transport, protocol, peer):
            transport.close()
            await protocol.until_lost()
            await settled()
            assert isinstance(loop_errors.take()["exception"], Deliberate)
            assert peer.recv(100) == b""
            assert protocol.calls.count("connection_lost") == 1

    loop.run_until_complete(main())


def test_in_pause_writing_it_is_reported_and_writing_goes_on(loop, side, loop_errors):
    async def main():
        async with connected(side, raising_in("pause_writing")) as (transport, protocol, peer):
            written = fill_send_queue(transport)
            transport.write(bytes(1 << 18))
            written += 1 << 18
            report = loop_errors.take()
            assert report["message"] == "protocol.pause_writing() failed"
            assert isinstance(report["exception"], Deliberate)
            assert report["transport"] is transport
            assert report["protocol"] is protocol
            received = await in_thread(receive_exactly, peer, written)
            assert len(received) == written
            await protocol.until(lambda protocol: "resume_writing" in protocol.calls)

    loop.run_until_complete(main())


def test_in_resume_writing_it_is_reported_and_writing_goes_on(loop, side, loop_errors):
    async def main():
        async with connected(side, raising_in("resume_writing")) as (transport, protocol, peer):
            written = fill_send_queue(transport)
            transport.write(bytes(1 << 18))
            written += 1 << 18
            await in_thread(receive_exactly, peer, written)
            await protocol.until(lambda protocol: "resume_writing" in protocol.calls)
            await settled()
            report = loop_errors.take()
            assert report["message"] == "protocol.resume_writing() failed"
            assert isinstance(report["exception"], Deliberate)
            transport.write(b"alive")
            assert await in_thread(receive_exactly, peer, 5) == b"alive"

    loop.run_until_complete(main())


@pytest.mark.parametrize("raised", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_in_data_received_leaves_the_loop(loop, side, raised):
    class Interrupts(Recorder):
        def data_received(self, data):
            super().data_received(data)
            raise raised

    async def make():
        context = connected(side, Interrupts)
        _transport, _protocol, peer = await context.__aenter__()
        return context, peer

    context, peer = loop.run_until_complete(make())
    peer.sendall(b"data")
    with pytest.raises(raised):
        loop.run_forever()
    # The loop is as good as before; whether the connection survived is left open.
    loop.run_until_complete(context.__aexit__(None, None, None))
    assert loop.run_until_complete(asyncio.sleep(0, "usable")) == "usable"


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # asyncio's own neglect
def test_a_factory_that_raises_on_a_server_costs_that_client_only(loop, side, loop_errors):
    if side == "client":
        pytest.skip("a server's factory")
    loop.set_debug(False)  # asyncio reports it in debug mode only
    clients = []

    def factory():
        clients.append(None)
        if len(clients) == 1:
            raise Deliberate("no protocol for the first")
        return Recorder()

    async def main():
        server = await loop.create_server(factory, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        with socket.create_connection(address, timeout=5) as first:
            assert await in_thread(first.recv, 100) == b""
        with socket.create_connection(address, timeout=5) as second:
            second.sendall(b"x")
            await eventually(lambda: len(clients) == 2)
            await settled()
        server.close()
        await server.wait_closed()
        await settled()
        loop_errors.clear()  # asyncio's versions differ in whether they tell

    loop.run_until_complete(main())
