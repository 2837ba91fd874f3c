"""What every task waits for: its await chain, and what is at the end of that.

asyncio knows the chain of coroutines down to a future. Only the loop knows which
descriptor, timer or lock is behind that future; it is indexed here, once per dump.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import signal
import sys
import time
import types
import weakref
from asyncio import sslproto
from collections.abc import Iterable, Iterator
from typing import IO, Any

from tokioloop import _core
from tokioloop.observe import describe

__all__ = ["TaskReport", "dump", "install_signal", "reports", "track_ages"]

# A coroutine method of these classes waits for the object itself.
_SYNCHRONISERS = tuple(
    getattr(asyncio, name)
    for name in ("Lock", "Event", "Condition", "Semaphore", "Queue", "Barrier", "TaskGroup")
    if hasattr(asyncio, name)
)

# Attributes of asyncio's streams that native objects do not keep in a dictionary.
_IN_SLOTS = ("_waiter", "_drain_waiter", "_drain_waiters", "_closed")

# Characters; the repr of a future or a lock is shorter, unless it holds a long result.
_LONGEST_REPR = 300

_made: weakref.WeakKeyDictionary[asyncio.Task[Any], float] = weakref.WeakKeyDictionary()


@dataclasses.dataclass(frozen=True)
class TaskReport:
    """One task."""

    name: str
    coroutine: str
    age: float | None
    """Seconds since it was made, where that was tracked."""
    chain: tuple[str, ...]
    """`file:line in function` of each coroutine that it stands in, outermost first."""
    waits_for: str

    def __str__(self) -> str:
        age = "" if self.age is None else f", {self.age:.1f} s old"
        chain = "".join(f"    {line}\n" for line in self.chain)
        return f"task {self.name!r} ({self.coroutine}){age}\n{chain}    waits for {self.waits_for}"


def reports(loop: Any) -> list[TaskReport]:
    """Return a report on each task of a loop; called on the loop's thread.

    Raises RuntimeError while another thread runs the loop.
    """
    awaited = _Awaited(loop)
    running = asyncio.current_task(loop)
    now = time.monotonic()
    found = []
    for task in sorted(asyncio.all_tasks(loop), key=_order):
        made = _made.get(task)
        coroutine = task.get_coro()
        frames = describe.frames_of(coroutine)
        found.append(
            TaskReport(
                name=task.get_name(),
                coroutine=getattr(coroutine, "__qualname__", type(coroutine).__qualname__),
                age=now - made if made is not None else None,
                chain=tuple(describe.chain_lines(coroutine)),
                waits_for="nothing: it runs" if task is running else awaited.by(task, frames),
            )
        )
    return found


def dump(loop: Any = None, file: IO[str] | None = None) -> None:
    """Print what every task of a loop waits for; see `tokioloop.dump_tasks`."""
    if loop is not None:
        loops = [loop]
    else:
        running = asyncio._get_running_loop()
        if running is not None:
            loops = [running]
        else:
            from tokioloop._registry import all_loops

            loops = [loop for loop in all_loops() if not loop.is_closed()]
    for loop in loops:
        if loop.is_running() and loop is not asyncio._get_running_loop():
            loop.call_soon_threadsafe(_print, loop, file)
        else:
            _print(loop, file)


def _print(loop: Any, file: IO[str] | None) -> None:
    file = file if file is not None else sys.stderr
    if file is None:
        return  # No file was given, and the process has no stderr.
    found = reports(loop)
    number = "1 task" if len(found) == 1 else f"{len(found)} tasks"
    lines = [f"{number} on {loop!r}", *map(str, found)]
    print("\n".join(lines), file=file, flush=True)


def install_signal(loop: Any, signum: int, *, ages: bool = False) -> None:
    """Dump a loop's tasks when a signal comes, then call the previous handler."""
    previous = signal.getsignal(signum)
    while isinstance(previous, _DumpHandler) and previous.is_over():
        previous = previous.previous
    if not any(each.is_of(loop) for each in _handlers(previous)):
        signal.signal(signum, _DumpHandler(loop, previous))
    if ages:
        track_ages(loop)


class _DumpHandler:
    """A signal handler that dumps one loop, then calls the handler that it replaced."""

    def __init__(self, loop: Any, previous: Any) -> None:
        self.previous = previous
        self._loop = weakref.ref(loop)

    def is_of(self, loop: Any) -> bool:
        """Whether it dumps that loop."""
        return self._loop() is loop

    def is_over(self) -> bool:
        """Whether its loop is gone or closed."""
        loop = self._loop()
        return loop is None or loop.is_closed()

    def __call__(self, number: int, frame: types.FrameType | None) -> None:
        loop = self._loop()
        if loop is not None and not loop.is_closed():
            try:
                dump(loop)
            except Exception:
                # The exception must not reach the code that the signal has interrupted. That may
                # be a write to stderr, within which no other can begin. The loop tries again in
                # its next turn; if that fails, its exception handler is told.
                with contextlib.suppress(RuntimeError):  # It was closed meanwhile.
                    loop.call_soon_threadsafe(_print, loop, None)
        if callable(self.previous):
            self.previous(number, frame)


def _handlers(handler: Any) -> Iterator[_DumpHandler]:
    while isinstance(handler, _DumpHandler):
        yield handler
        handler = handler.previous


def track_ages(loop: Any) -> None:
    """Note when each task of a loop is made, from now on."""
    previous = vars(loop).get("create_task")
    if isinstance(previous, functools.partial) and previous.func is _make_task:
        return
    # Not a task factory: CPython 3.13.0 names the tasks of any factory itself, 'None' if they
    # have no name, and the program may set one of its own.
    loop.create_task = functools.partial(_make_task, weakref.ref(loop), previous)


def _make_task(reference: Any, previous: Any, /, coro: Any, **keywords: Any) -> Any:
    loop = reference()
    make = previous or functools.partial(type(loop).create_task, loop)
    task = make(coro, **keywords)
    _made[task] = time.monotonic()
    return task


class _Awaited:
    """What is behind each future that a task may wait for."""

    def __init__(self, loop: Any) -> None:
        self._now = loop.time()
        self._behind: dict[int, str] = {}
        self._timeouts: dict[int, float] = {}
        if not isinstance(loop, _core.EventLoop):
            return  # Only this package's loops have an index.
        self._index_timers(loop)
        self._index_watches(loop)
        self._index_socket_waits(loop)
        self._index_connections(loop)

    def by(self, task: asyncio.Task[Any], frames: list[types.FrameType]) -> str:
        """Say what a task waits for, given the frames of its await chain."""
        future = getattr(task, "_fut_waiter", None)
        if future is None:
            return "its turn"
        text = self._behind.get(id(future)) or _synchroniser(frames) or self._future(future)
        timeout = self._timeouts.get(id(task))
        return text if timeout is None else f"{text}, at most {timeout - self._now:.3f} s more"

    def _future(self, future: Any) -> str:
        if isinstance(future, asyncio.Task):
            return f"task {future.get_name()!r}"
        children = getattr(future, "_children", None)
        if children:
            names = [self._behind.get(id(child)) or _child(child) for child in children]
            left = [name for name, child in zip(names, children, strict=True) if not child.done()]
            return f"{len(left)} of {len(children)} gathered: {', '.join(left[:10])}"
        for callback, *_ in getattr(future, "_callbacks", None) or ():
            if "_chain_future" in getattr(callback, "__qualname__", ""):
                return "a thread or process of an executor"
        return _safe_repr(future)

    def _index_timers(self, loop: Any) -> None:
        for handle in loop._timer_handles():
            when = handle.when()
            for argument in handle._args or ():
                if asyncio.isfuture(argument):
                    left = when - self._now
                    self._behind[id(argument)] = f"a timer, due in {left:.3f} s"
            owner = getattr(handle._callback, "__self__", None)
            if type(owner).__name__ == "Timeout":
                self._timeouts[id(getattr(owner, "_task", None))] = when

    def _index_watches(self, loop: Any) -> None:
        for fd, is_write, handle in _core.watches(loop):
            arguments = handle._args or ()
            text = _descriptor(fd, is_write, arguments)
            for argument in arguments:
                if asyncio.isfuture(argument):
                    self._behind[id(argument)] = text

    def _index_socket_waits(self, loop: Any) -> None:
        for fd, is_write, future, reference in _core.socket_waits(loop):
            self._behind[id(future)] = _descriptor(fd, is_write, (reference(),))

    def _index_connections(self, loop: Any) -> None:
        for connection in _core.connections(loop):
            where = f"{describe.peer_of(connection['peer'])} (descriptor {connection['fd']})"
            queued = connection["bytes_queued"]
            protocol = connection["protocol"]
            if isinstance(protocol, sslproto.SSLProtocol):
                if asyncio.isfuture(protocol._waiter):
                    self._behind[id(protocol._waiter)] = f"the TLS handshake with {where}"
                protocol = describe.protocol_of(connection["transport"])
            for name, future in _futures_of(protocol):
                if name == "_waiter":
                    text = f"data from {where}"
                elif name.startswith("_drain"):
                    text = f"{where} to take {queued} queued bytes"
                elif name == "_closed":
                    text = f"the end of the connection with {where}"
                else:
                    text = f"{name} of the connection with {where}"
                self._behind.setdefault(id(future), text)


def _futures_of(protocol: Any) -> Iterator[tuple[str, Any]]:
    """Yield the futures that a protocol keeps, and those of its stream reader."""
    reader = getattr(protocol, "_stream_reader", None)
    for owner in (reader, protocol):
        for name in {*getattr(owner, "__dict__", ()), *_IN_SLOTS}:
            value: Any = getattr(owner, name, None)
            values: Iterable[Any] = (value,)
            if isinstance(value, (list, set)) or type(value).__name__ == "deque":
                values = list(value)
            for candidate in values:
                if asyncio.isfuture(candidate):
                    yield name, candidate


def _synchroniser(frames: list[types.FrameType]) -> str | None:
    """Name the lock, event or queue that the innermost frames belong to."""
    for frame in reversed(frames):
        owner = frame.f_locals.get("self")
        if isinstance(owner, asyncio.Queue):
            kind = type(owner).__name__
            # Its own repr shows the items, which are the program's and may be many.
            state = f"{owner.qsize()} items, at most {owner.maxsize}"
            return f"{kind.lower()} <{kind} at {id(owner):#x}, {state}>"
        if isinstance(owner, _SYNCHRONISERS):
            return f"{type(owner).__name__.lower()} {_safe_repr(owner)}"
    return None


def _descriptor(fd: int, is_write: bool, objects: Iterable[Any]) -> str:
    """Name a descriptor that is waited for, with the peer of its socket."""
    text = f"descriptor {fd} to be {'writable' if is_write else 'readable'}"
    peer = next(filter(None, map(_socket_peer, objects)), None)
    return text if peer is None else f"{text} ({peer})"


def _socket_peer(value: Any) -> str | None:
    try:
        return describe.peer_of(value.getpeername())
    except OSError:
        return "not connected"
    except Exception:
        return None  # It is no socket.


def _child(child: Any) -> str:
    return f"task {child.get_name()!r}" if isinstance(child, asyncio.Task) else _safe_repr(child)


def _safe_repr(thing: Any) -> str:
    """Return the start of an object's repr, or a substitute if that raises."""
    try:
        text = repr(thing)
    except Exception as error:
        kind = type(thing).__qualname__
        return f"<{kind} at {id(thing):#x}, whose repr raises {type(error).__name__}>"
    return text if len(text) <= _LONGEST_REPR else f"{text[:_LONGEST_REPR]}..."


def _order(task: asyncio.Task[Any]) -> tuple[int, str]:
    """Sort tasks by name, and numbers in names by their value."""
    name = task.get_name()
    number = name.rpartition("-")[2]
    return (int(number) if number.isascii() and number.isdigit() else sys.maxsize, name)
