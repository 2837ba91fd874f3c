"""sock_recv and its kin on plain sockets: results, wrong sockets, cancellation."""

from __future__ import annotations

import array
import asyncio
import socket
import tempfile
from typing import Any

from tests.support.net import LOOPBACK, listening_socket, socket_pair

from ..harness import Trace
from ..registry import probe
from ..wires import turns

Loop = Any

CALLS: dict[str, tuple[Any, ...]] = {
    "sock_recv": (10,),
    "sock_recv_into": (bytearray(10),),
    "sock_sendall": (b"x",),
    "sock_connect": ((LOOPBACK, 9),),
    "sock_accept": (),
}
NEWER = {
    "sock_recvfrom": (10,),
    "sock_recvfrom_into": (bytearray(10),),
    "sock_sendto": (b"x", (LOOPBACK, 9)),
}


def _calls(loop: Loop) -> dict[str, tuple[Any, ...]]:
    return CALLS | {
        name: args for name, args in NEWER.items() if hasattr(asyncio.SelectorEventLoop, name)
    }


@probe("A.sock_recv")
async def bytes_go_both_ways(loop: Loop, trace: Trace) -> None:
    with socket_pair() as (ours, theirs):
        await trace.attempt_await("sendall", loop.sock_sendall, ours, b"hello")
        await trace.attempt_await("recv", loop.sock_recv, theirs, 100)
        await trace.attempt_await("sendall nothing", loop.sock_sendall, ours, b"")
        waiter = loop.create_task(loop.sock_recv(theirs, 100))
        await turns(3)
        trace("waits", waiter.done())
        await loop.sock_sendall(ours, bytearray(b"later"))
        trace("got", await waiter)
        buffer = bytearray(3)
        await loop.sock_sendall(ours, memoryview(b"abcdef"))
        await trace.attempt_await("recv_into", loop.sock_recv_into, theirs, buffer)
        trace("buffer", buffer)
        await trace.attempt_await(
            "recv_into view", loop.sock_recv_into, theirs, memoryview(buffer)[1:]
        )
        trace("buffer", buffer)
        await trace.attempt_await("rest", loop.sock_recv, theirs, 100)
        wide = array.array("i", [0, 0])
        await loop.sock_sendall(ours, bytes(array.array("i", [7, 8])))
        await trace.attempt_await("array", loop.sock_recv_into, theirs, wide)
        trace("array", list(wide))
        big = bytes(range(256)) * 8192
        sender = loop.create_task(loop.sock_sendall(ours, big))
        got = bytearray()
        while len(got) < len(big):
            got += await asyncio.wait_for(loop.sock_recv(theirs, 1 << 16), 2)
        trace("all", got == big)
        await sender
        ours.shutdown(socket.SHUT_WR)
        await trace.attempt_await("eof", loop.sock_recv, theirs, 100)


@probe("A.sock_recv", each=CALLS | NEWER)
async def wrong_sockets(loop: Loop, trace: Trace, name: str) -> None:
    if name not in _calls(loop):
        return
    args = _calls(loop)[name]
    method = getattr(loop, name)
    closed = socket.socket()
    closed.setblocking(False)
    closed.close()
    for label, value in (("number", 5), ("None", None), ("text", "x"), ("closed", closed)):
        await trace.attempt_await(label, method, value, *args)
    await trace.attempt_await("no argument", method)
    with socket.socket() as fresh:
        fresh.setblocking(False)
        if name != "sock_connect":
            await trace.attempt_await("not connected", method, fresh, *args)
        await trace.attempt_await("too many", method, fresh, *args, 1, 2, 3)
    with tempfile.TemporaryFile() as file:
        await trace.attempt_await("regular file", method, file, *args)


@probe("A.sock_recv", each=CALLS | NEWER, debug=True)
async def debug_mode_wants_non_blocking_sockets(loop: Loop, trace: Trace, name: str) -> None:
    if name not in _calls(loop):
        return
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        await trace.attempt_await("blocking", getattr(loop, name), sock, *_calls(loop)[name])


@probe("A.sock_recv")
async def wrong_sizes_and_buffers(loop: Loop, trace: Trace) -> None:
    with socket_pair() as (ours, theirs):
        theirs.send(b"data")
        await turns(2)
        for value in (-1, "x", None, 1.5, 2**70):
            await trace.attempt_await("recv", loop.sock_recv, ours, value)
        await trace.attempt_await("recv 0", loop.sock_recv, ours, 0)
        for value in (b"bytes", 5, None, "x", memoryview(b"ro")):
            await trace.attempt_await("recv_into", loop.sock_recv_into, ours, value)
        for value in ("x", 5, None, [1]):
            await trace.attempt_await("sendall", loop.sock_sendall, ours, value)
        await trace.attempt_await("left", loop.sock_recv, ours, 100)


@probe("A.sock_connect")
async def connecting_plain_sockets(loop: Loop, trace: Trace) -> None:
    with listening_socket() as listener:
        address = listener.getsockname()
        with socket.socket() as sock:
            sock.setblocking(False)
            await trace.attempt_await("connect", loop.sock_connect, sock, address)
            trace("peer", sock.getpeername())
            await trace.attempt_await("again", loop.sock_connect, sock, address)
        listener.accept()[0].close()
        with socket.socket() as sock:
            sock.setblocking(False)
            await trace.attempt_await("by name", loop.sock_connect, sock, ("localhost", address[1]))
        listener.accept()[0].close()
    for label, target in (
        ("refused", address),
        ("text", "127.0.0.1"),
        ("one part", (LOOPBACK,)),
        ("large port", (LOOPBACK, 70000)),
        ("port as text", (LOOPBACK, "x")),
        ("six", ("::1", 9)),
        ("no such host", ("\0", 9)),
    ):
        with socket.socket() as sock:
            sock.setblocking(False)
            await trace.attempt_await(label, loop.sock_connect, sock, target)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.setblocking(False)
        await trace.attempt_await(
            "missing path", loop.sock_connect, sock, "/tmp/no-such-path-parity"
        )


@probe("A.sock_accept")
async def accepting_plain_sockets(loop: Loop, trace: Trace) -> None:
    with listening_socket() as listener:
        listener.setblocking(False)
        waiter = loop.create_task(loop.sock_accept(listener))
        await turns(3)
        trace("waits", waiter.done())
        with socket.create_connection(listener.getsockname()) as peer:
            conn, address = await waiter
            trace("accepted", address == peer.getsockname(), conn.gettimeout(), type(conn).__name__)
            conn.close()


@probe("A.sock_recv", each=["sock_recv", "sock_recv_into", "sock_accept", "sock_sendall"])
async def a_cancelled_call_leaves_the_socket_usable(loop: Loop, trace: Trace, name: str) -> None:
    with listening_socket() as listener, socket_pair() as (ours, theirs):
        listener.setblocking(False)
        if name == "sock_accept":
            task = loop.create_task(loop.sock_accept(listener))
        elif name == "sock_sendall":
            task = loop.create_task(loop.sock_sendall(ours, bytes(16 << 20)))
        else:
            task = loop.create_task(getattr(loop, name)(ours, *CALLS[name]))
        await turns(3)
        trace("waits", task.done())
        task.cancel()
        trace("result", await asyncio.gather(task, return_exceptions=True))
        if name == "sock_accept":
            with socket.create_connection(listener.getsockname()):
                conn, _ = await loop.sock_accept(listener)
                conn.close()
        theirs.send(b"data")
        trace("recv", await loop.sock_recv(ours, 10))
        trace("watched", loop.remove_reader(ours), loop.remove_writer(ours))


@probe("A.sock_recv", each=["sock_recv", "sock_accept"])
async def cancelling_in_the_turn_that_data_arrives(loop: Loop, trace: Trace, name: str) -> None:
    with listening_socket() as listener, socket_pair() as (ours, theirs):
        listener.setblocking(False)
        task = loop.create_task(
            loop.sock_recv(ours, 10) if name == "sock_recv" else loop.sock_accept(listener)
        )
        await turns(3)
        theirs.send(b"data")
        with socket.create_connection(listener.getsockname()):
            task.cancel()
            result = (await asyncio.gather(task, return_exceptions=True))[0]
            trace("cancelled", isinstance(result, asyncio.CancelledError))
            if name == "sock_recv":
                trace("next", await loop.sock_recv(ours, 10))
            else:
                conn, _ = await asyncio.wait_for(loop.sock_accept(listener), 2)
                conn.close()


@probe("A.sock_recvfrom", since=(3, 11))
async def datagrams_on_plain_sockets(loop: Loop, trace: Trace) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as one, socket.socket(type=socket.SOCK_DGRAM) as two:
        for sock in (one, two):
            sock.setblocking(False)
            sock.bind((LOOPBACK, 0))
        target = two.getsockname()
        await trace.attempt_await("sendto", loop.sock_sendto, one, b"hello", target)
        await trace.attempt_await("recvfrom", loop.sock_recvfrom, two, 100)
        buffer = bytearray(10)
        await loop.sock_sendto(one, b"world", target)
        await trace.attempt_await("recvfrom_into", loop.sock_recvfrom_into, two, buffer)
        await loop.sock_sendto(one, b"world", target)
        await trace.attempt_await("with a size", loop.sock_recvfrom_into, two, buffer, 3)
        trace("buffer", buffer)
        await trace.attempt_await("too large a size", loop.sock_recvfrom_into, two, buffer, 30)
        await trace.attempt_await("negative", loop.sock_recvfrom_into, two, buffer, -1)
        waiter = loop.create_task(loop.sock_recvfrom(two, 100))
        await turns(3)
        one.sendto(b"later", target)
        trace("later", await waiter)
        for address in (5, "x", (LOOPBACK,), (LOOPBACK, 70000), None):
            await trace.attempt_await("bad address", loop.sock_sendto, one, b"x", address)


@probe("A.sock_recv")
async def sockets_of_a_transport_are_not_for_plain_use(loop: Loop, trace: Trace) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
        sock = transport.get_extra_info("socket")
        # Not `ours`: a loop may take the descriptor out of a socket that is handed in.
        alias = socket.socket(fileno=sock.fileno())
        for name, args in CALLS.items():
            if name in ("sock_connect", "sock_accept"):
                continue
            await trace.attempt_await(name, getattr(loop, name), alias, *args)
        alias.detach()
        for name in ("add_reader", "add_writer"):
            trace.attempt(name, getattr(loop, name), sock.fileno(), int)
            trace.attempt(name, getattr(loop, name), sock, int)
        for name in ("remove_reader", "remove_writer"):
            trace.attempt(name, getattr(loop, name), sock.fileno())
        transport.abort()
        await turns(3)
