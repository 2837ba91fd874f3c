"""One owner per descriptor: through cancellation, failure and the reuse of its number."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest

from tests.support.leaks import open_descriptors
from tests.support.net import LOOPBACK, connected, listening_socket, settled, socket_pair
from tests.support.protocols import EchoProtocol, Recorder

LEAKY = "uvloop and rloop leak or close twice, which is what this is about"


def steps_until_done(loop, start, cancel_after: int) -> bool:
    """Runs `start()` as a task, cancels it after so many turns; whether it was done before."""

    async def main():
        task = asyncio.ensure_future(start())
        for _ in range(cancel_after):
            if task.done():
                break
            await asyncio.sleep(0)
        done = task.done()
        task.cancel()
        (result,) = await asyncio.gather(task, return_exceptions=True)
        if isinstance(result, tuple):
            result[0].abort()
        elif not isinstance(result, asyncio.CancelledError):
            raise result
        for _ in range(3):
            await asyncio.sleep(0)
        return done

    return loop.run_until_complete(main())


def cancelled_at_every_await(loop, start):
    """Yields after a cancellation at the first turn, the second, and so on until it completes."""
    for turn in range(1000):
        done = steps_until_done(loop, start, turn)
        yield turn
        if done:
            return
    pytest.fail("it never completed")


@pytest.mark.flavours("asyncio", "tokioloop", reason=LEAKY)
class TestCancelledConnect:
    def test_by_address_leaves_nothing_open(self, loop):
        with listening_socket() as listener:
            before = open_descriptors()
            for _ in cancelled_at_every_await(
                loop, lambda: loop.create_connection(Recorder, *listener.getsockname())
            ):
                assert open_descriptors().keys() <= before.keys()

    def test_sock_connect_leaves_the_socket_to_its_owner(self, loop):
        with listening_socket() as listener:

            async def start():
                await loop.sock_connect(sock, listener.getsockname())

            for _ in range(5):
                with socket.socket() as sock:
                    sock.setblocking(False)
                    number = sock.fileno()

                    async def main(start=start):
                        task = asyncio.ensure_future(start())
                        await asyncio.sleep(0)
                        task.cancel()
                        await asyncio.gather(task, return_exceptions=True)

                    loop.run_until_complete(main())
                    assert sock.fileno() == number
                    os.fstat(number)

    def test_the_number_of_a_cancelled_connect_is_free_for_another_socket(self, loop):
        """The worst bug of the field: the reused number was closed, or answered for another."""
        with listening_socket() as listener:
            address = listener.getsockname()
            for _turn in cancelled_at_every_await(
                loop, lambda: loop.create_connection(Recorder, *address)
            ):
                # These take the numbers that the cancelled connect has given back.
                with socket_pair() as (ours, theirs):

                    async def main(ours=ours, theirs=theirs):
                        transport, protocol = await loop.create_connection(Recorder, *address)
                        await loop.sock_sendall(ours, b"mine")
                        assert await loop.sock_recv(theirs, 100) == b"mine"
                        await settled()
                        assert protocol.received == b""
                        transport.abort()
                        await protocol.until_lost()

                    loop.run_until_complete(main())
                    assert ours.fileno() >= 0 and theirs.fileno() >= 0
                    os.fstat(ours.fileno())
                    os.fstat(theirs.fileno())

    def test_a_socket_that_was_passed_in_is_closed_or_kept_but_never_shared(self, loop):
        with listening_socket() as listener:
            address = listener.getsockname()
            for turn in range(6):
                ours = socket.create_connection(address)
                ours.setblocking(False)
                number = ours.fileno()
                completed = steps_until_done(
                    loop, lambda ours=ours: loop.create_connection(Recorder, sock=ours), turn
                )
                peer, _ = listener.accept()
                with peer, ours, socket_pair() as (left, right):
                    # Whoever owns `number` now, closing our object must not hit anybody else.
                    ours.close()
                    left.send(b"unharmed")
                    right.setblocking(True)
                    right.settimeout(5)
                    assert right.recv(100) == b"unharmed", (turn, completed, number)


@pytest.mark.flavours("asyncio", "tokioloop", reason=LEAKY)
class TestFailures:
    def test_refused_connects_leave_nothing_open(self, loop):
        with listening_socket() as listener:
            address = listener.getsockname()
        before = open_descriptors()

        async def main():
            for _ in range(50):
                with pytest.raises(ConnectionRefusedError):
                    await loop.create_connection(Recorder, *address)

        loop.run_until_complete(main())
        assert open_descriptors().keys() <= before.keys()

    def test_a_server_that_cannot_bind_leaves_nothing_open(self, loop):
        with listening_socket() as listener:
            before = open_descriptors()

            async def main():
                for _ in range(20):
                    with pytest.raises(OSError):
                        await loop.create_server(EchoProtocol, *listener.getsockname())

            loop.run_until_complete(main())
            assert open_descriptors().keys() <= before.keys()


def test_numbers_are_reused_by_the_next_connection_without_crosstalk(flavour, loop):
    """Connections come and go on the same few numbers; each hears only its own peer."""
    if flavour.name == "rloop":
        pytest.skip("rloop closes descriptors when the transport object dies")

    async def main():
        numbers = set()
        for number in range(200):
            async with connected("client") as (transport, protocol, peer):
                numbers.add(transport.get_extra_info("socket").fileno())
                word = b"%06d" % number
                peer.sendall(word)
                transport.write(word)
                assert await protocol.until_received(6) == word
                assert peer.recv(100) == word
                if number % 3 == 0:
                    transport.close()
                elif number % 3 == 1:
                    peer.close()
                await settled() if number % 10 == 0 else None
        assert len(numbers) < 20, "the numbers were not reused: nothing was proved"

    loop.run_until_complete(main())


def test_opening_and_closing_every_kind_of_endpoint_leaves_no_descriptor(flavour, loop):
    if flavour.name == "rloop":
        pytest.skip("rloop closes descriptors when the transport object dies")
    before = None

    async def main():
        nonlocal before
        for round_number in range(30):
            server = await loop.create_server(EchoProtocol, LOOPBACK, 0)
            transport, protocol = await loop.create_connection(
                Recorder, *server.sockets[0].getsockname()
            )
            transport.write(b"x")
            await protocol.until_received(1)
            transport.close()
            await protocol.until_lost()
            server.close()
            await server.wait_closed()
            await settled()
            if round_number == 3:
                before = open_descriptors()
        assert open_descriptors().keys() == before.keys()

    loop.run_until_complete(main())
