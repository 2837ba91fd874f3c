"""Workloads of a server and the load client against it."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import certificate
import host
import machine
import processes
from cells import LIMIT, Figures
from workload import Point, Sample, Settings, turned


@dataclass(frozen=True)
class Network:
    """A server of a mode, measured at each number of connections and each size."""

    name: str
    title: str
    mode: str
    sizes: tuple[int, ...] = (1024, 10 * 1024, 100 * 1024)
    connections: tuple[int, ...] = (32,)
    # Fewer points for a quick run.
    quick_connections: tuple[int, ...] | None = None
    script: str = "server.py"
    # "udp:" for datagrams.
    prefix: str = ""
    # Further options of the server's script.
    server_options: tuple[str, ...] = ()
    unix: bool = False
    tls: bool = False
    # `client` or `churn`.
    pattern: str = "client"
    # The path to request over HTTP, with the size in it; without it an echo is measured.
    http: str | None = None
    # Whether a message costs so little that the distance of the cores matters, beside the
    # pace of the server's.
    placed: bool = True
    # Whether samples are taken anew where the host changes either.
    watched: bool = True
    # Samples last so much longer than others'.
    length: float = 1.0
    limit: bool = True
    figure: str = "rps"
    unit: str = "messages/s"
    variants: tuple[str, ...] = ()
    axes: tuple[str, str] = ("connections", "size")
    most_rounds: int | None = None
    log_scale: bool = False
    windows: int = 8

    def points(self, settings: Settings) -> list[Point]:
        usual = self.quick_connections if settings.quick else None
        return [
            (str(connections), str(size))
            for connections in settings.connections or usual or self.connections
            for size in settings.sizes or self.sizes
        ]

    def run(self, loop: str, settings: Settings, skip: frozenset[Point]) -> Iterator[Sample]:
        waiting = [point for point in self.points(settings) if point not in skip]
        while waiting:
            # A server that fails is started afresh for the points after the one it failed in.
            tried = 0
            try:
                with self._server(loop, settings, waiting[0]) as server:
                    for point in self._served_together(waiting):
                        tried += 1
                        yield *point, self._measure(server, point, settings)
            except (processes.ServerFailed, processes.ClientFailed) as error:
                tried = max(tried, 1)
                yield *waiting[tried - 1], {"failure": str(error)}
            waiting = waiting[tried:]

    def side_by_side(
        self, loops: Sequence[str], point: Point, settings: Settings
    ) -> Iterator[tuple[int, str, Figures]]:
        # Who fails says so when it is measured; its end need not repeat it.
        with contextlib.suppress(processes.ServerFailed), contextlib.ExitStack() as stack:
            servers: dict[str, processes.Server] = {}
            for loop in loops:
                try:
                    server = stack.enter_context(self._server(loop, settings, point))
                except processes.ServerFailed as error:
                    yield 0, loop, {"failure": str(error)}
                    continue
                servers[loop] = server
                # What is slower at first, as inline caches are empty, is left out.
                with contextlib.suppress(processes.ClientFailed):
                    self._measure(server, point, settings)
            for turn in range(self.windows):
                for loop in turned(list(servers), turn):
                    try:
                        yield turn, loop, self._measure(servers[loop], point, settings)
                    except processes.ClientFailed as error:
                        yield turn, loop, {"failure": str(error)}
                        del servers[loop]

    def _served_together(self, points: list[Point]) -> list[Point]:
        """The points that one server process can serve, from the first on."""
        return points

    @contextlib.contextmanager
    def _server(self, loop: str, settings: Settings, first: Point) -> Iterator[processes.Server]:
        core, _ = processes.cores()
        with tempfile.TemporaryDirectory() as scratch:
            path = f"{scratch}/echo"
            if loop == LIMIT:
                target = f"unix:{path}" if self.unix else f"{self.prefix}127.0.0.1:0"
                command = [str(settings.binary), "limit", "--target", target]
            else:
                options = ["--unix", path] if self.unix else []
                options += self.server_options
                options += ["--certificate", str(certificate.path())] if self.tls else []
                command = processes.server_command(loop, self.mode, *options, script=self.script)
            if core is not None:
                command += ["--core", str(core)]
            with processes.running(command, prefix=self.prefix, layout=settings.layout) as server:
                yield server

    def _measure(self, server: processes.Server, point: Point, settings: Settings) -> Figures:
        connections, size = point
        return self._ask(server, int(connections), size, settings)

    def _ask(
        self,
        server: processes.Server,
        connections: int,
        size: str,
        settings: Settings,
        *extra: str,
    ) -> Figures:
        seconds = self.length * settings.seconds
        pids = str(server.announcement.get("pids", server.pid))
        options = ["--target", server.target, "--server-pid", pids, *extra]
        options += self._cores(settings)
        options += ["--connections", str(connections), "--stall", str(settings.stall)]
        options += ["--warm-up", str(settings.warm_up), "--seconds", str(seconds)]
        options += ["--size", size] if self.http is None else ["--http", self.http.format(size)]
        options += ["--tls"] if self.tls else []
        timeout = 2 * settings.warm_up + seconds + 2 * settings.stall + 15

        def sample() -> Figures:
            figures = processes.run_client(settings.binary, self.pattern, *options, timeout=timeout)
            for quantile in ("p50", "p99"):
                figures[f"{quantile}_us"] = 1e6 * figures[f"latency_{quantile}"]
            if machine.free_threaded() and server.announcement.get("gil"):
                figures["remark"] = "turns the GIL on"
            return judged(figures, connections, replaced=self.pattern == "churn")

        return host.undisturbed(sample)

    def _cores(self, settings: Settings) -> list[str]:
        """Where the client runs, and in which state of the host's it does."""
        return host.options(settings.host if self.watched else None, placed=self.placed)


@dataclass(frozen=True)
class Scaling(Network):
    """N loops on N threads behind one port; the point's first part is the threads.

    `apart` gives each loop a process of its own: what they share is the machine, no more.
    """

    clients: int = 128
    apart: bool = False

    def _served_together(self, points: list[Point]) -> list[Point]:
        return points[:1]

    @contextlib.contextmanager
    def _server(self, loop: str, settings: Settings, first: Point) -> Iterator[processes.Server]:
        # Not pinned: the threads are to spread over the cores.
        command = processes.script_command("threads.py", "--loop", loop, "--threads", first[0])
        command += ["--apart"] if self.apart else []
        with processes.running(command, layout=settings.layout) as server:
            yield server

    def _measure(self, server: processes.Server, point: Point, settings: Settings) -> Figures:
        return self._ask(server, self.clients, point[1], settings)

    def _cores(self, settings: Settings) -> list[str]:
        # Not pinned either.
        return []


@dataclass(frozen=True)
class Paced(Network):
    """Latency at fixed rates of sending; the point's first part is messages per second."""

    clients: int = 32

    def _measure(self, server: processes.Server, point: Point, settings: Settings) -> Figures:
        rate, size = point
        figures = self._ask(server, self.clients, size, settings, "--rate", rate)
        if figures.get("rps", 0.0) < KEEPS_UP * float(rate) and "failure" not in figures:
            figures["remark"] = f"overloaded: {figures['rps']:,.0f} answered per second"
        return figures


def judged(figures: Figures, connections: int, *, replaced: bool = False) -> Figures:
    """Turn a run that carried nothing, or stopped carrying, into a failure.

    Where connections are replaced, a fault costs one of very many.
    """
    faults = ", ".join(f"{count} x {label}" for label, count in figures["faults"].items())
    if figures["stalls"] >= connections:
        return {"failure": f"stalled after {figures['messages']} messages"}
    if figures["messages"] == 0:
        return {"failure": faults or "no message was answered"}
    dropped = sum(n for label, n in figures["faults"].items() if label not in HARMLESS)
    if not replaced and dropped >= connections:
        return {"failure": f"{faults} after {figures['messages']} messages"}
    return figures


# What costs a message and not its connection.
HARMLESS = frozenset({"lost", "unanswered"})

# Less than this share of the offered messages answered is an overload.
KEEPS_UP = 0.97
