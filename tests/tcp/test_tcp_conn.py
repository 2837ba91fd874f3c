"""`create_connection`: how a client gets its transport, and how that fails."""

from __future__ import annotations

import asyncio
import socket

import pytest

from tests.support.net import (
    LOOPBACK,
    connected,
    listening_socket,
    receive_to_eof,
    settled,
    socket_pair,
)
from tests.support.protocols import Recorder

LATE_CLOSE = "rloop closes the descriptor when the transport object dies, not before"
LEAKS = "asyncio and uvloop leave the socket open, rloop aborts the process"
SOCKETS = "the peers hand out socket look-alikes, or detach the socket that is passed in"


async def free_port() -> int:
    with listening_socket() as listener:
        return listener.getsockname()[1]


@pytest.mark.flavours("asyncio", "tokioloop", "uvloop", reason=LATE_CLOSE)
def test_a_client_sends_receives_and_closes(loop):
    async def main():
        async with connected("client") as (transport, protocol, peer):
            transport.write(b"ping")
            assert peer.recv(100) == b"ping"
            peer.sendall(b"pong")
            assert await protocol.until_received(4) == b"pong"
            transport.close()
            assert await protocol.until_lost() is None
            await settled()
            assert peer.recv(100) == b""
            assert protocol.calls == ["connection_made", "data_received", "connection_lost"]

    loop.run_until_complete(main())


def test_connection_made_is_called_before_create_connection_returns(loop):
    async def main():
        async with connected("client") as (transport, protocol, _peer):
            assert protocol.calls == ["connection_made"]
            assert protocol.transport is transport

    loop.run_until_complete(main())


def test_data_that_is_there_at_once_comes_after_connection_made(loop):
    async def main():
        with listening_socket() as listener:
            connecting = asyncio.ensure_future(
                loop.create_connection(Recorder, *listener.getsockname())
            )
            await asyncio.sleep(0)
            peer, _ = await asyncio.to_thread(listener.accept)
            with peer:
                peer.sendall(b"early")
                transport, protocol = await connecting
                assert await protocol.until_received(5) == b"early"
                assert protocol.calls[0] == "connection_made"
                transport.close()
                await protocol.until_lost()
        await loop.shutdown_default_executor()

    loop.run_until_complete(main())


def test_a_refused_connection_raises(loop):
    async def main():
        port = await free_port()
        with pytest.raises(ConnectionRefusedError):
            await loop.create_connection(Recorder, LOOPBACK, port)

    loop.run_until_complete(main())


@pytest.mark.flavours("asyncio", "tokioloop", reason="the peers word it differently")
def test_a_refused_connection_names_the_address(loop):
    async def main():
        port = await free_port()
        with pytest.raises(ConnectionRefusedError, match="Connect call failed") as caught:
            await loop.create_connection(Recorder, LOOPBACK, port)
        assert str(port) in str(caught.value)

    loop.run_until_complete(main())


def test_neither_host_nor_socket_is_a_value_error(loop):
    async def main():
        with pytest.raises(ValueError):
            await loop.create_connection(Recorder)

    loop.run_until_complete(main())


def test_host_together_with_a_socket_is_a_value_error(loop):
    async def main():
        with socket_pair() as (ours, _), pytest.raises(ValueError):
            await loop.create_connection(Recorder, LOOPBACK, 80, sock=ours)

    loop.run_until_complete(main())


def test_a_name_that_does_not_resolve_raises_gaierror(loop):
    async def main():
        with pytest.raises(socket.gaierror):
            await loop.create_connection(Recorder, "no-such-host.invalid", 80)
        await loop.shutdown_default_executor()

    loop.run_until_complete(main())


def test_the_local_address_is_bound(loop):
    async def main():
        port = await free_port()
        with listening_socket() as listener:
            transport, protocol = await loop.create_connection(
                Recorder, *listener.getsockname(), local_addr=(LOOPBACK, port)
            )
            peer, address = listener.accept()
            with peer:
                assert address == (LOOPBACK, port)
                assert transport.get_extra_info("sockname") == (LOOPBACK, port)
                transport.close()
                await protocol.until_lost()

    loop.run_until_complete(main())


@pytest.mark.flavours("asyncio", "tokioloop", "uvloop", reason=LATE_CLOSE)
def test_a_connected_socket_can_be_passed_in(loop):
    async def main():
        with listening_socket() as listener:
            ours = socket.create_connection(listener.getsockname())
            ours.setblocking(False)
            theirs, _ = listener.accept()
        transport, protocol = await loop.create_connection(Recorder, sock=ours)
        with theirs:
            transport.write(b"ping")
            assert theirs.recv(100) == b"ping"
            theirs.sendall(b"pong")
            assert await protocol.until_received(4) == b"pong"
            transport.close()
            await protocol.until_lost()
            assert receive_to_eof(theirs) == b""

    loop.run_until_complete(main())


@pytest.mark.flavours("asyncio", "tokioloop", reason=SOCKETS)
def test_an_accepted_socket_can_be_connected(loop):
    async def main():
        with listening_socket() as listener:
            theirs = socket.create_connection(listener.getsockname(), timeout=10)
            ours, _ = listener.accept()
        ours.setblocking(False)
        transport, protocol = await loop.connect_accepted_socket(Recorder, ours)
        with theirs:
            transport.write(b"accepted")
            assert theirs.recv(100) == b"accepted"
            transport.close()
            await protocol.until_lost()
            assert ours.fileno() == -1

    loop.run_until_complete(main())


@pytest.mark.flavours("asyncio", "tokioloop", reason=SOCKETS)
def test_a_datagram_socket_is_refused(loop):
    async def main():
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
            pytest.raises(ValueError, match="A Stream Socket was expected"),
        ):
            await loop.create_connection(Recorder, sock=sock)

    loop.run_until_complete(main())


@pytest.mark.flavours("tokioloop", reason=LEAKS)
def test_an_exception_of_the_factory_is_raised_and_the_socket_closed(loop):
    def broken():
        raise LookupError("no protocol today")

    async def main():
        with listening_socket() as listener:
            with pytest.raises(LookupError, match="no protocol today"):
                await loop.create_connection(broken, *listener.getsockname())
            peer, _ = listener.accept()
            with peer:
                await settled()
                peer.settimeout(10)
                assert peer.recv(100) == b""

    loop.run_until_complete(main())


@pytest.mark.flavours("asyncio", "tokioloop", reason=SOCKETS)
class TestExtraInfo:
    def test_addresses_and_the_real_socket_are_there(self, loop):
        async def main():
            async with connected("client") as (transport, _protocol, peer):
                assert transport.get_extra_info("peername") == peer.getsockname()
                assert transport.get_extra_info("sockname") == peer.getpeername()
                sock = transport.get_extra_info("socket")
                assert type(sock).__name__ == "TransportSocket"
                assert sock is transport.get_extra_info("socket")
                assert sock.getsockname() == transport.get_extra_info("sockname")
                assert sock.getpeername() == transport.get_extra_info("peername")
                assert sock.family == socket.AF_INET
                assert sock.type == socket.SOCK_STREAM
                assert sock.fileno() >= 0
                assert sock.gettimeout() == 0

        loop.run_until_complete(main())

    def test_an_unknown_name_gives_the_default(self, loop):
        async def main():
            async with connected("client") as (transport, _protocol, _peer):
                assert transport.get_extra_info("no such thing") is None
                assert transport.get_extra_info("no such thing", 5) == 5
                assert transport.get_extra_info("peername", 5) != 5

        loop.run_until_complete(main())

    def test_it_stays_after_the_connection_is_lost(self, loop):
        async def main():
            async with connected("client") as (transport, protocol, peer):
                address = peer.getsockname()
                transport.close()
                await protocol.until_lost()
                assert transport.get_extra_info("peername") == address

        loop.run_until_complete(main())

    def test_options_can_be_set_on_the_socket(self, loop):
        async def main():
            async with connected("client") as (transport, _protocol, _peer):
                sock = transport.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)

        loop.run_until_complete(main())


@pytest.mark.parametrize("side", ["client", "server"])
def test_nagles_algorithm_is_off(flavour, loop, side):
    async def main():
        async with connected(side) as (transport, _protocol, _peer):
            sock = transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    loop.run_until_complete(main())


def test_nagles_algorithm_is_off_whenever_a_client_comes(flavour, loop):
    """Before the server serves, with others, and later."""

    async def main():
        made = []

        def accepted():
            made.append(Recorder())
            return made[-1]

        async def all_connected():
            while not (len(made) == len(clients) and all(each.transport for each in made)):
                await asyncio.sleep(0)

        # asyncio looks for the protocol's number.
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
            listener.bind((LOOPBACK, 0))
            listener.listen()
            listener.setblocking(False)
            place = listener.getsockname()
            clients = [socket.create_connection(place) for _ in range(3)]
            server = await loop.create_server(accepted, sock=listener)
            await all_connected()
            for together in (1, 1, 1, 3):
                clients += [socket.create_connection(place) for _ in range(together)]
                await all_connected()
            for protocol in made:
                sock = protocol.transport.get_extra_info("socket")
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                protocol.transport.abort()
                await protocol.until_lost()
            server.close()
        for client in clients:
            client.close()

    loop.run_until_complete(main())


@pytest.mark.flavours("asyncio", "tokioloop", reason="the peers' transports are not asyncio's")
@pytest.mark.parametrize("side", ["client", "server"])
def test_a_transport_is_asyncios(loop, side):
    async def main():
        async with connected(side) as (transport, _protocol, _peer):
            assert isinstance(transport, asyncio.Transport)
            assert "fd=" in repr(transport)
            fd = transport.get_extra_info("socket").fileno()
            assert f"fd={fd}" in repr(transport)

    loop.run_until_complete(main())


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_ipv6_works(loop):
    async def main():
        with socket.socket(socket.AF_INET6) as listener:
            try:
                listener.bind(("::1", 0))
            except OSError:
                pytest.skip("no IPv6 loopback here")
            listener.listen()
            transport, protocol = await loop.create_connection(
                Recorder, "::1", listener.getsockname()[1]
            )
            peer, _ = listener.accept()
            with peer:
                assert transport.get_extra_info("peername")[0] == "::1"
                transport.write(b"six")
                assert peer.recv(10) == b"six"
                transport.close()
                await protocol.until_lost()

    loop.run_until_complete(main())


def netlink_socket():
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    sock.bind((0, 0))
    return sock


@pytest.mark.flavours("asyncio", "tokioloop", reason="uvloop and rloop know no such transport")
@pytest.mark.skipif(not hasattr(socket, "AF_NETLINK"), reason="netlink is Linux")
def test_a_family_that_only_python_knows_has_its_names(loop):
    async def main():
        sock = netlink_socket()
        own = sock.getsockname()
        transport = loop._make_socket_transport(sock, Recorder())
        for _ in range(2):
            assert transport.get_extra_info("sockname") == own
            assert transport.get_extra_info("peername") == (0, 0)
        transport.abort()
        await settled()

    loop.run_until_complete(main())


@pytest.mark.flavours("asyncio", "tokioloop", reason="uvloop and rloop know no such transport")
@pytest.mark.skipif(not hasattr(socket, "AF_NETLINK"), reason="netlink is Linux")
def test_the_names_of_such_a_family_outlive_the_connection(loop):
    async def main():
        sock = netlink_socket()
        own = sock.getsockname()
        given = {"peername": "as given"}
        transport = loop._make_socket_transport(sock, Recorder(), extra=given)
        transport.abort()
        await settled()
        assert transport.get_extra_info("sockname") == own
        assert transport.get_extra_info("peername") == "as given"

    loop.run_until_complete(main())
