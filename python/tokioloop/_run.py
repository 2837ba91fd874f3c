"""`run` and `install`: a program's whole life on a TokioLoop."""

from __future__ import annotations

import asyncio
import sys
import warnings
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from tokioloop.loop import new_event_loop

__all__ = ["install", "run"]

T = TypeVar("T")


LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def run(
    main: Coroutine[Any, Any, T],
    *,
    debug: bool | None = None,
    loop_factory: LoopFactory | None = None,
) -> T:
    """Run a coroutine on a new TokioLoop and return its result.

    The same as `asyncio.run(main, debug=debug, loop_factory=loop_factory)`,
    which needs Python 3.12; this works from 3.10 on.

    main -- a coroutine; from Python 3.14 on any awaitable
    debug -- bool: debug mode of the loop; None leaves the default
    loop_factory -- callable without arguments that returns the loop;
        `tokioloop.new_event_loop` by default

    Raises what `main` raises, RuntimeError if a loop runs in this thread already, and
    ValueError (TypeError from Python 3.14 on) for a `main` of another type.

    >>> import tokioloop
    >>> async def main():
    ...     return "done"
    >>> tokioloop.run(main())
    'done'
    """
    loop_factory = loop_factory or new_event_loop
    if sys.version_info >= (3, 11):
        if asyncio._get_running_loop() is not None:
            raise RuntimeError("asyncio.run() cannot be called from a running event loop")
        with asyncio.Runner(debug=debug, loop_factory=loop_factory) as runner:
            return runner.run(main)
    return _run_310(main, debug, loop_factory)


def _run_310(main: Coroutine[Any, Any, T], debug: bool | None, loop_factory: LoopFactory) -> T:
    """Do what `asyncio.run` of Python 3.10 does, with a loop from `loop_factory`."""
    from asyncio import coroutines, runners

    if asyncio._get_running_loop() is not None:
        raise RuntimeError("asyncio.run() cannot be called from a running event loop")
    if not coroutines.iscoroutine(main):
        raise ValueError(f"a coroutine was expected, got {main!r}")
    loop = loop_factory()
    try:
        asyncio.set_event_loop(loop)
        if debug is not None:
            loop.set_debug(debug)
        return loop.run_until_complete(main)
    finally:
        try:
            runners._cancel_all_tasks(loop)
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            asyncio.set_event_loop(None)
            loop.close()


def install() -> None:
    """Make TokioLoop the loop of `asyncio.run()` and `asyncio.new_event_loop()`.

    Sets the event-loop policy of the process. It is deprecated, as policies are: prefer
    `tokioloop.run()` or `loop_factory=`. From Python 3.12 on it issues a
    DeprecationWarning.

    >>> import asyncio, tokioloop
    >>> tokioloop.install()  # doctest: +SKIP
    >>> asyncio.run(main())  # doctest: +SKIP
    """
    from tokioloop.policy import EventLoopPolicy

    if sys.version_info >= (3, 12):
        warnings.warn(
            "tokioloop.install() is deprecated; use tokioloop.run() or "
            "asyncio.run(..., loop_factory=tokioloop.new_event_loop)",
            DeprecationWarning,
            stacklevel=2,
        )
    with warnings.catch_warnings():
        # The warning above is enough.
        warnings.simplefilter("ignore", DeprecationWarning)
        asyncio.set_event_loop_policy(EventLoopPolicy())
