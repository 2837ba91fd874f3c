"""Folding the samples of rounds into medians, spreads and paired ratios."""

from __future__ import annotations

import pytest
from cells import LIMIT, Cell, Samples, confidence, fold, fold_cell, paired_ratio, spread

MINE = Cell("proto", "tokioloop", "32", "1024")
RLOOP = MINE.with_loop("rloop")


def samples_of(values: dict[Cell, list[float]]) -> Samples:
    samples = Samples()
    for cell, rates in values.items():
        for number, rate in enumerate(rates):
            samples.add(cell, number, {"rps": rate, "errors": 0, "stalls": 0, "faults": {}})
    return samples


def test_figures_end_up_under_mode_loop_connections_size() -> None:
    results = fold(samples_of({MINE: [100.0, 300.0, 200.0]}), {"proto": "rps"})
    assert results["proto"]["tokioloop"]["32"]["1024"]["rps"] == 200.0
    assert results["proto"]["tokioloop"]["32"]["1024"]["rounds"] == 3


def test_ratios_are_paired_within_a_round() -> None:
    # The machine halves its speed each round; the ratio of the loops stays the same.
    samples = samples_of({MINE: [400.0, 200.0, 100.0], RLOOP: [200.0, 100.0, 50.0]})
    assert paired_ratio(samples, MINE, RLOOP, "rps") == 2.0
    assert fold_cell(samples, MINE, "rps")["vs_rloop"] == 2.0


def test_the_share_of_the_limit_needs_the_limit() -> None:
    samples = samples_of({MINE: [90.0]})
    assert "vs_limit" not in fold_cell(samples, MINE, "rps")
    samples.add(MINE.with_loop(LIMIT), 0, {"rps": 100.0})
    assert fold_cell(samples, MINE, "rps")["vs_limit"] == pytest.approx(0.9)


def test_a_ratio_leaves_out_rounds_in_which_either_failed() -> None:
    samples = samples_of({MINE: [300.0, 300.0], RLOOP: [100.0]})
    samples.add(RLOOP, 1, {"failure": "killed by SIGSEGV"})
    assert paired_ratio(samples, MINE, RLOOP, "rps") == 3.0


@pytest.mark.parametrize(
    ("rounds", "lowest", "highest"), [(6, 1, 6), (20, 6, 15), (35, 12, 24), (100, 40, 61)]
)
def test_the_interval_of_a_median_is_that_of_the_sign_test(rounds, lowest, highest) -> None:
    # The ranks are those that statistical tables give for 95 %.
    ranks = [float(rank) for rank in range(1, rounds + 1)]
    assert confidence(ranks[::-1]) == (lowest, highest)


def test_a_few_rounds_have_no_interval() -> None:
    assert confidence([]) is None
    assert confidence([1.0, 1.1, 1.2, 1.3, 1.4]) is None


def test_the_ratio_to_the_best_peer_has_an_interval_where_rounds_are_many() -> None:
    rates = [100.0 + number for number in range(20)]
    samples = samples_of({MINE: rates, RLOOP: [100.0] * 20})
    assert fold_cell(samples, MINE, "rps")["vs_best_interval"] == pytest.approx((1.05, 1.14))
    few = samples_of({MINE: rates[:5], RLOOP: [100.0] * 5})
    assert "vs_best_interval" not in fold_cell(few, MINE, "rps")


def test_a_cell_that_always_failed_is_its_failure() -> None:
    samples = Samples()
    samples.add(MINE, 0, {"failure": "stalled after 3 messages"})
    samples.add(MINE, 1, {"failure": "stalled after 5 messages"})
    assert samples.failures(MINE) == 2
    assert fold_cell(samples, MINE, "rps") == {"failure": "stalled after 5 messages"}


def test_a_round_that_failed_is_told_beside_the_figures() -> None:
    samples = samples_of({MINE: [100.0]})
    samples.add(MINE, 1, {"failure": "connection refused"})
    folded = fold_cell(samples, MINE, "rps")
    assert folded["rps"] == 100.0
    assert folded["failed_rounds"] == ["connection refused"]


def test_errors_and_faults_of_all_rounds_are_added_up() -> None:
    samples = Samples()
    for number in range(3):
        faults = {"ConnectionReset": number}
        samples.add(MINE, number, {"rps": 1.0, "errors": number, "stalls": 1, "faults": faults})
    folded = fold_cell(samples, MINE, "rps")
    assert (folded["errors"], folded["stalls"]) == (3, 3)
    assert folded["faults"] == {"ConnectionReset": 3}


def test_spread_is_half_the_range_relative_to_the_median() -> None:
    assert spread([90.0, 100.0, 110.0]) == pytest.approx(0.1)
    assert spread([5.0]) == 0.0
    assert spread([0.0, 0.0]) == 0.0
