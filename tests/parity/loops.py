"""The two loops of a comparison: asyncio of the running interpreter, and the loop under test.

`TOKIOLOOP_UNDER_TEST=module:factory` names another loop, to try the probes themselves:
`tests.parity.loops:ReferenceTwin` must be equal in everything, `uvloop:new_event_loop` must not.
"""

from __future__ import annotations

import asyncio
import importlib
import os
from collections.abc import Callable

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

_VARIABLE = "TOKIOLOOP_UNDER_TEST"
_DEFAULT = "tokioloop:new_event_loop"


class ReferenceTwin(asyncio.SelectorEventLoop):
    """asyncio's loop under another name: a probe that tells the two apart is a wrong probe."""


def new_reference_loop() -> asyncio.AbstractEventLoop:
    return asyncio.SelectorEventLoop()


def factory_under_test() -> LoopFactory:
    module, _, name = os.environ.get(_VARIABLE, _DEFAULT).partition(":")
    factory: LoopFactory = getattr(importlib.import_module(module), name)
    return factory


def is_twin(factory: LoopFactory) -> bool:
    """Whether the loop under test is asyncio itself, so that asyncio's own bugs are right."""
    return factory is ReferenceTwin
