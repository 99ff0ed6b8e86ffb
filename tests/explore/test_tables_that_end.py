"""Tables of long chains and large models show both ends, the total, and how much lies between."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gallery
import numpy as np
import pytest
from gallery import Builder, open_chain

import tensordelta as td


@pytest.fixture(scope="module")
def long() -> td.Chain:
    """300 versions, in memory."""
    rng = gallery.Random(5)
    builder = Builder()
    model = {"w": gallery.weights(rng, (4, 4))}
    builder.full(0, model)
    for version in range(1, 300):
        model = gallery.stepped(rng, model, 0.2)
        builder.delta(version, model, version - 1)
    return open_chain(builder)  # type: ignore[no-any-return]


def _fresh(chain: td.Chain) -> td.Chain:
    store = gallery.MemoryStore(chain.store.objects)  # type: ignore[attr-defined]
    opened = td.open(store)  # type: ignore[arg-type]
    opened.store = store  # type: ignore[attr-defined]
    return opened


@pytest.mark.parametrize("show", [repr, td.Chain._repr_html_])
def test_a_long_chain_is_shown_without_reading_it(long: td.Chain, show: Callable[[td.Chain], str]) -> None:
    chain = _fresh(long)
    shown = show(chain)
    manifests = [name for name in chain.store.reads if name.startswith("manifests/")]  # type: ignore[attr-defined]
    assert len(manifests) <= 21 and len(shown) < 10_000
    assert "… 280 more" in shown and "300 in all" in shown


def test_the_ends_are_those_of_the_log(long: td.Chain) -> None:
    lines, log = repr(long).splitlines(), repr(long.log()).splitlines()
    assert len(lines) == len(log) == 24
    assert [line.split() for line in lines[2:-1]] == [line.split() for line in log[2:-1]]
    size = sum(map(len, long.store.objects.values()))  # type: ignore[attr-defined]
    assert td.tables.bytes_text(size) in lines[-1]


def test_where_nothing_is_listed_the_newest_are_shown(long: td.Chain, tmp_path: Path) -> None:
    """As behind `https://`, where the way to older versions leads over all newer ones."""
    chain = _fresh(long)
    store = chain.store  # type: ignore[attr-defined]
    hint = {"tensordelta": chain.manifest(0).tensordelta, "chain": chain.id, "version": 299}
    store.objects = {**store.objects, "latest.json": gallery.dumps(hint)}
    store.reads.clear()
    store.lists = False
    shown = repr(chain)
    assert len([name for name in store.reads if name.startswith("manifests/")]) <= 21
    assert "… older ones" in shown and "in all" not in shown and len(shown.splitlines()) == 23
    assert [line.split()[0] for line in shown.splitlines()[3:]] == [str(version) for version in range(280, 300)]


def test_a_short_chain_is_shown_whole(run: td.Chain) -> None:
    assert len(repr(run).splitlines()) == 8 and "more" not in repr(run) and "in all" not in repr(run)


def test_signed_versions_alone_are_shown(tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    key = "11" * 32
    td.open(tmp_path, create=True, key=key).publish({"w": np.arange(3)}, annotations={"note": "mine"})
    td.open(tmp_path).publish({"w": np.arange(1, 4)}, annotations={"note": "foreign"})
    assert "mine" in repr(td.open(tmp_path, key=key)) and "foreign" not in repr(td.open(tmp_path, key=key))


def test_many_tensors_end(tmp_path: Path) -> None:
    old = {f"layers.{index}.w": np.zeros(3, np.float32) for index in range(200)}
    new = {name: words + 1 for name, words in old.items()} | {"head": np.zeros(2, np.float32)}
    del new["layers.7.w"]
    found = td.diff(old, new)
    shown = repr(found)
    assert "… 179 more" in shown and "head" in shown and "layers.7.w" in shown and "total" in shown
    assert len(shown.splitlines()) < 30 and len(found.facts()["tensors"]) == 201  # type: ignore[arg-type]
    assert len(repr(td.diff(old, old)).splitlines()) == 3
    state = td.State.from_arrays(old)
    assert "… 180 more" in state._repr_html_()
    chain = td.open(tmp_path, create=True)
    chain.publish(old)
    assert "… 180 more" in chain[0]._repr_html_()
    chain.publish(old)
    assert "… 180 more" in repr(chain.stats())


def test_patches_and_updates_are_short(run: td.Chain) -> None:
    state = run.load(0)
    update = run.prepare(state)
    assert len(repr(update)) < 200 and repr(update).startswith("Update(")
    patch = next(update.patches())
    assert repr(patch) == f"Patch('embed', BF16 [40, 50], {len(patch.indices)} words)"
