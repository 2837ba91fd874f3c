"""Threads cancel, look at and drop handles that the loop is about to run."""

from __future__ import annotations

import asyncio
import random
import threading

from tests.stress.races.support import Threads, done, rounds, running_loop

ran = 0
cancelled = 0
lock = threading.Lock()


class Payload:
    """An argument whose end can be seen: it must not be used after it."""

    alive = True

    def __del__(self) -> None:
        self.alive = False


def callback(payload: Payload, *_more: object) -> None:
    global ran
    assert payload.alive
    ran += 1


def look(handle: asyncio.Handle) -> None:
    repr(handle)
    args = handle._args  # type: ignore[attr-defined]
    assert not args or args[0].alive
    assert handle._callback in (callback, None)  # type: ignore[attr-defined]


def schedule_and_cancel(loop: asyncio.AbstractEventLoop, seed: int) -> None:
    global cancelled
    chance = random.Random(seed)
    for _ in rounds():
        more = [Payload()] * chance.choice((0, 1, 5))
        handles: list[asyncio.Handle] = [
            loop.call_soon_threadsafe(callback, Payload(), *more),
            loop.call_soon(callback, Payload(), *more),
            loop.call_later(chance.random() / 1000, callback, Payload(), *more),
        ]
        chance.shuffle(handles)
        for handle in handles[: chance.randrange(4)]:
            looker = threading.Thread(target=look, args=(handle,))
            if chance.random() < 0.02:
                looker.start()
                handle.cancel()
                looker.join()
            else:
                handle.cancel()
            look(handle)
            assert handle.cancelled()
            with lock:
                cancelled += 1


with running_loop() as loop:
    threads = Threads()
    for seed in range(3):
        threads.start(schedule_and_cancel, loop, seed)
    threads.join()
done(ran=ran, cancelled=cancelled)
