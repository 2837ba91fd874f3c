"""`python -m tokioloop`: what this installation is, and whether it works."""

from __future__ import annotations

import asyncio
import platform
import sys
import time

import tokioloop
from tokioloop import _core

__all__ = ["describe", "self_check"]

# More than one read, and more than a socket's buffers hold: both sides must wait for each other.
_ECHO_BYTES = 1024 * 1024
_TIME_LIMIT = 10.0


def describe() -> dict[str, str]:
    """Return what a report about this installation should say, in order."""
    return {
        "tokioloop": f"{tokioloop.__version__} ({_core.BUILD_PROFILE} build)",
        "python": f"{platform.python_implementation()} {platform.python_version()}"
        f" ({sys.executable})",
        "GIL": _gil(),
        "poller": _poller(),
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
    }


def self_check() -> float:
    """Echo a megabyte over loopback on a TokioLoop; return the seconds it took.

    Raises what goes wrong: OSError without a network, TimeoutError when bytes
    do not come back, RuntimeError when other bytes do.
    """
    started = time.perf_counter()
    tokioloop.run(asyncio.wait_for(_echo(), _TIME_LIMIT))
    return time.perf_counter() - started


async def _echo() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(64 * 1024):
            writer.write(data)
            await writer.drain()
        writer.close()

    payload = bytes(range(256)) * (_ECHO_BYTES // 256)
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        host, port = server.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(payload)
        writer.write_eof()
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
    finally:
        server.close()
        await server.wait_closed()
    if answer != payload:
        raise RuntimeError(f"{len(payload)} bytes were sent, {len(answer)} came back changed")


def _gil() -> str:
    is_enabled = getattr(sys, "_is_gil_enabled", None)
    if is_enabled is None:
        return "on (this interpreter has no other mode)"
    return "on" if is_enabled() else "off"


def _poller() -> str:
    return "epoll" if sys.platform.startswith("linux") else "kqueue"
