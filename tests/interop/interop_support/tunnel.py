"""An HTTPS proxy that knows one method, CONNECT: clients put a second TLS layer through it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from interop_support.certificates import Certificates


@dataclass
class Proxy:
    url: str
    tunnels: int = 0


@asynccontextmanager
async def tls_connect_proxy(certificates: Certificates) -> AsyncIterator[Proxy]:
    """The proxy, on an ephemeral port of the running loop, spoken to by TLS."""
    proxy = Proxy("")
    connections: set[asyncio.Task[None]] = set()
    writers: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        task.add_done_callback(connections.discard)
        request = await reader.readuntil(b"\r\n\r\n")
        method, target, _ = request.split(b" ", 2)
        assert method == b"CONNECT", request
        host, port = target.decode().rsplit(":", 1)
        up_reader, up_writer = await asyncio.open_connection(host, int(port))
        writers.update((writer, up_writer))
        proxy.tunnels += 1
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        try:
            await asyncio.gather(_pump(reader, up_writer), _pump(up_reader, writer))
        finally:
            for each in (up_writer, writer):
                each.close()
                await asyncio.wait([asyncio.ensure_future(each.wait_closed())])

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=certificates.server_context())
    proxy.url = f"https://localhost:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        # Not by cancelling: asyncio 3.11 reports a cancelled handler of a stream server.
        for writer in writers:
            writer.transport.abort()
        await asyncio.gather(*connections)
        await server.wait_closed()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Copy until the source ends, then close the sink: TLS knows no half-close to pass on."""
    try:
        while data := await source.read(65_536):
            sink.write(data)
            await sink.drain()
    except ConnectionError:
        pass
    finally:
        sink.close()
