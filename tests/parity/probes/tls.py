"""TLS: handshakes and their failures, extra info, closing from both ends, start_tls, limits."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.support.net import LOOPBACK, reset

from ..harness import Trace
from ..registry import probe
from ..wires import Told, client_tls, scratch, server_tls, turns, until

Loop = Any


@asynccontextmanager
async def secured(
    loop: Loop, trace: Trace, server_context: Any = None, client_context: Any = None, **options: Any
) -> AsyncIterator[tuple[Any, Told, Told]]:
    """`(client transport, its protocol, the server's protocol)`; only the client is told of."""
    made: list[Told] = []

    def factory() -> Told:
        made.append(Told(trace, tell=False))
        return made[-1]

    server = await loop.create_server(factory, LOOPBACK, 0, ssl=server_context or server_tls())
    transport, protocol = await loop.create_connection(
        lambda: Told(trace, **options),
        *server.sockets[0].getsockname(),
        ssl=client_context or client_tls(),
    )
    await until(lambda: made and made[0].transport)
    try:
        yield transport, protocol, made[0]
    finally:
        for end in (transport, made[0].transport):
            end.abort()
        server.close()
        await asyncio.sleep(0.005)


@probe("B.TLS")
async def bytes_go_both_ways(loop: Loop, trace: Trace) -> None:
    async with secured(loop, trace) as (transport, protocol, peer):
        transport.write(b"hello")
        transport.writelines([b" ", bytearray(b"wor"), memoryview(b"ld")])
        await until(lambda: len(peer.received) == 11)
        trace("server", peer.received)
        peer.transport.write(bytes(range(256)) * 4000)
        await until(lambda: len(protocol.received) == 1_024_000)
        trace("client", protocol.received)
        transport.close()
        await until(lambda: protocol.lost and peer.lost)
        trace("server", peer.calls[-2:])


@probe("B.get_extra_info")
async def extra_info_of_tls(loop: Loop, trace: Trace) -> None:
    async with secured(loop, trace, None, client_tls(verify=False)) as (transport, protocol, peer):
        for label, end in (("client", transport), ("server", peer.transport)):
            for name in ("socket", "sslcontext", "ssl_object"):
                trace(f"{label} {name}", type(end.get_extra_info(name)).__name__)
            for name in ("sockname", "peername", "peercert", "cipher", "compression", "nonsense"):
                trace(f"{label} {name}", end.get_extra_info(name))
            trace("is a", isinstance(end, asyncio.Transport))
        transport.close()
        await until(lambda: protocol.lost)
        trace("after", transport.get_extra_info("peername"), transport.is_closing())


@probe("B.get_extra_info")
async def a_verified_certificate_is_shown(loop: Loop, trace: Trace) -> None:
    server = await loop.create_server(asyncio.Protocol, LOOPBACK, 0, ssl=server_tls())
    host, port = server.sockets[0].getsockname()
    transport, protocol = await loop.create_connection(
        lambda: Told(trace), host, port, ssl=client_tls(verify=True), server_hostname="localhost"
    )
    trace("subject", transport.get_extra_info("peercert")["subject"])
    transport.close()
    await until(lambda: protocol.lost)
    server.close()


@probe("A.create_connection", each=["name", "authority", "plain"])
async def handshakes_that_fail(loop: Loop, trace: Trace, what: str) -> None:
    server = await loop.create_server(asyncio.Protocol, LOOPBACK, 0, ssl=server_tls())
    host, port = server.sockets[0].getsockname()
    if what == "plain":
        with socket.create_connection((host, port)) as sock:
            sock.settimeout(1)
            sock.send(b"GET / HTTP/1.0\r\n\r\n")
            await asyncio.sleep(0.02)
    else:
        context = client_tls(verify=True) if what == "name" else ssl.create_default_context()
        try:
            await loop.create_connection(
                lambda: Told(trace), host, port, ssl=context, server_hostname="wrong.example"
            )
        except ssl.SSLError as exc:
            trace("raises", type(exc).__name__, exc.reason, exc.verify_message)
    await asyncio.sleep(0.02)
    server.close()


@probe("A.create_connection", each=["client", "server"])
async def a_handshake_has_a_limit(loop: Loop, trace: Trace, side: str) -> None:
    if side == "client":
        with socket.create_server((LOOPBACK, 0)) as silent:
            await trace.attempt_await(
                "connect", loop.create_connection, lambda: Told(trace), *silent.getsockname(),
                ssl=client_tls(), ssl_handshake_timeout=0.05,
            )  # fmt: skip
    else:
        server = await loop.create_server(
            lambda: Told(trace), LOOPBACK, 0, ssl=server_tls(), ssl_handshake_timeout=0.05
        )
        with socket.create_connection(server.sockets[0].getsockname()) as peer:
            peer.setblocking(False)
            trace("peer", await loop.sock_recv(peer, 10))
        server.close()


@probe("A.create_connection", each=[0, -1, "x"])
async def limits_that_make_no_sense(loop: Loop, trace: Trace, limit: Any) -> None:
    with socket.create_server((LOOPBACK, 0)) as silent:
        for name in ("ssl_handshake_timeout", "ssl_shutdown_timeout"):
            if limit == "x" and name == "ssl_shutdown_timeout":
                continue
            await trace.attempt_await(
                name, loop.create_connection, lambda: Told(trace), *silent.getsockname(),
                ssl=client_tls(), **{"ssl_handshake_timeout": 0.05, name: limit},
            )  # fmt: skip


@probe("C.51", each=["eof", "reset"])
async def the_peer_ends_without_close_notify(loop: Loop, trace: Trace, how: str) -> None:
    async with secured(loop, trace) as (transport, protocol, peer):
        sock = peer.transport.get_extra_info("socket").dup()
        if how == "eof":
            sock.shutdown(socket.SHUT_WR)
        else:
            reset(sock)
            peer.transport.abort()
        sock.close()
        await until(lambda: protocol.lost)


@probe(
    "C.52",
    each=["write", "close", "abort", "pause_reading", "resume_reading", "get_write_buffer_size"],
)
async def calls_on_tls_after_connection_lost(loop: Loop, trace: Trace, name: str) -> None:
    async with secured(loop, trace) as (transport, protocol, _peer):
        transport.close()
        await until(lambda: protocol.lost)
        await turns(3)
        trace.attempt(name, getattr(transport, name), *((b"x",) if name == "write" else ()))


@probe("B.TLS")
async def tls_refuses_half_closing_and_odd_data(loop: Loop, trace: Trace) -> None:
    async with secured(loop, trace) as (transport, protocol, peer):
        trace("can_write_eof", transport.can_write_eof())
        trace.attempt("write_eof", transport.write_eof)
        for value in ("text", 5, None, [1]):
            trace.attempt("write", transport.write, value)
        trace.attempt("empty", transport.write, b"")
        trace("limits", transport.get_write_buffer_limits(), transport.get_write_buffer_size())
        trace.attempt("set", transport.set_write_buffer_limits, 1000, 2000)
        trace.attempt("set", transport.set_write_buffer_limits, 1000)
        trace("limits", transport.get_write_buffer_limits())
        trace("protocol", transport.get_protocol() is protocol)
        second = Told(trace)
        transport.set_protocol(second)
        peer.transport.write(b"to the second")
        await until(lambda: len(second.received) == 13)
        trace("reading", transport.is_reading())
        transport.pause_reading()
        trace("paused", transport.is_reading())
        peer.transport.write(b"held")
        await asyncio.sleep(0.01)
        trace("held", second.received)
        transport.resume_reading()
        await until(lambda: len(second.received) == 17)
        trace("repr", type(repr(transport)))


@probe("B.TLS", since=(3, 11))
async def read_limits_of_tls(loop: Loop, trace: Trace) -> None:
    async with secured(loop, trace) as (transport, _, __):
        trace(
            "limits",
            transport.get_read_buffer_limits()
            if hasattr(transport, "get_read_buffer_limits")
            else None,
        )
        trace("size", transport.get_read_buffer_size())
        trace.attempt("set", transport.set_read_buffer_limits, 10, 20)
        trace.attempt("set", transport.set_read_buffer_limits, 20)


@probe("C.8")
async def close_flushes_over_tls(loop: Loop, trace: Trace) -> None:
    async with secured(loop, trace) as (transport, protocol, peer):
        transport.set_write_buffer_limits(1 << 30)
        transport.write(bytes(range(256)) * (1 << 14))
        transport.close()
        trace("closing", transport.is_closing())
        await until(lambda: protocol.lost and peer.lost)
        trace("server", peer.received, peer.calls[-2:])


@probe("C.16", each=["data_received", "eof_received", "connection_lost"])
async def errors_in_protocols_over_tls(loop: Loop, trace: Trace, which: str) -> None:
    async with secured(loop, trace, **{which: ValueError("probe")}) as (transport, protocol, peer):
        peer.transport.write(b"x")
        await until(lambda: protocol.received)
        await turns(3)
        peer.transport.close()
        try:
            await until(lambda: protocol.lost, 1)
        except TimeoutError:
            trace("stays open", transport.is_closing())


@probe("A.start_tls", each=["client", "server"])
async def a_connection_becomes_tls(loop: Loop, trace: Trace, side: str) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    one, plain = await loop.create_connection(lambda: Told(trace, tell=False), sock=ours)
    two, other = await loop.create_connection(lambda: Told(trace, tell=False), sock=theirs)
    first, second = await asyncio.gather(
        loop.start_tls(one, plain, client_tls(), server_hostname="x"),
        loop.start_tls(two, other, server_tls(), server_side=True),
    )
    trace("new", first is not one, type(first.get_extra_info("ssl_object")).__name__)
    writer, reader = (first, other) if side == "client" else (second, plain)
    writer.write(b"secret")
    await until(lambda: reader.received)
    trace("received", reader.received, plain.calls)
    if side == "client":
        first.close()
    else:
        second.close()
    await until(lambda: plain.lost and other.lost)


@probe("A.start_tls")
async def what_start_tls_refuses(loop: Loop, trace: Trace) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        ours.setblocking(False)
        transport, protocol = await loop.create_connection(lambda: Told(trace), sock=ours)
        await trace.attempt_await("no context", loop.start_tls, transport, protocol, None)
        await trace.attempt_await("context is true", loop.start_tls, transport, protocol, True)
        await trace.attempt_await("context is text", loop.start_tls, transport, protocol, "x")
        await trace.attempt_await("number as transport", loop.start_tls, 5, protocol, client_tls())
        endpoint, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, local_addr=(LOOPBACK, 0)
        )
        await trace.attempt_await("datagrams", loop.start_tls, endpoint, protocol, client_tls())
        endpoint.close()
        trace("usable", transport.is_closing())
        transport.close()
        await until(lambda: protocol.lost)


@probe("A.create_unix_server")
async def tls_over_a_unix_socket(loop: Loop, trace: Trace) -> None:
    async with scratch() as folder:
        made: list[Told] = []

        def factory() -> Told:
            made.append(Told(trace, tell=False))
            return made[-1]

        server = await loop.create_unix_server(factory, folder / "s", ssl=server_tls())
        transport, protocol = await loop.create_unix_connection(
            lambda: Told(trace), folder / "s", ssl=client_tls(), server_hostname="localhost"
        )
        transport.write(b"hello")
        await until(lambda: made and made[0].received)
        made[0].transport.close()
        await until(lambda: protocol.lost)
        server.close()
        await server.wait_closed()


@probe("B.TLS")
async def alpn_and_server_names(loop: Loop, trace: Trace) -> None:
    names: list[Any] = []
    context = server_tls()
    context.set_alpn_protocols(["h2", "http/1.1"])
    context.sni_callback = lambda sock, name, ctx: names.append(name)
    server = await loop.create_server(asyncio.Protocol, LOOPBACK, 0, ssl=context)
    client = client_tls()
    client.set_alpn_protocols(["http/1.1"])
    transport, protocol = await loop.create_connection(
        lambda: Told(trace),
        *server.sockets[0].getsockname(),
        ssl=client,
        server_hostname="some.example",
    )
    trace("alpn", transport.get_extra_info("ssl_object").selected_alpn_protocol(), names)
    transport.close()
    await until(lambda: protocol.lost)
    server.close()


@probe("B.TLS")
async def cancelling_a_handshake(loop: Loop, trace: Trace) -> None:
    with socket.create_server((LOOPBACK, 0)) as silent:
        task = loop.create_task(
            loop.create_connection(lambda: Told(trace), *silent.getsockname(), ssl=client_tls())
        )
        silent.settimeout(2)
        await asyncio.sleep(0.02)
        peer, _ = silent.accept()
        task.cancel()
        trace("result", await asyncio.gather(task, return_exceptions=True))
        await turns(5)
        peer.setblocking(False)
        with peer:
            trace("peer got a hello", len(await loop.sock_recv(peer, 5)))


@probe("C.15")
async def an_error_in_connection_made_over_tls(loop: Loop, trace: Trace) -> None:
    server = await loop.create_server(asyncio.Protocol, LOOPBACK, 0, ssl=server_tls())
    await trace.attempt_await(
        "connect",
        loop.create_connection,
        lambda: Told(trace, connection_made=ValueError("probe")),
        *server.sockets[0].getsockname(),
        ssl=client_tls(),
    )
    await asyncio.sleep(0.01)
    server.close()
