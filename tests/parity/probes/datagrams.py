"""Datagram endpoints: sending, receiving, errors that do not end them, and how they are made."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.support.net import LOOPBACK

from ..harness import Trace
from ..registry import probe
from ..wires import Told, scratch, turns, until

Loop = Any


@asynccontextmanager
async def bound(
    loop: Loop, trace: Trace, connected: bool = False, **quirks: Any
) -> AsyncIterator[Any]:
    """`(transport, protocol, peer)`: an endpoint on loopback and a plain socket."""
    with socket.socket(type=socket.SOCK_DGRAM) as peer:
        peer.bind((LOOPBACK, 0))
        peer.settimeout(3)
        remote = {"remote_addr": peer.getsockname()} if connected else {}
        transport, protocol = await loop.create_datagram_endpoint(
            lambda: Told(trace, **quirks), local_addr=(LOOPBACK, 0), **remote
        )
        try:
            yield transport, protocol, peer
        finally:
            transport.abort()
            await turns(3)


@probe("B.sendto", each=[False, True])
async def datagrams_go_both_ways(loop: Loop, trace: Trace, connected: bool) -> None:
    async with bound(loop, trace, connected) as (transport, protocol, peer):
        address = None if connected else peer.getsockname()
        for data in (b"bytes", bytearray(b"bytearray"), memoryview(b"view")):
            trace.attempt("sendto", transport.sendto, data, address)
            trace("peer", peer.recv(100))
        trace.attempt("by name", lambda: transport.sendto(data=b"named", addr=address))
        trace("peer", peer.recv(100))
        peer.sendto(b"hello", transport.get_extra_info("sockname"))
        await until(lambda: protocol.received)
        trace("size", transport.get_write_buffer_size())


@probe("B.sendto")
async def a_connected_endpoint_refuses_other_addresses(loop: Loop, trace: Trace) -> None:
    async with bound(loop, trace, True) as (transport, _, peer):
        trace.attempt("own peer", transport.sendto, b"x", peer.getsockname())
        trace("peer", peer.recv(10))
        trace.attempt("other", transport.sendto, b"x", (LOOPBACK, 9))
        trace.attempt("none", transport.sendto, b"y", None)
        trace("peer", peer.recv(10))


@probe("B.sendto")
async def a_send_without_an_address_needs_one(loop: Loop, trace: Trace) -> None:
    async with bound(loop, trace) as (transport, protocol, _peer):
        trace.attempt("sendto", transport.sendto, b"x")
        await turns(4)
        trace("lost", protocol.lost, transport.is_closing())


ODD_DATA: dict[str, Any] = {"text": "x", "number": 5, "none": None, "list": [1]}


@probe("B.sendto", each=ODD_DATA)
async def data_of_other_types_is_refused(loop: Loop, trace: Trace, what: str) -> None:
    async with bound(loop, trace, True) as (transport, protocol, _peer):
        trace.attempt("sendto", transport.sendto, ODD_DATA[what])
        await turns(3)
        trace("lost", protocol.lost)


ODD_ADDRESSES: dict[str, Any] = {
    "name": ("localhost", 9),
    "port as text": (LOOPBACK, "9"),
    "large port": (LOOPBACK, 70000),
    "negative port": (LOOPBACK, -1),
    "text": "127.0.0.1",
    "empty": (),
    "six": ("::1", 9),
    "number": 5,
    "port 0": (LOOPBACK, 0),
    "network is unreachable": ("240.0.0.1", 9),
    "broadcast": ("<broadcast>", 9),
    "broadcast in figures": ("255.255.255.255", 9),
    "not an address": ("999.1.1.1.1.", 9),
}


@probe("B.sendto", each=ODD_ADDRESSES)
async def odd_addresses(loop: Loop, trace: Trace, what: str) -> None:
    async with bound(loop, trace) as (transport, protocol, peer):
        trace.attempt("sendto", transport.sendto, b"x", ODD_ADDRESSES[what])
        await turns(4)
        trace("lost", protocol.lost, transport.is_closing())
        if not protocol.lost:
            transport.sendto(b"still alive", peer.getsockname())
            trace("peer", peer.recv(100))


@probe("B.sendto")
async def a_datagram_that_is_too_long_is_an_error_of_the_send(loop: Loop, trace: Trace) -> None:
    async with bound(loop, trace, True) as (transport, protocol, peer):
        transport.sendto(bytes(70_000))
        await turns(3)
        transport.sendto(b"after")
        trace("peer", peer.recv(100), protocol.lost)


@probe("B.sendto")
async def a_closed_port_shows_in_error_received(loop: Loop, trace: Trace) -> None:
    async with bound(loop, trace, True) as (transport, protocol, peer):
        address = peer.getsockname()
        peer.close()
        transport.sendto(b"into the void")
        await until(lambda: "error_received" in protocol.calls)
        with socket.socket(type=socket.SOCK_DGRAM) as again:
            again.bind(address)
            again.settimeout(3)
            transport.sendto(b"back")
            trace("peer", again.recv(100), protocol.lost)


@probe("B.sendto")
async def empty_datagrams(loop: Loop, trace: Trace) -> None:
    async with bound(loop, trace, True) as (transport, protocol, peer):
        transport.sendto(b"")
        transport.sendto(b"after")
        trace("peer", peer.recv(100))
        peer.sendto(b"", transport.get_extra_info("sockname"))
        await until(lambda: "datagram_received" in protocol.calls)


@probe("B.sendto", each=["sendto", "sendto number", "close", "abort"])
async def calls_after_close(loop: Loop, trace: Trace, what: str) -> None:
    async with bound(loop, trace) as (transport, protocol, peer):
        transport.close()
        trace("closing", transport.is_closing(), protocol.lost)
        for _ in range(7):
            if what == "sendto":
                trace.attempt(what, transport.sendto, b"x", peer.getsockname())
            elif what == "sendto number":
                trace.attempt(what, transport.sendto, 123, peer.getsockname())
            else:
                trace.attempt(what, getattr(transport, what))
        await until(lambda: protocol.lost)
        await turns(2)
        for _ in range(3):
            trace.attempt("later", transport.sendto, b"x", peer.getsockname())


@probe("B.UDP")
async def what_a_datagram_transport_has_of_a_stream(loop: Loop, trace: Trace) -> None:
    async with bound(loop, trace) as (transport, protocol, peer):
        for name in ("write", "writelines", "write_eof", "can_write_eof", "pause_reading",
                     "resume_reading", "is_reading", "get_write_buffer_size",
                     "get_write_buffer_limits", "set_write_buffer_limits", "get_protocol"):  # fmt: skip
            trace(name, hasattr(transport, name))
        trace.attempt("write", lambda: transport.write(b"x"))
        trace.attempt("can_write_eof", lambda: transport.can_write_eof())
        trace.attempt("limits", lambda: transport.get_write_buffer_limits())
        trace("protocol", transport.get_protocol() is protocol)
        trace(
            "is a",
            isinstance(transport, asyncio.Transport),
            isinstance(transport, asyncio.DatagramTransport),
        )
        second = Told(trace)
        transport.set_protocol(second)
        peer.sendto(b"x", transport.get_extra_info("sockname"))
        await until(lambda: second.received)


@probe("B.UDP", since=(3, 11))
async def reading_datagrams_pauses(loop: Loop, trace: Trace) -> None:
    async with bound(loop, trace) as (transport, protocol, peer):
        trace("reading", transport.is_reading())
        transport.pause_reading()
        trace("reading", transport.is_reading())
        peer.sendto(b"held", transport.get_extra_info("sockname"))
        await asyncio.sleep(0.02)
        trace("held back", protocol.received)
        transport.resume_reading()
        await until(lambda: protocol.received)


@probe("C.49")
async def datagrams_that_wait_come_one_by_one_in_order(loop: Loop, trace: Trace) -> None:
    """Each has a call of its own. How many calls a turn makes is no promise of anybody's:
    asyncio makes one, tokioloop as many as one receive has brought."""
    async with bound(loop, trace) as (transport, protocol, peer):
        address = transport.get_extra_info("sockname")
        for number in range(20):
            peer.sendto(bytes([ord("a") + number]), address)
        await until(lambda: len(protocol.received) == 20)
        trace("received", protocol.received)


@probe("C.50")
async def an_error_in_datagram_received_is_reported(loop: Loop, trace: Trace) -> None:
    quirk = {"datagram_received": ValueError("probe")}
    async with bound(loop, trace, **quirk) as (transport, protocol, peer):
        address = transport.get_extra_info("sockname")
        for count in (1, 2):
            peer.sendto(b"x", address)
            await until(lambda count=count: protocol.calls.count("datagram_received") == count)
        await turns(2)
        trace("lost", protocol.lost)


@probe("C.50", each=["error_received", "connection_lost"])
async def errors_in_other_datagram_callbacks(loop: Loop, trace: Trace, which: str) -> None:
    async with bound(loop, trace, True, **{which: ValueError("probe")}) as (
        transport,
        protocol,
        peer,
    ):
        peer.close()
        transport.sendto(b"x")
        await until(lambda: "error_received" in protocol.calls)
        await turns(2)
        transport.close()
        await until(lambda: protocol.lost)
        await turns(2)


async def _endpoint(loop: Loop, trace: Trace, label: str, **options: Any) -> None:
    """Makes an endpoint, says what it is, and closes it."""
    try:
        transport, protocol = await loop.create_datagram_endpoint(lambda: Told(trace), **options)
    except Exception as exc:
        trace(f"{label} raises", exc)
        return
    sock = transport.get_extra_info("socket")
    trace(label, sock.family, sock.type, sock.getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST))
    trace("reuse", sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT),
          sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR))  # fmt: skip
    trace(
        "names",
        transport.get_extra_info("sockname"),
        transport.get_extra_info("peername", "absent"),
    )
    transport.close()
    await until(lambda: protocol.lost)
    await turns(2)


ENDPOINTS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "family": {"family": socket.AF_INET},
    "local": {"local_addr": (LOOPBACK, 0)},
    "six": {"local_addr": ("::1", 0)},
    "name": {"local_addr": ("localhost", 0), "family": socket.AF_INET},
    "port as text": {"local_addr": (LOOPBACK, "0")},
    "remote": {"remote_addr": (LOOPBACK, 9)},
    "both": {"local_addr": (LOOPBACK, 0), "remote_addr": (LOOPBACK, 9)},
    "families differ": {"local_addr": (LOOPBACK, 0), "remote_addr": ("::1", 9)},
    "broadcast": {"local_addr": (LOOPBACK, 0), "allow_broadcast": True},
    "reuse port": {"local_addr": (LOOPBACK, 0), "reuse_port": True},
    "reuse address": {"local_addr": (LOOPBACK, 0), "reuse_address": True},
    "reuse address off": {"local_addr": (LOOPBACK, 0), "reuse_address": False},
    "text": {"local_addr": "127.0.0.1"},
    "one part": {"local_addr": (LOOPBACK,)},
    "large port": {"local_addr": (LOOPBACK, 70000)},
    "not ours": {"local_addr": ("192.0.2.1", 0)},
    "unix without a path": {"family": socket.AF_UNIX},
    "unix with a tuple": {"family": socket.AF_UNIX, "local_addr": (LOOPBACK, 0)},
    "bad family": {"family": 999},
    "abstract": {"family": socket.AF_UNIX, "local_addr": "\0parity-datagram"},
    "sock is no socket": {"sock": 5},
    "unknown": {"colour": 5},
}


@probe("A.create_datagram_endpoint", each=ENDPOINTS)
async def endpoints_of_every_kind(loop: Loop, trace: Trace, what: str) -> None:
    await _endpoint(loop, trace, "endpoint", **ENDPOINTS[what])


@probe("A.create_datagram_endpoint")
async def sockets_handed_in(loop: Loop, trace: Trace) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        await _endpoint(loop, trace, "blocking", sock=sock)
        trace("fileno", sock.fileno())
    with socket.socket() as sock:
        await _endpoint(loop, trace, "stream", sock=sock)
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        await _endpoint(
            loop, trace, "with options", sock=sock, local_addr=(LOOPBACK, 0), reuse_port=True
        )
        trace("still open", sock.fileno() >= 0)


@probe("A.create_datagram_endpoint")
async def unix_datagrams(loop: Loop, trace: Trace) -> None:
    async with scratch() as folder:
        path = str(folder / "d")
        transport, protocol = await loop.create_datagram_endpoint(
            lambda: Told(trace), local_addr=path, family=socket.AF_UNIX
        )
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as peer:
            other = str(folder / "p")
            peer.bind(other)
            peer.settimeout(2)
            peer.sendto(b"hello", path)
            await until(lambda: protocol.received)
            transport.sendto(b"answer", other)
            trace("peer", peer.recv(100))
            transport.sendto(b"nobody", str(folder / "nobody"))
            await turns(2)
        # A second endpoint on the same path: what happens to the file?
        transport.close()
        await until(lambda: protocol.lost)
        await turns(2)
        trace("file", os.path.exists(path))
        await _endpoint(loop, trace, "again", local_addr=path, family=socket.AF_UNIX)
        (folder / "file").write_text("x")
        await _endpoint(
            loop, trace, "regular file", local_addr=str(folder / "file"), family=socket.AF_UNIX
        )
        await _endpoint(
            loop, trace, "no folder", local_addr=str(folder / "a" / "b"), family=socket.AF_UNIX
        )


@probe("A.create_datagram_endpoint")
async def a_factory_that_raises(loop: Loop, trace: Trace) -> None:
    def factory() -> Any:
        raise ValueError("probe")

    await trace.attempt_await(
        "endpoint", loop.create_datagram_endpoint, factory, local_addr=(LOOPBACK, 0)
    )
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        await trace.attempt_await("with sock", loop.create_datagram_endpoint, factory, sock=sock)


@probe("B.sendto")
async def the_buffer_counts_what_waits(loop: Loop, trace: Trace) -> None:
    async with scratch() as folder:
        address = str(folder / "peer")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as peer:
            peer.bind(address)
            peer.setblocking(False)
            transport, protocol = await loop.create_datagram_endpoint(
                lambda: Told(trace), local_addr=str(folder / "own"), family=socket.AF_UNIX
            )
            transport.set_write_buffer_limits(3000, 1000)
            sent = 6
            for _ in range(5000):
                transport.sendto(bytes(1000), address)
                sent += 1
                if transport.get_write_buffer_size():
                    break
            one = transport.get_write_buffer_size()
            transport.sendto(bytes(500), address)
            trace("sizes", one, transport.get_write_buffer_size() - one)
            for _ in range(5):
                transport.sendto(bytes(1000), address)
            trace("paused", protocol.calls.count("pause_writing"))
            received: list[bytes] = []
            loop.add_reader(peer, lambda: received.append(peer.recv(2000)))
            try:
                await until(lambda: len(received) == sent)
                await turns(2)
                trace("resumed", protocol.calls.count("resume_writing"))
                trace("end", transport.get_write_buffer_size())
                transport.close()
                await until(lambda: protocol.lost)
            finally:
                loop.remove_reader(peer)
