"""Results as they are collected: samples per round, folded into medians per cell.

A cell is one loop in one mode at one number of connections and one size; `Samples`
collects what each round measured, `fold` turns that into the object that ends up at
`.results.<mode>.<loop>.<connections>.<size>` of data.json.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

Figures = dict[str, Any]

LIMIT = "limit"
BASELINE = "rloop"
OURS = "tokioloop"
# Figures of which more is better; others are read from curves, or count what it costs.
RATES = ("rps", "rate")


def is_peer(loop: str) -> bool:
    """Whether that is another loop, and neither the limit nor tokioloop with options."""
    return loop.partition("+")[0] not in (OURS, LIMIT)


@dataclass(frozen=True)
class Cell:
    """The address of one result."""

    mode: str
    loop: str
    connections: str
    size: str

    def with_loop(self, loop: str) -> Cell:
        return Cell(self.mode, loop, self.connections, self.size)


@dataclass
class Samples:
    """What every round measured for every cell, failures included."""

    rounds: dict[Cell, dict[int, Figures]] = field(default_factory=dict)

    def add(self, cell: Cell, number: int, figures: Figures) -> None:
        self.rounds.setdefault(cell, {})[number] = figures

    def failures(self, cell: Cell) -> int:
        """How many rounds of a cell gave no figures so far."""
        return sum("failure" in sample for sample in self.rounds.get(cell, {}).values())

    def total(self, key: str) -> int:
        """The sum of a count over all cells and rounds."""
        return sum(
            sample.get(key, 0) for rounds in self.rounds.values() for sample in rounds.values()
        )

    def values(self, cell: Cell, key: str) -> list[float]:
        """One figure of a cell in all rounds that did not fail."""
        return list(self.figures(cell, key).values())

    def figures(self, cell: Cell, key: str) -> dict[int, float]:
        """One figure of a cell by round, without the rounds that failed."""
        return {
            number: sample[key]
            for number, sample in self.rounds.get(cell, {}).items()
            if "failure" not in sample and isinstance(sample.get(key), int | float)
        }


def fold(samples: Samples, main_figure: dict[str, str]) -> dict[str, Any]:
    """Nest the medians of all cells as data.json has them.

    `main_figure` names for each mode the figure that ratios and spread are about.
    """
    nested: dict[str, Any] = {}
    for cell in samples.rounds:
        place = nested.setdefault(cell.mode, {}).setdefault(cell.loop, {})
        place.setdefault(cell.connections, {})[cell.size] = fold_cell(
            samples, cell, main_figure.get(cell.mode, "rps")
        )
    return nested


def fold_cell(samples: Samples, cell: Cell, main: str) -> Figures:
    """The medians of one cell, the spread of its main figure, and its ratios."""
    rounds = samples.rounds[cell]
    failures = [sample["failure"] for sample in rounds.values() if "failure" in sample]
    good = [sample for sample in rounds.values() if "failure" not in sample]
    if not good:
        return {"failure": failures[-1]}
    folded: Figures = {
        key: statistics.median(sample[key] for sample in good if key in sample)
        for key in numeric_keys(good)
    }
    for key in ("errors", "stalls", "repeats", "disturbed"):
        if key in folded:
            folded[key] = sum(sample.get(key, 0) for sample in good)
    folded["rounds"] = len(good)
    values = samples.values(cell, main)
    if values:
        folded[f"{main}_rounds"] = values
        folded["spread"] = spread(values)
    others = [("vs_rloop", BASELINE), ("vs_limit", LIMIT)]
    best = best_peer(samples, cell, main) if cell.loop == OURS and main in RATES else None
    if best is not None:
        others.append(("vs_best", best))
        folded["best_peer"] = best
        interval = confidence(paired_ratios(samples, cell, cell.with_loop(best), main))
        if interval is not None:
            folded["vs_best_interval"] = interval
    for name, other in others:
        ratio = paired_ratio(samples, cell, cell.with_loop(other), main)
        if ratio is not None:
            folded[name] = ratio
    if failures:
        folded["failed_rounds"] = failures
    if "remark" in good[-1]:
        folded["remark"] = good[-1]["remark"]
    faults = merged_faults(good)
    if faults:
        folded["faults"] = faults
    return folded


def best_peer(samples: Samples, cell: Cell, main: str) -> str | None:
    """The other loop to which a cell's ratio within a round is lowest; None without one."""
    places = (other for other in samples.rounds if other == cell.with_loop(other.loop))
    ratios = {
        other.loop: ratio
        for other in places
        if is_peer(other.loop) and (ratio := paired_ratio(samples, cell, other, main))
    }
    return min(ratios, key=ratios.__getitem__, default=None)


def paired_ratio(samples: Samples, cell: Cell, other: Cell, key: str) -> float | None:
    """The median of the ratios within each round: what drifts between rounds cancels out."""
    ratios = paired_ratios(samples, cell, other, key)
    return statistics.median(ratios) if ratios else None


def paired_ratios(samples: Samples, cell: Cell, other: Cell, key: str) -> list[float]:
    """The ratio of two loops in each round in which neither failed."""
    mine, theirs = samples.figures(cell, key), samples.figures(other, key)
    return [mine[number] / theirs[number] for number in mine if theirs.get(number)]


def confidence(ratios: list[float]) -> tuple[float, float] | None:
    """Where the median of what was sampled is, with 95 % confidence; None for five or fewer.

    Each sample is above the true median as often as below it, whatever their distribution:
    how many of the outermost to leave out follows from tossing coins.
    """
    rounds, outside, tosses = len(ratios), 0, 0
    while (tosses := tosses + math.comb(rounds, outside)) / 2**rounds <= 0.025:
        outside += 1
    if not outside:
        return None
    inner = sorted(ratios)[outside - 1 : rounds - outside + 1]
    return inner[0], inner[-1]


def spread(values: list[float]) -> float:
    """Half the range over the rounds, relative to the median."""
    middle = statistics.median(values)
    return (max(values) - min(values)) / 2 / middle if middle else 0.0


def numeric_keys(samples: list[Figures]) -> list[str]:
    """The keys that hold numbers, in the order of their first appearance."""
    keys: dict[str, None] = {}
    for sample in samples:
        for key, value in sample.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                keys[key] = None
    return list(keys)


def merged_faults(samples: Iterable[Figures]) -> dict[str, int]:
    """The labelled faults of all rounds together."""
    merged: dict[str, int] = {}
    for sample in samples:
        for label, count in sample.get("faults", {}).items():
            merged[label] = merged.get(label, 0) + count
    return merged
