"""Plots as plain SVG text: grouped bars and lines, readable on light and dark pages.

Nothing here knows about event loops except the colours, which are fixed by name so that a
loop looks the same in every plot of every report.
"""

from __future__ import annotations

import math
import textwrap
from html import escape

# Names of series to values by label.
Series = dict[str, dict[str, float]]

WIDTH = 860
HEIGHT = 300
LEFT, RIGHT, TOP = 70, 20, 50
LINE = 14
# About the width of a character of size 11.
CHARACTER = 6.4
NARROWEST_BAR = 14

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
SPARE_COLOURS = ("#e377c2", "#17becf", "#bcbd22", "#7f3c8d")


def bars(title: str, series: Series, unit: str) -> str:
    """Groups of bars, each group on its own scale.

    Message sizes lie orders of magnitude apart; a common scale would hide all but one
    group, so bars compare within a group and each bar carries its figure.
    """
    labels = list(dict.fromkeys(label for values in series.values() for label in values))
    names = list(series)
    needed = len(labels) * (len(names) + 1.5) * NARROWEST_BAR
    canvas = _Canvas(title, width=max(WIDTH, math.ceil(needed) + LEFT + RIGHT))
    group_width = canvas.inner_width / max(len(labels), 1)
    bar_width = min(group_width / (len(names) + 1), 46)
    for place, label in enumerate(labels):
        present = {name: series[name][label] for name in names if label in series[name]}
        top = max(present.values(), default=0) or 1
        start = LEFT + place * group_width + (group_width - bar_width * len(names)) / 2
        for offset, name in enumerate(names):
            if name in present:
                x = start + offset * bar_width
                share = 0.88 * present[name] / top
                tip = f"{name}, {label}: {present[name]:,.4g} {unit}"
                canvas.bar(x, bar_width - 1.5, share, colour(name, names), tip)
                canvas.caption(x, bar_width, share, short_number(present[name]))
        canvas.label_below(LEFT + (place + 0.5) * group_width, label, group_width)
    canvas.horizontal(0)
    return canvas.document(names)


def lines(title: str, series: Series, x_title: str, unit: str, log_scale: bool = False) -> str:
    """One line per series over equally spaced labels, from zero or in orders of magnitude."""
    labels = list(dict.fromkeys(label for values in series.values() for label in values))
    names = list(series)
    scale = _Scale([value for values in series.values() for value in values.values()], log_scale)
    canvas = _Canvas(title)
    step = canvas.inner_width / max(len(labels) - 1, 1)
    for tick in scale.ticks():
        canvas.horizontal(scale.share(tick), short_number(tick))
    for place, label in enumerate(labels):
        canvas.label_below(LEFT + place * step, label, step)
    canvas.title_below(x_title)
    for name in names:
        points = [
            (LEFT + place * step, canvas.height_of(scale.share(series[name][label])), label)
            for place, label in enumerate(labels)
            if label in series[name]
        ]
        stroke = colour(name, names)
        canvas.line([(x, y) for x, y, _ in points], stroke, dashed=name == "limit")
        for x, y, label in points:
            canvas.dot(x, y, stroke, f"{name}, {label}: {series[name][label]:,.4g} {unit}")
    return canvas.document(names)


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


class _Canvas:
    """The drawing area, its axes, and the room that labels and legend turn out to need."""

    def __init__(self, title: str, width: int = WIDTH) -> None:
        self.width = width
        self.inner_width = width - LEFT - RIGHT
        self.label_lines = 1
        self.parts = [_text(LEFT, 24, title, size=15, weight="600")]

    def height_of(self, share: float) -> float:
        """The y coordinate of a share of the full height."""
        return HEIGHT - (HEIGHT - TOP) * share

    def bar(self, x: float, width: float, share: float, fill: str, tip: str) -> None:
        y = self.height_of(share)
        self.parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{HEIGHT - y:.1f}" '
            f'fill="{fill}"><title>{escape(tip)}</title></rect>'
        )

    def caption(self, x: float, width: float, share: float, text: str) -> None:
        """A figure above its bar, upright where the bar is narrower than the text."""
        middle, y = x + width / 2, self.height_of(share) - 3
        if len(text) * 5 <= width:
            self.parts.append(_text(middle, y, text, size=9, anchor="middle"))
        else:
            turn = f' transform="rotate(-90 {middle + 3:.1f} {y:.1f})"'
            self.parts.append(_text(middle + 3, y, text, size=9, extra=turn))

    def label_below(self, x: float, label: str, width: float) -> None:
        """A label under the axis, wrapped to the room that it has."""
        rows = textwrap.wrap(label, max(int(width / CHARACTER), 6)) or [""]
        self.label_lines = max(self.label_lines, len(rows))
        for number, row in enumerate(rows):
            y = HEIGHT + 16 + number * LINE
            self.parts.append(_text(x, y, row, size=11, anchor="middle"))

    def title_below(self, text: str) -> None:
        """What the labels under the axis are."""
        y = HEIGHT + 16 + self.label_lines * LINE
        self.label_lines += 1
        middle = LEFT + self.inner_width / 2
        self.parts.append(_text(middle, y, text, size=11, anchor="middle"))

    def horizontal(self, share: float, text: str = "") -> None:
        """The axis, or a faint line with its value."""
        y = self.height_of(share)
        opacity = "0.25" if share > 0 else "0.8"
        self.parts.append(
            f'<line x1="{LEFT}" y1="{y:.1f}" x2="{LEFT + self.inner_width}" y2="{y:.1f}" '
            f'stroke="#888" stroke-opacity="{opacity}"/>'
        )
        self.parts.append(_text(LEFT - 6, y + 4, text, size=10, anchor="end"))

    def line(self, points: list[tuple[float, float]], stroke: str, *, dashed: bool) -> None:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self.parts.append(
            f'<polyline points="{path}" fill="none" stroke="{stroke}" stroke-width="2"{dash}/>'
        )

    def dot(self, x: float, y: float, fill: str, tip: str) -> None:
        self.parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.2" fill="{fill}">'
            f"<title>{escape(tip)}</title></circle>"
        )

    def document(self, names: list[str]) -> str:
        """The finished picture, with a legend in as many rows as it takes."""
        x, y = float(LEFT), HEIGHT + 30 + self.label_lines * LINE
        for name in names:
            room = 30 + CHARACTER * len(name)
            if x > LEFT and x + room > self.width:
                x, y = float(LEFT), y + LINE + 4
            fill = colour(name, names)
            swatch = f'<rect x="{x:.0f}" y="{y - 10}" width="11" height="11" fill="{fill}"/>'
            self.parts += [swatch, _text(x + 15, y, name, size=11)]
            x += room
        style = (
            "text{font-family:system-ui,sans-serif;fill:#222}"
            "@media(prefers-color-scheme:dark){text{fill:#ddd}}"
        )
        size = f'viewBox="0 0 {self.width} {y + 12}" width="{self.width}" height="{y + 12}"'
        body = "\n".join(self.parts)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n'
            f"<style>{style}</style>\n{body}\n</svg>\n"
        )


def _text(
    x: float,
    y: float,
    text: str,
    *,
    size: int,
    anchor: str = "start",
    weight: str = "400",
    extra: str = "",
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" '
        f'font-weight="{weight}"{extra}>{escape(text)}</text>'
    )
