"""Real servers on the loop under test, in this process and in one of their own."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest


def required(name: str) -> Any:
    """A package that may have no wheel for this interpreter: skipped, and said so."""
    return pytest.importorskip(name, reason=f"{name} is not installed on this interpreter")


async def application(scope: Any, receive: Any, send: Any) -> None:
    """An ASGI application: echoes bodies, streams chunks, echoes WebSocket messages."""
    if scope["type"] == "websocket":
        await _echo_messages(receive, send)
        return
    assert scope["type"] == "http"
    body = b""
    more = True
    while more:
        event = await receive()
        body += event.get("body", b"")
        more = event.get("more_body", False)
    start = {"type": "http.response.start", "status": 200, "headers": []}
    if scope["path"] == "/chunks":
        await send(start)  # no content-length: chunked
        for number in range(50):
            await send(
                {
                    "type": "http.response.body",
                    "body": b"%06d\n" % number * 100,
                    "more_body": True,
                }
            )
            await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": b""})
    else:
        start["headers"] = [
            (b"content-length", b"%d" % len(body)),
            (b"x-client-port", b"%d" % scope["client"][1]),
        ]
        await send(start)
        await send({"type": "http.response.body", "body": body})


CHUNKS = b"".join(b"%06d\n" % number * 100 for number in range(50))


async def _echo_messages(receive: Any, send: Any) -> None:
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        await send(
            {"type": "websocket.send", "text": event.get("text"), "bytes": event.get("bytes")}
        )


@pytest.fixture
def uvicorn_server() -> Callable[[], Any]:
    """A context manager: uvicorn with httptools, serving `application`; gives its base URL."""
    uvicorn = required("uvicorn")
    required("httptools")

    @asynccontextmanager
    async def serve() -> AsyncIterator[str]:
        listener = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(
            application, http="httptools", loop="none", lifespan="off", log_level="warning"
        )
        server = uvicorn.Server(config)
        server.capture_signals = _no_signals  # the test runner keeps its own handlers
        serving = asyncio.ensure_future(server.serve(sockets=[listener]))
        while not server.started:
            await asyncio.sleep(0.001)
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving
            listener.close()

    return serve


@pytest.fixture
def aiohttp_server() -> Callable[[], Any]:
    """A context manager: aiohttp's server with the same resources; gives its base URL."""
    required("aiohttp")
    from aiohttp import WSMsgType, web

    async def echo(request: Any) -> Any:
        port = request.transport.get_extra_info("peername")[1]
        return web.Response(body=await request.read(), headers={"x-client-port": str(port)})

    async def chunks(request: Any) -> Any:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        for number in range(50):
            await response.write(b"%06d\n" % number * 100)
        await response.write_eof()
        return response

    async def messages(request: Any) -> Any:
        connection = web.WebSocketResponse()
        await connection.prepare(request)
        async for message in connection:
            if message.type == WSMsgType.TEXT:
                await connection.send_str(message.data)
            else:
                await connection.send_bytes(message.data)
        return connection

    @asynccontextmanager
    async def serve() -> AsyncIterator[str]:
        app = web.Application(client_max_size=1 << 24)
        app.router.add_route("*", "/", echo)
        app.router.add_get("/chunks", chunks)
        app.router.add_get("/messages", messages)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            yield f"127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()

    return serve


@pytest.fixture(params=["uvicorn", "aiohttp"])
def server(request: pytest.FixtureRequest) -> Callable[[], Any]:
    """Each of the two servers."""
    serve: Callable[[], Any] = request.getfixturevalue(f"{request.param}_server")
    return serve


@pytest.fixture
def run(loop: asyncio.AbstractEventLoop) -> Callable[[Awaitable[None]], None]:
    """Runs a test's body as a program would: with the clean-up that `asyncio.run` does."""

    def run_main(main: Awaitable[None]) -> None:
        asyncio.set_event_loop(loop)  # where a library still asks for it
        try:
            loop.run_until_complete(main)
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            asyncio.set_event_loop(None)

    return run_main


def _no_signals() -> Any:
    from contextlib import nullcontext

    return nullcontext()
