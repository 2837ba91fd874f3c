"""What `call_soon` and its relatives return: handles that cancel, compare, tell what they are."""

from __future__ import annotations

import asyncio
import gc
import sys
import weakref

import pytest

from tests.support.programs import output_of

PLAIN = "uvloop and rloop return handles of their own, which lack much of asyncio's"
NO_CANCEL = "rloop's cancel() does not cancel what is due at once"


def run_once(loop):
    loop.call_soon(loop.stop)
    loop.run_forever()


@pytest.mark.flavours("asyncio", "tokioloop", "uvloop", reason=NO_CANCEL)
@pytest.mark.parametrize(
    "schedule",
    [
        lambda loop, callback: loop.call_soon(callback),
        lambda loop, callback: loop.call_soon_threadsafe(callback),
        lambda loop, callback: loop.call_later(0, callback),
        lambda loop, callback: loop.call_at(loop.time(), callback),
    ],
    ids=["call_soon", "call_soon_threadsafe", "call_later", "call_at"],
)
def test_a_cancelled_handle_does_not_run(loop, schedule):
    ran = []
    handle = schedule(loop, lambda: ran.append("cancelled"))
    assert not handle.cancelled()
    handle.cancel()
    handle.cancel()
    assert handle.cancelled()
    loop.call_later(0.005, loop.stop)
    loop.run_forever()
    assert ran == []


@pytest.mark.flavours("asyncio", "tokioloop", "uvloop", reason=NO_CANCEL)
def test_a_handle_can_be_cancelled_by_a_callback_of_the_same_turn(loop):
    ran = []
    loop.call_soon(lambda: victim.cancel())
    victim = loop.call_soon(ran.append, 1)
    run_once(loop)
    assert ran == []


def test_cancelling_after_the_run_changes_nothing(loop):
    ran = []
    handle = loop.call_soon(ran.append, 1)
    run_once(loop)
    handle.cancel()
    assert ran == [1]


@pytest.mark.flavours("asyncio", "tokioloop", "uvloop", reason=NO_CANCEL)
def test_cancel_releases_the_callback_and_its_arguments_at_once(loop):
    class Argument:
        pass

    argument = Argument()
    gone = weakref.ref(argument)
    handle = loop.call_later(60, print, argument)
    del argument
    handle.cancel()
    gc.collect()  # free-threaded builds may defer the release
    assert gone() is None


def test_a_handle_that_has_run_lets_go_of_its_arguments(loop):
    class Argument:
        pass

    argument = Argument()
    gone = weakref.ref(argument)
    loop.call_soon(lambda _argument: None, argument)
    del argument
    run_once(loop)
    gc.collect()
    assert gone() is None


@pytest.mark.flavours("asyncio", "tokioloop", reason=PLAIN)
@pytest.mark.parametrize("method", ["call_soon", "call_soon_threadsafe"])
@pytest.mark.parametrize("order", [("_run", "cancel"), ("cancel", "_run")], ids="-".join)
def test_a_callback_that_runs_its_own_handle_keeps_its_arguments(loop, loop_errors, method, order):
    class Argument:
        @property
        def value(self):
            for step in order:
                getattr(handle, step)()
            alive.append(gone() is not None)

    alive = []
    default = Argument()
    gone = weakref.ref(default)
    # A function that has its last argument from the handle alone.
    handle = getattr(loop, method)(getattr, Argument(), "value", default)
    del default
    run_once(loop)
    loop_errors.clear()  # a context cannot be entered twice
    gc.collect()
    assert alive == [True]
    assert gone() is None


@pytest.mark.flavours("asyncio", "tokioloop", reason=PLAIN)
@pytest.mark.parametrize("method", ["call_soon", "call_soon_threadsafe"])
@pytest.mark.parametrize("held", ["handle", "types.MethodType(print, handle)"])
def test_a_long_chain_of_handles_ends_without_a_long_stack(flavour, method, held):
    program = f"""
    import types
    loop, handle = new_loop(), None
    for _ in range(150_000):
        handle = loop.{method}(lambda held: None, {held} if handle else None)
    loop.call_soon(loop.stop)
    loop.run_forever()
    del handle
    loop.close()
    print("done")
    """
    assert output_of(flavour, program) == "done\n"


@pytest.mark.flavours("asyncio", "tokioloop", reason=PLAIN)
def test_handles_are_asyncios(loop):
    soon = loop.call_soon(print)
    later = loop.call_later(60, print)
    at_once = loop.call_later(-1, print)
    assert isinstance(soon, asyncio.Handle)
    assert not isinstance(soon, asyncio.TimerHandle)
    for handle in (later, at_once):
        assert isinstance(handle, asyncio.TimerHandle)
        assert isinstance(handle, asyncio.Handle)
    for handle in (soon, later, at_once):
        handle.cancel()


@pytest.mark.flavours("asyncio", "tokioloop", reason=PLAIN)
def test_timer_handles_order_by_deadline(loop):
    early, late = loop.call_at(1e9, print), loop.call_at(2e9, print)
    assert early < late and early <= late
    assert late > early and late >= early
    assert early != late and early == early
    assert early != "a string"
    assert hash(early) != hash(late)
    assert sorted([late, early]) == [early, late]
    for handle in (early, late):
        handle.cancel()


@pytest.mark.flavours("asyncio", "tokioloop", reason=PLAIN)
def test_when_is_the_deadline_as_given(loop):
    deadline = loop.time() + 3600.123456789
    handle = loop.call_at(deadline, print)
    assert handle.when() == deadline
    handle.cancel()
    assert handle.when() == deadline


def test_when_of_call_later_is_the_current_time_plus_the_delay(loop):
    before = loop.time()
    handle = loop.call_later(3600, print)
    assert before + 3599.9 <= handle.when() <= loop.time() + 3600.1
    handle.cancel()


@pytest.mark.flavours("asyncio", "tokioloop", reason=PLAIN)
def test_handles_can_be_weakly_referenced(loop):
    handle = loop.call_later(60, print)
    assert weakref.ref(handle)() is handle
    handle.cancel()


@pytest.mark.min_python(3, 12)
@pytest.mark.flavours("asyncio", "tokioloop", reason=PLAIN)
def test_get_context_returns_the_context_the_callback_runs_in(loop):
    import contextvars

    context = contextvars.copy_context()
    handle = loop.call_soon(print, context=context)
    assert handle.get_context() is context
    handle.cancel()


def described_callback():
    """A callback whose name a repr has to show."""


@pytest.mark.flavours("asyncio", "tokioloop", reason=PLAIN)
class TestRepr:
    def test_it_names_the_callback_and_where_it_is_defined(self, loop):
        handle = loop.call_soon(described_callback)
        line = described_callback.__code__.co_firstlineno
        assert repr(handle).startswith("<Handle described_callback() at ")
        assert f"{__file__}:{line}" in repr(handle)
        handle.cancel()

    def test_it_shows_the_deadline_of_a_timer(self, loop):
        handle = loop.call_at(1e9, described_callback)
        assert repr(handle).startswith("<TimerHandle when=1000000000.0 described_callback()")
        handle.cancel()

    def test_a_cancelled_handle_shows_no_callback(self, loop):
        handle = loop.call_soon(described_callback)
        handle.cancel()
        if not loop.get_debug():
            assert repr(handle) == "<Handle cancelled>"
        assert "described_callback() at" not in repr(handle) or loop.get_debug()

    def test_debug_mode_tells_where_it_was_created(self, loop):
        loop.set_debug(True)
        handle = loop.call_soon(described_callback)
        line = sys._getframe().f_lineno - 1
        assert f"created at {__file__}:{line}" in repr(handle)
        handle.cancel()

    def test_arguments_are_hidden_from_version_3_13_on_unless_in_debug_mode(self, loop):
        loop.set_debug(False)
        handle = loop.call_soon(described_callback, "secret")
        assert ("secret" in repr(handle)) == (sys.version_info < (3, 13))
        handle.cancel()
        loop.set_debug(True)
        handle = loop.call_soon(described_callback, "shown")
        assert "shown" in repr(handle)
        handle.cancel()
