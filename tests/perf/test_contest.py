"""Which loops are measured on because they are too close to tell apart."""

from __future__ import annotations

import pytest
from cells import Cell, Samples, fold_cell
from contest import contenders, in_contest, unseen
from workloads import WORKLOADS

POINT = ("32", "1024")


def samples_of(rates: dict[str, list[float]], mode: str = "proto", figure: str = "rps") -> Samples:
    samples = Samples()
    for loop, values in rates.items():
        for number, value in enumerate(values):
            samples.add(Cell(mode, loop, *POINT), number, {figure: value})
    return samples


@pytest.mark.parametrize(
    ("rates", "who"),
    [
        ({"tokioloop": 100, "uvloop": 80, "rloop": 70}, set()),
        ({"tokioloop": 100, "uvloop": 90, "rloop": 70}, {"tokioloop", "uvloop"}),
        ({"tokioloop": 100, "uvloop": 90, "rloop": 80}, {"tokioloop", "uvloop", "rloop"}),
        # Whoever leads by far so far: tokioloop is measured on whatever it has.
        ({"tokioloop": 60, "uvloop": 100, "rloop": 61}, {"tokioloop", "uvloop"}),
        ({"tokioloop": 100, "limit": 101}, set()),
        ({"uvloop": 100, "rloop": 100}, set()),
    ],
)
def test_those_who_may_be_first_are_measured_on(rates, who) -> None:
    assert in_contest(rates) == who


def test_the_limit_is_measured_beside_them_and_variants_are_not() -> None:
    rates = {"tokioloop": 100, "uvloop": 99, "limit": 150, "tokioloop+busy_poll=100": 100}
    assert in_contest(rates) == {"tokioloop", "uvloop", "limit"}


def test_medians_decide_by_point() -> None:
    samples = samples_of({"tokioloop": [100, 100, 10], "uvloop": [50, 50, 1000]})
    names, points = ("tokioloop", "uvloop"), [POINT, ("1", "1024")]
    assert contenders(samples, WORKLOADS["proto"], names, points) == {}
    samples = samples_of({"tokioloop": [100, 100, 10], "uvloop": [95, 95, 1000]})
    close = frozenset({POINT})
    both = {"tokioloop": close, "uvloop": close}
    assert contenders(samples, WORKLOADS["proto"], names, points) == both


@pytest.mark.parametrize("mode", ["latency", "load", "memory", "counts"])
def test_what_is_no_rate_is_not_measured_on(mode) -> None:
    figure = WORKLOADS[mode].figure
    samples = samples_of({"tokioloop": [1.0], "uvloop": [1.0]}, mode, figure)
    assert contenders(samples, WORKLOADS[mode], ("tokioloop", "uvloop"), [POINT]) == {}


def test_the_best_peer_is_compared_round_by_round() -> None:
    # Both follow the machine, which halves its speed each round.
    rates = {"tokioloop": [440, 220, 110], "uvloop": [400, 200, 100], "rloop": [100, 100, 100]}
    figures = fold_cell(samples_of(rates), Cell("proto", "tokioloop", *POINT), "rps")
    assert figures["best_peer"] == "uvloop"
    assert figures["vs_best"] == pytest.approx(1.1)
    assert "vs_best" not in fold_cell(samples_of(rates), Cell("proto", "uvloop", *POINT), "rps")


def test_a_peer_that_met_the_slow_state_more_often_is_not_overlooked() -> None:
    samples = samples_of(
        {
            "tokioloop": [220, 220, 110, 110, 220],
            "zuvloop": [115, 230, 115, 115, 115],
            "uvloop": [150, 150, 100, 100, 150],
        }
    )
    figures = fold_cell(samples, Cell("proto", "tokioloop", *POINT), "rps")
    assert figures["best_peer"] == "zuvloop"
    assert figures["vs_best"] == pytest.approx(110 / 115)
    names = ("tokioloop", "zuvloop", "uvloop")
    close = contenders(samples, WORKLOADS["proto"], names, [POINT])
    assert close.keys() == {"tokioloop", "zuvloop"}


def test_who_comes_near_a_fallen_leader_is_measured_on_beside_tokioloop() -> None:
    other = ("1", "1024")
    close = {
        "tokioloop": frozenset({POINT, other}),
        "uvloop": frozenset({POINT, other}),
        "zloop": frozenset({POINT}),
    }
    seen = {(name, point) for name in ("tokioloop", "uvloop") for point in (POINT, other)}
    everybody = dict.fromkeys(close, frozenset({POINT}))
    assert unseen(close, seen) == everybody
    assert unseen(close, seen | {("zloop", POINT)}) == {}


def test_the_best_peer_is_the_one_whose_ratio_is_shown() -> None:
    # With an even number of rounds a median and that of the reciprocals differ.
    samples = samples_of({"tokioloop": [100, 100], "uvloop": [50, 200], "rloop": [120, 120]})
    figures = fold_cell(samples, Cell("proto", "tokioloop", *POINT), "rps")
    assert figures["best_peer"] == "rloop"
    assert figures["vs_best"] == pytest.approx(100 / 120)
