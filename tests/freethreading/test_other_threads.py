"""The rule for calls from other threads than the loop's, method by method.

docs/free-threading.md is the rule in words. asyncio's own loop checks little of it.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.net import connected

pytestmark = pytest.mark.flavours("tokioloop", reason="tokioloop's rule, stricter than asyncio's")


def in_another_thread(call: Callable[[], Any]) -> Any:
    """The result of a call that the loop's thread waits for."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result(timeout=10)


def refusal(call: Callable[[], Any]) -> str:
    with pytest.raises(RuntimeError) as raised:
        in_another_thread(call)
    return str(raised.value)


OPEN_TO_ALL: dict[str, Callable[[Any], Any]] = {
    "is_running": lambda loop: loop.is_running(),
    "is_closed": lambda loop: not loop.is_closed(),
    "get_debug": lambda loop: loop.get_debug() in (True, False),
    "time": lambda loop: loop.time() > 0,
    "create_future": lambda loop: not loop.create_future().done(),
    "repr": lambda loop: "running=True" in repr(loop),
}


@pytest.mark.parametrize("name", OPEN_TO_ALL)
def test_what_is_open_to_every_thread(loop: Any, name: str) -> None:
    async def main() -> None:
        await asyncio.sleep(0)
        assert in_another_thread(lambda: OPEN_TO_ALL[name](loop))

    loop.run_until_complete(main())


REFUSED: dict[str, tuple[Any, ...]] = {
    "add_reader": (0, print),
    "add_writer": (0, print),
    "remove_reader": (0,),
    "remove_writer": (0,),
    "get_task_factory": (),
    "set_task_factory": (None,),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_loops_method_is_refused_by_its_name(loop: Any, name: str) -> None:
    async def main() -> None:
        message = refusal(lambda: getattr(loop, name)(*REFUSED[name]))
        assert name in message
        assert "call_soon_threadsafe" in message

    loop.run_until_complete(main())


def test_metrics_are_those_of_the_loops_next_turn(loop: Any) -> None:
    async def main() -> None:
        with ThreadPoolExecutor(1) as pool:
            figures = await loop.run_in_executor(pool, loop.metrics)
        assert 0 < figures["turns"] <= loop.metrics()["turns"]

    loop.run_until_complete(main())


def test_create_task_is_refused_by_its_name(loop: Any) -> None:
    async def main() -> None:
        coroutine = asyncio.sleep(0)
        assert refusal(lambda: loop.create_task(coroutine)).startswith("create_task()")
        coroutine.close()

    loop.run_until_complete(main())


SCHEDULING: dict[str, tuple[Any, ...]] = {"call_soon": (), "call_later": (0.001,), "call_at": (0,)}


@pytest.mark.parametrize("name", SCHEDULING)
def test_scheduling_is_carried_over_and_wakes_the_loop(loop: Any, name: str) -> None:
    loop.set_debug(False)
    called_in = []

    def callback() -> None:
        called_in.append(threading.get_ident())
        loop.stop()

    thread = threading.Thread(target=lambda: getattr(loop, name)(*SCHEDULING[name], callback))
    loop.call_soon(thread.start)
    loop.run_forever()
    thread.join()
    assert called_in == [threading.get_ident()]


@pytest.mark.parametrize("name", SCHEDULING)
def test_scheduling_is_refused_in_debug_mode(loop: Any, name: str) -> None:
    loop.set_debug(True)

    async def main() -> None:
        message = refusal(lambda: getattr(loop, name)(*SCHEDULING[name], print))
        assert "Non-thread-safe operation" in message

    loop.run_until_complete(main())


def test_stop_wakes_a_parked_loop(loop: Any) -> None:
    parked = threading.Event()
    thread = threading.Thread(target=lambda: (parked.wait(), loop.stop()))
    thread.start()
    loop.call_soon(parked.set)
    loop.run_forever()
    thread.join()


def test_a_cancelled_timer_of_another_thread_drops_what_it_holds(loop: Any) -> None:
    class Held:
        pass

    async def main() -> None:
        held = Held()
        gone = weakref.ref(held)
        handle = loop.call_later(60, print, held)
        del held
        in_another_thread(handle.cancel)
        assert handle.cancelled()
        await asyncio.sleep(0)  # the loop looks at its inbox
        gc.collect()
        assert gone() is None
        assert not handle._scheduled

    loop.run_until_complete(main())


def test_a_cancelled_timer_in_a_cycle_with_its_context_is_collected(loop: Any) -> None:
    """Its owner is in a variable of the context that it keeps: nobody but the collector sees it."""
    import contextvars

    class Owner:
        pass

    variable: contextvars.ContextVar[Any] = contextvars.ContextVar("variable")

    async def main() -> Any:
        owner = Owner()
        context = contextvars.copy_context()
        context.run(variable.set, owner)
        owner.handle = loop.call_later(60, print, context=context)  # type: ignore[attr-defined]
        owner.handle.cancel()  # type: ignore[attr-defined]
        return weakref.ref(owner)

    gone = loop.run_until_complete(main())
    gc.collect()
    assert gone() is None


def test_a_transport_tells_every_thread_whether_it_is_closing(loop: Any) -> None:
    async def main() -> None:
        async with connected("client") as (transport, _protocol, _peer):
            assert in_another_thread(transport.is_closing) is False
            assert "SocketTransport" in in_another_thread(lambda: repr(transport))
            transport.close()
            assert in_another_thread(transport.is_closing) is True

    loop.run_until_complete(main())


def test_pipes_and_children_show_themselves_to_every_thread(loop: Any) -> None:
    pipe = asyncio.subprocess.PIPE

    async def main() -> None:
        child = await asyncio.create_subprocess_exec("cat", stdin=pipe, stdout=pipe)
        transport: Any = child._transport  # type: ignore[attr-defined]
        text = in_another_thread(lambda: repr(transport))
        assert f"pid={child.pid}" in text
        assert f"stdout={in_another_thread(lambda: repr(transport.get_pipe_transport(1)))}" in text
        await child.communicate(b"")

    loop.run_until_complete(main())


def test_a_server_that_another_thread_closes_is_closed_by_the_loop(loop: Any) -> None:
    async def main() -> None:
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        in_another_thread(server.close)
        await server.wait_closed()
        with pytest.raises(OSError):
            await asyncio.open_connection(*address)

    loop.run_until_complete(main())


def test_a_refused_run_leaves_the_running_loop_alone(loop: Any) -> None:
    async def main() -> None:
        assert "already running" in refusal(loop.run_forever)
        assert loop.is_running()
        await asyncio.sleep(0)

    loop.run_until_complete(main())
    assert not loop.is_running()


def test_a_nested_run_leaves_the_outer_one_the_owner(loop: Any) -> None:
    """`_run_once` inside of a callback is what programs do that nest loops."""

    def nested() -> None:
        loop.call_soon(loop.stop)
        loop._run_once()
        message = refusal(lambda: loop.remove_reader(0))
        assert "another thread" in message

    loop.call_soon(nested)
    loop.run_forever()


def test_a_loop_may_move_to_another_thread_between_runs(loop: Any) -> None:
    order = []

    def run() -> None:
        loop.call_soon(order.append, threading.current_thread().name)
        loop.call_soon(loop.stop)
        loop.run_forever()

    loop.call_soon(order.append, "queued before")
    for name in ("first", "second"):
        thread = threading.Thread(target=run, name=name)
        thread.start()
        thread.join()
    assert order == ["queued before", "first", "second"]


def test_calls_to_a_loop_that_does_not_run_are_collected_with_it(flavour: Any) -> None:
    """A loop, and a call of it that another thread has scheduled, refer to each other."""
    loop = flavour.new_event_loop()
    gone = weakref.ref(loop)
    in_another_thread(functools.partial(loop.call_soon_threadsafe, print, loop))
    with pytest.warns(ResourceWarning, match="unclosed event loop"):
        del loop
        gc.collect()
    assert gone() is None
