"""Several threads want to run one loop at once: one does, the others are told, nothing is lost."""

from __future__ import annotations

import threading
import time

import tokioloop

from tests.stress.races.support import Threads, done, new_loop, rounds

counts = {"runs": 0, "refused": 0}
lock = threading.Lock()


def start(loop: tokioloop.TokioLoop, barrier: threading.Barrier) -> None:
    barrier.wait()
    try:
        loop.run_forever()
    except RuntimeError as error:
        assert "already running" in str(error), error
        with lock:
            counts["refused"] += 1
    else:
        with lock:
            counts["runs"] += 1


for _ in rounds():
    loop = new_loop()
    barrier = threading.Barrier(3)
    threads = Threads()
    for _ in range(3):
        threads.start(start, loop, barrier)
    # Who comes after the winner has stopped runs it again, which is allowed.
    while threads.are_alive():
        loop.stop()
        time.sleep(0.0005)
    threads.join()
    assert not loop.is_running()
    loop.close()
done(runs=counts["runs"])
