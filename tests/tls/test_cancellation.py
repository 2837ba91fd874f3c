"""TLS: a `create_connection` that is cancelled at the end of its handshake.

asyncio's protocol is told of the connection, and then closed as any other: the
socket lives until the peer has answered the close_notify, or for as long as
`ssl_shutdown_timeout` says, 30 seconds by default. So it does here.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.support.net import LOOPBACK, listening_socket, settled
from tests.support.protocols import Recorder
from tests.support.tls import client_context, server_context

pytestmark = [
    pytest.mark.flavours("asyncio", "tokioloop", reason="the peers have TLS stacks of their own"),
    # Before that asyncio has another protocol, which is used as it is.
    pytest.mark.min_python(3, 11),
]
Loop = asyncio.AbstractEventLoop


class Cancels(Recorder):
    """Cancels the call that makes its connection, when the handshake is done."""

    def __init__(self) -> None:
        super().__init__()
        self.call: asyncio.Task[Any] | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        assert self.call is not None
        self.call.cancel()


async def cancelled_connection(loop: Loop, place: Any, **options: Any) -> Cancels:
    protocol = Cancels()
    protocol.call = loop.create_task(
        loop.create_connection(lambda: protocol, *place, ssl=client_context(), **options)
    )
    with pytest.raises(asyncio.CancelledError):
        await protocol.call
    return protocol


def test_the_connection_ends_with_the_answer_of_the_peer(loop: Loop) -> None:
    async def main() -> None:
        server = await loop.create_server(Recorder, LOOPBACK, 0, ssl=server_context())
        protocol = await cancelled_connection(loop, server.sockets[0].getsockname())
        assert protocol.transport.is_closing()
        assert await protocol.until_lost() is None
        assert protocol.transport._ssl_protocol._transport is None
        server.close()
        await settled()

    loop.run_until_complete(main())


@asynccontextmanager
async def silent_peer(loop: Loop) -> AsyncIterator[tuple[Any, Callable[[], bytes]]]:
    """`(address, read)`: a server that says nothing after the handshake."""
    with listening_socket() as listener:
        connections: list[socket.socket] = []
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()

        def serve() -> None:
            connection, _ = listener.accept()
            connections.append(connection)
            connection.settimeout(5)
            session = server_context().wrap_bio(incoming, outgoing, server_side=True)
            while True:
                try:
                    session.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    connection.sendall(outgoing.read())
                    incoming.write(connection.recv(1 << 16))
            connection.sendall(outgoing.read())

        def read() -> bytes:
            # It may have come along with the end of the handshake.
            data = incoming.read()
            while more := connections[0].recv(1 << 16):
                data += more
            return data

        served = loop.run_in_executor(None, serve)
        try:
            yield listener.getsockname(), read
        finally:
            await served
            for connection in connections:
                connection.close()


@pytest.mark.min_python(3, 11)
def test_a_peer_that_does_not_answer_is_left_after_the_shutdown_timeout(loop: Loop) -> None:
    async def main() -> None:
        async with silent_peer(loop) as (place, read):
            protocol = await cancelled_connection(loop, place, ssl_shutdown_timeout=0.1)
            assert not protocol.is_lost
            assert isinstance(await protocol.until_lost(), TimeoutError)
            # Ours was sent: the record of a close_notify, and then the end.
            assert len(await loop.run_in_executor(None, read)) >= 19

    loop.run_until_complete(main())


def test_an_abort_does_not_wait(loop: Loop) -> None:
    async def main() -> None:
        async with silent_peer(loop) as (place, _):
            protocol = await cancelled_connection(loop, place)
            protocol.transport.abort()
            assert await protocol.until_lost() is None

    loop.run_until_complete(main())
