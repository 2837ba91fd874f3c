"""What the races share: how long one lasts, threads that report what they raise, a loop to hit.

A race ends after a time, not after a number of rounds, so that it takes as long on any machine and
under valgrind. `TOKIOLOOP_STRESS_SECONDS` sets it.
"""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import tokioloop

SECONDS = float(os.environ.get("TOKIOLOOP_STRESS_SECONDS", "1.5"))
_started = time.monotonic()


def rounds() -> Iterator[int]:
    """Counts rounds until the time of the race is over; there is one at least."""
    number = 0
    while number == 0 or time.monotonic() - _started < SECONDS:
        yield number
        number += 1


class Threads:
    """Threads that all have to end well: `join` raises what the first of them raised."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []
        self._errors: list[BaseException] = []

    def start(self, function: Callable[..., Any], *args: Any) -> None:
        def guarded() -> None:
            try:
                function(*args)
            except BaseException as error:
                self._errors.append(error)

        thread = threading.Thread(target=guarded)
        self._threads.append(thread)
        thread.start()

    def are_alive(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def join(self) -> None:
        for thread in self._threads:
            thread.join()
        self._threads.clear()
        if self._errors:
            raise self._errors[0]


def new_loop() -> tokioloop.TokioLoop:
    """A loop out of debug mode, which development mode would set: wrong threads are let through."""
    loop = tokioloop.new_event_loop()
    loop.set_debug(False)
    return loop


def run(main: Coroutine[Any, Any, Any]) -> None:
    tokioloop.run(main, debug=False)


@contextmanager
def running_loop() -> Iterator[tokioloop.TokioLoop]:
    """A loop that runs in a thread of its own; stopped and closed in the end."""
    loop = new_loop()
    loop.set_exception_handler(unexpected)
    threads = Threads()
    threads.start(loop.run_forever)
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        threads.join()
        loop.close()


def unexpected(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """An exception handler for races in which no callback may fail."""
    print("unexpected:", context, flush=True)
    os._exit(3)


def assert_no_loop_is_left() -> None:
    gc.collect()
    left = sum(isinstance(thing, tokioloop.TokioLoop) for thing in gc.get_objects())
    assert left == 0, f"{left} loops were not collected"


def done(**counts: int) -> None:
    """The last word of a race, with what it has counted: nothing happened if any is 0."""
    print("done", *(f"{name}={count}" for name, count in counts.items()))
    idle = [name for name, count in counts.items() if not count]
    if idle:
        raise SystemExit(f"the race did not take place: no {', '.join(idle)}")
