"""Writes around a stop, handles that cancel themselves, sockets of others, storms of threads."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import sys
import threading
import time
from typing import Any

import pytest

from tests.support.net import LOOPBACK, connected, receive_exactly, settled
from tests.support.programs import output_of
from tests.support.protocols import Recorder
from tests.support.tls import client_context, server_context

pytestmark = pytest.mark.flavours(
    "asyncio", "tokioloop", reason="the peers have the defects these tests are about"
)
Loop = asyncio.AbstractEventLoop

STORM_SECONDS = 1.5
THREADS = 8


@pytest.mark.parametrize("moment", ["by the callback that stops", "between two runs"])
def test_writes_around_a_stop_reach_the_peer(loop: Loop, moment: str) -> None:
    """Also on a transport that is known to write several times in one callback."""
    ours, peer = socket.socketpair()
    peer.settimeout(5)
    ours.setblocking(False)
    transport, protocol = loop.run_until_complete(loop.create_connection(Recorder, sock=ours))

    def write_twice() -> None:
        transport.write(b"head")
        transport.write(b"body")

    def write_and_stop() -> None:
        loop.stop()
        write_twice()

    with peer:
        for _ in range(6):
            loop.call_soon(write_twice)
            loop.run_until_complete(asyncio.sleep(0))
            assert receive_exactly(peer, 8) == b"headbody"
        if moment == "between two runs":
            write_twice()
        else:
            loop.call_soon(write_and_stop)
            loop.run_forever()
        assert receive_exactly(peer, 8) == b"headbody"
        transport.abort()
        loop.run_until_complete(protocol.until_lost())
        loop.run_until_complete(asyncio.sleep(0))


@pytest.mark.parametrize("count", [0, 1, 3, 6])
@pytest.mark.parametrize("method", ["call_soon", "call_later", "call_soon_threadsafe"])
def test_a_callback_that_cancels_its_own_handle_keeps_its_arguments(
    loop: Loop, method: str, count: int
) -> None:
    seen: list[Any] = []
    handles: list[Any] = []

    def callback(*arguments: Any) -> None:
        handles[0].cancel()
        seen.append([str(argument) for argument in arguments])
        loop.stop()

    arguments = [object() for _ in range(count)]
    texts = [str(argument) for argument in arguments]
    schedule = getattr(loop, method)
    delay = (0,) if method == "call_later" else ()
    handles.append(schedule(*delay, callback, *arguments))
    arguments.clear()
    loop.run_forever()
    assert seen == [texts]
    assert handles[0].cancelled()


@pytest.mark.flavours(
    "tokioloop", reason="asyncio's transport is made first, and closes the socket"
)
@pytest.mark.parametrize("method", ["create_connection", "connect_accepted_socket"])
def test_a_protocol_that_is_none_leaves_the_socket_to_the_caller(loop: Loop, method: str) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with ours, theirs:
            call = getattr(loop, method)
            with pytest.raises(AttributeError):
                if method == "create_connection":
                    await call(object, sock=ours)
                else:
                    await call(object, ours)
            theirs.send(b"x")
            assert await loop.sock_recv(ours, 1) == b"x"

    loop.run_until_complete(main())


class Counted(socket.socket):
    closed = 0

    def close(self) -> None:
        type(self).closed += 1
        super().close()


@pytest.mark.parametrize("tls", [False, True])
def test_an_accepted_socket_is_closed_by_its_transport_alone(loop: Loop, tls: bool) -> None:
    """Also when the handshake is cancelled; the number may be another's right after."""

    async def main() -> None:
        one, peer = socket.socketpair()
        sock = Counted(fileno=one.detach())
        sock.setblocking(False)
        number = sock.fileno()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if tls else None
        task = loop.create_task(loop.connect_accepted_socket(Recorder, sock, ssl=context))
        await settled()
        if tls:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            transport, protocol = await task
            transport.close()
            await protocol.until_lost()
        await settled()
        assert sock.fileno() == -1
        with peer:
            heir, other = socket.socketpair()
            with heir, other:
                assert number in (heir.fileno(), other.fileno())
                del sock, task
                await settled()
                heir.send(b"unharmed")
                assert other.recv(10) == b"unharmed"

    Counted.closed = 0
    loop.run_until_complete(main())
    assert Counted.closed == 1


@pytest.mark.time_limit(60)
def test_a_storm_of_calls_from_threads_wakes_an_idle_loop_every_time(loop: Loop) -> None:
    """Each thread waits for its call to run before the next, so a lost wake-up hangs."""
    loop.set_debug(False)
    rounds = [0] * THREADS

    async def main() -> None:
        finished = asyncio.Event()
        alive = THREADS

        def ended() -> None:
            nonlocal alive
            alive -= 1
            if not alive:
                finished.set()

        def storm(index: int) -> None:
            deadline = time.monotonic() + STORM_SECONDS
            ran = threading.Event()
            while time.monotonic() < deadline:
                loop.call_soon_threadsafe(ran.set)
                assert ran.wait(20), "a call was lost"
                ran.clear()
                rounds[index] += 1
            loop.call_soon_threadsafe(ended)

        threads = [threading.Thread(target=storm, args=(index,)) for index in range(THREADS)]
        for thread in threads:
            thread.start()
        await finished.wait()
        for thread in threads:
            thread.join()

    loop.run_until_complete(main())
    assert min(rounds) > 10


def test_lines_of_a_transport_that_is_replaced_belong_to_the_new_protocol(loop: Loop) -> None:
    """A byte that came before set_protocol() and was not read yet goes to the new one."""

    async def main() -> None:
        async with connected("server") as (transport, first, peer):
            transport.pause_reading()
            peer.send(b"late")
            await settled()
            second = Recorder()
            transport.set_protocol(second)
            transport.resume_reading()
            await second.until_received(4)
            assert first.received == b""
            transport.set_protocol(first)

    loop.run_until_complete(main())


def test_several_hosts_and_no_host_mean_what_they_say(loop: Loop) -> None:
    async def main() -> None:
        for host, families in (
            ("", {socket.AF_INET, socket.AF_INET6}),
            (LOOPBACK, {socket.AF_INET}),
        ):
            server = await loop.create_server(Recorder, host, 0)
            found = {sock.family for sock in server.sockets}
            assert found <= families and socket.AF_INET in found
            server.close()
            await server.wait_closed()

    loop.run_until_complete(main())


@pytest.mark.min_python(3, 12)
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize("way", ["client", "server", "tls"])
def test_a_writer_that_another_threads_collector_finds_is_closed(loop: Loop, way: str) -> None:
    if way == "server" and sys.version_info < (3, 13):
        pytest.skip("the protocol of a server's stream holds its writer until 3.13")

    async def abandon(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.itself = writer  # type: ignore[attr-defined]

    async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peers.append((reader, writer))

    peers: list[Any] = []

    async def main() -> None:
        tls = way == "tls"
        server = await asyncio.start_server(
            abandon if way == "server" else keep, LOOPBACK, 0, ssl=server_context() if tls else None
        )
        ends = await asyncio.open_connection(
            *server.sockets[0].getsockname(), ssl=client_context() if tls else None
        )
        if way == "server":
            peers.append(ends)
        else:
            await abandon(*ends)
        del ends
        while not peers:
            await asyncio.sleep(0)
        await settled()
        await asyncio.to_thread(gc.collect)
        ((reader, writer),) = peers
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
        await writer.wait_closed()
        server.close()

    gc.disable()
    try:
        loop.run_until_complete(main())
    finally:
        gc.enable()


@pytest.mark.parametrize("size", [65_536, 65_537, 100_000])
def test_what_came_with_the_end_is_delivered_whole(loop: Loop, size: int) -> None:
    """So who answers and closes leaves nothing unread, which would reset the peer."""
    deliveries: list[int] = []

    class Answering(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            deliveries.append(len(data))
            self.transport.write(b"ok")
            self.transport.close()

    async def main() -> None:
        ours, peer = socket.socketpair()
        with peer:
            ours.setblocking(False)
            peer.settimeout(5)
            for end in (ours, peer):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 18)
                end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)
            peer.sendall(bytes(size))
            peer.shutdown(socket.SHUT_WR)
            await loop.create_connection(Answering, sock=ours)
            await settled()
            assert deliveries == [size]
            assert peer.recv(10) == b"ok"
            assert peer.recv(10) == b""

    loop.run_until_complete(main())


@pytest.mark.skipif(sys.platform != "linux", reason="limits address space")
@pytest.mark.flavours("tokioloop", reason="asyncio keeps a reference, or stays open")
def test_a_write_whose_rest_cannot_be_kept_is_the_end_of_the_connection(flavour: Any) -> None:
    """A part has been sent: whatever was written next would stand in its place."""
    program = """
        import asyncio, mmap, resource, socket

        class Protocol(asyncio.Protocol):
            def connection_lost(self, error):
                print(type(error).__name__)

        async def main():
            ours, peer = socket.socketpair()
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda loop, context: None)
            ours.setblocking(False)
            transport, protocol = await loop.create_connection(Protocol, sock=ours)
            # More than the free-threaded allocator has reserved.
            large = memoryview(mmap.mmap(-1, 1 << 31))
            used = int(open("/proc/self/statm").read().split()[0]) * mmap.PAGESIZE
            most = resource.getrlimit(resource.RLIMIT_AS)[1]
            resource.setrlimit(resource.RLIMIT_AS, (used + (100 << 20), most))
            transport.write(large)
            print(transport.is_closing())
            await asyncio.sleep(0)

        new_loop().run_until_complete(main())
        """
    assert output_of(flavour, program) == "True\nMemoryError\n"
