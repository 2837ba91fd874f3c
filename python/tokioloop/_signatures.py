"""Methods that stand in the place of asyncio's, for people and for type checkers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["in_place_of"]

_Method = TypeVar("_Method", bound=Callable[..., Any])


def in_place_of(method: _Method) -> Callable[[Callable[..., Any]], _Method]:
    """Give a method the name, the documentation and the signature of the one that it overrides.

    As `functools.wraps`, of which type checkers would say that the method is an object to be
    called with the loop, and by which they would lose the overloads.
    """
    return functools.wraps(method)  # type: ignore[return-value]
