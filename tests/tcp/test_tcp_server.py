"""`create_server` and the server object: accepting, serving, closing, its clients."""

from __future__ import annotations

import asyncio
import socket

import pytest

from tests.support.net import LOOPBACK, ask, eventually, in_thread, serving, settled
from tests.support.protocols import EchoProtocol, Recorder

OWN_SERVER = "the peers' servers differ: sockets is a list, or clients are closed with the server"


def dial(address) -> socket.socket:
    return socket.create_connection(address, timeout=10)


def exchange(address, payload: bytes) -> bytes:
    """A blocking client: sends everything, reads as much, leaves."""
    with dial(address) as client:
        return ask(client, payload)


def test_raw_tcp_server(loop):
    """The shortest server there is, on `sock_*` calls: no transport, no protocol."""

    async def serve(listener):
        client, _address = await loop.sock_accept(listener)
        with client:
            while data := await loop.sock_recv(client, 1 << 16):
                await loop.sock_sendall(client, data)

    async def main():
        with socket.socket() as listener:
            listener.setblocking(False)
            listener.bind((LOOPBACK, 0))
            listener.listen()
            serving_task = asyncio.ensure_future(serve(listener))
            payload = bytes(range(256)) * 512
            assert await in_thread(exchange, listener.getsockname(), payload) == payload
            await serving_task

    loop.run_until_complete(main())


def test_a_protocol_server_echoes(loop):
    async def main():
        async with serving(EchoProtocol) as (_server, address):
            payload = bytes(range(256)) * 512
            assert await in_thread(exchange, address, payload) == payload

    loop.run_until_complete(main())


def test_each_connection_gets_a_protocol_of_its_own(loop):
    async def main():
        protocols = []

        def factory():
            protocols.append(Recorder())
            return protocols[-1]

        async with serving(factory) as (_server, address):
            clients = [dial(address) for _ in range(5)]
            for number, client in enumerate(clients):
                client.sendall(b"%d" % number)
                client.close()
            await eventually(lambda: len(protocols) == 5)
            for protocol in protocols:
                await protocol.until_lost()
            assert sorted(bytes(protocol.received) for protocol in protocols) == [
                b"0",
                b"1",
                b"2",
                b"3",
                b"4",
            ]
            assert len({id(protocol) for protocol in protocols}) == 5

    loop.run_until_complete(main())


def test_connections_that_waited_in_the_backlog_are_all_accepted(loop):
    async def main():
        accepted = []
        everyone = loop.create_future()

        class Counted(Recorder):
            def connection_made(self, transport):
                super().connection_made(transport)
                accepted.append(self)
                if len(accepted) == 60:
                    everyone.set_result(None)

        async with serving(Counted, backlog=100) as (_server, address):
            clients = [dial(address) for _ in range(60)]
            await everyone
            for client in clients:
                client.close()
            for protocol in accepted:
                await protocol.until_lost()

    loop.run_until_complete(main())


@pytest.mark.flavours("asyncio", "tokioloop", reason="uvloop and rloop have other batches")
def test_clients_that_keep_coming_do_not_make_the_batches_grow(loop):
    """A batch takes what the backlog says (3.14: one more), whatever comes meanwhile."""
    backlog = 2

    async def main():
        made, clients, batches = [], [], []

        def factory():
            made.append(Recorder())
            return made[-1]

        with socket.socket() as listener:
            listener.bind((LOOPBACK, 0))
            server = await loop.create_server(factory, sock=listener, backlog=backlog)
            listener.listen(128)  # which the batch does not know
            clients += [dial(listener.getsockname()) for _ in range(30)]
            while len(made) < len(clients):
                if len(batches) < 20:
                    clients.append(dial(listener.getsockname()))
                before = len(made)
                await asyncio.sleep(0)
                batches.append(len(made) - before)
            for client in clients:
                client.close()
            for protocol in made:
                await protocol.until_lost()
            server.close()
            await server.wait_closed()
        assert max(batches) <= backlog + 1, batches

    loop.run_until_complete(main())


def test_a_client_that_left_before_it_was_accepted_is_served_and_lost(loop):
    async def main():
        protocols = []

        def factory():
            protocols.append(Recorder())
            return protocols[-1]

        async with serving(factory) as (_server, address):
            with dial(address) as client:
                client.sendall(b"gone")
            await eventually(lambda: protocols)
            assert await protocols[0].until_lost() is None
            assert protocols[0].received == b"gone"
            assert protocols[0].calls == [
                "connection_made",
                "data_received",
                "eof_received",
                "connection_lost",
            ]

    loop.run_until_complete(main())


def test_close_stops_listening_and_leaves_the_clients(flavour, loop):
    if flavour.name == "rloop":
        pytest.skip("rloop closes the clients with the server")

    async def main():
        server = await loop.create_server(EchoProtocol, LOOPBACK, 0)
        address = server.sockets[0].getsockname()
        with dial(address) as client:
            assert await in_thread(ask, client, b"before") == b"before"
            server.close()
            await settled()
            with pytest.raises(ConnectionRefusedError):
                dial(address)
            assert await in_thread(ask, client, b"after") == b"after"
        await server.wait_closed()
        await settled()

    loop.run_until_complete(main())


def listed(protocols):
    """A factory of recorders that enter themselves in a list when they are connected."""

    class Listed(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            protocols.append(self)

    return Listed


@pytest.mark.flavours("asyncio", "tokioloop", reason=OWN_SERVER)
class TestServerObject:
    def test_it_is_an_abstract_server_and_knows_its_loop(self, loop):
        async def main():
            async with serving(Recorder) as (server, _address):
                assert isinstance(server, asyncio.AbstractServer)
                assert server.get_loop() is loop
                assert server.is_serving()

        loop.run_until_complete(main())

    def test_sockets_is_a_tuple_that_empties_when_it_closes(self, loop):
        async def main():
            async with serving(Recorder) as (server, address):
                (sock,) = server.sockets
                assert isinstance(server.sockets, tuple)
                assert sock.getsockname() == address
                server.close()
                assert server.sockets == ()
                assert not server.is_serving()

        loop.run_until_complete(main())

    def test_start_serving_false_binds_but_refuses_until_started(self, loop):
        async def main():
            async with serving(EchoProtocol, start_serving=False) as (server, address):
                assert not server.is_serving()
                with pytest.raises(ConnectionRefusedError):
                    dial(address)
                await server.start_serving()
                await server.start_serving()
                assert server.is_serving()
                assert await in_thread(exchange, address, b"now") == b"now"

        loop.run_until_complete(main())

    def test_serve_forever_ends_with_cancellation_and_closes(self, loop):
        async def main():
            server = await loop.create_server(EchoProtocol, LOOPBACK, 0)
            address = server.sockets[0].getsockname()
            task = asyncio.ensure_future(server.serve_forever())
            assert await in_thread(exchange, address, b"served") == b"served"
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not server.is_serving()
            with pytest.raises(ConnectionRefusedError):
                dial(address)

        loop.run_until_complete(main())

    def test_close_ends_serve_forever(self, loop):
        async def main():
            server = await loop.create_server(EchoProtocol, LOOPBACK, 0)
            task = asyncio.ensure_future(server.serve_forever())
            await asyncio.sleep(0)
            server.close()
            with pytest.raises(asyncio.CancelledError):
                await task
            with pytest.raises(RuntimeError, match="closed"):
                await server.serve_forever()

        loop.run_until_complete(main())

    def test_serve_forever_twice_is_refused(self, loop):
        async def main():
            async with serving(EchoProtocol) as (server, _address):
                task = asyncio.ensure_future(server.serve_forever())
                await asyncio.sleep(0)
                with pytest.raises(RuntimeError, match="already being awaited"):
                    await server.serve_forever()
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

        loop.run_until_complete(main())

    def test_the_async_with_statement_closes_it(self, loop):
        async def main():
            async with await loop.create_server(EchoProtocol, LOOPBACK, 0) as server:
                assert server.is_serving()
            assert not server.is_serving()

        loop.run_until_complete(main())

    @pytest.mark.min_python(3, 12)
    def test_wait_closed_waits_for_the_last_client(self, loop):
        async def main():
            server = await loop.create_server(EchoProtocol, LOOPBACK, 0)
            client = dial(server.sockets[0].getsockname())
            assert await in_thread(ask, client, b"x") == b"x"
            server.close()
            waiting = asyncio.ensure_future(server.wait_closed())
            await settled()
            assert not waiting.done()
            client.close()
            await waiting

        loop.run_until_complete(main())

    @pytest.mark.min_python(3, 13)
    @pytest.mark.flavours("asyncio", "tokioloop", reason="others have servers of their own")
    def test_it_knows_its_clients_while_they_last(self, loop):
        async def main():
            protocols = []
            async with serving(listed(protocols)) as (server, address):
                assert len(server._clients) == 0
                with dial(address), dial(address), dial(address):
                    await eventually(lambda: len(protocols) == 3)
                    assert len(server._clients) == 3
                    first, *others = (protocol.transport for protocol in protocols)
                    assert set(server._clients) == {first, *others}
                    assert first in server._clients
                    first.abort()
                    await eventually(lambda: len(server._clients) == 2)
                    assert first not in server._clients
                    assert set(server._clients.copy()) == set(others)
                await eventually(lambda: len(server._clients) == 0)

        loop.run_until_complete(main())

    @pytest.mark.min_python(3, 13)
    @pytest.mark.parametrize("method", ["close_clients", "abort_clients"])
    def test_the_clients_can_be_closed_or_aborted(self, loop, method):
        async def main():
            protocols = []
            async with serving(listed(protocols)) as (server, address):
                clients = [dial(address) for _ in range(3)]
                await eventually(lambda: len(protocols) == 3)
                getattr(server, method)()
                for protocol in protocols:
                    assert await protocol.until_lost() is None
                for client in clients:
                    with client:
                        assert client.recv(100) == b""

        loop.run_until_complete(main())


def test_several_hosts_give_several_sockets(loop):
    async def main():
        server = await loop.create_server(EchoProtocol, [LOOPBACK, "127.0.0.2"], 0)
        addresses = [sock.getsockname() for sock in server.sockets]
        assert sorted(host for host, _port in addresses) == [LOOPBACK, "127.0.0.2"]
        for address in addresses:
            assert await in_thread(exchange, address, b"here") == b"here"
        server.close()
        await server.wait_closed()

    loop.run_until_complete(main())


def test_a_listening_socket_can_be_passed_in(loop):
    async def main():
        listener = socket.socket()
        listener.bind((LOOPBACK, 0))
        address = listener.getsockname()
        server = await loop.create_server(EchoProtocol, sock=listener)
        assert await in_thread(exchange, address, b"here") == b"here"
        server.close()
        await server.wait_closed()

    loop.run_until_complete(main())


def test_an_address_in_use_is_an_error(loop):
    async def main():
        async with serving(EchoProtocol) as (_server, address):
            with pytest.raises(OSError, match="address already in use"):
                await loop.create_server(EchoProtocol, *address)

    loop.run_until_complete(main())


@pytest.mark.skipif(not hasattr(socket, "SO_REUSEPORT"), reason="no SO_REUSEPORT here")
def test_two_servers_share_a_port_when_both_say_so(loop):
    async def main():
        async with serving(EchoProtocol, reuse_port=True) as (_server, address):
            other = await loop.create_server(EchoProtocol, *address, reuse_port=True)
            for _ in range(10):
                assert await in_thread(exchange, address, b"either") == b"either"
            other.close()
            await other.wait_closed()

    loop.run_until_complete(main())


def test_neither_host_nor_socket_is_a_value_error(loop):
    async def main():
        with pytest.raises(ValueError):
            await loop.create_server(EchoProtocol)

    loop.run_until_complete(main())
