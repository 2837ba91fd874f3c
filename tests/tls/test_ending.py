"""TLS: how a connection ends, from either side, in and out of order."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from typing import Any

import pytest

from tests.support.net import reset
from tests.support.protocols import BufferedRecorder, Recorder
from tests.support.tls import RecordPeer, connected_over_tls, records

pytestmark = [
    pytest.mark.flavours("asyncio", "tokioloop", reason="the peers have TLS stacks of their own"),
    # Before that asyncio has another protocol, which is used as it is.
    pytest.mark.min_python(3, 11),
]
Loop = asyncio.AbstractEventLoop


def test_a_close_notify_comes_behind_the_data_and_is_answered(loop: Loop) -> None:
    async def main() -> None:
        async with records() as (protocol, peer):
            await peer.send(peer.seal(b"last words") + peer.seal_close_notify())
            await protocol.until_lost()
            assert protocol.received == b"last words"
            assert protocol.calls == [
                "connection_made",
                "data_received",
                "eof_received",
                "connection_lost",
            ]
            assert protocol.lost_with is None
            await peer.read_until(lambda peer: peer.has_close_notify)

    loop.run_until_complete(main())


def test_close_sends_what_waits_and_then_a_close_notify(loop: Loop) -> None:
    async def main() -> None:
        async with records() as (protocol, peer):
            message = os.urandom(3_000_000)
            protocol.transport.write(message)
            protocol.transport.close()
            assert protocol.transport.is_closing()
            await peer.read_until(lambda peer: peer.has_close_notify)
            assert peer.received == message
            await peer.send(peer.seal_close_notify())
            assert await protocol.until_lost() is None

    loop.run_until_complete(main())


def test_writes_after_close_go_nowhere(loop: Loop) -> None:
    async def main() -> None:
        async with records() as (protocol, peer):
            protocol.transport.write(b"heard")
            protocol.transport.close()
            protocol.transport.write(b"unheard")
            protocol.transport.writelines([b"unheard"])
            await peer.read_until(lambda peer: peer.has_close_notify)
            assert peer.received == b"heard"
            await peer.send(peer.seal_close_notify())
            await protocol.until_lost()

    loop.run_until_complete(main())


def test_a_peer_that_leaves_without_close_notify(loop: Loop) -> None:
    async def main() -> None:
        async with records() as (protocol, peer):
            await peer.send(peer.seal(b"data"))
            peer.sock.shutdown(socket.SHUT_WR)
            await protocol.until_lost()
            assert protocol.received == b"data"
            assert protocol.calls[-2:] == ["eof_received", "connection_lost"]
            assert protocol.lost_with is None

    loop.run_until_complete(main())


def test_a_reset_is_told_as_an_error(loop: Loop) -> None:
    async def main() -> None:
        async with records() as (protocol, peer):
            reset(peer.sock)
            assert isinstance(await protocol.until_lost(), ConnectionResetError)
            assert "eof_received" not in protocol.calls

    loop.run_until_complete(main())


def test_a_reset_behind_data_is_told_as_an_error(loop: Loop) -> None:
    """The kernel tells of it once, and may do so while the data is being received."""

    async def main() -> None:
        async with records() as (protocol, peer):
            peer.sock.sendall(peer.seal(b"last words"))
            reset(peer.sock)
            assert isinstance(await protocol.until_lost(), ConnectionResetError)
            assert protocol.received == b"last words"
            assert "eof_received" not in protocol.calls

    loop.run_until_complete(main())


@pytest.mark.parametrize("good", [b"", b"good"], ids=["alone", "behind-good-data"])
def test_a_bad_record_ends_the_connection(loop: Loop, good: bytes) -> None:
    async def main() -> None:
        async with records() as (protocol, peer):
            sealed = bytearray(peer.seal(b"bad"))
            sealed[-1] ^= 1
            await peer.send((peer.seal(good) if good else b"") + sealed)
            error = await protocol.until_lost()
            assert isinstance(error, ssl.SSLError)
            assert error.reason == "DECRYPTION_FAILED_OR_BAD_RECORD_MAC"
            assert error.library == "SSL"
            text = "decryption failed or bad record mac (_ssl.c:"
            assert text in str(error)
            # What was read along with it has gone down with it.
            assert protocol.calls == ["connection_made", "connection_lost"]

    # The record is out of order behind the good one, so it is bad either way.
    loop.run_until_complete(main())


def test_plain_text_where_records_belong_ends_the_connection(loop: Loop) -> None:
    async def main() -> None:
        async with records() as (protocol, peer):
            await peer.send(b"GET / HTTP/1.1\r\n\r\n")
            error = await protocol.until_lost()
            assert isinstance(error, ssl.SSLError)
            assert error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST")

    loop.run_until_complete(main())


def several(peer: RecordPeer) -> bytes:
    return b"".join(map(peer.seal, (b"one", b"two", b"three")))


class ActsOnData(Recorder):
    """Does something to the transport with the first delivery."""

    def __init__(self, action: str) -> None:
        super().__init__()
        self.action = action

    def data_received(self, data: bytes) -> None:
        first = not self.chunks
        super().data_received(data)
        if first:
            getattr(self.transport, self.action)()


def test_close_in_the_middle_of_several_records(loop: Loop) -> None:
    async def main() -> None:
        async with records(lambda: ActsOnData("close")) as (protocol, peer):
            sealed = several(peer)
            # The third record is complete only after the close.
            await peer.send(sealed[:-1])
            await peer.read_until(lambda peer: peer.has_close_notify)
            await peer.send(sealed[-1:] + peer.seal_close_notify())
            error = await protocol.until_lost()
            assert isinstance(error, ssl.SSLError)
            assert error.reason == "APPLICATION_DATA_AFTER_CLOSE_NOTIFY"
            assert protocol.chunks == [b"onetwo"]

    loop.run_until_complete(main())


def test_abort_in_the_middle_of_several_records(loop: Loop) -> None:
    async def main() -> None:
        async with records(lambda: ActsOnData("abort")) as (protocol, peer):
            sealed = several(peer)
            await peer.send(sealed[:-1])
            assert await protocol.until_lost() is None
            assert protocol.chunks == [b"onetwo"]
            assert "eof_received" not in protocol.calls

    loop.run_until_complete(main())


def test_a_transport_that_is_lost_writes_nothing(loop: Loop) -> None:
    async def main() -> None:
        async with records() as (protocol, _):
            transport = protocol.transport
            transport.abort()
            transport.write(b"nothing")
            await protocol.until_lost()
            assert transport.is_closing()
            assert transport.get_write_buffer_size() == 0

    loop.run_until_complete(main())


def test_both_sides_close_at_once(loop: Loop) -> None:
    async def main() -> None:
        async with connected_over_tls() as (client, server):
            client.transport.close()
            server.transport.close()
            assert await client.until_lost() is None
            assert await server.until_lost() is None

    loop.run_until_complete(main())


@pytest.mark.parametrize("lines", [False, True], ids=["write", "writelines"])
def test_a_large_write_to_a_lost_connection_is_one_write(
    loop: Loop, caplog: pytest.LogCaptureFixture, lines: bool
) -> None:
    """From the fifth on, writes to a lost connection are warned of."""

    async def main() -> None:
        async with records() as (protocol, peer):
            reset(peer.sock)
            data = bytes(2_000_000)
            if lines:
                protocol.transport.writelines([data[:1_000_000], data[1_000_000:]])
            else:
                protocol.transport.write(data)
            assert isinstance(await protocol.until_lost(), (ConnectionError, type(None)))

    with caplog.at_level("WARNING", logger="asyncio"):
        loop.run_until_complete(main())
    assert caplog.messages == []


@pytest.mark.parametrize("raised", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("then", ["more", "the end"])
def test_what_has_come_survives_an_interrupted_get_buffer(
    loop: Loop, raised: type[BaseException], then: str
) -> None:
    class Interrupted(BufferedRecorder):
        raises = False

        def get_buffer(self, sizehint: int) -> Any:
            if self.raises:
                self.raises = False
                raise raised("on purpose")
            # asyncio fills slices of what it gets, which of a bytearray are copies.
            return memoryview(self.buffer)

    async def main() -> None:
        async with records(Interrupted) as (protocol, peer):
            protocol.raises = True
            await peer.send(peer.seal(b"one"))
            while protocol.raises:
                await asyncio.sleep(0.001)
            if then == "more":
                await peer.send(peer.seal(b"two"))
                while protocol.received != b"onetwo":
                    assert "connection_lost" not in protocol.calls
                    await asyncio.sleep(0.001)
            else:
                peer.sock.shutdown(socket.SHUT_WR)
                await protocol.lost
                assert protocol.received == b"one"

    task = loop.create_task(main())
    with pytest.raises(raised, match="on purpose"):
        loop.run_until_complete(task)
    loop.run_until_complete(task)


@pytest.mark.parametrize(
    "error", [ValueError, SystemExit, KeyboardInterrupt], ids=lambda e: e.__name__
)
def test_an_exception_of_data_received_is_fatal(
    loop: Loop, loop_errors: Any, error: type[BaseException]
) -> None:
    class Fails(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            raise error("of data_received")

    async def main() -> None:
        async with records(Fails) as (protocol, peer):
            await peer.send(peer.seal(b"data"))
            lost = await protocol.until_lost()
            assert type(lost) is error

    if error is ValueError:
        loop.run_until_complete(main())
        (context,) = loop_errors
        assert context["message"] == "Fatal error on SSL protocol"
        assert type(context["exception"]) is error
        assert {"transport", "protocol"} <= context.keys()
        loop_errors.clear()
        return
    task = loop.create_task(main())
    with pytest.raises(error):
        loop.run_until_complete(task)
    # The loop can be run again, and the connection be ended.
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)


def test_a_cancelled_error_out_of_data_received_is_fatal(loop: Loop) -> None:
    class Fails(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            raise asyncio.CancelledError

    async def main() -> None:
        async with records(Fails) as (protocol, peer):
            await peer.send(peer.seal(b"data"))
            assert type(await protocol.until_lost()) is asyncio.CancelledError

    loop_errors: list[Any] = []
    loop.set_exception_handler(lambda _loop, context: loop_errors.append(context))
    loop.run_until_complete(main())
    messages = [context["message"] for context in loop_errors]
    assert messages == ["Fatal error: protocol.buffer_updated() call failed."]
    assert type(loop_errors[0]["exception"]) is asyncio.CancelledError


def test_an_exception_of_eof_received_is_reported(loop: Loop, loop_errors: Any) -> None:
    class Fails(Recorder):
        def eof_received(self) -> bool | None:
            super().eof_received()
            raise ValueError("of eof_received")

    async def main() -> None:
        async with records(Fails) as (protocol, peer):
            await peer.send(peer.seal(b"data") + peer.seal_close_notify())
            assert type(await protocol.until_lost()) is ValueError
            assert protocol.received == b"data"

    loop.run_until_complete(main())
    (context,) = loop_errors
    assert context["message"] == "Error calling eof_received()"
    loop_errors.clear()


def test_true_from_eof_received_does_not_keep_the_connection(
    loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    class StaysOpen(Recorder):
        def eof_received(self) -> bool | None:
            super().eof_received()
            return True

    async def main() -> None:
        async with records(StaysOpen) as (protocol, peer):
            await peer.send(peer.seal_close_notify())
            assert await protocol.until_lost() is None

    loop.run_until_complete(main())
    assert "returning true from eof_received() has no effect when using ssl" in caplog.text
