"""The methods of `TokioLoop` for observing it; what they need is imported on use."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tokioloop import _core

if TYPE_CHECKING:
    from tokioloop.observe.console import Console
    from tokioloop.observe.slow import SlowReports
    from tokioloop.observe.stall import Stall

__all__ = ["ObservedLoop"]

_CONSOLE_VARIABLE = "TOKIOLOOP_CONSOLE"
_console_wanted = os.environ.get(_CONSOLE_VARIABLE, "0") not in ("", "0")


class ObservedLoop(asyncio.SelectorEventLoop):
    """The part of a loop that reports about the loop."""

    _thread_id: int | None
    _stall_timeout: float
    _on_stall: Callable[[Stall], object] | None
    _slow_reports: SlowReports | None = None
    _accounts: list[Callable[[Any, float], None]] | None = None
    _console: Console | None = None
    _measured = False

    def metrics(self) -> dict[str, Any]:
        """Return the loop's figures by name; see docs/observability.md.

        Counters start when the loop is made. Times are in seconds, sizes in bytes. The
        durations of callbacks and turns are measured only with `slow_callback`, after
        measure(), or while a console is attached.

        Any thread may call this. A thread other than the one that runs the loop gets the
        figures of the loop's next turn.

        Raises concurrent.futures.TimeoutError if that does not come within a second.

        >>> import tokioloop
        >>> loop = tokioloop.new_event_loop()
        >>> loop.metrics()["turns"]
        0
        >>> loop.close()
        """
        if self._thread_id not in (None, threading.get_ident()):
            from tokioloop.observe.figures import PATIENCE, ask

            return ask(self).result(PATIENCE)
        figures: dict[str, Any] = _core.metrics(self)
        return figures

    def measure(self, enabled: bool = True) -> None:
        """Measure how long callbacks and turns take, for metrics(), or stop measuring.

        It costs a reading of the clock per callback, and is off by default.

        >>> import asyncio, tokioloop
        >>> loop = tokioloop.new_event_loop()
        >>> loop.measure()
        >>> loop.run_until_complete(asyncio.sleep(0))
        >>> loop.metrics()["callback_duration_seconds"]["count"] > 0
        True
        >>> loop.close()
        """
        self._measured = enabled
        _core.observe(self, enabled, bool(self._accounts))

    def start_console(self, path: str | None = None) -> str:
        """Open the Unix socket that `python -m tokioloop top` attaches to.

        Only processes of the same user, and root, may attach. Returns the socket's path as a
        str: `path`, or by default one in a directory of the user's own. If a console is open
        already, it stays, and its path is returned. `TOKIOLOOP_CONSOLE=1` in the environment
        opens one for every loop that runs.

        Raises RuntimeError for a loop that is closed or that another thread runs, OSError if
        the socket cannot be made.

        >>> import tokioloop
        >>> loop = tokioloop.TokioLoop()
        >>> loop.start_console().endswith(".sock")
        True
        >>> loop.close()
        """
        self._check_closed()
        self._check_runner("start_console")
        if self._console is None:
            from tokioloop.observe.console import Console

            self._console = Console(self, path)
        return self._console.path

    def stop_console(self) -> None:
        """Close the console's socket and disconnect its clients; close() does so as well.

        Raises RuntimeError while another thread runs the loop.

        >>> import os, tokioloop
        >>> loop = tokioloop.new_event_loop()
        >>> path = loop.start_console()
        >>> loop.stop_console()
        >>> os.path.exists(path)
        False
        >>> loop.close()
        """
        self._check_runner("stop_console")
        console, self._console = self._console, None
        if console is not None:
            console.close()

    def install_dump_signal(self, signum: int, *, track_ages: bool = False) -> None:
        """Print what every task waits for when a signal comes; see dump_tasks().

        `signum` is a signal's number. `track_ages` (bool) notes when each task is made from
        now on, which costs a dictionary entry per task. The signal's previous handler is
        called afterwards. If a dump fails, the loop's exception handler is told.

        Raises ValueError on another thread than the main one, or if there is no such signal,
        and OSError for a signal that cannot be caught.

        >>> import signal, tokioloop
        >>> loop = tokioloop.new_event_loop()
        >>> loop.install_dump_signal(signal.SIGUSR1)
        >>> loop.close()
        """
        from tokioloop.observe import dump

        dump.install_signal(self, signum, ages=track_ages)

    def run_forever(self) -> None:
        if _console_wanted:
            self._try_console()
        if not self._stall_timeout:
            super().run_forever()
            return
        from tokioloop.observe.stall import StallWatcher

        watcher = StallWatcher(self, self._stall_timeout, self._on_stall)
        watcher.start()
        try:
            super().run_forever()
        finally:
            watcher.stop()

    def close(self) -> None:
        if not self.is_running():
            self.stop_console()
        super().close()

    def _check_runner(self, method: str) -> None:
        if self._thread_id not in (None, threading.get_ident()):
            raise RuntimeError(
                f"{method}() was called from another thread than the one that runs the event "
                "loop; use loop.call_soon_threadsafe()"
            )

    def _try_console(self) -> None:
        """Open the console that the environment asks for; a failure is only logged."""
        try:
            self.start_console()
        except OSError as error:
            logging.getLogger("tokioloop.console").warning("no console: %s", error)

    def _account_callbacks(self, account: Callable[[Any, float], None]) -> None:
        """Call `account(subject, seconds)` after every callback; see `describe.name_of`."""
        self._accounts = [*(self._accounts or ()), account]
        _core.observe(self, True, True)

    def _unaccount_callbacks(self, account: Callable[[Any, float], None]) -> None:
        self._accounts = [other for other in self._accounts or () if other != account]
        _core.observe(self, self._measured, bool(self._accounts))

    def _callback_ran(self, subject: Any, seconds: float, is_slow: bool) -> None:
        """Account for a callback that has ended, and report it if it is slow."""
        for account in self._accounts or ():
            account(subject, seconds)
        if is_slow:
            self._reports().note(subject, seconds)

    def _reports(self) -> SlowReports:
        if self._slow_reports is None:
            from tokioloop.observe.slow import SlowReports

            self._slow_reports = SlowReports()
        return self._slow_reports
