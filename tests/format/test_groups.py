"""Groups of slices in exponent order (SPEC.md section 7.3), as the writer makes them."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import slow_reader

import tensordelta as td
from tensordelta.format import chunk_codec
from tensordelta.format.chunk import Exponent

NAMES = [f"w{number}" for number in range(6)]


def grouped(folder: Path, monkeypatch: pytest.MonkeyPatch, group: int, most: int) -> tuple[td.Chain, list[dict]]:
    """A chain of two versions, the second a delta of one chunk in groups of this size; and the states."""
    monkeypatch.setattr(chunk_codec, "_GROUP", group)
    monkeypatch.setattr(chunk_codec, "MAX_GROUP", most)
    monkeypatch.setattr("tensordelta.write.encoder._JOB", 256)
    rng = np.random.default_rng(3)
    first = {name: rng.standard_normal(700).astype(ml_dtypes.bfloat16) for name in NAMES}
    second = {name: words.copy() for name, words in first.items()}
    for words in second.values():
        words.view(np.uint16)[rng.choice(700, 60, replace=False)] += np.uint16(1)
    chain = td.open(folder, create=True)
    chain.publish(first)
    chain.publish(second, order="exponent")
    return chain, [first, second]


def order_of(chain: td.Chain) -> Exponent:
    """The order of the only chunk of version 1."""
    manifest = chain.manifest(1)
    (entry,) = manifest.packs
    reader = chain._reader
    pack, _ = reader.packs.pack(entry, manifest, chain.layout(1), reader.budget(), keep=True)
    (chunk,) = pack.chunks  # type: ignore[union-attr]
    assert isinstance(chunk.order, Exponent)
    return chunk.order


@pytest.mark.parametrize(
    ("group", "most", "groups"),
    [
        (1, 1 << 24, [1] * 6),
        (800, 1 << 24, [2, 2, 2]),
        (5_000, 1 << 24, None),
        (5_000, 512, [1, 2, 1] * 3),  # none has more words than the bound, in the midst of a tensor too
    ],
)
def test_groups_end_with_tensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: int, most: int, groups: list[int] | None
) -> None:
    chain, (_first, second) = grouped(tmp_path, monkeypatch, group, most)
    found = order_of(chain).groups
    assert (found or None) == groups
    state = chain.load(0)
    chain.prepare(state, 1).apply()
    assert state.equals(td.State.from_arrays(second))
    objects = slow_reader.objects_of(tmp_path)
    read = slow_reader.read_version(objects, 1)
    for name in NAMES:
        assert list(read[name].words) == second[name].view(np.uint16).tolist()


def test_a_large_tensor_shares_no_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Holders of it alone can read the chunk."""
    monkeypatch.setattr(chunk_codec, "_ALONE", 600)
    rng = np.random.default_rng(3)
    sizes = {"a": 100, "b": 100, "c": 700, "d": 100, "e": 600, "f": 700, "g": 100, "h": 500}
    first = {name: rng.standard_normal(size).astype(ml_dtypes.bfloat16) for name, size in sizes.items()}
    second = {name: words.copy() for name, words in first.items()}
    for words in second.values():
        words.view(np.uint16)[rng.choice(len(words), 20, replace=False)] += np.uint16(1)
    chain = td.open(tmp_path, create=True)
    chain.publish(first)
    chain.publish(second, order="exponent")
    assert order_of(chain).groups == [2, 1, 1, 1, 1, 2]
    held = td.State.from_arrays({"e": first["e"]})
    held.version, held.chain = 0, chain.id
    assert chain.load_part(["e"], 1, held=held)["e"].tobytes() == second["e"].tobytes()


@pytest.mark.parametrize("names", [["w0"], ["w3"], ["w1", "w5"]])
def test_a_part_of_a_chunk_is_read_by_its_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str]
) -> None:
    chain, (first, second) = grouped(tmp_path, monkeypatch, 1, 1 << 24)
    held = td.State.from_arrays({name: first[name] for name in names})
    held.version, held.chain = 0, chain.id
    part = chain.load_part(names, 1, held=held)
    assert all(part[name].tobytes() == second[name].tobytes() for name in names)


def test_a_group_of_which_a_tensor_is_lacking_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chain, (first, _) = grouped(tmp_path, monkeypatch, 800, 1 << 24)
    held = td.State.from_arrays({"w0": first["w0"]})
    held.version, held.chain = 0, chain.id
    with pytest.raises(td.UnsupportedError, match="'w1'") as fault:
        chain.load_part(["w0"], 1, held=held)
    assert fault.value.rule == "TD-RDR-017"
