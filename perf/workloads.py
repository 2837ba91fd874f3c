"""What is measured: every workload by name, its cells, and how one round of it is run.

A workload yields `(connections, size, figures)` for one loop; figures are a dictionary
of numbers or `{"failure": why}`. A workload never raises for what a loop did.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import processes
from cells import LIMIT, Figures

Point = tuple[int, int]
Sample = tuple[str, str, Figures]


@dataclass(frozen=True)
class Settings:
    """How thoroughly a run measures; cells may be narrowed from the command line."""

    binary: Path
    seconds: float
    warm_up: float
    sizes: tuple[int, ...] | None = None
    connections: tuple[int, ...] | None = None
    stall: float = 2.0


class Workload(Protocol):
    """One named workload."""

    name: str
    title: str
    # The figure that ratios, spread and plots are about, and its unit.
    figure: str
    unit: str
    lower_is_better: bool

    def points(self, settings: Settings) -> list[tuple[str, str]]:
        """The connections and sizes that a round will measure."""
        ...

    def has_limit(self) -> bool:
        """Whether the reference server can serve it."""
        ...

    def run(
        self, loop: str, settings: Settings, skip: frozenset[tuple[str, str]]
    ) -> Iterator[Sample]:
        """Measure one loop once, without the points to skip."""
        ...


@dataclass(frozen=True)
class Network:
    """A server of a mode, and the load client against it."""

    name: str
    title: str
    mode: str
    sizes: tuple[int, ...] = (1024, 10 * 1024, 100 * 1024)
    connections: tuple[int, ...] = (32,)
    prefix: str = ""
    unix: bool = False
    client: tuple[str, ...] = ("client",)
    limit: bool = True
    server_options: tuple[str, ...] = ()
    figure: str = "rps"
    unit: str = "messages/s"
    lower_is_better: bool = False

    def has_limit(self) -> bool:
        return self.limit

    def points(self, settings: Settings) -> list[tuple[str, str]]:
        return [(str(connections), str(size)) for connections, size in self._points(settings)]

    def run(
        self, loop: str, settings: Settings, skip: frozenset[tuple[str, str]]
    ) -> Iterator[Sample]:
        waiting = [p for p in self._points(settings) if (str(p[0]), str(p[1])) not in skip]
        while waiting:
            # A server that fails is started afresh for the points after the one it failed in.
            done: list[Point] = []
            try:
                with self._server(loop, settings) as server:
                    for point in waiting:
                        done.append(point)
                        yield sample(point, self._measure(server, point, settings))
            except (processes.ServerFailed, processes.ClientFailed) as error:
                failed = done or waiting[:1]
                yield sample(failed[-1], {"failure": str(error)})
                done = failed
            waiting = waiting[len(done) :]

    @contextlib.contextmanager
    def _server(self, loop: str, settings: Settings) -> Iterator[processes.Server]:
        core, _ = processes.cores()
        with tempfile.TemporaryDirectory() as scratch:
            path = f"{scratch}/echo"
            if loop == LIMIT:
                target = f"unix:{path}" if self.unix else f"{self.prefix}127.0.0.1:0"
                command = [str(settings.binary), "limit", "--target", target]
            else:
                unix = ["--unix", path] if self.unix else []
                command = processes.server_command(loop, self.mode, *unix, *self.server_options)
            if core is not None:
                command += ["--core", str(core)]
            with processes.running(command, prefix=self.prefix) as server:
                yield server

    def _measure(self, server: processes.Server, point: Point, settings: Settings) -> Figures:
        connections, size = point
        _, core = processes.cores()
        sub_command, *options = self.client
        options += ["--target", server.target, "--server-pid", str(server.pid)]
        options += ["--connections", str(connections), "--size", str(size)]
        options += ["--warm-up", str(settings.warm_up), "--seconds", str(settings.seconds)]
        options += ["--stall", str(settings.stall)]
        if core is not None:
            options += ["--core", str(core)]
        timeout = settings.warm_up + settings.seconds + 2 * settings.stall + 15
        figures = processes.run_client(settings.binary, sub_command, *options, timeout=timeout)
        return judged(figures, connections)

    def _points(self, settings: Settings) -> list[Point]:
        return [
            (connections, size)
            for connections in settings.connections or self.connections
            for size in settings.sizes or self.sizes
        ]


def judged(figures: Figures, connections: int) -> Figures:
    """Turn a run that carried nothing, or stopped carrying, into a failure."""
    faults = ", ".join(f"{count} x {label}" for label, count in figures["faults"].items())
    if figures["stalls"] >= connections:
        return {"failure": f"stalled after {figures['messages']} messages"}
    if figures["messages"] == 0:
        return {"failure": faults or "no message was answered"}
    return figures


def sample(point: Point, figures: Figures) -> Sample:
    return str(point[0]), str(point[1]), figures


WORKLOADS: dict[str, Workload] = {
    workload.name: workload
    for workload in (
        Network("proto", "asyncio.Protocol, echo", "proto"),
        Network("stream", "Streams: read, write, drain", "stream"),
        Network("raw", "sock_recv and sock_sendall", "raw"),
        Network(
            "concurrency",
            "asyncio.Protocol, echo, by number of connections",
            "proto",
            sizes=(1024,),
            connections=(1, 8, 64, 256, 1000),
        ),
        Network("buffered", "asyncio.BufferedProtocol, echo", "buffered"),
    )
}
