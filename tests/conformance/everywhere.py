"""Runs CPython's asyncio tests on TokioLoop with every interpreter that this machine has.

    python tests/conformance/everywhere.py                    # on PATH, of pyenv, of uv
    python tests/conformance/everywhere.py /opt/py/bin/python3.14t ...

Each interpreter gets an environment and a build of its own (`make conformance-here`), which prints
the table of its modules; the table of all interpreters comes in the end. The exit status is 0 if
every run is clean and there was one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
VERSIONS = range(10, 16)
FREE_THREADED_SINCE = 14
# Where pyenv and uv keep the interpreters that they have installed.
MANAGERS = (
    Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions",
    Path.home() / ".local" / "share" / "uv" / "python",
)
COLUMNS = ("passed", "no loop", "skipped", "n/a", "failed", "hang", "crash")

DESCRIBE = """
import importlib.util, json, platform, sys, sysconfig
print(json.dumps({
    "name": platform.python_implementation(),
    "version": platform.python_version(),
    "minor": sys.version_info[1],
    "free_threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    "has_tests": importlib.util.find_spec("test.test_asyncio") is not None,
}))
"""


@dataclass
class Interpreter:
    """One Python of this machine."""

    path: str
    version: str
    minor: int
    free_threaded: bool
    has_tests: bool
    report: dict[str, Any] = field(default_factory=dict)
    status: int = 1

    @property
    def label(self) -> str:
        return f"{self.version}{'t' if self.free_threaded else ''}"

    @property
    def key(self) -> tuple[int, bool]:
        return self.minor, self.free_threaded


def candidates() -> list[str]:
    """Paths that may be interpreters, the most specific names first."""
    names = [f"python3.{minor}" for minor in VERSIONS]
    names += [f"python3.{minor}t" for minor in VERSIONS if minor >= FREE_THREADED_SINCE]
    folders = [folder for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    for manager in MANAGERS:
        folders += map(str, sorted(manager.glob("*/bin")))
    found = [shutil.which(name, path=folder) for name in names for folder in folders]
    return [sys.executable, *(path for path in found if path)]


def describe(path: str) -> Interpreter | None:
    """What a path is; None where it is no CPython that tokioloop is for."""
    try:
        told = subprocess.run([path, "-c", DESCRIBE], capture_output=True, timeout=30, check=True)
        found = json.loads(told.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    if found.pop("name") != "CPython" or found["minor"] not in VERSIONS:
        return None
    return Interpreter(path, **found)


def choose(paths: list[str]) -> list[Interpreter]:
    """One interpreter for each version, with and without the GIL; one that has the tests."""
    chosen: dict[tuple[int, bool], Interpreter] = {}
    for path in paths:
        found = describe(path)
        if found is None:
            continue
        known = chosen.get(found.key)
        if known is None or (found.has_tests and not known.has_tests):
            chosen[found.key] = found
    return [chosen[key] for key in sorted(chosen)]


def run(interpreter: Interpreter, folder: Path) -> None:
    """Builds for an interpreter, and runs its tests."""
    report = folder / f"{interpreter.label}.json"
    command = [
        os.environ.get("MAKE", "make"), "--no-print-directory", "conformance-here",
        f"PYTHON={interpreter.path}", f"VENV=.venv-{interpreter.label}", f"REPORT={report}",
    ]  # fmt: skip
    interpreter.status = subprocess.run(command, cwd=REPOSITORY).returncode
    if report.exists():
        interpreter.report = json.loads(report.read_text())


def table(interpreters: list[Interpreter]) -> str:
    """A line for each interpreter."""
    rows = [["interpreter", *COLUMNS, ""]]
    for each in interpreters:
        if not each.has_tests:
            rows.append([each.label, *("" for _ in COLUMNS), "comes without CPython's tests"])
            continue
        totals = each.report.get("totals", {})
        verdict = "OK" if each.status == 0 else "FAILED"
        rows.append([each.label, *(str(totals.get(column, "")) for column in COLUMNS), verdict])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if index in (0, len(row) - 1) else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def main(paths: list[str]) -> int:
    interpreters = choose(paths or candidates())
    able = [each for each in interpreters if each.has_tests]
    print("interpreters:", ", ".join(f"{each.label} ({each.path})" for each in able), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for each in able:
            run(each, Path(folder))
    print()
    print(table(interpreters))
    return 0 if able and all(each.status == 0 for each in able) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
