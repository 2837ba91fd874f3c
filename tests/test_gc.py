"""Cycles through loops, handles, timers, transports and servers are collected."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import warnings
import weakref

import pytest

from tests.support.net import LOOPBACK, PEER_TIMEOUT, connected, settled, socket_pair
from tests.support.protocols import Recorder

pytestmark = pytest.mark.flavours(
    "asyncio", "tokioloop", reason="uvloop's and rloop's objects take no part in collection"
)


class Node:
    """Something that can be referred to weakly, and refer to anything."""


def is_collected(reference: weakref.ref[Node]) -> bool:
    for _ in range(3):  # a finaliser may need a second pass
        gc.collect()
    return reference() is None


@pytest.mark.parametrize(
    "schedule",
    [
        lambda loop, callback: loop.call_soon(callback),
        lambda loop, callback: loop.call_soon_threadsafe(callback),
        lambda loop, callback: loop.call_later(3600, callback),
        lambda loop, callback: loop.call_at(loop.time() + 3600, callback),
    ],
    ids=["call_soon", "call_soon_threadsafe", "call_later", "call_at"],
)
def test_a_handle_in_a_cycle_with_its_callback(loop_factory, flavour, no_leaks, schedule):
    loop = flavour.new_event_loop()
    node = Node()
    node.handle = schedule(loop, lambda node=node: node)
    reference = weakref.ref(node)
    loop.close()
    del node, loop
    assert is_collected(reference)


def test_a_closed_loop_in_a_cycle_with_an_attribute(flavour, no_leaks):
    loop = flavour.new_event_loop()
    node = Node()
    node.loop = loop
    loop.set_exception_handler(lambda *_args, node=node: None)
    loop.call_later(3600, lambda node=node: None)
    reference = weakref.ref(node)
    loop.close()
    del node, loop
    assert is_collected(reference)


@pytest.mark.filterwarnings("ignore:unclosed event loop:ResourceWarning")
def test_an_open_loop_in_a_cycle_gives_its_descriptors_back(flavour, no_leaks):
    loop = flavour.new_event_loop()
    node = Node()
    node.loop = loop
    loop.call_soon(lambda node=node: None)
    reference = weakref.ref(node)
    del node, loop
    assert is_collected(reference)


@pytest.mark.parametrize("side", ["client", "server"])
def test_a_transport_and_its_protocol_after_the_connection(loop, side):
    async def main():
        async with connected(side) as (transport, protocol, _peer):
            protocol.node = Node()
            protocol.node.transport = transport
            reference = weakref.ref(protocol.node)
            transport.close()
            await protocol.until_lost()
        await settled()
        return reference

    assert is_collected(loop.run_until_complete(main()))


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_a_transport_nobody_closed_goes_with_its_loop(flavour, no_leaks):
    async def main(loop):
        server = await loop.create_server(Recorder, LOOPBACK, 0)
        transport, protocol = await loop.create_connection(
            Recorder, *server.sockets[0].getsockname()
        )
        protocol.node = Node()
        protocol.node.transport = transport
        protocol.node.loop = loop
        return weakref.ref(protocol.node)

    loop = flavour.new_event_loop()
    loop.set_exception_handler(lambda *_args: None)
    reference = loop.run_until_complete(main(loop))
    loop.close()
    del loop
    assert is_collected(reference)


def test_a_transport_nobody_closed_closes_its_socket_though_the_warning_holds_it(flavour, no_leaks):
    async def main(loop):
        await loop.create_connection(Recorder, sock=ours)

    with socket_pair() as (ours, peer), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loop = flavour.new_event_loop()
        loop.run_until_complete(main(loop))
        loop.close()
        del loop
        gc.collect()
        assert "unclosed transport" in " ".join(str(warning.message) for warning in caught)
        peer.settimeout(PEER_TIMEOUT)
        assert peer.recv(1) == b""
        caught.clear()


def test_a_server_after_it_has_closed(loop):
    async def main():
        node = Node()
        server = await loop.create_server(lambda node=node: Recorder(), LOOPBACK, 0)
        node.server = server
        server.close()
        await server.wait_closed()
        await asyncio.sleep(0)
        return weakref.ref(node)

    assert is_collected(loop.run_until_complete(main()))


def test_a_reader_that_was_removed(loop):
    from tests.support.net import socket_pair

    with socket_pair() as (ours, _theirs):
        node = Node()
        loop.add_reader(ours.fileno(), lambda node=node: None)
        node.loop = loop
        reference = weakref.ref(node)
        del node
        loop.remove_reader(ours.fileno())
        assert is_collected(reference)


@pytest.mark.skipif(
    not getattr(sys, "_is_gil_enabled", lambda: True)(), reason="counts are split by thread"
)
@pytest.mark.parametrize("count", [0, 1, 3, 10])
def test_reference_counts_of_arguments_are_balanced(loop, count):
    argument = object()
    before = sys.getrefcount(argument)
    for _ in range(100):
        loop.call_soon(lambda *args: None, *[argument] * count)
        loop.call_later(0, lambda *args: None, *[argument] * count)
        loop.call_soon_threadsafe(lambda *args: None, *[argument] * count)
        loop.call_later(3600, lambda *args: None, *[argument] * count).cancel()
    loop.call_later(0.01, loop.stop)
    loop.run_forever()
    gc.collect()
    assert sys.getrefcount(argument) == before


def test_collections_in_the_middle_of_traffic_are_harmless(loop):
    async def main():
        async with connected("client") as (transport, protocol, peer):
            expected = b""
            for number in range(30):
                word = b"%04d" % number
                expected += word
                peer.sendall(word)
                transport.write(word)
                gc.collect(number % 3)
                await protocol.until_received(len(expected))
                assert peer.recv(4) == word

    loop.run_until_complete(main())


@pytest.mark.flavours("tokioloop", reason="asyncio keeps cancelled timers until they are due")
@pytest.mark.parametrize("schedule", ["call_later", "call_at"])
def test_a_cancelled_timer_in_a_cycle_with_its_context(loop, schedule):
    """It was held by a local variable alone when it was cancelled."""
    variable = contextvars.ContextVar("variable")

    def set_up(node):
        variable.set(node)
        handle = getattr(loop, schedule)(loop.time() + 60, print)
        handle.cancel()
        node.handle = handle

    node = Node()
    reference = weakref.ref(node)
    contextvars.copy_context().run(set_up, node)
    del node
    assert is_collected(reference)
