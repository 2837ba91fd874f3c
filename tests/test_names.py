"""Addresses that are numbers need no lookup; names are looked up in a thread, as asyncio does."""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.net import LOOPBACK, settled
from tests.support.protocols import Recorder

pytestmark = pytest.mark.flavours("asyncio", "tokioloop", reason="the peers resolve their own way")

HAS_IPV6 = socket.has_ipv6
try:
    with socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
except OSError:
    HAS_IPV6 = False
NEEDS_IPV6 = pytest.mark.skipif(not HAS_IPV6, reason="no IPv6 on loopback")
HOSTS = [LOOPBACK, pytest.param("::1", marks=NEEDS_IPV6)]


class LookedUp(Exception):
    """A thread was asked for something."""


class NoThreads(ThreadPoolExecutor):
    """An executor that refuses everything."""

    def submit(self, function, /, *args, **kwargs):
        raise LookedUp(function, args)


@pytest.fixture
def loop(loop):
    loop.set_default_executor(NoThreads())
    return loop


class Endpoint(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.received = asyncio.get_running_loop().create_future()

    def datagram_received(self, data, addr):
        self.received.set_result((data, addr))


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("as_text", [False, True])
def test_numeric_hosts_need_no_lookup(loop, host, as_text):
    async def main():
        accepted = []
        server = await loop.create_server(
            lambda: accepted.append(Recorder()) or accepted[0], host, 0
        )
        port = server.sockets[0].getsockname()[1]
        transport, protocol = await loop.create_connection(
            Recorder, host, str(port) if as_text else port, local_addr=(host, 0)
        )
        assert transport.get_extra_info("peername")[:2] == (host, port)
        transport.close()
        await protocol.until_lost()
        await accepted[0].until_lost()
        server.close()
        await server.wait_closed()

    loop.run_until_complete(main())


@pytest.mark.parametrize("host", HOSTS)
def test_happy_eyeballs_of_a_numeric_host_need_no_lookup(loop, host):
    async def main():
        server = await loop.create_server(Recorder, host, 0)
        transport, protocol = await loop.create_connection(
            Recorder, *server.sockets[0].getsockname()[:2], happy_eyeballs_delay=0.2
        )
        transport.close()
        await protocol.until_lost()
        await settled()
        server.close()

    loop.run_until_complete(main())


@pytest.mark.parametrize("host", HOSTS)
def test_numeric_hosts_of_endpoints_need_no_lookup(loop, host):
    async def main():
        bound, received = await loop.create_datagram_endpoint(Endpoint, local_addr=(host, 0))
        connected, _ = await loop.create_datagram_endpoint(
            Endpoint, local_addr=(host, 0), remote_addr=bound.get_extra_info("sockname")[:2]
        )
        connected.sendto(b"x")
        data, address = await received.received
        assert (data, address) == (b"x", connected.get_extra_info("sockname"))
        bound.close()
        connected.close()
        await settled()

    loop.run_until_complete(main())


@pytest.mark.parametrize("host", HOSTS)
def test_sockets_of_ones_own(loop, host):
    async def main():
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as listener, socket.socket(family) as client:
            listener.bind((host, 0))
            listener.listen()
            client.setblocking(False)
            await loop.sock_connect(client, listener.getsockname())
            assert client.getpeername() == listener.getsockname()

    loop.run_until_complete(main())


@pytest.mark.parametrize("address", [("localhost", 80), ("127.1", 80), (LOOPBACK, "http")])
def test_what_is_no_number_is_looked_up(loop, address):
    """A short form and the name of a service are for the C library to understand."""
    with pytest.raises(LookedUp):
        loop.run_until_complete(loop.create_connection(Recorder, *address))


def test_getaddrinfo_and_getnameinfo_always_ask_a_thread(loop):
    """With numbers as well: their flags may ask for what only the C library knows."""
    with pytest.raises(LookedUp):
        loop.run_until_complete(loop.getaddrinfo(LOOPBACK, 80))
    with pytest.raises(LookedUp):
        loop.run_until_complete(loop.getnameinfo((LOOPBACK, 80)))


@NEEDS_IPV6
class TestScopes:
    @pytest.fixture
    def interface(self):
        index, name = next(
            (index, name) for index, name in socket.if_nameindex() if name.startswith("lo")
        )
        return index, name

    def test_an_address_with_a_scope_is_looked_up(self, loop, interface):
        with pytest.raises(LookedUp):
            loop.run_until_complete(loop.create_connection(Recorder, f"fe80::1%{interface[1]}", 9))

    def test_the_scope_reaches_the_socket(self, loop_factory, interface, monkeypatch):
        loop = loop_factory()
        index, name = interface
        asked = []
        real_connect = loop.sock_connect

        async def connect(sock, address):
            asked.append(address)
            return await real_connect(sock, address)

        monkeypatch.setattr(loop, "sock_connect", connect, raising=False)
        with pytest.raises(OSError):
            # Nothing can be there; that the interface was found is in the address.
            loop.run_until_complete(
                asyncio.wait_for(loop.create_connection(Recorder, f"fe80::1%{name}", 9), 0.5)
            )
        loop.run_until_complete(loop.shutdown_default_executor())
        assert asked == [("fe80::1", 9, 0, index)]

    def test_a_scope_by_number_needs_no_name(self, loop, interface):
        async def main():
            with (
                socket.socket(socket.AF_INET6) as listener,
                socket.socket(socket.AF_INET6) as client,
            ):
                listener.bind(("::1", 0))
                listener.listen()
                client.setblocking(False)
                address = ("::1", listener.getsockname()[1], 0, interface[0])
                await loop.sock_connect(client, address)
                assert client.getpeername()[:2] == listener.getsockname()[:2]

        loop.run_until_complete(main())

    def test_endpoints_keep_the_scope_of_an_address(self, loop, interface):
        async def main():
            bound, received = await loop.create_datagram_endpoint(Endpoint, local_addr=("::1", 0))
            port = bound.get_extra_info("sockname")[1]
            sender, _ = await loop.create_datagram_endpoint(Endpoint, family=socket.AF_INET6)
            sender.sendto(b"x", ("::1", port, 0, interface[0]))
            assert (await received.received)[0] == b"x"
            bound.close()
            sender.close()
            await settled()

        loop.run_until_complete(main())
