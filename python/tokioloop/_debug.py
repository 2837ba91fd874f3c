"""What debug mode writes to asyncio's log, in asyncio's words."""

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
    """Report an event, for which there is no handle, by the one that asyncio would have.

    `subject` is a transport, or the tuple of what the method is called with.
    """
    if isinstance(subject, tuple):
        text = f"<Handle {method}({', '.join(map(repr, subject))})>"
    else:
        text = f"<Handle {method}() of {subject!r}{_of_protocol(subject)}>"
    _report(text, seconds)


def tell_of_connection(loop: TokioLoop, server: Any, address: Any, fd: int) -> None:
    """Say that a connection was accepted."""
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
    # As it is now: who replaces the module's logger sees what asyncio would tell it.
    asyncio.base_events.logger.warning("Executing %s took %.3f seconds", text, seconds)


def _of_protocol(transport: Any) -> str:
    """Whose methods a transport calls, unless it has told its protocol of the end."""
    from tokioloop.observe import describe

    protocol = describe.protocol_of(transport)
    return "" if protocol is None else f" with {type(protocol).__qualname__}"
