"""Much data through `sock_sendall` and `sock_recv`, out of and into every kind of buffer."""

from __future__ import annotations

import array
import asyncio
import hashlib
import mmap
import socket
from typing import Any

import pytest

from tests.sockets.support import Loop, receive_exactly_by
from tests.support.net import in_thread, receive_exactly, settled, socket_pair

MIXED = pytest.mark.flavours("asyncio", "tokioloop", reason="the others differ in odd buffers")


def _payload(size: int) -> bytes:
    block = b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(2048))
    return (block * (size // len(block) + 1))[:size]


@pytest.mark.flavours("asyncio", "tokioloop", reason="it takes the others long")
@pytest.mark.parametrize("size", [1 << 16, 70_001])
def test_every_byte_arrives_through_small_buffers(loop: Loop, size: int) -> None:
    payload = _payload(64 << 20)

    async def receive(sock: socket.socket) -> bytes:
        received = bytearray()
        while data := await loop.sock_recv(sock, size):
            received += data
        return bytes(received)

    async def main() -> None:
        with socket_pair() as (ours, theirs):
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 50_000)
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 70_000)
            receiving = asyncio.ensure_future(receive(theirs))
            await loop.sock_sendall(ours, payload)
            ours.close()
            assert await receiving == payload

    loop.run_until_complete(main())


@pytest.mark.parametrize("size", [1, 2, 1000, 65_535, 65_536, 65_537, 100_000, 300_000])
def test_messages_of_every_size_in_turn(loop: Loop, size: int) -> None:
    async def main() -> None:
        with socket_pair() as (ours, theirs):
            for number in range(6):
                payload = _payload(size + number)[number:]
                sending = asyncio.ensure_future(loop.sock_sendall(ours, payload))
                assert await receive_exactly_by(loop, theirs, size) == payload
                await sending

    loop.run_until_complete(main())


def test_large_and_small_messages_alternate(loop: Loop) -> None:
    async def main() -> None:
        with socket_pair() as (ours, theirs):
            for size in (10, 200_000, 3, 1, 90_000, 90_000, 7, 65_536, 65_536, 2):
                payload = _payload(size)
                received = bytearray()
                sending = asyncio.ensure_future(loop.sock_sendall(ours, payload))
                while len(received) < size:
                    received += await asyncio.wait_for(loop.sock_recv(theirs, 1 << 20), 5)
                await sending
                assert received == payload

    loop.run_until_complete(main())


@MIXED
def test_receives_into_slices_of_one_buffer(loop: Loop) -> None:
    payload = _payload(300_000)

    async def main() -> None:
        with socket_pair() as (ours, theirs):
            buffer = bytearray(len(payload))
            sending = asyncio.ensure_future(loop.sock_sendall(ours, payload))
            with memoryview(buffer) as view:
                position = 0
                while position < len(buffer):
                    part = view[position : position + 10_007]
                    position += await asyncio.wait_for(loop.sock_recv_into(theirs, part), 5)
                    part.release()
            await sending
            assert buffer == payload
            buffer.clear()

    loop.run_until_complete(main())


@MIXED
@pytest.mark.parametrize("waits", [False, True], ids=["at once", "later"])
def test_receives_into_every_writable_buffer(loop: Loop, waits: bool) -> None:
    async def main() -> None:
        with socket_pair() as (ours, theirs), mmap.mmap(-1, 8) as mapped:
            targets: list[Any] = [
                bytearray(8),
                memoryview(bytearray(8)),
                array.array("h", [0] * 4),
                memoryview(array.array("i", [0] * 2)),
                mapped,
            ]
            for number, target in enumerate(targets):
                if not waits:
                    theirs.send(b"12345678")
                    await settled()
                receiving = asyncio.ensure_future(loop.sock_recv_into(ours, target))
                if waits:
                    await settled()
                    theirs.send(b"12345678")
                assert await receiving == 8
                assert bytes(memoryview(target).cast("B")) == b"12345678", number

    loop.run_until_complete(main())


@MIXED
def test_what_cannot_be_received_into_is_refused(loop: Loop) -> None:
    async def main() -> None:
        with socket_pair() as (ours, theirs):
            for target in (b"read-only", memoryview(b"read-only"), "text", 5, None):
                with pytest.raises(TypeError):
                    await loop.sock_recv_into(ours, target)  # type: ignore[arg-type]
            with pytest.raises((BufferError, TypeError)):
                await loop.sock_recv_into(ours, memoryview(bytearray(8))[::2])
            assert await loop.sock_recv_into(ours, bytearray()) == 0
            theirs.send(b"data")
            assert await loop.sock_recv(ours, 10) == b"data"

    loop.run_until_complete(main())


@MIXED
def test_what_cannot_be_sent_is_refused(loop: Loop) -> None:
    async def main() -> None:
        with socket_pair() as (ours, theirs):
            for data in ("text", 5, None, [1]):
                with pytest.raises(TypeError):
                    await loop.sock_sendall(ours, data)  # type: ignore[arg-type]
            with pytest.raises(BufferError):
                await loop.sock_sendall(ours, memoryview(b"12345678")[::2])
            await loop.sock_sendall(ours, b"")
            await loop.sock_sendall(ours, b"data")
            assert await loop.sock_recv(theirs, 10) == b"data"

    loop.run_until_complete(main())


@pytest.mark.flavours("tokioloop", reason="asyncio counts elements, and waits for ever")
@pytest.mark.parametrize("code", ["h", "i", "d"])
def test_wide_items_are_sent_whole(loop: Loop, code: str) -> None:
    async def main() -> None:
        with socket_pair() as (ours, theirs):
            theirs.setblocking(True)
            theirs.settimeout(5)
            items = array.array(code, range(1000)) * 1000
            for data in (items, memoryview(items)):
                size = len(items) * items.itemsize
                receiving = asyncio.ensure_future(in_thread(receive_exactly, theirs, size))
                await loop.sock_sendall(ours, data)
                assert await receiving == items.tobytes()
            # A reader beside it has the call go asyncio's way.
            theirs.setblocking(False)
            loop.add_reader(ours, int)
            sending = asyncio.ensure_future(loop.sock_sendall(ours, memoryview(items)))
            assert await receive_exactly_by(loop, theirs, size) == items.tobytes()
            await sending
            loop.remove_reader(ours)

    loop.run_until_complete(main())


@MIXED
def test_data_is_held_while_it_is_sent_and_may_change(loop: Loop) -> None:
    size = 1 << 23

    async def main() -> None:
        with socket_pair() as (ours, theirs):
            data = bytearray(size)
            sending = asyncio.ensure_future(loop.sock_sendall(ours, data))
            await settled()
            assert not sending.done()
            with pytest.raises(BufferError):
                data.append(0)
            data[-1] = 7
            received = await receive_exactly_by(loop, theirs, size)
            await sending
            await asyncio.sleep(0)
            assert received[-1] == 7
            data.append(0)

    loop.run_until_complete(main())
