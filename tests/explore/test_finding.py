"""`bisect` and `states`: the version where something begins, and going through all of them."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Sequence
from pathlib import Path

import gallery
import numpy as np
import pytest
from gallery import good_chain, open_chain

import tensordelta as td
from tensordelta.explore.bisection import first
from tensordelta.explore.probe import Probe


@pytest.mark.parametrize("count", range(1, 18))
def test_the_first_is_found_with_few_questions(count: int) -> None:
    versions = [3 * index for index in range(count)]
    for answer in [*versions, None]:
        asked: list[int] = []

        def holds(version: int, answer: int | None = answer, asked: list[int] = asked) -> bool:
            asked.append(version)
            return answer is not None and version >= answer

        assert first(versions, holds) == answer
        assert len(asked) == len(set(asked)) <= 1 + (count - 1).bit_length() + 1
    assert first([], lambda version: True) is None


@pytest.fixture
def broken(tmp_path: Path) -> td.Chain:
    """Eight versions; from version 5 on `w` has a NaN, and `b` grows with each."""
    chain = td.open(tmp_path / "run", create=True)
    weights = {"w": np.ones(100, np.float32), "b": np.zeros(4, np.float32)}
    for version in range(8):
        weights["b"][:] = version
        if version == 5:
            weights["w"][17] = np.nan
        chain.publish(weights)
    return chain


def test_the_version_that_broke_the_model(broken: td.Chain) -> None:
    assert broken.bisect(lambda w: np.isnan(w).any(), "w") == 5
    assert broken.bisect(lambda w: w.fill(0) or False, "w") is None, "the array is the predicate's own"
    assert broken.bisect(lambda b: np.linalg.norm(b) > 6.5, "b") == 4
    assert broken.bisect(lambda version: any(np.isnan(each).any() for each in version.values())) == 5
    fingerprint = broken[6].fingerprint
    assert broken.bisect(lambda version: version.version >= 6 or version.fingerprint == fingerprint) == 6
    assert broken.bisect(lambda b: (b > 99).any(), "b") is None
    assert broken.bisect(lambda version: True) == 0


def test_bisect_over_versions_that_were_dropped(broken: td.Chain) -> None:
    broken.shortcut(None, 3)
    broken.collect(5, grace=0)
    assert broken.versions() == [3, 4, 5, 6, 7]
    assert broken.bisect(lambda w: np.isnan(w).any(), "w") == 5


def test_bisect_over_signed_versions(tmp_path: Path) -> None:
    """Which versions were held before does not matter, since no weights are given out."""
    pytest.importorskip("cryptography")
    chain = td.open(tmp_path, create=True, key="11" * 32)
    for version in range(6):
        chain.publish({"w": np.full(3, version)})
    chain.load()
    assert chain.bisect(lambda w: w[0] >= 2, "w") == 2
    assert chain.bisect(lambda version: version["w"][0] >= 4) == 4
    assert chain.diff(1, 3).changed == 3 and len(chain.history("w")) == 5


def test_a_probe_goes_on_from_an_older_version() -> None:
    """Each version after the first costs the deltas since the last one that was older."""
    builder = good_chain("empty-deltas-and-gaps")
    chain = open_chain(builder)
    name = next(iter(chain[-1]))
    probe = Probe(chain._reader, name)
    order = chain.versions()
    for version in (*order, *order[::-1], *order[::2]):
        assert probe.at(version).tobytes() == gallery.as_state(builder.models[version])[name].tobytes()
    probe = Probe(chain._reader, name)
    probe.at(order[0])
    full = {entry.path for entry in chain.manifest(order[0]).packs}
    chain.store.reads.clear()
    probe.at(order[-1])
    assert not full & set(chain.store.reads)


def test_what_the_predicate_raises_is_raised(broken: td.Chain) -> None:
    with pytest.raises(ZeroDivisionError):
        broken.bisect(lambda version: 1 / 0)
    with pytest.raises(td.MissingError, match="no tensor 'head'"):
        broken.bisect(lambda w: True, "head")


def test_states_are_those_of_the_versions(run: td.Chain) -> None:
    states = list(run.states())
    assert [state.version for state in states] == run.versions()
    for version, state in enumerate(states):
        assert state == run.load(version)


@pytest.mark.parametrize("versions", [[1, 3, 5], [4, 2], [3, 3], []])
def test_states_of_some_versions(run: td.Chain, versions: Sequence[int]) -> None:
    for in_place in (False, True):
        shown = [dict(state.copy()) for state in run.states(versions, in_place=in_place)]
        assert len(shown) == len(versions)
        assert all(run.load(version) == state for version, state in zip(versions, shown, strict=True))


def test_states_in_place_are_one_state(run: td.Chain) -> None:
    one, two = itertools.islice(run.states(in_place=True), 2)
    assert one is two and two.version == 1
    one, two = itertools.islice(run.states(), 2)
    assert one.version == 0 and not np.shares_memory(one["embed"], two["embed"])


def test_each_state_costs_one_delta(tmp_path: Path, run: td.Chain) -> None:
    """The full version is read once, and each delta once."""
    seen: list[td.Event] = []
    chain = td.open(run.address, on_event=seen.append)
    for _ in chain.states():
        pass
    assert [event.version for event in seen if event.kind == "fetched"] == run.versions()


def test_going_on_lists_nothing() -> None:
    chain = open_chain(good_chain("shortcuts"))
    states = chain.states()
    next(states)
    listed = []
    names = chain.store.names
    chain.store.names = lambda prefix, after=None: listed.append(prefix) or names(prefix, after)
    assert len(list(states)) == len(chain.store.objects.keys() & map(gallery.manifest_name, range(99))) - 1
    assert listed == []


def test_a_damaged_delta_is_passed_over() -> None:
    """Shortcuts lead to some versions whose own deltas are damaged, and to others none."""
    builder = good_chain("shortcuts")
    chain = open_chain(builder)
    own = {name for version in chain.versions() for name in builder.pack_names(version)}
    wanted = {state.version: state.copy() for state in chain.states()}
    whole = []
    for name in sorted(own):
        damaged = open_chain(builder)
        damaged.store.objects[name] = chain.store.objects[name][:-1] + b"?"
        with contextlib.suppress(td.TensorDeltaError):
            for state in damaged.states():
                assert state == wanted[state.version]
            whole.append(name)
    assert 0 < len(whole) < len(own)
