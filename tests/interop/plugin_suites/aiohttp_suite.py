"""Coroutine tests as an aiohttp user writes them; run in a pytest of their own by each plugin."""

from __future__ import annotations

import asyncio

from aiohttp import WSMsgType, web
from interop_support.loops import expected_class_name, require_loop_under_test, running_class_name


def application() -> web.Application:
    async def info(request: web.Request) -> web.Response:
        return web.Response(text=running_class_name())

    async def echo(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            if message.type == WSMsgType.TEXT:
                await socket.send_str(message.data)
        return socket

    app = web.Application()
    app.add_routes([web.get("/", info), web.get("/ws", echo)])
    return app


async def test_client_fixture(aiohttp_client) -> None:
    require_loop_under_test()
    client = await aiohttp_client(application())
    async with client.get("/") as response:
        assert await response.text() == expected_class_name()


async def test_server_fixture(aiohttp_server, aiohttp_client) -> None:
    server = await aiohttp_server(application())
    client = await aiohttp_client(server)
    texts = await asyncio.gather(*(read(client) for _ in range(30)))
    assert set(texts) == {expected_class_name()}


async def test_websocket_through_the_client_fixture(aiohttp_client) -> None:
    client = await aiohttp_client(application())
    async with client.ws_connect("/ws") as socket:
        await socket.send_str("hello")
        assert await socket.receive_str() == "hello"


async def test_raw_server_fixture(aiohttp_raw_server, aiohttp_client) -> None:
    async def answer(request: web.BaseRequest) -> web.Response:
        require_loop_under_test()
        return web.Response(body=await request.read())

    client = await aiohttp_client(await aiohttp_raw_server(answer))
    async with client.post("/", data=b"x" * 500_000) as response:
        assert await response.read() == b"x" * 500_000


async def read(client) -> str:
    async with client.get("/") as response:
        return await response.text()
