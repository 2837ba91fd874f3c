"""The record of a run: machine, kernel, interpreter, versions, command."""

from __future__ import annotations

import datetime
import importlib
import os
import platform
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

import loops
import processes


def describe(names: list[str], argv: list[str], rounds: int, seconds: float) -> dict[str, Any]:
    """Everything that a reader needs to judge or repeat the figures."""
    server, client = processes.cores()
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": " ".join(["python", *(_relative(word) for word in argv)]),
        "machine": cpu_model(),
        "cores": os.cpu_count(),
        "pinned": {"server": server, "client": client},
        "busy_cores": busy_cores(),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": sys.version,
        "python_tag": python_tag(),
        "gil": gil_enabled(),
        "versions": loops.versions(names),
        "build_profile": build_profile(),
        "commit": commit(),
        "rounds": rounds,
        "seconds": seconds,
    }


def busy_cores(seconds: float = 0.5) -> float:
    """How many cores are busy with something else, where the kernel tells it; else the load.

    The load average still remembers the build that came before the run.
    """
    try:
        before = _cpu_times()
        time.sleep(seconds)
        after = _cpu_times()
    except (OSError, ValueError):
        return os.getloadavg()[0]
    spent = [late - early for early, late in zip(before, after, strict=True)]
    idle = spent[3] + spent[4]
    return (os.cpu_count() or 1) * (1.0 - idle / max(sum(spent), 1))


def _cpu_times() -> list[int]:
    """Ticks of all cores since the start: user, nice, system, idle, waiting, ..., stolen."""
    name, *ticks = Path("/proc/stat").read_text().partition("\n")[0].split()
    if name != "cpu" or len(ticks) < 8:
        raise ValueError(name)
    # What is the guests' is in the first two already.
    return [int(tick) for tick in ticks[:8]]


def python_tag() -> str:
    """A short name such as cp313 or cp314t."""
    threaded = "t" if free_threaded() else ""
    return f"cp{sys.version_info.major}{sys.version_info.minor}{threaded}"


def free_threaded() -> bool:
    """Whether this interpreter was built to run without the GIL."""
    return bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


def gil_enabled() -> bool:
    probe = getattr(sys, "_is_gil_enabled", None)
    return True if probe is None else bool(probe())


def cpu_model() -> str:
    """The processor's name as the kernel has it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def build_profile() -> str | None:
    """The Cargo profile of the imported tokioloop, if there is one."""
    try:
        return getattr(importlib.import_module("tokioloop._core"), "BUILD_PROFILE", None)
    except ImportError:
        return None


def commit() -> str | None:
    """The commit that was measured, where this is a clone, and whether its code was changed."""
    head = _git("rev-parse", "--short", "HEAD")
    if not head:
        return None
    changed = _git("status", "--porcelain", "--", "src", "reactor", "python", "Cargo.toml")
    return f"{head} with changes" if changed else head


def _git(*arguments: str) -> str:
    """What git says of the repository; nothing where there is none."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=processes.ROOT, capture_output=True, text=True
        )
    except OSError:
        return ""
    return done.stdout.strip()


def _relative(word: str) -> str:
    path = Path(word)
    return str(path.relative_to(processes.ROOT)) if path.is_relative_to(processes.ROOT) else word
