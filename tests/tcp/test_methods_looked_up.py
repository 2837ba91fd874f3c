"""A protocol's methods are looked up for each delivery: it may give itself others meanwhile."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from tests.support.net import LOOPBACK, connected, settled
from tests.support.protocols import Recorder

pytestmark = pytest.mark.flavours(
    "asyncio", "tokioloop", reason="the peers look the methods up when the protocol is set"
)
Loop = asyncio.AbstractEventLoop


class HeadThenBody(Recorder):
    """A state machine: the first delivery replaces the method on the instance."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[tuple[str, bytes]] = []
        self.changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.log.append(("head", data))
        self.data_received = self.body_received  # type: ignore[method-assign]
        self.transport.write(b"go on")

    def body_received(self, data: bytes) -> None:
        self.log.append(("body", data))
        self.changed.set_result(None)


class BufferedHeadThenBody(asyncio.BufferedProtocol):
    """The same with a buffer for each part."""

    def __init__(self) -> None:
        self.log: list[tuple[str, bytes]] = []
        self.changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.lost = asyncio.get_running_loop().create_future()
        self.transport: Any = None
        self.head, self.body = bytearray(16), bytearray(16)

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.head

    def buffer_updated(self, nbytes: int) -> None:
        self.log.append(("head", bytes(self.head[:nbytes])))
        self.get_buffer = lambda sizehint: self.body  # type: ignore[method-assign]
        self.buffer_updated = self.body_updated  # type: ignore[method-assign]
        self.transport.write(b"go on")

    def body_updated(self, nbytes: int) -> None:
        self.log.append(("body", bytes(self.body[:nbytes])))
        self.changed.set_result(None)


@pytest.mark.parametrize("factory", [HeadThenBody, BufferedHeadThenBody])
def test_a_method_that_the_protocol_assigns_itself(loop: Loop, factory: Any) -> None:
    async def main() -> None:
        async with connected("server", factory) as (_transport, protocol, peer):
            peer.setblocking(False)
            await loop.sock_sendall(peer, b"one")
            assert await loop.sock_recv(peer, 100) == b"go on"
            await loop.sock_sendall(peer, b"two")
            await protocol.changed
            assert protocol.log == [("head", b"one"), ("body", b"two")]
            _transport.abort()
            await (protocol.until_lost() if factory is HeadThenBody else protocol.lost)

    loop.run_until_complete(main())


def test_a_method_that_is_put_on_the_class(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    class Plain(Recorder):
        pass

    seen: list[bytes] = []

    async def main() -> None:
        async with connected("server", Plain) as (_transport, protocol, peer):
            peer.setblocking(False)
            await loop.sock_sendall(peer, b"one")
            await protocol.until_received(3)
            heard = loop.create_future()

            def hear(self: Any, data: bytes) -> None:
                seen.append(data)
                heard.set_result(None)

            monkeypatch.setattr(Plain, "data_received", hear)
            await loop.sock_sendall(peer, b"two")
            await heard
            assert (protocol.received, seen) == (b"one", [b"two"])

    loop.run_until_complete(main())


@pytest.mark.parametrize("place", ["instance", "class"])
def test_a_hook_before_a_stream_s_data(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    original = asyncio.StreamReaderProtocol.data_received

    async def main() -> None:
        met = loop.create_future()
        server = await asyncio.start_server(lambda *pair: met.set_result(pair), LOOPBACK, 0)
        with socket.create_connection(server.sockets[0].getsockname()) as peer:
            peer.setblocking(False)
            reader, writer = await met
            await loop.sock_sendall(peer, b"one")
            assert await reader.readexactly(3) == b"one"
            protocol = writer.transport.get_protocol()
            if place == "instance":
                protocol.data_received = lambda data: original(protocol, data.upper())
            else:
                monkeypatch.setattr(
                    asyncio.StreamReaderProtocol,
                    "data_received",
                    lambda self, data: original(self, data.upper()),
                )
            await loop.sock_sendall(peer, b"two")
            assert await reader.readexactly(3) == b"TWO"
            writer.close()
            await writer.wait_closed()
        server.close()

    loop.run_until_complete(main())


def test_a_hook_on_a_client_s_stream_beside_a_server_s_without_one(loop: Loop) -> None:
    """The server's protocol has an attribute more than the client's: the hook makes them equal."""
    original = asyncio.StreamReaderProtocol.data_received

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data)
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(echo, LOOPBACK, 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        protocol = writer.transport.get_protocol()
        protocol.data_received = lambda data: original(protocol, data.upper())
        for _ in range(2):
            writer.write(b"one")
            assert await reader.readexactly(3) == b"ONE"
        writer.close()
        await writer.wait_closed()
        server.close()
        await settled()

    loop.run_until_complete(main())


def test_a_method_for_datagrams(loop: Loop) -> None:
    class Switching(asyncio.DatagramProtocol):
        def __init__(self) -> None:
            self.log: list[tuple[str, bytes]] = []
            self.done = loop.create_future()

        def datagram_received(self, data: bytes, addr: Any) -> None:
            self.log.append(("first", data))
            self.datagram_received = self.second_received  # type: ignore[method-assign]

        def second_received(self, data: bytes, addr: Any) -> None:
            self.log.append(("second", data))
            self.done.set_result(None)

    async def main() -> None:
        transport, protocol = await loop.create_datagram_endpoint(
            Switching, local_addr=(LOOPBACK, 0)
        )
        with socket.socket(type=socket.SOCK_DGRAM) as peer:
            peer.connect(transport.get_extra_info("sockname"))
            peer.send(b"one")
            peer.send(b"two")
            await protocol.done
        assert protocol.log == [("first", b"one"), ("second", b"two")]
        transport.close()
        await asyncio.sleep(0)

    loop.run_until_complete(main())
