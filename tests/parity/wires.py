"""Protocols that tell a trace what happens to them, and connections to plain sockets."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from tests.support.net import listening_socket, socket_pair

from .harness import Trace

PEER_TIMEOUT = 5.0
KINDS = ("tcp", "accepted", "unix")


class Told(asyncio.Protocol):
    """Tells every call but `data_received`, whose cuts are chance; the bytes are in `received`.

    `quirks` maps the name of a callback to what it does after it has been told: a function of
    the protocol, or an exception to raise. `eof` is what eof_received returns.
    """

    def __init__(self, trace: Trace, eof: Any = None, tell: bool = True, **quirks: Any) -> None:
        self.trace = trace if tell else Trace()
        self.eof = eof
        self.quirks = quirks
        self.transport: Any = None
        self.received = bytearray()
        self.calls: list[str] = []
        self.lost = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.tell("connection_made")

    def data_received(self, data: bytes) -> None:
        self.received += data
        self.calls.append("data_received")
        self._quirk("data_received")

    def eof_received(self) -> Any:
        self.tell("eof_received")
        return self.eof

    def pause_writing(self) -> None:
        self.tell("pause_writing")

    def resume_writing(self) -> None:
        self.tell("resume_writing")

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost = True
        self.tell("connection_lost", exc)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.received += data
        self.tell("datagram_received", data, addr)

    def error_received(self, exc: BaseException) -> None:
        self.tell("error_received", exc)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self.received += data
        self.calls.append(f"pipe_data_received {fd}")

    def pipe_connection_lost(self, fd: int, exc: BaseException | None) -> None:
        self.calls.append(f"pipe_connection_lost {fd}")

    def process_exited(self) -> None:
        self.calls.append("process_exited")

    def tell(self, call: str, *values: object) -> None:
        self.calls.append(call)
        self.trace(call, *values)
        self._quirk(call)

    def _quirk(self, call: str) -> None:
        quirk = self.quirks.get(call)
        if isinstance(quirk, BaseException):
            raise quirk
        if quirk is not None:
            quirk(self)


class ToldBuffered(asyncio.BufferedProtocol):
    """Receives into its own buffer; `get` replaces what get_buffer gives."""

    def __init__(
        self, trace: Trace, size: int = 4096, get: Callable[[int], Any] | None = None
    ) -> None:
        self.trace = trace
        self.buffer = bytearray(size)
        self.get = get
        self.received = bytearray()
        self.lost = False
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.trace("connection_made")

    def get_buffer(self, sizehint: int) -> Any:
        return self.buffer if self.get is None else self.get(sizehint)

    def buffer_updated(self, nbytes: int) -> None:
        self.received += self.buffer[:nbytes]

    def eof_received(self) -> None:
        self.trace("eof_received")

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost = True
        self.trace("connection_lost", exc)


async def until(condition: Callable[[], Any], limit: float = 4.0) -> None:
    """Returns once `condition()` holds; raises TimeoutError when it never does."""
    deadline = time.monotonic() + limit
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("what the probe waited for did not happen")
        await asyncio.sleep(0.001)


async def turns(count: int) -> None:
    """That many turns of the loop."""
    for _ in range(count):
        await asyncio.sleep(0)


@asynccontextmanager
async def wired(
    loop: asyncio.AbstractEventLoop, factory: Callable[[], Any], kind: str = "tcp"
) -> AsyncIterator[tuple[Any, Any, socket.socket]]:
    """`(transport, protocol, peer)`: one end belongs to the loop, the other is a plain socket."""
    if kind == "unix":
        ours, peer = socket.socketpair()
    else:
        with listening_socket() as listener:
            ours = socket.create_connection(listener.getsockname())
            peer, _ = listener.accept()
    ours.setblocking(False)
    peer.settimeout(PEER_TIMEOUT)
    with ours, peer:
        if kind == "tcp":
            transport, protocol = await loop.create_connection(factory, sock=ours)
        elif kind == "accepted":
            transport, protocol = await loop.connect_accepted_socket(factory, ours)
        else:
            transport, protocol = await loop.create_unix_connection(factory, sock=ours)
        try:
            yield transport, protocol, peer
        finally:
            # asyncio: abort() after a close() that had something to flush is an AttributeError.
            with suppress(AttributeError):
                transport.abort()
            await turns(3)


async def read_all(loop: asyncio.AbstractEventLoop, peer: socket.socket) -> bytes:
    """What the peer gets until the end of file; the loop runs meanwhile."""
    peer.setblocking(False)
    received = bytearray()
    while data := await loop.sock_recv(peer, 1 << 18):
        received += data
    return bytes(received)


def fill(transport: Any, beyond: int = 1 << 18) -> int:
    """Writes until the kernel is full and `beyond` bytes are queued; how many were written."""
    written = 0
    chunk = bytes(1 << 16)
    while transport.get_write_buffer_size() < beyond:
        transport.write(chunk)
        written += len(chunk)
    return written


@lru_cache(maxsize=1)
def certificate() -> tuple[str, str]:
    """Paths of a self-signed certificate for localhost and of its key."""
    folder = Path(tempfile.mkdtemp(prefix="parity-tls-"))
    key, cert = str(folder / "key.pem"), str(folder / "cert.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out", cert],
        check=True, capture_output=True,
    )  # fmt: skip
    return cert, key


def server_tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate())
    return context


def client_tls(verify: bool = False) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=certificate()[0])
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


@asynccontextmanager
async def scratch() -> AsyncIterator[Path]:
    """A folder that is gone afterwards, with a path short enough for a Unix socket."""
    with tempfile.TemporaryDirectory(prefix="par-", dir="/tmp") as folder:
        yield Path(folder)


def pipe_ends() -> tuple[Any, Any]:
    """Reading and writing end of a pipe as unbuffered file objects."""
    reader, writer = os.pipe()
    return os.fdopen(reader, "rb", 0), os.fdopen(writer, "wb", 0)


__all__ = [
    "KINDS", "PEER_TIMEOUT", "Told", "ToldBuffered", "certificate", "client_tls", "fill",
    "pipe_ends", "read_all", "scratch", "server_tls", "socket_pair", "turns", "until", "wired",
]  # fmt: skip
