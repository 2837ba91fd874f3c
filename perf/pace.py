"""How fast this process's core runs Python at the moment, and samples taken at a usual pace.

For what is measured inside one Python process; see `host.py` for why.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from cells import Figures
from host import Range, undisturbed


def pace() -> float:
    """Nanoseconds for a fixed piece of Python, the shortest of some runs."""
    times = []
    for _ in range(RUNS):
        started = time.perf_counter_ns()
        for _ in range(STEPS):
            pass
        times.append(time.perf_counter_ns() - started)
    return float(min(times))


def survey(seconds: float) -> list[float]:
    """The pace, again and again, with pauses in which the host may do something else."""
    end = time.perf_counter() + seconds
    found = [pace()]
    while time.perf_counter() < end:
        time.sleep(PAUSE)
        found.append(pace())
    return found


def at_usual_pace(usual: Range | None, measure: Callable[[], float]) -> Figures:
    """Measure a rate, again where the pace before or after it is unusual, some times at most."""
    if usual is None:
        return {"rate": measure()}

    def sample() -> Figures:
        end = time.perf_counter() + LONGEST_WAIT
        while not (steady := usual.holds(pace())) and time.perf_counter() < end:
            pass
        rate = measure()
        return {"rate": rate, "undisturbed": steady and usual.holds(pace())}

    return undisturbed(sample)


RUNS = 4
STEPS = 5_000
PAUSE = 0.01
LONGEST_WAIT = 2.0
