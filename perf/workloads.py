"""Every workload by name."""

from __future__ import annotations

import machine
import micro
import spawn
from counting import Counts
from network import Network, Paced, Scaling
from resources import Idle, Memory
from scripts import Script
from workload import Workload

KB = 1024
MB = 1024 * KB

# Messages per second, from an idle server to more than any loop here can take.
RATES = (1_000, 10_000, 20_000, 40_000, 60_000, 80_000, 100_000, 120_000, 140_000, 160_000)
# tokioloop's options that trade latency, CPU time and throughput for each other.
BATCHING = (
    "tokioloop+busy_poll=100",
    "tokioloop+read_batch_bytes=16384+read_batch_timeout=0.001",
)
# What the writes of a crowded turn gain from leaving together.
GATHERING = ("tokioloop+write_batch_timeout=0",)

WORKLOADS: dict[str, Workload] = {
    workload.name: workload
    for workload in (
        Network("proto", "asyncio.Protocol, echo", "proto"),
        Network("stream", "Streams: read, write, drain", "stream", variants=GATHERING),
        Network("raw", "sock_recv and sock_sendall", "raw"),
        Network(
            "concurrency",
            "asyncio.Protocol, echo, by number of connections",
            "proto",
            sizes=(1 * KB,),
            connections=(1, 8, 64, 256, 1000),
            quick_connections=(1, 256),
        ),
        Network("buffered", "asyncio.BufferedProtocol, echo", "buffered"),
        Network("unix", "asyncio.Protocol over a Unix socket, echo", "proto", unix=True),
        Network("udp", "DatagramProtocol, echo", "udp", sizes=(64, 1 * KB), prefix="udp:"),
        Network(
            "tls",
            "HTTP responses over TLS",
            "responder",
            sizes=(1 * KB, 100 * KB, 1 * MB),
            tls=True,
            http="/{}",
            limit=False,
            unit="responses/s",
        ),
        Network(
            "handshake",
            "Connect, TLS handshake, one response, reset",
            "responder",
            sizes=(1 * KB,),
            tls=True,
            http="/{}",
            pattern="churn",
            limit=False,
            unit="connections/s",
        ),
        Network(
            "accept",
            "Connect, echo once, reset",
            "proto",
            sizes=(64,),
            pattern="churn",
            unit="connections/s",
        ),
        Network(
            "uvicorn",
            "uvicorn with httptools, keep-alive",
            "uvicorn",
            sizes=(1 * KB, 10 * KB),
            placed=False,
            length=2.0,
            connections=(64,),
            script="web.py",
            variants=GATHERING,
            http="/{}",
            limit=False,
            unit="requests/s",
        ),
        Network(
            "aiohttp",
            "aiohttp, keep-alive",
            "aiohttp",
            sizes=(1 * KB, 10 * KB),
            placed=False,
            length=2.0,
            connections=(64,),
            script="web.py",
            variants=GATHERING,
            http="/{}",
            limit=False,
            unit="requests/s",
        ),
        Network(
            "latency",
            "Latency with one connection (less is better)",
            "proto",
            sizes=(1 * KB,),
            connections=(1,),
            figure="p50_us",
            unit="µs, median",
            variants=("tokioloop+busy_poll=100",),
        ),
        Paced(
            "load",
            "Latency against load, by messages per second (less is better)",
            "proto",
            sizes=(1 * KB,),
            connections=RATES,
            pattern="paced",
            watched=False,
            length=2.0,
            most_rounds=3,
            figure="p99_us",
            unit="µs, p99",
            axes=("rate", "size"),
            log_scale=True,
            variants=BATCHING,
        ),
        Paced(
            "load-stream",
            "Latency against load of tasks that read streams (less is better)",
            "stream",
            sizes=(1 * KB,),
            connections=(10_000, 40_000, 80_000, 120_000, 160_000),
            pattern="paced",
            watched=False,
            length=2.0,
            most_rounds=3,
            figure="p99_us",
            unit="µs, p99",
            axes=("rate", "size"),
            log_scale=True,
            variants=GATHERING,
        ),
        Paced(
            "load-contended",
            "The same beside a busy Python thread",
            "proto",
            sizes=(1 * KB,),
            connections=(1_000, 5_000, 20_000),
            server_options=("--contend",),
            pattern="paced",
            watched=False,
            length=2.0,
            most_rounds=3,
            figure="p99_us",
            unit="µs, p99",
            axes=("rate", "size"),
            log_scale=True,
            limit=False,
        ),
        Script("micro", "The loop's own operations", "micro.py", tuple(micro.ROWS), paced=True),
        Script(
            "spawn",
            "Children started and reaped, eight at a time",
            "spawn.py",
            (spawn.ROW,),
            connections=str(spawn.WORKERS),
            unit="children/s",
        ),
        Memory(),
        Idle(),
        Counts(),
        Scaling(
            "scaling",
            "Loops on threads that share a port, by number of threads",
            "proto",
            sizes=(1 * KB,),
            connections=(1, 2, 3, 4),
            limit=False,
            axes=("threads", "size"),
        ),
        Scaling(
            "scaling-apart",
            "The same loops in processes of their own, by number of processes",
            "proto",
            sizes=(1 * KB,),
            connections=(1, 2, 3, 4),
            limit=False,
            axes=("processes", "size"),
            apart=True,
        ),
    )
}

# `http` stands for both web servers.
GROUPS = {"http": ("uvicorn", "aiohttp")}


def for_this_interpreter() -> list[str]:
    """What a full run measures; loops on threads make sense without the GIL only."""
    free = machine.free_threaded()
    return [name for name in WORKLOADS if free or not name.startswith("scaling")]
