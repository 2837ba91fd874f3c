"""The order in which callbacks run, and that I/O is never starved by them."""

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import socket

import pytest

from tests.support.net import socket_pair
from tests.support.programs import output_of
from tests.support.protocols import EchoProtocol, Recorder

NO_CHECKS = "uvloop and rloop do not check callbacks"


def run_once(loop):
    loop.call_soon(loop.stop)
    loop.run_forever()


def test_callbacks_run_in_the_order_of_the_calls(loop):
    order = []
    for number in range(1000):
        loop.call_soon(order.append, number)
    run_once(loop)
    assert order == list(range(1000))


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 20])
def test_any_number_of_arguments_is_passed_on(loop, count):
    seen = []
    arguments = tuple(range(count))
    loop.call_soon(lambda *args: seen.append(args), *arguments)
    loop.call_later(0, lambda *args: seen.append(args), *arguments)
    loop.call_at(0, lambda *args: seen.append(args), *arguments)
    loop.call_soon_threadsafe(lambda *args: seen.append(args), *arguments)
    loop.call_later(0.005, loop.stop)
    loop.run_forever()
    assert seen == [arguments] * 4


def test_callback_and_context_are_keywords_as_in_asyncio(flavour, loop):
    if flavour.name == "rloop":
        pytest.skip("rloop takes the callback by position only")
    seen = []
    loop.call_soon(callback=lambda: seen.append("soon"))
    loop.call_soon_threadsafe(callback=lambda: seen.append("threadsafe"))
    loop.call_later(delay=0, callback=lambda: seen.append("later"))
    loop.call_at(when=0, callback=lambda: seen.append("at"))
    loop.call_later(0.005, loop.stop)
    loop.run_forever()
    assert sorted(seen) == ["at", "later", "soon", "threadsafe"]


def test_a_keyword_need_not_be_an_interned_string(flavour, loop):
    """As from C code: asyncio's own passes one tuple of names with every call."""
    variable = contextvars.ContextVar("variable")
    seen = []
    for number in range(6):
        context = contextvars.copy_context()
        context.run(variable.set, number)
        name = "".join(["con", "text"]) if number % 2 else "context"
        loop.call_soon(lambda: seen.append(variable.get()), **{name: context})
        with pytest.raises(TypeError):
            loop.call_soon(print, **{"".join(["con", "texts"]): context})
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert seen == list(range(6))


@pytest.mark.flavours("asyncio", "tokioloop", reason="the peers word their errors differently")
def test_wrong_arguments_are_type_errors(loop):
    for call in (
        lambda: loop.call_soon(),
        lambda: loop.call_later(1),
        lambda: loop.call_later(),
        lambda: loop.call_at(1),
        lambda: loop.call_soon(print, contexts=None),
        lambda: loop.call_later(None, print),
        lambda: loop.call_later("1", print),
    ):
        with pytest.raises(TypeError):
            call()


@pytest.mark.flavours("asyncio", "tokioloop", "uvloop", reason="rloop may stop before it")
def test_a_child_runs_in_the_next_turn_after_its_parents_siblings(loop):
    order = []
    loop.call_soon(lambda: (order.append("parent"), loop.call_soon(order.append, "child")))
    loop.call_soon(order.append, "sibling")
    loop.call_later(0.005, loop.stop)
    loop.run_forever()
    assert order == ["parent", "sibling", "child"]


@pytest.mark.flavours("asyncio", "tokioloop", reason="each peer has an order of its own")
def test_the_order_of_a_turn_is_asyncios(loop):
    """Queued callbacks, then I/O, then timers; children last."""
    order = []

    async def main():
        with socket_pair() as (ours, theirs):
            finished = loop.create_future()
            theirs.send(b"x")

            def on_readable():
                order.append("io")
                loop.remove_reader(ours)

            def busy():
                loop.call_soon_threadsafe(order.append, "threadsafe")
                loop.call_soon(order.append, "soon")
                loop.call_soon(
                    lambda: (order.append("soon2"), loop.call_soon(order.append, "child"))
                )
                loop.add_reader(ours, on_readable)
                loop.call_at(loop.time() - 1, order.append, "due")
                loop.call_later(0.02, finished.set_result, None)

            loop.call_soon(busy)
            await finished

    loop.run_until_complete(main())
    assert order == ["threadsafe", "soon", "soon2", "io", "due", "child"]


def test_an_endless_chain_of_callbacks_does_not_starve_io(loop):
    async def main():
        with socket_pair() as (ours, theirs):
            spinning = True

            def again():
                if spinning:
                    loop.call_soon(again)

            again()
            for _ in range(20):
                await loop.sock_sendall(theirs, b"ping")
                assert await loop.sock_recv(ours, 100) == b"ping"
            spinning = False

    loop.run_until_complete(main())


def test_an_endless_chain_of_callbacks_does_not_starve_timers(loop):
    async def main():
        spinning = True

        def again():
            if spinning:
                loop.call_soon(again)

        again()
        await asyncio.sleep(0.01)
        spinning = False

    loop.run_until_complete(main())


@pytest.mark.flavours("asyncio", "tokioloop", "uvloop", reason="rloop polls only now and then")
def test_io_that_is_always_ready_does_not_starve_callbacks(loop):
    async def main():
        with socket_pair() as (ours, theirs):
            theirs.send(b"never read")
            calls = []
            loop.add_reader(ours, calls.append, None)
            for _ in range(100):
                await asyncio.sleep(0)
            loop.remove_reader(ours)
            assert calls

    loop.run_until_complete(main())


def test_an_idle_loop_with_only_a_future_timer_waits_for_it(loop):
    started = loop.time()
    loop.call_later(0.05, loop.stop)
    loop.run_forever()
    assert loop.time() - started >= 0.049


@pytest.mark.flavours("asyncio", "tokioloop", "uvloop", reason="rloop swallows it")
def test_a_callback_that_is_not_callable_is_reported_when_it_is_due(loop, loop_errors):
    loop.set_debug(False)
    loop.call_soon(5)
    run_once(loop)
    assert isinstance(loop_errors.take()["exception"], TypeError)


def test_tasks_take_turns(loop):
    order = []

    async def worker(name):
        for step in range(3):
            order.append((name, step))
            await asyncio.sleep(0)

    async def main():
        await asyncio.gather(worker("a"), worker("b"), worker("c"))

    loop.run_until_complete(main())
    assert order == [(name, step) for step in range(3) for name in "abc"]


def test_a_hundred_thousand_callbacks_in_one_turn(loop):
    loop.set_debug(False)  # which notes the stack of each call: this is about their number
    counter = []
    for _ in range(100_000):
        loop.call_soon(counter.append, None)
    run_once(loop)
    assert len(counter) == 100_000


@pytest.mark.flavours("asyncio", "tokioloop", reason="loop._ready is asyncio's own queue")
def test_clearing_the_queue_leaves_a_transport_its_data(loop):
    """What waits is dropped; that there is something to read is told again."""
    transport, protocol, peer = loop.run_until_complete(start_recording(loop))

    def clear(times):
        loop._ready.clear()
        assert len(list(loop._ready)) == 0
        loop.call_soon(clear, times - 1) if times else loop.call_soon(loop.stop)

    with peer:
        for number in range(20):
            peer.send(b"%02d" % number)
            # Some turns are due before the poll is asked again.
            loop.call_soon(clear, 100)
            loop.run_forever()
        received = loop.run_until_complete(protocol.until_received(40))
        assert received == b"".join(b"%02d" % number for number in range(20))
        transport.abort()
        loop.run_until_complete(protocol.until_lost())
        run_once(loop)


async def start_recording(loop):
    ours, peer = socket.socketpair()
    ours.setblocking(False)
    transport, protocol = await loop.create_connection(Recorder, sock=ours)
    await asyncio.sleep(0)
    return transport, protocol, peer


@pytest.mark.flavours("tokioloop", reason="asyncio polls in every turn")
def test_what_an_event_has_scheduled_runs_before_the_next_poll(loop):
    """A message that a scheduled callback answers costs no empty poll in between."""
    rounds = 50

    class Scheduling(asyncio.Protocol):
        def __init__(self):
            self.left = rounds
            self.done = loop.create_future()

        def connection_made(self, transport):
            self.transport = transport

        def data_received(self, data):
            loop.call_soon(self.answer)

        def answer(self):
            self.left -= 1
            if self.left:
                self.transport.write(b"x")
            else:
                self.done.set_result(None)

    async def main():
        ours, theirs = socket.socketpair()
        echo, _ = await loop.create_connection(EchoProtocol, sock=theirs)
        transport, protocol = await loop.create_connection(Scheduling, sock=ours)
        await asyncio.sleep(0)
        before = loop.metrics()["polls"]
        transport.write(b"x")
        await protocol.done
        polls = loop.metrics()["polls"] - before
        transport.abort()
        echo.abort()
        await asyncio.sleep(0)
        return polls

    # One for the event of each side.
    assert loop.run_until_complete(main()) < 2.5 * rounds


@pytest.mark.flavours("asyncio", "tokioloop", reason="what asyncio does")
def test_events_come_between_the_callbacks_of_long_chains(loop):
    """A socket whose callback schedules much, and is written to by it, is served again soon."""

    def chain(left):
        if left:
            loop.call_soon(chain, left - 1)

    async def main():
        with socket_pair() as (ours, peer):
            seen = 0

            def readable():
                nonlocal seen
                seen += len(ours.recv(100))
                chain(1000)
                peer.send(b"x")

            loop.add_reader(ours, readable)
            peer.send(b"x")
            turns = 0
            while seen < 20:
                chain(100)
                await asyncio.sleep(0)
                turns += 1
                assert turns < 1000, seen
            loop.remove_reader(ours)

    loop.run_until_complete(main())


MANY_AT_ONCE = """
import ctypes

class Mallinfo2(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd",
            "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    ]

libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Mallinfo2

def allocated():
    info = libc.mallinfo2()
    return info.uordblks + info.hblkhd

def run(count):
    for _ in range(count):
        loop.call_soon(int)
    loop.call_later(0.01, loop.stop)
    loop.run_forever()

loop = new_loop()
run(1000)
before = allocated()
run(300_000)
print("kept" if allocated() - before > 2_000_000 else "done")
loop.close()
"""


@pytest.mark.flavours("tokioloop", reason="the others' queues are not Rust's")
@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="no glibc that tells")
def test_the_room_of_many_callbacks_is_given_back(flavour):
    """What the C library counts is not Python's own memory, which has an allocator of its own."""
    assert output_of(flavour, MANY_AT_ONCE) == "done\n"
