"""In which context a protocol hears of a write that failed, or has to wait."""

from __future__ import annotations

import asyncio
import contextvars
import os
import socket
from typing import Any

import pytest

from tests.support.net import settled

pytestmark = pytest.mark.flavours(
    "asyncio", "tokioloop", reason="the peers keep no context of a write"
)
Loop = asyncio.AbstractEventLoop
# With eight callbacks and more in a turn, what they write is gathered.
CROWDS = pytest.mark.parametrize("others", [0, 20], ids=["alone", "in-a-crowd"])

request: contextvars.ContextVar[str] = contextvars.ContextVar("request", default="no request")


async def connected_pair(
    loop: Loop, protocol: asyncio.Protocol
) -> tuple[asyncio.Transport, socket.socket]:
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setblocking(False)
    transport, _ = await loop.connect_accepted_socket(lambda: protocol, ours)
    return transport, theirs


async def in_a_crowd(write: Any, others: int) -> None:
    await asyncio.gather(write, *(asyncio.sleep(0) for _ in range(others)))


@CROWDS
def test_a_failed_write_ends_the_connection_in_its_context(loop: Loop, others: int) -> None:
    lost: list[tuple[str, str]] = []

    class Watching(asyncio.Protocol):
        def eof_received(self) -> bool:
            return True

        def connection_lost(self, exc: Exception | None) -> None:
            lost.append((type(exc).__name__, request.get()))

    async def main() -> None:
        transport, peer = await connected_pair(loop, Watching())
        transport.pause_reading()
        peer.close()

        async def answer() -> None:
            request.set("request 7")
            transport.write(b"answer")

        await in_a_crowd(answer(), others)
        await settled()

    loop.run_until_complete(main())
    assert lost == [("BrokenPipeError", "request 7")]


@CROWDS
def test_a_write_that_waits_is_told_of_in_its_context(loop: Loop, others: int) -> None:
    told: list[tuple[str, str]] = []

    class Watching(asyncio.Protocol):
        def pause_writing(self) -> None:
            told.append(("pause", request.get()))

        def resume_writing(self) -> None:
            told.append(("resume", request.get()))

    async def main() -> None:
        transport, peer = await connected_pair(loop, Watching())
        transport.set_write_buffer_limits(10_000)
        with pytest.raises(BlockingIOError):
            while True:
                os.write(transport.get_extra_info("socket").fileno(), bytes(65_536))

        async def write(name: str, size: int) -> None:
            request.set(name)
            transport.write(bytes(size))

        await in_a_crowd(write("first", 1_000), others)
        await asyncio.sleep(0)
        await loop.create_task(write("second", 20_000))
        while len(told) < 2:
            try:
                while peer.recv(1 << 20):
                    pass
            except BlockingIOError:
                await asyncio.sleep(0)
        transport.abort()
        peer.close()
        await settled()

    loop.run_until_complete(main())
    assert told == [("pause", "second"), ("resume", "first")]
