"""A socket that a call has waited for may stay in the poll: nobody else may notice.

Numbers are used again, descriptors duplicated, sockets handed on; each time the next call has
to be told of what the socket at hand does, and of nothing else.
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import sys

import pytest

from tests.sockets.support import (
    Loop,
    cancelled,
    exchanges,
    receive_exactly_by,
    unix_pair,
    waited,
)
from tests.support.flavours import Flavour
from tests.support.net import (
    LOOPBACK,
    eventually,
    in_thread,
    listening_socket,
    receive_exactly,
    settled,
    socket_pair,
)
from tests.support.protocols import Recorder

LACKS = "uvloop and rloop keep descriptors that the caller has closed"
ours_and_asyncio = pytest.mark.flavours("asyncio", "tokioloop", reason=LACKS)


@ours_and_asyncio
def test_a_number_that_is_used_again_is_another_socket(loop: Loop) -> None:
    async def main() -> None:
        reused = 0
        numbers: set[int] = set()
        for _ in range(20):
            with socket_pair() as (ours, theirs):
                reused += ours.fileno() in numbers
                numbers.add(ours.fileno())
                await waited(loop, ours, theirs)
                # What the old socket left unread is the old socket's.
                theirs.send(b"never read")
        assert reused

    loop.run_until_complete(main())


@ours_and_asyncio
def test_a_number_is_used_again_while_the_old_object_lives(loop: Loop) -> None:
    async def main() -> None:
        closed = []
        for _ in range(5):
            with socket_pair() as (ours, theirs):
                await waited(loop, ours, theirs)
                closed.append(ours)
        for ours in closed:
            with pytest.raises(OSError, match="Bad file descriptor"):
                await loop.sock_recv(ours, 1)

    loop.run_until_complete(main())


@ours_and_asyncio
def test_a_detached_socket_goes_on_in_another_object(loop: Loop) -> None:
    async def main() -> None:
        with socket_pair() as (ours, theirs):
            await waited(loop, ours, theirs)
            with socket.socket(fileno=ours.detach()) as again:
                again.setblocking(False)
                await exchanges(loop, again, theirs)
                theirs.send(b"unread")
                with socket.socket(fileno=again.detach()) as third:
                    third.setblocking(False)
                    assert await loop.sock_recv(third, 100) == b"unread"
                    await exchanges(loop, third, theirs)

    loop.run_until_complete(main())


@ours_and_asyncio
def test_a_number_shared_by_two_objects(loop: Loop) -> None:
    async def main() -> None:
        with socket_pair() as (ours, theirs):
            await waited(loop, ours, theirs)
            other = socket.socket(fileno=ours.fileno())
            other.setblocking(False)
            for _ in range(3):
                await exchanges(loop, other, theirs)
                await exchanges(loop, ours, theirs)
            other.detach()

    loop.run_until_complete(main())


@ours_and_asyncio
def test_a_duplicate_outlives_the_socket(loop: Loop) -> None:
    async def main() -> None:
        with socket_pair() as (ours, theirs):
            await waited(loop, ours, theirs)
            copy = ours.dup()
            number = ours.fileno()
            await waited(loop, copy, theirs)
            ours.close()
            # The duplicate keeps the file, and so its place in the poll, open.
            with unix_pair() as (fresh, peer):
                assert number in (fresh.fileno(), peer.fileno())
                receiving = [
                    asyncio.ensure_future(loop.sock_recv(fresh, 100)),
                    asyncio.ensure_future(loop.sock_recv(peer, 100)),
                ]
                await settled()
                theirs.send(b"for the duplicate")
                assert await loop.sock_recv(copy, 100) == b"for the duplicate"
                await settled()
                assert not any(task.done() for task in receiving)
                fresh.send(b"for peer")
                peer.send(b"for fresh")
                assert await asyncio.gather(*receiving) == [b"for fresh", b"for peer"]
                await exchanges(loop, copy, theirs)
                theirs.close()
                assert await loop.sock_recv(copy, 100) == b""
                await exchanges(loop, fresh, peer)
                peer.close()
                assert await asyncio.wait_for(loop.sock_recv(fresh, 100), 5) == b""
            copy.close()

    loop.run_until_complete(main())


@ours_and_asyncio
def test_both_duplicates_are_told(loop: Loop) -> None:
    async def main() -> None:
        with socket_pair() as (ours, theirs), ours.dup() as copy:
            await waited(loop, ours, theirs)
            await waited(loop, copy, theirs)
            receiving = [asyncio.ensure_future(loop.sock_recv(end, 2)) for end in (ours, copy)]
            await settled()
            theirs.send(b"1")
            await eventually(lambda: any(task.done() for task in receiving))
            await settled()
            assert [task.done() for task in receiving].count(True) == 1
            theirs.send(b"2")
            assert sorted(await asyncio.gather(*receiving)) == [b"1", b"2"]

    loop.run_until_complete(main())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.skipif(sys.platform == "darwin", reason="sockets do not survive a fork there")
@ours_and_asyncio
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_that_keeps_the_socket_open_disturbs_nobody(loop: Loop) -> None:
    async def main() -> None:
        with socket_pair() as (ours, theirs):
            await waited(loop, ours, theirs)
            waiting, release = os.pipe()
            child = os.fork()
            if child == 0:
                os.close(release)
                os.read(waiting, 1)
                os._exit(0)
            os.close(waiting)
            try:
                await exchanges(loop, ours, theirs)
                number = ours.fileno()
                ours.close()
                with unix_pair() as (fresh, peer):
                    assert number in (fresh.fileno(), peer.fileno())
                    await waited(loop, fresh, peer)
                    # An event of the file that only the child has open by now.
                    theirs.send(b"nobody reads this")
                    await settled()
                    await waited(loop, peer, fresh)
                    await exchanges(loop, fresh, peer)
            finally:
                os.close(release)
                os.waitpid(child, 0)

    loop.run_until_complete(main())


@ours_and_asyncio
def test_a_reader_takes_the_place_of_a_kept_socket(loop: Loop) -> None:
    async def main() -> None:
        with socket_pair() as (ours, theirs):
            await waited(loop, ours, theirs)
            readable = asyncio.Event()
            loop.add_reader(ours, readable.set)
            theirs.send(b"one")
            await readable.wait()
            assert await loop.sock_recv(ours, 100) == b"one"
            readable.clear()
            theirs.send(b"two")
            await readable.wait()
            assert loop.remove_reader(ours)
            assert not loop.remove_reader(ours)
            assert await loop.sock_recv(ours, 100) == b"two"
            await exchanges(loop, ours, theirs)
            writable = asyncio.Event()
            loop.add_writer(ours, writable.set)
            await writable.wait()
            await exchanges(loop, ours, theirs)
            loop.remove_writer(ours)
            await exchanges(loop, ours, theirs)

    loop.run_until_complete(main())


@ours_and_asyncio
def test_a_writer_beside_a_receive_that_waits(loop: Loop) -> None:
    async def main() -> None:
        with socket_pair() as (ours, theirs):
            for _ in range(2):
                receiving = asyncio.ensure_future(loop.sock_recv(ours, 100))
                await settled()
                writable = asyncio.Event()
                loop.add_writer(ours, writable.set)
                await writable.wait()
                await settled()
                assert not receiving.done()
                theirs.send(b"data")
                assert await receiving == b"data"
                assert loop.remove_writer(ours)
                await exchanges(loop, ours, theirs)

    loop.run_until_complete(main())


@ours_and_asyncio
def test_a_reader_takes_the_place_of_a_receive_that_waits(loop: Loop) -> None:
    async def main() -> None:
        with socket_pair() as (ours, theirs):
            receiving = asyncio.ensure_future(loop.sock_recv(ours, 100))
            await settled()
            readable = asyncio.Event()
            loop.add_reader(ours, readable.set)
            theirs.send(b"data")
            await readable.wait()
            await settled()
            assert not receiving.done()
            await cancelled(receiving)
            loop.remove_reader(ours)
            assert await loop.sock_recv(ours, 100) == b"data"
            await exchanges(loop, ours, theirs)

    loop.run_until_complete(main())


@pytest.mark.flavours("tokioloop", reason="in the others the call waits for ever")
def test_removing_a_reader_leaves_a_receive_that_waits(loop: Loop) -> None:
    async def main() -> None:
        with socket_pair() as (ours, theirs):
            receiving = asyncio.ensure_future(loop.sock_recv(ours, 100))
            await settled()
            assert loop.remove_reader(ours)
            assert not loop.remove_writer(ours)
            theirs.send(b"data")
            assert await receiving == b"data"
            assert not loop.remove_reader(ours)

    loop.run_until_complete(main())


@ours_and_asyncio
def test_a_transport_is_made_of_a_kept_socket(loop: Loop) -> None:
    async def main() -> None:
        with socket_pair() as (ours, theirs):
            await waited(loop, ours, theirs)
            transport, protocol = await loop.create_connection(Recorder, sock=ours)
            theirs.send(b"to the transport")
            await eventually(lambda: bytes(protocol.received) == b"to the transport")
            with pytest.raises(RuntimeError, match="is used by transport"):
                await loop.sock_recv(ours, 1)
            transport.write(b"from the transport")
            assert await loop.sock_recv(theirs, 100) == b"from the transport"
            transport.close()
            await protocol.until_lost()
            await asyncio.sleep(0)
            assert await loop.sock_recv(theirs, 100) == b""

    loop.run_until_complete(main())


@ours_and_asyncio
def test_an_accepted_socket_becomes_a_transport(loop: Loop) -> None:
    async def main() -> None:
        with listening_socket() as listener:
            listener.setblocking(False)
            accepting = asyncio.ensure_future(loop.sock_accept(listener))
            await settled()
            with socket.create_connection(listener.getsockname()) as theirs:
                theirs.setblocking(False)
                ours, _ = await accepting
                await waited(loop, ours, theirs)
                transport, protocol = await loop.connect_accepted_socket(Recorder, ours)
                theirs.send(b"data")
                await eventually(lambda: bytes(protocol.received) == b"data")
                transport.close()
                await protocol.until_lost()
                await asyncio.sleep(0)
            # The listener serves a server afterwards.
            served = Recorder()
            server = await loop.create_server(lambda: served, sock=listener)
            _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.close()
            await writer.wait_closed()
            # Before Python 3.12 a server does not wait for its connections.
            await served.until_lost()
            server.close()
            await server.wait_closed()
            await settled()

    loop.run_until_complete(main())


@ours_and_asyncio
def test_a_datagram_socket_becomes_an_endpoint(loop: Loop) -> None:
    async def main() -> None:
        if not hasattr(loop, "sock_recvfrom"):
            return
        with socket.socket(type=socket.SOCK_DGRAM) as theirs:
            theirs.bind((LOOPBACK, 0))
            theirs.setblocking(False)
            ours = socket.socket(type=socket.SOCK_DGRAM)
            ours.bind((LOOPBACK, 0))
            ours.setblocking(False)
            address = ours.getsockname()
            receiving = asyncio.ensure_future(loop.sock_recvfrom(ours, 100))
            await settled()
            theirs.sendto(b"first", address)
            assert await receiving == (b"first", theirs.getsockname())
            got = asyncio.Queue()  # type: ignore[var-annotated]

            class Endpoint(asyncio.DatagramProtocol):
                def datagram_received(self, data: bytes, addr: object) -> None:
                    got.put_nowait(data)

            transport, _ = await loop.create_datagram_endpoint(Endpoint, sock=ours)
            theirs.sendto(b"second", address)
            assert await got.get() == b"second"
            transport.close()
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    loop.run_until_complete(main())


@ours_and_asyncio
def test_one_socket_on_several_loops_one_after_the_other(loop_factory) -> None:  # type: ignore[no-untyped-def]
    loops = [loop_factory() for _ in range(3)]
    with socket_pair() as (ours, theirs):
        for number in range(6):
            loop = loops[number % 3]
            loop.run_until_complete(waited(loop, ours, theirs))
            loop.run_until_complete(exchanges(loop, ours, theirs))
        theirs.send(b"left over")
        assert loops[1].run_until_complete(loops[1].sock_recv(ours, 100)) == b"left over"
        theirs.close()
        for loop in loops:
            assert loop.run_until_complete(loop.sock_recv(ours, 100)) == b""


@ours_and_asyncio
def test_a_loop_is_closed_with_sockets_kept_and_calls_waiting(loop_factory) -> None:  # type: ignore[no-untyped-def]
    loop = loop_factory()
    with socket_pair() as (ours, theirs), socket_pair() as (other, peer):
        loop.run_until_complete(waited(loop, ours, theirs))
        waiting = loop.sock_recv(other, 1)
        waiting.send(None)
        loop.close()
        waiting.close()
        theirs.send(b"x")
        assert ours.recv(1) == b"x"
        peer.send(b"y")
        assert other.recv(1) == b"y"
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            loop.sock_recv(other, 1).send(None)


@pytest.mark.flavours("asyncio", "tokioloop", "uvloop", reason="rloop aborts the process")
def test_a_socket_used_by_hand_between_calls(loop: Loop) -> None:
    async def main() -> None:
        with socket_pair() as (ours, theirs):
            await waited(loop, ours, theirs)
            theirs.send(b"by hand")
            await settled()
            assert ours.recv(100) == b"by hand"
            await exchanges(loop, ours, theirs)
            ours.setblocking(True)
            theirs.send(b"blocking")
            assert await in_thread(ours.recv, 100) == b"blocking"
            ours.setblocking(False)
            await exchanges(loop, ours, theirs)
            ours.shutdown(socket.SHUT_RD)
            assert await asyncio.wait_for(loop.sock_recv(ours, 100), 5) == b""

    loop.run_until_complete(main())


@ours_and_asyncio
def test_data_that_comes_while_nobody_receives(loop: Loop) -> None:
    async def main() -> None:
        with socket_pair() as (ours, theirs):
            await waited(loop, ours, theirs)
            sent = b""
            for number in range(100):
                word = b"%d;" % number
                theirs.send(word)
                sent += word
                await asyncio.sleep(0)
                if number % 10 == 0:
                    await settled()
            assert await receive_exactly_by(loop, ours, len(sent)) == sent
            await waited(loop, ours, theirs)
            theirs.send(b"the last")
            theirs.close()
            await settled()
            assert await receive_exactly_by(loop, ours, 8) == b"the last"
            assert await loop.sock_recv(ours, 1000) == b""

    loop.run_until_complete(main())


def _registered() -> int:
    """How many descriptors the epoll sets of this process hold."""
    count = 0
    for number in os.listdir("/proc/self/fdinfo"):
        try:
            with open(f"/proc/self/fdinfo/{number}") as info:
                count += sum(line.startswith("tfd:") for line in info)
        except OSError:
            continue
    return count


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.flavours("tokioloop", reason="the others do not keep sockets, or for ever")
def test_sockets_that_are_gone_leave_nothing_behind(loop: Loop, flavour: Flavour) -> None:
    async def main() -> None:
        before = _registered()
        for number in range(1000):
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            receiving = asyncio.ensure_future(loop.sock_recv(ours, 1))
            await asyncio.sleep(0)
            theirs.send(b"x")
            assert await receiving == b"x"
            if number % 2:
                ours.close()
                theirs.close()
            else:
                os.close(ours.detach())
                theirs.close()
        del ours, theirs
        gc.collect()
        assert _registered() == before
        assert loop.metrics()["watches_open"] == 0  # type: ignore[attr-defined]
        pairs = [socket.socketpair() for _ in range(200)]
        for ours, theirs in pairs:
            ours.setblocking(False)
            await _wait_once(loop, ours, theirs)
        assert _registered() == before + 200
        for ours, theirs in pairs:
            ours.close()
            theirs.close()
        assert _registered() == before

    loop.run_until_complete(main())


async def _wait_once(loop: Loop, ours: socket.socket, theirs: socket.socket) -> None:
    receiving = asyncio.ensure_future(loop.sock_recv(ours, 1))
    await asyncio.sleep(0)
    theirs.send(b"x")
    assert await receiving == b"x"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.flavours("tokioloop", reason="only it keeps sockets")
def test_a_socket_that_nobody_receives_from_leaves_the_poll(loop: Loop) -> None:
    async def main() -> None:
        with socket_pair() as (ours, theirs):
            before = _registered()
            await _wait_once(loop, ours, theirs)
            assert _registered() == before + 1
            for _ in range(40):
                theirs.send(b"x")
                await settled()
            assert _registered() == before
            assert await receive_exactly_by(loop, ours, 40) == b"x" * 40
            await exchanges(loop, ours, theirs)

    loop.run_until_complete(main())


@ours_and_asyncio
def test_a_large_transfer_beside_kept_sockets(loop: Loop) -> None:
    async def main() -> None:
        with socket_pair() as (ours, theirs):
            await waited(loop, ours, theirs)
            theirs.setblocking(True)
            theirs.settimeout(5)
            sending = asyncio.ensure_future(loop.sock_sendall(ours, bytes(1 << 23)))
            assert len(await in_thread(receive_exactly, theirs, 1 << 23)) == 1 << 23
            await sending
            theirs.setblocking(False)
            await exchanges(loop, ours, theirs)

    loop.run_until_complete(main())
