"""Shows a run: the table for people, JSON for machines."""

from __future__ import annotations

import json
import platform
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from .session import Summary
from .skips import Interpreter
from .verdicts import Record, Verdict

DETAIL_WIDTH = 160  # characters of a failure, in the console; the JSON report has all of it
_LABELS = {Verdict.HANG: "HANG", Verdict.CRASH: "CRASH"}


def interpreter_name() -> str:
    """Such as `CPython 3.14.2 free-threaded`."""
    suffix = " free-threaded" if Interpreter.running().free_threaded else ""
    return f"{platform.python_implementation()} {platform.python_version()}{suffix}"


def headline(record: Record) -> str:
    """A bad record in one line, with the line that tells most about it."""
    lines = [line.strip() for line in record.detail.partition("\n--- output ---")[0].splitlines()]
    if record.verdict is Verdict.HANG:
        # faulthandler's stacks start with the innermost frame.
        told = next((line for line in lines if line.startswith("File ")), "")
    elif record.verdict is Verdict.CRASH:
        told = lines[0] if lines else ""
    else:
        told = next((line for line in reversed(lines) if line), "")
    return f"{_label(record)}: {record.test}: {told[:DETAIL_WIDTH]}"


def table(summary: Summary, loop: str) -> str:
    """One line per module and the totals; then what fails the run."""
    columns = list(Verdict)
    counts = {module: Counter[Verdict]() for module in summary.modules}
    for record in summary.records:
        counts[record.module][record.verdict] += 1
    rows = [["module", *(column.value for column in columns)]]
    for module in summary.modules:
        if module in summary.unavailable:
            rows.append([module, f"skips itself: {summary.unavailable[module]}"])
        else:
            rows.append([module, *(_cell(counts[module][column]) for column in columns)])
    total = sum(counts.values(), Counter[Verdict]())
    rows.append(["total", *(str(total[column]) for column in columns)])
    lines = [f"{interpreter_name()}, {loop}, {summary.seconds:.0f} s", *_align(rows), ""]
    for verdict in (Verdict.FLAKY, Verdict.ENVIRONMENT):
        lines += [f"{verdict.value}: {r.test}" for r in summary.records if r.verdict is verdict]
    lines += [headline(record) for record in summary.records if record.verdict.is_bad]
    lines += [f"matches no test: {skip.pattern}" for skip in summary.stale]
    if summary.environment_is_broken:
        lines.append("too many tests fail on the stock loop of this machine")
    lines.append("OK" if summary.ok else "FAILED")
    return "\n".join(lines)


def write_json(path: Path, summary: Summary, loop: str) -> None:
    """Every test with its verdict, time and detail."""
    counts = {module: Counter[str]() for module in summary.modules}
    for record in summary.records:
        counts[record.module][record.verdict.value] += 1
    total = sum(counts.values(), Counter[str]())
    document: dict[str, Any] = {
        "interpreter": interpreter_name(),
        "executable": sys.executable,
        "loop": loop,
        "ok": summary.ok,
        "seconds": round(summary.seconds, 1),
        "totals": {verdict.value: total[verdict.value] for verdict in Verdict},
        "modules": counts,
        "unavailable": summary.unavailable,
        "stale": [skip.pattern for skip in summary.stale],
        "tests": [
            {
                "test": record.test,
                "verdict": record.verdict.value,
                "seconds": record.seconds,
                "detail": record.detail,
            }
            for record in summary.records
        ],
    }
    path.write_text(json.dumps(document, indent=1))


def _label(record: Record) -> str:
    return _LABELS.get(record.verdict, record.verdict.value)


def _cell(count: int) -> str:
    return str(count) if count else "."


def _align(rows: list[list[str]]) -> list[str]:
    complete = [row for row in rows if len(row) == len(rows[0])]
    widths = [max(len(row[i]) for row in complete) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        first, *rest = row
        if len(row) < len(widths):
            lines.append(f"{first:<{widths[0]}}  {' '.join(rest)}")
            continue
        cells = (f"{cell:>{width}}" for cell, width in zip(rest, widths[1:], strict=True))
        lines.append("  ".join([f"{first:<{widths[0]}}", *cells]))
    return lines
