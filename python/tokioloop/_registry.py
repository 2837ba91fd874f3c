"""Every loop of this process; in a forked child only those that the child has made."""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokioloop.loop import TokioLoop

__all__ = ["all_loops", "register"]

_loops: set[weakref.ref[TokioLoop]] = set()


def register(loop: TokioLoop) -> None:
    """Note a loop that was just made."""
    _loops.add(weakref.ref(loop, _loops.discard))


def all_loops() -> list[TokioLoop]:
    """Return every loop of this process that still exists.

    Copying the set is atomic; an iteration over it would fail if another thread made a
    loop meanwhile.
    """
    return [loop for reference in _loops.copy() if (loop := reference()) is not None]


def _disown_loops() -> None:
    """In a forked child: every loop belongs to the parent, and so do the signals it handles.

    From now on `all_loops` has the child's own only, also for the search for a signal's handler.
    """
    for loop in all_loops():
        loop._disown()
        # A write to its socket would wake the parent.
        loop._signal_fd = -1
    _loops.clear()


os.register_at_fork(after_in_child=_disown_loops)
