"""These tests are about asyncio's own streams: the peers have no part in them."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        flavour = parameters.get("flavour")
        if "tests/streams" in item.nodeid and getattr(flavour, "is_peer", False):
            # They would test asyncio's own classes once more; `asyncio` does that already.
            item.add_marker(pytest.mark.skip(reason="the peers use asyncio's streams as they are"))
