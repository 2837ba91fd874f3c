"""The rounds of a run: who is measured when, and with what."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import benchmark
import pytest
from workload import Point, Sample, Settings


class Recorded:
    """A workload that notes how it was asked."""

    name = "proto"
    title = figure = unit = "rps"
    axes = ("connections", "size")
    most_rounds = None
    limit = False
    variants = ()
    log_scale = False

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []

    def points(self, settings: Settings) -> list[Point]:
        return [("1", "1024")]

    def run(self, loop: str, settings: Settings, skip: frozenset[Point]) -> Iterator[Sample]:
        self.asked.append((loop, settings.layout))
        yield "1", "1024", {"rps": 1.0}


def test_loops_take_turns_and_share_the_layout_of_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "unavailable", lambda name: None)
    settings = Settings(Path("load"), seconds=0.1, warm_up=0.1)
    workload = Recorded()
    run = benchmark.Run([workload], ["a", "b"], settings, 3, sparing=False, further=0)
    run.measure(workload)
    assert workload.asked == [("a", 0), ("b", 0), ("b", 1), ("a", 1), ("a", 2), ("b", 2)]
