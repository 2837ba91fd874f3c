"""Starting and ending the processes of a measurement: the load client and the servers.

Every process is started with a handshake that is bounded in time and is ended by its own
id, together with what wrapped it (`strace`, `valgrind`).
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PERF = Path(__file__).resolve().parent
ROOT = PERF.parent
# What a shell may have set for its own work, and what changes the speed of some loops only.
UNWANTED = frozenset(
    {
        "PYTHONASYNCIODEBUG",
        "PYTHONDEVMODE",
        "PYTHONMALLOC",
        "PYTHONTRACEMALLOC",
        "RUST_LOG",
        "TOKIOLOOP_CONSOLE",
    }
)


class ServerFailed(Exception):
    """A server did not start, or ended before it was told to; the message says how."""


@dataclass
class Server:
    """A running server: where it listens and whose CPU time counts."""

    target: str
    pid: int
    process: subprocess.Popen[str]
    announcement: dict[str, Any]


def load_binary() -> Path:
    """Build the load generator if it is out of date, and return its path."""
    if not sys.platform.startswith("linux"):
        sys.exit("this needs Linux: the load generator (perf/load) uses epoll")
    target_dir = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    binary = target_dir / "release" / "tokioloop-load"
    if shutil.which("cargo") is None:
        if binary.exists():
            return binary
        sys.exit("cargo is needed to build perf/load; install Rust first")
    command = ["cargo", "build", "--release", "--quiet", "--package", "tokioloop-load"]
    if subprocess.run(command, cwd=ROOT).returncode != 0:
        sys.exit("perf/load does not build")
    return binary


def cores() -> tuple[int | None, int | None]:
    """One core for the server and another for the client, where the machine has two."""
    allowed = sorted(os.sched_getaffinity(0))
    return (allowed[0], allowed[1]) if len(allowed) > 1 else (None, None)


def script_command(script: str, *options: str) -> list[str]:
    """The command line of one of the scripts here, on the interpreter of the harness."""
    return [sys.executable, str(PERF / script), *options]


def server_command(loop: str, mode: str, *extra: str, script: str = "server.py") -> list[str]:
    """The command line of a server for a loop and a mode."""
    return script_command(script, "--loop", loop, "--mode", mode, *extra)


def unavailable(name: str) -> str | None:
    """Why a loop cannot be used, or None; asked in a process of its own, which may crash."""
    done = subprocess.run(
        script_command("loops.py", name), capture_output=True, text=True, timeout=60.0
    )
    if done.returncode == 0:
        return None
    return (done.stdout + done.stderr).strip() or ending(done.returncode)


def end_children_on_sigterm() -> None:
    """Make a polite kill of the harness end its servers, as an interrupt does."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))


@contextmanager
def running(
    command: Sequence[str],
    *,
    wrapper: Sequence[str] = (),
    prefix: str = "",
    timeout: float = 20.0,
    layout: int = 0,
) -> Iterator[Server]:
    """Run a server until the block ends; `wrapper` is a tracer to run it under.

    `layout` is the seed of the server's hashes, which decides `server.scatter` too.
    """
    ours = {name: value for name, value in os.environ.items() if name not in UNWANTED}
    env = {**ours, "PYTHONHASHSEED": str(layout)}
    with tempfile.TemporaryFile("w+") as stderr:
        process = subprocess.Popen(
            [*wrapper, *command], stdout=subprocess.PIPE, stderr=stderr, text=True, env=env
        )
        announcement = None
        try:
            announcement = _handshake(process, timeout)
            if announcement is None:
                raise ServerFailed(_last_words(process, stderr))
            target = _target(announcement, prefix)
            server = Server(target, announcement["pid"], process, announcement)
            yield server
            if process.poll() is not None:
                raise ServerFailed(_last_words(process, stderr))
        finally:
            _end(process, announcement["pid"] if announcement else None)


def _target(announcement: dict[str, Any], prefix: str) -> str:
    if "path" in announcement:
        return f"unix:{announcement['path']}"
    return f"{prefix}127.0.0.1:{announcement['port']}"


def _handshake(process: subprocess.Popen[str], timeout: float) -> dict[str, Any] | None:
    """Read the line in which a server says where it listens; None if it never comes."""
    assert process.stdout is not None
    readable, _, _ = select.select([process.stdout], [], [], timeout)
    line = process.stdout.readline() if readable else ""
    if not line.startswith("{"):
        return None
    announcement: dict[str, Any] = json.loads(line)
    return announcement


def _last_words(process: subprocess.Popen[str], stderr: Any) -> str:
    """How a server ended: its last line on stderr, or the signal that killed it."""
    try:
        code = process.wait(timeout=1.0)
    except subprocess.TimeoutExpired:
        return "it did not say where it listens in time"
    stderr.seek(0)
    lines = [line for line in stderr.read().splitlines() if line.strip()]
    return lines[-1] if lines and code >= 0 else ending(code)


def ending(status: int) -> str:
    """How a process ended, in words."""
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    return f"exited with status {status}"


def _end(process: subprocess.Popen[str], pid: int | None) -> None:
    """End a server and its tracer. The traced process first: then the tracer reports."""
    if pid is not None and pid != process.pid:
        with_signal(pid, signal.SIGTERM)
    elif process.poll() is None:
        process.terminate()
    try:
        process.wait(timeout=10.0)
    except subprocess.TimeoutExpired:
        if pid is not None:
            with_signal(pid, signal.SIGKILL)
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def with_signal(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may have gone already."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


RunningServer = AbstractContextManager[Server]


@contextmanager
def holding(binary: Path, target: str, connections: int) -> Iterator[None]:
    """Keep idle connections to a server open until the block ends."""
    process = subprocess.Popen(
        [str(binary), "hold", "--target", target, "--connections", str(connections)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        announcement = _handshake(process, 60.0)
        connected = announcement["connected"] if announcement else 0
        if connected != connections:
            raise ClientFailed(f"only {connected} of {connections} connections were served")
        yield
    finally:
        # The end of its input tells the client to let go.
        try:
            process.communicate(timeout=10.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


class ClientFailed(Exception):
    """The load client gave no figures; the message is what it said."""


def run_client(binary: Path, command: str, *options: str, timeout: float) -> dict[str, Any]:
    """Run the load client and return the object that it prints."""
    process = subprocess.Popen(
        [str(binary), command, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise ClientFailed(f"no result after {timeout:.0f} s") from None
    if process.returncode != 0:
        raise ClientFailed(err.strip() or f"exited with status {process.returncode}")
    figures: dict[str, Any] = json.loads(out)
    return figures
