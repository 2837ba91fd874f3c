"""`add_reader` and `add_writer`: level-triggered watching of descriptors that stay the caller's."""

from __future__ import annotations

import asyncio
import os
import selectors
import socket
import tempfile

import pytest

from tests.support.net import connected, eventually, settled, socket_pair

OWN_CHECKS = "uvloop always returns None; rloop takes numbers only and may abort the process"


async def turns(count=5):
    for _ in range(count):
        await asyncio.sleep(0)


def test_a_reader_is_called_with_its_arguments_when_there_is_data(loop):
    async def main():
        with socket_pair() as (ours, theirs):
            called = loop.create_future()
            loop.add_reader(
                ours.fileno(),
                lambda *args: called.done() or called.set_result(args),
                1,
                "two",
            )
            await settled()
            assert not called.done()
            theirs.send(b"x")
            assert await called == (1, "two")
            assert ours.recv(10) == b"x"
            loop.remove_reader(ours.fileno())

    loop.run_until_complete(main())


def test_a_reader_is_called_again_while_data_is_left(loop):
    """Level-triggered: reading a part is enough to be called again."""

    async def main():
        with socket_pair() as (ours, theirs):
            received = []
            theirs.send(b"12345")
            loop.add_reader(ours.fileno(), lambda: received.append(ours.recv(1)))
            await eventually(lambda: len(received) == 5)
            assert received == [b"1", b"2", b"3", b"4", b"5"]
            await settled()
            assert len(received) == 5
            theirs.send(b"6")
            await eventually(lambda: len(received) == 6)
            loop.remove_reader(ours.fileno())

    loop.run_until_complete(main())


def test_a_reader_that_reads_nothing_is_called_every_turn(loop):
    async def main():
        with socket_pair() as (ours, theirs):
            calls = []
            theirs.send(b"never read")
            loop.add_reader(ours.fileno(), calls.append, 1)
            await eventually(lambda: len(calls) >= 20)
            loop.remove_reader(ours.fileno())
            count = len(calls)
            await settled()
            assert len(calls) == count

    loop.run_until_complete(main())


def test_a_writer_is_called_while_there_is_room(loop):
    async def main():
        with socket_pair() as (ours, theirs):
            calls = []
            loop.add_writer(ours.fileno(), calls.append, 1)
            await eventually(lambda: len(calls) >= 20)
            loop.remove_writer(ours.fileno())
            with pytest.raises(BlockingIOError):
                while True:
                    ours.send(bytes(1 << 16))
            count = len(calls)
            loop.add_writer(ours.fileno(), calls.append, 1)
            await settled()
            assert len(calls) == count
            theirs.settimeout(5)
            while len(calls) == count:
                theirs.setblocking(True)
                theirs.recv(1 << 20)
                await asyncio.sleep(0.001)
            loop.remove_writer(ours.fileno())

    loop.run_until_complete(main())


def test_a_second_registration_replaces_the_callback(loop):
    async def main():
        with socket_pair() as (ours, theirs):
            first, second = [], []
            loop.add_reader(ours.fileno(), first.append, 1)
            loop.add_reader(ours.fileno(), second.append, 1)
            theirs.send(b"x")
            await eventually(lambda: second)
            assert first == []
            loop.remove_reader(ours.fileno())

    loop.run_until_complete(main())


def test_a_reader_and_a_writer_on_one_descriptor_are_independent(loop):
    async def main():
        with socket_pair() as (ours, theirs):
            read, written = [], []
            loop.add_reader(ours.fileno(), lambda: read.append(ours.recv(100)))
            loop.add_writer(ours.fileno(), written.append, 1)
            await eventually(lambda: written)
            assert read == []
            loop.remove_writer(ours.fileno())
            theirs.send(b"x")
            await eventually(lambda: read)
            loop.add_writer(ours.fileno(), written.append, 1)
            loop.remove_reader(ours.fileno())
            count = len(written)
            await eventually(lambda: len(written) > count)
            theirs.send(b"y")
            await settled()
            assert read == [b"x"]
            loop.remove_writer(ours.fileno())

    loop.run_until_complete(main())


@pytest.mark.flavours("asyncio", "tokioloop", "rloop", reason="uvloop always returns None")
def test_removal_tells_whether_there_was_something(loop):
    async def main():
        with socket_pair() as (ours, _theirs):
            number = ours.fileno()
            assert loop.remove_reader(number) is False
            assert loop.remove_writer(number) is False
            loop.add_reader(number, print)
            assert loop.remove_writer(number) is False
            assert loop.remove_reader(number) is True
            assert loop.remove_reader(number) is False
            loop.add_writer(number, print)
            assert loop.remove_writer(number) is True

    loop.run_until_complete(main())


def test_a_reader_may_remove_itself(loop):
    async def main():
        with socket_pair() as (ours, theirs):
            calls = []

            def once():
                calls.append(1)
                loop.remove_reader(ours.fileno())

            theirs.send(b"x")
            loop.add_reader(ours.fileno(), once)
            await settled()
            assert calls == [1]

    loop.run_until_complete(main())


def test_a_reader_may_remove_another_that_is_ready_in_the_same_turn(flavour, loop):
    if flavour.name == "rloop":
        pytest.skip("rloop runs what is queued, removed or not")

    async def main():
        with socket_pair() as (one, one_peer), socket_pair() as (two, two_peer):
            calls = []

            def only_me(me, other):
                calls.append(me)
                loop.remove_reader(other)
                loop.remove_reader(me)

            loop.add_reader(one, only_me, one, two)
            loop.add_reader(two, only_me, two, one)
            one_peer.send(b"x")
            two_peer.send(b"x")
            await settled()
            assert len(calls) == 1

    loop.run_until_complete(main())


def test_end_of_file_is_readable(loop):
    async def main():
        with socket_pair() as (ours, theirs):
            received = loop.create_future()

            def on_readable():
                loop.remove_reader(ours.fileno())
                received.set_result(ours.recv(10))

            loop.add_reader(ours.fileno(), on_readable)
            theirs.close()
            assert await received == b""

    loop.run_until_complete(main())


def test_pipes_can_be_watched(loop):
    async def main():
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        try:
            received = []
            loop.add_reader(reading, lambda: received.append(os.read(reading, 100)))
            os.write(writing, b"through the pipe")
            await eventually(lambda: received)
            assert received == [b"through the pipe"]
            loop.remove_reader(reading)
        finally:
            os.close(reading)
            os.close(writing)

    loop.run_until_complete(main())


@pytest.mark.flavours("asyncio", "tokioloop", "rloop", reason="libuv makes it non-blocking")
def test_watching_leaves_the_blocking_flag_alone(loop):
    async def main():
        with socket_pair(blocking=True) as (ours, theirs):
            calls = []
            loop.add_reader(ours.fileno(), calls.append, 1)
            loop.add_writer(ours.fileno(), calls.append, 1)
            theirs.send(b"x")
            await eventually(lambda: calls)
            loop.remove_reader(ours.fileno())
            loop.remove_writer(ours.fileno())
            assert os.get_blocking(ours.fileno())

    loop.run_until_complete(main())


class TestReusedNumbers:
    def test_a_number_that_was_removed_closed_and_reopened_can_be_watched(self, loop):
        async def main():
            numbers = set()
            for number in range(50):
                with socket_pair() as (ours, theirs):
                    numbers.add(ours.fileno())
                    received = loop.create_future()
                    loop.add_reader(
                        ours.fileno(), lambda r=received, s=ours: r.set_result(s.recv(10))
                    )
                    theirs.send(b"%d" % number)
                    assert await received == b"%d" % number
                    loop.remove_reader(ours.fileno())
            assert len(numbers) < 10, "the numbers were not reused: nothing was proved"

        loop.run_until_complete(main())

    @pytest.mark.flavours("tokioloop", reason="all others wait for the old description for ever")
    def test_a_number_closed_behind_the_loops_back_can_be_watched_again(self, loop):
        async def main():
            stale, fresh = [], []
            with socket_pair() as (ours, _theirs):
                number = ours.fileno()
                loop.add_reader(number, stale.append, 1)
            # Closed with the reader still there: the kernel has forgotten it, the loop has not.
            with socket_pair() as (ours, theirs):
                assert ours.fileno() == number, "the number was not reused: nothing is proved"
                loop.add_reader(number, lambda: fresh.append(ours.recv(100)))
                theirs.send(b"for the new owner")
                await eventually(lambda: fresh)
                assert loop.remove_reader(number) is True
                assert stale == []
                assert fresh == [b"for the new owner"]

        loop.run_until_complete(main())


@pytest.mark.flavours("asyncio", "tokioloop", reason=OWN_CHECKS)
class TestWrongDescriptors:
    def test_a_closed_number_is_an_os_error(self, loop):
        reading, writing = os.pipe()
        os.close(reading)
        os.close(writing)
        with pytest.raises(OSError, match="Bad file descriptor"):
            loop.add_reader(reading, print)
        with pytest.raises(OSError, match="Bad file descriptor"):
            loop.add_writer(reading, print)
        assert loop.remove_reader(reading) is False

    def test_a_negative_number_or_no_file_is_a_value_error(self, loop):
        for wrong in (-1, "not a file", object()):
            with pytest.raises(ValueError):
                loop.add_reader(wrong, print)

    def test_a_closed_socket_object_is_a_value_error(self, loop):
        sock = socket.socket()
        sock.close()
        with pytest.raises(ValueError):
            loop.add_reader(sock, print)

    def test_a_regular_file_is_a_permission_error_each_time(self, loop):
        with tempfile.TemporaryFile() as file:
            for _ in range(2):
                with pytest.raises(PermissionError):
                    loop.add_reader(file, print)
                with pytest.raises(PermissionError):
                    loop.add_writer(file, print)

    def test_a_transports_descriptor_is_refused(self, loop):
        async def main():
            async with connected("client") as (transport, protocol, peer):
                number = transport.get_extra_info("socket").fileno()
                for call in (
                    lambda: loop.add_reader(number, print),
                    lambda: loop.add_writer(number, print),
                    lambda: loop.remove_reader(number),
                    lambda: loop.remove_writer(number),
                ):
                    with pytest.raises(RuntimeError, match="is used by transport"):
                        call()
                peer.sendall(b"unharmed")
                assert await protocol.until_received(8) == b"unharmed"

        loop.run_until_complete(main())

    def test_socket_objects_are_as_good_as_numbers(self, loop):
        async def main():
            with socket_pair() as (ours, theirs):
                calls = []
                assert loop.add_reader(ours, calls.append, 1) is None
                theirs.send(b"x")
                await eventually(lambda: calls)
                assert loop.remove_reader(ours.fileno()) is True
                assert loop.add_writer(ours, print) is None
                assert loop.remove_writer(ours) is True

        loop.run_until_complete(main())


@pytest.mark.flavours("asyncio", "tokioloop", reason=OWN_CHECKS)
@pytest.mark.parametrize("direction", ["reader", "writer"])
def test_a_file_that_was_closed_is_still_found_by_what_it_is(loop, direction):
    add, remove = getattr(loop, f"add_{direction}"), getattr(loop, f"remove_{direction}")

    async def main():
        with socket_pair() as (ours, _), socket_pair() as (never_watched, _):
            add(ours, print)
            ours.close()
            never_watched.close()
            assert remove(ours) is True
            for closed in (ours, never_watched):
                with pytest.raises(ValueError, match="Invalid file descriptor: -1"):
                    remove(closed)
                with pytest.raises(ValueError, match="Invalid file descriptor: -1"):
                    add(closed, print)

    loop.run_until_complete(main())


def test_removing_on_a_closed_loop_does_nothing(flavour, loop):
    with socket_pair() as (ours, _theirs):
        loop.add_reader(ours.fileno(), print)
        if flavour.name == "rloop":
            loop.remove_reader(ours.fileno())
        loop.close()
        assert not loop.remove_reader(ours.fileno())
        assert not loop.remove_writer(ours.fileno())


def test_a_descriptor_that_was_readable_before_it_was_added_is_noticed(loop):
    async def main():
        for _ in range(20):
            with socket_pair() as (ours, theirs):
                theirs.send(b"x")
                await turns(2)
                readable = loop.create_future()
                loop.add_reader(ours.fileno(), lambda r=readable: r.done() or r.set_result(None))
                await readable
                loop.remove_reader(ours.fileno())

    loop.run_until_complete(main())


@pytest.mark.flavours("tokioloop", reason="asyncio's map has its self-pipe and its transports")
def test_the_selectors_map_has_what_is_watched_and_no_transport(loop):
    async def main():
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        async with connected("client"):
            assert dict(loop._selector.get_map()) == {}
            with socket_pair() as (ours, _theirs):
                loop.add_reader(ours.fileno(), print)
                ((number, key),) = loop._selector.get_map().items()
                assert (number, key.events) == (ours.fileno(), selectors.EVENT_READ)
                loop.remove_reader(ours.fileno())
        server.close()

    loop.run_until_complete(main())


@pytest.mark.flavours("asyncio", "tokioloop", reason="the peers have no such handles")
@pytest.mark.parametrize("writer_too", [False, True])
def test_a_reader_whose_handle_was_cancelled_is_removed(loop, writer_too):
    async def main():
        with socket_pair() as (ours, theirs):
            theirs.send(b"x")
            written = []
            if writer_too:
                loop.add_writer(ours.fileno(), written.append, 1)
            loop._add_reader(ours.fileno(), pytest.fail).cancel()
            await settled()
            assert loop.remove_reader(ours.fileno()) is False
            if writer_too:
                await eventually(lambda: written)
                assert loop.remove_writer(ours.fileno()) is True

    loop.run_until_complete(main())
