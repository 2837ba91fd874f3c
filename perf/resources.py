"""What idle connections cost: memory for each, and system calls while nothing happens."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import processes
import tracers
from cells import Figures
from workload import Point, Sample, Settings


@dataclass(frozen=True)
class Memory:
    """Bytes of a server's own memory per connection that was used once and is idle."""

    name: str = "memory"
    title: str = "Memory per idle connection (less is better)"
    figure: str = "bytes"
    unit: str = "bytes per connection"
    limit: bool = False
    variants: tuple[str, ...] = ()
    axes: tuple[str, str] = ("connections", "state")
    most_rounds: int | None = 1
    log_scale: bool = False

    def points(self, settings: Settings) -> list[Point]:
        return [(str(count), "idle") for count in settings.connections or (4000,)]

    def run(self, loop: str, settings: Settings, skip: frozenset[Point]) -> Iterator[Sample]:
        for point in self.points(settings):
            if point in skip:
                continue
            try:
                with echo_server(loop) as server:
                    figures = self._measure(server, settings, int(point[0]))
            except (processes.ServerFailed, processes.ClientFailed) as error:
                figures = {"failure": str(error)}
            yield *point, figures

    def _measure(self, server: processes.Server, settings: Settings, count: int) -> Figures:
        # The first connections pay for caches and arenas that all share.
        with processes.holding(settings.binary, server.target, WARM_UP_CONNECTIONS):
            before = anonymous_memory(server.pid)
            with processes.holding(settings.binary, server.target, count):
                after = anonymous_memory(server.pid)
        return {"bytes": (after - before) / count, "resident_before": before}


@dataclass(frozen=True)
class Idle:
    """System calls of a loop that has connections and nothing to do."""

    name: str = "idle"
    title: str = "System calls in 5 s without traffic (fewer are better)"
    figure: str = "calls"
    unit: str = "system calls"
    limit: bool = False
    variants: tuple[str, ...] = ()
    axes: tuple[str, str] = ("connections", "state")
    most_rounds: int | None = 1
    log_scale: bool = False

    def points(self, settings: Settings) -> list[Point]:
        return [(str(count), "idle") for count in settings.connections or (1000,)]

    def run(self, loop: str, settings: Settings, skip: frozenset[Point]) -> Iterator[Sample]:
        for point in self.points(settings):
            if point in skip:
                continue
            try:
                with (
                    echo_server(loop) as server,
                    processes.holding(settings.binary, server.target, int(point[0])),
                ):
                    figures: Figures = {"calls": calls_while_idle(server.pid, IDLE_SECONDS)}
            except (processes.ServerFailed, processes.ClientFailed) as error:
                figures = {"failure": str(error)}
            yield *point, figures


def echo_server(loop: str) -> processes.RunningServer:
    """The plain echo server of a loop."""
    return processes.running(processes.server_command(loop, "proto"))


def anonymous_memory(pid: int) -> int:
    """The bytes of a process that no file backs."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        key, _, value = line.partition(":")
        if key == "Anonymous":
            return int(value.split()[0]) * 1024
    raise processes.ServerFailed("the kernel does not say how much memory it uses")


def calls_while_idle(pid: int, seconds: float) -> int:
    """Attach strace for some time and count."""
    if shutil.which("strace") is None:
        raise processes.ServerFailed("strace is not installed")
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "strace.out"
        command = ["strace", "-c", "-f", "-o", str(out), "-p", str(pid)]
        # strace says on stderr that it has attached, once for each thread.
        tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            assert tracer.stderr is not None
            first = tracer.stderr.readline()
            if "attached" not in first:
                raise processes.ServerFailed(first.strip() or "strace cannot attach")
            time.sleep(seconds)
        finally:
            processes.with_signal(tracer.pid, signal.SIGINT)
            tracer.communicate(timeout=10.0)
        # Without any call there is no table.
        return sum(tracers.parse_strace(tracers.read(out)).values())


WARM_UP_CONNECTIONS = 100
IDLE_SECONDS = 5.0
