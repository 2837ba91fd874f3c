"""create_connection and its kin: results, refusals, addresses, sockets handed in, extra info."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from tests.support.net import LOOPBACK, listening_socket

from ..harness import Trace
from ..registry import probe
from ..wires import KINDS, Told, scratch, turns, until, wired

Loop = Any


def _closed_port() -> int:
    with socket.socket() as sock:
        sock.bind((LOOPBACK, 0))
        return sock.getsockname()[1]


CONNECTIONS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "nothing": ((), {}),
    "host only": ((LOOPBACK,), {}),
    "port as text": ((LOOPBACK, "x"), {}),
    "large port": ((LOOPBACK, 70000), {}),
    "negative port": ((LOOPBACK, -1), {}),
    "no such host": (("no-such-host.invalid", 80), {"flags": socket.AI_NUMERICHOST}),
    "nul": (("a\0b", 80), {}),
    "number as host": ((5, 80), {}),
    "empty host": (("", "no-such-service"), {}),
    "bad family": ((LOOPBACK, 80), {"family": 999}),
    "family does not fit": ((LOOPBACK, 80), {"family": socket.AF_INET6}),
    "hostname without ssl": ((LOOPBACK, 80), {"server_hostname": "x"}),
    "handshake timeout without ssl": ((LOOPBACK, 80), {"ssl_handshake_timeout": 1}),
    "ssl without hostname": ((), {"ssl": True, "sock": None}),
    "sock and host": ((LOOPBACK, 80), {"sock": "a socket"}),
    "sock is no socket": ((), {"sock": 5}),
    "unknown": ((LOOPBACK, 80), {"colour": 5}),
    "local address is text": ((LOOPBACK, 9), {"local_addr": "x"}),
    "local address is not ours": ((LOOPBACK, 9), {"local_addr": ("192.0.2.1", 0)}),
    "ssl is text": ((LOOPBACK, 9), {"ssl": "x"}),
}


@probe("A.create_connection", each=CONNECTIONS)
async def connections_that_cannot_be(loop: Loop, trace: Trace, what: str) -> None:
    args, kwargs = CONNECTIONS[what]
    await trace.attempt_await(
        "connect", loop.create_connection, lambda: Told(trace), *args, **kwargs
    )


@probe("A.create_connection")
async def a_refused_connection(loop: Loop, trace: Trace) -> None:
    port = _closed_port()
    try:
        await loop.create_connection(lambda: Told(trace), LOOPBACK, port)
    except OSError as exc:
        trace("raises", exc, exc.errno, exc.args[0], exc.strerror)
    for options in (
        {"happy_eyeballs_delay": 0.1},
        {"interleave": 1},
        {"local_addr": (LOOPBACK, 0)},
    ):
        await trace.attempt_await(
            "with options", loop.create_connection, Told, LOOPBACK, port, **options
        )
    await trace.attempt_await("open_connection", asyncio.open_connection, LOOPBACK, port)
    await trace.attempt_await("localhost", loop.create_connection, Told, "localhost", port)


@probe("A.create_connection", since=(3, 12))
async def all_errors_come_in_a_group(loop: Loop, trace: Trace) -> None:
    port = _closed_port()
    await trace.attempt_await(
        "connect", loop.create_connection, Told, LOOPBACK, port, all_errors=True
    )


@probe("A.create_connection")
async def a_connection_by_name(loop: Loop, trace: Trace) -> None:
    with listening_socket() as listener:
        port = listener.getsockname()[1]
        for options in ({}, {"happy_eyeballs_delay": 0.05}, {"family": socket.AF_INET},
                        {"local_addr": (LOOPBACK, 0)}, {"interleave": 2}):  # fmt: skip
            transport, protocol = await loop.create_connection(
                lambda: Told(trace), "localhost", port, **options
            )
            peer, _ = listener.accept()
            trace("peername", transport.get_extra_info("peername"))
            peer.close()
            await until(lambda protocol=protocol: protocol.lost)
        await turns(2)


@probe("A.create_connection", each=["create_connection", "create_unix_connection"])
async def kinds_of_sockets_handed_in(loop: Loop, trace: Trace, name: str) -> None:
    connect = getattr(loop, name)
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        await trace.attempt_await("datagrams", connect, Told, sock=sock)
        trace("left open", sock.fileno() >= 0)
    with socket.socket() as sock:
        sock.setblocking(False)
        told = Told(trace)
        await trace.attempt_await("not connected", connect, lambda: told, sock=sock)
        if told.transport is not None:
            told.transport.abort()
            await until(lambda: told.lost)
            await turns(2)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        transport = await trace.attempt_await("blocking", connect, lambda: Told(trace), sock=ours)
        trace("now non-blocking", ours.gettimeout())
        transport and transport[0].close()
        await turns(3)
        trace("closed", ours.fileno())
    with socket.socket() as sock:
        sock.close()
        await trace.attempt_await("closed", connect, lambda: Told(trace), sock=sock)


TAKERS = ("create_connection", "create_unix_connection", "connect_accepted_socket")


@probe("A.create_connection", each=[f"{name} {number}" for name in TAKERS for number in range(4)])
async def factories_that_fail(loop: Loop, trace: Trace, case: str) -> None:
    def raising() -> Any:
        raise ValueError("probe")

    name, _, number = case.partition(" ")
    factories = (
        ("raises", raising),
        ("None", lambda: None),
        ("object", object),
        ("not callable", 5),
    )
    for label, factory in factories[int(number) :][:1]:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            taken: dict[str, Any] = {"sock": ours}
            try:
                transport, _ = await getattr(loop, name)(factory, **taken)
                trace(label, "connected", transport.is_closing())
                transport.close()
            except Exception as exc:
                trace(f"{label} raises", exc)
            await turns(3)


@probe("A.connect_accepted_socket")
async def sockets_that_cannot_be_accepted(loop: Loop, trace: Trace) -> None:
    await trace.attempt_await("number", loop.connect_accepted_socket, Told, 5)
    await trace.attempt_await("nothing", loop.connect_accepted_socket, Told)
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        await trace.attempt_await("datagrams", loop.connect_accepted_socket, Told, sock)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        await trace.attempt_await(
            "timeout without ssl", loop.connect_accepted_socket, Told, ours, ssl_handshake_timeout=1
        )
        await trace.attempt_await("ssl is text", loop.connect_accepted_socket, Told, ours, ssl="x")


@probe("A.create_unix_connection")
async def unix_connections(loop: Loop, trace: Trace) -> None:
    async with scratch() as folder:
        path = folder / "s"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()
            listener.settimeout(2)
            for given in (str(path), path, str(path).encode()):
                transport, protocol = await loop.create_unix_connection(lambda: Told(trace), given)
                peer, _ = listener.accept()
                trace(
                    "names",
                    transport.get_extra_info("peername"),
                    transport.get_extra_info("sockname"),
                )
                peer.close()
                await until(lambda protocol=protocol: protocol.lost)
        await turns(2)
        (folder / "file").touch()
        for label, args, kwargs in (
            ("refused", (str(path),), {}),
            ("missing", (str(folder / "missing"),), {}),
            ("regular file", (str(folder / "file"),), {}),
            ("too long", ("/tmp/" + "x" * 200,), {}),
            ("nothing", (), {}),
            ("number", (5,), {}),
            ("nul inside", ("/tmp/a\0b",), {}),
            ("path and sock", (str(path),), {"sock": "a socket"}),
            ("hostname without ssl", (str(path),), {"server_hostname": "x"}),
            ("ssl without hostname", (str(path),), {"ssl": True}),
            ("timeout without ssl", (str(path),), {"ssl_handshake_timeout": 1}),
            ("sock is no socket", (), {"sock": 5}),
        ):
            await trace.attempt_await(label, loop.create_unix_connection, Told, *args, **kwargs)


@probe("A.create_connection", each=["create_connection", "create_unix_connection"])
async def cancelling_a_connection_with_a_socket(loop: Loop, trace: Trace, name: str) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        task = loop.create_task(getattr(loop, name)(lambda: Told(trace), sock=ours))
        await turns(1)
        task.cancel()
        trace("result", await asyncio.gather(task, return_exceptions=True))
        await turns(3)
        trace("socket", ours.fileno() >= 0)


INFO = (
    "socket",
    "sockname",
    "peername",
    "pipe",
    "subprocess",
    "sslcontext",
    "compression",
    "nonsense",
)


def info(trace: Trace, label: str, transport: Any) -> None:
    for name in INFO:
        value = transport.get_extra_info(name, "absent")
        trace(f"{label} {name}", type(value).__name__ if name == "socket" else value)
    trace(
        f"{label} default",
        transport.get_extra_info("nonsense"),
        transport.get_extra_info("nonsense", 5),
    )


@probe("B.get_extra_info", each=KINDS)
async def extra_info_of_streams(loop: Loop, trace: Trace, kind: str) -> None:
    async with wired(loop, lambda: Told(trace), kind) as (transport, protocol, _peer):
        info(trace, "open", transport)
        trace("same", transport.get_extra_info("socket") is transport.get_extra_info("socket"))
        transport.close()
        await until(lambda: protocol.lost)
        await turns(2)
        info(trace, "closed", transport)


@probe("B.get_extra_info")
async def extra_info_of_datagrams(loop: Loop, trace: Trace) -> None:
    for options in ({}, {"remote_addr": (LOOPBACK, 9)}):
        transport, protocol = await loop.create_datagram_endpoint(
            lambda: Told(trace), local_addr=(LOOPBACK, 0), **options
        )
        info(trace, "open", transport)
        trace("repr", repr(transport))
        transport.close()
        trace("repr", repr(transport))
        await until(lambda protocol=protocol: protocol.lost)
        await turns(2)
        info(trace, "closed", transport)
        trace("repr", repr(transport))


@probe("B.socket", since=(3, 11))
async def the_socket_of_a_transport(loop: Loop, trace: Trace) -> None:
    async with wired(loop, lambda: Told(trace)) as (transport, _, __):
        sock = transport.get_extra_info("socket")
        trace("type", type(sock) is asyncio.trsock.TransportSocket)
        trace("public", [name for name in dir(sock) if not name.startswith("_")])
        trace("values", sock.family, sock.type, sock.proto, sock.gettimeout(), sock.fileno() > 2)
        trace.attempt("repr", repr, sock)
        for name, args in (
            ("settimeout", (0,)), ("settimeout", (1,)), ("setblocking", (False,)),
            ("setblocking", (True,)), ("getsockname", ()), ("getpeername", ()),
            ("get_inheritable", ()), ("getsockopt", (socket.SOL_SOCKET, socket.SO_TYPE)),
        ):  # fmt: skip
            trace.attempt(name, lambda name=name, args=args: getattr(sock, name)(*args))
        for name in ("recv", "send", "close", "detach", "accept", "connect"):
            trace.attempt(name, lambda name=name: getattr(sock, name))
        copy = sock.dup()
        trace("dup", type(copy).__name__)
        copy.close()
        trace.attempt("shutdown", sock.shutdown, socket.SHUT_WR)


@probe("A.create_connection")
async def the_connection_is_made_before_the_call_returns(loop: Loop, trace: Trace) -> None:
    def told(_: Told) -> None:
        trace("current task", asyncio.current_task() is None)

    async with wired(loop, lambda: Told(trace, connection_made=told)) as (transport, _, __):
        trace("returned", transport.is_reading())
