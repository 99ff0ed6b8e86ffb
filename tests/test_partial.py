"""Readers that hold some tensors of a state only (SPEC.md section 9.4)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import tensordelta as td

PART = ["b", "c"]


def states() -> list[dict[str, np.ndarray]]:
    """Four tensors of one dtype, small enough to share a chunk; each state differs from the one before in every one."""
    rng = np.random.default_rng(7)
    made = [{name: rng.standard_normal(64).astype(np.float16) for name in "abcd"}]
    for _ in range(2):
        made.append({name: each.copy() for name, each in made[-1].items()})
        for each in made[-1].values():
            each[rng.choice(64, 20, replace=False)] *= np.float16(1.25)
    return made


def chain_of(folder: Path, **how: str) -> td.Chain:
    chain = td.open(folder / "chain", create=True, threads=1)
    for state in states():
        chain.publish(state, **how)  # type: ignore[arg-type]
    return chain


def part(state: dict[str, np.ndarray], names: list[str] = PART) -> td.State:
    return td.State.from_arrays({name: state[name].copy() for name in names})


def bytes_of(state: td.State) -> dict[str, bytes]:
    return {name: state[name].tobytes() for name in state}


def expected(version: int, names: list[str] = PART) -> dict[str, bytes]:
    return {name: states()[version][name].tobytes() for name in names}


def edit(chain: td.Chain, version: int, change: Callable[[dict[str, object]], object]) -> td.Chain:
    path = Path(chain.address, f"manifests/{version:012d}.json")
    document = json.loads(path.read_bytes())
    change(document)
    path.write_text(json.dumps(document))
    return td.open(chain.address, threads=1)


@pytest.mark.parametrize("values", ["step", "replace"])
def test_a_part_follows_deltas_from_what_is_held(tmp_path: Path, values: str) -> None:
    """The chunk is over tensors that are not held as well."""
    chain = chain_of(tmp_path, values=values)
    held = part(states()[0])
    for version in (1, 2):
        after = chain.load_part(PART, version, held=held)
        assert bytes_of(after) == expected(version)
        assert (after.version, after.chain) == (version, chain.id)
        assert bytes_of(held) == expected(version - 1), "what was held stays as it was"
        held = after


def test_a_part_from_nothing_and_the_newest(tmp_path: Path) -> None:
    chain = chain_of(tmp_path)
    assert bytes_of(chain.load_part(PART)) == expected(2)
    assert bytes_of(chain.load_part([*PART, "not there"], 1)) == expected(1)
    assert not chain.load_part(["not there"], 1)


def test_a_part_held_already_needs_no_pack(tmp_path: Path) -> None:
    chain = chain_of(tmp_path)
    for path in Path(chain.address, "packs").iterdir():
        path.unlink()
    assert bytes_of(chain.load_part(PART, 2, held=part(states()[2]))) == expected(2)
    with pytest.raises(td.MissingError):
        chain.load_part(PART, 2, held=part(states()[1]))


def test_a_part_that_is_not_the_version_it_remembers(tmp_path: Path) -> None:
    chain = chain_of(tmp_path)
    for change in (
        lambda state: state["b"].view(np.uint16).__setitem__(3, 1),
        lambda state: state.update(b=state["b"].reshape(8, 8)),
        lambda state: state.update(b=state["b"].view(np.int16)),
    ):
        state = states()[0]
        change(state)
        held = part(state).copy()
        held.version, held.chain = 0, chain.id
        with pytest.raises(td.WrongBaseError) as caught:
            chain.load_part(PART, 1, held=held)
        assert caught.value.rule == "TD-RDR-011"
        held.version = None  # no version has this part, so that the route starts from nothing
        assert bytes_of(chain.load_part(PART, 1, held=held)) == expected(1)


def test_a_part_that_is_widened_starts_from_nothing(tmp_path: Path) -> None:
    chain = chain_of(tmp_path)
    held = part(states()[0], ["b"]).copy()
    held.version, held.chain = 0, chain.id
    assert bytes_of(chain.load_part(PART, 1, held=held)) == expected(1)


def test_order_exponent_over_tensors_that_are_not_held(tmp_path: Path) -> None:
    chain = chain_of(tmp_path, order="exponent")
    with pytest.raises(td.UnsupportedError) as caught:
        chain.load_part(PART, 1, held=part(states()[0]))
    assert caught.value.rule == "TD-RDR-014"
    assert bytes_of(chain.load_part("abcd", 1, held=part(states()[0], list("abcd")))) == expected(1, list("abcd"))
    assert chain.read(1, "b").tobytes() == states()[1]["b"].tobytes(), "one tensor is read with what it needs"


@pytest.mark.parametrize("version", [0, 1])
def test_a_version_that_proves_no_part(tmp_path: Path, version: int) -> None:
    chain = edit(chain_of(tmp_path), version, lambda document: document.pop("tensor_fingerprints"))
    with pytest.raises(td.UnsupportedError) as caught:
        held = part(states()[0]).copy()
        held.version, held.chain = 0, chain.id
        chain.load_part(PART, 1, held=held)
    assert caught.value.rule == "TD-RDR-013"


def test_a_part_keeps_to_the_budget(tmp_path: Path) -> None:
    chain = chain_of(tmp_path)
    with pytest.raises(td.LimitError):
        td.open(chain.address, threads=1, memory=100).load_part(PART, 1)
