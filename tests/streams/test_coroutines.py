"""What a stream's methods return is a coroutine to everything that takes one."""

from __future__ import annotations

import asyncio
import collections.abc
import contextlib
import contextvars
import gc
import inspect
import io
import sys
import types
import weakref
from typing import Any
from unittest import mock

import pytest

from tests.streams.support import opened, run, until_held
from tests.support.net import eventually

Loop = asyncio.AbstractEventLoop


def test_it_is_a_coroutine(loop: Loop) -> None:
    async def converse(reader: Any, writer: Any, peer: Any) -> None:
        peer.sendall(b"data")
        for method in ("read", "readline", "readuntil"):
            coroutine = getattr(reader, method)()
            assert isinstance(coroutine, collections.abc.Coroutine)
            assert asyncio.iscoroutine(coroutine)
            assert inspect.isawaitable(coroutine)
            assert coroutine.__name__ == method
            assert coroutine.__qualname__ == f"StreamReader.{method}"
            assert repr(coroutine).startswith(f"<coroutine object StreamReader.{method} at 0x")
            coroutine.close()
            assert coroutine.__name__ == method
        drain = writer.drain()
        assert drain.__qualname__ == "StreamWriter.drain"
        drain.close()

    run(loop, converse)


def test_nothing_happens_before_it_is_awaited(loop: Loop) -> None:
    async def converse(reader: Any, _writer: Any, peer: Any) -> None:
        peer.sendall(b"abcd")
        await until_held(reader, 4)
        later, now = reader.read(2), reader.read(2)
        assert await now == b"ab"
        assert await later == b"cd"

    run(loop, converse)


def test_every_way_to_run_a_coroutine(loop: Loop) -> None:
    async def converse(reader: Any, writer: Any, peer: Any) -> None:
        peer.sendall(b"123456")
        await until_held(reader, 6)
        assert await asyncio.create_task(reader.read(1)) == b"1"
        assert await asyncio.ensure_future(reader.read(1)) == b"2"
        assert await asyncio.wait_for(reader.read(1), 5) == b"3"
        assert await asyncio.shield(reader.read(1)) == b"4"
        assert await asyncio.gather(reader.read(1), writer.drain()) == [b"5", None]
        future = asyncio.run_coroutine_threadsafe(reader.read(1), asyncio.get_running_loop())
        assert await asyncio.wrap_future(future) == b"6"

    run(loop, converse)


def test_a_read_that_times_out_takes_no_data(loop: Loop) -> None:
    async def converse(reader: Any, _writer: Any, peer: Any) -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(reader.readexactly(4), 0.01)
        assert reader._waiter is None
        peer.sendall(b"data")
        assert await asyncio.wait_for(reader.readexactly(4), 5) == b"data"

    run(loop, converse)


def test_it_can_be_driven_by_hand(loop: Loop) -> None:
    async def converse(reader: Any, _writer: Any, peer: Any) -> None:
        coroutine = reader.read(10)
        with pytest.raises(TypeError, match="can't send non-None value to a just-started"):
            coroutine.send(1)
        future = coroutine.send(None)
        assert future is reader._waiter
        assert future._asyncio_future_blocking
        reader.feed_data(b"data")
        with pytest.raises(StopIteration) as caught:
            coroutine.send(None)
        assert caught.value.value == b"data"
        with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
            coroutine.send(None)

    run(loop, converse)


def test_an_exception_thrown_in_ends_the_wait(loop: Loop) -> None:
    async def converse(reader: Any, _writer: Any, peer: Any) -> None:
        coroutine = reader.readline()
        coroutine.send(None)
        with pytest.raises(ZeroDivisionError):
            coroutine.throw(ZeroDivisionError())
        assert reader._waiter is None
        coroutine = reader.readline()
        with pytest.raises(KeyError):
            coroutine.throw(KeyError("early"))
        coroutine = reader.readline()
        coroutine.send(None)
        coroutine.close()
        assert reader._waiter is None
        coroutine.close()

    run(loop, converse)


def test_one_that_is_dropped_while_it_waits_leaves_the_reader_as_it_was(loop: Loop) -> None:
    async def converse(reader: Any, _writer: Any, peer: Any) -> None:
        for method in ("read", "readline", "readuntil"):
            coroutine = getattr(reader, method)()
            coroutine.send(None)
            del coroutine
            assert reader._waiter is None
        coroutine = reader.readexactly(4)
        coroutine.send(None)
        cycle = [coroutine]
        cycle.append(cycle)
        del coroutine, cycle
        gc.collect()
        assert reader._waiter is None
        peer.sendall(b"data")
        assert await reader.readexactly(4) == b"data"

    run(loop, converse)


def test_one_that_nobody_awaits_is_told_of(loop: Loop) -> None:
    async def converse(reader: Any, writer: Any, _peer: Any) -> None:
        with pytest.warns(RuntimeWarning, match=r"'StreamReader.readline' was never awaited"):
            reader.readline()
        with pytest.warns(RuntimeWarning, match=r"'StreamWriter.drain' was never awaited"):
            writer.drain()

    run(loop, converse)


@pytest.mark.skipif(
    sys.version_info < (3, 12), reason="the collector finds cycles oldest first from 3.12 on"
)
def test_one_that_nobody_awaits_is_told_of_when_it_is_collected(loop: Loop) -> None:
    async def converse(reader: Any, _writer: Any, _peer: Any) -> None:
        with pytest.warns(RuntimeWarning, match="'StreamReader.read' was never awaited"):
            cycle = [reader.read(1)]
            cycle.append(cycle)
            del cycle
            gc.collect()

    run(loop, converse)


def test_a_task_cancelled_while_it_reads(loop: Loop) -> None:
    async def converse(reader: Any, _writer: Any, peer: Any) -> None:
        async def nested() -> bytes:
            return await reader.readexactly(2)

        for _ in range(3):
            task = asyncio.ensure_future(nested())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        peer.sendall(b"ok")
        assert await nested() == b"ok"

    run(loop, converse)


def test_the_context_is_the_tasks(loop: Loop) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")

    async def converse(reader: Any, _writer: Any, peer: Any) -> None:
        async def task(value: str) -> str:
            variable.set(value)
            await reader.readexactly(1)
            return variable.get()

        for value in ("one", "two"):
            running = asyncio.ensure_future(task(value))
            await asyncio.sleep(0)
            variable.set("main")
            peer.sendall(b"x")
            assert await running == value

    run(loop, converse)


@pytest.mark.min_python(3, 12)
def test_an_eager_task_reads_what_is_there_at_once(loop: Loop) -> None:
    async def converse(reader: Any, _writer: Any, peer: Any) -> None:
        peer.sendall(b"data")
        await until_held(reader, 4)
        running = asyncio.get_running_loop()
        task = asyncio.Task(reader.read(4), loop=running, eager_start=True)
        assert task.done()
        assert task.result() == b"data"
        task = asyncio.Task(reader.read(4), loop=running, eager_start=True)
        assert not task.done()
        peer.sendall(b"more")
        assert await task == b"more"

    run(loop, converse)


def test_a_task_shows_what_it_reads(loop: Loop) -> None:
    async def converse(reader: Any, _writer: Any, peer: Any) -> None:
        task = asyncio.ensure_future(reader.read(1))
        await asyncio.sleep(0)
        assert "StreamReader.read()" in repr(task)
        assert isinstance(task.get_stack(), list)
        peer.sendall(b"x")
        await task

    run(loop, converse)


def test_inspect_takes_it_for_the_coroutine_it_stands_for(loop: Loop) -> None:
    async def converse(reader: Any, writer: Any, peer: Any) -> None:
        for coroutine in (reader.read(1), reader.readline(), writer.drain()):
            assert inspect.iscoroutine(coroutine)
            assert isinstance(coroutine, types.CoroutineType)
            assert loop.get_debug() or coroutine.cr_origin is None
            assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED
            if sys.version_info >= (3, 11):
                assert not coroutine.cr_suspended
            coroutine.close()
            assert coroutine.cr_code.co_name == coroutine.__name__
            assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED
            assert coroutine.cr_frame is None
        task = asyncio.ensure_future(reader.read(1))
        await asyncio.sleep(0)
        coroutine = task.get_coro()
        assert "done" not in repr(task)
        assert inspect.getcoroutinestate(coroutine) == inspect.CORO_SUSPENDED
        frame = coroutine.cr_frame
        assert frame.f_code.co_name == "read"
        assert frame.f_code.co_filename == coroutine.cr_code.co_filename
        assert frame.f_lineno >= coroutine.cr_code.co_firstlineno
        assert frame.f_back is None
        assert [frame.f_code.co_name for frame in task.get_stack()] == ["read"]
        assert f"{coroutine.cr_code.co_filename}:" in repr(task)
        shown = io.StringIO()
        task.print_stack(file=shown)
        assert "in read" in shown.getvalue()
        peer.sendall(b"x")
        await task
        assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED

    run(loop, converse)


@pytest.mark.skipif(sys.version_info < (3, 14), reason="call graphs are of 3.14")
def test_a_call_graph_shows_who_waits_for_what(loop: Loop) -> None:
    async def converse(reader: Any, _writer: Any, peer: Any) -> None:
        async def leaf() -> None:
            await reader.readline()

        task = asyncio.create_task(leaf())
        await asyncio.sleep(0)
        graph = asyncio.format_call_graph(task)
        assert graph.index("readline()") < graph.index("leaf()")
        peer.sendall(b"x\n")
        await task

    run(loop, converse)


def test_methods_look_like_asyncios(loop: Loop) -> None:
    async def converse(reader: Any, writer: Any, _peer: Any) -> None:
        for stream, cls, names in (
            (reader, asyncio.StreamReader, ("read", "readline", "readuntil", "readexactly")),
            (writer, asyncio.StreamWriter, ("drain",)),
        ):
            for name in names:
                method, reference = getattr(stream, name), getattr(cls, name)
                assert inspect.ismethod(method)
                assert inspect.iscoroutinefunction(method)
                assert method.__self__ is stream
                assert method.__doc__ == reference.__doc__
                assert method.__qualname__ == f"{cls.__name__}.{name}"
                assert str(inspect.signature(method)) == str(
                    inspect.signature(reference.__get__(stream))
                )

    run(loop, converse)


def test_a_method_is_for_streams_of_its_class(loop: Loop) -> None:
    """Whatever else it is called for, it is asyncio's function, as if there were no other."""

    async def converse(reader: Any, writer: Any, peer: Any) -> None:
        with pytest.raises(AttributeError):
            await type(reader).read(writer, 1)
        with pytest.raises(AttributeError):
            await type(writer).drain(reader)
        with pytest.raises(TypeError):
            type(reader).read()
        peer.sendall(b"x")
        assert await type(reader).read(reader, 1) == b"x"

    run(loop, converse)


def test_a_method_can_be_replaced_by_an_async_mock(loop: Loop) -> None:
    async def converse(reader: Any, writer: Any, _peer: Any) -> None:
        with mock.patch.object(reader, "read", return_value=b"mocked"):
            assert await reader.read(1) == b"mocked"
        with mock.patch.object(writer, "drain") as drain:
            await writer.drain()
        drain.assert_awaited_once_with()

    run(loop, converse)


def test_two_tasks_cannot_await_the_same_one(loop: Loop) -> None:
    async def converse(reader: Any, _writer: Any, peer: Any) -> None:
        async def wait_too(coroutine: Any) -> None:
            await coroutine

        coroutine = reader.read(10)
        task = asyncio.create_task(coroutine)
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="coroutine is being awaited already"):
            await asyncio.wait_for(wait_too(coroutine), 5)
        peer.sendall(b"data")
        assert await task == b"data"
        with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
            await coroutine

    run(loop, converse)


def test_an_error_has_the_one_that_was_being_handled_for_its_context(loop: Loop) -> None:
    async def converse(reader: Any, writer: Any, peer: Any) -> None:
        async def context_of(coroutine: Any) -> Any:
            try:
                raise ZeroDivisionError
            except ZeroDivisionError:
                with pytest.raises(Exception) as caught:
                    await coroutine
                return caught.value.__context__

        peer.sendall(b"12345")
        peer.close()
        await until_held(reader, 5)
        assert isinstance(await context_of(reader.readexactly(10)), ZeroDivisionError)
        reader.set_exception(ConnectionError("lost"))
        assert isinstance(await context_of(reader.read(1)), ZeroDivisionError)
        assert isinstance(await context_of(writer.drain()), ZeroDivisionError)
        assert await context_of(reader.read(1)) is not reader.exception()

    run(loop, converse)


def test_results_that_are_looked_at_stay_what_they_are(loop: Loop) -> None:
    """An exception that carries a result is not taken for the next one while it is held."""

    async def main() -> None:
        async with opened() as (reader, _writer, peer):
            ends = []
            for number in range(6):
                peer.sendall(b"%d" % number * 700)
                await until_held(reader, 700)
                coroutine = reader.read(700)
                with pytest.raises(StopIteration) as caught:
                    next(coroutine) if hasattr(coroutine, "__next__") else coroutine.send(None)
                ends.append(caught.value)
                peer.sendall(b"%d" % number * 10)
                assert await reader.readexactly(10) == b"%d" % number * 10
            assert [end.value for end in ends] == [b"%d" % number * 700 for number in range(6)]
            assert all(end.__context__ is None and end.__cause__ is None for end in ends)

    loop.run_until_complete(main())


class Token:
    """Something whose end can be seen."""


def in_a_variable(coroutine: Any) -> weakref.ref[Token]:
    token = Token()
    iterator = coroutine.__await__()
    with contextlib.suppress(StopIteration):
        next(iterator)
    return weakref.ref(token)


def in_a_variable_that_ends(coroutine: Any) -> weakref.ref[Token]:
    token = Token()
    iterator = coroutine.__await__()
    with contextlib.suppress(StopIteration):
        next(iterator)
    del iterator, coroutine
    return weakref.ref(token)


@pytest.mark.parametrize("drive", [in_a_variable, in_a_variable_that_ends])
def test_who_catches_a_result_is_not_kept_alive(loop: Loop, drive: Any) -> None:
    async def converse(reader: Any, _writer: Any, peer: Any) -> None:
        peer.sendall(b"data")
        await until_held(reader, 4)
        reference = drive(reader.read(4))
        # asyncio's let go at once, native ones where a variable of the frame holds them when
        # the loop looks for events next.
        await eventually(lambda: reference() is None)

    run(loop, converse)


def test_nothing_is_kept_alive(loop: Loop) -> None:
    async def main() -> weakref.ref[Token]:
        async with opened() as (reader, _writer, _peer):
            token = Token()
            coroutine = reader.read(1)
            coroutine.send(None)
            reader.cycle = (coroutine, token)
            reference = weakref.ref(token)
            del token, coroutine
        return reference

    reference = loop.run_until_complete(main())
    gc.collect()
    assert reference() is None


def test_results_have_no_stray_references(loop: Loop) -> None:
    async def converse(reader: Any, writer: Any, peer: Any) -> None:
        async def echo(count: int) -> None:
            for _ in range(count):
                peer.sendall(b"x" * 100 + b"\n")
                writer.write(await reader.readline())
                await writer.drain()
                peer.recv(101)

        await echo(3)
        before = [sys.getrefcount(each) for each in (reader, writer, None, writer.transport)]
        await echo(40)
        after = [sys.getrefcount(each) for each in (reader, writer, None, writer.transport)]
        assert all(abs(now - then) < 20 for now, then in zip(after, before, strict=True))

    run(loop, converse)


def test_it_can_be_referred_to_weakly(loop: Loop) -> None:
    async def converse(reader: Any, writer: Any, peer: Any) -> None:
        for make in (lambda: reader.read(1), writer.drain):
            dead: list[object] = []
            for _ in range(3):  # The memory of one serves the next.
                coroutine = make()
                weak = weakref.ref(coroutine, dead.append)
                assert weak() is coroutine
                coroutine.close()
                del coroutine
                gc.collect()
                assert weak() is None
                assert dead.pop() is weak

    run(loop, converse)
