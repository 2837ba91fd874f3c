"""One owner per descriptor, through cancellation, failure and reuse of its number."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import tempfile
from typing import Any

import pytest

from tests.support.leaks import open_descriptors
from tests.support.net import LOOPBACK, listening_socket, serving, settled, socket_pair
from tests.support.protocols import Recorder

pytestmark = pytest.mark.flavours(
    "asyncio", "tokioloop", reason="the peers have the defects these tests are about"
)
Loop = asyncio.AbstractEventLoop


def _identity(sock: socket.socket) -> tuple[int, int]:
    status = os.fstat(sock.fileno())
    return status.st_dev, status.st_ino


@pytest.mark.parametrize("method", ["create_connection", "create_unix_connection"])
@pytest.mark.parametrize("turns", range(3))
def test_a_cancelled_connection_closes_the_socket_it_was_given_at_most_once(
    loop: Loop, method: str, turns: int
) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            ours.setblocking(False)
            task = loop.create_task(getattr(loop, method)(Recorder, sock=ours))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            results = await asyncio.gather(task, return_exceptions=True)
            if not isinstance(results[0], BaseException):
                results[0][0].abort()
            for _ in range(3):
                await asyncio.sleep(0)
            # New sockets take the lowest free numbers; dropping the old object must spare them.
            with socket_pair() as (one, two):
                before = _identity(one), _identity(two)
                ours.close()
                del ours, task, results
                await settled()
                assert (_identity(one), _identity(two)) == before
                one.send(b"unharmed")
                assert await loop.sock_recv(two, 100) == b"unharmed"

    loop.run_until_complete(main())


def test_a_socket_that_was_handed_in_is_closed_with_its_transport(loop: Loop) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            ours.setblocking(False)
            transport, protocol = await loop.create_connection(Recorder, sock=ours)
            assert ours.fileno() == transport.get_extra_info("socket").fileno()
            transport.close()
            await protocol.until_lost()
            for _ in range(3):
                await asyncio.sleep(0)
            assert ours.fileno() == -1

    loop.run_until_complete(main())


def test_numbers_of_cancelled_connects_can_be_used_again(loop: Loop) -> None:
    async def main() -> None:
        # A full backlog keeps a connect waiting, on loopback too.
        with socket.socket() as listener:
            listener.bind((LOOPBACK, 0))
            listener.listen(0)
            address = listener.getsockname()
            blockers = [socket.socket() for _ in range(4)]
            for blocker in blockers:
                blocker.setblocking(False)
                blocker.connect_ex(address)
            for _ in range(200):
                sock = socket.socket()
                sock.setblocking(False)
                task = loop.create_task(loop.sock_connect(sock, address))
                await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                sock.close()
            for blocker in blockers:
                blocker.close()
        accepted: asyncio.Queue[Recorder] = asyncio.Queue()

        def accept() -> Recorder:
            protocol = Recorder()
            accepted.put_nowait(protocol)
            return protocol

        async with serving(accept) as (_server, address):
            for _ in range(20):
                sock = socket.socket()
                sock.setblocking(False)
                await loop.sock_connect(sock, address)
                transport, protocol = await loop.create_connection(Recorder, sock=sock)
                transport.abort()
                await protocol.until_lost()
                transport, protocol = await loop.create_connection(Recorder, *address)
                transport.abort()
                await protocol.until_lost()
            for _ in range(40):
                await (await accepted.get()).until_lost()

    loop.run_until_complete(main())


def test_a_read_pipe_is_closed_exactly_once(loop: Loop) -> None:
    async def main() -> None:
        reader, writer = os.pipe()
        file = os.fdopen(reader, "rb", 0)
        transport, protocol = await loop.connect_read_pipe(Recorder, file)
        os.close(writer)
        await protocol.until_lost()
        await asyncio.sleep(0)
        # The same number again, while transport and file object still exist.
        again, other = os.pipe()
        assert reader in (again, other)
        del file, transport, protocol
        await settled()
        os.write(other, b"x")
        assert os.read(again, 1) == b"x"
        os.close(again)
        os.close(other)

    loop.run_until_complete(main())


def test_an_unwatched_descriptor_is_left_alone_under_churn(loop: Loop) -> None:
    async def main() -> None:
        with socket_pair() as (ours, theirs):
            seen: list[str] = []
            loop.add_reader(ours, seen.append, "reader")
            loop.add_writer(ours, seen.append, "writer")
            assert loop.remove_reader(ours)
            assert loop.remove_writer(ours)
            seen.clear()
            theirs.send(b"for its owner")
            for _ in range(100):
                with socket_pair() as (one, two):
                    loop.add_reader(one, int)
                    two.send(b"x")
                    await asyncio.sleep(0)
                    loop.remove_reader(one)
            assert seen == []
            assert ours.recv(100) == b"for its owner"
            loop.add_reader(ours, seen.append, "again")
            theirs.send(b"x")
            while not seen:
                await asyncio.sleep(0)
            loop.remove_reader(ours)

    loop.run_until_complete(main())


@pytest.mark.flavours("tokioloop", reason="asyncio's selector does not see the new file")
def test_a_number_that_was_closed_behind_the_loop_can_be_watched_again(loop: Loop) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        number = ours.fileno()
        loop.add_reader(number, int)
        ours.close()
        theirs.close()
        with socket_pair() as (one, two):
            os.dup2(one.fileno(), number)
            got = loop.create_future()
            loop.add_reader(number, lambda: got.done() or got.set_result(os.read(number, 10)))
            two.send(b"x")
            assert await got == b"x"
            assert loop.remove_reader(number)
            os.close(number)

    loop.run_until_complete(main())


def test_a_regular_file_is_refused_each_time(loop: Loop) -> None:
    async def main() -> None:
        with tempfile.TemporaryFile() as file:
            for _ in range(2):
                with pytest.raises(PermissionError):
                    loop.add_reader(file, int)
            assert not loop.remove_reader(file)

    loop.run_until_complete(main())


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_socket_whose_descriptor_is_gone_is_a_clear_error(loop: Loop, kind: Any) -> None:
    async def main() -> None:
        sock = socket.socket(type=kind)
        sock.setblocking(False)
        os.close(sock.fileno())
        if kind == socket.SOCK_STREAM:
            with pytest.raises(OSError) as raised:
                await loop.create_connection(Recorder, sock=sock)
        else:
            with pytest.raises(OSError) as raised:
                await loop.create_datagram_endpoint(Recorder, sock=sock)
        assert raised.value.errno == errno.EBADF
        sock.detach()

    loop.run_until_complete(main())


@pytest.mark.parametrize("method", ["create_connection", "connect_accepted_socket"])
def test_a_factory_that_raises_leaves_the_socket_to_the_caller(loop: Loop, method: str) -> None:
    def factory() -> Any:
        raise ValueError("no protocol")

    async def main() -> None:
        with socket_pair() as (ours, theirs):
            with pytest.raises(ValueError, match="no protocol"):
                if method == "create_connection":
                    await loop.create_connection(factory, sock=ours)
                else:
                    await loop.connect_accepted_socket(factory, ours)
            await asyncio.sleep(0)
            if ours.fileno() >= 0:
                theirs.send(b"x")
                assert await loop.sock_recv(ours, 10) == b"x"

    before = open_descriptors()
    loop.run_until_complete(main())
    assert not [fd for fd in open_descriptors() if fd not in before]


def test_a_listening_socket_of_the_user_may_be_closed_after_the_server(loop: Loop) -> None:
    async def main() -> None:
        with listening_socket() as listener:
            server = await loop.create_server(Recorder, sock=listener)
            server.close()
            await server.wait_closed()
            with socket_pair() as (one, two):
                listener.close()
                one.send(b"unharmed")
                assert await loop.sock_recv(two, 100) == b"unharmed"

    loop.run_until_complete(main())


def test_cancelling_an_accept_or_a_read_loses_nothing(loop: Loop) -> None:
    async def main() -> None:
        with listening_socket() as listener:
            listener.setblocking(False)
            for _ in range(20):
                task = loop.create_task(loop.sock_accept(listener))
                await asyncio.sleep(0)
                with socket.create_connection(listener.getsockname()) as client:
                    task.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await task
                    accepted, address = await loop.sock_accept(listener)
                    with accepted:
                        assert address == client.getsockname()
                        read = loop.create_task(loop.sock_recv(accepted, 10))
                        await asyncio.sleep(0)
                        client.send(b"x")
                        read.cancel()
                        with pytest.raises(asyncio.CancelledError):
                            await read
                        assert await loop.sock_recv(accepted, 10) == b"x"

    loop.run_until_complete(main())
