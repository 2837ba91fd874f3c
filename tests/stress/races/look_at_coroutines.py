"""Other threads close, look at and misuse the coroutines that a loop is about to await."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.stress.races.support import Threads, done, rounds, run

over = threading.Event()
current: list[Any] = [None]
counts = {"reads": 0, "waits": 0, "calls": 0}
AT_ODDS = (
    "cannot reuse already awaited coroutine",  # another thread has closed it
    "coroutine already executing",
    "can't send non-None value to a just-started coroutine",
)


def look() -> None:
    while not over.is_set():
        if (coroutine := current[0]) is not None:
            assert coroutine.cr_running in (True, False)
            assert coroutine.cr_await is not coroutine
            counts["calls"] += 1


def close() -> None:
    while not over.is_set():
        try:
            current[0].close()
        except (RuntimeError, ValueError) as error:
            assert str(error) in AT_ODDS, error


def send() -> None:
    while not over.is_set():
        try:
            current[0].send(1)
        except (RuntimeError, TypeError, ValueError) as error:
            assert str(error) in AT_ODDS, error
        except StopIteration as end:
            assert end.value == b"x"


@asynccontextmanager
async def opened() -> AsyncIterator[tuple[asyncio.StreamReader, socket.socket]]:
    """A reader of a connection: one that is made by itself has coroutines of CPython's."""
    ours, theirs = socket.socketpair()
    with theirs:
        reader, writer = await asyncio.open_connection(sock=ours)
        yield reader, theirs
        writer.close()
        await writer.wait_closed()


async def read_what_is_there() -> None:
    async with opened() as (reader, _peer):
        current[0] = reader.read(1)
        current[0].close()
        for function in (close, send, look):
            threads.start(function)
        for _ in rounds():
            reader.feed_data(b"x")
            coroutine = current[0] = reader.read(1)
            try:
                assert await coroutine == b"x"
                counts["reads"] += 1
            except (RuntimeError, ValueError) as error:
                assert str(error) in AT_ODDS, error
        over.set()
        threads.join()


async def wait() -> None:
    """Of those who only look the loop must not notice anything."""
    async with opened() as (reader, peer):
        over.clear()
        threads.start(look)
        loop = asyncio.get_running_loop()
        while counts["waits"] < 1000:
            loop.call_soon(peer.send, b"x")
            coroutine = current[0] = reader.read(1)
            assert await coroutine == b"x"
            counts["waits"] += 1


threads = Threads()
try:
    run(read_what_is_there())
    run(wait())
finally:
    over.set()
threads.join()
done(**counts)
