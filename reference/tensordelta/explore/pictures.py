"""Pictures of chains, differences and tables, by matplotlib, which is imported when one is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..read.history import Published
from ..tables import bytes_text, natural

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .diff import Diff
    from .stats import Stats
    from .tensor_history import TensorHistory

# Okabe and Ito's blue and vermilion, which colour-blind readers tell apart, on greys.
DELTA, WHOLE = "#0072B2", "#D55E00"
INK, QUIET, FAINT = "#1F2430", "#5F6673", "#E4E7EC"

#: Rows of a heat map, unless the user says how names are grouped.
_ROWS = 60
#: Points above which each is drawn smaller.
_MANY = 40


def draw_chain(versions: Sequence[Published], axes: tuple[Axes, Axes] | None = None) -> tuple[Axes, Axes]:
    """Bytes of each version on a logarithmic scale, and below the share of words that it changed."""
    if not versions:
        raise ValueError("the chain has no version to draw")
    upper, lower = _figure(2, height=5.0, sharex=True) if axes is None else axes
    at, name = _positions([row.annotations.get("step") for row in versions], [row.version for row in versions])
    for of, mark, color, label in ((True, "D", WHOLE, "full versions"), (False, "o", DELTA, "deltas")):
        chosen = [index for index, row in enumerate(versions) if (row.base is None) is of]
        if chosen:
            sizes = [versions[index].size for index in chosen]
            upper.plot(
                at[chosen], sizes, mark, color=color, markersize=6 if len(versions) <= _MANY else 2.5, label=label
            )
    whole = max(row.nbytes for row in versions)
    upper.axhline(whole, color=QUIET, linewidth=1, dashes=(4, 3), label=f"the whole state, {bytes_text(whole)}")
    upper.set_yscale("log")
    upper.minorticks_off()
    upper.yaxis.set_major_formatter(lambda value, position: bytes_text(value))
    upper.legend(frameon=False, fontsize=8.5, labelcolor=QUIET)
    deltas = [index for index, row in enumerate(versions) if row.base is not None]
    _bars(lower, at[deltas], [100 * versions[index].density for index in deltas])
    _style(upper, "bytes of each version")
    _style(lower, "words changed")
    lower.set_xlabel(name, fontsize=9, color=QUIET)
    return upper, lower


def draw_history(history: TensorHistory, axes: Axes | None = None) -> Axes:
    """The share of one tensor's words that each version changed."""
    if not history:
        raise ValueError("the history has no row to draw")
    (drawn,) = _figure(1, height=3.0) if axes is None else (axes,)
    at, name = _positions([row.step for row in history], [row.version for row in history])
    _bars(drawn, at, [100 * row.density for row in history])
    _style(drawn, f"words changed in {history.name}")
    drawn.set_xlabel(name, fontsize=9, color=QUIET)
    return drawn


def draw_diff(diff: Diff, axes: Axes | None = None, *, most: int) -> Axes:
    """The share of changed words of each tensor."""
    tensors = sorted(diff.tensors, key=lambda each: -each.density)[:most]
    tensors.sort(key=lambda each: natural(each.name))
    (drawn,) = _figure(1, height=1.2 + 0.2 * len(tensors)) if axes is None else (axes,)
    colors = [DELTA if each.status == "kept" else WHOLE for each in tensors]
    drawn.barh(range(len(tensors)), [100 * each.density for each in tensors], color=colors)
    kept = ("" if each.status == "kept" else f" ({each.status})" for each in tensors)
    drawn.set_yticks(range(len(tensors)), [each.name + status for each, status in zip(tensors, kept, strict=True)])
    drawn.set_ylim(len(tensors) - 0.4, -0.6)
    heading = "words changed" + (f" from {diff.old} to {diff.new}" if diff.old and diff.new else "")
    if len(tensors) < len(diff.tensors):
        heading += f": {len(tensors)} of {len(diff.tensors)} tensors"
    _style(drawn, heading, grid="x")
    drawn.xaxis.set_major_formatter(lambda value, position: f"{value:g} %")
    return drawn


def draw_stats(stats: Stats, axes: Axes | None = None, *, depth: int | None) -> Axes:
    """A heat map of the share of changed words, layer by layer, over the steps or versions."""
    if not len(stats["version"]):
        raise ValueError("there is no row to draw: the chain has one version, or none")
    rows, shares = heat(stats, depth)
    (drawn,) = _figure(1, height=1.4 + 0.17 * len(rows)) if axes is None else (axes,)
    from matplotlib.colors import PowerNorm

    _, first = np.unique(stats["version"], return_index=True)
    steps = stats.get("step", stats["version"])[first]
    most = float(np.nanmax(shares)) or 1.0
    # A square root, so that few changes are seen beside many.
    image = drawn.imshow(
        100 * shares, aspect="auto", cmap="Blues", norm=PowerNorm(0.5, 0, 100 * most), interpolation="nearest"
    )
    bar = drawn.figure.colorbar(image, ax=drawn, format=lambda value, position: f"{value:g} %")
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelsize=8.5, labelcolor=QUIET)
    every = -(-len(rows) // _ROWS)
    drawn.set_yticks(range(0, len(rows), every), rows[::every])
    shown = range(0, len(steps), -(-len(steps) // 12))
    drawn.set_xticks(shown, [str(steps[index]) for index in shown])
    _style(drawn, "words changed", grid=None)
    drawn.set_xlabel("step" if "step" in stats else "version", fontsize=9, color=QUIET)
    return drawn


def heat(stats: Stats, depth: int | None = None) -> tuple[list[str], NDArray[np.float64]]:
    """Names of layers in natural order, and the share of changed words of each at each version.

    Args:
        stats: the table.
        depth: how many parts of a name make a layer; by default so many that there are at most 60.

    Returns:
        Names, and float64 of shape (layers, versions); NaN where a version has no tensor of a layer.
    """
    names, tensors = np.unique(stats["tensor"].astype(str), return_inverse=True)
    parts = [name.split(".") for name in names.tolist()]
    if depth is None:
        deepest = max(map(len, parts))
        depth = next(
            (each for each in range(deepest, 1, -1) if len({tuple(part[:each]) for part in parts}) <= _ROWS), 1
        )
    layer_of = [".".join(part[:depth]) for part in parts]
    layers = sorted(set(layer_of), key=natural)
    place = {layer: index for index, layer in enumerate(layers)}
    row = np.array([place[layer] for layer in layer_of])[tensors]
    versions, column = np.unique(stats["version"], return_inverse=True)
    shape = (len(layers), len(versions))
    changed, words = np.zeros(shape), np.zeros(shape)
    np.add.at(changed, (row, column), stats["changed"])
    np.add.at(words, (row, column), stats["words"])
    return layers, np.divide(changed, words, out=np.full(shape, np.nan), where=words > 0)


def _positions(steps: Sequence[str | None], versions: Sequence[int]) -> tuple[NDArray[np.int64], str]:
    """Where versions stand on the axis: at their steps, if they have all one, greater and greater; else at versions."""
    if all(step is not None and step.isdecimal() and len(step) < 18 for step in steps):
        found = np.array([int(step or 0) for step in steps])
        if (np.diff(found) > 0).all():
            return found, "step"
    return np.array(versions), "version"


def _figure(count: int, *, height: float, **options: Any) -> tuple[Axes, ...]:
    """The axes of a new figure, one below the other, which a notebook shows.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        raise ImportError("pictures need matplotlib: pip install 'tensordelta[plot]'") from None
    _, axes = plt.subplots(count, 1, figsize=(9, min(height, 14)), squeeze=False, layout="constrained", **options)
    return tuple(axes[:, 0])


def _bars(axes: Axes, at: NDArray[np.int64], shares: Sequence[float]) -> None:
    width = 0.8 * float(np.diff(at).min()) if len(at) > 1 else 0.8
    axes.bar(at, shares, width=width, color=DELTA)
    axes.yaxis.set_major_formatter(lambda value, position: f"{value:g} %")
    if len(at):
        from matplotlib.ticker import MaxNLocator

        axes.xaxis.set_major_locator(MaxNLocator(nbins=12, integer=True, min_n_ticks=1))


def _style(axes: Axes, heading: str, *, grid: Any = "y") -> None:
    """What all pictures have in common."""
    axes.set_title(heading, loc="left", fontsize=10.5, fontweight="bold", color=INK)
    axes.tick_params(length=0, labelsize=8.5, labelcolor=QUIET)
    axes.spines[["top", "left", "right"]].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
    if grid is not None:
        axes.grid(axis=grid, color=FAINT, linewidth=0.8)
        axes.set_axisbelow(True)
