"""Differences between versions say what a comparison of both states says, and read less."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import gallery
import numpy as np
import pytest
from gallery import GOOD, Builder, Good, good_chain, open_chain
from runs import publish_run

import tensordelta as td


def _facts(diff: td.Diff) -> list[tuple[Any, ...]]:
    return [(each.name, each.dtype, each.shape, each.words, each.changed, each.status) for each in diff.tensors]


def _by_name(diff: td.Diff) -> list[tuple[Any, ...]]:
    return sorted(_facts(diff))


@pytest.mark.parametrize("good", GOOD, ids=lambda good: good.name)
def test_versions_differ_as_their_states_do(good: Good) -> None:
    """Chains of every order, codec, layout change and kind of pack; forwards, backwards, over gaps."""
    builder = good.builder
    chain = open_chain(builder)
    states = {version: gallery.as_state(builder.models[version]) for version in chain.versions()}
    pairs = list(itertools.permutations(states, 2))
    for old, new in pairs[:: max(1, len(pairs) // 12)]:
        found, wanted = chain.diff(old, new), td.diff(states[old], states[new])
        assert _by_name(found) == _by_name(wanted), (old, new)
        assert (found.changed, found.words, found.nbytes) == (wanted.changed, wanted.words, wanted.nbytes)


@pytest.mark.parametrize("order", ["natural", "exponent"])
def test_orders_are_alike(tmp_path: Path, order: str) -> None:
    chain = publish_run(tmp_path / "run", order=order)
    states = {version: chain.load(version) for version in chain.versions()}
    for old, new in itertools.permutations(states, 2):
        assert _facts(chain.diff(old, new)) == _facts(td.diff(states[old], states[new])), (old, new)


def test_the_most_changed_tensor_is_first_then_names_as_people_count(run: td.Chain) -> None:
    assert [each.name for each in run.diff(0, 1).tensors] == ["layers.10.w", "layers.2.w", "embed"]
    run.publish(run.load())
    assert [each.name for each in run.diff(-2).tensors] == ["embed", "layers.2.w", "layers.10.w"]
    assert run.diff(0, 1)["embed"].changed == 5 and run.diff(-2, -1).changed == 0
    with pytest.raises(KeyError):
        run.diff(0, 1)["head"]


def test_adjacent_versions_take_the_delta_between_them_alone() -> None:
    builder = good_chain("shortcuts")
    chain = open_chain(builder)
    chain.diff(3, 4)
    packs = {name for name in chain.store.reads if name.startswith("packs/")}
    assert packs == set(builder.pack_names(4))


def test_versions_some_steps_apart_take_no_full_version(run: td.Chain) -> None:
    store = gallery.MemoryStore({name: run._reader.store.read(name) for name in run._reader.store.names("")})
    chain = td.open(store)  # type: ignore[arg-type]
    full = {pack.path for pack in chain.manifest(0).packs}
    assert chain.diff(1, 5).changed > 0
    assert not full & set(store.reads)


def test_words_that_change_back_do_not_differ(tmp_path: Path) -> None:
    chain = td.open(tmp_path / "run", create=True)
    words = np.zeros(1000, np.float32)
    for there in (0, 1, 0, 2):
        words[7] = there
        chain.publish({"w": words})
    assert chain.diff(0, 2).changed == 0 and chain.diff(0, 3).changed == chain.diff(1, 2).changed == 1


def test_the_size_is_that_of_the_delta_between(run: td.Chain) -> None:
    assert run.diff(2, 3).size == run.manifest(3).size
    assert run.diff(1, 3).size is None and run.diff(3, 2).size is None
    assert run.diff(1, 3).ratio == 0.0 and "as a delta" not in repr(run.diff(1, 3))
    assert run.diff(1, 3).facts()["size"] is None


def test_a_damaged_delta_is_an_error_and_a_damaged_shortcut_none() -> None:
    builder = good_chain("shortcuts")
    chain = open_chain(builder)
    wanted = chain.diff(3, 4).changed
    (name, *_) = builder.pack_names(4)
    damaged = open_chain(builder)
    data = bytearray(damaged.store.objects[name])
    data[-1] ^= 1
    damaged.store.objects[name] = bytes(data)
    try:
        assert damaged.diff(3, 4).changed == wanted  # by another route
    except td.IntegrityError as fault:
        assert name in fault.object
    with pytest.raises(td.MissingError):
        chain.diff(3, 99)


# -- versions and something else ---------------------------------------------------------------------------------------


def test_versions_of_two_chains(tmp_path: Path) -> None:
    one, two = publish_run(tmp_path / "one"), publish_run(tmp_path / "two", order="exponent")
    assert td.diff(one[2], two[2]).changed == 0
    wanted = td.diff(one.load(2), two.load(5))
    found = td.diff(one[2], two[5])
    assert _facts(found) == _facts(wanted)
    assert found.old == f"version 2 of {one.address}" and found.new == f"version 5 of {two.address}"


def test_a_version_and_a_folder_read_only_tensors_that_differ(tmp_path: Path, run: td.Chain) -> None:
    run.load(3).save(tmp_path / "own.safetensors")
    store = gallery.MemoryStore({name: run._reader.store.read(name) for name in run._reader.store.names("")})
    chain = td.open(store)  # type: ignore[arg-type]
    assert td.diff(chain[3], tmp_path / "own.safetensors").changed == 0
    assert not [name for name in store.reads if name.startswith("packs/")]
    arrays = dict(run.load(3))
    arrays["embed"] = arrays["embed"] * 2
    arrays["more"] = np.ones(3, np.float32)
    del arrays["layers.2.w"]
    assert _facts(td.diff(chain[3], arrays)) == _facts(td.diff(run.load(3), arrays))
    assert _facts(td.diff(arrays, chain[3])) == _facts(td.diff(arrays, run.load(3)))


def test_a_version_that_names_no_fingerprints_is_loaded() -> None:
    rng = gallery.Random(3)
    model = gallery.small(rng)
    builder = Builder()
    builder.full(0, model, fingerprints=False)
    chain = open_chain(builder)
    assert td.diff(chain[0], gallery.as_state(model)).changed == 0
