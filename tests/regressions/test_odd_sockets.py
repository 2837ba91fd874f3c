"""Sockets whose short reads mean nothing, and sockets that their callers close or change."""

from __future__ import annotations

import array
import asyncio
import contextlib
import os
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.support.flavours import Flavour
from tests.support.net import LOOPBACK, settled, socket_pair
from tests.support.programs import output_of
from tests.support.protocols import Recorder

pytestmark = pytest.mark.flavours(
    "asyncio", "tokioloop", reason="the peers lose such data, or write into foreign sockets"
)
Loop = asyncio.AbstractEventLoop


@asynccontextmanager
async def unix_transport() -> AsyncIterator[tuple[socket.socket, socket.socket, Recorder]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.create_connection(Recorder, sock=ours)
        await settled()
        yield ours, theirs, protocol
        transport.abort()
        await protocol.until_lost()


def test_data_behind_a_descriptor_that_was_passed_arrives(loop: Loop) -> None:
    async def main() -> None:
        async with unix_transport() as (_, theirs, protocol):
            read_end, write_end = os.pipe()
            passed = array.array("i", [read_end])
            theirs.sendmsg([b"abc"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, passed)])
            theirs.sendall(b"def")
            os.close(read_end)
            os.close(write_end)
            assert await protocol.until_received(6) == b"abcdef"

    loop.run_until_complete(main())


@pytest.mark.skipif(not hasattr(socket, "SO_PASSCRED"), reason="credentials are passed on Linux")
def test_data_of_another_process_arrives_where_credentials_are_asked_for(loop: Loop) -> None:
    async def main() -> None:
        async with unix_transport() as (ours, theirs, protocol):
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            theirs.sendall(b"abc")
            sender = "import os, sys; os.write(int(sys.argv[1]), b'def')"
            number = theirs.fileno()
            arguments = [sys.executable, "-c", sender, str(number)]
            child = os.posix_spawn(
                sys.executable,
                arguments,
                os.environ,
                file_actions=[(os.POSIX_SPAWN_DUP2, number, number)],
            )
            os.waitpid(child, 0)
            assert await protocol.until_received(6) == b"abcdef"

    loop.run_until_complete(main())


@pytest.mark.skipif(
    sys.platform == "darwin", reason="listed in docs/differences.md: nothing tells of it"
)
def test_data_behind_urgent_data_arrives(loop: Loop) -> None:
    async def main() -> None:
        with socket_pair() as (ours, theirs):
            transport, protocol = await loop.create_connection(Recorder, sock=ours)
            await settled()
            theirs.send(b"abc")
            theirs.send(b"!", socket.MSG_OOB)
            theirs.send(b"def")
            assert await protocol.until_received(6) == b"abcdef"
            transport.abort()
            await protocol.until_lost()

    loop.run_until_complete(main())


def test_a_transport_whose_socket_was_closed_writes_into_no_other_file(loop: Loop) -> None:
    async def main() -> None:
        async with unix_transport() as (ours, _, protocol):
            number = ours.fileno()
            ours.close()
            other, others_peer = socket.socketpair()
            with other, others_peer:
                assert other.fileno() == number
                others_peer.setblocking(False)
                protocol.transport.write(b"secret")
                assert isinstance(await protocol.until_lost(), OSError)
                with pytest.raises(BlockingIOError):
                    others_peer.recv(100)

    loop.run_until_complete(main())


@pytest.mark.parametrize("fallback", [False, True])
def test_a_transport_whose_socket_was_closed_sends_a_file_into_no_other(
    loop: Loop, fallback: bool
) -> None:
    async def main() -> None:
        async with unix_transport() as (ours, _, protocol):
            number = ours.fileno()
            ours.close()
            other, others_peer = socket.socketpair()
            with other, others_peer, tempfile.TemporaryFile() as file:
                assert other.fileno() == number
                others_peer.setblocking(False)
                file.write(b"secret")
                file.flush()
                # asyncio's fallback writes, which ends the transport and says nothing.
                with contextlib.suppress(asyncio.SendfileNotAvailableError, OSError):
                    await loop.sendfile(protocol.transport, file, fallback=fallback)
                with pytest.raises(BlockingIOError):
                    others_peer.recv(100)

    loop.run_until_complete(main())


def test_an_endpoint_whose_socket_was_closed_sends_through_no_other_file(loop: Loop) -> None:
    class Endpoint(asyncio.DatagramProtocol):
        def __init__(self) -> None:
            self.error = asyncio.get_running_loop().create_future()

        def error_received(self, exc: Exception) -> None:
            self.error.set_result(exc)

    def bound() -> socket.socket:
        made = socket.socket(type=socket.SOCK_DGRAM)
        made.bind((LOOPBACK, 0))
        made.setblocking(False)
        return made

    async def main() -> None:
        ours = bound()
        transport, protocol = await loop.create_datagram_endpoint(Endpoint, sock=ours)
        number = ours.fileno()
        ours.close()
        with bound() as other, bound() as target:
            assert other.fileno() == number
            transport.sendto(b"secret", target.getsockname())
            assert isinstance(await protocol.error, OSError)
            with pytest.raises(BlockingIOError):
                target.recv(100)
            transport.abort()
            await settled()

    loop.run_until_complete(main())


@pytest.mark.parametrize("waits", ["sock_recv", "add_reader"])
def test_the_end_of_a_transport_leaves_the_next_socket_of_its_number_alone(
    loop: Loop, waits: str
) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
        await settled()
        number = ours.fileno()
        transport.close()
        ours.close()
        new, peer = socket.socketpair()
        with theirs, new, peer:
            assert new.fileno() == number
            new.setblocking(False)
            loop.call_later(0.01, peer.send, b"served")
            if waits == "sock_recv":
                assert await asyncio.wait_for(loop.sock_recv(new, 10), 5) == b"served"
                return
            served = loop.create_future()
            loop.add_reader(new, lambda: served.done() or served.set_result(new.recv(10)))
            assert await asyncio.wait_for(served, 5) == b"served"
            loop.remove_reader(new)

    loop.run_until_complete(main())


def test_a_file_that_others_made_blocking_does_not_stop_the_loop(flavour: Flavour) -> None:
    program = """
    import os, signal, socket

    class Protocol(asyncio.Protocol):
        def data_received(self, data):
            asyncio.get_running_loop().call_soon(print, "the loop runs")
            asyncio.get_running_loop().call_soon(self.transport.abort)

        def connection_made(self, transport):
            self.transport = transport

        def connection_lost(self, exc):
            lost.set()

    async def main():
        global lost
        lost = asyncio.Event()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        await asyncio.get_running_loop().create_connection(Protocol, sock=ours)
        # As a child does that has inherited it.
        os.set_blocking(os.dup(ours.fileno()), True)
        theirs.send(bytes(65536))
        await lost.wait()

    signal.alarm(10)
    new_loop().run_until_complete(main())
    """
    assert output_of(flavour, program) == "the loop runs\n"
