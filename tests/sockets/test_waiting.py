"""Calls that wait: cancelled, ended by the peer, two at once, in both directions."""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import Any

import pytest

from tests.sockets.support import Loop, cancelled, exchanges, receive_exactly_by, unix_pair
from tests.support.net import (
    LOOPBACK,
    in_thread,
    listening_socket,
    receive_exactly,
    reset,
    settled,
    socket_pair,
)

pytestmark = pytest.mark.flavours(
    "asyncio", "tokioloop", reason="the others differ in cancelled and closed calls"
)
IS_LINUX = sys.platform.startswith("linux")
PAIRS = [pytest.param(socket_pair, id="tcp"), pytest.param(unix_pair, id="unix")]


@pytest.mark.parametrize("turns", range(6))
@pytest.mark.parametrize("pair", PAIRS)
def test_cancelled_at_each_turn_and_used_again(loop: Loop, pair: Any, turns: int) -> None:
    async def main() -> None:
        with pair() as (ours, theirs):
            for number in range(4):
                buffer = bytearray(10)
                for make in (
                    lambda: loop.sock_recv(ours, 10),
                    lambda buffer=buffer: loop.sock_recv_into(ours, buffer),
                ):
                    task = asyncio.ensure_future(make())
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    await cancelled(task)
                    assert task.cancelled()
                await asyncio.sleep(0)
                buffer.clear()
                theirs.send(b"%d" % number)
                assert await loop.sock_recv(ours, 10) == b"%d" % number
            await exchanges(loop, ours, theirs)

    loop.run_until_complete(main())


@pytest.mark.flavours("tokioloop", reason="asyncio has taken the data by then, and drops it")
def test_a_cancellation_that_comes_with_the_data_loses_none(loop: Loop) -> None:
    async def main() -> None:
        with unix_pair() as (ours, theirs):
            for turns in range(8):
                task = asyncio.ensure_future(loop.sock_recv(ours, 10))
                await settled()
                theirs.send(b"data")
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                (result,) = await asyncio.gather(task, return_exceptions=True)
                if isinstance(result, asyncio.CancelledError):
                    result = await loop.sock_recv(ours, 10)
                assert result == b"data"

    loop.run_until_complete(main())


@pytest.mark.parametrize("pair", PAIRS)
def test_a_cancelled_send_lets_go_of_its_data(loop: Loop, pair: Any) -> None:
    async def main() -> None:
        with pair() as (ours, theirs):
            data = bytearray(1 << 24)
            sending = asyncio.ensure_future(loop.sock_sendall(ours, data))
            await settled()
            assert not sending.done()
            with pytest.raises(BufferError):
                data.clear()
            await cancelled(sending)
            await asyncio.sleep(0)
            data.clear()

    loop.run_until_complete(main())


@pytest.mark.parametrize("pair", PAIRS)
def test_the_end_of_file_ends_a_receive(loop: Loop, pair: Any) -> None:
    async def main() -> None:
        with pair() as (ours, theirs):
            for call in (
                lambda: loop.sock_recv(ours, 10),
                lambda: loop.sock_recv_into(ours, bytearray(10)),
            ):
                receiving = asyncio.ensure_future(call())
                await settled()
                if theirs.fileno() >= 0:
                    theirs.send(b"last words")
                    assert await receiving in (b"last words", 10)
                    receiving = asyncio.ensure_future(call())
                    await settled()
                    theirs.close()
                assert await receiving in (b"", 0)
            assert await loop.sock_recv(ours, 10) == b""

    loop.run_until_complete(main())


def test_data_and_the_end_of_file_at_once(loop: Loop) -> None:
    async def main() -> None:
        for size in (1, 10, 11, 5000, 200_000):
            with socket_pair() as (ours, theirs):
                receiving = asyncio.ensure_future(loop.sock_recv(ours, 10))
                await settled()
                theirs.setblocking(True)
                received = bytearray()
                sending = asyncio.ensure_future(in_thread(theirs.sendall, bytes(size)))
                received += await receiving
                while len(received) < size:
                    received += await asyncio.wait_for(loop.sock_recv(ours, 70_000), 5)
                await sending
                theirs.close()
                assert len(received) == size
                assert await asyncio.wait_for(loop.sock_recv(ours, 10), 5) == b""

    loop.run_until_complete(main())


def test_a_reset_ends_both_directions(loop: Loop) -> None:
    async def main() -> None:
        with socket_pair() as (ours, theirs):
            receiving = asyncio.ensure_future(loop.sock_recv(ours, 10))
            sending = asyncio.ensure_future(loop.sock_sendall(ours, bytes(1 << 24)))
            await settled()
            reset(theirs)
            results = await asyncio.wait_for(
                asyncio.gather(receiving, sending, return_exceptions=True), 5
            )
            assert any(isinstance(result, ConnectionResetError) for result in results)
            assert isinstance(results[1], (ConnectionResetError, BrokenPipeError))

    loop.run_until_complete(main())


@pytest.mark.flavours("tokioloop", reason="asyncio leaves the first one waiting for ever")
def test_two_receives_at_once_are_both_served(loop: Loop) -> None:
    async def main() -> None:
        with unix_pair() as (ours, theirs):
            first = asyncio.ensure_future(loop.sock_recv(ours, 1))
            second = asyncio.ensure_future(loop.sock_recv(ours, 1))
            third = asyncio.ensure_future(loop.sock_recv(ours, 1))
            await settled()
            theirs.send(b"12")
            await settled()
            assert [task.done() for task in (first, second, third)].count(True) == 2
            theirs.send(b"3")
            assert sorted(await asyncio.gather(first, second, third)) == [b"1", b"2", b"3"]
            with socket.socket(fileno=ours.dup().detach()) as same:
                same.setblocking(False)
                tasks = [asyncio.ensure_future(loop.sock_recv(end, 1)) for end in (ours, same)]
                await settled()
                await cancelled(tasks[0])
                theirs.send(b"4")
                assert await tasks[1] == b"4"

    loop.run_until_complete(main())


@pytest.mark.flavours("tokioloop", reason="asyncio leaves the first one waiting for ever")
def test_receives_through_two_objects_of_one_number(loop: Loop) -> None:
    async def main() -> None:
        with unix_pair() as (ours, theirs):
            other = socket.socket(fileno=ours.fileno())
            other.setblocking(False)
            tasks = [asyncio.ensure_future(loop.sock_recv(end, 1)) for end in (ours, other)]
            await settled()
            theirs.send(b"1")
            await settled()
            theirs.send(b"2")
            assert sorted(await asyncio.gather(*tasks)) == [b"1", b"2"]
            other.detach()

    loop.run_until_complete(main())


@pytest.mark.parametrize("pair", PAIRS)
def test_both_directions_of_both_ends(loop: Loop, pair: Any) -> None:
    size = 1 << 21

    async def main() -> None:
        with pair() as (ours, theirs):
            payloads = [bytes([byte]) * size for byte in (1, 2)]
            results = await asyncio.gather(
                loop.sock_sendall(ours, payloads[0]),
                loop.sock_sendall(theirs, payloads[1]),
                receive_exactly_by(loop, ours, size),
                receive_exactly_by(loop, theirs, size),
            )
            assert results == [None, None, payloads[1], payloads[0]]

    loop.run_until_complete(main())


def test_a_socket_closed_while_it_is_waited_for(loop: Loop) -> None:
    async def main() -> None:
        with socket_pair() as (ours, _theirs):
            receiving = asyncio.ensure_future(loop.sock_recv(ours, 10))
            await settled()
            ours.close()
            await settled()
            assert not receiving.done()
            await cancelled(receiving)
        with socket_pair() as (ours, theirs):
            await exchanges(loop, ours, theirs)

    loop.run_until_complete(main())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="as Linux has it")
def test_urgent_data_does_not_hide_what_follows(loop: Loop) -> None:
    async def main() -> None:
        with socket_pair() as (ours, theirs):
            await exchanges(loop, ours, theirs)
            for _ in range(3):
                theirs.send(b"before")
                theirs.send(b"!", socket.MSG_OOB)
                theirs.send(b"after")
                received = await receive_exactly_by(loop, ours, 11)
                assert received == b"beforeafter"
                await exchanges(loop, ours, theirs)

    loop.run_until_complete(main())


def test_descriptors_passed_beside_the_data_do_not_hide_what_follows(loop: Loop) -> None:
    async def main() -> None:
        with unix_pair() as (ours, theirs), unix_pair() as (spare, _):
            await exchanges(loop, ours, theirs)
            for _ in range(3):
                theirs.send(b"one")
                socket.send_fds(theirs, [b"two"], [spare.fileno()])
                theirs.send(b"three")
                assert await receive_exactly_by(loop, ours, 11) == b"onetwothree"
                await exchanges(loop, ours, theirs)

    loop.run_until_complete(main())


@pytest.mark.skipif(not IS_LINUX, reason="no such sockets here")
def test_packets_come_one_at_a_time(loop: Loop) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            ours.setblocking(False)
            theirs.setblocking(False)
            receiving = asyncio.ensure_future(loop.sock_recv(ours, 100))
            await settled()
            for number in range(5):
                theirs.send(b"packet %d" % number)
            assert await receiving == b"packet 0"
            for number in range(1, 5):
                assert await asyncio.wait_for(loop.sock_recv(ours, 100), 5) == b"packet %d" % number

    loop.run_until_complete(main())


# macOS knows the second name, but has no Unix sockets of that kind.
@pytest.mark.parametrize("kind", ["SOCK_DGRAM", *(["SOCK_SEQPACKET"] if IS_LINUX else [])])
def test_large_packets_come_whole(loop: Loop, kind: str) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, getattr(socket, kind))
        with ours, theirs:
            ours.setblocking(False)
            theirs.setblocking(False)
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            for size in (100, 70_000, 150_000, 65_536, 1, 65_537):
                payload = bytes(range(256)) * (size // 256) + bytes(size % 256)
                for waits in (False, True):
                    if waits:
                        receiving = asyncio.ensure_future(loop.sock_recv(ours, 1 << 18))
                        await settled()
                    await loop.sock_sendall(theirs, payload)
                    if not waits:
                        receiving = asyncio.ensure_future(loop.sock_recv(ours, 1 << 18))
                    assert await receiving == payload
                await loop.sock_sendall(theirs, payload)
                assert await loop.sock_recv(ours, 50) == payload[:50]  # the rest is lost, as ever

    loop.run_until_complete(main())


def test_a_reset_behind_much_data_is_told(loop: Loop) -> None:
    async def main() -> None:
        for size in (1000, 65_536, 100_000):
            with socket_pair() as (ours, theirs):
                await exchanges(loop, ours, theirs)
                theirs.send(bytes(size))
                await settled()
                reset(theirs)
                await settled()
                with pytest.raises(ConnectionResetError):
                    while await loop.sock_recv(ours, 1 << 17):
                        pass

    loop.run_until_complete(main())


@pytest.mark.min_python(3, 11)
def test_datagrams_wait_in_both_directions(loop: Loop) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with ours, theirs:
            ours.setblocking(False)
            theirs.setblocking(False)
            sent = 0
            while True:
                try:
                    theirs.send(b"%d" % sent)
                except BlockingIOError:
                    break
                sent += 1
            sending = asyncio.ensure_future(loop.sock_sendall(theirs, b"the last"))
            await settled()
            assert not sending.done()
            for number in range(sent):
                data, _ = await loop.sock_recvfrom(ours, 100)
                assert data == b"%d" % number
            await sending
            buffer = bytearray(100)
            count, _ = await loop.sock_recvfrom_into(ours, buffer, 50)
            assert buffer[:count] == b"the last"
            receiving = asyncio.ensure_future(loop.sock_recvfrom_into(ours, buffer))
            await settled()
            assert not receiving.done()
            await cancelled(receiving)
            buffer.clear()
        with (
            socket.socket(type=socket.SOCK_DGRAM) as one,
            socket.socket(type=socket.SOCK_DGRAM) as two,
        ):
            for sock in (one, two):
                sock.bind((LOOPBACK, 0))
                sock.setblocking(False)
            for number in range(5):
                receiving = asyncio.ensure_future(loop.sock_recvfrom(two, 100))
                if number % 2:
                    await settled()
                assert await loop.sock_sendto(one, b"%d" % number, two.getsockname()) == 1
                assert await receiving == (b"%d" % number, one.getsockname())

    loop.run_until_complete(main())


@pytest.mark.parametrize("timeout", [None, 0.05], ids=["blocking", "timeout"])
def test_a_socket_that_blocks_does_so_as_in_asyncio(loop: Loop, timeout: float | None) -> None:
    loop.set_debug(False)

    async def main() -> None:
        with socket_pair(blocking=True) as (ours, theirs):
            ours.settimeout(timeout)
            theirs.send(b"there already")
            await asyncio.sleep(0)
            assert await loop.sock_recv(ours, 100) == b"there already"
            if timeout is None:
                thread = loop.run_in_executor(None, theirs.send, b"late")
                assert await loop.sock_recv(ours, 100) == b"late"
                await thread
            else:
                with pytest.raises(socket.timeout):
                    await loop.sock_recv(ours, 100)
            theirs.settimeout(5)
            thread = loop.run_in_executor(None, receive_exactly, theirs, 100)
            await loop.sock_sendall(ours, bytes(100))
            assert await thread == bytes(100)
        await loop.shutdown_default_executor()

    loop.run_until_complete(main())


def test_a_listener_closed_by_a_call_that_waits(loop: Loop) -> None:
    async def main() -> None:
        with listening_socket() as listener:
            listener.setblocking(False)
            accepting = asyncio.ensure_future(loop.sock_accept(listener))
            await settled()
            await cancelled(accepting)
            address = listener.getsockname()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)

    loop.run_until_complete(main())
