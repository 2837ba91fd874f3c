"""TLS: what an SSLContext says holds for the records as well, callbacks included."""

from __future__ import annotations

import asyncio
import importlib
import ssl
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.support.net import LOOPBACK
from tests.support.protocols import EchoProtocol, Recorder
from tests.support.tls import client_context, server_context

pytestmark = [
    pytest.mark.flavours("asyncio", "tokioloop", reason="the peers have TLS stacks of their own"),
    # Before that asyncio has another protocol, which is used as it is.
    pytest.mark.min_python(3, 11),
]
Loop = asyncio.AbstractEventLoop

TOKIOLOOP_HAS_ITS_OWN = sys.version_info >= (3, 11)


class Client(Recorder):
    """Notes what its transport encrypts with, where that can be asked."""

    engine: str | None = None

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.engine = getattr(self.transport._ssl_protocol, "_engine", None)


async def echoed(
    loop: Loop, theirs: ssl.SSLContext, ours: ssl.SSLContext, name: str | None = None
) -> Client:
    """A client's protocol, after an echo of small and of large messages; it is closed."""
    server = await loop.create_server(EchoProtocol, LOOPBACK, 0, ssl=theirs)
    place = server.sockets[0].getsockname()
    transport, client = await loop.create_connection(Client, *place, ssl=ours, server_hostname=name)
    for size in (1, 1000, 100_000):
        client.received.clear()
        transport.write(bytes(size))
        assert await client.until_received(size) == bytes(size)
    transport.close()
    await client.until_lost()
    server.close()
    return client


@pytest.mark.flavours("tokioloop", reason="asyncio has one way only")
@pytest.mark.skipif(not TOKIOLOOP_HAS_ITS_OWN, reason="3.10 has asyncio's own protocol")
def test_the_session_is_driven_directly_where_that_is_known_to_be_safe(loop: Loop) -> None:
    client = loop.run_until_complete(echoed(loop, server_context(), client_context()))
    known = (3, 11) <= sys.version_info < (3, 15)
    _ssl = importlib.import_module("_ssl")
    assert client.engine == ("openssl" if known and hasattr(_ssl, "__file__") else "ssl")


def test_other_threads_may_ask_a_session_while_it_carries_data(loop: Loop) -> None:
    ended = threading.Event()
    answers: set[Any] = set()

    def ask(session: ssl.SSLObject) -> None:
        while not ended.is_set():
            session.getpeercert(binary_form=True)
            answers.add((session.cipher(), session.version(), session.selected_alpn_protocol()))

    async def main() -> None:
        server = await loop.create_server(EchoProtocol, LOOPBACK, 0, ssl=server_context())
        place = server.sockets[0].getsockname()
        transport, client = await loop.create_connection(Recorder, *place, ssl=client_context())
        session = transport.get_extra_info("ssl_object")
        # Behind it nothing of the handshake is left, tickets included.
        transport.write(b"x")
        assert await client.until_received(1) == b"x"
        threads = [threading.Thread(target=ask, args=(session,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            for number in range(50):
                client.received.clear()
                payload = bytes([number]) * 20_000
                transport.write(payload)
                assert await client.until_received(len(payload)) == payload
        finally:
            ended.set()
            for thread in threads:
                thread.join()
        transport.close()
        await client.until_lost()
        server.close()

    loop.run_until_complete(main())
    assert len(answers) == 1


def test_a_context_chosen_by_sni_serves(loop: Loop) -> None:
    default, chosen = server_context(), server_context(ssl.TLSVersion.TLSv1_2)
    asked: list[str | None] = []

    def choose(session: Any, name: str | None, _context: ssl.SSLContext) -> None:
        asked.append(name)
        session.context = chosen

    default.sni_callback = choose
    client = loop.run_until_complete(echoed(loop, default, client_context(), "chosen.test"))
    assert asked == ["chosen.test"]
    assert client.transport.get_extra_info("ssl_object").version() == "TLSv1.3"


@pytest.mark.parametrize("side", ["client", "server"])
def test_a_message_callback_sees_every_record(loop: Loop, side: str) -> None:
    contexts = {"client": client_context(), "server": server_context()}
    seen: list[str] = []

    def note(_session: Any, direction: str, *_rest: Any) -> None:
        seen.append(direction)

    contexts[side]._msg_callback = note  # type: ignore[attr-defined]
    loop.run_until_complete(echoed(loop, contexts["server"], contexts["client"]))
    # The headers of the records of 102,000 bytes, at least; the handshake alone has fewer.
    assert seen.count("read") > 20
    assert seen.count("write") > 15


def test_keys_are_logged(loop: Loop, tmp_path: Path) -> None:
    context = client_context()
    context.keylog_filename = str(tmp_path / "keys")
    loop.run_until_complete(echoed(loop, server_context(), context))
    assert "CLIENT_TRAFFIC_SECRET_0" in (tmp_path / "keys").read_text()


def test_a_protocol_is_negotiated(loop: Loop) -> None:
    theirs, ours = server_context(), client_context()
    theirs.set_alpn_protocols(["h2", "http/1.1"])
    ours.set_alpn_protocols(["http/1.1"])
    client = loop.run_until_complete(echoed(loop, theirs, ours))
    session = client.transport.get_extra_info("ssl_object")
    assert session.selected_alpn_protocol() == "http/1.1"


def test_a_class_of_ones_own_for_sessions_is_used(loop: Loop) -> None:
    sizes: list[int] = []

    class Counts(ssl.SSLObject):
        def write(self, data: Any) -> int:
            sizes.append(len(data))
            return super().write(data)

    context = client_context()
    context.sslobject_class = Counts
    client = loop.run_until_complete(echoed(loop, server_context(), context))
    if TOKIOLOOP_HAS_ITS_OWN and type(loop).__name__ == "TokioLoop":
        assert client.engine == "asyncio"
    assert isinstance(client.transport.get_extra_info("ssl_object"), Counts)
    assert sizes == [1, 1000, 100_000]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=str)
def test_new_keys_and_a_new_handshake_in_the_middle(loop: Loop, version: ssl.TLSVersion) -> None:
    """`openssl s_client` asks for new keys, or in TLS 1.2 for a handshake, which is refused."""

    async def main() -> None:
        made: asyncio.Future[Recorder] = loop.create_future()

        def accepted() -> Recorder:
            made.set_result(Recorder())
            return made.result()

        server = await loop.create_server(accepted, LOOPBACK, 0, ssl=server_context(version))
        host, port = server.sockets[0].getsockname()
        client = await asyncio.create_subprocess_exec(
            "openssl", "s_client", "-connect", f"{host}:{port}",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert client.stdin and client.stdout and client.stderr
        server_side = await made
        client.stdin.write(b"before\n")
        await server_side.until_received(7)
        old = server_side.transport.get_extra_info("ssl_object")
        if version is ssl.TLSVersion.TLSv1_3:
            client.stdin.write(b"K\n")
            # A command is one only at the start of what is read at a time.
            await client.stderr.readuntil(b"KEYUPDATE\n")
            client.stdin.write(b"after\n")
            assert await server_side.until_received(13) == b"before\nafter\n"
            server_side.transport.write(b"answer")
            await client.stdout.readuntil(b"answer")
            assert server_side.transport.get_extra_info("ssl_object") is old
            client.stdin.close()
        else:
            client.stdin.write(b"R\n")
            await client.stderr.readuntil(b"RENEGOTIATING\n")
        await client.communicate()
        await server_side.until_lost()
        assert server_side.received.startswith(b"before\n")
        server.close()

    loop.run_until_complete(main())


@pytest.mark.parametrize("side", ["server", "client"])
def test_a_check_in_the_place_of_do_handshake_is_made(loop: Loop, side: str) -> None:
    """`wrap_bio` may give out an object whose own `do_handshake` refuses the peer."""

    def refuse() -> None:
        raise ssl.SSLCertVerificationError("not this one")

    def refusing(context: ssl.SSLContext) -> ssl.SSLContext:
        original = context.wrap_bio

        def wrap_bio(*args: Any, **kwargs: Any) -> ssl.SSLObject:
            made = original(*args, **kwargs)
            made.do_handshake = refuse  # type: ignore[method-assign]
            return made

        context.wrap_bio = wrap_bio  # type: ignore[method-assign]
        return context

    served: list[Recorder] = []

    def accepted() -> Recorder:
        served.append(Recorder())
        return served[-1]

    async def main() -> None:
        theirs, ours = server_context(), client_context()
        refusing(theirs if side == "server" else ours)
        server = await loop.create_server(accepted, LOOPBACK, 0, ssl=theirs)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await loop.create_connection(Recorder, *server.sockets[0].getsockname(), ssl=ours)
        await asyncio.sleep(0.01)
        server.close()

    loop.set_debug(False)
    loop.run_until_complete(main())
    assert all("connection_made" not in protocol.calls for protocol in served)
