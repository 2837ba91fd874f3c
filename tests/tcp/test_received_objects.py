"""What a protocol is given stays as it was, however long and in whatever form it is kept."""

from __future__ import annotations

import asyncio
import collections
import random
import sys

import pytest

from tests.support.net import connected

# Around the sizes at which memory is obtained, kept or received into differently.
SIZES = (1, 2, 479, 480, 481, 700, 1024, 4096, 8192, 8193, 10_240, 40_000, 65_536, 65_537, 150_000)


class Keeper(asyncio.Protocol):
    """Keeps what `keep` wants kept, and notes what it looked like when it came."""

    def __init__(self, keep):
        self.keep = keep
        self.kept = []
        self.received = 0
        self.arrived = asyncio.Event()
        self.transport = None

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.received += len(data)
        kept = self.keep(data)
        if kept is not None:
            self.kept.append((kept, bytes(bytearray(data)), hash(data)))
        self.arrived.set()


def every_other(form):
    turn = iter(range(1 << 30))
    return lambda data: form(data) if next(turn) % 2 else None


def letting_go_at_first(form):
    turn = iter(range(1 << 30))
    return lambda data: form(data) if next(turn) >= 8 else None


FORMS = {"as it is": lambda data: data, "a view": memoryview, "a slice of a view": None}
FORMS["a slice of a view"] = lambda data: memoryview(data)[:]


@pytest.mark.parametrize("pattern", [every_other, letting_go_at_first, lambda form: form])
@pytest.mark.parametrize("form", FORMS)
def test_what_was_kept_does_not_change(loop, pattern, form):
    chance = random.Random(5)

    async def main():
        keep = pattern(FORMS[form])
        async with connected("server", lambda: Keeper(keep)) as (_, protocol, peer):
            sent = 0
            for number in range(60):
                message = bytes([number + 1]) * chance.choice(SIZES)
                peer.sendall(message)
                sent += len(message)
                while protocol.received < sent:
                    protocol.arrived.clear()
                    await asyncio.wait_for(protocol.arrived.wait(), 5)
            for kept, content, hashed in protocol.kept:
                assert bytes(kept) == content
                assert hash(content) == hashed
            assert protocol.kept

    loop.run_until_complete(main())


@pytest.mark.parametrize("window", [1, 2, 150, 400])
def test_what_is_let_go_of_later_is_whole_until_then(loop, window):
    """The memory of what the program has let go of may serve other messages, no other memory."""
    chance = random.Random(7)

    async def main():
        def check(message):
            data, content, hashed = message
            assert bytes(memoryview(data)) == content
            assert hash(content) == hashed

        async with connected("server", lambda: Keeper(lambda data: data)) as (_, protocol, peer):
            kept = protocol.kept
            for number in range(500):
                message = number.to_bytes(2, "big") * chance.randint(490, 620)
                before = protocol.received
                peer.sendall(message)
                while protocol.received - before < len(message):
                    protocol.arrived.clear()
                    await asyncio.wait_for(protocol.arrived.wait(), 5)
                while len(kept) > window:
                    check(kept.pop(chance.randrange(len(kept)) if number % 2 else 0))
            for message in kept:
                check(message)

    loop.run_until_complete(main())


@pytest.mark.flavours("asyncio", "tokioloop", "uvloop", reason="rloop may hang at the end")
@pytest.mark.parametrize("remembered", [0, 3, 200])
def test_what_a_stream_has_read_stays_as_it_was(loop, remembered):
    chance = random.Random(9)

    async def main():
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
        kept = collections.deque(maxlen=remembered)
        for number in range(400):
            message = number.to_bytes(2, "big") * chance.randint(480, 640)
            writer.write(message)
            data = await asyncio.wait_for(reader.read(65_536), 5)
            while len(data) < len(message):
                data += await asyncio.wait_for(reader.read(65_536), 5)
            assert data == message
            kept.append((data, message))
            assert all(mine == sent for mine, sent in kept)
        writer.close()
        await asyncio.wait_for(ended.wait(), 5)
        server.close()

    async def echo(reader, writer):
        while data := await reader.read(65_536):
            writer.write(data)
        writer.close()
        await writer.wait_closed()
        ended.set()

    ended = asyncio.Event()
    loop.run_until_complete(main())


def test_a_message_is_as_long_as_it_says_and_hashes_as_its_equal(loop):
    messages = [bytes([65 + number]) * size for number, size in enumerate((2000, 1500, 1100, 1999))]

    async def main():
        seen = {}

        def look(data):
            assert data == messages[len(seen)]
            assert len(data) == len(messages[len(seen)])
            assert sys.getsizeof(data) == sys.getsizeof(messages[len(seen)])
            # A hash that an earlier message left behind would not find it.
            assert {messages[len(seen)]: True}.get(data)
            assert (data + b"|").endswith(b"|")
            seen[len(seen)] = None

        async with connected("server", lambda: Keeper(look)) as (_, protocol, peer):
            for message in messages:
                protocol.arrived.clear()
                before = protocol.received
                peer.sendall(message)
                while protocol.received - before < len(message):
                    await asyncio.wait_for(protocol.arrived.wait(), 5)
            assert len(seen) == len(messages)

    loop.run_until_complete(main())


def test_a_message_is_written_on_by_several_transports(loop):
    """A message that waits in another transport's queue is not received into again."""

    async def main():
        async with (
            connected("server", lambda: Keeper(lambda _: None)) as (_, source, peer),
            connected("client") as (sink, _, far_end),
        ):
            source.keep = sink.write
            sent = bytearray()
            count = 0
            while len(sent) < 1 << 23:
                message = bytes([count % 251]) * 30_000
                count += 1
                peer.sendall(message)
                sent += message
                while source.received < len(sent):
                    source.arrived.clear()
                    await asyncio.wait_for(source.arrived.wait(), 5)
            assert sink.get_write_buffer_size() > 0
            received = bytearray()
            far_end.setblocking(False)
            while len(received) < len(sent):
                try:
                    received += far_end.recv(1 << 20)
                except BlockingIOError:
                    await asyncio.sleep(0)
            assert received == sent

    loop.run_until_complete(main())
