"""Water marks: when a protocol is told to stop writing, and when to go on."""

from __future__ import annotations

import pytest

from tests.support.net import SIDES, connected, fill_send_queue, in_thread, receive_exactly, settled
from tests.support.protocols import Recorder

pytestmark = pytest.mark.parametrize("side", SIDES)

OTHER_LIMITS = "uvloop's low mark is 16 by default, it truncates floats; rloop raises other errors"


def test_writing_above_the_high_mark_pauses_inside_write(loop, side):
    async def main():
        async with connected(side) as (transport, protocol, _peer):
            fill_send_queue(transport)
            transport.write(bytes(1 << 18))
            assert protocol.calls[-1] == "pause_writing"
            assert transport.get_write_buffer_size() > 1 << 16

    loop.run_until_complete(main())


def test_draining_to_the_low_mark_resumes(loop, side):
    async def main():
        async with connected(side) as (transport, protocol, peer):
            written = fill_send_queue(transport)
            transport.write(bytes(1 << 18))
            written += 1 << 18
            await in_thread(receive_exactly, peer, written)
            await protocol.until(lambda protocol: protocol.calls[-1] == "resume_writing")
            assert transport.get_write_buffer_size() <= 1 << 14
            assert protocol.calls == ["connection_made", "pause_writing", "resume_writing"]

    loop.run_until_complete(main())


def test_pause_and_resume_alternate_over_many_rounds(loop, side):
    async def main():
        async with connected(side) as (transport, protocol, peer):
            for number in range(1, 6):
                written = fill_send_queue(transport)
                transport.write(bytes(1 << 18))
                transport.write(bytes(1 << 18))
                written += 1 << 19
                await in_thread(receive_exactly, peer, written)
                await protocol.until(
                    lambda protocol, number=number: protocol.calls.count("resume_writing") == number
                )
            assert protocol.calls == [
                "connection_made",
                *(["pause_writing", "resume_writing"] * 5),
            ]

    loop.run_until_complete(main())


def test_what_the_kernel_takes_at_once_pauses_nobody(loop, side):
    async def main():
        async with connected(side) as (transport, protocol, peer):
            transport.set_write_buffer_limits(high=0)
            transport.write(b"taken at once")
            assert peer.recv(100) == b"taken at once"
            assert protocol.calls == ["connection_made"]
            assert transport.get_write_buffer_size() == 0

    loop.run_until_complete(main())


def test_lowering_the_limits_below_the_queue_pauses_at_once(loop, side):
    async def main():
        async with connected(side) as (transport, protocol, peer):
            transport.set_write_buffer_limits(high=1 << 24)
            written = fill_send_queue(transport)
            transport.write(bytes(1 << 16))
            written += 1 << 16
            assert protocol.calls == ["connection_made"]
            transport.set_write_buffer_limits(high=10, low=5)
            assert protocol.calls == ["connection_made", "pause_writing"]
            await in_thread(receive_exactly, peer, written)
            await protocol.until(lambda protocol: protocol.calls[-1] == "resume_writing")

    loop.run_until_complete(main())


@pytest.mark.flavours("asyncio", "tokioloop", reason=OTHER_LIMITS)
class TestLimits:
    def test_the_defaults_are_16_and_64_kib(self, loop, side):
        async def main():
            async with connected(side) as (transport, _protocol, _peer):
                assert transport.get_write_buffer_limits() == (16384, 65536)

        loop.run_until_complete(main())

    @pytest.mark.parametrize(
        ("arguments", "limits"),
        [
            ({"high": 100}, (25, 100)),
            ({"low": 100}, (100, 400)),
            ({"high": 100, "low": 10}, (10, 100)),
            ({"high": 0}, (0, 0)),
            ({"low": 0}, (0, 0)),
            ({}, (16384, 65536)),
        ],
        ids=str,
    )
    def test_one_mark_follows_from_the_other(self, loop, side, arguments, limits):
        async def main():
            async with connected(side) as (transport, _protocol, _peer):
                transport.set_write_buffer_limits(**arguments)
                assert transport.get_write_buffer_limits() == limits

        loop.run_until_complete(main())

    @pytest.mark.parametrize("arguments", [{"high": 1, "low": 2}, {"high": -1}, {"low": -1}])
    def test_marks_that_make_no_sense_are_value_errors(self, loop, side, arguments):
        async def main():
            async with connected(side) as (transport, _protocol, _peer):
                with pytest.raises(ValueError, match=r"high .* must be >= low .* must be >= 0"):
                    transport.set_write_buffer_limits(**arguments)
                assert transport.get_write_buffer_limits() == (16384, 65536)

        loop.run_until_complete(main())


@pytest.mark.flavours("asyncio", "tokioloop", reason="uvloop still shows the old size")
def test_after_abort_the_queue_is_empty(loop, side):
    async def main():
        async with connected(side) as (transport, protocol, _peer):
            fill_send_queue(transport)
            transport.abort()
            assert transport.get_write_buffer_size() == 0
            await protocol.until_lost()

    loop.run_until_complete(main())


def test_a_protocol_that_writes_in_resume_writing_is_paused_again(loop, side):
    class Refills(Recorder):
        def resume_writing(self):
            super().resume_writing()
            if self.calls.count("resume_writing") == 1:
                self.transport.write(bytes(1 << 22))

    async def main():
        async with connected(side, Refills) as (transport, protocol, peer):
            written = fill_send_queue(transport)
            transport.write(bytes(1 << 18))
            written += (1 << 18) + (1 << 22)
            await in_thread(receive_exactly, peer, written)
            await settled()
            assert transport.get_write_buffer_size() == 0
            pauses = protocol.calls.count("pause_writing")
            assert pauses == protocol.calls.count("resume_writing")
            assert pauses in (1, 2)  # the refill may fit into the kernel's own queue

    loop.run_until_complete(main())


def test_a_protocol_that_closes_in_pause_writing_is_flushed_and_lost(flavour, loop, side):
    if flavour.name == "rloop":
        pytest.skip("rloop does not close the descriptor with the transport")

    class Closes(Recorder):
        def pause_writing(self):
            super().pause_writing()
            self.transport.close()

    async def main():
        from tests.support.net import receive_to_eof

        async with connected(side, Closes) as (transport, protocol, peer):
            written = fill_send_queue(transport)
            if not protocol.calls.count("pause_writing"):
                transport.write(bytes(1 << 18))
                written += 1 << 18
            received = await in_thread(receive_to_eof, peer)
            assert len(received) == written
            assert await protocol.until_lost() is None
            assert protocol.calls.count("connection_lost") == 1

    loop.run_until_complete(main())
