"""`metrics_text()` and `instrument()`, each where its library is installed."""

from __future__ import annotations

import asyncio
import concurrent.futures
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import tokioloop
from tokioloop.observe import figures


@pytest.fixture
def busy_thread(make_loop):
    """A loop that runs in another thread."""
    loop = make_loop()
    started = threading.Event()
    loop.call_soon(started.set)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    assert started.wait(10)
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    assert not thread.is_alive()


class TestPrometheus:
    @pytest.fixture(autouse=True)
    def _installed(self):
        pytest.importorskip("prometheus_client")

    def test_counters_gauges_and_histograms_are_exposed(self, make_loop):
        loop = make_loop()
        loop.call_later(3600, int)

        async def main():
            return tokioloop.metrics_text()

        text = loop.run_until_complete(main())
        assert re.search(r'^tokioloop_turns_total{loop="\d+"} [1-9]', text, re.MULTILINE)
        assert re.search(r'^tokioloop_timers_scheduled{loop="\d+"} 1\.0$', text, re.MULTILINE)
        assert "# TYPE tokioloop_loop_lag_seconds histogram" in text
        assert re.search(r'^tokioloop_loop_lag_seconds_bucket{.*le="\+Inf"', text, re.MULTILINE)

    def test_it_can_be_read_back(self, make_loop):
        from prometheus_client.parser import text_string_to_metric_families

        loop = make_loop()
        loop.call_soon(time.sleep, 0.03)
        loop.call_later(0.001, loop.stop)
        loop.run_forever()
        families = {
            family.name: family
            for family in text_string_to_metric_families(tokioloop.metrics_text())
        }
        lag = families["tokioloop_loop_lag_seconds"]
        counts = {
            sample.labels["le"]: sample.value
            for sample in lag.samples
            if sample.name.endswith("_bucket") and sample.value
        }
        assert counts["+Inf"] == 1, "only this loop had a timer"
        assert counts["0.05"] <= 1 and "0.01" not in counts

    def test_a_loop_of_another_thread_is_asked(self, busy_thread):
        before = len(re.findall("^tokioloop_turns_total{", tokioloop.metrics_text(), re.MULTILINE))
        assert before >= 1

    def test_a_stuck_loop_is_left_out(self, busy_thread, monkeypatch):
        monkeypatch.setattr(figures, "PATIENCE", 0.05)
        release = threading.Event()
        assert len(figures.figures_of_all_loops()) == 1
        busy_thread.call_soon_threadsafe(release.wait, 10)
        assert figures.figures_of_all_loops() == {}
        release.set()


class TestFigures:
    """What both exporters read."""

    def test_all_stuck_loops_together_are_waited_for_once(self, make_loop, monkeypatch):
        monkeypatch.setattr(figures, "PATIENCE", 0.3)
        release = threading.Event()
        stuck = [make_loop() for _ in range(4)]
        for loop in stuck:
            loop.call_soon(release.wait, 10)
            loop.call_soon(loop.stop)
        with ThreadPoolExecutor(len(stuck)) as threads:
            for loop in stuck:
                threads.submit(loop.run_forever)
            while not all(loop.is_running() for loop in stuck):
                time.sleep(0.001)
            began = time.monotonic()
            found = figures.figures_of_all_loops()
            seconds = time.monotonic() - began
            release.set()
        assert found == {}
        assert 0.3 <= seconds < 1.2

    @pytest.mark.parametrize("error", [RuntimeError, concurrent.futures.TimeoutError])
    def test_a_loop_that_is_lost_meanwhile_does_not_cost_the_others(
        self, make_loop, monkeypatch, error
    ):
        """Another thread has begun to run it, or has closed it."""

        def refuse():
            raise error

        lost, kept = make_loop(), make_loop()
        monkeypatch.setattr(lost, "metrics", refuse)
        assert list(figures.figures_of_all_loops()) == [figures._numbers[kept]]

    def test_exporters_that_meet_a_loop_at_once_give_it_one_number(self, make_loop, monkeypatch):
        loop = make_loop()

        def numbers():
            figures._numbers[loop] = "theirs"  # the other one was first
            yield "ours"

        monkeypatch.setattr(figures, "_next_number", numbers())
        assert list(figures.figures_of_all_loops()) == ["theirs"]

    def test_histograms_are_added_up_to_the_infinite_bound(self):
        histogram = {"bounds": [1e-06, 0.5], "counts": [3, 0, 2]}
        assert figures.cumulative(histogram) == [("1e-06", 3), ("0.5", 3), ("+Inf", 5)]


class TestOpenTelemetry:
    @pytest.fixture
    def sdk(self, monkeypatch):
        pytest.importorskip("opentelemetry.sdk")
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
        from tokioloop.observe import slow

        monkeypatch.setattr(slow, "hooks", [])
        reader, exporter = InMemoryMetricReader(), InMemorySpanExporter()
        tracer = TracerProvider()
        tracer.add_span_processor(SimpleSpanProcessor(exporter))
        meter = MeterProvider(metric_readers=[reader])
        tokioloop.instrument(meter, tracer)
        tokioloop.instrument(meter, tracer)
        yield reader, exporter
        meter.shutdown()
        tracer.shutdown()

    def test_figures_are_published(self, make_loop, sdk):
        reader, _ = sdk
        loop = make_loop()
        loop.run_until_complete(asyncio.sleep(0.001))
        turns = loop.metrics()["turns"]
        (resource,) = reader.get_metrics_data().resource_metrics
        (scope,) = resource.scope_metrics
        points = {metric.name: metric.data.data_points for metric in scope.metrics}
        assert turns in [point.value for point in points["tokioloop.turns"]]
        assert sum(point.value for point in points["tokioloop.loop_lag.count"]) >= 1
        bounds = {point.attributes["le"] for point in points["tokioloop.loop_lag.bucket"]}
        assert "+Inf" in bounds and "0.001" in bounds

    def test_a_slow_callback_is_one_span_with_its_call_graph(self, make_loop, sdk):
        _, exporter = sdk
        loop = make_loop(slow_callback=0.02)

        async def sluggish():
            time.sleep(0.03)
            await asyncio.sleep(0)

        async def main():
            await asyncio.create_task(sluggish(), name="worker")

        loop.run_until_complete(main())
        (span,) = exporter.get_finished_spans()
        assert span.name.endswith("sluggish")
        assert span.end_time - span.start_time >= 20_000_000
        assert span.attributes["tokioloop.task"] == "worker"
        assert "sluggish" in span.attributes["tokioloop.call_graph"]
