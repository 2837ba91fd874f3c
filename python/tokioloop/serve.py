"""`serve`: one loop per thread, all behind the same ports.

The loops share nothing but the interpreter: each has its own listening sockets, over which the
kernel spreads the connections (SO_REUSEPORT), so no connection ever crosses a thread. The calling
thread runs no loop. It gets the messages of the workers and the signal handlers from one queue, so
it alone decides when to stop.
"""

from __future__ import annotations

import asyncio
import os
import queue
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any, TypeVar

from tokioloop._run import run
from tokioloop._signals import is_main_thread
from tokioloop.loop import TokioLoop, new_event_loop

__all__ = ["serve"]

T = TypeVar("T")

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_LAST_PORT = 65535
# Seconds between two checks for a signal while threads end.
_PATIENCE = 0.05


def serve(
    main: Callable[..., Awaitable[T]],
    *,
    threads: int | None = None,
    sockets: Iterable[tuple[str, int]] = (),
    backlog: int = 128,
    loop_factory: Callable[[], TokioLoop] = new_event_loop,
    debug: bool | None = None,
) -> list[T | None]:
    """Run `main` on one TokioLoop in each of several threads, and wait for all of them.

    main -- coroutine function, called as `main(index, *listeners)` on each loop: index counts
        the threads from 0, and there is one listening socket for each address of `sockets`
    threads -- int: how many loops; by default one per processor that this process may use
    sockets -- `(host, port)` pairs to listen on. Every loop gets a socket of its own for each,
        and the kernel spreads the connections over them. Port 0 picks one free port, the same
        for all loops: `listener.getsockname()` returns it. If a name has several addresses, the
        first is used: `""` is `0.0.0.0` alone on Linux. `("::", port)` is IPv6 alone
    backlog -- int: connections that may wait for each of the sockets
    loop_factory -- makes each loop, on its thread: `partial(TokioLoop, busy_poll=50)`
    debug -- bool: debug mode of the loops, as in `asyncio.run`

    Returns the results by index, None for a `main` that was cancelled.

    Nothing is restarted. When a `main` returns, its loop ends and the others go on. When one
    raises, the others are cancelled and waited for, and the exception is raised here. Exceptions
    of other threads are added at the end of its chain of contexts.

    On the main thread, SIGINT and SIGTERM stop all loops, unless the process ignores them (a shell
    makes its background jobs ignore SIGINT): every `main` is cancelled, in the order of the
    threads, then each loop finishes its other tasks, asynchronous generators and executor as
    `asyncio.run` does. Afterwards SIGINT raises KeyboardInterrupt, and SIGTERM lets `serve`
    return. A second signal does not wait: it raises KeyboardInterrupt or SystemExit at once.

    With the GIL everything works, but the loops take turns: a RuntimeWarning says so.

    Raises ValueError if `threads` is less than 1, RuntimeError if called from a running loop,
    OverflowError for a port out of range, OSError if an address cannot be listened on or the
    system has no SO_REUSEPORT. On macOS the port is shared, but the kernel does not spread the
    connections evenly.

    >>> import warnings
    >>> warnings.simplefilter("ignore", RuntimeWarning)  # of an interpreter with the GIL
    >>> async def main(index, listener):
    ...     server = await asyncio.start_server(lambda reader, writer: None, sock=listener)
    ...     async with server:
    ...         return f"thread {index} listens on {listener.getsockname()[0]}"
    >>> serve(main, threads=2, sockets=[("127.0.0.1", 0)])
    ['thread 0 listens on 127.0.0.1', 'thread 1 listens on 127.0.0.1']
    """
    if asyncio._get_running_loop() is not None:
        raise RuntimeError("serve() cannot be called from a running event loop")
    count = _available_processors() if threads is None else threads
    if count < 1:
        raise ValueError(f"threads must be at least 1, not {count}")
    if count > 1 and _gil_is_enabled():
        warnings.warn(
            f"the GIL is enabled: {count} loops in one process will not be faster than one; "
            "use a free-threaded Python",
            RuntimeWarning,
            stacklevel=2,
        )
    events: queue.SimpleQueue[_Worker | signal.Signals] = queue.SimpleQueue()
    workers = [
        _Worker(index, main, listeners, loop_factory, debug, events)
        for index, listeners in enumerate(_listen(sockets, count, backlog))
    ]
    stopped_by = _supervise(workers, events)
    errors = [error for worker in _by_end(workers) if (error := worker.error) is not None]
    if errors:
        raise _chained(errors)
    if stopped_by == signal.SIGINT:
        raise KeyboardInterrupt
    return [worker.result for worker in workers]


class _Worker:
    """One thread, one loop, one call of `main`."""

    def __init__(
        self,
        index: int,
        main: Callable[..., Awaitable[Any]],
        listeners: Sequence[socket.socket],
        loop_factory: Callable[[], TokioLoop],
        debug: bool | None,
        events: queue.SimpleQueue[Any],
    ) -> None:
        self.result: Any = None
        self.error: BaseException | None = None
        self.ended_as = 0
        self._index = index
        self._main = main
        self._listeners = listeners
        self._loop_factory = loop_factory
        self._debug = debug
        self._events = events
        # A second signal leaves threads behind that must not keep the process alive.
        self._thread = threading.Thread(
            target=self._run, name=f"tokioloop-serve-{index}", daemon=True
        )
        # Guards the two below: `stop` may be called before, while or after the loop exists.
        self._lock = threading.Lock()
        self._stopping = False
        self._running: tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]] | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Cancel `main`, or keep it from starting. Called by the supervising thread."""
        with self._lock:
            if self._stopping:
                return  # What `main` does as it ends is not cancelled again.
            self._stopping = True
            if self._running is not None:
                loop, task = self._running
                loop.call_soon_threadsafe(task.cancel)

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the thread, if it was started, and close what `main` has left open.

        Returns whether it has ended; after `timeout` seconds it may not have.
        """
        if self._thread.ident is not None:
            self._thread.join(timeout)
            if self._thread.is_alive():
                return False
        for listener in self._listeners:
            listener.close()
        return True

    def _run(self) -> None:
        try:
            self.result = run(
                self._supervised(), debug=self._debug, loop_factory=self._loop_factory
            )
        except asyncio.CancelledError as error:
            if not self._stopping:
                self.error = error
        except BaseException as error:
            self.error = error
        finally:
            self._events.put(self)

    async def _supervised(self) -> Any:
        task = asyncio.current_task()
        assert task is not None
        with self._lock:
            if self._stopping:
                raise asyncio.CancelledError
            self._running = asyncio.get_running_loop(), task
        try:
            return await self._main(self._index, *self._listeners)
        finally:
            # The loop is about to end, and may be closed when `stop` is called.
            with self._lock:
                self._running = None


def _supervise(
    workers: list[_Worker], events: queue.SimpleQueue[_Worker | signal.Signals]
) -> signal.Signals | None:
    """Start all, wait for all, stop all when one fails or a signal comes; returns the signal."""
    stopped_by: signal.Signals | None = None
    gives_up = False
    with _signals_to(events):
        try:
            for worker in workers:
                worker.start()
            for ended in range(len(workers)):
                while isinstance(event := events.get(), signal.Signals):
                    if stopped_by is not None:
                        gives_up = True
                        _give_up(event)
                    stopped_by = event
                    _stop(workers)
                event.ended_as = ended
                event.join()
                if event.error is not None:
                    _stop(workers)
        except BaseException:
            # The system has no thread left, or a handler of another signal has raised. The
            # threads that run end first, unless a second signal has given them up.
            if not gives_up:
                _stop(workers)
                _wait_for_the_end(workers, events, stopped_by)
            raise
    return stopped_by


def _wait_for_the_end(
    workers: list[_Worker],
    events: queue.SimpleQueue[_Worker | signal.Signals],
    stopped_by: signal.Signals | None,
) -> None:
    """Wait for all threads that run, until a second signal comes."""
    for worker in workers:
        while not worker.join(timeout=_PATIENCE):
            while not events.empty():
                event = events.get()
                if isinstance(event, signal.Signals):
                    if stopped_by is not None:
                        _give_up(event)
                    stopped_by = event


def _stop(workers: list[_Worker]) -> None:
    for worker in workers:
        worker.stop()


def _give_up(number: signal.Signals) -> None:
    """Do what the second signal does: leave the threads to the end of the process."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)


@contextmanager
def _signals_to(events: queue.SimpleQueue[Any]) -> Iterator[None]:
    """Send the stop signals to a queue. Only the main thread can; others leave them alone."""
    if not is_main_thread():
        yield
        return

    def on_signal(number: int, _frame: FrameType | None) -> None:
        # A handler may interrupt any line of this thread; SimpleQueue.put is reentrant.
        events.put(signal.Signals(number))

    heeded = [each for each in STOP_SIGNALS if signal.getsignal(each) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, on_signal) for number in heeded}
    try:
        yield
    finally:
        for number, handler in previous.items():
            # None: a handler that was not installed from Python cannot be put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _listen(
    addresses: Iterable[tuple[str, int]], count: int, backlog: int
) -> list[list[socket.socket]]:
    """Listening sockets by thread and address; all are bound before any thread starts."""
    listeners: list[list[socket.socket]] = [[] for _ in range(count)]
    with ExitStack() as on_failure:
        for host, port in addresses:
            if isinstance(port, int) and not 0 <= port <= _LAST_PORT:
                # getaddrinfo takes the lower sixteen bits, which is another port.
                raise OverflowError(f"bind(): port must be 0-{_LAST_PORT}.")
            family, kind, protocol, _, address = socket.getaddrinfo(
                host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            for own in listeners:
                listener = on_failure.enter_context(socket.socket(family, kind, protocol))
                listener.setblocking(False)
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    # As asyncio's own servers: the same port may be served at 0.0.0.0 too.
                    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                _share_port(listener)
                listener.bind(address)
                listener.listen(backlog)
                # The kernel has chosen a port if it was 0; the next ones take the same.
                address = listener.getsockname()
                own.append(listener)
        on_failure.pop_all()
    return listeners


def _share_port(listener: socket.socket) -> None:
    if not hasattr(socket, "SO_REUSEPORT"):
        raise OSError("this system has no SO_REUSEPORT: one port cannot serve several loops")
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


def _by_end(workers: list[_Worker]) -> list[_Worker]:
    return sorted(workers, key=lambda worker: worker.ended_as)


def _chained(errors: list[BaseException]) -> BaseException:
    """The first error, with the others at the end of its chain of contexts."""
    first, *others = errors
    if not others:
        return first
    seen = {id(first)}
    end = first
    while (earlier := end.__cause__ or end.__context__) is not None and id(earlier) not in seen:
        seen.add(id(earlier))
        end = earlier
    others = [error for error in others if id(error) not in seen]
    if others and sys.version_info >= (3, 11):
        end.__context__ = BaseExceptionGroup(  # noqa: F821
            "other threads of serve() failed as well", others
        )
    elif others:
        end.__context__ = others[0]
    return first


def _gil_is_enabled() -> bool:
    return getattr(sys, "_is_gil_enabled", lambda: True)()


def _available_processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
