"""Publishing from changed words that were found elsewhere: the same packs, no snapshot, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import draft_ranks
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from strategies import CHAIN, MemoryStore, Pair, examples, generators, pairs

import tensordelta as td
from tensordelta.codecs import fingerprint
from tensordelta.format.layout import Layout
from tensordelta.state.state import State
from tensordelta.stores import FolderStore
from tensordelta.write.encoder import Codecs, Comparison, Encoder, Listed, Values, compare, cut


def pieces_of(old: State | None, new: State, owned: list[list[tuple[int, int]]] | None = None) -> Iterator[td.Piece]:
    """The changed words of two states of one layout, or all of one; or those among the words that a rank owns."""
    whole = [[(0, tensor.words)] for tensor in new.layout.tensors]
    for part in cut(new.layout, whole if owned is None else owned):
        tensor, start, stop = part
        before = None if old is None else old.words(tensor)[start:stop]
        piece = compare(part, before, new.words(tensor)[start:stop])
        if piece is not None:
            yield piece


def packs(chain: td.Chain, version: int) -> list[str]:
    return [pack.sha256 for pack in chain.manifest(version).packs]


def big_pair(density: float, dtype: str = "BF16") -> tuple[State, State]:
    """Two states of several jobs, chunks and tensors."""
    rng = np.random.default_rng(5)
    layout = Layout.of(
        [td.Tensor("a", dtype, (4_500_000,)), td.Tensor("b", "F32", (300_000,)), td.Tensor("c", dtype, (70_000,))]
    )
    old = [rng.integers(0, 1 << 8, tensor.words).astype(tensor.kind.word) for tensor in layout.tensors]
    new = [words + (rng.random(len(words)) < density).astype(words.dtype) for words in old]
    return State(layout, old), State(layout, new)


@examples(60)
@given(pairs(refit=False), st.sampled_from(["step", "replace"]), st.sampled_from([1, 3]))
def test_packs_are_those_of_a_comparison(pair: Pair, values: Values, threads: int) -> None:
    codecs = Codecs(values)
    for old in (None, pair.old):
        sums = None if old is None else old.sums()
        compared = Encoder(Comparison.of_states(old, pair.new, "0" * 64, sums), codecs, threads=threads)
        if old is None:
            listed = Listed.full(pair.new.layout, "0" * 64, pieces_of(None, pair.new))
        else:
            assert sums is not None
            listed = Listed(pair.new.layout, "0" * 64, pieces_of(old, pair.new), sums)
        of_pieces = Encoder(listed, codecs, threads=threads)
        expected, found = list(compared.packs(2000)), list(of_pieces.packs(2000))
        assert [structs.replace(built.entry, path=None) for built in found] == [
            structs.replace(built.entry, path=None) for built in expected
        ]
        assert [[bytes(part) for part in built.parts] for built in found] == [
            [bytes(part) for part in built.parts] for built in expected
        ]
        assert of_pieces.changed_of == compared.changed_of
        assert np.array_equal(of_pieces.sums, pair.new.sums())


@pytest.mark.parametrize("density", [0.0001, 0.01, 0.3, 1.0])
@pytest.mark.parametrize("values", ["step", "replace"])
def test_a_version_of_pieces_is_the_version_of_its_state(tmp_path: Path, density: float, values: Values) -> None:
    old, new = big_pair(density)
    chains = [td.open(tmp_path / name, create=True, threads=2) for name in ("states", "pieces")]
    for state in (old, new):
        chains[0].publish(state, values=values)
    _, tip = chains[1].publish_pieces(pieces_of(None, old), None, old.layout, values=values)
    published, tip = chains[1].publish_pieces(pieces_of(old, new), tip, values=values, annotations={"step": "1"})
    assert published.version == 1 and published.annotations == {"step": "1"}
    for version in (0, 1):
        assert packs(chains[0], version) == packs(chains[1], version)
        assert chains[0].manifest(version).fingerprint == chains[1].manifest(version).fingerprint
    assert np.array_equal(tip.sums, new.sums())
    assert td.open(tmp_path / "pieces").load().equals(new)
    assert chains[1].verify(deep=True).ok


def test_the_snapshot_is_not_used_and_catches_up(
    chain: td.Chain, monkeypatch: pytest.MonkeyPatch, _own_cache: Path
) -> None:
    old, new = big_pair(0.01)
    chain.publish(old)
    tip = chain.tip()
    with monkeypatch.context() as without:
        without.setenv("TENSORDELTA_CACHE", "/nowhere")
        _, tip = chain.publish_pieces(pieces_of(old, new), tip)
        chain.publish_pieces(pieces_of(new, old), tip)
    chain.publish(new)
    assert [manifest.base.version for manifest in map(chain.manifest, (1, 2, 3)) if manifest.base] == [0, 1, 2]
    assert packs(chain, 3) == packs(chain, 1)
    assert chain.verify(deep=True).ok


def test_a_base_that_is_not_the_newest_is_refused(chain: td.Chain) -> None:
    old, new = big_pair(0.001)
    chain.publish(old)
    tip = chain.tip()
    chain.publish(new)
    with pytest.raises(td.ConflictError, match="the newest version is 1"):
        chain.publish_pieces(pieces_of(old, new), tip)
    assert chain.versions() == [0, 1]


def test_a_chain_without_versions_has_no_tip(chain: td.Chain) -> None:
    assert chain.tip() is None
    with pytest.raises(ValueError, match="full version"):
        chain.publish_pieces([], None)


def test_fingerprints_of_tensors(chain: td.Chain) -> None:
    state, _ = big_pair(0)
    chain.publish(state)
    assert np.array_equal(chain.tensor_fingerprints(), state.sums())
    assert chain.tensor_fingerprints(0).dtype == np.uint64


def test_fingerprints_of_a_version_that_does_not_tell_them(tmp_path: Path) -> None:
    state, _ = big_pair(0)
    store = FolderStore(tmp_path)
    td.open(store, create=True).publish(state)
    manifest = tmp_path / "manifests" / "000000000000.json"
    document, _, _ = manifest.read_text().partition(',"tensor_fingerprints"')
    manifest.write_text(document + "}")
    assert np.array_equal(td.open(store).tensor_fingerprints(0), state.sums())


def test_what_no_comparison_finds_is_refused(chain: td.Chain) -> None:
    old, new = big_pair(0.001)
    chain.publish(old)
    tip = chain.tip()
    first, second, *_, last = pieces_of(old, new)
    assert first.old is not None and first.indices is not None
    for name, wrong in {
        "out of order": [second, first],
        "layout lacks": [replace(first, tensor=3)],
        "too long": [replace(first, stop=4_500_000)],
        "has no old words": [replace(first, old=None)],
        "other words or indices": [replace(first, indices=first.indices[::-1])],
        "other words": [replace(first, new=first.new.astype(np.uint32))],
        "or indices": [replace(first, start=int(first.indices[0]) + 1)],
        "than its tensor has there": [replace(last, indices=None)],
    }.items():
        with pytest.raises(ValueError, match=name):
            chain.publish_pieces(wrong, tip)
    assert chain.versions() == [0]


def test_old_words_that_are_not_the_base_s_make_a_version_that_is_refused(chain: td.Chain) -> None:
    old, new = big_pair(0.001)
    chain.publish(old)
    wrong = [replace(piece, old=piece.new, new=piece.old) for piece in pieces_of(old, new)]
    chain.publish_pieces(wrong, chain.tip())
    with pytest.raises(td.TensorDeltaError):
        chain.load(1)


@examples(25)
@given(pairs(refit=False), generators, st.integers(1, 4))
def test_ranks_of_pieces_make_the_packs_of_ranks_of_words(pair: Pair, rng: np.random.Generator, ranks: int) -> None:
    """Each rank lists the changed words of its own slices; descriptors and versions are those of `encode`."""
    chains = [td.open(MemoryStore(), create=True, chain=CHAIN, threads=1) for _ in range(2)]
    for chain in chains:
        chain.publish(pair.old)
    drafts = [chain.draft(pair.new) for chain in chains]
    expected, found = [], []
    for shard in draft_ranks.cut(pair.new, ranks, rng):
        owned = owned_words(pair.new.layout, shard)
        held = {
            tensor.name: [td.Slice(pair.old.words(index)[start:stop], start) for start, stop in owned[index]]
            for index, tensor in enumerate(pair.new.layout.tensors)
        }
        expected.append(drafts[0].encode(shard, held))
        claims = [
            (index, start, stop, fingerprint.scan(tensor.name, pair.new.words(index)[start:stop], start=start))
            for index, tensor in enumerate(pair.new.layout.tensors)
            for start, stop in owned[index]
        ]
        found.append(drafts[1].encode_pieces(pieces_of(pair.old, pair.new, owned), claims))
        assert all(expected[-1][key] == found[-1][key] for key in ("changes", "features"))
        digests = [[pack["sha256"] for pack in each[-1]["packs"]] for each in (expected, found)]
        assert digests[0] == digests[1]
    for draft, descriptors in zip(drafts, (expected, found), strict=True):
        draft.commit(descriptors)
    assert packs(chains[0], 1) == packs(chains[1], 1)
    assert chains[1].load().equals(pair.new)
    assert chains[1].verify(deep=True).ok


def owned_words(layout: Layout, shard: dict[str, Any]) -> list[list[tuple[int, int]]]:
    """For each tensor the words that a shard has, as beginnings and ends."""
    owned: list[list[tuple[int, int]]] = [[] for _ in layout.tensors]
    for name, each in shard.items():
        index = layout.index[name]
        slices = each if isinstance(each, list) else [td.Slice(np.empty(layout.tensors[index].words), 0)]
        owned[index] = sorted((part.start, part.start + part.array.size) for part in slices if part.array.size)
    return owned
