"""Sub-interpreters, development mode, `asyncio.run(debug=True)`, and a look from outside."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time

import pytest

from tests.support.programs import output_of, run_program, start_program

SUB = """
    import sys
    if sys.version_info >= (3, 13):
        import _interpreters as interpreters
        kinds = ["isolated", "legacy"]
    else:
        import _xxsubinterpreters as interpreters
        kinds = [None]

    def try_import():
        for kind in kinds:
            made = interpreters.create() if kind is None else interpreters.create(kind)
            interpreters.run_string(made, '''if True:
                try:
                    import tokioloop
                except ImportError as error:
                    print("refused:", error, flush=True)
            ''')
            interpreters.destroy(made)
"""
MAIN = """
    loop = new_loop()
    print(loop.run_until_complete(asyncio.sleep(0, "the main one works")))
    loop.close()
"""


@pytest.mark.flavours("tokioloop", reason="asyncio is Python, and in every interpreter")
class TestSubInterpreters:
    @pytest.mark.parametrize("first", ["the main one", "the other"])
    def test_they_are_refused_and_the_main_one_works(self, flavour, first):
        steps = [MAIN, "    try_import()\n"]
        program = SUB + "".join(steps if first == "the main one" else steps[::-1])
        lines = output_of(flavour, program).splitlines()
        lines.remove("the main one works")
        assert len(lines) == (2 if sys.version_info >= (3, 13) else 1)
        for line in lines:
            assert line.startswith("refused:")
            assert "subinterpreter" in line.replace("-", "")


WORK = """
    import os, socket, sys, tempfile
    async def main():
        loop = asyncio.get_running_loop()
        assert loop.get_debug()
        async def serve(reader, writer):
            writer.write((await reader.readline()).upper())
            await writer.drain()
            writer.close()
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"line\\n")
            assert await reader.read() == b"LINE\\n"
            writer.close()
            await writer.wait_closed()
        process = await asyncio.create_subprocess_exec("cat", stdin=-1, stdout=-1)
        assert (await process.communicate(b"x"))[0] == b"x"
        transport, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))
        transport.close()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            theirs.setblocking(False)
            await loop.sock_sendall(ours, b"raw")
            assert await loop.sock_recv(theirs, 10) == b"raw"
        await asyncio.to_thread(int)
        await asyncio.wait_for(asyncio.sleep(0), 5)
        return "worked"
"""


def without_noise(program):
    """What a program says on standard error that it should not."""
    slow = ("Executing <", "poll ")
    return [line for line in program.stderr.splitlines() if not line.startswith(slow)]


@pytest.mark.flavours(
    "asyncio", "tokioloop", reason="uvloop warns of itself, rloop has no debug mode"
)
class TestDebugging:
    def test_a_program_runs_clean_in_development_mode(self, flavour):
        program = (
            WORK
            + """
    async def run_there():
        return await main()
    loop = new_loop()
    print(loop.run_until_complete(run_there()))
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    assert sys.flags.dev_mode
"""
        )
        done = run_program(flavour, program, {"PYTHONDEVMODE": "1", "PYTHONWARNINGS": "error"})
        assert (done.returncode, done.stdout) == (0, "worked\n"), done.stderr
        assert without_noise(done) == []

    @pytest.mark.min_python(3, 12)
    def test_asyncio_run_takes_debug(self, flavour):
        program = (
            WORK
            + """
    print(asyncio.run(main(), debug=True, loop_factory=new_loop))
"""
        )
        done = run_program(flavour, program, {"PYTHONWARNINGS": "error"})
        assert (done.returncode, done.stdout) == (0, "worked\n"), done.stderr
        assert without_noise(done) == []

    @pytest.mark.min_python(3, 11)
    def test_a_runner_takes_debug(self, flavour):
        program = (
            WORK
            + """
    with asyncio.Runner(debug=True, loop_factory=new_loop) as runner:
        print(runner.run(main()))
        print(runner.run(main()))
"""
        )
        assert output_of(flavour, program) == "worked\nworked\n"

    def test_the_environment_turns_debug_mode_on(self, flavour):
        program = """
    loop = new_loop()
    print(loop.get_debug())
    loop.close()
"""
        assert output_of(flavour, program, {"PYTHONASYNCIODEBUG": "1"}) == "True\n"


WAITING = """
    import socket
    async def leaf():
        await asyncio.sleep(1000)
    async def branch():
        await asyncio.create_task(leaf(), name="the leaf")
    async def main():
        first, peer = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=first)
        second, other_peer = socket.socketpair()
        second.setblocking(False)
        receiving = asyncio.get_running_loop().sock_recv(second, 1)
        async with asyncio.TaskGroup() as group:
            group.create_task(branch(), name="the branch")
            group.create_task(reader.read(1), name="the reader")
            group.create_task(receiving, name="the receiver")
            for _ in range(3):
                await asyncio.sleep(0)
            print("ready", flush=True)
    loop = new_loop()
    loop.run_until_complete(main())
"""


@pytest.mark.min_python(3, 14)
@pytest.mark.skipif(sys.platform != "linux", reason="another process's memory is read")
@pytest.mark.flavours("asyncio", "tokioloop", reason="uvloop and rloop are read in the same way")
class TestFromOutside:
    @pytest.fixture
    def process(self, flavour):
        program = start_program(flavour, WAITING)
        try:
            assert program.stdout.readline() == "ready\n"
            yield program
        finally:
            program.kill()
            program.communicate()

    def look(self, command, process):
        # The process is read while it runs: a look may come at a bad moment.
        for _ in range(20):
            done = subprocess.run(
                [sys.executable, "-m", "asyncio", command, str(process.pid)],
                capture_output=True,
                text=True,
                timeout=20,
            )
            if done.returncode == 0 and "the leaf" in done.stdout:
                return done.stdout
            if "ermission" in done.stderr + done.stdout:
                pytest.skip("this machine does not let one process look into another")
            time.sleep(0.05)
        raise AssertionError(f"{done.returncode}\n{done.stdout}\n{done.stderr}")

    def test_ps_lists_the_tasks_with_what_they_wait_for(self, process):
        (leaf,) = (
            line for line in self.look("ps", process).splitlines() if "sleep -> leaf" in line
        )
        assert leaf.index("the leaf") < leaf.index("sleep -> leaf") < leaf.index("the branch")

    def test_ps_lists_tasks_whose_coroutines_are_the_loops_own(self, process):
        text = self.look("ps", process)
        assert "the reader" in text
        assert "the receiver" in text

    def test_pstree_draws_who_waits_for_whom(self, process):
        text = self.look("pstree", process)
        assert text.index("the branch") < text.index("the leaf") < text.index("sleep")


@pytest.mark.min_python(3, 14)
@pytest.mark.flavours("asyncio", "tokioloop", reason="the tasks are asyncio's in every loop")
def test_the_call_graph_of_a_task_can_be_captured(loop):
    async def leaf():
        await asyncio.sleep(1000)

    async def branch():
        await leaf()

    async def main():
        task = asyncio.create_task(branch())
        await asyncio.sleep(0)
        graph = asyncio.capture_call_graph(task)
        names = [entry.frame.f_code.co_name for entry in graph.call_stack]
        assert names == ["sleep", "leaf", "branch"]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    loop.run_until_complete(main())
