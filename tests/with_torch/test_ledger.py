"""The log of what changed: entries are composed, and a step's pieces are those of a comparison with the base."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from strategies import CHAIN, MemoryStore, examples, generators, random_words, stepped, tensors  # noqa: E402

import tensordelta as td  # noqa: E402
import tensordelta.torch as tdt  # noqa: E402
from tensordelta.codecs.words import Words, to_array  # noqa: E402
from tensordelta.format.layout import Tensor  # noqa: E402
from tensordelta.torch import ledger as ledger_module  # noqa: E402
from tensordelta.torch.ledger import Changes, Ledger, Weight, _composed  # noqa: E402
from tensordelta.torch.tensors import _TORCH  # noqa: E402


def changes_of(old: Words, new: Words) -> Changes:
    hit = np.flatnonzero(old != new)
    if not len(hit):
        return {}
    indices = None if len(hit) == len(old) else hit.astype(np.uint32)
    return {7: ledger_module.Found(indices, old[hit], new[hit])}


@examples(200)
@given(generators, st.integers(1, 40), st.lists(st.sampled_from([0.0, 0.1, 0.5, 1.0, -1.0]), min_size=1, max_size=6))
def test_entries_compose_to_the_difference_of_their_ends(
    rng: np.random.Generator, size: int, densities: list[float]
) -> None:
    """A density below zero stands for a step back to the beginning."""
    first = now = random_words(rng, "BF16", size)
    entries: list[Changes] = []
    for density in densities:
        then = first.copy() if density < 0 else stepped(rng, now, density)
        entries.append(changes_of(now, then))
        now = then
    found, expected = _composed(entries), changes_of(first, now)
    assert found.keys() == expected.keys()
    for one, other in zip(found.values(), expected.values(), strict=True):
        every = np.arange(size)
        assert np.array_equal(
            every if one.indices is None else one.indices, every if other.indices is None else other.indices
        )
        assert np.array_equal(one.old, other.old) and np.array_equal(one.new, other.new)


@examples(60)
@given(st.data(), generators, st.booleans(), st.sampled_from(["device", "host"]))
def test_models_of_all_dtypes(data: st.DataObject, rng: np.random.Generator, by_torch: bool, place: str) -> None:
    infos: list[Tensor] = [
        data.draw(tensors(f"t{number}", dtypes=tuple(_TORCH)).filter(lambda each: not each.kind.packed or each.shape))
        for number in range(3)
    ]
    infos = [each for each in infos if not each.kind.packed or each.shape[-1] % 2 == 0]
    words = {info.name: random_words(rng, info.dtype, info.words) for info in infos}
    model = torch.nn.Module()
    for info in infos:
        model.register_buffer(info.name, tdt.from_array(to_array(words[info.name], info.kind, info.shape), info.dtype))
    chain = td.open(MemoryStore(), create=True, chain=CHAIN, threads=1)
    expected = []
    with pytest.MonkeyPatch.context() as patch:
        if by_torch:
            patch.setattr(ledger_module, "_is_on_host", lambda words: False)
        with tdt.Publisher(chain, model, dtype=None, snapshot=place, skip=()) as publisher:
            for density in (0.0, 0.2, 1.0, 0.0):
                for each in words.values():
                    each[...] = stepped(rng, each, density)
                publisher.submit().result()
                expected.append({name: each.tobytes() for name, each in words.items()})
    for version, each in enumerate(expected):
        state = chain.load(version)
        assert state.layout.tensors == tuple(infos)
        assert {info.name: state.words(index).tobytes() for index, info in enumerate(infos)} == each
    assert chain.verify(deep=True).ok


def test_entries_are_composed_but_for_the_steps_that_are_needed() -> None:
    tensor = torch.zeros(10, dtype=torch.bfloat16)

    def weights() -> list[Weight]:
        return [Weight.of("w", tensor, tensor.shape, 0)]

    ledger = Ledger.copied(weights(), place="device", threads=1)
    ledger.commit(1, 0, np.zeros(1, np.uint64))
    for step in range(2, 8):
        tensor[step] = step
        assert ledger.submit(weights()) == step
    pieces = {step: [piece.places.tolist() for piece in ledger.pieces(step)] for step in (4, 7)}
    ledger.compact({4})
    assert [entry.number for entry in ledger._log] == [4, 7]
    assert {step: [piece.places.tolist() for piece in ledger.pieces(step)] for step in (4, 7)} == pieces
    assert pieces == {4: [[2, 3, 4]], 7: [[2, 3, 4, 5, 6, 7]]}
    ledger.commit(4, 1, np.zeros(1, np.uint64))
    assert [piece.places.tolist() for piece in ledger.pieces(7)] == [[5, 6, 7]]


def test_the_benchmark_runs(tmp_path: Path) -> None:
    import json
    import subprocess
    import sys

    program = Path(__file__).parents[2] / "reference" / "benchmarks" / "submit.py"
    figures = tmp_path / "figures.json"
    command = [sys.executable, program, "--size", "2MB", "--rounds", "1", "--threads", "1", "--json", figures]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row for row in json.loads(figures.read_text())["rows"]}
    assert rows.keys() == {"numpy", "torch", "TRL's way"}
    assert all(row["stored"] > 0 and row["blocking"][0] > 0 for row in rows.values())
    assert rows["torch"]["stored"] == rows["numpy"]["stored"] < rows["TRL's way"]["stored"]
