"""Addresses of every family and form, on the way in, on the way out and as extra information."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.net import LOOPBACK

from .endpoints import Endpoint, open_endpoint, plain_socket

pytestmark = pytest.mark.flavours(
    "asyncio", "tokioloop", reason="the peers differ from asyncio in what these tests are about"
)
Loop = asyncio.AbstractEventLoop


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not _has_ipv6(), reason="the machine has no IPv6")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", ""], ids=repr)
def test_every_form_of_an_ipv4_address_is_a_target(loop: Loop, host: str) -> None:
    async def main() -> None:
        with plain_socket() as peer:
            async with open_endpoint() as endpoint:
                endpoint.transport.sendto(b"x", (host, peer.getsockname()[1]))
                assert peer.recvfrom(10) == (b"x", endpoint.address)
                assert endpoint.errors == []

    loop.run_until_complete(main())


@pytest.mark.parametrize("address", ["<broadcast>", "255.255.255.255"])
def test_broadcasts_are_allowed_where_asked_for(loop: Loop, address: str) -> None:
    async def main() -> None:
        async with open_endpoint(local_addr=(LOOPBACK, 0), allow_broadcast=True) as endpoint:
            endpoint.transport.sendto(b"x", (address, 9))
            # A machine without a network has nowhere to send it; permission it has.
            assert not any(isinstance(exc, PermissionError) for exc in endpoint.errors)
            assert not endpoint.lost

    loop.run_until_complete(main())


@needs_ipv6
@pytest.mark.parametrize("form", [2, 3, 4])
def test_ipv6_tuples_of_every_length(loop: Loop, form: int) -> None:
    async def main() -> None:
        with plain_socket(socket.AF_INET6, ("::1", 0)) as peer:
            async with open_endpoint(local_addr=("::1", 0)) as endpoint:
                endpoint.transport.sendto(b"x", peer.getsockname()[:form])
                data, sender = peer.recvfrom(10)
                assert (data, sender) == (b"x", endpoint.address)
                peer.sendto(b"y", sender)
                await endpoint.until_received(1)
                assert endpoint.received == [(b"y", peer.getsockname())]
                endpoint.transport.sendto(b"z", endpoint.received[0][1])
                assert peer.recv(10) == b"z"

    loop.run_until_complete(main())


@needs_ipv6
def test_a_connected_ipv6_endpoint_knows_its_peer(loop: Loop) -> None:
    async def main() -> None:
        with plain_socket(socket.AF_INET6, ("::1", 0)) as peer:
            async with open_endpoint(remote_addr=peer.getsockname()[:2]) as endpoint:
                assert endpoint.transport.get_extra_info("peername") == peer.getsockname()
                endpoint.transport.sendto(b"x")
                assert peer.recv(10) == b"x"

    loop.run_until_complete(main())


@needs_ipv6
def test_an_ipv4_peer_of_an_ipv6_endpoint_has_a_mapped_address(loop: Loop) -> None:
    async def main() -> None:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as own, plain_socket() as peer:
            own.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            own.bind(("::", 0))
            async with open_endpoint(sock=own) as endpoint:
                peer.sendto(b"x", (LOOPBACK, endpoint.address[1]))
                await endpoint.until_received(1)
                (_, sender) = endpoint.received[0]
                assert sender == (f"::ffff:{LOOPBACK}", peer.getsockname()[1], 0, 0)
                endpoint.transport.sendto(b"y", sender)
                assert peer.recv(10) == b"y"

    loop.run_until_complete(main())


def test_a_link_local_address_keeps_its_scope(loop: Loop) -> None:
    local = _link_local()
    if local is None:
        pytest.skip("the machine has no link-local address")

    async def main() -> None:
        with plain_socket(socket.AF_INET6, local) as own, plain_socket(socket.AF_INET6, local) as p:
            expected = own.getsockname()
            async with open_endpoint(sock=own) as endpoint:
                assert endpoint.address == expected
                p.sendto(b"x", expected)
                await endpoint.until_received(1)
                assert endpoint.received == [(b"x", p.getsockname())]
                endpoint.transport.sendto(b"y", p.getsockname())
                assert p.recvfrom(10) == (b"y", expected)

    loop.run_until_complete(main())


def _link_local() -> tuple[str, int, int, int] | None:
    """An address that means something on one interface only, as `bind` takes it."""
    try:
        lines = Path("/proc/net/if_inet6").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        digits, index, *_ = line.split()
        if digits.startswith("fe80"):
            host = socket.inet_ntop(socket.AF_INET6, bytes.fromhex(digits))
            return host, 0, 0, int(index, 16)
    return None


def _unix_names(tmp_path: Path) -> dict[str, Any]:
    names: dict[str, Any] = {"path": str(tmp_path / "peer")}
    if sys.platform == "linux":
        names["abstract"] = b"\0tokioloop-%d-%d" % (os.getpid(), id(tmp_path))
    return names


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_unix_names_work_in_both_directions(loop: Loop, tmp_path: Path, kind: str) -> None:
    name = _unix_names(tmp_path).get(kind)
    if name is None:
        pytest.skip("only Linux has abstract names")

    async def main() -> None:
        own = str(tmp_path / "own")
        with plain_socket(socket.AF_UNIX, name) as peer:
            async with open_endpoint(family=socket.AF_UNIX, local_addr=own) as endpoint:
                assert endpoint.address == own
                endpoint.transport.sendto(b"out", name)
                assert peer.recvfrom(10) == (b"out", own)
                long = bytes(100_000)
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 18)
                peer.sendto(long, own)
                await endpoint.until_received(1)
                assert endpoint.received == [(long, name)]
                endpoint.transport.sendto(b"back", endpoint.received[0][1])
                assert peer.recv(10) == b"back"

    loop.run_until_complete(main())


def test_a_unix_sender_without_a_name_has_no_address(loop: Loop, tmp_path: Path) -> None:
    async def main() -> None:
        own = str(tmp_path / "own")
        async with open_endpoint(family=socket.AF_UNIX, local_addr=own) as endpoint:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as peer:
                peer.sendto(b"x", own)
                await endpoint.until_received(1)
            assert endpoint.received == [(b"x", None)]

    loop.run_until_complete(main())


def test_a_unix_path_that_nobody_reads_is_told(loop: Loop, tmp_path: Path) -> None:
    async def main() -> None:
        own = str(tmp_path / "own")
        async with open_endpoint(family=socket.AF_UNIX, local_addr=own) as endpoint:
            endpoint.transport.sendto(b"x", str(tmp_path / "nobody"))
            (exc,) = endpoint.errors
            assert type(exc) is FileNotFoundError
            assert not endpoint.lost

    loop.run_until_complete(main())


@pytest.mark.flavours("tokioloop", reason="asyncio ends an endpoint whose Unix peer has no name")
def test_both_ends_of_a_unix_pair_talk(loop: Loop) -> None:
    async def main() -> None:
        one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        async with open_endpoint(sock=one) as first, open_endpoint(sock=two) as second:
            first.transport.sendto(b"hello")
            assert await second.until_received(1) == [b"hello"]
            second.transport.sendto(b"and back")
            assert await first.until_received(1) == [b"and back"]

    loop.run_until_complete(main())


@pytest.mark.skipif(not hasattr(socket, "AF_NETLINK"), reason="netlink is Linux")
def test_a_family_that_only_python_knows_works_as_well(loop: Loop) -> None:
    """Asks the kernel for the interfaces; its answer comes from port 0."""

    async def main() -> None:
        own = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 0)
        own.bind((0, 0))
        async with open_endpoint(sock=own) as endpoint:
            get_links = (20).to_bytes(4, sys.byteorder) + (18).to_bytes(2, sys.byteorder)
            request = get_links + (0x301).to_bytes(2, sys.byteorder) + bytes(12)
            endpoint.transport.sendto(request, (0, 0))
            await endpoint.until_received(1)
            data, sender = endpoint.received[0]
            assert len(data) >= 20
            assert sender == (0, 0)
            assert endpoint.address == own.getsockname()

    if sys.version_info < (3, 11):
        pytest.skip("create_datagram_endpoint takes AF_INET, AF_INET6 and AF_UNIX alone")
    loop.run_until_complete(main())


def test_extra_information(loop: Loop) -> None:
    async def main() -> None:
        with plain_socket() as peer:
            async with open_endpoint(
                local_addr=(LOOPBACK, 0), remote_addr=peer.getsockname()
            ) as endpoint:
                info = endpoint.transport.get_extra_info
                sock = info("socket")
                assert info("sockname") == sock.getsockname()
                assert info("peername") == peer.getsockname()
                assert sock is info("socket")
                assert sock.type == socket.SOCK_DGRAM
                assert info("compression", "absent") == "absent"
            assert endpoint.transport.get_extra_info("socket").fileno() == -1

    loop.run_until_complete(main())


def test_classes_and_private_names_that_programs_read(loop: Loop) -> None:
    async def main() -> None:
        with plain_socket() as own:
            async with open_endpoint(sock=own) as endpoint:
                transport = endpoint.transport
                assert isinstance(transport, asyncio.Transport)
                if sys.version_info >= (3, 12):
                    assert isinstance(transport, asyncio.DatagramTransport)
                assert transport._sock is own
                assert transport._sock_fd == own.fileno()
                assert transport._protocol is endpoint
                assert transport._loop is loop
                assert transport._address is None
                assert repr(transport).startswith("<_SelectorDatagramTransport fd=")
                with pytest.raises(RuntimeError, match="is used by transport"):
                    loop.add_reader(own, print)
            assert own.fileno() == -1

    loop.run_until_complete(main())


def test_an_endpoint_that_nobody_closed_is_told_of(loop: Loop) -> None:
    async def main() -> None:
        transport, _ = await loop.create_datagram_endpoint(Endpoint, local_addr=(LOOPBACK, 0))
        with pytest.warns(ResourceWarning, match="unclosed transport"):
            transport.__del__()
        transport.abort()

    loop.run_until_complete(main())
