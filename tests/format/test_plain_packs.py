"""Plain packs (SPEC.md section 6.4): what both readers accept and refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from packs_by_hand import TIME, Draft, check, example, outcomes, plain_pack, reordered, safetensors
from strategies import CHAIN, MemoryStore

import tensordelta as td
from tensordelta.errors import TensorDeltaError
from tensordelta.format.layout import Layout
from tensordelta.state.state import State

# -- plain packs (section 6.4) -------------------------------------------------------------------------------------

PLAIN = State.from_arrays(
    {"a": np.arange(3, dtype=np.float32), "b": np.array(7, np.int8), "z": np.zeros((2, 0), np.int8)}
)


def plain_chain(
    data: bytes, *, described: dict[str, Any] | None = None, state: State = PLAIN, times: int = 1
) -> MemoryStore:
    """A chain of one full version, whose plain pack is given."""
    store = MemoryStore()
    draft = Draft(State.empty(), state, [], [])
    store["chain.json"] = json.dumps({"tensordelta": "1.0-rc.1", "chain": CHAIN, "created": TIME}).encode()
    layout = store.add("layouts/", state.layout.encode(), ".json")
    made = draft._entry(store, data, "tensors", range(len(state.layout)), state.layout.words)
    draft._manifest(store, 0, layout, state, [{**made, **(described or {})}] * times, None)
    return store


def plain_header(data: bytes) -> tuple[dict[str, Any], bytes]:
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def with_header(change: Callable[[dict[str, Any]], Any]) -> bytes:
    value, buffer = plain_header(plain_pack(PLAIN))
    result = change(value)
    return safetensors(value if result is None else result, buffer)


@pytest.mark.parametrize(
    "data",
    [
        plain_pack(PLAIN),
        with_header(lambda value: value.update(__metadata__={"tensordelta": "means nothing here"})),
        with_header(lambda value: value.update(__metadata__={})),
        with_header(lambda value: json.dumps(value).encode() + b"   \n"),
        with_header(reordered),
        with_header(lambda value: value["a"].update(note="unknown members are passed over")),
        with_header(lambda value: value.update(other={"dtype": "BOOL", "shape": [0], "data_offsets": [13, 13]})),
        with_header(
            lambda value: value.update(other={"dtype": "F4", "shape": [2**53 - 1, 0], "data_offsets": [13, 13]})
        ),
        with_header(lambda value: value["a"].update(note=[-1, -0.5, 10**400, [[[[]]]], {"dtype": None}])),
    ],
)
def test_plain_packs_that_are_accepted(data: bytes) -> None:
    check(plain_chain(data), PLAIN, 0)


def test_tensors_that_the_layout_lacks_are_passed_over() -> None:
    more = State.from_arrays({**PLAIN, "c": np.ones(5, np.uint16)})
    check(plain_chain(plain_pack(more)), PLAIN, 0)


@pytest.mark.parametrize(
    ("data", "error", "rule"),
    [
        (with_header(lambda value: b" " + json.dumps(value).encode()), "malformed", "TD-PCK-003"),
        (with_header(lambda value: json.dumps(value).encode()[:-1]), "malformed", "TD-JSN-003"),
        (with_header(lambda value: json.dumps(value).encode() + b"{}"), "malformed", "TD-JSN-003"),
        (with_header(lambda value: json.dumps(value).encode()[:-1] + b', "\xff": 1}'), "malformed", "TD-JSN-001"),
        (
            with_header(lambda value: json.dumps(value).replace('"dtype"', '"x": NaN, "dtype"').encode()),
            "malformed",
            "TD-JSN-007",
        ),
        (
            with_header(lambda value: json.dumps(value).replace('"dtype"', '"\\ud800": 1, "dtype"').encode()),
            "malformed",
            "TD-JSN-005",
        ),
        (with_header(lambda value: value["z"].update(shape=[2, 0, 2**53])), "malformed", "TD-PCK-014"),
        (with_header(lambda value: value["a"].update(shape=[3.0])), "malformed", "TD-PCK-014"),
        (with_header(lambda value: json.dumps(value).encode()[:-1] + b', "z": 1}'), "malformed", "TD-JSN-004"),
        (with_header(lambda value: value["a"].update(x=json.loads("[" * 15 + "]" * 15))), "limit", "TD-JSN-008"),
        (with_header(lambda value: value.update(__metadata__=None)), "malformed", "TD-PCK-014"),
        (with_header(lambda value: value.update(__metadata__=[])), "malformed", "TD-PCK-014"),
        (with_header(lambda value: value.update(__metadata__="")), "malformed", "TD-PCK-014"),
        (with_header(lambda value: value.update(__metadata__={"a": 1})), "malformed", "TD-PCK-014"),
        (with_header(lambda value: value["a"].update(shape=[4])), "malformed", "TD-PCK-014"),
        (with_header(lambda value: value["a"].update(shape=["3"])), "malformed", "TD-PCK-014"),
        (with_header(lambda value: value["a"].update(shape=[-3])), "malformed", "TD-PCK-014"),
        (with_header(lambda value: value["a"].pop("dtype") and None), "malformed", "TD-PCK-014"),
        (with_header(lambda value: value["z"].update(data_offsets=[14, 14])), "malformed", "TD-PCK-004"),
        (plain_pack(PLAIN) + b"\0", "malformed", "TD-PCK-004"),
        (with_header(lambda value: value["a"].update(dtype="I32")), "malformed", "TD-PCK-015"),
        (with_header(lambda value: value["a"].update(shape=[3, 1])), "malformed", "TD-PCK-015"),
        (with_header(lambda value: value["z"].update(shape=[0, 2])), "malformed", "TD-PCK-015"),
        (plain_pack(State.from_arrays({"A": np.zeros(3, np.float32)})), "malformed", "TD-PCK-016"),
        (safetensors({}, b""), "malformed", "TD-PCK-016"),
        (safetensors({"__metadata__": {}}, b""), "malformed", "TD-PCK-016"),
        (with_header(lambda value: value["b"].update(dtype="F8_E9M9")), "unsupported", "TD-PCK-018"),
    ],
)
def test_plain_pack_faults(data: bytes, error: str, rule: str) -> None:
    found, wanted = outcomes(plain_chain(data), 0)
    assert isinstance(found, TensorDeltaError), "accepted"
    assert (found.name, found.rule, wanted) == (error, rule, error), found


def test_a_shape_of_a_million_dimensions_is_refused_at_once() -> None:
    """Their product would have fifty million bits; the slow reader would multiply them all."""
    other = {"dtype": "U8", "shape": [2**53 - 1] * 10**6, "data_offsets": [13, 13]}
    store = plain_chain(with_header(lambda value: value.update(other=other)))
    with pytest.raises(TensorDeltaError) as caught:
        td.open(store, threads=1).load(0)
    assert (caught.value.name, caught.value.rule) == ("malformed", "TD-PCK-014")


def test_plain_packs_in_a_delta() -> None:
    """A plain tensor replaces a tensor of the base, whole; a chunk of the same delta changes another."""
    draft = example()
    replaced = State(Layout([draft.new.layout.tensors[3]]), [np.arange(9, dtype=np.uint32)])
    words = [draft.new.words(index) for index in range(3)] + [replaced.words(0)]
    draft.new = State(draft.new.layout, words)
    data = plain_pack(replaced)
    store = MemoryStore()
    draft.more = [draft._entry(store, data, "tensors", [3], 9)]
    built = draft.build()
    built.update(store)
    check(built, draft.new)


@pytest.mark.parametrize("dtype", ["I32", "F32"])
def test_words_named_by_a_chunk_and_a_plain_tensor(dtype: str) -> None:
    draft = example()
    index = 2 if dtype == "F32" else 3
    tensor = draft.new.layout.tensors[index]
    store = MemoryStore()
    plain = State(Layout([tensor]), [draft.new.words(index)])
    entry_of = draft._entry(store, plain_pack(plain), "tensors", [index], tensor.words)
    draft.more = [entry_of, entry_of] if dtype == "I32" else [entry_of]
    built = draft.build()
    built.update(store)
    found, wanted = outcomes(built)
    assert isinstance(found, TensorDeltaError)
    assert (found.name, found.rule, wanted) == ("malformed", "TD-MAN-019", "malformed")


def test_a_tensor_without_words_is_named_by_two_packs() -> None:
    """No word of it is named twice, for it has none."""
    empty = State.from_arrays({"z": np.zeros((2, 0), np.int8)})
    check(plain_chain(plain_pack(empty), state=empty, times=2), empty, 0)
