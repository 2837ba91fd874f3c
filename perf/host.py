"""What the host of a virtual machine does to its cores, and which samples to keep for it.

A host moves a guest's cores between its own: now two share a cache, now they do not, and an
echo over loopback has 70 % of its rate then. And while the sibling of a core works for
somebody else, the core takes up to twice as long for the same instructions. The load client
measures both around each sample; a survey at the start says what is usual here. Samples
count that were taken in that state, others are taken again.
"""

from __future__ import annotations

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


def usual(values: list[float], gap: float, *, nearest: bool) -> Range:
    """Tell kinds of values apart by their gaps; choose the smallest common, or the commonest."""
    kinds: list[list[float]] = []
    for value in sorted(values):
        if not kinds or value > gap * kinds[-1][-1]:
            kinds.append([])
        kinds[-1].append(value)
    if nearest:
        common = [i for i, kind in enumerate(kinds) if len(kind) >= COMMON * len(values)]
    else:
        common = []
    place = common[0] if common else max(range(len(kinds)), key=lambda i: len(kinds[i]))
    chosen = kinds[place]
    least, most = chosen[0] / gap, chosen[-1] * gap
    if place > 0:
        least = math.sqrt(kinds[place - 1][-1] * chosen[0])
    if place + 1 < len(kinds):
        most = math.sqrt(chosen[-1] * kinds[place + 1][0])
    return Range(kinds[0][0], kinds[-1][-1], least, most)


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
    return Host(
        usual(found["distances"], DISTANCE_GAP, nearest=True),
        usual(found["paces"], PACE_GAP, nearest=False),
    )


def options(host: Host | None, *, placed: bool) -> list[str]:
    """What pins the load client, and makes it wait for the usual state.

    Where a message costs little (`placed`) the distance of the cores counts, elsewhere the
    pace of the server's.
    """
    server, client = processes.cores()
    if server is None or client is None:
        return []
    if host is None:
        return ["--core", str(client)]
    wanted = ["--distance", str(host.distance)] if placed else ["--pace", str(host.pace)]
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


# Values of one kind differ by less than this factor, those of two kinds by more.
DISTANCE_GAP = 1.6
PACE_GAP = 1.25
# A kind of distance that makes up less of the survey is not waited for.
COMMON = 0.15
TRIES = 4
