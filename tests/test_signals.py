"""Signals on a parked loop: Ctrl-C, Python's own handlers, the loop's handlers."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from tests.support.net import eventually, socket_pair
from tests.support.programs import output_of, start_program

PROMPTLY = 1.0  # generous: what is tested is that nobody waits for the next event


@pytest.fixture(autouse=True)
def handlers_restored():
    """The tests change handlers of the process; each gets them as it found them."""
    watched = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in watched}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def kill_when_parked(loop, number, delay=0.03):
    """Sends the signal to this process from a thread, when the loop has nothing left to do.

    The loop starts the thread, so that the signal cannot come before it runs.
    """

    def send():
        sent.append(time.monotonic())
        os.kill(os.getpid(), number)

    sent = []
    timer = threading.Timer(delay, send)
    loop.call_soon(timer.start)
    return timer, sent


class TestPythonHandlers:
    def test_one_runs_while_the_loop_is_parked(self, loop):
        ran = []
        signal.signal(
            signal.SIGUSR1,
            lambda *_: (ran.append(time.monotonic()), loop.call_soon_threadsafe(loop.stop)),
        )
        timer, sent = kill_when_parked(loop, signal.SIGUSR1)
        loop.run_forever()
        timer.join()
        assert ran[0] - sent[0] < PROMPTLY

    @pytest.mark.flavours("asyncio", "tokioloop", reason="the peers keep it to themselves")
    def test_an_exception_in_one_leaves_the_loop(self, loop):
        class Deliberate(Exception):
            pass

        def handler(*_):
            raise Deliberate

        signal.signal(signal.SIGUSR1, handler)
        timer, sent = kill_when_parked(loop, signal.SIGUSR1)
        with pytest.raises(Deliberate):
            loop.run_forever()
        assert time.monotonic() - sent[0] < PROMPTLY
        timer.join()
        assert loop.run_until_complete(asyncio.sleep(0, "usable")) == "usable"

    def test_one_that_does_nothing_does_not_disturb_waiting(self, loop):
        async def main():
            with socket_pair() as (ours, theirs):
                ran = []
                signal.signal(signal.SIGUSR1, lambda *_: ran.append(1))
                receiving = asyncio.ensure_future(loop.sock_recv(ours, 10))
                for _ in range(20):
                    os.kill(os.getpid(), signal.SIGUSR1)
                    await asyncio.sleep(0.001)
                assert not receiving.done()
                theirs.send(b"data")
                assert await receiving == b"data"
                assert len(ran) == 20

        loop.run_until_complete(main())


class TestKeyboardInterrupt:
    def test_ctrl_c_leaves_a_parked_loop_promptly(self, loop):
        signal.signal(signal.SIGINT, signal.default_int_handler)
        timer, sent = kill_when_parked(loop, signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            loop.run_forever()
        assert time.monotonic() - sent[0] < PROMPTLY
        timer.join()
        assert not loop.is_running()
        assert loop.run_until_complete(asyncio.sleep(0, "usable")) == "usable"

    @pytest.mark.flavours("asyncio", "tokioloop", "uvloop", reason="rloop reports it instead")
    def test_many_times_in_a_row(self, loop):
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for _ in range(20):
            timer, _sent = kill_when_parked(loop, signal.SIGINT, delay=0.002)
            with pytest.raises(KeyboardInterrupt):
                loop.run_until_complete(loop.create_future())
            timer.join()

    @pytest.mark.flavours("asyncio", "tokioloop", "uvloop", reason="rloop reports it instead")
    def test_ctrl_c_leaves_a_loop_that_never_parks(self, loop):
        signal.signal(signal.SIGINT, signal.default_int_handler)

        def again():
            loop.call_soon(again)

        again()
        timer, sent = kill_when_parked(loop, signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            loop.run_forever()
        assert time.monotonic() - sent[0] < PROMPTLY
        timer.join()

    def test_asyncio_run_cancels_the_main_task(self, flavour):
        program = """
            import signal, sys
            async def main():
                try:
                    loop = asyncio.get_running_loop()
                    loop.call_later(0.01, lambda: print("ready", flush=True))
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    print("cancelled", flush=True)
                    raise
            try:
                if sys.version_info >= (3, 11):
                    with asyncio.Runner(loop_factory=new_loop) as runner:
                        runner.run(main())
                else:
                    loop = new_loop()
                    task = loop.create_task(main())
                    try:
                        loop.run_until_complete(task)
                    except KeyboardInterrupt:
                        task.cancel()
                        try:
                            loop.run_until_complete(task)
                        except asyncio.CancelledError:
                            pass
                        raise
            except KeyboardInterrupt:
                print("interrupted", flush=True)
        """
        with start_program(flavour, program) as child:
            try:
                assert child.stdout.readline() == "ready\n"
                child.send_signal(signal.SIGINT)
                output, errors = child.communicate(timeout=10)
            finally:
                child.kill()
        assert output == "cancelled\ninterrupted\n", errors


class TestLoopHandlers:
    def test_one_runs_in_the_loop_with_its_arguments(self, loop):
        calls = []
        loop.add_signal_handler(
            signal.SIGUSR1, lambda *args: (calls.append(args), loop.stop()), 1, 2
        )
        timer, sent = kill_when_parked(loop, signal.SIGUSR1)
        loop.run_forever()
        assert time.monotonic() - sent[0] < PROMPTLY
        timer.join()
        assert calls == [(1, 2)]

    def test_a_burst_of_signals_arrives(self, flavour, loop):
        async def main():
            calls = []
            loop.add_signal_handler(signal.SIGUSR1, calls.append, "one")
            loop.add_signal_handler(signal.SIGUSR2, calls.append, "two")
            for _ in range(50):
                os.kill(os.getpid(), signal.SIGUSR1)
                os.kill(os.getpid(), signal.SIGUSR2)
                count = len(calls)
                await eventually(lambda count=count: len(calls) == count + 2)
            assert calls.count("one") == calls.count("two") == 50
            if flavour.name != "rloop":  # rloop cannot remove one
                loop.remove_signal_handler(signal.SIGUSR1)
                loop.remove_signal_handler(signal.SIGUSR2)

        loop.run_until_complete(main())

    @pytest.mark.flavours(
        "asyncio", "tokioloop", reason="rloop cannot remove, uvloop only sometimes"
    )
    def test_removal_restores_the_default(self, loop):
        loop.add_signal_handler(signal.SIGUSR1, print)
        assert loop.remove_signal_handler(signal.SIGUSR1) is True
        assert loop.remove_signal_handler(signal.SIGUSR1) is False
        assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL
        loop.add_signal_handler(signal.SIGINT, print)
        assert loop.remove_signal_handler(signal.SIGINT) is True
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    @pytest.mark.flavours("asyncio", "tokioloop", reason="the peers word it differently")
    def test_signals_that_cannot_be_caught_are_refused(self, loop):
        with pytest.raises(RuntimeError, match="sig 9 cannot be caught"):
            loop.add_signal_handler(signal.SIGKILL, print)
        with pytest.raises(ValueError, match="invalid signal number"):
            loop.add_signal_handler(9999, print)
        with pytest.raises(TypeError):
            loop.add_signal_handler("SIGUSR1", print)

    @pytest.mark.flavours("asyncio", "tokioloop", reason="the peers word it differently")
    def test_a_coroutine_function_is_refused(self, loop):
        async def coroutine():
            pass

        with pytest.raises(TypeError, match="coroutines cannot be used"):
            loop.add_signal_handler(signal.SIGUSR1, coroutine)

    @pytest.mark.flavours("asyncio", "tokioloop", reason="uvloop leaves its handlers in place")
    def test_closing_the_loop_removes_them(self, loop):
        loop.add_signal_handler(signal.SIGUSR1, print)
        loop.close()
        assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL


@pytest.mark.flavours(
    "asyncio", "tokioloop", reason="the peers keep a descriptor of their own there"
)
class TestWakeupDescriptor:
    def test_it_is_as_before_after_a_run(self, loop):
        with socket_pair() as (ours, _theirs):
            previous = signal.set_wakeup_fd(ours.fileno())
            try:
                loop.run_until_complete(asyncio.sleep(0.001))
                assert signal.set_wakeup_fd(ours.fileno()) == ours.fileno()
            finally:
                signal.set_wakeup_fd(previous)

    def test_a_loop_in_another_thread_leaves_it_alone(self, loop):
        previous = signal.set_wakeup_fd(-1)
        try:
            thread = threading.Thread(target=lambda: loop.run_until_complete(asyncio.sleep(0.001)))
            thread.start()
            thread.join()
            assert signal.set_wakeup_fd(-1) == -1
        finally:
            signal.set_wakeup_fd(previous)


@pytest.mark.flavours("asyncio", "uvloop", "tokioloop", reason="rloop cannot remove a handler")
def test_a_signal_is_handled_between_the_callbacks_of_a_chain(loop):
    """Nothing but the signal could come, and there is always something to run."""
    turns = 0
    handled = []

    def chain():
        nonlocal turns
        turns += 1
        if turns == 1000:
            os.kill(os.getpid(), signal.SIGUSR1)
        if turns < 3000:
            loop.call_soon(chain)
        else:
            loop.stop()

    loop.add_signal_handler(signal.SIGUSR1, lambda: handled.append(turns))
    loop.call_soon(chain)
    loop.run_forever()
    loop.remove_signal_handler(signal.SIGUSR1)
    assert len(handled) == 1
    assert handled[0] < 1200


def test_a_child_that_ends_wakes_nobody_up_for_nothing(loop):
    """SIGCHLD arrives while the loop waits; the wait is neither broken nor cut short."""

    child = subprocess.Popen(["true"])
    started = loop.time()
    loop.run_until_complete(asyncio.sleep(0.05))
    assert loop.time() - started >= 0.045
    assert child.wait() == 0


def test_a_signal_before_the_run_is_not_lost(flavour):
    printed = output_of(
        flavour,
        """
        import os, signal
        loop = new_loop()
        signal.signal(signal.SIGUSR1, lambda *_: loop.call_soon_threadsafe(loop.stop))
        os.kill(os.getpid(), signal.SIGUSR1)
        loop.run_forever()
        loop.close()
        print("stopped")
        """,
    )
    assert printed == "stopped\n"


EMBEDDED = """
import _thread, os, sys, time
assert "threading" not in sys.modules
sys.path[:] = os.environ["PATHS"].split(os.pathsep)

def work():
    try:
        import asyncio, tokioloop

        async def main():
            loop = asyncio.get_running_loop()
            try:
                loop.add_signal_handler(2, print)
            except RuntimeError:
                return "done"

        print(tokioloop.run(main()), flush=True)
    finally:
        ended.append(True)

ended = []
_thread.start_new_thread(work, ())
while not ended:
    time.sleep(0.005)
os._exit(0)
"""


@pytest.mark.flavours(
    "tokioloop", reason="asyncio has no descriptor to set before there are handlers"
)
def test_a_loop_runs_where_threading_takes_its_thread_for_the_main_one(flavour):
    """As in an interpreter that is embedded, and first used for Python by another thread."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", EMBEDDED],
        env={**os.environ, "PATHS": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.stdout == "done\n", done.stderr
