"""Tornado: its IOLoop wraps the loop under test; IOStreams watch descriptors, TLS is its own."""

from __future__ import annotations

import asyncio
import socket

import pytest
from interop_support import loops
from interop_support.loops import class_name, expected_class_name, require_loop_under_test

pytest.importorskip("tornado", exc_type=ImportError)

import tornado.escape
import tornado.httpclient
import tornado.httpserver
import tornado.ioloop
import tornado.iostream
import tornado.tcpclient
import tornado.tcpserver
import tornado.testing
import tornado.util
import tornado.web
import tornado.websocket

BODY = bytes(range(256)) * 8192  # 2 MiB


class Info(tornado.web.RequestHandler):
    async def get(self) -> None:
        require_loop_under_test()
        io_loop = tornado.ioloop.IOLoop.current()
        self.write({"loop": class_name(io_loop.asyncio_loop), "secure": self.request.protocol})

    async def post(self) -> None:
        self.write(self.request.body)


class Stream(tornado.web.RequestHandler):
    async def get(self) -> None:
        for start in range(0, len(BODY), 50_000):
            self.write(BODY[start : start + 50_000])
            await self.flush()


class EchoSocket(tornado.websocket.WebSocketHandler):
    def on_message(self, message: str | bytes) -> None:
        self.write_message(message, binary=isinstance(message, bytes))


@pytest.fixture(params=["http", "https"])
def scheme(request) -> str:
    return request.param


def serve(scheme, certificates) -> tuple[tornado.httpserver.HTTPServer, str]:
    app = tornado.web.Application([("/info", Info), ("/stream", Stream), ("/ws", EchoSocket)])
    tls = certificates.server_context() if scheme == "https" else None
    server = tornado.httpserver.HTTPServer(
        app, ssl_options=tls, max_body_size=2 * len(BODY), max_buffer_size=4 * len(BODY)
    )
    listener, port = tornado.testing.bind_unused_port(address="127.0.0.1")
    server.add_socket(listener)
    return server, f"{scheme}://localhost:{port}"


def test_requests_and_streams(run, certificates, scheme) -> None:
    async def main() -> None:
        server, base = serve(scheme, certificates)
        tls = certificates.client_context() if scheme == "https" else None
        client = tornado.httpclient.AsyncHTTPClient(force_instance=True)
        try:
            facts = await client.fetch(f"{base}/info", ssl_options=tls)
            assert tornado.escape.json_decode(facts.body) == {
                "loop": expected_class_name(),
                "secure": scheme,
            }
            bodies = [*(b"%d" % n * 999 for n in range(30)), BODY]
            options = {"ssl_options": tls, "headers": {"Content-Type": "application/octet-stream"}}
            answers = await asyncio.gather(
                *(client.fetch(f"{base}/info", method="POST", body=b, **options) for b in bodies)
            )
            assert [answer.body for answer in answers] == bodies
            assert (await client.fetch(f"{base}/stream", ssl_options=tls)).body == BODY
        finally:
            client.close()
            server.stop()
            await server.close_all_connections()

    run(main)


def test_websockets(run, certificates, scheme) -> None:
    async def main() -> None:
        server, base = serve(scheme, certificates)
        tls = certificates.client_context() if scheme == "https" else None
        request = tornado.httpclient.HTTPRequest(
            f"{base.replace('http', 'ws')}/ws", ssl_options=tls
        )
        socket = await tornado.websocket.websocket_connect(request)
        for n in range(50):
            await socket.write_message(f"message {n}")
        assert [await socket.read_message() for _ in range(50)] == [
            f"message {n}" for n in range(50)
        ]
        await socket.write_message(BODY, binary=True)
        assert await socket.read_message() == BODY
        socket.close()
        assert await socket.read_message() is None
        server.stop()
        await server.close_all_connections()

    run(main)


def test_start_tls_on_an_iostream(run, certificates) -> None:
    class Upgrading(tornado.tcpserver.TCPServer):
        async def handle_stream(self, stream, address) -> None:
            assert await stream.read_until(b"\n") == b"STARTTLS\n"
            await stream.write(b"go\n")
            secure = await stream.start_tls(True, ssl_options=certificates.server_context())
            await secure.write(await secure.read_bytes(len(BODY)))
            secure.close()

    async def main() -> None:
        server = Upgrading()
        listener, port = tornado.testing.bind_unused_port(address="127.0.0.1")
        server.add_socket(listener)
        stream = await tornado.tcpclient.TCPClient().connect("localhost", port)
        await stream.write(b"STARTTLS\n")
        assert await stream.read_until(b"\n") == b"go\n"
        secure = await stream.start_tls(
            False, ssl_options=certificates.client_context(), server_hostname="localhost"
        )
        sending = secure.write(BODY)
        assert await secure.read_bytes(len(BODY)) == BODY
        await sending
        with pytest.raises(tornado.iostream.StreamClosedError):
            await secure.read_bytes(1)
        server.stop()

    run(main)


def test_handlers_callbacks_and_periods(run) -> None:
    async def main() -> None:
        io_loop = tornado.ioloop.IOLoop.current()
        assert io_loop.asyncio_loop is asyncio.get_running_loop()

        left, right = socket.socketpair()
        left.setblocking(False)
        events: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue()

        def readable(descriptor: int, mask: int) -> None:
            events.put_nowait((mask, left.recv(100)))

        io_loop.add_handler(left.fileno(), readable, io_loop.READ)
        right.send(b"one")
        assert await events.get() == (io_loop.READ, b"one")
        io_loop.update_handler(left.fileno(), io_loop.WRITE | io_loop.READ)
        io_loop.update_handler(left.fileno(), io_loop.READ)
        right.send(b"two")
        assert (await events.get())[1] == b"two"
        io_loop.remove_handler(left.fileno())
        left.close()
        right.close()

        ticks: asyncio.Queue[int] = asyncio.Queue()
        periodic = tornado.ioloop.PeriodicCallback(lambda: ticks.put_nowait(1), 2)
        periodic.start()
        assert [await ticks.get() for _ in range(3)] == [1, 1, 1]
        periodic.stop()

        from_thread: asyncio.Queue[str] = asyncio.Queue()
        await io_loop.run_in_executor(
            None, io_loop.add_callback, from_thread.put_nowait, "from a thread"
        )
        assert await from_thread.get() == "from a thread"

    run(main)


def test_run_sync_on_an_ioloop_made_around_the_loop() -> None:
    loop = loops.new_event_loop()
    io_loop = tornado.ioloop.IOLoop(asyncio_loop=loop, make_current=False)

    async def main() -> str:
        require_loop_under_test()
        await asyncio.sleep(0.001)
        return "done"

    assert io_loop.run_sync(main) == "done"
    with pytest.raises(tornado.util.TimeoutError):
        io_loop.run_sync(lambda: asyncio.sleep(60), timeout=0.01)
    io_loop.close()
    assert loop.is_closed()
