"""The loop's own operations, without sockets: callbacks, timers, tasks, futures, threads.

Prints one JSON object per row, `{"row": …, "rate": operations per second}`, as soon as it
is measured, so that a loop which hangs in one row still shows the others.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import os
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

import pace
import server
from host import Range


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--loop", required=True)
    parser.add_argument("--seconds", type=float, default=0.3, help="per row")
    parser.add_argument("--core", type=int, help="bind the process to this core")
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--survey", type=float, metavar="S", help="print the pace for S seconds")
    parser.add_argument("--usual", type=json.loads, help="the pace to measure at, from host.py")
    arguments = parser.parse_args()
    if arguments.survey is not None:
        if arguments.core is not None:
            os.sched_setaffinity(0, {arguments.core})
        print(json.dumps(pace.survey(arguments.survey)))
        return
    usual = Range(**arguments.usual) if arguments.usual else None
    cores = os.sched_getaffinity(0)
    loop = server.prepared_loop(arguments.loop, arguments.core)
    for row in arguments.rows.split(","):
        # Other threads would otherwise share the loop's core and measure the scheduler.
        if row in THREADED and arguments.core is not None:
            os.sched_setaffinity(0, cores)
        try:
            measure = functools.partial(measured, loop, row, arguments.seconds)
            result = pace.at_usual_pace(usual, measure)
        except Exception as error:
            result = {"failure": f"{type(error).__name__}: {error}"}
        print(json.dumps({"row": row, **result}), flush=True)
        if arguments.core is not None:
            os.sched_setaffinity(0, {arguments.core})


def measured(loop: asyncio.AbstractEventLoop, row: str, seconds: float) -> float:
    """The rate of a row on a loop."""
    return loop.run_until_complete(rate_of(ROWS[row], seconds))


Batch = Callable[[int], Awaitable[None]]


async def rate_of(batch: Batch, seconds: float) -> float:
    """Operations per second: the size of a batch is grown until it lasts the whole time."""
    count = 200
    await batch(count)
    while True:
        started = time.perf_counter()
        await batch(count)
        elapsed = time.perf_counter() - started
        if elapsed >= 0.8 * seconds:
            return count / elapsed
        growth = min(10.0, 1.1 * seconds / max(elapsed, 1e-6))
        count = max(count + 100, int(count * growth) // 100 * 100)


async def call_soon_chain(count: int) -> None:
    """Each callback schedules the next."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    left = count

    def step() -> None:
        nonlocal left
        left -= 1
        if left > 0:
            loop.call_soon(step)
        else:
            done.set_result(None)

    loop.call_soon(step)
    await done


async def call_soon_burst(count: int) -> None:
    """Many callbacks with one argument are scheduled at once and run in one go."""
    loop = asyncio.get_running_loop()
    for _ in range(count // 100):
        done = loop.create_future()
        for _ in range(99):
            loop.call_soon(id, None)
        loop.call_soon(done.set_result, None)
        await done


async def call_later_cancel(count: int) -> None:
    """Timers that never fire, as time-outs usually are."""
    loop = asyncio.get_running_loop()
    for _ in range(count // 100):
        handles = [loop.call_later(60.0, id, None) for _ in range(100)]
        for handle in handles:
            handle.cancel()
        await asyncio.sleep(0)


async def sleep_zero(count: int) -> None:
    """A task gives way."""
    for _ in range(count):
        await asyncio.sleep(0)


async def gather_100(count: int) -> None:
    """A hundred tasks are made and awaited together; counted per task."""
    for _ in range(count // 100):
        await asyncio.gather(*[nothing() for _ in range(100)])


async def future_wake_up(count: int) -> None:
    """A task waits for a future that a callback completes."""
    loop = asyncio.get_running_loop()
    for _ in range(count):
        future = loop.create_future()
        loop.call_soon(future.set_result, None)
        await future


async def wait_for(count: int) -> None:
    """A wait with a time-out that does not strike."""
    loop = asyncio.get_running_loop()
    for _ in range(count):
        future = loop.create_future()
        loop.call_soon(future.set_result, None)
        await asyncio.wait_for(future, 60.0)


async def call_soon_threadsafe_4(count: int) -> None:
    """Four threads schedule callbacks as fast as they can."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    each = count // 4
    left = 4 * each

    def received() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            done.set_result(None)

    def send() -> None:
        for _ in range(each):
            loop.call_soon_threadsafe(received)

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    await done
    for thread in threads:
        thread.join()


async def executor_round_trip(count: int) -> None:
    """A function is run in a thread and its result awaited."""
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1) as pool:
        for _ in range(count):
            await loop.run_in_executor(pool, id, None)


async def nothing() -> None:
    """A coroutine that is done at once."""


ROWS: dict[str, Batch] = {
    "call_soon chain": call_soon_chain,
    "call_soon burst": call_soon_burst,
    "call_later + cancel": call_later_cancel,
    "sleep(0)": sleep_zero,
    "gather of 100 tasks": gather_100,
    "future wake-up": future_wake_up,
    "wait_for": wait_for,
    "call_soon_threadsafe from 4 threads": call_soon_threadsafe_4,
    "executor round trip": executor_round_trip,
}

THREADED = frozenset({"call_soon_threadsafe from 4 threads", "executor round trip"})


if __name__ == "__main__":
    main()
