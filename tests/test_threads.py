"""`call_soon_threadsafe` under load, and other threads that talk to a parked loop."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import functools
import gc
import threading
import time
import weakref

import pytest

from tests.support.net import connected, socket_pair
from tests.support.programs import output_of
from tests.support.protocols import Recorder

THREADS = 8


@pytest.mark.time_limit(60)
def test_eight_threads_make_a_million_calls_and_none_is_lost(flavour, loop):
    loop.set_debug(False)  # which notes the stack of each call: this is about their number
    # The peers and the reference prove the test with a tenth; a million is for tokioloop.
    share = (1_000_000 if flavour.name == "tokioloop" else 100_000) // THREADS
    last_seen = [-1] * THREADS
    out_of_order = []
    remaining = THREADS * share

    def arrived(thread, number):
        nonlocal remaining
        if number != last_seen[thread] + 1:
            out_of_order.append((thread, number))
        last_seen[thread] = number
        remaining -= 1
        if not remaining:
            loop.stop()

    def produce(thread):
        for number in range(share):
            loop.call_soon_threadsafe(arrived, thread, number)

    threads = [threading.Thread(target=produce, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        loop.call_soon(thread.start)
    loop.run_forever()
    for thread in threads:
        thread.join()
    assert remaining == 0
    assert out_of_order == []


def test_a_parked_loop_is_woken_each_time(loop):
    """Every call finds the loop asleep: the next one is made only after the last has arrived."""
    arrived = threading.Semaphore(0)
    missed = []

    def produce():
        for number in range(500):
            loop.call_soon_threadsafe(arrived.release)
            if not arrived.acquire(timeout=5):
                missed.append(number)
                break
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=produce)
    loop.call_soon(thread.start)
    loop.run_forever()
    thread.join()
    assert missed == []


def test_calls_made_before_the_run_are_kept(loop):
    order = []
    thread = threading.Thread(
        target=lambda: [loop.call_soon_threadsafe(order.append, number) for number in range(100)]
    )
    thread.start()
    thread.join()
    loop.call_soon(loop.stop)
    loop.run_forever()
    if not order:  # queued behind the stop
        loop.call_soon(loop.stop)
        loop.run_forever()
    assert order == list(range(100))


def test_calls_from_one_thread_arrive_in_order_with_call_soon(loop):
    order = []
    loop.call_soon(order.append, 1)
    loop.call_soon_threadsafe(order.append, 2)
    loop.call_soon(order.append, 3)
    loop.call_soon_threadsafe(loop.stop)
    loop.run_forever()
    assert sorted(order) == [1, 2, 3]


@pytest.mark.flavours("asyncio", "tokioloop", "uvloop", reason="rloop drops the context")
def test_a_callback_keeps_the_context_of_the_calling_thread(loop):
    variable = contextvars.ContextVar("variable", default="unset")
    seen = []

    def produce():
        variable.set("of the thread")
        loop.call_soon_threadsafe(lambda: (seen.append(variable.get()), loop.stop()))

    thread = threading.Thread(target=produce)
    loop.call_soon(thread.start)
    loop.run_forever()
    thread.join()
    assert seen == ["of the thread"]


@pytest.mark.flavours("asyncio", "tokioloop", "uvloop", reason="rloop drops the context")
def test_callbacks_of_a_thread_do_not_see_each_others_variables(loop):
    variable = contextvars.ContextVar("variable", default="unset")
    seen = []

    def look(value):
        seen.append(variable.get())
        variable.set(value)

    def produce():
        for number in range(3):
            loop.call_soon_threadsafe(look, number)
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=produce)
    loop.call_soon(thread.start)
    loop.run_forever()
    thread.join()
    assert seen == ["unset"] * 3


def run_beside(loop, produce):
    """Runs the loop and, in a thread without variables, `produce(go_on)`: it holds the loop until
    it has set the event, and stops it."""
    go_on = threading.Event()
    thread = threading.Thread(target=contextvars.Context().run, args=(produce, go_on))
    loop.call_soon(thread.start)
    loop.call_soon(go_on.wait, 10)
    loop.run_forever()
    thread.join()


@pytest.mark.flavours("asyncio", "tokioloop", reason="the others' handles hide their context")
def test_the_context_of_a_threads_call_is_the_one_its_callback_runs_in(loop):
    variable = contextvars.ContextVar("variable", default="unset")
    handles, variables = [], []

    def produce(go_on):
        # The loop is held until the first handle was looked at from here.
        handles.extend(loop.call_soon_threadsafe(variable.set, n) for n in range(2))
        variables.append(len(handles[0]._context))
        go_on.set()
        loop.call_soon_threadsafe(loop.stop)

    run_beside(loop, produce)
    assert variables == [0]
    assert [handle._context[variable] for handle in handles] == [0, 1]


@pytest.mark.flavours("asyncio", "tokioloop", reason="the others' handles hide their context")
def test_a_context_that_is_referred_to_weakly_is_no_other_calls_context(loop):
    handles, references, found = [], [], []

    def look(number):
        context = handles[number]._context
        found.append([reference() is context for reference in references])
        references.append(weakref.ref(context))

    def produce(go_on):
        handles.extend(loop.call_soon_threadsafe(look, number) for number in range(3))
        go_on.set()
        loop.call_soon_threadsafe(loop.stop)

    run_beside(loop, produce)
    assert found == [[], [False], [False, False]]


@pytest.mark.flavours("asyncio", "tokioloop", reason="the others' handles hide their context")
def test_a_context_that_a_callback_keeps_is_no_other_calls_context(loop):
    variable = contextvars.ContextVar("variable", default="unset")
    handles, kept, seen = [], [], []

    def keep(number):
        kept.append(handles[number]._context)
        handles[number] = None

    def look():
        seen.append(variable.get())

    def produce(go_on):
        handles.append(loop.call_soon_threadsafe(keep, 0))
        go_on.set()
        loop.call_soon_threadsafe(lambda: kept[0].run(variable.set, "of the first"))
        loop.call_soon_threadsafe(look)
        loop.call_soon_threadsafe(loop.stop)

    run_beside(loop, produce)
    assert kept[0][variable] == "of the first"
    assert seen == ["unset"]


class Comparing:
    """Runs a function whenever it is compared."""

    def __init__(self, function):
        self.function = function

    def __lt__(self, other):
        self.function()
        return False


@pytest.mark.flavours("asyncio", "tokioloop", reason="their handles have weak references")
def test_a_call_may_be_cancelled_by_itself_through_a_weak_reference(loop):
    """Which leaves the arguments where the function under way looks at them."""
    compared = []

    def compare():
        if (handle := reference()) is not None:
            handle.cancel()
        # Would take the memory of what was let go of.
        compared.append([Comparing(None) for _ in range(50)])

    handle = loop.call_soon_threadsafe(min, *(Comparing(compare) for _ in range(5)))
    reference = weakref.ref(handle)
    del handle
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert len(compared) == 4


@pytest.mark.flavours("asyncio", "tokioloop", reason="their handles have weak references")
@pytest.mark.min_python(3, 14)
def test_a_call_that_runs_is_waited_for_through_a_weak_reference(loop):
    began, cancelling = threading.Event(), threading.Event()
    order = []

    def run():
        began.set()
        cancelling.wait(10)
        # Time for a thread that does not wait to say so.
        time.sleep(0.05)
        order.append("ran")
        loop.stop()

    def cancel():
        reference = weakref.ref(loop.call_soon_threadsafe(run))
        began.wait(10)
        handle = reference()
        cancelling.set()
        handle.cancel()
        order.append("cancelled")

    thread = threading.Thread(target=cancel)
    loop.call_soon(thread.start)
    loop.run_forever()
    thread.join()
    assert order == ["ran", "cancelled"]


@pytest.mark.flavours("tokioloop", reason="asyncio runs all that has come before it polls again")
def test_a_flood_of_calls_does_not_keep_a_transport_waiting(loop):
    flood = 100_000
    seen, after = [], []

    class Notes(Recorder):
        def data_received(self, data):
            self.ran_before = len(seen)
            super().data_received(data)

    async def main():
        async with connected("client", Notes) as (_transport, protocol, peer):

            def arrived(number):
                seen.append(number)
                # What schedules more keeps its place behind what has come.
                if number % 100 == 0:
                    loop.call_soon(after.append, number)
                if number == flood // 10:
                    peer.sendall(b"x")

            def produce():
                for number in range(flood):
                    loop.call_soon_threadsafe(arrived, number)
                sent.set()

            sent = threading.Event()
            thread = threading.Thread(target=produce)
            loop.call_soon(thread.start)
            loop.call_soon(sent.wait, 10)
            await protocol.until_received(1)
            thread.join()
            return protocol.ran_before

    assert loop.run_until_complete(main()) < flood // 2
    assert seen == list(range(flood))
    assert after == list(range(0, flood, 100))


def test_run_coroutine_threadsafe_returns_the_result(loop):
    async def double(value):
        await asyncio.sleep(0)
        return 2 * value

    results = []

    def produce():
        futures = [asyncio.run_coroutine_threadsafe(double(n), loop) for n in range(50)]
        results.extend(future.result(timeout=10) for future in futures)
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=produce)
    loop.call_soon(thread.start)
    loop.run_forever()
    thread.join()
    assert results == [2 * n for n in range(50)]


def test_executor_results_wake_the_loop(loop):
    async def main():
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            calls = [loop.run_in_executor(pool, pow, n, 2) for n in range(200)]
            return await asyncio.gather(*calls)

    assert loop.run_until_complete(main()) == [n * n for n in range(200)]


def test_an_exception_in_the_executor_arrives(loop):
    async def main():
        with pytest.raises(ZeroDivisionError):
            await loop.run_in_executor(None, divmod, 1, 0)
        await loop.shutdown_default_executor()

    loop.run_until_complete(main())


def test_a_closed_loop_refuses_calls_from_other_threads(flavour, loop):
    if flavour.name == "rloop":
        pytest.skip("rloop accepts calls on a closed loop")
    loop.close()
    with concurrent.futures.ThreadPoolExecutor(1) as pool, pytest.raises(RuntimeError):
        pool.submit(loop.call_soon_threadsafe, print).result()


def test_closing_while_threads_keep_calling_is_safe(loop_factory):
    """Each thread ends with asyncio's RuntimeError once the loop has closed; nothing worse."""
    for _ in range(20):
        loop = loop_factory()
        started = threading.Barrier(3)
        ended = []

        def produce(loop=loop, started=started, ended=ended):
            started.wait()
            deadline = time.monotonic() + 5
            try:
                while time.monotonic() < deadline and not loop.is_closed():
                    loop.call_soon_threadsafe(int)
            except RuntimeError as error:
                ended.append(str(error))
            else:
                ended.append("closed")

        threads = [threading.Thread(target=produce) for _ in range(2)]
        for thread in threads:
            thread.start()
        started.wait()
        loop.call_soon(loop.stop)
        loop.run_forever()
        loop.close()
        for thread in threads:
            thread.join()
        assert len(ended) == 2


WRONG_THREAD = "tokioloop is stricter: asyncio does not check transports' threads, rloop aborts"


@pytest.mark.flavours("tokioloop", reason=WRONG_THREAD)
@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("write", (b"x",)),
        ("writelines", ([b"x"],)),
        ("write_eof", ()),
        ("close", ()),
        ("abort", ()),
        ("pause_reading", ()),
        ("resume_reading", ()),
        ("set_protocol", (asyncio.Protocol(),)),
        ("set_write_buffer_limits", (10,)),
    ],
)
def test_a_transport_refuses_other_threads_and_names_the_method(loop, method, arguments):
    async def main():
        async with connected("client") as (transport, protocol, peer):
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                error = pool.submit(getattr(transport, method), *arguments).exception()
            assert isinstance(error, RuntimeError)
            assert method in str(error)
            # The transport is as it was.
            transport.write(b"still alive")
            assert peer.recv(100) == b"still alive"
            peer.sendall(b"and reading")
            assert await protocol.until_received(11) == b"and reading"

    loop.run_until_complete(main())


def clear_the_queue(loop, make):
    loop.call_soon(print, make())
    loop._ready.clear()


def close(loop, make):
    loop.call_soon(print, make())
    loop.close()


def close_with_a_timer(loop, make):
    loop.call_later(60, print, make())
    loop.close()


def remove_a_reader(loop, make):
    with socket_pair() as (ours, _theirs):
        loop.add_reader(ours, print, make())
        loop.remove_reader(ours)


def replace_a_task_factory(loop, make):
    loop.set_task_factory(functools.partial(print, make()))
    loop.set_task_factory(None)


WAYS_TO_DROP = {
    "call_soon": lambda loop, make: loop.call_soon(print, make()).cancel(),
    "call_later": lambda loop, make: loop.call_later(60, print, make()).cancel(),
    "threadsafe": lambda loop, make: loop.call_soon_threadsafe(print, make()).cancel(),
    "clear": clear_the_queue,
    "close": close,
    "close_with_a_timer": close_with_a_timer,
    "remove_reader": remove_a_reader,
    "set_task_factory": replace_a_task_factory,
}


@pytest.mark.flavours("asyncio", "tokioloop", reason="uvloop and rloop keep what was cancelled")
@pytest.mark.parametrize("way", WAYS_TO_DROP)
def test_what_a_loop_drops_may_wait_for_a_thread_that_uses_the_loop(loop_factory, way):
    loop = loop_factory()

    class Waits:
        def __del__(self):
            thread = threading.Thread(target=loop.get_task_factory)
            thread.start()
            thread.join(3)
            ended.append(not thread.is_alive())

    ended = []
    WAYS_TO_DROP[way](loop, Waits)
    gc.collect()
    assert ended == [True]


@pytest.mark.flavours("asyncio", "tokioloop", reason="uvloop and rloop do not wait")
@pytest.mark.min_python(3, 14)
def test_an_interrupt_ends_the_wait_for_a_call_that_runs(flavour):
    program = """
    import os, signal, threading

    def callback():
        began.set()
        end.wait(10)
        ended.set()

    began, end, ended = threading.Event(), threading.Event(), threading.Event()
    loop = new_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    handle = loop.call_soon_threadsafe(callback)
    began.wait()
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        handle.cancel()
    except KeyboardInterrupt:
        print("interrupted", "too late" if ended.is_set() else "at once")
    end.set()
    handle.cancel()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
    """
    assert output_of(flavour, program) == "interrupted at once\n"
