"""Threads schedule by every way there is while the loop stops and closes."""

from __future__ import annotations

import tokioloop

from tests.stress.races.support import Threads, assert_no_loop_is_left, done, new_loop, rounds

counts = {"scheduled": 0, "refused": 0}


def schedule(loop: tokioloop.TokioLoop) -> None:
    scheduled = 0
    try:
        while True:
            loop.call_soon_threadsafe(int)
            loop.call_soon(int)
            loop.call_later(0.001, int).cancel()
            scheduled += 1
    except RuntimeError as error:
        assert str(error) == "Event loop is closed", error
        counts["refused"] += 1
    counts["scheduled"] += scheduled


for _ in rounds():
    loop = new_loop()
    threads = Threads()
    for _ in range(3):
        threads.start(schedule, loop)
    loop.call_soon(loop.call_soon, loop.stop)
    loop.run_forever()
    loop.close()
    threads.join()
del loop, threads
assert_no_loop_is_left()
done(**counts)
