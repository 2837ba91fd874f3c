"""Reports of slow callbacks in production: what, which task, where, how long.

At most a few are written per second, and one per second of each kind: a service that is
slow everywhere must not drown in its own reports. Those that were left out are counted
in the next report of their kind.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable
from typing import Any

from tokioloop.observe import describe

__all__ = ["SlowCallback", "SlowReports", "hooks"]

_logger = logging.getLogger("tokioloop.slow")

# Seconds between two reports of one kind, and reports a second of all kinds.
_INTERVAL_OF_KIND = 1.0
_REPORTS_PER_SECOND = 10
# Most kinds that are remembered; a program with more makes up names as it runs.
_KINDS = 1000


hooks: list[Callable[[SlowCallback, Any], None]] = []
"""Called with each report of any loop and its task, None where it was no task's."""


@dataclasses.dataclass(frozen=True)
class SlowCallback:
    """A callback that has held the loop for longer than `slow_callback`."""

    name: str
    """The coroutine, function or protocol class that ran."""
    seconds: float
    task: str | None
    """The name of the task whose step it was."""
    line: str | None
    """Where the task's coroutine stands now: `file:line in function`."""
    suppressed: int
    """Reports of the same kind that were left out since the last one."""
    ended: float
    """`time.time()` at its end."""

    def __str__(self) -> str:
        text = f"{self.name} held the loop for {self.seconds:.3f} s"
        if self.task is not None:
            text += f", a step of task {self.task!r}"
            text += f", now at {self.line}" if self.line else ", which has ended"
        if self.suppressed:
            text += f" ({self.suppressed} more like it not reported)"
        return text


class SlowReports:
    """The reports of one loop."""

    def __init__(self) -> None:
        self._kinds: dict[str, tuple[float, int]] = {}
        self._second = 0
        self._written = 0

    def note(self, subject: Any, seconds: float) -> None:
        """Report a callback that has just ended, unless there are too many."""
        name = describe.name_of(subject)
        now = time.monotonic()
        last, suppressed = self._kinds.get(name, (-_INTERVAL_OF_KIND, 0))
        if now - last < _INTERVAL_OF_KIND or not self._may_write(int(now)):
            self._kinds[name] = (last, suppressed + 1)
            return
        if len(self._kinds) >= _KINDS:
            self._kinds.clear()
        self._kinds[name] = (now, 0)
        task = describe.task_of(subject)
        report = SlowCallback(
            name=name,
            seconds=seconds,
            task=task.get_name() if task is not None else None,
            line=describe.coroutine_line(task) if task is not None else None,
            suppressed=suppressed,
            ended=time.time(),
        )
        _logger.warning("%s", report)
        for hook in hooks:
            hook(report, task)

    def _may_write(self, second: int) -> bool:
        if second != self._second:
            self._second, self._written = second, 0
        self._written += 1
        return self._written <= _REPORTS_PER_SECOND
