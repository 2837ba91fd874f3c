"""Stacks out of `perf script`: folded for a flame graph, and summed up by layer."""

from __future__ import annotations

import collections
import os
import re
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

__all__ = ["LAYERS", "Frame", "Profile", "parse"]

LAYERS = ("kernel", "reactor", "binding", "interpreter", "user code", "other")

# `  7f12ab py::main:/srv/app.py (/tmp/perf-12.map)`; a name may contain spaces and parentheses.
_FRAME = re.compile(r"^\s+[0-9a-f]+ (?P<name>.*?) \((?P<place>[^()]*(?:\([^()]*\))?[^()]*)\)$")
_PYTHON = "py::"
_HASH = re.compile(r"::h[0-9a-f]{16}$")
_INTERPRETER = re.compile(r"/(lib)?python3[^/]*$")
# Part of the package, but profiled in place of a user's program.
_WORKLOADS = os.path.join("tokioloop", "observe", "workloads.py")
_STANDARD_LIBRARY = tuple(
    {sysconfig.get_path(name) for name in ("stdlib", "platstdlib")} | {"<frozen"}
)


@dataclass(frozen=True)
class Frame:
    """One function of a stack."""

    name: str
    place: str
    """The file of the code: a library, `[kernel.kallsyms]`, or perf's map of the trampolines."""

    @property
    def is_python(self) -> bool:
        """Whether it is a function written in Python."""
        return self.name.startswith(_PYTHON)

    @property
    def layer(self) -> str | None:
        """Whose code it is; None for libraries, which work for their callers."""
        if "kernel" in self.place or self.place.startswith("[guest"):
            return "kernel"
        if self.is_python:
            path = self.name.removeprefix(_PYTHON).partition(":")[2]
            if path.startswith(_STANDARD_LIBRARY):
                return "interpreter"
            own = f"{os.sep}tokioloop{os.sep}" in path and not path.endswith(_WORKLOADS)
            return "binding" if own else "user code"
        if self.name.startswith(("tokioloop_reactor", "<tokioloop_reactor", "mio::", "<mio::")):
            return "reactor"
        if "/_core." in self.place or self.name.startswith("_core::"):
            return "binding"
        if _INTERPRETER.search(self.place) or (".so" not in self.place and "python" in self.place):
            return "interpreter"
        return None

    @property
    def label(self) -> str:
        """The name in a flame graph. Suffixes choose colours: Python green, the kernel orange."""
        if self.is_python:
            function, _, path = self.name.removeprefix(_PYTHON).partition(":")
            return f"{function} ({os.path.basename(path)})_[j]".replace(";", ":")
        name = _HASH.sub("", self.name).replace(";", ":")
        if name == "[unknown]":
            name = f"[{os.path.basename(self.place).strip('[]')}]"
        return f"{name}_[k]" if self.layer == "kernel" else name


class Profile:
    """Samples with their stacks, outermost frame first."""

    def __init__(self) -> None:
        self.folded: collections.Counter[str] = collections.Counter()
        self.layers: collections.Counter[str] = collections.Counter()
        self.functions: collections.Counter[str] = collections.Counter()

    def add(self, stack: list[Frame]) -> None:
        """Count one sample."""
        self.folded[";".join(frame.label for frame in stack)] += 1
        self.layers[_layer(stack)] += 1
        self.functions[stack[-1].label] += 1

    @property
    def samples(self) -> int:
        """How many there are."""
        return sum(self.layers.values())

    def folded_lines(self) -> Iterator[str]:
        """Yield `outer;inner count`, the input of flame graph tools."""
        for stack, count in sorted(self.folded.items()):
            yield f"{stack} {count}"

    def summary(self, functions: int = 20) -> str:
        """Say where the time goes, by layer and by function."""
        total = max(self.samples, 1)
        lines = [f"{self.samples} samples", "", "time by layer"]
        lines += [f"{self.layers[layer] / total:>7.1%}  {layer}" for layer in LAYERS]
        lines += ["", "functions by their own time"]
        for name, count in self.functions.most_common(functions):
            lines.append(f"{count / total:>7.1%}  {name}")
        return "\n".join(lines) + "\n"


def _layer(stack: list[Frame]) -> str:
    """Return whose time a sample is. What the interpreter does for user code is user code's."""
    for depth in range(len(stack) - 1, -1, -1):
        layer = stack[depth].layer
        if layer is None:
            continue
        if layer == "interpreter":
            return _runs(stack[:depth])
        return layer
    return "other"


def _runs(outer: list[Frame]) -> str:
    """Return whom the interpreter works for: the innermost Python or Rust function decides."""
    for frame in reversed(outer):
        layer = frame.layer
        if frame.is_python:
            return "user code" if layer == "user code" else "interpreter"
        if layer in ("reactor", "binding"):
            break
    return "interpreter"


def parse(lines: Iterable[str], below: str | None = None) -> Profile:
    """Read the output of `perf script -F comm,pid,ip,sym,dso`.

    With `below`, only what the Python function of that name calls is kept, unless no sample
    has it.
    """
    everything, inner = Profile(), Profile()
    for stack in _stacks(lines):
        everything.add(stack)
        for depth, frame in enumerate(stack[:-1]):
            if below is not None and frame.name.startswith(f"{_PYTHON}{below}:"):
                inner.add(stack[depth + 1 :])
                break
    return inner if inner.samples else everything


def _stacks(lines: Iterable[str]) -> Iterator[list[Frame]]:
    """Yield each sample's frames, outermost first."""
    stack: list[Frame] = []
    for line in lines:
        line = line.rstrip("\n")
        if not line.strip():
            if stack:
                yield stack[::-1]
            stack = []
            continue
        match = _FRAME.match(line)
        if match is not None:
            stack.append(Frame(match["name"], match["place"]))
    if stack:
        yield stack[::-1]
