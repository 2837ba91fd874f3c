"""uvicorn: with `--loop module:factory` as its own process, and served inside a test's loop."""

from __future__ import annotations

import asyncio
import signal
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest
from interop_support.asgi_app import CHUNK
from interop_support.asgi_servers import start_uvicorn
from interop_support.http_client import HttpClient, fetch
from interop_support.in_process import serving_with_uvicorn
from interop_support.loops import expected_class_name

uvicorn = pytest.importorskip("uvicorn", exc_type=ImportError)

PARSERS = ["h11", "httptools"]
WEBSOCKET_IMPLEMENTATIONS = ["websockets", "websockets-sansio", "wsproto"]


def test_the_command_line_serves_tls_on_the_loop_under_test(uvicorn_tls, certificates) -> None:
    with HttpClient(uvicorn_tls.port, certificates.client_context()) as client:
        facts = client.request("/info").require_loop_under_test().json()
        assert facts["scheme"] == "https"
        assert facts["pid"] == uvicorn_tls.process.pid
        body = bytes(range(256)) * 4096
        assert client.request("/echo", method="POST", body=body).body == body
        chunks = [CHUNK] * 32
        assert client.request("/echo", method="POST", body=iter(chunks)).body == b"".join(chunks)
        assert client.request("/stream?64").body == CHUNK * 64
        assert client.request("/boom").status == 500
        assert client.request("/nowhere").status == 404


def test_many_tls_clients_at_once(uvicorn_tls, certificates) -> None:
    context = certificates.client_context()

    def session(n: int) -> None:
        with HttpClient(uvicorn_tls.port, context) as client:
            for turn in range(3):
                body = f"client {n} turn {turn} ".encode() * 1000
                assert client.request("/echo", method="POST", body=body).body == body

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(session, range(40)))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda each: each.name)
def test_a_signal_lets_a_request_in_flight_finish(workspace, number) -> None:
    server = start_uvicorn(workspace)
    try:
        with socket.create_connection(("127.0.0.1", server.port), timeout=8) as client:
            client.sendall(
                b"POST /hold HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n"
                b"Connection: close\r\n\r\nbo"
            )
            received = b""
            while b"first half" not in received:
                received += client.recv(4096)
            server.process.signal(number)
            server.process.wait_until(lambda: "Shutting down" in server.process.output())
            client.sendall(b"dy")
            while part := client.recv(4096):
                received += part
            assert b"second half" in received
        server.process.wait()
        assert "lifespan.shutdown received" in server.process.output()
    finally:
        server.process.stop()


@pytest.mark.parametrize("parser", PARSERS)
def test_requests_inside_the_loop_of_the_test(run, parser) -> None:
    if parser == "httptools":
        pytest.importorskip("httptools", exc_type=ImportError)

    async def main() -> None:
        async with serving_with_uvicorn(http=parser) as port:
            small = [asyncio.to_thread(fetch, port, "/info") for _ in range(30)]
            large = [asyncio.to_thread(fetch, port, "/stream?16") for _ in range(10)]
            responses = await asyncio.gather(*small, *large)
            for response in responses:
                response.require_loop_under_test()
            assert {response.body for response in responses[30:]} == {CHUNK * 16}

    run(main)


@pytest.mark.parametrize("parser", PARSERS)
def test_pipelined_requests_are_answered_in_order(run, parser) -> None:
    if parser == "httptools":
        pytest.importorskip("httptools", exc_type=ImportError)

    async def main() -> None:
        async with serving_with_uvicorn(http=parser) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for n in range(20):
                body = str(n).encode()
                writer.write(
                    b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s"
                    % (len(body), body)
                )
            for n in range(20):
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200")
                assert await reader.readexactly(len(str(n))) == str(n).encode()
            writer.close()
            await writer.wait_closed()

    run(main)


@pytest.mark.filterwarnings("ignore:.*websockets", "ignore:remove second argument")
@pytest.mark.parametrize("implementation", WEBSOCKET_IMPLEMENTATIONS)
def test_websockets_over_tls(run, certificates, implementation) -> None:
    websockets = pytest.importorskip("websockets", exc_type=ImportError)
    if implementation == "wsproto":
        pytest.importorskip("wsproto", exc_type=ImportError)
    if implementation not in uvicorn.config.WS_PROTOCOLS:
        pytest.skip(f"uvicorn {uvicorn.__version__} does not offer {implementation!r}")

    async def main() -> None:
        async with (
            serving_with_uvicorn(tls=certificates, ws=implementation) as port,
            websockets.connect(
                f"wss://localhost:{port}/ws", ssl=certificates.client_context(), max_size=None
            ) as client,
        ):
            await client.send("loop")
            assert await client.recv() == expected_class_name()
            for size in (0, 125, 126, 65_536, 1_000_000):
                await client.send(b"\x01" * size)
                assert await client.recv() == b"\x01" * size
            await client.send("close")
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await client.recv()
            assert closed.value.rcvd.code == 4001

    run(main)


def test_a_client_that_leaves_in_mid_response_is_noticed(run) -> None:
    async def main() -> None:
        async with serving_with_uvicorn() as port:
            for _ in range(5):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"GET /stream?400 HTTP/1.1\r\nHost: localhost\r\n\r\n")
                await reader.readexactly(100_000)
                writer.transport.abort()
            response = await asyncio.to_thread(fetch, port, "/info")
            response.require_loop_under_test()

    run(main)
