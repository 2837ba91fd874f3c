"""`TokioLoop(stall_timeout=...)`: a stall is named while it lasts."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from tokioloop.observe.stall import StallWatcher


def test_a_sleep_is_named_while_it_runs(make_loop, caplog):
    named = threading.Event()
    stalls = []

    def on_stall(stall):
        stalls.append(stall)
        named.set()

    async def blocking():
        # It ends only because the watcher has named it before it ended.
        assert named.wait(10)

    loop = make_loop(stall_timeout=0.05, on_stall=on_stall)

    async def main():
        await asyncio.create_task(blocking(), name="blocker")

    loop.run_until_complete(main())
    stall = stalls[0]
    assert stall.seconds >= 0.05
    assert stall.task == f"blocker ({blocking.__qualname__})"
    assert "named.wait(10)" in "".join(stall.stack)
    assert "in blocking" in "".join(stall.stack)
    messages = [r.getMessage() for r in caplog.records if r.name == "tokioloop.stall"]
    assert "task 'blocker" in messages[0]
    assert "named.wait(10)" in messages[0]


def test_time_sleep_is_found_with_the_gil_free(make_loop):
    stalls = []
    loop = make_loop(stall_timeout=0.05, on_stall=stalls.append)
    loop.call_soon(time.sleep, 0.3)
    loop.call_later(0, loop.stop)
    loop.run_forever()
    assert stalls
    assert stalls[0].task is None
    assert "GIL" in stalls[0].gil


@pytest.mark.skipif(not hasattr(time, "pthread_getcpuclockid"), reason="needs CPU clocks")
def test_a_computation_is_found_to_hold_the_gil(make_loop):
    stalls = []
    loop = make_loop(stall_timeout=0.05, on_stall=stalls.append)

    def compute():
        until = time.monotonic() + 5
        while not stalls and time.monotonic() < until:
            pass

    loop.call_soon(compute)
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert "its own thread holds the GIL" in stalls[0].gil or stalls[0].gil == "there is no GIL"
    assert "in compute" in stalls[0].stack[-1]


def test_an_idle_loop_is_no_stall(make_loop):
    stalls = []
    loop = make_loop(stall_timeout=0.02, on_stall=stalls.append)
    loop.run_until_complete(asyncio.sleep(0.2))
    assert not stalls


def test_the_watcher_ends_with_the_run(make_loop):
    before = threading.active_count()
    loop = make_loop(stall_timeout=5.0)

    async def main():
        return threading.active_count()

    assert loop.run_until_complete(main()) == before + 1
    assert threading.active_count() == before


def test_a_hook_that_still_runs_holds_the_end_of_the_run_up_only_briefly(make_loop, monkeypatch):
    release = threading.Event()
    monkeypatch.setattr(StallWatcher, "_watch", lambda watcher: release.wait(30))
    loop = make_loop(stall_timeout=30.0)
    began = time.monotonic()
    loop.run_until_complete(asyncio.sleep(0))
    assert time.monotonic() - began < 5
    release.set()


@pytest.mark.parametrize("error", [RuntimeError, SystemExit, KeyboardInterrupt])
def test_a_failing_hook_is_logged_and_the_watch_goes_on(make_loop, caplog, error):
    calls = []

    def on_stall(stall):
        calls.append(stall)
        raise error("the hook fails")

    def block():
        until = time.monotonic() + 5
        while len(calls) < 2 and time.monotonic() < until:
            time.sleep(0.005)

    loop = make_loop(stall_timeout=0.02, on_stall=on_stall)
    loop.call_soon(block)
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert len(calls) >= 2
    assert any("on_stall failed" in record.getMessage() for record in caplog.records)


def test_wrong_hooks_are_refused(make_loop):
    with pytest.raises(TypeError, match="on_stall"):
        make_loop(stall_timeout=1.0, on_stall=3)
    with pytest.raises(ValueError, match="stall_timeout"):
        make_loop(on_stall=print)
