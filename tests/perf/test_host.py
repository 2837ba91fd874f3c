"""Which samples count on a machine whose host moves and shares the cores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pace
import pytest
from host import TRIES, Range, undisturbed, usual_distance, usual_pace

SHARED_CORE = [31.0, 32.0]
SHARED_CACHE = [63.0, 66.0, 70.0, 72.0, 75.0, 80.0, 85.0] * 4
APART = [400.0, 420.0, 460.0] * 20


def test_the_nearest_common_distance_is_wanted() -> None:
    distance = usual_distance(SHARED_CORE + SHARED_CACHE + APART)
    assert (distance.smallest, distance.largest) == (31.0, 460.0)
    assert 32.0 < distance.least < 63.0
    assert 85.0 < distance.most < 400.0
    assert distance.holds(70.0) and not distance.holds(31.0) and not distance.holds(430.0)


def test_where_every_distance_is_of_its_own_kind_one_is_chosen() -> None:
    values = [10.0 * 2**power for power in range(9)]
    assert any(usual_distance(values).holds(value) for value in values)


def test_the_pace_at_which_most_lie_close_together_is_wanted() -> None:
    alone, between, shared = [13.0, 13.5] * 3, [16.0, 18.0, 20.0, 22.0], [24.0, 25.0, 29.0] * 4
    pace = usual_pace(alone + between + shared)
    assert (pace.smallest, pace.largest) == (13.0, 29.0)
    assert [pace.holds(value) for value in (13.2, 20.0, 25.0, 29.0)] == [False, False, True, True]
    assert usual_pace(alone * 3 + between + shared).holds(13.2)


@pytest.mark.parametrize("find", [usual_distance, usual_pace])
@pytest.mark.parametrize("values", [[50.0, 55.0, 60.0], [50.0]])
def test_where_nothing_changes_what_differs_little_is_wanted(
    values: list[float], find: Callable[[list[float]], Range]
) -> None:
    wanted = find(values)
    assert wanted.least <= values[0] <= values[-1] <= wanted.most < 2 * values[-1]
    assert str(Range(1.0, 2.0, 0.5, 3.25)) == "0.5-3.2"


@pytest.mark.parametrize("disturbances", range(TRIES + 1))
def test_a_sample_is_repeated_until_it_is_undisturbed_or_patience_ends(disturbances: int) -> None:
    taken: list[bool] = []

    def sample() -> dict[str, Any]:
        taken.append(len(taken) >= disturbances)
        return {"rps": 1.0 * len(taken), "undisturbed": taken[-1]}

    figures = undisturbed(sample)
    assert len(taken) == min(disturbances + 1, TRIES)
    assert figures["repeats"] == len(taken) - 1
    assert figures["disturbed"] == (disturbances == TRIES)
    assert figures["rps"] == len(taken)


def test_a_sample_of_which_nothing_is_known_counts() -> None:
    assert undisturbed(lambda: {"rps": 1.0}) == {"rps": 1.0, "repeats": 0, "disturbed": 0}
    failure = undisturbed(lambda: {"failure": "stalled"})
    assert failure["failure"] == "stalled"


def test_a_rate_is_taken_again_where_the_pace_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    # Before and after each of two samples: the first one ends at another pace.
    paces = iter([10.0, 20.0, 10.0, 10.0])
    monkeypatch.setattr(pace, "pace", lambda: next(paces))
    rates = iter([1.0, 2.0])
    found = pace.at_usual_pace(Range(10.0, 20.0, 8.0, 12.0), lambda: next(rates))
    assert found == {"rate": 2.0, "undisturbed": True, "repeats": 1, "disturbed": 0}
    assert pace.at_usual_pace(None, lambda: 3.0) == {"rate": 3.0}


def test_the_pace_of_this_machine_is_a_time() -> None:
    assert all(0 < nanoseconds < 1e9 for nanoseconds in [pace.pace(), *pace.survey(0.02)])
