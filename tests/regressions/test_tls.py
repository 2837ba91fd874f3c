"""TLS: closing does not wait for the peer's data, buffered bytes move into start_tls, any context."""

from __future__ import annotations

import asyncio
import mmap
import socket
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.net import LOOPBACK, settled
from tests.support.protocols import Recorder

pytestmark = pytest.mark.flavours(
    "asyncio", "tokioloop", reason="the peers have the defects these tests are about"
)
Loop = asyncio.AbstractEventLoop


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder: Path = tmp_path_factory.mktemp("tls")
    cert, key = str(folder / "cert.pem"), str(folder / "key.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout", key, "-out", cert],
        check=True, capture_output=True,
    )  # fmt: skip
    return cert, key


@pytest.fixture
def server_context(certificate: tuple[str, str]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


@pytest.fixture
def client_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


# 3.10's SSLProtocol tells a writer neither that the peer has closed nor to pause once it shuts down,
# so a writer like this one goes on for ever there, on whichever loop the last buffer drains late.
@pytest.mark.min_python(3, 11)
def test_a_client_that_closes_stops_a_server_that_streams(
    loop: Loop, server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    class Streams(Recorder):
        """Writes for ever, as fast as it is taken."""

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.resume_writing()

        def resume_writing(self) -> None:
            while not self.is_lost and not self.transport.is_closing():
                self.transport.write(bytes(1 << 16))
                if self.calls[-1] == "pause_writing":
                    self.calls.append("waits")
                    return

    async def main() -> None:
        made: list[Streams] = []

        def factory() -> Streams:
            made.append(Streams())
            return made[-1]

        server = await loop.create_server(factory, LOOPBACK, 0, ssl=server_context)
        transport, protocol = await loop.create_connection(
            Recorder, *server.sockets[0].getsockname(), ssl=client_context
        )
        await protocol.until_received(1 << 18)
        transport.close()
        await asyncio.wait_for(protocol.until_lost(), 5)
        transport.abort()
        made[0].transport.abort()
        await made[0].until_lost()
        server.close()
        await settled()

    loop.run_until_complete(main())


def test_a_reset_by_a_tls_peer_ends_the_connection(
    loop: Loop, server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    async def main() -> None:
        async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.transport.abort()

        server = await asyncio.start_server(serve, LOOPBACK, 0, ssl=server_context)
        _reader, writer = await asyncio.open_connection(
            *server.sockets[0].getsockname(), ssl=client_context
        )

        async def pump() -> None:
            while True:
                writer.write(bytes(1 << 16))
                await writer.drain()

        with pytest.raises((ConnectionError, ssl.SSLError)):
            await asyncio.wait_for(pump(), 10)
        writer.transport.abort()
        server.close()
        await settled()

    loop.run_until_complete(main())


@pytest.mark.min_python(3, 14)
@pytest.mark.parametrize("writing_paused", [False, True])
def test_bytes_that_came_before_start_tls_are_part_of_the_handshake(
    loop: Loop,
    server_context: ssl.SSLContext,
    client_context: ssl.SSLContext,
    writing_paused: bool,
) -> None:
    async def main() -> None:
        served = loop.create_future()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                line = await reader.readline()
                if writing_paused:
                    writer.transport.set_write_buffer_limits(0)
                await writer.start_tls(server_context)
                served.set_result((line, await reader.readline()))
                writer.close()
            except BaseException as exc:
                served.set_exception(exc)

        server = await asyncio.start_server(serve, LOOPBACK, 0)
        raw = socket.create_connection(server.sockets[0].getsockname())

        def client() -> None:
            # One segment holds the plain line and the first bytes of the handshake.
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            secured = client_context.wrap_bio(incoming, outgoing)
            with pytest.raises(ssl.SSLWantReadError):
                secured.do_handshake()
            raw.sendall(b"PROXY line\n" + outgoing.read())
            while True:
                incoming.write(raw.recv(1 << 16))
                try:
                    secured.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    pass
            secured.write(b"secret\n")
            raw.sendall(outgoing.read())

        await loop.run_in_executor(None, client)
        assert await asyncio.wait_for(served, 5) == (b"PROXY line\n", b"secret\n")
        raw.close()
        server.close()
        await settled()
        await loop.shutdown_default_executor()

    loop.run_until_complete(main())


def test_writelines_takes_what_write_takes(
    loop: Loop, server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    async def main() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            received.set_result(await reader.readexactly(12))
            writer.close()

        received = loop.create_future()
        server = await asyncio.start_server(serve, LOOPBACK, 0, ssl=server_context)
        _reader, writer = await asyncio.open_connection(
            *server.sockets[0].getsockname(), ssl=client_context
        )
        with mmap.mmap(-1, 3) as mapped:
            mapped[:] = b"abc"
            view = memoryview(mapped)
            writer.writelines([b"123", bytearray(b"456"), memoryview(b"789"), view])
            await writer.drain()
            view.release()
        assert await received == b"123456789abc"
        writer.close()
        server.close()
        await settled()

    loop.run_until_complete(main())


# In 3.10 a TLS transport warns although its connection is lost.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_the_settings_of_the_users_context_hold(
    loop: Loop, server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    names: list[str | None] = []
    server_context.sni_callback = lambda _sock, name, _context: names.append(name)
    server_context.minimum_version = ssl.TLSVersion.TLSv1_2
    server_context.maximum_version = ssl.TLSVersion.TLSv1_2

    async def main() -> None:
        server = await loop.create_server(Recorder, LOOPBACK, 0, ssl=server_context)
        transport, protocol = await loop.create_connection(
            Recorder, *server.sockets[0].getsockname(), ssl=client_context,
            server_hostname="some.example",
        )  # fmt: skip
        assert transport.get_extra_info("ssl_object").version() == "TLSv1.2"
        assert names == ["some.example"]
        transport.close()
        await protocol.until_lost()
        server.close()
        await settled()

    loop.run_until_complete(main())


def test_a_cancelled_handshake_closes_the_connection(
    loop: Loop, client_context: ssl.SSLContext
) -> None:
    async def main() -> None:
        with socket.create_server((LOOPBACK, 0)) as silent:
            task = loop.create_task(
                loop.create_connection(Recorder, *silent.getsockname(), ssl=client_context)
            )
            await settled()
            peer, _ = silent.accept()
            with peer:
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                await settled()
                peer.settimeout(5)
                while peer.recv(1 << 16):
                    pass

    loop.run_until_complete(main())


CHANGES: dict[str, tuple[Any, ...]] = {
    "write": (b"two",),
    "writelines": ([b"two"],),
    "close": (),
    "abort": (),
    "pause_reading": (),
    "resume_reading": (),
    "set_protocol": (asyncio.Protocol(),),
    "set_write_buffer_limits": (0,),
    "set_read_buffer_limits": (0,),
}


@pytest.mark.min_python(3, 11)
@pytest.mark.flavours("tokioloop", reason="asyncio corrupts its state then")
@pytest.mark.parametrize("method", CHANGES)
def test_another_thread_is_refused_before_anything_happens(
    loop: Loop, server_context: ssl.SSLContext, client_context: ssl.SSLContext, method: str
) -> None:
    async def main() -> None:
        made: list[Recorder] = []

        def factory() -> Recorder:
            made.append(Recorder())
            return made[-1]

        server = await loop.create_server(factory, LOOPBACK, 0, ssl=server_context)
        transport, protocol = await loop.create_connection(
            Recorder, *server.sockets[0].getsockname(), ssl=client_context
        )
        call = getattr(transport, method)
        with pytest.raises(RuntimeError, match=rf"{method}\(\) was called from another thread"):
            await asyncio.to_thread(call, *CHANGES[method])
        assert not transport.is_closing()
        assert transport.is_reading()
        transport.write(b"three")
        assert await made[0].until_received(5) == b"three"
        transport.abort()
        await protocol.until_lost()
        await made[0].until_lost()
        server.close()

    loop.run_until_complete(main())
