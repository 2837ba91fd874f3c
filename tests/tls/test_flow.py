"""TLS: pausing in both directions, protocols that change, contexts, and layers of TLS."""

from __future__ import annotations

import asyncio
import contextvars
import os
import socket
from asyncio import trsock
from typing import Any

import pytest

from tests.support.net import LOOPBACK, settled, socket_pair
from tests.support.protocols import Recorder
from tests.support.tls import client_context, connected_over_tls, records, server_context

pytestmark = [
    pytest.mark.flavours("asyncio", "tokioloop", reason="the peers have TLS stacks of their own"),
    # Before that asyncio has another protocol, which is used as it is.
    pytest.mark.min_python(3, 11),
]
Loop = asyncio.AbstractEventLoop


def test_nothing_is_delivered_while_reading_is_paused(loop: Loop) -> None:
    class Pauses(Recorder):
        """Takes one delivery at a time."""

        def __init__(self) -> None:
            super().__init__()
            self.paused = False
            self.delivered_in_pauses = 0

        def data_received(self, data: bytes) -> None:
            self.delivered_in_pauses += self.paused
            self.paused = True
            self.transport.pause_reading()
            super().data_received(data)
            loop.call_soon(self.go_on)

        def go_on(self) -> None:
            self.paused = False
            self.transport.resume_reading()

    async def main() -> None:
        async with connected_over_tls(Pauses) as (client, server):
            message = os.urandom(2_000_003)
            client.transport.write(message)
            assert await server.until_received(len(message)) == message
            assert server.delivered_in_pauses == 0

    loop.run_until_complete(main())


def test_a_paused_transport_stops_a_sender(loop: Loop) -> None:
    async def main() -> None:
        async with connected_over_tls() as (client, server):
            server.transport.pause_reading()
            assert not server.transport.is_reading()
            sent = 0
            while "pause_writing" not in client.calls:
                client.transport.write(bytes(1 << 16))
                sent += 1 << 16
                await asyncio.sleep(0)
            await settled()
            assert not server.received
            server.transport.resume_reading()
            await client.until(lambda client: "resume_writing" in client.calls)
            await server.until_received(sent)
            assert len(server.received) == sent

    loop.run_until_complete(main())


@pytest.mark.min_python(3, 11)
def test_the_limits_are_those_of_the_tls_layer(loop: Loop) -> None:
    async def main() -> None:
        async with records() as (protocol, _):
            transport = protocol.transport
            assert transport.get_write_buffer_limits() == (131_072, 524_288)
            transport.set_write_buffer_limits(high=100)
            assert transport.get_write_buffer_limits() == (25, 100)
            with pytest.raises(ValueError):
                transport.set_write_buffer_limits(high=1, low=2)
            assert transport.get_write_buffer_size() == 0
            # asyncio compares with >=, so that a mark of 0 pauses at once.
            transport.set_write_buffer_limits(high=0)
            assert protocol.calls[-1] == "pause_writing"
            transport.set_write_buffer_limits()
            assert protocol.calls[-1] == "resume_writing"
            transport.set_write_buffer_limits(high=1 << 80)
            transport.write(b"fine")

    loop.run_until_complete(main())


def test_a_failing_pause_writing_is_reported_and_the_data_goes_out(
    loop: Loop, loop_errors: Any
) -> None:
    class Fails(Recorder):
        def pause_writing(self) -> None:
            super().pause_writing()
            raise ValueError("of pause_writing")

    async def main() -> None:
        async with records(Fails) as (protocol, peer):
            protocol.transport.set_write_buffer_limits(high=0)
            protocol.transport.write(b"data")
            await peer.read_until(lambda peer: peer.received == b"data")

    loop.run_until_complete(main())
    assert [context["message"] for context in loop_errors] == ["protocol.pause_writing() failed"]
    loop_errors.clear()


def test_set_protocol_in_a_delivery_moves_what_follows(loop: Loop) -> None:
    class HandsOver(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.successor = Recorder()
            self.successor.connection_made(self.transport)
            self.transport.set_protocol(self.successor)

    async def main() -> None:
        async with records(HandsOver) as (protocol, peer):
            sealed = peer.seal(b"first") + peer.seal(b"second")
            await peer.send(sealed[:-1])
            await protocol.until_received(5)
            assert protocol.transport.get_protocol() is protocol.successor
            await peer.send(sealed[-1:])
            assert await protocol.successor.until_received(6) == b"second"
            assert protocol.received == b"first"
            protocol.transport.set_protocol(protocol)

    loop.run_until_complete(main())


def test_a_buffer_that_was_written_may_be_cleared_when_there_is_room_again(loop: Loop) -> None:
    data = bytearray()
    refused: list[BufferError] = []

    class Clears(Recorder):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            self.transport.set_write_buffer_limits(0)

        def data_received(self, received: bytes) -> None:
            super().data_received(received)
            for _ in range(3):
                data.extend(received)
                # As the mark is 0, each write pauses the protocol or resumes it.
                self.transport.write(data)

        def resume_writing(self) -> None:
            super().resume_writing()
            try:
                data.clear()
            except BufferError as error:
                refused.append(error)

    async def main() -> None:
        async with connected_over_tls(Clears) as (client, _server):
            for count in range(1, 5):
                client.transport.write(b"x")
                await client.until_received(3 * count)
        assert not refused

    loop.run_until_complete(main())


def test_a_write_in_a_delivery_goes_out_before_it_ends(loop: Loop) -> None:
    class Answers(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.transport.write(b"re: ")
            self.transport.writelines([data, b"."])
            self.sent = self.transport.get_write_buffer_size() == 0

    async def main() -> None:
        async with records(Answers) as (protocol, peer):
            for count in range(1, 6):
                await peer.send(peer.seal(b"hi"))
                await peer.read_until(lambda peer, n=count: peer.received == b"re: hi." * n)
                assert protocol.sent

    loop.run_until_complete(main())


def test_deliveries_run_in_the_context_of_the_connection(loop: Loop) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
    seen: list[str] = []

    class Looks(Recorder):
        def data_received(self, data: bytes) -> None:
            seen.append(variable.get())
            variable.set("by data_received")
            super().data_received(data)

    async def main() -> None:
        variable.set("when connected")
        async with connected_over_tls(Recorder, Looks) as (client, server):
            variable.set("later")
            for count in (1, 2):
                server.transport.write(b"x")
                await client.until_received(count)
            assert variable.get() == "later"

    loop.run_until_complete(main())
    assert seen == ["when connected", "by data_received"]


def test_start_tls_on_both_ends_of_a_plain_connection(loop: Loop) -> None:
    async def main() -> None:
        with socket_pair() as (ours, theirs):
            client_transport, client = await loop.create_connection(Recorder, sock=ours)
            server_transport, server = await loop.connect_accepted_socket(Recorder, theirs)
            client_transport.write(b"plain")
            await server.until_received(5)
            secured = await asyncio.gather(
                loop.start_tls(server_transport, server, server_context(), server_side=True),
                loop.start_tls(client_transport, client, client_context()),
            )
            server.transport, client.transport = secured
            client.transport.write(b"secret")
            assert await server.until_received(11) == b"plainsecret"
            server.transport.write(bytes(100_000))
            assert await client.until_received(100_000) == bytes(100_000)
            client.transport.close()
            await client.until_lost()
            await server.until_lost()

    loop.run_until_complete(main())


@pytest.mark.min_python(3, 11)
def test_tls_within_tls(loop: Loop) -> None:
    async def main() -> None:
        async with connected_over_tls() as (client, server):
            inner = await asyncio.gather(
                loop.start_tls(server.transport, server, server_context(), server_side=True),
                loop.start_tls(client.transport, client, client_context()),
            )
            outer = (server.transport, client.transport)
            server.transport, client.transport = inner
            message = os.urandom(1_000_001)
            client.transport.write(message)
            server.transport.write(message)
            assert await server.until_received(len(message)) == message
            assert await client.until_received(len(message)) == message
            client.transport.close()
            await client.until_lost()
            await server.until_lost()
            for transport in outer:
                transport.abort()
            await settled()

    loop.run_until_complete(main())


def test_streams_over_tls(loop: Loop) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line.upper())
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def main() -> None:
        server = await asyncio.start_server(serve, LOOPBACK, 0, ssl=server_context())
        reader, writer = await asyncio.open_connection(
            *server.sockets[0].getsockname(), ssl=client_context()
        )
        for count in range(100):
            writer.write(b"line %d\n" % count)
            await writer.drain()
            assert await reader.readline() == b"LINE %d\n" % count
        big = b"x" * 60_000 + b"\n"
        writer.write(big)
        assert await reader.readuntil(b"\n") == big.upper()
        assert isinstance(writer.get_extra_info("socket"), trsock.TransportSocket)
        assert writer.get_extra_info("ssl_object").version() == "TLSv1.3"
        assert isinstance(writer.get_extra_info("socket").family, socket.AddressFamily)
        writer.close()
        await writer.wait_closed()
        server.close()
        await settled()

    loop.run_until_complete(main())
