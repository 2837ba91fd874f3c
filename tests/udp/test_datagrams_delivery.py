"""How datagrams reach the protocol: each once, whole, in order, and only while it wants them."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import errno
import socket
import sys
from typing import Any

import pytest

from tests.support.net import LOOPBACK, settled

from .endpoints import Endpoint, open_endpoint, plain_socket

pytestmark = pytest.mark.flavours(
    "asyncio", "tokioloop", reason="the peers differ from asyncio in what these tests are about"
)
Loop = asyncio.AbstractEventLoop
# A request of netlink's: 20 bytes, RTM_GETLINK as NLM_F_REQUEST | NLM_F_DUMP.
ASK_FOR_LINKS = b"".join(
    value.to_bytes(size, sys.byteorder) for value, size in ((20, 4), (18, 2), (0x301, 2), (0, 12))
)
MANY = 150  # more than any batch, less than the kernel's buffer holds


def _send_many(sender: socket.socket, to: Any, count: int = MANY) -> list[bytes]:
    sent = [b"%d" % number for number in range(count)]
    for data in sent:
        sender.sendto(data, to)
    return sent


def test_many_at_once_come_one_by_one_in_order(loop: Loop) -> None:
    async def main() -> None:
        async with open_endpoint() as endpoint:
            with plain_socket() as peer:
                sent = _send_many(peer, endpoint.address)
                assert await endpoint.until_received(MANY) == sent
                assert {addr for _, addr in endpoint.received} == {peer.getsockname()}

    loop.run_until_complete(main())


def test_each_datagram_has_the_address_of_its_sender(loop: Loop) -> None:
    async def main() -> None:
        peers = [socket.socket(type=socket.SOCK_DGRAM) for _ in range(80)]
        try:
            async with open_endpoint() as endpoint:
                for _ in range(3):
                    for peer in peers:
                        peer.sendto(b"%d" % peer.fileno(), endpoint.address)
                    expected = len(endpoint.received) + len(peers)
                    await endpoint.until_received(expected)
                names = {b"%d" % p.fileno(): (LOOPBACK, p.getsockname()[1]) for p in peers}
                assert all(names[data] == addr for data, addr in endpoint.received)
                for data, addr in endpoint.received[-len(peers) :]:
                    endpoint.transport.sendto(data + b"!", addr)
                for peer in peers:
                    peer.settimeout(5)
                    assert peer.recv(100) == b"%d!" % peer.fileno()
        finally:
            for peer in peers:
                peer.close()

    loop.run_until_complete(main())


class Answering(Endpoint):
    """Sends everything back."""

    def datagram_received(self, data: bytes, addr: Any) -> None:
        super().datagram_received(data, addr)
        self.transport.sendto(data + b"!", addr)


def test_answers_go_to_who_asked_however_many_ask(loop: Loop) -> None:
    async def main() -> None:
        async with open_endpoint(Answering) as endpoint:
            for _ in range(12):
                with contextlib.ExitStack() as stack:
                    peers = [stack.enter_context(plain_socket()) for _ in range(50)]
                    for _ in range(2):
                        for peer in peers:
                            peer.sendto(b"%d" % peer.fileno(), endpoint.address)
                        await endpoint.until_received(len(endpoint.received) + len(peers))
                        for peer in peers:
                            assert peer.recv(100) == b"%d!" % peer.fileno()

    loop.run_until_complete(main())


class Forgetful(Endpoint):
    """Keeps every third datagram or a view of it, and lets go of the others."""

    def __init__(self, sent: list[bytes]) -> None:
        super().__init__()
        self.sent = sent
        self.kept: dict[int, Any] = {}
        self.count = 0

    def datagram_received(self, data: bytes, addr: Any) -> None:
        expected = self.sent[self.count]
        assert data == expected
        assert hash(data) == hash(expected)
        if self.count % 3 == 0:
            self.kept[self.count] = memoryview(data) if self.count % 2 else data
        self.count += 1
        self._record("datagram_received")


@pytest.mark.parametrize("step", [-7, 0, 7])
def test_what_the_protocol_keeps_is_not_overwritten(
    loop: Loop, loop_errors: Any, step: int
) -> None:
    """Whether a datagram is shorter than the one before, as long, or longer."""

    async def main() -> None:
        sent = [bytes([number]) * (1100 + step * (number % 20)) for number in range(100)]
        async with open_endpoint(lambda: Forgetful(sent)) as endpoint:
            with plain_socket() as peer:
                for start in range(0, len(sent), 10):
                    for data in sent[start : start + 10]:
                        peer.sendto(data, endpoint.address)
                    await endpoint.until(lambda end=start + 10: endpoint.count == end)
        assert len(endpoint.kept) == 34
        for number, kept in endpoint.kept.items():
            assert bytes(kept) == sent[number]
            assert hash(kept) == hash(sent[number])

    loop.run_until_complete(main())
    assert not loop_errors


@pytest.mark.parametrize("length", [0, 1, 1472, 9000, 65507])
def test_datagrams_of_every_length_come_whole(loop: Loop, length: int) -> None:
    async def main() -> None:
        async with open_endpoint() as endpoint:
            with plain_socket() as peer:
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 18)
                data = bytes(number % 251 for number in range(length))
                peer.sendto(data, endpoint.address)
                peer.sendto(b"next", endpoint.address)
                assert await endpoint.until_received(2) == [data, b"next"]

    loop.run_until_complete(main())


class Once(Endpoint):
    """Does `action` when its first datagram comes."""

    def __init__(self, action: str) -> None:
        super().__init__()
        self.action = action
        self.successor = Endpoint()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        super().datagram_received(data, addr)
        if len(self.received) > 1:
            return
        if self.action == "swap":
            self.transport.set_protocol(self.successor)
        elif self.action == "raise":
            raise ValueError("the first one")
        else:
            getattr(self.transport, self.action)()


@pytest.mark.parametrize("action", ["close", "abort"])
def test_an_endpoint_that_closes_gets_no_further_datagram(loop: Loop, action: str) -> None:
    async def main() -> None:
        async with open_endpoint(lambda: Once(action)) as endpoint:
            with plain_socket() as peer:
                _send_many(peer, endpoint.address)
                assert await endpoint.until_lost() is None
                await settled()
                assert endpoint.data == [b"0"]
                assert endpoint.calls[-1] == "connection_lost"

    loop.run_until_complete(main())


class Closing(Endpoint):
    """Closes the socket under its transport, which has something to receive still."""

    def __init__(self, own: socket.socket) -> None:
        super().__init__()
        self.own = own

    def datagram_received(self, data: bytes, addr: Any) -> None:
        super().datagram_received(data, addr)
        self.own.close()


@pytest.mark.parametrize("family", ["AF_INET", "AF_NETLINK"])
def test_an_endpoint_whose_socket_was_closed_is_told_of_it_once(loop: Loop, family: str) -> None:
    if not hasattr(socket, family):
        pytest.skip("netlink is Linux")

    async def main() -> None:
        own = socket.socket(getattr(socket, family), socket.SOCK_DGRAM, 0)
        own.bind((0, 0) if family == "AF_NETLINK" else (LOOPBACK, 0))
        own.setblocking(False)
        if family == "AF_NETLINK":
            own.sendto(ASK_FOR_LINKS, (0, 0))
        else:
            with plain_socket() as peer:
                _send_many(peer, own.getsockname())
        async with open_endpoint(lambda: Closing(own), sock=own) as endpoint:
            await endpoint.until_received(1)
            await settled()
            # asyncio's poll has forgotten the socket; an error was queued here.
            numbers = [getattr(error, "errno", None) for error in endpoint.errors]
            assert numbers in ([], [errno.EBADF])

    if family == "AF_NETLINK" and sys.version_info < (3, 11):
        pytest.skip("create_datagram_endpoint takes AF_INET, AF_INET6 and AF_UNIX alone")
    loop.run_until_complete(main())


@pytest.mark.min_python(3, 11)
def test_a_pause_holds_datagrams_back_and_loses_none(loop: Loop) -> None:
    async def main() -> None:
        async with open_endpoint(lambda: Once("pause_reading")) as endpoint:
            with plain_socket() as peer:
                sent = _send_many(peer, endpoint.address)
                await endpoint.until_received(1)
                await settled()
                assert endpoint.data == [b"0"]
                assert not endpoint.transport.is_reading()
                peer.sendto(b"during the pause", endpoint.address)
                await settled()
                assert endpoint.data == [b"0"]
                endpoint.transport.resume_reading()
                assert endpoint.transport.is_reading()
                expected = [*sent, b"during the pause"]
                assert await endpoint.until_received(len(expected)) == expected

    loop.run_until_complete(main())


@pytest.mark.min_python(3, 11)
def test_what_is_scheduled_behind_resume_reading_runs_before_the_datagram_comes(
    loop: Loop,
) -> None:
    seen = []

    async def main() -> None:
        async with open_endpoint(Endpoint) as endpoint:
            with plain_socket() as peer:
                endpoint.transport.pause_reading()
                peer.sendto(b"data", endpoint.address)
                await settled()
                endpoint.transport.resume_reading()
                loop.call_soon(lambda: seen.append(list(endpoint.data)))
                assert await endpoint.until_received(1) == [b"data"]
                assert seen == [[]]

    loop.run_until_complete(main())


@pytest.mark.min_python(3, 11)
def test_pausing_over_and_over_keeps_the_order(loop: Loop) -> None:
    class Stutter(Endpoint):
        def datagram_received(self, data: bytes, addr: Any) -> None:
            super().datagram_received(data, addr)
            self.transport.pause_reading()
            loop.call_soon(self.transport.resume_reading)

    async def main() -> None:
        async with open_endpoint(Stutter) as endpoint:
            with plain_socket() as peer:
                sent = _send_many(peer, endpoint.address)
                assert await endpoint.until_received(MANY) == sent

    loop.run_until_complete(main())


@pytest.mark.min_python(3, 11)
def test_closing_during_a_pause_drops_what_was_held_back(loop: Loop) -> None:
    async def main() -> None:
        async with open_endpoint(lambda: Once("pause_reading")) as endpoint:
            with plain_socket() as peer:
                _send_many(peer, endpoint.address)
                await endpoint.until_received(1)
                endpoint.transport.close()
                endpoint.transport.resume_reading()
                assert await endpoint.until_lost() is None
                await settled()
                assert endpoint.data == [b"0"]

    loop.run_until_complete(main())


def test_the_next_datagram_goes_to_the_protocol_that_was_set(loop: Loop) -> None:
    async def main() -> None:
        async with open_endpoint(lambda: Once("swap")) as endpoint:
            with plain_socket() as peer:
                sent = _send_many(peer, endpoint.address)
                successor = endpoint.successor
                assert await successor.until_received(MANY - 1) == sent[1:]
                assert endpoint.data == sent[:1]
                assert endpoint.transport.get_protocol() is successor
                endpoint.transport.set_protocol(endpoint)

    loop.run_until_complete(main())


def test_an_exception_is_reported_and_the_next_datagram_comes(loop: Loop, loop_errors: Any) -> None:
    async def main() -> None:
        async with open_endpoint(lambda: Once("raise")) as endpoint:
            with plain_socket() as peer:
                sent = _send_many(peer, endpoint.address)
                assert await endpoint.until_received(MANY) == sent
                assert not endpoint.lost

    loop.run_until_complete(main())
    context = loop_errors.take()
    assert str(context["exception"]) == "the first one"
    assert context["message"].startswith("Exception in callback ")
    assert "_read_ready()" in context["message"]
    assert isinstance(context["handle"], asyncio.Handle)


def test_what_leaves_the_loop_loses_no_datagram(loop: Loop) -> None:
    class Leaves(Endpoint):
        def datagram_received(self, data: bytes, addr: Any) -> None:
            super().datagram_received(data, addr)
            if len(self.received) == 1:
                raise SystemExit(3)

    with plain_socket() as peer:
        opening = loop.create_datagram_endpoint(Leaves, local_addr=(LOOPBACK, 0))
        transport, protocol = loop.run_until_complete(opening)
        sent = _send_many(peer, transport.get_extra_info("sockname"))
        with pytest.raises(SystemExit):
            loop.run_forever()
        assert protocol.data == sent[:1]
        assert loop.run_until_complete(protocol.until_received(MANY)) == sent
        transport.close()
        loop.run_until_complete(protocol.until_lost())


def test_callbacks_share_a_context_made_with_the_endpoint(loop: Loop) -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)

    class Counting(Endpoint):
        def datagram_received(self, data: bytes, addr: Any) -> None:
            variable.set(variable.get() + 1)
            self.seen = variable.get()
            super().datagram_received(data, addr)

    async def main() -> None:
        variable.set(10)
        async with open_endpoint(Counting) as endpoint:
            variable.set(100)
            with plain_socket() as peer:
                _send_many(peer, endpoint.address, 3)
                await endpoint.until_received(3)
                assert endpoint.seen == 13
        assert variable.get() == 100

    loop.run_until_complete(main())


def test_connection_made_comes_before_a_datagram_that_waits(loop: Loop) -> None:
    async def main() -> None:
        with plain_socket() as own, plain_socket() as peer:
            peer.sendto(b"early", own.getsockname())
            async with open_endpoint(sock=own) as endpoint:
                await endpoint.until_received(1)
                assert endpoint.calls == ["connection_made", "datagram_received"]

    loop.run_until_complete(main())


def test_a_busy_endpoint_leaves_turns_to_others(loop: Loop) -> None:
    """A flood that never ends must not keep other callbacks waiting."""

    class Flood(Endpoint):
        def datagram_received(self, data: bytes, addr: Any) -> None:
            super().datagram_received(data, addr)
            for _ in range(2 if len(self.received) < 200 else 1):
                self.transport.sendto(data, self.address)

    async def main() -> None:
        async with open_endpoint(Flood) as endpoint:
            endpoint.transport.sendto(b"x", endpoint.address)
            await endpoint.until(lambda: endpoint.received)
            before = len(endpoint.received)
            for _ in range(500):
                await asyncio.sleep(0)
            assert len(endpoint.received) > before
            assert not endpoint.lost

    loop.run_until_complete(main())
