"""Views of the reactor, in place of the private attributes of asyncio's loop.

Libraries read `len(loop._ready)`, and CPython's own code `_scheduled` and `_selector`; the queue,
the timers and the watches themselves are in the reactor. While a loop runs, only its thread may
read them: another one gets a RuntimeError.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokioloop.loop import TokioLoop

__all__ = ["ReadyQueue", "ScheduledTimers", "WatchedDescriptors"]


class ReadyQueue:
    """`loop._ready`: the handles that are due."""

    def __init__(self, loop: TokioLoop) -> None:
        self._loop = loop

    def __len__(self) -> int:
        return self._loop._ready_count()

    def __iter__(self) -> Iterator[asyncio.Handle]:
        return iter(self._loop._ready_handles())

    def __contains__(self, handle: object) -> bool:
        return any(each is handle for each in self)

    def append(self, handle: asyncio.Handle) -> None:
        self._loop._add_callback(handle)

    def clear(self) -> None:
        self._loop._clear_ready()


class ScheduledTimers:
    """`loop._scheduled`: the handles of all timers, the earliest first."""

    def __init__(self, loop: TokioLoop) -> None:
        self._loop = loop

    def __len__(self) -> int:
        return len(self._loop._timer_handles())

    def __iter__(self) -> Iterator[asyncio.TimerHandle]:
        return iter(sorted(self._loop._timer_handles()))

    def __getitem__(self, index: int) -> asyncio.TimerHandle:
        return sorted(self._loop._timer_handles())[index]

    def clear(self) -> None:
        self._loop._clear_timers()


class WatchedDescriptors:
    """`loop._selector`: what `add_reader` and `add_writer` watch."""

    def __init__(self, loop: TokioLoop) -> None:
        self._loop = loop

    def get_key(self, fileobj: int) -> selectors.SelectorKey:
        """Return the key of a watched descriptor; raise KeyError if it is not watched.

        Another thread than the loop's gets a KeyError as well: the `repr` of asyncio's pipes
        calls this, and any thread may log it.
        """
        try:
            reader, writer = self._loop._watched(fileobj)
        except RuntimeError as error:
            raise KeyError(f"{fileobj!r} is not known here") from error
        events = selectors.EVENT_READ * (reader is not None)
        events |= selectors.EVENT_WRITE * (writer is not None)
        if not events:
            raise KeyError(f"{fileobj!r} is not registered")
        return selectors.SelectorKey(fileobj, fileobj, events, (reader, writer))

    def get_map(self) -> Mapping[int, selectors.SelectorKey]:
        return _KeyMap(self)

    def close(self) -> None:
        """The reactor is closed with its loop."""


class _KeyMap(Mapping[int, selectors.SelectorKey]):
    """The keys of a loop's watches by descriptor."""

    def __init__(self, watched: WatchedDescriptors) -> None:
        self._watched = watched

    def __getitem__(self, fileobj: int) -> selectors.SelectorKey:
        return self._watched.get_key(fileobj)

    def __iter__(self) -> Iterator[int]:
        return iter(self._watched._loop._watched_descriptors())

    def __len__(self) -> int:
        return len(self._watched._loop._watched_descriptors())
