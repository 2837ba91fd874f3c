"""Servers close, and open on the same port, while clients keep knocking."""

from __future__ import annotations

import asyncio
import socket
import threading

from tests.stress.races.support import Threads, done, rounds, run

counts = {"accepted": 0, "refused": 0, "servers": 0}
over = threading.Event()


class Greeter(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        counts["accepted"] += 1
        transport.write(b"hello")  # type: ignore[attr-defined]
        transport.close()


def knock(address: tuple[str, int]) -> None:
    while not over.is_set():
        try:
            with socket.create_connection(address, timeout=5) as client:
                client.recv(10)
        except OSError:
            counts["refused"] += 1


async def main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Greeter, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    threads = Threads()
    for _ in range(2):
        threads.start(knock, address)
    for number in rounds():
        await asyncio.sleep(0.0005 * (number % 4))
        server.close()
        await server.wait_closed()
        server = await loop.create_server(Greeter, *address, reuse_address=True)
        counts["servers"] += 1
    over.set()
    await loop.run_in_executor(None, threads.join)
    server.close()
    await server.wait_closed()
    await asyncio.sleep(0.01)
    await loop.shutdown_default_executor()


run(main())
done(**counts)
