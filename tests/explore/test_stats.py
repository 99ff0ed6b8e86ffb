"""`stats` and `history`: tables of what changed, which pandas and polars take."""

from __future__ import annotations

import itertools
from pathlib import Path

import gallery
import numpy as np
import pytest
from gallery import GOOD, Builder, Good, open_chain
from runs import publish_run

import tensordelta as td


@pytest.mark.parametrize("good", GOOD, ids=lambda good: good.name)
def test_stats_are_the_differences_of_neighbours(good: Good) -> None:
    chain = open_chain(good.builder)
    stats = chain.stats()
    versions = chain.versions()
    states = {version: gallery.as_state(good.builder.models[version]) for version in versions}
    wanted = {}
    for before, version in itertools.pairwise(versions):
        for each in td.diff(states[before], states[version]).tensors:
            wanted[version, before, each.name] = each.dtype, each.words, each.changed, each.density, each.status
    columns = ("version", "before", "tensor", "dtype", "words", "changed", "density", "status")
    assert set(columns) <= stats.keys() and len({len(column) for column in stats.values()}) == 1
    found = {row[:3]: row[3:] for row in zip(*(stats[name].tolist() for name in columns), strict=True)}
    assert found == wanted and len(stats["version"]) == len(found)


@pytest.mark.parametrize("order", ["natural", "exponent"])
def test_rows_are_in_natural_order(tmp_path: Path, order: str) -> None:
    stats = publish_run(tmp_path / "run", order=order, versions=3).stats()
    assert stats["version"].tolist() == [1, 1, 1, 2, 2, 2]
    assert stats["tensor"].tolist() == ["embed", "layers.2.w", "layers.10.w"] * 2
    assert stats["step"].tolist() == [10] * 3 + [20] * 3
    assert stats["changed"].tolist() == [5, 8, 11] * 2
    assert stats["density"].tolist() == [each / 2000 for each in stats["changed"].tolist()]


def test_a_step_that_is_no_number_makes_no_column(tmp_path: Path) -> None:
    chain = td.open(tmp_path, create=True)
    for step in ("1", "2", "last"):
        chain.publish({"w": np.full(3, len(step))}, annotations={"step": step})
    assert "step" not in chain.stats()


@pytest.mark.parametrize("versions", [0, 1])
def test_too_few_versions_make_no_rows(tmp_path: Path, versions: int) -> None:
    chain = td.open(tmp_path, create=True)
    for _ in range(versions):
        chain.publish({"w": np.zeros(3)})
    assert {len(column) for column in chain.stats().values()} == {0}
    assert "0 rows" in repr(chain.stats())


def test_dataframes_take_it_as_it_is(run: td.Chain) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(run.stats())
    assert list(frame.columns) == list(run.stats()) and len(frame) == 15
    assert frame.groupby("tensor")["changed"].sum().to_dict() == {"embed": 25, "layers.2.w": 40, "layers.10.w": 44}
    assert pandas.DataFrame(run.history("embed"))["changed"].tolist() == [5] * 5
    assert pandas.DataFrame(run.log())["version"].tolist() == run.versions()


def test_polars_takes_it_as_it_is(run: td.Chain) -> None:
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame(run.stats())
    assert frame.columns == list(run.stats()) and frame["changed"].sum() == 109
    assert polars.DataFrame(run.history("embed"))["changed"].to_list() == [5] * 5


# -- one tensor --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("good", GOOD, ids=lambda good: good.name)
def test_a_history_is_the_rows_of_one_tensor(good: Good) -> None:
    chain = open_chain(good.builder)
    stats = chain.stats()
    if not len(stats["version"]):
        pytest.skip("one version")
    for name in sorted(set(stats["tensor"].tolist()))[:3]:
        of = stats["tensor"] == name
        rows = [row for row in chain.history(name) if row.status != "absent"]
        assert [row.version for row in rows] == stats["version"][of].tolist()
        for column in ("before", "words", "changed", "density", "status"):
            assert [getattr(row, column) for row in rows] == stats[column][of].tolist(), (name, column)


@pytest.mark.parametrize("order", ["natural", "exponent"])
def test_when_a_tensor_changed(tmp_path: Path, order: str) -> None:
    history = publish_run(tmp_path / "run", order=order).history("layers.10.w")
    assert [(row.version, row.step, row.changed) for row in history] == [
        (1, "10", 11),
        (2, "20", 11),
        (3, "30", 11),
        (4, "40", 0),
        (5, "50", 11),
    ]
    assert history[0].density == 11 / 2000 and len(history[1:3]) == 2
    assert "changed by 4 of 5 versions" in repr(history)


def test_a_tensor_that_comes_and_goes(tmp_path: Path) -> None:
    chain = td.open(tmp_path, create=True)
    a, b = np.ones(4, np.float32), np.array([0, 1, 2], np.float32)
    for weights in ({"a": a}, {"a": a, "b": b}, {"a": a, "b": b.reshape(3, 1)}, {"a": a}, {"a": a + 1}):
        chain.publish(weights, layout_change=True)
    rows = [(row.status, row.words, row.changed) for row in chain.history("b")]
    assert rows == [("added", 3, 2), ("reshaped", 3, 2), ("dropped", 3, 0), ("absent", 0, 0)]


def test_a_history_reads_only_packs_of_the_tensor() -> None:
    rng = gallery.Random(2)
    builder = Builder()
    model = {name: gallery.weights(rng, (30, 10)) for name in "ab"}
    builder.full(0, model)
    for version in (1, 2):
        before, model = model, gallery.stepped(rng, model, 0.1)
        packs = [
            gallery.of_chunks(gallery.delta_chunks(before, model | {other: before[other]}), builder.layout(model))
            for other in "ba"
        ]
        builder.edge(version, model, packs, base=version - 1)
    chain = open_chain(builder)
    assert [row.changed for row in chain.history("a")] == [chain.diff(0, 1)["a"].changed, chain.diff(1, 2)["a"].changed]
    chain = open_chain(builder)
    chain.history("a")
    touched = {builder.pack_names(version)[0] for version in (1, 2)}
    assert {each for each in chain.store.reads if each.startswith("packs/")} == touched


def test_no_version_has_the_tensor(run: td.Chain) -> None:
    with pytest.raises(td.MissingError, match="no version has a tensor 'head'"):
        run.history("head")


def test_a_full_version_amid_the_chain(run: td.Chain) -> None:
    state = dict(run.load())
    state["embed"] = state["embed"].copy()
    state["embed"].view(np.uint16)[0, :7] ^= 1
    run.publish(state, full=True)
    assert run.manifest().base is None
    assert run.history("embed")[-1].changed == run.diff(-2).changed == 7
    assert run.stats()["changed"][-3:].tolist() == [7, 0, 0]
