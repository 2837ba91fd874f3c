"""The figures in Prometheus' exposition format, rendered by `prometheus_client`."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from tokioloop.observe.figures import (
    COUNTERS,
    GAUGES,
    HISTOGRAMS,
    cumulative,
    figures_of_all_loops,
)

__all__ = ["LoopCollector", "metrics_text"]


class LoopCollector(Collector):
    """Reads the loops when it is scraped; may be registered with any registry."""

    def collect(self) -> Iterator[Metric]:
        """Yield every metric, with a sample per loop."""
        loops = figures_of_all_loops()
        for name, text in COUNTERS.items():
            counter = CounterMetricFamily(f"tokioloop_{name}", text, labels=["loop"])
            for number, figures in loops.items():
                counter.add_metric([number], figures[name])
            yield counter
        for name, text in GAUGES.items():
            gauge = GaugeMetricFamily(f"tokioloop_{name}", text, labels=["loop"])
            for number, figures in loops.items():
                gauge.add_metric([number], figures[name])
            yield gauge
        for name, text in HISTOGRAMS.items():
            histogram = HistogramMetricFamily(f"tokioloop_{name}", text, labels=["loop"])
            for number, figures in loops.items():
                measured = figures[name]
                histogram.add_metric([number], cumulative(measured), measured["sum"])
            yield histogram


def metrics_text() -> str:
    """Return the exposition of the loops alone; see `tokioloop.metrics_text`."""
    registry = CollectorRegistry()
    registry.register(LoopCollector())
    return generate_latest(registry).decode()
