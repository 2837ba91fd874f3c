"""The interpreter ends while daemon threads run loops: idle, with timers, busy, with traffic."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.stress.races.support import done, rounds

PROGRAM = """
import asyncio, threading, warnings, tokioloop
warnings.simplefilter("ignore")
started = threading.Semaphore(0)

async def idle():
    started.release()
    await asyncio.sleep(1000)

async def timers():
    started.release()
    while True:
        await asyncio.sleep(0.0001)

async def busy():
    started.release()
    while True:
        await asyncio.sleep(0)

class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
    def data_received(self, data):
        self.transport.write(data)

async def traffic():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    started.release()
    while True:
        writer.write(b"x" * 100)
        await reader.readexactly(100)

async def executor():
    started.release()
    while True:
        await asyncio.get_running_loop().run_in_executor(None, int)

kinds = [idle, timers, busy, traffic, executor]
for kind in kinds:
    threading.Thread(target=lambda kind=kind: tokioloop.run(kind(), debug=False), daemon=True).start()
for _ in kinds:
    started.acquire()
"""

exits = 0
for _ in rounds():
    program = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "ignore", "-c", PROGRAM],
        capture_output=True,
        text=True,
        timeout=20,
        env={**os.environ, "PYTHONWARNINGS": ""},
    )
    # What the interpreter itself says of threads that it leaves behind is not ours.
    assert program.returncode == 0, (program.returncode, program.stderr)
    exits += 1
done(exits=exits)
