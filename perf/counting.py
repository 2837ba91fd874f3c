"""What one message costs in instructions and system calls: a short run, a long run, a difference.

The server runs under `valgrind --tool=callgrind` (user-space instructions) and again
under `strace -c -f` (system calls; the allocator's are counted apart), each time for two
numbers of messages. The difference of the two counts divided by the difference in messages
is the cost of one message; start-up, accepting and closing cancel out. Callgrind's counters
are read between the runs on one process, because start-up is what takes its time.

The client works in lockstep: all connections send together once the last reply is there,
so every loop sees the same batches. Connections come as they can, and `raw` runs freely, with
a client that never sleeps: a tracer makes the server so slow that the next request is nearly
always there when `sock_recv` looks, which shows the cost of a receive that need not wait; in
`raw-wait`, in lockstep, every receive waits.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import certificate
import processes
import tracers
from workload import Point, Sample, Settings


@dataclass(frozen=True)
class Mode:
    """The server's mode, and what the client does: one message per connection, if `churn`."""

    server: str
    lockstep: bool = True
    spin: bool = False
    tls: bool = False
    pattern: str = "client"
    # One in so many of the messages of the other modes is enough.
    every: int = 1
    script: str = "server.py"
    # "udp:" for datagrams.
    prefix: str = ""
    # So many loops on threads of their own share the port.
    threads: int = 0


MODES = {
    "proto": Mode("proto"),
    "buffered": Mode("buffered"),
    "stream": Mode("stream"),
    "raw": Mode("raw", lockstep=False, spin=True),
    "raw-wait": Mode("raw"),
    "udp": Mode("udp", prefix="udp:"),
    "tls": Mode("proto", tls=True),
    "accept": Mode("proto", lockstep=False, pattern="churn"),
    "uvicorn": Mode("uvicorn", script="web.py"),
    "aiohttp": Mode("aiohttp", script="web.py"),
    "handshake": Mode("proto", lockstep=False, tls=True, pattern="churn", every=10),
    "threads-1": Mode("proto", script="threads.py", threads=1),
    "threads-2": Mode("proto", script="threads.py", threads=2),
    "threads-4": Mode("proto", script="threads.py", threads=4),
}

# Counted apart: the allocator makes them for large buffers, whatever the loop does.
MEMORY_CALLS = frozenset({"brk", "madvise", "mmap", "mprotect", "mremap", "munmap"})

SIZES = {
    "proto": (1024, 102_400),
    "buffered": (1024,),
    "stream": (1024,),
    "raw": (1024,),
    "raw-wait": (1024,),
    "udp": (1024,),
    "tls": (1024,),
    "accept": (1024,),
    "uvicorn": (1024,),
    "aiohttp": (1024,),
}


@dataclass(frozen=True)
class Counts:
    """Both counts as a workload of the full report."""

    name: str = "counts"
    title: str = "Instructions and system calls per message, 32 connections (fewer are better)"
    figure: str = "instructions"
    unit: str = "instructions"
    limit: bool = False
    variants: tuple[str, ...] = ()
    axes: tuple[str, str] = ("mode", "size")
    most_rounds: int | None = 1
    log_scale: bool = False

    def points(self, settings: Settings) -> list[Point]:
        return [(mode, str(size)) for mode in SIZES for size in settings.sizes or SIZES[mode]]

    def run(self, loop: str, settings: Settings, skip: frozenset[Point]) -> Iterator[Sample]:
        counter = Counter(settings.binary)
        for mode, size in self.points(settings):
            if (mode, size) not in skip:
                figures = counter.figures(loop, mode, int(size))
                # The breakdown by call is for `counts.py --detail`.
                figures.pop("calls", None)
                yield mode, size, figures


class CountFailed(Exception):
    """A run did not carry all its messages, or a tracer gave no count."""


@dataclass(frozen=True)
class Counter:
    """Counts over two run lengths with a fixed number of connections."""

    binary: Path
    connections: int = 32
    short: int = 800
    long: int = 4_000
    # Where callgrind's profiles are kept, for `callgrind_annotate`.
    keep: Path | None = None

    def figures(self, loop: str, mode: str, size: int, only: str | None = None) -> dict[str, Any]:
        """Both counts, or one of them; what goes wrong is a `failure` beside what did not."""
        figures: dict[str, Any] = {}
        try:
            if only != "syscalls":
                figures["instructions"] = self.instructions(loop, mode, size)
            if only != "instructions":
                calls = self.system_calls(loop, mode, size)
                memory = sum(calls.get(name, 0.0) for name in MEMORY_CALLS)
                figures["syscalls"] = sum(calls.values()) - memory
                figures["memory_calls"] = memory
                figures["calls"] = {name: rate for name, rate in calls.items() if rate >= 0.001}
        except (processes.ServerFailed, processes.ClientFailed, CountFailed) as error:
            figures["failure"] = str(error)
        return figures

    def instructions(self, loop: str, mode: str, size: int) -> float:
        """User-space instructions of the server per message."""
        require("valgrind")
        require("vgdb")
        with tempfile.TemporaryDirectory() as scratch:
            out = Path(scratch) / "callgrind.out"
            # Threads take turns under valgrind, these fair ones.
            wrapper = ["valgrind", "--tool=callgrind", "--quiet", "--fair-sched=try"]
            wrapper += [f"--callgrind-out-file={out}"]
            with self._server(loop, mode, wrapper) as server:
                # The first run takes what only happens once, in caches and inline caches.
                for messages in (self.short, self.short, self.long):
                    self._load(server, mode, size, messages)
                    dump_counters(server.process.pid)
            profiles = [out.with_name(f"{out.name}.{number}") for number in (2, 3)]
            few, many = (tracers.parse_callgrind(tracers.read(path)) for path in profiles)
            if few is None or many is None:
                raise CountFailed("callgrind wrote no total")
            if self.keep is not None:
                self.keep.mkdir(parents=True, exist_ok=True)
                shutil.copy(profiles[1], self.keep / f"{loop}-{mode}-{size}.callgrind")
            return (many - few) / self._span(mode)

    def _count(self, mode: str, messages: int) -> int:
        return messages // MODES[mode].every

    def _span(self, mode: str) -> int:
        """By how many messages the long run is longer."""
        return self._count(mode, self.long) - self._count(mode, self.short)

    def system_calls(self, loop: str, mode: str, size: int) -> dict[str, float]:
        """System calls of the server per message, by name."""
        require("strace")
        few, many = (
            self._strace(loop, mode, size, messages) for messages in (self.short, self.long)
        )
        return {
            name: (many.get(name, 0) - few.get(name, 0)) / self._span(mode)
            for name in few.keys() | many.keys()
        }

    def _strace(self, loop: str, mode: str, size: int, messages: int) -> dict[str, int]:
        with tempfile.TemporaryDirectory() as scratch:
            out = Path(scratch) / "strace.out"
            with self._server(loop, mode, ["strace", "-c", "-f", "-o", str(out)]) as server:
                self._load(server, mode, size, messages)
            calls = tracers.parse_strace(tracers.read(out))
            if not calls:
                raise CountFailed("strace wrote no table")
            return calls

    def _server(self, loop: str, mode: str, wrapper: list[str]) -> processes.RunningServer:
        script = MODES[mode].script
        options = ["--certificate", str(certificate.path())] if MODES[mode].tls else []
        if MODES[mode].threads:
            options += ["--threads", str(MODES[mode].threads)]
            command = processes.script_command(script, "--loop", loop, *options)
        else:
            command = processes.server_command(loop, MODES[mode].server, *options, script=script)
        prefix = MODES[mode].prefix
        return processes.running(command, prefix=prefix, wrapper=wrapper, timeout=120.0)

    def _load(self, server: processes.Server, mode: str, size: int, messages: int) -> None:
        messages = self._count(mode, messages)
        options = ["--target", server.target, "--connections", str(self.connections)]
        web = MODES[mode].script == "web.py"
        options += ["--http", f"/{size}"] if web else ["--size", str(size)]
        options += ["--messages", str(messages), "--stall", "20"]
        options += ["--lockstep"] if MODES[mode].lockstep else []
        options += ["--spin"] if MODES[mode].spin else []
        options += ["--tls"] if MODES[mode].tls else []
        result = processes.run_client(self.binary, MODES[mode].pattern, *options, timeout=240.0)
        if result["messages"] != messages:
            raise CountFailed(
                f"{result['messages']} of {messages} messages were answered, "
                f"{result['stalls']} connections stalled, faults: {result['faults']}"
            )


def dump_counters(pid: int) -> None:
    """Have callgrind write its counters to a numbered file and start them afresh."""
    command = ["vgdb", f"--pid={pid}", "dump"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60.0)
    if done.returncode != 0:
        raise CountFailed(f"vgdb cannot reach the server: {done.stderr.strip()}")


def require(tool: str) -> None:
    """Fail the count, and nothing else, where its tool is missing."""
    if shutil.which(tool) is None:
        raise CountFailed(f"{tool} is not installed")
