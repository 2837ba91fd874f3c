"""Waiting for a state that only the other side knows, so that no event can announce it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

_POLL_INTERVAL = 0.005  # seconds


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Ask again and again; the test's own time limit ends a wait for what never comes."""
    while not await condition():
        await asyncio.sleep(_POLL_INTERVAL)
