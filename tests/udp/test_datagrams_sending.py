"""`sendto`: what it takes, what becomes of errors, and what it does when the kernel is full."""

from __future__ import annotations

import array
import asyncio
import contextlib
import errno
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.net import LOOPBACK, settled

from .endpoints import Endpoint, open_endpoint, plain_socket

pytestmark = pytest.mark.flavours(
    "asyncio", "tokioloop", reason="the peers differ from asyncio in what these tests are about"
)
Loop = asyncio.AbstractEventLoop
HEADER = 8 if sys.version_info >= (3, 13) else 0


@pytest.mark.parametrize("connected", [False, True])
def test_every_kind_of_bytes_is_sent(loop: Loop, connected: bool) -> None:
    async def main() -> None:
        with plain_socket() as peer:
            to = peer.getsockname()
            options = {"remote_addr": to} if connected else {"local_addr": (LOOPBACK, 0)}
            async with open_endpoint(**options) as endpoint:
                sendto = endpoint.transport.sendto
                wide = memoryview(array.array("H", [1, 2]))
                for data in (b"bytes", bytearray(b"array"), memoryview(b"view"), wide):
                    sendto(data, None if connected else to)
                    assert peer.recv(100) == bytes(data)
                sendto(b"by keyword", addr=to)
                assert peer.recv(100) == b"by keyword"

    loop.run_until_complete(main())


@pytest.mark.parametrize("data", ["text", 5, None, [1]], ids=repr)
def test_other_data_is_a_type_error_of_the_call(loop: Loop, data: Any) -> None:
    async def main() -> None:
        async with open_endpoint() as endpoint:
            with pytest.raises(TypeError, match="data argument must be a bytes-like object"):
                endpoint.transport.sendto(data, (LOOPBACK, 9))
            await settled()
            assert not endpoint.lost

    loop.run_until_complete(main())


def test_an_empty_datagram_is_sent_from_3_13_on(loop: Loop) -> None:
    async def main() -> None:
        with plain_socket() as peer:
            async with open_endpoint() as endpoint:
                endpoint.transport.sendto(b"", peer.getsockname())
                endpoint.transport.sendto(b"after", peer.getsockname())
                if sys.version_info >= (3, 13):
                    assert peer.recv(10) == b""
                assert peer.recv(10) == b"after"

    loop.run_until_complete(main())


def test_a_connected_endpoint_sends_to_its_peer_alone(loop: Loop) -> None:
    async def main() -> None:
        with plain_socket() as peer, plain_socket() as stranger:
            async with open_endpoint(remote_addr=peer.getsockname()) as endpoint:
                text = f"Invalid address: must be None or {peer.getsockname()}"
                with pytest.raises(ValueError) as caught:
                    endpoint.transport.sendto(b"x", stranger.getsockname())
                assert str(caught.value) == text
                endpoint.transport.sendto(b"y", peer.getsockname())
                assert peer.recv(10) == b"y"
                stranger.sendto(b"not for you", endpoint.address)
                peer.sendto(b"for you", endpoint.address)
                assert await endpoint.until_received(1) == [b"for you"]

    loop.run_until_complete(main())


def test_a_closed_port_is_told_and_the_endpoint_goes_on(loop: Loop) -> None:
    async def main() -> None:
        with plain_socket() as peer:
            to = peer.getsockname()
        async with open_endpoint(remote_addr=to) as endpoint:
            for _ in range(3):
                errors = len(endpoint.errors)
                endpoint.transport.sendto(b"anybody?")
                await endpoint.until(lambda errors=errors: len(endpoint.errors) > errors)
            assert {exc.errno for exc in endpoint.errors} == {errno.ECONNREFUSED}
            assert all(type(exc) is ConnectionRefusedError for exc in endpoint.errors)
            with plain_socket(address=to) as back:
                endpoint.transport.sendto(b"here?")
                data, sender = back.recvfrom(10)
                assert data == b"here?"
                back.sendto(b"yes", sender)
                assert await endpoint.until_received(1) == [b"yes"]
            assert not endpoint.lost

    loop.run_until_complete(main())


@pytest.mark.parametrize(
    ("data", "to", "number"),
    [
        (bytes(70_000), (LOOPBACK, 9), errno.EMSGSIZE),
        (b"x", ("255.255.255.255", 9), errno.EACCES),
        (b"x", (LOOPBACK, 0), errno.EINVAL),
    ],
    ids=["too long", "broadcast without leave", "port 0"],
)
def test_a_send_that_fails_is_told_at_once(loop: Loop, data: bytes, to: Any, number: int) -> None:
    async def main() -> None:
        async with open_endpoint() as endpoint:
            endpoint.transport.sendto(data, to)
            (exc,) = endpoint.errors
            assert (type(exc), exc.errno) == (type(OSError(number, "")), number)
            with plain_socket() as peer:
                endpoint.transport.sendto(b"still here", peer.getsockname())
                assert peer.recv(100) == b"still here"
            assert not endpoint.lost

    loop.run_until_complete(main())


@pytest.mark.parametrize(
    "to", [None, (LOOPBACK, 70_000), (LOOPBACK, "9"), "127.0.0.1", (), 5], ids=repr
)
def test_an_address_that_is_none_ends_the_endpoint(loop: Loop, loop_errors: Any, to: Any) -> None:
    async def main() -> BaseException | None:
        async with open_endpoint() as endpoint:
            endpoint.transport.sendto(b"x", to)
            assert endpoint.transport.is_closing()
            return await endpoint.until_lost()

    exc = loop.run_until_complete(main())
    assert isinstance(exc, (TypeError, OverflowError))
    context = loop_errors.take()
    assert context["message"] == "Fatal write error on datagram transport"
    assert context["exception"] is exc


def test_an_exception_of_error_received_reaches_the_caller(loop: Loop) -> None:
    class Fails(Endpoint):
        def error_received(self, exc: Exception) -> None:
            raise ValueError("from error_received")

    async def main() -> None:
        async with open_endpoint(Fails) as endpoint:
            with pytest.raises(ValueError, match="from error_received"):
                endpoint.transport.sendto(bytes(70_000), (LOOPBACK, 9))
            assert not endpoint.lost

    loop.run_until_complete(main())


def _fill(endpoint: Endpoint, to: str | None, length: int = 1000) -> int:
    """Sends until the kernel takes no more; returns how many were sent, one of them queued."""
    sent = 0
    while not endpoint.transport.get_write_buffer_size():
        endpoint.transport.sendto(bytes([sent % 251]) * length, to)
        sent += 1
        assert sent < 10_000
    return sent


@pytest.mark.parametrize("connected", [False, True])
def test_what_the_kernel_has_no_room_for_waits_in_order(
    loop: Loop, tmp_path: Path, connected: bool
) -> None:
    async def main() -> None:
        to = str(tmp_path / "peer")
        with plain_socket(socket.AF_UNIX, to) as peer:
            own = str(tmp_path / "own")
            remote = {"remote_addr": to} if connected else {}
            options = {"family": socket.AF_UNIX, "local_addr": own, **remote}
            async with open_endpoint(**options) as endpoint:
                transport = endpoint.transport
                transport.set_write_buffer_limits(high=3000, low=1000)
                sent = _fill(endpoint, to)
                assert transport.get_write_buffer_size() == 1000 + HEADER
                for _ in range(3):
                    transport.sendto(bytes([sent % 251]) * 1000, to)
                    sent += 1
                assert transport.get_write_buffer_size() == 4 * (1000 + HEADER)
                assert endpoint.calls[-1] == "pause_writing"
                peer.setblocking(False)
                received: list[bytes] = []
                loop.add_reader(peer, lambda: received.append(peer.recv(2000)))
                await endpoint.until(lambda: "resume_writing" in endpoint.calls)
                while len(received) < sent:
                    await asyncio.sleep(0)
                loop.remove_reader(peer)
                assert [data[0] for data in received] == [n % 251 for n in range(sent)]
                assert endpoint.calls.count("pause_writing") == 1

    loop.run_until_complete(main())


@pytest.mark.parametrize("how", ["close", "abort"])
def test_close_sends_what_waits_and_abort_drops_it(loop: Loop, tmp_path: Path, how: str) -> None:
    async def main() -> None:
        to = str(tmp_path / "peer")
        with plain_socket(socket.AF_UNIX, to) as peer:
            options = {"family": socket.AF_UNIX, "local_addr": str(tmp_path / "own")}
            async with open_endpoint(**options) as endpoint:
                sent = _fill(endpoint, to)
                getattr(endpoint.transport, how)()
                assert endpoint.transport.is_closing()
                await settled()
                assert bool(endpoint.lost) == (how == "abort")
                peer.setblocking(False)
                received: list[bytes] = []
                loop.add_reader(peer, lambda: received.append(peer.recv(2000)))
                assert await endpoint.until_lost() is None
                expected = sent if how == "close" else sent - 1
                while len(received) < expected:
                    await asyncio.sleep(0)
                await settled()
                loop.remove_reader(peer)
                assert len(received) == expected
                assert endpoint.calls[-1] == "connection_lost"

    loop.run_until_complete(main())


def test_a_queued_datagram_is_what_it_was_when_it_was_sent(loop: Loop, tmp_path: Path) -> None:
    async def main() -> None:
        to = str(tmp_path / "peer")
        with plain_socket(socket.AF_UNIX, to) as peer:
            options = {"family": socket.AF_UNIX, "local_addr": str(tmp_path / "own")}
            async with open_endpoint(**options) as endpoint:
                sent = _fill(endpoint, to)
                data = bytearray(b"before")
                endpoint.transport.sendto(data, to)
                data[:] = b"after!"
                peer.setblocking(False)
                received: list[bytes] = []
                loop.add_reader(peer, lambda: received.append(peer.recv(2000)))
                while len(received) < sent + 1:
                    await asyncio.sleep(0)
                loop.remove_reader(peer)
                assert received[-1] == b"before"

    loop.run_until_complete(main())


@pytest.mark.flavours("tokioloop", reason="asyncio polls a full Unix receiver without a pause")
def test_waiting_for_a_full_receiver_costs_no_processor(loop: Loop, tmp_path: Path) -> None:
    async def main() -> None:
        to = str(tmp_path / "peer")
        with plain_socket(socket.AF_UNIX, to):
            options = {"family": socket.AF_UNIX, "local_addr": str(tmp_path / "own")}
            async with open_endpoint(**options) as endpoint:
                _fill(endpoint, to)
                turns = loop.metrics()["turns"]  # type: ignore[attr-defined]
                await asyncio.sleep(0.1)
                assert loop.metrics()["turns"] - turns < 400  # type: ignore[attr-defined]

    loop.run_until_complete(main())


def test_sends_after_the_end_are_dropped(loop: Loop, caplog: Any) -> None:
    async def main() -> None:
        with plain_socket() as peer:
            async with open_endpoint(remote_addr=peer.getsockname()) as endpoint:
                endpoint.transport.close()
                for _ in range(7):
                    endpoint.transport.sendto(b"too late")
                assert await endpoint.until_lost() is None
                peer.setblocking(False)
                with pytest.raises(BlockingIOError):
                    peer.recv(10)

    loop.run_until_complete(main())
    assert [record.getMessage() for record in caplog.records] == [
        "socket.send() raised exception."
    ] * 3


@pytest.mark.parametrize("raised", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("method", ["datagram_received", "resume_writing"])
def test_what_waits_is_sent_after_an_interrupted_protocol(
    loop: Loop, tmp_path: Path, raised: type[BaseException], method: str
) -> None:
    """One event tells of a datagram and of the room that there is again."""

    class Interrupted(Endpoint):
        raises = False

        def datagram_received(self, data: bytes, addr: Any) -> None:
            super().datagram_received(data, addr)
            self._interrupt("datagram_received")

        def resume_writing(self) -> None:
            super().resume_writing()
            self._interrupt("resume_writing")

        def _interrupt(self, of: str) -> None:
            if of == method and not self.raises:
                self.raises = True
                raise raised("on purpose")

    own, to = str(tmp_path / "own"), str(tmp_path / "peer")
    with plain_socket(socket.AF_UNIX, to) as peer:
        opening = open_endpoint(Interrupted, family=socket.AF_UNIX, local_addr=own, remote_addr=to)
        endpoint = loop.run_until_complete(opening.__aenter__())
        endpoint.transport.set_write_buffer_limits(high=3000, low=2500)
        sent = _fill(endpoint, None)
        for _ in range(4):
            endpoint.transport.sendto(bytes([sent % 251]) * 1000)
            sent += 1
        if method == "resume_writing":
            endpoint.transport.close()
        peer.setblocking(False)
        received: list[bytes] = []
        _receive_all(peer, received)
        peer.sendto(b"x", own)
        task = loop.create_task(asyncio.sleep(5))
        with pytest.raises(raised, match="on purpose"):
            loop.run_until_complete(task)
        task.cancel()
        if method == "resume_writing":
            # Nothing that the peer does tells of room any more.
            loop.run_until_complete(asyncio.wait_for(endpoint.until_lost(), 5))
        for _ in range(500):
            loop.run_until_complete(asyncio.sleep(0.001))
            _receive_all(peer, received)
            if len(received) == sent:
                break
        assert [data[0] for data in received] == [n % 251 for n in range(sent)]
        loop.run_until_complete(opening.__aexit__(None, None, None))


def _receive_all(sock: socket.socket, received: list[bytes]) -> None:
    with contextlib.suppress(BlockingIOError):
        while True:
            received.append(sock.recv(2000))
