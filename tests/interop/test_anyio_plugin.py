"""AnyIO, by its pytest plugin with the loop injected: the tests here are coroutines it runs."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import socket
import ssl
import sys
from pathlib import Path
from typing import Any

import pytest
from interop_support.loops import new_event_loop, require_loop_under_test

pytest.importorskip("anyio", exc_type=ImportError)

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.streams.tls
import anyio.to_thread
from anyio.abc import ByteStream

pytestmark = pytest.mark.anyio

PAYLOAD = bytes(range(256)) * 8192  # 2 MiB


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"loop_factory": new_event_loop}


@pytest.fixture(autouse=True)
async def on_the_loop_under_test(anyio_backend) -> None:
    """A coroutine fixture, so the plugin runs it too; and it holds for every test of the file."""
    require_loop_under_test()
    with anyio.fail_after(8):
        yield


class EchoService:
    """Echoes until the peer closes. `ended` tells when, because AnyIO's raw Unix streams may raise
    InvalidStateError where a wait is cancelled in the turn that makes the socket readable."""

    def __init__(self) -> None:
        self.ended = anyio.Event()

    async def __call__(self, stream: ByteStream) -> None:
        async with stream:
            async for data in stream:
                await stream.send(data)
        self.ended.set()

    async def check(self, stream: ByteStream) -> None:
        async with stream, anyio.create_task_group() as group:
            group.start_soon(stream.send, PAYLOAD)
            received = bytearray()
            while len(received) < len(PAYLOAD):
                received += await stream.receive()
            assert received == PAYLOAD
        await self.ended.wait()
        self.ended = anyio.Event()


async def test_tcp_streams() -> None:
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        host, port = listener.extra(anyio.abc.SocketAttribute.local_address)[:2]
        async with anyio.create_task_group() as group:
            echo = EchoService()
            group.start_soon(listener.serve, echo)
            for _ in range(3):
                await echo.check(await anyio.connect_tcp(host, port))
            group.cancel_scope.cancel()


async def test_unix_streams(workspace: Path) -> None:
    path = workspace / "anyio.sock"
    async with (
        await anyio.create_unix_listener(path) as listener,
        anyio.create_task_group() as group,
    ):
        echo = EchoService()
        group.start_soon(listener.serve, echo)
        await echo.check(await anyio.connect_unix(path))
        group.cancel_scope.cancel()


async def test_descriptors_sent_over_a_unix_socket(workspace: Path, tmp_path: Path) -> None:
    path = workspace / "descriptors.sock"
    content = tmp_path / "content"
    content.write_text("through a passed descriptor")

    async def hand_over(stream: Any) -> None:
        async with stream:
            with content.open() as file:
                await stream.send_fds(b"!", [file])

    async with (
        await anyio.create_unix_listener(path) as listener,
        anyio.create_task_group() as group,
    ):
        group.start_soon(listener.serve, hand_over)
        async with await anyio.connect_unix(path) as stream:
            message, (descriptor,) = await stream.receive_fds(1, 1)
        with os.fdopen(descriptor) as file:
            assert (message, file.read()) == (b"!", "through a passed descriptor")
        group.cancel_scope.cancel()


async def test_tls_streams(certificates) -> None:
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as tcp:
        port = tcp.extra(anyio.abc.SocketAttribute.local_port)
        listener = anyio.streams.tls.TLSListener(tcp, certificates.server_context())
        async with anyio.create_task_group() as group:
            echo = EchoService()
            group.start_soon(listener.serve, echo)
            stream = await anyio.connect_tcp(
                "localhost", port, ssl_context=certificates.client_context()
            )
            assert stream.extra(anyio.streams.tls.TLSAttribute.tls_version) == "TLSv1.3"
            await echo.check(stream)
            with pytest.raises(ssl.SSLCertVerificationError):
                await anyio.connect_tcp("localhost", port, tls=True)
            group.cancel_scope.cancel()


async def test_udp_sockets() -> None:
    async with (
        await anyio.create_udp_socket(local_host="127.0.0.1", family=socket.AF_INET) as server,
        await anyio.create_connected_udp_socket(
            "127.0.0.1", server.extra(anyio.abc.SocketAttribute.local_port)
        ) as client,
    ):
        for n in range(50):
            await client.send(b"%d" % n)
            packet, address = await server.receive()
            await server.sendto(packet * 2, *address)
            assert await client.receive() == b"%d%d" % (n, n)


async def test_processes() -> None:
    script = "import sys; data = sys.stdin.buffer.read(); sys.stdout.buffer.write(data[::-1])"
    command = [sys.executable, "-S", "-c", script]
    result = await anyio.run_process(command, input=PAYLOAD)
    assert result.stdout == PAYLOAD[::-1]

    async with await anyio.open_process([sys.executable, "-S", "-c", "input()"]) as process:
        process.send_signal(signal.SIGKILL)
        assert await process.wait() == -signal.SIGKILL


async def test_threads_call_back_into_the_loop() -> None:
    def in_thread(n: int) -> int:
        anyio.from_thread.run_sync(require_loop_under_test)
        return anyio.from_thread.run(functools.partial(doubled, n))

    async def doubled(n: int) -> int:
        await anyio.lowlevel.checkpoint()
        return 2 * n

    results: list[int] = []

    async def call(n: int) -> None:
        results.append(await anyio.to_thread.run_sync(in_thread, n))

    async with anyio.create_task_group() as group:
        for n in range(50):
            group.start_soon(call, n)
    assert sorted(results) == [2 * n for n in range(50)]


async def test_signals() -> None:
    with anyio.open_signal_receiver(signal.SIGUSR1, signal.SIGUSR2) as signals:
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGUSR1):
            os.kill(os.getpid(), number)
            assert await anext(signals) == number


async def test_cancel_scopes_end_socket_waits() -> None:
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            with anyio.move_on_after(0.02) as scope:
                await stream.receive()
            assert scope.cancelled_caught
            with anyio.move_on_after(0.02) as scope:
                await listener.serve(EchoService())
            assert scope.cancelled_caught


async def test_wait_readable_on_a_bare_socket() -> None:
    left, right = socket.socketpair()
    with left, right:
        left.setblocking(False)
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.wait_readable, left)
            await anyio.wait_writable(right)
            right.send(b"!")
        assert left.recv(1) == b"!"


async def test_a_task_group_ends_what_waits_in_the_loops_own_coroutines() -> None:
    """A task is cancelled once `inspect` says that its coroutine has begun."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        async with anyio.create_task_group() as group:
            group.start_soon(asyncio.get_running_loop().sock_recv, ours, 1)
            await anyio.lowlevel.checkpoint()
            await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()
