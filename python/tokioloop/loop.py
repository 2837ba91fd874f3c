"""`TokioLoop`: the Rust loop on top of CPython's own.

The hot path is in `_core.EventLoop`, which comes first in the method order. Everything
else is the code of the running CPython, connected by the hooks that this file
implements. Nothing in this file runs per message.
"""

from __future__ import annotations

import asyncio
import asyncio.base_events
import socket
import sys
import threading
import weakref
from asyncio import unix_events
from collections.abc import Callable
from typing import Any

from tokioloop import _children as children
from tokioloop import _core, _debug, _tls
from tokioloop._internals import ReadyQueue, ScheduledTimers, WatchedDescriptors
from tokioloop._registry import register
from tokioloop._sendfile import sendfile
from tokioloop._signals import SignalLoop
from tokioloop._signatures import in_place_of
from tokioloop._transports import DatagramTransport, SocketTransport
from tokioloop.observe.loop_methods import ObservedLoop

__all__ = ["TokioLoop", "new_event_loop"]

# The methods of the loop that making a future calls.
_OF_FUTURES = frozenset({"create_future", "get_debug"})


@_core.own_methods
class TokioLoop(_core.EventLoop, ObservedLoop, SignalLoop, asyncio.SelectorEventLoop):
    """An asyncio event loop on a mio reactor.

    Keyword arguments. The read options, `slow_callback` and `stall_timeout` are off by
    default. Two adaptive optimisations are on: `write_batch_timeout=0.0` and
    `busy_poll=0` switch them off.

    read_batch_bytes -- int, 0 to 262144: hold received data back until a connection has
        this many bytes, for `read_batch_timeout` at most
    read_batch_timeout -- float, seconds, 0.0 to 1.0: hold received data back for this
        long, or until `read_batch_bytes` have come if that is not 0. Neither applies to
        data over TLS, or received into the memory of a `BufferedProtocol`
    write_batch_timeout -- float or None, seconds, 0.0 to 1.0: how long small writes may
        wait for the end of the loop's turn, so that they leave together. None (default):
        only those of callbacks scheduled in a turn with many callbacks, and of protocols
        that write several times per callback, wait, until a callback returns 0.002 later
        at most. 0.0: only the latter wait
    busy_poll -- int or None, microseconds, 0 to 1000000: how long to poll without
        sleeping before each sleep. None (default): only after a thread's answer or a new
        connection, for at most 50, while that proves worthwhile. 0: never
    slow_callback -- float, seconds, up to 3600.0: report callbacks that take this long to
        the logger `tokioloop.slow`, without debug mode. 0.0 (default): never
    stall_timeout -- float, seconds, up to 3600.0: when a callback has held the loop for
        this long, report its stack to the logger `tokioloop.stall` and to `on_stall`.
        0.0 (default): never
    on_stall -- callable or None: called with a `Stall` (`seconds`, `stack`, `task`,
        `gil`), on the thread that watches the loop

    Raises ValueError for a value out of its range and for `on_stall` without
    `stall_timeout`, TypeError for a value of another type, OSError if the system has no
    descriptors left.

    >>> import asyncio
    >>> loop = TokioLoop(write_batch_timeout=0.0, busy_poll=0)
    >>> loop.run_until_complete(asyncio.sleep(0, "done"))
    'done'
    >>> loop.close()
    """

    # The attributes that CPython's constructors and ours assign. As they are slots, a loop
    # has no dictionary until another attribute is assigned or `__dict__` is read. Until
    # then the interpreter calls methods without a look-up, which saves a tenth of what
    # sock_recv() costs on 3.13.
    __slots__ = (
        *("_asyncgens", "_asyncgens_shutdown_called", "_old_agen_hooks"),
        *("_coroutine_origin_tracking_enabled", "_coroutine_origin_tracking_saved_depth"),
        *("_default_executor", "_executor_shutdown_called", "_exception_handler"),
        *("_clock_resolution", "_current_handle", "_timer_cancelled_count"),
        *("_selector", "_ssock", "_internal_fds", "slow_callback_duration"),
        *("_signal_handlers", "_signal_socket", "_signal_fd", "_watcher"),
        *("_unix_server_sockets", "_sockets_of_callers"),
        *("_stall_timeout", "_on_stall"),
    )

    def __init__(
        self,
        *,
        read_batch_bytes: int = 0,
        read_batch_timeout: float = 0.0,
        write_batch_timeout: float | None = None,
        busy_poll: int | None = None,
        slow_callback: float = 0.0,
        stall_timeout: float = 0.0,
        on_stall: Callable[[Any], object] | None = None,
    ) -> None:
        # The finalizer reads these, even if the options are refused.
        self._signal_socket: socket.socket | None = None
        self._signal_fd = -1
        # __new__ has taken the options already, and a subclass may have given it others.
        options = (read_batch_bytes, read_batch_timeout, write_batch_timeout, busy_poll)
        observed = (slow_callback, stall_timeout, on_stall)
        none_given = (*options, *observed) == (0, 0.0, None, None, 0.0, 0.0, None)
        if not none_given and not _core.is_made_with(self, *options, *observed):
            raise TypeError(
                "a TokioLoop takes its options when it is made: give them to "
                f"{type(self).__name__}(), or override __new__ as well"
            )
        # CPython's selector loops would now make a selector and a self-pipe; the
        # reactor replaces both.
        asyncio.base_events.BaseEventLoop.__init__(self)
        self._selector: WatchedDescriptors | None = WatchedDescriptors(self)
        self._ssock = None
        self._internal_fds = 0
        self._signal_handlers: dict[int, asyncio.Handle] = {}
        self._unix_server_sockets: dict[socket.socket, int] = {}
        if sys.version_info >= (3, 14):
            self._watcher = children.Watcher()
        self._sockets_of_callers: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._transport_class = SocketTransport
        self._stall_timeout = stall_timeout
        self._on_stall = on_stall
        self._custom_clock = type(self).time is not _TIME
        self._custom_timers = type(self).call_at is not _CALL_AT
        register(self)
        self._open_signal_socket()

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "time":
            self._custom_clock = True
        elif name == "call_at":
            self._custom_timers = True
        elif name in _OF_FUTURES:
            self._custom_futures = True

    def __delattr__(self, name: str) -> None:
        super().__delattr__(name)
        if name == "time":
            self._custom_clock = type(self).time is not _TIME
        elif name == "call_at":
            self._custom_timers = type(self).call_at is not _CALL_AT
        elif name in _OF_FUTURES:
            self._custom_futures = not _OF_FUTURES.isdisjoint(vars(self))

    def run_forever(self) -> None:
        """Run until stop() is called.

        In the main thread, signals wake the loop at once: for the length of the run the
        interpreter's wake-up descriptor (`signal.set_wakeup_fd`) is this loop's, unless
        other code has set it and this loop has no signal handlers.

        Raises RuntimeError if the loop is closed or runs already, or if this thread runs
        another one. A SystemExit or KeyboardInterrupt out of a callback ends the run and
        is raised here.

        >>> loop = new_event_loop()
        >>> handle = loop.call_soon(loop.stop)
        >>> loop.run_forever()
        >>> loop.close()
        """
        if type(self).time is not _TIME:
            self._custom_clock = True
        if type(self).call_at is not _CALL_AT:
            self._custom_timers = True
        # Checked here, because CPython 3.13.0 forgets the outer run when it refuses an inner one.
        self._check_closed()
        self._check_running()
        try:
            # Neither the class nor the instance has another one.
            self._whole_runs = self._run_once == _RUN_ONCE.__get__(self)
            super().run_forever()
        finally:
            self._whole_runs = False

    def _close_self_pipe(self) -> None:
        """Close nothing yet: the signal handlers are removed first; see close()."""

    def close(self) -> None:
        """Close the loop; callbacks that wait are dropped.

        As in asyncio, open transports stay open and their protocols are not told. A
        server's TLS handshakes that are under way are ended.

        Raises RuntimeError while the loop runs, and in a forked child for a loop of the
        parent. As in asyncio, only the main thread can remove signal handlers: another
        one gets a ValueError for the first of them. The loop is closed then, and a second
        call, in the main thread, removes the others.

        >>> loop = new_event_loop()
        >>> loop.close()
        >>> loop.is_closed()
        True
        """
        if self.is_running():
            raise RuntimeError("Cannot close a running event loop")
        if self.is_closed():
            super().close()
            return
        self._check_process("close")
        _tls.end_arrivals(self._open_transports())
        try:
            super().close()
        finally:
            self._selector = None
            self._shutdown()
            self._close_signal_socket()

    def __del__(self) -> None:
        if self.is_closed():
            return
        if self._is_inherited():
            # A forked child must not close its parent's loop, only the socket it has inherited.
            if self._signal_socket is not None:
                self._signal_socket.close()
        else:
            super().__del__()

    @property
    def _ready(self) -> ReadyQueue:
        return ReadyQueue(self)

    @_ready.setter
    def _ready(self, value: object) -> None:
        """CPython's constructor assigns a deque; the reactor has the queue."""

    @property
    def _scheduled(self) -> ScheduledTimers:
        return ScheduledTimers(self)

    @_scheduled.setter
    def _scheduled(self, value: object) -> None:
        """CPython's constructor assigns a list; the reactor has the timers."""

    @property
    def _transports(self) -> dict[int, SocketTransport | DatagramTransport]:
        return {t._sock_fd: t for t in self._open_transports() if t._sock_fd >= 0}

    @_transports.setter
    def _transports(self, value: object) -> None:
        """CPython's constructor assigns a mapping; the reactor has the transports."""

    def _add_callback_signalsafe(self, handle: asyncio.Handle) -> None:
        self._add_callback(handle)
        self._write_to_self()

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Timers are removed from the reactor by their own cancel()."""

    _report_slow_callback = _debug.report_slow_callback
    _report_slow_event = _debug.report_slow_event
    _tell_of_connection = _debug.tell_of_connection

    def _make_socket_transport(
        self,
        sock: socket.socket,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        *,
        extra: dict[str, Any] | None = None,
        server: Any = None,
    ) -> asyncio.Transport:
        self._ensure_fd_no_transport(sock)
        keep = sock in self._sockets_of_callers
        return self._stream_transport(sock, protocol, waiter, extra, server, keep)

    def _make_ssl_transport(
        self,
        rawsock: socket.socket,
        protocol: asyncio.BaseProtocol,
        sslcontext: Any,
        waiter: Any = None,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        extra: dict[str, Any] | None = None,
        server: Any = None,
        **timeouts: Any,
    ) -> asyncio.Transport:
        self._ensure_fd_no_transport(rawsock)
        ssl_protocol = _tls.SSLProtocol(
            self, protocol, sslcontext, waiter, server_side, server_hostname, **timeouts
        )
        self._make_socket_transport(rawsock, ssl_protocol, extra=extra, server=server)
        return ssl_protocol._app_transport

    start_tls = _tls.start_tls

    if sys.version_info < (3, 14):
        # asyncio's own, except for the watcher, which is the loop's `_watcher` only from 3.14 on.
        async def _make_subprocess_transport(
            self,
            protocol: Any,
            args: Any,
            shell: bool,
            stdin: Any,
            stdout: Any,
            stderr: Any,
            bufsize: int,
            extra: dict[str, Any] | None = None,
            **kwargs: Any,
        ) -> asyncio.SubprocessTransport:
            if not children.supported():
                return await super()._make_subprocess_transport(
                    protocol, args, shell, stdin, stdout, stderr, bufsize, extra, **kwargs
                )
            waiter = self.create_future()
            transport = unix_events._UnixSubprocessTransport(
                self,
                protocol,
                args,
                shell,
                stdin,
                stdout,
                stderr,
                bufsize,
                waiter=waiter,
                extra=extra,
                **kwargs,
            )
            children.watch(self, transport)
            try:
                await waiter
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException:
                transport.close()
                await transport._wait()
                raise
            return transport

    @in_place_of(asyncio.SelectorEventLoop.create_connection)
    async def create_connection(
        self, protocol_factory: Any, *args: Any, sock: socket.socket | None = None, **kwargs: Any
    ) -> Any:
        self._note_caller(sock)
        return await super().create_connection(protocol_factory, *args, sock=sock, **kwargs)

    @in_place_of(asyncio.SelectorEventLoop.create_unix_connection)
    async def create_unix_connection(
        self, protocol_factory: Any, *args: Any, sock: socket.socket | None = None, **kwargs: Any
    ) -> Any:
        self._note_caller(sock)
        return await super().create_unix_connection(protocol_factory, *args, sock=sock, **kwargs)

    @in_place_of(asyncio.SelectorEventLoop.create_datagram_endpoint)
    async def create_datagram_endpoint(
        self, protocol_factory: Any, *args: Any, sock: socket.socket | None = None, **kwargs: Any
    ) -> Any:
        self._note_caller(sock)
        return await super().create_datagram_endpoint(protocol_factory, *args, sock=sock, **kwargs)

    def _note_caller(self, sock: Any) -> None:
        """Remember a socket that the caller has passed in: if the call fails, it stays open."""
        if isinstance(sock, socket.socket):
            self._sockets_of_callers.add(sock)

    async def _create_connection_transport(
        self, sock: socket.socket, *args: Any, **kwargs: Any
    ) -> Any:
        try:
            return await super()._create_connection_transport(sock, *args, **kwargs)
        except BaseException:
            # If the protocol factory raises, nobody else would close a socket of ours. One
            # that was passed in stays with its owner, as in asyncio.
            if sock not in self._sockets_of_callers:
                sock.close()
            raise

    @in_place_of(asyncio.SelectorEventLoop.connect_accepted_socket)
    async def connect_accepted_socket(
        self, protocol_factory: Any, sock: socket.socket, **kwargs: Any
    ) -> Any:
        self._note_caller(sock)
        return await super().connect_accepted_socket(protocol_factory, sock, **kwargs)

    @in_place_of(asyncio.SelectorEventLoop.create_server)
    async def create_server(
        self, protocol_factory: Any, *args: Any, start_serving: bool = True, **kwargs: Any
    ) -> asyncio.Server:
        if start_serving:
            # On a closed loop asyncio raises when it begins to serve, before debug mode logs it.
            self._check_closed()
        self._note_caller(kwargs.get("sock"))
        server = await super().create_server(protocol_factory, *args, start_serving=False, **kwargs)
        return await self._begin_serving(server, start_serving)

    @in_place_of(asyncio.SelectorEventLoop.create_unix_server)
    async def create_unix_server(
        self, protocol_factory: Any, *args: Any, start_serving: bool = True, **kwargs: Any
    ) -> asyncio.Server:
        self._note_caller(kwargs.get("sock"))
        server = await super().create_unix_server(
            protocol_factory, *args, start_serving=False, **kwargs
        )
        return await self._begin_serving(server, start_serving)

    async def _begin_serving(self, server: asyncio.Server, start_serving: bool) -> asyncio.Server:
        """Begin to serve as asyncio does, but leave no server behind if the call is cancelled."""
        if sys.version_info >= (3, 13):
            # Replaces a WeakSet, before there is a client.
            server._clients = _core.Clients()
        if start_serving:
            try:
                server._start_serving()
                await asyncio.sleep(0)
            except BaseException:
                self._let_go_of_callers_sockets(server)
                server.close()
                raise
        return server

    def _let_go_of_callers_sockets(self, server: Any) -> None:
        """Stop accepting on sockets that callers have passed in, which stay open as in asyncio."""
        for sock in self._sockets_of_callers.intersection(server._sockets or ()):
            server._sockets.remove(sock)
            # The caller may have closed it already.
            if sock.fileno() >= 0:
                self._unlisten(sock.fileno())
                self._remove_reader(sock.fileno())

    def _make_datagram_transport(
        self,
        sock: socket.socket,
        protocol: asyncio.DatagramProtocol,
        address: Any = None,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> asyncio.DatagramTransport:
        try:
            self._ensure_fd_no_transport(sock)
            return _core.datagram_transport(
                self, DatagramTransport, sock, protocol, address, waiter, extra
            )
        except BaseException:
            if sock not in self._sockets_of_callers:
                sock.close()
            raise

    def _start_serving(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        sock: socket.socket,
        sslcontext: Any = None,
        server: Any = None,
        backlog: int = 100,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> None:
        handshake = None
        if sslcontext:
            if sys.version_info < (3, 11):
                # asyncio's older protocol is used unchanged, and so is its code for accepting.
                super()._start_serving(
                    *(protocol_factory, sock, sslcontext, server, max(backlog, 1)),
                    ssl_handshake_timeout,
                )
                return
            handshake = _tls.handshaking(
                self,
                sslcontext,
                ssl_handshake_timeout=ssl_handshake_timeout,
                ssl_shutdown_timeout=ssl_shutdown_timeout,
            )
        self._listen(sock, sock.fileno(), protocol_factory, handshake, server, max(backlog, 0))

    def _stop_serving(self, sock: socket.socket) -> None:
        if self._thread_id not in (None, threading.get_ident()):
            # Server.close() on another thread has given up the socket by now: if this were
            # refused, it would stay open for ever.
            self.call_soon_threadsafe(self._stop_serving, sock)
            return
        self._unlisten(sock.fileno())
        super()._stop_serving(sock)

    async def _sendfile_native(
        self, transp: SocketTransport, file: Any, offset: int, count: int | None
    ) -> int:
        return await sendfile(self, transp, file, offset, count)


# The original methods: a subclass, or a patch of the class, may have others.
_TIME = TokioLoop.time
_CALL_AT = TokioLoop.call_at
_RUN_ONCE = TokioLoop._run_once


def new_event_loop() -> TokioLoop:
    """Return a new `TokioLoop` with every option at its default.

    >>> import asyncio
    >>> async def main():
    ...     return type(asyncio.get_running_loop()).__name__
    >>> loop = new_event_loop()
    >>> loop.run_until_complete(main())
    'TokioLoop'
    >>> loop.close()
    """
    return TokioLoop()
