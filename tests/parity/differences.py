"""Where tokioloop is not as asyncio, because asyncio is wrong: the right behaviour and the reason.

An entry is consulted only on the versions that have the defect, and fails there when asyncio
turns out to be right after all: the table never outlives the bugs it lists.
"""

from __future__ import annotations

import array
import re
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from .harness import Event, Outcome


@dataclass(frozen=True)
class Difference:
    """What `probe` should have recorded where asyncio has the defect.

    `events` maps the label of an event to the event that is right in its place, or to REMOVED;
    `whole` is the right list of events, where more than that differs. `log`, if given, too.
    """

    probe: str
    reason: str
    events: dict[str, Any] = field(default_factory=dict)
    whole: list[Event] | None = None
    when: Callable[[], bool] = lambda: True
    log: list[Event] | None = None


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
    events = [difference.events.get(event[0], event) for event in reference.events]
    right = replace(reference, events=[event for event in events if event is not REMOVED])
    if difference.whole is not None:
        right.events = difference.whole
    if difference.log is not None:
        right.log = difference.log
    return right


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


NESTED = ("RuntimeError", "This event loop is already running")
OTHER_LOOP = ("RuntimeError", "Cannot run the event loop while another loop is running")
DELIVERY = "a non-contiguous view is data like any other; asyncio loses it and the connection"
SNAPSHOT = "write() takes the bytes as they are; asyncio 3.12 sends what the buffer holds later"
DROPPED = "data after close is dropped as write() does; here writelines() is a TypeError"
AFTER_LOSS = "what is sent after the end is dropped, as by write(); asyncio has forgotten its loop"
FACTORY = "a client whose protocol cannot be made is closed; asyncio lets it wait for ever"

DIFFERENCES: list[Difference] = [
    Difference(
        "scheduling.equal_deadlines",
        "equal deadlines fire in the order of the calls; asyncio's heap shuffles them",
        {"order": ("order", list(range(20)))},
    ),
    Difference(
        "flow_control.writing_from_resume_writing",
        "a transport that its protocol closes in resume_writing ends once, not twice",
        log=[],
        when=between((3, 10), (3, 11)),
    ),
    Difference(
        "flow_control.limits_are_checked[fraction]",
        "sizes are whole bytes, and so are the limits; asyncio keeps what it was given",
        {"now": ("now", (0, 1))},
    ),
    Difference(
        "flow_control.limits_are_checked[huge low]",
        "no buffer is larger than memory; asyncio keeps what it was given",
        {"now": ("now", (sys.maxsize, 2 * sys.maxsize + 1))},
    ),
    Difference(
        "servers.a_failing_factory_is_reported_in_debug_mode",
        "connections are accepted by the loop itself, so no handle stands behind the report",
        log=[
            (
                "INFO",
                f"<Server sockets=(<TransportSocket fd=N, family={socket.AF_INET!s}, "
                f"type={socket.SOCK_STREAM!s}, proto=6, "
                "laddr=('127.0.0.1', PORT)>,)> is serving",
                None,
            ),
            (
                "ERROR",
                "Error on transport creation for incoming connection",
                ("ValueError", "probe"),
            ),
        ],
    ),
    Difference(
        "runs.a_run_inside_another_loop_is_refused",
        "a run that is refused changes nothing; here it clears the running loop",
        whole=[
            ("run_forever raises", OTHER_LOOP),
            ("run_until_complete raises", OTHER_LOOP),
            ("outer is running", True),
        ],
        when=between((3, 13, 0), (3, 13, 0)),
    ),
    Difference(
        "runs.a_nested_run_is_refused",
        "a nested run that is refused changes nothing; here it clears the running loop",
        whole=[
            ("run_forever raises", NESTED),
            ("still running", True, True),
            ("run_until_complete raises", NESTED),
            ("outer ended",),
            ("usable", False, False),
        ],
        when=between((3, 13, 0), (3, 13, 0)),
    ),
    Difference(
        "stream_writing.a_view_of_wide_items_counts_its_bytes[queued]",
        "a buffered view counts bytes, not items: asyncio loses track, and the connection",
        {
            "size": ("size", 12),
            "connection_lost": ("connection_lost", None),
            "peer": ("peer", repr(bytes(_WIDE) + b"end")),
        },
        when=lambda: sys.version_info >= (3, 12),
        log=[],
    ),
    *(
        Difference(
            f"stream_writing.a_view_with_gaps[{state}]",
            DELIVERY,
            {
                "write raises": ("write returns", None),
                "connection_lost": ("connection_lost", None),
                "peer": ("peer", "b'02468'"),
            },
            log=[],
        )
        for state in ("free", "queued")
    ),
    Difference(
        "stream_writing.a_bytearray_may_change_after_the_write",
        SNAPSHOT,
        {"peer": ("peer", "b'before'")},
        when=lambda: sys.version_info >= (3, 12),
    ),
    Difference(
        "stream_writing.other_buffers_than_bytes",
        "any object with a buffer is data; asyncio takes three types by name",
        {
            "array raises": ("array returns", None),
            "mmap raises": ("mmap returns", None),
        },
    ),
    Difference(
        "stream_writing.abort_after_a_close_that_flushed",
        "abort() of a closed transport does nothing; here asyncio has forgotten its loop",
        {"abort raises": ("abort returns", None)},
    ),
    Difference(
        "stream_writing.writelines_beyond_the_limit_pauses_writing",
        "flow control counts writelines() too; here it never pauses",
        whole=[
            ("connection_made",),
            ("pause_writing",),
            ("queued", True),
            ("resume_writing",),
            ("connection_lost", None),
        ],
        when=between((3, 12), (3, 13, 0)),
    ),
    Difference(
        "stream_writing.writes_after_close_are_dropped[writelines]",
        DROPPED,
        {"writelines raises": ("writelines returns", None)},
        when=between((3, 12), (3, 13, 0)),
        log=[("WARNING", "socket.send() raised exception.", None)] * 3,
    ),
    Difference(
        "stream_writing.calls_after_connection_lost[writelines]",
        DROPPED,
        {
            "writelines raises": ("writelines returns", None),
            "state": ("state", True, False, 0),
        },
        when=between((3, 12), (3, 13, 0)),
    ),
    Difference(
        "flow_control.writing_from_resume_writing",
        "connection_lost comes once, also when resume_writing() writes and closes",
        when=lambda: sys.version_info >= (3, 12),
        log=[],
    ),
    Difference(
        "runs.a_second_thread_cannot_run_the_loop",
        "the loop goes on running after another thread's run_forever() was refused",
        {"goes on": ("goes on", True, True)},
        when=between((3, 13), (3, 13)),
    ),
    Difference(
        "watchers.a_number_that_was_closed_behind_the_loop",
        "add_reader() watches the file that has the number now",
        {"the new descriptor is not watched": REMOVED, "got": ("got", ["b'x'"])},
    ),
    *(
        Difference(
            f"servers.odd_factories_of_servers[{what}]",
            FACTORY,
            {"peer hears nothing": ("peer", "b''")},
        )
        for what in ("None", "object", "number")
    ),
    *(
        Difference(
            f"datagrams.calls_after_close[{what}]",
            AFTER_LOSS,
            {"later raises": ("later returns", None)},
        )
        for what in ("sendto", "sendto number", "close", "abort")
    ),
    Difference(
        "datagrams.the_buffer_counts_what_waits",
        "a datagram that was sent gives its header back; here the buffer never empties again",
        {"end": ("end", 0)},
        when=between((3, 13), (3, 13, 0)),
    ),
    Difference(
        "datagrams.what_a_datagram_transport_has_of_a_stream",
        "a datagram transport is an asyncio.DatagramTransport; asyncio's own is from 3.12 on",
        {"is a": ("is a", True, True)},
        when=lambda: sys.version_info < (3, 12),
    ),
]

BAD_INPUT: list[WrongAnswer] = [
    WrongAnswer("writelines", "closing|lost", DROPPED, between((3, 12), (3, 13, 0))),
    WrongAnswer("sendto", "closing|lost", AFTER_LOSS),
    WrongAnswer("writelines", "argument 0 is regular file", "an iterable without lines is no data"),
    *(
        WrongAnswer(
            method, "context is .*", "what is no context is refused at once, not when it is entered"
        )
        for method in ("call_soon", "call_soon_threadsafe", "call_later", "call_at")
    ),
]
