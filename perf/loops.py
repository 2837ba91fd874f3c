"""The event loops under comparison: how each is made, and whether it can be here.

A loop is named on the command line as `NAME` or `NAME+option=value`, for example
`tokioloop+busy_poll=50`; options go to tokioloop's constructor.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


@dataclass(frozen=True)
class Candidate:
    """A loop by name: the distribution that brings it and the factory that makes it."""

    name: str
    distribution: str | None
    factory: Callable[[dict[str, float]], LoopFactory]
    minimum_python: tuple[int, int] = (3, 10)

    def version(self) -> str:
        """The installed version, or the interpreter's for asyncio itself."""
        if self.distribution is None:
            return sys.version.split()[0]
        return metadata.version(self.distribution)


class LoopUnavailable(Exception):
    """The named loop cannot be used on this interpreter; the message says why."""


def loop_factory(name: str) -> LoopFactory:
    """Return what makes loops of that name, or raise `LoopUnavailable`."""
    base, options = parse_name(name)
    candidate = CANDIDATES.get(base)
    if candidate is None:
        raise LoopUnavailable(f"no loop is called {base!r}; known: {', '.join(CANDIDATES)}")
    if options and base != "tokioloop":
        raise LoopUnavailable(f"only tokioloop takes options, not {base}")
    if sys.version_info < candidate.minimum_python:
        wanted = ".".join(map(str, candidate.minimum_python))
        raise LoopUnavailable(f"needs Python {wanted} or newer")
    try:
        return candidate.factory(options)
    except ImportError as error:
        raise LoopUnavailable(f"not installed ({error})") from error


def can_exist(name: str) -> bool:
    """Whether a loop is made for this interpreter at all, installed or not."""
    return sys.version_info >= CANDIDATES[name].minimum_python


def parse_name(name: str) -> tuple[str, dict[str, float]]:
    """Split `name+option=value+...` into the name and its options."""
    base, *parts = name.split("+")
    options: dict[str, float] = {}
    for part in parts:
        option, equals, value = part.partition("=")
        if not equals:
            raise LoopUnavailable(f"{part!r} is not option=value")
        options[option] = float(value) if "." in value else int(value)
    return base, options


def versions(names: list[str]) -> dict[str, str]:
    """The version of each loop, for the record of a run."""
    found: dict[str, str] = {}
    for name in names:
        base, _ = parse_name(name)
        try:
            found[base] = CANDIDATES[base].version()
        except (KeyError, metadata.PackageNotFoundError):
            found[base] = "unknown"
    return found


def require_release_build() -> None:
    """Refuse to measure a tokioloop that was not built for speed."""
    core = importlib.import_module("tokioloop._core")
    profile = getattr(core, "BUILD_PROFILE", "unknown")
    if profile not in COMPARABLE_PROFILES:
        raise LoopUnavailable(
            f"tokioloop is a {profile} build and only a release build is compared; "
            "run `maturin develop --release`"
        )


def _asyncio(_options: dict[str, float]) -> LoopFactory:
    return asyncio.SelectorEventLoop


def _tokioloop(options: dict[str, float]) -> LoopFactory:
    module = importlib.import_module("tokioloop")
    require_release_build()
    if options:
        return lambda: module.TokioLoop(**options)
    factory: LoopFactory = module.new_event_loop
    return factory


def _plain(module_name: str) -> Callable[[dict[str, float]], LoopFactory]:
    """Most peers call their factory `new_event_loop`."""

    def factory(_options: dict[str, float]) -> LoopFactory:
        made: LoopFactory = importlib.import_module(module_name).new_event_loop
        return made

    return factory


def _aiofastnet(_options: dict[str, float]) -> LoopFactory:
    aiofastnet = importlib.import_module("aiofastnet")
    uvloop = importlib.import_module("uvloop")
    made: LoopFactory = aiofastnet.loop_factory(uvloop.new_event_loop)
    return made


# `profiling` is release code with symbols: instruction counts are the same.
COMPARABLE_PROFILES = ("release", "profiling")

CANDIDATES: dict[str, Candidate] = {
    candidate.name: candidate
    for candidate in (
        Candidate("asyncio", None, _asyncio),
        Candidate("uvloop", "uvloop", _plain("uvloop")),
        Candidate("rloop", "rloop", _plain("rloop")),
        Candidate("zuvloop", "zuvloop", _plain("zuvloop"), (3, 14)),
        Candidate("zloop", "zloop", _plain("zloop")),
        Candidate("blazio", "blazio", _plain("blazio")),
        Candidate("aiofastnet", "aiofastnet", _aiofastnet),
        Candidate("tokioloop", "tokioloop", _tokioloop),
    )
}


def main() -> None:
    """Make the named loop once; fail with the reason if that cannot be done."""
    try:
        loop_factory(sys.argv[1])().close()
    except LoopUnavailable as error:
        sys.exit(str(error))
    except Exception as error:
        sys.exit(f"cannot make a loop: {type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
