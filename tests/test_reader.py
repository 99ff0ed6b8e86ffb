"""Reading good chains: every version bit for bit, from nothing and from every other, in a state and in arrays."""

from __future__ import annotations

import itertools
import logging
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import gallery
import numpy as np
import pytest
from gallery import GOOD, Builder, Good, Model, as_state, good_chain, open_chain

import tensordelta as td
from tensordelta.read import packs
from tensordelta.read.prepare import Preparation
from tensordelta.read.routes import Edge
from tensordelta.state.state import State
from tensordelta.state.update import Update

EACH = pytest.mark.parametrize("chain", GOOD, ids=lambda each: each.name)


def frozen(model: Model) -> State:
    return as_state(model)


def arrays_of(model: Model) -> dict[str, np.ndarray]:
    """Arrays of one's own with the words of a state, in an order that is not the layout's."""
    state = as_state(model)
    return {name: state[name].copy() for name in reversed(list(state))}


def assert_arrays(arrays: dict[str, np.ndarray], model: Model) -> None:
    state = as_state(model)
    assert set(arrays) == set(state)
    for name, array in arrays.items():
        assert array.dtype == state[name].dtype and array.shape == state[name].shape, name
        assert array.tobytes() == state[name].tobytes(), name


# -- every version of every chain -----------------------------------------------------------------------------------


@EACH
def test_every_version_loads_bit_for_bit(chain: Good) -> None:
    for version, model in chain.builder.models.items():
        state = open_chain(chain.builder).load(version)
        assert state.equals(frozen(model)), version
        assert state.fingerprint() == gallery.fingerprint(model) == gallery.fingerprint(as_model(state))
        assert (state.version, state.chain) == (version, gallery.CHAIN)


def as_model(state: State) -> Model:
    return {
        tensor.name: gallery.Tensor(tensor.dtype, tensor.shape, state.words(index))
        for index, tensor in enumerate(state.layout.tensors)
    }


@EACH
def test_every_version_is_reached_from_every_older_one(chain: Good) -> None:
    models = chain.builder.models
    opened = open_chain(chain.builder)
    for base in models:
        for target in (each for each in models if each > base):
            state = opened.load(base)
            update = opened.prepare(state, target)
            assert state.equals(frozen(models[base])), "prepare changed the state"
            update.apply()
            assert state.equals(frozen(models[target])), (base, target)
            assert state.version == target
            assert state.fingerprint() == state.fingerprint(scan=True) == gallery.fingerprint(models[target])
            update.undo()
            assert state.equals(frozen(models[base])), (base, target)
            assert state.fingerprint() == state.fingerprint(scan=True) == gallery.fingerprint(models[base])
            assert state.version == base


@EACH
def test_arrays_are_updated_in_place(chain: Good) -> None:
    models = chain.builder.models
    opened = open_chain(chain.builder)
    versions = list(models)
    for base, target in [*itertools.pairwise(versions), (versions[0], versions[-1])]:
        arrays = arrays_of(models[base])
        given = dict(arrays)
        dtypes = {name: each.dtype for name, each in models[base].items() if gallery.DTYPES[each.dtype][0] < 8}
        update = opened.prepare(State.from_arrays(arrays, dtypes=dtypes) if dtypes else arrays, target)
        assert_arrays(arrays, models[base])
        update.apply()
        assert_arrays(arrays, models[target])
        for name in models[base].keys() & models[target].keys():
            if models[base][name].same_place(models[target][name]):
                assert arrays[name] is given[name], "an engine's array was replaced by another"
        update.undo()
        assert_arrays(arrays, models[base])


@pytest.mark.parametrize("name", ["fitting", "plain", "scalars-and-zero-sizes", "empty-state"])
def test_one_mapping_follows_a_chain(name: str) -> None:
    """Arrays that updates added are as good as those that were given; undo brings back the very memory."""
    models = good_chain(name).models
    opened = open_chain(good_chain(name))
    versions = list(models)
    arrays = arrays_of(models[versions[0]])
    for version in versions[1:]:
        given = dict(arrays)
        update = opened.prepare(arrays, version)
        update.apply()
        assert_arrays(arrays, models[version])
        update.undo()
        assert all(np.shares_memory(arrays[each], given[each]) or not given[each].size for each in given)
        update.apply()
        assert_arrays(arrays, models[version])


@pytest.mark.parametrize("name", ["shortcuts", "fitting", "plain", "dtypes"])
def test_older_versions_are_reached_too(name: str) -> None:
    models = good_chain(name).models
    opened = open_chain(good_chain(name))
    for base in models:
        for target in (each for each in models if each < base):
            state = opened.load(base)
            opened.prepare(state, target).apply()
            assert state.equals(frozen(models[target])), (base, target)


@pytest.mark.parametrize("name", ["packs", "plain", "fitting", "sparse-and-long", "reference-encoder-exponent"])
def test_folders_and_threads_make_no_difference(name: str, tmp_path: Path) -> None:
    builder = good_chain(name)
    builder.write(tmp_path / "chain")
    for version, model in builder.models.items():
        assert td.open(tmp_path / "chain", threads=3).load(version).equals(frozen(model))


@pytest.mark.parametrize("name", ["packs", "plain", "frames"])
def test_packs_too_large_for_memory_are_read_block_by_block(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "KEPT", 0)
    monkeypatch.setattr(packs, "_BLOCK", 64)
    for version, model in good_chain(name).models.items():
        assert open_chain(good_chain(name)).load(version).equals(frozen(model))


def test_a_pack_that_changes_after_it_was_proven_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "KEPT", 0)
    builder = good_chain("packs")
    chain = open_chain(builder)
    first = builder.pack_names(0)[0]
    opened: list[str] = []
    real = chain.store.open

    def swapped(name: str) -> gallery.MemoryBlob:
        opened.append(name)
        if opened.count(first) == 2:  # once to prove it
            chain.store.objects[first] = gallery.flipped(-1)(chain.store.objects[first])
        return real(name)

    monkeypatch.setattr(chain.store, "open", swapped)
    with pytest.raises(td.IntegrityError) as caught:
        chain.load(0)
    assert caught.value.rule == "TD-SEC-002"
    assert opened.count(first) >= 2


def test_the_newest_version_is_the_default() -> None:
    chain = open_chain(good_chain("empty-deltas-and-gaps"))
    assert chain.versions() == [3, 4, 1000, 1001, 999_999_999_999]
    assert chain.newest == 999_999_999_999
    assert chain.load().equals(frozen(good_chain("empty-deltas-and-gaps").models[3]))
    assert chain.load().version == chain.newest


def test_names_that_are_no_objects_are_passed_over() -> None:
    chain = open_chain(good_chain("listing"))
    assert chain.versions() == [0, 1]
    assert chain.newest == 1


def test_a_chain_id_can_be_pinned() -> None:
    builder = good_chain("packs")
    assert open_chain(builder, chain=gallery.CHAIN).id == gallery.CHAIN
    with pytest.raises(td.ConflictError) as caught:
        open_chain(builder, chain=gallery.FOREIGN)
    assert caught.value.rule == "TD-OBJ-010"


# -- what a state is taken for --------------------------------------------------------------------------------------


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
    assert state.equals(frozen(builder.models[3])) and state.version == 3


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
        assert state.equals(frozen(builder.models[5]))


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
    assert state.equals(frozen(builder.models[6]))


def test_the_target_held_already_takes_no_edge() -> None:
    builder = chain_that_stands_still()
    chain = open_chain(builder)
    for state in (chain.load(0), chain.load(2), as_state(builder.models[1])):
        chain.store.reads.clear()
        update = chain.prepare(state, 1)
        assert (update.route, update.size, update.changed, list(update.patches())) == ((), 0, 0, [])
        assert not any(name.startswith("packs/") for name in chain.store.reads)
        update.apply()
        assert state.version == 1 and state.equals(frozen(builder.models[1]))


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
    assert state.equals(frozen(builder.models[1]))
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
    assert state.equals(frozen(builder.models[1]))


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
    assert state.equals(frozen(builder.models[1]))


# -- arrays that cannot be written to -------------------------------------------------------------------------------


def test_a_read_only_array_is_found_before_anything_is_written() -> None:
    builder = good_chain("packs")
    chain = open_chain(builder)
    for name in builder.models[0]:
        arrays = arrays_of(builder.models[0])
        arrays[name].flags.writeable = False
        update = chain.prepare(arrays, 1)
        with pytest.raises(ValueError, match=name) as caught:
            update.apply()
        assert not isinstance(caught.value, td.TensorDeltaError)
        assert_arrays(arrays, builder.models[0])
        arrays[name].flags.writeable = True
        chain.prepare(arrays, 1).apply()
        assert_arrays(arrays, builder.models[1])


def test_a_read_only_array_that_stays_as_it_is_does_no_harm() -> None:
    rng = gallery.Random(1)
    builder = Builder()
    model = gallery.small(rng)
    builder.full(0, model)
    builder.delta(1, gallery.stepped(rng, model, 0.1, ["a.weight"]), 0)
    arrays = arrays_of(model)
    arrays["c.ids"].flags.writeable = False
    open_chain(builder).prepare(arrays, 1).apply()
    assert_arrays(arrays, builder.models[1])


@pytest.mark.parametrize(
    "spoil",
    [
        np.asfortranarray,
        lambda array: np.repeat(array, 2, axis=1)[:, ::2],
        lambda array: array[::-1].copy()[::-1],
        lambda array: array.astype(array.dtype.newbyteorder(">")),
        lambda array: array.tolist(),
    ],
    ids=["fortran", "strided", "reversed", "big-endian", "list"],
)
def test_arrays_that_would_be_copied_are_refused(spoil: Callable[[np.ndarray], object]) -> None:
    """An update of a copy would leave the engine's own array as it was, and say that all is well."""
    builder = Builder()
    model: Model = {"w": gallery.random_tensor(gallery.Random(1), "I64", (4, 6))}
    builder.full(0, model)
    builder.delta(1, gallery.stepped(gallery.Random(2), model), 0)
    arrays = arrays_of(model)
    arrays["w"] = spoil(arrays["w"])  # type: ignore[assignment]
    with pytest.raises(ValueError, match="w"):
        open_chain(builder).prepare(arrays, 1)


def test_a_mapping_that_cannot_take_tensors_still_has_its_arrays_updated() -> None:
    from types import MappingProxyType

    builder = good_chain("packs")
    arrays = arrays_of(builder.models[0])
    open_chain(builder).prepare(MappingProxyType(arrays), 1).apply()
    assert_arrays(arrays, builder.models[1])


# -- updates --------------------------------------------------------------------------------------------------------


def prepared(name: str, base: int, target: int) -> tuple[State, Update, Builder]:
    builder = good_chain(name)
    chain = open_chain(builder)
    state = chain.load(base)
    return state, chain.prepare(state, target), builder


@EACH
def test_patches_are_all_that_changes(chain: Good) -> None:
    """Writing the patches over the fitted base gives the new state, before apply and after it."""
    models = chain.builder.models
    versions = list(models)
    opened = open_chain(chain.builder)
    for base, target in [*itertools.pairwise(versions), (versions[0], versions[-1])]:
        state = opened.load(base)
        update = opened.prepare(state, target)
        before = list(update.patches())
        update.apply()
        for patches in (before, list(update.patches())):
            result = gallery.fit(models[base], models[target])
            for patch in patches:
                model = models[target][patch.name]
                assert (patch.dtype, patch.shape) == (model.dtype, model.shape)
                assert patch.indices.dtype == np.int64 and patch.values.dtype == array_dtype(model)
                assert patch.indices.flags.c_contiguous and patch.values.flags.c_contiguous
                assert patch.indices.ndim == patch.values.ndim == 1 and len(patch.indices) == len(patch.values)
                assert (np.diff(patch.indices) > 0).all()
                words = result[patch.name].words.copy()
                words[patch.indices] = patch.values.view(words.dtype)
                result[patch.name] = gallery.Tensor(model.dtype, model.shape, words)
            assert as_state(result).equals(frozen(models[target])), (base, target)
            assert [patch.name for patch in patches] == gallery.ordered(patch.name for patch in patches)
        assert set(update.dropped) == models[base].keys() - models[target].keys()


def array_dtype(tensor: gallery.Tensor) -> np.dtype:
    from tensordelta.codecs.words import DTYPES

    return DTYPES[tensor.dtype].array


def test_what_an_update_says_of_itself() -> None:
    state, update, builder = prepared("packs", 0, 1)
    listed = sum(entry["changed"] for entry in builder.manifests[1]["packs"])
    assert (update.version, update.base) == (1, 0)
    assert update.size == sum(entry["size"] for entry in builder.manifests[1]["packs"])
    assert update.route == (gallery.manifest_name(1),)
    assert update.changed == listed == sum(len(patch.indices) for patch in update.patches())
    assert update.memory >= sum(patch.indices.nbytes + 2 * patch.values.nbytes for patch in update.patches())
    assert update.dropped == ()
    assert update.fingerprint == builder.manifests[1]["fingerprint"]
    assert "version 1" in repr(update) and "applied" not in repr(update)
    update.apply()
    assert "applied" in repr(update)
    assert state.version == 1


def test_an_update_is_for_the_state_that_it_was_made_for() -> None:
    """Once another update was applied, a prepared one is stale; it says so and writes nothing."""
    state, stale, builder = prepared("shortcuts", 1, 3)
    chain = open_chain(builder)
    chain.prepare(state, 2).apply()
    with pytest.raises(td.WrongBaseError) as caught:
        stale.apply()
    assert caught.value.rule == "TD-APP-001"
    assert state.equals(frozen(builder.models[2]))


def test_an_update_is_applied_once() -> None:
    state, update, builder = prepared("shortcuts", 1, 3)
    update.apply()
    with pytest.raises(td.WrongBaseError):
        update.apply()
    assert state.equals(frozen(builder.models[3]))
    update.undo()
    with pytest.raises(td.WrongBaseError):
        update.undo()
    assert state.equals(frozen(builder.models[1]))
    update.apply()  # and again, after undo
    assert state.equals(frozen(builder.models[3]))


@pytest.mark.parametrize("name", ["shortcuts", "fitting", "plain"])
def test_updates_are_undone_in_reverse(name: str) -> None:
    builder = good_chain(name)
    chain = open_chain(builder)
    versions = list(builder.models)
    state = chain.load(versions[0])
    done = []
    for version in versions[1:]:
        done.append(chain.prepare(state, version))
        done[-1].apply()
    with pytest.raises(td.WrongBaseError) as caught:
        done[0].undo()
    assert caught.value.rule == "TD-APP-001"
    with pytest.raises(td.WrongBaseError):
        list(done[0].patches())  # its words are partly those of later updates now
    assert state.equals(frozen(builder.models[versions[-1]]))
    for version, update in zip(reversed(versions[:-1]), reversed(done), strict=True):
        update.undo()
        assert state.equals(frozen(builder.models[version])), version


def test_prepared_updates_do_not_see_each_other() -> None:
    """Two updates prepared from one state: the first applied leaves the second as it was made."""
    builder = good_chain("plain")
    chain = open_chain(builder)
    state = chain.load(0)
    one, two = chain.prepare(state, 1), chain.prepare(state, 3)
    one.apply()
    with pytest.raises(td.WrongBaseError):
        two.apply()
    one.undo()
    two.apply()  # the words are again those that it was made for
    assert state.equals(frozen(builder.models[3]))
    with pytest.raises(td.WrongBaseError):
        one.undo()
    with pytest.raises(td.WrongBaseError):
        one.apply()
    two.undo()
    assert state.equals(frozen(builder.models[0]))
    one.apply()
    assert state.equals(frozen(builder.models[1]))


def test_a_full_version_writes_into_the_arrays_that_are_there() -> None:
    """A route from nothing costs no engine its arrays."""
    builder = good_chain("shared-objects")
    chain = open_chain(builder)
    arrays = arrays_of(builder.models[1])
    given = dict(arrays)
    for name in builder.pack_names(1):
        chain.store.objects.pop(name)
    update = chain.prepare(arrays, 4)
    assert update.route == (gallery.manifest_name(4),)
    update.apply()
    assert_arrays(arrays, builder.models[4])
    assert all(arrays[name] is given[name] for name in arrays)
    update.undo()
    assert_arrays(arrays, builder.models[1])


def test_arrays_of_packed_dtypes() -> None:
    rng = gallery.Random(1)
    builder = Builder()
    model: Model = {
        "f4": gallery.random_tensor(rng, "F4", (3, 8)),
        "f6": gallery.random_tensor(rng, "F6_E2M3", (5, 4)),
        "u8": gallery.random_tensor(rng, "U8", (6,)),
    }
    builder.full(0, model)
    builder.delta(1, gallery.stepped(rng, model, 0.5), 0)
    arrays = {"f4": model["f4"].words.reshape(3, 4).copy(), "f6": model["f6"].words.reshape(5, 3).copy()}
    arrays["u8"] = model["u8"].words.copy()
    state = State.from_arrays(arrays, dtypes={"f4": "F4", "f6": "F6_E2M3"})
    open_chain(builder).prepare(state, 1).apply()
    after = builder.models[1]
    assert all(arrays[name].tobytes() == after[name].words.tobytes() for name in arrays)
    assert arrays["f4"].shape == (3, 4)


# -- one tensor -----------------------------------------------------------------------------------------------------


@EACH
def test_every_tensor_can_be_read_alone(chain: Good) -> None:
    opened = open_chain(chain.builder)
    for version, model in list(chain.builder.models.items())[-3:]:
        state = as_state(model)
        for name in list(model)[:8]:
            array = opened.read(version, name)
            assert array.dtype == state[name].dtype and array.shape == state[name].shape
            assert array.tobytes() == state[name].tobytes(), (version, name)


def chain_of_one_pack_a_tensor() -> Builder:
    rng = gallery.Random(3)
    builder = Builder()
    model: Model = {name: gallery.weights(rng, (30, 10)) for name in "abc"}
    layout = builder.layout(model)
    for version in range(3):
        before = builder.models.get(version - 1, {})
        chunks = gallery.delta_chunks(before, model) if version else gallery.full_chunks(model)
        packs = [gallery.of_chunks([each], layout) for each in chunks]
        builder.edge(version, model, packs, base=version - 1 if version else None)
        model = gallery.stepped(rng, model)
    return builder


def test_one_tensor_costs_its_own_packs() -> None:
    builder = chain_of_one_pack_a_tensor()
    chain = open_chain(builder)
    assert chain.read(2, "b").tobytes() == builder.models[2]["b"].words.tobytes()
    wanted = {builder.pack_names(version)[1] for version in range(3)}
    assert {name for name in chain.store.reads if name.startswith("packs/")} == wanted


def test_one_tensor_is_proven_by_its_own_fingerprint() -> None:
    """A pack that makes other words than the version has, under a chunk fingerprint and digest of its own."""
    builder = chain_of_one_pack_a_tensor()
    other = {**builder.models[2], "b": gallery.changed(gallery.Random(9), builder.models[2]["b"])}
    wrong = gallery.chunk_for(builder.models[1], other, "b")
    entries = [dict(entry) for entry in builder.manifests[2]["packs"]]
    entries[1] = builder.store(gallery.of_chunks([wrong], builder.manifests[2]["layout"]))
    builder.put(gallery.manifest_name(2), gallery.dumps({**builder.manifests[2], "packs": entries}))
    chain = open_chain(builder)
    with pytest.raises(td.IntegrityError) as caught:
        chain.read(2, "b")
    assert caught.value.rule == "TD-RDR-012"
    assert chain.read(2, "a").tobytes() == builder.models[2]["a"].words.tobytes()
    with pytest.raises(td.IntegrityError):
        chain.load(2)


def test_one_tensor_without_fingerprints_costs_the_whole_version() -> None:
    builder = good_chain("no-tensor-fingerprints")
    chain = open_chain(builder)
    assert chain.read(3, "c.ids").tobytes() == builder.models[3]["c.ids"].words.tobytes()


def test_one_tensor_is_found_past_a_lost_pack_and_without_fingerprints() -> None:
    """The cheapest route has lost its pack, the other cannot prove a part: the whole version still can be had."""
    builder = Builder()
    rng = gallery.Random(4)
    model = gallery.small(rng)
    builder.full(0, model, fingerprints=False)
    after = gallery.stepped(rng, model, 0.02)
    builder.delta(1, after, 0)
    lost = builder.full(1, after, shortcut="")["packs"][0]
    objects = dict(builder.objects)
    builder.objects.pop(builder.pack_names(1)[0])
    assert open_chain(builder).read(1, "a.weight").tobytes() == after["a.weight"].words.tobytes()
    builder.objects = objects
    builder.objects.pop(lost["path"])
    assert open_chain(builder).read(1, "a.weight").tobytes() == after["a.weight"].words.tobytes()


def test_the_versions_own_manifest_proves_what_a_shortcut_made() -> None:
    """A shortcut that names no fingerprints object is proven by the manifest's."""
    builder = chain_of_one_pack_a_tensor()
    packs = [
        gallery.of_chunks([each], builder.layout(builder.models[2])) for each in gallery.full_chunks(builder.models[2])
    ]
    builder.edge(2, builder.models[2], packs, shortcut="", fingerprints=False)
    for version in (0, 1):
        builder.remove(gallery.manifest_name(version))
    chain = open_chain(builder)
    assert chain.read(2, "c").tobytes() == builder.models[2]["c"].words.tobytes()
    assert len({name for name in chain.store.reads if name.startswith("packs/")}) == 1


def test_a_tensor_that_there_is_not() -> None:
    with pytest.raises(td.MissingError):
        open_chain(good_chain("packs")).read(0, "nothing")


def test_reading_one_tensor_keeps_to_the_budget() -> None:
    builder = Builder()
    builder.full(0, {"w": gallery.tensor("U8", (1,), 1)})
    layout = builder.layout(
        {}, hook=lambda document: document["tensors"].append({"name": "huge", "dtype": "F64", "shape": [2**48]})
    )
    fingerprints = bytes(8)
    builder.put(f"fingerprints/{gallery.digest(fingerprints)}.bin", fingerprints)
    builder.edge(1, {}, [], layout=layout, tensor_fingerprints=gallery.digest(fingerprints))
    with pytest.raises(td.LimitError):
        open_chain(builder).read(1, "huge")


# -- places of packs ------------------------------------------------------------------------------------------------


def test_a_pack_without_a_path_comes_from_a_folder_of_the_users(tmp_path: Path) -> None:
    rng = gallery.Random(8)
    builder = Builder()
    model = gallery.small(rng)
    source = {"path": None, "sources": ["hf://org/model@0123abcd/model.safetensors"], "name": "sub/model.safetensors"}
    shard = gallery.of_plain(model, model, stored=False, fields=source)
    builder.edge(0, model, [shard])
    with pytest.raises(td.UntrustedError) as caught:
        open_chain(builder).load(0)
    assert caught.value.rule == "TD-MAN-017"
    with pytest.raises(td.UntrustedError):
        open_chain(builder, allow_sources=["https"]).load(0)
    (tmp_path / "wrong.safetensors").write_bytes(bytes(len(shard.data)))
    with pytest.raises(td.UntrustedError):
        open_chain(builder, pack_folders=[tmp_path]).load(0)
    (tmp_path / "any name").write_bytes(shard.data)
    assert open_chain(builder, pack_folders=[tmp_path / "absent", tmp_path]).load(0).equals(frozen(model))


def test_a_source_without_a_scheme_is_passed_over() -> None:
    builder = Builder()
    model = gallery.small(gallery.Random(8))
    source = {"path": None, "sources": ["hf", "hf:org/model@0123abcd/model.safetensors", "x hf://org/model@0/m"]}
    builder.edge(0, model, [gallery.of_plain(model, model, stored=False, fields=source)])
    with pytest.raises(td.UntrustedError) as caught:
        open_chain(builder, allow_sources=["hf"]).load(0)
    assert caught.value.rule == "TD-MAN-017"


def test_an_allowed_source_that_gives_nothing_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    builder = Builder()
    model = gallery.small(gallery.Random(8))
    source = {"path": None, "sources": ["hf://org/model@0123abcd/model.safetensors", "other://x"]}
    builder.edge(0, model, [gallery.of_plain(model, model, stored=False, fields=source)])
    asked: list[str] = []
    monkeypatch.setattr(packs, "public_file", lambda each, **_: asked.append(each))
    with pytest.raises(td.MissingError) as caught:
        open_chain(builder, allow_sources=["hf"]).load(0)
    assert caught.value.rule == "TD-MAN-018"
    assert asked == ["hf://org/model@0123abcd/model.safetensors"]


def silent(source: str, **_: object) -> None:
    raise td.StoreError(source, "read", "model.safetensors", "no answer")


def test_a_source_that_does_not_answer_is_gone_around(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another route is taken; where there is none, the source's failure is told, and no version is missing."""
    builder = Builder()
    model = gallery.small(gallery.Random(8))
    source = {"path": None, "sources": ["hf://org/model@0123abcd/model.safetensors"]}
    builder.edge(0, model, [gallery.of_plain(model, model, stored=False, fields=source)])
    monkeypatch.setattr(packs, "public_file", silent)
    alone = open_chain(builder, allow_sources=["hf"])
    state = td.State.empty()
    for read in (
        alone.load,
        lambda: alone.prepare(state),
        lambda: alone.read(0, min(model)),
        lambda: alone.load_part([min(model)], 0),
        lambda: alone.verify(deep=True),
    ):
        with pytest.raises(td.StoreError, match="no answer"):
            read()
    builder.edge(0, model, [gallery.of_plain(model, model)], shortcut="")
    assert open_chain(builder, allow_sources=["hf"]).load(0).equals(frozen(model))


def test_a_host_that_is_silent_is_not_asked_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each time may take as long as the client waits, so a few are enough."""
    builder = Builder()
    model = gallery.small(gallery.Random(8))
    source = {"path": None, "sources": ["hf://org/model@0123abcd/model.safetensors"]}
    for tag in (None, *"abcdefgh"):
        builder.edge(0, model, [gallery.of_plain(model, model, stored=False, fields=source)], shortcut=tag)
    asked: list[str] = []

    def download(each: str, **_: object) -> None:
        asked.append(each)
        silent(each)

    monkeypatch.setattr(packs, "public_file", download)
    with pytest.raises(td.StoreError, match="no answer"):
        open_chain(builder, allow_sources=["hf"]).load(0)
    assert len(asked) == 3


def test_bytes_of_a_source_that_are_others_are_told_before_its_silence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    builder = Builder()
    model = gallery.small(gallery.Random(8))
    shard = gallery.of_plain(model, model, stored=False, fields={"path": None, "sources": ["hf://o/m@0a/x"]})
    builder.edge(0, model, [shard])
    file = tmp_path / "downloaded"
    file.write_bytes(gallery.flipped(-1)(shard.data))

    def download(source: str, *, anew: bool) -> Path:
        return silent(source) if anew else file

    monkeypatch.setattr(packs, "public_file", download)
    with pytest.raises(td.IntegrityError):
        open_chain(builder, allow_sources=["hf"]).load(0)


def test_a_source_is_proven_like_any_other_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    builder = Builder()
    model = gallery.small(gallery.Random(8))
    source = {"path": None, "sources": ["hf://org/model@0123abcd/model.safetensors"]}
    shard = gallery.of_plain(model, model, stored=False, fields=source)
    builder.edge(0, model, [shard])
    file = tmp_path / "downloaded"
    monkeypatch.setattr(packs, "public_file", lambda each, **_: file)
    file.write_bytes(gallery.flipped(-1)(shard.data))
    with pytest.raises(td.IntegrityError):
        open_chain(builder, allow_sources=["hf"]).load(0)
    file.write_bytes(shard.data)
    assert open_chain(builder, allow_sources=["hf"]).load(0).equals(frozen(model))


def test_a_damaged_pack_under_the_root_is_made_good_by_another_place(tmp_path: Path) -> None:
    builder = gallery.broken_chain("pack-altered")
    good = gallery.standard()
    path = builder.pack_names(1)[0]
    assert good.pack_names(1)[0] == path
    (tmp_path / Path(path).name).write_bytes(good.get(path))
    assert open_chain(builder, pack_folders=[tmp_path]).load(1).equals(frozen(good.models[1]))


# -- memory ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["packs", "plain", "fitting", "combination-natural-bitmap-replace"])
def test_a_budget_is_a_limit_and_no_crash(name: str) -> None:
    """Whatever the budget, a load either keeps to it by refusing, or succeeds; with enough it succeeds."""
    builder = good_chain(name)
    version = list(builder.models)[1]
    outcomes = []
    for memory in (0, 1000, 10_000, 10_000_000):
        try:
            state = open_chain(builder, memory=memory).load(version)
            assert state.equals(frozen(builder.models[version]))
            outcomes.append(True)
        except td.LimitError as error:
            assert error.rule == "TD-LIM-002"
            outcomes.append(False)
    assert outcomes[0] is False and outcomes[-1] is True
    assert outcomes == sorted(outcomes)


def test_a_budget_leaves_the_held_state_alone() -> None:
    builder = good_chain("packs")
    state = open_chain(builder).load(0)
    with pytest.raises(td.LimitError):
        open_chain(builder, memory=100).prepare(state, 1)
    assert state.equals(frozen(builder.models[0])) and state.version == 0


# -- following ------------------------------------------------------------------------------------------------------


def test_versions_are_found_by_annotations() -> None:
    rng = gallery.Random(1)
    builder = Builder()
    model = gallery.small(rng)
    builder.full(0, model, annotations={"step": "10", "run": "a"})
    builder.delta(1, model, 0, annotations={"step": "20", "run": "a"})
    builder.delta(2, model, 1, annotations={"step": "20", "run": "b"})
    builder.delta(3, model, 2)
    chain = open_chain(builder)
    assert chain.at(step=20) == 2
    assert chain.at(step="20", run="a") == 1
    assert chain.at(step=10) == 0
    assert chain.at() == 3
    with pytest.raises(td.MissingError):
        chain.at(step=30)


def test_waiting_for_a_version() -> None:
    builder = good_chain("shortcuts")
    chain = open_chain(builder)
    objects = chain.store.objects
    later = {version: objects.pop(gallery.manifest_name(version)) for version in (4, 5, 6)}
    assert chain.wait(2, timeout=0) == 2
    started = time.monotonic()
    with pytest.raises(TimeoutError, match="4"):
        chain.wait(timeout=0.05, poll=0.01)
    assert time.monotonic() - started < 5

    def publish() -> None:
        for version, data in later.items():
            time.sleep(0.03)
            objects[gallery.manifest_name(version)] = data

    thread = threading.Thread(target=publish)
    thread.start()
    assert chain.wait(timeout=20, poll=0.005) >= 4
    assert chain.wait(6, timeout=20, poll=0.005) == 6
    thread.join()
    assert chain.newest == 6


def test_waiting_for_the_first_version() -> None:
    chain = open_chain(Builder())
    assert chain.newest is None
    with pytest.raises(TimeoutError):
        chain.wait(timeout=0)

    def publish() -> None:
        time.sleep(0.03)
        chain.store.objects.update(good_chain("empty-deltas-and-gaps").objects)

    thread = threading.Thread(target=publish)
    thread.start()
    assert chain.wait(timeout=20, poll=0.005) >= 3
    thread.join()
    assert chain.wait(3, timeout=0) == 3


def test_events_tell_a_callback_and_the_log(caplog: pytest.LogCaptureFixture) -> None:
    builder = good_chain("shortcuts")
    seen: list[td.Event] = []
    chain = open_chain(builder, on_event=seen.append)
    state = chain.load(0)
    seen.clear()
    with caplog.at_level(logging.INFO, logger="tensordelta"):
        update = chain.prepare(state, 6)
        kinds = [event.kind for event in seen]
        assert kinds == ["fetched"] * len(update.route) + ["prepared"]
        update.apply()
    assert [event.kind for event in seen][len(kinds) :] == ["applied"]
    assert {event.version for event in seen[-2:]} == {6}
    assert seen[-1].size == seen[-2].size == update.size == sum(each.size for each in seen if each.kind == "fetched")
    assert all(event.seconds >= 0 for event in seen)
    logged = [record.getMessage() for record in caplog.records if record.name == "tensordelta"]
    assert len(logged) == len(seen) and logged[-1].startswith("applied version 6")


def test_the_log_shows_every_version() -> None:
    builder = good_chain("plain")
    rows = open_chain(builder).log()
    assert [row.version for row in rows] == [0, 1, 2, 3]
    assert [row.base for row in rows] == [None, 0, 1, 2]
    assert [row.changed for row in rows] == [
        sum(entry["changed"] for entry in builder.manifests[version]["packs"]) for version in range(4)
    ]
    assert [row.packs for row in rows] == [2, 2, 1, 1]
    named = {name for version in range(4) for name in builder.pack_names(version)}
    stored = sum(
        len(builder.get(name))
        for name in builder.objects
        if name.split("/")[0] in ("manifests", "layouts", "fingerprints", "files") or name in named
    )
    assert sum(row.size for row in rows) == stored


def test_a_manifest_and_its_files() -> None:
    builder = good_chain("files")
    chain = open_chain(builder)
    for version in range(3):
        entries = chain.manifest(version).files
        assert [each.name for each in entries] == [each["name"] for each in builder.manifests[version].get("files", [])]
        for entry in entries:
            blob = chain._reader.packs.file(entry)
            assert bytes(blob.read(0, blob.size)) == builder.get(entry.path)


def test_arrays_written_to_between_prepare_and_apply(tmp_path: Path) -> None:
    """Arrays of the user's own may change behind an update's back; then nothing is written."""
    chain = td.open(tmp_path / "chain", create=True)
    for value in range(3):
        chain.publish({"w": np.array([value, 7, value], np.float32)})
    arrays = {"w": np.array([0, 7, 0], np.float32)}
    second, first = chain.prepare(arrays, 2), chain.prepare(arrays, 1)
    second.apply()
    with pytest.raises(td.WrongBaseError):
        first.apply()
    assert arrays["w"].tolist() == [2, 7, 2]
    second.undo()
    update = chain.prepare(arrays, 1)
    kept = arrays["w"]
    arrays["w"] = kept.copy()
    with pytest.raises(td.WrongBaseError):
        update.apply()
    assert kept.tolist() == arrays["w"].tolist() == [0, 7, 0]


def test_an_interrupted_apply_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever ends the scatter, the state is the old version, word for word, and can be updated again."""
    chain = td.open(tmp_path / "chain", create=True, threads=1)
    first = np.arange(200_000, dtype=np.uint32)
    sparse = np.zeros(1000, np.uint32)
    chain.publish({"dense": first, "sparse": sparse})
    chain.publish({"dense": first + 1, "sparse": sparse + (np.arange(1000) % 50 == 0)})
    monkeypatch.setattr("tensordelta.state.update._EXCHANGE", 1 << 12)
    for blocks in (0, 1, 7):
        state = chain.load(0)
        update = chain.prepare(state, 1)
        left = blocks

        class Interrupted(np.ndarray):
            def __setitem__(self, key: object, value: object) -> None:
                nonlocal left
                left -= 1
                super().__setitem__(key, value)
                if left == -1:
                    raise KeyboardInterrupt

        dense = state.layout.index["dense"]
        update._before[1][dense] = update._before[1][dense].view(Interrupted)
        with pytest.raises(KeyboardInterrupt):
            update.apply()
        assert state.equals(chain.load(0))
        assert state.version == 0
        update.apply()
        assert state.equals(chain.load(1))
        update.undo()
        assert state.equals(chain.load(0))


def test_arrays_that_share_a_part_of_their_memory_are_refused(tmp_path: Path) -> None:
    chain = td.open(tmp_path / "chain", create=True)
    shared = np.zeros(9, np.float32)
    chain.publish({"a": shared[:8], "b": shared[1:]})
    with pytest.raises(ValueError, match="share memory"):
        chain.prepare({"a": shared[:8], "b": shared[1:]})


@pytest.mark.parametrize("share", [0.1, 1])
def test_one_array_of_two_names_is_updated_once(tmp_path: Path, share: float) -> None:
    chain = td.open(tmp_path / "chain", create=True)
    tied, own = np.zeros(100, np.float32), np.zeros(3, np.float32)
    chain.publish({"a": tied, "b": tied, "c": own})
    following = tied.copy()
    following[: int(share * 100)] += 1
    chain.publish({"a": following, "b": following, "c": own + 1})
    update = chain.prepare({"a": tied, "b": tied, "c": own})
    update.apply()
    assert np.array_equal(tied, following) and own.all()
    update.undo()
    assert not tied.any() and not own.any()
    update.apply()
    assert np.array_equal(tied, following)


def test_one_array_of_two_names_that_differ_in_a_version(tmp_path: Path) -> None:
    chain = td.open(tmp_path / "chain", create=True)
    tied = np.zeros(100, np.float32)
    chain.publish({"a": tied, "b": tied})
    chain.publish({"a": tied + 1, "b": tied + 2})
    update = chain.prepare({"a": tied, "b": tied})
    with pytest.raises(ValueError, match="'a' and 'b' are one tensor here, and differ in version 1"):
        update.apply()
    assert not tied.any()


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


def test_a_listener_may_undo_what_was_applied(tmp_path: Path) -> None:
    """The listener is told of an update when the state is free again; it would wait for ever otherwise."""
    chain = td.open(tmp_path / "chain", create=True)
    for value in range(2):
        chain.publish({"w": np.full(4, value, np.float32)})
    updates: list[Update] = []

    def listen(event: td.Event) -> None:
        if event.kind == "applied" and updates:
            updates.pop().undo()

    follower = td.open(tmp_path / "chain", on_event=listen)
    state = follower.load(0)
    update = follower.prepare(state, 1)
    updates.append(update)
    thread = threading.Thread(target=update.apply, daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    assert state.version == 0
    assert state["w"].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("memory", [1 << 30, 600_000])
def test_many_hops_that_change_much(tmp_path: Path, memory: int) -> None:
    """Hops add up to a large part of a tensor, and tensors come and go on the way; with much memory and little."""
    rng = np.random.default_rng(11)
    arrays = {"a": rng.integers(0, 9, 20_000, np.uint16), "b": rng.integers(0, 9, 3_000, np.uint8)}
    chain = td.open(tmp_path / "chain", create=True, threads=2)
    steps = []
    for step in range(9):
        arrays = {name: array.copy() for name, array in arrays.items()}
        arrays["a"][rng.random(len(arrays["a"])) < 0.05] += 1
        arrays["b"][:] = steps[0]["b"] if step == 5 else arrays["b"] + (rng.random(3_000) < 0.3)
        if step == 3:
            arrays["c"] = rng.normal(size=500).astype(np.float32)
        if step == 6:
            arrays["a"] = arrays["a"][:9_000]
        steps.append(arrays)
        chain.publish(arrays)
    reader = td.open(tmp_path / "chain", memory=memory, threads=2)
    for start, end in ((0, 8), (0, 5), (2, 5), (3, 4), (0, 2)):
        held = td.State.from_arrays({name: array.copy() for name, array in steps[start].items()})
        before = held.copy()
        update = reader.prepare(held, end)
        assert held.equals(before)
        update.apply()
        assert held.equals(td.State.from_arrays(steps[end]))
        for patch in update.patches():
            assert np.all(np.diff(patch.indices) > 0)
        update.undo()
        assert held.equals(before)


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

    def while_away(preparation: Preparation, tensor: int) -> None:
        away.apply()
        copy(preparation, tensor)
        away.undo()

    monkeypatch.setattr(Preparation, "_copy", while_away)
    with pytest.raises(td.WrongBaseError):
        chain.prepare(state, 2)
    monkeypatch.undo()
    chain.prepare(state, 2).apply()
    assert state.equals(chain.load(2))
