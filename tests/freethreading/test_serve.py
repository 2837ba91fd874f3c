"""`tokioloop.serve`: loops on threads, their sockets, their end, and what they raise."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import tokioloop

from tests.support.flavours import FLAVOURS
from tests.support.programs import output_of

ADDRESS = ("127.0.0.1", 0)
TOKIOLOOP = FLAVOURS["tokioloop"]


@pytest.fixture(autouse=True)
def no_warning_of_the_gil() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the GIL is enabled", RuntimeWarning)
        yield


def test_each_thread_has_an_index_a_loop_and_a_thread_of_its_own() -> None:
    everybody = threading.Barrier(3)

    async def main(index: int) -> tuple[int, int, int]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, tokioloop.TokioLoop)
        await loop.run_in_executor(None, everybody.wait)  # all three run at the same time
        return index, id(loop), threading.get_ident()

    results = tokioloop.serve(main, threads=3)
    assert [index for index, _, _ in results] == [0, 1, 2]
    assert len({loop for _, loop, _ in results}) == 3
    assert len({ident for _, _, ident in results} | {threading.get_ident()}) == 4


def test_connections_to_one_port_reach_every_loop() -> None:
    done = threading.Event()

    async def main(index: int, listener: socket.socket) -> tuple[str, int]:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(bytes([index]))
            writer.close()
            await writer.wait_closed()

        server = await asyncio.start_server(answer, sock=listener)
        address: tuple[str, int] = listener.getsockname()
        async with server:
            if index == 0:
                loop = asyncio.get_running_loop()
                await loop.run_in_executor(None, ask_until_both_have_answered, address)
                done.set()
            while not done.is_set():
                await asyncio.sleep(0.005)
        return address

    def ask_until_both_have_answered(address: tuple[str, int]) -> None:
        heard = set()
        while heard != {b"\0", b"\1"}:
            with socket.create_connection(address, timeout=5) as client:
                heard.add(client.recv(1))

    first, second = tokioloop.serve(main, threads=2, sockets=[ADDRESS])
    assert first == second
    assert first is not None and first[1] != 0


def test_each_address_gives_each_thread_one_socket() -> None:
    async def main(_index: int, *listeners: socket.socket) -> list[tuple[int, Any]]:
        return [(listener.fileno(), listener.getsockname()) for listener in listeners]

    results = tokioloop.serve(main, threads=2, sockets=[ADDRESS, ADDRESS])
    numbers = [number for listeners in results for number, _ in listeners or ()]
    assert len(set(numbers)) == 4
    (a, b), (c, d) = [[address for _, address in listeners or ()] for listeners in results]
    assert (a, b) == (c, d)
    assert a != b


@pytest.mark.skipif(not socket.has_ipv6, reason="this Python has no IPv6")
def test_an_address_of_ipv6_is_of_ipv6_alone() -> None:
    """As with asyncio's servers: the port of the other family is another one's."""

    async def main(_index: int, listener: socket.socket) -> int:
        return listener.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)

    try:
        assert tokioloop.serve(main, threads=2, sockets=[("::", 0)]) == [1, 1]
    except OSError as error:
        if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            raise
        pytest.skip("this machine has no IPv6")


def test_sockets_that_main_leaves_open_are_closed() -> None:
    kept = []

    async def main(_index: int, listener: socket.socket) -> None:
        kept.append(listener)

    tokioloop.serve(main, threads=2, sockets=[ADDRESS])
    assert [listener.fileno() for listener in kept] == [-1, -1]


def test_an_address_in_use_is_raised_before_any_thread_starts() -> None:
    started = []

    async def main(index: int, listener: socket.socket) -> None:
        started.append(index)

    with socket.socket() as taken:
        taken.bind(ADDRESS)
        taken.listen()
        with pytest.raises(OSError):
            tokioloop.serve(main, threads=2, sockets=[ADDRESS, taken.getsockname()])
    assert started == []


@pytest.mark.parametrize("port", [70000, 65536, -1])
def test_a_port_out_of_range_is_raised_as_start_server_does(port: int) -> None:
    async def main(index: int, listener: socket.socket) -> None:
        pytest.fail(f"it listens on {listener.getsockname()}")

    with pytest.raises(OverflowError) as ours:
        tokioloop.serve(main, threads=1, sockets=[("127.0.0.1", port)])
    with pytest.raises(OverflowError) as asyncios:
        asyncio.run(asyncio.start_server(lambda *streams: None, "127.0.0.1", port))
    assert str(ours.value) == str(asyncios.value)


def test_the_first_exception_is_raised_and_the_others_are_cancelled() -> None:
    cancelled = []
    waiting = threading.Barrier(3)

    async def main(index: int) -> None:
        try:
            # The one that has its answer first ends the others, which may wait for theirs.
            await asyncio.get_running_loop().run_in_executor(None, waiting.wait)
            if index == 1:
                raise LookupError("of thread 1")
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(index)
            raise

    with pytest.raises(LookupError, match="of thread 1") as raised:
        tokioloop.serve(main, threads=3)
    assert sorted(cancelled) == [0, 2]
    assert raised.value.__context__ is None


def test_later_exceptions_come_in_the_context_of_the_first() -> None:
    waiting = threading.Barrier(2)

    async def main(index: int) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(None, waiting.wait)
            if index == 0:
                raise LookupError("first")
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise ValueError("while ending") from None

    with pytest.raises(LookupError, match="first") as raised:
        tokioloop.serve(main, threads=2)
    others = raised.value.__context__
    if sys.version_info >= (3, 11):
        assert isinstance(others, ExceptionGroup)  # noqa: F821
        (others,) = others.exceptions
    assert isinstance(others, ValueError)


def test_nothing_is_restarted_when_a_main_returns() -> None:
    calls = []
    first_is_done = threading.Event()

    async def main(index: int) -> int:
        calls.append(index)
        if index == 0:
            first_is_done.set()
            return 10
        await asyncio.get_running_loop().run_in_executor(None, first_is_done.wait)
        await asyncio.sleep(0.01)
        return 11

    assert tokioloop.serve(main, threads=2) == [10, 11]
    assert sorted(calls) == [0, 1]


def test_tasks_generators_and_executors_end_with_their_loop() -> None:
    ended = []

    async def generator(index: int) -> Any:
        try:
            yield index
        finally:
            ended.append(f"generator {index}")

    async def task(index: int) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(f"task {index}")

    left_open = []

    async def main(index: int) -> None:
        left_open.append(asyncio.create_task(task(index)))
        values = generator(index)
        left_open.append(values)
        assert await values.__anext__() == index

    tokioloop.serve(main, threads=2)
    assert sorted(ended) == ["generator 0", "generator 1", "task 0", "task 1"]


@pytest.mark.parametrize("threads", [0, -1])
def test_there_has_to_be_a_thread(threads: int) -> None:
    with pytest.raises(ValueError, match="threads must be at least 1"):
        tokioloop.serve(asyncio.sleep, threads=threads)


def test_it_refuses_to_block_a_running_loop() -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match="running event loop"):
            tokioloop.serve(asyncio.sleep, threads=1)

    tokioloop.run(main())


def test_loops_come_from_the_factory_in_their_own_threads() -> None:
    made_in = []

    def factory() -> tokioloop.TokioLoop:
        made_in.append(threading.current_thread().name)
        return tokioloop.TokioLoop(busy_poll=1)

    async def main(_index: int) -> bool:
        return asyncio.get_running_loop().get_debug()

    assert tokioloop.serve(main, threads=2, loop_factory=factory, debug=True) == [True, True]
    assert sorted(made_in) == ["tokioloop-serve-0", "tokioloop-serve-1"]


def test_a_result_from_a_thread_that_is_not_the_main_one() -> None:
    async def main(index: int) -> int:
        return index

    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.extend(tokioloop.serve(main, threads=2)))
    thread.start()
    thread.join()
    assert results == [0, 1]


def test_the_gil_is_warned_of_once() -> None:
    async def main(_index: int) -> None:
        pass

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tokioloop.serve(main, threads=2)
        tokioloop.serve(main, threads=1)
    messages = [str(warning.message) for warning in caught]
    # An extension that another test has imported may have turned it on.
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    assert len(messages) == (1 if gil else 0), messages
    if gil:
        assert "the GIL is enabled" in messages[0]
        assert caught[0].category is RuntimeWarning
        assert caught[0].filename == __file__


SIGNALLED = """
import asyncio, os, signal, threading, warnings, tokioloop
warnings.simplefilter("ignore", RuntimeWarning)
ended = []
everybody = threading.Barrier(3)

async def main(index):
    try:
        await asyncio.get_running_loop().run_in_executor(None, everybody.wait)
        if index == 2:
            os.kill(os.getpid(), signal.{signal})
        await asyncio.sleep(60)
    finally:
        await asyncio.sleep(0.001)
        ended.append(index)

before = signal.getsignal(signal.{signal})
try:
    print("returned", tokioloop.serve(main, threads=3))
except KeyboardInterrupt:
    print("KeyboardInterrupt")
assert sorted(ended) == [0, 1, 2]
assert signal.getsignal(signal.{signal}) is before
"""


@pytest.mark.parametrize(
    ("number", "outcome"),
    [(signal.SIGTERM, "returned [None, None, None]\n"), (signal.SIGINT, "KeyboardInterrupt\n")],
)
def test_a_signal_ends_every_loop_in_order(number: signal.Signals, outcome: str) -> None:
    assert output_of(TOKIOLOOP, SIGNALLED.format(signal=number.name)) == outcome


IGNORING = """
import asyncio, os, signal, warnings, tokioloop
warnings.simplefilter("ignore", RuntimeWarning)
signal.signal(signal.{signal}, signal.SIG_IGN)

async def main(index):
    os.kill(os.getpid(), signal.{signal})
    await asyncio.sleep(0.01)
    return signal.getsignal(signal.{signal}) is signal.SIG_IGN

print(tokioloop.serve(main, threads=2))
assert signal.getsignal(signal.{signal}) is signal.SIG_IGN
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_the_process_ignores_is_ignored(number: signal.Signals) -> None:
    assert output_of(TOKIOLOOP, IGNORING.format(signal=number.name)) == "[True, True]\n"


STUBBORN = """
import asyncio, os, signal, threading, warnings, tokioloop
warnings.simplefilter("ignore", RuntimeWarning)

async def main(index):
    while True:
        os.kill(os.getpid(), signal.SIGTERM)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass

try:
    tokioloop.serve(main, threads=1)
except SystemExit as exit:
    print("gave up with", exit.code)
"""


# In debug mode the loop's thread is most of the time in Python code that the
# loop calls; before 3.14 the interpreter ends the thread there.
@pytest.mark.parametrize("debug", ["", "1"])
def test_a_second_signal_does_not_wait(debug: str) -> None:
    environment = {"PYTHONASYNCIODEBUG": debug}
    expected = f"gave up with {128 + signal.SIGTERM}\n"
    assert output_of(TOKIOLOOP, STUBBORN, environment) == expected


INTERRUPTED = """
import asyncio, contextlib, os, signal, warnings, tokioloop
warnings.simplefilter("ignore", RuntimeWarning)

class Reload(Exception):
    pass

def on_alarm(*_):
    raise Reload

async def main(index):
    os.kill(os.getpid(), signal.SIGALRM)
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(60)
    while True:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.01)

signal.signal(signal.SIGALRM, on_alarm)
# What main sends after serve has given up is not to end the process.
signal.signal(signal.SIGTERM, lambda *_: None)
try:
    tokioloop.serve(main, threads=1)
except SystemExit as exit:
    print("gave up with", exit.code)
"""


def test_a_second_signal_does_not_wait_either_where_another_handler_has_raised() -> None:
    assert output_of(TOKIOLOOP, INTERRUPTED) == f"gave up with {128 + signal.SIGTERM}\n"


def test_what_another_handler_raises_ends_every_loop_first() -> None:
    class Reload(Exception):
        pass

    def on_alarm(*_: Any) -> None:
        raise Reload

    cleaned_up = []
    both = threading.Barrier(2)

    async def main(index: int, listener: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(None, both.wait, 10)
            if index == 0:
                os.kill(os.getpid(), signal.SIGALRM)
            await asyncio.get_running_loop().create_future()
        finally:
            cleaned_up.append(listener)

    previous = signal.signal(signal.SIGALRM, on_alarm)
    try:
        with pytest.raises(Reload):
            tokioloop.serve(main, threads=2, sockets=[ADDRESS])
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert [listener.fileno() for listener in cleaned_up] == [-1, -1]


def test_one_loop_per_processor_is_the_default() -> None:
    async def main(_index: int) -> None:
        pass

    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert len(tokioloop.serve(main)) == available
