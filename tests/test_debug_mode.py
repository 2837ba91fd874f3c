"""Debug mode: slow callbacks, wrong threads, wrong arguments, where things were created."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import sys
import time
import warnings

import pytest

from tests.support.programs import output_of

pytestmark = pytest.mark.flavours(
    "asyncio",
    "tokioloop",
    reason="uvloop checks less and words it otherwise, rloop has no debug mode",
)


@pytest.fixture
def loop(loop):
    loop.set_debug(True)
    loop.slow_callback_duration = 10.0  # only what a test makes slow counts as slow
    return loop


def run_once(loop):
    loop.call_soon(loop.stop)
    loop.run_forever()


def messages(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "asyncio"]


def be_slow():
    time.sleep(0.02)


class TestSlowCallbacks:
    @pytest.fixture
    def loop(self, loop):
        loop.slow_callback_duration = 0.01
        return loop

    def test_a_slow_callback_is_named_with_its_duration(self, loop, caplog):
        loop.call_soon(be_slow)
        run_once(loop)
        (message,) = messages(caplog)
        assert message.startswith("Executing <Handle be_slow() at ")
        assert __file__ in message
        duration = float(message.rpartition("took ")[2].removesuffix(" seconds"))
        assert 0.015 < duration < 5

    def test_a_slow_timer_is_reported(self, loop, caplog):
        loop.call_later(0.001, be_slow)
        loop.call_later(0.03, loop.stop)
        loop.run_forever()
        (message,) = messages(caplog)
        assert message.startswith("Executing <TimerHandle when=")
        assert "be_slow()" in message

    def test_a_slow_step_of_a_task_names_the_task_and_its_coroutine(self, loop, caplog):
        async def slow_step():
            be_slow()

        loop.run_until_complete(loop.create_task(slow_step(), name="the slow one"))
        assert any(
            message.startswith("Executing <Task ") and "slow_step" in message
            for message in messages(caplog)
        )

    def test_fast_callbacks_are_not_reported(self, loop, caplog):
        loop.slow_callback_duration = 10.0
        loop.call_soon(be_slow)
        run_once(loop)
        assert messages(caplog) == []

    def test_nothing_is_reported_outside_debug_mode(self, loop, caplog):
        loop.set_debug(False)
        loop.call_soon(be_slow)
        run_once(loop)
        assert messages(caplog) == []

    def test_the_limit_is_a_tenth_of_a_second_by_default(self, loop_factory):
        assert loop_factory().slow_callback_duration == 0.1


@pytest.mark.parametrize("name", ["call_soon", "call_later", "call_at"])
def test_scheduling_from_another_thread_is_refused(loop, name):
    delay = () if name == "call_soon" else (0,)

    async def main():
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            error = pool.submit(getattr(loop, name), *delay, print).exception()
        assert isinstance(error, RuntimeError)
        assert "Non-thread-safe operation invoked on an event loop" in str(error)

    loop.run_until_complete(main())


def test_call_soon_threadsafe_is_allowed_from_another_thread(loop):
    async def main():
        called = loop.create_future()
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            pool.submit(loop.call_soon_threadsafe, called.set_result, None).result()
        await called

    loop.run_until_complete(main())


@pytest.mark.parametrize("name", ["call_soon", "call_soon_threadsafe", "call_later", "call_at"])
class TestCallbackChecks:
    def test_what_is_not_callable_is_a_type_error(self, loop, name):
        delay = () if name.startswith("call_soon") else (0,)
        with pytest.raises(TypeError, match="a callable object was expected by"):
            getattr(loop, name)(*delay, 5)

    def test_a_coroutine_is_a_type_error(self, loop, name):
        async def coroutine():
            pass

        delay = () if name.startswith("call_soon") else (0,)
        with pytest.raises(TypeError, match="coroutines cannot be used with"):
            getattr(loop, name)(*delay, coroutine)
        started = coroutine()
        with pytest.raises(TypeError, match="coroutines cannot be used with"):
            getattr(loop, name)(*delay, started)
        started.close()


def test_the_report_of_an_exception_tells_where_the_handle_was_created(loop, loop_errors):
    def fail():
        raise LookupError

    loop.call_soon(fail)
    line = sys._getframe().f_lineno - 1
    run_once(loop)
    report = loop_errors.take()
    frames = report["source_traceback"]
    assert (frames[-1].filename, frames[-1].lineno) == (__file__, line)


def test_tasks_and_futures_know_where_they_were_created(loop):
    async def main():
        future = loop.create_future()
        task = loop.create_task(asyncio.sleep(0))
        for made in (future, task):
            # asyncio's own method is a frame of its own, a method in Rust is none.
            assert __file__ in [frame.filename for frame in made._source_traceback[-2:]]
        await task

    loop.run_until_complete(main())


def test_it_can_be_switched_while_the_loop_runs(loop):
    async def main():
        assert loop.get_debug()
        assert sys.get_coroutine_origin_tracking_depth() > 0
        loop.set_debug(False)
        await asyncio.sleep(0)
        assert not loop.get_debug()
        assert sys.get_coroutine_origin_tracking_depth() == 0
        loop.set_debug(True)
        await asyncio.sleep(0)
        assert sys.get_coroutine_origin_tracking_depth() > 0

    before = sys.get_coroutine_origin_tracking_depth()
    loop.run_until_complete(main())
    assert sys.get_coroutine_origin_tracking_depth() == before


def test_a_slow_poll_is_not_reported_as_a_slow_callback(loop, caplog):
    loop.slow_callback_duration = 0.01
    loop.call_later(0.05, loop.stop)
    with caplog.at_level(logging.WARNING):
        loop.run_forever()
    assert not [message for message in messages(caplog) if message.startswith("Executing")]


def test_the_environment_switches_it_on(flavour):
    program = "loop = new_loop(); print(loop.get_debug()); loop.close()"
    assert output_of(flavour, program, {"PYTHONASYNCIODEBUG": "1"}) == "True\n"
    assert output_of(flavour, program, {"PYTHONASYNCIODEBUG": "", "PYTHONDEVMODE": ""}) == "False\n"


def test_a_loop_that_was_not_closed_is_a_resource_warning(flavour):
    with warnings.catch_warnings():
        printed = output_of(
            flavour,
            """
            import gc, warnings
            warnings.simplefilter("always")
            warnings.showwarning = lambda text, kind, *rest: print(kind.__name__, text)
            loop = new_loop()
            del loop
            gc.collect()
            """,
        )
    assert printed.startswith("ResourceWarning unclosed event loop")


def test_a_transport_that_was_not_closed_is_a_resource_warning(flavour):
    printed = output_of(
        flavour,
        """
        import gc, socket, warnings
        warnings.simplefilter("always")
        warnings.showwarning = lambda text, kind, *rest: print(kind.__name__, text)
        loop = new_loop()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            pair = loop.run_until_complete(
                loop.create_connection(asyncio.Protocol, *listener.getsockname())
            )
            peer, _ = listener.accept()
            peer.close()
        loop.close()
        del pair
        gc.collect()
        """,
    )
    assert "ResourceWarning unclosed transport" in printed
