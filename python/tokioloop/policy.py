"""Event-loop policies, for programs that still choose their loop by one.

Python 3.14 deprecates policies and 3.16 removes them: prefer
`asyncio.run(main(), loop_factory=tokioloop.new_event_loop)`.
"""

from __future__ import annotations

import asyncio
import sys
import warnings
from typing import TYPE_CHECKING

from tokioloop.loop import TokioLoop

__all__ = ["EventLoopPolicy", "TokioEventLoopPolicy"]

if TYPE_CHECKING or sys.version_info < (3, 14):
    from asyncio import DefaultEventLoopPolicy as _BasePolicy
else:
    # Looking up the public name would warn on import, before a policy is used.
    from asyncio.unix_events import _DefaultEventLoopPolicy as _BasePolicy


class EventLoopPolicy(_BasePolicy):
    """A policy whose loops are `TokioLoop`s; all else is the default policy's.

    From Python 3.14 on, making one issues a DeprecationWarning.

    >>> import asyncio, warnings
    >>> warnings.simplefilter("ignore", DeprecationWarning)
    >>> policy = EventLoopPolicy()
    >>> loop = policy.new_event_loop()
    >>> type(loop).__name__
    'TokioLoop'
    >>> loop.close()
    """

    _loop_factory = TokioLoop

    def __init__(self) -> None:
        if sys.version_info >= (3, 14):
            warnings.warn(
                "event-loop policies are deprecated; use "
                "asyncio.run(..., loop_factory=tokioloop.new_event_loop)",
                DeprecationWarning,
                stacklevel=2,
            )
        super().__init__()

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        """Return a new `TokioLoop`."""
        return self._loop_factory()


TokioEventLoopPolicy = EventLoopPolicy
