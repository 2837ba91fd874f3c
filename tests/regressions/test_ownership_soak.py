"""Every kind of endpoint, opened, cancelled at each await, failed and closed, hundreds of times.

Descriptors, threads, children, objects and memory have to be at the end what they were at the
start. asyncio takes a few of the rounds, which prove the scenarios; tokioloop takes them all.
"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.flavours import Flavour
from tests.support.leaks import children_of_this_process, open_descriptors
from tests.support.net import LOOPBACK, settled
from tests.support.protocols import Recorder

pytestmark = [
    pytest.mark.flavours(
        "asyncio", "tokioloop", reason="the peers have the defects these tests are about"
    ),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    # A connection that is cancelled between two steps may be left to its finalizer, as asyncio
    # does; what counts here is that it is closed in the end.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.time_limit(60),
]
Loop = asyncio.AbstractEventLoop
Opened = Coroutine[Any, Any, Any]

ROUNDS = {"asyncio": 24, "tokioloop": 500}
# A TLS handshake or a child takes milliseconds, and several processes share a machine.
DEAR_ROUNDS = {"asyncio": 12, "tokioloop": 500}
# Caches of the interpreter fill at any time; the few rounds of asyncio are the control.
STRAY_OBJECTS = 100
WARM_UP = 24
CANCEL_POINTS = 10
MEMORY_SLACK = 8 << 20


class Bench:
    """What the scenarios share: servers to connect to, a free port that refuses, contexts."""

    def __init__(self, loop: Loop, folder: Path) -> None:
        self.loop = loop
        self.folder = folder
        self.accepted: set[Any] = set()
        self.number = 0

    async def start(self) -> None:
        self.server_tls, self.client_tls = _contexts(self.folder)
        self.tcp = await self.loop.create_server(self._accept, LOOPBACK, 0)
        self.tls = await self.loop.create_server(self._accept, LOOPBACK, 0, ssl=self.server_tls)
        self.path = str(self.folder / "s")
        self.unix = await self.loop.create_unix_server(self._accept, self.path)
        with socket.socket() as sock:
            sock.bind((LOOPBACK, 0))
            self.refusing = sock.getsockname()

    def address(self, server: Any) -> Any:
        return server.sockets[0].getsockname()

    def _accept(self) -> asyncio.Protocol:
        bench = self

        class Accepted(asyncio.Protocol):
            def connection_made(self, transport: Any) -> None:
                self.transport = transport
                bench.accepted.add(transport)

            def connection_lost(self, exc: BaseException | None) -> None:
                bench.accepted.discard(self.transport)

        return Accepted()

    async def until_quiet(self) -> None:
        """Both ends of what was opened are gone."""
        for transport in list(self.accepted):
            transport.abort()
        while self.accepted:
            await asyncio.sleep(0)
        await settled()

    async def stop(self) -> None:
        for server in (self.tcp, self.tls, self.unix):
            server.close()
            await server.wait_closed()


def _contexts(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    cert, key = str(folder / "cert.pem"), str(folder / "key.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout", key, "-out", cert],
        check=True, capture_output=True,
    )  # fmt: skip
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(cert, key)
    client = ssl.create_default_context()
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    return server, client


def _failing_factory() -> Any:
    raise ValueError("no protocol")


def _non_blocking_pair() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    return ours, theirs


async def _tcp(bench: Bench, fail: bool) -> Any:
    address = bench.refusing if fail else bench.address(bench.tcp)
    return (await bench.loop.create_connection(Recorder, *address))[0]


async def _unix(bench: Bench, fail: bool) -> Any:
    path = str(bench.folder / "missing") if fail else bench.path
    return (await bench.loop.create_unix_connection(Recorder, path))[0]


async def _handed_in(bench: Bench, fail: bool) -> Any:
    ours, theirs = _non_blocking_pair()
    with theirs:
        try:
            factory = _failing_factory if fail else Recorder
            return (await bench.loop.create_connection(factory, sock=ours))[0]
        except BaseException:
            ours.close()
            raise


async def _server(bench: Bench, fail: bool) -> Any:
    return await bench.loop.create_server(
        Recorder, "192.0.2.1" if fail else LOOPBACK, 0, start_serving=True
    )


async def _datagram(bench: Bench, fail: bool) -> Any:
    factory = _failing_factory if fail else asyncio.DatagramProtocol
    transport, _ = await bench.loop.create_datagram_endpoint(factory, local_addr=(LOOPBACK, 0))
    transport.sendto(b"x", bench.refusing)
    return transport


async def _read_pipe(bench: Bench, fail: bool) -> Any:
    reader, writer = os.pipe()
    os.close(writer)
    with suppress(ValueError):
        factory = _failing_factory if fail else Recorder
        file = os.fdopen(reader, "rb", 0)
        try:
            return (await bench.loop.connect_read_pipe(factory, file))[0]
        except BaseException:
            file.close()
            raise
    return None


async def _write_pipe(bench: Bench, fail: bool) -> Any:
    reader, writer = os.pipe()
    file = os.fdopen(writer, "wb", 0)
    try:
        factory = _failing_factory if fail else Recorder
        transport = (await bench.loop.connect_write_pipe(factory, file))[0]
        transport.write(bytes(1 << 17))
        return transport
    except BaseException:
        file.close()
        raise
    finally:
        os.close(reader)


async def _tls(bench: Bench, fail: bool) -> Any:
    address = bench.address(bench.tcp if fail else bench.tls)
    if fail:  # the plain server never answers a hello
        with suppress(ConnectionError, TimeoutError, asyncio.TimeoutError):
            await bench.loop.create_connection(
                Recorder, *address, ssl=bench.client_tls, ssl_handshake_timeout=0.01
            )
        return None
    return (await bench.loop.create_connection(Recorder, *address, ssl=bench.client_tls))[0]


async def _start_tls(bench: Bench, fail: bool) -> Any:
    transport, protocol = await bench.loop.create_connection(Recorder, *bench.address(bench.tls))
    try:
        context: Any = None if fail else bench.client_tls
        return await bench.loop.start_tls(transport, protocol, context, server_hostname="x")
    except BaseException:
        transport.abort()
        raise


async def _sock_connect(bench: Bench, fail: bool) -> Any:
    with socket.socket() as sock:
        sock.setblocking(False)
        await bench.loop.sock_connect(sock, bench.refusing if fail else bench.address(bench.tcp))
        await bench.loop.sock_sendall(sock, b"x")


async def _child(bench: Bench, fail: bool) -> Any:
    program = "/no/such/program" if fail else "true"
    transport, _ = await bench.loop.subprocess_exec(asyncio.SubprocessProtocol, program)
    return transport


async def _shell_to_its_end(bench: Bench, fail: bool) -> Any:
    # asyncio itself waits for ever when the creation is cancelled between two pipes, so only what
    # follows is cancelled.
    creation = asyncio.ensure_future(
        asyncio.create_subprocess_shell(
            "exit 3" if fail else "cat", stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
    )
    try:
        await (await asyncio.shield(creation)).communicate(b"data")
    except BaseException:
        process = await creation
        process._transport.close()  # type: ignore[attr-defined]
        while process.returncode is None:
            await asyncio.sleep(0.001)
        raise


@dataclass(frozen=True)
class Kind:
    open: Callable[[Bench, bool], Opened]
    is_dear: bool = False

    def __str__(self) -> str:
        return self.open.__name__.lstrip("_")


KINDS = [
    *map(Kind, (_tcp, _unix, _handed_in, _server, _datagram, _read_pipe, _write_pipe, _sock_connect)),
    *(Kind(function, is_dear=True) for function in (_tls, _start_tls, _child, _shell_to_its_end)),
]  # fmt: skip


async def _round(bench: Bench, kind: Kind) -> None:
    bench.number += 1
    way = bench.number % 4
    task = bench.loop.create_task(kind.open(bench, way == 2))
    if way == 1:
        for _ in range(bench.number // 4 % CANCEL_POINTS):
            await asyncio.sleep(0)
        task.cancel()
    (opened,) = await asyncio.gather(task, return_exceptions=True)
    if opened is None or isinstance(opened, BaseException):
        return
    if way == 3 and hasattr(opened, "abort") and not hasattr(opened, "sendto"):
        opened.write(bytes(1 << 18))
        opened.abort()
    else:
        opened.close()


async def _rounds(bench: Bench, kind: Kind, count: int) -> None:
    for number in range(count):
        await _round(bench, kind)
        if number % 16 == 0:
            await bench.until_quiet()
    await bench.until_quiet()
    await asyncio.sleep(0.02)
    await bench.until_quiet()


@dataclass
class Holdings:
    """What a process has at one moment."""

    descriptors: int
    threads: int
    objects: int
    memory: int

    @classmethod
    def now(cls) -> Holdings:
        gc.collect()
        gc.collect()
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return cls(len(open_descriptors()), threading.active_count(), len(gc.get_objects()), memory)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_what_was_opened_is_gone(
    flavour: Flavour, loop: Loop, loop_errors: Any, tmp_path: Path, kind: Kind
) -> None:
    rounds = (DEAR_ROUNDS if kind.is_dear else ROUNDS)[flavour.name]
    bench = Bench(loop, tmp_path)
    children = children_of_this_process()

    async def main() -> tuple[Holdings, Holdings]:
        await bench.start()
        await _rounds(bench, kind, WARM_UP)
        loop_errors.clear()
        before = Holdings.now()
        await _rounds(bench, kind, rounds)
        loop_errors.clear()
        after = Holdings.now()
        await bench.stop()
        return before, after

    before, after = loop.run_until_complete(main())
    if kind.is_dear:
        assert children_of_this_process() <= children
    assert after.descriptors <= before.descriptors
    assert after.threads <= before.threads
    most = max(rounds // 4, STRAY_OBJECTS)
    assert after.objects <= before.objects + most, "objects stay behind"
    assert after.memory <= before.memory + MEMORY_SLACK
