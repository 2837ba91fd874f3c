"""Instructions and system calls per message: the two figures that do not drift.

The server runs under `valgrind --tool=callgrind` (user-space instructions) and again
under `strace -c -f` (system calls; the allocator's have a column of their own), each time
for two numbers of messages. The difference of the two runs divided by the difference in
messages is the cost of one message; what start-up, accepting and the interpreter do once
cancels out.

The client works in lockstep: all connections send together once the last reply is there,
so every loop sees the same batches. Only `raw` runs freely: a tracer makes the server so
slow that the next request is nearly always there when `sock_recv` looks, which shows the
cost of a receive that need not wait; in `raw-wait`, in lockstep, every receive waits.

`python perf/counts.py proto --loops tokioloop,rloop --sizes 1024 --concurrency 32`
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import processes
import tracers

# The server's mode, and whether the client works in lockstep.
MODES = {
    "proto": ("proto", True),
    "buffered": ("buffered", True),
    "stream": ("stream", True),
    "raw": ("raw", False),
    "raw-wait": ("raw", True),
}

HEADER = "mode      loop                     bytes  instructions  syscalls  memory"

# Counted apart: the allocator makes them for large buffers, whatever the loop does.
MEMORY_CALLS = frozenset({"brk", "madvise", "mmap", "mprotect", "mremap", "munmap"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modes", nargs="*", default=["proto", "stream", "raw"], metavar="mode")
    parser.add_argument("--loops", default="asyncio,uvloop,rloop,tokioloop")
    parser.add_argument("--sizes", default="1024")
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--short", type=int, default=1_600, help="messages of the short run")
    parser.add_argument("--long", type=int, default=6_400, help="messages of the long run")
    parser.add_argument("--only", choices=("instructions", "syscalls"))
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep callgrind's profiles here")
    parser.add_argument("--detail", action="store_true", help="also print each system call's rate")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here as well")
    arguments = parser.parse_args()
    unknown = set(arguments.modes) - MODES.keys()
    if unknown:
        parser.error(f"unknown mode {', '.join(sorted(unknown))}; known: {', '.join(MODES)}")
    if arguments.short >= arguments.long:
        parser.error("--short must be less than --long")

    counter = Counter(
        processes.load_binary(),
        arguments.concurrency,
        (arguments.short, arguments.long),
        arguments.keep,
    )
    sizes = [int(size) for size in arguments.sizes.split(",")]
    rows = []
    print(
        f"{'mode':<9} {'loop':<22} {'bytes':>7} {'instructions':>13} {'syscalls':>9} {'memory':>7}"
    )
    for mode in arguments.modes:
        for size in sizes:
            for loop in arguments.loops.split(","):
                row = measure(counter, loop, mode, size, arguments.only)
                rows.append(row)
                print_row(row, arguments.detail)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


def measure(
    counter: Counter, loop: str, mode: str, size: int, only: str | None = None
) -> dict[str, Any]:
    """Both counts of one loop; a failure is the row's `failure` and ends nothing."""
    row: dict[str, Any] = {"loop": loop, "mode": mode, "size": size}
    reason = processes.unavailable(loop)
    if reason is not None:
        return {**row, "failure": reason}
    try:
        if only != "syscalls":
            row["instructions"] = counter.instructions(loop, mode, size)
        if only != "instructions":
            calls = counter.system_calls(loop, mode, size)
            row["syscalls"] = sum(rate for name, rate in calls.items() if name not in MEMORY_CALLS)
            row["memory_calls"] = sum(calls.get(name, 0.0) for name in MEMORY_CALLS)
            row["calls"] = {name: rate for name, rate in calls.items() if abs(rate) >= 0.001}
    except (processes.ServerFailed, processes.ClientFailed, CountFailed) as error:
        row["failure"] = str(error)
    return row


def print_row(row: dict[str, Any], detail: bool) -> None:
    instructions = f"{row['instructions']:,.0f}" if "instructions" in row else "-"
    calls = f"{row['syscalls']:.2f}" if "syscalls" in row else "-"
    memory = f"{row['memory_calls']:.2f}" if "memory_calls" in row else "-"
    line = f"{row['mode']:<9} {row['loop']:<22} {row['size']:>7} {instructions:>13}"
    line += f" {calls:>9} {memory:>7}"
    print(line + (f"  {row['failure']}" if "failure" in row else ""), flush=True)
    if detail and "calls" in row:
        for name, rate in sorted(row["calls"].items(), key=lambda item: -item[1]):
            print(f"{'':<40} {name:<20} {rate:.3f}")


class CountFailed(Exception):
    """A run did not carry all its messages, or a tracer gave no count."""


class Counter:
    """Counts over two run lengths with a fixed number of connections."""

    def __init__(
        self,
        binary: Path,
        connections: int,
        lengths: tuple[int, int],
        keep: Path | None = None,
    ) -> None:
        self.binary = binary
        self.connections = connections
        self.lengths = lengths
        self.keep = keep

    def instructions(self, loop: str, mode: str, size: int) -> float:
        """User-space instructions of the server per message."""
        require("valgrind")
        short, long = self.lengths
        counts = [self._callgrind(loop, mode, size, messages) for messages in (short, long)]
        return (counts[1] - counts[0]) / (long - short)

    def system_calls(self, loop: str, mode: str, size: int) -> dict[str, float]:
        """System calls of the server per message, by name."""
        require("strace")
        short, long = self.lengths
        first, second = (self._strace(loop, mode, size, messages) for messages in (short, long))
        return {
            name: (second.get(name, 0) - first.get(name, 0)) / (long - short)
            for name in first.keys() | second.keys()
        }

    def _callgrind(self, loop: str, mode: str, size: int, messages: int) -> int:
        with tempfile.TemporaryDirectory() as scratch:
            out = Path(scratch) / "callgrind.out"
            wrapper = ["valgrind", "--tool=callgrind", "--quiet", f"--callgrind-out-file={out}"]
            self._run(loop, mode, size, messages, wrapper)
            total = tracers.parse_callgrind(tracers.read(out))
            if total is None:
                raise CountFailed("callgrind wrote no total")
            if self.keep is not None:
                self.keep.mkdir(parents=True, exist_ok=True)
                shutil.copy(out, self.keep / f"{loop}-{mode}-{size}-{messages}.callgrind")
            return total

    def _strace(self, loop: str, mode: str, size: int, messages: int) -> dict[str, int]:
        with tempfile.TemporaryDirectory() as scratch:
            out = Path(scratch) / "strace.out"
            self._run(loop, mode, size, messages, ["strace", "-c", "-f", "-o", str(out)])
            calls = tracers.parse_strace(tracers.read(out))
            if not calls:
                raise CountFailed("strace wrote no table")
            return calls

    def _run(self, loop: str, mode: str, size: int, messages: int, wrapper: list[str]) -> None:
        server_mode, lockstep = MODES[mode]
        command = processes.server_command(loop, server_mode)
        with processes.running(command, wrapper=wrapper, timeout=60.0) as server:
            options = {
                "--target": server.target,
                "--connections": str(self.connections),
                "--size": str(size),
                "--messages": str(messages),
                "--stall": "20",
            }
            flat = [word for pair in options.items() for word in pair]
            if lockstep:
                flat.append("--lockstep")
            result = processes.run_client(self.binary, "client", *flat, timeout=240.0)
        if result["messages"] != messages:
            raise CountFailed(
                f"{result['messages']} of {messages} messages were answered, "
                f"{result['stalls']} connections stalled, faults: {result['faults']}"
            )


def require(tool: str) -> None:
    if shutil.which(tool) is None:
        sys.exit(f"{tool} is needed for this count and is not installed")


if __name__ == "__main__":
    main()
