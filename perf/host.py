"""What the host of a virtual machine does to its cores, and which samples to keep for it.

A host moves a guest's cores between its own: now two share a cache, now they do not, and an
echo over loopback has 70 % of its rate then. And while the sibling of a core works for
somebody else, the core takes up to twice as long for the same instructions. The load client
measures both around each sample; a survey at the start says what is usual here. Samples
count that were taken in that state, others are taken again.
"""

from __future__ import annotations

import bisect
import json
import math
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import processes
from cells import Figures


@dataclass(frozen=True)
class Range:
    """What a survey has seen of one quantity, and what of it a sample is taken at."""

    smallest: float
    largest: float
    least: float
    most: float

    def __str__(self) -> str:
        """As the load client takes it."""
        return f"{self.least:.1f}-{self.most:.1f}"

    def holds(self, value: float) -> bool:
        return self.least <= value <= self.most


@dataclass(frozen=True)
class Host:
    """Nanoseconds for a cache line to the other core and back, and for a piece of work."""

    distance: Range
    pace: Range


def usual_distance(values: list[float]) -> Range:
    """Tell kinds of distances apart by their gaps; choose the nearest one that is common."""
    kinds: list[list[float]] = []
    for value in sorted(values):
        if not kinds or value > DISTANCE_GAP * kinds[-1][-1]:
            kinds.append([])
        kinds[-1].append(value)
    common = [i for i, kind in enumerate(kinds) if len(kind) >= COMMON * len(values)]
    place = common[0] if common else max(range(len(kinds)), key=lambda i: len(kinds[i]))
    chosen = kinds[place]
    least, most = chosen[0] / DISTANCE_GAP, chosen[-1] * DISTANCE_GAP
    if place > 0:
        least = math.sqrt(kinds[place - 1][-1] * chosen[0])
    if place + 1 < len(kinds):
        most = math.sqrt(chosen[-1] * kinds[place + 1][0])
    return Range(kinds[0][0], kinds[-1][-1], least, most)


def usual_pace(values: list[float]) -> Range:
    """Paces have no gaps between them: choose where most of them lie close together."""
    ordered = sorted(values)

    def neighbours(start: int) -> int:
        return bisect.bisect_right(ordered, PACE_SPREAD * ordered[start]) - start

    start = max(range(len(ordered)), key=neighbours)
    return Range(ordered[0], ordered[-1], ordered[start], PACE_SPREAD * ordered[start])


def survey(binary: Path, seconds: float) -> Host | None:
    """Watch the two cores for a while; None where there is one core only."""
    server, client = processes.cores()
    if server is None or client is None:
        return None
    done = subprocess.run(
        [str(binary), "survey", "--seconds", str(seconds), *_cores(server, client)],
        capture_output=True,
        text=True,
        check=True,
        timeout=seconds + 60.0,
    )
    found = json.loads(done.stdout)
    return Host(usual_distance(found["distances"]), usual_pace(found["paces"]))


def options(host: Host | None, *, placed: bool) -> list[str]:
    """What pins the load client, and makes it wait for the usual state.

    The pace of the server's core counts everywhere, the distance of the cores where a
    message costs little (`placed`).
    """
    server, client = processes.cores()
    if server is None or client is None:
        return []
    if host is None:
        return ["--core", str(client)]
    wanted = ["--pace", str(host.pace)]
    if placed:
        wanted += ["--distance", str(host.distance)]
    return [*_cores(server, client), *wanted]


def undisturbed(sample: Callable[[], Figures]) -> Figures:
    """Take a sample, again if the host disturbed it, some times at most."""
    tries = 1
    figures = sample()
    while tries < TRIES and not figures.get("undisturbed", True):
        figures = sample()
        tries += 1
    disturbed = not figures.get("undisturbed", True)
    return {**figures, "repeats": tries - 1, "disturbed": int(disturbed)}


def _cores(server: int, client: int) -> list[str]:
    return ["--core", str(client), "--server-core", str(server)]


# Distances of one kind differ by less than this factor, those of two kinds by more.
DISTANCE_GAP = 1.6
# The slowest and the fastest pace that count as the same.
PACE_SPREAD = 1.3
# A kind of distance that makes up less of the survey is not waited for.
COMMON = 0.15
TRIES = 4
