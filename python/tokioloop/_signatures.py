"""Overrides that look like asyncio's methods, to people and to type checkers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["in_place_of"]

_Method = TypeVar("_Method", bound=Callable[..., Any])


def in_place_of(method: _Method) -> Callable[[Callable[..., Any]], _Method]:
    """Give a method the name, the documentation and the signature of the one that it overrides.

    This is `functools.wraps` with another type. With its own, type checkers would take the method
    for an object that is called with the loop, and would lose the overloads.
    """
    return functools.wraps(method)  # type: ignore[return-value]
