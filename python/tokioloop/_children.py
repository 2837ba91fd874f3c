"""Children are watched by pidfd: no thread, no SIGCHLD handler, any loop's thread."""

from __future__ import annotations

import os
from asyncio.log import logger
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokioloop.loop import TokioLoop

__all__ = ["supported", "watch"]

# What asyncio reports for a child that somebody else has waited for.
UNKNOWN_RETURNCODE = 255


@cache
def supported() -> bool:
    """Whether this system can watch a process by descriptor (Linux 5.3)."""
    if not hasattr(os, "pidfd_open"):
        return False
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:
        return False
    return True


def watch(loop: TokioLoop, transport: Any) -> None:
    """Tell the transport of its process's end; reaps the process."""
    pid = transport.get_pid()
    pidfd = os.pidfd_open(pid)
    loop._add_reader(pidfd, _ended, loop, pidfd, pid, transport)


def _ended(loop: TokioLoop, pidfd: int, pid: int, transport: Any) -> None:
    loop._remove_reader(pidfd)
    os.close(pidfd)
    try:
        _, status = os.waitpid(pid, 0)
    except ChildProcessError:
        returncode = UNKNOWN_RETURNCODE
        logger.warning(
            "child process pid %d exit status already read: will report returncode 255", pid
        )
    else:
        returncode = os.waitstatus_to_exitcode(status)
    transport._process_exited(returncode)
