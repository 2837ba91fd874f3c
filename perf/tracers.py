"""What strace and callgrind wrote."""

from __future__ import annotations

import re
from pathlib import Path


def parse_strace(summary: str) -> dict[str, int]:
    """The calls by name from the table of `strace -c`; empty where there were none."""
    calls: dict[str, int] = {}
    for line in summary.splitlines():
        fields = line.split()
        # % time, seconds, usecs/call, calls, [errors,] syscall
        if len(fields) in (5, 6) and fields[3].isdigit() and fields[-1] != "total":
            calls[fields[-1]] = int(fields[3])
    return calls


def parse_callgrind(profile: str) -> int | None:
    """The instructions of a whole run; None where the profile is not complete."""
    total = re.search(r"^(?:totals|summary): (\d+)", profile, re.MULTILINE)
    return int(total[1]) if total else None


def read(path: Path) -> str:
    """The text of a tracer's output, or nothing where it wrote none."""
    return path.read_text(errors="replace") if path.exists() else ""
