"""The loop under test: which one it is, and how a test or a child program runs on it.

`TOKIOLOOP_UNDER_TEST=module:factory` names the factory; child processes inherit the variable, so
a server started by a test and the test itself are on the same kind of loop. A program proves what
it runs on with `require_loop_under_test`, because a library that quietly makes its own loop would
otherwise let every test pass without testing anything.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import os
import re
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

T = TypeVar("T")
LoopFactory = Callable[[], asyncio.AbstractEventLoop]

FACTORY_VARIABLE = "TOKIOLOOP_UNDER_TEST"
DEFAULT_FACTORY = "tokioloop:new_event_loop"


def factory_path() -> str:
    """The `module:factory` in use, as users write it in `uvicorn --loop`."""
    return os.environ.get(FACTORY_VARIABLE, DEFAULT_FACTORY)


def loop_factory() -> LoopFactory:
    module, separator, attribute = factory_path().partition(":")
    if not separator:
        raise ValueError(f"{FACTORY_VARIABLE} must be module:factory, not {factory_path()!r}")
    factory: LoopFactory = getattr(importlib.import_module(module), attribute)
    return factory


def new_event_loop() -> asyncio.AbstractEventLoop:
    return loop_factory()()


def class_name(loop: asyncio.AbstractEventLoop) -> str:
    return f"{type(loop).__module__}.{type(loop).__qualname__}"


@functools.cache
def expected_class_name() -> str:
    """The class that the factory makes; found by making one loop, which is closed again."""
    loop = new_event_loop()
    try:
        return class_name(loop)
    finally:
        loop.close()


def running_class_name() -> str:
    return class_name(asyncio.get_running_loop())


def require_loop_under_test() -> None:
    """Fail where the running loop is of any other class than the factory makes."""
    running, expected = running_class_name(), expected_class_name()
    if running != expected:
        raise AssertionError(f"running on {running}, the loop under test is {expected}")


class ExceptionReports(list[dict[str, Any]]):
    """What reached the loop's exception handler: errors that no await could raise."""

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.append(context)

    def require_none(self, *, besides: str | None = None) -> None:
        """Fail on any report, but for those whose text matches the pattern `besides`."""
        texts = [f"{report.get('message')}: {report.get('exception')!r}" for report in self]
        unexpected = [text for text in texts if besides is None or not re.search(besides, text)]
        if unexpected:
            raise AssertionError("the loop reported: " + "; ".join(unexpected))


def run(
    main: Callable[[], Awaitable[T]], *, timeout: float = 8.0, known_report: str | None = None
) -> T:
    """Run `main` on a fresh loop under test, as `asyncio.run` would, in at most `timeout` seconds.

    Beyond `asyncio.run`: it takes the factory on every Python version, and an error that reaches
    the loop's exception handler fails the run instead of only being logged, unless its text
    matches `known_report`: what the library under test is known to report on asyncio too.
    """
    loop = new_event_loop()
    reports = ExceptionReports()
    loop.set_exception_handler(reports)
    asyncio.set_event_loop(loop)
    try:
        result = loop.run_until_complete(asyncio.wait_for(_on_loop_under_test(main), timeout))
    finally:
        try:
            _cancel_all_tasks(loop)
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            asyncio.set_event_loop(None)
            loop.close()
    reports.require_none(besides=known_report)
    return result


async def _on_loop_under_test(main: Callable[[], Awaitable[T]]) -> T:
    require_loop_under_test()
    return await main()


def _cancel_all_tasks(loop: asyncio.AbstractEventLoop) -> None:
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
