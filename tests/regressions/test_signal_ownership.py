"""Handlers and the wake-up descriptor of one process, which several loops may want."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import importlib
import inspect
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.leaks import leaked_descriptors, open_descriptors
from tests.support.net import eventually, settled

pytestmark = pytest.mark.flavours(
    "asyncio", "tokioloop", reason="the peers have the defects these tests are about"
)
Loop = asyncio.AbstractEventLoop

ONE_LOOP_AT_A_TIME = "asyncio restores the default, whoever has taken the signal meanwhile"


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Signals and the wake-up descriptor are as before afterwards."""
    watched = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)
    saved = {number: signal.getsignal(number) for number in watched}
    yield
    for number, handler in saved.items():
        signal.signal(number, handler)
    assert signal.set_wakeup_fd(-1) == -1


def send_and_wait(loop: Loop, number: int, calls: list[Any]) -> None:
    calls.clear()
    assert callable(signal.getsignal(number)), "the signal would end this process"
    os.kill(os.getpid(), number)
    loop.run_until_complete(asyncio.wait_for(eventually(lambda: calls), 5))


def test_a_handler_of_python_and_one_of_the_loop_both_run(loop: Loop) -> None:
    ours: list[Any] = []
    pythons: list[Any] = []
    loop.add_signal_handler(signal.SIGTERM, ours.append, 1)
    signal.signal(signal.SIGTERM, lambda number, _frame: pythons.append(number))
    send_and_wait(loop, signal.SIGTERM, ours)
    assert pythons == [signal.SIGTERM]
    loop.remove_signal_handler(signal.SIGTERM)


@pytest.mark.parametrize("where", ["here", "in a thread"])
def test_a_loop_without_handlers_leaves_those_of_another(
    loop: Loop, loop_factory: Any, where: str
) -> None:
    calls: list[Any] = []
    loop.add_signal_handler(signal.SIGUSR1, calls.append, 1)
    loop.run_until_complete(asyncio.sleep(0))

    def beside() -> None:
        other = loop_factory()
        other.run_until_complete(settled())
        other.close()

    if where == "here":
        beside()
    else:
        thread = threading.Thread(target=beside)
        thread.start()
        thread.join()
    send_and_wait(loop, signal.SIGUSR1, calls)
    loop.remove_signal_handler(signal.SIGUSR1)


@pytest.mark.flavours("tokioloop", reason=ONE_LOOP_AT_A_TIME)
@pytest.mark.parametrize("how", ["close", "remove", "drop"])
@pytest.mark.filterwarnings("ignore:unclosed event loop:ResourceWarning")
def test_a_loop_that_goes_leaves_the_signal_to_the_one_that_took_it(
    flavour: Any, loop: Loop, how: str
) -> None:
    theirs: list[Any] = []
    calls: list[Any] = []
    first = flavour.new_event_loop()
    first.add_signal_handler(signal.SIGUSR1, theirs.append, 1)
    first.run_until_complete(asyncio.sleep(0))
    loop.add_signal_handler(signal.SIGUSR1, calls.append, 1)
    loop.run_until_complete(asyncio.sleep(0))
    if how == "close":
        first.close()
    elif how == "remove":
        assert first.remove_signal_handler(signal.SIGUSR1)
    else:
        del first
        gc.collect()
    for _ in range(2):
        send_and_wait(loop, signal.SIGUSR1, calls)
    assert theirs == []
    loop.remove_signal_handler(signal.SIGUSR1)
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
    if how == "remove":
        first.close()


@pytest.mark.flavours("tokioloop", reason=ONE_LOOP_AT_A_TIME)
@pytest.mark.parametrize("how", ["add", "remove", "remove one", "close", "refused"])
@pytest.mark.parametrize("when", ["between runs", "in a run"])
def test_a_loop_with_handlers_is_woken_whatever_another_one_does(
    loop: Loop, loop_factory: Any, when: str, how: str
) -> None:
    calls: list[Any] = []
    other = loop_factory()

    def beside() -> None:
        other.add_signal_handler(signal.SIGUSR2, calls.append, 2)
        if how == "remove":
            other.remove_signal_handler(signal.SIGUSR2)
        elif how == "remove one":
            other.add_signal_handler(signal.SIGTERM, calls.append, 2)
            other.remove_signal_handler(signal.SIGUSR2)
        elif how == "close":
            other.close()
        elif how == "refused":
            with pytest.raises(RuntimeError, match="cannot be caught"):
                other.add_signal_handler(signal.SIGKILL, calls.append, 2)
            other.remove_signal_handler(signal.SIGUSR2)
            with pytest.raises(RuntimeError, match="cannot be caught"):
                other.add_signal_handler(signal.SIGKILL, calls.append, 2)

    async def interrupted() -> None:
        if when == "in a run":
            beside()
        os.kill(os.getpid(), signal.SIGUSR1)
        await asyncio.wait_for(eventually(lambda: calls), 5)

    loop.add_signal_handler(signal.SIGUSR1, calls.append, 1)
    if when == "between runs":
        beside()
    loop.run_until_complete(interrupted())
    assert calls == [1]
    other.close()
    loop.remove_signal_handler(signal.SIGUSR1)


@pytest.mark.flavours("tokioloop", reason=ONE_LOOP_AT_A_TIME)
def test_a_signal_that_comes_while_another_loop_runs_is_passed_on(
    loop: Loop, loop_factory: Any
) -> None:
    other = loop_factory()
    calls: list[Any] = []
    loop.add_signal_handler(signal.SIGUSR1, calls.append, 1)
    other.add_signal_handler(signal.SIGUSR2, calls.append, 2)

    async def both() -> None:
        calls.clear()
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            os.kill(os.getpid(), number)
        await asyncio.wait_for(eventually(lambda: calls), 5)

    for runs, waits, expected in ((loop, other, [1, 2]), (other, loop, [2, 1])):
        runs.run_until_complete(both())
        assert calls == expected[:1]
        waits.run_until_complete(asyncio.wait_for(eventually(lambda: len(calls) == 2), 5))
        assert calls == expected
    other.close()
    loop.remove_signal_handler(signal.SIGUSR1)


@pytest.mark.flavours("tokioloop", reason=ONE_LOOP_AT_A_TIME)
def test_a_loop_that_lends_the_descriptor_may_close_meanwhile(
    loop: Loop, loop_factory: Any
) -> None:
    """The number of its socket is somebody else's when the run ends."""
    first = loop_factory()
    calls: list[Any] = []
    first.add_signal_handler(signal.SIGUSR2, calls.append, 1)
    loop.add_signal_handler(signal.SIGUSR1, calls.append, 2)
    loop.run_until_complete(asyncio.sleep(0))

    async def main() -> None:
        first.close()

    loop.run_until_complete(main())
    send_and_wait(loop, signal.SIGUSR1, calls)
    loop.remove_signal_handler(signal.SIGUSR1)


@pytest.mark.flavours("tokioloop", reason="the lines are those of its method")
def test_an_interrupt_at_any_line_of_a_run_leaves_no_descriptor_behind(flavour: Any) -> None:
    """One that stayed would be written to with every signal, whoever opens its number next."""
    code = importlib.import_module("tokioloop._signals").SignalLoop.run_forever.__code__
    line = 0

    def interrupt(frame: Any, event: str, argument: Any) -> Any:
        nonlocal line
        if frame.f_code is not code:
            return None
        if event == "line":
            line -= 1
            if line == 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return interrupt

    for number in range(1, 100):
        loop, line = flavour.new_event_loop(), number
        loop.call_soon(loop.stop)
        sys.settrace(interrupt)
        try:
            loop.run_forever()
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)
            loop.close()
        assert signal.set_wakeup_fd(-1) == -1, f"line {number} of the method"
        if line > 0:
            break
    assert number > 10


@pytest.mark.flavours("tokioloop", reason="the order is that of what its loop refers to")
def test_the_collector_may_close_the_socket_of_signals_before_its_loop(flavour: Any) -> None:
    loop = flavour.new_event_loop()
    loop.add_signal_handler(signal.SIGUSR1, int)
    loop.add_signal_handler(signal.SIGUSR2, int)
    fd = loop._signal_socket.fileno()
    loop._signal_socket.close()
    opened = os.open(os.devnull, os.O_WRONLY | os.O_NONBLOCK)
    os.dup2(opened, fd)  # The number is somebody else's by now.
    loop.close()
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
    assert signal.set_wakeup_fd(-1) == -1
    for each in {fd, opened}:
        os.close(each)


@pytest.mark.parametrize("made", ["here", "in its thread"])
def test_the_main_thread_adds_handlers_to_a_loop_that_another_thread_runs(
    loop_factory: Any, made: str
) -> None:
    loops = [loop_factory()] if made == "here" else []
    runs, called = threading.Event(), threading.Event()
    threads: list[threading.Thread] = []

    def handle() -> None:
        threads.append(threading.current_thread())
        called.set()

    def run() -> None:
        if not loops:
            loops.append(loop_factory())
        loops[0].call_soon(runs.set)
        loops[0].run_forever()

    thread = threading.Thread(target=run)
    thread.start()
    assert runs.wait(5)
    (loop,) = loops
    try:
        for _ in range(3):
            called.clear()
            loop.add_signal_handler(signal.SIGUSR1, handle)
            os.kill(os.getpid(), signal.SIGUSR1)
            assert called.wait(5)
            assert loop.remove_signal_handler(signal.SIGUSR1)
            assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
    assert threads == [thread] * 3


def in_another_thread(call: Any) -> BaseException | None:
    """What a call raises in a thread that is not the main one."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return raised[0] if raised else None


@pytest.mark.flavours("tokioloop", reason="asyncio has no such method")
def test_a_pipe_of_signals_that_is_refused_is_closed(loop: Any) -> None:
    read, write = os.pipe()

    async def main() -> None:
        refused = in_another_thread(lambda: loop._watch_signals(read))
        assert isinstance(refused, RuntimeError)

    loop.run_until_complete(main())
    os.close(write)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(read)


def test_a_loop_with_handlers_that_a_thread_closes_is_closed(loop_factory: Any) -> None:
    before = open_descriptors()
    loop = loop_factory()
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        loop.add_signal_handler(number, int)
    assert isinstance(in_another_thread(loop.close), ValueError)
    assert loop.is_closed()
    # The thread could remove none of them.
    loop.close()
    assert signal.getsignal(signal.SIGUSR2) is signal.SIG_DFL
    assert leaked_descriptors(before) == {}
    loop.close()


@pytest.mark.flavours("tokioloop", reason="asyncio closes what signals are still written to")
def test_what_signals_are_written_to_is_closed_by_nobody_but_the_main_thread(
    loop: Loop, loop_factory: Any
) -> None:
    other: Any = loop_factory()
    other.add_signal_handler(signal.SIGUSR1, int)
    written = os.fstat(other._csock.fileno())
    number = other._csock.fileno()
    assert isinstance(in_another_thread(other.close), ValueError)
    # Else a signal would be written to whatever is opened next.
    assert os.path.samestat(os.fstat(number), written)
    loop.run_until_complete(asyncio.sleep(0))
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)
    calls: list[Any] = []
    loop.add_signal_handler(signal.SIGUSR1, calls.append, 1)
    send_and_wait(loop, signal.SIGUSR1, calls)
    assert loop.remove_signal_handler(signal.SIGUSR1)
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL


def test_a_handler_that_is_refused_is_not_kept(loop: Loop) -> None:
    raised: list[BaseException] = []

    def elsewhere() -> None:
        try:
            loop.add_signal_handler(signal.SIGUSR1, int)
        except (ValueError, RuntimeError) as error:
            raised.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert len(raised) == 1
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
    assert not loop.remove_signal_handler(signal.SIGUSR1)


def test_handlers_of_several_signals_do_not_mix(loop: Loop) -> None:
    calls: list[Any] = []
    numbers = [signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGALRM]
    alarm = signal.getsignal(signal.SIGALRM)
    try:
        for number in numbers:
            loop.add_signal_handler(number, calls.append, number)
        for number in numbers:
            os.kill(os.getpid(), number)
        loop.run_until_complete(asyncio.wait_for(eventually(lambda: len(calls) == 4), 5))
        assert sorted(calls) == sorted(numbers)
        for number in numbers:
            assert loop.remove_signal_handler(number)
    finally:
        signal.signal(signal.SIGALRM, alarm)  # the watchdog of this suite


def test_what_is_no_signal_is_refused_beside_other_loops(loop: Loop, loop_factory: Any) -> None:
    other = loop_factory()
    try:
        for wrong in ([], "TERM", None):
            with pytest.raises(TypeError, match="sig must be an int, not"):
                loop.remove_signal_handler(wrong)
        with pytest.raises(ValueError, match="invalid signal number"):
            loop.remove_signal_handler(1000)
    finally:
        other.close()


def test_signals_outlive_a_keyboard_interrupt_that_came_with_them(loop: Loop) -> None:
    """Both are pending when the loop looks: no line of Python runs in between."""
    calls: list[Any] = []
    kill = ctypes.CDLL(None).kill
    loop.add_signal_handler(signal.SIGUSR1, calls.append, 1)
    loop.add_signal_handler(signal.SIGUSR2, calls.append, 2)
    for number in (signal.SIGUSR1, signal.SIGINT, signal.SIGUSR2):
        loop.call_soon(kill, os.getpid(), number)
    loop.call_later(5, loop.stop)
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    loop.run_until_complete(asyncio.wait_for(eventually(lambda: len(calls) == 2), 5))
    assert sorted(calls) == [1, 2]


@pytest.mark.parametrize("had", [False, True], ids=["the first ones", "further ones"])
def test_handlers_added_during_a_run_are_heard_after_it_whoever_listened_before(
    loop: Loop, had: bool
) -> None:
    theirs, listener = socket.socketpair()
    with theirs, listener:
        listener.setblocking(False)
        if had:
            loop.add_signal_handler(signal.SIGUSR2, print)
        signal.set_wakeup_fd(listener.fileno())
        try:
            calls: list[Any] = []

            async def add() -> None:
                loop.add_signal_handler(signal.SIGUSR1, calls.append, 1)

            loop.run_until_complete(add())
            os.kill(os.getpid(), signal.SIGUSR1)
            loop.run_until_complete(asyncio.wait_for(eventually(lambda: calls), 5))
            loop.remove_signal_handler(signal.SIGUSR1)
            loop.remove_signal_handler(signal.SIGUSR2)
        finally:
            signal.set_wakeup_fd(-1)


def test_a_closed_loop_has_no_signal_socket(loop: Any) -> None:
    loop.close()
    assert loop._csock is None
    assert inspect.getmembers(loop)
