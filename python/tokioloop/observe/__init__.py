"""Looking at loops: figures, reports, consoles, dumps and profiles.

Nothing in this package but the methods of the loop is imported before somebody asks
for it (a report of debug mode, for names), and a loop that nobody looks at pays for
none of it. The functions here are public as `tokioloop.dump_tasks` and so on.
"""

from __future__ import annotations

from typing import IO, Any

__all__ = ["dump_tasks", "instrument", "metrics_text"]


def dump_tasks(loop: Any = None, file: IO[str] | None = None) -> None:
    """Print what every task waits for: its await chain down to a peer, timer or lock.

    Without a loop: the running one, or every open TokioLoop where none runs in
    this thread. A loop that another thread runs prints when it gets round to
    it. Goes to stderr unless a file is given. The age of tasks is known where
    `install_dump_signal(..., track_ages=True)` has asked for it. What is behind
    a future, a timer or a peer, only a TokioLoop tells.

    Raises what writing to the file raises, RuntimeError for a loop that belongs
    to the parent of a forked child.

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

    Needs prometheus_client, the extra `prometheus`. A loop that another thread runs
    is asked, and left out when it does not answer within a second. On a loop's
    thread that loop waits meanwhile: beside loops of other threads, call it by
    `asyncio.to_thread`. Raises ImportError without prometheus_client.

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

    Needs opentelemetry-api, the extra `opentelemetry`. Uses the global providers
    unless others are given; the same ones once more change nothing. Spans come
    from loops made with `slow_callback`. Raises ImportError without opentelemetry.

    >>> import tokioloop
    >>> tokioloop.instrument()  # doctest: +SKIP
    """
    from tokioloop.observe.opentelemetry import instrument

    instrument(meter_provider, tracer_provider)
