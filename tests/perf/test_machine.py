"""What a report says of the machine."""

from __future__ import annotations

import os
from pathlib import Path

import machine
import pytest

TICKS = [
    "cpu  100 0 100 1000 0 0 0 0 0 0\ncpu0 ...",
    "cpu  120 0 110 1060 10 0 0 0 0 0\ncpu0 ...",
]


def test_busy_is_what_was_neither_idle_nor_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = iter(TICKS)
    monkeypatch.setattr(Path, "read_text", lambda self: next(texts))
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert machine.busy_cores(0.0) == pytest.approx(2 * 30 / 100)


def test_without_ticks_the_load_average_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda self: "intr 1 2 3")
    monkeypatch.setattr(os, "getloadavg", lambda: (1.5, 0.0, 0.0))
    assert machine.busy_cores(0.0) == 1.5


def test_this_machine_tells_a_number_of_cores() -> None:
    assert 0.0 <= machine.busy_cores(0.05) <= max(os.cpu_count() or 1, os.getloadavg()[0])
