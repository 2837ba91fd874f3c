"""Servers: sockets, closing, waiting, clients, accepting, and factories that fail."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any

from tests.support.net import LOOPBACK

from ..harness import Trace
from ..registry import probe
from ..wires import Told, scratch, turns, until

Loop = Any


def _connect(server: Any, timeout: float = 2.0) -> socket.socket:
    sock = socket.socket(server.sockets[0].family)
    sock.settimeout(timeout)
    sock.connect(server.sockets[0].getsockname())
    return sock


class Kept(Told):
    """A protocol that its test can find."""

    made: list[Any]


def _factory(trace: Trace, made: list[Told], tell: bool = True) -> Any:
    def factory() -> Told:
        made.append(Told(trace, tell=tell))
        return made[-1]

    return factory


@probe("B.Server")
async def a_server_lives_and_closes(loop: Loop, trace: Trace) -> None:
    made: list[Told] = []
    server = await loop.create_server(_factory(trace, made), LOOPBACK, 0)
    trace("is a server", isinstance(server, asyncio.AbstractServer))
    trace("state", server.is_serving(), server.get_loop() is loop)
    sockets = server.sockets
    trace("sockets", type(sockets), len(sockets), [type(sock).__name__ for sock in sockets])
    trace("name", sockets[0].getsockname(), sockets[0].family)
    with _connect(server) as peer:
        await until(lambda: made)
        server.close()
        trace("closed", server.is_serving(), server.sockets)
        trace.attempt("close again", server.close)
        peer.send(b"still here")
        await until(lambda: made[0].received)
    await until(lambda: made[0].lost)
    await trace.attempt_await("wait_closed", server.wait_closed)
    trace.attempt("loop", lambda: server.get_loop() is loop)


@probe("B.Server")
async def the_server_shows_itself(loop: Loop, trace: Trace) -> None:
    server = await loop.create_server(asyncio.Protocol, LOOPBACK, 0)
    trace("open", repr(server))
    server.close()
    trace("closed", repr(server))
    await server.wait_closed()
    trace("public", [name for name in dir(server) if not name.startswith("_")])


@probe("B.wait_closed")
async def wait_closed_before_close(loop: Loop, trace: Trace) -> None:
    server = await loop.create_server(asyncio.Protocol, LOOPBACK, 0)
    waiter = loop.create_task(server.wait_closed())
    await turns(5)
    trace("done", waiter.done())
    server.close()
    await turns(5)
    trace("done", waiter.done())


@probe("B.wait_closed")
async def wait_closed_with_a_client(loop: Loop, trace: Trace) -> None:
    made: list[Told] = []
    server = await loop.create_server(_factory(trace, made), LOOPBACK, 0)
    with _connect(server):
        await until(lambda: made)
        server.close()
        waiter = loop.create_task(server.wait_closed())
        await asyncio.sleep(0.02)
        trace("done with a client", waiter.done())
    await until(lambda: made[0].lost)
    await turns(5)
    trace("done without", waiter.done())
    await trace.attempt_await("again", server.wait_closed)


@probe("B.close_clients", since=(3, 13), each=["close_clients", "abort_clients"])
async def clients_can_be_closed(loop: Loop, trace: Trace, name: str) -> None:
    made: list[Told] = []
    server = await loop.create_server(_factory(trace, made), LOOPBACK, 0)
    peers = [_connect(server) for _ in range(3)]
    await until(lambda: len(made) == 3 and all(p.transport for p in made))
    server.close()
    getattr(server, name)()
    trace("closing", [protocol.transport.is_closing() for protocol in made])
    await asyncio.wait_for(server.wait_closed(), 2)
    await turns(3)
    trace("lost", [protocol.lost for protocol in made])
    for peer in peers:
        trace.attempt("peer", peer.recv, 10)
        peer.close()


@probe("B.start_serving")
async def serving_starts_later(loop: Loop, trace: Trace) -> None:
    server = await loop.create_server(asyncio.Protocol, LOOPBACK, 0, start_serving=False)
    trace("serving", server.is_serving(), len(server.sockets))
    trace.attempt("connect", _connect, server)
    await trace.attempt_await("start", server.start_serving)
    trace("serving", server.is_serving())
    await trace.attempt_await("start again", server.start_serving)
    _connect(server).close()
    server.close()
    await trace.attempt_await("start after close", server.start_serving)
    await trace.attempt_await("serve after close", server.serve_forever)
    await server.wait_closed()


@probe("B.serve_forever")
async def serve_forever_is_cancelled(loop: Loop, trace: Trace) -> None:
    server = await loop.create_server(asyncio.Protocol, LOOPBACK, 0)
    task = loop.create_task(server.serve_forever())
    await turns(3)
    await trace.attempt_await("second", server.serve_forever)
    task.cancel()
    result = await asyncio.gather(task, return_exceptions=True)
    trace("result", result, task.cancelled())
    trace("state", server.is_serving(), server.sockets)


@probe("B.serve_forever")
async def serve_forever_ends_with_close(loop: Loop, trace: Trace) -> None:
    server = await loop.create_server(asyncio.Protocol, LOOPBACK, 0)
    task = loop.create_task(server.serve_forever())
    await turns(3)
    server.close()
    await asyncio.wait([task], timeout=1)
    trace("done", task.done(), task.done() and task.cancelled())
    task.cancel()


@probe("B.Server")
async def a_server_is_a_context_manager(loop: Loop, trace: Trace) -> None:
    async with await loop.create_server(asyncio.Protocol, LOOPBACK, 0) as server:
        trace("inside", server.is_serving())
    trace("outside", server.is_serving())


@probe("B.accepting")
async def all_that_wait_are_accepted_in_one_turn(loop: Loop, trace: Trace) -> None:
    made: list[Told] = []
    server = await loop.create_server(_factory(trace, made, tell=False), LOOPBACK, 0, backlog=100)
    peers = [_connect(server) for _ in range(50)]
    counts = []
    while len(made) < 50:
        await turns(1)
        if made and (not counts or counts[-1] != len(made)):
            counts.append(len(made))
    trace("counts", counts)
    for peer in peers:
        peer.close()
    await until(lambda: all(protocol.lost for protocol in made))
    server.close()
    await server.wait_closed()


@probe("C.20", each=["raises", "None", "object", "number"])
async def odd_factories_of_servers(loop: Loop, trace: Trace, what: str) -> None:
    def factory() -> Any:
        if what == "raises":
            raise ValueError("probe")
        return {"None": None, "object": object(), "number": 5}[what]

    server = await loop.create_server(factory, LOOPBACK, 0)
    with _connect(server, 0.0 or 2.0) as peer:
        peer.setblocking(False)
        try:
            trace("peer", await asyncio.wait_for(loop.sock_recv(peer, 10), 0.1))
        except asyncio.TimeoutError:
            trace("peer hears nothing")
    with _connect(server):
        trace("still accepting", server.is_serving())
        await asyncio.sleep(0.01)
    server.close()


@probe("C.20", debug=True)
async def a_failing_factory_is_reported_in_debug_mode(loop: Loop, trace: Trace) -> None:
    def factory() -> Any:
        raise ValueError("probe")

    server = await loop.create_server(factory, LOOPBACK, 0)
    with _connect(server):
        await asyncio.sleep(0.02)
    server.close()


@probe("B.Server")
async def options_of_sockets(loop: Loop, trace: Trace) -> None:
    made: list[Told] = []
    server = await loop.create_server(_factory(trace, made), LOOPBACK, 0)

    def options(label: str, sock: Any) -> None:
        level = socket.SOL_SOCKET
        trace(label, *(bool(sock.getsockopt(level, option)) for option in
                       (socket.SO_KEEPALIVE, socket.SO_REUSEADDR, socket.SO_REUSEPORT)))  # fmt: skip
        trace(f"{label} nodelay", bool(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)))

    options("listener", server.sockets[0])
    client, protocol = await loop.create_connection(
        lambda: Told(trace), *server.sockets[0].getsockname()
    )
    await until(lambda: made and made[0].transport)
    options("accepted", made[0].transport.get_extra_info("socket"))
    options("client", client.get_extra_info("socket"))
    client.close()
    await until(lambda: made[0].lost and protocol.lost)
    server.close()
    await server.wait_closed()


SERVERS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "all interfaces": ((None, 0), {"start_serving": False}),
    "empty host": (("", 0), {"start_serving": False}),
    "the same twice": (([LOOPBACK, LOOPBACK], 0), {}),
    "six": (("::1", 0), {}),
    "name": (("localhost", 0), {"family": socket.AF_INET}),
    "reuse port": ((LOOPBACK, 0), {"reuse_port": True}),
    "no reuse address": ((LOOPBACK, 0), {"reuse_address": False}),
    "nothing": ((), {}),
    "host without port": ((LOOPBACK,), {}),
    "large port": ((LOOPBACK, 70000), {}),
    "negative port": ((LOOPBACK, -1), {}),
    "port as text": ((LOOPBACK, "0"), {}),
    "host is a number": ((5, 0), {}),
    "not ours": (("192.0.2.1", 0), {}),
    "no such host": (("no-such-host.invalid", 0), {"flags": socket.AI_NUMERICHOST}),
    "empty list": (([], 0), {}),
    "backlog is text": ((LOOPBACK, 0), {"backlog": "x"}),
    "backlog 0": ((LOOPBACK, 0), {"backlog": 0}),
    "ssl is text": ((LOOPBACK, 0), {"ssl": "x"}),
    "ssl is true": ((LOOPBACK, 0), {"ssl": True}),
    "handshake timeout without ssl": ((LOOPBACK, 0), {"ssl_handshake_timeout": 1}),
    "sock and host": ((LOOPBACK, 0), {"sock": "a socket"}),
    "sock is no socket": ((), {"sock": 5}),
    "unknown": ((LOOPBACK, 0), {"colour": 5}),
}


@probe("A.create_server", each=SERVERS)
async def servers_of_every_kind(loop: Loop, trace: Trace, what: str) -> None:
    args, kwargs = SERVERS[what]
    try:
        server = await loop.create_server(asyncio.Protocol, *args, **kwargs)
    except Exception as exc:
        trace("raises", exc)
        return
    trace("sockets", len(server.sockets), sorted(int(sock.family) for sock in server.sockets))
    for sock in server.sockets[:1]:
        trace("reuse", *(bool(sock.getsockopt(socket.SOL_SOCKET, option)) for option in
                         (socket.SO_REUSEADDR, socket.SO_REUSEPORT)))  # fmt: skip
    server.close()
    await server.wait_closed()


@probe("A.create_server", since=(3, 13))
async def keep_alive_is_an_option(loop: Loop, trace: Trace) -> None:
    made: list[Told] = []
    server = await loop.create_server(_factory(trace, made), LOOPBACK, 0, keep_alive=True)
    with _connect(server):
        await until(lambda: made and made[0].transport)
        sock = made[0].transport.get_extra_info("socket")
        trace(
            "listener", bool(server.sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
        )
        trace("accepted", bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)))
    await until(lambda: made[0].lost)
    server.close()


@probe("A.create_server")
async def an_address_in_use(loop: Loop, trace: Trace) -> None:
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        await trace.attempt_await(
            "server", loop.create_server, asyncio.Protocol, *taken.getsockname()
        )


@probe("A.create_server")
async def a_socket_handed_in(loop: Loop, trace: Trace) -> None:
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        server = await loop.create_server(asyncio.Protocol, sock=listener)
        trace("blocking", listener.getblocking(), listener.fileno() >= 0)
        _connect(server).close()
        server.close()
        await server.wait_closed()
        trace("closed", listener.fileno())
    with socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        await trace.attempt_await("datagrams", loop.create_server, asyncio.Protocol, sock=datagrams)


@probe("A.create_unix_server")
async def unix_servers_and_their_paths(loop: Loop, trace: Trace) -> None:
    async with scratch() as folder:
        made: list[Told] = []
        path = folder / "s"
        for given in (str(path), path, os.fsencode(path)):
            server = await loop.create_unix_server(_factory(trace, made), given)
            trace("socket", type(server.sockets[0].getsockname()), server.sockets[0].family)
            with _connect(server) as peer:
                await until(lambda: made and made[-1].transport)
                for key in ("sockname", "peername"):
                    trace(key, made[-1].transport.get_extra_info(key))
                peer.send(b"x")
            await until(lambda: made[-1].lost)
            server.close()
            await server.wait_closed()
            trace("file", path.exists())
        path.touch()
        await trace.attempt_await("regular file", loop.create_unix_server, asyncio.Protocol, path)
        await trace.attempt_await(
            "no folder", loop.create_unix_server, asyncio.Protocol, folder / "a" / "b"
        )
        await trace.attempt_await(
            "too long", loop.create_unix_server, asyncio.Protocol, "/tmp/" + "x" * 200
        )
        await trace.attempt_await("nothing", loop.create_unix_server, asyncio.Protocol)
        await trace.attempt_await(
            "empty", loop.create_unix_server, asyncio.Protocol, "", start_serving=False
        )
        await trace.attempt_await("number", loop.create_unix_server, asyncio.Protocol, 5)


@probe("A.create_unix_server", since=(3, 13))
async def cleaning_up_unix_paths(loop: Loop, trace: Trace) -> None:
    async with scratch() as folder:
        path = folder / "s"
        server = await loop.create_unix_server(asyncio.Protocol, path, cleanup_socket=False)
        server.close()
        trace("kept", path.exists())
        # A socket nobody listens on gives way to a new one.
        server = await loop.create_unix_server(asyncio.Protocol, path)
        path.unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path))
            server.close()
            trace("replacement kept", path.exists())
        path.unlink()
        server = await loop.create_unix_server(asyncio.Protocol, path)
        path.unlink()
        server.close()
        trace("gone already", path.exists())


@probe("A.create_unix_server")
async def abstract_names(loop: Loop, trace: Trace) -> None:
    made: list[Told] = []
    server = await loop.create_unix_server(_factory(trace, made), "\0parity-server")
    trace("name", server.sockets[0].getsockname())
    transport, protocol = await loop.create_unix_connection(
        lambda: Told(trace, tell=False), "\0parity-server"
    )
    await until(lambda: made and made[0].transport)
    trace("peername", transport.get_extra_info("peername"), transport.get_extra_info("sockname"))
    transport.close()
    await until(lambda: made[0].lost and protocol.lost)
    server.close()
    await server.wait_closed()
