"""Observing loops: figures, reports, consoles, dumps and profiles.

Only the loop's methods are imported at once. Everything else in this package is imported
when it is first used (also by a report in debug mode, for names), and a loop that nobody
observes pays for none of it. The functions here are public as `tokioloop.dump_tasks` and
so on.
"""

from __future__ import annotations

from typing import IO, Any

__all__ = ["dump_tasks", "instrument", "metrics_text"]


def dump_tasks(loop: Any = None, file: IO[str] | None = None) -> None:
    """Print what every task waits for: its await chain down to a peer, timer or lock.

    loop -- an event loop; by default the running one, or every open TokioLoop if none
        runs in this thread. A loop that another thread runs prints in its next turn
    file -- a text file to print to; by default `sys.stderr`

    The age of tasks is known only after `install_dump_signal(..., track_ages=True)`. What
    is behind a future, such as a timer or a peer, is known only for a TokioLoop.

    Raises what writing to the file raises, and RuntimeError in a forked child for a loop
    of the parent.

    >>> import asyncio, sys, tokioloop
    >>> async def main():
    ...     tokioloop.dump_tasks(file=sys.stdout)
    >>> tokioloop.run(main())  # doctest: +ELLIPSIS
    1 task on <TokioLoop running=True closed=False debug=False>
    task 'Task-...' (main)
    ...
        waits for nothing: it runs
    """
    from tokioloop.observe.dump import dump

    dump(loop, file)


def metrics_text() -> str:
    """Return the figures of every open TokioLoop in Prometheus' exposition format.

    Needs prometheus_client, the extra `prometheus`. Loops that other threads run are asked,
    and left out if they do not answer within a second. The calling thread waits for that:
    if it runs a loop itself, call this with `asyncio.to_thread`. Raises ImportError without
    prometheus_client.

    >>> import tokioloop
    >>> async def main():
    ...     return "tokioloop_turns_total" in tokioloop.metrics_text()
    >>> tokioloop.run(main())  # doctest: +SKIP
    True
    """
    from tokioloop.observe.prometheus import metrics_text

    return metrics_text()


def instrument(meter_provider: Any = None, tracer_provider: Any = None) -> None:
    """Publish every loop's figures, and spans of slow callbacks, to OpenTelemetry.

    Needs opentelemetry-api, the extra `opentelemetry`. Uses OpenTelemetry's global
    `MeterProvider` and `TracerProvider` unless others are given; a second call with the same
    ones does nothing. Spans come from loops made with `slow_callback`. Raises ImportError
    without opentelemetry.

    >>> import tokioloop
    >>> tokioloop.instrument()  # doctest: +SKIP
    """
    from tokioloop.observe.opentelemetry import instrument

    instrument(meter_provider, tracer_provider)
