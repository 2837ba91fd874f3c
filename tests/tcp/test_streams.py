"""asyncio's streams on top of the transports."""

from __future__ import annotations

import asyncio
import socket

import pytest

from tests.support.net import LOOPBACK, in_thread, listening_socket, receive_exactly, reset, settled

LATE_CLOSE = "rloop closes the descriptor when the transport object dies"


def run_conversation(loop, converse, **options):
    """Runs `converse(reader, writer, peer)` on a stream to a plain blocking socket."""

    async def main():
        with listening_socket() as listener:
            reader, writer = await asyncio.open_connection(*listener.getsockname(), **options)
            peer, _ = listener.accept()
        peer.settimeout(5)
        with peer:
            try:
                await converse(reader, writer, peer)
            finally:
                writer.close()
                await asyncio.gather(writer.wait_closed(), return_exceptions=True)
                await asyncio.sleep(0)

    loop.run_until_complete(main())


def test_lines(loop):
    async def converse(reader, writer, peer):
        peer.sendall(b"one\ntwo\nthr")
        assert await reader.readline() == b"one\n"
        assert await reader.readline() == b"two\n"
        peer.sendall(b"ee\n")
        assert await reader.readline() == b"three\n"
        writer.write(b"answer\n")
        await writer.drain()
        assert peer.recv(100) == b"answer\n"

    run_conversation(loop, converse)


def test_exact_reads_and_separators(loop):
    async def converse(reader, _writer, peer):
        peer.sendall(b"12345||678||9")
        assert await reader.readexactly(5) == b"12345"
        assert await reader.readuntil(b"||") == b"||"
        assert await reader.readuntil(b"||") == b"678||"
        peer.shutdown(socket.SHUT_WR)
        with pytest.raises(asyncio.IncompleteReadError) as caught:
            await reader.readexactly(2)
        assert caught.value.partial == b"9"
        assert reader.at_eof()

    run_conversation(loop, converse)


def test_read_to_the_end(loop):
    async def converse(reader, _writer, peer):
        peer.sendall(b"everything")
        peer.close()
        assert await reader.read() == b"everything"
        assert await reader.read(10) == b""

    run_conversation(loop, converse)


def test_a_line_beyond_the_limit_is_an_error(loop):
    async def converse(reader, _writer, peer):
        peer.sendall(b"x" * 300)
        with pytest.raises(ValueError):
            await reader.readline()

    run_conversation(loop, converse, limit=100)


@pytest.mark.flavours("asyncio", "tokioloop", "uvloop", reason="rloop reads on when it is paused")
def test_a_reader_that_nobody_reads_pauses_the_transport(loop):
    async def converse(reader, writer, peer):
        peer.setblocking(False)
        sent = 0
        for _ in range(50):
            try:
                while True:
                    sent += peer.send(bytes(1 << 16))
            except BlockingIOError:
                await settled()
        assert not writer.transport.is_reading()
        peer.setblocking(True)
        peer.shutdown(socket.SHUT_WR)
        received = 0
        while data := await reader.read(1 << 20):
            received += len(data)
        assert received == sent

    run_conversation(loop, converse, limit=1 << 12)


def test_drain_waits_for_a_slow_peer(loop):
    async def converse(_reader, writer, peer):
        written = 0
        while not writer.transport.get_write_buffer_size():
            writer.write(bytes(1 << 18))
            written += 1 << 18
        writer.write(bytes(1 << 18))
        written += 1 << 18
        draining = asyncio.ensure_future(writer.drain())
        await settled()
        assert not draining.done()
        await in_thread(receive_exactly, peer, written)
        await draining

    run_conversation(loop, converse)


@pytest.mark.flavours("asyncio", "tokioloop", "uvloop", reason="rloop does not tell of the reset")
def test_drain_raises_when_the_peer_resets(loop):
    async def converse(_reader, writer, peer):
        while not writer.transport.get_write_buffer_size():
            writer.write(bytes(1 << 18))
        writer.write(bytes(1 << 18))
        draining = asyncio.ensure_future(writer.drain())
        await settled()
        reset(peer)
        with pytest.raises(ConnectionError):
            await draining

    run_conversation(loop, converse)


@pytest.mark.flavours("asyncio", "tokioloop", "uvloop", reason="rloop does not tell of the reset")
def test_read_raises_when_the_peer_resets(loop):
    async def converse(reader, _writer, peer):
        reading = asyncio.ensure_future(reader.read(100))
        await settled()
        reset(peer)
        with pytest.raises(ConnectionResetError):
            await reading

    run_conversation(loop, converse)


def test_read_can_be_cancelled_and_repeated(loop):
    async def converse(reader, _writer, peer):
        for number in range(5):
            reading = asyncio.ensure_future(reader.readline())
            await settled()
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            peer.sendall(b"line %d\n" % number)
            assert await reader.readline() == b"line %d\n" % number

    run_conversation(loop, converse)


@pytest.mark.flavours("asyncio", "tokioloop", "uvloop", reason=LATE_CLOSE)
def test_a_stream_server_serves_several_clients(loop):
    async def shout(reader, writer):
        async for line in reader:
            writer.write(line.upper())
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def ask(address, words):
        reader, writer = await asyncio.open_connection(*address)
        answers = []
        for word in words:
            writer.write(word + b"\n")
            answers.append((await reader.readline()).strip())
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        return answers

    async def main():
        server = await asyncio.start_server(shout, LOOPBACK, 0)
        address = server.sockets[0].getsockname()
        words = [[b"word%d.%d" % (client, n) for n in range(10)] for client in range(20)]
        answers = await asyncio.gather(*(ask(address, each) for each in words))
        assert answers == [[word.upper() for word in each] for each in words]
        server.close()
        await server.wait_closed()
        await settled()

    loop.run_until_complete(main())


@pytest.mark.flavours("asyncio", "tokioloop", "uvloop", reason=LATE_CLOSE)
def test_write_eof_and_wait_closed(loop):
    async def converse(reader, writer, peer):
        writer.writelines([b"a", b"b", b"c"])
        assert writer.can_write_eof()
        writer.write_eof()
        assert await in_thread(receive_exactly, peer, 10) == b"abc"
        peer.sendall(b"answer")
        peer.close()
        assert await reader.read() == b"answer"
        writer.close()
        assert writer.is_closing()
        await writer.wait_closed()

    run_conversation(loop, converse)


def test_extra_info_reaches_through(loop):
    async def converse(_reader, writer, peer):
        assert writer.get_extra_info("peername") == peer.getsockname()
        assert writer.get_extra_info("sockname") == peer.getpeername()

    run_conversation(loop, converse)
