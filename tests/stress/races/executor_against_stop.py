"""Results of executor threads arrive while the loop stops, starts again and closes."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor

from tests.stress.races.support import done, new_loop, rounds

arrived = 0
late = 0


def is_news(record: logging.LogRecord) -> bool:
    """asyncio asks whether the loop is closed, then calls it: it can close between the two."""
    error = record.exc_info[1] if record.exc_info else None
    return not (isinstance(error, RuntimeError) and str(error) == "Event loop is closed")


logging.getLogger("concurrent.futures").addFilter(is_news)


def count(future: asyncio.Future[int]) -> None:
    global arrived
    arrived += not future.cancelled()


with ThreadPoolExecutor(4) as pool:
    for number in rounds():
        loop = new_loop()
        futures = []
        for _ in range(10):
            for _ in range(4):
                future = loop.run_in_executor(pool, pow, 3, 300, 7)
                future.add_done_callback(count)
                futures.append(future)
            loop.call_soon(loop.stop)
            loop.run_forever()
        # Odd rounds close at once: the pool finds a closed loop, and says nothing of it, unless
        # the loop closes while it looks.
        if number % 2 == 0:
            loop.run_until_complete(asyncio.wait(futures))
        late += sum(not future.done() for future in futures)
        loop.close()
done(arrived=arrived, late=late)
