"""The cold half of the transports: code that runs once per connection at most."""

from __future__ import annotations

import asyncio
import warnings
from asyncio import constants, format_helpers
from typing import Any

from tokioloop import _core

__all__ = ["DatagramTransport", "SocketTransport"]


@_core.own_methods
class SocketTransport(_core.StreamTransport):
    """A TCP or Unix stream; `_core.StreamTransport` moves its data."""

    __slots__ = ()

    _start_tls_compatible = True
    _sendfile_compatible = constants._SendfileMode.TRY_NATIVE
    max_size = 256 * 1024

    def __repr__(self) -> str:
        return _describe(self, "_SelectorSocketTransport")

    def _warn_of_abandoned(self, _warn: Any = warnings.warn) -> None:
        if _is_abandoned(self):
            _warn(f"unclosed transport {self!r}", ResourceWarning, source=self)
            if self._sock is not None:
                self._sock.close()


@_core.own_methods
class DatagramTransport(_core.DatagramTransport, asyncio.DatagramTransport):
    """A datagram socket; `_core.DatagramTransport` moves its data.

    It is an `asyncio.Transport` as well, because asyncio's own is one.
    """

    __slots__ = ()

    max_size = 256 * 1024

    def __repr__(self) -> str:
        return _describe(self, "_SelectorDatagramTransport")

    def _warn_of_abandoned(self, _warn: Any = warnings.warn) -> None:
        if _is_abandoned(self):
            _warn(f"unclosed transport {self!r}", ResourceWarning, source=self)
            if self._sock is not None:
                self._sock.close()

    def _callback_failed(self, name: str, exc: BaseException) -> None:
        """Report an exception as asyncio would: as that of a handle of the method."""
        callback = getattr(self, name)
        description = format_helpers._format_callback_source(callback, ())
        handle = asyncio.Handle(callback, (), self._loop)
        context = {
            "message": f"Exception in callback {description}",
            "exception": exc,
            "handle": handle,
        }
        if handle._source_traceback:
            del handle._source_traceback[-1]  # this method
            context["source_traceback"] = handle._source_traceback
        self._loop.call_exception_handler(context)


def _describe(transport: Any, name: str) -> str:
    """Return the `repr` of asyncio's own transports, which programs log and search."""
    try:
        finished = transport._finished
    except RuntimeError:
        # Any thread may log the transport, but only the loop's may read its state.
        return f"<{name} of another thread>"
    info = [name]
    if finished:
        info.append("closed")
    elif transport._closing:
        info.append("closing")
    info.append(f"fd={transport._sock_fd}")
    if not finished and not transport._loop.is_closed():
        info.append("read=polling" if transport._polling else "read=idle")
        state = "polling" if transport._blocked else "idle"
        info.append(f"write=<{state}, bufsize={transport.get_write_buffer_size()}>")
    return f"<{' '.join(info)}>"


def _is_abandoned(transport: Any) -> bool:
    """Whether a transport that is being deallocated was never closed."""
    try:
        return not transport._finished
    except RuntimeError:
        # It was never filled, or is dropped on a thread that may not read its state. The
        # descriptor is closed with the object either way.
        return False
