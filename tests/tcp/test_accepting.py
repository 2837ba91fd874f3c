"""Accepted connections: each is made in a context of its own, and none is forgotten."""

from __future__ import annotations

import asyncio
import contextvars
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.support.net import LOOPBACK, settled
from tests.support.protocols import Recorder
from tests.support.tls import client_context, server_context

pytestmark = pytest.mark.flavours(
    "asyncio", "tokioloop", reason="the peers make all connections in one context"
)
Loop = asyncio.AbstractEventLoop
# asyncio leaves the socket of a connection that it cannot make to the collector.
ITS_SOCKET_IS_LEFT = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
OVER = pytest.mark.parametrize(
    "over_tls",
    # CPython 3.10 accepts for TLS itself, and leaves what it cannot make to the collector.
    [
        pytest.param(False, id="plain"),
        pytest.param(True, id="tls", marks=pytest.mark.min_python(3, 11)),
    ],
)

client_id: contextvars.ContextVar[str] = contextvars.ContextVar("client_id", default="nobody")


@contextmanager
def clients_of(server: asyncio.Server, count: int) -> Iterator[list[socket.socket]]:
    """So many clients, connected one after the other; none does anything."""
    place = server.sockets[0].getsockname()
    clients = [socket.create_connection(place) for _ in range(count)]
    try:
        yield clients
    finally:
        for client in clients:
            client.close()


def abort_all(made: list[Recorder]) -> None:
    for protocol in made:
        if protocol.transport is not None:
            protocol.transport.abort()


@OVER
def test_what_a_factory_sets_is_not_seen_by_the_next_connection(loop: Loop, over_tls: bool) -> None:
    seen: list[str] = []
    made: list[Recorder] = []

    def accepted() -> Recorder:
        seen.append(client_id.get())
        client_id.set(f"client {len(seen)}")
        made.append(Recorder())
        return made[-1]

    async def main() -> None:
        client_id.set("the server")
        context = server_context() if over_tls else None
        server = await loop.create_server(accepted, LOOPBACK, 0, ssl=context)
        with clients_of(server, 3):
            while len(made) < 3:
                await asyncio.sleep(0)
            await settled()
            abort_all(made)
            await settled()
        await settled()
        server.close()

    loop.set_debug(False)
    loop.run_until_complete(main())
    assert seen == ["the server"] * 3


@OVER
@ITS_SOCKET_IS_LEFT
def test_an_interrupt_in_a_factory_forgets_nobody(loop: Loop, over_tls: bool) -> None:
    made: list[Recorder] = []
    calls = 0

    def accepted() -> Recorder:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise KeyboardInterrupt
        made.append(Recorder())
        return made[-1]

    async def start() -> asyncio.Server:
        context = server_context() if over_tls else None
        return await loop.create_server(
            accepted, LOOPBACK, 0, ssl=context, start_serving=False, backlog=10
        )

    async def serve(server: asyncio.Server) -> None:
        await server.start_serving()
        await asyncio.sleep(5)

    async def others_are_served() -> None:
        while len(made) < 2:
            await asyncio.sleep(0)
        await settled()
        abort_all(made)
        await settled()

    loop.set_debug(False)
    server = loop.run_until_complete(start())
    server.sockets[0]._sock.listen(10)  # type: ignore[attr-defined]
    with clients_of(server, 3):
        task = loop.create_task(serve(server))
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(task)
        task.cancel()
        loop.run_until_complete(asyncio.wait_for(others_are_served(), 5))
        assert calls == 3
    server.close()
    loop.run_until_complete(settled())


@ITS_SOCKET_IS_LEFT
@pytest.mark.parametrize("fails", ["factory", "handshake"])
def test_a_connection_that_cannot_be_made_is_reported_in_debug_mode_in_its_context(
    loop: Loop, fails: str
) -> None:
    reports: list[tuple[str, dict[str, Any]]] = []
    made: list[Recorder] = []

    def accepted() -> Recorder:
        client_id.set("the client")
        if fails == "factory":
            raise ValueError("probe")
        made.append(Recorder())
        return made[-1]

    async def main() -> None:
        # A client's context serves nobody.
        context = client_context() if fails == "handshake" else None
        server = await loop.create_server(accepted, LOOPBACK, 0, ssl=context)
        with clients_of(server, 1):
            while not reports:
                await asyncio.sleep(0)
        server.close()

    loop.set_debug(True)
    loop.set_exception_handler(
        lambda _loop, context: reports.append((client_id.get(), dict(context)))
    )
    loop.run_until_complete(main())
    ((where, report),) = reports
    assert where == "the client"
    assert report["message"] == "Error on transport creation for incoming connection"
    if fails == "factory":
        assert isinstance(report["exception"], ValueError)
        assert "protocol" not in report
    else:
        assert isinstance(report["exception"], ssl.SSLError)
        assert report["protocol"] is made[0]


# asyncio's words for a transport that nobody has closed.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_closing_a_loop_asks_nothing_of_protocols(loop_factory: Any) -> None:
    class Unready(Recorder):
        @property
        def _waiter(self) -> None:
            raise RuntimeError("not connected")

    made: list[Recorder] = []

    def accepted() -> Recorder:
        made.append(Unready())
        return made[-1]

    loop = loop_factory()

    async def main() -> None:
        server = await loop.create_server(accepted, LOOPBACK, 0)
        with clients_of(server, 1):
            while not (made and made[0].transport):
                await asyncio.sleep(0)
            made[0].transport.pause_reading()
        server.close()

    loop.run_until_complete(main())
    loop.close()
    assert loop.is_closed()
    del made[:]
