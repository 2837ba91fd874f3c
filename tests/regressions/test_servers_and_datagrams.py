"""Servers that close and wait, Unix paths, and datagram endpoints that outlive their errors."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.net import LOOPBACK, settled
from tests.support.protocols import Recorder

pytestmark = pytest.mark.flavours(
    "asyncio", "tokioloop", reason="the peers have the defects these tests are about"
)
Loop = asyncio.AbstractEventLoop


class Made(list[Recorder]):
    """A factory of protocols that keeps them."""

    def __call__(self) -> Recorder:
        self.append(Recorder())
        return self[-1]

    async def until(self, count: int) -> None:
        while len(self) < count or not all(protocol.is_made for protocol in self):
            await asyncio.sleep(0)


@pytest.mark.parametrize("how", ["close", "cancel"])
def test_serve_forever_ends_and_open_clients_go_on(loop: Loop, how: str) -> None:
    async def main() -> None:
        made = Made()
        server = await loop.create_server(made, LOOPBACK, 0)
        task = loop.create_task(server.serve_forever())
        with socket.create_connection(server.sockets[0].getsockname()) as client:
            await made.until(1)
            if how == "close":
                server.close()
            else:
                task.cancel()
            # 3.14 closes the clients when serve_forever() ends, whichever way.
            if sys.version_info < (3, 14):
                client.send(b"still served")
                await made[0].until_received(12)
        with pytest.raises(asyncio.CancelledError):
            await task
        await made[0].until_lost()

    loop.run_until_complete(main())


@pytest.mark.min_python(3, 13)
def test_wait_closed_waits_for_an_idle_client_until_it_is_closed(loop: Loop) -> None:
    async def main() -> None:
        made = Made()
        server = await loop.create_server(made, LOOPBACK, 0)
        with socket.create_connection(server.sockets[0].getsockname()):
            await made.until(1)
            server.close()
            waiter = loop.create_task(server.wait_closed())
            await settled()
            assert not waiter.done()
            server.close_clients()
            await asyncio.wait_for(waiter, 5)
        await made[0].until_lost()

    loop.run_until_complete(main())


def test_wait_closed_may_be_cancelled_over_and_over(loop: Loop) -> None:
    async def main() -> None:
        server = await loop.create_server(asyncio.Protocol, LOOPBACK, 0)
        for _ in range(50):
            waiter = loop.create_task(server.wait_closed())
            await asyncio.sleep(0)
            waiter.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiter
        server.close()
        await asyncio.wait_for(server.wait_closed(), 5)
        with pytest.raises(RuntimeError):
            await server.serve_forever()

    loop.run_until_complete(main())


@pytest.mark.min_python(3, 13)
def test_a_unix_path_that_someone_else_took_is_kept(loop: Loop) -> None:
    async def main(folder: str) -> None:
        path = os.path.join(folder, "s")
        server = await loop.create_unix_server(asyncio.Protocol, path)
        os.unlink(path)
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(path)
            server.close()
            await server.wait_closed()
            assert os.path.exists(path)

    with tempfile.TemporaryDirectory() as folder:
        loop.run_until_complete(main(folder))


def test_a_host_named_twice_is_bound_once(loop: Loop) -> None:
    async def main() -> None:
        server = await loop.create_server(asyncio.Protocol, [LOOPBACK, LOOPBACK], 0)
        assert len(server.sockets) == 1
        server.close()
        await server.wait_closed()

    loop.run_until_complete(main())


def test_accepting_goes_on_once_descriptors_are_free_again(loop: Loop, loop_errors: Any) -> None:
    async def main() -> None:
        made = Made()
        server = await loop.create_server(made, LOOPBACK, 0, backlog=5)
        client = socket.socket()
        hogs: list[int] = []
        try:
            while True:
                hogs.append(os.dup(client.fileno()))
        except OSError as exc:
            assert exc.errno == errno.EMFILE
        client.connect(server.sockets[0].getsockname())
        start = time.process_time()
        await asyncio.sleep(0.3)
        assert time.process_time() - start < 0.2, "the loop spins"
        assert not made
        for fd in hogs:
            os.close(fd)
        await asyncio.wait_for(made.until(1), 5)
        client.close()
        await made[0].until_lost()
        server.close()
        await server.wait_closed()

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, soft), hard))
    try:
        loop.run_until_complete(main())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert loop_errors
    assert all(context["exception"].errno == errno.EMFILE for context in loop_errors)
    loop_errors.clear()


class Endpoint(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.errors: list[BaseException] = []
        self.lost: list[Any] = []

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.received.append(data)

    def error_received(self, exc: BaseException) -> None:
        self.errors.append(exc)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost.append(exc)


async def _works(transport: Any, endpoint: Endpoint) -> None:
    """The endpoint still sends and receives."""
    with socket.socket(type=socket.SOCK_DGRAM) as peer:
        peer.bind((LOOPBACK, 0))
        peer.settimeout(5)
        transport.sendto(b"out", peer.getsockname())
        assert peer.recv(10) == b"out"
        peer.sendto(b"in", transport.get_extra_info("sockname"))
        while b"in" not in endpoint.received:
            await asyncio.sleep(0)


@pytest.mark.parametrize(
    "address", [("240.0.0.1", 9), (LOOPBACK, 0), (LOOPBACK, 1), ("255.255.255.255", 9)]
)
def test_a_send_that_fails_does_not_end_the_endpoint(loop: Loop, address: Any) -> None:
    async def main() -> None:
        transport, endpoint = await loop.create_datagram_endpoint(
            Endpoint, local_addr=(LOOPBACK, 0)
        )
        for _ in range(3):
            transport.sendto(b"x", address)
        await _works(transport, endpoint)
        assert not endpoint.lost
        transport.close()
        await settled()
        assert endpoint.lost == [None]

    loop.run_until_complete(main())


def test_a_closed_port_is_told_and_the_endpoint_goes_on(loop: Loop) -> None:
    async def main() -> None:
        with socket.socket(type=socket.SOCK_DGRAM) as peer:
            peer.bind((LOOPBACK, 0))
            address = peer.getsockname()
        transport, endpoint = await loop.create_datagram_endpoint(Endpoint, remote_addr=address)
        transport.sendto(b"x")
        while not endpoint.errors:
            await asyncio.sleep(0)
        assert isinstance(endpoint.errors[0], ConnectionRefusedError)
        with socket.socket(type=socket.SOCK_DGRAM) as peer:
            peer.bind(address)
            peer.settimeout(5)
            transport.sendto(b"again")
            assert peer.recv(10) == b"again"
        transport.close()
        await settled()

    loop.run_until_complete(main())


def test_sending_after_close_is_dropped_but_still_checked(loop: Loop) -> None:
    async def main() -> None:
        transport, endpoint = await loop.create_datagram_endpoint(
            Endpoint, local_addr=(LOOPBACK, 0)
        )
        transport.close()
        transport.sendto(b"x", (LOOPBACK, 9))
        with pytest.raises(TypeError):
            transport.sendto(123, (LOOPBACK, 9))  # type: ignore[arg-type]
        await settled()
        assert endpoint.lost == [None]

    loop.run_until_complete(main())


def test_unix_datagrams_by_path_and_abstract_name(loop: Loop) -> None:
    async def main(folder: Path) -> None:
        for name in (str(folder / "d"), f"\0tokioloop-test-{os.getpid()}"):
            transport, endpoint = await loop.create_datagram_endpoint(
                Endpoint, local_addr=name, family=socket.AF_UNIX
            )
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as peer:
                peer.sendto(b"x", name)
                while not endpoint.received:
                    await asyncio.sleep(0)
            transport.close()
            await settled()

    with tempfile.TemporaryDirectory() as folder:
        loop.run_until_complete(main(Path(folder)))


@pytest.mark.parametrize("method", ["create_connection", "create_server"])
def test_a_port_out_of_range_is_refused(loop: Loop, method: str) -> None:
    with pytest.raises(OverflowError):
        loop.run_until_complete(getattr(loop, method)(asyncio.Protocol, LOOPBACK, 70000))


@pytest.mark.min_python(3, 11)
def test_a_paused_endpoint_leaves_datagrams_to_the_kernel(loop: Loop) -> None:
    async def main() -> None:
        transport, endpoint = await loop.create_datagram_endpoint(
            Endpoint, local_addr=(LOOPBACK, 0)
        )
        transport.pause_reading()
        with socket.socket(type=socket.SOCK_DGRAM) as peer:
            peer.sendto(b"held", transport.get_extra_info("sockname"))
        await settled()
        assert endpoint.received == []
        transport.resume_reading()
        while not endpoint.received:
            await asyncio.sleep(0)
        transport.close()
        await settled()

    loop.run_until_complete(main())


def test_lookups_under_way_do_not_hold_up_closing(flavour: Any) -> None:
    loop = flavour.new_event_loop()

    async def main() -> list[Any]:
        flags = socket.AI_NUMERICHOST
        names = [f"host-{number}.invalid" for number in range(64)]
        return [loop.create_task(loop.getaddrinfo(name, 80, flags=flags)) for name in names]

    tasks = loop.run_until_complete(main())
    results = loop.run_until_complete(asyncio.wait(tasks))
    assert all(isinstance(task.exception(), socket.gaierror) for task in results[0])
    loop.close()
