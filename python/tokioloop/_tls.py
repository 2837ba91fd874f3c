"""TLS: asyncio's protocol and transport, with the native steps before them.

Everything that does not run per record is asyncio's own code. CPython 3.10 has
another, older protocol, which is used as it is.
"""

from __future__ import annotations

import sys
import types
from asyncio import base_events, sslproto
from collections.abc import Callable
from typing import Any

from tokioloop import _core

__all__ = ["SSLProtocol", "start_tls"]

if sys.version_info >= (3, 11):

    @_core.own_methods
    class SSLTransport(_core.TlsTransport, sslproto._SSLProtocolTransport):
        """What a protocol over TLS talks to."""

    @_core.own_methods
    class SSLProtocol(_core.TlsProtocol, sslproto.SSLProtocol):
        """The protocol between a transport and a protocol over TLS."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            # asyncio's constructor allocates 256 KB to receive into. Our own
            # transports need none; for others get_buffer() makes it.
            self.max_size = 0
            try:
                super().__init__(*args, **kwargs)
            finally:
                del self.max_size

        def _get_app_transport(self) -> Any:
            if self._app_transport is None:
                if self._app_transport_created:
                    raise RuntimeError("Creating _SSLProtocolTransport twice")
                self._app_transport = SSLTransport(self._loop, self)
                self._app_transport_created = True
            return self._app_transport

        def _step_failed(self, error: BaseException) -> None:
            """What asyncio does about an exception in one of the native steps."""
            try:
                raise error
            except Exception as exc:
                self._fatal_error(exc, "Fatal error on SSL protocol")

else:
    SSLProtocol = sslproto.SSLProtocol


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
