"""Protocols write, in many pieces, while their peers reset the connection under them."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct

from tests.stress.races.support import Threads, done, rounds, run

# asyncio's word for each write after the loss, which this is full of.
logging.getLogger("asyncio").setLevel(logging.ERROR)
CONNECTIONS = 16
RESET = struct.pack("ii", 1, 0)


class Talker(asyncio.Protocol):
    """Writes on and on, whatever becomes of the connection."""

    lost = 0
    written = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.talk()

    def talk(self) -> None:
        for _ in range(4):
            self.transport.write(b"x" * 5000)  # type: ignore[attr-defined]
            Talker.written += 1
        if not self.transport.is_closing():
            asyncio.get_running_loop().call_soon(self.talk)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport.write(b"too late")  # type: ignore[attr-defined]
        Talker.lost += 1


def reset_some(address: tuple[str, int]) -> None:
    for _ in rounds():
        clients = [socket.create_connection(address) for _ in range(CONNECTIONS)]
        for number, client in enumerate(clients):
            client.recv(1 << (number % 17))
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            client.close()


async def main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Talker, "127.0.0.1", 0, backlog=256)
    threads = Threads()
    for _ in range(2):
        threads.start(reset_some, server.sockets[0].getsockname())
    await loop.run_in_executor(None, threads.join)
    server.close()
    await server.wait_closed()
    while any(not task.done() for task in asyncio.all_tasks() - {asyncio.current_task()}):
        await asyncio.sleep(0)
    await loop.shutdown_default_executor()


run(main())
done(lost=Talker.lost, written=Talker.written)
