"""A stream whose peer is a plain socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from tests.support.net import LOOPBACK, eventually, listening_socket

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def opened(**options: Any) -> AsyncIterator[tuple[Any, Any, socket.socket]]:
    """The reader and writer of `open_connection`, and the blocking socket at the other end."""
    with listening_socket() as listener:
        reader, writer = await asyncio.open_connection(*listener.getsockname(), **options)
        peer, _ = listener.accept()
    peer.settimeout(5)
    with peer:
        try:
            yield reader, writer, peer
        finally:
            await closed(writer)


@asynccontextmanager
async def accepted(**options: Any) -> AsyncIterator[tuple[Any, Any, socket.socket]]:
    """The reader and writer that `start_server` makes, and the blocking socket of its client."""
    streams: asyncio.Queue[Stream] = asyncio.Queue()
    server = await asyncio.start_server(
        lambda *stream: streams.put_nowait(stream), LOOPBACK, 0, **options
    )
    with socket.create_connection(server.sockets[0].getsockname()) as peer:
        peer.settimeout(5)
        reader, writer = await streams.get()
        server.close()
        try:
            yield reader, writer, peer
        finally:
            await closed(writer)
    await server.wait_closed()


async def closed(writer: asyncio.StreamWriter) -> None:
    """Closes a writer and waits until nothing of it is left to do."""
    writer.close()
    await asyncio.gather(writer.wait_closed(), return_exceptions=True)
    await asyncio.sleep(0)


async def until_held(reader: Any, count: int) -> None:
    """Waits until the reader's buffer holds that many bytes, by reading nothing."""
    await eventually(lambda: len(reader._buffer) >= count)


def run(
    loop: asyncio.AbstractEventLoop, converse: Callable[..., Awaitable[None]], **options: Any
) -> None:
    """Runs `converse(reader, writer, peer)` on both ends' streams, one after the other."""

    async def main() -> None:
        for side in (opened, accepted):
            async with side(**options) as (reader, writer, peer):
                await converse(reader, writer, peer)

    loop.run_until_complete(main())
