"""Compare event loops side by side; one command, one report.

`python perf/benchmark.py --quick` is the run of under two minutes behind `make bench`,
`--full` runs every workload against every loop that installs, and
`python perf/benchmark.py proto --loops tokioloop,rloop --sizes 1024` runs a part.

Loops are interleaved: each round measures every loop once, in an order that turns with
the round, so that what drifts on the machine meets all of them.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import sys
import time
from pathlib import Path

import cells
import contest
import host
import loops
import machine
import processes
import report
from workload import Point, Settings, SideBySide, Workload, turned
from workloads import GROUPS, WORKLOADS, for_this_interpreter

QUICK_MODES = ("proto", "stream", "raw", "concurrency")
QUICK_LOOPS = ("asyncio", "uvloop", "rloop", "zuvloop", "tokioloop")
# A point that failed so often is not tried again in later rounds.
TRIES = 2
# How long the two cores are watched before the first sample.
SURVEY_SECONDS = 4.0


def main() -> None:
    arguments = parse_arguments()
    processes.end_children_on_sigterm()
    binary = processes.load_binary()
    usual = None if arguments.quick else host.survey(binary, SURVEY_SECONDS)
    settings = Settings(
        binary=binary,
        seconds=arguments.seconds,
        warm_up=arguments.warm_up,
        sizes=arguments.sizes,
        connections=arguments.concurrency,
        quick=arguments.quick,
        host=usual,
    )
    names = arguments.loops
    refuse_debug_build(names)
    workloads = [WORKLOADS[mode] for mode in arguments.modes]
    starts = contest.STARTS if arguments.full else 0
    run = Run(
        workloads, names, settings, arguments.rounds, sparing=arguments.sparing, starts=starts
    )
    meta = machine.describe(names, sys.argv, arguments.rounds, settings.seconds)
    meta["starts"] = starts
    meta["host"] = dataclasses.asdict(usual) if usual else None
    started = time.monotonic()
    figures = {workload.name: workload.figure for workload in workloads}
    # Some workloads of a full report may be measured anew, the others stay.
    kept = report.read(arguments.out) if arguments.full else report.Earlier()
    # Written after each workload: a run that is broken off keeps what it has measured.
    for workload in workloads:
        run.measure(workload)
        kept.forget(workload.name)
        meta["minutes"] = round((time.monotonic() - started) / 60, 1)
        meta["repeats"] = run.samples.total("repeats")
        meta["disturbed"] = run.samples.total("disturbed")
        results = cells.fold(run.samples, figures)
        meta["earlier"] = kept.runs
        merged = {**kept.results, **results}
        shown = [other for other in WORKLOADS.values() if other.name in merged]
        written = report.write(arguments.out, meta, merged, shown)
    progress("")
    print(report.tables(results, workloads))
    print(f"Report: {display(written)}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modes", nargs="*", metavar="mode", help=", ".join(WORKLOADS))
    parser.add_argument("--loops", type=names_of, help=", ".join(loops.CANDIDATES))
    parser.add_argument("--sizes", type=numbers_of, help="message sizes in bytes")
    parser.add_argument("--concurrency", type=numbers_of, help="numbers of connections")
    parser.add_argument("--rounds", type=int, help="default 5, quick 3")
    parser.add_argument(
        "--seconds", type=float, help="per loop, point and round; default 1, full 0.15, quick 0.2"
    )
    parser.add_argument("--warm-up", type=float, help="default 0.2, full 0.05, quick 0.1")
    parser.add_argument("--quick", action="store_true", help="under two minutes in total")
    parser.add_argument("--full", action="store_true", help="every workload, every loop")
    parser.add_argument("--out", type=Path, help="directory for data.json, report.md and plots")
    arguments = parser.parse_args()
    arguments.modes = [mode for given in arguments.modes for mode in GROUPS.get(given, (given,))]
    unknown = [mode for mode in arguments.modes if mode not in WORKLOADS]
    if unknown:
        parser.error(f"unknown mode {', '.join(unknown)}; known: {', '.join(WORKLOADS)}")
    if arguments.quick:
        defaults = (3, 0.2, 0.1)
    elif arguments.full:
        # Many loops and points: what is close is measured again, by itself and for longer. Of
        # short samples fewer meet a change of the machine, and the median passes over those.
        defaults = (5, 0.15, 0.05)
    else:
        defaults = (5, 1.0, 0.2)
    arguments.sparing = arguments.rounds is None
    for name, default in zip(("rounds", "seconds", "warm_up"), defaults, strict=True):
        if getattr(arguments, name) is None:
            setattr(arguments, name, default)
    if arguments.rounds < 1 or arguments.seconds <= 0:
        parser.error("--rounds and --seconds must be positive")
    results = processes.PERF / "results"
    if arguments.full:
        arguments.modes = arguments.modes or for_this_interpreter()
        arguments.out = arguments.out or results / "full" / machine.python_tag()
    arguments.modes = arguments.modes or list(QUICK_MODES)
    everyone = QUICK_LOOPS if arguments.quick else tuple(loops.CANDIDATES)
    arguments.loops = arguments.loops or [name for name in everyone if loops.can_exist(name)]
    arguments.out = arguments.out or results
    return arguments


class Run:
    """Rounds over loops over workloads; keeps every sample."""

    def __init__(
        self,
        workloads: list[Workload],
        names: list[str],
        settings: Settings,
        rounds: int,
        *,
        sparing: bool,
        starts: int,
    ) -> None:
        self.names = names
        # Whether workloads for which fewer rounds are enough get no more.
        self.sparing = sparing
        # How often the servers of what is close are started anew to be told apart.
        self.starts = starts
        self.settings = settings
        self.rounds = rounds
        self.samples = cells.Samples()
        self.total = sum(
            len(workload.points(settings)) * len(self._loops(workload)) * self._rounds(workload)
            for workload in workloads
        )
        self.done = 0

    def measure(self, workload: Workload) -> None:
        """Measure one workload; a loop that fails is recorded and the run goes on."""
        rounds, everything = self._rounds(workload), workload.points(self.settings)
        for number in range(rounds):
            for name in turned(self._loops(workload), number):
                self._measure(workload, name, number, everything)
        self.tell_apart(workload, rounds)

    def tell_apart(self, workload: Workload, rounds: int) -> None:
        """Measure on, after so many rounds, whoever may be first.

        Where that shows a leader to have been lucky, others may be first, and have their turn.
        """
        everything, seen = workload.points(self.settings), set[tuple[str, Point]]()
        while self.starts and isinstance(workload, SideBySide):
            names = self._loops(workload)
            close = contest.contenders(self.samples, workload, names, everything)
            close = contest.unseen(close, seen)
            if not close:
                return
            self.total += self.starts * workload.windows * sum(map(len, close.values()))
            for point in everything:
                names = [name for name in close if point in close[name]]
                for start in range(self.starts if names else 0):
                    settings = dataclasses.replace(self.settings, layout=rounds + start)
                    first = rounds + start * workload.windows
                    for turn, name, figures in workload.side_by_side(names, point, settings):
                        self._note(workload, name, first + turn, point, figures)
            rounds += self.starts * workload.windows
            seen |= {(name, point) for name, points in close.items() for point in points}

    def _measure(self, workload: Workload, name: str, number: int, points: list[Point]) -> None:
        reason = None if name == cells.LIMIT else unavailable(name)
        if reason is not None:
            for connections, size in points:
                cell = cells.Cell(workload.name, name, connections, size)
                self.samples.add(cell, number, {"failure": reason})
            self.done += len(points)
            return
        given_up = {
            point
            for point in points
            if self.samples.failures(cells.Cell(workload.name, name, *point)) >= TRIES
        }
        self.done += len(given_up)
        skip = frozenset(workload.points(self.settings)).difference(points) | given_up
        # The same for all loops of a round, another in the next.
        settings = dataclasses.replace(self.settings, layout=number)
        for connections, size, figures in workload.run(name, settings, skip):
            self._note(workload, name, number, (connections, size), figures)

    def _note(
        self, workload: Workload, name: str, number: int, point: Point, figures: cells.Figures
    ) -> None:
        connections, size = point
        self.samples.add(cells.Cell(workload.name, name, *point), number, figures)
        self.done += 1
        value = figures.get(workload.figure)
        shown = figures.get("failure") or f"{report.number(value)} {workload.unit}"
        share = f"{100 * self.done / self.total:3.0f} %  round {number + 1}"
        progress(f"{share}  {workload.name} {name} {connections} x {size}: {shown}")

    def _rounds(self, workload: Workload) -> int:
        most = workload.most_rounds
        if most is None or (most > 1 and not self.sparing):
            return self.rounds
        return min(self.rounds, most)

    def _loops(self, workload: Workload) -> list[str]:
        variants = workload.variants if "tokioloop" in self.names else ()
        limit = [cells.LIMIT] if workload.limit else []
        return [*self.names, *variants, *limit]


@functools.cache
def unavailable(name: str) -> str | None:
    return processes.unavailable(name)


def refuse_debug_build(names: list[str]) -> None:
    """End the run if tokioloop is there but was not built for speed."""
    if not any(loops.parse_name(name)[0] == "tokioloop" for name in names):
        return
    try:
        loops.require_release_build()
    except loops.LoopUnavailable as error:
        sys.exit(str(error))
    except ImportError:
        return


def names_of(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def numbers_of(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))


def progress(line: str) -> None:
    """Show one line of progress, over the last one where a person is watching."""
    if sys.stderr.isatty():
        print(f"\r\033[K{line[:150]}", end="", file=sys.stderr, flush=True)
    elif line:
        print(line, file=sys.stderr, flush=True)


def display(path: Path) -> str:
    """A path as it is shortest from here."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


if __name__ == "__main__":
    main()
