"""A server's streams are made natively, and nobody can tell: neither from what the program
holds, nor from what goes away with asyncio's own frames."""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
import warnings
import weakref
from asyncio.streams import StreamReaderProtocol
from typing import Any

import pytest

from tests.streams.support import accepted, opened
from tests.support.net import LOOPBACK, eventually

Loop = asyncio.AbstractEventLoop
READER = {"_buffer", "_eof", "_exception", "_limit", "_loop", "_paused", "_transport", "_waiter"}
WRITER = {"_complete_fut", "_loop", "_protocol", "_reader", "_transport"}


def test_they_look_as_asyncios_do(loop: Loop) -> None:
    async def main() -> None:
        async with accepted(limit=1000) as (reader, writer, _peer):
            assert isinstance(reader, asyncio.StreamReader)
            assert isinstance(writer, asyncio.StreamWriter)
            names = {type(reader).__qualname__, type(writer).__qualname__}
            assert names == {"StreamReader", "StreamWriter"}
            assert type(reader).__module__ == type(writer).__module__ == "asyncio.streams"
            assert reader._limit == 1000
            assert reader._loop is writer._loop is loop
            assert reader._transport is writer._transport is writer.transport
            assert writer._reader is reader
            assert writer._protocol._stream_reader is reader
            assert writer._protocol._strong_reader is None
            assert reader._waiter is reader._exception is None
            assert writer._complete_fut.done()
            assert all(hasattr(reader, name) for name in READER)
            assert all(hasattr(writer, name) for name in WRITER)
            assert not hasattr(reader, "no_such")
            with pytest.raises(AttributeError, match="no_such"):
                del reader.no_such
            assert repr(reader).startswith("<StreamReader limit=1000 transport=<")

    loop.run_until_complete(main())


async def serve_once(factory: Any, served: asyncio.Future[Any], look: Any) -> None:
    """Serves one client, looks at the streams that `served` brings, and reads from them."""
    server = await asyncio.get_running_loop().create_server(factory, LOOPBACK, 0)
    with socket.create_connection(server.sockets[0].getsockname()) as peer:
        reader, writer = await served
        look(reader, writer)
        peer.sendall(b"data")
        assert await reader.read(100) == b"data"
        writer.close()
    server.close()


@pytest.mark.parametrize("keep", ["strongly", "weakly", "in a WeakSet"])
def test_a_reader_that_its_factory_keeps_is_the_one_that_is_served(loop: Loop, keep: str) -> None:
    kept: dict[str, Any] = {}

    def factory() -> StreamReaderProtocol:
        reader = asyncio.StreamReader(loop=loop)
        kept.update(
            {
                "strongly": lambda: {"object": reader},
                "weakly": lambda: {"reference": weakref.ref(reader)},
                "in a WeakSet": lambda: {"set": weakref.WeakSet([reader])},
            }[keep]()
        )
        return StreamReaderProtocol(reader, lambda *pair: served.set_result(pair), loop=loop)

    def look(reader: Any, _writer: Any) -> None:
        held = {
            "strongly": lambda: kept["object"],
            "weakly": lambda: kept["reference"](),
            "in a WeakSet": lambda: next(iter(kept["set"])),
        }[keep]()
        assert held is reader

    served = loop.create_future()
    loop.run_until_complete(serve_once(factory, served, look))


def test_attributes_of_ones_own_stay(loop: Loop) -> None:
    """Also those that have the name of one of the writer's."""

    def factory() -> StreamReaderProtocol:
        reader: Any = asyncio.StreamReader(loop=loop)
        protocol = StreamReaderProtocol(reader, lambda *pair: served.set_result(pair), loop=loop)
        reader._protocol = reader.note = protocol
        return protocol

    def look(reader: Any, writer: Any) -> None:
        assert reader._protocol is reader.note is writer._protocol

    served = loop.create_future()
    loop.run_until_complete(serve_once(factory, served, look))


@pytest.mark.skipif(sys.version_info < (3, 13), reason="the protocol had its writer before 3.13")
def test_a_stream_that_was_abandoned_is_closed_with_one_warning(loop: Loop) -> None:
    async def main() -> None:
        server = await asyncio.start_server(lambda *_pair: None, LOOPBACK, 0)
        with socket.create_connection(server.sockets[0].getsockname()) as peer:
            peer.setblocking(False)
            assert await loop.sock_recv(peer, 100) == b""
            gc.collect()
        server.close()

    # Around the run, so that the contexts of its callbacks know of it.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        loop.run_until_complete(main())
    unclosed = [str(warning.message) for warning in caught if "unclosed" in str(warning.message)]
    assert [text[:22] for text in unclosed] == ["unclosed <StreamWriter"]


def test_the_transport_stays_open_when_connection_made_has_returned(loop: Loop) -> None:
    async def main() -> None:
        async with accepted() as (_reader, writer, peer):
            gc.collect()
            await asyncio.sleep(0)
            assert not writer.is_closing()
            writer.write(b"answer")
            await writer.drain()
            assert await loop.run_in_executor(None, peer.recv, 100) == b"answer"

    loop.run_until_complete(main())


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="the protocol had its writer before 3.13")
def test_the_protocol_has_its_writer(loop: Loop) -> None:
    async def main() -> None:
        async with accepted() as (_reader, writer, _peer):
            assert getattr(writer._protocol, "_stream_writer", writer) is writer

    loop.run_until_complete(main())


def test_debug_mode_notes_where_a_reader_was_made(loop: Loop) -> None:
    async def main() -> None:
        async with accepted() as (reader, writer, peer):
            assert reader._source_traceback
            assert writer._protocol._source_traceback == reader._source_traceback
            peer.sendall(b"data")
            assert await reader.read(100) == b"data"

    loop.set_debug(True)
    loop.run_until_complete(main())


def test_a_patched_init_makes_what_is_served(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[type, list[Any]] = {asyncio.StreamReader: [], asyncio.StreamWriter: []}

    def noting(kind: type) -> Any:
        init = kind.__init__  # type: ignore[misc]

        def __init__(self: Any, *args: Any, **keywords: Any) -> None:
            init(self, *args, **keywords)
            made[kind].append(self)

        return __init__

    for kind in made:
        monkeypatch.setattr(kind, "__init__", noting(kind))

    async def main() -> None:
        async with accepted() as (reader, writer, _peer):
            assert any(reader is seen for seen in made[asyncio.StreamReader])
            assert any(writer is seen for seen in made[asyncio.StreamWriter])

    loop.run_until_complete(main())


@pytest.mark.parametrize("way", ["setattr", "vars", "__dict__"])
def test_a_method_hidden_in_the_middle_is_noticed(loop: Loop, way: str) -> None:
    async def main() -> None:
        for side in (opened, accepted):
            seen: list[bytes] = []
            async with side() as (reader, _writer, peer):
                peer.sendall(b"first")
                assert await reader.read(100) == b"first"
                if way == "setattr":
                    reader.feed_data = seen.append
                elif way == "vars":
                    vars(reader)["feed_data"] = seen.append
                else:
                    reader.__dict__ = {**reader.__dict__, "feed_data": seen.append}
                peer.sendall(b"second")
                await eventually(lambda seen=seen: seen == [b"second"])
                del reader.feed_data
                peer.sendall(b"third")
                assert await reader.read(100) == b"third"

    loop.run_until_complete(main())


def test_a_class_derived_from_theirs_works(loop: Loop) -> None:
    async def main() -> None:
        async with accepted() as (reader, writer, peer):

            class Reader(type(reader)):  # type: ignore[misc]
                note = "mine"

            own = Reader(limit=10, loop=loop)
            own.feed_data(b"line\nrest")
            assert (await own.readline(), await own.read(100)) == (b"line\n", b"rest")
            own.feed_eof()
            assert await own.read() == b""
            assert own.note == "mine" and own.at_eof()
            again = type(reader)(limit=10, loop=loop)
            again.feed_data(b"data")
            assert await again.read(100) == b"data"

            class Writer(type(writer)):  # type: ignore[misc]
                pass

            other = Writer(writer.transport, writer._protocol, reader, loop)
            other.write(b"data")
            await other.drain()
            peer.settimeout(5)
            assert await loop.run_in_executor(None, peer.recv, 100) == b"data"

    loop.run_until_complete(main())


def test_an_instance_without_init_is_an_error_not_a_crash(loop: Loop) -> None:
    async def main() -> None:
        async with accepted() as (reader, _writer, _peer):
            bare = object.__new__(type(reader))
            for access in (
                lambda: bare._buffer,
                lambda: bare.feed_data(b"x"),
                lambda: delattr(bare, "_eof"),
            ):
                with pytest.raises(AttributeError):
                    access()
            with pytest.raises(AttributeError):
                await bare.read(5)
            bare.note = 5
            assert bare.note == 5

    loop.run_until_complete(main())


def test_they_go_away_when_nobody_has_them(loop: Loop) -> None:
    async def main() -> list[weakref.ref[Any]]:
        async with accepted() as (reader, writer, peer):
            peer.sendall(b"data")
            await reader.read(100)
            return [weakref.ref(reader), weakref.ref(writer), weakref.ref(writer._protocol)]

    references = loop.run_until_complete(main())
    gc.collect()
    assert [reference() for reference in references] == [None, None, None]
