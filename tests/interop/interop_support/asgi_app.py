"""The ASGI application that every server under test serves: written to the ASGI text, no framework.

Each response names the class of the loop that produced it, so that a client in another process can
tell a server that fell back to another loop.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from typing import Any

from interop_support.loops import require_loop_under_test, running_class_name

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

LOOP_HEADER = "x-loop"
CHUNK = bytes(range(256)) * 256  # 64 KiB, every byte value
SUBPROTOCOL = "interop.v1"


async def app(scope: Message, receive: Receive, send: Send) -> None:
    handlers = {"lifespan": _lifespan, "http": _http, "websocket": _websocket}
    await handlers[scope["type"]](scope, receive, send)


async def _lifespan(scope: Message, receive: Receive, send: Send) -> None:
    assert (await receive())["type"] == "lifespan.startup"
    try:
        require_loop_under_test()
    except AssertionError as error:
        await send({"type": "lifespan.startup.failed", "message": str(error)})
        return
    await send({"type": "lifespan.startup.complete"})
    assert (await receive())["type"] == "lifespan.shutdown"
    print("lifespan.shutdown received", flush=True)
    await send({"type": "lifespan.shutdown.complete"})


async def _http(scope: Message, receive: Receive, send: Send) -> None:
    routes = {
        "/info": _info,
        "/echo": _echo,
        "/stream": _stream,
        "/hold": _hold,
        "/boom": _boom,
    }
    route = routes.get(scope["path"])
    if route is None:
        await _respond(send, b"no such path", status=404)
    else:
        await route(scope, receive, send)


async def _info(scope: Message, receive: Receive, send: Send) -> None:
    """What the server saw of the request, and the process that answers."""
    fields = ("scheme", "http_version", "method", "client", "server")
    headers = {name.decode(): value.decode() for name, value in scope["headers"]}
    facts = {"pid": os.getpid(), "headers": headers, **{name: scope.get(name) for name in fields}}
    await _respond(send, json.dumps(facts).encode())


async def _echo(scope: Message, receive: Receive, send: Send) -> None:
    body = bytearray()
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    await _respond(send, bytes(body))


async def _stream(scope: Message, receive: Receive, send: Send) -> None:
    """`?n` chunks of 64 KiB, each its own message: more than any write buffer holds."""
    await _start(send)
    for _ in range(int(scope["query_string"] or b"1")):
        await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _hold(scope: Message, receive: Receive, send: Send) -> None:
    """Half a response at once, the other half when the client has finished its own body."""
    await _start(send)
    await send({"type": "http.response.body", "body": b"first half, ", "more_body": True})
    while (await receive()).get("more_body", False):
        pass
    await send({"type": "http.response.body", "body": b"second half"})


async def _boom(scope: Message, receive: Receive, send: Send) -> None:
    raise RuntimeError("the application failed on purpose")


async def _websocket(scope: Message, receive: Receive, send: Send) -> None:
    """Echo text and bytes; `close` ends it with code 4001, `loop` names the loop."""
    assert (await receive())["type"] == "websocket.connect"
    offered = scope.get("subprotocols", [])
    chosen = SUBPROTOCOL if SUBPROTOCOL in offered else None
    await send({"type": "websocket.accept", "subprotocol": chosen})
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return
        text = message.get("text")
        if text == "close":
            await send({"type": "websocket.close", "code": 4001, "reason": "asked to"})
            return
        if text == "loop":
            text = running_class_name()
        payload = {"text": text} if text is not None else {"bytes": message["bytes"]}
        await send({"type": "websocket.send", **payload})


async def _respond(send: Send, body: bytes, *, status: int = 200) -> None:
    await _start(send, status=status, length=len(body))
    await send({"type": "http.response.body", "body": body})


async def _start(send: Send, *, status: int = 200, length: int | None = None) -> None:
    headers = [(LOOP_HEADER.encode(), running_class_name().encode())]
    if length is not None:
        headers.append((b"content-length", str(length).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await asyncio.sleep(0)
