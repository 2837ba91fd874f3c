"""TLS: asyncio's protocol and transport, with native classes before them in the method order.

Everything that does not run per record is asyncio's own code, except how a server's
connection gets to its handshake: the loop accepts it like one without TLS.
CPython 3.10 has another, older protocol, which is used unchanged.
"""

from __future__ import annotations

import asyncio
import sys
import types
from asyncio import base_events, sslproto
from collections.abc import Callable, Iterable
from typing import Any

from tokioloop import _core

__all__ = ["SSLProtocol", "end_arrivals", "handshaking", "start_tls"]

if sys.version_info >= (3, 11):

    @_core.own_methods
    class SSLTransport(_core.TlsTransport, sslproto._SSLProtocolTransport):
        """The transport of a protocol over TLS."""

        # What asyncio's constructor assigns; as a slot, it needs no dictionary.
        __slots__ = ("_closed",)

        # asyncio's methods, but another thread is refused before it does anything: it
        # would change the session while the loop uses it.

        def close(self) -> None:
            try:
                self._refuse_other_thread("close")
            except RuntimeError:
                if not (self._loop.is_running() and _core.called_by_finalizer()):
                    raise
                # The collector runs finalizers on any thread.
                self._loop.call_soon_threadsafe(self.close)
                return
            super().close()

        def abort(self) -> None:
            self._refuse_other_thread("abort")
            super().abort()

        def _force_close(self, exc: BaseException | None) -> None:
            self._refuse_other_thread("abort")
            super()._force_close(exc)

        def pause_reading(self) -> None:
            self._refuse_other_thread("pause_reading")
            super().pause_reading()

        def resume_reading(self) -> None:
            self._refuse_other_thread("resume_reading")
            super().resume_reading()

        def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
            self._refuse_other_thread("set_protocol")
            super().set_protocol(protocol)

        def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
            self._refuse_other_thread("set_write_buffer_limits")
            super().set_write_buffer_limits(high, low)

        def set_read_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
            self._refuse_other_thread("set_read_buffer_limits")
            super().set_read_buffer_limits(high, low)

        def _refuse_other_thread(self, method: str) -> None:
            # A transport that was closed twice has no protocol any more.
            if self._ssl_protocol is not None:
                self._ssl_protocol._refuse_other_thread(method)

    @_core.own_methods
    class SSLProtocol(_core.TlsProtocol, sslproto.SSLProtocol):
        """The protocol between a transport and a protocol over TLS."""

        # What asyncio's methods assign, besides the slots of the native class.
        __slots__ = (
            *("_app_state", "_app_transport", "_app_transport_created", "_conn_lost"),
            *("_eof_received", "_extra", "_handshake_start_time", "_handshake_timeout_handle"),
            *("_incoming_low_water", "_outgoing_low_water", "_server_hostname"),
            *("_server_side", "_shutdown_timeout_handle", "_ssl_buffer", "_ssl_buffer_view"),
            *("_ssl_handshake_timeout", "_ssl_shutdown_timeout", "_sslcontext", "_waiter"),
            "max_size",
        )

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            # Attributes of asyncio's class, which the slots hide.
            self._handshake_start_time: float | None = None
            self._handshake_timeout_handle: asyncio.TimerHandle | None = None
            self._shutdown_timeout_handle: asyncio.TimerHandle | None = None
            # asyncio's constructor allocates 256 KB to receive into. Our own
            # transports need none; for others get_buffer() makes it.
            self.max_size = 0
            super().__init__(*args, **kwargs)
            self.max_size = sslproto.SSLProtocol.max_size

        def _get_app_transport(self) -> Any:
            if self._app_transport is None:
                if self._app_transport_created:
                    raise RuntimeError("Creating _SSLProtocolTransport twice")
                self._app_transport = SSLTransport(self._loop, self)
                self._app_transport_created = True
            return self._app_transport

        def _step_failed(self, error: BaseException) -> None:
            """Do what asyncio does about an exception in one of the steps that are native."""
            try:
                raise error
            except Exception as exc:
                self._fatal_error(exc, "Fatal error on SSL protocol")

else:
    SSLProtocol = sslproto.SSLProtocol


class _Arrival:
    """Replaces the task with which asyncio awaits the handshake of a server's connection.

    The protocol calls it like the future that the task would await.
    """

    __slots__ = ("loop", "protocol", "transport")

    def __init__(self, loop: asyncio.AbstractEventLoop, protocol: asyncio.BaseProtocol) -> None:
        self.loop = loop
        self.protocol = protocol
        self.transport: Any = None

    def cancelled(self) -> bool:
        return False

    def set_result(self, result: None) -> None:
        pass

    def set_exception(self, error: BaseException) -> None:
        self.loop.call_soon(self._failed, error)

    def _failed(self, error: BaseException) -> None:
        self.transport.close()
        # asyncio reports a failed handshake in debug mode only.
        if self.loop.get_debug():
            self.loop.call_exception_handler(
                {
                    "message": "Error on transport creation for incoming connection",
                    "exception": error,
                    "protocol": self.protocol,
                    "transport": self.transport,
                }
            )


def handshaking(
    loop: asyncio.AbstractEventLoop, sslcontext: Any, **timeouts: float | None
) -> Callable[[asyncio.BaseProtocol], asyncio.BaseProtocol]:
    """Return a function that makes the handshake's protocol around each new protocol."""

    def arrive(protocol: asyncio.BaseProtocol) -> asyncio.BaseProtocol:
        arrival = _Arrival(loop, protocol)
        ssl_protocol = SSLProtocol(loop, protocol, sslcontext, arrival, True, **timeouts)
        arrival.transport = ssl_protocol._app_transport
        return ssl_protocol

    return arrive


def end_arrivals(transports: Iterable[Any]) -> None:
    """Abort the connections whose handshake a server still waits for.

    asyncio does so when the tasks that wait are cancelled.
    """
    for transport in transports:
        protocol = transport.get_protocol()
        if not isinstance(protocol, SSLProtocol):
            continue
        waiter: Any = protocol._waiter
        if isinstance(waiter, _Arrival):
            transport.abort()
            # Called here, because the loop runs no callbacks any more.
            transport._call_connection_lost(None)


def _with_our_protocol(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of `base_events` that makes our `SSLProtocol`.

    CPython's own code, in step with its version, sees another module under the
    name `sslproto`.
    """
    ours = types.SimpleNamespace(**{**vars(sslproto), "SSLProtocol": SSLProtocol})
    scope = {**vars(base_events), "sslproto": ours}
    copy = types.FunctionType(function.__code__, scope, function.__name__, function.__defaults__)
    copy.__kwdefaults__ = function.__kwdefaults__
    copy.__qualname__ = function.__qualname__
    copy.__doc__ = function.__doc__
    return copy


start_tls = _with_our_protocol(base_events.BaseEventLoop.start_tls)
