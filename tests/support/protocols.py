"""Protocols that record what a loop tells them, and let a test wait for it without sleeping."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any


class Recorder(asyncio.Protocol):
    """Keeps every call in `calls` (runs of data_received once), the bytes in `received`."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.calls: list[str] = []
        self.chunks: list[bytes] = []
        self.received = bytearray()
        self.lost_with: BaseException | None = None
        self._waiters: list[tuple[Callable[[Any], bool], asyncio.Future[None]]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._record("connection_made")

    def data_received(self, data: bytes) -> None:
        self.chunks.append(data)
        self.received += data
        self._record("data_received")

    def eof_received(self) -> bool | None:
        self._record("eof_received")
        return None

    def pause_writing(self) -> None:
        self._record("pause_writing")

    def resume_writing(self) -> None:
        self._record("resume_writing")

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost_with = exc
        self._record("connection_lost")

    @property
    def is_made(self) -> bool:
        return "connection_made" in self.calls

    @property
    def is_lost(self) -> bool:
        return "connection_lost" in self.calls

    async def until(self, condition: Callable[[Any], bool]) -> None:
        """Returns once `condition(self)` holds; it is looked at after every call of the loop."""
        if not condition(self):
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append((condition, waiter))
            await waiter

    async def until_lost(self) -> BaseException | None:
        await self.until(lambda self: self.is_lost)
        return self.lost_with

    async def until_received(self, count: int) -> bytes:
        await self.until(lambda self: len(self.received) >= count)
        return bytes(self.received)

    def _record(self, call: str) -> None:
        if call != "data_received" or self.calls[-1:] != [call]:
            self.calls.append(call)
        for condition, waiter in self._waiters[:]:
            if condition(self):
                self._waiters.remove((condition, waiter))
                if not waiter.done():
                    waiter.set_result(None)


class HalfOpenRecorder(Recorder):
    """Keeps its side of the connection open after the peer has finished sending."""

    def eof_received(self) -> bool | None:
        super().eof_received()
        return True


class EchoProtocol(Recorder):
    """Sends back what it gets, and stops reading while the peer does not take it."""

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self.transport = None  # rloop closes the descriptor when nobody holds the transport

    def pause_writing(self) -> None:
        super().pause_writing()
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.transport.resume_reading()


class BufferedRecorder(asyncio.BufferedProtocol):
    """Receives into one buffer of its own and records what arrives."""

    def __init__(self, size: int = 4096) -> None:
        self.buffer = bytearray(size)
        self.transport: Any = None
        self.received = bytearray()
        self.updates: list[int] = []
        self.hints: list[int] = []
        self.calls: list[str] = []
        self.lost: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.calls.append("connection_made")

    def get_buffer(self, sizehint: int) -> bytearray | memoryview:
        self.hints.append(sizehint)
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.updates.append(nbytes)
        self.received += memoryview(self.buffer)[:nbytes]

    def eof_received(self) -> bool | None:
        self.calls.append("eof_received")
        return None

    def connection_lost(self, exc: BaseException | None) -> None:
        self.calls.append("connection_lost")
        if not self.lost.done():
            self.lost.set_result(exc)
