"""websockets as server and client: TLS, Unix sockets, fragments, broadcasts and abrupt ends."""

from __future__ import annotations

import asyncio

import pytest
from interop_support.loops import expected_class_name, running_class_name
from interop_support.waiting import until

websockets = pytest.importorskip("websockets", exc_type=ImportError)
server_module = pytest.importorskip("websockets.asyncio.server", exc_type=ImportError)
client_module = pytest.importorskip("websockets.asyncio.client", exc_type=ImportError)


async def echo(connection: server_module.ServerConnection) -> None:
    async for message in connection:
        await connection.send(running_class_name() if message == "loop" else message)


async def all_connected(server: server_module.Server, count: int) -> bool:
    return len(server.connections) == count


def port_of(server: server_module.Server) -> int:
    port: int = next(iter(server.sockets)).getsockname()[1]
    return port


@pytest.fixture(params=["plain", "tls"])
def security(request, certificates):
    """The scheme, the server's context and the client's."""
    if request.param == "plain":
        return "ws", None, None
    return "wss", certificates.server_context(), certificates.client_context()


def test_messages_of_every_size(run, security) -> None:
    scheme, server_tls, client_tls = security

    async def main() -> None:
        async with (
            server_module.serve(echo, "127.0.0.1", 0, ssl=server_tls, max_size=None) as server,
            client_module.connect(
                f"{scheme}://localhost:{port_of(server)}", ssl=client_tls, max_size=None
            ) as client,
        ):
            await client.send("loop")
            assert await client.recv() == expected_class_name()
            for size in (0, 1, 125, 126, 65_535, 65_536, 3_000_000):
                await client.send(b"\xa5" * size)
                assert await client.recv() == b"\xa5" * size
            await client.send(["frag", "men", "ted"])
            assert await client.recv() == "fragmented"
            assert await (await client.ping()) >= 0

    run(main)


def test_unix_socket(run, workspace) -> None:
    path = str(workspace / "websockets.sock")

    async def main() -> None:
        async with (
            server_module.unix_serve(echo, path),
            client_module.unix_connect(path) as client,
        ):
            await client.send("over a Unix socket")
            assert await client.recv() == "over a Unix socket"

    run(main)


def test_a_broadcast_reaches_every_client_in_order(run, security) -> None:
    scheme, server_tls, client_tls = security

    async def main() -> None:
        async def hold(connection: server_module.ServerConnection) -> None:
            await connection.wait_closed()

        async with server_module.serve(hold, "127.0.0.1", 0, ssl=server_tls) as server:
            uri = f"{scheme}://localhost:{port_of(server)}"
            clients = await asyncio.gather(
                *(client_module.connect(uri, ssl=client_tls) for _ in range(20))
            )
            await until(lambda: all_connected(server, len(clients)))
            for n in range(50):
                server_module.broadcast(server.connections, f"news {n}")
            expected = [f"news {n}" for n in range(50)]
            for client in clients:
                assert [await client.recv() for _ in range(50)] == expected
            await asyncio.gather(*(client.close() for client in clients))

    run(main)


def test_a_slow_reader_stops_the_sender_and_loses_nothing(run, security) -> None:
    scheme, server_tls, client_tls = security

    async def main() -> None:
        sent = 0

        async def flood(connection: server_module.ServerConnection) -> None:
            nonlocal sent
            for n in range(400):
                await connection.send(n.to_bytes(4, "big") + bytes(65_532))
                sent += 1

        async with (
            server_module.serve(flood, "127.0.0.1", 0, ssl=server_tls, compression=None) as server,
            client_module.connect(
                f"{scheme}://localhost:{port_of(server)}",
                ssl=client_tls,
                compression=None,
                max_queue=4,
            ) as client,
        ):
            first = await client.recv()
            before = -1
            while before != sent:  # until flow control has stopped the sender
                before = sent
                for _ in range(200):
                    await asyncio.sleep(0)
            assert sent < 400
            rest = [await client.recv() for _ in range(399)]
            assert [int.from_bytes(each[:4], "big") for each in [first, *rest]] == list(range(400))

    run(main)


def test_close_codes_and_sends_after_the_close(run, security) -> None:
    scheme, server_tls, client_tls = security

    async def main() -> None:
        async def leave(connection: server_module.ServerConnection) -> None:
            await connection.recv()
            await connection.close(4002, "enough")

        async with (
            server_module.serve(leave, "127.0.0.1", 0, ssl=server_tls) as server,
            client_module.connect(
                f"{scheme}://localhost:{port_of(server)}", ssl=client_tls
            ) as client,
        ):
            await client.send("go")
            with pytest.raises(websockets.ConnectionClosedError) as closed:
                await client.recv()
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4002, "enough")
            with pytest.raises(websockets.ConnectionClosed):
                await client.send("too late")

    run(main)


def test_an_aborted_connection_ends_the_other_side(run, security) -> None:
    scheme, server_tls, client_tls = security

    async def main() -> None:
        ended: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

        async def talk(connection: server_module.ServerConnection) -> None:
            try:
                while True:
                    await connection.send("x" * 10_000)
                    await asyncio.sleep(0)  # a send that does not wait lets nobody else run
            except websockets.ConnectionClosed as error:
                ended.set_result(error)

        async with server_module.serve(talk, "127.0.0.1", 0, ssl=server_tls) as server:
            client = await client_module.connect(
                f"{scheme}://localhost:{port_of(server)}", ssl=client_tls
            )
            await client.recv()
            client.transport.abort()
            assert isinstance(await ended, websockets.ConnectionClosedError)
            await client.wait_closed()

    run(main)
