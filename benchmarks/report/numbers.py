"""Numbers as the documentation shows them: as many digits as mean something."""

from __future__ import annotations

from benchmarks.measurement import Summary

NOTHING = "–"


def number(value: float) -> str:
    """Three digits that count, grouped by thousands: 17,400, 265, 8.56, 0.25."""
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        digits = len(str(int(abs(value)))) - 3
        return f"{round(value, -digits):,.0f}"
    if abs(value) >= 100:
        return f"{value:.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}"


def median(summary: Summary | None) -> str:
    """The middle value."""
    return number(summary.median) if summary else NOTHING


def spread(summary: Summary | None) -> str:
    """The smallest and the largest value."""
    return f"{number(summary.low)} – {number(summary.high)}" if summary else NOTHING


def both(summary: Summary | None) -> str:
    """The middle value, with the smallest and the largest."""
    return f"{median(summary)} ({spread(summary)})" if summary else NOTHING


def times(summary: Summary | None) -> str:
    """A ratio: 3.4 ×."""
    return f"{number(summary.median)} ×" if summary else NOTHING


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; every column but the first is aligned to the right."""
    rule = ["---", *("---:" for _ in header[1:])]
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, rule, *rows])
