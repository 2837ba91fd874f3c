"""TLS: what a connection costs while it is idle, and what is left of it afterwards."""

from __future__ import annotations

import asyncio
import gc
import sys
import tracemalloc
from asyncio import sslproto
from typing import Any

import pytest

from tests.support.net import LOOPBACK, settled
from tests.support.protocols import Recorder
from tests.support.tls import client_context, connected_over_tls, server_context

pytestmark = [
    pytest.mark.flavours("asyncio", "tokioloop", reason="the peers have TLS stacks of their own"),
    # Before that asyncio has another protocol, which is used as it is.
    pytest.mark.min_python(3, 11),
]
Loop = asyncio.AbstractEventLoop


def living_protocols() -> int:
    gc.collect()
    return sum(isinstance(thing, sslproto.SSLProtocol) for thing in gc.get_objects())


@pytest.mark.time_limit(60)
def test_a_thousand_handshakes_leave_nothing_behind(loop: Loop) -> None:
    context = client_context()

    async def main() -> None:
        server = await loop.create_server(Recorder, LOOPBACK, 0, ssl=server_context())
        place = server.sockets[0].getsockname()

        async def connect() -> None:
            _, protocol = await loop.create_connection(Recorder, *place, ssl=context)
            protocol.transport.close()
            await protocol.until_lost()

        # Debug mode notes a stack for each of their callbacks.
        for _ in range(5 if loop.get_debug() else 50):
            await asyncio.gather(*(connect() for _ in range(20)))
        server.close()
        await settled()

    before = living_protocols()
    loop.run_until_complete(main())
    assert living_protocols() == before


@pytest.mark.flavours("tokioloop", reason="asyncio keeps 256 KB for each connection")
@pytest.mark.skipif(sys.version_info < (3, 11), reason="3.10 has asyncio's own protocol")
def test_an_idle_connection_holds_no_buffers(loop: Loop) -> None:
    # Debug mode notes a stack for each object, which is not what is counted here.
    loop.set_debug(False)

    async def main() -> None:
        server = await loop.create_server(Recorder, LOOPBACK, 0, ssl=server_context())
        place = server.sockets[0].getsockname()
        context = client_context()

        async def connect() -> Any:
            _, protocol = await loop.create_connection(Recorder, *place, ssl=context)
            protocol.transport.write(bytes(100_000))
            return protocol

        protocols = [await connect() for _ in range(2)]
        await settled()
        tracemalloc.start()
        try:
            protocols += [await connect() for _ in range(10)]
            await settled()
            gc.collect()
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        # Both ends of ten connections; each Recorder of a server keeps the
        # 100,000 bytes that it got, and as many in chunks.
        data = 10 * 2 * 112_500
        assert (held - data) / 20 < 16_000
        for protocol in protocols:
            protocol.transport.abort()
            await protocol.until_lost()
        server.close()
        await settled()

    loop.run_until_complete(main())


def test_a_connection_that_nobody_holds_is_collected(loop: Loop) -> None:
    """A cycle through the protocols of both layers and their transports."""

    async def main() -> None:
        async with connected_over_tls() as (client, server):
            client.transport.write(b"data")
            await server.until_received(4)
            # A cycle through the native half.
            client.transport._ssl_protocol._app_protocol.itself = client.transport

    before = living_protocols()
    loop.run_until_complete(main())
    assert living_protocols() == before
