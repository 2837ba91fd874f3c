"""Every loop of this process; a forked child has those that it makes itself."""

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
    """Return every loop of this process that there is.

    Copying the set is one step, which loops that other threads make meanwhile
    cannot disturb; iterating over it would be many.
    """
    return [loop for reference in _loops.copy() if (loop := reference()) is not None]


def _disown_loops() -> None:
    """In a forked child: every loop belongs to the parent, and so do the signals it handles.

    What is asked of all loops, who still wants a signal among it, is asked of the child's own.
    """
    for loop in all_loops():
        loop._disown()
        # What would wake it would wake the parent.
        loop._signal_fd = -1
    _loops.clear()


os.register_at_fork(after_in_child=_disown_loops)
