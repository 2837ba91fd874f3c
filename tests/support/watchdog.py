"""A time limit per test, so that a loop that never wakes cannot stop the suite.

Two stages: SIGALRM raises `TestTimedOut` in the main thread, which a sound loop lets through, so
the test fails and the suite goes on; a loop that does not even do that is ended, with the stacks
of all threads, by faulthandler.
"""

from __future__ import annotations

import faulthandler
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

DEFAULT_LIMIT = 30.0
_GRACE = 15.0


class TestTimedOut(SystemExit):
    """A test ran past its limit; a kind of `SystemExit`, which callbacks let out of the loop."""

    __test__ = False


@contextmanager
def time_limit(seconds: float, stderr_fd: int) -> Iterator[None]:
    def on_alarm(_number: int, _frame: FrameType | None) -> None:
        raise TestTimedOut(f"the test ran for more than {seconds:g} s")

    previous = signal.signal(signal.SIGALRM, on_alarm)
    faulthandler.dump_traceback_later(seconds + _GRACE, exit=True, file=stderr_fd)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, previous)
