"""Handlers and the wake-up descriptor of one process, which several loops may want."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.net import eventually, settled

pytestmark = pytest.mark.flavours(
    "asyncio", "tokioloop", reason="the peers have the defects these tests are about"
)
Loop = asyncio.AbstractEventLoop

ONE_LOOP_AT_A_TIME = "asyncio restores the default, whoever has taken the signal meanwhile"


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Signals and the wake-up descriptor are as before afterwards."""
    saved = {number: signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGTERM)}
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
