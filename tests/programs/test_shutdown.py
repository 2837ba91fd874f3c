"""Servers in a process of their own, ended by SIGTERM as a supervisor would."""

from __future__ import annotations

import http.client
import signal

import pytest

from tests.programs.conftest import required
from tests.support.programs import start_program

pytestmark = pytest.mark.flavours(
    "asyncio", "tokioloop", "uvloop", reason="rloop cannot remove signal handlers"
)

UVICORN = """
    import socket, uvicorn

    async def application(scope, receive, send):
        assert scope["type"] == "http"
        if scope["path"] == "/slow":
            print("slow request", flush=True)
            await asyncio.sleep(0.3)
        await send({"type": "http.response.start", "status": 200,
                    "headers": [(b"content-length", b"5")]})
        await send({"type": "http.response.body", "body": b"hello"})

    class Server(uvicorn.Server):
        async def startup(self, sockets=None):
            await super().startup(sockets)
            print(sockets[0].getsockname()[1], flush=True)

    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(application, http="httptools", loop="none", lifespan="off",
                            log_level="warning")
    loop = new_loop()
    try:
        loop.run_until_complete(Server(config).serve(sockets=[listener]))
    finally:
        loop.close()
    print("ended", flush=True)
"""

AIOHTTP = """
    import signal
    from aiohttp import web

    async def hello(request):
        if request.path == "/slow":
            print("slow request", flush=True)
            await asyncio.sleep(0.3)
        return web.Response(text="hello")

    async def main():
        app = web.Application()
        app.router.add_get("/{name:.*}", hello)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=5)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        loop = asyncio.get_running_loop()
        told = asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, told.set)
        print(runner.addresses[0][1], flush=True)
        await told.wait()
        loop.remove_signal_handler(signal.SIGTERM)
        await runner.cleanup()

    loop = new_loop()
    asyncio.set_event_loop(loop)
    loop.run_until_complete(main())
    loop.close()
    print("ended", flush=True)
"""


@pytest.fixture(params=["uvicorn", "aiohttp"])
def server(request, flavour):
    """A running server: `(process, port)`."""
    required(request.param)
    if request.param == "uvicorn":
        required("httptools")
    with start_program(flavour, {"uvicorn": UVICORN, "aiohttp": AIOHTTP}[request.param]) as child:
        try:
            first = child.stdout.readline()
            assert first.strip().isdigit(), child.stderr.read()
            yield child, int(first)
        finally:
            child.kill()


def get(connection, path):
    connection.request("GET", path)
    response = connection.getresponse()
    return response.status, response.read()


def ended(child):
    output, errors = child.communicate(timeout=10)
    assert "Traceback" not in errors
    return output.splitlines()[-1:]


def test_an_idle_server_ends_at_once(server):
    child, port = server
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    assert get(connection, "/") == (200, b"hello")
    connection.close()
    child.send_signal(signal.SIGTERM)
    # uvicorn ends as the signal's default action would, after its clean-up.
    ended(child)
    assert child.returncode in (0, -signal.SIGTERM)


def test_a_request_under_way_is_answered_first(server):
    child, port = server
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/slow")
    assert child.stdout.readline() == "slow request\n"
    child.send_signal(signal.SIGTERM)
    response = connection.getresponse()
    assert (response.status, response.read()) == (200, b"hello")
    connection.close()
    ended(child)
    assert child.returncode in (0, -signal.SIGTERM)


def test_a_connection_kept_alive_does_not_hold_it_up(server):
    child, port = server
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    assert get(connection, "/") == (200, b"hello")
    child.send_signal(signal.SIGTERM)
    ended(child)
    assert connection.sock.recv(100) == b""
    connection.close()
