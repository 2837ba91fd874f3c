"""What frameworks and test suites do with loops: subclasses, clocks of their own, handlers."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import Any

import pytest

from tests.support.net import LOOPBACK, settled

pytestmark = pytest.mark.flavours(
    "asyncio", "tokioloop", reason="the peers cannot be derived from, or have no such handlers"
)


def test_a_subclass_may_have_a_constructor_of_its_own(loop: Any) -> None:
    class Named(type(loop)):  # type: ignore[misc]
        def __init__(self, name: str, *, weight: int = 1) -> None:
            super().__init__()
            self.name, self.weight = name, weight

    with contextlib.closing(Named("mine", weight=2)) as named:
        assert (named.name, named.weight) == ("mine", 2)
        assert named.run_until_complete(asyncio.sleep(0, "ran")) == "ran"


# A loop whose constructor has failed tells so when it goes, in asyncio as well.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_keyword_that_nobody_takes_is_an_error(loop: Any) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        type(loop)(flavour="none")


@pytest.mark.flavours("tokioloop", reason="about its own options")
def test_options_that_only_the_constructor_of_a_subclass_gives_are_refused(loop: Any) -> None:
    class Eager(type(loop)):  # type: ignore[misc]
        def __init__(self, **options: Any) -> None:
            super().__init__(busy_poll=50)

    with pytest.raises(TypeError, match=r"give them to Eager\(\)"):
        Eager()
    Eager(busy_poll=50).close()


def test_a_timer_is_due_within_the_resolution_of_the_clock(loop: Any) -> None:
    class Stepped(type(loop)):  # type: ignore[misc]
        now = 0.2

        def time(self) -> float:
            return self.now

    with contextlib.closing(Stepped()) as stepped:
        fired: list[bool] = []
        # 0.1 + 0.2 is more than 0.3, by less than any clock can tell.
        stepped.call_later(0.1, fired.append, True)
        stepped.now = 0.3
        stepped.call_soon(stepped.stop)
        stepped.run_forever()
        assert fired == [True]


def test_an_exception_handler_handles_the_exception(loop: Any) -> None:
    class Protocol(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            raise LookupError("of a protocol")

        def connection_lost(self, exc: BaseException | None) -> None:
            raise LookupError("of its end")

    def fail(text: str) -> None:
        raise LookupError(text)

    def handler(_loop: object, context: dict[str, Any]) -> None:
        handled = sys.exc_info()
        assert handled[1] is context["exception"]
        assert handled[2] is not None
        told.append(str(handled[1]))

    async def main() -> None:
        loop.call_soon(fail, "of a callback")
        loop.call_later(0, fail, "of a timer")
        server = await loop.create_server(asyncio.Protocol, LOOPBACK, 0)
        transport, _ = await loop.create_connection(Protocol, *server.sockets[0].getsockname())
        transport.abort()
        await settled()
        server.close()
        await settled()

    told: list[str] = []
    loop.set_exception_handler(handler)
    try:
        raise KeyError("around the run")
    except KeyError as around:
        loop.run_until_complete(main())
        assert sys.exc_info()[1] is around
    assert sorted(told) == ["of a callback", "of a protocol", "of a timer", "of its end"]


def test_what_a_handler_raises_has_the_exception_as_its_context(loop: Any) -> None:
    def fail() -> None:
        raise LookupError("first")

    def handler(_loop: object, _context: dict[str, Any]) -> None:
        raise SystemExit(3)

    loop.set_exception_handler(handler)
    loop.call_soon(fail)
    with pytest.raises(SystemExit) as raised:
        loop.run_forever()
    assert isinstance(raised.value.__context__, LookupError)


def test_a_turn_may_be_run_from_within_a_callback(loop: Any) -> None:
    async def inner() -> str:
        await asyncio.sleep(0)
        await asyncio.sleep(0.001)
        return "inner"

    def outer() -> None:
        # As nest_asyncio does it.
        task = loop.create_task(inner())
        current = asyncio.current_task()
        assert current is None
        while not task.done():
            loop._run_once()
        results.append(task.result())
        loop.stop()

    results: list[str] = []
    loop.call_soon(outer)
    loop.run_forever()
    assert results == ["inner"]


def test_timers_that_a_closed_loop_drops_do_not_count_as_cancelled(loop: Any) -> None:
    handle = loop.call_later(10, print)
    loop.close()
    assert not handle.cancelled()
    assert list(loop._scheduled) == []


def test_what_was_handled_around_a_report_stays_in_no_generator(loop: Any) -> None:
    def fail() -> None:
        raise LookupError

    def suspended() -> Any:
        loop.call_soon(fail)._run()
        yield
        seen.append(sys.exc_info()[1])

    seen: list[BaseException | None] = []
    loop.set_exception_handler(lambda _loop, _context: None)
    steps = suspended()
    try:
        raise KeyError
    except KeyError:
        next(steps)
    assert next(steps, "done") == "done"
    assert seen == [None]
    loop._ready.clear()


@pytest.mark.skipif(sys.version_info < (3, 13), reason="the two halves are of 3.13")
def test_a_loop_with_a_run_forever_of_its_own_takes_one_turn_at_a_time(
    loop_factory: Any,
) -> None:
    """As toolkits do that draw between two turns."""

    class Drawing(type(loop_factory())):  # type: ignore[misc]
        frames = 0

        def run_forever(self) -> None:
            self._run_forever_setup()
            try:
                while not self._stopping:
                    self._run_once()
                    self.frames += 1
            finally:
                self._run_forever_cleanup()

    async def ten_turns() -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    loop = Drawing()
    try:
        loop.run_until_complete(ten_turns())
        assert loop.frames >= 10
    finally:
        loop.close()


@pytest.mark.parametrize("in_debug_mode", [False, True])
def test_the_class_of_futures_may_be_another_one(
    loop: Any, monkeypatch: pytest.MonkeyPatch, in_debug_mode: bool
) -> None:
    class Future(asyncio.Future):  # type: ignore[type-arg]
        pass

    loop.set_debug(in_debug_mode)
    before = type(loop.create_future())
    monkeypatch.setattr(asyncio.futures, "Future", Future)
    assert type(loop.create_future()) is Future
    monkeypatch.undo()
    assert type(loop.create_future()) is before


@pytest.mark.parametrize("where", ["in the class", "on the instance"])
def test_a_run_once_of_ones_own_is_called_for_each_turn(loop_factory: Any, where: str) -> None:
    class Counting(type(loop_factory())):  # type: ignore[misc]
        turns = 0

        def count(self) -> None:
            self.turns += 1
            super()._run_once()

    if where == "in the class":
        Counting._run_once = Counting.count

    async def ten_turns() -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    with contextlib.closing(Counting()) as loop:
        if where == "on the instance":
            loop._run_once = loop.count
        loop.run_until_complete(ten_turns())
        assert loop.turns >= 10
