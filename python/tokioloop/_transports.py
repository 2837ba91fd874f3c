"""The cold half of the transports: what runs per connection at most."""

from __future__ import annotations

import warnings
from asyncio import constants
from typing import Any

from tokioloop import _core

__all__ = ["SocketTransport"]


class SocketTransport(_core.StreamTransport):
    """A TCP or Unix stream; `_core.StreamTransport` moves its data."""

    __slots__ = ()

    _start_tls_compatible = True
    _sendfile_compatible = constants._SendfileMode.TRY_NATIVE
    max_size = 256 * 1024

    def __repr__(self) -> str:
        info = ["_SelectorSocketTransport"]
        try:
            finished = self._finished
        except RuntimeError:
            # A log line in another thread may show any object; the state is the loop's.
            return "<_SelectorSocketTransport of another thread>"
        if finished:
            info.append("closed")
        elif self._closing:
            info.append("closing")
        info.append(f"fd={self._sock_fd}")
        if not self._loop.is_closed():
            info.append("read=polling" if self._polling else "read=idle")
            state = "polling" if self._blocked else "idle"
            info.append(f"write=<{state}, bufsize={self.get_write_buffer_size()}>")
        return f"<{' '.join(info)}>"

    def __del__(self, _warn: Any = warnings.warn) -> None:
        try:
            open_ = not self._finished
        except RuntimeError:
            # Never filled, or dropped by a thread that must not look: the
            # descriptor is closed with the object either way.
            return
        if open_:
            _warn(f"unclosed transport {self!r}", ResourceWarning, source=self)
