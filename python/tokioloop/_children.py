"""Watches child processes by pidfd, which needs no thread and no SIGCHLD handler.

If the system has no pidfds (macOS, some sandboxes), asyncio's own way remains: a thread for each
child. Everything here but `supported` is called on the loop's thread. A loop that is closed before
its children end closes their descriptors, on whichever thread that happens.
"""

from __future__ import annotations

import errno
import os
import sys
from asyncio import unix_events
from asyncio.log import logger
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokioloop.loop import TokioLoop

__all__ = ["supported", "watch"]
if sys.version_info >= (3, 14):
    __all__ += ["Watcher"]

# What asyncio reports for a child that somebody else has waited for.
_UNKNOWN_RETURNCODE = 255

# The system's answer, once it has been asked.
_supported: bool | None = None


def supported() -> bool:
    """Whether this system can watch and reap a process by descriptor (Linux 5.4).

    The system is asked once. If this process has no descriptor left to ask with, the child is
    watched in asyncio's way, and the next one asks again.
    """
    global _supported
    if _supported is None:
        try:
            _supported = _ask_system()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                return False
            _supported = False
    return _supported


def _ask_system() -> bool:
    if not hasattr(os, "pidfd_open") or not hasattr(os, "P_PIDFD"):
        return False
    pidfd = os.pidfd_open(os.getpid())
    try:
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        # The kernel has understood the question: a process is no child of itself.
        return True
    finally:
        os.close(pidfd)
    return True


if sys.version_info >= (3, 14):

    class Watcher(unix_events._ThreadedChildWatcher):  # type: ignore[name-defined]
        """What asyncio's loop asks to watch a child; before 3.14 it asks the policy."""

        def add_child_handler(self, pid: int, callback: Any, transport: Any) -> None:
            if supported():
                watch(transport._loop, transport)
            else:
                super().add_child_handler(pid, callback, transport)


def watch(loop: TokioLoop, transport: Any) -> None:
    """Tell the transport when its process ends, and reap the process.

    Raises OSError if descriptors have run out; the process is killed and reaped then.
    """
    pid = transport.get_pid()
    try:
        pidfd = _Pidfd(os.pidfd_open(pid))
        loop._add_reader(pidfd, _ended, loop, pidfd, pid, transport)
    except ProcessLookupError:
        # It has ended, and with SIGCHLD ignored the kernel keeps no status.
        loop.call_soon(_unknown, pid, transport)
        return
    except OSError:
        process = transport.get_extra_info("subprocess")
        transport.close()
        # close() has just killed it: this blocks the loop, but not for long.
        process.wait()
        raise


class _Pidfd:
    """The descriptor of a child, which is closed when its watch is gone."""

    __slots__ = ("_number",)

    def __init__(self, number: int) -> None:
        self._number = number

    def fileno(self) -> int:
        return self._number

    # A default, since the module `os` may be gone when this runs at the interpreter's end.
    def __del__(self, _close: Any = os.close) -> None:
        _close(self._number)


def _ended(loop: TokioLoop, pidfd: _Pidfd, pid: int, transport: Any) -> None:
    loop._remove_reader(pidfd)
    try:
        # By descriptor: if other code has waited for the child, its number may be that of
        # another one by now.
        result = os.waitid(os.P_PIDFD, pidfd.fileno(), os.WEXITED)
    except ChildProcessError:
        result = None
    if result is not None:
        exited = result.si_code == os.CLD_EXITED
        transport._process_exited(result.si_status if exited else -result.si_status)
    elif (known := transport.get_extra_info("subprocess").returncode) is not None:
        # The transport has polled the process first: its close() does, to see whether to kill.
        transport._process_exited(known)
    else:
        _unknown(pid, transport)


def _unknown(pid: int, transport: Any) -> None:
    logger.warning(
        "child process pid %d exit status already read: will report returncode %d",
        pid,
        _UNKNOWN_RETURNCODE,
    )
    transport._process_exited(_UNKNOWN_RETURNCODE)
