"""Runs a probe on one loop and keeps what a program would have seen: its outcome.

An outcome holds the events that the probe recorded, the records of the `asyncio` logger, warnings,
exceptions that could not be raised, and how many descriptors stayed open.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import logging
import re
import sys
import warnings
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.support.leaks import open_descriptors

from .loops import LoopFactory
from .normalise import describe, error, text

Event = tuple[Any, ...]

PROBE_FAILED = "the probe failed"
# Probes of this row are about the warnings for what a program forgot to close.
STRICT_ROW = "B.dropped"

_LIMIT = 12.0


@dataclass(frozen=True)
class Probe:
    """One behaviour, recorded. `row` says which row of the measured API it stands for."""

    name: str
    row: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    debug: bool = False
    versions: tuple[tuple[int, int], tuple[int, int]] = ((3, 10), (9, 9))

    def __str__(self) -> str:
        return self.name

    @property
    def applies(self) -> bool:
        first, last = self.versions
        return first <= sys.version_info[:2] <= last


@dataclass
class Outcome:
    events: list[Event] = field(default_factory=list)
    log: list[Event] = field(default_factory=list)
    warned: list[Event] = field(default_factory=list)
    unraisable: list[Event] = field(default_factory=list)
    descriptors_left: int = 0
    strict_warnings: bool = False


class Trace:
    """What a probe writes to. Labels name the observation, so that a difference can be found."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, label: str, *values: object) -> None:
        self.events.append((label, *map(describe, values)))

    def labels(self) -> list[str]:
        return [event[0] for event in self.events]

    def attempt(self, label: str, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Calls and records the result or the error; returns the result."""
        try:
            result = call(*args, **kwargs)
        except Exception as exc:
            self(f"{label} raises", exc)
            return None
        self(f"{label} returns", _without_identity(result))
        return result

    async def attempt_await(
        self, label: str, call: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        """As `attempt`, for what is awaited. A cancellation counts as an error of the call."""
        try:
            awaitable = call(*args, **kwargs)
            if not inspect.isawaitable(awaitable):
                self(f"{label} returns at once", _without_identity(awaitable))
                return awaitable
            result = await asyncio.wait_for(awaitable, 3)
        except (Exception, asyncio.CancelledError) as exc:
            self(f"{label} raises", exc)
            return None
        self(f"{label} gives", _without_identity(result))
        return result


def run_probe(probe: Probe, factory: LoopFactory) -> Outcome:
    """One run on a fresh loop that is closed afterwards, whatever the probe did to it."""
    gc.collect()
    before = open_descriptors().keys()
    outcome = Outcome()
    trace = Trace()
    with _log_records(outcome), _warnings(outcome), _unraisable(outcome):
        _run(probe, factory, trace)
        gc.collect()
    outcome.events = trace.events
    outcome.strict_warnings = probe.row.startswith(STRICT_ROW)
    outcome.descriptors_left = len(open_descriptors().keys() - before)
    return outcome


def differences(expected: Outcome, actual: Outcome) -> list[str]:
    """What a program would notice, one line each."""
    found = []
    for part in ("events", "log", "unraisable"):
        found += _compare(part, getattr(expected, part), getattr(actual, part))
    found += _compare("warned", _without_leaks(expected, actual), actual.warned)
    if actual.descriptors_left > expected.descriptors_left:
        found.append(f"descriptors left open: {actual.descriptors_left}")
    return found


def _compare(part: str, expected: Sequence[Event], actual: Sequence[Event]) -> Iterator[str]:
    for index in range(max(len(expected), len(actual))):
        ours = actual[index] if index < len(actual) else None
        theirs = expected[index] if index < len(expected) else None
        if ours != theirs:
            yield f"{part}[{index}]\n    asyncio: {theirs!r}\n    ours:    {ours!r}"


def _without_leaks(expected: Outcome, actual: Outcome) -> list[Event]:
    """What asyncio warned of, but for what it forgot to close and the other loop did not."""
    missing = Counter(expected.warned) - Counter(actual.warned)
    left = []
    for event in expected.warned:
        if event[0] == "ResourceWarning" and missing[event] and not expected.strict_warnings:
            missing[event] -= 1
        else:
            left.append(event)
    return left


def _run(probe: Probe, factory: LoopFactory, trace: Trace) -> None:
    loop = factory()
    loop.set_debug(probe.debug)
    try:
        if inspect.iscoroutinefunction(probe.function):
            coro: Awaitable[Any] = probe.function(loop, trace, *probe.arguments)
            try:
                loop.run_until_complete(asyncio.wait_for(coro, _LIMIT))
            except Exception as exc:
                trace(PROBE_FAILED, exc)
        else:
            try:
                probe.function(loop, trace, *probe.arguments)
            except Exception as exc:
                trace(PROBE_FAILED, exc)
        if not loop.is_closed():
            _cancel_what_is_left(loop)
    finally:
        loop.close()
        asyncio.set_event_loop(None)


def _cancel_what_is_left(loop: asyncio.AbstractEventLoop) -> None:
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    loop.run_until_complete(loop.shutdown_asyncgens())
    if getattr(loop, "_default_executor", None) is not None:
        loop.run_until_complete(loop.shutdown_default_executor())


def _without_identity(result: object) -> object:
    """A transport with its protocol, a task or a server: the kind is the news, not the object."""
    if isinstance(result, tuple) and result and isinstance(result[0], asyncio.BaseTransport):
        return ("transport", type(result[1]).__name__)
    if isinstance(result, asyncio.AbstractServer):
        return "server"
    return result


@contextmanager
def _log_records(outcome: Outcome) -> Iterator[None]:
    logger = logging.getLogger("asyncio")
    saved = logger.level, logger.propagate
    handler = _RecordKeeper(outcome.log)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = saved
        logger.setLevel(saved[0])


# Who reaps a child first, close() or the thread that waits for it, is chance in asyncio.
_CHANCE = re.compile(r"Unknown child process pid|child process pid \d+ exit status already read")


class _RecordKeeper(logging.Handler):
    def __init__(self, log: list[Event]) -> None:
        super().__init__()
        self.log = log

    def emit(self, record: logging.LogRecord) -> None:
        if _CHANCE.search(record.getMessage()):
            return
        exc = record.exc_info[1] if record.exc_info else None
        self.log.append((record.levelname, text(record.getMessage()), exc and error(exc)))


@contextmanager
def _warnings(outcome: Outcome) -> Iterator[None]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    outcome.warned = [(item.category.__name__, text(item.message)) for item in caught]


@contextmanager
def _unraisable(outcome: Outcome) -> Iterator[None]:
    saved = sys.unraisablehook
    sys.unraisablehook = lambda args: outcome.unraisable.append(
        (text(args.err_msg), args.exc_value and error(args.exc_value))
    )
    try:
        yield
    finally:
        sys.unraisablehook = saved
