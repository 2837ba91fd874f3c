"""What an outcome means for the run: the verdicts, and the record of one test."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any


class Verdict(enum.Enum):
    """How a test counts. The value is its name in the report and its column in the table."""

    PASSED = "passed"  # on the loop under test
    NO_LOOP = "no loop"  # passed without ever asking for a loop: says nothing about ours
    SKIPPED = "skipped"  # listed in skips.toml
    SELF_SKIPPED = "n/a"  # the test skips itself on this interpreter or platform
    ENVIRONMENT = "env"  # fails on the stock loop on this machine just so
    FLAKY = "flaky"  # failed once, passed alone
    FAILED = "failed"
    HANG = "hang"
    CRASH = "crash"
    UNEXPECTED_PASS = "unexpected pass"  # listed in skips.toml, yet it passes

    @property
    def is_bad(self) -> bool:
        """Whether a test with this verdict fails the run."""
        return self in _BAD


_BAD = {Verdict.FAILED, Verdict.HANG, Verdict.CRASH, Verdict.UNEXPECTED_PASS}
_OF_OUTCOME = {
    "skipped": Verdict.SELF_SKIPPED,
    "failed": Verdict.FAILED,
    "hang": Verdict.HANG,
    "crash": Verdict.CRASH,
    "lost": Verdict.CRASH,  # the fork server died with the test still to run
}


@dataclass
class Record:
    """One test of one run."""

    test: str
    verdict: Verdict
    seconds: float = 0.0
    detail: str = ""

    @property
    def module(self) -> str:
        """The test's module, the first part of its name."""
        return self.test.partition(".")[0]


def judge(result: dict[str, Any]) -> Verdict:
    """The verdict on an unlisted test, before any control run."""
    if result["outcome"] == "passed":
        return Verdict.PASSED if result["loops"] else Verdict.NO_LOOP
    return _OF_OUTCOME[result["outcome"]]


def judge_listed(result: dict[str, Any]) -> Verdict:
    """The verdict on a test that skips.toml says cannot pass."""
    if result["outcome"] == "passed":
        return Verdict.UNEXPECTED_PASS
    return Verdict.SELF_SKIPPED if result["outcome"] == "skipped" else Verdict.SKIPPED
