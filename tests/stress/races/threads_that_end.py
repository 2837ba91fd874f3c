"""Threads leave loops behind: open, full of work, and dropped wherever the last reference goes."""

from __future__ import annotations

import asyncio
import gc
import socket
import warnings

import tokioloop

from tests.stress.races.support import Threads, assert_no_loop_is_left, done, new_loop, rounds

# A loop that nobody closed says so; that is what this race makes.
warnings.simplefilter("ignore", ResourceWarning)
left_behind: list[object] = []
counts = {"loops": 0, "finished": 0}


def leave(keep: bool) -> None:
    loop = new_loop()
    ours, theirs = socket.socketpair()
    ours.setblocking(False)

    async def main() -> None:
        loop.call_later(60, print, loop)
        loop.add_reader(ours.fileno(), print, ours)
        await loop.create_connection(asyncio.Protocol, sock=theirs)

    loop.run_until_complete(main())
    loop.call_soon(print, loop)
    loop.call_soon_threadsafe(print, loop)
    if keep:
        left_behind.append(loop)
    counts["loops"] += 1


def finish(loop: tokioloop.TokioLoop) -> None:
    """Another thread may run and close what the first one has left."""
    loop._clear_ready()  # type: ignore[attr-defined]
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    counts["finished"] += 1


for number in rounds():
    threads = Threads()
    for each in range(4):
        threads.start(leave, each % 2 == 0)
    threads.join()
    while left_behind:
        threads.start(finish, left_behind.pop())
    if number % 5 == 0:
        threads.start(gc.collect)
    threads.join()
assert_no_loop_is_left()
done(**counts)
