"""`loop.metrics()` against workloads whose figures are known."""

from __future__ import annotations

import asyncio
import concurrent.futures
import re
import threading
import time

import pytest
from tokioloop.observe import figures

from tests.support.programs import REPOSITORY

COUNTERS = {
    "turns",
    "polls",
    "blocking_polls",
    "looks",
    "events",
    "callbacks",
    "timers_fired",
    "thread_waits",
    "connections_accepted",
    "bytes_received",
    "messages_received",
    "bytes_sent",
    "messages_sent",
    "connections_open",
    "endpoints_open",
    "listeners_open",
    "watches_open",
    "bytes_queued",
    "timers_scheduled",
    "callbacks_ready",
}
TIMES = {"running_seconds", "polling_seconds", "busy_seconds"}
HISTOGRAMS = {"loop_lag_seconds", "callback_duration_seconds", "turn_duration_seconds"}


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


class Client(asyncio.Protocol):
    """Sends so many messages, each after the echo of the one before."""

    def __init__(self, messages, size):
        self.left, self.size = messages, size
        self.received = 0
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport
        transport.write(b"x" * self.size)

    def data_received(self, data):
        self.received += len(data)
        if self.received == self.size:
            self.received = 0
            self.left -= 1
            if self.left:
                self.transport.write(b"x" * self.size)
            else:
                self.done.set_result(None)


def test_the_names_are_the_documented_ones(make_loop):
    figures = make_loop().metrics()
    assert figures.keys() == COUNTERS | TIMES | HISTOGRAMS | {"detailed"}
    assert figures["turns"] == figures["callbacks"] == 0
    assert figures["running_seconds"] == 0.0
    assert figures["detailed"] is False


def test_every_figure_is_documented_and_exported():
    described = [*figures.COUNTERS, *figures.GAUGES, *figures.HISTOGRAMS]
    assert len(described) == len(set(described))
    assert set(described) == COUNTERS | TIMES | HISTOGRAMS
    text = (REPOSITORY / "docs/observability.md").read_text()
    table = text.partition("| key | what |")[2].partition("\n\n")[0]
    first_columns = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    documented = {name for column in first_columns for name in re.findall("`(.+?)`", column)}
    assert documented == COUNTERS | TIMES | HISTOGRAMS | {"detailed"}


def test_datagram_endpoints_are_counted(make_loop):
    loop = make_loop()

    async def main():
        transport, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, ("127.0.0.1", 0)
        )
        during = loop.metrics()
        transport.close()
        await asyncio.sleep(0)
        return during

    during = loop.run_until_complete(main())
    assert (during["endpoints_open"], during["connections_open"]) == (1, 0)
    assert loop.metrics()["endpoints_open"] == 0


def test_an_echo_adds_up(make_loop):
    loop = make_loop()
    messages, size = 50, 1000

    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        transport, client = await loop.create_connection(lambda: Client(messages, size), *address)
        await client.done
        during = loop.metrics()
        transport.close()
        server.close()
        while loop.metrics()["connections_open"]:
            await asyncio.sleep(0)
        return during

    during = loop.run_until_complete(main())
    # Client and server are on this loop, so each byte is counted on both sides.
    assert during["bytes_sent"] == during["bytes_received"] == 2 * messages * size
    assert during["messages_received"] >= 2 * messages
    assert during["messages_sent"] == 2 * messages
    assert during["connections_accepted"] == 1
    assert during["connections_open"] == 2
    assert during["listeners_open"] == 1
    assert during["bytes_queued"] == 0
    assert during["events"] >= 2 * messages


def test_callbacks_and_timers_are_counted(make_loop):
    loop = make_loop()
    before = loop.metrics()
    for _ in range(100):
        loop.call_soon(int)
    for _ in range(10):
        loop.call_later(0, int)
    late = loop.call_later(3600, int)
    loop.call_later(0.001, loop.stop)
    loop.run_forever()
    after = loop.metrics()
    assert after["callbacks"] - before["callbacks"] == 111
    assert after["timers_fired"] == 11
    assert after["timers_scheduled"] == 1
    assert 1 <= after["loop_lag_seconds"]["count"] <= 11
    late.cancel()
    assert loop.metrics()["timers_scheduled"] == 0


def test_the_time_in_a_run_is_waiting_or_busy(make_loop):
    loop = make_loop()
    loop.call_later(0.05, time.sleep, 0.03)
    loop.call_later(0.06, loop.stop)
    loop.run_forever()
    figures = loop.metrics()
    assert figures["polling_seconds"] >= 0.045
    assert figures["busy_seconds"] >= 0.03
    total = figures["polling_seconds"] + figures["busy_seconds"]
    assert total == pytest.approx(figures["running_seconds"])
    assert loop.metrics()["running_seconds"] == figures["running_seconds"], "it does not run now"


def test_a_late_timer_is_lag(make_loop):
    loop = make_loop()
    loop.call_soon(time.sleep, 0.06)
    loop.call_later(0.01, loop.stop)
    loop.run_forever()
    lag = loop.metrics()["loop_lag_seconds"]
    assert lag["count"] == 1
    assert 0.04 <= lag["max"] == lag["sum"]


def test_callbacks_are_measured_only_when_asked_for(make_loop):
    loop = make_loop()

    def run(seconds):
        loop.call_soon(time.sleep, seconds)
        loop.call_later(0, loop.stop)
        loop.run_forever()
        return loop.metrics()["callback_duration_seconds"]

    assert run(0)["count"] == 0
    loop.measure()
    measured = run(0.03)
    assert measured["count"] == 2
    assert measured["max"] >= 0.03
    at_least = [
        count
        for bound, count in zip([0, *measured["bounds"]], measured["counts"], strict=True)
        if bound >= 0.02
    ]
    assert sum(at_least) == 1
    assert sum(measured["counts"]) == measured["count"]
    loop.measure(False)
    assert run(0)["count"] == 2


def test_another_thread_gets_the_figures_of_the_next_turn(make_loop):
    loop = make_loop()

    async def main():
        figures = await asyncio.to_thread(loop.metrics)
        await loop.shutdown_default_executor()
        return figures

    figures = loop.run_until_complete(main())
    assert figures.keys() == loop.metrics().keys()
    assert figures["turns"] >= 1


def test_another_thread_does_not_wait_for_a_stuck_loop(make_loop, monkeypatch):
    monkeypatch.setattr("tokioloop.observe.figures.PATIENCE", 0.05)
    loop = make_loop()
    failures = []

    def ask():
        try:
            loop.metrics()
        except Exception as error:
            failures.append(error)

    def block():
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join(10)

    loop.call_soon(block)
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert [type(error) for error in failures] == [concurrent.futures.TimeoutError]
