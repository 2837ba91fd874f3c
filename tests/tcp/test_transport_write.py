"""`write`, `writelines`, `write_eof`: what may be written, when it is sent, what is dropped."""

from __future__ import annotations

import array
import asyncio
import socket
import time

import pytest

from tests.support.net import (
    SIDES,
    connected,
    fill_send_queue,
    in_thread,
    receive_exactly,
    receive_to_eof,
    settled,
    waiting,
)
from tests.support.protocols import Recorder

pytestmark = pytest.mark.parametrize("side", SIDES)

CLOSING = "uvloop raises after the end or lacks the warnings, rloop goes on sending after close()"
TYPES = "the peers take other types, or send one byte for each element"
EOF_LATE = "uvloop sends the FIN later, rloop does not flush first"


def has_arrived(peer: socket.socket, data: bytes) -> bool:
    """Without waiting: what was sent over loopback before is in the receive queue now."""
    try:
        return peer.recv(len(data), socket.MSG_DONTWAIT) == data
    except BlockingIOError:
        return False


def burst(transport):
    transport.write(b"head")
    transport.write(b"body")


async def burst_until_learned(transport, peer):
    """Bursts enough for a loop to expect more of them."""
    for _ in range(10):
        burst(transport)
        await asyncio.sleep(0)
    assert len(await in_thread(receive_exactly, peer, 80)) == 80


class TestWhenItIsSent:
    def test_a_lone_write_has_reached_the_peer_when_write_returns(self, loop, side):
        async def main():
            async with connected(side) as (transport, _protocol, peer):
                for number in range(20):
                    transport.write(b"%04d" % number)
                    assert has_arrived(peer, b"%04d" % number)
                    await settled()

        loop.run_until_complete(main())

    def test_a_lone_write_in_data_received_has_reached_the_peer_when_it_returns(self, loop, side):
        """Also when the callback then blocks: the peer answers before the callback has ended."""
        answered = []

        class Asks(Recorder):
            def data_received(self, data):
                self.transport.write(b"question")
                # The loop is blocked in here until the peer has got the question.
                answered.append(peer.recv(100))
                super().data_received(data)

        async def main():
            nonlocal peer
            async with connected(side, Asks) as (_transport, protocol, peer):
                for number in range(1, 6):
                    peer.sendall(b"go")
                    await protocol.until_received(2 * number)

        peer = None
        loop.run_until_complete(main())
        assert answered == [b"question"] * 5

    def test_many_writes_in_one_callback_arrive_in_order(self, loop, side):
        async def main():
            async with connected(side) as (transport, _protocol, peer):
                for _ in range(10):
                    for number in range(100):
                        transport.write(b"%04d" % number)
                    expected = b"".join(b"%04d" % number for number in range(100))
                    assert await in_thread(receive_exactly, peer, 400) == expected

        loop.run_until_complete(main())

    def test_writes_of_one_callback_need_no_further_turn_but_their_own(self, loop, side):
        """A head and a body, over and over: however it batches them, nothing waits for a poll."""

        async def main():
            async with connected(side) as (transport, _protocol, peer):
                for number in range(20):
                    loop.call_soon(transport.write, b"head")
                    loop.call_soon(lambda: (transport.write(b"he"), transport.write(b"ad")))
                    await asyncio.sleep(0)
                    await asyncio.sleep(0)
                    assert has_arrived(peer, b"headhead"), number

        loop.run_until_complete(main())

    def test_a_transport_that_used_to_write_in_bursts_sends_lone_writes_at_once_again(
        self, loop, side
    ):
        """Bursts may be gathered; the habit must not outlive them."""

        async def main():
            async with connected(side) as (transport, _protocol, peer):
                for _ in range(100):
                    transport.write(b"head")
                    transport.write(b"body")
                    await asyncio.sleep(0)
                assert len(await in_thread(receive_exactly, peer, 800)) == 800
                for _ in range(10):
                    transport.write(b"lone")
                    await settled()
                assert await in_thread(receive_exactly, peer, 40) == b"lone" * 10
                transport.write(b"at once")
                assert has_arrived(peer, b"at once")

        loop.run_until_complete(main())

    def test_a_burst_does_not_wait_for_the_slow_callbacks_behind_it(self, loop, side):
        """It may leave with what else the turn brings, but not much later."""
        seen = []

        async def main():
            async with connected(side) as (transport, _protocol, peer):
                await burst_until_learned(transport, peer)
                loop.call_soon(burst, transport)
                for _ in range(2):
                    loop.call_soon(time.sleep, 0.003)
                    loop.call_soon(lambda: seen.append(waiting(peer)))
                await settled()

        loop.run_until_complete(main())
        assert seen[-1] == b"headbody"

    def test_a_burst_has_left_when_the_next_callback_aborts(self, loop, side):
        async def main():
            async with connected(side) as (transport, _protocol, peer):
                await burst_until_learned(transport, peer)
                loop.call_soon(burst, transport)
                loop.call_soon(transport.abort)
                await settled()
                assert await in_thread(receive_exactly, peer, 8) == b"headbody"

        loop.run_until_complete(main())

    @pytest.mark.flavours(
        "asyncio", "uvloop", "tokioloop", reason="no SystemExit leaves a run of rloop"
    )
    def test_a_burst_has_left_when_an_exception_leaves_the_loop(self, loop, side):
        def leave():
            raise SystemExit

        async def main():
            nonlocal peer
            async with connected(side) as (transport, _protocol, peer):
                await burst_until_learned(transport, peer)
                loop.call_soon(burst, transport)
                loop.call_soon(leave)
                await settled()

        peer = None
        task = loop.create_task(main())
        with pytest.raises(SystemExit):
            loop.run_until_complete(task)
        assert has_arrived(peer, b"headbody")
        loop.run_until_complete(task)

    def test_what_was_queued_goes_out_when_the_peer_reads(self, loop, side):
        async def main():
            async with connected(side) as (transport, _protocol, peer):
                written = fill_send_queue(transport, bytes(range(256)) * 256)
                transport.write(b"the end")
                received = await in_thread(receive_exactly, peer, written + 7)
                assert received == bytes(range(256)) * (written // 256) + b"the end"
                await settled()
                assert transport.get_write_buffer_size() == 0

        loop.run_until_complete(main())


class TestWhatMayBeWritten:
    def test_bytes_bytearray_and_memoryview(self, loop, side):
        async def main():
            async with connected(side) as (transport, _protocol, peer):
                for data in (b"bytes", bytearray(b"bytearray"), memoryview(b"view")):
                    transport.write(data)
                    assert peer.recv(100) == bytes(data)

        loop.run_until_complete(main())

    @pytest.mark.flavours("asyncio", "tokioloop", reason=TYPES)
    @pytest.mark.parametrize("code", ["b", "h", "i", "q", "d"])
    def test_a_memoryview_of_any_format_is_sent_as_its_bytes(self, loop, side, code):
        data = array.array(code, range(100))

        async def main():
            async with connected(side) as (transport, _protocol, peer):
                transport.write(memoryview(data))
                expected = data.tobytes()
                assert await in_thread(receive_exactly, peer, len(expected)) == expected

        loop.run_until_complete(main())

    @pytest.mark.flavours("tokioloop", reason="asyncio 3.12+ counts elements, not bytes, here")
    def test_a_memoryview_of_any_format_is_sent_in_full_from_the_queue(self, loop, side):
        data = array.array("i", range(50_000))

        async def main():
            async with connected(side) as (transport, _protocol, peer):
                written = fill_send_queue(transport)
                queued = transport.get_write_buffer_size()
                transport.write(memoryview(data))
                assert transport.get_write_buffer_size() == queued + 200_000
                received = await in_thread(receive_exactly, peer, written + 200_000)
                assert received[written:] == data.tobytes()

        loop.run_until_complete(main())

    @pytest.mark.flavours("tokioloop", reason="asyncio 3.12+ keeps a reference to what is queued")
    @pytest.mark.parametrize("method", ["write", "writelines"])
    def test_what_was_written_may_be_changed_without_changing_what_is_sent(
        self, loop, side, method
    ):
        async def main():
            async with connected(side) as (transport, _protocol, peer):
                written = fill_send_queue(transport)
                data = bytearray(b"original" * 10_000)
                if method == "write":
                    transport.write(data)
                else:
                    transport.writelines([data])
                data[:] = b"modified" * 10_000
                data.clear()  # not exported any more, so it may also be resized
                received = await in_thread(receive_exactly, peer, written + 80_000)
                assert received[written:] == b"original" * 10_000

        loop.run_until_complete(main())

    def test_writing_no_bytes_sends_nothing(self, loop, side):
        async def main():
            async with connected(side) as (transport, _protocol, peer):
                transport.write(b"")
                transport.writelines([])
                transport.write(b"after")
                assert peer.recv(100) == b"after"

        loop.run_until_complete(main())

    @pytest.mark.flavours("asyncio", "tokioloop", reason=TYPES)
    @pytest.mark.parametrize(
        "data", ["text", None, 5, [1, 2], object()], ids=lambda data: type(data).__name__
    )
    def test_anything_else_is_a_type_error_and_the_transport_lives_on(self, loop, side, data):
        async def main():
            async with connected(side) as (transport, _protocol, peer):
                with pytest.raises(TypeError, match="bytes"):
                    transport.write(data)
                transport.write(b"alive")
                assert peer.recv(100) == b"alive"

        loop.run_until_complete(main())

    @pytest.mark.flavours("asyncio", "tokioloop", reason="the peers take it by position only")
    def test_it_may_be_given_by_keyword(self, loop, side):
        async def main():
            async with connected(side) as (transport, _protocol, peer):
                transport.write(data=b"one")
                assert peer.recv(100) == b"one"
                transport.writelines(list_of_data=[b"two", b"three"])
                assert await in_thread(receive_exactly, peer, 8) == b"twothree"

        loop.run_until_complete(main())


class TestWritelines:
    def test_all_pieces_arrive_in_order(self, loop, side):
        pieces = [bytes([number % 256]) * (number * 37 % 5000) for number in range(2000)]

        async def main():
            async with connected(side) as (transport, _protocol, peer):
                transport.writelines(pieces)
                expected = b"".join(pieces)
                assert await in_thread(receive_exactly, peer, len(expected)) == expected

        loop.run_until_complete(main())

    def test_an_iterator_is_enough(self, loop, side):
        async def main():
            async with connected(side) as (transport, _protocol, peer):
                transport.writelines(b"%d," % number for number in range(10))
                assert await in_thread(receive_exactly, peer, 20) == b"0,1,2,3,4,5,6,7,8,9,"

        loop.run_until_complete(main())

    @pytest.mark.min_python(3, 12)  # before, asyncio makes a list of all of it
    @pytest.mark.flavours("asyncio", "tokioloop", reason=TYPES)
    def test_a_list_that_claims_to_be_huge_is_refused_at_its_first_item(self, loop, side):
        class Huge:
            def __len__(self):
                return 2**62

            def __getitem__(self, index):
                return index

        async def main():
            async with connected(side) as (transport, _protocol, peer):
                for huge in (range(10**12), Huge()):
                    with pytest.raises(TypeError, match="bytes-like object"):
                        transport.writelines(huge)
                transport.write(b"alive")
                assert peer.recv(100) == b"alive"

        loop.run_until_complete(main())

    @pytest.mark.min_python(3, 12)
    @pytest.mark.flavours("asyncio", "tokioloop", reason=TYPES)
    def test_after_write_eof_it_does_not_look_at_the_list(self, loop, side):
        async def main():
            async with connected(side) as (transport, _protocol, _peer):
                transport.writelines(0)
                transport.write_eof()
                pieces = iter([b"piece"])
                for wrong in (pieces, [1], 0):
                    with pytest.raises(RuntimeError, match=r"writelines\(\) after write_eof"):
                        transport.writelines(wrong)
                assert next(pieces) == b"piece"

        loop.run_until_complete(main())

    def test_it_keeps_the_order_with_write(self, loop, side):
        async def main():
            async with connected(side) as (transport, _protocol, peer):
                written = fill_send_queue(transport)
                transport.write(b"1")
                transport.writelines([b"2", b"3"])
                transport.write(b"4")
                received = await in_thread(receive_exactly, peer, written + 4)
                assert received[written:] == b"1234"

        loop.run_until_complete(main())


class TestClosing:
    @pytest.mark.flavours("asyncio", "tokioloop", reason=CLOSING)
    def test_write_after_close_is_ignored(self, loop, side, caplog):
        async def main():
            async with connected(side) as (transport, protocol, peer):
                transport.close()
                for _ in range(3):
                    transport.write(b"never sent")
                assert await protocol.until_lost() is None
                await settled()
                assert receive_to_eof(peer) == b""
                assert "socket.send() raised exception." not in caplog.messages

        loop.run_until_complete(main())

    @pytest.mark.flavours("asyncio", "tokioloop", reason=CLOSING)
    def test_write_after_connection_lost_is_ignored_and_then_warned_about(self, loop, side, caplog):
        async def main():
            async with connected(side) as (transport, protocol, _peer):
                transport.abort()
                await protocol.until_lost()
                for _ in range(10):
                    transport.write(b"never sent")
                warnings = caplog.messages.count("socket.send() raised exception.")
                assert 4 <= warnings <= 6  # the first five are silent, counting the abort

        loop.run_until_complete(main())

    @pytest.mark.flavours("asyncio", "tokioloop", "uvloop", reason=CLOSING)
    def test_close_flushes_what_is_queued(self, loop, side):
        async def main():
            async with connected(side) as (transport, protocol, peer):
                written = fill_send_queue(transport)
                transport.write(b"last words")
                transport.close()
                assert transport.is_closing()
                received = await in_thread(receive_to_eof, peer)
                assert len(received) == written + 10
                assert received.endswith(b"last words")
                assert await protocol.until_lost() is None

        loop.run_until_complete(main())

    @pytest.mark.flavours("asyncio", "tokioloop", "uvloop", reason=CLOSING)
    def test_abort_drops_what_is_queued(self, loop, side):
        async def main():
            async with connected(side) as (transport, protocol, peer):
                written = fill_send_queue(transport)
                transport.write(b"dropped")
                transport.abort()
                assert await protocol.until_lost() is None
                await settled()
                received = await in_thread(receive_to_eof, peer)
                assert len(received) < written + 7

        loop.run_until_complete(main())

    def test_closing_and_aborting_again_is_harmless(self, loop, side):
        async def main():
            async with connected(side) as (transport, protocol, _peer):
                assert not transport.is_closing()
                for end in (transport.close, transport.close, transport.abort, transport.abort):
                    end()
                    assert transport.is_closing()
                await protocol.until_lost()
                transport.close()
                transport.abort()
                await settled()
                assert protocol.calls.count("connection_lost") == 1

        loop.run_until_complete(main())

    @pytest.mark.flavours("asyncio", "tokioloop", "uvloop", reason="rloop calls it inside close()")
    @pytest.mark.parametrize("end", ["close", "abort"])
    def test_connection_lost_comes_in_the_next_turn(self, loop, side, end):
        async def main():
            async with connected(side) as (transport, protocol, _peer):
                loop.call_soon(protocol.calls.append, "before")
                getattr(transport, end)()
                loop.call_soon(protocol.calls.append, "after")
                assert not protocol.is_lost
                await protocol.until_lost()
                await asyncio.sleep(0)
                assert protocol.calls == ["connection_made", "before", "connection_lost", "after"]

        loop.run_until_complete(main())


class TestWriteEof:
    def test_a_stream_can_write_eof(self, loop, side):
        async def main():
            async with connected(side) as (transport, _protocol, _peer):
                assert transport.can_write_eof() is True

        loop.run_until_complete(main())

    def test_the_queue_is_flushed_first_and_reading_goes_on(self, loop, side):
        async def main():
            async with connected(side) as (transport, protocol, peer):
                written = fill_send_queue(transport)
                transport.write(b"last words")
                transport.write_eof()
                received = await in_thread(receive_to_eof, peer)
                assert len(received) == written + 10
                assert received.endswith(b"last words")
                peer.sendall(b"answer")
                assert await protocol.until_received(6) == b"answer"
                assert not protocol.is_lost

        loop.run_until_complete(main())

    def test_write_after_it_raises(self, loop, side):
        async def main():
            async with connected(side) as (transport, _protocol, _peer):
                transport.write_eof()
                transport.write_eof()
                with pytest.raises(RuntimeError, match=r"(?i)eof"):
                    transport.write(b"too late")
                with pytest.raises(RuntimeError, match=r"(?i)eof"):
                    transport.writelines([b"too late"])

        loop.run_until_complete(main())

    @pytest.mark.flavours("asyncio", "tokioloop", reason=EOF_LATE)
    def test_it_is_ignored_after_close(self, loop, side):
        async def main():
            async with connected(side) as (transport, protocol, _peer):
                transport.close()
                transport.write_eof()
                assert await protocol.until_lost() is None

        loop.run_until_complete(main())
