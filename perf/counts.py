"""Instructions and system calls per message: the two figures that do not drift.

`python perf/counts.py proto --loops tokioloop,rloop --sizes 1024 --concurrency 32`; the
method is in `counting.py`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import processes
from counting import MODES, Counter

HEADER = "mode      loop                     bytes  instructions  syscalls  memory"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modes", nargs="*", default=["proto", "stream", "raw"], metavar="mode")
    parser.add_argument("--loops", default="asyncio,uvloop,rloop,tokioloop")
    parser.add_argument("--sizes", default="1024")
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--short", type=int, default=800, help="messages of the short run")
    parser.add_argument("--long", type=int, default=4_000, help="messages of the long run")
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

    processes.end_children_on_sigterm()
    counter = Counter(
        processes.load_binary(),
        arguments.concurrency,
        arguments.short,
        arguments.long,
        arguments.keep,
    )
    names = arguments.loops.split(",")
    reasons = {name: processes.unavailable(name) for name in names}
    rows = []
    print(HEADER)
    for mode in arguments.modes:
        for size in map(int, arguments.sizes.split(",")):
            for name in names:
                reason = reasons[name]
                figures = (
                    {"failure": reason}
                    if reason is not None
                    else counter.figures(name, mode, size, arguments.only)
                )
                rows.append({"loop": name, "mode": mode, "size": size, **figures})
                print_row(rows[-1], arguments.detail)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


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


if __name__ == "__main__":
    main()
