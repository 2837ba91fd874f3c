"""`sock_accept` and `sock_connect`."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from contextlib import suppress
from pathlib import Path
from unittest import mock

import pytest

from tests.sockets.support import Loop, cancelled, exchanges
from tests.support.net import LOOPBACK, listening_socket, settled

pytestmark = pytest.mark.flavours(
    "asyncio", "tokioloop", reason="the others lack checks, names or address families"
)


def test_a_thousand_connections(loop: Loop) -> None:
    async def main() -> None:
        with listening_socket(1024) as listener:
            listener.setblocking(False)
            address = listener.getsockname()
            for _ in range(20):
                callers = []
                for _ in range(50):
                    caller = socket.socket()
                    caller.setblocking(False)
                    callers.append(caller)
                connecting = asyncio.gather(
                    *(loop.sock_connect(caller, address) for caller in callers)
                )
                accepted = {}
                for _ in callers:
                    connection, peer = await loop.sock_accept(listener)
                    assert type(connection) is socket.socket
                    assert connection.gettimeout() == 0
                    assert not connection.get_inheritable()
                    assert (connection.family, connection.type, connection.proto) == (
                        listener.family,
                        listener.type,
                        listener.proto,
                    )
                    accepted[peer] = connection
                await connecting
                assert set(accepted) == {caller.getsockname() for caller in callers}
                await exchanges(loop, callers[0], accepted[callers[0].getsockname()])
                for sock in (*callers, *accepted.values()):
                    sock.close()

    loop.run_until_complete(main())


@pytest.mark.parametrize("family", ["ipv4", "ipv6", "path", "abstract"])
def test_addresses_of_every_family(loop: Loop, family: str) -> None:
    async def main(folder: Path) -> None:
        if family in ("path", "abstract"):
            name = str(folder / "listener") if family == "path" else f"\0{folder}"
            kind, address = socket.AF_UNIX, name
        elif family == "ipv6":
            kind, address = socket.AF_INET6, ("::1", 0)  # type: ignore[assignment]
        else:
            kind, address = socket.AF_INET, (LOOPBACK, 0)  # type: ignore[assignment]
        with socket.socket(kind) as listener:
            try:
                listener.bind(address)
            except OSError as error:
                pytest.skip(f"no such address here: {error}")
            listener.listen()
            listener.setblocking(False)
            for waits in (False, True):
                with socket.socket(kind) as ours:
                    ours.setblocking(False)
                    if family in ("path", "abstract") and waits:
                        ours.bind(f"{name} caller")
                    accepting = asyncio.ensure_future(loop.sock_accept(listener))
                    if waits:
                        await settled()
                    await loop.sock_connect(ours, listener.getsockname())
                    theirs, peer = await accepting
                    with theirs:
                        assert peer == ours.getsockname() == theirs.getpeername()
                        assert type(peer) is type(ours.getsockname())
                        await exchanges(loop, ours, theirs)

    with tempfile.TemporaryDirectory() as folder:
        loop.run_until_complete(main(Path(folder)))


def test_a_default_timeout_does_not_reach_an_accepted_socket(loop: Loop) -> None:
    async def main() -> None:
        with listening_socket() as listener:
            listener.setblocking(False)
            with socket.create_connection(listener.getsockname()):
                with mock.patch.object(socket, "_defaulttimeout", None, create=True):
                    previous = socket.getdefaulttimeout()
                    socket.setdefaulttimeout(3)
                    try:
                        connection, _ = await loop.sock_accept(listener)
                    finally:
                        socket.setdefaulttimeout(previous)
                with connection:
                    assert connection.gettimeout() == 0
                    assert not connection.getblocking()

    loop.run_until_complete(main())


def test_a_class_in_the_place_of_sockets_is_used(loop: Loop) -> None:
    class Socket(socket.socket):
        pass

    async def main() -> None:
        with listening_socket() as listener:
            listener.setblocking(False)
            with socket.create_connection(listener.getsockname()):
                await settled()
                with mock.patch.object(socket, "socket", Socket):
                    connection, _ = await loop.sock_accept(listener)
                with connection:
                    assert type(connection) is Socket

    loop.run_until_complete(main())


def test_accepting_on_what_does_not_listen_fails(loop: Loop) -> None:
    async def main() -> None:
        with socket.socket() as sock:
            sock.bind((LOOPBACK, 0))
            sock.setblocking(False)
            with pytest.raises(OSError, match="Invalid argument"):
                await loop.sock_accept(sock)

    loop.run_until_complete(main())


def test_connections_are_refused_with_the_address(loop: Loop) -> None:
    async def main() -> None:
        with listening_socket() as listener:
            address = listener.getsockname()
        for _ in range(3):
            with socket.socket() as sock:
                sock.setblocking(False)
                with pytest.raises(ConnectionRefusedError) as caught:
                    await loop.sock_connect(sock, address)
                assert str(address) in str(caught.value) or caught.value.strerror

    loop.run_until_complete(main())


def test_a_socket_tries_again_after_a_refusal(loop: Loop) -> None:
    async def main() -> None:
        with listening_socket() as listener:
            refused = listener.getsockname()
        with listening_socket() as listener, socket.socket() as ours:
            ours.setblocking(False)
            with pytest.raises(ConnectionRefusedError):
                await loop.sock_connect(ours, refused)
            with suppress(ConnectionAbortedError):  # Linux says once more that it has failed
                await loop.sock_connect(ours, listener.getsockname())
            with suppress(OSError):  # connected already where nothing was said
                await loop.sock_connect(ours, listener.getsockname())
            listener.setblocking(False)
            theirs, _ = await loop.sock_accept(listener)
            with theirs:
                await exchanges(loop, ours, theirs)

    loop.run_until_complete(main())


def test_a_connection_that_was_cancelled_goes_on_in_the_kernel(loop: Loop) -> None:
    async def main() -> None:
        with listening_socket() as listener:
            listener.setblocking(False)
            for turns in range(4):
                with socket.socket() as ours:
                    ours.setblocking(False)
                    connecting = asyncio.ensure_future(
                        loop.sock_connect(ours, listener.getsockname())
                    )
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    await cancelled(connecting)
                    if turns:
                        theirs, _ = await loop.sock_accept(listener)
                        with theirs:
                            await exchanges(loop, ours, theirs)

    loop.run_until_complete(main())


def test_addresses_that_are_none(loop: Loop) -> None:
    async def outcome(address: object) -> tuple[type, str]:
        with socket.socket() as sock:
            sock.setblocking(False)
            try:
                await loop.sock_connect(sock, address)  # type: ignore[arg-type]
            except Exception as error:
                return type(error), str(error)
        return type(None), ""

    async def main() -> None:
        for address in ((LOOPBACK,), (), "", 5, None, (LOOPBACK, "no-such-service-name"), (5, 5)):
            kind, _text = await outcome(address)
            assert issubclass(kind, Exception), address
        await loop.shutdown_default_executor()

    loop.run_until_complete(main())


@pytest.mark.flavours("asyncio", "tokioloop", reason="the others count on one call at a time")
def test_nobody_waits_once_everybody_was_accepted(loop: Loop) -> None:
    async def main() -> None:
        with listening_socket() as listener:
            listener.setblocking(False)
            for _ in range(3):
                accepting = asyncio.ensure_future(loop.sock_accept(listener))
                await settled()
                assert not accepting.done()
                with socket.create_connection(listener.getsockname()) as theirs:
                    connection, address = await accepting
                    connection.close()
                    assert address == theirs.getsockname()

    loop.run_until_complete(main())
