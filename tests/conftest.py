"""Fixtures of the whole suite: one test body, run on every loop flavour, leaving nothing behind.

A test asks for `loop` (or `loop_factory`) and runs once per flavour of `--loops`. Markers narrow
it: `flavours("asyncio", "tokioloop", reason=...)`, `min_python(3, 12)`, `time_limit(60)`.

After a test on asyncio or tokioloop these fail it: a descriptor that is still open, a call of the
exception handler that the test did not clear from `loop_errors`, a ResourceWarning, an exception
that nobody could raise (a failing `__del__`, say).
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import os
import platform
import signal
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from tests.support.flavours import FLAVOURS, Flavour
from tests.support.leaks import leaked_descriptors, open_descriptors
from tests.support.watchdog import DEFAULT_LIMIT, time_limit

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

_stderr_fd = pytest.StashKey[int]()
_failed = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--loops",
        default=",".join(FLAVOURS),
        help=f"comma-separated loop flavours to test (default: {','.join(FLAVOURS)})",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_stderr_fd] = os.dup(2)  # pytest captures descriptor 2 while tests run
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell makes its background jobs ignore it, and what they start inherits that.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for line in (
        "flavours(*names, reason): run only on these loops; the reason says what others lack",
        "min_python(major, minor): needs this version of Python or a later one",
        f"time_limit(seconds): the test may run this long (default: {DEFAULT_LIMIT:g})",
    ):
        config.addinivalue_line("markers", line)
    unknown = set(_chosen(config)) - FLAVOURS.keys()
    if unknown:
        raise pytest.UsageError(f"--loops: unknown flavours: {', '.join(sorted(unknown))}")


def pytest_unconfigure(config: pytest.Config) -> None:
    os.close(config.stash[_stderr_fd])


def pytest_report_header(config: pytest.Config) -> str:
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    return (
        f"loops: {', '.join(_chosen(config))} on {platform.python_implementation()} "
        f"{platform.python_version()} (GIL {'on' if gil else 'off'})"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "flavour" not in metafunc.fixturenames:
        return
    names = _chosen(metafunc.config)
    marker = metafunc.definition.get_closest_marker("flavours")
    if marker is not None:
        if not marker.kwargs.get("reason"):
            raise pytest.UsageError(f"{metafunc.definition.nodeid}: flavours() needs a reason")
        names = [name for name in names if name in marker.args]
        if not names:
            # None of the loops that were chosen is one that the test is for.
            skip = pytest.mark.skip(
                reason=f"for {', '.join(marker.args)}: {marker.kwargs['reason']}"
            )
            metafunc.parametrize("flavour", [pytest.param(None, marks=skip, id="no flavour")])
            return
    metafunc.parametrize("flavour", [FLAVOURS[name] for name in names], ids=str, indirect=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        marker = item.get_closest_marker("min_python")
        if marker is not None and sys.version_info < marker.args:
            wanted = ".".join(map(str, marker.args))
            # What it tests came with that version of asyncio.
            item.add_marker(pytest.mark.skip(reason=f"needs Python {wanted}"))
        callspec = getattr(item, "callspec", None)
        flavour = callspec.params.get("flavour") if callspec is not None else None
        if isinstance(flavour, Flavour) and flavour.is_leak_checked:
            # A warning from __del__ cannot be raised: it comes out as an unraisable exception.
            # Prepended, so that a test's own filterwarnings marker still has the last word.
            for rule in (
                "error::ResourceWarning",
                "error::pytest.PytestUnraisableExceptionWarning",
            ):
                item.add_marker(pytest.mark.filterwarnings(rule), append=False)


def pytest_collection_finish() -> None:
    # Everything imported so far stays; without it a collection after each test takes 1 ms.
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report: Any = yield
    if report.when == "call":
        item.stash[_failed] = report.failed
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    marker = item.get_closest_marker("time_limit")
    seconds = marker.args[0] if marker is not None else DEFAULT_LIMIT
    with time_limit(seconds, item.config.stash[_stderr_fd]):
        return (yield)


@pytest.fixture
def flavour(request: pytest.FixtureRequest) -> Flavour:
    """The loop implementation under test. A missing peer is skipped, a missing tokioloop fails."""
    chosen: Flavour = request.param
    if chosen.is_peer and not chosen.is_installed:
        pytest.skip(f"{chosen} is not installed on Python {platform.python_version()}")
    return chosen


class LoopErrors(list[dict[str, Any]]):
    """The contexts that the exception handler of the test's loops was called with, in order."""

    @property
    def messages(self) -> list[str | None]:
        return [context.get("message") for context in self]

    @property
    def exceptions(self) -> list[BaseException | None]:
        return [context.get("exception") for context in self]

    def take(self) -> dict[str, Any]:
        """The one report there is; it counts as expected from now on."""
        (context,) = self
        self.clear()
        return context


@pytest.fixture
def loop_errors(request: pytest.FixtureRequest) -> Iterator[LoopErrors]:
    """Reports to the exception handler. A test that expects some clears them."""
    errors = LoopErrors()
    yield errors
    chosen = request.node.callspec.params.get("flavour")
    if chosen.is_leak_checked and not request.node.stash.get(_failed, True):
        assert not errors, f"unexpected calls of the exception handler: {errors}"


@pytest.fixture
def no_leaks(request: pytest.FixtureRequest, flavour: Flavour) -> Iterator[None]:
    """Fails the test when descriptors are open at its end that were not at its start."""
    before = open_descriptors()
    yield
    # A loop that nobody refers to has nothing to hold on to; pytest keeps the fixtures' values.
    request.node.funcargs.clear()
    gc.collect()
    # The traceback of a failed test keeps its objects alive; what they hold is no news.
    if flavour.is_leak_checked and not request.node.stash.get(_failed, True):
        leaked = leaked_descriptors(before)
        assert not leaked, f"descriptors left open: {leaked}"


@pytest.fixture
def loop_factory(
    no_leaks: None, loop_errors: LoopErrors, flavour: Flavour
) -> Iterator[LoopFactory]:
    """Makes fresh loops of the flavour under test and closes them after the test."""
    loops: list[asyncio.AbstractEventLoop] = []

    def new_loop() -> asyncio.AbstractEventLoop:
        loop = flavour.new_event_loop()
        # rloop passes the context alone, everybody else the loop first.
        loop.set_exception_handler(lambda *args: loop_errors.append(args[-1]))
        loops.append(loop)
        return loop

    yield new_loop
    while loops:
        loops.pop().close()


@pytest.fixture
def loop(loop_factory: LoopFactory) -> asyncio.AbstractEventLoop:
    """A fresh loop, closed after the test; the test runs it with `run_until_complete`."""
    return loop_factory()


@pytest.fixture
def tokioloop(flavour: Flavour) -> ModuleType:
    """The package under test, for tests of what only it has; marked `flavours("tokioloop", …)`."""
    return importlib.import_module(flavour.name)


def _chosen(config: pytest.Config) -> list[str]:
    return [name.strip() for name in config.getoption("--loops").split(",") if name.strip()]
