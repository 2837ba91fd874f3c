"""Children, their pipes and exits; standard streams; signals that always arrive."""

from __future__ import annotations

import asyncio
import errno
import importlib
import os
import signal
import socket
import sys
import threading
from typing import Any

import pytest

from tests.support.flavours import Flavour
from tests.support.leaks import open_descriptors
from tests.support.net import settled
from tests.support.programs import output_of

pytestmark = [
    pytest.mark.flavours(
        "asyncio", "tokioloop", reason="the peers have the defects these tests are about"
    ),
    # Before 3.12 asyncio waits for children in threads, with warnings of their own.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
Loop = asyncio.AbstractEventLoop
PIPE = asyncio.subprocess.PIPE


def test_drain_waits_for_a_child_that_does_not_read(loop: Loop) -> None:
    async def main() -> None:
        process = await asyncio.create_subprocess_exec("sleep", "30", stdin=PIPE)
        assert process.stdin is not None

        async def feed() -> None:
            while True:
                process.stdin.write(bytes(32 << 10))
                await process.stdin.drain()

        task = loop.create_task(feed())
        await settled()
        await settled()
        assert not task.done()
        process.kill()
        assert await process.wait() == -signal.SIGKILL
        assert isinstance((await asyncio.gather(task, return_exceptions=True))[0], ConnectionError)

    loop.run_until_complete(main())


def test_small_writes_to_a_child_keep_their_order(loop: Loop) -> None:
    async def main() -> None:
        process = await asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
        assert process.stdin is not None
        for number in range(500):
            process.stdin.write(b"%d\n" % number)
        process.stdin.close()
        output, _ = await process.communicate()
        assert output == b"".join(b"%d\n" % number for number in range(500))

    loop.run_until_complete(main())


@pytest.mark.flavours("tokioloop", reason="asyncio makes its choice elsewhere, and differently")
def test_children_are_watched_where_the_system_has_no_pidfd(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokioloop._children.supported", lambda: False)

    async def main() -> None:
        ended = await asyncio.create_subprocess_exec("sh", "-c", "exit 3")
        assert await ended.wait() == 3
        cat = await asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
        assert await cat.communicate(b"said") == (b"said", None)
        assert cat.returncode == 0
        killed = await asyncio.create_subprocess_exec("sleep", "30")
        killed.kill()
        assert await killed.wait() == -signal.SIGKILL

    loop.run_until_complete(main())


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="for systems with pidfds")
@pytest.mark.flavours("tokioloop", reason="asyncio makes its choice elsewhere, and differently")
@pytest.mark.parametrize(
    ("number", "calls"), [(errno.EMFILE, 3), (errno.ENFILE, 3), (errno.ENOSYS, 1)]
)
def test_a_system_without_descriptors_is_asked_for_pidfds_again(
    flavour: Flavour, monkeypatch: pytest.MonkeyPatch, number: int, calls: int
) -> None:
    children = importlib.import_module("tokioloop._children")
    answers: list[int] = []

    def refuse(pid: int) -> int:
        answers.append(pid)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(children, "_supported", None)
    with monkeypatch.context() as patched:
        patched.setattr(os, "pidfd_open", refuse)
        for _ in range(3):
            assert children.supported() is False
    assert len(answers) == calls
    monkeypatch.setattr(os, "pidfd_open", lambda pid: os.dup(1))
    monkeypatch.setattr(os, "waitid", lambda *arguments: None)
    assert children.supported() is (calls > 1)


def test_closing_the_transport_of_a_running_child_leaves_no_zombie(loop: Loop) -> None:
    class Watcher(asyncio.SubprocessProtocol):
        def __init__(self) -> None:
            self.calls: list[str] = []

        def process_exited(self) -> None:
            self.calls.append("process_exited")

        def connection_lost(self, exc: BaseException | None) -> None:
            self.calls.append("connection_lost")

    async def main() -> None:
        transport, protocol = await loop.subprocess_exec(Watcher, "sleep", "30")
        transport.close()
        while "connection_lost" not in protocol.calls:
            await asyncio.sleep(0.001)
        assert protocol.calls[-1] == "connection_lost"
        with pytest.raises(ChildProcessError):
            os.waitpid(transport.get_pid(), os.WNOHANG)

    loop.run_until_complete(main())


def test_programs_that_cannot_start_leave_nothing_open(loop: Loop) -> None:
    async def main() -> None:
        for _ in range(3):
            with pytest.raises(FileNotFoundError):
                await asyncio.create_subprocess_exec("/no/such/program", stdin=PIPE, stdout=PIPE)
        before = len(open_descriptors())
        for _ in range(150):
            with pytest.raises(FileNotFoundError):
                await asyncio.create_subprocess_exec("/no/such/program", stdin=PIPE, stdout=PIPE)
        assert len(open_descriptors()) <= before

    loop.run_until_complete(main())


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="needs /proc/self/fd")
def test_a_child_reads_its_stdin_to_the_end(loop: Loop) -> None:
    async def main() -> None:
        process = await asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
        output, _ = await process.communicate(b"x" * 500_000)
        assert len(output) == 500_000

    loop.run_until_complete(main())


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="needs /proc/self/fd")
def test_a_child_may_reopen_its_output(loop: Loop) -> None:
    async def main() -> None:
        process = await asyncio.create_subprocess_shell(
            "echo reopened > /proc/self/fd/1", stdout=PIPE
        )
        output, _ = await process.communicate()
        assert (output, process.returncode) == (b"reopened\n", 0)

    loop.run_until_complete(main())


def test_inheritable_descriptors_do_not_leak_into_children(loop: Loop) -> None:
    async def main() -> None:
        with socket.socket() as unrelated:
            unrelated.set_inheritable(True)
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                f"import os\ntry: os.fstat({unrelated.fileno()})\nexcept OSError: print('closed')",
                stdout=PIPE,
            )
            output, _ = await process.communicate()
            assert output == b"closed\n"

    loop.run_until_complete(main())


def test_an_empty_environment_is_empty(loop: Loop) -> None:
    async def main() -> None:
        process = await asyncio.create_subprocess_exec("/usr/bin/env", env={}, stdout=PIPE)
        assert (await process.communicate())[0] == b""
        for options in ({"env": {"A": "\0"}}, {"cwd": "/\0"}):
            with pytest.raises(ValueError, match="null"):
                await asyncio.create_subprocess_exec("/usr/bin/env", **options)

    loop.run_until_complete(main())


def test_many_children_at_once(loop: Loop) -> None:
    async def one(number: int) -> int:
        process = await asyncio.create_subprocess_exec("/bin/sh", "-c", f"exit {number}")
        return await process.wait()

    async def main() -> None:
        assert await asyncio.gather(*map(one, range(40))) == list(range(40))

    loop.run_until_complete(main())


def test_watching_a_descriptor_leaves_its_blocking_flag(loop: Loop) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            loop.add_reader(ours, int)
            loop.add_writer(theirs, int)
            assert os.get_blocking(ours.fileno())
            assert os.get_blocking(theirs.fileno())
            loop.remove_reader(ours)
            loop.remove_writer(theirs)

    loop.run_until_complete(main())


def test_printing_works_after_a_loop_that_had_the_output(flavour: Flavour) -> None:
    program = """
        import os, sys
        async def main():
            loop = asyncio.get_running_loop()
            for _ in range(2):
                output = os.fdopen(os.dup(1), "wb", 0)
                transport, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, output)
                transport.write(b"through the loop\\n")
                await asyncio.sleep(0.01)
                transport.close()
                await asyncio.sleep(0.01)
        loop = new_loop()
        loop.run_until_complete(main())
        loop.close()
        os.set_blocking(1, True)
        print("after the loop")
    """
    assert output_of(flavour, program) == "through the loop\n" * 2 + "after the loop\n"


def test_an_idle_loop_is_interrupted_every_time(loop: Loop) -> None:
    async def idle() -> None:
        await loop.create_future()

    for _ in range(30):
        task = loop.create_task(idle())
        loop.call_soon(
            lambda: threading.Timer(0.005, os.kill, (os.getpid(), signal.SIGINT)).start()
        )
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(task)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(task)


def test_a_python_handler_runs_while_the_loop_polls(loop: Loop) -> None:
    calls: list[int] = []
    saved = signal.signal(signal.SIGTERM, lambda number, _frame: calls.append(number))
    try:

        async def main() -> None:
            for count in range(1, 21):
                threading.Timer(0.002, os.kill, (os.getpid(), signal.SIGTERM)).start()
                while len(calls) < count:
                    await asyncio.sleep(0.05)

        loop.run_until_complete(main())
    finally:
        signal.signal(signal.SIGTERM, saved)
    assert calls == [signal.SIGTERM] * 20


def test_an_inner_loop_gives_the_signals_back(loop: Loop, loop_factory: Any) -> None:
    async def main() -> None:
        received = loop.create_future()
        loop.add_signal_handler(signal.SIGUSR1, received.set_result, None)

        def other_thread() -> None:
            inner = loop_factory()
            inner.run_until_complete(asyncio.sleep(0.01))

        thread = threading.Thread(target=other_thread)
        thread.start()
        while thread.is_alive():
            await asyncio.sleep(0.001)
        os.kill(os.getpid(), signal.SIGUSR1)
        await asyncio.wait_for(received, 5)
        assert loop.remove_signal_handler(signal.SIGUSR1)

    loop.run_until_complete(main())


def test_a_signal_between_two_runs_arrives_in_the_next(loop: Loop) -> None:
    received: list[int] = []
    loop.add_signal_handler(signal.SIGUSR1, received.append, 1)
    loop.run_until_complete(asyncio.sleep(0))
    os.kill(os.getpid(), signal.SIGUSR1)

    async def main() -> None:
        while not received:
            await asyncio.sleep(0.001)

    loop.run_until_complete(asyncio.wait_for(main(), 5))
    loop.remove_signal_handler(signal.SIGUSR1)


@pytest.mark.flavours("tokioloop", reason="asyncio's wake-up socket overflows, and says so")
def test_a_storm_of_signals_is_survived(loop: Loop) -> None:
    received: list[int] = []
    loop.add_signal_handler(signal.SIGUSR1, received.append, 1)

    async def main() -> None:
        for _ in range(2000):
            os.kill(os.getpid(), signal.SIGUSR1)
        while not received:
            await asyncio.sleep(0)
        await settled()
        count = len(received)
        os.kill(os.getpid(), signal.SIGUSR1)
        while len(received) == count:
            await asyncio.sleep(0.001)

    loop.run_until_complete(asyncio.wait_for(main(), 10))
    loop.remove_signal_handler(signal.SIGUSR1)


def test_closing_a_loop_restores_the_signals(loop_factory: Any) -> None:
    loop = loop_factory()
    loop.add_signal_handler(signal.SIGUSR1, int)
    loop.add_signal_handler(signal.SIGINT, int)
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.set_wakeup_fd(-1) == -1
