"""`loop.sendfile` on a stream transport: order, flow control, and every way to be interrupted."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import tempfile

import pytest

from tests.support.leaks import open_descriptors
from tests.support.net import in_thread, receive_exactly, receive_to_eof, settled, socket_pair
from tests.support.protocols import Recorder

pytestmark = pytest.mark.flavours("asyncio", "tokioloop", reason="the peers have no sendfile")

SIZE = 8 << 20  # more than a socket's buffers take


@pytest.fixture
def file():
    with tempfile.TemporaryFile(buffering=0) as file:
        block = os.urandom(1 << 16)
        for number in range(SIZE // len(block)):
            file.write(number.to_bytes(4, "big") + block[4:])
        yield file


def content(file, offset=0, count=SIZE):
    return os.pread(file.fileno(), count, offset)


class Wire:
    """A transport of the running loop and its peer, a blocking socket."""

    def __init__(self, family):
        self.family = family

    async def __aenter__(self):
        loop = asyncio.get_running_loop()
        if self.family == "tcp":
            with socket_pair() as (one, other):
                ours, self.peer = (socket.socket(fileno=end.detach()) for end in (one, other))
        else:
            ours, self.peer = socket.socketpair()
        ours.setblocking(False)
        self.peer.settimeout(10)
        self.transport, self.protocol = await loop.create_connection(Recorder, sock=ours)
        return self.transport, self.protocol, self.peer

    async def __aexit__(self, *exc_info):
        self.transport.abort()
        await self.protocol.until_lost()
        self.peer.close()
        await asyncio.sleep(0)


@pytest.fixture(params=["tcp", "unix"])
def wire(request):
    return Wire(request.param)


async def begin(loop, transport, file):
    """A sendfile that has filled the kernel's buffer and waits."""
    task = loop.create_task(loop.sendfile(transport, file))
    await settled()
    assert not task.done()
    return task


def test_what_was_written_before_and_after_surrounds_the_file(loop, wire, file):
    async def main():
        async with wire as (transport, protocol, peer):
            head, tail = os.urandom(3 << 20), b"tail"
            transport.write(head)
            task = loop.create_task(loop.sendfile(transport, file))
            reader = loop.create_task(in_thread(receive_to_eof, peer))
            assert await task == SIZE
            transport.write(tail)
            transport.write_eof()
            assert await reader == head + content(file) + tail
            assert file.tell() == SIZE

    loop.run_until_complete(main())


@pytest.mark.parametrize(("offset", "count"), [(0, 1), (70_000, 3_000_000), (SIZE - 10, 500)])
def test_a_part_of_the_file(loop, wire, file, offset, count):
    async def main():
        async with wire as (transport, protocol, peer):
            expected = content(file, offset, count)
            reader = loop.create_task(in_thread(receive_exactly, peer, len(expected)))
            assert await loop.sendfile(transport, file, offset, count) == len(expected)
            assert await reader == expected
            assert file.tell() == offset + len(expected)

    loop.run_until_complete(main())


def test_several_files_one_after_the_other(loop, wire, file):
    async def main():
        async with wire as (transport, protocol, peer):
            reader = loop.create_task(in_thread(receive_exactly, peer, 5 * (SIZE + 1)))
            for _ in range(5):
                transport.write(b"|")
                assert await loop.sendfile(transport, file) == SIZE
            assert await reader == (b"|" + content(file)) * 5

    loop.run_until_complete(main())


def test_nothing_is_written_nor_read_meanwhile(loop, wire, file):
    async def main():
        async with wire as (transport, protocol, peer):
            task = await begin(loop, transport, file)
            assert not transport.is_reading()
            peer.send(b"question")
            with pytest.raises(RuntimeError, match="sendfile is in progress"):
                transport.write(b"x")
            name = "writelines" if sys.version_info >= (3, 12) else "write"
            with pytest.raises(RuntimeError, match=f"unable to {name}; sendfile is in progress"):
                transport.writelines([b"x"])
            await settled()
            assert protocol.received == b""
            assert await in_thread(receive_exactly, peer, SIZE) == content(file)
            assert await task == SIZE
            assert transport.is_reading()
            assert await protocol.until_received(8) == b"question"

    loop.run_until_complete(main())


def test_reading_that_was_paused_stays_paused(loop, wire, file):
    async def main():
        async with wire as (transport, protocol, peer):
            transport.pause_reading()
            assert await loop.sendfile(transport, file, 0, 10) == 10
            assert not transport.is_reading()

    loop.run_until_complete(main())


def test_a_cancelled_file_leaves_a_transport_that_works(loop, wire, file):
    async def main():
        async with wire as (transport, protocol, peer):
            task = await begin(loop, transport, file)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert transport.is_reading()
            transport.write(b"tail")
            transport.write_eof()
            received = await in_thread(receive_to_eof, peer)
            assert received.endswith(b"tail")
            assert received[:-4] == content(file)[: len(received) - 4]

    loop.run_until_complete(main())


@pytest.mark.flavours(
    "tokioloop", reason="asyncio leaves the transport paused, and the file's position"
)
class TestInterrupted:
    def test_cancelled_behind_a_queue(self, loop, wire, file):
        """asyncio's transport would refuse every write from then on."""

        async def main():
            async with wire as (transport, protocol, peer):
                transport.write(bytes(SIZE))
                task = await begin(loop, transport, file)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert transport.is_reading()
                transport.write(b"tail")
                transport.write_eof()
                assert await in_thread(receive_to_eof, peer) == bytes(SIZE) + b"tail"

        loop.run_until_complete(main())

    def test_the_position_tells_how_much_was_sent(self, loop, wire, file):
        async def main():
            async with wire as (transport, protocol, peer):
                task = await begin(loop, transport, file)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert 0 < file.tell() < SIZE
                transport.write_eof()
                assert len(await in_thread(receive_to_eof, peer)) == file.tell()

        loop.run_until_complete(main())

    @pytest.mark.parametrize("how", ["close", "abort"])
    @pytest.mark.parametrize("queued", [0, SIZE])
    def test_the_end_of_the_transport_ends_it(self, loop, wire, file, how, queued):
        async def main():
            async with wire as (transport, protocol, peer):
                transport.write(bytes(queued))
                task = await begin(loop, transport, file)
                getattr(transport, how)()
                reader = loop.create_task(in_thread(receive_to_eof_or_reset, peer))
                with pytest.raises(ConnectionError):
                    await task
                await protocol.until_lost()
                assert protocol.lost_with is None
                received = await reader
                if how == "close":  # which flushes what was written, as ever
                    assert len(received) >= queued

        loop.run_until_complete(main())

    def test_a_file_that_is_closed_meanwhile_is_an_error(self, loop, wire, file):
        async def main():
            async with wire as (transport, protocol, peer):
                task = await begin(loop, transport, file)
                other = os.dup(file.fileno())
                with open(other, "rb"):
                    file.close()
                    with tempfile.TemporaryFile(buffering=0) as heir:
                        os.truncate(heir.fileno(), SIZE)  # under the number of the closed one
                        reader = loop.create_task(in_thread(receive_to_eof, peer))
                        with pytest.raises(ValueError, match="closed file"):
                            await task
                        transport.write_eof()
                        received = await reader
                        assert received == os.pread(other, len(received), 0)

        loop.run_until_complete(main())

    def test_no_descriptor_is_made(self, loop, wire, file):
        async def main():
            async with wire as (transport, protocol, peer):
                before = len(open_descriptors())
                task = loop.create_task(loop.sendfile(transport, file))
                for _ in range(10):
                    await asyncio.sleep(0)
                assert not task.done()
                assert len(open_descriptors()) == before
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

        loop.run_until_complete(main())


def test_a_peer_that_leaves_is_a_connection_error(loop, wire, file):
    async def main():
        async with wire as (transport, protocol, peer):
            task = await begin(loop, transport, file)
            peer.close()
            with pytest.raises(ConnectionError):
                await task

    loop.run_until_complete(main())


def test_others_have_a_turn_between_two_parts_of_a_file(loop, wire, file, monkeypatch):
    """However fast the peer is."""
    parts = []
    real_sendfile = os.sendfile

    def counted(*args):
        parts.append(turns)
        return real_sendfile(*args)

    async def main():
        nonlocal turns
        async with wire as (transport, protocol, peer):
            monkeypatch.setattr(os, "sendfile", counted)
            reader = loop.create_task(in_thread(receive_exactly, peer, SIZE))
            task = loop.create_task(loop.sendfile(transport, file))
            while not task.done():
                turns += 1
                await asyncio.sleep(0)
            assert await task == SIZE
            await reader
        assert len(parts) > 1
        assert len(set(parts)) == len(parts)

    turns = 0
    loop.run_until_complete(main())


def receive_to_eof_or_reset(sock):
    received = bytearray()
    try:
        while data := sock.recv(1 << 20):
            received += data
    except ConnectionError:
        pass
    return bytes(received)
