"""Wrong arguments for the methods of transports, servers and handles, and calls after close."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from .bad_input import Method, Resources, compare, one_call
from .harness import Trace
from .wires import Told, client_tls, pipe_ends, server_tls, turns, until

HOST = "127.0.0.1"


@asynccontextmanager
async def _stream(loop: Any, protocol: Told) -> AsyncIterator[Any]:
    ours, theirs = socket.socketpair()
    with theirs:
        ours.setblocking(False)
        transport, _ = await loop.create_connection(lambda: protocol, sock=ours)
        yield transport


@asynccontextmanager
async def _datagram(loop: Any, protocol: Told) -> AsyncIterator[Any]:
    transport, _ = await loop.create_datagram_endpoint(lambda: protocol, local_addr=(HOST, 0))
    yield transport


@asynccontextmanager
async def _connected_datagram(loop: Any, protocol: Told) -> AsyncIterator[Any]:
    with socket.socket(type=socket.SOCK_DGRAM) as peer:
        peer.bind((HOST, 0))
        transport, _ = await loop.create_datagram_endpoint(
            lambda: protocol, remote_addr=peer.getsockname()
        )
        yield transport


@asynccontextmanager
async def _read_pipe(loop: Any, protocol: Told) -> AsyncIterator[Any]:
    reader, writer = pipe_ends()
    with writer:
        transport, _ = await loop.connect_read_pipe(lambda: protocol, reader)
        yield transport


@asynccontextmanager
async def _write_pipe(loop: Any, protocol: Told) -> AsyncIterator[Any]:
    reader, writer = pipe_ends()
    with reader:
        transport, _ = await loop.connect_write_pipe(lambda: protocol, writer)
        yield transport


@asynccontextmanager
async def _child(loop: Any, protocol: Told) -> AsyncIterator[Any]:
    nothing = subprocess.DEVNULL
    transport, _ = await loop.subprocess_exec(
        lambda: protocol, "sleep", "30", stdin=nothing, stdout=nothing, stderr=nothing
    )
    yield transport
    transport.close()
    await until(
        lambda: "process_exited" in protocol.calls or transport.get_returncode() is not None
    )
    await turns(3)


@asynccontextmanager
async def _tls(loop: Any, protocol: Told) -> AsyncIterator[Any]:
    quiet = Told(Trace(), tell=False)
    server = await loop.create_server(lambda: quiet, HOST, 0, ssl=server_tls())
    transport, _ = await loop.create_connection(
        lambda: protocol, *server.sockets[0].getsockname(), ssl=client_tls()
    )
    await until(lambda: quiet.transport)
    yield transport
    transport.abort()
    quiet.transport.abort()
    await until(lambda: quiet.lost)
    server.close()


KINDS: dict[str, Callable[[Any, Told], Any]] = {
    "stream": _stream,
    "datagram": _datagram,
    "connected datagram": _connected_datagram,
    "read pipe": _read_pipe,
    "write pipe": _write_pipe,
    "tls": _tls,
    "child": _child,
}

BASE = [
    Method("close"),
    Method("is_closing"),
    Method("get_extra_info", lambda r: ("peername",)),
    Method("set_protocol", lambda r: (Told(Trace()),)),
    Method("get_protocol"),
]
READING = [Method("pause_reading"), Method("resume_reading"), Method("is_reading")]
WRITING = [
    Method("abort"),
    Method("write", lambda r: (b"x",)),
    Method("writelines", lambda r: ([b"x"],)),
    Method("write_eof"),
    Method("can_write_eof"),
    Method("get_write_buffer_size"),
    Method("get_write_buffer_limits"),
    Method("set_write_buffer_limits", lambda r: (1000, 10)),
]
SENDING = [
    Method("abort"),
    Method("sendto", lambda r: (b"x", (HOST, 9))),
    Method("get_write_buffer_size"),
    Method("get_write_buffer_limits"),
    Method("set_write_buffer_limits", lambda r: (1000, 10)),
]
CHILD = [
    Method("get_pid"),
    Method("get_returncode"),
    Method("get_pipe_transport", lambda r: (1,)),
    Method("send_signal", lambda r: (0,)),
    Method("terminate"),
    Method("kill"),
]
TABLE: dict[str, list[Method]] = {
    "stream": BASE + READING + WRITING,
    "datagram": BASE + (READING if sys.version_info >= (3, 11) else []) + SENDING,
    "connected datagram": SENDING,
    "read pipe": BASE + READING,
    "write pipe": BASE + WRITING,
    "tls": BASE + READING + WRITING,
    "child": BASE + CHILD,
}
CASES = [(kind, method) for kind, methods in TABLE.items() for method in methods]
# The TLS of 3.10 never sees the end of a connection that is paused while it closes.
AFTER_CLOSE = [
    (kind, method)
    for kind, method in CASES
    if sys.version_info >= (3, 11) or (kind, method.name) != ("tls", "pause_reading")
]


async def _call_on_fresh_transports(loop: Any, trace: Trace, method: Method, kind: str) -> None:
    """Each wrong call gets a transport of its own, for some calls are fatal to it."""
    cases = list(method.attempts())
    if kind in ("tls", "child"):  # dear ones: what they check is asyncio's own code
        cases = [case for case in cases if "argument 0 is" not in case[0]] + cases[-4:]
    for label, arguments in cases:
        protocol = Told(trace)
        async with KINDS[kind](loop, protocol) as transport:
            with Resources() as resources:
                args, kwargs = arguments(resources)
                await one_call(trace, label, getattr(transport, method.name), args, kwargs)
            await turns(3)
            trace("then", protocol.lost, transport.is_closing())
            transport.set_protocol(protocol)
            with suppress(AttributeError):  # asyncio's write pipe has nothing left to abort
                (transport.close if kind in ("read pipe", "child") else transport.abort)()
            await turns(3)


@pytest.mark.parametrize(("kind", "method"), CASES, ids=[f"{k} {m}" for k, m in CASES])
def test_wrong_arguments_of_a_transport_method(kind: str, method: Method) -> None:
    found = compare(method, _call_on_fresh_transports, kind)
    if found:
        pytest.fail("\n".join(found), pytrace=False)


async def _call_after_close(loop: Any, trace: Trace, method: Method, kind: str) -> None:
    # How far a killed child has got while it is closing is chance.
    for moment in ("lost",) if kind == "child" else ("closing", "lost"):
        # When a killed child is gone, or a peer has answered a close, is chance.
        protocol = Told(trace, tell=kind not in ("child", "tls"))
        async with KINDS[kind](loop, protocol) as transport:
            transport.close()
            if moment == "lost":
                await until(lambda protocol=protocol: protocol.lost)
                await turns(3)
            with Resources() as resources:
                args = method.good(resources)
                for _ in range(2):
                    await one_call(trace, moment, getattr(transport, method.name), args, {})
            # Some calls take the protocol away before it is told.
            if method.name != "set_protocol":
                await until(lambda protocol=protocol: protocol.lost)
            await turns(6)


@pytest.mark.parametrize(("kind", "method"), AFTER_CLOSE, ids=[f"{k} {m}" for k, m in AFTER_CLOSE])
def test_a_transport_method_after_close(kind: str, method: Method) -> None:
    found = compare(method, _call_after_close, kind)
    if found:
        pytest.fail("\n".join(found), pytrace=False)


SERVER = [
    Method("close"),
    Method("wait_closed"),
    Method("start_serving"),
    Method("serve_forever"),
    Method("is_serving"),
    Method("get_loop"),
    Method("close_clients", since=(3, 13)),
    Method("abort_clients", since=(3, 13)),
]


async def _call_on_a_server(loop: Any, trace: Trace, method: Method) -> None:
    for close_first in (False, True):
        for label, arguments in [*method.attempts(), ("right", lambda r: ((), {}))]:
            server = await loop.create_server(asyncio.Protocol, HOST, 0)
            if close_first:
                server.close()
            with Resources() as resources:
                args, kwargs = arguments(resources)
                await one_call(trace, label, getattr(server, method.name), args, kwargs)
            trace("then", server.is_serving(), len(server.sockets))
            server.close()


@pytest.mark.parametrize("method", [m for m in SERVER if m.since <= sys.version_info[:2]], ids=str)
def test_wrong_arguments_of_a_server_method(method: Method) -> None:
    found = compare(method, _call_on_a_server)
    if found:
        pytest.fail("\n".join(found), pytrace=False)


HANDLE = [
    Method("cancel"),
    Method("cancelled"),
    Method("get_context", since=(3, 12)),
    Method("when"),
]


async def _call_on_handles(loop: Any, trace: Trace, method: Method) -> None:
    schedules = {
        "call_soon": lambda: loop.call_soon(int),
        "call_soon_threadsafe": lambda: loop.call_soon_threadsafe(int),
        "call_later": lambda: loop.call_later(1000, int),
        "call_at": lambda: loop.call_at(1e9, int),
    }
    for name, schedule in schedules.items():
        for label, arguments in method.attempts():
            handle = schedule()
            if not hasattr(handle, method.name):
                trace(f"{name} has none")
                break
            args, kwargs = arguments(Resources())
            await one_call(trace, f"{name}: {label}", getattr(handle, method.name), args, kwargs)
            trace("cancelled", handle.cancelled())
            handle.cancel()


@pytest.mark.parametrize("method", [m for m in HANDLE if m.since <= sys.version_info[:2]], ids=str)
def test_wrong_arguments_of_a_handle_method(method: Method) -> None:
    found = compare(method, _call_on_handles)
    if found:
        pytest.fail("\n".join(found), pytrace=False)
