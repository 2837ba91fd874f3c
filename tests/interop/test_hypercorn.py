"""hypercorn inside the test's loop: asyncio streams, TLS with ALPN, HTTP/2 and WebSockets."""

from __future__ import annotations

import asyncio

import pytest
from interop_support.asgi_app import CHUNK, LOOP_HEADER
from interop_support.http_client import fetch
from interop_support.in_process import serving_with_hypercorn
from interop_support.loops import expected_class_name
from interop_support.processes import find_program

pytest.importorskip("hypercorn", exc_type=ImportError)


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "tls"])
def test_http1_requests(run, certificates, encrypted) -> None:
    tls = certificates.client_context() if encrypted else None

    async def main() -> None:
        async with serving_with_hypercorn(tls=certificates if encrypted else None) as port:
            info = await asyncio.to_thread(fetch, port, "/info", tls=tls)
            facts = info.require_loop_under_test().json()
            assert facts["scheme"] == ("https" if encrypted else "http")
            requests = [
                asyncio.to_thread(
                    fetch, port, "/echo", tls=tls, method="POST", body=b"%d" % n * 9000
                )
                for n in range(20)
            ]
            responses = await asyncio.gather(*requests)
            assert [response.body for response in responses] == [
                b"%d" % n * 9000 for n in range(20)
            ]
            streamed = await asyncio.to_thread(fetch, port, "/stream?32", tls=tls)
            assert streamed.body == CHUNK * 32

    run(main)


def test_http2_streams_share_a_connection(run, certificates) -> None:
    httpx = pytest.importorskip("httpx", exc_type=ImportError)
    pytest.importorskip("h2", exc_type=ImportError)

    async def main() -> None:
        async with (
            serving_with_hypercorn(tls=certificates) as port,
            httpx.AsyncClient(
                http2=True,
                verify=certificates.client_context(),
                base_url=f"https://localhost:{port}",
            ) as client,
        ):
            responses = await asyncio.gather(
                *(client.post("/echo", content=b"%d" % n * 5000) for n in range(30)),
                *(client.get("/stream?8") for _ in range(5)),
            )
            assert {response.http_version for response in responses} == {"HTTP/2"}
            assert {response.headers[LOOP_HEADER] for response in responses} == {
                expected_class_name()
            }
            echoed = [response.content for response in responses[:30]]
            assert echoed == [b"%d" % n * 5000 for n in range(30)]
            assert {response.content for response in responses[30:]} == {CHUNK * 8}

    run(main)


def test_curl_speaks_http2_to_it(run, certificates) -> None:
    pytest.importorskip("h2", exc_type=ImportError)
    curl = find_program("curl", package="curl")

    async def main() -> None:
        async with serving_with_hypercorn(tls=certificates) as port:
            process = await asyncio.create_subprocess_exec(
                curl, "--silent", "--show-error", "--http2", "--cacert", certificates.authority,
                "--write-out", "%{stderr}%{http_version}", f"https://localhost:{port}/stream?40",
                stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
            body, version = await process.communicate()
            assert process.returncode == 0, version
            assert version == b"2"
            assert body == CHUNK * 40

    run(main)


def test_websockets_over_tls(run, certificates) -> None:
    websockets = pytest.importorskip("websockets", exc_type=ImportError)

    async def main() -> None:
        async with (
            serving_with_hypercorn(tls=certificates) as port,
            websockets.connect(
                f"wss://localhost:{port}/ws", ssl=certificates.client_context(), max_size=None
            ) as client,
        ):
            await client.send("loop")
            assert await client.recv() == expected_class_name()
            await client.send(CHUNK * 12)
            assert await client.recv() == CHUNK * 12
            await client.send("close")
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await client.recv()
            assert closed.value.rcvd.code == 4001

    # On asyncio too, hypercorn reads on after its own close_notify.
    run(main, known_report="APPLICATION_DATA_AFTER_CLOSE_NOTIFY")
