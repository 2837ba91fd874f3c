"""Writing what runs code of its own: subclasses with `__buffer__`, finalizers, iterators."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.net import connected, fill_send_queue, receive_exactly, receive_to_eof, settled

pytestmark = pytest.mark.flavours(
    "asyncio", "tokioloop", reason="the peers have the defects these tests are about"
)
Loop = asyncio.AbstractEventLoop


class Disguised(bytes):
    """Its buffer is not its content."""

    def __buffer__(self, flags: int) -> memoryview:
        return memoryview(b"from __buffer__")


@pytest.mark.min_python(3, 12)
@pytest.mark.flavours(
    "tokioloop", reason="asyncio counts the bytes of one and sends those of the other"
)
@pytest.mark.parametrize("queued", [False, True])
@pytest.mark.parametrize("how", ["write", "writelines"])
def test_a_subclass_of_bytes_is_sent_as_its_buffer_says(loop: Loop, how: str, queued: bool) -> None:
    async def main() -> None:
        async with connected("client") as (transport, _, peer):
            before = fill_send_queue(transport) if queued else 0
            data = Disguised(b"content")
            transport.write(data) if how == "write" else transport.writelines([data])
            transport.write_eof()
            received = await asyncio.to_thread(receive_to_eof, peer)
            assert received == bytes(before) + b"from __buffer__"

    loop.run_until_complete(main())


@pytest.mark.min_python(3, 12)
@pytest.mark.flavours("tokioloop", reason="asyncio writes on after the end of file")
@pytest.mark.parametrize("call", ["write_eof", "close", "abort"])
@pytest.mark.parametrize("how", ["write", "writelines"])
def test_a_buffer_that_ends_the_transport_while_it_is_asked_for(
    loop: Loop, how: str, call: str
) -> None:
    async def main() -> None:
        async with connected("client") as (transport, protocol, peer):

            class Ends(bytearray):
                def __buffer__(self, flags: int) -> memoryview:
                    getattr(transport, call)()
                    return memoryview(b"late")

            write = transport.write if how == "write" else transport.writelines
            data = Ends(b"x") if how == "write" else [b"early", Ends(b"x")]
            if call == "write_eof":
                with pytest.raises(RuntimeError, match="after write_eof"):
                    write(data)
            else:
                write(data)  # dropped, as every write after the end
            await settled()
            assert transport.is_closing() is (call != "write_eof")
            if call != "abort":
                assert receive_to_eof(peer) == b""

    loop.run_until_complete(main())


@pytest.mark.flavours("tokioloop", reason="asyncio writes on after the end of file")
@pytest.mark.parametrize("call", ["write_eof", "close", "abort", "write"])
def test_an_iterator_that_uses_the_transport_it_is_written_to(loop: Loop, call: str) -> None:
    """Nobody can say what should arrive; the process and the loop must go on."""

    async def main() -> None:
        async with connected("client") as (transport, protocol, peer):

            def parts() -> Iterator[bytes]:
                yield b"one"
                getattr(transport, call)(*([b"between"] if call == "write" else []))
                yield b"two"

            if call == "write_eof":
                with pytest.raises(RuntimeError, match="after write_eof"):
                    transport.writelines(parts())
            else:
                transport.writelines(parts())
            if call == "write":
                assert receive_exactly(peer, 13) == b"betweenonetwo"
            transport.abort()
            assert await protocol.until_lost() is None

    loop.run_until_complete(main())


@pytest.mark.flavours("tokioloop", reason="asyncio up to 3.13 raises TypeError in the finalizer")
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize("end", ["abort", "close", "reset", "loop.close"])
@pytest.mark.parametrize("of", ["data", "protocol"])
def test_a_finalizer_that_uses_the_transport_that_drops_it(
    loop_factory: Any, of: str, end: str
) -> None:
    loop = loop_factory()
    transports: list[Any] = []
    finalized: list[str] = []

    class Finalized:
        def __del__(self) -> None:
            finalized.append(type(self).__name__)
            for transport in transports:
                transport.write(b"from the finalizer")
                transport.writelines([b"from the finalizer"])
                transport.pause_reading()
                transport.close()
                transport.get_write_buffer_size()

    class Data(Finalized, bytearray):
        pass

    class Parent(Finalized, asyncio.Protocol):
        pass

    async def main() -> socket.socket:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        factory = Parent if of == "protocol" else asyncio.Protocol
        transport, _ = await loop.create_connection(factory, sock=ours)
        transports.append(transport)
        fill_send_queue(transport)
        transport.write(Data(b"x" * 100_000) if of == "data" else b"x")
        return theirs

    with loop.run_until_complete(main()) as theirs:
        if end == "reset":
            theirs.close()
        elif end != "loop.close":
            getattr(transports[0], end)()
        if end == "close":
            theirs.setblocking(True)
            while not transports[0]._finished:
                theirs.recv(1 << 20)
                loop.run_until_complete(asyncio.sleep(0))
        loop.run_until_complete(asyncio.sleep(0.001))
        loop.close()
        transports.clear()
        gc.collect()
    assert finalized == ["Data" if of == "data" else "Parent"]


@pytest.mark.parametrize("kind", ["handle", "timer", "reader"])
def test_a_finalizer_that_uses_the_loop_while_it_closes(loop_factory: Any, kind: str) -> None:
    loop = loop_factory()
    ours, theirs = socket.socketpair()
    refused: list[BaseException] = []

    class Argument:
        def __del__(self) -> None:
            for call in (
                lambda: loop.call_soon(int),
                lambda: loop.call_later(1, int),
                lambda: loop.add_reader(ours, int),
                lambda: loop.call_soon_threadsafe(int),
            ):
                try:
                    call()
                except RuntimeError as error:
                    refused.append(error)

    with ours, theirs:
        if kind == "handle":
            loop.call_soon(id, Argument())
        elif kind == "timer":
            loop.call_later(1000, id, Argument())
        else:
            loop.add_reader(ours, id, Argument())
        loop.close()
        gc.collect()
        assert loop.is_closed()
        # Each call is refused, or what it has scheduled is dropped.
        assert all("closed" in str(error) for error in refused)
