"""TLS: what is written arrives, byte for byte, however it is cut up."""

from __future__ import annotations

import asyncio
import hashlib
import os
import ssl
from typing import Any

import pytest

from tests.support.protocols import BufferedRecorder, EchoProtocol, Recorder
from tests.support.tls import connected_over_tls, records

pytestmark = [
    pytest.mark.flavours("asyncio", "tokioloop", reason="the peers have TLS stacks of their own"),
    # Before that asyncio has another protocol, which is used as it is.
    pytest.mark.min_python(3, 11),
]
Loop = asyncio.AbstractEventLoop
VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)


class Pump(asyncio.Protocol):
    """Writes a source piece by piece while it may, and digests what comes."""

    def __init__(self, source: bytes, repeats: int, piece: int) -> None:
        self.transport: Any = None
        self.calls: list[str] = []
        self.digest = hashlib.sha256()
        self.count = 0
        self.pauses = 0
        self.complete = asyncio.get_running_loop().create_future()
        self._source = memoryview(source)
        self._total = len(source) * repeats
        self._piece = piece
        self._sent = 0
        self._may_write = True

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.calls.append("connection_made")
        transport._loop.call_soon(self._write)

    def pause_writing(self) -> None:
        self._may_write = False
        self.pauses += 1

    def resume_writing(self) -> None:
        self._may_write = True
        self.transport._loop.call_soon(self._write)

    def _write(self) -> None:
        while self._may_write and self._sent < self._total:
            start = self._sent % len(self._source)
            piece = self._source[start : start + self._piece]
            self._sent += len(piece)
            self.transport.write(piece)

    def data_received(self, data: bytes) -> None:
        assert type(data) is bytes
        self.digest.update(data)
        self.count += len(data)
        if self.count >= self._total and not self.complete.done():
            self.complete.set_result(None)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.calls.append("connection_lost")


@pytest.mark.time_limit(60)
@pytest.mark.parametrize("piece", [4093, 8 << 20], ids=["small-records", "huge-writes"])
def test_64_megabytes_pass_both_ways_at_once(loop: Loop, piece: int) -> None:
    source = os.urandom((8 << 20) + 7)
    repeats = 8
    expected = hashlib.sha256()
    for _ in range(repeats):
        expected.update(source)

    def pump() -> Pump:
        return Pump(source, repeats, piece)

    async def main() -> None:
        async with connected_over_tls(pump, pump) as ends:
            for end in ends:
                await end.complete
                assert end.count == repeats * len(source)
                assert end.digest.digest() == expected.digest()
                assert end.pauses > 0

    loop.run_until_complete(main())


@pytest.mark.parametrize("version", VERSIONS, ids=str)
def test_records_that_come_together_are_one_delivery(loop: Loop, version: ssl.TLSVersion) -> None:
    async def main() -> None:
        async with records(version=version) as (protocol, peer):
            pieces = [os.urandom(size) for size in (1, 100, 1000, 16384, 3)]
            await peer.send(b"".join(map(peer.seal, pieces)))
            assert await protocol.until_received(17488) == b"".join(pieces)
            assert protocol.chunks == [b"".join(pieces)]

    loop.run_until_complete(main())


@pytest.mark.parametrize("version", VERSIONS, ids=str)
def test_records_that_come_in_parts_are_delivered_when_whole(
    loop: Loop, version: ssl.TLSVersion
) -> None:
    async def main() -> None:
        async with records(version=version) as (protocol, peer):
            first, second = os.urandom(300), os.urandom(9000)
            sealed = peer.seal(first) + peer.seal(second)
            for start in range(0, len(sealed), 700):
                await peer.send(sealed[start : start + 700])
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            assert await protocol.until_received(9300) == first + second
            assert protocol.chunks[0][:300] == first
            assert sum(map(len, protocol.chunks[:-1])) <= 300

    loop.run_until_complete(main())


@pytest.mark.parametrize("size", [1, 1000, 16384, 16385, 200_000])
def test_an_echo_comes_back_whole(loop: Loop, size: int) -> None:
    async def main() -> None:
        async with records(EchoProtocol) as (_, peer):
            message = os.urandom(size)
            sealed = peer.seal(message)
            sending = asyncio.ensure_future(peer.send(sealed))
            await peer.read_until(lambda peer: len(peer.received) >= size)
            await sending
            assert peer.received == message

    loop.run_until_complete(main())


def test_writelines_takes_many_small_pieces_of_any_type(loop: Loop) -> None:
    async def main() -> None:
        async with records() as (protocol, peer):
            pieces = [os.urandom(n % 40) for n in range(2000)]
            kinds = (bytes, bytearray, memoryview)
            protocol.transport.writelines(
                kinds[index % 3](piece) for index, piece in enumerate(pieces)
            )
            protocol.transport.write(b"end")
            expected = b"".join(pieces) + b"end"
            await peer.read_until(lambda peer: len(peer.received) >= len(expected))
            assert peer.received == expected

    loop.run_until_complete(main())


def test_a_view_of_wide_items_is_sent_in_bytes(loop: Loop) -> None:
    async def main() -> None:
        async with records() as (protocol, peer):
            wide = memoryview(bytes(range(256)) * 100).cast("Q")
            protocol.transport.write(wide)
            await peer.read_until(lambda peer: len(peer.received) >= 25_600)
            assert peer.received == bytes(wide)

    loop.run_until_complete(main())


def test_what_is_written_before_the_handshake_comes_first(loop: Loop) -> None:
    class Hasty(Recorder):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            transport.write(b"first,")
            transport.writelines([b"sec", bytearray(b"ond,")])

    async def main() -> None:
        async with connected_over_tls(Recorder, Hasty) as (client, server):
            client.transport.write(b"third")
            assert await server.until_received(18) == b"first,second,third"

    loop.run_until_complete(main())


@pytest.mark.parametrize("data", ["text", 1, None, ["list"]], ids=repr)
def test_what_is_no_bytes_is_refused(loop: Loop, data: Any) -> None:
    async def main() -> None:
        async with records() as (protocol, peer):
            with pytest.raises(TypeError, match="data: expecting a bytes-like instance, got "):
                protocol.transport.write(data)
            protocol.transport.write(b"")
            protocol.transport.write(b"fine")
            await peer.read_until(lambda peer: peer.received == b"fine")

    loop.run_until_complete(main())


class BufferedView(BufferedRecorder):
    """Hands out a view, as asyncio's TLS wants it."""

    def get_buffer(self, sizehint: int) -> memoryview:
        return memoryview(super().get_buffer(sizehint))


@pytest.mark.parametrize("size", [1000, 16384, 100_000])
def test_a_buffered_protocol_receives_into_its_own_memory(loop: Loop, size: int) -> None:
    async def main() -> None:
        async with records(lambda: BufferedView(size)) as (protocol, peer):
            message = os.urandom(150_001)
            await peer.send(peer.seal(message))
            while len(protocol.received) < len(message):
                await asyncio.sleep(0)
            assert protocol.received == message
            assert max(protocol.updates) <= size
            await peer.send(peer.seal(b"more") + peer.seal_close_notify())
            await protocol.lost
            assert protocol.received[len(message) :] == b"more"
            assert protocol.calls == ["connection_made", "eof_received", "connection_lost"]

    loop.run_until_complete(main())
