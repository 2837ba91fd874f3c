"""Where a host has put the two cores of a virtual machine, and which samples to keep for it.

A host moves a guest's cores between its own: now they share a cache, now they do not, and an
echo over loopback has 70 % of its rate then. The load client measures the distance of the two cores
around each sample; samples are taken while they are as far from each other as a survey at the
start found common, and repeated where they were moved meanwhile.
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
class Placement:
    """The distances that were seen, in nanoseconds for a cache line there and back."""

    nearest: float
    farthest: float
    # What a sample is taken at.
    least: float
    most: float

    @classmethod
    def of(cls, distances: list[float]) -> Placement:
        """Tell the kinds of distances apart by their gaps and choose the nearest common one."""
        kinds: list[list[float]] = []
        for distance in sorted(distances):
            if not kinds or distance > CLEAR_GAP * kinds[-1][-1]:
                kinds.append([])
            kinds[-1].append(distance)
        place = next(i for i, kind in enumerate(kinds) if len(kind) >= COMMON * len(distances))
        chosen = kinds[place]
        least, most = chosen[0] / CLEAR_GAP, chosen[-1] * CLEAR_GAP
        if place > 0:
            least = math.sqrt(kinds[place - 1][-1] * chosen[0])
        if place + 1 < len(kinds):
            most = math.sqrt(chosen[-1] * kinds[place + 1][0])
        return cls(kinds[0][0], kinds[-1][-1], least, most)


def survey(binary: Path, seconds: float) -> Placement | None:
    """Watch the distance of the two cores for a while; None where there is one core only."""
    server, client = processes.cores()
    if server is None or client is None:
        return None
    done = subprocess.run(
        [str(binary), "distance", "--seconds", str(seconds), *_cores(server, client)],
        capture_output=True,
        text=True,
        check=True,
        timeout=seconds + 60.0,
    )
    return Placement.of(json.loads(done.stdout)["distances"])


def options(placed: Placement | None) -> list[str]:
    """What pins the load client, and makes it wait until the cores are where they should be."""
    server, client = processes.cores()
    if server is None or client is None:
        return []
    if placed is None:
        return ["--core", str(client)]
    return [*_cores(server, client), "--distance", f"{placed.least:.1f}-{placed.most:.1f}"]


def undisturbed(sample: Callable[[], Figures]) -> Figures:
    """Take a sample, again if the host moved the cores meanwhile, some times at most."""
    tries = 1
    figures = sample()
    while tries < TRIES and not figures.get("cores_stayed", True):
        figures = sample()
        tries += 1
    moved = not figures.get("cores_stayed", True)
    return {**figures, "repeats": tries - 1, "moved": int(moved)}


def _cores(server: int, client: int) -> list[str]:
    return ["--core", str(client), "--server-core", str(server)]


# Distances of one kind differ by less than this factor, those of two kinds by more.
CLEAR_GAP = 1.6
# A kind of distance that makes up less of the survey is not waited for.
COMMON = 0.15
TRIES = 4
