"""Injects the loop under test into `aiohttp.pytest_plugin`, which asks the `loop` fixture."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from aiohttp.test_utils import loop_context
from interop_support.loops import new_event_loop


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    with loop_context(new_event_loop) as loop:
        yield loop
