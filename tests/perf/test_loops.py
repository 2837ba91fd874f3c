"""The registry of loops: names, options, and the refusal of builds that are not comparable."""

from __future__ import annotations

import asyncio
import sys
from types import ModuleType

import loops
import processes
import pytest


def test_options_follow_the_name() -> None:
    assert loops.parse_name("rloop") == ("rloop", {})
    assert loops.parse_name("tokioloop+busy_poll=50") == ("tokioloop", {"busy_poll": 50})
    parsed = loops.parse_name("tokioloop+read_batch_timeout=0.5+busy_poll=1")
    assert parsed == ("tokioloop", {"read_batch_timeout": 0.5, "busy_poll": 1})


def test_asyncio_is_always_there() -> None:
    loop = loops.loop_factory("asyncio")()
    try:
        assert isinstance(loop, asyncio.SelectorEventLoop)
    finally:
        loop.close()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nosuchloop", "known: asyncio"),
        ("asyncio+busy_poll=1", "only tokioloop takes options"),
        ("tokioloop+busy_poll", "not option=value"),
    ],
)
def test_what_cannot_be_used_says_why(name: str, reason: str) -> None:
    with pytest.raises(loops.LoopUnavailable, match=reason):
        loops.loop_factory(name)


def test_availability_is_asked_in_another_process() -> None:
    assert processes.unavailable("asyncio") is None
    reason = processes.unavailable("nosuchloop")
    assert reason is not None and "known: asyncio" in reason


@pytest.mark.parametrize("profile", ["debug", "checked", "unknown"])
def test_only_fast_builds_are_compared(profile: str, monkeypatch: pytest.MonkeyPatch) -> None:
    core = ModuleType("tokioloop._core")
    core.BUILD_PROFILE = profile  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tokioloop", ModuleType("tokioloop"))
    monkeypatch.setitem(sys.modules, "tokioloop._core", core)
    with pytest.raises(loops.LoopUnavailable, match=f"{profile} build"):
        loops.require_release_build()
    core.BUILD_PROFILE = "release"  # type: ignore[attr-defined]
    loops.require_release_build()
