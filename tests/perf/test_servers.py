"""The servers under measurement, started as the harness starts them and talked to by hand."""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
from pathlib import Path

import certificate
import processes
import pytest
import server as echo_server

PAYLOAD = bytes(range(256)) * 40


def receive(connection: socket.socket, count: int) -> bytes:
    received = b""
    while len(received) < count:
        chunk = connection.recv(65536)
        assert chunk, "the server closed the connection"
        received += chunk
    return received


def address(server: processes.Server) -> tuple[str, int]:
    host, _, port = server.target.rpartition(":")
    return host, int(port)


def test_asyncio_sends_small_writes_at_once_on_connections_of_the_listener() -> None:
    async def nodelay() -> int:
        made = asyncio.get_running_loop().create_future()

        class Protocol(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                made.set_result(transport)

        listener = echo_server.listening_socket()
        accepting = await asyncio.get_running_loop().create_server(Protocol, sock=listener)
        async with accepting:
            with socket.create_connection(listener.getsockname()):
                transport = await made
                own = transport.get_extra_info("socket")
                transport.close()
                return own.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    assert asyncio.run(nodelay())


def test_servers_of_a_round_share_a_layout_and_the_next_round_has_another() -> None:
    script = f"""
import sys, time
sys.path.insert(0, {str(processes.PERF)!r})
import server
server.scatter()
blocks = list(map(len, server.KEPT))
server.announce({{"port": 1, "hash": hash("x"), "blocks": blocks}})
time.sleep(20)
"""

    def layout_of(number: int) -> tuple[int, list[int]]:
        with processes.running([sys.executable, "-c", script], layout=number) as server:
            return server.announcement["hash"], server.announcement["blocks"]

    assert layout_of(3) == layout_of(3)
    for one, other in zip(layout_of(3), layout_of(4), strict=True):
        assert one != other
    assert layout_of(0)[1] == []


@pytest.mark.parametrize("mode", ["proto", "buffered", "stream", "raw"])
def test_every_style_echoes(mode: str) -> None:
    with (
        processes.running(processes.server_command("asyncio", mode)) as server,
        socket.create_connection(address(server), timeout=5) as connection,
    ):
        for _ in range(3):
            connection.sendall(PAYLOAD)
            assert receive(connection, len(PAYLOAD)) == PAYLOAD


@pytest.mark.parametrize("mode", ["proto", "stream"])
def test_unix_sockets_echo(mode: str, tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with (
        processes.running(processes.server_command("asyncio", mode, "--unix", path)) as server,
        socket.socket(socket.AF_UNIX) as connection,
    ):
        assert server.target == f"unix:{path}"
        connection.settimeout(5)
        connection.connect(path)
        connection.sendall(PAYLOAD)
        assert receive(connection, len(PAYLOAD)) == PAYLOAD


def test_datagrams_echo() -> None:
    command = processes.server_command("asyncio", "udp")
    with (
        processes.running(command, prefix="udp:") as server,
        socket.socket(type=socket.SOCK_DGRAM) as client,
    ):
        client.settimeout(5)
        client.sendto(b"hello", ("127.0.0.1", server.announcement["port"]))
        assert client.recv(100) == b"hello"


def test_the_responder_answers_over_tls() -> None:
    pem = str(certificate.path())
    command = processes.server_command("asyncio", "responder", "--certificate", pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with (
        processes.running(command) as server,
        socket.create_connection(address(server), timeout=5) as connection,
        context.wrap_socket(connection) as secure,
    ):
        secure.sendall(b"GET /1000 HTTP/1.1\r\nHost: x\r\n\r\n")
        head, _, body = receive(secure, 1000).partition(b"\r\n\r\n")
        while len(body) < 1000:
            body += secure.recv(2000)
        assert head.startswith(b"HTTP/1.1 200 OK")
        assert b"Content-Length: 1000" in head
        assert body == b"x" * 1000


def test_a_server_that_cannot_start_says_why() -> None:
    command = processes.server_command("nosuchloop", "proto")
    with (
        pytest.raises(processes.ServerFailed, match="nosuchloop"),
        processes.running(command),
    ):
        pass


def test_a_server_that_dies_is_noticed() -> None:
    command = processes.server_command("asyncio", "proto")
    with (
        pytest.raises(processes.ServerFailed, match="killed by SIGKILL"),
        processes.running(command) as server,
    ):
        server.process.kill()
        server.process.wait()


def test_no_server_outlives_its_block() -> None:
    with processes.running(processes.server_command("asyncio", "proto")) as server:
        pass
    assert server.process.returncode is not None
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address(server), timeout=5)
