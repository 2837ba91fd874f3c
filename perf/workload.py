"""What every workload has in common: its settings, its samples, and how it is asked.

A workload yields `(connections, size, figures)` for one loop; figures are a dictionary of
numbers or `{"failure": why}`. A workload never raises for what a loop did.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from cells import Figures
from host import Host

# Two keys in data.json: connections and size, or what `Workload.axes` says they are.
Point = tuple[str, str]
Sample = tuple[str, str, Figures]


@dataclass(frozen=True)
class Settings:
    """How thoroughly a run measures; points may be narrowed from the command line."""

    binary: Path
    seconds: float
    warm_up: float
    sizes: tuple[int, ...] | None = None
    connections: tuple[int, ...] | None = None
    quick: bool = False
    stall: float = 2.0
    # What the host usually does to the cores; None if that does not matter.
    host: Host | None = None
    # The layout of memory that a round's servers have; see `server.scatter`.
    layout: int = 0


class Workload(Protocol):
    """One named workload."""

    @property
    def name(self) -> str: ...

    @property
    def title(self) -> str: ...

    @property
    def figure(self) -> str:
        """The figure that ratios, spread and plots are about."""
        ...

    @property
    def axes(self) -> tuple[str, str]:
        """What the two parts of a point are."""
        ...

    @property
    def most_rounds(self) -> int | None:
        """How many rounds are enough unless more are asked for; one: the figure does not drift."""
        ...

    @property
    def log_scale(self) -> bool:
        """Whether its plot needs orders of magnitude."""
        ...

    @property
    def unit(self) -> str: ...

    @property
    def limit(self) -> bool:
        """Whether the reference server can serve it."""
        ...

    @property
    def variants(self) -> tuple[str, ...]:
        """Further loops to measure wherever tokioloop is."""
        ...

    def points(self, settings: Settings) -> list[Point]:
        """What a round will measure."""
        ...

    def run(self, loop: str, settings: Settings, skip: frozenset[Point]) -> Iterator[Sample]:
        """Measure one loop once, without the points to skip."""
        ...


@runtime_checkable
class SideBySide(Protocol):
    """A workload that can measure loops in turn, so that they meet one state of the machine."""

    @property
    def windows(self) -> int:
        """How often `side_by_side` measures each loop."""
        ...

    def side_by_side(
        self, loops: Sequence[str], point: Point, settings: Settings
    ) -> Iterator[tuple[int, str, Figures]]:
        """Measure loops in turn at one point: number of the turn, loop, figures."""
        ...


def turned(names: Sequence[str], number: int) -> list[str]:
    """The names in the order of a round: each begins once."""
    turn = number % max(len(names), 1)
    return [*names[turn:], *names[:turn]]
