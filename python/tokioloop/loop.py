"""`TokioLoop`: the Rust loop before CPython's own.

Whatever is hot is in `_core.EventLoop`, which comes first in the method order.
Everything else is the code of the running CPython, reached through the hooks
that this file fills: it holds nothing that runs per message.
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

# What the making of a future asks of the loop.
_OF_FUTURES = frozenset({"create_future", "get_debug"})


@_core.own_methods
class TokioLoop(_core.EventLoop, ObservedLoop, SignalLoop, asyncio.SelectorEventLoop):
    """An asyncio event loop on a mio reactor.

    Keyword arguments; what trades latency or CPU time for something else is off
    by default:

    read_batch_bytes -- hold received data back until a connection has so many
        bytes (0 to 262144), at most for `read_batch_timeout`
    read_batch_timeout -- hold received data back for so many seconds (0.0 to
        1.0), or until `read_batch_bytes` have come if that is not 0; neither holds
        back what came over TLS or is received into a `BufferedProtocol`'s own memory
    write_batch_timeout -- send small writes when the turn of the loop ends,
        one connection after the other, or after so many seconds when a callback
        returns (0.0 to 1.0). By default what is scheduled in a turn of many
        callbacks does so, for 0.002 seconds; with 0.0 that writes at once, too
    busy_poll -- look for events for so many microseconds (0 to 1000000) before
        each sleep. By default only for what has proved to come sooner than a
        sleep takes, for at most 50: an answer of a thread, or the request of a
        connection just accepted; with 0 it sleeps at once
    slow_callback -- report callbacks that take this many seconds (up to 3600.0)
        to the logger `tokioloop.slow`, without debug mode
    stall_timeout -- report the stack of a callback that holds the loop for so
        many seconds (up to 3600.0) while it does, to `tokioloop.stall` and to
        `on_stall`, a function of one argument that a thread of its own calls

    Raises ValueError for a value outside of its range, TypeError for one of
    another type, OSError where the system has no descriptors left.

    >>> import asyncio
    >>> loop = TokioLoop()
    >>> loop.run_until_complete(asyncio.sleep(0, "done"))
    'done'
    >>> loop.close()
    """

    # What CPython's constructors and ours assign. As these are slots, a loop has no
    # dictionary until something else is assigned, or somebody asks for it; until then
    # the interpreter calls methods without a look-up (on 3.13 a tenth of what
    # sock_recv() costs).
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
        # The finalizer asks, also where the options are refused.
        self._signal_socket: socket.socket | None = None
        self._signal_fd = -1
        # The options were taken by __new__, which a subclass may have given others.
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

        Signals wake the loop at once: in the main thread the interpreter's
        wake-up descriptor is this loop's for the length of the run, unless it is
        somebody else's and this loop has no signal handlers.
        """
        if type(self).time is not _TIME:
            self._custom_clock = True
        if type(self).call_at is not _CALL_AT:
            self._custom_timers = True
        # Here, because CPython 3.13.0 forgets the outer run when it refuses an inner one.
        self._check_closed()
        self._check_running()
        super().run_forever()

    def _close_self_pipe(self) -> None:
        """Nothing to close before the handlers are removed; see close()."""

    def close(self) -> None:
        """Close the loop; callbacks that wait are dropped.

        Raises RuntimeError while the loop runs, and in a forked child for a loop of
        the parent. A thread other than the main one cannot remove signal handlers,
        and gets a ValueError for the first one, as in asyncio; the loop is closed then,
        and a second call, in the main thread, removes the others. Transports
        that are open stay so, and their protocols are not told, as in asyncio; a server's
        TLS handshakes that are under way are ended.
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
            # The parent's loop is not the child's to close: only what it has inherited goes.
            self._csock.close()
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
        """The reactor knows the transports."""

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
        # asyncio's own, but for who watches: that is a `_watcher` of the loop only from 3.14 on.
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
        """What a caller has handed in is the caller's to close where the call fails."""
        if isinstance(sock, socket.socket):
            self._sockets_of_callers.add(sock)

    async def _create_connection_transport(
        self, sock: socket.socket, *args: Any, **kwargs: Any
    ) -> Any:
        try:
            return await super()._create_connection_transport(sock, *args, **kwargs)
        except BaseException:
            # A protocol factory that raises leaves a socket of ours to nobody;
            # one that was handed in stays with its owner, as in asyncio.
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
            # asyncio fails when it begins to serve, before it says in debug mode that it does.
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
        """Serve, as asyncio does; but a cancelled call leaves no server behind."""
        if sys.version_info >= (3, 13):
            # In the place of a WeakSet, before there is a client.
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
        """Stop accepting from what callers have handed in, which stays open as in asyncio."""
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
                # The older protocol is used as it is, and so is what accepts for it.
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
            # Server.close() in another thread has let go of the socket by now:
            # to refuse would leave it open for ever.
            self.call_soon_threadsafe(self._stop_serving, sock)
            return
        self._unlisten(sock.fileno())
        super()._stop_serving(sock)

    async def _sendfile_native(
        self, transp: SocketTransport, file: Any, offset: int, count: int | None
    ) -> int:
        return await sendfile(self, transp, file, offset, count)


# As it was made: a subclass, or whoever patches the class, may have another.
_TIME = TokioLoop.time
_CALL_AT = TokioLoop.call_at


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
