"""The collector runs in a tight loop, in a thread of its own, beside traffic full of cycles."""

from __future__ import annotations

import asyncio
import gc
import threading

from tests.stress.races.support import Threads, done, rounds, run

over = threading.Event()
collections = 0
echoed = 0


def collect() -> None:
    global collections
    while not over.is_set():
        gc.collect()
        gc.get_objects()
        collections += 1


class Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.myself = self

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)  # type: ignore[attr-defined]


async def client(address: tuple[str, int]) -> None:
    global echoed
    loop = asyncio.get_running_loop()
    for _ in rounds():
        reader, writer = await asyncio.open_connection(*address)
        writer.context = [writer]  # type: ignore[attr-defined]
        for size in (1, 100, 70_000):
            timer = loop.call_later(30, print, writer)
            writer.write(b"x" * size)
            assert len(await reader.readexactly(size)) == size
            timer.cancel()
            echoed += 1
        writer.close()
        await writer.wait_closed()


async def main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    await asyncio.gather(*(client(address) for _ in range(8)))
    server.close()
    await server.wait_closed()


def serve() -> None:
    run(main())


collector = Threads()
collector.start(collect)
loops = Threads()
for _ in range(2):
    loops.start(serve)
loops.join()
over.set()
collector.join()
done(collections=collections, echoed=echoed)
