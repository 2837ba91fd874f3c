"""Reports a stall while it lasts: one thread watches a loop's pulse.

The loop stores one number per turn and pays nothing else. The watcher is a Python thread:
while C code keeps the GIL, the report has to wait for it, and then says for how long.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable

from tokioloop import _core

__all__ = ["Stall", "StallWatcher"]

_logger = logging.getLogger("tokioloop.stall")

# How often the pulse is read per timeout: a stall is reported that part of it late at most.
_LOOKS_PER_TIMEOUT = 4
# Seconds for which the CPU time of threads is measured, to see which of them computes.
_SAMPLE = 0.02
# How often: one measurement may find the thread that holds the GIL off its processor.
_SAMPLES = 3
# Most seconds that the end of a run waits for a hook that still runs.
_FAREWELL = 1.0
# Seconds; a longer wait for the GIL means that another thread had to be asked for it.
_GIL_CONTENDED = 0.003


@dataclasses.dataclass(frozen=True)
class Stall:
    """What held a loop up."""

    seconds: float
    """How long it has lasted by now."""
    stack: tuple[str, ...]
    """The loop thread's Python stack, outermost first, one entry a frame."""
    task: str | None
    """The task that runs."""
    gil: str
    """Who holds the GIL, as far as it can be told from outside."""

    def __str__(self) -> str:
        what = f"task {self.task!r}" if self.task else "a callback"
        return (
            f"the loop has stood still for {self.seconds:.2f} s in {what}; {self.gil}\n"
            + "".join(self.stack).rstrip()
        )


class StallWatcher:
    """Watches one run of a loop from a thread of its own."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        timeout: float,
        on_stall: Callable[[Stall], object] | None,
    ) -> None:
        self._loop = loop
        self._timeout = timeout
        self._on_stall = on_stall
        self._thread_id = threading.get_ident()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="tokioloop-stall", daemon=True)

    def start(self) -> None:
        """Begin; called by the thread that runs the loop."""
        self._thread.start()

    def stop(self) -> None:
        """End with the run. A hook that still runs is waited for briefly."""
        self._over.set()
        self._thread.join(min(self._timeout, _FAREWELL))

    def _watch(self) -> None:
        interval = self._timeout / _LOOKS_PER_TIMEOUT
        seen = _core.pulse(self._loop)
        since = time.monotonic()
        report_at = self._timeout
        began = since
        while not self._over.wait(interval):
            now = time.monotonic()
            waited_for_gil = now - began - interval
            pulse = _core.pulse(self._loop)
            if pulse != seen or pulse % 2 == 0:
                if pulse != seen and waited_for_gil >= self._timeout:
                    _logger.error(
                        "a thread kept the GIL, and all others waiting, for %.2f s", waited_for_gil
                    )
                if report_at > self._timeout:
                    _logger.warning("the loop runs again after %.2f s", now - since)
                seen, since, report_at = pulse, now, self._timeout
            elif now - since >= report_at:
                # Reported again each time that it has lasted twice as long.
                report_at = (now - since) * 2
                self._report(now - since, waited_for_gil)
            began = time.monotonic()

    def _report(self, seconds: float, waited_for_gil: float) -> None:
        frame = sys._current_frames().get(self._thread_id)
        stack = tuple(traceback.format_stack(frame)) if frame is not None else ()
        del frame
        stall = Stall(seconds, stack, self._task(), self._gil(waited_for_gil))
        _logger.error("%s", stall)
        if self._on_stall is not None:
            try:
                self._on_stall(stall)
            except BaseException:
                # SystemExit, too: it would end this thread, and the watch with it.
                _logger.exception("on_stall failed")

    def _task(self) -> str | None:
        task = asyncio.current_task(self._loop)
        if task is None:
            return None
        return f"{task.get_name()} ({getattr(task.get_coro(), '__qualname__', '?')})"

    def _gil(self, waited: float) -> str:
        if not getattr(sys, "_is_gil_enabled", lambda: True)():
            return "there is no GIL"
        before = _cpu_times()
        for _ in range(_SAMPLES):
            began = time.monotonic()
            time.sleep(_SAMPLE)
            waited = max(waited, time.monotonic() - began - _SAMPLE)
            if waited >= _GIL_CONTENDED:
                break
        if waited < _GIL_CONTENDED:
            return "nobody holds the GIL, so its thread waits in a call that gave it up"
        used = {
            ident: seconds - before.get(ident, seconds) for ident, seconds in _cpu_times().items()
        }
        used.pop(threading.get_ident(), None)
        busiest = max(used, key=used.__getitem__, default=None)
        if busiest is None or used[busiest] <= 0:
            holder = "a thread"
        elif busiest == self._thread_id:
            holder = "its own thread"
        else:
            names = {thread.ident: thread.name for thread in threading.enumerate()}
            holder = f"thread {names.get(busiest, busiest)!r}"
        return f"{holder} holds the GIL and let it go after {waited * 1000:.0f} ms when asked"


def _cpu_times() -> dict[int, float]:
    """Return the CPU seconds of each thread by its identity, if the system reports them."""
    clock_of = getattr(time, "pthread_getcpuclockid", None)
    times: dict[int, float] = {}
    if clock_of is None:
        return times
    for thread in threading.enumerate():
        if thread.ident is not None:
            try:
                times[thread.ident] = time.clock_gettime(clock_of(thread.ident))
            except OSError:
                continue  # It has ended meanwhile.
    return times
