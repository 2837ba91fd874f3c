"""TLS: connections of a server whose handshake is under way, fails, or never comes to its end."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.net import LOOPBACK, PEER_TIMEOUT, reset, settled
from tests.support.protocols import Recorder
from tests.support.tls import client_context, server_context

pytestmark = pytest.mark.flavours(
    "asyncio", "tokioloop", reason="the peers have TLS stacks of their own"
)
Loop = asyncio.AbstractEventLoop

HEAD_OF_A_RECORD = b"\x16\x03\x01\x02\x00"
PLAIN_TEXT = b"GET / HTTP/1.1\r\n\r\n"


async def serving(loop: Loop, made: list[Recorder], **options: Any) -> asyncio.Server:
    """A server over TLS whose protocols are put down in `made`."""

    def accepted() -> Recorder:
        made.append(Recorder())
        return made[-1]

    return await loop.create_server(accepted, LOOPBACK, 0, ssl=server_context(), **options)


def connected_to(server: asyncio.Server) -> socket.socket:
    return socket.create_connection(server.sockets[0].getsockname(), timeout=PEER_TIMEOUT)


async def read_to_the_end(loop: Loop, peer: socket.socket) -> bytes:
    """What the server has sent; a reset is an end like any other."""
    peer.setblocking(False)
    received = bytearray()
    try:
        while data := await asyncio.wait_for(loop.sock_recv(peer, 1 << 16), PEER_TIMEOUT):
            received += data
    except ConnectionResetError:
        pass
    return bytes(received)


@pytest.mark.parametrize("debug", [False, True], ids=["quiet", "debug"])
def test_a_failed_handshake_is_reported_in_debug_mode_only(
    loop: Loop, loop_errors: Any, debug: bool
) -> None:
    made: list[Recorder] = []

    async def main() -> None:
        server = await serving(loop, made)
        with connected_to(server) as peer:
            peer.sendall(PLAIN_TEXT)
            await read_to_the_end(loop, peer)
        await settled()
        server.close()

    loop.set_debug(debug)
    loop.run_until_complete(main())
    (protocol,) = made
    assert protocol.calls == []
    if debug:
        report = loop_errors.take()
        assert report["message"] == "Error on transport creation for incoming connection"
        assert isinstance(report["exception"], ssl.SSLError)
        assert report["protocol"] is protocol
        assert report["transport"].is_closing()
        report.clear()
    else:
        assert not loop_errors


@pytest.mark.parametrize("leave", [socket.socket.close, reset], ids=["close", "reset"])
@pytest.mark.parametrize("sent", [b"", HEAD_OF_A_RECORD], ids=["at-once", "in-a-record"])
def test_a_client_that_leaves_before_the_handshake_is_nobody(
    loop: Loop, sent: bytes, leave: Callable[[socket.socket], None]
) -> None:
    made: list[Recorder] = []

    async def main() -> None:
        server = await serving(loop, made)
        peer = connected_to(server)
        peer.sendall(sent)
        await settled()
        leave(peer)
        await settled()
        # From 3.12 on it waits for the connections, of which there must be none.
        server.close()
        await asyncio.wait_for(server.wait_closed(), PEER_TIMEOUT)

    loop.set_debug(False)
    loop.run_until_complete(main())
    assert [protocol.calls for protocol in made] == [[]]


def test_a_handshake_that_takes_too_long_is_ended(loop: Loop, loop_errors: Any) -> None:
    made: list[Recorder] = []

    async def main() -> None:
        server = await serving(loop, made, ssl_handshake_timeout=0.05)
        with connected_to(server) as peer:
            assert await read_to_the_end(loop, peer) == b""
        await settled()
        server.close()

    loop.set_debug(False)
    loop.run_until_complete(main())
    assert [protocol.calls for protocol in made] == [[]]


def test_a_run_that_ends_aborts_the_handshakes_under_way(loop_factory: Callable[[], Loop]) -> None:
    peers: list[socket.socket] = []
    made: list[Recorder] = []

    async def main() -> None:
        server = await serving(asyncio.get_running_loop(), made)
        for sent in (b"", HEAD_OF_A_RECORD):
            peers.append(connected_to(server))
            peers[-1].sendall(sent)
        while len(made) < len(peers):
            await asyncio.sleep(0.001)
        await settled()
        server.close()

    loop = loop_factory()
    loop.set_debug(False)
    loop.run_until_complete(main())
    # As asyncio.run() does: asyncio's handshakes have tasks.
    asyncio.runners._cancel_all_tasks(loop)  # type: ignore[attr-defined]
    loop.run_until_complete(settled())
    loop.close()
    for peer in peers:
        with peer:
            try:
                assert peer.recv(100) == b""
            except ConnectionResetError:
                pass
    assert [protocol.calls for protocol in made] == [[], []]


# asyncio's words for a transport, a socket and a loop that nobody has closed.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_connections_that_are_through_stay_open_when_the_loop_is_closed(
    loop_factory: Callable[[], Loop],
) -> None:
    """As those without TLS do: the end of the process, or of the objects, closes them."""
    made: list[Recorder] = []

    async def main() -> ssl.SSLSocket:
        loop = asyncio.get_running_loop()
        server = await serving(loop, made)
        peer = await loop.run_in_executor(
            None, lambda: client_context().wrap_socket(connected_to(server))
        )
        while not (made and made[0].calls):
            await asyncio.sleep(0.001)
        server.close()
        return peer

    loop = loop_factory()
    with loop.run_until_complete(main()) as peer:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
        assert made[0].calls == ["connection_made"]
        peer.settimeout(0)
        with pytest.raises(ssl.SSLWantReadError):
            peer.recv(100)
    del made[:]


# Before that asyncio has another protocol, which is used as it is.
@pytest.mark.min_python(3, 11)
def test_what_a_client_sends_behind_its_handshake_is_received(loop: Loop) -> None:
    made: list[Recorder] = []

    def talk(server: asyncio.Server) -> None:
        with client_context().wrap_socket(connected_to(server)) as peer:
            peer.sendall(b"at once")

    async def main() -> None:
        server = await serving(loop, made)
        await asyncio.gather(*(asyncio.to_thread(talk, server) for _ in range(8)))
        while not (len(made) == 8 and all(protocol.calls for protocol in made)):
            await asyncio.sleep(0.001)
        for protocol in made:
            await protocol.until_lost()
            assert protocol.received == b"at once"
        server.close()
        await loop.shutdown_default_executor()

    loop.run_until_complete(main())


def test_the_extra_info_of_a_served_connection(loop: Loop) -> None:
    made: list[Recorder] = []

    async def main() -> None:
        server = await serving(loop, made)
        place = server.sockets[0].getsockname()
        transport, client = await loop.create_connection(Recorder, *place, ssl=client_context())
        while not (made and made[0].calls):
            await asyncio.sleep(0)
        served = made[0].transport
        assert served.get_extra_info("sockname") == place
        assert served.get_extra_info("peername") == transport.get_extra_info("sockname")
        assert served.get_extra_info("socket").getpeername() == served.get_extra_info("peername")
        assert isinstance(served.get_extra_info("ssl_object"), ssl.SSLObject)
        assert served.get_extra_info("cipher") == transport.get_extra_info("cipher")
        for protocol in (client, made[0]):
            protocol.transport.abort()
            await protocol.until_lost()
        server.close()

    loop.run_until_complete(main())
