"""Fixtures of the tests that look at loops: only tokioloop can be looked at like this."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import tokioloop


@pytest.fixture
def make_loop() -> Iterator[Callable[..., tokioloop.TokioLoop]]:
    """Makes loops with options and closes them after the test."""
    loops: list[tokioloop.TokioLoop] = []

    def make(**options: Any) -> tokioloop.TokioLoop:
        loops.append(tokioloop.TokioLoop(**options))
        return loops[-1]

    yield make
    while loops:
        loops.pop().close()
