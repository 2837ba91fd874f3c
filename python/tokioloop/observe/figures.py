"""The figures of every loop of a process, for exporters: what each is, and its value.

Any thread may ask, several at once. The caller waits for the loops of other threads; if
it runs a loop itself, that one stands still meanwhile.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import itertools
import threading
import time
import weakref
from typing import Any

__all__ = ["COUNTERS", "GAUGES", "HISTOGRAMS", "cumulative", "figures_of_all_loops"]

# Seconds that the loops of other threads have for their answers, all together.
PATIENCE = 1.0

COUNTERS = {
    "turns": "Turns of the loop",
    "polls": "Polls for events",
    "blocking_polls": "Polls that were allowed to wait",
    "looks": "Looks for events before sleeping",
    "events": "Events that polls brought",
    "callbacks": "Callbacks run, and events handled",
    "timers_fired": "Timers that came due",
    "thread_waits": "Waits of other threads for the loop to catch up",
    "connections_accepted": "Connections accepted",
    "bytes_received": "Bytes received by transports",
    "messages_received": "Deliveries to protocols",
    "bytes_sent": "Bytes given to transports",
    "messages_sent": "Writes to transports",
    "running_seconds": "Seconds inside run_forever",
    "polling_seconds": "Seconds waiting for events",
    "busy_seconds": "Seconds running, and not waiting",
}
GAUGES = {
    "connections_open": "Open connections",
    "endpoints_open": "Open datagram endpoints",
    "listeners_open": "Listening sockets",
    "watches_open": "Descriptors that add_reader, add_writer and sock_* wait for",
    "bytes_queued": "Bytes waiting to be sent",
    "timers_scheduled": "Timers that wait",
    "callbacks_ready": "Callbacks that are due",
}
HISTOGRAMS = {
    "loop_lag_seconds": "How late the earliest timer of a turn was",
    "callback_duration_seconds": "How long callbacks took, while measured",
    "turn_duration_seconds": "How long all callbacks of a turn took, while measured",
}

_numbers: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()
_next_number = itertools.count()


def figures_of_all_loops() -> dict[str, dict[str, Any]]:
    """Return the figures of every open TokioLoop by the loop's number.

    Loops that other threads run are asked, all at once; one that does not answer
    within a second is left out, because it is stuck or about to end.
    """
    from tokioloop._registry import all_loops

    asked: list[tuple[str, Any]] = []
    found: dict[str, dict[str, Any]] = {}
    for loop in all_loops():
        if loop.is_closed():
            continue
        number = _numbers.get(loop)
        if number is None:
            # Another thread may have given it one meanwhile, which stays.
            number = _numbers.setdefault(loop, str(next(_next_number)))
        if loop.is_running() and loop._thread_id != threading.get_ident():
            asked.append((number, ask(loop)))
            continue
        # Another thread may begin to run it or close it meanwhile.
        with contextlib.suppress(concurrent.futures.TimeoutError, RuntimeError):
            found[number] = loop.metrics()
    deadline = time.monotonic() + PATIENCE
    for number, answer in asked:
        with contextlib.suppress(concurrent.futures.TimeoutError, RuntimeError):
            found[number] = answer.result(max(deadline - time.monotonic(), 0))
    return dict(sorted(found.items()))


def cumulative(histogram: dict[str, Any]) -> list[tuple[str, int]]:
    """Return how many entries do not exceed each bound, the last of which is infinite."""
    bounds = [*map(str, histogram["bounds"]), "+Inf"]
    return list(zip(bounds, itertools.accumulate(histogram["counts"]), strict=True))


def ask(loop: Any) -> concurrent.futures.Future[dict[str, Any]]:
    """Ask a loop that another thread runs for its figures; it answers in its next turn."""
    answer: concurrent.futures.Future[dict[str, Any]] = concurrent.futures.Future()

    def tell() -> None:
        try:
            answer.set_result(loop.metrics())
        except Exception as error:
            answer.set_exception(error)

    try:
        loop.call_soon_threadsafe(tell)
    except RuntimeError as error:  # It was closed meanwhile.
        answer.set_exception(error)
    return answer
