"""`sock_recv` and its relatives on plain non-blocking sockets."""

from __future__ import annotations

import array
import asyncio
import socket

import pytest

from tests.support.net import (
    LOOPBACK,
    eventually,
    in_thread,
    listening_socket,
    receive_exactly,
    reset,
    settled,
    socket_pair,
)

LACKS = "uvloop and rloop do not implement it, or check less"


def test_sock_recv_returns_what_is_there(loop):
    async def main():
        with socket_pair() as (ours, theirs):
            theirs.send(b"there already")
            assert await loop.sock_recv(ours, 100) == b"there already"

    loop.run_until_complete(main())


def test_sock_recv_waits_for_data(loop):
    async def main():
        with socket_pair() as (ours, theirs):
            receiving = asyncio.ensure_future(loop.sock_recv(ours, 100))
            await settled()
            assert not receiving.done()
            theirs.send(b"late")
            assert await receiving == b"late"

    loop.run_until_complete(main())


def test_sock_recv_takes_no_more_than_asked_for(loop):
    async def main():
        with socket_pair() as (ours, theirs):
            theirs.send(b"1234567890")
            assert await loop.sock_recv(ours, 4) == b"1234"
            assert await loop.sock_recv(ours, 100) == b"567890"

    loop.run_until_complete(main())


def test_sock_recv_returns_nothing_at_end_of_file(loop):
    async def main():
        with socket_pair() as (ours, theirs):
            receiving = asyncio.ensure_future(loop.sock_recv(ours, 100))
            await settled()
            theirs.close()
            assert await receiving == b""

    loop.run_until_complete(main())


def test_sock_recv_raises_when_the_peer_resets(loop):
    async def main():
        with socket_pair() as (ours, theirs):
            receiving = asyncio.ensure_future(loop.sock_recv(ours, 100))
            await settled()
            reset(theirs)
            with pytest.raises(ConnectionResetError):
                await receiving

    loop.run_until_complete(main())


@pytest.mark.parametrize("waits", [False, True], ids=["at once", "later"])
def test_sock_recv_into_fills_the_buffer(loop, waits):
    async def main():
        with socket_pair() as (ours, theirs):
            buffer = bytearray(10)
            if not waits:
                theirs.send(b"12345")
            receiving = asyncio.ensure_future(loop.sock_recv_into(ours, buffer))
            if waits:
                await settled()
                theirs.send(b"12345")
            assert await receiving == 5
            assert buffer == b"12345\0\0\0\0\0"
            buffer.clear()  # nothing holds on to it

    loop.run_until_complete(main())


def test_sock_recv_into_takes_a_part_of_a_buffer(loop):
    async def main():
        with socket_pair() as (ours, theirs):
            buffer = bytearray(b"----------")
            theirs.send(b"12345678")
            assert await loop.sock_recv_into(ours, memoryview(buffer)[2:6]) == 4
            assert buffer == b"--1234----"
            assert await loop.sock_recv(ours, 100) == b"5678"

    loop.run_until_complete(main())


@pytest.mark.parametrize("size", [0, 1, 1 << 22])
def test_sock_sendall_sends_everything(loop, size):
    payload = bytes(range(256)) * (size // 256) + b"x" * (size % 256)

    async def main():
        with socket_pair() as (ours, theirs):
            theirs.settimeout(5)
            sending = asyncio.ensure_future(loop.sock_sendall(ours, payload))
            assert await in_thread(receive_exactly, theirs, size) == payload
            assert await sending is None

    loop.run_until_complete(main())


@pytest.mark.parametrize(
    "data",
    [bytearray(b"12345678"), memoryview(b"12345678"), memoryview(array.array("h", [1, 2, 3]))],
    ids=["bytearray", "memoryview", "memoryview of shorts"],
)
def test_sock_sendall_takes_any_buffer(flavour, loop, data):
    if flavour.name in ("asyncio", "rloop") and getattr(data, "itemsize", 1) > 1:
        pytest.skip("asyncio counts elements and waits for ever, rloop sends a byte for each")

    async def main():
        with socket_pair() as (ours, theirs):
            await loop.sock_sendall(ours, data)
            assert theirs.recv(100) == bytes(data)

    loop.run_until_complete(main())


def test_sock_sendall_waits_for_a_slow_peer(loop):
    async def main():
        with socket_pair() as (ours, theirs):
            theirs.settimeout(5)
            sending = asyncio.ensure_future(loop.sock_sendall(ours, bytes(1 << 24)))
            await settled()
            assert not sending.done()
            assert len(await in_thread(receive_exactly, theirs, 1 << 24)) == 1 << 24
            await sending

    loop.run_until_complete(main())


def test_sock_sendall_raises_when_the_peer_resets(loop):
    async def main():
        with socket_pair() as (ours, theirs):
            sending = asyncio.ensure_future(loop.sock_sendall(ours, bytes(1 << 24)))
            await settled()
            reset(theirs)
            with pytest.raises((ConnectionResetError, BrokenPipeError)):
                await sending

    loop.run_until_complete(main())


def test_sock_accept_returns_a_non_blocking_socket_and_the_address(loop):
    async def main():
        with listening_socket() as listener:
            listener.setblocking(False)
            accepting = asyncio.ensure_future(loop.sock_accept(listener))
            await settled()
            with socket.create_connection(listener.getsockname()) as theirs:
                ours, address = await accepting
                with ours:
                    assert address == theirs.getsockname()
                    assert ours.gettimeout() == 0
                    theirs.send(b"hello")
                    assert await loop.sock_recv(ours, 100) == b"hello"

    loop.run_until_complete(main())


def test_sock_accept_takes_who_waits_already(loop):
    async def main():
        with listening_socket() as listener:
            listener.setblocking(False)
            callers = [socket.create_connection(listener.getsockname()) for _ in range(10)]
            accepted = [await loop.sock_accept(listener) for _ in callers]
            assert sorted(address for _sock, address in accepted) == sorted(
                caller.getsockname() for caller in callers
            )
            for sock in (*callers, *(sock for sock, _address in accepted)):
                sock.close()

    loop.run_until_complete(main())


def test_sock_connect_connects(loop):
    async def main():
        with listening_socket() as listener, socket.socket() as ours:
            ours.setblocking(False)
            assert await loop.sock_connect(ours, listener.getsockname()) is None
            theirs, address = listener.accept()
            with theirs:
                assert address == ours.getsockname()

    loop.run_until_complete(main())


def test_sock_connect_raises_when_it_is_refused(loop):
    async def main():
        with listening_socket() as listener:
            address = listener.getsockname()
        with socket.socket() as ours, pytest.raises(ConnectionRefusedError):
            ours.setblocking(False)
            await loop.sock_connect(ours, address)

    loop.run_until_complete(main())


def test_sock_connect_resolves_names(loop):
    async def main():
        with listening_socket() as listener, socket.socket() as ours:
            ours.setblocking(False)
            await loop.sock_connect(ours, ("localhost", listener.getsockname()[1]))
            assert ours.getpeername() == listener.getsockname()
        await loop.shutdown_default_executor()

    loop.run_until_complete(main())


def test_both_directions_of_a_socket_wait_at_the_same_time(loop):
    async def main():
        with socket_pair() as (ours, theirs):
            theirs.settimeout(5)
            receiving = asyncio.ensure_future(loop.sock_recv(ours, 100))
            sending = asyncio.ensure_future(loop.sock_sendall(ours, bytes(1 << 24)))
            await settled()
            assert not receiving.done() and not sending.done()
            theirs.send(b"while you were sending")
            assert await receiving == b"while you were sending"
            assert not sending.done()
            await in_thread(receive_exactly, theirs, 1 << 24)
            await sending

    loop.run_until_complete(main())


class TestCancelled:
    def test_a_cancelled_sock_recv_loses_nothing(self, loop):
        async def main():
            with socket_pair() as (ours, theirs):
                for number in range(20):
                    receiving = asyncio.ensure_future(loop.sock_recv(ours, 100))
                    for _ in range(number % 4):
                        await asyncio.sleep(0)
                    if number % 2:
                        await settled()
                    receiving.cancel()
                    theirs.send(b"%02d" % number)
                    with pytest.raises(asyncio.CancelledError):
                        await receiving
                    assert await loop.sock_recv(ours, 100) == b"%02d" % number

        loop.run_until_complete(main())

    def test_cancelled_in_the_turn_in_which_data_arrives(self, loop):
        """Either the data is returned or the next call gets it: never an InvalidStateError."""

        async def main():
            for turns in range(8):
                with socket_pair() as (ours, theirs):
                    receiving = asyncio.ensure_future(loop.sock_recv(ours, 100))
                    await settled()
                    theirs.send(b"data")
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    receiving.cancel()
                    (result,) = await asyncio.gather(receiving, return_exceptions=True)
                    if isinstance(result, asyncio.CancelledError):
                        # asyncio itself may have read already when the cancellation came.
                        ours.setblocking(False)
                    else:
                        assert result == b"data"

        loop.run_until_complete(main())

    def test_a_cancelled_sock_accept_leaves_the_caller_to_the_next(self, loop):
        async def main():
            with listening_socket() as listener:
                listener.setblocking(False)
                for _ in range(5):
                    accepting = asyncio.ensure_future(loop.sock_accept(listener))
                    await settled()
                    accepting.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await accepting
                    with socket.create_connection(listener.getsockname()) as theirs:
                        ours, address = await loop.sock_accept(listener)
                        ours.close()
                        assert address == theirs.getsockname()

        loop.run_until_complete(main())

    def test_a_cancelled_sock_sendall_stops_sending(self, loop):
        async def main():
            with socket_pair() as (ours, theirs):
                theirs.settimeout(5)
                sending = asyncio.ensure_future(loop.sock_sendall(ours, bytes(1 << 24)))
                await settled()
                sending.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await sending
                ours.close()
                received = 0
                while data := theirs.recv(1 << 20):
                    received += len(data)
                assert 0 < received < 1 << 24

        loop.run_until_complete(main())

    def test_a_waiter_with_a_timeout_can_try_again(self, loop):
        async def main():
            with socket_pair() as (ours, theirs):
                for _ in range(3):
                    with pytest.raises(asyncio.TimeoutError):
                        await asyncio.wait_for(loop.sock_recv(ours, 10), 0.005)
                theirs.send(b"at last")
                assert await loop.sock_recv(ours, 10) == b"at last"

        loop.run_until_complete(main())


@pytest.mark.flavours("asyncio", "tokioloop", reason=LACKS)
class TestChecks:
    def test_a_blocking_socket_is_refused_in_debug_mode(self, loop):
        loop.set_debug(True)

        async def main():
            with socket_pair(blocking=True) as (ours, _theirs):
                for call in (
                    lambda: loop.sock_recv(ours, 1),
                    lambda: loop.sock_recv_into(ours, bytearray(1)),
                    lambda: loop.sock_sendall(ours, b"x"),
                    lambda: loop.sock_accept(ours),
                    lambda: loop.sock_connect(ours, (LOOPBACK, 1)),
                ):
                    with pytest.raises(ValueError, match="the socket must be non-blocking"):
                        await call()

        loop.run_until_complete(main())

    def test_a_closed_socket_is_an_os_error(self, loop):
        async def main():
            with socket_pair() as (ours, _theirs):
                ours.close()
                for call in (
                    lambda: loop.sock_recv(ours, 1),
                    lambda: loop.sock_recv_into(ours, bytearray(1)),
                    lambda: loop.sock_sendall(ours, b"x"),
                    lambda: loop.sock_accept(ours),
                ):
                    with pytest.raises(OSError, match="Bad file descriptor"):
                        await call()

        loop.run_until_complete(main())

    @pytest.mark.min_python(3, 11)
    def test_datagrams_by_socket_calls(self, loop):
        async def main():
            with (
                socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours,
                socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as theirs,
            ):
                for sock in (ours, theirs):
                    sock.setblocking(False)
                    sock.bind((LOOPBACK, 0))
                receiving = asyncio.ensure_future(loop.sock_recvfrom(theirs, 100))
                await settled()
                assert await loop.sock_sendto(ours, b"hello", theirs.getsockname()) == 5
                assert await receiving == (b"hello", ours.getsockname())
                buffer = bytearray(10)
                await loop.sock_sendto(theirs, b"back", ours.getsockname())
                count, address = await loop.sock_recvfrom_into(ours, buffer)
                assert (bytes(buffer[:count]), address) == (b"back", theirs.getsockname())

        loop.run_until_complete(main())


@pytest.mark.flavours("asyncio", "tokioloop", "uvloop", reason="rloop aborts the process")
def test_the_socket_stays_the_callers(loop):
    async def main():
        with socket_pair() as (ours, theirs):
            theirs.send(b"x")
            await loop.sock_recv(ours, 1)
            waiting = asyncio.ensure_future(loop.sock_recv(ours, 1))
            await settled()
            waiting.cancel()
            await eventually(waiting.done)
            assert not loop.remove_reader(ours.fileno())  # nothing is left registered
            theirs.send(b"y")
            ours.setblocking(True)
            assert ours.recv(1) == b"y"

    loop.run_until_complete(main())
