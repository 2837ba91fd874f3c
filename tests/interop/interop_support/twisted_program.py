"""A Twisted program on the loop under test; prints JSON, each check name to `ok` or a traceback.

Twisted has one reactor per process, so the checks share one run of it. asyncioreactor drives the
loop by `add_reader`, `add_writer`, `call_at` and `run_forever` alone; the protocols are Twisted's.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from twisted.internet import asyncioreactor

from interop_support.loops import new_event_loop, require_loop_under_test

LOOP = new_event_loop()
asyncio.set_event_loop(LOOP)
asyncioreactor.install(LOOP)

from twisted.internet import defer, endpoints, error, protocol, reactor, ssl, task, threads  # noqa: E402
from twisted.internet.interfaces import IReadDescriptor  # noqa: E402
from twisted.python.filepath import FilePath  # noqa: E402
from twisted.web import client, resource, server  # noqa: E402
from zope.interface import implementer  # noqa: E402

CHECK_TIMEOUT = 6.0
PAYLOAD = bytes(range(256)) * 4096  # 1 MiB

CHECKS: dict[str, Callable[[], Awaitable[None]]] = {}


def check(function: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
    CHECKS[function.__name__] = function
    return function


class Echo(protocol.Protocol):
    def dataReceived(self, data: bytes) -> None:
        require_loop_under_test()
        self.transport.write(data)


class Collector(protocol.Protocol):
    """Sends the payload and completes `echoed` when as much has come back."""

    def __init__(self) -> None:
        self.echoed: defer.Deferred[bytes] = defer.Deferred()
        self.lost: defer.Deferred[Any] = defer.Deferred()
        self._received = bytearray()

    def connectionMade(self) -> None:
        self.transport.write(PAYLOAD)

    def dataReceived(self, data: bytes) -> None:
        self._received += data
        if len(self._received) >= len(PAYLOAD) and not self.echoed.called:
            self.echoed.callback(bytes(self._received))

    def connectionLost(self, reason: Any = protocol.connectionDone) -> None:
        self.lost.callback(reason.value)  # a Failure would turn into an errback


async def _echo_through(listening: Any, connecting: Callable[[Any], Any]) -> None:
    port = await listening.listen(protocol.Factory.forProtocol(Echo))
    try:
        collector = await endpoints.connectProtocol(connecting(port.getHost()), Collector())
        assert await collector.echoed == PAYLOAD
        collector.transport.loseConnection()
        reason = await collector.lost
        assert isinstance(reason, error.ConnectionDone), reason
    finally:
        await defer.maybeDeferred(port.stopListening)


@check
async def tcp_echo() -> None:
    await _echo_through(
        endpoints.TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1"),
        lambda host: endpoints.TCP4ClientEndpoint(reactor, host.host, host.port),
    )


@check
async def unix_echo() -> None:
    path = os.path.join(tempfile.mkdtemp(), "echo.sock")
    await _echo_through(
        endpoints.UNIXServerEndpoint(reactor, path),
        lambda host: endpoints.UNIXClientEndpoint(reactor, path),
    )


@check
async def tls_echo() -> None:
    directory = Path(os.environ["INTEROP_TLS_DIRECTORY"])
    pem = (directory / "server.pem").read_bytes() + (directory / "server.key").read_bytes()
    authority = ssl.Certificate.loadPEM((directory / "ca.pem").read_bytes())
    serving = ssl.PrivateCertificate.loadPEM(pem).options()
    trusting = ssl.optionsForClientTLS("localhost", trustRoot=authority)
    await _echo_through(
        endpoints.SSL4ServerEndpoint(reactor, 0, serving, interface="127.0.0.1"),
        lambda host: endpoints.wrapClientTLS(
            trusting, endpoints.TCP4ClientEndpoint(reactor, host.host, host.port)
        ),
    )


@check
async def udp_echo() -> None:
    class Server(protocol.DatagramProtocol):
        def datagramReceived(self, datagram: bytes, addr: Any) -> None:
            self.transport.write(datagram, addr)

    class Client(protocol.DatagramProtocol):
        def __init__(self) -> None:
            self.answered: defer.Deferred[bytes] = defer.Deferred()

        def datagramReceived(self, datagram: bytes, addr: Any) -> None:
            self.answered.callback(datagram)

    peer, asker = Server(), Client()
    ports = [reactor.listenUDP(0, each, interface="127.0.0.1") for each in (peer, asker)]
    asker.transport.write(b"datagram", ("127.0.0.1", ports[0].getHost().port))
    assert await asker.answered == b"datagram"
    for port in ports:
        await defer.maybeDeferred(port.stopListening)


@check
async def http_server_and_agent() -> None:
    class Page(resource.Resource):
        isLeaf = True

        def render_POST(self, request: Any) -> bytes:
            require_loop_under_test()
            return request.content.read()

    port = reactor.listenTCP(0, server.Site(Page()), interface="127.0.0.1")
    pool = client.HTTPConnectionPool(reactor)
    agent = client.Agent(reactor, pool=pool)
    url = f"http://127.0.0.1:{port.getHost().port}/".encode()
    for n in range(5):
        body = client.FileBodyProducer(io.BytesIO(PAYLOAD[: 1000 * (n + 1)]))
        response = await agent.request(b"POST", url, bodyProducer=body)
        assert await client.readBody(response) == PAYLOAD[: 1000 * (n + 1)]
    await pool.closeCachedConnections()
    await port.stopListening()


@check
async def child_process() -> None:
    """SIGCHLD alone tells the end of a child whose pipes have closed before.

    It arrives through a descriptor that Twisted gives to `signal.set_wakeup_fd` before it runs the
    loop, so a loop that puts its own there for the run has to let that one hear of it too.
    """
    script = (
        "import os, signal, sys;"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1]);"
        "os.write(1, sys.stdin.read().upper().encode());"
        "os.close(0); os.close(1); os.close(2);"
        "signal.sigwait([signal.SIGUSR1]); os._exit(3)"
    )

    class Child(protocol.ProcessProtocol):
        def __init__(self) -> None:
            self.output = b""
            self.open = {0, 1, 2}
            self.ended: defer.Deferred[Any] = defer.Deferred()

        def connectionMade(self) -> None:
            self.transport.write(b"to the child\n")
            self.transport.closeStdin()

        def outReceived(self, data: bytes) -> None:
            self.output += data

        def childConnectionLost(self, childFD: int) -> None:
            self.open.remove(childFD)
            if not self.open:
                self.transport.signalProcess(signal.SIGUSR1)

        def processEnded(self, reason: Any) -> None:
            self.ended.callback(reason.value.exitCode)

    for _ in range(5):
        child = Child()
        reactor.spawnProcess(child, sys.executable, [sys.executable, "-S", "-c", script], env={})
        assert await child.ended == 3
        assert child.output == b"TO THE CHILD\n"


@check
async def worker_threads() -> None:
    idents = await defer.gatherResults(
        [threads.deferToThread(threading.get_ident) for _ in range(20)]
    )
    assert threading.get_ident() not in idents

    def from_thread() -> str:
        return threads.blockingCallFromThread(reactor, lambda: defer.succeed("from the reactor"))

    assert await threads.deferToThread(from_thread) == "from the reactor"


@check
async def delayed_calls() -> None:
    order: list[int] = []
    cancelled = reactor.callLater(0.01, order.append, -1)
    for delay in (3, 1, 2):
        reactor.callLater(delay / 100, order.append, delay)
    cancelled.cancel()
    await task.deferLater(reactor, 0.06)
    assert order == [1, 2, 3], order

    ticks = 0

    def tick() -> None:
        nonlocal ticks
        ticks += 1
        if ticks == 5:
            ticking.stop()

    ticking = task.LoopingCall(tick)
    await ticking.start(0.002)
    assert ticks == 5


@check
async def asyncio_in_the_same_loop() -> None:
    async def coroutine() -> str:
        require_loop_under_test()
        await asyncio.sleep(0.001)
        reader, writer = await asyncio.open_connection("127.0.0.1", port.getHost().port)
        writer.write(b"through asyncio streams")
        answer = await reader.readexactly(23)
        writer.close()
        await writer.wait_closed()
        return answer.decode()

    port = reactor.listenTCP(0, protocol.Factory.forProtocol(Echo), interface="127.0.0.1")
    answer = await defer.Deferred.fromFuture(asyncio.ensure_future(coroutine(), loop=LOOP))
    assert answer == "through asyncio streams"
    await port.stopListening()


@check
async def regular_file_as_descriptor() -> None:
    """epoll refuses regular files: `add_reader` must say so, and Twisted then polls by itself."""

    @implementer(IReadDescriptor)
    class FileReader:
        def __init__(self, path: str) -> None:
            self.fd = os.open(path, os.O_RDONLY)
            self.content = b""
            self.finished: defer.Deferred[bytes] = defer.Deferred()

        def fileno(self) -> int:
            return self.fd

        def logPrefix(self) -> str:
            return "file reader"

        def doRead(self) -> None:
            data = os.read(self.fd, 65_536)
            self.content += data
            if not data and not self.finished.called:
                reactor.removeReader(self)
                os.close(self.fd)
                self.finished.callback(self.content)

        def connectionLost(self, reason: Any) -> None:
            if not self.finished.called:
                self.finished.errback(reason)

    path = FilePath(tempfile.mkdtemp()).child("file")
    path.setContent(PAYLOAD)
    reader = FileReader(path.path)
    reactor.addReader(reader)
    assert await reader.finished == PAYLOAD


async def run_checks() -> dict[str, str]:
    results = {}
    for name, function in CHECKS.items():
        deferred = defer.ensureDeferred(function())
        try:
            await deferred.addTimeout(CHECK_TIMEOUT, reactor)
            results[name] = "ok"
        except BaseException:
            results[name] = traceback.format_exc()
    return results


def main() -> None:
    def start() -> None:
        finished = defer.ensureDeferred(run_checks())
        finished.addCallback(lambda results: print(json.dumps(results)))
        finished.addBoth(lambda _: reactor.stop())

    reactor.callWhenRunning(start)
    reactor.run()


if __name__ == "__main__":
    main()
