"""Which loops are too close to tell apart, and deserve further rounds for it.

A few rounds find a lead of a third. They cannot tell two loops apart that differ by less than the
rounds of either do; a virtual machine's host alone is good for half as much again. So what is
close is measured on, all who may be first and nobody else: their servers are alive together and
take turns of a fraction of a second, within which the machine does not change much.
"""

from __future__ import annotations

from collections.abc import Iterable

from cells import LIMIT, OURS, RATES, Cell, Samples, is_peer, paired_ratio
from workload import Point, Workload

# Loops whose ratios to tokioloop within a round differ by less are close.
CLOSE = 0.15
# How often what is close is started anew, each time with another layout of memory, to be
# measured side by side.
STARTS = 5


def contenders(
    samples: Samples, workload: Workload, names: Iterable[str], points: Iterable[Point]
) -> dict[str, frozenset[Point]]:
    """The points in which each loop is to be measured on."""
    if workload.figure not in RATES or workload.most_rounds is not None:
        return {}
    close: dict[str, set[Point]] = {}
    for point in points:
        ours = Cell(workload.name, OURS, *point)
        # To tokioloop's within a round: medians of rounds that met different states of the
        # machine would say nothing.
        ratios = {
            name: ratio
            for name in names
            if (ratio := paired_ratio(samples, ours.with_loop(name), ours, workload.figure))
        }
        for name in in_contest(ratios):
            close.setdefault(name, set()).add(point)
    return {name: frozenset(where) for name, where in close.items()}


def in_contest(rates: dict[str, float]) -> set[str]:
    """Who may be first, by rates or by ratios to tokioloop's; tokioloop in any case, but nobody
    where it leads by far."""
    peers = {name: rate for name, rate in rates.items() if is_peer(name)}
    if OURS not in rates or not peers:
        return set()
    best = max(peers.values())
    if best < (1 - CLOSE) * rates[OURS]:
        return set()
    close = {name for name, rate in peers.items() if rate >= (1 - CLOSE) * best}
    return {OURS, *close, *({LIMIT} & rates.keys())}


def unseen(
    close: dict[str, frozenset[Point]], seen: set[tuple[str, Point]]
) -> dict[str, frozenset[Point]]:
    """What is left of a contest: the points in which somebody was not measured on yet."""
    fresh = {
        point for name, points in close.items() for point in points if (name, point) not in seen
    }
    left = {name: points & fresh for name, points in close.items()}
    return {name: points for name, points in left.items() if points}
