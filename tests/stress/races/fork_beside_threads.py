"""`fork` while loops run in other threads: the child has loops of its own, the parent goes on."""

from __future__ import annotations

import asyncio
import os
import threading

import tokioloop

from tests.stress.races.support import Threads, done, new_loop, rounds, run

over = threading.Event()
counts = {"children": 0, "calls": 0}


def work() -> None:
    async def main() -> None:
        while not over.is_set():
            reader, writer = await asyncio.open_connection(*address)
            writer.write(b"x")
            await reader.readexactly(1)
            writer.close()
            await writer.wait_closed()
            counts["calls"] += 1

    run(main())


class Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)  # type: ignore[attr-defined]


def child(parents_loop: tokioloop.TokioLoop) -> None:
    for call in (parents_loop.call_soon, parents_loop.call_soon_threadsafe):
        try:
            call(int)
        except RuntimeError as error:
            assert "forked child" in str(error), error
        else:
            raise AssertionError("the child took the parent's loop for its own")
    # Does nothing, least of all to the parent's poll.
    parents_loop.stop()
    run(asyncio.sleep(0.001))


def fork_once(parents_loop: tokioloop.TokioLoop) -> None:
    pid = os.fork()
    if not pid:
        code = 1
        try:
            child(parents_loop)
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    counts["children"] += 1


loop = new_loop()
server = loop.run_until_complete(loop.create_server(Echo, "127.0.0.1", 0))
address = server.sockets[0].getsockname()
serving, clients = Threads(), Threads()
serving.start(loop.run_forever)
for _ in range(2):
    clients.start(work)
for _ in rounds():
    fork_once(loop)
over.set()
clients.join()
loop.call_soon_threadsafe(loop.stop)
serving.join()
server.close()
loop.run_until_complete(server.wait_closed())
loop.close()
done(**counts)
