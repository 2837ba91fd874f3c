"""What tests of `sock_*` share: calls that have waited, so that a loop may keep their sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.net import settled

Loop = asyncio.AbstractEventLoop


async def waited(loop: Loop, ours: socket.socket, theirs: socket.socket) -> None:
    """Receives and sends once each, where the receive has to wait."""
    receiving = asyncio.ensure_future(loop.sock_recv(ours, 100))
    await settled()
    assert not receiving.done()
    theirs.send(b"ping")
    assert await receiving == b"ping"
    await loop.sock_sendall(ours, b"pong")
    assert await loop.sock_recv(theirs, 100) == b"pong"


async def exchanges(loop: Loop, ours: socket.socket, theirs: socket.socket) -> None:
    """Both ends talk, in both orders of sending and receiving."""
    for number in range(3):
        word = b"word %d" % number
        receiving = asyncio.ensure_future(loop.sock_recv(ours, 100))
        if number % 2:
            await settled()
        await loop.sock_sendall(theirs, word)
        assert await asyncio.wait_for(receiving, 5) == word
        await loop.sock_sendall(ours, word)
        assert await asyncio.wait_for(loop.sock_recv(theirs, 100), 5) == word


async def receive_exactly_by(loop: Loop, sock: socket.socket, count: int) -> bytes:
    """Receives until `count` bytes have come."""
    received = b""
    while len(received) < count:
        data = await asyncio.wait_for(loop.sock_recv(sock, count - len(received)), 5)
        assert data
        received += data
    return received


@contextmanager
def unix_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two non-blocking ends of a Unix connection, under the lowest numbers that are free."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        yield ours, theirs


async def cancelled(*tasks: Any) -> None:
    """Cancels tasks and lets them end."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
