"""Two thousand connections at once, a hundred thousand one after the other; nothing piles up."""

from __future__ import annotations

import asyncio
import contextlib
import sys

import pytest

from tests.support.leaks import leaked_descriptors, open_descriptors
from tests.support.net import LOOPBACK, fill_send_queue, serving, settled
from tests.support.programs import run_program
from tests.support.protocols import EchoProtocol

CONCURRENT = 2000


@pytest.mark.time_limit(60)
def test_two_thousand_connections_at_once_get_their_own_answers(loop):
    """Both ends on one loop: 4,000 transports, each with bytes that belong to it alone."""
    import resource

    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 2 * CONCURRENT + 200:
        pytest.skip("the limit of open files is too low")
    loop.set_debug(False)  # which notes the stack of each call: this is about their number

    class Asks(asyncio.Protocol):
        def __init__(self, number):
            self.question = b"%06d" % number * 20
            self.answer = bytearray()
            self.answered = loop.create_future()
            self.lost = loop.create_future()

        def connection_made(self, transport):
            self.transport = transport

        def ask(self):
            self.transport.write(self.question)

        def data_received(self, data):
            self.answer += data
            if len(self.answer) == len(self.question):
                self.answered.set_result(bytes(self.answer))

        def connection_lost(self, exc):
            self.lost.set_result(exc)

    async def main():
        async with serving(EchoProtocol, backlog=512) as (_server, address):
            clients = []
            for start in range(0, CONCURRENT, 100):
                clients += [
                    protocol
                    for _transport, protocol in await asyncio.gather(
                        *(
                            loop.create_connection(lambda n=number: Asks(n), *address)
                            for number in range(start, start + 100)
                        )
                    )
                ]
            for client in clients:
                client.ask()
            for client in clients:
                assert await client.answered == client.question
            for client in clients:
                client.transport.close()
            for client in clients:
                assert await client.lost is None
            await settled()
        await settled()

    loop.run_until_complete(main())


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.flavours("asyncio", "tokioloop", "uvloop", reason="rloop keeps the descriptors")
def test_a_loop_closed_with_connections_open_lets_go_of_their_descriptors(loop_factory):
    """At the latest when the transports go; until then their methods do no harm."""
    before = open_descriptors()

    async def main(loop):
        server = await loop.create_server(EchoProtocol, LOOPBACK, 0)
        address = server.sockets[0].getsockname()
        clients = [await loop.create_connection(EchoProtocol, *address) for _ in range(20)]
        await settled()
        fill_send_queue(clients[0][0])
        return server, clients

    for _ in range(3):
        loop = loop_factory()
        server, clients = loop.run_until_complete(main(loop))
        assert len(open_descriptors()) >= len(before) + 41
        loop.close()
        for transport, protocol in clients:
            with contextlib.suppress(RuntimeError):  # asyncio: the loop is closed
                transport.write(b"x")
            with contextlib.suppress(RuntimeError):
                transport.close()
            assert "connection_lost" not in protocol.calls
        del transport, protocol, server, clients
        assert not leaked_descriptors(before)


FLAT = """
    import gc, os, resource, socket, struct, sys

    QUARTERS, TOGETHER = 4, 32

    def resident_kib():
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * resource.getpagesize() // 1024

    def call_the_server(address, count):
        # Each connection asks and is answered, then resets: no port is left in TIME_WAIT.
        linger = struct.pack("ii", 1, 0)
        for _ in range(count // TOGETHER):
            clients = [socket.create_connection(address) for _ in range(TOGETHER)]
            for client in clients:
                client.sendall(b"question")
            for client in clients:
                assert client.recv(100) == b"question"
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                client.close()

    class Echo(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport
        def data_received(self, data):
            self.transport.write(data)

    async def main(orders, reports):
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Echo, sock=listener)
        for _ in range(QUARTERS):
            done = loop.create_future()
            loop.add_reader(reports, done.set_result, None)
            os.write(orders, b"x")
            await done
            loop.remove_reader(reports)
            assert os.read(reports, 1) == b"x", "the clients failed"
            while sum(isinstance(thing, Echo) for thing in gc.get_objects()):
                await asyncio.sleep(0.01)
            gc.collect()
            print(resident_kib(), sys.getrefcount(Echo), len(gc.get_objects()))
        os.close(orders)
        server.close()
        await server.wait_closed()

    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    reports, report_end = os.pipe()
    order_end, orders = os.pipe()
    child = os.fork()  # the clients: a process of their own, so that memory is the server's
    if not child:
        os.close(orders)
        os.close(reports)
        while os.read(order_end, 1):
            call_the_server(listener.getsockname(), TOTAL // QUARTERS)
            os.write(report_end, b"x")
        os._exit(0)
    os.close(order_end)
    os.close(report_end)
    loop = new_loop()
    loop.set_debug(False)
    loop.run_until_complete(main(orders, reports))
    loop.close()
    assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.time_limit(60)
@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
@pytest.mark.flavours(
    "asyncio", "tokioloop", reason="the others keep some of what they have closed"
)
def test_memory_and_references_are_flat_over_many_connections(flavour):
    """Four equal parts; after the first, which fills the free lists, nothing may grow."""
    in_full = flavour.name == "tokioloop" and not sys.flags.dev_mode
    total = 100_000 if in_full else 8_000
    done = run_program(flavour, FLAT.replace("TOTAL", str(total)), limit=55)
    assert done.returncode == 0, done.stderr
    rows = [map(int, line.split()) for line in done.stdout.splitlines()]
    resident, references, objects = zip(*rows, strict=True)
    # Allocators keep some megabytes for themselves; a leak grows with every connection.
    most = (4 << 20) + 32 * total * 3 / 4
    assert (resident[-1] - resident[0]) * 1024 < most, (
        f"resident KiB after each quarter: {resident}"
    )
    assert len(set(references)) == 1, f"references to the class after each quarter: {references}"
    assert objects[-1] - objects[0] < total / 100, f"objects after each quarter: {objects}"
