"""TLS for tests: contexts with a certificate of their own, and a peer that works record by record."""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.support.net import LOOPBACK
from tests.support.protocols import Recorder

# Lives, and is removed, with the process.
_scratch = tempfile.TemporaryDirectory(prefix="tokioloop-tls-")


@functools.cache
def certificate() -> tuple[str, str]:
    """The paths of a self-signed certificate for localhost and of its key."""
    cert, key = str(Path(_scratch.name) / "cert.pem"), str(Path(_scratch.name) / "key.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout", key, "-out", cert],
        check=True, capture_output=True,
    )  # fmt: skip
    return cert, key


def server_context(version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """A server's context, of one version of TLS where that is given."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate())
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


def client_context() -> ssl.SSLContext:
    """A client's context that trusts every server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class RecordPeer:
    """A TLS client over a socket of its own: what it sends, and when, is up to the test."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self.sock = sock
        self.received = bytearray()
        self.has_close_notify = False
        self.has_eof = False
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing)

    def seal(self, data: bytes) -> bytes:
        """The records that carry `data`; they are not sent."""
        self.tls.write(data)
        return self._outgoing.read()

    def seal_close_notify(self) -> bytes:
        """The record that ends this side of the session; it is not sent."""
        try:
            self.tls.unwrap()
        except ssl.SSLError:
            pass
        return self._outgoing.read()

    async def send(self, raw: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, raw)

    async def handshake(self) -> None:
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                await self.send(self._outgoing.read())
                await self._receive()
            else:
                await self.send(self._outgoing.read())
                return

    async def read_until(self, condition: Callable[[RecordPeer], bool]) -> None:
        """Decrypt what comes until `condition(self)` holds."""
        while True:
            self._open()
            if condition(self):
                return
            assert not self.has_eof, "the connection ended before the condition held"
            await self._receive()

    def _open(self) -> None:
        try:
            while data := self.tls.read(1 << 16):
                self.received += data
            self.has_close_notify = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.has_close_notify = True

    async def _receive(self) -> None:
        data = await asyncio.get_running_loop().sock_recv(self.sock, 1 << 16)
        if data:
            self._incoming.write(data)
        self.has_eof |= not data


@asynccontextmanager
async def records(
    factory: Callable[[], Any] = Recorder, version: ssl.TLSVersion | None = None
) -> AsyncIterator[tuple[Any, RecordPeer]]:
    """`(protocol, peer)`: a server's protocol over TLS, connected, and the client's records."""
    loop = asyncio.get_running_loop()
    made: list[Any] = []

    def accepted() -> Any:
        made.append(factory())
        return made[-1]

    server = await loop.create_server(accepted, LOOPBACK, 0, ssl=server_context(version))
    sock = socket.socket()
    sock.setblocking(False)
    try:
        await loop.sock_connect(sock, server.sockets[0].getsockname())
        peer = RecordPeer(sock, client_context())
        await peer.handshake()
        while not (made and made[0].transport):
            await asyncio.sleep(0)
        yield made[0], peer
    finally:
        for protocol in made:
            if protocol.transport is not None:
                protocol.transport.abort()
                while protocol.calls[-1] != "connection_lost":
                    await asyncio.sleep(0)
        sock.close()
        server.close()


@asynccontextmanager
async def connected_over_tls(
    server_factory: Callable[[], Any] = Recorder, client_factory: Callable[[], Any] = Recorder
) -> AsyncIterator[tuple[Any, Any]]:
    """`(client's protocol, server's protocol)` of one connection, both of the running loop."""
    loop = asyncio.get_running_loop()
    made: list[Any] = []

    def accepted() -> Any:
        made.append(server_factory())
        return made[-1]

    server = await loop.create_server(accepted, LOOPBACK, 0, ssl=server_context())
    _, client = await loop.create_connection(
        client_factory, *server.sockets[0].getsockname(), ssl=client_context()
    )
    while not (made and made[0].transport):
        await asyncio.sleep(0)
    try:
        yield client, made[0]
    finally:
        for protocol in (client, made[0]):
            protocol.transport.abort()
            while protocol.calls[-1] != "connection_lost":
                await asyncio.sleep(0)
        server.close()
