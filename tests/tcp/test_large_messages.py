"""Many large messages at once: a turn receives a part of them, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.net import LOOPBACK, eventually, settled

OWN = "how much a turn receives is tokioloop's own"
SIZE = 100_000


class Keeper(asyncio.Protocol):
    """Keeps what it gets, and notes in a common list when."""

    def __init__(self, name, events):
        self.name = name
        self.events = events
        self.kept = []

    def data_received(self, data):
        self.kept.append(data)
        self.events.append(("received", self.name))
        asyncio.get_running_loop().call_soon(self.events.append, ("ran", self.name))

    @property
    def size(self):
        return sum(map(len, self.kept))


@contextlib.asynccontextmanager
async def keepers(count, size):
    """So many connections that can all be read, with `size` bytes each, and what they note."""
    loop = asyncio.get_running_loop()
    events = []
    made = []
    with contextlib.ExitStack() as stack:
        for number in range(count):
            ours, peer = socket.socketpair()
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * size)
            stack.enter_context(peer)
            peer.setblocking(False)
            ours.setblocking(False)
            # The first message teaches the transport that large ones come.
            peer.send(bytes(size))
            made.append(
                (await loop.create_connection(lambda n=number: Keeper(n, events), sock=ours), peer)
            )
        await eventually(lambda: all(keeper.size == size for (_, keeper), _ in made))
        await settled()
        events.clear()
        for _, peer in made:
            assert peer.send(bytes(size)) == size
        yield [keeper for (_, keeper), _ in made], events
        for (transport, _), _ in made:
            transport.abort()
        await settled()


def test_every_byte_arrives_once_and_in_order(loop):
    async def serve(reader, writer):
        digest = hashlib.sha256()
        while data := await reader.read(1_000_000):
            digest.update(data)
        writer.write(digest.digest())
        writer.close()
        await writer.wait_closed()

    def talk(address, number):
        data = bytes([number]) * 7 + bytes(range(256)) * (SIZE * 5 // 256)
        with socket.create_connection(address, timeout=30) as peer:
            peer.sendall(data)
            peer.shutdown(socket.SHUT_WR)
            return hashlib.sha256(data).digest() == peer.recv(100)

    async def main():
        server = await asyncio.start_server(serve, LOOPBACK, 0)
        address = server.sockets[0].getsockname()
        with ThreadPoolExecutor(8) as pool:
            talks = [loop.run_in_executor(pool, talk, address, number) for number in range(32)]
            assert all(await asyncio.gather(*talks))
        server.close()

    loop.run_until_complete(main())


@pytest.mark.flavours("tokioloop", reason=OWN)
@pytest.mark.parametrize("measured", [False, True], ids=["plain", "measured"])
def test_what_was_received_is_handled_before_more_is(loop, measured):
    async def main():
        async with keepers(12, SIZE) as (kept, events):
            await eventually(lambda: all(keeper.size == 2 * SIZE for keeper in kept))
            await settled()
            return events

    if measured:
        loop.measure()
    events = loop.run_until_complete(main())
    received = [name for kind, name in events if kind == "received"]
    waiting = longest = 0
    for kind, _ in events:
        waiting += 1 if kind == "received" else -1
        longest = max(longest, waiting)
    assert waiting == 0
    # 256 KB are received in a turn, and the message that makes them complete.
    assert longest <= 4
    assert sorted(set(received)) == list(range(12))


@pytest.mark.flavours(
    "asyncio", "tokioloop", reason="rloop never polls again, uvloop takes seconds"
)
def test_two_senders_that_never_pause_keep_nobody_waiting(loop):
    """Each read of them is a full one that is kept, so there is always one more to be done."""
    latest = {}
    open_ones = set()

    class Upload(asyncio.Protocol):
        def connection_made(self, transport):
            open_ones.add(self)

        def data_received(self, data):
            latest[self] = data
            if len(data) > 1000:
                time.sleep(0.002)  # slower than the senders: the next read is full again

        def connection_lost(self, exc):
            open_ones.discard(self)

    def send(peer, ended):
        block = bytes(1 << 20)
        with contextlib.suppress(OSError):
            while not ended.is_set():
                peer.sendall(block)

    async def main():
        ended = threading.Event()
        server = await loop.create_server(Upload, LOOPBACK, 0)
        address = server.sockets[0].getsockname()
        with contextlib.ExitStack() as stack:
            pool = stack.enter_context(ThreadPoolExecutor(2))
            senders = [stack.enter_context(socket.create_connection(address)) for _ in range(2)]
            done = [loop.run_in_executor(pool, send, peer, ended) for peer in senders]
            await eventually(lambda: len(latest) == 2)
            for number in range(10):
                # Somebody else connects, is accepted and asks.
                with socket.create_connection(address) as peer:
                    peer.sendall(b"%d" % number)
                    wanted = b"%d" % number
                    await eventually(lambda wanted=wanted: wanted in latest.values())
            ended.set()
            for peer in senders:
                peer.shutdown(socket.SHUT_RDWR)
            await asyncio.gather(*done)
        server.close()
        await eventually(lambda: not open_ones)
        await settled()

    loop.run_until_complete(main())


@pytest.mark.flavours("tokioloop", reason=OWN)
def test_a_timer_does_not_wait_for_all_that_can_be_read(loop):
    async def main():
        async with keepers(32, SIZE) as (kept, events):
            loop.call_later(0, events.append, ("timer", None))
            await eventually(lambda: all(keeper.size == 2 * SIZE for keeper in kept))
            await settled()
            kinds = [kind for kind, _ in events]
            last = len(kinds) - 1 - kinds[::-1].index("received")
            assert kinds.index("timer") < last

    loop.run_until_complete(main())


def test_a_loop_stopped_and_run_again_loses_no_event(loop):
    async def begin():
        stack = contextlib.AsyncExitStack()
        kept, events = await stack.enter_async_context(keepers(12, SIZE))
        return stack, kept, events

    async def finish(stack, kept):
        await eventually(lambda: all(keeper.size == 2 * SIZE for keeper in kept))
        await stack.aclose()

    stack, kept, _events = loop.run_until_complete(begin())
    for _ in range(3):
        loop.call_soon(loop.stop)
        loop.run_forever()
    loop.run_until_complete(finish(stack, kept))
