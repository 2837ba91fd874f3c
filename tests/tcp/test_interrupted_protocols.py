"""KeyboardInterrupt and SystemExit out of a protocol: the next run takes up what was under way."""

from __future__ import annotations

import asyncio
import socket

import pytest

from tests.support.net import fill_send_queue, receive_exactly, settled, socket_pair
from tests.support.protocols import BufferedRecorder, Recorder

pytestmark = [
    pytest.mark.flavours(
        "asyncio", "tokioloop", reason="uvloop ends the connection, rloop reports the exception"
    ),
    pytest.mark.parametrize("raised", [KeyboardInterrupt, SystemExit]),
]


def interrupted_in(kind, method, raised):
    """A protocol that raises out of the first call of a method."""

    def interrupted(self, *args):
        answer = getattr(super(made, self), method)(*args)
        self.interrupted += 1
        if self.interrupted == 1:
            raise raised("on purpose")
        return answer

    made = type("Interrupted", (kind,), {method: interrupted, "interrupted": 0})
    return made()


async def begin(protocol, sock):
    """A transport that is being read already."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_accepted_socket(lambda: protocol, sock)
    await settled()
    return transport


async def ending(protocol):
    while "connection_lost" not in protocol.calls:
        await asyncio.sleep(0.001)


METHODS = pytest.mark.parametrize(
    ("kind", "method"),
    [
        (Recorder, "eof_received"),
        (BufferedRecorder, "eof_received"),
        (Recorder, "data_received"),
        (BufferedRecorder, "get_buffer"),
        (BufferedRecorder, "buffer_updated"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)


async def make(kind, method, raised):
    return interrupted_in(kind, method, raised)


@METHODS
def test_the_rest_of_the_data_and_the_end_are_told(loop, kind, method, raised):
    protocol = loop.run_until_complete(make(kind, method, raised))
    with socket_pair() as (ours, peer):
        loop.run_until_complete(begin(protocol, ours))
        peer.sendall(b"last words")
        peer.shutdown(socket.SHUT_WR)
        task = loop.create_task(ending(protocol))
        with pytest.raises(raised, match="on purpose"):
            loop.run_until_complete(task)
        loop.run_until_complete(task)
        loop.run_until_complete(settled())
        assert protocol.received == b"last words"
        assert protocol.calls[-2:] == ["eof_received", "connection_lost"]


def test_what_waits_to_be_sent_is_sent(loop, raised):
    """One event tells of the data and of the room that there is again."""

    async def sent():
        while transport.get_write_buffer_size():
            await asyncio.sleep(0.001)

    async def fill():
        return fill_send_queue(transport)

    protocol = interrupted_in(Recorder, "data_received", raised)
    with socket_pair() as (ours, peer):
        transport = loop.run_until_complete(begin(protocol, ours))
        count = loop.run_until_complete(fill())
        waiting = transport.get_write_buffer_size()
        peer.setblocking(True)
        peer.sendall(b"x")
        received = receive_exactly(peer, count - waiting)
        task = loop.create_task(sent())
        with pytest.raises(raised, match="on purpose"):
            loop.run_until_complete(task)
        loop.run_until_complete(task)
        received += receive_exactly(peer, waiting)
        assert len(received) == count
        transport.abort()
        loop.run_until_complete(protocol.until_lost())
        loop.run_until_complete(settled())
