"""httpx, and so httpcore and AnyIO's sockets, against uvicorn on the same loop."""

from __future__ import annotations

import asyncio

import pytest
from interop_support.asgi_app import CHUNK, LOOP_HEADER
from interop_support.in_process import serving_with_uvicorn
from interop_support.loops import expected_class_name

httpx = pytest.importorskip("httpx", exc_type=ImportError)
pytest.importorskip("uvicorn", exc_type=ImportError)


def test_many_requests_over_tls(run, certificates) -> None:
    async def main() -> None:
        async with (
            serving_with_uvicorn(tls=certificates) as port,
            httpx.AsyncClient(
                verify=certificates.client_context(),
                base_url=f"https://localhost:{port}",
                limits=httpx.Limits(max_connections=10),
            ) as client,
        ):
            bodies = [f"request {n} ".encode() * 300 for n in range(80)]
            responses = await asyncio.gather(
                *(client.post("/echo", content=body) for body in bodies)
            )
            assert [response.content for response in responses] == bodies
            assert {response.headers[LOOP_HEADER] for response in responses} == {
                expected_class_name()
            }

    run(main)


def test_streams_both_ways(run, certificates) -> None:
    async def chunks():
        for _ in range(40):
            yield CHUNK

    async def main() -> None:
        async with (
            serving_with_uvicorn(tls=certificates) as port,
            httpx.AsyncClient(
                verify=certificates.client_context(), base_url=f"https://localhost:{port}"
            ) as client,
        ):
            response = await client.post("/echo", content=chunks())
            assert response.content == CHUNK * 40
            async with client.stream("GET", "/stream?40") as response:
                parts = [part async for part in response.aiter_bytes(50_000)]
            assert b"".join(parts) == CHUNK * 40

    run(main)


def test_unix_socket(run, workspace) -> None:
    path = workspace / "httpx.sock"

    async def main() -> None:
        transport = httpx.AsyncHTTPTransport(uds=str(path))
        async with (
            serving_with_uvicorn(uds=path),
            httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
        ):
            response = await client.get("/stream?20")
            assert response.headers[LOOP_HEADER] == expected_class_name()
            assert response.content == CHUNK * 20

    run(main)


def test_a_server_that_never_answers_times_out(run) -> None:
    async def main() -> None:
        held = asyncio.Event()

        async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await held.wait()
            writer.close()

        server = await asyncio.start_server(hold, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with httpx.AsyncClient(timeout=0.1) as client:
            with pytest.raises(httpx.ReadTimeout):
                await client.get(f"http://127.0.0.1:{port}/")
        held.set()
        server.close()
        await server.wait_closed()
        async with httpx.AsyncClient() as client:
            with pytest.raises(httpx.ConnectError):
                await client.get(f"http://127.0.0.1:{port}/")

    run(main)


def test_a_stream_left_in_the_middle_closes_its_connection(run, certificates) -> None:
    async def main() -> None:
        async with (
            serving_with_uvicorn(tls=certificates) as port,
            httpx.AsyncClient(
                verify=certificates.client_context(),
                base_url=f"https://localhost:{port}",
                limits=httpx.Limits(max_connections=1),
            ) as client,
        ):
            for _ in range(3):
                async with client.stream("GET", "/stream?400") as response:
                    async for _part in response.aiter_bytes():
                        break
            assert (await client.get("/stream?1")).content == CHUNK

    run(main)
