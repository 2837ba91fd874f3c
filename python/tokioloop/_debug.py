"""What debug mode writes to asyncio's log, with asyncio's messages."""

from __future__ import annotations

import asyncio
import asyncio.base_events
import asyncio.selector_events
import logging
import socket
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokioloop.loop import TokioLoop

__all__ = ["report_slow_callback", "report_slow_event", "tell_of_connection"]


def report_slow_callback(loop: TokioLoop, handle: asyncio.Handle, seconds: float) -> None:
    """Report the callback of a handle."""
    _report(asyncio.base_events._format_handle(handle), seconds)


def report_slow_event(loop: TokioLoop, method: str, subject: Any, seconds: float) -> None:
    """Report an event, which has no handle, as the handle that asyncio would have for it.

    `subject` is a transport, or the tuple of the method's arguments.
    """
    if isinstance(subject, tuple):
        text = f"<Handle {method}({', '.join(map(repr, subject))})>"
    else:
        text = f"<Handle {method}() of {subject!r}{_of_protocol(subject)}>"
    _report(text, seconds)


def tell_of_connection(loop: TokioLoop, server: Any, address: Any, fd: int) -> None:
    """Log that a connection was accepted."""
    logger = asyncio.selector_events.logger
    if not logger.isEnabledFor(logging.DEBUG):
        return
    connection = socket.socket(fileno=fd)
    try:
        text = repr(connection)
    finally:
        connection.detach()  # the transport will own the descriptor
    logger.debug("%r got a new connection from %r: %s", server, address, text)


def _report(text: str, seconds: float) -> None:
    # Looked up each time: a logger that replaces asyncio's gets the report as well.
    asyncio.base_events.logger.warning("Executing %s took %.3f seconds", text, seconds)


def _of_protocol(transport: Any) -> str:
    """Name the protocol of a transport, unless that was told of the connection's end."""
    from tokioloop.observe import describe

    protocol = describe.protocol_of(transport)
    return "" if protocol is None else f" with {type(protocol).__qualname__}"
