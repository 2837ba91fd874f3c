"""Puts the loop under test where CPython's tests look for a loop.

A `LoopSource` makes the loops and counts them, so that a test which passes without ever having had
one is not mistaken for a test of the loop. Classes are replaced by stand-ins that stay classes:
they can be subclassed, their inherited methods can be named, and `isinstance` holds for the loop.
Nothing here may run after a test module was imported, because modules copy names at import.
"""

from __future__ import annotations

import asyncio
import importlib
from asyncio import base_events, unix_events
from collections.abc import Callable
from typing import Any

from .plan import Plan


class LoopSource:
    """Makes loops under test and remembers how many it made."""

    def __init__(self, factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
        self._factory = factory
        self._loop_class: type | None = factory if isinstance(factory, type) else None
        self.used = 0

    def __call__(self) -> asyncio.AbstractEventLoop:
        self.note_use()
        return self._factory()

    def note_use(self) -> None:
        """Count a loop, made here or by a class that a test derives from the loop's."""
        self.used += 1

    @property
    def loop_class(self) -> type:
        """The class of the loops, found by making one if the factory is not the class itself."""
        loop_class = self._loop_class
        if loop_class is None:
            loop = self._factory()
            loop_class = self._loop_class = type(loop)
            loop.close()
        return loop_class


def load_source(spec: str) -> LoopSource:
    """The loop source for `package.module:callable`."""
    module, separator, name = spec.partition(":")
    if not separator:
        raise ValueError(f"{spec!r} is not of the form module:callable")
    return LoopSource(getattr(importlib.import_module(module), name))


def stand_in_for(original: type, source: LoopSource) -> type:
    """A class that looks like `original` but whose instances come from `source`.

    Arguments are dropped: the only one that tests pass is a selector, and the loop under test has
    its own. A subclass of the stand-in is a subclass of the loop's class instead.
    """

    class StandInType(type(original)):  # type: ignore[misc]
        def __new__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> type:
            if original in bases:
                return super().__new__(cls, name, bases, namespace)
            source.note_use()
            loop_class = source.loop_class
            bases = tuple(loop_class if isinstance(base, cls) else base for base in bases)
            derived: type = type(loop_class)(name, bases, namespace)
            return derived

        def __call__(cls, *_args: Any, **_kwargs: Any) -> Any:
            return source()

        def __instancecheck__(cls, instance: Any) -> bool:
            return isinstance(instance, (original, source.loop_class))

        def __subclasscheck__(cls, subclass: type) -> bool:
            return issubclass(subclass, (original, source.loop_class))

    return StandInType(original.__name__, (original,), {"__module__": original.__module__})


def inject(source: LoopSource, plan: Plan) -> None:
    """Replace, for the rest of this process, every name by which the module's tests get a loop."""
    if plan.base_event_loop or plan.untimed_test_loop:
        # First of all: its `TestLoop` stays a `BaseEventLoop` of CPython's, whatever follows.
        utilities = importlib.import_module("test.test_asyncio.utils")
        if plan.untimed_test_loop:
            _replace_untimed_test_loop(utilities, source)
    selector_loop = unix_events.SelectorEventLoop
    _replace_everywhere(selector_loop, stand_in_for(selector_loop, source))
    policy: Any = unix_events._UnixDefaultEventLoopPolicy
    policy._loop_factory = source
    base_loop = base_events.BaseEventLoop
    # A loop that iterates with CPython's own code has nothing but the stubbed selector to wait on.
    loop_class: Any = source.loop_class
    iterates_itself = loop_class.run_forever is not base_loop.run_forever
    if plan.base_event_loop and iterates_itself:
        _replace_everywhere(base_loop, stand_in_for(base_loop, source))


def _replace_untimed_test_loop(utilities: Any, source: LoopSource) -> None:
    scripted = utilities.TestCase.new_test_loop

    def new_test_loop(self: Any, gen: Any = None) -> asyncio.AbstractEventLoop:
        if gen is not None:
            loop: asyncio.AbstractEventLoop = scripted(self, gen)
            return loop
        loop = source()
        self.set_event_loop(loop)
        return loop

    utilities.TestCase.new_test_loop = new_test_loop


def _replace_everywhere(original: type, replacement: type) -> None:
    """Give every public name of `original` to its replacement.

    `_UnixSelectorEventLoop` and the like stay, because asyncio's own code uses those.
    """
    for module in (asyncio, unix_events, base_events):
        for name, value in list(vars(module).items()):
            if value is original and not name.startswith("_"):
                setattr(module, name, replacement)
