"""`loop.sendfile` on a stream transport: sendfile(2) on the transport's own descriptor.

The transport waits for room with its own registration, so the descriptor is neither
duplicated nor watched by anything else.
"""

from __future__ import annotations

import asyncio
import errno
import inspect
import io
import os
import sys
from asyncio import exceptions
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokioloop._transports import SocketTransport
    from tokioloop.loop import TokioLoop

__all__ = ["sendfile"]

# asyncio's limit for one call, in bytes: a length that every platform takes.
LONGEST = sys.maxsize // 2 + 1

# Before 3.14 it takes the number of bytes sent as well, and does nothing if that is 0.
_update_position: Any = asyncio.SelectorEventLoop._sock_sendfile_update_filepos
_takes_count = "total_sent" in inspect.signature(_update_position).parameters


async def sendfile(
    loop: TokioLoop, transport: SocketTransport, file: Any, offset: int, count: int | None
) -> int:
    """Send a part of a file after what is queued; return the number of bytes sent.

    Meanwhile the transport neither reads nor accepts writes. However this ends, the
    transport is as it was before, and the file's position is after the last byte sent.
    Raises SendfileNotAvailableError, before anything is sent, if `file` is no file, and
    ConnectionError if the transport is closed meanwhile.
    """
    resume_reading = transport.is_reading()
    transport.pause_reading()
    waiter = transport._make_empty_waiter()
    try:
        await waiter
        _check_open(transport)
        loop._check_sendfile_params(transport._sock, file, offset, count)
        return await _send(loop, transport, file, offset, count)
    finally:
        transport._reset_empty_waiter()
        if resume_reading:
            transport.resume_reading()


async def _send(
    loop: TokioLoop, transport: SocketTransport, file: Any, offset: int, count: int | None
) -> int:
    size = _size(file)
    sock: Any = transport._sock  # an open transport has one
    left = count if count else size
    if not left:
        return 0
    sent = 0
    try:
        while True:
            _check_open(transport)
            # Asked for each time: a file that was closed meanwhile raises, and another one
            # that has its number by now is not sent. The socket may have been closed as
            # well, behind the transport's back.
            number = file.fileno()
            try:
                step = os.sendfile(sock.fileno(), number, offset, min(left, LONGEST))
            except (BlockingIOError, InterruptedError):
                await transport._wait_for_room()
                continue
            except OSError as error:
                if not sent:
                    # Most likely the call does not support this kind of file.
                    raise exceptions.SendfileNotAvailableError("os.sendfile call failed") from None
                if error.errno == errno.ENOTCONN:
                    raise ConnectionError("socket is not connected", errno.ENOTCONN) from error
                raise
            offset += step
            sent += step
            if count:
                left -= step
            if not (step and left):
                return sent
            # A fast peer must not starve the other connections.
            await asyncio.sleep(0)
    finally:
        _move_position(loop, file, offset, sent)


def _check_open(transport: SocketTransport) -> None:
    if transport.is_closing():
        # asyncio's message, whichever side has closed it.
        raise ConnectionError("Connection is closed by peer")


def _size(file: Any) -> int:
    """Return the size of a file that has a descriptor."""
    if not hasattr(os, "sendfile"):
        raise exceptions.SendfileNotAvailableError("os.sendfile() is not available")
    try:
        number = file.fileno()
    except (AttributeError, io.UnsupportedOperation):
        raise exceptions.SendfileNotAvailableError("not a regular file") from None
    try:
        return os.fstat(number).st_size
    except OSError:
        raise exceptions.SendfileNotAvailableError("not a regular file") from None


def _move_position(loop: Any, file: Any, offset: int, sent: int) -> None:
    """Move the file's position after what was sent, for programs that read on from there."""
    try:
        number = file.fileno()
    except ValueError:
        return  # closed meanwhile
    count = (sent,) if _takes_count else ()
    loop._sock_sendfile_update_filepos(number, offset, *count)
