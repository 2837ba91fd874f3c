"""The options of `TokioLoop`: what they accept, and that traffic is right with each of them."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import random
import threading
import time

import pytest

from tests.support.net import ask, connected, in_thread, settled, socket_pair, waiting
from tests.support.protocols import BufferedRecorder, EchoProtocol, Recorder

pytestmark = pytest.mark.flavours("tokioloop", reason="the options are tokioloop's own")

# So many callbacks in a turn are a crowd.
CROWD = 8
OPTIONS = ("read_batch_bytes", "read_batch_timeout", "write_batch_timeout", "busy_poll")


@pytest.fixture
def loop_with(tokioloop, no_leaks):
    """Makes a loop with options, closed after the test."""
    loops = []

    def new_loop(**options):
        loops.append(tokioloop.TokioLoop(**options))
        return loops[-1]

    yield new_loop
    for loop in loops:
        loop.close()


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize(
    "value",
    [-1, 10**12, 10**30, -(10**30), 10**400],
    ids=["negative", "large", "no word", "no negative word", "no float"],
)
def test_a_value_out_of_range_names_the_option_and_the_range(tokioloop, option, value):
    with pytest.raises(ValueError, match=rf"{option} must be from 0\S* to \d\S* \w+, not"):
        tokioloop.TokioLoop(**{option: value})


def test_a_timeout_that_is_not_a_number_is_out_of_range(tokioloop):
    for value in (float("nan"), float("inf"), -0.5):
        with pytest.raises(ValueError, match="read_batch_timeout"):
            tokioloop.TokioLoop(read_batch_timeout=value)


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("value", ["1", [1]], ids=repr)
def test_a_value_of_another_type_is_a_type_error(tokioloop, option, value):
    with pytest.raises(TypeError):
        tokioloop.TokioLoop(**{option: value})


@pytest.mark.parametrize("option", ["read_batch_bytes", "read_batch_timeout"])
def test_none_is_no_value_where_it_is_not_the_default(tokioloop, option):
    with pytest.raises(TypeError):
        tokioloop.TokioLoop(**{option: None})


def test_an_unknown_option_is_a_type_error(tokioloop):
    with pytest.raises(TypeError):
        tokioloop.TokioLoop(no_such_option=1)


def test_options_are_given_by_keyword_only(tokioloop):
    with pytest.raises(TypeError):
        tokioloop.TokioLoop(1)


@pytest.mark.parametrize("option", OPTIONS)
def test_each_option_is_in_the_documentation(tokioloop, option):
    assert option in inspect.getdoc(tokioloop.TokioLoop)


ALL_OPTIONS = pytest.mark.parametrize(
    "options",
    [
        {},
        {"busy_poll": 0},
        {"busy_poll": 200},
        {"read_batch_bytes": 16_384, "read_batch_timeout": 0.002},
        {"read_batch_bytes": 1, "read_batch_timeout": 0.001},
        {"write_batch_timeout": 0.001},
        {"write_batch_timeout": 1.0, "read_batch_timeout": 0.001},
        {"read_batch_bytes": 200_000, "read_batch_timeout": 0.001, "busy_poll": 100},
    ],
    ids=str,
)


@ALL_OPTIONS
def test_every_byte_arrives_in_order(loop_with, options):
    payload = random.Random(5).randbytes(1_000_003)

    async def main():
        async with connected("server", EchoProtocol) as (_transport, _protocol, peer):
            echoed = await in_thread(ask_in_parts, peer, payload)
            assert hashlib.sha256(echoed).digest() == hashlib.sha256(payload).digest()

    loop_with(**options).run_until_complete(main())


def ask_in_parts(sock, payload):
    """Sends at most 50,000 bytes before it waits for them: less than any queue on the way."""
    parts = (payload[start : start + 50_000] for start in range(0, len(payload), 50_000))
    return b"".join(ask(sock, part) for part in parts)


@ALL_OPTIONS
@pytest.mark.parametrize("ending", ["end of file", "reset", "our close"])
def test_the_end_is_told_and_nothing_is_lost_before_an_end_of_file(loop_with, options, ending):
    async def main():
        from tests.support.net import reset

        async with connected("client") as (transport, protocol, peer):
            peer.sendall(b"last words")
            if ending == "end of file":
                peer.close()
            elif ending == "reset":
                reset(peer)
            else:
                transport.close()
            error = await protocol.until_lost()
            if ending == "end of file":
                assert (protocol.received, error) == (b"last words", None)
            elif ending == "reset":
                assert isinstance(error, ConnectionResetError)
            else:
                assert (protocol.received, error) == (b"", None)

    loop_with(**options).run_until_complete(main())


@ALL_OPTIONS
def test_timers_and_callbacks_run_as_ever(loop_with, options):
    loop = loop_with(**options)

    async def main():
        order = []
        loop.call_soon(order.append, 1)
        await asyncio.sleep(0)
        started = loop.time()
        await asyncio.sleep(0.01)
        assert loop.time() - started >= 0.0099
        await settled()
        assert order == [1]

    loop.run_until_complete(main())


def test_a_batch_is_delivered_when_it_is_full(loop_with):
    """A second may pass before the time is up: the bytes alone must be enough."""

    async def main():
        async with connected("client") as (_transport, protocol, peer):
            for _ in range(4):
                peer.sendall(bytes(1024))
                await settled()
            await asyncio.wait_for(protocol.until_received(4096), 0.9)

    loop_with(read_batch_bytes=4096, read_batch_timeout=1.0).run_until_complete(main())


def test_a_batch_that_never_fills_is_delivered_when_the_time_is_up(loop_with):
    async def main():
        async with connected("client") as (_transport, protocol, peer):
            peer.sendall(b"a few bytes")
            assert await protocol.until_received(11) == b"a few bytes"

    loop_with(read_batch_bytes=65_536, read_batch_timeout=0.01).run_until_complete(main())


def test_small_messages_are_delivered_together(loop_with):
    async def main():
        async with connected("client") as (_transport, protocol, peer):
            for number in range(8):
                peer.sendall(b"%04d" % number)
                await settled()
            await protocol.until_received(32)
            assert len(protocol.chunks) < 8

    loop_with(read_batch_bytes=32, read_batch_timeout=0.5).run_until_complete(main())


@pytest.mark.parametrize("kind", [Recorder, BufferedRecorder])
def test_pausing_while_a_batch_is_held_back_keeps_it(loop_with, kind):
    async def main():
        async with connected("client", kind) as (transport, protocol, peer):
            peer.sendall(b"held back")
            await asyncio.sleep(0)
            transport.pause_reading()
            await asyncio.sleep(0.02)
            before = bytes(protocol.received)
            assert before in (b"", b"held back")
            transport.resume_reading()
            while protocol.received != b"held back":
                await asyncio.sleep(0.001)
            if kind is BufferedRecorder:
                transport.abort()
                await protocol.lost

    loop_with(read_batch_bytes=65_536, read_batch_timeout=0.005).run_until_complete(main())


def test_lone_writes_are_gathered_until_the_turn_ends(loop_with):
    seen = []

    async def main():
        async with connected("client") as (transport, _protocol, peer):
            for step in (lambda: transport.write(b"one"), lambda: transport.write(b"two")):
                loop.call_soon(step)
                loop.call_soon(lambda: seen.append(waiting(peer)))
            await settled()
            seen.append(waiting(peer))

    loop = loop_with(write_batch_timeout=1.0)
    loop.run_until_complete(main())
    assert seen == [b"", b"", b"onetwo"]


@pytest.mark.parametrize(
    ("options", "others", "expected"),
    [
        ({}, CROWD, b""),
        ({}, 0, b"response"),
        ({"write_batch_timeout": 0.0}, CROWD, b"response"),
    ],
    ids=["crowded", "few callbacks", "switched off"],
)
def test_a_write_waits_for_its_turn_only_in_a_crowd(loop_with, options, others, expected):
    seen = []

    async def main():
        async with connected("client") as (transport, _protocol, peer):
            await settled()
            loop.call_soon(transport.write, b"response")
            loop.call_soon(lambda: seen.append(waiting(peer)))
            for _ in range(others):
                loop.call_soon(int)
            await settled()
            seen.append(waiting(peer))

    loop = loop_with(**options)
    loop.run_until_complete(main())
    assert seen == [expected, b"response"]


@pytest.mark.parametrize("end", ["close", "abort", "write_eof", "_force_close", "_fatal_error"])
def test_what_a_crowd_has_written_is_sent_before_the_end(loop_with, end):
    """A short write that asyncio has given to the kernel by then is never dropped."""

    async def main():
        async with connected("client") as (transport, _protocol, peer):
            for _ in range(CROWD):
                loop.call_soon(int)
            loop.call_soon(transport.write, b"last words")
            arguments = {"_force_close": [None], "_fatal_error": [OSError("the end")]}
            loop.call_soon(getattr(transport, end), *arguments.get(end, []))
            assert await in_thread(peer.recv, 100) == b"last words"

    loop = loop_with()
    loop.run_until_complete(main())


def test_what_a_crowd_has_written_is_sent_though_its_protocol_fails(loop_with):
    reported = []

    class Failing(Recorder):
        def data_received(self, data):
            raise RuntimeError("cannot take it")

    async def main():
        async with connected("client", Failing) as (transport, _protocol, peer):
            peer.send(b"x")
            for _ in range(CROWD):
                loop.call_soon(int)
            loop.call_soon(transport.write, b"last words")
            assert await in_thread(peer.recv, 100) == b"last words"

    loop = loop_with()
    loop.set_exception_handler(lambda _loop, context: reported.append(context["exception"]))
    loop.run_until_complete(main())
    assert [str(error) for error in reported] == ["cannot take it"]


def test_what_a_crowd_has_written_is_sent_before_a_run_inside_of_it_waits(loop_with):
    """Programs that nest loops run them so: what they wait for may be the answer."""
    loop, seen = loop_with(), []

    class Client(Recorder):
        def data_received(self, data):
            super().data_received(data)
            loop.stop()

    def ask_and_wait():
        transport.write(b"question")
        seen.append(waiting(peer))
        answering.start()
        loop._run_once()
        answering.join()

    def answer():
        seen.append(peer.recv(100))
        peer.send(b"answer")

    answering = threading.Thread(target=answer)
    with socket_pair() as (ours, peer):
        peer.setblocking(True)
        transport, client = loop.run_until_complete(loop.create_connection(Client, sock=ours))
        for _ in range(CROWD):
            loop.call_soon(int)
        loop.call_soon(ask_and_wait)
        loop.run_forever()
        assert seen == [b"", b"question"]
        assert client.received == b"answer"
        transport.abort()
        loop.run_until_complete(client.until_lost())


def test_long_callbacks_are_no_crowd_that_a_write_would_wait_for(loop_with):
    seen = []

    async def main():
        async with connected("client") as (transport, _protocol, peer):
            for _ in range(4):
                for _ in range(CROWD):
                    loop.call_soon(time.sleep, 0.001)
                await settled()
            loop.call_soon(transport.write, b"response")
            for _ in range(CROWD):
                loop.call_soon(lambda: seen.append(waiting(peer)))
            await settled()

    loop = loop_with()
    loop.run_until_complete(main())
    assert seen == [b"response"] * CROWD


def test_gathered_writes_leave_when_their_time_is_up(loop_with):
    seen = []

    async def main():
        async with connected("client") as (transport, _protocol, peer):
            loop.call_soon(transport.write, b"in time")
            loop.call_soon(time.sleep, 0.002)
            loop.call_soon(lambda: seen.append(waiting(peer)))
            await settled()

    loop = loop_with(write_batch_timeout=0.001)
    loop.run_until_complete(main())
    assert seen == [b"in time"]
