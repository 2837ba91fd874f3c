"""Injects the loop under test into pytest-asyncio, under pytest-aiohttp, by its factories hook."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from interop_support.loops import new_event_loop


def pytest_asyncio_loop_factories(config: Any, item: Any) -> Mapping[str, Callable[[], Any]]:
    return {"loop_under_test": new_event_loop}
