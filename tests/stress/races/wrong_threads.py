"""Other threads call everything while the loop works: what is open to them works, the rest says no.

Nothing that they call has an effect on the connection, which goes on all the while.
"""

from __future__ import annotations

import asyncio
import threading

import tokioloop

from tests.stress.races.support import Threads, done, rounds, run

over = threading.Event()
counts = {"echoed": 0, "answered": 0, "refused": 0}


class Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)  # type: ignore[attr-defined]


async def nothing() -> int:
    return 1


def intrude(loop: tokioloop.TokioLoop, transport: asyncio.Transport) -> None:
    refusing = [
        lambda: transport.write(b"intruder"),
        lambda: transport.writelines([b"intruder"]),
        transport.close,
        transport.abort,
        transport.pause_reading,
        lambda: transport.set_protocol(asyncio.Protocol()),
        lambda: transport.get_extra_info("socket"),
        lambda: loop.add_reader(0, int),
        lambda: loop.remove_reader(0),
        loop.get_task_factory,
        loop.close,
        loop.run_forever,
    ]
    while not over.is_set():
        assert loop.is_running()
        assert not transport.is_closing()
        assert not loop.is_closed()
        assert not loop.get_debug()
        assert loop.time() > 0
        assert not loop.create_future().done()
        assert "running=True" in repr(loop)
        assert "SocketTransport" in repr(transport)
        assert asyncio.run_coroutine_threadsafe(nothing(), loop).result(timeout=10) == 1
        counts["answered"] += 1
        for call in refusing:
            try:
                call()
            except RuntimeError:
                counts["refused"] += 1
            else:
                raise AssertionError("a call from a wrong thread was accepted")


async def main() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, tokioloop.TokioLoop)
    server = await loop.create_server(Echo, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    threads = Threads()
    for _ in range(2):
        threads.start(intrude, loop, writer.transport)
    for number in rounds():
        message = b"%d" % number
        writer.write(message)
        assert await reader.readexactly(len(message)) == message
        counts["echoed"] += 1
    over.set()
    await loop.run_in_executor(None, threads.join)
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()
    await loop.shutdown_default_executor()


run(main())
done(**counts)
