"""The list of probes, and the decorator that puts a function on it."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable
from typing import Any

from .harness import Probe

_PROBES: list[Probe] = []


def probe(
    row: str,
    *,
    each: Iterable[Any] = (),
    debug: bool = False,
    since: tuple[int, int] = (3, 10),
    until: tuple[int, int] = (9, 9),
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers `function(loop, trace[, variant])`; with `each`, once per variant.

    The name of a probe is its module and its function, which says the behaviour, then the variant.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        area = function.__module__.rpartition(".")[2]
        base = f"{area}.{function.__name__}"
        variants = list(each)
        for variant in variants or [None]:
            add(
                Probe(
                    f"{base}[{variant}]" if variants else base,
                    row,
                    function,
                    (variant,) if variants else (),
                    debug,
                    (since, until),
                )
            )
        return function

    return register


def add(new: Probe) -> None:
    if any(known.name == new.name for known in _PROBES):
        raise ValueError(f"two probes are called {new.name}")
    _PROBES.append(new)


def all_probes() -> list[Probe]:
    """Every probe of the modules in `probes/`, in the order of the files."""
    from . import probes

    for module in sorted(pkgutil.iter_modules(probes.__path__), key=lambda found: found.name):
        importlib.import_module(f"{probes.__name__}.{module.name}")
    return list(_PROBES)
