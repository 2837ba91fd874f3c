"""Reads `skips.toml`: the tests that cannot apply to another loop, each with its reason.

An entry is expected to fail for its reason, so a listed test still runs, and passing is an error.
An entry with `run = false` names tests that say nothing about the loop (such as the same tests once
more for each of CPython's selectors); those are counted, not run.
"""

from __future__ import annotations

import fnmatch
import operator
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

try:
    import tomllib
except ModuleNotFoundError:  # 3.10
    from pip._vendor import tomli as tomllib  # type: ignore[no-redef]

Version = tuple[int, ...]

_COMPARISONS: dict[str, Callable[[Version, Version], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "==": operator.eq,
}
_KEYS = {"test", "reason", "python", "free_threaded", "run", "may_be_absent"}


@dataclass(frozen=True)
class Interpreter:
    """What the bounds of an entry are compared with."""

    version: Version
    free_threaded: bool

    @classmethod
    def running(cls) -> Interpreter:
        """The interpreter that executes this."""
        gil_enabled = getattr(sys, "_is_gil_enabled", lambda: True)()
        return cls(sys.version_info[:3], not gil_enabled)


@dataclass
class Skip:
    """One entry: a pattern for `module.Class.method` and why such tests cannot apply."""

    pattern: str
    reason: str
    run: bool = True
    python: str = ""
    free_threaded: bool | None = None
    may_be_absent: bool = False
    matched: int = field(default=0, compare=False)

    def applies_to(self, interpreter: Interpreter) -> bool:
        """Whether the entry's bounds include the interpreter."""
        if self.free_threaded is not None and self.free_threaded != interpreter.free_threaded:
            return False
        return _within(interpreter.version, self.python)


class SkipList:
    """The entries that hold for one interpreter, in the order of the file."""

    def __init__(self, entries: Iterable[Skip], interpreter: Interpreter) -> None:
        self._entries = [entry for entry in entries if entry.applies_to(interpreter)]

    def find(self, test: str) -> Skip | None:
        """The first entry whose pattern matches the test."""
        for entry in self._entries:
            if fnmatch.fnmatchcase(test, entry.pattern):
                entry.matched += 1
                return entry
        return None

    def unmatched(self, modules: Iterable[str]) -> list[Skip]:
        """Entries about one of the given modules that matched no test: they are out of date."""
        names = set(modules)
        return [
            entry
            for entry in self._entries
            if not (entry.matched or entry.may_be_absent)
            and entry.pattern.partition(".")[0] in names
        ]


def load_skips(path: Path) -> list[Skip]:
    """Every entry of the file; `ValueError` for one that is malformed."""
    document = tomllib.loads(path.read_text())
    return [_parse(raw) for raw in document.get("skip", [])]


def _parse(raw: dict[str, Any]) -> Skip:
    if unknown := raw.keys() - _KEYS:
        raise ValueError(f"unknown keys {sorted(unknown)} in {raw}")
    if not raw.get("test") or not raw.get("reason"):
        raise ValueError(f"an entry needs a test and a reason: {raw}")
    _within((3, 10), raw.get("python", ""))
    return Skip(
        pattern=raw["test"],
        reason=raw["reason"],
        run=raw.get("run", True),
        python=raw.get("python", ""),
        free_threaded=raw.get("free_threaded"),
        may_be_absent=raw.get("may_be_absent", False),
    )


def _within(version: Version, bounds: str) -> bool:
    """Whether the version satisfies bounds such as `>=3.12,<3.14`; no bounds hold always."""
    for bound in filter(None, (part.strip() for part in bounds.split(","))):
        match = re.fullmatch(r"(>=|<=|>|<|==)\s*(\d+(?:\.\d+)*)", bound)
        if match is None:
            raise ValueError(f"{bound!r} is not a version bound")
        limit = tuple(int(part) for part in match[2].split("."))
        # Compared at the bound's precision, so that 3.13.1 is not above "<=3.13".
        if not _COMPARISONS[match[1]](version[: len(limit)], limit):
            return False
    return True
