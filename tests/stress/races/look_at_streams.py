"""Other threads look at what readers hold, in a tight loop, beside the traffic through them."""

from __future__ import annotations

import asyncio
import gc
import threading

from tests.stress.races.support import Threads, done, rounds, run

over = threading.Event()
readers: list[asyncio.StreamReader] = []
looks = 0
echoed = 0


def look() -> None:
    global looks
    while not over.is_set():
        for reader in list(readers):
            assert type(reader._buffer) is bytearray  # type: ignore[attr-defined]
            reader.at_eof()
            looks += 1


def find() -> None:
    """Finds streams that are being made, too."""
    while not over.is_set():
        for found in gc.get_objects():
            if type(found).__name__ in ("StreamReader", "StreamWriter"):
                vars(found)
                getattr(found, "_buffer", None)


async def client(address: tuple[str, int]) -> None:
    global echoed
    for _ in rounds():
        reader, writer = await asyncio.open_connection(*address)
        readers.append(reader)
        for size in (1, 100, 1000) * 20:
            writer.write(b"x" * size)
            assert len(await reader.readexactly(size)) == size
            echoed += 1
        readers.remove(reader)
        writer.close()
        await writer.wait_closed()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.close()


async def main() -> None:
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    await asyncio.wait_for(asyncio.gather(*(client(address) for _ in range(4))), 20)
    server.close()
    await server.wait_closed()


watchers = Threads()
watchers.start(look)
watchers.start(find)
loops = Threads()
for _ in range(2):
    loops.start(run, main())
loops.join()
over.set()
watchers.join()
done(looks=looks, echoed=echoed)
