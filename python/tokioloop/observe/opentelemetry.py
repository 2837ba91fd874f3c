"""The figures and slow callbacks through `opentelemetry-api`.

OpenTelemetry has no observable histogram, so a histogram here is three counters:
`.count`, `.sum`, and `.bucket` with the upper bound in the attribute `le`, cumulative as
in Prometheus.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

from opentelemetry import metrics, trace
from opentelemetry.metrics import CallbackOptions, Observation

import tokioloop
from tokioloop.observe import describe, slow
from tokioloop.observe.figures import (
    COUNTERS,
    GAUGES,
    HISTOGRAMS,
    cumulative,
    figures_of_all_loops,
)

__all__ = ["instrument"]

# Seconds for which figures are used again: an export reads every instrument in a row.
_FRESH = 0.25

_instrumented: list[tuple[Any, Any]] = []


def instrument(meter_provider: Any = None, tracer_provider: Any = None) -> None:
    """Publish to the providers given, else to the global ones; see `tokioloop.instrument`."""
    if (meter_provider, tracer_provider) in _instrumented:
        return
    _instrumented.append((meter_provider, tracer_provider))
    version = tokioloop.__version__
    _publish(metrics.get_meter("tokioloop", version, meter_provider))
    tracer = trace.get_tracer("tokioloop", version, tracer_provider)
    slow.hooks.append(lambda report, task: _record(tracer, report, task))


def _publish(meter: metrics.Meter) -> None:
    latest = _Latest()
    for name, text in COUNTERS.items():
        meter.create_observable_counter(
            f"tokioloop.{name}", [_reader(latest, name)], _unit(name), text
        )
    for name, text in GAUGES.items():
        meter.create_observable_up_down_counter(
            f"tokioloop.{name}", [_reader(latest, name)], _unit(name), text
        )
    for name, text in HISTOGRAMS.items():
        base = f"tokioloop.{name.removesuffix('_seconds')}"
        meter.create_observable_counter(f"{base}.count", [_part(latest, name, "count")], "1", text)
        meter.create_observable_counter(f"{base}.sum", [_part(latest, name, "sum")], "s", text)
        meter.create_observable_counter(f"{base}.bucket", [_buckets(latest, name)], "1", text)


Read = Callable[[CallbackOptions], Iterable[Observation]]


class _Latest:
    """The loops' figures, read again when they are not fresh."""

    def __init__(self) -> None:
        self._read_at = float("-inf")
        self._figures: dict[str, dict[str, Any]] = {}

    def get(self) -> dict[str, dict[str, Any]]:
        """Return the figures by loop."""
        now = time.monotonic()
        if now - self._read_at > _FRESH:
            self._figures, self._read_at = figures_of_all_loops(), now
        return self._figures


def _reader(latest: _Latest, name: str) -> Read:
    def read(options: CallbackOptions) -> Iterable[Observation]:
        for number, figures in latest.get().items():
            yield Observation(figures[name], {"loop": number})

    return read


def _part(latest: _Latest, name: str, part: str) -> Read:
    def read(options: CallbackOptions) -> Iterable[Observation]:
        for number, figures in latest.get().items():
            yield Observation(figures[name][part], {"loop": number})

    return read


def _buckets(latest: _Latest, name: str) -> Read:
    def read(options: CallbackOptions) -> Iterable[Observation]:
        for number, figures in latest.get().items():
            for bound, count in cumulative(figures[name]):
                yield Observation(count, {"loop": number, "le": bound})

    return read


def _unit(name: str) -> str:
    if name.endswith("_seconds"):
        return "s"
    return "By" if name.startswith("bytes_") else "1"


def _record(tracer: trace.Tracer, report: slow.SlowCallback, task: Any) -> None:
    """Write a span that is as long as the callback was."""
    end = int(report.ended * 1e9)
    attributes: dict[str, Any] = {
        "tokioloop.callback": report.name,
        "tokioloop.suppressed": report.suppressed,
    }
    if task is not None:
        attributes["tokioloop.task"] = report.task
        attributes["tokioloop.call_graph"] = _call_graph(task)
    if report.line is not None:
        attributes["code.location"] = report.line
    start = end - int(report.seconds * 1e9)
    span = tracer.start_span(f"slow {report.name}", start_time=start, attributes=attributes)
    span.end(end)


def _call_graph(task: Any) -> str:
    """Return what the task awaits and, if the interpreter knows (3.14), who awaits the task."""
    if sys.version_info >= (3, 14) and not task.done():
        import asyncio

        return asyncio.format_call_graph(task) or ""
    frames = describe.frames_of(task.get_coro())
    return "\n".join(f"{f.f_code.co_filename}:{f.f_lineno} in {f.f_code.co_name}" for f in frames)
