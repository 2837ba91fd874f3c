"""How many children a loop can start and reap per second, eight at a time.

Prints one JSON object in the form of `micro.py`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import time

import server


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--loop", required=True)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--core", type=int, help="bind the process to this core")
    arguments = parser.parse_args()
    loop = server.prepared_loop(arguments.loop, arguments.core)
    try:
        rate = loop.run_until_complete(spawn_rate(arguments.seconds))
        result: dict[str, object] = {"row": ROW, "rate": rate}
    except Exception as error:
        result = {"row": ROW, "failure": f"{type(error).__name__}: {error}"}
    print(json.dumps(result), flush=True)


async def spawn_rate(seconds: float) -> float:
    """Children per second that were started and waited for."""
    program = shutil.which("true") or "/bin/true"
    finished = 0
    started = time.perf_counter()
    end = started + seconds

    async def worker() -> None:
        nonlocal finished
        while time.perf_counter() < end:
            process = await asyncio.create_subprocess_exec(program)
            status = await process.wait()
            if status != 0:
                raise RuntimeError(f"the child ended with {status}")
            finished += 1

    await asyncio.gather(*[worker() for _ in range(WORKERS)])
    return finished / (time.perf_counter() - started)


ROW = "true"
WORKERS = 8


if __name__ == "__main__":
    main()
