"""Plots are well-formed SVG that shows every figure."""

from __future__ import annotations

from xml.etree import ElementTree

import plot
import pytest

SVG = "{http://www.w3.org/2000/svg}"


def test_bars_are_scaled_within_their_group() -> None:
    series = {"asyncio": {"1 KB": 50.0, "1 MB": 1.0}, "rloop": {"1 KB": 100.0, "1 MB": 2.0}}
    root = ElementTree.fromstring(plot.bars("a title", series, "messages/s"))
    bars = [rect for rect in root.iter(f"{SVG}rect") if rect.find(f"{SVG}title") is not None]
    heights = [float(rect.get("height", "0")) for rect in bars]
    assert len(heights) == 4
    assert heights[0] == pytest.approx(heights[1] / 2, abs=0.1)
    # The best of each group is as high as the best of the other.
    assert heights[1] == heights[3]


def test_lines_have_a_point_for_each_figure() -> None:
    series = {"limit": {"1": 1.0, "8": 4.0}, "other <loop>": {"8": 2.0}}
    root = ElementTree.fromstring(plot.lines("by & by", series, "connections", "messages/s"))
    assert len(list(root.iter(f"{SVG}circle"))) == 3
    assert "other <loop>" in "".join(root.itertext())


def test_a_logarithmic_scale_gives_each_decade_the_same_height() -> None:
    series = {"limit": {"a": 10.0, "b": 100.0, "c": 1000.0}}
    root = ElementTree.fromstring(plot.lines("t", series, "rate", "µs", log_scale=True))
    heights = [float(circle.get("cy", "0")) for circle in root.iter(f"{SVG}circle")]
    assert heights[0] - heights[1] == pytest.approx(heights[1] - heights[2], abs=0.2)
    assert heights[0] > heights[1]


def test_a_loop_has_the_same_colour_in_every_plot() -> None:
    assert plot.colour("rloop", ["rloop"]) == plot.colour("rloop", ["asyncio", "rloop"])
    spare = [plot.colour(name, ["new", "newer"]) for name in ("new", "newer")]
    assert spare[0] != spare[1]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (4.2, "4.2"), (999, "999"), (1500, "1.5k"), (182_345, "182k"), (1.53e6, "1.53M")],
)
def test_short_numbers(value: float, text: str) -> None:
    assert plot.short_number(value) == text


def test_sizes_are_said_as_usual() -> None:
    sizes = ["64", "1024", "102400", "1048576", "true"]
    assert [plot.short_size(size) for size in sizes] == ["64 B", "1 KB", "100 KB", "1 MB", "true"]
