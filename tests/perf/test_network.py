"""When a run of the load client counts as a measurement, and when as a failure."""

from __future__ import annotations

from typing import Any

import pytest
from network import judged


def run(**changes: Any) -> dict[str, Any]:
    return {"messages": 1000, "rps": 1000.0, "stalls": 0, "faults": {}, **changes}


def test_a_clean_run_is_kept_as_it_is() -> None:
    figures = run()
    assert judged(figures, 32) is figures


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"stalls": 32}, "stalled after 1000 messages"),
        ({"messages": 0}, "no message was answered"),
        ({"messages": 0, "faults": {"connect: ConnectionRefused": 1}}, "ConnectionRefused"),
        ({"faults": {"reply differs": 32}}, "32 x reply differs after 1000 messages"),
    ],
)
def test_a_run_without_connections_left_is_a_failure(changes: dict[str, Any], reason: str) -> None:
    assert reason in judged(run(**changes), 32)["failure"]


@pytest.mark.parametrize(
    "changes", [{"stalls": 1}, {"faults": {"ConnectionReset": 3}}, {"faults": {"lost": 100}}]
)
def test_a_run_that_went_on_is_kept_with_its_faults(changes: dict[str, Any]) -> None:
    assert "failure" not in judged(run(**changes), 32)


def test_faults_of_connections_that_are_replaced_are_only_counted() -> None:
    figures = run(faults={"ConnectionReset": 50})
    assert "failure" in judged(figures, 32)
    assert "failure" not in judged(figures, 32, replaced=True)
