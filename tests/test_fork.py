"""`fork` from inside a running loop: the child's ends are the child's, the parent goes on."""

from __future__ import annotations

import os

import pytest

from tests.support.programs import output_of, run_program

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here"),
    # Threads of an executor or of the interpreter may be there when the program forks.
    pytest.mark.flavours(
        "asyncio", "tokioloop", "uvloop", reason="rloop's poll set is shared with the child"
    ),
]

PREAMBLE = """
import os, socket, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of fork in a process with threads

def in_child(function):
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    try:
        function()
    except BaseException:
        import traceback
        traceback.print_exc()
        os._exit(1)
    os._exit(0)

class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
    def data_received(self, data):
        self.transport.write(data)

async def round_trip(address, word):
    reader, writer = await asyncio.open_connection(*address)
    writer.write(word)
    assert await reader.readexactly(len(word)) == word
    writer.close()
    await writer.wait_closed()
"""


def check(flavour, body):
    import textwrap

    assert output_of(flavour, PREAMBLE + textwrap.dedent(body)) == "done\n"


def test_the_child_runs_a_loop_of_its_own(flavour):
    check(
        flavour,
        """
        async def main():
            server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0)
            async with server:
                await round_trip(server.sockets[0].getsockname(), b"word")

        def child():
            # What asyncio does by itself in a child since 3.12: no loop is running here.
            asyncio._set_running_loop(None)
            loop = new_loop()
            loop.run_until_complete(main())
            loop.close()

        async def parent():
            assert in_child(child) == 0
            await main()

        loop = new_loop()
        loop.run_until_complete(parent())
        loop.close()
        print("done")
        """,
    )


def test_the_parents_connections_outlive_the_child(flavour):
    check(
        flavour,
        """
        async def parent():
            loop = asyncio.get_running_loop()
            server = await loop.create_server(Echo, "127.0.0.1", 0)
            address = server.sockets[0].getsockname()
            reader, writer = await asyncio.open_connection(*address)
            for number in range(5):
                assert in_child(lambda: None) == 0
                writer.write(b"%d" % number)
                assert await reader.readexactly(1) == b"%d" % number
                await asyncio.sleep(0.001)
                assert await loop.run_in_executor(None, int, "5") == 5
            writer.close()
            await writer.wait_closed()
            server.close()
            await server.wait_closed()
            await loop.shutdown_default_executor()

        loop = new_loop()
        loop.run_until_complete(parent())
        loop.close()
        print("done")
        """,
    )


@pytest.mark.flavours("asyncio", "tokioloop", reason="uvloop's poll set is shared with the child")
def test_a_child_that_closes_the_loop_does_not_disturb_the_parent(flavour):
    """Its poll set is shared with the parent until the child closes it: only its own end may go."""
    check(
        flavour,
        """
        async def parent():
            loop = asyncio.get_running_loop()
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            received = []
            loop.add_reader(ours.fileno(), lambda: received.append(ours.recv(10)))

            def child():
                asyncio._set_running_loop(None)
                os.close(os.open("/dev/null", os.O_RDONLY))

            for number in range(5):
                assert in_child(child) == 0
                theirs.send(b"%d" % number)
                while len(received) <= number:
                    await asyncio.sleep(0)
            loop.remove_reader(ours.fileno())
            ours.close()
            theirs.close()
            assert received == [b"0", b"1", b"2", b"3", b"4"]

        loop = new_loop()
        loop.run_until_complete(parent())
        loop.close()
        print("done")
        """,
    )


def test_a_child_forked_before_the_run_uses_the_listening_socket(flavour):
    """Pre-fork servers: the parent binds, each child accepts on a loop of its own."""
    check(
        flavour,
        """
        async def serve_one(listener):
            served = asyncio.get_running_loop().create_future()
            class One(Echo):
                def connection_lost(self, exc):
                    served.done() or served.set_result(None)
            server = await asyncio.get_running_loop().create_server(One, sock=listener)
            await served
            server.close()

        listener = socket.create_server(("127.0.0.1", 0))
        address = listener.getsockname()
        pid = os.fork()
        if not pid:
            loop = new_loop()
            loop.run_until_complete(serve_one(listener))
            loop.close()
            os._exit(0)
        with socket.create_connection(address, timeout=10) as client:
            client.sendall(b"hello child")
            assert client.recv(100) == b"hello child"
        assert os.waitpid(pid, 0)[1] == 0
        listener.close()
        print("done")
        """,
    )


def test_multiprocessing_by_fork_from_a_coroutine(flavour):
    check(
        flavour,
        """
        import multiprocessing

        async def parent():
            context = multiprocessing.get_context("fork")
            with context.Pool(2) as pool:
                loop = asyncio.get_running_loop()
                results = await loop.run_in_executor(None, pool.map, abs, range(-5, 0))
            assert results == [5, 4, 3, 2, 1]
            await loop.shutdown_default_executor()

        loop = new_loop()
        loop.run_until_complete(parent())
        loop.close()
        print("done")
        """,
    )


@pytest.mark.flavours("asyncio", "tokioloop", reason="uvloop's loops are never collected")
def test_a_child_collects_the_loop_that_its_parents_threads_have_called(flavour):
    check(
        flavour,
        """
        import gc, threading

        def call():
            for _ in range(5):
                loop.call_soon_threadsafe(int)
            loop.call_soon_threadsafe(loop.stop)

        def collected():
            global loop
            kind = type(loop)
            # Neither a descriptor nor a warning is this test's business.
            warnings.simplefilter("ignore")
            del loop
            gc.collect()
            # A weak reference goes first, even where the loop itself stays.
            assert not any(type(each) is kind for each in gc.get_objects())

        loop = new_loop()
        thread = threading.Thread(target=call)
        loop.call_soon(thread.start)
        loop.run_forever()
        thread.join()
        assert in_child(collected) == 0
        loop.close()
        print("done")
        """,
    )


@pytest.mark.parametrize("how", ["collects it", "ends with it"])
@pytest.mark.flavours("asyncio", "tokioloop", reason="uvloop's loops are never collected")
def test_a_child_says_nothing_of_the_loop_that_its_parent_has_left_open(flavour, how):
    program = f"""
        import os, gc, signal
        loop = new_loop()
        loop.run_until_complete(asyncio.sleep(0))
        loop.add_signal_handler(signal.SIGUSR1, int)
        if os.fork() == 0:
            if {how!r} == "collects it":
                del loop
                gc.collect()
            raise SystemExit
        assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
        loop.call_soon(print, "done")
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
    """
    # With its warnings asyncio tells of the loop and of its sockets.
    env = {} if flavour.name == "asyncio" else {"PYTHONDEVMODE": "1"}
    done = run_program(flavour, program, env)
    assert (done.stdout, done.stderr) == ("done\n", "")


@pytest.mark.flavours("tokioloop", reason="asyncio takes what is the parent's for the child's")
@pytest.mark.parametrize("call", ["close()", "add_signal_handler(signal.SIGUSR1, int)"])
def test_a_child_is_refused_its_parents_loop_by_name(flavour, call):
    check(
        flavour,
        f"""
        import signal

        def child():
            try:
                loop.{call}
            except RuntimeError as error:
                assert str(error).startswith({call.partition("(")[0] + "() was"!r}), error
                assert "forked child" in str(error)
            else:
                raise AssertionError

        loop = new_loop()
        assert in_child(child) == 0
        loop.close()
        print("done")
        """,
    )


@pytest.mark.flavours("asyncio", "tokioloop", reason="handles of asyncio's kind")
def test_a_child_may_cancel_the_threadsafe_call_that_forked_it(flavour):
    check(
        flavour,
        """
        import signal, threading

        def child():
            signal.alarm(5)
            assert not handle.cancelled()
            handle.cancel()
            assert handle.cancelled()

        def fork():
            outcome.append(in_child(child))
            loop.stop()

        def send():
            global handle
            handle = loop.call_soon_threadsafe(lambda: (sent.wait(), fork()))
            sent.set()

        outcome, sent = [], threading.Event()
        loop = new_loop()
        loop.call_soon(threading.Thread(target=send).start)
        loop.run_forever()
        assert outcome == [0], outcome
        loop.close()
        print("done")
        """,
    )


@pytest.mark.flavours("asyncio", "tokioloop", reason="uvloop removes handlers only while it runs")
@pytest.mark.parametrize("whose", ["its own", "its parent's"])
def test_a_child_whose_loop_lets_go_of_a_signal_dies_of_it(flavour, whose):
    check(
        flavour,
        f"""
        import signal

        async def handle_and_let_go():
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGTERM, int)
            assert loop.remove_signal_handler(signal.SIGTERM)

        def child():
            asyncio._set_running_loop(None)
            if {whose!r} == "its own":
                own = new_loop()
                own.run_until_complete(handle_and_let_go())
                own.close()
            else:
                assert loop.remove_signal_handler(signal.SIGTERM)
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
            signal.alarm(5)
            os.kill(os.getpid(), signal.SIGTERM)

        async def parent():
            loop.add_signal_handler(signal.SIGTERM, int)
            assert in_child(child) == -signal.SIGTERM
            assert loop.remove_signal_handler(signal.SIGTERM)

        loop = new_loop()
        loop.run_until_complete(parent())
        loop.close()
        print("done")
        """,
    )


@pytest.mark.flavours("tokioloop", reason="it is the one that can be asked of all its loops")
def test_a_child_is_told_nothing_of_its_parents_loops(flavour):
    check(
        flavour,
        """
        from tokioloop.observe import figures

        def child():
            asyncio._set_running_loop(None)
            assert figures.figures_of_all_loops() == {}
            own = new_loop()
            assert len(figures.figures_of_all_loops()) == 1
            own.close()

        async def parent():
            assert in_child(child) == 0

        loop = new_loop()
        loop.run_until_complete(parent())
        assert len(figures.figures_of_all_loops()) == 1
        loop.close()
        print("done")
        """,
    )


@pytest.mark.flavours("asyncio", "tokioloop", reason="uvloop resets what it finds")
@pytest.mark.min_python(3, 12)
def test_a_child_that_keeps_one_handler_of_two_wakes_no_parent(flavour):
    program = (
        PREAMBLE
        + """
import signal
loop = new_loop()

async def main():
    loop.add_signal_handler(signal.SIGUSR1, print, "the parent was told")
    loop.add_signal_handler(signal.SIGTERM, print)

    def child():
        loop.remove_signal_handler(signal.SIGTERM)
        assert signal.set_wakeup_fd(-1) == -1

    print(in_child(child))
    await asyncio.sleep(0.01)

loop.run_until_complete(main())
"""
    )
    assert output_of(flavour, program) == "0\n"


@pytest.mark.flavours("tokioloop", reason="the others' children poll with their parents")
@pytest.mark.parametrize("leaves_by", ["return", "sys.exit(0)", "await asyncio.sleep(0)"])
def test_a_child_that_comes_back_to_the_loop_is_refused_it(flavour, leaves_by):
    """It ends by the error, instead of waiting for events of its parent for ever."""
    check(
        flavour,
        f"""
        async def main():
            pid = os.fork()
            if pid == 0:
                sys.stderr = open(os.devnull, "w")
                {leaves_by}
                return
            loop = asyncio.get_running_loop()
            status = (await loop.run_in_executor(None, os.waitpid, pid, 0))[1]
            assert os.waitstatus_to_exitcode(status) == 7

        loop = new_loop()
        parent = os.getpid()
        try:
            loop.run_until_complete(main())
        except RuntimeError as error:
            if os.getpid() == parent:
                raise
            os._exit(7 if "forked child" in str(error) else 1)
        loop.close()
        print("done")
        """,
    )


def test_a_child_forked_while_a_thread_closes_its_loop_runs_one(flavour):
    """Whatever the thread was holding is not held in the child."""
    check(
        flavour,
        """
        import threading, time

        async def nothing():
            pass

        def run_one():
            loop = new_loop()
            try:
                loop.run_until_complete(nothing())
            finally:
                loop.close()

        run_one()  # what it imports is not imported while the process forks
        ended = threading.Event()

        def work():
            while not ended.is_set():
                run_one()

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        for _ in range(100):
            pid = os.fork()
            if pid == 0:
                try:
                    run_one()
                except BaseException:
                    os._exit(1)
                os._exit(0)
            deadline = time.monotonic() + 10
            ended_child, status = 0, 0
            while not ended_child:
                ended_child, status = os.waitpid(pid, os.WNOHANG)
                if not ended_child and time.monotonic() > deadline:
                    os.kill(pid, 9)
                    os.waitpid(pid, 0)
                    raise SystemExit("a child hangs")
                time.sleep(0.0005)
            assert os.waitstatus_to_exitcode(status) == 0
        ended.set()
        thread.join()
        print("done")
        """,
    )


@pytest.mark.flavours(
    "tokioloop", reason="the others' children take a part of what is the parent's"
)
def test_what_waits_behind_a_callback_that_forks_is_the_parents_alone(flavour):
    check(
        flavour,
        """
        def fork():
            global pid
            pid = os.fork()
            if pid == 0:
                sys.stderr = open(os.devnull, "w")

        loop = new_loop()
        parent, ran = os.getpid(), []
        read, write = os.pipe()
        loop.call_soon(fork)
        loop.call_soon(os.write, write, b"x")
        loop.call_later(0.05, loop.stop)
        try:
            loop.run_forever()
        except RuntimeError:
            assert os.getpid() != parent
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert os.read(read, 10) == b"x"
        loop.close()
        print("done")
        """,
    )
