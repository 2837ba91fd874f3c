"""ASGI servers on the running loop, in the process of the test: servers and clients share it."""

from __future__ import annotations

import asyncio
import importlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from interop_support.asgi_app import app
from interop_support.certificates import Certificates
from interop_support.loops import require_loop_under_test


@asynccontextmanager
async def serving_with_uvicorn(
    *, tls: Certificates | None = None, uds: Path | None = None, **options: Any
) -> AsyncIterator[int]:
    """Serve the test application by uvicorn; gives the port, or 0 on a Unix socket."""
    uvicorn = importlib.import_module("uvicorn")
    require_loop_under_test()
    if tls is not None:
        options |= {"ssl_certfile": tls.server.certificate, "ssl_keyfile": tls.server.key}
    address = {"host": "127.0.0.1", "port": 0} if uds is None else {"uds": str(uds)}
    config = uvicorn.Config(app, **address, loop="none", log_level="warning", **options)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    try:
        while not server.started:
            assert not serving.done(), "uvicorn ended before it had started"
            await asyncio.sleep(0.005)
        name = server.servers[0].sockets[0].getsockname()
        yield 0 if uds is not None else name[1]
    finally:
        server.should_exit = True
        await serving


@asynccontextmanager
async def serving_with_hypercorn(*, tls: Certificates | None = None) -> AsyncIterator[int]:
    """Serve the test application by hypercorn (HTTP/1.1 and, by ALPN, HTTP/2); gives the port."""
    hypercorn = pytest.importorskip("hypercorn", exc_type=ImportError)
    serve = importlib.import_module("hypercorn.asyncio").serve
    require_loop_under_test()
    config = hypercorn.Config()
    # A listening socket made here is the way to learn an ephemeral port; hypercorn then owns it.
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    config.bind = [f"fd://{listener.detach()}"]
    config.accesslog = config.errorlog = None
    if tls is not None:
        config.certfile, config.keyfile = str(tls.server.certificate), str(tls.server.key)
    shutdown = asyncio.Event()
    serving = asyncio.create_task(serve(app, config, shutdown_trigger=shutdown.wait))
    try:
        yield port
    finally:
        shutdown.set()
        await serving
