"""A trivial subclass of the stock loop.

On it every test must pass, so it tells a fault of the runner from a fault of a loop.
"""

import asyncio


class StockLoop(asyncio.SelectorEventLoop):
    """CPython's loop under another name."""


def new_event_loop() -> StockLoop:
    """A loop as the runner expects it of its `--loop` argument."""
    return StockLoop()
