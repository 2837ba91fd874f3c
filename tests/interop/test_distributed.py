"""dask.distributed: a scheduler and two workers as processes, and a TLS cluster on one loop."""

from __future__ import annotations

import operator
import os
import re
from collections.abc import Iterator

import pytest
from interop_support.loops import expected_class_name, running_class_name
from interop_support.processes import ServerProcess, python

distributed = pytest.importorskip("distributed", exc_type=ImportError)


@pytest.fixture(scope="module")
def cluster(workspace) -> Iterator[str]:
    """The address of a scheduler that two workers have joined."""
    nodes: list[ServerProcess] = []

    def start(role: str, *arguments: str) -> ServerProcess:
        node = ServerProcess(
            python("-m", "interop_support.dask_node", role, *arguments),
            log=workspace / f"dask-{len(nodes)}-{role}.log",
            env={
                "DASK_DISTRIBUTED__ADMIN__TICK__LIMIT": "10s",
                "DASK_TEMPORARY_DIRECTORY": str(workspace / "dask"),
            },
        )
        nodes.append(node)
        return node

    def address(node: ServerProcess) -> str:
        node.wait_until(lambda: "listening" in node.output())
        return re.search(r"listening (\S+)\n", node.output()).group(1)

    try:
        scheduler = address(start("scheduler"))
        for worker in [start("worker", scheduler) for _ in range(2)]:
            address(worker)
        yield scheduler
    finally:
        for node in reversed(nodes):
            node.stop()
    assert [node.wait() for node in nodes] == [0, 0, 0], [node.output() for node in nodes]


def test_every_node_runs_on_the_loop_under_test(run, cluster) -> None:
    async def which_loop() -> str:
        return running_class_name()

    async def main() -> None:
        async with distributed.Client(cluster, asynchronous=True) as client:
            on_workers = await client.run(which_loop)
            assert len(on_workers) == 2
            classes = {*on_workers.values(), await client.run_on_scheduler(which_loop)}
            assert classes == {expected_class_name()}

    run(main)


def test_tasks_spread_and_their_results_come_back(run, cluster) -> None:
    async def main() -> None:
        async with distributed.Client(cluster, asynchronous=True) as client:
            squares = client.map(lambda n: n * n, range(200), pure=False)
            total = client.submit(sum, squares)
            assert await total == sum(n * n for n in range(200))
            pids = await client.gather(client.map(lambda _: os.getpid(), range(50), pure=False))
            assert len(set(pids)) == 2

    run(main)


def test_large_data_moves_between_client_and_workers(run, cluster) -> None:
    async def main() -> None:
        async with distributed.Client(cluster, asynchronous=True) as client:
            first, second = (await client.scheduler.identity())["workers"]
            data = os.urandom(4_000_000)
            scattered = await client.scatter(data, workers=[first])
            # The other worker has to fetch it from its peer.
            joined = client.submit(operator.add, scattered, b"tail", workers=[second])
            assert await joined == data + b"tail"

    run(main)


def test_errors_and_cancellations_arrive(run, cluster) -> None:
    async def main() -> None:
        async with distributed.Client(cluster, asynchronous=True) as client:
            with pytest.raises(ZeroDivisionError):
                await client.submit(operator.truediv, 1, 0)
            gate = distributed.Event("interop-gate")
            waiting = client.submit(lambda: distributed.Event("interop-gate").wait())
            await waiting.cancel()
            assert waiting.cancelled()
            await gate.set()  # free the worker's thread, if the task had begun

    run(main)


def test_a_tls_cluster_on_one_loop(run) -> None:
    pytest.importorskip("cryptography", exc_type=ImportError)

    async def main() -> None:
        async with (
            distributed.LocalCluster(
                n_workers=2,
                processes=False,
                threads_per_worker=1,
                protocol="tls://",
                security=True,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
                worker_dashboard_address="127.0.0.1:0",
                asynchronous=True,
            ) as cluster,
            distributed.Client(cluster, asynchronous=True) as client,
        ):
            assert cluster.scheduler_address.startswith("tls://")
            futures = client.map(lambda n: bytes([n]) * 100_000, range(20))
            results = await client.gather(futures)
            assert results == [bytes([n]) * 100_000 for n in range(20)]

    run(main)
