"""Sockets and connections for tests: the peer is a plain socket, so no loop hides behind it."""

from __future__ import annotations

import asyncio
import select
import socket
import struct
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from tests.support.protocols import Recorder

LOOPBACK = "127.0.0.1"
PEER_TIMEOUT = 5.0
SIDES = ("client", "server")


@contextmanager
def listening_socket(backlog: int = 128) -> Iterator[socket.socket]:
    """A plain listening socket on an ephemeral port; `accept` fails after a while."""
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        listener.listen(backlog)
        listener.settimeout(PEER_TIMEOUT)
        yield listener


@contextmanager
def socket_pair(blocking: bool = False) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of one TCP connection, non-blocking unless asked for."""
    with listening_socket() as listener:
        ours = socket.create_connection(listener.getsockname(), timeout=PEER_TIMEOUT)
        theirs, _ = listener.accept()
    with ours, theirs:
        for end in (ours, theirs):
            end.setblocking(blocking)
        yield ours, theirs


@asynccontextmanager
async def connected(
    side: str, factory: Callable[[], Any] = Recorder, **server_options: Any
) -> AsyncIterator[tuple[Any, Any, socket.socket]]:
    """`(transport, protocol, peer)`: a transport of the running loop and a blocking socket.

    The transport comes from `create_connection` or from a server's accept, as `side` says. It is
    aborted in the end, unless the test has closed it.
    """
    loop = asyncio.get_running_loop()
    server = None
    if side == "client":
        with listening_socket() as listener:
            transport, protocol = await loop.create_connection(factory, *listener.getsockname())
            peer, _ = listener.accept()
    else:
        made = loop.create_future()

        def accepted() -> Any:
            made.set_result(factory())
            return made.result()

        server = await loop.create_server(accepted, LOOPBACK, 0, **server_options)
        peer = socket.create_connection(server.sockets[0].getsockname(), timeout=PEER_TIMEOUT)
        protocol = await made
        # The factory comes first, connection_made in this turn or in one of the next.
        while (transport := protocol.transport) is None:
            await asyncio.sleep(0)
    peer.settimeout(PEER_TIMEOUT)
    try:
        yield transport, protocol, peer
    finally:
        if not getattr(protocol, "is_lost", False):
            transport.abort()
        if isinstance(protocol, Recorder):
            await protocol.until_lost()
        peer.close()
        if server is not None:
            server.close()
            await server.wait_closed()
        # asyncio closes the socket in the turn of connection_lost, after it.
        await asyncio.sleep(0)


@asynccontextmanager
async def serving(factory: Callable[[], Any], **options: Any) -> AsyncIterator[tuple[Any, Any]]:
    """`(server, address)` of a server on loopback, closed in the end."""
    server = await asyncio.get_running_loop().create_server(factory, LOOPBACK, 0, **options)
    try:
        yield server, server.sockets[0].getsockname()
    finally:
        server.close()
        await server.wait_closed()
        if sys.version_info < (3, 12):
            await settled()  # wait_closed() does not wait for the connections there


def waiting(sock: socket.socket) -> bytes:
    """What has arrived at a socket; it stays there."""
    readable, _, _ = select.select([sock], [], [], 0)
    return sock.recv(1 << 16, socket.MSG_PEEK) if readable else b""


def fill_send_queue(transport: Any, chunk: bytes = bytes(1 << 16)) -> int:
    """Writes until the kernel takes no more and the transport has to queue; the bytes written."""
    written = 0
    while not transport.get_write_buffer_size():
        transport.write(chunk)
        written += len(chunk)
    return written


def reset(sock: socket.socket) -> None:
    """Closes so that the other end gets a reset (RST), not an end of file."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def ask(sock: socket.socket, question: bytes) -> bytes:
    """Sends to an echo server and blocks until everything has come back."""
    sock.sendall(question)
    return receive_exactly(sock, len(question))


def receive_exactly(sock: socket.socket, count: int) -> bytes:
    """Blocks until `count` bytes have come; fewer at end of file."""
    received = bytearray()
    while len(received) < count and (data := sock.recv(min(1 << 20, count - len(received)))):
        received += data
    return bytes(received)


def receive_to_eof(sock: socket.socket) -> bytes:
    received = bytearray()
    while data := sock.recv(1 << 20):
        received += data
    return bytes(received)


async def in_thread(function: Callable[..., Any], *args: Any) -> Any:
    """Runs a blocking peer in a thread that has ended when the result is here."""
    with ThreadPoolExecutor(1) as pool:
        return await asyncio.get_running_loop().run_in_executor(pool, function, *args)


async def eventually(condition: Callable[[], object]) -> None:
    """Returns once `condition()` holds: for what nobody announces. The watchdog bounds it."""
    while not condition():
        await asyncio.sleep(0.0005)


async def settled() -> None:
    """Lets what is under way in this process happen: two events that follow it through the poll.

    For proving that nothing happens: a byte sent through a fresh pair of sockets arrives by the
    same poll that would have told of whatever came before it.
    """
    loop = asyncio.get_running_loop()
    with socket_pair() as (ours, theirs):
        for _ in range(10):
            await loop.sock_sendall(ours, b"x")
            await loop.sock_recv(theirs, 1)
            await asyncio.sleep(0)
