"""aiohttp as server and client on one loop: TLS, sendfile, uploads, WebSockets, an HTTPS proxy."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from interop_support.certificates import CLIENT_NAME
from interop_support.loops import expected_class_name, require_loop_under_test, running_class_name
from interop_support.tunnel import tls_connect_proxy

pytest.importorskip("aiohttp", exc_type=ImportError)

import aiohttp
from aiohttp import web

FILE_SIZE = 3 * 1024 * 1024 + 17


@pytest.fixture(scope="module")
def served_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("aiohttp") / "served.bin"
    path.write_bytes((bytes(range(251)) * (FILE_SIZE // 251 + 1))[:FILE_SIZE])
    return path


def application(served_file: Path) -> web.Application:
    async def info(request: web.Request) -> web.Response:
        require_loop_under_test()
        certificate = request.transport.get_extra_info("peercert")
        subject = {key: value for ((key, value),) in certificate["subject"]} if certificate else {}
        return web.json_response(
            {
                "loop": running_class_name(),
                "secure": request.secure,
                "client": subject.get("commonName"),
            }
        )

    async def upload(request: web.Request) -> web.Response:
        sizes = {}
        async for part in await request.multipart():
            sizes[part.name] = len(await part.read())
        return web.json_response(sizes)

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(int(request.query["chunks"])):
            await response.write(b"s" * 65_536)
        await response.write_eof()
        return response

    async def file(request: web.Request) -> web.FileResponse:
        return web.FileResponse(served_file)

    async def echo(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(max_msg_size=0)
        await socket.prepare(request)
        async for message in socket:
            if message.type == aiohttp.WSMsgType.TEXT:
                await socket.send_str(message.data)
            elif message.type == aiohttp.WSMsgType.BINARY:
                await socket.send_bytes(message.data)
        return socket

    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.add_routes(
        [
            web.get("/info", info),
            web.post("/upload", upload),
            web.get("/stream", stream),
            web.get("/file", file),
            web.get("/ws", echo),
        ]
    )
    return app


@asynccontextmanager
async def serving(app: web.Application, *, tls=None, path=None) -> AsyncIterator[str]:
    """Serve on an ephemeral port, or on the Unix socket `path`; gives the base URL."""
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        if path is not None:
            await web.UnixSite(runner, path).start()
            yield "http://localhost"
        else:
            await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
            yield f"http{'s' if tls else ''}://localhost:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.fixture(params=["plain", "tls"])
def security(request, certificates):
    """The server's context and what the client's `ssl` argument is."""
    if request.param == "plain":
        return None, True
    return certificates.server_context(), certificates.client_context()


def test_requests_uploads_and_streams(run, security, served_file) -> None:
    server_tls, client_tls = security

    async def main() -> None:
        async with (
            serving(application(served_file), tls=server_tls) as base,
            aiohttp.ClientSession(base, connector=aiohttp.TCPConnector(ssl=client_tls)) as session,
        ):
            async with session.get("/info") as response:
                facts = await response.json()
                assert facts["loop"] == expected_class_name()
                assert facts["secure"] == (server_tls is not None)
            form = aiohttp.FormData()
            form.add_field("small", b"tiny", filename="small")
            form.add_field("large", b"l" * 2_000_000, filename="large")
            async with session.post("/upload", data=form) as response:
                assert await response.json() == {"small": 4, "large": 2_000_000}

            async def read_stream(chunks: int) -> int:
                async with session.get("/stream", params={"chunks": chunks}) as response:
                    return len(await response.read())

            sizes = await asyncio.gather(*map(read_stream, range(1, 25)))
            assert sizes == [65_536 * chunks for chunks in range(1, 25)]

    run(main)


def test_files_are_sent_whole_and_by_range(run, security, served_file) -> None:
    """`FileResponse` goes through `loop.sendfile`, after headers written to the same transport."""
    server_tls, client_tls = security
    content = served_file.read_bytes()

    async def main() -> None:
        async with (
            serving(application(served_file), tls=server_tls) as base,
            aiohttp.ClientSession(base, connector=aiohttp.TCPConnector(ssl=client_tls)) as session,
        ):
            for _ in range(2):  # the second request goes over the kept-alive connection
                async with session.get("/file") as response:
                    assert await response.read() == content
            headers = {"Range": "bytes=1000000-2999999"}
            async with session.get("/file", headers=headers) as response:
                assert response.status == 206
                assert await response.read() == content[1_000_000:3_000_000]

    run(main)


def test_websockets(run, security, served_file) -> None:
    server_tls, client_tls = security

    async def main() -> None:
        async with (
            serving(application(served_file), tls=server_tls) as base,
            aiohttp.ClientSession(base, connector=aiohttp.TCPConnector(ssl=client_tls)) as session,
            session.ws_connect("/ws", max_msg_size=0) as socket,
        ):
            for n in range(100):
                await socket.send_str(f"message {n}")
            assert [await socket.receive_str() for _ in range(100)] == [
                f"message {n}" for n in range(100)
            ]
            await socket.send_bytes(b"b" * 2_000_000)
            assert await socket.receive_bytes() == b"b" * 2_000_000

    run(main)


def test_unix_socket(run, tmp_path_factory, served_file, workspace) -> None:
    path = str(workspace / "aiohttp.sock")

    async def main() -> None:
        async with (
            serving(application(served_file), path=path),
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(path)) as session,
            session.get("http://localhost/file") as response,
        ):
            assert len(await response.read()) == FILE_SIZE

    run(main)


def test_client_certificates(run, certificates, served_file) -> None:
    async def main() -> None:
        tls = certificates.server_context(client_required=True)
        async with serving(application(served_file), tls=tls) as base:
            known = aiohttp.TCPConnector(ssl=certificates.client_context(with_certificate=True))
            async with aiohttp.ClientSession(base, connector=known) as session:
                assert (await read_info(session))["client"] == CLIENT_NAME
            unknown = aiohttp.TCPConnector(ssl=certificates.client_context())
            async with aiohttp.ClientSession(base, connector=unknown) as session:
                with pytest.raises(aiohttp.ClientError):
                    await session.get("/info")
            stranger = aiohttp.TCPConnector()  # does not know the authority
            async with aiohttp.ClientSession(base, connector=stranger) as session:
                with pytest.raises(aiohttp.ClientConnectorCertificateError):
                    await session.get("/info")

    run(main)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio allows TLS in TLS from 3.11 on")
def test_tls_through_an_https_proxy(run, certificates, served_file) -> None:
    async def main() -> None:
        client_tls = certificates.client_context()
        async with (
            serving(application(served_file), tls=certificates.server_context()) as base,
            tls_connect_proxy(certificates) as proxy,
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=client_tls)) as session,
            session.get(f"{base}/file", proxy=proxy.url) as response,
        ):
            assert await response.read() == served_file.read_bytes()
            assert proxy.tunnels == 1

    run(main)


def test_requests_cancelled_at_every_turn_leave_nothing_behind(run, security, served_file) -> None:
    server_tls, client_tls = security

    async def main() -> None:
        async with serving(application(served_file), tls=server_tls) as base:
            for turns in range(25):
                connector = aiohttp.TCPConnector(ssl=client_tls)
                async with aiohttp.ClientSession(base, connector=connector) as session:
                    request = asyncio.create_task(read_info(session))
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    request.cancel()
                    await asyncio.wait([request])
            connector = aiohttp.TCPConnector(ssl=client_tls)
            async with aiohttp.ClientSession(base, connector=connector) as session:
                assert (await read_info(session))["loop"] == expected_class_name()

    run(main)


async def read_info(session: aiohttp.ClientSession) -> dict[str, object]:
    async with session.get("/info") as response:
        return await response.json()
