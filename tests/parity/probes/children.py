"""Subprocesses: transports, pipes, exit, signals, keywords, and programs that cannot start."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from typing import Any

from ..harness import Trace
from ..registry import probe
from ..wires import Told, turns, until

Loop = Any


class Child(Told):
    """A subprocess protocol; when a child ends is chance, so that is told by `_finished` alone."""

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace, tell=False)
        self.output: dict[int, bytes] = {}

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self.output[fd] = self.output.get(fd, b"") + data

    def pipe_connection_lost(self, fd: int, exc: BaseException | None) -> None:
        self.calls.append(f"pipe_connection_lost {fd} {exc!r}")

    def process_exited(self) -> None:
        self.calls.append("process_exited")


async def _finished(trace: Trace, protocol: Child) -> None:
    await until(lambda: protocol.lost)
    await turns(2)
    trace("calls", sorted(protocol.calls[1:-1]), protocol.calls[-1])
    trace("output", protocol.output)


@probe("A.subprocess_exec")
async def a_child_runs_and_ends(loop: Loop, trace: Trace) -> None:
    code = (
        "import sys; sys.stderr.write('err'); print(sys.stdin.read().upper(), end=''); sys.exit(3)"
    )
    transport, protocol = await loop.subprocess_exec(
        lambda: Child(trace), sys.executable, "-c", code
    )
    trace("is a", isinstance(transport, asyncio.SubprocessTransport))
    trace("pid", transport.get_pid() > 0, transport.get_returncode())
    trace("pipes", *(transport.get_pipe_transport(fd) is not None for fd in (0, 1, 2)))
    trace("no such pipe", transport.get_pipe_transport(3))
    trace(
        "extra",
        type(transport.get_extra_info("subprocess")).__name__,
        transport.get_extra_info("nonsense"),
    )
    for fd in (0, 1):
        pipe = transport.get_pipe_transport(fd)
        trace("pipe", type(pipe.get_extra_info("pipe")).__name__, pipe.get_extra_info("socket"))
    trace("repr", repr(transport))
    stdin = transport.get_pipe_transport(0)
    stdin.write(b"hello")
    stdin.close()
    await _finished(trace, protocol)
    trace("after", transport.get_returncode(), transport.is_closing())
    for name, args in (("send_signal", (signal.SIGTERM,)), ("terminate", ()), ("kill", ())):
        trace.attempt(name, getattr(transport, name), *args)
    trace("repr", repr(transport))
    trace.attempt("close", transport.close)
    trace.attempt("pid", lambda: transport.get_pid() > 0)


@probe("A.subprocess_exec", each=["terminate", "kill", "send_signal", "close"])
async def a_child_is_ended(loop: Loop, trace: Trace, name: str) -> None:
    transport, protocol = await loop.subprocess_exec(lambda: Child(trace), "sleep", "30")
    trace("running", transport.get_returncode(), transport.is_closing())
    trace.attempt(
        name, getattr(transport, name), *((signal.SIGUSR1,) if name == "send_signal" else ())
    )
    await _finished(trace, protocol)
    trace("code", transport.get_returncode())


@probe("A.subprocess_shell")
async def a_shell_runs_a_command(loop: Loop, trace: Trace) -> None:
    for command in ("echo out; echo err >&2; exit 5", b"printf bytes"):
        transport, protocol = await loop.subprocess_shell(lambda: Child(trace), command)
        await _finished(trace, protocol)
        trace("code", transport.get_returncode())
    for command in (5, None, ["echo"]):
        await trace.attempt_await("command", loop.subprocess_shell, lambda: Child(trace), command)


KEYWORDS: dict[str, dict[str, Any]] = {
    "text": {"text": True},
    "encoding": {"encoding": "utf-8"},
    "errors": {"errors": "strict"},
    "universal_newlines": {"universal_newlines": True},
    "shell": {"shell": True},
    "bufsize": {"bufsize": 5},
    "unknown": {"colour": 5},
    "env": {"env": {"NAME": "value"}},
    "empty env": {"env": {}},
    "cwd": {"cwd": "/"},
    "no such cwd": {"cwd": "/no/such/folder"},
    "umask": {"umask": 0o077},
    "new session": {"start_new_session": True},
    "no output": {"stdout": None, "stdin": None, "stderr": None},
    "devnull": {
        "stdout": subprocess.DEVNULL,
        "stdin": subprocess.DEVNULL,
        "stderr": subprocess.DEVNULL,
    },
    "stderr into stdout": {"stderr": subprocess.STDOUT},
    "stdin is nonsense": {"stdin": "x"},
    "stdin is a closed number": {"stdin": 9999},
    "pass_fds": {"pass_fds": [2]},
    "preexec": {"preexec_fn": lambda: None},
    "failing preexec": {"preexec_fn": lambda: 1 / 0},
    "executable": {"executable": "/bin/sh"},
    "nul in env": {"env": {"A": "\0"}},
    "close_fds": {"close_fds": False},
    "startupinfo": {"startupinfo": None, "creationflags": 0},
    "process group": {"process_group": 0},
}


@probe("A.subprocess_exec", each=KEYWORDS)
async def keywords_of_children(loop: Loop, trace: Trace, what: str) -> None:
    args = ("/bin/sh", "-c", "echo ${NAME-unset}; pwd; umask; echo err >&2")
    try:
        transport, protocol = await loop.subprocess_exec(
            lambda: Child(trace), *args, **({"stderr": subprocess.DEVNULL} | KEYWORDS[what])
        )
    except Exception as exc:
        trace("raises", exc)
        return
    if stdin := transport.get_pipe_transport(0):
        stdin.close()
    trace("pipes", *(transport.get_pipe_transport(fd) is not None for fd in (0, 1, 2)))
    await _finished(trace, protocol)
    trace("code", transport.get_returncode())


PROGRAMS: dict[str, tuple[Any, ...]] = {
    "missing": ("/no/such/program",),
    "a folder": ("/",),
    "no arguments": (),
    "number": (5,),
    "number as argument": ("echo", 5),
    "None": (None,),
    "nul": ("echo", "a\0b"),
    "bytes": (b"true",),
    "list": (["true"],),
}


@probe("A.subprocess_exec", each=PROGRAMS)
async def programs_that_cannot_start(loop: Loop, trace: Trace, what: str) -> None:
    result = await trace.attempt_await(
        "exec", loop.subprocess_exec, lambda: Child(trace), *PROGRAMS[what]
    )
    if result:
        await _finished(trace, result[1])


@probe("A.subprocess_exec")
async def a_factory_that_raises(loop: Loop, trace: Trace) -> None:
    def factory() -> Any:
        raise ValueError("probe")

    await trace.attempt_await("exec", loop.subprocess_exec, factory, "true")
    await trace.attempt_await("not callable", loop.subprocess_exec, 5, "true")


@probe("A.subprocess_exec")
async def the_streams_of_a_child(loop: Loop, trace: Trace) -> None:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec("cat", stdin=pipe, stdout=pipe)
    trace("communicate", await process.communicate(b"x" * 300_000))
    trace("code", process.returncode, await process.wait())
    await asyncio.sleep(0.02)
    trace.attempt("kill", process.kill)
    process = await asyncio.create_subprocess_shell("exit 7", stdin=pipe)
    trace("wait", await process.wait())
    trace("communicate after", await process.communicate(b"lost"))
    process = await asyncio.create_subprocess_exec("sleep", "30")
    try:
        await asyncio.wait_for(process.wait(), 0.02)
    except asyncio.TimeoutError:
        trace("timed out", process.returncode)
    process.terminate()
    trace("terminated", await process.wait())


@probe("A.subprocess_exec")
async def no_child_is_left_behind(loop: Loop, trace: Trace) -> None:
    async def one(number: int) -> int:
        process = await asyncio.create_subprocess_exec("/bin/sh", "-c", f"exit {number}")
        return await process.wait()

    trace("codes", await asyncio.gather(*(one(number) for number in range(10))))
    await turns(3)
    trace.attempt("zombies", os.waitpid, -1, os.WNOHANG)
