"""Which samples count on a machine whose host moves the cores about."""

from __future__ import annotations

from typing import Any

import pytest
from placement import TRIES, Placement, undisturbed

SHARED_CORE = [31.0, 32.0]
SHARED_CACHE = [63.0, 66.0, 70.0, 72.0, 75.0, 80.0, 85.0] * 4
APART = [400.0, 420.0, 460.0] * 20


def test_the_nearest_common_distance_is_wanted() -> None:
    placed = Placement.of(SHARED_CORE + SHARED_CACHE + APART)
    assert (placed.nearest, placed.farthest) == (31.0, 460.0)
    assert 32.0 < placed.least < 63.0
    assert 85.0 < placed.most < 400.0


def test_where_the_cores_stay_in_place_what_differs_little_is_wanted() -> None:
    placed = Placement.of([50.0, 55.0, 60.0])
    assert placed.least < 50.0 < 60.0 < placed.most < 120.0


def test_one_look_is_enough_for_a_survey() -> None:
    placed = Placement.of([70.0])
    assert placed.least < 70.0 < placed.most


@pytest.mark.parametrize("moves", range(TRIES + 1))
def test_a_sample_is_repeated_until_the_cores_stay_or_patience_ends(moves: int) -> None:
    taken: list[bool] = []

    def sample() -> dict[str, Any]:
        taken.append(len(taken) >= moves)
        return {"rps": 1.0 * len(taken), "cores_stayed": taken[-1]}

    figures = undisturbed(sample)
    assert len(taken) == min(moves + 1, TRIES)
    assert figures["repeats"] == len(taken) - 1
    assert figures["moved"] == (moves == TRIES)
    assert figures["rps"] == len(taken)


def test_a_sample_of_which_nothing_is_known_counts() -> None:
    assert undisturbed(lambda: {"rps": 1.0}) == {"rps": 1.0, "repeats": 0, "moved": 0}
    failure = undisturbed(lambda: {"failure": "stalled"})
    assert failure["failure"] == "stalled"
