"""Datagrams by `sock_*`: receivers without room, and arguments that are refused."""

from __future__ import annotations

import asyncio
import socket
from array import array
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.sockets.support import Loop, cancelled
from tests.support.net import LOOPBACK, settled, socket_pair

pytestmark = [
    pytest.mark.flavours("asyncio", "tokioloop", reason="the others have no datagram calls"),
    pytest.mark.min_python(3, 11),
]


@contextmanager
def unix_sockets(*paths: Path | None) -> Iterator[list[socket.socket]]:
    """Unix datagram sockets, bound to what paths are given."""
    with ExitStack() as stack:
        sockets = []
        for path in paths:
            sock = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            sock.setblocking(False)
            if path is not None:
                sock.bind(str(path))
            sockets.append(sock)
        yield sockets


def fill(sender: socket.socket, receiver: Path) -> int:
    """Sends until the receiver has no room; returns how many datagrams it has."""
    count = 0
    while True:
        try:
            sender.sendto(b"filling", str(receiver))
        except BlockingIOError:
            return count
        count += 1


def drain(receiver: socket.socket, count: int) -> None:
    for _ in range(count):
        assert receiver.recv(100) == b"filling"


@pytest.mark.parametrize("filled_by", ["another", "itself"])
def test_an_unconnected_sender_waits_for_room_at_its_receiver(
    loop: Loop, tmp_path: Path, filled_by: str
) -> None:
    full, free = tmp_path / "full", tmp_path / "free"

    async def main() -> None:
        with unix_sockets(full, free, None, None) as (receiver, other, sender, stranger):
            for _ in range(2):
                count = fill(stranger if filled_by == "another" else sender, full)
                sending = asyncio.ensure_future(loop.sock_sendto(sender, b"hello", str(full)))
                await settled()
                assert not sending.done()
                drain(receiver, count)
                assert await asyncio.wait_for(sending, 5) == 5
                assert receiver.recv(100) == b"hello"
                for destination, reader in ((full, receiver), (free, other)):
                    again = loop.sock_sendto(sender, b"again", str(destination))
                    assert await asyncio.wait_for(again, 5) == 5
                    assert reader.recv(100) == b"again"

    loop.run_until_complete(main())


def test_a_receiver_without_room_does_not_hold_up_another(loop: Loop, tmp_path: Path) -> None:
    full, free = tmp_path / "full", tmp_path / "free"

    async def main() -> None:
        with unix_sockets(full, free, None, None) as (_receiver, other, sender, stranger):
            fill(stranger, full)
            sending = asyncio.ensure_future(loop.sock_sendto(sender, b"hello", str(full)))
            await settled()
            await cancelled(sending)
            passing = loop.sock_sendto(sender, b"passing", str(free))
            assert await asyncio.wait_for(passing, 5) == 7
            assert other.recv(100) == b"passing"

    loop.run_until_complete(main())


def test_arguments_are_refused_at_once_after_a_call_has_waited(loop: Loop) -> None:
    async def main() -> None:
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.bind((LOOPBACK, 0))
            for _ in range(2):
                waiting = asyncio.ensure_future(loop.sock_recvfrom(sock, 100))
                await settled()
                await cancelled(waiting)
            calls: list[tuple[type[Exception], Any]] = [
                (TypeError, lambda: loop.sock_recvfrom(sock, "x")),  # type: ignore[arg-type]
                (ValueError, lambda: loop.sock_recvfrom(sock, -1)),
                (ValueError, lambda: loop.sock_recvfrom_into(sock, bytearray(1), 100)),
            ]
            for kind, call in calls:
                with pytest.raises(kind):
                    await asyncio.wait_for(call(), 5)

    loop.run_until_complete(main())


def test_sending_nothing_needs_no_room(loop: Loop) -> None:
    async def main() -> None:
        with socket_pair() as (ours, _theirs):
            for _ in range(2):
                sending = asyncio.ensure_future(loop.sock_sendall(ours, bytes(1 << 24)))
                await settled()
                assert not sending.done()
                await cancelled(sending)
            await asyncio.wait_for(loop.sock_sendall(ours, b""), 5)

    loop.run_until_complete(main())


@pytest.mark.flavours("tokioloop", reason="asyncio counts items and spins")
def test_items_of_several_bytes_are_sent_by_a_subclass_too(loop: Loop) -> None:
    class Subclass(socket.socket):
        pass

    async def main() -> None:
        with socket_pair() as (ours, theirs):
            with Subclass(fileno=ours.detach()) as sock:
                sock.setblocking(False)
                numbers = array("i", range(100))
                await asyncio.wait_for(loop.sock_sendall(sock, numbers), 5)
                assert theirs.recv(10_000) == numbers.tobytes()

    loop.run_until_complete(main())


@pytest.mark.flavours("tokioloop", reason="asyncio lets the last call replace the others")
def test_waiting_calls_keep_their_order_when_the_first_is_cancelled(loop: Loop) -> None:
    async def main() -> None:
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.bind((LOOPBACK, 0))
            order: list[str] = []

            async def receive(name: str) -> None:
                await loop.sock_recvfrom(sock, 100)
                order.append(name)

            first, second = (asyncio.ensure_future(receive(name)) for name in ("1st", "2nd"))
            await settled()
            await cancelled(first)
            third = asyncio.ensure_future(receive("3rd"))
            await settled()
            for _ in range(2):
                sock.sendto(b"data", sock.getsockname())
            await asyncio.wait_for(asyncio.gather(second, third), 5)
            assert order == ["2nd", "3rd"]

    loop.run_until_complete(main())
