"""A bar chart as SVG: horizontal bars on a logarithmic scale, each with the range of its rounds.

The background is transparent, and every colour is chosen to be read on white as well as on black.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from benchmarks.measurement import Summary
from benchmarks.report.numbers import number

WIDTH: Final = 820
LABEL_WIDTH: Final = 262
VALUE_WIDTH: Final = 64
ROW: Final = 25
BAR: Final = 14
PANEL_HEAD: Final = 46
PANEL_FOOT: Final = 40
FONT: Final = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"

INK: Final = "#7d8590"
GRID: Final = "#7d859040"
OURS: Final = "#e8720c"
THEIRS: Final = "#4c8ddb"


@dataclass(frozen=True, slots=True)
class Bar:
    """One row: a name with a remark, and what was found. A hollow bar promises less than a full one."""

    name: str
    remark: str
    summary: Summary
    ours: bool
    hollow: bool


@dataclass(frozen=True, slots=True)
class Panel:
    """Bars over one scale."""

    title: str
    unit: str
    bars: Sequence[Bar]


def chart(panels: Sequence[Panel], full: str, hollow: str) -> str:
    """The panels below each other, with a legend that says what full and hollow bars mean."""
    parts: list[str] = []
    top = 34
    for panel in panels:
        parts.append(f'<g transform="translate(0 {top})">{_panel(panel)}</g>')
        top += PANEL_HEAD + ROW * len(panel.bars) + PANEL_FOOT
    legend = _legend(full, hollow)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" width="{WIDTH}" height="{top}" '
        f'font-family="{FONT}" font-size="12.5" fill="{INK}" role="img">\n'
        f"{legend}\n" + "\n".join(parts) + "\n</svg>\n"
    )


def _panel(panel: Panel) -> str:
    low = math.floor(math.log10(min(bar.summary.low for bar in panel.bars)))
    high = math.log10(max(bar.summary.high for bar in panel.bars))
    scale = (WIDTH - LABEL_WIDTH - VALUE_WIDTH) / (high - low)

    def x(value: float) -> float:
        return round(LABEL_WIDTH + (math.log10(value) - low) * scale, 1)

    bottom = PANEL_HEAD + ROW * len(panel.bars)
    parts = [
        f'<text x="0" y="20" font-size="15" font-weight="600">{escape(panel.title)}'
        f'<tspan font-size="12.5" font-weight="400" dx="8">{panel.unit}, logarithmic</tspan></text>'
    ]
    for power in range(low, math.floor(high) + 1):
        at = x(10.0**power)
        parts.append(f'<path d="M{at} {PANEL_HEAD - 8}V{bottom}" stroke="{GRID}"/>')
        parts.append(
            f'<text x="{at}" y="{bottom + 16}" text-anchor="middle" font-size="11">{_power(power)}</text>'
        )
    for row, bar in enumerate(panel.bars):
        parts += _bar(bar, PANEL_HEAD + ROW * row, x)
    return "\n".join(parts)


def _bar(bar: Bar, top: int, x: Callable[[float], float]) -> list[str]:
    middle = top + ROW / 2 - 2
    color = OURS if bar.ours else THEIRS
    end = x(bar.summary.median)
    weight = ' font-weight="600"' if bar.ours else ""
    look = f'fill="{color}" fill-opacity="0.18" stroke="{color}"' if bar.hollow else f'fill="{color}"'
    low, high = x(bar.summary.low), x(bar.summary.high)
    return [
        f'<text x="0" y="{middle + 4}"{weight}>{escape(bar.name)} '
        f'<tspan font-size="11" font-weight="400">{escape(bar.remark)}</tspan></text>',
        f'<rect x="{LABEL_WIDTH}" y="{middle - BAR / 2}" width="{end - LABEL_WIDTH:.1f}" height="{BAR}" rx="2" {look}/>',
        f'<path d="M{low} {middle}H{high}M{low} {middle - 4}v8M{high} {middle - 4}v8" stroke="{INK}" stroke-width="1.3"/>',
        f'<text x="{max(high, end) + 7}" y="{middle + 4}"{weight}>{number(bar.summary.median)}</text>',
    ]


def _legend(full: str, hollow: str) -> str:
    parts = []
    at = 0.0
    for look, text in (
        (f'fill="{INK}"', full),
        (f'fill="{INK}" fill-opacity="0.18" stroke="{INK}"', hollow),
    ):
        parts.append(f'<rect x="{at + 0.5}" y="5" width="20" height="11" rx="2" {look}/>')
        parts.append(f'<text x="{at + 27}" y="15" font-size="11.5">{escape(text)}</text>')
        at += 45 + 6.2 * len(text)
    parts.append(f'<path d="M{at} 10.5h18m-18 -4v8m18 -8v8" stroke="{INK}" stroke-width="1.3"/>')
    parts.append(f'<text x="{at + 25}" y="15" font-size="11.5">slowest to fastest round</text>')
    return "".join(parts)


def _power(power: int) -> str:
    return f"{10**power:,}" if power >= 0 else f"{10.0**power:g}"
