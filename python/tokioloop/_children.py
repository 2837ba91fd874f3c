"""Children are watched by pidfd: no thread, no SIGCHLD handler, any loop's thread.

Where the system has none (macOS, some sandboxes), asyncio's own way remains: a thread for each
child.
"""

from __future__ import annotations

import errno
import os
from asyncio.log import logger
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokioloop.loop import TokioLoop

__all__ = ["supported", "watch"]

# What asyncio reports for a child that somebody else has waited for.
UNKNOWN_RETURNCODE = 255


# What the system has answered.
_supported: bool | None = None


def supported() -> bool:
    """Whether this system can watch and reap a process by descriptor (Linux 5.4).

    It is asked once, but for a process that has no descriptor left to ask with: that child is
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
        # The kernel has understood the question: no child of its own.
        return True
    finally:
        os.close(pidfd)
    return True


def watch(loop: TokioLoop, transport: Any) -> None:
    """Tell the transport of its process's end; reaps the process.

    Raises OSError where descriptors have run out; the process is gone then.
    """
    pid = transport.get_pid()
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        # It has ended, and with SIGCHLD ignored the kernel keeps no status.
        loop.call_soon(_unknown, pid, transport)
        return
    except OSError:
        process = transport.get_extra_info("subprocess")
        transport.close()
        process.wait()
        raise
    loop._add_reader(pidfd, _ended, loop, pidfd, pid, transport)


def _ended(loop: TokioLoop, pidfd: int, pid: int, transport: Any) -> None:
    loop._remove_reader(pidfd)
    try:
        # By descriptor: where somebody else has waited for the child, its number
        # may be that of another one by now.
        result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    except ChildProcessError:
        result = None
    finally:
        os.close(pidfd)
    if result is None:
        _unknown(pid, transport)
    elif result.si_code == os.CLD_EXITED:
        transport._process_exited(result.si_status)
    else:
        transport._process_exited(-result.si_status)


def _unknown(pid: int, transport: Any) -> None:
    logger.warning(
        "child process pid %d exit status already read: will report returncode %d",
        pid,
        UNKNOWN_RETURNCODE,
    )
    transport._process_exited(UNKNOWN_RETURNCODE)
