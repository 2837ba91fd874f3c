"""Timers: order, precision, cancellation, odd deadlines and clocks that were replaced."""

from __future__ import annotations

import asyncio
import contextvars
import math
import random

import pytest

COARSE = "uvloop counts whole milliseconds, rloop fires odd deadlines at once"
STRICTER = "equal deadlines are FIFO on tokioloop by design; asyncio's heap does not promise it"


def run_for(loop, seconds):
    loop.call_later(seconds, loop.stop)
    loop.run_forever()


@pytest.mark.flavours("asyncio", "tokioloop", "rloop", reason=COARSE)
def test_timers_fire_in_the_order_of_their_deadlines(loop):
    order = []
    start = loop.time() + 0.01
    offsets = [step * 0.0003 for step in range(50)]
    shuffled = offsets[:]
    random.Random(7).shuffle(shuffled)
    for offset in shuffled:
        loop.call_at(start + offset, order.append, offset)
    loop.call_at(start + 0.05, loop.stop)
    loop.run_forever()
    assert order == offsets


@pytest.mark.flavours("tokioloop", reason=STRICTER)
def test_equal_deadlines_fire_in_the_order_of_the_calls(loop):
    order = []
    deadline = loop.time() + 0.005
    for number in range(500):
        loop.call_at(deadline, order.append, number)
    loop.call_at(deadline, loop.stop)
    loop.run_forever()
    assert order == list(range(500))


@pytest.mark.flavours("tokioloop", reason=STRICTER)
def test_equal_deadlines_stay_in_order_when_some_are_cancelled(loop):
    order = []
    deadline = loop.time() + 0.005
    handles = [loop.call_at(deadline, order.append, number) for number in range(300)]
    for handle in handles[::3]:
        handle.cancel()
    for number in range(300, 400):
        loop.call_at(deadline, order.append, number)
    loop.call_at(deadline, loop.stop)
    loop.run_forever()
    assert order == [number for number in range(400) if number >= 300 or number % 3]


@pytest.mark.flavours(
    "asyncio", "tokioloop", reason="uvloop fires up to 1.3 ms early; rloop rounds"
)
def test_no_timer_is_early(loop):
    """By the loop's own clock, less the resolution that asyncio grants itself."""
    early = []

    def check(deadline):
        if loop.time() + loop_resolution < deadline:
            early.append(deadline - loop.time())

    import time

    loop_resolution = time.get_clock_info("monotonic").resolution
    start = loop.time()
    for step in range(400):
        deadline = start + step * 0.000117
        loop.call_at(deadline, check, deadline)
    run_for(loop, 0.1)
    assert early == []


def test_a_deadline_in_the_past_fires_in_the_next_turn(loop):
    order = []
    loop.call_later(-5, order.append, "negative delay")
    run_for(loop, 0.01)
    assert order == ["negative delay"]


@pytest.mark.flavours("asyncio", "tokioloop", reason=COARSE)
@pytest.mark.parametrize("delay", [math.inf, 1e300, 1e12, 1e18, float(2**63)])
def test_a_deadline_beyond_reach_never_fires_and_stops_nobody(loop, delay):
    fired = []
    handle = loop.call_later(delay, fired.append, "far")
    assert handle.when() == pytest.approx(loop.time() + delay)
    loop.call_later(0.005, fired.append, "near")
    run_for(loop, 0.02)
    assert fired == ["near"]
    handle.cancel()


@pytest.mark.flavours("asyncio", "tokioloop", reason=COARSE)
def test_minus_infinity_fires_at_once(loop):
    fired = []
    loop.call_later(-math.inf, fired.append, 1)
    run_for(loop, 0.01)
    assert fired == [1]


@pytest.mark.flavours("asyncio", "tokioloop", reason=COARSE)
def test_not_a_number_is_accepted_and_fires(loop):
    fired = []
    handle = loop.call_later(math.nan, fired.append, 1)
    assert math.isnan(handle.when())
    # With something to do: asyncio cannot wait for this deadline, only find that it has passed.
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert fired == [1]


@pytest.mark.flavours("asyncio", "tokioloop", reason=COARSE)
def test_a_delay_too_big_for_a_float_is_an_overflow(loop):
    with pytest.raises(OverflowError):
        loop.call_later(10**400, print)


def test_integer_and_boolean_delays_are_numbers(loop):
    fired = []
    loop.call_later(0, fired.append, "int")
    loop.call_later(False, fired.append, "bool")
    run_for(loop, 0.01)
    assert sorted(fired) == ["bool", "int"]


def test_a_timer_may_cancel_another_that_is_due_in_the_same_turn(loop):
    fired = []
    deadline = loop.time() + 0.005
    loop.call_at(deadline, lambda: victim.cancel())
    victim = loop.call_at(deadline + 0.0001, fired.append, 1)
    run_for(loop, 0.03)
    assert fired in ([], [1])  # by then it may have been due already, and run
    assert victim.cancelled()


def test_a_cancelled_timer_does_not_fire_and_the_others_do(loop):
    fired = []
    handles = [loop.call_later(0.002, fired.append, number) for number in range(100)]
    for handle in handles[1::2]:
        handle.cancel()
    run_for(loop, 0.03)
    assert sorted(fired) == list(range(0, 100, 2))


def test_a_timer_may_set_the_next_one(loop):
    fired = []

    def again(left):
        fired.append(left)
        if left:
            loop.call_later(0.0005, again, left - 1)
        else:
            loop.stop()

    again(20)
    loop.run_forever()
    assert fired == list(range(20, -1, -1))


def test_timers_survive_from_one_run_to_the_next(loop):
    fired = []
    loop.call_later(0.01, fired.append, 1)
    loop.call_soon(loop.stop)
    loop.run_forever()
    run_for(loop, 0.03)
    assert fired == [1]


def test_a_hundred_thousand_cancelled_timeouts_leave_the_rest_in_order(loop):
    loop.set_debug(False)  # which notes the stack of each call: this is about their number

    async def main():
        fired = []
        for number in range(100_000):
            handle = loop.call_later(60 + number % 7, fired.append, number)
            handle.cancel()
        await asyncio.sleep(0.001)
        assert fired == []

    loop.run_until_complete(main())


def test_sleep_returns_its_result_in_time(loop):
    async def main():
        started = loop.time()
        results = await asyncio.gather(*(asyncio.sleep(n * 0.002, n) for n in range(10)))
        assert results == list(range(10))
        assert loop.time() - started >= 0.017

    loop.run_until_complete(main())


def test_wait_for_gives_up_in_time(loop):
    async def main():
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(loop.create_future(), 0.01)
        assert await asyncio.wait_for(asyncio.sleep(0, "done"), 10) == "done"

    loop.run_until_complete(main())


@pytest.mark.flavours("asyncio", "tokioloop", reason="the peers never look at a replaced clock")
class TestReplacedClock:
    def test_a_patched_clock_moves_the_timers(self, loop, monkeypatch):
        now = 1000.0
        monkeypatch.setattr(loop, "time", lambda: now)
        fired = []
        handle = loop.call_later(3600, fired.append, "an hour later")
        assert handle.when() == 4600.0
        self.turn(loop)
        assert fired == []
        now = 4600.0
        self.turn(loop)
        assert fired == ["an hour later"]

    def test_the_clock_of_a_subclass_moves_the_timers(self, flavour, loop, no_leaks):
        class LoopWithOffset(type(loop)):  # type: ignore[misc]
            offset = 0.0

            def time(self):
                return super().time() + self.offset

        async def main():
            sleeper = asyncio.create_task(asyncio.sleep(3600, "an hour later"))
            await asyncio.sleep(0)
            mocked.offset += 3601
            return await sleeper

        mocked = LoopWithOffset()
        try:
            assert mocked.run_until_complete(main()) == "an hour later"
        finally:
            mocked.close()

    def turn(self, loop):
        for _ in range(2):
            loop.call_soon(loop.stop)
            loop.run_forever()


@pytest.mark.flavours("asyncio", "tokioloop", reason="the peers never look at a replaced call_at")
class TestReplacedCallAt:
    def test_call_later_calls_that_of_a_subclass(self, loop, no_leaks):
        class LoopWithRecord(type(loop)):  # type: ignore[misc]
            def call_at(self, when, callback, *args, context=None):
                calls.append((when - started, callback, args, context))
                return super().call_at(when, callback, *args, context=context)

        calls, fired = [], []
        context = contextvars.copy_context()
        recording = LoopWithRecord()
        started = recording.time()
        try:
            recording.call_later(0.001, fired.append, 1, context=context)
            recording.call_later(0.002, recording.stop)
            recording.run_forever()
            recording.run_until_complete(asyncio.sleep(0.001))
        finally:
            recording.close()
        assert fired == [1]
        assert calls[0][1:] == (fired.append, (1,), context)
        assert calls[1][1:] == (recording.stop, (), None)
        assert len(calls) == 3
        assert 0.001 <= calls[0][0] < 1

    def test_call_later_calls_that_of_an_instance_while_it_is_there(self, loop, monkeypatch):
        def call_at(*args, context):
            calls.append((*args[1:], context))
            return original(*args)

        calls = []
        original = loop.call_at
        monkeypatch.setattr(loop, "call_at", call_at)
        assert isinstance(loop.call_later(0.5, print, 1, 2), asyncio.TimerHandle)
        monkeypatch.undo()
        assert isinstance(loop.call_later(0.5, print, 3), asyncio.TimerHandle)
        assert calls == [(print, 1, 2, None)]

    def test_call_later_calls_that_of_a_patched_class_from_the_next_run_on(self, loop, monkeypatch):
        calls = []

        def call_at(self, *args, context=None):
            calls.append(args)
            return original(self, *args, context=context)

        original = type(loop).call_at
        monkeypatch.setattr(type(loop), "call_at", call_at)
        loop.run_until_complete(asyncio.sleep(0.001))
        assert len(calls) == 1

    def test_a_delay_is_added_as_python_adds_it(self, loop, monkeypatch):
        class Delay(float):
            def __radd__(self, time):
                return "the sum"

        def call_at(when, callback, context):
            calls.append(when)
            return original(0, callback)

        calls = []
        original = loop.call_at
        monkeypatch.setattr(loop, "call_at", call_at)
        loop.call_later(Delay(1), int)
        assert calls == ["the sum"]


def test_time_is_monotonic(loop):
    readings = [loop.time() for _ in range(1000)]
    assert readings == sorted(readings)


@pytest.mark.flavours("asyncio", "tokioloop", reason="uvloop rounds to ms, rloop starts at zero")
def test_time_is_the_monotonic_clock(loop):
    import time

    before = time.monotonic()
    reading = loop.time()
    assert before <= reading <= time.monotonic()
