"""Wrong arguments for one method: each argument in turn is nonsense, missing, or too much.

`Method` names a method and how to call it rightly; `attempts` derives the wrong calls from that.
What each call does is told to a trace, so that the harness can compare two loops.
"""

from __future__ import annotations

import asyncio
import inspect
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

from .differences import is_right_to_differ
from .harness import Probe, Trace, differences, run_probe
from .loops import factory_under_test, is_twin, new_reference_loop
from .wires import turns, until

_PATIENCE = 0.1


class Resources(ExitStack):
    """What good and bad arguments need; gone after one call."""

    def pair(self) -> tuple[socket.socket, socket.socket]:
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setblocking(False)
            self.enter_context(end)
        return ours, theirs

    def socket(self) -> socket.socket:
        return self.pair()[0]

    def closed_socket(self) -> socket.socket:
        sock = socket.socket()
        sock.setblocking(False)
        sock.close()
        return sock

    def file(self) -> Any:
        return self.enter_context(tempfile.TemporaryFile())

    def coroutine(self) -> Any:
        coro = asyncio.sleep(0)
        self.callback(coro.close)
        return coro


NONSENSE: dict[str, Callable[[Resources], Any]] = {
    "None": lambda _: None,
    "-1": lambda _: -1,
    "9999": lambda _: 9999,
    "2**70": lambda _: 2**70,
    "1.5": lambda _: 1.5,
    "text": lambda _: "text",
    "empty text": lambda _: "",
    "bytes": lambda _: b"bytes",
    "list": lambda _: [],
    "object": lambda _: object(),
    "class": lambda _: Resources,
    "closed socket": Resources.closed_socket,
    "regular file": Resources.file,
}


@dataclass(frozen=True)
class Method:
    """`good(resources)` makes the arguments of a right call.

    `spare` holds cases that are left out because they are right, or need more than this machine:
    `(position, label)`.
    """

    name: str
    good: Callable[[Resources], tuple[Any, ...]] = lambda _: ()
    spare: frozenset[tuple[int, str]] = frozenset()
    since: tuple[int, int] = (3, 10)
    until: tuple[int, int] = (9, 9)

    def __str__(self) -> str:
        return self.name

    def attempts(
        self,
    ) -> Iterator[tuple[str, Callable[[Resources], tuple[tuple[Any, ...], dict[str, Any]]]]]:
        with Resources() as resources:
            count = len(self.good(resources))
        for missing in range(count):
            yield f"{missing} arguments", lambda r, n=missing: (self.good(r)[:n], {})
        yield "twelve more", lambda r: ((*self.good(r), *range(12)), {})
        yield "unknown keyword", lambda r: (self.good(r), {"colour": 5})
        for position in range(count):
            for label, make in NONSENSE.items():
                if (position, label) not in self.spare:
                    yield f"argument {position} is {label}", self._replaced(position, make)

    def _replaced(self, position: int, make: Callable[[Resources], Any]) -> Any:
        def arguments(resources: Resources) -> tuple[tuple[Any, ...], dict[str, Any]]:
            good = list(self.good(resources))
            good[position] = make(resources)
            return tuple(good), {}

        return arguments


def spare(position: int, *labels: str) -> frozenset[tuple[int, str]]:
    return frozenset((position, label) for label in labels)


async def call_wrongly(trace: Trace, target: Any, method: Method, cases: Any = None) -> None:
    """Makes every wrong call of `method` on `target` and tells what each one does."""
    for label, arguments in cases or method.attempts():
        with Resources() as resources:
            args, kwargs = arguments(resources)
            await one_call(trace, label, getattr(target, method.name), args, kwargs)


async def one_call(trace: Trace, label: str, call: Any, args: Any, kwargs: Any) -> None:
    try:
        result = call(*args, **kwargs)
        if inspect.isawaitable(result):
            result = await _awaited(trace, label, result)
    except (Exception, asyncio.CancelledError) as exc:
        trace(label, "raises", exc)
        return
    if result is not _PENDING:
        trace(label, "accepted", _kind(result))
    await _undo(result)


_PENDING = object()


async def _awaited(trace: Trace, label: str, awaitable: Any) -> Any:
    future = asyncio.ensure_future(awaitable)
    done, _ = await asyncio.wait([future], timeout=_PATIENCE)
    if done:
        return future.result()
    trace(label, "waits")
    future.cancel()
    await asyncio.gather(future, return_exceptions=True)
    return _PENDING


def _kind(result: object) -> object:
    # Process ids wrap around, and no other answer is a number from 2 on.
    if isinstance(result, int) and not isinstance(result, bool) and result > 1:
        return "a process id or a limit"
    if result is None or isinstance(result, (bool, int, str, bytes)):
        return result
    for kind in (asyncio.TimerHandle, asyncio.Handle, asyncio.AbstractServer, asyncio.Future):
        if isinstance(result, kind):
            return kind.__name__
    return type(result).__name__ if not isinstance(result, tuple) else f"{len(result)} values"


async def _undo(result: Any) -> None:
    if isinstance(result, tuple) and result and isinstance(result[0], asyncio.BaseTransport):
        result = result[0]
        with suppress(Exception):
            result.get_protocol()
    if isinstance(result, asyncio.Handle):
        result.cancel()
    elif isinstance(result, (asyncio.BaseTransport, asyncio.AbstractServer)):
        with suppress(Exception):
            result.close()
        if isinstance(result, asyncio.SubprocessTransport):
            await until(lambda: result.get_returncode() is not None)
    await turns(4)


def compare(method: Method, function: Callable[..., Any], *variant: Any) -> list[str]:
    """Runs `function(loop, trace, method, …)` on both loops; the differences."""
    probe = Probe(f"bad input for {method}", "A", function, (method, *variant))
    expected = run_probe(probe, new_reference_loop)
    assert expected.events, "nothing was tried"
    assert expected.events[-1][0] != "the probe failed", expected.events[-1]
    actual = run_probe(probe, factory_under_test())
    if not is_twin(factory_under_test()):
        for outcome in (expected, actual):
            outcome.events = [
                event for event in outcome.events if not is_right_to_differ(method.name, event[0])
            ]
    return differences(expected, actual)
