"""Real web servers on a loop: uvicorn with httptools, and aiohttp.

`GET /1024` answers so many bytes of plain text, `GET /10240` about 10 KB of JSON that is encoded
for each request, as an application would.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
from collections.abc import Awaitable, Callable
from typing import Any

import server


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--loop", required=True)
    parser.add_argument("--mode", required=True, choices=sorted(MODES))
    parser.add_argument("--core", type=int, help="bind the process to this core")
    arguments = parser.parse_args()
    loop = server.prepared_loop(arguments.loop, arguments.core)
    loop.run_until_complete(MODES[arguments.mode]())


Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Scope]]
Send = Callable[[Scope], Awaitable[None]]


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """The ASGI application."""
    kind, body = content(scope["path"])
    length = str(len(body)).encode()
    headers = [(b"content-type", kind), (b"content-length", length)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def content(path: str) -> tuple[bytes, bytes]:
    """The content type and body of a path."""
    if path == "/10240":
        return b"application/json", json.dumps(DOCUMENT).encode()
    return b"text/plain", text(int(path[1:]))


@functools.cache
def text(size: int) -> bytes:
    """Plain text of so many bytes."""
    return b"x" * size


async def _uvicorn() -> None:
    import uvicorn

    listener = server.listening_socket()
    config = uvicorn.Config(
        application,
        http="httptools",
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="warning",
    )
    # Imports its protocols before the first request rather than with it.
    config.load()
    server.announce(server.place_of(listener))
    await uvicorn.Server(config).serve(sockets=[listener])


async def _aiohttp() -> None:
    from aiohttp import web

    async def handle(request: web.Request) -> web.Response:
        kind, body = content(request.path)
        return web.Response(body=body, content_type=kind.decode())

    app = web.Application()
    app.router.add_get("/{size}", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    listener = server.listening_socket()
    place = server.place_of(listener)
    await web.SockSite(runner, listener, backlog=server.BACKLOG).start()
    server.announce(place)
    await asyncio.get_running_loop().create_future()


# About 10 KB when encoded.
DOCUMENT = [
    {"id": number, "name": f"item {number}", "price": number * 1.25, "tags": ["a", "b", "c"]}
    for number in range(138)
]

MODES: dict[str, Callable[[], Awaitable[None]]] = {"uvicorn": _uvicorn, "aiohttp": _aiohttp}


if __name__ == "__main__":
    main()
