"""Debug mode: what asyncio's log says of slow events, failing callbacks and connections."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import time

import pytest

from tests.support.tls import client_context, server_context

pytestmark = pytest.mark.flavours(
    "asyncio",
    "tokioloop",
    reason="uvloop words it otherwise, rloop has no debug mode",
)


@pytest.fixture
def loop(loop):
    loop.set_debug(True)
    loop.slow_callback_duration = 0.1
    return loop


@pytest.fixture
def said(caplog):
    """Returns the messages of asyncio's log so far, as they read when they were written."""
    caplog.set_level(logging.DEBUG, "asyncio")
    return lambda: [record.message for record in caplog.records if record.name == "asyncio"]


@pytest.fixture
def slow_reports(said):
    return lambda: [message for message in said() if message.startswith("Executing ")]


def be_slow(*_args):
    time.sleep(0.12)


def run_once(loop):
    loop.call_soon(loop.stop)
    loop.run_forever()


def assert_one_slow(slow_reports, *words):
    (message,) = slow_reports()
    assert all(word in message for word in words), message
    duration = float(message.rpartition(" took ")[2].removesuffix(" seconds"))
    assert 0.1 < duration < 5


class TestSlowEvents:
    @pytest.fixture
    def pair(self, loop):
        """Makes a transport with a protocol, and the socket of its peer."""
        peers = []

        def make(protocol):
            ours, theirs = socket.socketpair()
            peers.append(theirs)

            async def connect():
                return await loop.create_connection(lambda: protocol, sock=ours)

            transport, _ = loop.run_until_complete(connect())
            peers.append(transport)
            return transport, theirs

        yield make
        for peer in peers:
            peer.close()
        run_once(loop)

    def test_slow_data_received_is_reported(self, loop, pair, slow_reports):
        class Slow(asyncio.Protocol):
            def data_received(self, data):
                be_slow()
                loop.stop()

        _, peer = pair(Slow())
        peer.send(b"x")
        loop.run_forever()
        assert_one_slow(slow_reports, "<Handle ", "_SelectorSocketTransport._read_ready()")

    @pytest.mark.flavours("tokioloop", reason="asyncio's report does not name the protocol")
    def test_over_tls_the_protocol_named_is_the_programs_own(self, loop, slow_reports):
        class Slow(asyncio.Protocol):
            def connection_made(self, transport):
                self.transport = transport

            def data_received(self, data):
                be_slow()
                received.set_result(self.transport)

        async def main():
            nonlocal received
            received = loop.create_future()
            server = await loop.create_server(Slow, "127.0.0.1", 0, ssl=served)
            address = server.sockets[0].getsockname()
            transport, _ = await loop.create_connection(asyncio.Protocol, *address, ssl=asked)
            transport.write(b"x")
            (await received).abort()
            transport.abort()
            server.close()
            while loop.metrics()["connections_open"]:
                await asyncio.sleep(0)

        received, served, asked = None, server_context(), client_context()
        loop.run_until_complete(main())
        assert_one_slow(slow_reports, "<Handle ", f" with {Slow.__qualname__}>")

    def test_slow_buffer_updated_is_reported(self, loop, pair, slow_reports):
        class Slow(asyncio.BufferedProtocol):
            def get_buffer(self, hint):
                return bytearray(10)

            def buffer_updated(self, count):
                be_slow()
                loop.stop()

        _, peer = pair(Slow())
        peer.send(b"x")
        loop.run_forever()
        assert_one_slow(slow_reports, "<Handle ", "_SelectorSocketTransport._read_ready()")

    def test_slow_eof_received_is_reported(self, loop, pair, slow_reports):
        class Slow(asyncio.Protocol):
            def eof_received(self):
                be_slow()
                loop.stop()

        _, peer = pair(Slow())
        peer.shutdown(socket.SHUT_WR)
        loop.run_forever()
        assert_one_slow(slow_reports, "<Handle ", "_SelectorSocketTransport._read_ready()")

    def test_slow_resume_writing_is_reported(self, loop, pair, slow_reports):
        class Slow(asyncio.Protocol):
            def resume_writing(self):
                be_slow()
                loop.stop()

        transport, peer = pair(Slow())
        transport.write(bytes(1_000_000))
        loop.add_reader(peer, lambda: peer.recv(1_000_000))
        loop.run_forever()
        loop.remove_reader(peer)
        assert_one_slow(slow_reports, "<Handle ", "_SelectorSocketTransport._write_")

    def test_slow_datagram_received_is_reported(self, loop, slow_reports):
        class Slow(asyncio.DatagramProtocol):
            def datagram_received(self, data, address):
                be_slow()
                loop.stop()

        async def make():
            return await loop.create_datagram_endpoint(Slow, local_addr=("127.0.0.1", 0))

        transport, _ = loop.run_until_complete(make())
        transport.sendto(b"x", transport.get_extra_info("sockname"))
        loop.run_forever()
        transport.close()
        run_once(loop)
        assert_one_slow(slow_reports, "<Handle ", "_SelectorDatagramTransport._read_ready()")

    @pytest.mark.parametrize("step", ["factory", "connection_made"])
    def test_the_slow_start_of_an_accepted_connection_is_reported(self, loop, slow_reports, step):
        class Slow(asyncio.Protocol):
            def __init__(self):
                if step == "factory":
                    be_slow()

            def connection_made(self, transport):
                if step == "connection_made":
                    be_slow()
                transport.close()

            def connection_lost(self, error):
                loop.stop()

        async def serve():
            return await loop.create_server(Slow, "127.0.0.1", 0)

        server = loop.run_until_complete(serve())
        with socket.create_connection(server.sockets[0].getsockname()):
            loop.run_forever()
        server.close()
        run_once(loop)
        assert_one_slow(
            slow_reports, "_accept_connection" if step == "factory" else "connection_made"
        )

    def test_a_slow_signal_handler_is_reported(self, loop, slow_reports):
        def handler():
            be_slow()
            loop.stop()

        loop.add_signal_handler(signal.SIGUSR1, handler)
        loop.call_soon(os.kill, os.getpid(), signal.SIGUSR1)
        loop.run_forever()
        loop.remove_signal_handler(signal.SIGUSR1)
        assert_one_slow(slow_reports, "<Handle ", "handler()", __file__)

    def test_fast_events_are_not_reported(self, loop, pair, slow_reports):
        class Fast(asyncio.Protocol):
            def data_received(self, data):
                loop.stop()

        loop.slow_callback_duration = 10.0
        _, peer = pair(Fast())
        peer.send(b"x")
        loop.run_forever()
        assert slow_reports() == []

    def test_slow_events_are_not_reported_outside_debug_mode(self, loop, pair, slow_reports):
        class Slow(asyncio.Protocol):
            def data_received(self, data):
                be_slow()
                loop.stop()

        _, peer = pair(Slow())
        loop.set_debug(False)
        peer.send(b"x")
        loop.run_forever()
        assert slow_reports() == []


class TestFailingCallbacks:
    def test_the_report_shows_the_arguments_in_debug_mode(self, loop, loop_errors):
        def fail(*_args):
            raise LookupError

        loop.call_soon(fail, 1, "two")
        run_once(loop)
        assert "fail(1, 'two') at " in loop_errors.take()["message"]

    def test_it_hides_them_outside_from_python_3_13_on(self, loop, loop_errors):
        def fail(*_args):
            raise LookupError

        loop.set_debug(False)
        loop.call_soon(fail, 1, "two")
        run_once(loop)
        shown = "fail()" if sys.version_info >= (3, 13) else "fail(1, 'two')"
        assert f"{shown} at " in loop_errors.take()["message"]

    def test_its_report_comes_before_that_of_a_slow_callback(self, loop, said):
        def fail():
            be_slow()
            raise LookupError

        loop.set_exception_handler(None)
        loop.call_soon(fail)
        run_once(loop)
        first, second = (line for line in said() if line.startswith(("Exception", "Executing")))
        assert first.startswith("Exception in callback ")
        assert second.startswith("Executing <Handle ")

    def test_the_time_of_the_exception_handler_counts_as_the_callbacks(self, loop, slow_reports):
        def fail():
            raise LookupError

        loop.set_exception_handler(be_slow)
        loop.call_soon(fail)
        run_once(loop)
        assert_one_slow(slow_reports, "fail()")

    @pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
    def test_a_slow_callback_that_leaves_the_loop_is_not_reported(self, loop, slow_reports, kind):
        def leave():
            be_slow()
            raise kind

        loop.call_soon(leave)
        with pytest.raises(kind):
            loop.run_forever()
        assert slow_reports() == []
        assert loop._current_handle is None

    def test_a_datagram_endpoint_tells_where_its_callback_was_created(self, loop, loop_errors):
        class Failing(asyncio.DatagramProtocol):
            def datagram_received(self, data, address):
                loop.stop()
                raise LookupError

        async def make():
            return await loop.create_datagram_endpoint(Failing, local_addr=("127.0.0.1", 0))

        transport, _ = loop.run_until_complete(make())
        transport.sendto(b"x", transport.get_extra_info("sockname"))
        loop.run_forever()
        transport.close()
        run_once(loop)
        assert __file__ in [frame.filename for frame in loop_errors.take()["source_traceback"]]


class TestCurrentHandle:
    def test_it_is_the_handle_of_the_callback_that_runs(self, loop):
        seen = []
        handle = loop.call_soon(lambda: seen.append(loop._current_handle))
        run_once(loop)
        assert seen == [handle]
        assert loop._current_handle is None

    def test_there_is_none_outside_debug_mode(self, loop):
        loop.set_debug(False)
        seen = []
        loop.call_soon(lambda: seen.append(loop._current_handle))
        run_once(loop)
        assert seen == [None]

    def test_what_a_callback_reports_shows_where_its_handle_was_created(self, loop, said):
        loop.set_exception_handler(None)
        loop.call_soon(loop.call_exception_handler, {"message": "something is wrong"})
        line = sys._getframe().f_lineno - 1
        run_once(loop)
        (report,) = (text for text in said() if text.startswith("something is wrong"))
        assert "Handle created at (most recent call last):" in report
        assert f'File "{__file__}", line {line}, in ' in report


def test_each_accepted_connection_is_logged_at_debug_level(loop, said):
    class Closing(asyncio.Protocol):
        def connection_made(self, transport):
            transport.close()

        def connection_lost(self, error):
            loop.stop()

    async def serve():
        return await loop.create_server(Closing, "127.0.0.1", 0)

    server = loop.run_until_complete(serve())
    with socket.create_connection(server.sockets[0].getsockname()) as client:
        peer = client.getsockname()
        loop.run_forever()
    (message,) = (text for text in said() if " got a new connection from " in text)
    assert message.startswith(f"{server!r} got a new connection from {peer!r}: <socket.socket fd=")
    assert f"raddr={peer!r}" in message
    server.close()
    run_once(loop)
