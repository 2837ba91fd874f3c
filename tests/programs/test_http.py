"""uvicorn and aiohttp served on the loop, called by httpx and aiohttp on the same loop."""

from __future__ import annotations

import asyncio

import pytest

from tests.programs.conftest import CHUNKS, required

pytestmark = [
    pytest.mark.flavours(
        "asyncio", "tokioloop", "uvloop", reason="rloop leaves descriptors open, clients wait"
    ),
    # Libraries leave connections to the collector when their clients are closed.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(params=["httpx", "aiohttp"])
def client(request):
    """An HTTP client as `async with client() as call`: `await call(method, url, body)`."""
    required(request.param)
    return {"httpx": HttpxClient, "aiohttp": AiohttpClient}[request.param]


class HttpxClient:
    async def __aenter__(self):
        import httpx

        self.client = httpx.AsyncClient(trust_env=False)
        return self.call

    async def call(self, method, url, body=b""):
        response = await self.client.request(method, url, content=body)
        return response.status_code, response.headers, response.content

    async def __aexit__(self, *_exc):
        await self.client.aclose()


class AiohttpClient:
    async def __aenter__(self):
        import aiohttp

        self.session = aiohttp.ClientSession()
        return self.call

    async def call(self, method, url, body=b""):
        async with self.session.request(method, url, data=body) as response:
            return response.status, response.headers, await response.read()

    async def __aexit__(self, *_exc):
        await self.session.close()


def test_a_body_comes_back(run, server, client):
    async def main():
        async with server() as address, client() as call:
            for body in (b"", b"hello", bytes(range(256)) * 4096):
                status, _headers, answer = await call("POST", f"http://{address}/", body)
                assert (status, answer) == (200, body)

    run(main())


def test_a_chunked_answer_arrives_whole(run, server, client):
    async def main():
        async with server() as address, client() as call:
            status, headers, answer = await call("GET", f"http://{address}/chunks")
            assert status == 200
            assert headers["transfer-encoding"] == "chunked"
            assert answer == CHUNKS

    run(main())


def test_a_connection_is_kept_alive_between_requests(run, server, client):
    async def main():
        async with server() as address, client() as call:
            ports = set()
            for number in range(20):
                _status, headers, answer = await call("POST", f"http://{address}/", b"%d" % number)
                assert answer == b"%d" % number
                ports.add(headers["x-client-port"])
            assert len(ports) == 1

    run(main())


def test_many_requests_at_once_get_their_own_answers(run, server, client):
    async def main():
        async with server() as address, client() as call:
            bodies = [b"%d" % number * 1000 for number in range(60)]
            answers = await asyncio.gather(
                *(call("POST", f"http://{address}/", body) for body in bodies)
            )
            assert [answer for _status, _headers, answer in answers] == bodies

    run(main())


def test_a_request_that_is_cancelled_does_not_spoil_the_next(run, server, client):
    async def main():
        async with server() as address, client() as call:
            for turns in range(0, 30, 3):
                request = asyncio.ensure_future(call("POST", f"http://{address}/", bytes(1 << 18)))
                for _ in range(turns):
                    await asyncio.sleep(0)
                request.cancel()
                await asyncio.gather(request, return_exceptions=True)
                _status, _headers, answer = await call("POST", f"http://{address}/", b"%d" % turns)
                assert answer == b"%d" % turns

    run(main())


def test_websocket_messages_come_back(run, server):
    aiohttp = required("aiohttp")
    required("websockets")

    async def main():
        async with (
            server() as address,
            aiohttp.ClientSession() as session,
            session.ws_connect(f"ws://{address}/messages") as connection,
        ):
            for text in ("hello", "ü" * 1000, ""):
                await connection.send_str(text)
                assert await connection.receive_str() == text
            for data in (b"binary", bytes(range(256)) * 2048):
                await connection.send_bytes(data)
                assert await connection.receive_bytes() == data

    run(main())


def test_many_websockets_at_once_hear_only_themselves(run, server):
    aiohttp = required("aiohttp")
    required("websockets")

    async def converse(session, address, number):
        async with session.ws_connect(f"ws://{address}/messages") as connection:
            for step in range(20):
                await connection.send_str(f"{number}.{step}")
                assert await connection.receive_str() == f"{number}.{step}"

    async def main():
        async with server() as address, aiohttp.ClientSession() as session:
            await asyncio.gather(*(converse(session, address, number) for number in range(25)))

    run(main())


@pytest.mark.flavours("asyncio", "tokioloop", "uvloop", reason="rloop leaves descriptors open")
def test_a_client_that_speaks_no_http_gets_an_error_and_is_closed(run, server):
    async def main():
        async with server() as address:
            host, port = address.split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(b"this is not HTTP\r\n\r\n")
            answer = await reader.read()
            assert b" 400 " in answer.partition(b"\r\n")[0]
            writer.close()
            await writer.wait_closed()

    run(main())
