"""`create_task`, `create_future` and task factories, with every keyword of the running Python."""

from __future__ import annotations

import asyncio
import contextvars
import sys

import pytest

PASSES_MORE = "uvloop and rloop pass other keywords to factories, or refuse asyncio's"

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


async def returns(value=None):
    await asyncio.sleep(0)
    return value


def test_a_task_is_asyncios_and_returns_its_result(loop):
    task = loop.create_task(returns("result"))
    assert type(task) is asyncio.Task
    assert task.get_loop() is loop
    assert loop.run_until_complete(task) == "result"


def test_a_future_is_asyncios(loop):
    future = loop.create_future()
    assert type(future) is asyncio.Future
    assert future.get_loop() is loop
    loop.call_soon(future.set_result, "done")
    assert loop.run_until_complete(future) == "done"


@pytest.mark.flavours("asyncio", "tokioloop", reason="uvloop and rloop run no second loop there")
@pytest.mark.parametrize("inner", ["same", "asyncio"])
def test_tasks_and_futures_are_of_the_loop_that_is_asked_while_another_runs(
    loop, loop_factory, inner
):
    other = loop_factory() if inner == "same" else asyncio.SelectorEventLoop()

    async def ask():
        return loop.create_task(returns("result")), loop.create_future()

    def run_other():
        asyncio._set_running_loop(None)
        try:
            asked.extend(other.run_until_complete(ask()))
            asyncio._set_running_loop(other)
            asked.append(loop.create_task(returns("result")))
        finally:
            asyncio._set_running_loop(loop)
        loop.stop()

    asked = []
    loop.call_soon(run_other)
    loop.run_forever()
    assert [each.get_loop() for each in asked] == [loop] * 3
    asked[1].set_result("result")
    assert [loop.run_until_complete(each) for each in asked] == ["result"] * 3
    other.close()


def test_the_name_is_set(loop):
    task = loop.create_task(returns(), name="a name")
    assert task.get_name() == "a name"
    loop.run_until_complete(task)


def test_all_tasks_and_current_task_know_the_tasks(loop):
    async def main():
        other = asyncio.ensure_future(returns())
        assert asyncio.all_tasks() == {other, asyncio.current_task()}
        await other
        assert asyncio.all_tasks() == {asyncio.current_task()}

    loop.run_until_complete(main())


@pytest.mark.min_python(3, 11)
def test_the_context_is_used(loop):
    async def read():
        variable.set("changed inside")
        return variable.get()

    context = contextvars.copy_context()
    task = loop.create_task(read(), context=context)
    assert loop.run_until_complete(task) == "changed inside"
    assert context[variable] == "changed inside"
    assert variable.get() == "unset"


def test_an_unknown_keyword_is_a_type_error(loop):
    coroutine = returns()
    with pytest.raises(TypeError):
        loop.create_task(coroutine, no_such_keyword=1)
    coroutine.close()


@pytest.mark.min_python(3, 14)
@pytest.mark.flavours("asyncio", "tokioloop", reason=PASSES_MORE)
def test_an_eager_start_runs_at_once(loop):
    async def main():
        order = []

        async def child():
            order.append("child")

        task = loop.create_task(child(), eager_start=True)
        order.append("parent")
        await task
        assert order == ["child", "parent"]

    loop.run_until_complete(main())


@pytest.mark.min_python(3, 14)
@pytest.mark.flavours("asyncio", "tokioloop", reason=PASSES_MORE)
def test_every_keyword_reaches_the_task(loop):
    variable = contextvars.ContextVar("variable")

    async def main():
        async def child():
            return asyncio.current_task().get_name(), variable.get()

        context = contextvars.copy_context()
        context.run(variable.set, "given")
        for eager in (False, True):
            task = asyncio.create_task(child(), name="child", context=context, eager_start=eager)
            assert task.done() is eager
            assert await task == ("child", "given")
        for wrong in ({"loop": loop}, {"unknown": 1}):
            coroutine = child()
            with pytest.raises(TypeError):
                loop.create_task(coroutine, eager_start=True, **wrong)
            coroutine.close()

    loop.run_until_complete(main())


@pytest.mark.flavours("asyncio", "tokioloop", reason="the others make asyncio's tasks directly")
@pytest.mark.parametrize("keywords", [{}, {"name": "child"}], ids=["plain", "named"])
def test_a_class_in_the_place_of_task_makes_the_tasks(loop, monkeypatch, keywords):
    class Patched(asyncio.Task):
        pass

    async def child():
        return asyncio.current_task()

    async def main():
        monkeypatch.setattr(asyncio.tasks, "Task", Patched)
        task = loop.create_task(child(), **keywords)
        monkeypatch.undo()
        assert type(task) is Patched
        assert await task is task
        task = loop.create_task(child())
        assert type(task) is asyncio.Task
        await task

    loop.run_until_complete(main())


@pytest.mark.min_python(3, 12)
@pytest.mark.flavours("asyncio", "tokioloop", reason=PASSES_MORE)
def test_the_eager_task_factory_runs_at_once(loop):
    loop.set_task_factory(asyncio.eager_task_factory)

    async def main():
        order = []

        async def child():
            order.append("child")
            return "result"

        task = asyncio.create_task(child())
        order.append("parent")
        assert task.done()
        assert await task == "result"
        assert order == ["child", "parent"]

    loop.run_until_complete(main())


@pytest.mark.flavours("asyncio", "tokioloop", reason=PASSES_MORE)
class TestFactory:
    def test_it_makes_the_tasks_and_gets_the_keywords_that_were_given(self, loop):
        made = []

        def factory(loop, coro, **kwargs):
            made.append(kwargs)
            return asyncio.Task(coro, loop=loop, **kwargs)

        loop.set_task_factory(factory)
        assert loop.get_task_factory() is factory

        async def main():
            task = loop.create_task(returns("from the factory"), name="named")
            assert await task == "from the factory"
            assert task.get_name() == "named"

        loop.run_until_complete(main())
        assert len(made) == 2
        expected = {"name": "named"} if sys.version_info >= (3, 14) else {}
        given = {key: value for key, value in made[1].items() if value is not None}
        if sys.version_info >= (3, 13, 4):
            assert given.get("name", "named") == "named"
        else:
            assert given == expected

    def test_none_restores_the_default(self, loop):
        loop.set_task_factory(lambda loop, coro, **kwargs: 1 / 0)
        loop.set_task_factory(None)
        assert loop.get_task_factory() is None
        assert loop.run_until_complete(returns(5)) == 5

    def test_what_is_not_callable_is_a_type_error(self, loop):
        with pytest.raises(TypeError):
            loop.set_task_factory(5)


def test_task_groups_and_timeouts_work(loop):
    if sys.version_info < (3, 11):
        pytest.skip("TaskGroup and timeout() are new in Python 3.11")

    async def main():
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(returns(n)) for n in range(5)]
        assert [task.result() for task in tasks] == list(range(5))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.005):
                await loop.create_future()

    loop.run_until_complete(main())


def test_ten_thousand_tasks_finish(loop):
    loop.set_debug(False)  # which notes the stack of each call: this is about their number

    async def main():
        results = await asyncio.gather(*(returns(n) for n in range(10_000)))
        assert results == list(range(10_000))

    loop.run_until_complete(main())
