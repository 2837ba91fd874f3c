"""Python programs in a process of their own, on the loop under test."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

from tests.support.flavours import Flavour

REPOSITORY = Path(__file__).resolve().parents[2]
_LIMIT = 25.0


def _command(flavour: Flavour, source: str) -> list[str]:
    preamble = f"import asyncio\ndef new_loop():\n    return {flavour.expression}\n"
    return [sys.executable, "-c", preamble + textwrap.dedent(source)]


def _options(env: dict[str, str] | None) -> dict[str, Any]:
    # The child must find what the parent found, and say at once what it prints.
    environment = os.environ | {"PYTHONUNBUFFERED": "1"} | (env or {})
    return {"text": True, "cwd": REPOSITORY, "env": environment}


def run_program(
    flavour: Flavour, source: str, env: dict[str, str] | None = None, limit: float = _LIMIT
) -> subprocess.CompletedProcess[str]:
    """Runs `source` (which makes its loops by `new_loop()`) to its end."""
    return subprocess.run(
        _command(flavour, source), capture_output=True, timeout=limit, **_options(env)
    )


def output_of(flavour: Flavour, source: str, env: dict[str, str] | None = None) -> str:
    """What a program prints that must succeed."""
    done = run_program(flavour, source, env)
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def start_program(
    flavour: Flavour, source: str, env: dict[str, str] | None = None
) -> subprocess.Popen[str]:
    """Starts `source`; the caller talks to it through pipes and ends it."""
    return subprocess.Popen(
        _command(flavour, source),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **_options(env),
    )
