"""The event loops the suite runs on, and how to make one of each.

asyncio is the reference: a test that fails there is a wrong test. uvloop and rloop are peers;
they may be missing on an interpreter, and they lack or differ in much, so a test may leave them
out with `@pytest.mark.flavours(...)`. tokioloop is the loop under test and must be installed.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
from dataclasses import dataclass


@dataclass(frozen=True)
class Flavour:
    """One event loop implementation, named as the package that holds it."""

    name: str
    class_name: str
    is_peer: bool = False
    is_leak_checked: bool = False

    def __str__(self) -> str:
        return self.name

    @property
    def is_installed(self) -> bool:
        return importlib.util.find_spec(self.name) is not None

    @property
    def expression(self) -> str:
        """Python source that makes a new loop, for programs that run in a process of their own."""
        return f"__import__('{self.name}').{self.class_name}()"

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        loop: asyncio.AbstractEventLoop = getattr(
            importlib.import_module(self.name), self.class_name
        )()
        return loop


FLAVOURS = {
    flavour.name: flavour
    for flavour in (
        Flavour("asyncio", "SelectorEventLoop", is_leak_checked=True),
        Flavour("uvloop", "Loop", is_peer=True),
        Flavour("rloop", "new_event_loop", is_peer=True),
        Flavour("tokioloop", "TokioLoop", is_leak_checked=True),
    )
}
