"""Tasks and factories, exception handlers, executors, names, and what the loop is to others."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import inspect
import socket
import threading
import weakref
from typing import Any

from ..harness import Trace
from ..registry import probe
from ..wires import turns

Loop = Any


async def _body(value: object = None) -> object:
    await asyncio.sleep(0)
    return value


def _public_names() -> list[str]:
    return sorted(
        name
        for name in dir(asyncio.SelectorEventLoop)
        if not name.startswith("_") and callable(getattr(asyncio.SelectorEventLoop, name))
    )


@probe("A", each=_public_names())
def methods_have_the_signature_of_asyncio(loop: Loop, trace: Trace, name: str) -> None:
    method = getattr(loop, name, None)
    trace("there", callable(method))
    signature = inspect.signature(method)
    bare = [
        found.replace(annotation=inspect.Parameter.empty) for found in signature.parameters.values()
    ]
    trace("parameters", str(inspect.Signature(bare)))
    trace("coroutine function", inspect.iscoroutinefunction(method))


@probe("A")
def nothing_public_is_missing(loop: Loop, trace: Trace) -> None:
    trace("names", [name for name in _public_names() if hasattr(loop, name)])
    trace("attribute", loop.slow_callback_duration)


@probe("A")
def the_loop_is_an_asyncio_loop(loop: Loop, trace: Trace) -> None:
    trace("abstract", isinstance(loop, asyncio.AbstractEventLoop))
    trace("base", isinstance(loop, asyncio.BaseEventLoop))
    trace("weak", weakref.ref(loop)() is loop)
    loop.anything = 5
    trace("attribute", loop.anything)
    trace("subclass", type("Sub", (type(loop),), {})().close())
    for name in ("_ready", "_scheduled", "_default_executor", "_thread_id", "_closed", "_debug"):
        trace(name, hasattr(loop, name))
    loop.call_soon(int)
    loop.call_soon(int)
    trace("ready", len(loop._ready))


@probe("A.create_task")
async def tasks_take_a_name_and_a_coroutine(loop: Loop, trace: Trace) -> None:
    task = loop.create_task(_body(5), name="named")
    trace("name", task.get_name(), type(task) is asyncio.Task)
    trace("result", await task)
    trace("in all_tasks", asyncio.current_task() in asyncio.all_tasks(loop))
    for what in (5, None, int, loop.create_future()):
        trace.attempt(f"create_task of {type(what).__name__}", loop.create_task, what)
    coro = _body()
    trace.attempt("unknown keyword", loop.create_task, coro, colour=5)
    coro.close()
    trace.attempt("no argument", loop.create_task)
    coro = _body()
    trace.attempt("two arguments", loop.create_task, coro, "name")
    coro.close()


@probe("A.create_task", since=(3, 12))
async def tasks_start_eagerly_when_asked(loop: Loop, trace: Trace) -> None:
    async def step(label: str) -> None:
        trace(f"{label} runs")

    loop.set_task_factory(asyncio.eager_task_factory)
    task = loop.create_task(step("eager factory"), name="eager")
    trace("done", task.done(), task.get_name())
    await task
    loop.set_task_factory(None)
    coro = step("eager_start")
    task = trace.attempt("eager_start", lambda: loop.create_task(coro, eager_start=True) and True)
    trace("accepted", task)
    await turns(2)
    coro.close()


@probe("A.set_task_factory")
async def a_task_factory_makes_the_tasks(loop: Loop, trace: Trace) -> None:
    calls: list[Any] = []

    def factory(lp: Loop, coro: Any, **kwargs: Any) -> Any:
        calls.append((lp is loop, sorted(kwargs)))
        return asyncio.Task(coro, loop=lp, **kwargs)

    trace("none", loop.get_task_factory())
    loop.set_task_factory(factory)
    trace("set", loop.get_task_factory() is factory)
    await loop.create_task(_body())
    await loop.create_task(_body(), name="named")
    trace("calls", calls)
    loop.set_task_factory(None)
    trace("unset", loop.get_task_factory())
    trace.attempt("not callable", loop.set_task_factory, 5)


@probe("A.set_task_factory")
async def a_task_factory_of_two_arguments(loop: Loop, trace: Trace) -> None:
    loop.set_task_factory(lambda lp, coro: asyncio.Task(coro, loop=lp))
    trace.attempt("plain", lambda: bool(loop.create_task(_body())))
    coro = _body()
    task = None
    try:
        task = loop.create_task(coro, name="named")
        trace("named", task.get_name())
    except TypeError as exc:
        trace("named raises", exc)
        coro.close()
    if task is not None:
        await task
    loop.set_task_factory(None)
    await turns(3)


@probe("A.create_future")
def futures_are_asyncio_futures(loop: Loop, trace: Trace) -> None:
    future = loop.create_future()
    trace("type", type(future) is asyncio.Future, future.get_loop() is loop)
    trace("repr", repr(future))
    trace.attempt("argument", loop.create_future, 5)


@probe("A.call_exception_handler")
def the_exception_handler_gets_loop_and_context(loop: Loop, trace: Trace) -> None:
    trace("none", loop.get_exception_handler())
    loop.set_exception_handler(lambda lp, context: trace("handler", lp is loop, context))
    trace("set", loop.get_exception_handler() is not None)
    loop.call_exception_handler({"message": "hello", "exception": ValueError("x"), "extra": 5})
    loop.set_exception_handler(None)
    trace.attempt("not callable", loop.set_exception_handler, 5)
    trace.attempt("no dict", loop.call_exception_handler, 5)


@probe("A.default_exception_handler")
def the_default_handler_logs_the_context(loop: Loop, trace: Trace) -> None:
    loop.default_exception_handler({"message": "plain"})
    loop.default_exception_handler({"exception": ValueError("x")})
    loop.call_exception_handler(
        {"message": "m", "zebra": 1, "apple": "two", "exception": OSError(2, "no")}
    )
    loop.call_exception_handler({})
    loop.call_exception_handler(
        {"message": "m", "source_traceback": None, "handle": loop.call_soon(int)}
    )
    loop.call_exception_handler(
        {"message": "m", "future": loop.create_future(), "protocol": object()}
    )


class _Unprintable:
    def __repr__(self) -> str:
        raise ValueError("no repr")


@probe("A.call_exception_handler")
def failing_handlers_are_logged(loop: Loop, trace: Trace) -> None:
    def handler(_loop: Loop, _context: object) -> None:
        raise RuntimeError("the handler itself")

    loop.set_exception_handler(handler)
    loop.call_exception_handler({"message": "first"})
    loop.set_exception_handler(None)
    loop.call_exception_handler({"message": "second", "thing": _Unprintable()})
    loop.call_soon(lambda: 1 / 0)
    loop.set_exception_handler(handler)
    loop.run_until_complete(_body())


@probe("A.call_exception_handler", each=[KeyboardInterrupt, SystemExit])
def exits_pass_through_the_exception_handler(loop: Loop, trace: Trace, kind: Any) -> None:
    def handler(_loop: Loop, _context: object) -> None:
        raise kind("probe")

    loop.set_exception_handler(handler)
    try:
        loop.call_exception_handler({"message": "first"})
    except BaseException as exc:
        trace("left", exc)


@probe("A.create_task")
async def errors_nobody_asked_for_are_reported(loop: Loop, trace: Trace) -> None:
    async def fail() -> None:
        raise ValueError("never retrieved")

    loop.create_task(fail(), name="failing")
    await turns(2)
    future = loop.create_future()
    future.set_exception(KeyError("future"))
    del future
    loop.create_task(asyncio.sleep(0), name="fine")
    await turns(3)


@probe("A.run_in_executor")
async def executors_run_functions(loop: Loop, trace: Trace) -> None:
    def work(*args: object) -> object:
        return threading.current_thread().name.rpartition("_")[0], args

    def fail() -> None:
        raise ValueError("probe")

    trace("default", await loop.run_in_executor(None, work, 1, 2))
    await trace.attempt_await("failing", loop.run_in_executor, None, fail)
    await trace.attempt_await("number", loop.run_in_executor, None, 5)
    with concurrent.futures.ThreadPoolExecutor(1, "mine") as pool:
        trace("own", await loop.run_in_executor(pool, work))
        trace.attempt("set", loop.set_default_executor, pool)
        trace("as default", await loop.run_in_executor(None, work))
    await trace.attempt_await("shut down pool", loop.run_in_executor, pool, work)
    await trace.attempt_await("no executor", loop.run_in_executor, 5, work)
    trace.attempt("set nonsense", loop.set_default_executor, 5)
    trace.attempt("set None", loop.set_default_executor, None)


@probe("C.54")
async def nothing_runs_after_the_executor_was_shut_down(loop: Loop, trace: Trace) -> None:
    await loop.run_in_executor(None, int)
    await trace.attempt_await("shutdown", loop.shutdown_default_executor)
    await trace.attempt_await("run", loop.run_in_executor, None, int)
    await trace.attempt_await("again", loop.shutdown_default_executor)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        trace.attempt("set", loop.set_default_executor, pool)
        await trace.attempt_await("with a new one", loop.run_in_executor, None, int)
        await trace.attempt_await("own", loop.run_in_executor, pool, int)


@probe("A.shutdown_default_executor", since=(3, 12))
async def shutting_the_executor_down_has_a_limit(loop: Loop, trace: Trace) -> None:
    release = threading.Event()
    future = loop.run_in_executor(None, release.wait, 2)
    await trace.attempt_await("shutdown", loop.shutdown_default_executor, 0.02)
    release.set()
    trace("future", await future)


@probe("A.getaddrinfo")
async def names_are_resolved(loop: Loop, trace: Trace) -> None:
    for label, args, kwargs in (
        ("numeric", ("127.0.0.1", 80), {"type": socket.SOCK_STREAM}),
        ("numeric, service as text", ("127.0.0.1", "80"), {"type": socket.SOCK_STREAM}),
        ("six", ("::1", 443), {"type": socket.SOCK_STREAM}),
        ("localhost", ("localhost", 80), {"type": socket.SOCK_STREAM, "family": socket.AF_INET}),
        ("passive", (None, 80), {"flags": socket.AI_PASSIVE, "type": socket.SOCK_STREAM}),
        ("invalid", ("no-such-host.invalid", 80), {"flags": socket.AI_NUMERICHOST}),
        ("nothing", (None, None), {}),
        ("nul", ("a\0b", 80), {}),
        ("bad family", ("127.0.0.1", 80), {"family": 999}),
        ("service", ("127.0.0.1", "no-such-service"), {}),
        ("long label", ("a" * 70 + ".example", 80), {"flags": socket.AI_NUMERICHOST}),
        ("number as host", (5, 80), {}),
        ("bytes", (b"127.0.0.1", b"80"), {"type": socket.SOCK_STREAM}),
    ):
        await trace.attempt_await(label, loop.getaddrinfo, *args, **kwargs)


@probe("A.getnameinfo")
async def addresses_are_named(loop: Loop, trace: Trace) -> None:
    flags = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
    for label, args in (
        ("four", (("127.0.0.1", 80), flags)),
        ("six", (("::1", 80, 0, 0), flags)),
        ("name", (("localhost", 80), flags)),
        ("port", (("127.0.0.1", 70000), flags)),
        ("text", ("127.0.0.1", flags)),
        ("list", (["127.0.0.1", 80], flags)),
        ("empty", ((), flags)),
    ):
        await trace.attempt_await(label, loop.getnameinfo, *args)


@probe("A.create_task")
async def tasks_belong_to_their_loop(loop: Loop, trace: Trace) -> None:
    context = contextvars.copy_context()
    trace("empty", len(context) >= 0)
    task = loop.create_task(_body())
    trace("current", asyncio.current_task(loop) is asyncio.current_task())
    trace("all", len(asyncio.all_tasks(loop)), task in asyncio.all_tasks())
    await task
    async with asyncio_timeout(1):
        await asyncio.gather(*(_body(number) for number in range(5)))


def asyncio_timeout(limit: float) -> Any:
    """`asyncio.timeout`, or nothing before it came."""
    if hasattr(asyncio, "timeout"):
        return asyncio.timeout(limit)
    import contextlib

    return contextlib.AsyncExitStack()
