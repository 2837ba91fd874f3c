"""Endpoints for the tests: a protocol that records, and plain sockets as its peers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from tests.support.net import LOOPBACK


class Endpoint(asyncio.DatagramProtocol):
    """Keeps what it is told; `until` waits for something to hold."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.calls: list[str] = []
        self.received: list[tuple[bytes, Any]] = []
        self.errors: list[Exception] = []
        self.lost: list[BaseException | None] = []
        self._news = asyncio.Event()

    @property
    def data(self) -> list[bytes]:
        return [data for data, _ in self.received]

    @property
    def address(self) -> Any:
        return self.transport.get_extra_info("sockname")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._record("connection_made")

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.received.append((data, addr))
        self._record("datagram_received")

    def error_received(self, exc: Exception) -> None:
        self.errors.append(exc)
        self._record("error_received")

    def pause_writing(self) -> None:
        self._record("pause_writing")

    def resume_writing(self) -> None:
        self._record("resume_writing")

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost.append(exc)
        self._record("connection_lost")

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():
            self._news.clear()
            await self._news.wait()

    async def until_received(self, count: int) -> list[bytes]:
        await self.until(lambda: len(self.received) >= count)
        return self.data

    async def until_lost(self) -> BaseException | None:
        await self.until(lambda: self.lost)
        (exc,) = self.lost
        return exc

    def _record(self, call: str) -> None:
        self.calls.append(call)
        self._news.set()


@asynccontextmanager
async def open_endpoint(
    factory: Callable[[], Endpoint] = Endpoint, **options: Any
) -> AsyncIterator[Any]:
    """The protocol of an endpoint, on loopback unless `options` say otherwise."""
    if not options:
        options = {"local_addr": (LOOPBACK, 0)}
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(factory, **options)
    try:
        yield protocol
    finally:
        if not protocol.lost:
            transport.abort()
        await protocol.until_lost()


@contextmanager
def plain_socket(
    family: int = socket.AF_INET, address: Any = (LOOPBACK, 0)
) -> Iterator[socket.socket]:
    """A bound datagram socket whose `recv` fails instead of hanging."""
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind(address)
        sock.settimeout(5)
        yield sock
