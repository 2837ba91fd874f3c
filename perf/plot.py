"""Plots as plain SVG text: grouped bars and lines, readable on light and dark pages.

Nothing here knows about event loops except the colours, which are fixed by name so that a
loop looks the same in every plot of every report.
"""

from __future__ import annotations

import math
from html import escape

# Names of series to values by label.
Series = dict[str, dict[str, float]]

WIDTH = 860
HEIGHT = 380
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 50, 72

COLOURS = {
    "asyncio": "#9aa0a6",
    "uvloop": "#4e79a7",
    "rloop": "#e08214",
    "zuvloop": "#b07aa1",
    "zloop": "#76b7b2",
    "blazio": "#9c755f",
    "aiofastnet": "#59a14f",
    "tokioloop": "#d62728",
    "limit": "#5f6368",
}
SPARE_COLOURS = ("#8c564b", "#17becf", "#bcbd22", "#7f3c8d")


def bars(title: str, series: Series, unit: str) -> str:
    """Groups of bars, each group on its own scale.

    Message sizes lie orders of magnitude apart; a common scale would hide all but one
    group, so bars compare within a group and each bar carries its figure.
    """
    labels = list(dict.fromkeys(label for values in series.values() for label in values))
    names = list(series)
    area = _Area()
    parts = [_text(LEFT, 24, title, size=15, weight="600")]
    group_width = area.width / max(len(labels), 1)
    bar_width = min(group_width * 0.9 / max(len(names), 1), 46)
    for place, label in enumerate(labels):
        present = {name: series[name][label] for name in names if label in series[name]}
        top = max(present.values(), default=0) or 1
        start = LEFT + place * group_width + (group_width - bar_width * len(names)) / 2
        for offset, name in enumerate(names):
            if name not in present:
                continue
            height = area.height * 0.94 * present[name] / top
            x, y = start + offset * bar_width, area.bottom - height
            fill = colour(name, names)
            tip = f"{name}, {label}: {present[name]:,.4g} {unit}"
            parts.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{bar_width - 1.5:.1f}" '
                f'height="{height:.1f}" fill="{fill}"><title>{escape(tip)}</title></rect>'
            )
            caption = short_number(present[name])
            parts.append(_text(x + bar_width / 2, y - 3, caption, size=9, anchor="middle"))
        middle = LEFT + (place + 0.5) * group_width
        parts.append(_text(middle, area.bottom + 16, label, size=11, anchor="middle"))
    parts.append(_axis(LEFT, area.bottom, LEFT + area.width, area.bottom))
    return _document([*parts, *_legend(names)])


def lines(title: str, series: Series, x_title: str, unit: str, log_scale: bool = False) -> str:
    """One line per series over equally spaced labels, from zero or in orders of magnitude."""
    labels = list(dict.fromkeys(label for values in series.values() for label in values))
    names = list(series)
    area = _Area()
    scale = _Scale([value for values in series.values() for value in values.values()], log_scale)
    step = area.width / max(len(labels) - 1, 1)
    parts = [_text(LEFT, 24, title, size=15, weight="600")]
    for tick in scale.ticks():
        y = area.bottom - area.height * 0.94 * scale.share(tick)
        parts.append(_axis(LEFT, y, LEFT + area.width, y, faint=y < area.bottom))
        parts.append(_text(LEFT - 6, y + 4, short_number(tick), size=10, anchor="end"))
    for place, label in enumerate(labels):
        x = LEFT + place * step
        parts.append(_text(x, area.bottom + 16, label, size=11, anchor="middle"))
    parts.append(_text(LEFT + area.width / 2, area.bottom + 32, x_title, size=11, anchor="middle"))
    for name in names:
        points = [
            (
                LEFT + place * step,
                area.bottom - area.height * 0.94 * scale.share(series[name][label]),
            )
            for place, label in enumerate(labels)
            if label in series[name]
        ]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        fill = colour(name, names)
        dash = ' stroke-dasharray="5 4"' if name == "limit" else ""
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{fill}" stroke-width="2"{dash}/>'
        )
        for (x, y), (label, value) in zip(points, series[name].items(), strict=True):
            tip = escape(f"{name}, {label}: {value:,.4g} {unit}")
            parts.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.2" fill="{fill}">'
                f"<title>{tip}</title></circle>"
            )
    return _document([*parts, *_legend(names)])


def colour(name: str, names: list[str]) -> str:
    """The fixed colour of a known loop, or a spare one by place."""
    known = COLOURS.get(name)
    return known if known else SPARE_COLOURS[names.index(name) % len(SPARE_COLOURS)]


def short_number(value: float) -> str:
    """A figure in few characters: 182k, 1.53M, 4.20."""
    for limit, suffix in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            scaled = value / limit
            return f"{scaled:.0f}{suffix}" if scaled >= 100 else f"{scaled:.3g}{suffix}"
    return f"{value:.3g}"


def short_size(size: str) -> str:
    """A size in bytes as it is usually said; other names stay as they are."""
    if not size.isdigit():
        return size
    for limit, unit in ((1024 * 1024, "MB"), (1024, "KB")):
        if int(size) >= limit and int(size) % limit == 0:
            return f"{int(size) // limit} {unit}"
    return f"{size} B"


class _Area:
    """The rectangle between the axes."""

    width = WIDTH - LEFT - RIGHT
    height = HEIGHT - TOP - BOTTOM
    bottom = HEIGHT - BOTTOM


class _Scale:
    """Where a figure lies between the lowest and the highest line."""

    def __init__(self, values: list[float], logarithmic: bool) -> None:
        self.top = max(values, default=0) or 1
        lowest = min((value for value in values if value > 0), default=self.top)
        # Whole decades, one at least.
        self.first = math.floor(math.log10(lowest))
        self.last = max(math.ceil(math.log10(self.top)), self.first + 1)
        self.logarithmic = logarithmic

    def share(self, value: float) -> float:
        if not self.logarithmic:
            return value / self.top
        exponent = math.log10(value) if value > 0 else self.first
        return (exponent - self.first) / (self.last - self.first)

    def ticks(self) -> list[float]:
        if self.logarithmic:
            return [10.0**exponent for exponent in range(self.first, self.last + 1)]
        return [self.top * quarter / 4 for quarter in range(5)]


def _legend(names: list[str]) -> list[str]:
    parts = []
    x = float(LEFT)
    for name in names:
        fill = colour(name, names)
        parts.append(f'<rect x="{x:.0f}" y="{HEIGHT - 24}" width="11" height="11" fill="{fill}"/>')
        parts.append(_text(x + 15, HEIGHT - 14, name, size=11))
        x += 30 + 6.4 * len(name)
    return parts


def _text(
    x: float, y: float, text: str, *, size: int, anchor: str = "start", weight: str = "400"
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" '
        f'font-weight="{weight}">{escape(text)}</text>'
    )


def _axis(x1: float, y1: float, x2: float, y2: float, *, faint: bool = False) -> str:
    opacity = "0.25" if faint else "0.8"
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
        f'stroke="#888" stroke-opacity="{opacity}"/>'
    )


def _document(parts: list[str]) -> str:
    style = (
        "text{font-family:system-ui,sans-serif;fill:#222}"
        "@media(prefers-color-scheme:dark){text{fill:#ddd}}"
    )
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}">\n<style>{style}</style>\n{body}\n</svg>\n'
    )
