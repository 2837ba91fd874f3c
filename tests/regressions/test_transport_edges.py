"""Transports and listeners at their edges: the loop goes on, and tells what asyncio tells."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import os
import resource
import socket
from typing import Any

import pytest

from tests.conftest import LoopErrors
from tests.support.net import (
    LOOPBACK,
    connected,
    fill_send_queue,
    in_thread,
    settled,
    socket_pair,
)
from tests.support.protocols import HalfOpenRecorder, Recorder

pytestmark = pytest.mark.flavours(
    "asyncio", "tokioloop", reason="asyncio's own behaviour in detail, which the peers do not have"
)
Loop = asyncio.AbstractEventLoop


def test_an_end_of_file_that_cannot_be_sent_any_more_stops_no_loop(
    loop: Loop, loop_errors: LoopErrors
) -> None:
    async def main() -> None:
        with socket_pair() as (ours, theirs):
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
            transport, protocol = await loop.create_connection(HalfOpenRecorder, sock=ours)
            written = 0
            while not transport.get_write_buffer_size():
                written += 1000
                transport.write(bytes(1000))
            transport.write(bytes(500))
            kernel_has = written + 500 - transport.get_write_buffer_size()
            transport.write_eof()
            # The peer takes what the kernel has, and leaves: the rest is answered by a reset.
            theirs.setblocking(True)
            while kernel_has:
                kernel_has -= len(theirs.recv(kernel_has))
            theirs.close()
            await settled()
            transport.abort()
            await protocol.until_lost()
            # asyncio reports it where the reset comes in between.
            loop_errors.clear()

    loop.run_until_complete(main())


def test_a_listener_whose_report_of_missing_descriptors_ends_the_run_goes_on_in_the_next(
    loop: Loop,
) -> None:
    class Accepted(Recorder):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            accepted.set_result(self)

    def end(_loop: Loop, context: dict[str, Any]) -> None:
        assert context["message"] == "socket.accept() out of system resource"
        raise SystemExit

    accepted = loop.create_future()
    server = loop.run_until_complete(loop.create_server(Accepted, LOOPBACK, 0))
    loop.set_exception_handler(end)
    limit, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = []
    with socket.socket() as client:
        client.setblocking(False)
        loop.run_until_complete(settled())
        try:
            highest = os.dup(0)
            taken.append(highest)
            resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 8, hard))
            with pytest.raises(OSError, match="Too many open files"):
                while True:
                    taken.append(os.dup(0))
            client.connect_ex(server.sockets[0].getsockname())
            with pytest.raises(SystemExit):
                loop.run_until_complete(asyncio.sleep(10))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            for number in taken:
                os.close(number)
        loop.set_exception_handler(None)
        protocol = loop.run_until_complete(asyncio.wait_for(accepted, 10))
        protocol.transport.abort()
        loop.run_until_complete(protocol.until_lost())
        server.close()
        loop.run_until_complete(server.wait_closed())


@pytest.mark.flavours("tokioloop", reason="asyncio accepts nobody then, before 3.14")
def test_a_server_with_a_backlog_of_0_accepts(loop: Loop) -> None:
    made: list[Recorder] = []

    def factory() -> Recorder:
        made.append(Recorder())
        return made[-1]

    async def main() -> None:
        server = await loop.create_server(factory, LOOPBACK, 0, backlog=0)
        transport, _ = await loop.create_connection(Recorder, *server.sockets[0].getsockname())
        while not made:
            await asyncio.sleep(0)
        transport.abort()
        await settled()
        server.close()

    loop.run_until_complete(main())


def test_data_comes_in_the_context_of_whoever_resumed_reading(loop: Loop) -> None:
    who = contextvars.ContextVar("who", default="nobody")

    class Protocol(Recorder):
        def data_received(self, data: bytes) -> None:
            seen.append((data, who.get()))
            super().data_received(data)

    seen: list[tuple[bytes, str]] = []

    async def main() -> None:
        with socket_pair() as (ours, theirs):
            who.set("maker")
            transport, protocol = await loop.create_connection(Protocol, sock=ours)
            transport.pause_reading()
            who.set("too early")
            transport.resume_reading()
            await settled()
            theirs.send(b"1")
            await protocol.until_received(1)
            transport.pause_reading()
            who.set("resumer")
            transport.resume_reading()
            theirs.send(b"2")
            await protocol.until_received(2)
            who.set("nobody else")
            transport.resume_reading()
            theirs.send(b"3")
            await protocol.until_received(3)
            transport.abort()
            await protocol.until_lost()

    loop.run_until_complete(main())
    assert seen == [(b"1", seen[0][1]), (b"2", "resumer"), (b"3", "resumer")]


@pytest.mark.parametrize("datagrams", [False, True], ids=["stream", "datagrams"])
def test_the_socket_of_a_lost_transport_is_a_closed_one(loop: Loop, datagrams: bool) -> None:
    async def main() -> None:
        transport: Any
        if datagrams:
            transport, _ = await loop.create_datagram_endpoint(
                asyncio.DatagramProtocol, local_addr=(LOOPBACK, 0)
            )
        else:
            with socket_pair() as (ours, _):
                transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
                await settled()
        transport.abort()
        await settled()
        left = transport.get_extra_info("socket")
        assert (left.fileno(), left.family) == (-1, socket.AF_INET)
        assert left.type == (socket.SOCK_DGRAM if datagrams else socket.SOCK_STREAM)
        assert transport.get_extra_info("socket") is left

    loop.run_until_complete(main())


def test_debug_mode_logs_pauses_of_streams(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        with socket_pair() as (ours, _):
            transport, protocol = await loop.create_connection(Recorder, sock=ours)
            for call in ("pause", "pause", "resume", "resume"):
                getattr(transport, f"{call}_reading")()
            transport.abort()
            await protocol.until_lost()

    loop.set_debug(True)
    with caplog.at_level(logging.DEBUG, "asyncio"):
        loop.run_until_complete(main())
    told = [record.msg for record in caplog.records if "reading" in record.msg]
    assert told == ["%r pauses reading", "%r resumes reading"]


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize(
    "datagrams",
    [False, pytest.param(True, marks=pytest.mark.min_python(3, 11))],
    ids=["stream", "datagrams"],
)
def test_reading_is_not_resumed_on_a_closed_loop(loop: Loop, datagrams: bool) -> None:
    async def main() -> Any:
        if datagrams:
            return await loop.create_datagram_endpoint(asyncio.DatagramProtocol, sock=ours)
        return await loop.create_connection(asyncio.Protocol, sock=ours)

    kind = socket.SOCK_DGRAM if datagrams else socket.SOCK_STREAM
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    with ours, theirs:
        ours.setblocking(False)
        transport, _ = loop.run_until_complete(main())
        loop.run_until_complete(settled())
        transport.pause_reading()
        loop.close()
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            transport.resume_reading()


def test_a_server_ends_though_a_waiter_of_one_of_its_connections_raises(
    loop: Loop, loop_errors: LoopErrors
) -> None:
    class Waiter:
        """What the program's `create_future` made: it is not up to its task."""

        def fail(self, *_: Any) -> Any:
            raise ZeroDivisionError

        done = set_exception = fail

    async def main() -> None:
        async with connected("server") as (transport, protocol, _):
            transport.pause_reading()
            fill_send_queue(transport)
            create_future = loop.create_future
            try:
                loop.create_future = Waiter  # type: ignore[method-assign, assignment]
                transport._make_empty_waiter()
            finally:
                loop.create_future = create_future  # type: ignore[method-assign]
            transport.abort()
            await protocol.until_lost()
            # The end of `connected` waits for the server.

    loop.run_until_complete(main())
    assert isinstance(loop_errors.take()["exception"], ZeroDivisionError)


@pytest.mark.flavours("tokioloop", reason="asyncio adds a watch for what waits, and asks nobody")
@pytest.mark.parametrize("datagrams", [False, True], ids=["stream", "datagrams"])
def test_what_waits_is_sent_though_the_poll_has_refused_to_tell_of_room(
    loop: Any, datagrams: bool
) -> None:
    """Here it has lost its registration; what fails in life is memory of the kernel's."""

    async def main() -> None:
        kind = socket.SOCK_DGRAM if datagrams else socket.SOCK_STREAM
        ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
        with theirs:
            ours.setblocking(False)
            transport: Any
            if datagrams:
                transport, _ = await loop.create_datagram_endpoint(
                    asyncio.DatagramProtocol, sock=ours
                )
                write = transport.sendto
            else:
                transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
                write = transport.write
            await settled()
            loop._add_reader(ours.fileno(), int)
            loop._remove_reader(ours.fileno())
            sent = 0
            with pytest.raises(FileNotFoundError):
                while not transport.get_write_buffer_size():
                    sent += 1
                    write(b"x" * 1000)
            loop._add_reader(ours.fileno(), int)
            write(b"x" * 1000)
            transport.close()
            for _ in range(sent + 1):
                flags = 0 if datagrams else socket.MSG_WAITALL
                assert await in_thread(theirs.recv, 1000, flags) == b"x" * 1000
            while ours.fileno() >= 0:
                await asyncio.sleep(0)

    loop.run_until_complete(main())


def test_a_socket_that_cannot_be_shown_leaves_the_transport_its_descriptor(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    async def main() -> None:
        async with connected("server") as (transport, protocol, peer):
            with monkeypatch.context() as patch:
                patch.setattr(socket.socket, "setblocking", fail)
                # asyncio's has had it from the beginning.
                with contextlib.suppress(ZeroDivisionError):
                    transport.get_extra_info("socket")
            peer.send(b"x")
            assert await protocol.until_received(1) == b"x"
            assert transport.get_extra_info("socket").getpeername() == peer.getsockname()

    loop.run_until_complete(main())
