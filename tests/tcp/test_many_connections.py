"""Two thousand connections at once, a hundred thousand one after the other; nothing piles up."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from tests.support.leaks import leaked_descriptors, open_descriptors
from tests.support.net import LOOPBACK, fill_send_queue, serving, settled
from tests.support.programs import output_of
from tests.support.protocols import EchoProtocol

CONCURRENT = 2000


@pytest.mark.time_limit(60)
def test_two_thousand_connections_at_once_get_their_own_answers(loop):
    """Both ends on one loop: 4,000 transports, each with bytes that belong to it alone."""
    import resource

    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 2 * CONCURRENT + 200:
        pytest.skip("the limit of open files is too low")

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
    import gc, resource, socket, struct, sys

    def resident_kib():
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * resource.getpagesize() // 1024

    class Echo(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport
        def data_received(self, data):
            self.transport.write(data)

    async def main(total):
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Echo, "127.0.0.1", 0, backlog=1024)
        address = server.sockets[0].getsockname()
        linger = struct.pack("ii", 1, 0)

        def clients(count):
            # Eight at a time, each with a question and an answer; then a reset, which
            # leaves no port in TIME_WAIT behind.
            for _ in range(count // 8):
                batch = []
                for _ in range(8):
                    client = socket.socket()
                    client.connect(address)
                    client.sendall(b"question")
                    batch.append(client)
                for client in batch:
                    assert client.recv(100) == b"question"
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    client.close()

        measured = []
        for _ in range(4):
            await loop.run_in_executor(None, clients, total // 4)
            while sum(isinstance(thing, Echo) for thing in gc.get_objects()):
                await asyncio.sleep(0.01)
                gc.collect()
            measured.append((resident_kib(), sys.getrefcount(None), len(gc.get_objects())))
        server.close()
        await server.wait_closed()
        await loop.shutdown_default_executor()
        for row in measured:
            print(*row)

    loop = new_loop()
    loop.run_until_complete(main(TOTAL))
    loop.close()
"""


@pytest.mark.time_limit(60)
@pytest.mark.flavours("asyncio", "tokioloop", "uvloop", reason="rloop keeps what it has closed")
def test_memory_and_references_are_flat_over_many_connections(flavour):
    """Four equal parts; after the first, which fills the free lists, nothing may grow."""
    total = 100_000 if flavour.name == "tokioloop" else 8_000
    lines = output_of(flavour, FLAT.replace("TOTAL", str(total))).splitlines()
    resident, _references, objects = zip(*(map(int, line.split()) for line in lines), strict=True)
    per_connection = (resident[-1] - resident[0]) * 1024 / (total * 3 / 4)
    assert per_connection < 64, f"resident KiB after each quarter: {resident}"
    assert abs(objects[-1] - objects[0]) < 50, f"objects after each quarter: {objects}"
