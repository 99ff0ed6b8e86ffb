"""Fingerprints against the values of SPEC.md section 8, and against sums that are taken lane by lane."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import slow_reader
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples, generators, pairs, random_words, slow, states, stepped

from tensordelta.codecs import fingerprint
from tensordelta.codecs.words import DTYPES
from tensordelta.format.layout import Layout, Tensor
from tensordelta.state.state import State

WIDTHS = {"U8": 8, "BF16": 16, "F32": 32, "C64": 64}


def state_of(*tensors: tuple[str, str, tuple[int, ...], list[int]]) -> State:
    layout = Layout(Tensor(name, dtype, shape) for name, dtype, shape, _ in tensors)
    return State(layout, [np.array(words, DTYPES[dtype].word) for _, dtype, _, words in tensors])


BF16 = ("a", "BF16", (3,), [0x3F80, 0x0000, 0xBF80])
F32 = ("b", "F32", (2,), [0x3F800000, 0x80000000])
ACUTE = ("é", "U8", (2,), [0x01, 0xFF])

# The tables of appendix A.8.
STATES = [
    ([], "0000000000000000"),
    ([("w", "U8", (1,), [1])], "06b0e25fa27a0ddf"),
    ([("w", "U16", (1,), [1])], "06b0e25fa27a0ddf"),
    ([("w", "U16", (2,), [0, 1])], "e4582d4b0bbbb791"),
    ([("w", "U32", (1,), [0x00010000])], "e4582d4b0bbbb791"),
    ([("w", "U8", (3,), [0, 0, 0xFF])], "22c5a6a86cb03e01"),
    ([("w", "F8_E4M3", (2,), [0x38, 0xB8])], "961212dbf99ef900"),
    ([("w", "F4", (4,), [0x21, 0x43])], "9fe108f803dcd4b2"),
    ([("w", "U64", (1,), [0x0001000200030004])], "e03d6fa0563506aa"),
    ([("w", "U8", (65537,), [0] * 65536 + [1])], "20ccf4e39b5c78e7"),
    ([("w", *BF16[1:])], "1838f607cecf9100"),
    ([("w", *F32[1:])], "3960cde52346f780"),
    ([ACUTE], "3cce9ccab0fc774a"),
    ([BF16, F32, ACUTE], "f87480fe356892ca"),
    ([("w", "U64", (16385,), [0] * 16384 + [0x0001000200030004])], "a151bb2508fc8d5a"),
]


@pytest.mark.parametrize(("tensors", "value"), STATES)
def test_spec_values_of_states(tensors: list, value: str) -> None:
    state = state_of(*tensors)
    assert state.fingerprint() == value
    assert slow_reader.state_fingerprint(slow(state)) == value


def test_spec_values_of_coefficients() -> None:
    assert [f"{int(each):016x}" for each in fingerprint.mix(np.array([0, 1], np.uint64))] == [
        "e220a8397b1dcdaf",
        "910a2dec89025cc1",
    ]
    assert fingerprint.text(fingerprint.seed("w")) == "003f019ce421e750"
    assert fingerprint.text(fingerprint.seed("é")) == "53c333407e55994a"
    for index, value in ((0, "06b0e25fa27a0ddf"), (1, "e4582d4b0bbbb791"), (65536, "20ccf4e39b5c78e7")):
        outer = int(fingerprint.block_coefficients("w", index >> 16, 1)[0])
        assert fingerprint.text(outer * int(fingerprint.lane_coefficients()[index & 65535])) == value
        assert slow_reader.c("w", index) == int(value, 16)


@examples(60)
@given(states())
def test_scan_is_the_sum_over_lanes(state: State) -> None:
    for index, tensor in enumerate(state.layout.tensors):
        words = state.words(index)
        expected = slow_reader.tensor_fingerprint(tensor.name, words.tolist(), tensor.kind.word_bits)
        assert fingerprint.scan(tensor.name, words) % 2**64 == expected
    assert state.fingerprint() == slow_reader.state_fingerprint(slow(state))


@pytest.mark.parametrize("dtype", WIDTHS)
@examples(20)
@given(rng=generators, data=st.data())
def test_scan_of_parts_anywhere(dtype: str, rng: np.random.Generator, data: st.DataObject) -> None:
    """Parts may begin and end at any word, also around the blocks of 65536 lanes."""
    block = 65536 // max(1, WIDTHS[dtype] // 16)
    edges = [0, 1, block - 1, block, block + 1, 2 * block - 1, 2 * block, 2 * block + 3]
    count = data.draw(st.sampled_from(edges[2:]))
    words = random_words(rng, dtype, count)
    words[rng.random(count) < 0.99] = 0  # keeps the slow sum quick
    if count:
        words[-1] = 1
    cuts = sorted(data.draw(st.sets(st.sampled_from([*edges, count // 3, count // 2]), max_size=4)) | {0, count})
    cuts = [cut for cut in cuts if cut <= count]
    expected = slow_reader.tensor_fingerprint("w", words.tolist(), WIDTHS[dtype])
    parts = [fingerprint.scan("w", words[start:stop], start=start) for start, stop in itertools.pairwise(cuts)]
    assert sum(parts) % 2**64 == expected
    assert fingerprint.scan("w", words) % 2**64 == expected


@examples(80)
@given(pairs(refit=False))
def test_values_differ_as_scans_do(pair) -> None:
    for index, tensor in enumerate(pair.old.layout.tensors):
        old, new = pair.old.words(index), pair.new.words(index)
        at = np.flatnonzero(old != new)
        after, before = fingerprint.values(tensor.name, at, new[at], old[at])
        scans = fingerprint.scan(tensor.name, new) - fingerprint.scan(tensor.name, old)
        assert (after - before) % 2**64 == scans % 2**64
        w = tensor.kind.word_bits
        by_hand = sum(slow_reader.value(tensor.name, j, int(new[j]), w) for j in at.tolist())
        assert after % 2**64 == by_hand % 2**64


@pytest.mark.parametrize("dtype", WIDTHS)
@pytest.mark.parametrize("listed", [1, 3, 40, 5000])
def test_values_over_many_blocks(dtype: str, listed: int) -> None:
    """Few words over a long stretch, and many: both ways to sum must agree with the scan."""
    rng = np.random.default_rng(listed)
    old = random_words(rng, dtype, 300_000)
    at = np.sort(rng.choice(len(old), listed, replace=False))
    new = old.copy()
    new[at] = stepped(rng, old[at], 1.0)
    after, before = fingerprint.values("some.tensor", at, new[at], old[at])
    assert (after - before) % 2**64 == (
        fingerprint.scan("some.tensor", new) - fingerprint.scan("some.tensor", old)
    ) % 2**64


def test_values_far_into_a_tensor() -> None:
    """Word numbers beyond 2^32 lanes, as a slice of a huge tensor has them."""
    words = np.array([8, 0xFFFF], np.uint16)
    for at in ([2**32 - 1, 2**32 + 65536], [2**47, 2**47 + 1]):
        expected = sum(slow_reader.value("w", j, int(word), 16) for j, word in zip(at, words, strict=True))
        assert fingerprint.values("w", np.array(at), words)[0] % 2**64 == expected % 2**64
    part = np.array([1, 2, 3], np.uint32)
    expected = sum(slow_reader.value("w", 2**40 + j, j + 1, 32) for j in range(3))
    assert fingerprint.scan("w", part, start=2**40) % 2**64 == expected % 2**64


def test_a_carry_changes_both_lanes() -> None:
    """The step -2 of appendix A, whose value the specification gives."""
    old, new = np.array([0xBF800000], np.uint32), np.array([0xBF7FFFFE], np.uint32)
    after, before = fingerprint.values("head.bias", np.array([4]), new, old)
    assert fingerprint.text(after - before) == "dfd444c2c6a6b72d"


@examples(40)
@given(states(), generators)
def test_one_flipped_bit_changes_the_fingerprint(state: State, rng: np.random.Generator) -> None:
    full = [index for index, tensor in enumerate(state.layout.tensors) if tensor.words]
    if not full:
        return
    index = int(rng.choice(full))
    words = [state.words(each).copy() for each in range(len(state.layout))]
    bit = rng.integers(0, words[index].dtype.itemsize * 8)
    words[index][rng.integers(0, len(words[index]))] ^= words[index].dtype.type(1 << int(bit))
    assert State(state.layout, words).fingerprint() != state.fingerprint()
