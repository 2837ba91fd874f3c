"""`create_future`: what it makes is, in every respect, a future that asyncio's class has made."""

from __future__ import annotations

import asyncio
import gc
import sys
import weakref

import pytest

FORKED = "uvloop and rloop do not ask the loop whether it is in debug mode"

# What a future shows of itself, private names of the C class included.
SHOWN = [
    "_state",
    "_result",
    "_exception",
    "_loop",
    "_callbacks",
    "_cancel_message",
    "_log_traceback",
    "_asyncio_future_blocking",
    "_source_traceback",
]


def shown(future):
    return {name: getattr(future, name) for name in SHOWN} | {"repr": repr(future)}


def test_it_is_as_the_class_makes_it(loop):
    loop.set_debug(False)  # in debug mode it is the class that makes it
    future = loop.create_future()
    assert type(future) is asyncio.Future
    assert future.get_loop() is loop
    assert shown(future) == shown(asyncio.Future(loop=loop))
    assert sys.getsizeof(future) == sys.getsizeof(asyncio.Future(loop=loop))


def test_it_lives_as_long_as_it_is_referred_to(loop):
    future = loop.create_future()
    reference = weakref.ref(future)
    assert gc.is_tracked(future)
    assert loop in gc.get_referents(future)
    future.add_done_callback(print)
    future.note = "an attribute"
    del future
    gc.collect()
    assert reference() is None


@pytest.mark.skipif(not hasattr(sys, "getrefcount"), reason="counts of references are CPython's")
def test_it_refers_to_the_loop_once(loop):
    loop.create_future()
    before = sys.getrefcount(loop)
    futures = [loop.create_future() for _ in range(100)]
    # Without the GIL a class may count references to its instances elsewhere.
    assert sys.getrefcount(loop) - before == len(futures)
    del futures
    assert sys.getrefcount(loop) == before


@pytest.mark.parametrize("how", ["result", "exception", "cancel"])
def test_whoever_waits_for_it_is_woken(loop, how):
    async def main():
        future = loop.create_future()
        seen = []
        future.add_done_callback(seen.append)
        end = {
            "result": lambda: future.set_result(5),
            "exception": lambda: future.set_exception(KeyError("x")),
            "cancel": lambda: future.cancel("why"),
        }[how]
        loop.call_soon(end)
        try:
            value = await future
        except (KeyError, asyncio.CancelledError) as error:
            value = type(error), error.args
        assert seen == [future]
        return value

    expected = {
        "result": 5,
        "exception": (KeyError, ("x",)),
        "cancel": (asyncio.CancelledError, ("why",)),
    }
    assert loop.run_until_complete(main()) == expected[how]


def test_an_exception_that_nobody_fetches_is_reported(loop, loop_errors):
    loop.create_future().set_exception(KeyError("x"))
    gc.collect()
    assert loop_errors.messages == ["Future exception was never retrieved"]
    loop_errors.clear()


@pytest.mark.flavours("asyncio", "uvloop", "tokioloop", reason="rloop notes nothing")
def test_debug_mode_notes_where_it_was_made(loop):
    loop.set_debug(True)
    frames = [frame.name for frame in loop.create_future()._source_traceback]
    assert "test_debug_mode_notes_where_it_was_made" in frames
    loop.set_debug(False)
    assert loop.create_future()._source_traceback is None


@pytest.mark.flavours("asyncio", "tokioloop", reason=FORKED)
def test_a_get_debug_of_ones_own_is_asked(loop):
    loop.set_debug(False)
    assert loop.create_future()._source_traceback is None
    loop.get_debug = lambda: True
    assert loop.create_future()._source_traceback
    del loop.get_debug
    assert loop.create_future()._source_traceback is None


@pytest.mark.flavours("asyncio", "tokioloop", reason=FORKED)
def test_a_subclass_with_a_get_debug_of_its_own_is_asked(flavour, loop):
    class Debugging(type(loop)):
        def get_debug(self):
            return True

    own = Debugging()
    try:
        assert own.create_future()._source_traceback
        assert own.create_future().get_loop() is own
    finally:
        own.close()


def test_it_can_be_made_while_no_loop_runs_and_on_another_thread(loop):
    made = []
    # In this thread, then in a thread of the executor.
    made.append(loop.create_future())
    loop.run_until_complete(loop.run_in_executor(None, lambda: made.append(loop.create_future())))
    assert [future.get_loop() for future in made] == [loop, loop]


@pytest.mark.parametrize("count", [1, 3])
def test_the_wrong_number_of_arguments_is_a_type_error(loop, count):
    with pytest.raises(TypeError):
        loop.create_future(*range(count))
