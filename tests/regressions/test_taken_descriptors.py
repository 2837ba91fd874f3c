"""Descriptors that go from a watch or a listener to a transport or a listener, and back."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.flavours import Flavour
from tests.support.net import LOOPBACK, fill_send_queue, in_thread, settled, socket_pair
from tests.support.protocols import Recorder
from tests.udp.endpoints import open_endpoint, plain_socket

pytestmark = pytest.mark.flavours(
    "asyncio", "tokioloop", reason="the peers mix the owners of a descriptor up"
)
Loop = asyncio.AbstractEventLoop


def bound(kind: int) -> socket.socket:
    made = socket.socket(type=kind)
    made.bind((LOOPBACK, 0))
    made.setblocking(False)
    if kind == socket.SOCK_STREAM:
        made.listen()
    return made


@contextmanager
def watched(
    loop: Loop, flavour: Flavour, how: str, sock: socket.socket
) -> Iterator[Callable[[], None]]:
    """A watch of a socket that the test gives to somebody else; none of its calls may come after."""
    calls: list[None] = []
    getattr(loop, how)(sock, calls.append, None)
    yield calls.clear
    # asyncio's writer stays: it is called in every turn until the transport has to wait for room.
    if how == "add_reader" or flavour.name != "asyncio":
        assert not calls


@pytest.mark.parametrize("how", ["add_reader", "add_writer"])
def test_a_transport_takes_its_socket_from_a_watch(loop: Loop, flavour: Flavour, how: str) -> None:
    async def main() -> None:
        with socket_pair() as (ours, theirs), watched(loop, flavour, how, ours) as forget:
            transport, protocol = await loop.create_connection(Recorder, sock=ours)
            forget()
            theirs.send(b"x")
            assert await protocol.until_received(1) == b"x"
            # Both directions are the transport's, and its end is none of the watch's.
            sent = fill_send_queue(transport)
            transport.close()
            theirs.setblocking(True)
            await in_thread(lambda: theirs.recv(sent, socket.MSG_WAITALL))
            await protocol.until_lost()
            await settled()

    loop.run_until_complete(main())


@pytest.mark.parametrize("how", ["add_reader", "add_writer"])
def test_an_endpoint_takes_its_socket_from_a_watch(loop: Loop, flavour: Flavour, how: str) -> None:
    async def main() -> None:
        ours = bound(socket.SOCK_DGRAM)
        with bound(socket.SOCK_DGRAM) as peer, watched(loop, flavour, how, ours) as forget:
            async with open_endpoint(sock=ours) as endpoint:
                forget()
                peer.sendto(b"x", endpoint.address)
                assert await endpoint.until_received(1) == [b"x"]
                await settled()

    loop.run_until_complete(main())


@pytest.mark.parametrize("how", ["add_reader", "add_writer"])
def test_a_server_takes_its_socket_from_a_watch(loop: Loop, flavour: Flavour, how: str) -> None:
    async def main() -> None:
        ours = bound(socket.SOCK_STREAM)
        accepted = loop.create_future()

        class Accepted(Recorder):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                super().connection_made(transport)
                accepted.set_result(self)

        with watched(loop, flavour, how, ours) as forget:
            server = await loop.create_server(Accepted, sock=ours)
            forget()
            with socket.create_connection(ours.getsockname()):
                protocol = await accepted
            await protocol.until_lost()
            await settled()
            server.close()
            await server.wait_closed()

    loop.run_until_complete(main())


@pytest.mark.flavours("tokioloop", reason="asyncio's selector does not see the new socket")
@pytest.mark.parametrize("was", ["server", "watch"])
def test_a_server_takes_a_number_that_was_closed_behind_the_loop(loop: Loop, was: str) -> None:
    async def main() -> None:
        old = bound(socket.SOCK_STREAM)
        if was == "server":
            await loop.create_server(Recorder, sock=old)
        else:
            loop.add_reader(old, int)
        number = old.fileno()
        old.close()
        new = bound(socket.SOCK_STREAM)
        assert new.fileno() == number
        accepted = loop.create_future()

        def accept() -> Recorder:
            accepted.set_result(Recorder())
            return accepted.result()

        server = await loop.create_server(accept, sock=new)
        with socket.create_connection(new.getsockname()):
            protocol = await accepted
        await protocol.until_lost()
        server.close()
        await server.wait_closed()

    loop.run_until_complete(main())


@pytest.mark.parametrize("backlog", [1, 5], ids=["in the next batch", "in the same batch"])
def test_a_server_whose_socket_was_closed_takes_no_connection_of_another_one(
    loop: Loop, loop_errors: Any, backlog: int
) -> None:
    async def main() -> None:
        first = bound(socket.SOCK_STREAM)
        number = first.fileno()
        others: list[socket.socket] = []
        made: list[Recorder] = []

        def accept() -> Recorder:
            if not others:
                first.close()
                other = bound(socket.SOCK_STREAM)
                assert other.fileno() == number
                others[:] = other, socket.create_connection(other.getsockname())
            made.append(Recorder())
            return made[-1]

        await loop.create_server(accept, sock=first, backlog=backlog)
        clients = [socket.create_connection(first.getsockname()) for _ in range(2)]
        while not others:
            await asyncio.sleep(0)
        await settled()
        other, client = others
        accepted, address = other.accept()
        assert address == client.getsockname()
        for sock in (accepted, *others, *clients):
            sock.close()
        for protocol in made:
            await protocol.until_lost()

    loop.run_until_complete(main())
    assert all(error.errno == errno.EBADF for error in loop_errors.exceptions)
    loop_errors.clear()


@pytest.mark.parametrize("how", ["add_reader", "sock_recv"])
def test_a_closing_transport_sends_the_rest_whoever_wants_its_socket(
    loop: Loop, flavour: Flavour, how: str
) -> None:
    async def main() -> None:
        with socket_pair() as (ours, theirs):
            transport, protocol = await loop.create_connection(Recorder, sock=ours)
            sent = fill_send_queue(transport)
            transport.close()
            waiting = None
            if how == "sock_recv":
                waiting = loop.create_task(loop.sock_recv(ours, 1))
                await asyncio.sleep(0)
            elif flavour.name == "asyncio":
                loop.add_reader(ours, int)  # It has room for two.
            else:
                with pytest.raises(RuntimeError, match="is used by transport"):
                    loop.add_reader(ours, int)
            theirs.setblocking(True)
            received = await in_thread(lambda: theirs.recv(sent, socket.MSG_WAITALL))
            assert len(received) == sent
            await protocol.until_lost()
            if waiting is not None:
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)

    loop.run_until_complete(main())


def test_a_closing_endpoint_sends_the_rest_whoever_wants_its_socket(
    loop: Loop, flavour: Flavour, tmp_path: Path
) -> None:
    async def main() -> None:
        to = str(tmp_path / "peer")
        with plain_socket(socket.AF_UNIX, to) as peer:
            options = {"local_addr": str(tmp_path / "own"), "remote_addr": to}
            async with open_endpoint(family=socket.AF_UNIX, **options) as endpoint:
                sent = 0
                while not endpoint.transport.get_write_buffer_size():
                    endpoint.transport.sendto(b"x" * 1000)
                    sent += 1
                endpoint.transport.close()
                sock = endpoint.transport.get_extra_info("socket")
                if flavour.name == "asyncio":
                    loop.add_reader(sock, int)
                else:
                    with pytest.raises(RuntimeError, match="is used by transport"):
                        loop.add_reader(sock, int)
                for _ in range(sent):
                    assert await in_thread(peer.recv, 2000) == b"x" * 1000
                assert await endpoint.until_lost() is None

    loop.run_until_complete(main())


@pytest.mark.flavours("tokioloop", reason="asyncio's selector knows the old socket")
def test_the_number_of_a_closing_transport_whose_socket_was_closed_can_be_watched(
    loop: Loop,
) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        transport, protocol = await loop.create_connection(Recorder, sock=ours)
        fill_send_queue(transport)
        transport.close()
        number = ours.fileno()
        ours.close()
        one, two = socket.socketpair()
        with theirs, one, two:
            assert one.fileno() == number
            loop.add_reader(one, int)
            assert loop.remove_reader(one)
        transport.abort()
        await protocol.until_lost()

    loop.run_until_complete(main())
