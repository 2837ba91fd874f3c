"""Threads that schedule calls faster than the loop runs them, and what is left of these calls."""

from __future__ import annotations

import asyncio
import functools
import gc
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

pytestmark = pytest.mark.flavours("tokioloop", reason="it counts how often threads wait for it")

#: More than may wait before the loop is given time to catch up.
MANY = 50_000


class Flood:
    """Numbers that threads send, and the loop takes in."""

    def __init__(self, loop: Any) -> None:
        # Debug mode notes the stack of each call.
        loop.set_debug(False)
        self.loop = loop
        self.arrived: list[int] = []

    def send(self, count: int = MANY) -> None:
        for number in range(count):
            self.loop.call_soon_threadsafe(self.arrived.append, number)

    def send_one(self, handles: list[asyncio.Handle]) -> None:
        handles.append(self.loop.call_soon_threadsafe(self.arrived.append, 0))


def while_the_loop_stands_still(loop: Any, body: Callable[[], None]) -> None:
    """Runs the body in a thread, and the loop until all that it has sent is taken."""
    ended = threading.Event()
    in_time = []

    def run() -> None:
        try:
            body()
        finally:
            ended.set()

    def stand_still() -> None:
        thread.start()
        # Detached from the interpreter, which the sender has for itself.
        in_time.append(ended.wait(timeout=20))

    thread = threading.Thread(target=run)
    loop.call_soon(stand_still)
    loop.call_soon(loop.call_soon_threadsafe, loop.stop)
    loop.run_forever()
    thread.join()
    assert in_time == [True]


def test_a_loop_that_is_kept_from_running_is_waited_for_once(loop: Any) -> None:
    flood = Flood(loop)
    before = loop.metrics()["thread_waits"]
    while_the_loop_stands_still(loop, flood.send)
    assert loop.metrics()["thread_waits"] - before == 1
    assert flood.arrived == list(range(MANY))


def test_few_calls_are_never_waited_for(loop: Any) -> None:
    flood = Flood(loop)
    while_the_loop_stands_still(loop, functools.partial(flood.send, 8_000))
    assert loop.metrics()["thread_waits"] == 0
    assert flood.arrived == list(range(8_000))


def test_a_thread_that_runs_a_loop_does_not_wait(loop: Any) -> None:
    flood = Flood(loop)

    async def main() -> None:
        flood.send()

    def run() -> None:
        other = asyncio.SelectorEventLoop()
        other.run_until_complete(main())
        other.close()

    while_the_loop_stands_still(loop, run)
    assert loop.metrics()["thread_waits"] == 0
    assert flood.arrived == list(range(MANY))


def test_each_loop_that_a_thread_sends_to_is_waited_for(flavour: Any) -> None:
    release = threading.Event()
    floods = [Flood(flavour.new_event_loop()) for _ in range(2)]
    started = threading.Barrier(3, timeout=20)

    def run(loop: Any) -> None:
        loop.call_soon(started.wait)
        loop.call_soon(release.wait, 20)
        loop.run_forever()

    threads = [threading.Thread(target=run, args=(flood.loop,)) for flood in floods]
    for thread in threads:
        thread.start()
    started.wait()
    for _ in range(MANY):
        for flood in floods:
            flood.loop.call_soon_threadsafe(int)
    for flood in floods:
        flood.loop.call_soon_threadsafe(flood.loop.stop)
    release.set()
    for thread in threads:
        thread.join()
    assert [flood.loop.metrics()["thread_waits"] for flood in floods] == [1, 1]
    for flood in floods:
        flood.loop.close()


def test_a_sender_may_hold_what_its_callbacks_want(loop: Any) -> None:
    loop.set_debug(False)
    lock = threading.Lock()
    arrived = 0

    def arrive() -> None:
        nonlocal arrived
        with lock:
            arrived += 1
        if arrived == MANY:
            loop.stop()

    def send() -> None:
        with lock:
            for _ in range(MANY):
                loop.call_soon_threadsafe(arrive)

    thread = threading.Thread(target=send)
    loop.call_soon(thread.start)
    loop.run_forever()
    thread.join()
    assert arrived == MANY
    # Not each time that it looks, hundreds of times.
    assert loop.metrics()["thread_waits"] <= 3


def test_a_loop_that_does_not_run_is_not_waited_for(loop: Any) -> None:
    flood = Flood(loop)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(flood.send).result(timeout=20)
    assert loop.metrics()["thread_waits"] == 0
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert flood.arrived == list(range(MANY))


def test_what_a_thread_has_sent_goes_when_its_callback_has_run(loop: Any) -> None:
    """Even where the thread is asleep by then: nothing waits for it to count references."""

    class Value:
        def __call__(self, other: Any) -> None:
            pass

    sent = threading.Event()
    looked = threading.Event()
    gone: list[bool] = []

    def send() -> None:
        value = Value()
        reference = weakref.ref(value)
        loop.call_soon_threadsafe(value, Value())
        loop.call_soon_threadsafe(id, value)
        del value
        loop.call_soon_threadsafe(look, reference)
        sent.set()
        looked.wait(timeout=10)

    def look(reference: weakref.ref[Value]) -> None:
        # What has run in this turn is dropped by the next.
        loop.call_soon(lambda: (gone.append(reference() is None), looked.set(), loop.stop()))

    def start() -> None:
        thread.start()
        # The calls are taken only after the sender has let go of all that it sent.
        sent.wait(timeout=10)

    thread = threading.Thread(target=send)
    loop.call_soon(start)
    loop.run_forever()
    thread.join()
    assert gone == [True]


def test_an_unclosed_loop_is_collected_after_calls_of_other_threads(flavour: Any) -> None:
    """Handles that wait to serve again refer to their loop."""
    loop = flavour.new_event_loop()
    flood = Flood(loop)
    while_the_loop_stands_still(loop, functools.partial(flood.send, 100))
    reference = weakref.ref(loop)
    with pytest.warns(ResourceWarning, match="unclosed event loop"):
        del loop, flood
        gc.collect()
    assert reference() is None


def test_a_handle_that_outlives_its_closed_loop_lets_it_go(flavour: Any) -> None:
    loop = flavour.new_event_loop()
    flood = Flood(loop)
    handles: list[asyncio.Handle] = []
    while_the_loop_stands_still(loop, functools.partial(flood.send_one, handles))
    loop.close()
    reference = weakref.ref(loop)
    gc.collect()
    gc.disable()
    try:
        del loop, flood
        assert reference() is not None
        handles.clear()
        assert reference() is None
    finally:
        gc.enable()


def test_a_cancelled_call_that_nobody_refers_to_does_not_run(loop: Any) -> None:
    flood = Flood(loop)

    def send() -> None:
        for number in range(1000):
            handle = loop.call_soon_threadsafe(flood.arrived.append, number)
            if number % 2:
                handle.cancel()
            del handle

    while_the_loop_stands_still(loop, send)
    assert flood.arrived == list(range(0, 1000, 2))
