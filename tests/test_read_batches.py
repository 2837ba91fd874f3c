"""`read_batch_bytes` and `read_batch_timeout`: a protocol is told what asyncio would tell it.

Data that is held back comes later than asyncio's, but to the same protocol and before the same
things. Here nothing but these things releases it: a batch never fills, nor is its time ever up.
"""

from __future__ import annotations

import asyncio
import socket

import pytest

from tests.support.net import (
    connected,
    eventually,
    fill_send_queue,
    listening_socket,
    reset,
    settled,
)
from tests.support.protocols import BufferedRecorder, Recorder

pytestmark = pytest.mark.flavours(
    "asyncio", "tokioloop", reason="asyncio is the reference for an option of tokioloop's"
)

FULL = bytes(4096)


@pytest.fixture
def new_batching(tokio_or_asyncio, no_leaks, loop_errors):
    """Makes loops that hold data back, if they can."""
    loops = []

    def new_loop(timeout=1.0):
        options = {"read_batch_bytes": len(FULL), "read_batch_timeout": timeout}
        loops.append(tokio_or_asyncio(options))
        loops[-1].set_exception_handler(lambda _loop, context: loop_errors.append(context))
        return loops[-1]

    yield new_loop
    while loops:
        loops.pop().close()


@pytest.fixture
def tokio_or_asyncio(flavour):
    if flavour.name == "asyncio":
        return lambda options: flavour.new_event_loop()
    import tokioloop

    return lambda options: tokioloop.TokioLoop(**options)


@pytest.fixture
def batching(new_batching):
    return new_batching()


class Acts(Recorder):
    """Does something with its transport when it gets data."""

    def __init__(self, act):
        super().__init__()
        self.act = act

    def data_received(self, data):
        super().data_received(data)
        self.act(self.transport)


def fail(_transport):
    raise ValueError("cannot take it")


def close(transport):
    transport.close()


def abort(transport):
    transport.abort()


def pause(transport):
    transport.pause_reading()


def interrupt(_transport):
    raise KeyboardInterrupt("on purpose")


def test_what_is_held_back_is_delivered_before_a_reset(batching):
    async def main():
        async with connected("client") as (_transport, protocol, peer):
            peer.sendall(b"last words")
            await settled()
            reset(peer)
            assert isinstance(await protocol.until_lost(), ConnectionResetError)
            assert protocol.received == b"last words"

    batching.run_until_complete(main())


def test_a_stream_reader_gets_what_was_held_back_before_a_reset(batching):
    async def main():
        with listening_socket() as listener:
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            peer, _ = listener.accept()
        reading = asyncio.ensure_future(reader.readexactly(10))
        peer.sendall(b"last words")
        await settled()
        reset(peer)
        assert await reading == b"last words"
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
        await settled()

    batching.run_until_complete(main())


def test_a_protocol_that_pauses_is_told_of_a_reset_when_it_goes_on(batching):
    async def main():
        async with connected("client", lambda: Acts(pause)) as (transport, protocol, peer):
            peer.sendall(b"last words")
            await settled()
            reset(peer)
            await settled()
            assert protocol.calls == ["connection_made", "data_received"]
            transport.resume_reading()
            assert isinstance(await protocol.until_lost(), ConnectionResetError)
            assert protocol.calls == ["connection_made", "data_received", "connection_lost"]

    batching.run_until_complete(main())


def test_what_is_held_back_is_delivered_before_the_loss_by_a_failed_write(batching):
    async def main():
        async with connected("client") as (transport, protocol, peer):
            peer.sendall(b"last words")
            await settled()
            reset(peer)
            transport.write(b"x")
            assert isinstance(await protocol.until_lost(), ConnectionError)
            assert protocol.received == b"last words"

    batching.run_until_complete(main())


@pytest.mark.parametrize("end", [close, abort])
def test_nothing_is_delivered_after_a_failed_write_and_an_end(batching, end):
    async def main():
        async with connected("client") as (transport, protocol, peer):
            peer.sendall(b"last words")
            await settled()
            reset(peer)
            transport.write(b"x")
            end(transport)
            before = bytes(protocol.received)
            assert isinstance(await protocol.until_lost(), ConnectionError)
            assert protocol.received == before

    batching.run_until_complete(main())


def test_nothing_is_delivered_after_close(new_batching):
    async def main():
        async with connected("client") as (transport, protocol, peer):
            fill_send_queue(transport)
            peer.sendall(b"unwanted")
            await settled()
            transport.close()
            before = bytes(protocol.received)
            await asyncio.sleep(0.12)  # longer than any batch waits
            assert not protocol.is_lost
            assert protocol.received == before

    new_batching(timeout=0.06).run_until_complete(main())


@pytest.mark.parametrize("kind", [Recorder, BufferedRecorder])
@pytest.mark.parametrize("paused", [False, True], ids=["reading", "paused"])
def test_what_is_held_back_goes_to_the_protocol_that_it_came_for(batching, kind, paused):
    async def main():
        async with connected("client") as (transport, old, peer):
            peer.sendall(b"first")
            await settled()
            if paused:
                transport.pause_reading()
            new = kind()
            transport.set_protocol(new)
            assert old.received == b"first"
            if paused:
                transport.resume_reading()
            peer.sendall(FULL)
            await eventually(lambda: len(new.received) >= len(FULL))
            assert (old.received, new.received) == (b"first", FULL)
            transport.set_protocol(old)

    batching.run_until_complete(main())


def test_the_end_is_told_to_the_protocol_that_the_data_was_a_reason_to_change_to(batching):
    class Successor(Recorder):
        def connection_lost(self, exc):
            super().connection_lost(exc)
            old.connection_lost(exc)

    async def main():
        nonlocal old
        change = lambda transport: transport.set_protocol(new)  # noqa: E731
        async with connected("client", lambda: Acts(change)) as (_transport, old, peer):
            new = Successor()
            peer.sendall(b"first")
            await settled()
            peer.shutdown(socket.SHUT_WR)
            await old.until_lost()
            assert old.calls == ["connection_made", "data_received", "connection_lost"]
            assert new.calls == ["eof_received", "connection_lost"]

    old = None
    batching.run_until_complete(main())


@pytest.mark.parametrize("act", [close, abort, fail])
def test_a_protocol_that_ends_on_the_last_data_is_told_of_no_end_of_file(
    batching, loop_errors, act
):
    async def main():
        async with connected("client", lambda: Acts(act)) as (_transport, protocol, peer):
            peer.sendall(b"last words")
            peer.shutdown(socket.SHUT_WR)
            await protocol.until_lost()
            assert protocol.calls == ["connection_made", "data_received", "connection_lost"]

    batching.run_until_complete(main())
    if act is fail:
        assert str(loop_errors.take()["exception"]) == "cannot take it"


def test_a_protocol_that_pauses_on_the_last_data_is_told_of_the_end_when_it_goes_on(batching):
    async def main():
        async with connected("client", lambda: Acts(pause)) as (transport, protocol, peer):
            peer.sendall(b"last words")
            peer.shutdown(socket.SHUT_WR)
            await settled()
            assert protocol.calls == ["connection_made", "data_received"]
            transport.resume_reading()
            assert await protocol.until_lost() is None
            assert protocol.calls[2:] == ["eof_received", "connection_lost"]

    batching.run_until_complete(main())


@pytest.mark.parametrize("end", ["end of file", "reset"])
def test_an_interrupt_on_the_last_data_leaves_the_end_to_the_next_run(batching, end):
    async def begin():
        with listening_socket() as listener:
            _, protocol = await batching.create_connection(
                lambda: Acts(interrupt), *listener.getsockname()
            )
            return protocol, listener.accept()[0]

    async def last_words():
        peer.sendall(b"last words")
        await settled()
        if end == "reset":
            reset(peer)
        else:
            peer.close()
        await protocol.until_lost()

    protocol, peer = batching.run_until_complete(begin())
    task = batching.create_task(last_words())
    with pytest.raises(KeyboardInterrupt):
        batching.run_until_complete(task)
    batching.run_until_complete(task)
    ends = ["connection_lost"] if end == "reset" else ["eof_received", "connection_lost"]
    assert protocol.calls == ["connection_made", "data_received", *ends]
    assert isinstance(protocol.lost_with, ConnectionResetError if end == "reset" else type(None))
