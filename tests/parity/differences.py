"""Where tokioloop is not as asyncio, because asyncio is wrong: the right behaviour and the reason.

An entry is consulted only on the versions that have the defect, and fails there when asyncio
turns out to be right after all: the table never outlives the bugs it lists.
"""

from __future__ import annotations

import array
import re
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

_WIDE = array.array("i", [1, 2, 3])


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


def is_right_to_differ(method: str, label: str) -> bool:
    """Whether a wrong call of `method` is one that asyncio answers wrongly."""
    return any(
        method == wrong.method and re.fullmatch(wrong.cases, label) and wrong.when()
        for wrong in BAD_INPUT
    )


@dataclass(frozen=True)
class WrongAnswer:
    """Wrong calls that asyncio answers in a way not worth keeping: `cases` matches their labels."""

    method: str
    cases: str
    reason: str
    when: Callable[[], bool] = lambda: True


DELIVERY = "a non-contiguous view is data like any other; asyncio loses it and the connection"
SNAPSHOT = "write() takes the bytes as they are; asyncio 3.12 sends what the buffer holds later"
DROPPED = "data after close is dropped as write() does; here writelines() is a TypeError"
FACTORY = "a client whose protocol cannot be made is closed; asyncio lets it wait for ever"

DIFFERENCES: list[Difference] = [
    Difference(
        "scheduling.equal_deadlines",
        "equal deadlines fire in the order of the calls; asyncio's heap shuffles them",
        {"order": (list(range(20)),)},
    ),
    Difference(
        "stream_writing.a_view_of_wide_items_counts_its_bytes[queued]",
        "a buffered view counts bytes, not items: asyncio 3.12 loses track and the connection",
        {"size": (12,), "connection_lost": (None,), "peer": (repr(bytes(_WIDE) + b"end"),)},
        when=lambda: (3, 12) <= sys.version_info[:2],
        log=[],
    ),
    *(
        Difference(
            f"stream_writing.a_view_with_gaps[{state}]",
            DELIVERY,
            {"write raises": REMOVED, "write returns": (None,), "connection_lost": (None,),
             "peer": ("b'02468'",)},
            log=[],
        )
        for state in ("free", "queued")
    ),
    Difference(
        "stream_writing.a_bytearray_may_change_after_the_write",
        SNAPSHOT,
        {"peer": ("b'before'",)},
        when=lambda: sys.version_info[:2] >= (3, 12),
    ),
    Difference(
        "stream_writing.abort_after_a_close_that_flushed",
        "abort() of a closed transport does nothing; here asyncio has forgotten its loop",
        {"abort raises": REMOVED, "abort returns": (None,)},
    ),
    Difference(
        "watchers.a_number_that_was_closed_behind_the_loop",
        "add_reader() watches the file that has the number now",
        {"the new descriptor is not watched": REMOVED, "got": (["b'x'"],)},
    ),
    *(
        Difference(f"servers.odd_factories_of_servers[{what}]", FACTORY,
                   {"peer hears nothing": REMOVED, "peer": ("b''",)})
        for what in ("None", "object", "number")
    ),
    *(
        Difference(
            f"stream_writing.{name}",
            DROPPED,
            {"writelines raises": REMOVED, "writelines returns": (None,)},
            when=between((3, 12), (3, 13, 0)),
        )
        for name in ("writes_after_close_are_dropped[writelines]", "calls_after_connection_lost[writelines]")
    ),
    Difference(
        "stream_writing.writelines_beyond_the_limit_pauses_writing",
        "flow control counts writelines() too; here it never pauses",
        {"queued": (True,)},
        when=between((3, 12), (3, 13, 0)),
    ),
]  # fmt: skip

BAD_INPUT: list[WrongAnswer] = [
    WrongAnswer("writelines", "closing|lost", DROPPED, between((3, 12), (3, 13, 0))),
]
