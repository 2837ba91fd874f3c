"""What a test may not leave behind: open descriptors and children."""

from __future__ import annotations

import gc
import os
import sys
import time
from pathlib import Path

_FD_DIRECTORY = "/proc/self/fd" if sys.platform == "linux" else "/dev/fd"
_SETTLE_SECONDS = 1.0


def open_descriptors() -> dict[int, str]:
    """Every open descriptor of this process, with what it refers to."""
    found = {}
    for name in os.listdir(_FD_DIRECTORY):
        path = f"{_FD_DIRECTORY}/{name}"
        try:
            found[int(name)] = os.readlink(path) if sys.platform == "linux" else path
            os.fstat(int(name))
        except OSError:  # the directory's own descriptor, closed by now
            found.pop(int(name), None)
    return found


def leaked_descriptors(before: dict[int, str]) -> dict[int, str]:
    """Descriptors opened since `before` and still open once garbage and threads have gone.

    The wait is for other threads only (an executor's worker that is about to end); a process
    without a leak never waits.
    """
    deadline = time.monotonic() + _SETTLE_SECONDS
    while True:
        gc.collect()
        leaked = {fd: what for fd, what in open_descriptors().items() if before.get(fd) != what}
        if not leaked or time.monotonic() >= deadline:
            return leaked
        time.sleep(0.01)


def children_of_this_process() -> set[str]:
    """The numbers of its children, zombies included; other tests keep servers. Linux only."""
    if sys.platform != "linux":
        return set()
    tasks = Path("/proc/self/task").iterdir()
    return {pid for task in tasks for pid in (task / "children").read_text().split()}
