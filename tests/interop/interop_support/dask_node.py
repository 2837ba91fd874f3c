"""A dask scheduler or worker as a process of its own, on the loop under test.

`python -m interop_support.dask_node scheduler` prints `listening ADDRESS`;
`python -m interop_support.dask_node worker ADDRESS` joins it. SIGTERM ends either in good order.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any

from interop_support.loops import require_loop_under_test, run

LIFETIME = 120.0  # seconds; the tests end a node long before
HTTP = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}  # each node has an HTTP server too


async def serve(node: Any) -> None:
    asyncio.get_running_loop().add_signal_handler(
        signal.SIGTERM, lambda: asyncio.ensure_future(node.close())
    )
    async with node:
        require_loop_under_test()
        print("listening", node.address, flush=True)
        await node.finished()


async def scheduler() -> None:
    from distributed import Scheduler

    await serve(Scheduler(host="127.0.0.1", port=0, **HTTP))


async def worker(address: str) -> None:
    from distributed import Worker

    await serve(Worker(address, host="127.0.0.1", nthreads=2, **HTTP))


if __name__ == "__main__":
    role, *arguments = sys.argv[1:]
    run(lambda: {"scheduler": scheduler, "worker": worker}[role](*arguments), timeout=LIFETIME)
