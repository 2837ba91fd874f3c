"""What a loop looks for before it sleeps, and that looking hides nothing from it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sysconfig
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.net import eventually
from tests.support.protocols import EchoProtocol

pytestmark = pytest.mark.flavours("tokioloop", reason="how long to look is tokioloop's own")

# Sleeps before a loop looks for the first time.
FIRST_PAUSE = 8
# Microseconds; longer than any test waits for what must end a look.
LONG = 1_000_000


@pytest.fixture
def loop_with(tokioloop, no_leaks):
    """Makes a loop with options, closed after the test."""
    loops = []

    def new_loop(**options):
        loops.append(tokioloop.TokioLoop(**options))
        # What debug mode notes of each call lets a thread answer before the loop waits.
        loops[-1].set_debug(False)
        return loops[-1]

    yield new_loop
    for loop in loops:
        loop.close()


async def ask_a_thread(count, function, *arguments):
    with ThreadPoolExecutor(1) as pool:
        for _ in range(count):
            await asyncio.get_running_loop().run_in_executor(pool, function, *arguments)


def test_the_answers_of_a_thread_are_looked_for(loop_with):
    loop = loop_with()
    loop.run_until_complete(ask_a_thread(5 * FIRST_PAUSE, time.sleep, 0.0005))
    assert loop.metrics()["looks"] >= 1


def test_a_thread_that_takes_its_time_is_looked_for_ever_more_seldom(loop_with):
    loop = loop_with()
    loop.run_until_complete(ask_a_thread(60, time.sleep, 0.002))
    # Three, unless something keeps a look from its end until the answer is there.
    assert loop.metrics()["looks"] <= 10


def test_with_a_busy_poll_of_0_nothing_is_looked_for(loop_with):
    loop = loop_with(busy_poll=0)
    loop.run_until_complete(ask_a_thread(20 * FIRST_PAUSE, int))
    assert loop.metrics()["looks"] == 0


def test_timers_are_not_looked_for(loop_with):
    async def main():
        for _ in range(30):
            await asyncio.sleep(0.0005)

    loop = loop_with()
    loop.run_until_complete(main())
    assert loop.metrics()["looks"] == 0


class LastOf(EchoProtocol):
    """Tells when the last of so many connections is lost."""

    def __init__(self, lost, count):
        super().__init__()
        self.lost, self.count = lost, count

    def connection_lost(self, exc):
        self.lost.append(self)
        if len(self.lost) == self.count:
            asyncio.get_running_loop().stop()


def test_the_messages_of_an_open_connection_are_not_looked_for(loop_with):
    async def main():
        lost = []
        server = await loop.create_server(lambda: LastOf(lost, 2), "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        for _ in range(100):
            writer.write(b"ping")
            assert await reader.readexactly(4) == b"ping"
        writer.close()
        await writer.wait_closed()
        await eventually(lambda: lost)
        server.close()
        await server.wait_closed()

    loop = loop_with()
    loop.run_until_complete(main())
    assert loop.metrics()["looks"] == 0


def test_the_requests_of_accepted_connections_are_looked_for(loop_with):
    loop = loop_with()
    lost = []
    count = 5 * FIRST_PAUSE
    starting = loop.create_server(lambda: LastOf(lost, count), "127.0.0.1", 0)
    server = loop.run_until_complete(starting)
    address = server.sockets[0].getsockname()

    def connect_often():
        try:
            for _ in range(count):
                with socket.create_connection(address, timeout=10) as sock:
                    sock.sendall(b"ping")
                    assert sock.recv(4) == b"ping"
        except BaseException:
            loop.call_soon_threadsafe(loop.stop)
            raise

    thread = threading.Thread(target=connect_often)
    thread.start()
    loop.run_forever()
    thread.join()
    server.close()
    loop.run_until_complete(server.wait_closed())
    assert len(lost) == count
    assert loop.metrics()["looks"] >= 1


def stop(loop):
    loop.stop()


def stop_by_message(loop):
    loop.call_soon_threadsafe(loop.stop)


@pytest.mark.parametrize("how", [stop, stop_by_message])
def test_another_thread_ends_a_look_by_stopping_the_loop(loop_with, how):
    loop = loop_with(busy_poll=LONG)
    looked = []

    def soon():
        time.sleep(0.02)
        started = time.monotonic()
        how(loop)
        stopped.wait(10)
        looked.append(time.monotonic() - started)

    stopped = threading.Event()
    thread = threading.Thread(target=soon)
    thread.start()
    loop.run_forever()
    stopped.set()
    thread.join()
    assert looked[0] < LONG / 1e6 / 2


def test_a_signal_ends_a_look(loop_with):
    loop = loop_with(busy_poll=LONG)
    handled = []

    def on_signal():
        handled.append(time.monotonic())
        loop.stop()

    loop.add_signal_handler(signal.SIGUSR1, on_signal)
    sent = []

    def send():
        time.sleep(0.02)
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGUSR1)

    thread = threading.Thread(target=send)
    thread.start()
    loop.run_forever()
    thread.join()
    assert handled[0] - sent[0] < LONG / 1e6 / 2


@pytest.mark.skipif(
    not sysconfig.get_config_var("Py_GIL_DISABLED"),
    reason="a signal from who has just taken the GIL is late with asyncio as well",
)
def test_a_signal_that_comes_while_it_looks_does_not_wait_for_the_end_of_its_sleep(loop_with):
    """With the wake-up descriptor of somebody else nothing but the interrupt tells of it."""
    main_thread = threading.get_ident()
    handled = threading.Event()
    tries = 20

    def interrupt():
        handled.clear()
        signal.pthread_kill(main_thread, signal.SIGUSR1)
        return handled.wait(0.2)

    async def main():
        late = 0
        with ThreadPoolExecutor(1) as pool:
            for _ in range(tries):
                for _ in range(5 * FIRST_PAUSE):
                    await loop.run_in_executor(pool, int)
                late += not await loop.run_in_executor(pool, interrupt)
        return late

    loop = loop_with()
    theirs, other = socket.socketpair()
    with theirs, other:
        theirs.setblocking(False)
        before = signal.signal(signal.SIGUSR1, lambda *_: handled.set())
        previous = signal.set_wakeup_fd(theirs.fileno())
        try:
            late = loop.run_until_complete(main())
        finally:
            signal.set_wakeup_fd(previous)
            signal.signal(signal.SIGUSR1, before)
    assert late == 0


def test_a_timer_ends_a_look(loop_with):
    async def main():
        started = time.monotonic()
        await asyncio.sleep(0.01)
        return time.monotonic() - started

    loop = loop_with(busy_poll=LONG)
    assert loop.run_until_complete(main()) < LONG / 1e6 / 2
