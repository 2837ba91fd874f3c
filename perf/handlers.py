"""What the benchmark's servers do with a connection: echo in every style, and answer HTTP."""

from __future__ import annotations

import asyncio
import socket


class Echo(asyncio.Protocol):
    """The plain protocol: every delivery is written back."""

    __slots__ = ("transport",)

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class BufferedEcho(asyncio.BufferedProtocol):
    """The buffered protocol: the loop receives into one buffer per connection."""

    __slots__ = ("buffer", "transport")

    def __init__(self) -> None:
        self.buffer = memoryview(bytearray(BUFFER_SIZE))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.transport.write(self.buffer[:nbytes])  # type: ignore[attr-defined]


async def echo_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Streams as they are usually written: read, write, drain."""
    try:
        while data := await reader.read(STREAM_READ):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def echo_raw(loop: asyncio.AbstractEventLoop, connection: socket.socket) -> None:
    """The `sock_*` methods on a plain socket."""
    with connection:
        try:
            while data := await loop.sock_recv(connection, RAW_READ):
                await loop.sock_sendall(connection, data)
        except ConnectionError:
            pass


class DatagramEcho(asyncio.DatagramProtocol):
    """Every datagram goes back to where it came from."""

    __slots__ = ("transport",)

    transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.transport.sendto(data, addr)


# Whole responses by the size that was asked for.
REPLIES: dict[bytes, bytes] = {}


class Responder(asyncio.Protocol):
    """The least HTTP that a client accepts: `GET /N` is answered with N bytes.

    For TLS, where an echo would measure the cipher twice; requests come in one piece,
    because the load client sends the next one only after its reply.
    """

    __slots__ = ("transport",)

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        path = data[5 : data.index(b" ", 5)]
        reply = REPLIES.get(path)
        if reply is None:
            reply = REPLIES[path] = response(int(path))
        self.transport.write(reply)


def response(size: int) -> bytes:
    """A whole response with a body of that size."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {size}\r\n\r\n"
    return head.encode() + b"x" * size


# As in the benchmarks that loops usually publish: more than a message for streams,
# and for sockets, where asyncio allocates the whole size for each read, 100 KB.
STREAM_READ = 1_000_000
RAW_READ = 102_400
BUFFER_SIZE = 256 * 1024
