"""The demo's picture: the size of each step's delta compared with the whole checkpoint, and the reason."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from ..explore.pictures import DELTA, FAINT, INK, QUIET, WHOLE
from ..read.history import Published
from ..tables import bytes_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MANY = 30  # steps above which dots and bars are drawn smaller


@dataclass(frozen=True)
class Row:
    """One step: what publishing it gave, and how long applying it took."""

    step: int
    published: Published
    apply_seconds: float


def draw(path: os.PathLike[str] | str, rows: Sequence[Row], *, title: str) -> None:
    """Write the picture as a PNG that is 1800 pixels wide, to be shown at 900.

    Args:
        path: of the PNG.
        rows: the first step, published whole, and at least one delta.
        title: above the picture.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.4), dpi=200, facecolor="white")
    figure.text(0.085, 0.915, title, fontsize=15, fontweight="bold", color=INK)
    figure.text(0.085, 0.853, summary(rows), fontsize=9.5, color=QUIET)
    left, right = figure.subplots(1, 2, width_ratios=(8, 5))
    figure.subplots_adjust(left=0.085, right=0.97, top=0.69, bottom=0.125, wspace=0.2)
    draw_sizes(left, rows)
    draw_shares(right, rows)
    figure.savefig(path, format="png")


def summary(rows: Sequence[Row]) -> str:
    deltas = rows[1:]
    parts = [
        f"{rows[0].published.words / 1e6:.3g} M weights",
        f"{len(deltas)} delta{'s' * (len(deltas) > 1)}",
        f"{median(row.published.bits_per_change for row in deltas):.1f} bits per changed weight",
        f"published in {duration(median(row.published.seconds or 0 for row in deltas))}",
        f"applied in {duration(median(row.apply_seconds for row in deltas))}",
    ]
    return "   ·   ".join(parts)


def draw_sizes(axes: Axes, rows: Sequence[Row]) -> None:
    """Bytes on a logarithmic scale, which shows both the whole checkpoint and a delta."""
    from matplotlib.ticker import NullLocator

    prepare(axes, rows, "Bytes published per step", "on a logarithmic scale")
    whole, *deltas = rows
    raw = whole.published.nbytes
    axes.set_yscale("log")
    axes.set_ylim(min(row.published.size for row in rows) / 3, raw * 3)
    axes.yaxis.set_major_formatter(lambda value, position: bytes_text(value))
    axes.yaxis.set_minor_locator(NullLocator())

    start, end = axes.get_xlim()
    axes.axhline(raw, color=WHOLE, linewidth=1.6, dashes=(4, 3))
    label(axes, f"the whole checkpoint, {bytes_text(raw)}", (end, raw), (0, 12), ha="right", color=WHOLE)
    axes.scatter(whole.step, whole.published.size, s=60, marker="D", color=WHOLE, zorder=3)
    label(axes, "published whole", (whole.step, whole.published.size), (8, -14), color=WHOLE)
    steps, sizes = [row.step for row in deltas], [row.published.size for row in deltas]
    size, middle = median(sizes), start + 0.56 * (end - start)
    axes.plot(steps, sizes, color=DELTA, linewidth=1.6, marker="o", markersize=7 if len(deltas) <= MANY else 2.5)
    label(axes, f"a delta, {bytes_text(size)}", (end, size), (0, -16), ha="right", color=DELTA)
    axes.annotate("", (middle, raw * 0.9), (middle, size * 1.25), arrowprops={"arrowstyle": "<->", "color": QUIET})
    where = (middle, (raw * size) ** 0.5)
    label(axes, f"{raw / size:,.0f}× smaller", where, (10, 0), fontsize=16, fontweight="bold", color=INK)


def draw_shares(axes: Axes, rows: Sequence[Row]) -> None:
    deltas = rows[1:]
    shares = [100 * row.published.density for row in deltas]
    prepare(axes, rows, "Weights changed per step", f"{100 - median(shares):.1f} % stay the same, bit for bit")
    axes.bar([row.step for row in deltas], shares, width=0.62 if len(deltas) <= MANY else 1, color=DELTA)
    axes.set_ylim(0, 1.15 * max(shares) or 1)
    axes.yaxis.set_major_formatter(lambda value, position: f"{value:g} %")
    axes.locator_params(axis="y", nbins=5)


def prepare(axes: Axes, rows: Sequence[Row], heading: str, remark: str) -> None:
    """What both panels have in common."""
    from matplotlib.ticker import MaxNLocator

    axes.set_title(heading, loc="left", fontsize=11, fontweight="bold", color=INK, pad=24)
    axes.annotate(
        remark, (0, 1), (0, 10), xycoords="axes fraction", textcoords="offset points", fontsize=9.5, color=QUIET
    )
    axes.set_xlabel("training step", fontsize=9.5, color=QUIET)
    margin = max(0.6, 0.03 * (rows[-1].step - rows[0].step))
    axes.set_xlim(rows[0].step - margin, rows[-1].step + margin)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True, min_n_ticks=1))
    axes.tick_params(length=0, labelsize=9.5, labelcolor=QUIET)
    axes.spines[["top", "left", "right"]].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
    axes.grid(axis="y", color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)


def label(axes: Axes, text: str, where: tuple[float, float], points: tuple[float, float], **look: Any) -> None:
    """Text at some points' distance from a place in the data, over a white background."""
    look = {"fontsize": 9.5} | look
    wipe = {"facecolor": "white", "edgecolor": "none", "pad": 2}
    axes.annotate(text, where, points, textcoords="offset points", va="center", bbox=wipe, **look)


def duration(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.1f} s"
    return f"{seconds * 1000:.0f} ms" if seconds >= 0.01 else f"{seconds * 1000:.1f} ms"
