"""run_forever, run_until_complete, close, KeyboardInterrupt and SystemExit, nested and second runs."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from typing import Any

from ..harness import Trace
from ..registry import probe
from ..wires import Told, until, wired

Loop = Any
LEAVING = {"KeyboardInterrupt": KeyboardInterrupt, "SystemExit": SystemExit}


async def _nothing() -> str:
    return "done"


def _run(loop: Loop, trace: Trace, label: str, awaitable: Any = None) -> None:
    """Runs and records what leaves the run, BaseExceptions included."""
    try:
        if awaitable is None:
            loop.run_forever()
            trace(f"{label} ended")
        else:
            trace(f"{label} gives", loop.run_until_complete(awaitable))
    except BaseException as exc:
        trace(f"{label} raises", exc)


@probe("A.run_forever")
def a_nested_run_is_refused(loop: Loop, trace: Trace) -> None:
    def nested() -> None:
        trace.attempt("run_forever", loop.run_forever)
        trace("still running", loop.is_running(), asyncio._get_running_loop() is loop)
        coro = _nothing()
        trace.attempt("run_until_complete", loop.run_until_complete, coro)
        coro.close()
        loop.stop()

    loop.call_soon(nested)
    _run(loop, trace, "outer")
    trace("usable", loop.is_running(), loop.is_closed())


@probe("A.run_forever")
def a_run_inside_another_loop_is_refused(loop: Loop, trace: Trace) -> None:
    other = type(loop)()

    async def main() -> None:
        trace.attempt("run_forever", other.run_forever)
        coro = _nothing()
        trace.attempt("run_until_complete", other.run_until_complete, coro)
        coro.close()
        trace("outer is running", asyncio._get_running_loop() is loop)

    loop.run_until_complete(main())
    other.close()


@probe("A.run_forever")
def a_closed_loop_runs_nothing(loop: Loop, trace: Trace) -> None:
    loop.close()
    trace("state", loop.is_closed(), loop.is_running())
    trace.attempt("run_forever", loop.run_forever)
    coro = _nothing()
    trace.attempt("run_until_complete", loop.run_until_complete, coro)
    coro.close()
    trace.attempt("stop", loop.stop)
    trace.attempt("close", loop.close)
    coro = _nothing()
    trace.attempt("create_task", loop.create_task, coro)
    coro.close()
    trace.attempt("create_future", lambda: bool(loop.create_future()))
    trace.attempt("run_in_executor", loop.run_in_executor, None, int)


@probe("A.run_until_complete")
def results_and_errors_of_run_until_complete(loop: Loop, trace: Trace) -> None:
    async def fail() -> None:
        raise ValueError("probe")

    _run(loop, trace, "coroutine", _nothing())
    _run(loop, trace, "failing", fail())
    future = loop.create_future()
    loop.call_soon(future.set_result, 5)
    _run(loop, trace, "future", future)
    _run(loop, trace, "done future", future)
    future = loop.create_future()
    future.cancel()
    _run(loop, trace, "cancelled", future)
    _run(loop, trace, "number", 5)
    _run(loop, trace, "list", [])
    other = type(loop)()
    _run(loop, trace, "foreign", other.create_future())
    other.close()
    loop.call_soon(loop.stop)
    _run(loop, trace, "stopped early", loop.create_future())


@probe("A.close")
def a_running_loop_cannot_be_closed(loop: Loop, trace: Trace) -> None:
    async def main() -> None:
        trace.attempt("close", loop.close)
        trace("state", loop.is_closed(), loop.is_running())

    loop.run_until_complete(main())


@probe("C.21", each=LEAVING)
def an_exit_in_a_callback_leaves_the_loop(loop: Loop, trace: Trace, name: str) -> None:
    def leave() -> None:
        raise LEAVING[name]("probe")

    loop.call_soon(trace, "before")
    loop.call_soon(leave)
    loop.call_soon(trace, "after")
    loop.call_soon(loop.stop)
    _run(loop, trace, "first")
    trace("between", loop.is_running(), asyncio._get_running_loop())
    _run(loop, trace, "second")


@probe("C.22", each=LEAVING)
def an_exit_in_the_main_task(loop: Loop, trace: Trace, name: str) -> None:
    async def main() -> None:
        raise LEAVING[name]("probe")

    _run(loop, trace, "main", main())
    _run(loop, trace, "again", _nothing())


@probe("C.22", each=LEAVING)
def an_exit_in_a_side_task(loop: Loop, trace: Trace, name: str) -> None:
    async def side() -> None:
        raise LEAVING[name]("probe")

    async def main() -> None:
        task = asyncio.ensure_future(side())
        await asyncio.sleep(0.01)
        trace("main went on", task.done())

    _run(loop, trace, "main", main())
    _run(loop, trace, "again", asyncio.sleep(0.02))


@probe("C.23", each=LEAVING)
def an_exit_in_data_received_leaves_the_loop(loop: Loop, trace: Trace, name: str) -> None:
    def leave(_: Told) -> None:
        raise LEAVING[name]("probe")

    state: list[Any] = []

    async def main() -> None:
        async with wired(loop, lambda: Told(trace, data_received=leave)) as (_, protocol, peer):
            state.append(protocol)
            peer.send(b"x")
            await until(lambda: protocol.calls.count("data_received"))
            await asyncio.sleep(0.01)
            trace("went on")

    task = loop.create_task(main())
    _run(loop, trace, "main", task)
    trace("lost", state[0].lost)
    _run(loop, trace, "again", task)


@probe("C.25", each=LEAVING)
def an_exit_in_the_exception_handler_leaves_the_loop(loop: Loop, trace: Trace, name: str) -> None:
    def handler(_loop: Loop, context: dict[str, Any]) -> None:
        trace("handler", context["message"])
        raise LEAVING[name]("probe")

    loop.set_exception_handler(handler)
    loop.call_soon(lambda: 1 / 0)
    loop.call_later(0.02, loop.stop)
    _run(loop, trace, "run")
    loop.set_exception_handler(None)
    _run(loop, trace, "again", _nothing())


@probe("C.26")
def sigint_while_polling_raises_keyboard_interrupt(loop: Loop, trace: Trace) -> None:
    timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    start = time.monotonic()
    loop.call_later(3, loop.stop)
    _run(loop, trace, "run")
    timer.join()
    trace("at once", time.monotonic() - start < 2)
    _run(loop, trace, "again", _nothing())


@probe("C.26")
def a_python_signal_handler_runs_while_polling(loop: Loop, trace: Trace) -> None:
    def on_signal(*_: object) -> None:
        trace("handler")
        loop.call_soon_threadsafe(loop.stop)

    saved = signal.signal(signal.SIGUSR1, on_signal)
    timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
    timer.start()
    start = time.monotonic()
    loop.call_later(3, loop.stop)
    _run(loop, trace, "run")
    timer.join()
    signal.signal(signal.SIGUSR1, saved)
    trace("at once", time.monotonic() - start < 2)


@probe("C.41")
def a_second_thread_cannot_run_the_loop(loop: Loop, trace: Trace) -> None:
    def other_thread() -> None:
        trace.attempt("run_forever", loop.run_forever)
        trace("no loop here", asyncio._get_running_loop())

    async def main() -> None:
        thread = threading.Thread(target=other_thread)
        thread.start()
        await until(lambda: not thread.is_alive())
        trace("goes on", loop.is_running(), asyncio._get_running_loop() is loop)

    _run(loop, trace, "main", main())


@probe("C.42")
def a_loop_in_another_thread_serves_connections(loop: Loop, trace: Trace) -> None:
    async def main() -> None:
        server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        trace("read", await reader.read())
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),))
    thread.start()
    thread.join()


@probe("B.dropped")
def a_dropped_loop_warns(loop: Loop, trace: Trace) -> None:
    other = type(loop)()
    trace("open", other.is_closed())
    del other


@probe("A.run_forever")
def the_running_loop_is_set_only_during_a_run(loop: Loop, trace: Trace) -> None:
    async def main() -> None:
        trace("inside", loop.is_running(), asyncio.get_running_loop() is loop)

    trace("before", loop.is_running(), asyncio._get_running_loop())
    loop.run_until_complete(main())
    trace("after", loop.is_running(), asyncio._get_running_loop())


@probe("A.run_forever")
def async_generator_hooks_are_restored(loop: Loop, trace: Trace) -> None:
    def hook(_: object) -> None: ...

    saved = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(firstiter=hook, finalizer=hook)
    try:
        loop.run_until_complete(_nothing())
        trace("restored", *(found is hook for found in sys.get_asyncgen_hooks()))
        loop.call_soon(lambda: (trace("own", sys.get_asyncgen_hooks()[0] is not hook), loop.stop()))
        loop.run_forever()
    finally:
        sys.set_asyncgen_hooks(*saved)


@probe("A.shutdown_asyncgens")
def async_generators_are_closed(loop: Loop, trace: Trace) -> None:
    async def numbers() -> Any:
        try:
            yield 1
            yield 2
        finally:
            trace("closed")

    async def main() -> None:
        generator = numbers()
        kept.append(generator)
        trace("first", await anext_of(generator))

    async def anext_of(generator: Any) -> Any:
        return await generator.__anext__()

    kept: list[Any] = []
    loop.run_until_complete(main())
    loop.run_until_complete(loop.shutdown_asyncgens())
    trace("shut down")
    loop.run_until_complete(main())


@probe("C.53")
def closing_the_loop_leaves_transports_open(loop: Loop, trace: Trace) -> None:
    import socket

    ours, peer = socket.socketpair()
    ours.setblocking(False)
    peer.settimeout(1)
    transport, protocol = loop.run_until_complete(
        loop.create_unix_connection(lambda: Told(trace), sock=ours)
    )
    loop.close()
    trace(
        "lost",
        protocol.lost,
        transport.is_closing(),
        transport.get_extra_info("socket").fileno() > 0,
    )
    trace.attempt("close", transport.close)
    del transport, protocol
    peer.close()
    ours.close()


@probe("A.slow_callback_duration", debug=True)
def slow_callbacks_are_logged(loop: Loop, trace: Trace) -> None:
    trace("default", loop.slow_callback_duration)
    loop.slow_callback_duration = 0.01

    def slow() -> None:
        time.sleep(0.02)

    async def slow_task() -> None:
        time.sleep(0.02)

    loop.call_soon(slow)
    loop.run_until_complete(slow_task())


@probe("C.55", debug=True)
def debug_mode_records_where_things_were_made(loop: Loop, trace: Trace) -> None:
    handle = loop.call_soon(int)
    timer = loop.call_later(1, int)
    future = loop.create_future()
    trace("traces", *(bool(made._source_traceback) for made in (handle, timer, future)))
    last = handle._source_traceback[-1]
    trace("last frame", last.name)
    trace("last frame of the timer", timer._source_traceback[-1].name)
    timer.cancel()

    async def main() -> None:
        trace("depth", sys.get_coroutine_origin_tracking_depth())

    loop.run_until_complete(main())
    trace("restored", sys.get_coroutine_origin_tracking_depth())


@probe("A.set_debug")
def debug_mode_is_switched(loop: Loop, trace: Trace) -> None:
    trace("initially", loop.get_debug())
    for value in (True, False, 1):
        trace.attempt("set", loop.set_debug, value)
        trace("get", loop.get_debug())

    async def main() -> None:
        loop.set_debug(True)
        await asyncio.sleep(0)
        trace("switched in a run", sys.get_coroutine_origin_tracking_depth())

    loop.run_until_complete(main())


@probe("A.loop")
def the_loop_shows_itself(loop: Loop, trace: Trace) -> None:
    trace("idle", repr(loop))
    loop.call_soon(lambda: (trace("running", repr(loop)), loop.stop()))
    loop.run_forever()
    loop.close()
    trace("closed", repr(loop))
