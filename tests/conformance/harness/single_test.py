"""Runs one test in the process that was forked for it and describes how it ended."""

from __future__ import annotations

import gc
import time
import unittest
import warnings
from typing import Any

from .injection import LoopSource


def run_single(case: unittest.TestCase, source: LoopSource | None) -> dict[str, Any]:
    """Run `case` with its module's and class's fixtures; the outcome as plain data.

    `outcome` is "passed", "skipped" or "failed"; `loops` is the number of loops under test that
    the test had, and `detail` holds tracebacks or the reason of the skip.
    """
    if source is not None:
        source.used = 0
    result = unittest.TestResult()
    started = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        unittest.TestSuite([case]).run(result)
        # Finalizers belong to the test: a loop that breaks when it is collected must be noticed.
        vars(case).clear()
        gc.collect()
    seconds = time.monotonic() - started
    outcome, detail = _judge(result)
    return {
        "outcome": outcome,
        "detail": detail,
        "seconds": round(seconds, 3),
        "loops": source.used if source is not None else 0,
    }


def _judge(result: unittest.TestResult) -> tuple[str, str]:
    problems = [text for _, text in result.errors + result.failures]
    problems += [f"unexpected success of {test}" for test in result.unexpectedSuccesses]
    if problems:
        return "failed", "\n".join(problems)
    if result.skipped:
        return "skipped", "; ".join(sorted({reason for _, reason in result.skipped}))
    if result.testsRun != 1:
        return "failed", f"{result.testsRun} tests ran instead of one"
    return "passed", ""
