"""What type checkers say of a program on a TokioLoop: the same as of one on asyncio's loop."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import textwrap

import pytest

from tests.support.programs import REPOSITORY

PROGRAM = """
    import asyncio
    import socket

    import tokioloop

    Address = tuple[asyncio.Transport, asyncio.Protocol]


    async def one() -> int:
        return 1


    async def call(loop: LOOP, sock: socket.socket) -> None:
        loop.call_soon(print, 1)
        loop.call_soon(len)  # type: ignore[arg-type]
        loop.call_soon_threadsafe(len, 5)  # type: ignore[arg-type]
        loop.call_later(1.0, len)  # type: ignore[arg-type]
        when: float = loop.call_at(1.0, print).when()
        task: asyncio.Task[int] = loop.create_task(one(), name="one")
        wrong: asyncio.Task[str] = loop.create_task(one())  # type: ignore[arg-type]
        loop.add_signal_handler(15, print, 1)
        loop.add_signal_handler(15, len)  # type: ignore[arg-type]
        removed: bool = loop.remove_signal_handler(15)
        data: bytes = await loop.sock_recv(sock, 1)
        await loop.sock_recv_into(sock, b"")
        await loop.sock_sendall(sock, "text")  # type: ignore[arg-type]


    async def connect(loop: LOOP, sock: socket.socket) -> None:
        connection: Address = await loop.create_connection(asyncio.Protocol, "localhost", 80)
        connection = await loop.create_connection(asyncio.Protocol, sock=sock)
        connection = await loop.create_unix_connection(asyncio.Protocol, "/x")
        await loop.connect_accepted_socket(asyncio.Protocol, sock)
        await loop.create_connection("localhost", 80)  # type: ignore[call-overload]
        endpoint: tuple[asyncio.DatagramTransport, asyncio.DatagramProtocol]
        endpoint = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, ("", 0))


    async def serve(loop: LOOP) -> None:
        server: asyncio.Server = await loop.create_server(asyncio.Protocol, "localhost", 0)
        server = await loop.create_unix_server(asyncio.Protocol, "/x")
        await loop.create_server(asyncio.Protocol, "localhost", "http")  # type: ignore[call-overload]


    def run(loop: LOOP) -> int:
        return loop.run_until_complete(one())
"""


@pytest.mark.time_limit(120)
def test_a_strictly_checked_program_is_taken_for_what_it_is(tmp_path):
    """Of an error that is expected and not found, mypy says that it need not be ignored."""
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("mypy is not installed")
    for loop in ("asyncio.SelectorEventLoop", "tokioloop.TokioLoop"):
        program = tmp_path / f"on_{loop.partition('.')[0]}.py"
        program.write_text(textwrap.dedent(PROGRAM).replace("LOOP", loop))
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", "."],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


@pytest.mark.time_limit(120)
def test_the_stubs_describe_the_extension():
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("mypy is not installed")
    allowed = REPOSITORY / "tests/stubtest-allowlist.txt"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy.stubtest", "tokioloop._core", "--concise"),
            *("--ignore-disjoint-bases", "--ignore-unused-allowlist", "--allowlist", allowed),
        ],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
    )
    assert done.returncode == 0, done.stdout + done.stderr
