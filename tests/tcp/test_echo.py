"""Large echoes compared byte for byte, in every way a program may write an echo server."""

from __future__ import annotations

import asyncio
import hashlib
import random
import socket

import pytest

from tests.support.net import LOOPBACK, in_thread, listening_socket, serving
from tests.support.protocols import EchoProtocol

MEGABYTE = 1 << 20
TIMEOUT = 20


def pattern(size: int) -> bytes:
    """Bytes in which no part repeats, so that lost, doubled and swapped pieces all show."""
    return random.Random(size).randbytes(size)


def send_and_receive(address, payload: bytes) -> bytes:
    """A blocking client that sends from one thread and receives in another."""
    import threading

    with socket.create_connection(address, timeout=TIMEOUT) as client:
        sender = threading.Thread(target=client.sendall, args=(payload,))
        sender.start()
        received = bytearray(len(payload))
        view = memoryview(received)
        while view and (count := client.recv_into(view)):
            view = view[count:]
        sender.join()
        return bytes(received[: len(received) - len(view)])


def assert_same(received: bytes, sent: bytes) -> None:
    """Without printing megabytes when it fails."""
    assert len(received) == len(sent)
    if received != sent:
        first = next(i for i, (a, b) in enumerate(zip(received, sent, strict=True)) if a != b)
        pytest.fail(f"the echo differs from byte {first} on")


class BufferedEcho(asyncio.BufferedProtocol):
    """An echo that is received into the protocol's own buffer and written from it at once."""

    def __init__(self):
        self.buffer = memoryview(bytearray(1 << 16))

    def connection_made(self, transport):
        self.transport = transport

    def get_buffer(self, sizehint):
        return self.buffer

    def buffer_updated(self, nbytes):
        # A copy: what is queued must not change when the buffer is filled again.
        self.transport.write(bytes(self.buffer[:nbytes]))

    def pause_writing(self):
        self.transport.pause_reading()

    def resume_writing(self):
        self.transport.resume_reading()

    def connection_lost(self, exc):
        self.transport = None


@pytest.mark.time_limit(60)
@pytest.mark.parametrize("size", [MEGABYTE, 64 * MEGABYTE], ids=["1MB", "64MB"])
def test_protocol_echo(loop, size):
    payload = pattern(size)

    async def main():
        async with serving(EchoProtocol) as (_server, address):
            assert_same(await in_thread(send_and_receive, address, payload), payload)

    loop.run_until_complete(main())


@pytest.mark.time_limit(60)
@pytest.mark.parametrize("size", [MEGABYTE, 16 * MEGABYTE], ids=["1MB", "16MB"])
def test_buffered_protocol_echo(loop, size):
    payload = pattern(size)

    async def main():
        async with serving(BufferedEcho) as (_server, address):
            assert_same(await in_thread(send_and_receive, address, payload), payload)

    loop.run_until_complete(main())


@pytest.mark.time_limit(60)
@pytest.mark.parametrize("size", [MEGABYTE, 16 * MEGABYTE], ids=["1MB", "16MB"])
def test_stream_echo(loop, size):
    payload = pattern(size)

    async def echo(reader, writer):
        while data := await reader.read(1 << 18):
            writer.write(data)
            await writer.drain()
        writer.close()
        await writer.wait_closed()
        finished.set_result(None)

    async def main():
        nonlocal finished
        finished = loop.create_future()
        server = await asyncio.start_server(echo, LOOPBACK, 0)
        address = server.sockets[0].getsockname()
        assert_same(await in_thread(send_and_receive, address, payload), payload)
        await finished
        server.close()
        await server.wait_closed()

    finished = None
    loop.run_until_complete(main())


@pytest.mark.time_limit(60)
@pytest.mark.parametrize("size", [MEGABYTE, 16 * MEGABYTE], ids=["1MB", "16MB"])
def test_socket_call_echo(loop, size):
    payload = pattern(size)

    async def serve(listener):
        client, _address = await loop.sock_accept(listener)
        with client:
            buffer = bytearray(1 << 17)
            view = memoryview(buffer)
            while count := await loop.sock_recv_into(client, buffer):
                await loop.sock_sendall(client, view[:count])

    async def main():
        with listening_socket() as listener:
            listener.setblocking(False)
            task = asyncio.ensure_future(serve(listener))
            assert_same(await in_thread(send_and_receive, listener.getsockname(), payload), payload)
            await task

    loop.run_until_complete(main())


@pytest.mark.time_limit(60)
def test_a_loop_echoes_to_itself(loop):
    """Both ends on one loop, 64 MB, written in pieces of every size."""
    payload = pattern(64 * MEGABYTE)

    async def main():
        async with serving(EchoProtocol) as (_server, address):
            reader, writer = await asyncio.open_connection(*address)

            async def send():
                sizes = random.Random(1)
                view = memoryview(payload)
                while view:
                    size = sizes.choice((1, 100, 4096, 65536, 70_001, 1 << 20))
                    writer.write(view[:size])
                    view = view[size:]
                    await writer.drain()

            sending = asyncio.ensure_future(send())
            digest, count = hashlib.sha256(), 0
            while count < len(payload):
                data = await reader.read(1 << 18)
                digest.update(data)
                count += len(data)
            await sending
            writer.close()
            await writer.wait_closed()
            assert count == len(payload)
            assert digest.digest() == hashlib.sha256(payload).digest()

    loop.run_until_complete(main())


@pytest.mark.parametrize("size", [1, 2, 1023, 1024, 65535, 65536, 65537, 131072, 262145])
def test_sizes_around_the_buffers_edges(loop, size):
    payload = pattern(size)

    async def main():
        async with serving(EchoProtocol) as (_server, address):
            for _ in range(3):
                assert_same(await in_thread(send_and_receive, address, payload), payload)

    loop.run_until_complete(main())
