"""What a program may do to the insides of a loop without ending the interpreter."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import socket
import threading
import weakref
from typing import Any

import pytest

from tests.support.flavours import Flavour
from tests.support.net import connected, settled, socket_pair
from tests.support.programs import output_of

pytestmark = pytest.mark.flavours("tokioloop", reason="about memory that only TokioLoop has")
Loop = asyncio.AbstractEventLoop


@pytest.mark.parametrize("name", ["_callback", "_loop"])
def test_what_a_handle_calls_and_where_cannot_be_replaced(loop: Loop, name: str) -> None:
    called: list[int] = []
    handle = loop.call_soon(called.append, 1)
    with pytest.raises(AttributeError):
        setattr(handle, name, b"something else")
    with pytest.raises(AttributeError):
        delattr(handle, name)
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert called == [1]


def test_only_stream_transports_are_taken_for_the_class_of_transports(loop: Any) -> None:
    from tokioloop._transports import SocketTransport

    class Small:
        pass

    class Own(SocketTransport):
        pass

    for wrong in (Small, None, asyncio.Transport):
        with pytest.raises((TypeError, AttributeError)):
            loop._transport_class = wrong
    loop._transport_class = Own


def test_native_methods_go_to_classes_over_native_memory_only() -> None:
    from tokioloop import _core

    class Pretends(type):
        def __getattribute__(cls, name: str) -> Any:
            if name == "__base__":
                return _core.StreamTransport
            return vars(_core.StreamTransport).get(name) or super().__getattribute__(name)

    class Victim(metaclass=Pretends):
        __slots__ = ()

    _core.own_methods(Victim)
    assert "write" not in type.__dict__["__dict__"].__get__(Victim)


def test_a_socket_that_is_asked_for_while_it_is_made_is_made_once(flavour: Flavour) -> None:
    # An audit hook stands for what may run then: the collector, a signal handler.
    program = """
    import os, sys
    from tests.support.net import LOOPBACK

    def hook(event, args):
        if event == "socket.__new__" and asked:
            transport = asked.pop()
            got.append(transport.get_extra_info("socket"))

    asked, got = [], []
    sys.addaudithook(hook)

    async def main():
        loop = asyncio.get_running_loop()
        server = await loop.create_server(asyncio.Protocol, LOOPBACK, 0)
        transport, _ = await loop.create_connection(asyncio.Protocol, *server.sockets[0].getsockname())
        asked.append(transport)
        got.append(transport.get_extra_info("socket"))
        number = got[0].fileno()
        assert got[0]._sock is got[1]._sock is transport._sock
        transport.abort()
        await asyncio.sleep(0.01)
        server.close()
        reader = os.open(os.devnull, os.O_RDONLY)
        got.clear()
        del transport
        os.fstat(reader)

    loop = new_loop()
    loop.set_debug(False)  # Debug mode logs the socket, and so has it made.
    loop.run_until_complete(main())
    print("one owner")
    """
    assert output_of(flavour, program) == "one owner\n"


# CPython's threads have a context of their own, which they may then find left as well.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_loops_of_two_threads_may_be_given_one_context(loop_factory: Any) -> None:
    shared = contextvars.Context()
    told: list[BaseException] = []

    def run() -> None:
        loop = loop_factory()
        loop.set_exception_handler(lambda _loop, context: told.append(context["exception"]))
        for _ in range(5000):
            loop.call_soon(int, context=shared)
        loop.call_soon(loop.stop)
        try:
            loop.run_forever()
        except BaseException as error:
            told.append(error)
        loop.close()

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # That it is entered already, or left by the other one; never an exception that nobody raised.
    assert {type(error) for error in told} <= {RuntimeError}


def test_slots_of_asyncio_that_a_transport_does_not_use_are_collected(loop: Loop) -> None:
    class Mark:
        """Refers to the transport that refers to it."""

    async def main() -> None:
        for name in ("_high_water", "_low_water"):
            with socket_pair() as (ours, _theirs):
                transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
                mark: Any = Mark()
                mark.transport = transport
                setattr(transport, name, mark)
                gone = weakref.ref(mark)
                transport.abort()
                del mark, transport
                await settled()
                gc.collect()
                assert gone() is None, name

    loop.run_until_complete(main())


def test_a_socket_that_could_not_be_made_leaves_the_descriptor(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = socket.socket.__init__

    def interrupted(self: Any, *arguments: Any, **keywords: Any) -> None:
        make(self, *arguments, **keywords)
        raise InterruptedError

    async def main() -> None:
        async with connected("server") as (transport, _protocol, peer):
            with monkeypatch.context() as patch:
                patch.setattr(socket.socket, "__init__", interrupted)
                with pytest.raises(InterruptedError):
                    transport.get_extra_info("socket")
            transport.write(b"alive")
            assert peer.recv(100) == b"alive"
            assert transport.get_extra_info("socket").fileno() >= 0

    loop.run_until_complete(main())
