"""The rounds of a run: who is measured when, and with what."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import benchmark
import processes
import pytest
from cells import Cell, Figures
from network import Network
from workload import Point, Sample, Settings

POINT = ("1", "1024")
SETTINGS = Settings(Path("load"), seconds=0.1, warm_up=0.1)


class Recorded:
    """A workload that notes how it was asked."""

    name = "proto"
    title = figure = unit = "rps"
    axes = ("connections", "size")
    most_rounds = None
    limit = False
    variants = ()
    log_scale = False
    windows = 2

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []

    def points(self, settings: Settings) -> list[Point]:
        return [POINT]

    def run(self, loop: str, settings: Settings, skip: frozenset[Point]) -> Iterator[Sample]:
        self.asked.append((loop, settings.layout))
        yield *POINT, {"rps": 1.0}

    def side_by_side(
        self, loops: Sequence[str], point: Point, settings: Settings
    ) -> Iterator[tuple[int, str, Figures]]:
        for turn in range(self.windows):
            for loop in loops:
                self.asked.append((loop, settings.layout))
                yield turn, loop, {"rps": 1.0}


class Fragile(Network):
    """Servers and samples by their loops' names."""

    @contextlib.contextmanager
    def _server(self, loop: str, settings: Settings, first: Point) -> Iterator[processes.Server]:
        if loop == "absent":
            raise processes.ServerFailed("does not start")
        yield loop  # type: ignore[misc]
        if loop == "crashes":
            raise processes.ServerFailed("killed by SIGSEGV")

    def _measure(self, server: processes.Server, point: Point, settings: Settings) -> Figures:
        if str(server) == "crashes":
            raise processes.ClientFailed("connection reset")
        return {"rps": 1.0}


def test_loops_take_turns_and_share_the_layout_of_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "unavailable", lambda name: None)
    workload = Recorded()
    run = benchmark.Run([workload], ["a", "b"], SETTINGS, 3, sparing=False, starts=0)
    run.measure(workload)
    assert workload.asked == [("a", 0), ("b", 0), ("b", 1), ("a", 1), ("a", 2), ("b", 2)]


def test_what_is_close_is_started_anew_with_other_layouts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "unavailable", lambda name: None)
    workload = Recorded()
    names = ["tokioloop", "uvloop"]
    run = benchmark.Run([workload], names, SETTINGS, 1, sparing=False, starts=2)
    run.measure(workload)
    assert workload.asked[:2] == [("tokioloop", 0), ("uvloop", 0)]
    assert sorted({layout for _, layout in workload.asked[2:]}) == [1, 2]
    # One of the round, and two turns of each of two starts, each under a number of its own.
    for name in names:
        assert len(run.samples.values(Cell("proto", name, *POINT), "rps")) == 5


def test_side_by_side_each_loop_begins_in_turn() -> None:
    turns = list(Fragile("proto", "", "proto", windows=3).side_by_side("abc", POINT, SETTINGS))
    assert [loop for _, loop, _ in turns] == [*"abc", *"bca", *"cab"]
    assert [number for number, _, _ in turns] == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_side_by_side_a_loop_that_fails_leaves_the_others_to_go_on() -> None:
    loops = ["absent", "crashes", "works"]
    turns = list(Fragile("proto", "", "proto", windows=3).side_by_side(loops, POINT, SETTINGS))
    assert turns[0] == (0, "absent", {"failure": "does not start"})
    assert [figures for _, loop, figures in turns if loop == "crashes"] == [
        {"failure": "connection reset"}
    ]
    assert [number for number, loop, _ in turns if loop == "works"] == [0, 1, 2]
