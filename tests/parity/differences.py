"""Where tokioloop is not as asyncio, because asyncio is wrong: the right behaviour and the reason.

An entry is consulted only on the versions that have the defect, and fails there when asyncio
turns out to be right after all: the table never outlives the bugs it lists.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .harness import Event, Outcome


@dataclass(frozen=True)
class Difference:
    """`events` maps the label of an event to the values it should have had.

    A value of `REMOVED` takes the event out. `log`, `warned`: the whole list, when it differs too.
    """

    probe: str
    reason: str
    events: dict[str, Any]
    when: Callable[[], bool] = lambda: True
    log: list[Event] | None = None
    warned: list[Event] | None = None


REMOVED = object()


def corrected(probe: str, reference: Outcome) -> Outcome:
    """The outcome that is right for `probe`, made from what asyncio did."""
    for difference in DIFFERENCES:
        if difference.probe == probe and difference.when():
            right = _apply(difference, reference)
            if right == reference:
                raise AssertionError(f"asyncio has no such defect here: {difference.reason}")
            return right
    return reference


def _apply(difference: Difference, reference: Outcome) -> Outcome:
    events: list[Event] = []
    left = dict(difference.events)
    for event in reference.events:
        right = left.pop(event[0], event[1:])
        if right is not REMOVED:
            events.append((event[0], *right))
    events += [(label, *right) for label, right in left.items() if right is not REMOVED]
    return Outcome(
        events=events,
        log=reference.log if difference.log is None else difference.log,
        warned=reference.warned if difference.warned is None else difference.warned,
        unraisable=reference.unraisable,
        descriptors_left=0,
    )


def between(first: tuple[int, ...], last: tuple[int, ...]) -> Callable[[], bool]:
    """Versions from `first` up to and with `last`, as far as their numbers are given."""
    return lambda: first <= sys.version_info[: len(first)] and sys.version_info[: len(last)] <= last


DIFFERENCES: list[Difference] = [
]
