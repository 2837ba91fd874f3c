"""Numbers of processes that are used again, signals after a fork, odd descriptors for children."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from tests.support.flavours import Flavour
from tests.support.leaks import (
    children_of_this_process,
    leaked_descriptors,
    open_descriptors,
)
from tests.support.net import eventually, settled
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

# macOS and some sandboxes have none: there asyncio's own way is taken.
needs_pidfd = pytest.mark.skipif(
    not hasattr(os, "pidfd_open") or not sys.platform.startswith("linux"),
    reason="needs descriptors of processes",
)

# Writing here chooses the next process number; only root may, and only on Linux.
LAST_PID = Path("/proc/sys/kernel/ns_last_pid")


@pytest.mark.flavours("tokioloop", reason="asyncio waits for the number, whoever has it")
@pytest.mark.skipif(not os.access(LAST_PID, os.W_OK), reason="needs to choose process numbers")
def test_a_child_that_got_the_number_of_another_is_left_alone(loop: Loop, caplog: Any) -> None:
    async def main() -> None:
        process = await asyncio.create_subprocess_exec("sleep", "30")
        process.kill()
        # Somebody else reaps it, and the number is free for the next child.
        os.waitpid(process.pid, 0)
        try:
            LAST_PID.write_text(str(process.pid - 1))
        except OSError:
            pytest.skip("needs to choose process numbers")
        with subprocess.Popen(["sleep", "30"]) as heir:
            taken = heir.pid != process.pid
            status = await asyncio.wait_for(process.wait(), 5)
            heir.kill()
            assert heir.wait() == -signal.SIGKILL
        if taken:
            pytest.skip("another process of this machine took the number")
        assert status == 255

    with caplog.at_level(logging.WARNING, "asyncio"):
        loop.run_until_complete(main())
    assert "exit status already read" in caplog.text


def test_a_child_that_somebody_else_has_waited_for_ends_with_255(
    loop: Loop, flavour: Flavour, caplog: Any
) -> None:
    if flavour.name == "asyncio" and sys.version_info < (3, 12):
        pytest.skip("asyncio waits for each child in a thread, which is faster")

    async def main() -> int:
        process = await asyncio.create_subprocess_exec("sleep", "30")
        process.kill()
        os.waitpid(process.pid, 0)
        return await asyncio.wait_for(process.wait(), 5)

    with caplog.at_level(logging.WARNING, "asyncio"):
        assert loop.run_until_complete(main()) == 255
    assert "will report returncode 255" in caplog.text


@pytest.mark.parametrize("program", ["true", "sleep 0.05"])
def test_children_of_a_process_that_ignores_them_end_with_255(
    loop: Loop, flavour: Flavour, program: str, caplog: Any
) -> None:
    if flavour.name == "asyncio" and program == "true" and sys.version_info >= (3, 12):
        pytest.skip("asyncio's pidfd watcher raises if the child is faster than it")

    async def main() -> int:
        process = await asyncio.create_subprocess_exec(*program.split())
        return await asyncio.wait_for(process.wait(), 5)

    saved = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with caplog.at_level(logging.WARNING, "asyncio"):
            assert loop.run_until_complete(main()) == 255
    finally:
        signal.signal(signal.SIGCHLD, saved)


@needs_pidfd
@pytest.mark.flavours("tokioloop", reason="asyncio has it from Popen only where that comes late")
def test_a_child_whose_end_its_transport_has_seen_ends_with_its_status(
    loop: Loop, caplog: Any
) -> None:
    async def main() -> int:
        process = await asyncio.create_subprocess_exec("sleep", "30")
        os.kill(process.pid, signal.SIGTERM)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        process._transport.close()  # type: ignore[attr-defined]
        return await asyncio.wait_for(process.wait(), 5)

    with caplog.at_level(logging.WARNING, "asyncio"):
        assert loop.run_until_complete(main()) == -signal.SIGTERM
    assert caplog.text == ""


@needs_pidfd
@pytest.mark.flavours("tokioloop", reason="asyncio of 3.12 and later leaves its descriptor open")
def test_a_child_that_outlives_its_loop_leaves_no_descriptor(loop_factory: Any) -> None:
    before = open_descriptors()
    loop = loop_factory()
    process = loop.run_until_complete(asyncio.create_subprocess_exec("sleep", "30"))
    assert len(open_descriptors()) > len(before)
    loop.close()
    assert leaked_descriptors(before) == {}
    transport = process._transport
    transport.close()
    assert transport.get_extra_info("subprocess").wait() == -signal.SIGKILL


@needs_pidfd
@pytest.mark.flavours("tokioloop", reason="asyncio leaves the child behind")
def test_a_child_that_the_poll_cannot_watch_is_not_left_behind(loop: Any, monkeypatch: Any) -> None:
    def none_left(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async def main() -> None:
        first = await asyncio.create_subprocess_exec("true")
        assert await first.wait() == 0
        before = open_descriptors()
        monkeypatch.setattr(loop, "_add_reader", none_left)
        with pytest.raises(OSError, match="No space left"):
            await asyncio.create_subprocess_exec("sleep", "30")
        monkeypatch.undo()
        assert leaked_descriptors(before) == {}
        assert children_of_this_process() <= children

    children = children_of_this_process()
    loop.run_until_complete(main())


@needs_pidfd
@pytest.mark.flavours("tokioloop", reason="asyncio leaves the child and its pipes behind")
def test_a_child_that_cannot_be_watched_is_not_left_behind(loop: Loop, monkeypatch: Any) -> None:
    def none_left(_pid: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async def main() -> None:
        first = await asyncio.create_subprocess_exec("true")
        assert await first.wait() == 0
        monkeypatch.setattr(os, "pidfd_open", none_left)
        with pytest.raises(OSError, match="Too many open files"):
            await asyncio.create_subprocess_exec("sleep", "30", stdin=PIPE, stdout=PIPE)
        await settled()
        assert children_of_this_process() <= children

    children = children_of_this_process()
    loop.run_until_complete(main())


@pytest.mark.parametrize("number", [-1, "closed"])
def test_descriptors_that_cannot_be_passed_on(loop: Loop, number: Any) -> None:
    async def main() -> None:
        passed = number
        if number == "closed":
            ours, theirs = socket.socketpair()
            passed = ours.fileno()
            ours.close()
            theirs.close()
        try:
            process = await asyncio.create_subprocess_exec("true", pass_fds=(passed,))
        except (OSError, ValueError):
            return
        await process.wait()  # asyncio's Popen passes nothing for a number that is not open

    loop.run_until_complete(main())


def test_a_descriptor_that_is_passed_on_keeps_its_flags(loop: Loop) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            for options in ({"pass_fds": (ours.fileno(),)}, {"stdin": ours}, {"stdout": ours}):
                process = await asyncio.create_subprocess_exec("true", **options)
                assert await process.wait() == 0
                assert not os.get_blocking(ours.fileno())
                assert not os.get_inheritable(ours.fileno())

    loop.run_until_complete(main())


def test_a_child_may_reopen_its_input(loop: Loop) -> None:
    async def main() -> None:
        process = await asyncio.create_subprocess_shell("cat /dev/stdin", stdin=PIPE, stdout=PIPE)
        output, _ = await process.communicate(b"reopened")
        assert (output, process.returncode) == (b"reopened", 0)

    loop.run_until_complete(main())


def test_a_child_that_closes_its_input_is_told_as_a_lost_pipe(loop: Loop) -> None:
    class Watcher(asyncio.SubprocessProtocol):
        def __init__(self) -> None:
            self.lost: list[int] = []

        def pipe_connection_lost(self, fd: int, exc: BaseException | None) -> None:
            self.lost.append(fd)

    async def main() -> None:
        transport, protocol = await loop.subprocess_exec(
            Watcher, "sh", "-c", "exec 0<&-; exec sleep 30", stdout=None, stderr=None
        )
        await eventually(lambda: protocol.lost == [0])
        assert transport.get_returncode() is None
        transport.kill()
        await eventually(lambda: transport.get_returncode() is not None)
        transport.close()
        await settled()

    loop.run_until_complete(main())


def test_both_outputs_of_a_child_may_be_one_pipe(loop: Loop) -> None:
    async def main() -> None:
        process = await asyncio.create_subprocess_shell(
            "echo out; echo err >&2; echo out", stdout=PIPE, stderr=asyncio.subprocess.STDOUT
        )
        output, nothing = await process.communicate()
        assert (output, nothing) == (b"out\nerr\nout\n", None)

    loop.run_until_complete(main())


def test_hooks_of_fork_do_not_run_for_children(flavour: Flavour) -> None:
    program = """
        import os, sys
        for when in ("before", "after_in_parent", "after_in_child"):
            os.register_at_fork(**{when: lambda when=when: os.write(1, when.encode())})
        async def main():
            process = await asyncio.create_subprocess_exec("true")
            await process.wait()
        loop = new_loop()
        loop.run_until_complete(main())
        loop.close()
        print("done")
    """
    assert output_of(flavour, program) == "done\n"


IN_CHILD = """
    import os, signal, sys, threading, warnings
    warnings.simplefilter("ignore")

    def in_child(function):
        pid = os.fork()
        if pid == 0:
            try:
                function()
            except BaseException:
                import traceback
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    async def receive_signals():
        loop = asyncio.get_running_loop()
        for number in (signal.SIGUSR1, signal.SIGTERM):
            received = loop.create_future()
            loop.add_signal_handler(number, received.set_result, number)
            os.kill(os.getpid(), number)
            assert await asyncio.wait_for(received, 5) == number
            assert loop.remove_signal_handler(number)

    def use_a_loop():
        loop = new_loop()
        loop.run_until_complete(receive_signals())
        loop.close()
"""


def forked(flavour: Flavour, body: str) -> str:
    return output_of(flavour, textwrap.dedent(IN_CHILD) + textwrap.dedent(body))


def test_signals_reach_a_loop_of_a_forked_child(flavour: Flavour) -> None:
    """The parent's loop runs and has a handler of its own, which stays the parent's."""
    body = """
        async def main():
            loop = asyncio.get_running_loop()
            calls = []
            loop.add_signal_handler(signal.SIGUSR1, calls.append, 1)
            asyncio._set_running_loop(None)
            def child():
                asyncio._set_running_loop(None)
                use_a_loop()
            status = in_child(child)
            asyncio._set_running_loop(loop)
            assert status == 0
            await asyncio.sleep(0.01)
            assert calls == []
            os.kill(os.getpid(), signal.SIGUSR1)
            while not calls:
                await asyncio.sleep(0.001)
        loop = new_loop()
        loop.run_until_complete(main())
        loop.close()
        print("done")
    """
    assert forked(flavour, body) == "done\n"


def test_signals_reach_a_loop_of_a_child_forked_by_a_thread(flavour: Flavour) -> None:
    """That thread is the main thread of the child."""
    body = """
        statuses = []
        loop = new_loop()
        loop.run_until_complete(asyncio.sleep(0))
        thread = threading.Thread(target=lambda: statuses.append(in_child(use_a_loop)))
        thread.start()
        thread.join()
        loop.close()
        print(statuses)
    """
    assert forked(flavour, body) == "[0]\n"


def test_ctrl_c_interrupts_a_loop_of_a_forked_child(flavour: Flavour) -> None:
    body = """
        def child():
            loop = new_loop()
            loop.call_later(0.02, os.kill, os.getpid(), signal.SIGINT)
            try:
                loop.run_until_complete(asyncio.sleep(20))
            except KeyboardInterrupt:
                os._exit(7)
        loop = new_loop()
        loop.run_until_complete(asyncio.sleep(0))
        print(in_child(child))
        loop.close()
    """
    assert forked(flavour, body) == "7\n"
