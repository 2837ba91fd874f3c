"""Servers and connections that fail half-way: nothing stays open, everybody who waits is told."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket
import ssl
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.parity.wires import client_tls, server_tls
from tests.support.leaks import open_descriptors
from tests.support.net import LOOPBACK, eventually, receive_to_eof, reset, settled
from tests.support.protocols import Recorder

pytestmark = pytest.mark.flavours(
    "asyncio", "tokioloop", reason="the peers have the defects these tests are about"
)
Loop = asyncio.AbstractEventLoop


@contextmanager
def no_descriptors_left(loop: Loop) -> Iterator[None]:
    """As if the limit of open files were reached."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(open_descriptors()) + 10, hard))
    try:
        while True:
            try:
                spare.append(os.dup(0))
            except OSError:
                break
        yield
    finally:
        for number in spare:
            os.close(number)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def fails() -> Any:
    raise LookupError("from the factory")


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # of asyncio's accepted socket
@pytest.mark.parametrize("tls", [False, True])
def test_a_factory_that_fails_holds_nobody_up(loop: Loop, tls: bool) -> None:
    async def main() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if tls else None
        server = await loop.create_server(fails, LOOPBACK, 0, ssl=context)
        address = server.sockets[0].getsockname()
        for _ in range(3):
            with socket.create_connection(address, timeout=5) as client:
                await settled()
                assert receive_to_eof(client) == b""
        server.close()
        await asyncio.wait_for(server.wait_closed(), 5)

    loop.set_debug(False)  # in which it is reported, with all that the traceback keeps alive
    loop.run_until_complete(main())


@pytest.mark.flavours("tokioloop", reason="asyncio accepts once more, from a server that is closed")
def test_a_handler_may_close_a_server_that_has_no_descriptors_left(
    loop: Loop, loop_errors: Any
) -> None:
    async def main() -> None:
        made: list[Recorder] = []

        def factory() -> Recorder:
            made.append(Recorder())
            return made[-1]

        server = await loop.create_server(factory, LOOPBACK, 0)
        reports: list[Any] = []

        def handler(_loop: Loop, context: dict[str, Any]) -> None:
            reports.append(context["message"])
            server.close()

        loop.set_exception_handler(handler)
        with socket.socket() as client:
            client.setblocking(False)
            with no_descriptors_left(loop):
                client.connect_ex(server.sockets[0].getsockname())
                await eventually(lambda: reports)
            assert reports == ["socket.accept() out of system resource"]
            await asyncio.sleep(1.1)  # the pause after which it would look again
            assert made == []
            assert len(reports) == 1
        await asyncio.wait_for(server.wait_closed(), 5)

    loop.set_debug(False)
    loop.run_until_complete(main())


@pytest.mark.min_python(3, 12)
def test_all_errors_of_a_connection_without_descriptors_come_in_order(loop: Loop) -> None:
    addresses = [("127.0.0.1", 9), ("127.0.0.2", 9), ("::1", 9, 0, 0)]

    async def resolved(*_: Any, **__: Any) -> list[Any]:
        kinds = {2: socket.AF_INET, 4: socket.AF_INET6}
        return [
            (kinds[len(each)], socket.SOCK_STREAM, socket.IPPROTO_TCP, "", each)
            for each in addresses
        ]

    async def main() -> None:
        loop.getaddrinfo = resolved  # type: ignore[method-assign]
        with no_descriptors_left(loop), pytest.raises(BaseExceptionGroup) as raised:  # noqa: F821
            await loop.create_connection(Recorder, "all.of.them", 9, all_errors=True)
        assert [error.errno for error in raised.value.exceptions] == [errno.EMFILE] * 3

    loop.set_debug(False)
    loop.run_until_complete(main())


@pytest.mark.flavours("tokioloop", reason="asyncio leaves the socket to the garbage collector")
@pytest.mark.parametrize("call", ["listen", "bind"])
def test_a_server_that_cannot_listen_leaves_no_socket(
    loop: Loop, call: str, monkeypatch: Any
) -> None:
    class Fails(socket.socket):
        pass

    def refuse(*_: Any) -> None:
        raise OSError(errno.EACCES, "refused")

    setattr(Fails, call, refuse)
    monkeypatch.setattr(socket, "socket", Fails)

    async def main(folder: Path) -> None:
        before = set(open_descriptors())
        with pytest.raises(OSError, match="refused"):
            await loop.create_server(Recorder, LOOPBACK, 0)
        with pytest.raises(OSError, match="refused"):
            await loop.create_unix_server(Recorder, folder / "socket")
        assert set(open_descriptors()) == before

    with tempfile.TemporaryDirectory() as folder:
        loop.run_until_complete(main(Path(folder)))


@pytest.mark.min_python(3, 13)
def test_a_path_that_cannot_be_looked_at_does_not_keep_a_server_open(
    loop: Loop, monkeypatch: Any, caplog: Any
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise PermissionError(errno.EACCES, "refused")

    async def main(folder: Path) -> None:
        server = await loop.create_unix_server(Recorder, folder / "socket")
        waiter = loop.create_task(server.wait_closed())
        await settled()
        with monkeypatch.context() as patched:
            patched.setattr(os, "stat", refuse)
            server.close()
        await asyncio.wait_for(waiter, 5)
        assert "Unable to clean up listening UNIX socket" in caplog.text

    with tempfile.TemporaryDirectory() as folder:
        loop.run_until_complete(main(Path(folder)))


@pytest.mark.parametrize("where", ["connection_made", "data_received"])
def test_sys_exit_over_tls_leaves_the_loop_and_it_runs_again(loop: Loop, where: str) -> None:
    opened: list[Any] = []

    class Greets(Recorder):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            opened.append(transport)
            transport.write(b"hello")

    class Exits(Recorder):
        pass

    setattr(Exits, where, lambda *_: sys.exit(7))

    async def main() -> None:
        server = await loop.create_server(Greets, LOOPBACK, 0, ssl=server_tls())
        opened.append(server)
        address = server.sockets[0].getsockname()
        transport, _ = await loop.create_connection(Exits, *address, ssl=client_tls())
        opened.append(transport)
        await loop.create_future()

    task = loop.create_task(main())
    with pytest.raises(SystemExit) as raised:
        loop.run_until_complete(task)
    assert raised.value.code == 7
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)
    for each in opened:
        each.close() if isinstance(each, asyncio.AbstractServer) else each.abort()
    assert loop.run_until_complete(asyncio.sleep(0.01, "runs again")) == "runs again"


@pytest.mark.parametrize("side", ["client", "server"])
def test_a_reset_inside_a_tls_handshake_is_no_matter_for_the_handler(
    loop: Loop, loop_errors: Any, side: str
) -> None:
    """The call that waits for the connection is told; nobody waits on a server."""

    async def main() -> None:
        if side == "server":
            server = await loop.create_server(Recorder, LOOPBACK, 0, ssl=server_tls())
            for _ in range(3):
                client = socket.create_connection(server.sockets[0].getsockname(), timeout=5)
                client.send(b"\x16\x03\x01\x02\x00")  # the head of a record, and no more
                await settled()
                reset(client)
                await settled()
            server.close()
            await asyncio.wait_for(server.wait_closed(), 5)
            return
        with socket.socket() as listener:
            listener.bind((LOOPBACK, 0))
            listener.listen()
            address = listener.getsockname()
            task = loop.create_task(loop.create_connection(Recorder, *address, ssl=client_tls()))
            await settled()
            peer, _ = listener.accept()
            reset(peer)
            with pytest.raises(ConnectionError):
                await asyncio.wait_for(task, 5)

    loop.set_debug(False)
    loop.run_until_complete(main())
    assert loop_errors == []


@pytest.mark.min_python(3, 13)
def test_an_executor_that_is_not_waited_for_ends_in_its_own_time(loop: Loop) -> None:
    """The thread finds its loop closed, and says nothing."""
    release = threading.Event()
    raised: list[Any] = []
    hook = threading.excepthook

    async def main() -> None:
        waiting = loop.run_in_executor(None, release.wait, 20)
        with pytest.warns(RuntimeWarning, match="did not finishing joining its threads"):
            await loop.shutdown_default_executor(0.01)
        waiting.cancel()

    threading.excepthook = raised.append
    try:
        before = threading.active_count()
        loop.run_until_complete(main())
        loop.close()
        release.set()
        while threading.active_count() > before:
            time.sleep(0.001)
    finally:
        threading.excepthook = hook
    assert raised == []


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_callers_listening_socket_outlives_a_server_that_could_not_be_made(
    loop: Loop, cancelled: bool
) -> None:
    async def main() -> None:
        with socket.socket() as first, socket.socket() as second:
            for sock in (first, second):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            first.bind((LOOPBACK, 0))
            if cancelled:
                making = asyncio.ensure_future(loop.create_server(Recorder, sock=first))
                await asyncio.sleep(0)
                making.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await making
                assert first.fileno() >= 0
                return
            second.bind(first.getsockname())
            first.listen()
            with pytest.raises(OSError, match="in use"):
                await loop.create_server(Recorder, sock=second)
            first.close()
            server = await loop.create_server(Recorder, sock=second)
            server.close()

    loop.run_until_complete(main())


@pytest.mark.parametrize("false", ["", 0])
def test_a_false_ssl_makes_a_server_without_tls(loop: Any, false: object) -> None:
    async def main() -> None:
        made: list[Recorder] = []

        def factory() -> Recorder:
            made.append(Recorder())
            return made[-1]

        server = await loop.create_server(factory, LOOPBACK, 0, ssl=false)
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"plain")
        await eventually(lambda: bool(made) and bytes(made[0].received) == b"plain")
        writer.close()
        await made[0].until_lost()
        server.close()

    loop.run_until_complete(main())
