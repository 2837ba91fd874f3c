"""The report of a run: data.json, report.md with tables, and one SVG plot per workload."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import plot
from cells import LIMIT, Figures
from contest import CLOSE
from workload import Workload

Results = dict[str, Any]


@dataclass
class Earlier:
    """What a report has of earlier runs: results, and each workload's date and commit."""

    results: Results = field(default_factory=dict)
    runs: dict[str, str] = field(default_factory=dict)

    def forget(self, name: str) -> None:
        """Leave out what was measured anew."""
        self.results.pop(name, None)
        self.runs.pop(name, None)


def read(directory: Path) -> Earlier:
    """What a directory's report has, if there is one."""
    path = directory / "data.json"
    if not path.exists():
        return Earlier()
    data = json.loads(path.read_text())
    meta, results = data["meta"], data["results"]
    run = f"{meta['date']}, commit {meta['commit']}, {meta['machine']}, `{meta['command']}`"
    if meta.get("starts"):
        run += f", {meta['starts']} starts more of what was close"
    return Earlier(results, dict.fromkeys(results, run) | meta.get("earlier", {}))


def write(
    directory: Path, meta: dict[str, Any], results: Results, workloads: list[Workload]
) -> Path:
    """Write all files of a report and return the path of its Markdown."""
    directory.mkdir(parents=True, exist_ok=True)
    data = {"meta": meta, "results": results}
    replace(directory / "data.json", json.dumps(data, indent=1) + "\n")
    plots = {}
    for workload in workloads:
        svg = draw(workload, results.get(workload.name, {}))
        if svg is not None:
            plots[workload.name] = f"{workload.name}.svg"
            replace(directory / plots[workload.name], svg)
    path = directory / "report.md"
    replace(path, markdown(meta, results, workloads, plots))
    return path


def replace(path: Path, text: str) -> None:
    """Write a file whole or not at all, so that an interrupted run leaves the last report."""
    scratch = path.with_name(f"{path.name}.tmp")
    scratch.write_text(text)
    scratch.replace(path)


def markdown(
    meta: dict[str, Any], results: Results, workloads: list[Workload], plots: dict[str, str]
) -> str:
    """The whole report."""
    versions = ", ".join(f"{name} {version}" for name, version in meta["versions"].items())
    pinned = meta["pinned"]
    placed = (
        f"server on core {pinned['server']}, client on core {pinned['client']}"
        if pinned["server"] is not None
        else "not pinned: one core only"
    )
    lines = [
        "# Event loops side by side",
        "",
        f"- {meta['date']}, {meta['machine']}, {meta['cores']} cores ({placed}), {meta['kernel']}",
        f"- Python {meta['python']}" + ("" if meta["gil"] else ", without the GIL"),
        f"- {versions}; tokioloop build: {meta['build_profile']}, commit {meta['commit']}",
        f"- `{meta['command']}`: {meta['rounds']} interleaved rounds of {meta['seconds']} s, "
        "medians; ± is half the range over the rounds",
        "- *of limit* is the share of a plain epoll echo server's messages per second; ratios "
        "are medians of the ratios within a round, in brackets where they are with 95 % confidence",
    ]
    if meta.get("starts"):
        lines.append(
            f"- where the first differ by less than {100 * CLOSE:.0f} %, all of them and tokioloop "
            f"were started {meta['starts']} times more, each time with another layout of memory, "
            f"and took turns of {meta['seconds']} s with all servers alive, so that a ratio meets "
            "one state of the machine"
        )
    lines += host_lines(meta)
    if meta["busy_cores"] > BUSY:
        lines.append(
            f"- **The machine was busy** ({meta['busy_cores']:.1f} cores at the start): read the "
            "ratios with care and the absolute figures not at all"
        )
    lines.append("")
    for workload in workloads:
        lines += [f"## {workload.name}: {workload.title}", ""]
        if workload.name in meta.get("earlier", {}):
            lines += [f"Of an earlier run: {meta['earlier'][workload.name]}.", ""]
        lines += [*table(results.get(workload.name, {}), workload), ""]
        if workload.name in plots:
            lines += [f"![{workload.name}]({plots[workload.name]})", ""]
    return "\n".join(lines)


def host_lines(meta: dict[str, Any]) -> list[str]:
    """What the host did to the cores, where the run looked."""
    host = meta.get("host")
    if host is None:
        return []
    distance, pace = host["distance"], host["pace"]
    return [
        "- the host moves the cores and shares them: a cache line went from one to the other and "
        f"back in {distance['smallest']:.0f} to {distance['largest']:.0f} ns, a piece of work took "
        f"{pace['smallest'] / 1e3:.0f} to {pace['largest'] / 1e3:.0f} us; samples were taken at "
        f"{pace['least'] / 1e3:.0f} to {pace['most'] / 1e3:.0f} us and, where a message costs "
        f"little, {distance['least']:.0f} to {distance['most']:.0f} ns, {meta['repeats']} of them "
        f"again because it did not stay so, {meta['disturbed']} were kept although it never did"
    ]


def tables(results: Results, workloads: list[Workload]) -> str:
    """The tables alone, for the terminal."""
    lines: list[str] = []
    for workload in workloads:
        lines += [f"{workload.name}: {workload.title}", ""]
        lines += [*table(results.get(workload.name, {}), workload), ""]
    return "\n".join(lines)


def table(by_loop: dict[str, Any], workload: Workload) -> list[str]:
    """A Markdown table, aligned for the terminal too, without columns that have no figures."""
    rows = [row(workload, *entry) for entry in entries(by_loop)]
    columns = [title for title in COLUMNS if any(cell.get(title) for cell in rows)]
    names = {"first": workload.axes[0], "second": workload.axes[1], "figure": workload.unit}
    titles = [names.get(title, title) for title in columns]
    texts = [[cell.get(title, "") for title in columns] for cell in rows]
    widths = [max(map(len, column)) for column in zip(titles, *texts, strict=True)]
    left = {"loop", "note"}

    def line(cells: list[str]) -> str:
        padded = (
            text.ljust(width) if title in left else text.rjust(width)
            for title, text, width in zip(columns, cells, widths, strict=True)
        )
        return f"| {' | '.join(padded)} |"

    rule = (
        "-" * width if title in left else "-" * (width - 1) + ":"
        for title, width in zip(columns, widths, strict=True)
    )
    return [line(titles), f"| {' | '.join(rule)} |", *(line(cells) for cells in texts)]


def entries(by_loop: dict[str, Any]) -> Iterator[tuple[str, str, str, Figures]]:
    """All cells of a mode as (connections, size, loop, figures), grouped by point."""
    points: dict[tuple[str, str], None] = {}
    for by_connections in by_loop.values():
        for connections, by_size in by_connections.items():
            for size in by_size:
                points[connections, size] = None
    for connections, size in points:
        for loop, by_connections in by_loop.items():
            figures = by_connections.get(connections, {}).get(size)
            if figures is not None:
                yield connections, size, loop, figures


def row(
    workload: Workload, connections: str, size: str, loop: str, figures: Figures
) -> dict[str, str]:
    """The texts of one table row by column."""
    texts = {"first": connections, "second": size, "loop": loop}
    if "failure" in figures:
        return {**texts, "note": figures["failure"]}
    texts["figure"] = number(figures.get(workload.figure))
    if len(figures.get(f"{workload.figure}_rounds", [])) > 1:
        texts["±"] = f"{100 * figures['spread']:.0f} %"
    for title, key in RATIOS:
        if key in figures and not (loop == LIMIT and key == "vs_limit"):
            texts[title] = f"{figures[key]:.2f}"
    if "vs_best_interval" in figures:
        low, high = figures["vs_best_interval"]
        texts["vs best peer"] += f" ({low:.2f} to {high:.2f})"
    if "cpu_per_message" in figures:
        texts["CPU µs"] = f"{1e6 * figures['cpu_per_message']:.2f}"
    for title, key in (("system calls", "syscalls"), ("allocator's calls", "memory_calls")):
        if key in figures:
            texts[title] = f"{figures[key]:.2f}"
    for title, key in LATENCIES:
        if key in figures:
            texts[title] = f"{1e6 * figures[key]:,.0f}"
    texts["note"] = note(figures)
    return texts


def note(figures: Figures) -> str:
    """What a reader must know beside the figures."""
    parts = [figures["remark"]] if "remark" in figures else []
    parts += [f"{count} x {label}" for label, count in figures.get("faults", {}).items()]
    if figures.get("stalls"):
        parts.append(f"{figures['stalls']} connections stalled")
    if figures.get("disturbed"):
        parts.append(f"{figures['disturbed']} of {figures['rounds']} rounds disturbed")
    parts += [f"a round failed: {why}" for why in figures.get("failed_rounds", [])[:1]]
    return ", ".join(parts)


def number(value: float | None) -> str:
    """A figure with three significant digits at least and thousands separated."""
    if value is None:
        return ""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) >= 1 or value == 0 else f"{value:.3g}"


def draw(workload: Workload, by_loop: dict[str, Any]) -> str | None:
    """The plot of a mode: lines over connections where there are several, bars otherwise."""
    series: dict[str, dict[str, float]] = {}
    all_connections: dict[str, None] = {}
    all_sizes: dict[str, None] = {}
    for connections, size, loop, figures in entries(by_loop):
        if workload.figure in figures:
            all_connections[connections] = None
            all_sizes[size] = None
            series.setdefault(loop, {})[f"{connections}\0{size}"] = figures[workload.figure]
    if not series:
        return None
    by_connections = len(all_connections) > 2 and len(all_sizes) == 1
    labelled = {
        loop: {
            label(key, len(all_connections), len(all_sizes)): value for key, value in row.items()
        }
        for loop, row in series.items()
    }
    title = f"{workload.title} ({workload.unit})"
    if by_connections:
        return plot.lines(title, labelled, workload.axes[0], workload.unit, workload.log_scale)
    return plot.bars(title, labelled, workload.unit)


def label(key: str, connections: int, sizes: int) -> str:
    """A point's label, without what all points have in common."""
    at_connections, at_size = key.split("\0")
    size = plot.short_size(at_size)
    if sizes == 1:
        return at_connections
    return size if connections == 1 else f"{at_connections} x {size}"


# Other work on the machine above which a run is marked.
BUSY = 0.3

LATENCIES = (
    ("p50 µs", "latency_p50"),
    ("p99 µs", "latency_p99"),
    ("p99.9 µs", "latency_p999"),
)

RATIOS = (("vs rloop", "vs_rloop"), ("vs best peer", "vs_best"), ("of limit", "vs_limit"))

# "first" and "second" are what the workload's axes say, "figure" is its unit.
COLUMNS = (
    "first",
    "second",
    "loop",
    "figure",
    "system calls",
    "allocator's calls",
    "±",
    "vs rloop",
    "vs best peer",
    "of limit",
    "CPU µs",
    *(title for title, _ in LATENCIES),
    "note",
)
