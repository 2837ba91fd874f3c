"""What the counters of `loop.metrics()` cost: instructions per message with and without them.

`make metrics-cost` builds tokioloop a second time, without counters, and runs this. Two runs of
one build differ by some instructions, as addresses and hashes do; so both are run several times,
in turn, and the medians are compared.
"""

from __future__ import annotations

import argparse
import os
import statistics
from pathlib import Path

import processes
from counting import MODES, Counter


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modes", nargs="+", choices=sorted(MODES), metavar="mode")
    parser.add_argument("--without", type=Path, required=True, metavar="DIR")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    if not (arguments.without / "tokioloop").is_dir():
        parser.error(f"no tokioloop is installed in {arguments.without}")
    processes.end_children_on_sigterm()
    counter = Counter(processes.load_binary())
    print("mode      with counters  without  cost")
    for mode in arguments.modes:
        counted, uncounted = [], []
        for _ in range(arguments.rounds):
            counted.append(instructions(counter, mode, None))
            uncounted.append(instructions(counter, mode, arguments.without))
        with_them, without = statistics.median(counted), statistics.median(uncounted)
        cost = (with_them - without) / without
        print(f"{mode:<9} {with_them:>13,.0f} {without:>8,.0f} {cost:>6.2%}", flush=True)


def instructions(counter: Counter, mode: str, site: Path | None) -> float:
    """User-space instructions per message of 1 KB, of the build that is installed there."""
    if site is None:
        os.environ.pop("PYTHONPATH", None)
    else:
        os.environ["PYTHONPATH"] = str(site.resolve())
    return counter.instructions("tokioloop", mode, 1024)


if __name__ == "__main__":
    main()
