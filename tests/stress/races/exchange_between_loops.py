"""Two loops send each other a call for each that they get, many at a time."""

from __future__ import annotations

import os

from tests.stress.races.support import Threads, done, new_loop

CALLS = int(os.environ.get("TOKIOLOOP_STRESS_CALLS", "200000"))
IN_FLIGHT = 64

loops = [new_loop() for _ in range(2)]
caught = [0, 0]
flying = IN_FLIGHT


def catch(side: int) -> None:
    """Runs on loop `side`: counts, and throws the ball back. A lost one hangs the program."""
    caught[side] += 1
    if caught[side] <= CALLS // 2:
        loops[1 - side].call_soon_threadsafe(catch, 1 - side)
    else:
        loops[0].call_soon_threadsafe(land)


def land() -> None:
    """Runs on the first loop, for each ball once: the last one ends both runs."""
    global flying
    flying -= 1
    if not flying:
        for loop in loops:
            loop.stop()


threads = Threads()
for _ in range(IN_FLIGHT):
    loops[0].call_soon_threadsafe(catch, 0)
for loop in loops:
    threads.start(loop.run_forever)


threads.join()
for loop in loops:
    loop.close()
done(calls=CALLS)
