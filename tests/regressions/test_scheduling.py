"""Timers, handles, threads, exits and tasks, as users of other loops missed them."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import socket
import sys
import threading
import weakref
from typing import Any

import pytest

from tests.support.net import LOOPBACK, connected
from tests.support.protocols import Recorder

pytestmark = pytest.mark.flavours(
    "asyncio", "tokioloop", reason="the peers have the defects these tests are about"
)
Loop = asyncio.AbstractEventLoop


def test_a_callback_never_sees_a_time_before_its_deadline(loop: Loop) -> None:
    early = []

    def check(when: float) -> None:
        if loop.time() < when - 1e-9:
            early.append(when - loop.time())

    for step in range(300):
        loop.call_later(step * 0.0001, check, loop.time() + step * 0.0001)
    loop.run_until_complete(asyncio.sleep(0.05))
    assert early == []


@pytest.mark.parametrize("delay", [0, -1, 1e12, 1e-5])
def test_every_delay_gives_a_timer_handle(loop: Loop, delay: float) -> None:
    handle = loop.call_later(delay, int)
    assert isinstance(handle, asyncio.TimerHandle)
    assert abs(handle.when() - loop.time() - delay) < max(1.0, delay * 1e-9)
    handle.cancel()


def test_when_keeps_its_type(loop: Loop) -> None:
    handle = loop.call_at(2**31, int)
    assert type(handle.when()) is int
    handle.cancel()


def test_a_fired_or_cancelled_timer_holds_nothing(loop: Loop) -> None:
    class Argument:
        pass

    fired, cancelled = Argument(), Argument()
    alive = weakref.ref(fired), weakref.ref(cancelled)
    handles = [loop.call_later(0, id, fired), loop.call_later(100, id, cancelled)]
    handles[1].cancel()
    loop.run_until_complete(asyncio.sleep(0.01))
    del fired, cancelled, handles
    gc.collect()
    assert [ref() for ref in alive] == [None, None]


def test_a_finalizer_may_schedule_while_timers_are_dropped(loop: Loop) -> None:
    ran = []

    class Schedules:
        def __del__(self) -> None:
            loop.call_later(0, ran.append, 1)

    handles = [loop.call_later(1000, id, Schedules()) for _ in range(300)]
    for handle in handles:
        handle.cancel()
    del handles, handle
    gc.collect()

    async def main() -> None:
        while len(ran) < 300:
            await asyncio.sleep(0.001)

    loop.run_until_complete(asyncio.wait_for(main(), 5))


def test_a_finalizer_of_a_replaced_reader_may_remove_the_reader(loop: Loop) -> None:
    class Removes:
        def __init__(self, sock: socket.socket) -> None:
            self.sock = sock

        def __del__(self) -> None:
            loop.remove_reader(self.sock)

    async def main() -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            loop.add_reader(ours, id, Removes(ours))
            loop.add_reader(ours, int)
            gc.collect()
            got = loop.create_future()
            loop.add_reader(ours, lambda: got.done() or got.set_result(None))
            theirs.send(b"x")
            await asyncio.wait_for(got, 5)
            loop.remove_reader(ours)

    loop.run_until_complete(main())


def test_calls_from_eight_threads_all_arrive_in_their_order(loop: Loop) -> None:
    count = 2000
    seen: dict[int, list[int]] = {name: [] for name in range(8)}
    gate = threading.Barrier(9)

    def push(name: int) -> None:
        gate.wait()
        for number in range(count):
            loop.call_soon_threadsafe(seen[name].append, number)

    threads = [threading.Thread(target=push, args=(name,)) for name in seen]
    for thread in threads:
        thread.start()

    async def main() -> None:
        gate.wait()
        while any(len(numbers) < count for numbers in seen.values()):
            await asyncio.sleep(0.001)

    loop.run_until_complete(asyncio.wait_for(main(), 20))
    for thread in threads:
        thread.join()
    assert all(numbers == list(range(count)) for numbers in seen.values())


def test_one_call_from_a_thread_wakes_an_idle_loop(loop: Loop) -> None:
    async def main() -> None:
        for _ in range(200):
            woken = loop.create_future()
            threading.Thread(
                target=loop.call_soon_threadsafe, args=(woken.set_result, None)
            ).start()
            await woken  # nothing else would wake this loop

    loop.run_until_complete(asyncio.wait_for(main(), 20))


def test_a_later_call_soon_does_not_overtake_a_threadsafe_one(loop: Loop) -> None:
    order: list[str] = []

    def both() -> None:
        loop.call_soon_threadsafe(order.append, "threadsafe")
        loop.call_soon(order.append, "soon")
        loop.call_soon(loop.stop)

    loop.call_soon(both)
    loop.run_forever()
    assert order == ["threadsafe", "soon"]


@pytest.mark.parametrize("where", ["task", "data_received"])
def test_sys_exit_leaves_the_loop_and_it_runs_again(loop: Loop, where: str) -> None:
    class Exits(Recorder):
        def data_received(self, data: bytes) -> None:
            if where == "data_received" and not self.received:
                self.received += data
                sys.exit(7)
            super().data_received(data)

    async def main() -> None:
        async with connected("client", Exits) as (_transport, protocol, peer):
            peer.send(b"x")
            await protocol.until(lambda p: p.received)

    async def leave() -> None:
        sys.exit(7)

    if where == "task":
        with pytest.raises(SystemExit):
            loop.run_until_complete(leave())
    else:
        task = loop.create_task(main())
        with pytest.raises(SystemExit):
            loop.run_until_complete(task)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(task)
    assert loop.run_until_complete(asyncio.sleep(0, "works")) == "works"


def test_a_failing_run_leaves_no_running_loop(loop: Loop) -> None:
    hooks = sys.get_asyncgen_hooks()
    with pytest.raises(TypeError):
        loop.run_until_complete(5)  # type: ignore[arg-type]
    assert asyncio._get_running_loop() is None
    assert sys.get_asyncgen_hooks() == hooks
    loop.run_until_complete(asyncio.sleep(0))


@pytest.mark.parametrize("factory", [False, True])
def test_create_task_takes_what_the_interpreter_takes(loop: Loop, factory: bool) -> None:
    async def body() -> str:
        return var.get()

    var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="unset")
    context = contextvars.copy_context()
    context.run(var.set, "given")
    if factory:
        loop.set_task_factory(lambda lp, coro, **kw: asyncio.Task(coro, loop=lp, **kw))

    async def main() -> None:
        assert await loop.create_task(body(), name="named") == "unset"
        if sys.version_info >= (3, 11):
            assert await loop.create_task(body(), name="named", context=context) == "given"
        coro = body()
        if sys.version_info >= (3, 14):
            task = loop.create_task(coro, eager_start=True)
            assert task.done()
        else:
            with pytest.raises(TypeError):
                loop.create_task(coro, colour=True)
            coro.close()

    loop.run_until_complete(main())


def test_a_server_sees_the_context_of_its_creation(loop: Loop) -> None:
    var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="unset")
    seen: list[str] = []

    class Looks(Recorder):
        def connection_made(self, transport: Any) -> None:
            seen.append(var.get())
            super().connection_made(transport)

        def data_received(self, data: bytes) -> None:
            seen.append(var.get())
            super().data_received(data)

    made: list[Looks] = []

    def factory() -> Looks:
        made.append(Looks())
        return made[-1]

    async def main() -> None:
        var.set("server")
        server = await loop.create_server(factory, LOOPBACK, 0)
        var.set("later")
        with socket.create_connection(server.sockets[0].getsockname()) as client:
            client.send(b"x")
            while not made or not made[0].received:
                await asyncio.sleep(0)
        await made[0].until_lost()
        server.close()
        await server.wait_closed()

    loop.run_until_complete(main())
    assert seen == ["server", "server"]


def test_the_clock_is_the_monotonic_one(loop: Loop) -> None:
    import time

    before = time.monotonic()
    assert before <= loop.time() <= time.monotonic()


@pytest.mark.parametrize("what", ["handle", "queued write"])
def test_an_unclosed_loop_that_is_dropped_warns_and_goes(flavour: Any, what: str) -> None:
    loop = flavour.new_event_loop()
    alive = weakref.ref(loop)
    if what == "handle":
        loop.call_soon_threadsafe(print, loop)
        loop.call_later(1000, print, loop)
    else:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        transport, _ = loop.run_until_complete(loop.create_connection(Recorder, sock=ours))
        transport.write(bytes(4 << 20))
        del transport, _, ours
    with pytest.warns(ResourceWarning, match="unclosed"):
        del loop
        gc.collect()
        gc.collect()
    if what == "queued write":
        theirs.close()
    assert alive() is None
