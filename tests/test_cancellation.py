"""Cancellation at every await that a loop offers; whatever is cancelled leaves nothing behind."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest

from tests.support.leaks import open_descriptors
from tests.support.net import LOOPBACK, listening_socket, serving, socket_pair
from tests.support.protocols import EchoProtocol, Recorder

pytestmark = pytest.mark.flavours(
    "asyncio", "tokioloop", reason="uvloop and rloop leak descriptors when they are cancelled"
)


async def cancel_at_every_turn(start, clean_up):
    """Starts the awaitable over and over, cancelling after 0, 1, 2 … turns until it completes.

    `clean_up(result)` disposes of what it returned in the end.
    """
    for turns in range(500):
        task = asyncio.ensure_future(start())
        for _ in range(turns):
            await asyncio.sleep(0)
        if task.done():
            await clean_up(task.result())
            assert turns > 1, "it never waited, so it was never cancelled inside"
            return
        task.cancel()
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
        if not isinstance(outcome, asyncio.CancelledError):
            assert not isinstance(outcome, BaseException), outcome
            await clean_up(outcome)
        await asyncio.sleep(0)
    pytest.fail("it did not complete in 500 turns")


async def nothing(_result):
    pass


async def abort(result):
    transport, protocol = result
    transport.abort()
    await protocol.until_lost()


async def close_server(server):
    server.close()
    await server.wait_closed()


async def close_writer(result):
    _reader, writer = result
    writer.close()
    await writer.wait_closed()


def leaves_no_descriptors(loop, main):
    async def checked():
        before = open_descriptors()
        await main()
        for _ in range(5):
            await asyncio.sleep(0)
        assert open_descriptors().keys() <= before.keys()

    loop.run_until_complete(checked())


def test_create_connection(loop):
    with listening_socket() as listener:

        async def main():
            address = listener.getsockname()
            await cancel_at_every_turn(lambda: loop.create_connection(Recorder, *address), abort)

        leaves_no_descriptors(loop, main)


def test_open_connection(loop):
    with listening_socket() as listener:

        async def main():
            await cancel_at_every_turn(
                lambda: asyncio.open_connection(*listener.getsockname()), close_writer
            )

        leaves_no_descriptors(loop, main)


@pytest.mark.flavours("tokioloop", reason="asyncio itself forgets the listening socket here")
def test_create_server(loop):
    async def main():
        await cancel_at_every_turn(
            lambda: loop.create_server(EchoProtocol, LOOPBACK, 0), close_server
        )

    leaves_no_descriptors(loop, main)


def test_connect_accepted_socket(loop):
    with listening_socket() as listener:
        sockets = []

        def start():
            ours = socket.create_connection(listener.getsockname())
            ours.setblocking(False)
            sockets.append(ours)
            return loop.connect_accepted_socket(Recorder, ours)

        async def main():
            await cancel_at_every_turn(start, abort)
            for sock in sockets:
                sock.close()

        loop.run_until_complete(main())


def test_sock_connect(loop):
    with listening_socket() as listener:

        async def start():
            with socket.socket() as ours:
                ours.setblocking(False)
                await loop.sock_connect(ours, listener.getsockname())

        async def main():
            await cancel_at_every_turn(start, nothing)

        leaves_no_descriptors(loop, main)


def test_serve_forever(loop):
    async def main():
        for turns in range(10):
            async with serving(EchoProtocol) as (server, _address):
                task = asyncio.ensure_future(server.serve_forever())
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task

    leaves_no_descriptors(loop, main)


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("name", ["sock_recv", "sock_recv_into", "sock_sendall", "sock_accept"])
def test_socket_calls_that_wait(loop, name, turns):
    async def main():
        with socket_pair() as (ours, _theirs), listening_socket() as listener:
            listener.setblocking(False)
            start = {
                "sock_recv": lambda: loop.sock_recv(ours, 10),
                "sock_recv_into": lambda: loop.sock_recv_into(ours, bytearray(10)),
                "sock_sendall": lambda: loop.sock_sendall(ours, bytes(1 << 24)),
                "sock_accept": lambda: loop.sock_accept(listener),
            }[name]
            task = asyncio.ensure_future(start())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            for sock in (ours, listener):
                assert not loop.remove_reader(sock)
                assert not loop.remove_writer(sock)

    loop.run_until_complete(main())


def test_drain_and_stream_reads(loop):
    with listening_socket() as listener:

        async def main():
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            peer, _ = listener.accept()
            with peer:
                while not writer.transport.get_write_buffer_size():
                    writer.write(bytes(1 << 18))
                writer.write(bytes(1 << 18))
                for turns in range(4):
                    for start in (writer.drain, lambda: reader.read(1), reader.readline):
                        task = asyncio.ensure_future(start())
                        for _ in range(turns):
                            await asyncio.sleep(0)
                        task.cancel()
                        with pytest.raises(asyncio.CancelledError):
                            await task
                peer.sendall(b"still there\n")
                assert await reader.readline() == b"still there\n"
                writer.transport.abort()
                with pytest.raises(ConnectionError):
                    await writer.drain()
                    await writer.wait_closed()
                    raise ConnectionAbortedError  # an abort leaves nothing to raise
                await asyncio.sleep(0)

        leaves_no_descriptors(loop, main)


def test_executor_calls(loop):
    async def main():
        released = threading.Event()
        task = loop.run_in_executor(None, released.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        released.set()
        assert await loop.run_in_executor(None, int, "6") == 6
        await loop.shutdown_default_executor()

    loop.run_until_complete(main())


def test_name_resolution(loop):
    async def main():
        task = asyncio.ensure_future(loop.getaddrinfo("localhost", 80))
        await asyncio.sleep(0)
        task.cancel()  # unless a thread was quick enough
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
        assert isinstance(outcome, (asyncio.CancelledError, list))
        assert await loop.getaddrinfo(LOOPBACK, 80, type=socket.SOCK_STREAM)
        await loop.shutdown_default_executor()

    loop.run_until_complete(main())


def test_sleep_and_wait(loop):
    async def main():
        for start in (
            lambda: asyncio.sleep(60),
            lambda: asyncio.wait_for(loop.create_future(), 60),
            lambda: asyncio.wait([loop.create_future()], timeout=60),
            asyncio.Event().wait,
            asyncio.Queue().get,
        ):
            for turns in range(4):
                task = asyncio.ensure_future(start())
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task

    loop.run_until_complete(main())
