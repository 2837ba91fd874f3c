"""add_reader, add_writer and their removal; signal handlers."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import tempfile
import threading
from typing import Any

from ..harness import Trace
from ..registry import probe
from ..wires import turns, until

Loop = Any
ADD = {"reader": "add_reader", "writer": "add_writer"}
REMOVE = {"reader": "remove_reader", "writer": "remove_writer"}


@probe("A.add_reader", each=ADD)
async def watching_begins_changes_and_ends(loop: Loop, trace: Trace, side: str) -> None:
    ours, theirs = socket.socketpair()
    add, remove = getattr(loop, ADD[side]), getattr(loop, REMOVE[side])
    with ours, theirs:
        theirs.send(b"x")
        calls: list[str] = []
        trace("add", trace.attempt("returns", lambda: add(ours, calls.append, "first")) is not None)
        await until(lambda: len(calls) >= 2)
        trace("level", set(calls))
        add(ours.fileno(), calls.append, "second")
        calls.clear()
        await until(lambda: len(calls) >= 2)
        trace("replaced", set(calls))
        trace("remove", remove(ours))
        calls.clear()
        await turns(5)
        trace("silent", calls)
        trace("remove again", remove(ours))
        trace("by number", remove(ours.fileno()))


WRONG: dict[str, Any] = {
    "negative": -1,
    "text": "x",
    "None": None,
    "fraction": 1.5,
    "object": object(),
    "unused number": 9999,
    "huge": 2**70,
    "true": True,
}


@probe("A.add_reader", each=[f"{side} {what}" for side in ADD for what in WRONG if what != "true"])
async def what_cannot_be_watched(loop: Loop, trace: Trace, case: str) -> None:
    side, _, what = case.partition(" ")
    trace.attempt("add", getattr(loop, ADD[side]), WRONG[what], int)
    trace.attempt("remove", getattr(loop, REMOVE[side]), WRONG[what])


@probe("A.add_reader", each=ADD)
async def regular_files_and_closed_ones_cannot_be_watched(
    loop: Loop, trace: Trace, side: str
) -> None:
    add, remove = getattr(loop, ADD[side]), getattr(loop, REMOVE[side])
    with tempfile.TemporaryFile() as file:
        for _ in range(2):
            trace.attempt("regular file", add, file, int)
        trace.attempt("remove", remove, file)
        number = os.dup(file.fileno())
    os.close(number)
    trace.attempt("closed number", add, number, int)
    trace.attempt("closed file", add, file, int)
    with socket.socket() as sock:
        pass
    trace.attempt("closed socket", add, sock, int)
    trace.attempt("remove closed socket", remove, sock)
    trace.attempt("no callback", add, 0)
    trace.attempt("nothing", add)


@probe("A.add_reader")
async def a_callback_that_is_no_callback(loop: Loop, trace: Trace) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.send(b"x")
        failed: list[Any] = []

        def handler(_loop: Loop, context: dict[str, Any]) -> None:
            if loop.remove_reader(ours):
                failed.append(context["exception"])

        loop.set_exception_handler(handler)
        trace.attempt("add", lambda: bool(loop.add_reader(ours, 5)))
        await until(lambda: failed)
        trace("failed", failed)


@probe("A.add_reader", debug=True)
async def debug_mode_and_callbacks_of_readers(loop: Loop, trace: Trace) -> None:
    async def coroutine() -> None: ...

    ours, theirs = socket.socketpair()
    with ours, theirs:
        for callback in (5, coroutine):
            trace.attempt("add_reader", loop.add_reader, ours, callback)
            trace.attempt("add_writer", loop.add_writer, ours, callback)
        loop.remove_reader(ours)
        loop.remove_writer(ours)


@probe("A.add_reader")
async def an_error_in_a_reader_is_reported_and_it_stays(loop: Loop, trace: Trace) -> None:
    ours, theirs = socket.socketpair()
    calls = 0

    def fail() -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            loop.remove_reader(ours)
        raise ValueError("probe")

    with ours, theirs:
        theirs.send(b"x")
        loop.add_reader(ours, fail)
        await until(lambda: calls == 2)
        await turns(3)
        trace("calls", calls)


@probe("A.add_reader")
async def a_hangup_wakes_both_sides(loop: Loop, trace: Trace) -> None:
    ours, theirs = socket.socketpair()
    seen: set[str] = set()
    with ours:
        loop.add_reader(ours, seen.add, "reader")
        theirs.close()
        await until(lambda: seen)
        loop.add_writer(ours, seen.add, "writer")
        await until(lambda: len(seen) == 2)
        loop.remove_reader(ours)
        loop.remove_writer(ours)
        trace("seen", seen)


@probe("A.add_reader")
async def a_number_that_was_closed_behind_the_loop(loop: Loop, trace: Trace) -> None:
    ours, theirs = socket.socketpair()
    number = ours.fileno()
    loop.add_reader(number, trace, "old")
    ours.close()
    theirs.close()
    ours, theirs = socket.socketpair()
    while ours.fileno() != number and theirs.fileno() != number:
        raise AssertionError("the number was to come back")
    if theirs.fileno() == number:
        ours, theirs = theirs, ours
    with ours, theirs:
        theirs.send(b"x")
        got: list[bytes] = []
        trace.attempt(
            "add", lambda: bool(loop.add_reader(number, lambda: got.append(ours.recv(10))))
        )
        try:
            await until(lambda: got, 0.5)
        except TimeoutError:
            trace("the new descriptor is not watched")
        trace("got", got)
        trace.attempt("remove", loop.remove_reader, number)


@probe("A.add_reader")
def watching_on_a_closed_loop(loop: Loop, trace: Trace) -> None:
    ours, theirs = socket.socketpair()
    loop.close()
    with ours, theirs:
        for name in (*ADD.values(), *REMOVE.values()):
            args = (ours, int) if name.startswith("add") else (ours,)
            trace.attempt(name, getattr(loop, name), *args)


@probe("A.add_signal_handler")
async def signals_reach_their_handlers(loop: Loop, trace: Trace) -> None:
    calls: list[Any] = []
    trace.attempt("add", loop.add_signal_handler, signal.SIGUSR1, calls.append, 1)
    os.kill(os.getpid(), signal.SIGUSR1)
    await until(lambda: calls)
    loop.add_signal_handler(signal.SIGUSR1, calls.append, 2)
    os.kill(os.getpid(), signal.SIGUSR1)
    await until(lambda: len(calls) == 2)
    trace("calls", calls)
    trace("remove", loop.remove_signal_handler(signal.SIGUSR1))
    trace("again", loop.remove_signal_handler(signal.SIGUSR1))
    trace("restored", signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL)


BAD_SIGNALS: dict[str, Any] = {
    "text": "SIGTERM", "None": None, "zero": 0, "large": 1000, "negative": -1, "fraction": 1.5,
    "kill": signal.SIGKILL, "stop": signal.SIGSTOP,
}  # fmt: skip


@probe("A.add_signal_handler", each=BAD_SIGNALS)
async def signals_that_cannot_be_handled(loop: Loop, trace: Trace, what: str) -> None:
    trace.attempt("add", loop.add_signal_handler, BAD_SIGNALS[what], int)
    trace.attempt("remove", loop.remove_signal_handler, BAD_SIGNALS[what])


@probe("A.add_signal_handler")
async def callbacks_of_signal_handlers_are_checked(loop: Loop, trace: Trace) -> None:
    async def coroutine() -> None: ...

    coro = coroutine()
    for callback in (coroutine, coro, 5):
        trace.attempt("add", loop.add_signal_handler, signal.SIGUSR1, callback)
    coro.close()
    trace("remove", loop.remove_signal_handler(signal.SIGUSR1))


@probe("A.add_signal_handler")
async def signal_handlers_belong_to_the_main_thread(loop: Loop, trace: Trace) -> None:
    def other_thread() -> None:
        trace.attempt("add", loop.add_signal_handler, signal.SIGUSR1, int)

    thread = threading.Thread(target=other_thread)
    thread.start()
    await until(lambda: not thread.is_alive())


@probe("A.add_signal_handler")
def closing_restores_the_signals(loop: Loop, trace: Trace) -> None:
    before = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(before)
    loop.add_signal_handler(signal.SIGUSR1, int)
    loop.add_signal_handler(signal.SIGINT, int)
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    trace("SIGUSR1", signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL)
    trace("SIGINT", signal.getsignal(signal.SIGINT) is signal.default_int_handler)
    trace("wakeup", signal.set_wakeup_fd(-1))
    trace.attempt("on a closed loop", loop.add_signal_handler, signal.SIGUSR1, int)


@probe("A.add_signal_handler")
async def an_error_in_a_signal_handler_is_reported(loop: Loop, trace: Trace) -> None:
    loop.add_signal_handler(signal.SIGUSR1, lambda: 1 / 0)
    os.kill(os.getpid(), signal.SIGUSR1)
    await asyncio.sleep(0.02)
    loop.remove_signal_handler(signal.SIGUSR1)
