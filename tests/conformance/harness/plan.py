"""Which of CPython's test modules run, and what "the loop under test" means in each.

Everywhere, the names by which a test obtains a loop (`asyncio.new_event_loop` through the default
policy, `asyncio.SelectorEventLoop`, `asyncio.EventLoop`) give the loop under test. Some modules
reach for a further source of loops although they only want "a loop"; their plans name it.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

DEFAULT_PACKAGE = "test.test_asyncio"


@dataclass(frozen=True)
class Plan:
    """What a module needs beyond the names that are replaced everywhere.

    base_event_loop: the module builds a bare `BaseEventLoop` and stubs the selector that it lacks
        with a mock; it gets the loop under test, to which the stub means nothing.
    untimed_test_loop: the module calls `TestCase.new_test_loop()` without a script of time steps
        and uses nothing of `TestLoop` but a running loop; it gets the loop under test.
    """

    base_event_loop: bool = False
    untimed_test_loop: bool = False


PLANS = {
    "test_base_events": Plan(base_event_loop=True),
    "test_futures": Plan(untimed_test_loop=True),
    "test_pep492": Plan(base_event_loop=True),
    "test_runners": Plan(base_event_loop=True),
    "test_tasks": Plan(untimed_test_loop=True),
}

NOT_RUN = {
    "test_proactor_events": "the proactor loop exists on Windows only",
    "test_windows_events": "the proactor loop exists on Windows only",
    "test_windows_utils": "overlapped pipes exist on Windows only",
}


def plan_for(module: str) -> Plan:
    """The plan of a module, the default one if it needs nothing special."""
    return PLANS.get(module, Plan())


def discover(package: str) -> list[str]:
    """The names of the package's test modules that can run on this platform, sorted.

    A module that a newer Python adds is found without being listed here.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise LookupError(f"{package} is not installed with this interpreter")
    found = {
        path.stem
        for location in spec.submodule_search_locations
        for path in Path(location).glob("test_*.py")
    }
    return sorted(found - NOT_RUN.keys())
