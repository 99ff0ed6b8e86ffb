"""Reading good chains: every version bit for bit, from nothing and from every other, in a state and in arrays."""

from __future__ import annotations

import itertools
from pathlib import Path

import gallery
import numpy as np
import pytest
from gallery import GOOD, Good, arrays_of, as_model, as_state, assert_arrays, good_chain, open_chain

import tensordelta as td
from tensordelta.state.state import State

EACH = pytest.mark.parametrize("chain", GOOD, ids=lambda each: each.name)


@EACH
def test_every_version_loads_bit_for_bit(chain: Good) -> None:
    for version, model in chain.builder.models.items():
        state = open_chain(chain.builder).load(version)
        assert state.equals(as_state(model)), version
        assert state.fingerprint() == gallery.fingerprint(model) == gallery.fingerprint(as_model(state))
        assert (state.version, state.chain) == (version, gallery.CHAIN)


@EACH
def test_every_version_is_reached_from_every_older_one(chain: Good) -> None:
    models = chain.builder.models
    opened = open_chain(chain.builder)
    for base in models:
        for target in (each for each in models if each > base):
            state = opened.load(base)
            update = opened.prepare(state, target)
            assert state.equals(as_state(models[base])), "prepare changed the state"
            update.apply()
            assert state.equals(as_state(models[target])), (base, target)
            assert state.version == target
            assert state.fingerprint() == state.fingerprint(scan=True) == gallery.fingerprint(models[target])
            update.undo()
            assert state.equals(as_state(models[base])), (base, target)
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
            assert state.equals(as_state(models[target])), (base, target)


@pytest.mark.parametrize("name", ["packs", "plain", "fitting", "sparse-and-long", "reference-encoder-exponent"])
def test_folders_and_threads_make_no_difference(name: str, tmp_path: Path) -> None:
    builder = good_chain(name)
    builder.write(tmp_path / "chain")
    for version, model in builder.models.items():
        assert td.open(tmp_path / "chain", threads=3).load(version).equals(as_state(model))


def test_the_newest_version_is_the_default() -> None:
    chain = open_chain(good_chain("empty-deltas-and-gaps"))
    assert chain.versions() == [3, 4, 1000, 1001, 999_999_999_999]
    assert chain.newest() == 999_999_999_999
    assert chain.load().equals(as_state(good_chain("empty-deltas-and-gaps").models[3]))
    assert chain.load().version == chain.newest()


def test_names_that_are_no_objects_are_passed_over() -> None:
    chain = open_chain(good_chain("listing"))
    assert chain.versions() == [0, 1]
    assert chain.newest() == 1


def test_a_chain_id_can_be_pinned() -> None:
    builder = good_chain("packs")
    assert open_chain(builder, chain=gallery.CHAIN).id == gallery.CHAIN
    with pytest.raises(td.ConflictError) as caught:
        open_chain(builder, chain=gallery.FOREIGN)
    assert caught.value.rule == "TD-OBJ-010"


@pytest.mark.parametrize("name", ["packs", "plain", "fitting", "combination-natural-bitmap-replace"])
def test_a_budget_is_a_limit_and_no_crash(name: str) -> None:
    """Whatever the budget, a load either keeps to it by refusing, or succeeds; with enough it succeeds."""
    builder = good_chain(name)
    version = list(builder.models)[1]
    outcomes = []
    for memory in (0, 1000, 10_000, 10_000_000):
        try:
            state = open_chain(builder, memory=memory).load(version)
            assert state.equals(as_state(builder.models[version]))
            outcomes.append(True)
        except td.LimitError as error:
            assert error.rule in ("TD-LIM-002", "TD-LIM-008")
            outcomes.append(False)
    assert outcomes[0] is False and outcomes[-1] is True
    assert outcomes == sorted(outcomes)


def test_a_budget_leaves_the_held_state_alone() -> None:
    builder = good_chain("packs")
    state = open_chain(builder).load(0)
    with pytest.raises(td.LimitError):
        open_chain(builder, memory=100).prepare(state, 1)
    assert state.equals(as_state(builder.models[0])) and state.version == 0


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
        chain.publish(arrays, layout_change=True)
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
