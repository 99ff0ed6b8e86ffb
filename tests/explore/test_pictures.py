"""Pictures: each returns its axes, with what the figures say."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from runs import publish_run

import tensordelta as td
from tensordelta.explore.pictures import heat

matplotlib = pytest.importorskip("matplotlib")


@pytest.fixture(autouse=True)
def _figures() -> Iterator[None]:
    matplotlib.use("agg")
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


def test_a_chain(run: td.Chain, tmp_path: Path) -> None:
    upper, lower = run.plot()
    rows = run.log()
    drawn = {point for line in upper.lines if line.get_label() != "" for point in zip(*line.get_data(), strict=True)}
    assert {(10 * row.version, row.size) for row in rows} <= drawn
    assert [bar.get_height() for bar in lower.patches] == pytest.approx([100 * row.density for row in rows[1:]])
    assert lower.get_xlabel() == "step"
    upper.figure.savefig(tmp_path / "chain.png")


def test_a_difference(run: td.Chain, tmp_path: Path) -> None:
    found = run.diff(0, 1)
    axes = found.plot()
    assert [label.get_text() for label in axes.get_yticklabels()] == ["embed", "layers.2.w", "layers.10.w"]
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([0.25, 0.4, 0.55])
    assert "version 0 to version 1" in axes.get_title(loc="left")
    assert len(found.plot(most=2).patches) == 2
    axes.figure.savefig(tmp_path / "diff.png")


def test_a_heat_map(run: td.Chain, tmp_path: Path) -> None:
    axes = run.stats().plot()
    (image,) = axes.images
    assert image.get_array().tolist() == (100 * heat(run.stats())[1]).tolist()
    assert [label.get_text() for label in axes.get_yticklabels()] == ["embed", "layers.2.w", "layers.10.w"]
    axes.figure.savefig(tmp_path / "stats.png")


def test_a_tensor(run: td.Chain, tmp_path: Path) -> None:
    axes = run.history("layers.10.w").plot()
    assert [bar.get_height() for bar in axes.patches] == pytest.approx([0.55, 0.55, 0.55, 0, 0.55])
    axes.figure.savefig(tmp_path / "history.png")


def test_into_axes_of_ones_own(run: td.Chain) -> None:
    from matplotlib.figure import Figure

    upper, lower, third = Figure().subplots(3)
    assert run.plot((upper, lower)) == (upper, lower)
    assert run.diff(0).plot(third) is third


def test_layers_are_parts_of_names() -> None:
    names = [f"layers.{layer}.{part}.w" for layer in range(40) for part in ("attn", "mlp")] + ["embed"]
    stats = td.Stats(
        version=np.repeat([1, 2], len(names)),
        tensor=np.array(names * 2, object),
        words=np.full(2 * len(names), 10),
        changed=np.concatenate([np.full(len(names), 1), np.full(len(names), 3)]),
    )
    layers, shares = heat(stats)
    assert layers == ["embed", *(f"layers.{layer}" for layer in range(40))]
    assert shares.tolist() == [[0.1, 0.3]] * 41
    assert heat(stats, 1)[0] == ["embed", "layers"]
    assert len(heat(stats, 3)[0]) == 81


def test_nothing_to_draw(tmp_path: Path) -> None:
    chain = td.open(tmp_path, create=True)
    for draw in (chain.plot, chain.stats().plot):
        with pytest.raises(ValueError, match="to draw"):
            draw()


def test_a_long_run_of_a_large_model(tmp_path: Path) -> None:
    chain = publish_run(tmp_path / "run", versions=60)
    axes = chain.stats().plot()
    assert axes.images[0].get_array().shape == (3, 59) and len(axes.get_xticklabels()) <= 12
    chain.plot()[0].figure.savefig(tmp_path / "long.png")


def test_matplotlib_is_an_extra(tmp_path: Path) -> None:
    publish_run(tmp_path / "run", versions=2)
    code = (
        "import sys; sys.modules['matplotlib'] = None; import tensordelta as td\n"
        f"td.open({str(tmp_path / 'run')!r}).plot()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    last = done.stderr.splitlines()[-1]
    assert last == "ImportError: pictures need matplotlib: pip install 'tensordelta[plot]'"
