"""What makes the interpreter call native methods without a detour."""

from __future__ import annotations

import asyncio
import signal
import sys
import types

import pytest

from tests.support.net import serving
from tests.support.programs import output_of
from tests.support.protocols import EchoProtocol

pytestmark = pytest.mark.flavours("tokioloop", reason="how our classes are made")


@pytest.fixture
def classes(tokioloop):
    transports = sys.modules["tokioloop._transports"]
    classes = [tokioloop.TokioLoop, transports.SocketTransport, transports.DatagramTransport]
    if sys.version_info >= (3, 11):
        tls = sys.modules["tokioloop._tls"]
        classes += [tls.SSLTransport, tls.SSLProtocol]
    return classes


def test_the_methods_of_the_native_bases_are_the_classes_own(classes):
    for cls in classes:
        methods = {
            name
            for name, value in vars(cls.__base__).items()
            if isinstance(value, types.MethodDescriptorType)
        }
        assert methods, cls
        for name in methods:
            own = vars(cls)[name]
            native = isinstance(own, types.MethodDescriptorType)
            assert not native or own.__objclass__ is cls, (cls, name)


def test_what_a_class_overrides_stays_overridden(tokioloop):
    class Time:
        def time(self):
            return 42.0

    class Loop(Time, tokioloop.TokioLoop):
        def call_soon(self, callback, *args, context=None):
            return super().call_soon(callback, "ours", context=context)

    loop = Loop()
    try:
        assert loop.time() == 42.0
        called = []
        loop.call_soon(called.append, "theirs")
        loop.call_soon(lambda _: loop.stop())
        loop.run_forever()
        assert called == ["ours"]
    finally:
        loop.close()


def test_a_loop_in_use_has_nothing_in_its_dictionary(loop):
    async def main():
        loop.add_signal_handler(signal.SIGUSR1, int)
        loop.set_exception_handler(lambda *_: None)
        async with serving(EchoProtocol) as (_, address):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(b"x")
            assert await reader.read(1) == b"x"
            writer.close()
            await writer.wait_closed()
        await asyncio.to_thread(int)
        assert vars(loop) == {}

    loop.run_until_complete(main())
    loop.run_until_complete(loop.shutdown_asyncgens())
    assert vars(loop) == {}


def test_an_attribute_of_the_users_is_kept(loop):
    loop.mine = 1
    assert loop.mine == 1
    assert vars(loop) == {"mine": 1}
    del loop.mine
    assert not hasattr(loop, "mine")


CALLS = """
import dis, socket

def call_the_loop(loop, sock):
    loop.time()
    loop.call_soon(int)
    loop.sock_recv(sock, 1).close()

def call_the_transport(transport):
    transport.write(b"")

def specialised(function, name):
    # Whether the interpreter looks a method up by what it has found before.
    instructions = dis.get_instructions(function, adaptive=True)
    (found,) = (each.opname for each in instructions if each.argval == name)
    return found.startswith(("LOAD_ATTR_METHOD_", "LOAD_METHOD_"))

async def main():
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    for _ in range(200):
        call_the_loop(loop, ours)
    for name in ("time", "call_soon", "sock_recv"):
        assert specialised(call_the_loop, name), name
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
    for _ in range(200):
        call_the_transport(transport)
    assert specialised(call_the_transport, "write")
    transport.abort()
    theirs.close()

loop = new_loop()
loop.run_until_complete(main())
loop.close()
print("done")
"""


@pytest.mark.skipif(sys.version_info < (3, 11), reason="nothing is specialised before 3.11")
def test_the_interpreter_finds_the_methods_without_looking_them_up(flavour):
    """In a program of its own: the interpreter looks for a name first in the object of which
    any loop of the process has had an attribute, as those with a clock of their own."""
    assert output_of(flavour, CALLS) == "done\n"
