"""Every race in a process of its own, in development mode: it ends by itself, well and in time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

RACES = sorted(
    path.stem
    for path in (Path(__file__).parent / "races").glob("*.py")
    if path.stem not in ("__init__", "support")
)
REPOSITORY = Path(__file__).parents[2]
TIMEOUT = 25.0
# `fork` beside threads is what one of the races is about.
WARNINGS = "error,ignore:This process:DeprecationWarning"


@pytest.mark.time_limit(40)
@pytest.mark.parametrize("race", RACES)
def test_race_ends_well(race: str) -> None:
    environment = {
        **os.environ,
        "PYTHONDEVMODE": "1",
        "PYTHONWARNINGS": WARNINGS,
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    program = subprocess.run(
        [sys.executable, "-m", f"tests.stress.races.{race}"],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert program.returncode == 0, (
        f"{race}: {program.returncode}\n{program.stdout}{program.stderr}"
    )
    assert program.stdout.startswith("done")
    assert program.stderr == ""
