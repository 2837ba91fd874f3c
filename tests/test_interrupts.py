"""KeyboardInterrupt and SystemExit leave the loop, and the loop is usable afterwards."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.net import socket_pair

pytestmark = [
    pytest.mark.flavours(
        "asyncio", "tokioloop", "uvloop", reason="rloop hands them to the exception handler"
    ),
    pytest.mark.parametrize("raised", [KeyboardInterrupt, SystemExit]),
]


def leave(raised):
    raise raised("on purpose")


def is_usable(loop):
    return loop.run_until_complete(asyncio.sleep(0.001, "usable")) == "usable"


def test_in_a_callback_it_leaves_run_forever(loop, raised):
    loop.call_soon(leave, raised)
    with pytest.raises(raised, match="on purpose"):
        loop.run_forever()
    assert not loop.is_running()
    assert is_usable(loop)


@pytest.mark.flavours("asyncio", "tokioloop", reason="uvloop runs the rest of the turn first")
def test_the_rest_of_the_turn_runs_in_the_next_run(loop, raised):
    order = []
    loop.call_soon(order.append, "before")
    loop.call_soon(leave, raised)
    loop.call_soon(order.append, "after")
    with pytest.raises(raised):
        loop.run_forever()
    assert order == ["before"]
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert order == ["before", "after"]


def test_in_a_timer_it_leaves_run_forever(loop, raised):
    loop.call_later(0.001, leave, raised)
    with pytest.raises(raised, match="on purpose"):
        loop.run_forever()
    assert is_usable(loop)


def test_in_a_reader_it_leaves_run_forever(loop, raised):
    with socket_pair() as (ours, theirs):
        theirs.send(b"x")
        loop.add_reader(ours.fileno(), leave, raised)
        with pytest.raises(raised, match="on purpose"):
            loop.run_forever()
        loop.remove_reader(ours.fileno())
        assert is_usable(loop)


def test_in_the_main_task_it_is_raised_by_run_until_complete(loop, raised):
    async def main():
        await asyncio.sleep(0)
        leave(raised)

    with pytest.raises(raised, match="on purpose"):
        loop.run_until_complete(main())
    assert is_usable(loop)


def test_in_another_task_it_leaves_the_loop_and_the_main_task_can_go_on(loop, raised):
    async def other():
        leave(raised)

    async def main():
        other_task = asyncio.ensure_future(other())
        await asyncio.sleep(0.01)
        return other_task

    main_task = loop.create_task(main())
    with pytest.raises(raised, match="on purpose"):
        loop.run_until_complete(main_task)
    other_task = loop.run_until_complete(main_task)
    assert isinstance(other_task.exception(), raised)
    assert is_usable(loop)


def test_in_a_done_callback_it_leaves_the_loop(loop, raised):
    future = loop.create_future()
    future.add_done_callback(lambda _future: leave(raised))
    loop.call_soon(future.set_result, None)
    with pytest.raises(raised, match="on purpose"):
        loop.run_forever()
    assert is_usable(loop)


def test_in_a_threadsafe_callback_it_leaves_the_loop(loop, raised):
    loop.call_soon_threadsafe(leave, raised)
    with pytest.raises(raised, match="on purpose"):
        loop.run_forever()
    assert is_usable(loop)


def test_it_is_not_reported_to_the_exception_handler(loop, loop_errors, raised):
    loop.call_soon(leave, raised)
    with pytest.raises(raised):
        loop.run_forever()
    assert loop_errors == []
