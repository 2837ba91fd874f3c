"""grpc.aio: its C core has threads of its own and wakes the loop through a watched descriptor."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from interop_support.loops import require_loop_under_test

grpc = pytest.importorskip("grpc", exc_type=ImportError)
pytest.importorskip("grpc.aio", exc_type=ImportError)

SERVICE = "interop.Test"


async def echo(request: bytes, context: Any) -> bytes:
    require_loop_under_test()
    await asyncio.sleep(0)
    return request


async def count(request: bytes, context: Any) -> AsyncIterator[bytes]:
    for n in range(int(request)):
        yield b"%d" % n


async def total(requests: AsyncIterator[bytes], context: Any) -> bytes:
    return b"%d" % sum([int(each) async for each in requests])


async def chat(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    async for each in requests:
        yield each.upper()


async def refuse(request: bytes, context: Any) -> bytes:
    await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not today")
    raise AssertionError("abort raises")


class Endless:
    """A method that only cancellation ends, and that tells when it was."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def serve(self, request: bytes, context: Any) -> bytes:
        self.entered.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        raise AssertionError("nobody sets the event")


@asynccontextmanager
async def connected(certificates: Any = None, **methods: Any) -> AsyncIterator[grpc.aio.Channel]:
    """A server of the given methods, and a channel to it; both by TLS if there are certificates."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, methods)])
    if certificates is None:
        port = server.add_insecure_port("127.0.0.1:0")
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
    else:
        pair = (certificates.server.key.read_bytes(), certificates.server.certificate.read_bytes())
        port = server.add_secure_port("localhost:0", grpc.ssl_server_credentials([pair]))
        trust = grpc.ssl_channel_credentials(certificates.authority.read_bytes())
        channel = grpc.aio.secure_channel(f"localhost:{port}", trust)
    await server.start()
    try:
        async with channel:
            yield channel
    finally:
        await server.stop(None)


def path(method: str) -> str:
    return f"/{SERVICE}/{method}"


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "tls"])
def test_unary_calls_at_once(run, certificates, encrypted) -> None:
    async def main() -> None:
        handler = grpc.unary_unary_rpc_method_handler(echo)
        async with connected(certificates if encrypted else None, Echo=handler) as channel:
            call = channel.unary_unary(path("Echo"))
            requests = [b"%d " % n * 200 for n in range(150)]
            assert await asyncio.gather(*map(call, requests)) == requests
            assert await call(b"x" * 2_000_000) == b"x" * 2_000_000

    run(main, keeps_open=True)


def test_streams_in_every_direction(run) -> None:
    async def main() -> None:
        async with connected(
            Count=grpc.unary_stream_rpc_method_handler(count),
            Total=grpc.stream_unary_rpc_method_handler(total),
            Chat=grpc.stream_stream_rpc_method_handler(chat),
        ) as channel:
            counted = [int(each) async for each in channel.unary_stream(path("Count"))(b"300")]
            assert counted == list(range(300))

            async def numbers() -> AsyncIterator[bytes]:
                for n in range(300):
                    yield b"%d" % n

            assert await channel.stream_unary(path("Total"))(numbers()) == b"44850"

            chatting = channel.stream_stream(path("Chat"))()
            for word in (b"ping", b"pong"):
                await chatting.write(word)
                assert await chatting.read() == word.upper()
            await chatting.done_writing()
            assert await chatting.read() is grpc.aio.EOF

    run(main, keeps_open=True)


def test_errors_deadlines_and_cancellation(run) -> None:
    async def main() -> None:
        endless = Endless()
        async with connected(
            Refuse=grpc.unary_unary_rpc_method_handler(refuse),
            Endless=grpc.unary_unary_rpc_method_handler(endless.serve),
        ) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await channel.unary_unary(path("Refuse"))(b"")
            assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
            assert refused.value.details() == "not today"

            with pytest.raises(grpc.aio.AioRpcError) as late:
                await channel.unary_unary(path("Endless"))(b"", timeout=0.05)
            assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            await endless.cancelled.wait()

            endless.entered.clear()
            endless.cancelled.clear()
            call = channel.unary_unary(path("Endless"))(b"")
            waiting = asyncio.ensure_future(call)
            await endless.entered.wait()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert call.cancelled()
            await endless.cancelled.wait()

    run(main, keeps_open=True)


def test_a_server_that_is_not_there_is_unavailable(run) -> None:
    async def main() -> None:
        async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
            with pytest.raises(grpc.aio.AioRpcError) as missing:
                await channel.unary_unary(path("Echo"))(b"", timeout=5)
            assert missing.value.code() is grpc.StatusCode.UNAVAILABLE

    run(main, keeps_open=True)
