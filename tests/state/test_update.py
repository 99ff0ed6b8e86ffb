"""Prepared updates: applied, undone, as patches; and arrays that an update must not write to."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from pathlib import Path

import gallery
import numpy as np
import pytest
from gallery import GOOD, Builder, Good, Model, arrays_of, as_state, assert_arrays, good_chain, open_chain

import tensordelta as td
from tensordelta.state.state import State
from tensordelta.state.update import Update

EACH = pytest.mark.parametrize("chain", GOOD, ids=lambda each: each.name)


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
            assert as_state(result).equals(as_state(models[target])), (base, target)
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
    assert state.equals(as_state(builder.models[2]))


def test_an_update_is_applied_once() -> None:
    state, update, builder = prepared("shortcuts", 1, 3)
    update.apply()
    with pytest.raises(td.WrongBaseError):
        update.apply()
    assert state.equals(as_state(builder.models[3]))
    update.undo()
    with pytest.raises(td.WrongBaseError):
        update.undo()
    assert state.equals(as_state(builder.models[1]))
    update.apply()  # and again, after undo
    assert state.equals(as_state(builder.models[3]))


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
    assert state.equals(as_state(builder.models[versions[-1]]))
    for version, update in zip(reversed(versions[:-1]), reversed(done), strict=True):
        update.undo()
        assert state.equals(as_state(builder.models[version])), version


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
    assert state.equals(as_state(builder.models[3]))
    with pytest.raises(td.WrongBaseError):
        one.undo()
    with pytest.raises(td.WrongBaseError):
        one.apply()
    two.undo()
    assert state.equals(as_state(builder.models[0]))
    one.apply()
    assert state.equals(as_state(builder.models[1]))


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
