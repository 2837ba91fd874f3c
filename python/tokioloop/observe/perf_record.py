"""Runs `perf` so that Python and Rust frames are in one stack.

How depends on the interpreter. One that was compiled with frame pointers is unwound by
them, with the perf trampoline (`-X perf`, 3.12). Another needs unwinding by DWARF, for
which 3.13 describes its trampolines (`-X perf_jit`). Before 3.12, Python frames cannot
be seen.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokioloop.observe import stacks

__all__ = ["PerfUnavailable", "Recorder"]

# Tried in this order: without access to the processor's counters, the kernel's clock samples.
_EVENTS = ("cycles", "cpu-clock", "cycles:u", "cpu-clock:u")
# Bytes of stack that are copied per sample for unwinding by DWARF.
_STACK_BYTES = 32 * 1024
_PARANOID = Path("/proc/sys/kernel/perf_event_paranoid")
# Where the interpreter describes its trampolines, whatever TMPDIR says, and the names of the files:
# the interpreter's own, and the libraries, one per function, that `perf inject` makes of a dump.
_MAPS = Path("/tmp")
_MAP = re.compile(r"(?:perf-(\d+)\.map|jit-(\d+)\.dump|jitted-(\d+)-\d+\.so)")


class PerfUnavailable(Exception):
    """Why nothing can be recorded here, and what to set."""


@dataclass(frozen=True)
class _Unwinding:
    call_graph: str
    interpreter_options: tuple[str, ...]
    needs_inject: bool
    sees_python: bool
    note: str | None


class Recorder:
    """A way of recording that works here, determined once."""

    def __init__(self, frequency: int) -> None:
        """Raise PerfUnavailable if nothing can be recorded."""
        perf = shutil.which("perf")
        if perf is None:
            raise PerfUnavailable(
                "perf was not found: install linux-perf (Debian), perf (Fedora) or "
                "linux-tools-generic (Ubuntu); other systems than Linux have none"
            )
        self._perf = perf
        self._frequency = frequency
        self.event = self._find_event()
        self._unwinding = _unwinding()

    @property
    def notes(self) -> list[str]:
        """What the reader of a profile should know about how it was made."""
        notes = [f"event {self.event}, {self._frequency} samples a second of CPU time"]
        if self.event.startswith("cpu-clock"):
            notes.append("no access to the processor's counters: the software clock samples")
        if self.event.endswith(":u"):
            notes.append(
                "the kernel's share is not seen: set sysctl kernel.perf_event_paranoid to 1"
            )
        if self._unwinding.note is not None:
            notes.append(self._unwinding.note)
        return notes

    @property
    def sees_python(self) -> bool:
        """Whether stacks reach through the interpreter, with Python's functions in them."""
        return self._unwinding.sees_python

    @property
    def by_frame_pointers(self) -> bool:
        """Whether code without frame pointers loses its callers."""
        return self._unwinding.call_graph == "fp"

    def interpreter(self) -> list[str]:
        """The command that starts this interpreter with its frames visible to perf."""
        return [sys.executable, *self._unwinding.interpreter_options]

    def command(self, command: Sequence[str], data: Path) -> list[str]:
        """The command that runs another one and records it."""
        return [
            self._perf,
            "record",
            "--quiet",
            f"--event={self.event}",
            f"--freq={self._frequency}",
            f"--call-graph={self._unwinding.call_graph}",
            "--clockid=mono",
            f"--output={data}",
            "--",
            *command,
        ]

    def read(self, data: Path, below: str | None = None) -> stacks.Profile:
        """Unwind what was recorded; `below` as for `stacks.parse`.

        Removes the files that the interpreter and perf have left in /tmp for that.
        """
        if self._unwinding.needs_inject:
            injected = data.with_suffix(".jit")
            # It writes a library per function beside the dump of the interpreter.
            self._run([self._perf, "inject", "--jit", f"--input={data}", f"--output={injected}"])
            data = injected
        script = [self._perf, "script", "--no-inline", f"--input={data}"]
        script.append("--fields=comm,pid,ip,sym,dso")
        pids: set[str] = set()
        with subprocess.Popen(
            script, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, errors="replace"
        ) as running:
            assert running.stdout is not None
            profile = stacks.parse(_noting_pids(running.stdout, pids), below)
        _remove_maps(pids)
        if not profile.samples:
            raise PerfUnavailable("perf has recorded no sample: let the program compute for longer")
        return profile

    def _find_event(self) -> str:
        failure = ""
        with tempfile.TemporaryDirectory() as directory:
            for event in _EVENTS:
                command = [self._perf, "record", "--quiet", f"--event={event}"]
                command += [f"--output={directory}/probe", "--", "true"]
                done = subprocess.run(command, capture_output=True, text=True)
                if done.returncode == 0:
                    # Without counters perf takes the clock by itself, so it is asked.
                    list_command = [self._perf, "evlist", f"--input={directory}/probe"]
                    listed = subprocess.run(list_command, capture_output=True, text=True)
                    return (listed.stdout.splitlines() or [event])[0].strip()
                failure = done.stderr.strip()
        paranoid = _PARANOID.read_text().strip() if _PARANOID.exists() else "unknown"
        raise PerfUnavailable(
            f"perf may not record (kernel.perf_event_paranoid is {paranoid}): as root, run "
            "`sysctl kernel.perf_event_paranoid=1`, or give this process CAP_PERFMON; in a "
            f"container, allow the system call perf_event_open. perf says: {failure}"
        )

    def _run(self, command: list[str]) -> None:
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise PerfUnavailable(f"{' '.join(command[:2])} failed: {done.stderr.strip()}")


def _noting_pids(lines: Iterable[str], pids: set[str]) -> Iterator[str]:
    """Pass on what `perf script` writes, and note the processes of the samples."""
    for line in lines:
        # The first line of a sample ends with a number (`python3.13  4711`), those of its frames
        # with a place.
        last = line.rstrip().rpartition(" ")[2]
        if last.isdecimal():
            pids.add(last)
        yield line


def _remove_maps(pids: set[str]) -> None:
    for path in _MAPS.iterdir():
        match = _MAP.fullmatch(path.name)
        if match is not None and match[match.lastindex or 0] in pids:
            with contextlib.suppress(OSError):  # It is another user's, or has gone.
                path.unlink()


def _unwinding() -> _Unwinding:
    if sys.version_info < (3, 12):
        return _Unwinding("fp", (), False, False, "Python frames are seen from CPython 3.12 on")
    if _has_frame_pointers():
        return _Unwinding("fp", ("-X", "perf"), False, True, None)
    if sys.version_info >= (3, 13):
        note = "this interpreter has no frame pointers: stacks are unwound by DWARF"
        return _Unwinding(f"dwarf,{_STACK_BYTES}", ("-X", "perf_jit"), True, True, note)
    note = (
        "this interpreter has no frame pointers, so stacks end early: build CPython with "
        "-fno-omit-frame-pointer, or use 3.13"
    )
    return _Unwinding("fp", ("-X", "perf"), False, False, note)


def _has_frame_pointers() -> bool:
    names = ("CFLAGS", "PY_CFLAGS", "PY_CORE_CFLAGS", "CONFIG_ARGS")
    flags = " ".join(str(sysconfig.get_config_var(name)) for name in names)
    return "-fno-omit-frame-pointer" in flags
