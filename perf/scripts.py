"""Workloads that run inside one Python process and print their rows: `micro.py`, `spawn.py`."""

from __future__ import annotations

import dataclasses
import functools
import json
import select
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import host
import processes
from cells import Figures
from host import Range
from workload import Point, Sample, Settings, turned


@dataclass(frozen=True)
class Script:
    """A script that prints `{"row": …, "rate": …}` lines for a loop."""

    name: str
    title: str
    script: str
    rows: tuple[str, ...]
    connections: str = "1"
    # Whether it takes its samples at the usual pace of its core.
    paced: bool = False
    limit: bool = False
    figure: str = "rate"
    unit: str = "operations/s"
    variants: tuple[str, ...] = ()
    axes: tuple[str, str] = ("at once", "operation")
    most_rounds: int | None = None
    log_scale: bool = False
    # Each is a process of its own, which takes its time to start.
    windows: int = 3

    def points(self, settings: Settings) -> list[Point]:
        return [(self.connections, row) for row in self.rows]

    def run(self, loop: str, settings: Settings, skip: frozenset[Point]) -> Iterator[Sample]:
        missing = [row for row in self.rows if (self.connections, row) not in skip]
        core, _ = processes.cores()
        options = ["--loop", loop, "--seconds", str(settings.seconds)]
        options += [] if core is None else ["--core", str(core)]
        options += ["--rows", ",".join(missing)] if skip else []
        if self.paced and settings.host is not None:
            options += ["--usual", json.dumps(dataclasses.asdict(pace_of(self.script)))]
        process = subprocess.Popen(
            processes.script_command(self.script, *options),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        why = ""
        try:
            assert process.stdout is not None and process.stderr is not None
            for _ in list(missing):
                # A row calibrates itself, so it takes a few times its seconds.
                readable, _, _ = select.select(
                    [process.stdout], [], [], ROW_TIMEOUT + 24 * settings.seconds
                )
                line = process.stdout.readline() if readable else ""
                if not line:
                    why = "hangs" if not readable else ""
                    break
                result = json.loads(line)
                row = result.pop("row")
                if row in missing:
                    missing.remove(row)
                    yield self.connections, row, result
        finally:
            process.kill()
            _, stderr = process.communicate()
        if missing:
            said = [line for line in stderr.splitlines() if line.strip()]
            why = why or (said[-1] if said else processes.ending(process.returncode))
        for row in missing:
            yield self.connections, row, {"failure": why}

    def side_by_side(
        self, loops: Sequence[str], point: Point, settings: Settings
    ) -> Iterator[tuple[int, str, Figures]]:
        others = frozenset(self.points(settings)).difference([point])
        for turn in range(self.windows):
            for loop in turned(loops, turn):
                for _, _, figures in self.run(loop, settings, others):
                    yield turn, loop, figures


@functools.cache
def pace_of(script: str) -> Range:
    """What a script finds to be the pace of its core on this interpreter."""
    core, _ = processes.cores()
    options = ["--survey", str(SURVEY_SECONDS), "--core", str(core)]
    done = subprocess.run(
        [*processes.script_command(script, "--loop", "asyncio"), *options],
        capture_output=True,
        text=True,
        check=True,
        timeout=60.0,
    )
    return host.usual_pace(json.loads(done.stdout))


ROW_TIMEOUT = 20.0
SURVEY_SECONDS = 3.0
