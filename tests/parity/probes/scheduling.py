"""call_soon, timers, handles: what runs, in which order, and what a handle tells."""

from __future__ import annotations

import asyncio
import contextvars
import decimal
import gc
import math
import socket
import threading
import time
import weakref
from typing import Any

from ..harness import Trace
from ..registry import probe
from ..wires import until

Loop = Any


def _run_for(loop: Loop, seconds: float) -> None:
    loop.call_later(seconds, loop.stop)
    loop.run_forever()


@probe("C.33")
def order_before_the_first_turn(loop: Loop, trace: Trace) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.send(b"x")
        loop.add_reader(ours, lambda: (trace("reader"), loop.remove_reader(ours)))
        loop.call_later(0, trace, "later 0")
        loop.call_soon(trace, "soon")
        _run_for(loop, 0.02)


@probe("C.34")
def order_after_a_busy_callback(loop: Loop, trace: Trace) -> None:
    ours, theirs = socket.socketpair()

    def busy() -> None:
        loop.call_later(0.001, trace, "due timer")
        time.sleep(0.005)
        theirs.send(b"x")
        threading.Thread(target=loop.call_soon_threadsafe, args=(trace, "threadsafe")).start()
        time.sleep(0.02)
        loop.call_soon(trace, "soon")
        loop.call_soon(lambda: (trace("soon 2"), loop.call_soon(trace, "child")))
        loop.call_later(0, trace, "later 0")

    with ours, theirs:
        loop.add_reader(ours, lambda: (trace("reader"), loop.remove_reader(ours)))
        loop.call_soon(busy)
        _run_for(loop, 0.1)


@probe("C.35")
def children_of_the_stopping_turn_run_in_the_next_run(loop: Loop, trace: Trace) -> None:
    def first() -> None:
        loop.stop()
        loop.call_soon(trace, "child")

    loop.call_soon(first)
    loop.call_soon(trace, "sibling")
    loop.run_forever()
    trace("first run over")
    loop.call_soon(loop.stop)
    loop.run_forever()


@probe("A.stop")
def stop_before_a_run_gives_one_turn(loop: Loop, trace: Trace) -> None:
    loop.stop()
    loop.call_soon(lambda: (trace("first turn"), loop.call_soon(trace, "second turn")))
    loop.run_forever()
    trace("stopped")
    loop.stop()
    loop.run_forever()


@probe("C.36")
def an_endless_chain_of_callbacks_does_not_starve_io(loop: Loop, trace: Trace) -> None:
    ours, theirs = socket.socketpair()
    ran = 0

    def chain() -> None:
        nonlocal ran
        ran += 1
        if ran == 3:
            theirs.send(b"x")
        if ran < 50:
            loop.call_soon(chain)
        else:
            loop.stop()

    with ours, theirs:
        loop.add_reader(ours, lambda: (trace("reader in time", ran < 20), loop.remove_reader(ours)))
        loop.call_soon(chain)
        loop.run_forever()


@probe("C.37", each=["soon", "threadsafe", "later 0", "later", "at"])
def a_cancelled_handle_does_not_run(loop: Loop, trace: Trace, how: str) -> None:
    schedule = {
        "soon": lambda: loop.call_soon(trace, "ran"),
        "threadsafe": lambda: loop.call_soon_threadsafe(trace, "ran"),
        "later 0": lambda: loop.call_later(0, trace, "ran"),
        "later": lambda: loop.call_later(0.002, trace, "ran"),
        "at": lambda: loop.call_at(loop.time() - 1, trace, "ran"),
    }[how]
    handle = schedule()
    trace("before", handle.cancelled())
    trace("cancel gives", handle.cancel())
    trace("after", handle.cancelled())
    trace("again", handle.cancel())
    ran = schedule()
    _run_for(loop, 0.02)
    trace("one that ran", ran.cancelled())
    ran.cancel()
    trace("cancelled late", ran.cancelled())


@probe("C.38")
def call_soon_from_a_thread_runs_at_the_next_wake_up(loop: Loop, trace: Trace) -> None:
    thread = threading.Thread(target=loop.call_soon, args=(trace, "ran"))
    loop.call_soon(thread.start)
    _run_for(loop, 0.05)
    thread.join()


@probe("C.39")
def threadsafe_calls_keep_their_order(loop: Loop, trace: Trace) -> None:
    order: list[int] = []

    def push() -> None:
        for number in range(200):
            loop.call_soon_threadsafe(order.append, number)
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=push)
    thread.start()
    loop.run_forever()
    thread.join()
    trace("in order", order == sorted(order), len(order))


@probe(
    "C.24", each=["GeneratorExit", "BaseException", "CancelledError", "StopIteration", "OSError"]
)
def an_exception_in_a_callback_goes_to_the_handler(loop: Loop, trace: Trace, name: str) -> None:
    kind = {
        "GeneratorExit": GeneratorExit,
        "BaseException": BaseException,
        "CancelledError": asyncio.CancelledError,
        "StopIteration": StopIteration,
        "OSError": OSError,
    }[name]

    def fail() -> None:
        raise kind("probe")

    loop.set_exception_handler(
        lambda lp, context: trace("handler", lp is loop, sorted(context), context["exception"])
    )
    loop.call_soon(fail)
    loop.call_soon(trace, "the next one")
    _run_for(loop, 0.01)


@probe("C.27", each=[5, None, "text"])
def a_callback_that_cannot_be_called(loop: Loop, trace: Trace, value: Any) -> None:
    trace.attempt("call_soon", lambda: bool(loop.call_soon(value)))
    trace.attempt("call_later", lambda: bool(loop.call_later(0, value)))
    trace.attempt("call_soon_threadsafe", lambda: bool(loop.call_soon_threadsafe(value)))
    _run_for(loop, 0.01)


@probe("C.27", each=[5, None, "coroutine function"], debug=True)
def debug_mode_refuses_what_is_no_callback(loop: Loop, trace: Trace, value: Any) -> None:
    async def coroutine() -> None: ...

    callback = coroutine if value == "coroutine function" else value
    trace.attempt("call_soon", loop.call_soon, callback)
    trace.attempt("call_later", loop.call_later, 1, callback)
    trace.attempt("call_at", loop.call_at, 1, callback)
    trace.attempt("call_soon_threadsafe", loop.call_soon_threadsafe, callback)
    trace.attempt("run_in_executor", loop.run_in_executor, None, callback)


@probe("C.28", each=["nan", "inf", "1e300", "-inf", "-1"])
def odd_delays(loop: Loop, trace: Trace, delay: str) -> None:
    handle = loop.call_later(float(delay), trace, "ran")
    trace("type", isinstance(handle, asyncio.TimerHandle))
    if math.isfinite(handle.when()):
        trace("sign", handle.when() > 0)
    else:
        trace("when", repr(handle.when()))
    # A turn that polls without waiting: asyncio cannot wait for a time that is no number.
    loop.call_soon(loop.stop)
    loop.run_forever()
    if delay != "nan":
        _run_for(loop, 0.03)
    handle.cancel()


@probe("C.29", each=["str", "decimal", "huge", "none", "object"])
def delays_of_other_types(loop: Loop, trace: Trace, what: str) -> None:
    delay = {
        "str": "1",
        "decimal": decimal.Decimal("0.001"),
        "huge": 10**400,
        "none": None,
        "object": object(),
    }[what]
    handle = trace.attempt("call_later", lambda: loop.call_later(delay, trace, "ran") and True)
    trace("accepted", bool(handle))


@probe("A.call_at", each=["none", "true", "int", "fraction"])
def when_of_other_types(loop: Loop, trace: Trace, what: str) -> None:
    when = {"none": None, "true": True, "int": 2**31, "fraction": 0.5}[what]
    handle = trace.attempt("call_at", loop.call_at, when, trace, "ran")
    if handle is not None:
        trace("when", handle.when(), type(handle.when()))
        handle.cancel()


@probe("C.30")
def equal_deadlines(loop: Loop, trace: Trace) -> None:
    when = loop.time() + 0.01
    order: list[int] = []
    for number in range(20):
        loop.call_at(when, order.append, number)
    _run_for(loop, 0.05)
    trace("order", order)


@probe("C.31")
def close_deadlines_fire_by_deadline(loop: Loop, trace: Trace) -> None:
    start = loop.time() + 0.005
    for offset in (9, 3, 6, 0):
        loop.call_at(start + offset * 1e-4, trace, f"+0.{offset} ms")
    _run_for(loop, 0.05)


@probe("C.32")
def a_timer_never_fires_early(loop: Loop, trace: Trace) -> None:
    early: list[float] = []

    def check(when: float) -> None:
        if loop.time() < when - loop_resolution:
            early.append(when)

    loop_resolution = time.get_clock_info("monotonic").resolution
    for step in range(60):
        when = loop.time() + 0.0002 * step
        loop.call_at(when, check, when)
    _run_for(loop, 0.05)
    trace("early", early)


@probe("A.call_later")
def every_timer_is_a_timer_handle(loop: Loop, trace: Trace) -> None:
    now = loop.time()
    for delay in (0, -5, 0.0001, 3, 1e12):
        handle = loop.call_later(delay, trace, "never")
        trace("kind", isinstance(handle, asyncio.TimerHandle), isinstance(handle, asyncio.Handle))
        trace("when", abs(handle.when() - (now + delay)) <= max(0.5, abs(delay) * 1e-12))
        handle.cancel()
    trace("soon", isinstance(loop.call_soon(int), asyncio.Handle))


@probe("B.handles")
def timer_handles_are_ordered_and_hashable(loop: Loop, trace: Trace) -> None:
    early, late = loop.call_at(1e9, int), loop.call_at(2e9, int)
    same = loop.call_at(1e9, int)
    trace("order", early < late, early <= late, early > late, early >= late)
    trace("equal", early == late, early == same, early != same, early == 5)
    trace("hash", hash(early) == hash(1e9), len({early, late}))
    trace.attempt("with int", lambda: early < 5)
    for handle in (early, late, same):
        handle.cancel()


@probe("B.handles", each=["soon", "later", "threadsafe"])
def handles_show_themselves(loop: Loop, trace: Trace, how: str) -> None:
    def named(*args: object) -> None: ...

    schedule = {
        "soon": loop.call_soon,
        "later": lambda *args: loop.call_later(9, *args),
        "threadsafe": loop.call_soon_threadsafe,
    }[how]
    handle = schedule(named, 1, "two")
    trace("repr", repr(handle))
    trace("str", str(handle))
    handle.cancel()
    trace("cancelled repr", repr(handle))


@probe("B.handles", each=["soon", "later"], debug=True)
def handles_show_more_in_debug_mode(loop: Loop, trace: Trace, how: str) -> None:
    def named(*args: object) -> None: ...

    handle = loop.call_soon(named, 1) if how == "soon" else loop.call_later(9, named, 1)
    trace("repr", repr(handle))
    handle.cancel()
    trace("cancelled repr", repr(handle))
    trace("traceback", bool(handle._source_traceback))


@probe("B.handles")
def cancelling_releases_callback_and_arguments(loop: Loop, trace: Trace) -> None:
    class Thing:
        def __call__(self, other: object) -> None: ...

    for schedule in (loop.call_soon, lambda *args: loop.call_later(5, *args)):
        callback, argument = Thing(), Thing()
        alive = weakref.ref(callback), weakref.ref(argument)
        handle = schedule(callback, argument)
        del callback, argument
        trace("held", [ref() is not None for ref in alive])
        handle.cancel()
        gc.collect()
        trace("released", [ref() is None for ref in alive])


@probe("B.handles")
def handles_take_weak_references(loop: Loop, trace: Trace) -> None:
    for handle in (loop.call_soon(int), loop.call_later(9, int), loop.call_soon_threadsafe(int)):
        trace("weak", weakref.ref(handle)() is handle)
        handle.cancel()


@probe("B.handles", since=(3, 12))
def handles_give_their_context(loop: Loop, trace: Trace) -> None:
    context = contextvars.copy_context()
    for handle in (
        loop.call_soon(int, context=context),
        loop.call_later(9, int, context=context),
        loop.call_at(9e9, int, context=context),
        loop.call_soon_threadsafe(int, context=context),
    ):
        trace("context", handle.get_context() is context)
        handle.cancel()
    trace("own copy", isinstance(loop.call_soon(int).get_context(), contextvars.Context))


@probe("A.call_soon", each=["call_soon", "call_soon_threadsafe", "call_later", "call_at"])
def nothing_is_scheduled_on_a_closed_loop(loop: Loop, trace: Trace, name: str) -> None:
    loop.close()
    method = getattr(loop, name)
    arguments = {"call_later": (1,), "call_at": (1,)}.get(name, ())
    trace.attempt(name, method, *arguments, int)


@probe("A.call_soon", debug=True)
def debug_mode_refuses_another_thread(loop: Loop, trace: Trace) -> None:
    def other_thread() -> None:
        trace.attempt("call_soon", loop.call_soon, int)
        trace.attempt("call_later", loop.call_later, 1, int)
        trace.attempt("call_at", loop.call_at, 1, int)

    async def main() -> None:
        thread = threading.Thread(target=other_thread)
        thread.start()
        await until(lambda: not thread.is_alive())

    loop.run_until_complete(main())


@probe("A.time")
def time_is_the_monotonic_clock(loop: Loop, trace: Trace) -> None:
    before = time.monotonic()
    now = loop.time()
    trace("between", before <= now <= time.monotonic(), type(now))


@probe("A.time")
def a_patched_clock_moves_the_timers(loop: Loop, trace: Trace) -> None:
    real, shift = loop.time, 0.0
    loop.time = lambda: real() + shift
    loop.call_later(50, lambda: (trace("an hour later"), loop.stop()))

    def jump() -> None:
        nonlocal shift
        shift = 3600.0

    loop.call_soon(jump)
    give_up = threading.Timer(1, loop.call_soon_threadsafe, (loop.stop,))
    give_up.start()
    loop.run_forever()
    give_up.cancel()
    give_up.join()


@probe("A.call_soon", each=range(6))
def arguments_arrive(loop: Loop, trace: Trace, count: int) -> None:
    values = tuple(range(count))
    loop.call_soon(lambda *args: trace("soon", args), *values)
    loop.call_later(0, lambda *args: trace("later", args), *values)
    loop.call_soon_threadsafe(lambda *args: trace("threadsafe", args), *values)
    _run_for(loop, 0.01)


@probe("Z.64", each=[0, 1, 3, 6])
def a_callback_may_cancel_its_own_handle(loop: Loop, trace: Trace, count: int) -> None:
    handles: list[asyncio.Handle] = []

    def callback(*args: object) -> None:
        handles[0].cancel()
        trace("arguments", args, handles[0].cancelled())

    handles.append(loop.call_soon(callback, *range(count)))
    loop.run_until_complete(asyncio.sleep(0))
