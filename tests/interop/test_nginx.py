"""nginx in front of uvicorn on a Unix socket: kept-alive upstreams, uploads, WebSockets, HTTP/2."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
from interop_support.asgi_app import CHUNK, SUBPROTOCOL
from interop_support.http_client import HttpClient
from interop_support.loops import expected_class_name
from interop_support.processes import find_program


@pytest.fixture(params=["plain", "tls"])
def entrance(request, nginx, certificates):
    """How a client comes in: the port, and the TLS context where it needs one."""
    if request.param == "tls":
        return nginx.tls_port, certificates.client_context()
    return nginx.port, None


def test_the_application_answers_from_the_loop_under_test(entrance, nginx) -> None:
    port, tls = entrance
    with HttpClient(port, tls) as client:
        facts = client.request("/info").require_loop_under_test().json()
    assert facts["pid"] == nginx.upstream.process.pid
    assert facts["scheme"] == ("http" if tls is None else "https")
    assert facts["client"][0] == "127.0.0.1"


def test_many_clients_share_the_upstream_connections(entrance) -> None:
    port, tls = entrance

    def session(n: int) -> None:
        with HttpClient(port, tls) as client:
            for turn in range(5):
                body = f"client {n} turn {turn} ".encode() * 500
                response = client.request("/echo", method="POST", body=body)
                assert response.require_loop_under_test().body == body

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(session, range(40)))


def test_large_bodies_pass_both_ways(entrance) -> None:
    port, tls = entrance
    chunks = [CHUNK] * 96
    with HttpClient(port, tls) as client:
        assert client.request("/echo", method="POST", body=iter(chunks)).body == b"".join(chunks)
        assert client.request("/stream?128").body == CHUNK * 128


def test_curl_speaks_http2_to_it(nginx, certificates) -> None:
    curl = find_program("curl", package="curl")
    urls = [f"https://localhost:{nginx.tls_port}/stream?{n}" for n in (1, 5, 20)]
    result = subprocess.run(
        [curl, "--silent", "--fail", "--http2", "--cacert", certificates.authority,
         "--parallel", *urls],
        capture_output=True, timeout=9,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert len(result.stdout) == len(CHUNK) * 26


def test_websockets_pass_through(run, entrance) -> None:
    websockets = pytest.importorskip("websockets", exc_type=ImportError)
    port, tls = entrance
    scheme = "ws" if tls is None else "wss"

    async def main() -> None:
        async with websockets.connect(
            f"{scheme}://localhost:{port}/ws", ssl=tls, subprotocols=[SUBPROTOCOL], max_size=None
        ) as client:
            assert client.subprotocol == SUBPROTOCOL
            await client.send("loop")
            assert await client.recv() == expected_class_name()
            for n in range(100):
                await client.send(f"message {n}")
            assert [await client.recv() for _ in range(100)] == [f"message {n}" for n in range(100)]
            await client.send(CHUNK * 10)
            assert await client.recv() == CHUNK * 10

    run(main)
