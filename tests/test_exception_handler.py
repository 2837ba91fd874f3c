"""Where exceptions of callbacks and tasks are reported."""

from __future__ import annotations

import asyncio
import gc
import logging

import pytest

OWN_HANDLER = "rloop's handler takes one argument and has no default"


def run_once(loop):
    loop.call_later(0.005, loop.stop)
    loop.run_forever()


def fail(message="deliberate"):
    raise LookupError(message)


def records(caplog):
    return [record for record in caplog.records if record.name == "asyncio"]


def test_an_exception_in_a_callback_is_reported_and_the_loop_goes_on(loop, loop_errors):
    after = []
    loop.call_soon(fail)
    loop.call_soon(after.append, 1)
    run_once(loop)
    assert isinstance(loop_errors.take()["exception"], LookupError)
    assert after == [1]


@pytest.mark.flavours("asyncio", "tokioloop", "uvloop", reason=OWN_HANDLER)
@pytest.mark.parametrize("schedule", ["call_soon", "call_soon_threadsafe", "call_later", "call_at"])
def test_the_report_names_the_callback_and_the_handle(loop, loop_errors, schedule):
    delay = {"call_later": (0,), "call_at": (0,)}.get(schedule, ())
    handle = getattr(loop, schedule)(*delay, fail)
    run_once(loop)
    report = loop_errors.take()
    assert report["message"].startswith("Exception in callback")
    assert "fail" in report["message"]
    assert report["handle"] is handle
    assert isinstance(report["exception"], LookupError)


def test_each_exception_is_reported_once_and_in_order(loop, loop_errors):
    for number in range(10):
        loop.call_soon(fail, number)
    run_once(loop)
    assert [error.args[0] for error in loop_errors.exceptions] == list(range(10))
    loop_errors.clear()


@pytest.mark.flavours("asyncio", "tokioloop", "uvloop", reason=OWN_HANDLER)
@pytest.mark.parametrize(
    "raised",
    [GeneratorExit, asyncio.CancelledError, StopIteration, type("Odd", (BaseException,), {})],
    ids=lambda raised: raised.__name__,
)
def test_odd_exceptions_are_reported_too(loop, loop_errors, raised):
    def fail():
        raise raised

    loop.call_soon(fail)
    run_once(loop)
    assert isinstance(loop_errors.take()["exception"], raised)


def test_a_handler_can_be_set_read_and_removed(loop):
    def handler(*_args):
        pass

    assert loop.get_exception_handler() is not None  # the fixture's
    loop.set_exception_handler(handler)
    assert loop.get_exception_handler() is handler
    loop.set_exception_handler(None)
    assert loop.get_exception_handler() is None


@pytest.mark.flavours("asyncio", "tokioloop", "uvloop", reason=OWN_HANDLER)
class TestHandlers:
    def test_the_handler_gets_the_loop_and_the_context(self, loop):
        calls = []
        loop.set_exception_handler(lambda *args: calls.append(args))
        context = {"message": "hello"}
        loop.call_exception_handler(context)
        assert calls == [(loop, context)]

    def test_what_is_not_callable_is_a_type_error(self, loop):
        with pytest.raises(TypeError):
            loop.set_exception_handler(5)

    def test_the_default_logs_message_and_traceback(self, loop, caplog):
        loop.set_exception_handler(None)
        loop.call_soon(fail)
        run_once(loop)
        (record,) = records(caplog)
        assert record.levelno == logging.ERROR
        assert record.message.startswith("Exception in callback")
        assert record.exc_info[0] is LookupError

    def test_the_default_can_be_called_by_a_handler(self, loop, caplog):
        loop.set_exception_handler(lambda loop, context: loop.default_exception_handler(context))
        loop.call_exception_handler({"message": "passed on", "detail": 5})
        (record,) = records(caplog)
        assert "passed on" in record.message
        assert "detail: 5" in record.message

    def test_an_exception_in_the_handler_is_logged(self, loop, caplog):
        loop.set_exception_handler(lambda _loop, _context: fail("in the handler"))
        loop.call_soon(fail)
        run_once(loop)
        (record,) = records(caplog)
        assert record.message.startswith("Unhandled error in exception handler")
        assert record.exc_info[1].args == ("in the handler",)

    def test_system_exit_in_the_handler_leaves_the_loop(self, loop):
        def leave(_loop, _context):
            raise SystemExit(7)

        loop.set_exception_handler(leave)
        loop.call_soon(fail)
        with pytest.raises(SystemExit) as caught:
            loop.run_forever()
        assert caught.value.code == 7
        assert not loop.is_running()

    def test_an_exception_nobody_retrieved_is_reported_when_the_task_goes(self, loop, loop_errors):
        async def main():
            task = asyncio.ensure_future(failing())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert task.done()

        async def failing():
            fail("not retrieved")

        loop.run_until_complete(main())
        gc.collect()
        report = loop_errors.take()
        assert report["message"] == "Task exception was never retrieved"
        assert report["exception"].args == ("not retrieved",)


@pytest.mark.flavours("asyncio", "tokioloop", reason="the peers report it")
def test_an_interrupt_while_a_failed_callback_is_described_ends_the_run(loop, loop_errors):
    class Callback:
        def __call__(self):
            raise LookupError

        def __repr__(self):
            if loop.is_running():
                raise KeyboardInterrupt
            return "Callback()"

    loop.call_soon(Callback())
    loop.call_later(5, loop.stop)
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    assert loop_errors == []
