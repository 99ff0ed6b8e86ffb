"""Which version a state counts as, and what follows where it is none."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import gallery
import numpy as np
import pytest
from gallery import Builder, arrays_of, as_state, assert_arrays, good_chain, open_chain

import tensordelta as td
from tensordelta.read.prepare import Preparation
from tensordelta.read.routes import Edge


def chain_that_stands_still() -> Builder:
    """Versions 0, 1 and 2 are one state; 3 is another, from 2."""
    rng = gallery.Random(1)
    builder = Builder()
    model = gallery.small(rng)
    builder.full(0, model)
    builder.delta(1, model, 0)
    builder.delta(2, model, 1)
    builder.delta(3, gallery.stepped(rng, model), 2)
    return builder


def test_another_number_of_the_same_state_is_no_other_base() -> None:
    builder = chain_that_stands_still()
    chain = open_chain(builder)
    state = chain.load(0)
    for name in (gallery.manifest_name(0), gallery.manifest_name(1), builder.pack_names(0)[0]):
        chain.store.objects.pop(name)
    again = td.open(chain.store, threads=1)  # no memory of the manifests that are gone
    update = again.prepare(state, 3)
    assert update.route == (gallery.manifest_name(3),)
    update.apply()
    assert state.equals(as_state(builder.models[3])) and state.version == 3


def test_arrays_are_known_by_their_words() -> None:
    builder = chain_that_stands_still()
    chain = open_chain(builder)
    arrays = arrays_of(builder.models[0])
    update = chain.prepare(arrays, 3)
    assert update.route == (gallery.manifest_name(3),)
    update.apply()
    assert_arrays(arrays, builder.models[3])


def test_a_held_version_whose_manifest_is_gone_is_still_a_base() -> None:
    builder = good_chain("shortcuts")
    for known in (True, False):
        chain = open_chain(builder)
        state = chain.load(4) if known else as_state(builder.models[4])
        for name in (gallery.manifest_name(4), gallery.shortcut_name(4, None), gallery.shortcut_name(4, None, "b")):
            chain.store.objects.pop(name)
        again = td.open(chain.store, threads=1)
        update = again.prepare(state, 5)
        assert len(update.route) == 1 and "000000000005" in update.route[0]
        update.apply()
        assert state.equals(as_state(builder.models[5]))


def test_a_base_known_from_a_shortcut_alone() -> None:
    """The held version's manifest is gone, and no manifest names it any more."""
    builder = good_chain("shortcuts")
    chain = open_chain(builder)
    chain.store.objects.pop(gallery.manifest_name(2))
    chain.store.objects.pop(gallery.manifest_name(3))
    state = as_state(builder.models[2])
    update = td.open(chain.store, threads=1).prepare(state, 6)
    assert update.route == (gallery.shortcut_name(6, 2),)
    update.apply()
    assert state.equals(as_state(builder.models[6]))


def test_the_target_held_already_takes_no_edge() -> None:
    builder = chain_that_stands_still()
    chain = open_chain(builder)
    for state in (chain.load(0), chain.load(2), as_state(builder.models[1])):
        chain.store.reads.clear()
        update = chain.prepare(state, 1)
        assert (update.route, update.size, update.changed, list(update.patches())) == ((), 0, 0, [])
        assert not any(name.startswith("packs/") for name in chain.store.reads)
        update.apply()
        assert state.version == 1 and state.equals(as_state(builder.models[1]))


def test_a_state_of_no_version_is_made_anew() -> None:
    """Section 10: a route starts from what is held, or from nothing; no edge starts from such a state."""
    builder = good_chain("packs")
    chain = open_chain(builder)
    model = gallery.stepped(gallery.Random(5), builder.models[0])
    state, arrays = as_state(model), arrays_of(model)
    for each in (state, arrays):
        update = chain.prepare(each, 1)
        assert update.route == (gallery.manifest_name(0), gallery.manifest_name(1))
        update.apply()
    assert state.equals(as_state(builder.models[1]))
    assert_arrays(arrays, builder.models[1])


def test_a_state_that_is_not_the_version_it_remembers_is_refused() -> None:
    builder = good_chain("packs")
    state = as_state(gallery.stepped(gallery.Random(5), builder.models[0]))
    state.sums()
    state.version, state.chain = 0, gallery.CHAIN
    before = state.copy()
    with pytest.raises(td.WrongBaseError) as caught:
        open_chain(builder).prepare(state, 1)
    assert caught.value.rule == "TD-RDR-003"
    assert state.equals(before)


def test_a_state_changed_behind_the_back_is_no_base() -> None:
    """Arrays are scanned whenever it matters; a lane that changed in memory shows, and no delta is put on it."""
    builder = good_chain("packs")
    chain = open_chain(builder)
    arrays = arrays_of(builder.models[0])
    assert chain.prepare(arrays, 1).route == (gallery.manifest_name(1),)
    arrays["layers.0.b"].view(np.uint32)[3] += 1
    update = chain.prepare(arrays, 1)
    assert update.route == (gallery.manifest_name(0), gallery.manifest_name(1))
    update.apply()
    assert_arrays(arrays, builder.models[1])


def test_the_same_words_under_another_layout_are_another_state() -> None:
    builder = good_chain("packs")
    chain = open_chain(builder)
    model = dict(builder.models[0])
    each = model["layers.0.w"]
    model["layers.0.w"] = gallery.Tensor(each.dtype, each.shape[::-1], each.words)
    assert gallery.fingerprint(model) == gallery.fingerprint(builder.models[0])
    state = as_state(model)
    update = chain.prepare(state, 1)
    assert update.route == (gallery.manifest_name(0), gallery.manifest_name(1))
    update.apply()
    assert state.equals(as_state(builder.models[1]))


def test_a_base_is_its_layout_and_not_its_number() -> None:
    """A state said to be version 0, of the same words in another shape; version 0's manifest cannot tell any more."""
    builder = good_chain("packs")
    model = dict(builder.models[0])
    each = model["layers.0.w"]
    model["layers.0.w"] = gallery.Tensor(each.dtype, each.shape[::-1], each.words)
    state = as_state(model)
    state.sums()
    state.version, state.chain = 0, gallery.CHAIN
    chain = open_chain(builder)
    chain.store.objects.pop(gallery.manifest_name(0))
    with pytest.raises(td.WrongBaseError) as caught:
        td.open(chain.store, threads=1).prepare(state, 1)
    assert caught.value.rule == "TD-RDR-004"


def test_one_member_is_checked_against_what_is_held() -> None:
    builder = good_chain("packs")
    chain = open_chain(builder)
    edge = Edge(gallery.manifest_name(1), chain.manifest(1))
    state = as_state(gallery.stepped(gallery.Random(5), builder.models[0]))
    with pytest.raises(td.WrongBaseError) as caught:
        chain._reader.prepare_edge(state, edge)
    assert caught.value.rule == "TD-RDR-003"
    state = as_state(builder.models[0])
    chain._reader.prepare_edge(state, edge).apply()
    assert state.equals(as_state(builder.models[1]))


def test_a_version_of_the_same_number_in_a_copy_that_went_its_own_way(tmp_path: Path) -> None:
    """Two copies of a chain share its id; what one has under a number is not what the other has there."""
    chain = td.open(tmp_path / "chain", create=True)
    chain.publish({"w": np.zeros(4, np.float32)})
    shutil.copytree(tmp_path / "chain", tmp_path / "copy")
    copy = td.open(tmp_path / "copy")
    chain.publish({"w": np.full(4, 1, np.float32)})
    copy.publish({"w": np.full(4, 2, np.float32)})
    state = chain.load(1)
    update = copy.prepare(state, 1)
    assert update.route == ("manifests/000000000000.json", "manifests/000000000001.json")
    update.apply()
    assert state["w"].tolist() == [2, 2, 2, 2]


def test_a_state_that_was_elsewhere_while_it_was_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another update is applied and taken back during a prepare: nothing is made of the words of that moment."""
    rng = np.random.default_rng(3)
    chain = td.open(tmp_path / "chain", create=True, threads=1)
    words = rng.integers(0, 9, 4_000, np.uint16)
    for step in range(4):
        words = words.copy()
        words[step::8] += np.uint16(1)
        chain.publish({"w": words})
    state = chain.load(0).copy()
    state.version, state.chain = 0, chain.id
    away = chain.prepare(state, 3)
    copy = Preparation._copy

    def while_away(*arguments: Any, **options: Any) -> None:
        away.apply()
        copy(*arguments, **options)
        away.undo()

    monkeypatch.setattr(Preparation, "_copy", while_away)
    with pytest.raises(td.WrongBaseError):
        chain.prepare(state, 2)
    monkeypatch.undo()
    chain.prepare(state, 2).apply()
    assert state.equals(chain.load(2))
