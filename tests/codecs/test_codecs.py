"""The codecs of SPEC.md section 7: its worked examples, both directions against the slow reader, and every fault."""

from __future__ import annotations

import itertools
import os
import struct
from collections.abc import Iterator

import numpy as np
import pytest
import slow_reader
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples, generators, random_words, stepped

from tensordelta.codecs import CodecFault, compression, positions, values
from tensordelta.codecs.cuts import cuts
from tensordelta.codecs.order import ExponentOrder, choose_limit
from tensordelta.codecs.words import DTYPES

WIDTHS = (8, 16, 32, 64)
FLOATS = sorted(name for name, kind in DTYPES.items() if kind.exponent)


def octets(data: bytes | str) -> np.ndarray:
    return np.frombuffer(bytes.fromhex(data) if isinstance(data, str) else data, np.uint8)


def hexed(stream: np.ndarray) -> str:
    return bytes(stream).hex()


def expect(rule: str, call, *arguments) -> None:
    with pytest.raises(CodecFault) as caught:
        call(*arguments)
    assert (caught.value.rule, caught.value.kind.name) == (rule, "malformed")


# -- dtypes (section 3.2) ------------------------------------------------------------------------------------------


def test_dtypes_are_those_of_the_table() -> None:
    assert DTYPES.keys() == slow_reader.DTYPES.keys()
    for name, kind in DTYPES.items():
        wanted = slow_reader.DTYPES[name]
        assert (kind.bits, kind.word_bits) == (wanted.bits, wanted.w)
        exponent = (wanted.shift, wanted.exponent_bits) if wanted.mask else None
        assert kind.exponent == exponent
        assert wanted.mask == (((1 << exponent[1]) - 1) << exponent[0] if exponent else 0)


# -- order exponent (section 7.3) ----------------------------------------------------------------------------------


def test_exponent_worked() -> None:
    base = [0x3F80, 0x3C00, 0x0000, 0x3C10, 0xBF00]
    assert slow_reader.exponent_permutation(base, "BF16", 121) == [2, 1, 3, 0, 4]
    order = ExponentOrder.of([np.array(base, np.uint16)], DTYPES["BF16"], 121)
    assert order.places(np.arange(5)).tolist() == [2, 1, 3, 0, 4]
    numbers, taken = order.numbers(np.array([0, 3]))
    assert (numbers.tolist(), taken.tolist()) == ([2, 3], [1, 0])


@pytest.mark.parametrize("dtype", FLOATS)
@examples(25)
@given(rng=generators, data=st.data())
def test_exponent_order_is_the_permutation(dtype: str, rng: np.random.Generator, data: st.DataObject) -> None:
    kind = DTYPES[dtype]
    base = random_words(rng, dtype, data.draw(st.integers(1, 400)))
    width = kind.exponent[1]
    limit = data.draw(st.one_of(st.sampled_from([1, 2**width, 2**width - 1]), st.integers(1, 2**width)))
    permutation = slow_reader.exponent_permutation(base.tolist(), dtype, limit)
    cut = data.draw(st.integers(0, len(base)))  # the words of two slices
    order = ExponentOrder.of([base[:cut], base[cut:]], kind, limit)
    assert order.places(np.arange(len(base))).tolist() == permutation
    listed = np.flatnonzero(rng.random(len(base)) < data.draw(st.sampled_from([0.02, 0.5, 1.0])))
    numbers, taken = order.numbers(listed)
    wanted = [r for r, place in enumerate(permutation) if place in set(listed.tolist())]
    assert numbers.tolist() == wanted
    assert listed[taken].tolist() == [permutation[r] for r in wanted]
    assert order.places(numbers).tolist() == listed[taken].tolist()


def test_exponent_keys_pass_over_sign_and_mantissa() -> None:
    """-0, zero and subnormal numbers come first, in natural order; infinities and NaN last."""
    base = np.array([0x7FC1, 0x8000, 0x3F80, 0x0000, 0xFF80, 0x807F, 0x7F80, 0x0080], np.uint16)
    order = ExponentOrder.of([base], DTYPES["BF16"], 256)
    assert order.places(np.arange(8)).tolist() == [1, 3, 5, 7, 2, 0, 4, 6]


@examples(30)
@given(generators, st.sampled_from(FLOATS), st.integers(1, 2000))
def test_the_chosen_limit_is_legal(rng: np.random.Generator, dtype: str, count: int) -> None:
    base = random_words(rng, dtype, count)
    places = np.sort(rng.choice(count, rng.integers(1, count + 1), replace=False))
    assert 1 <= choose_limit([base], base[places], DTYPES[dtype]) <= 2 ** DTYPES[dtype].exponent[1]


@examples(30)
@given(rng=generators, dtype=st.sampled_from(FLOATS), count=st.integers(1, 30_000), data=st.data())
def test_blocks_end_where_exponents_change(
    rng: np.random.Generator, dtype: str, count: int, data: st.DataObject
) -> None:
    kind = DTYPES[dtype]
    width = kind.exponent[1]
    limit = data.draw(st.integers(1, 2**width))
    keys = np.sort(rng.choice(2**width, data.draw(st.integers(1, 12))).repeat(count // 12 + 1)[:count])
    base = keys.astype(kind.word) << kind.word.type(kind.exponent[0])
    found = cuts(base, kind, limit).tolist()
    for before, cut in itertools.pairwise([0, *found]):
        assert cut - before >= 2048 and count - cut >= 1024
        assert min(keys[cut - 1], limit) != min(keys[cut], limit)


def test_blocks_end_at_each_exponent_of_many_words() -> None:
    base = np.repeat(np.arange(100, 120, dtype=np.uint16) << 7, 2048)
    assert cuts(base, DTYPES["BF16"], 110).tolist() == list(range(2048, 2048 * 11, 2048))


def test_exponent_order_over_many_words() -> None:
    """More words than are looked at in one go."""
    rng = np.random.default_rng(0)
    base = rng.integers(0, 2**16, 700_001, dtype=np.uint16)
    key = (base & 0x7F80) >> 7
    first = np.argsort(np.where(key < 100, key, 1000), kind="stable")
    order = ExponentOrder.of([base], DTYPES["BF16"], 100)
    assert np.array_equal(order.places(np.arange(len(base))), first)


# -- positions gap (section 7.4) -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("numbers", "shift", "gaps", "low", "words"),
    [
        ([3, 290, 320, 322, 323], 0, "03ff1f1d0100", None, 324),
        ([1, 4, 5], 4, "000000", "2100", 6),
        ([4096], 8, "10", "00", 4097),
        ([255], 0, "ff00", None, 256),
        ([254], 0, "fe", None, 255),
        ([510], 0, "ffff00", None, 511),
        ([255 << 4], 4, "ff00", "00", 5000),
        ([15, 16 + 15], 4, "0000", "ff", 32),
        ([0], 0, "00", None, 1),
    ],
)
def test_gap_worked(numbers: list[int], shift: int, gaps: str, low: str | None, words: int) -> None:
    found_gaps, found_low = positions.encode_gaps(np.array(numbers), shift)
    assert (hexed(found_gaps), None if found_low is None else hexed(found_low)) == (gaps, low)
    expected = slow_reader.encode_gap(numbers, shift)
    assert (expected["gaps"].hex(), expected["low"].hex() if shift else None) == (gaps, low)
    decoded = positions.decode_gaps(octets(gaps), None if low is None else octets(low), shift, len(numbers), words)
    assert decoded.tolist() == numbers
    assert slow_reader.decode_gap(bytes.fromhex(gaps), bytes.fromhex(low or ""), shift, len(numbers), words) == numbers


gap_lists = st.lists(
    st.one_of(
        st.integers(0, 3),
        st.sampled_from([14, 15, 16, 254, 255, 256, 509, 510, 511, 4079, 4080, 4081, 65279, 65280, 65535, 65536]),
        st.integers(0, 200_000),
    ),
    min_size=1,
    max_size=60,
)


@pytest.mark.parametrize("shift", positions.SHIFTS)
@examples(120)
@given(gaps=gap_lists, room=st.sampled_from([0, 1, 100]))
def test_gap_both_ways(shift: int, gaps: list[int], room: int) -> None:
    numbers = [sum(gaps[: index + 1]) + index for index in range(len(gaps))]
    words = numbers[-1] + 1 + room
    stream, low = positions.encode_gaps(np.array(numbers), shift)
    assert {"gaps": bytes(stream)} | ({"low": bytes(low)} if shift else {}) == slow_reader.encode_gap(numbers, shift)
    assert len(numbers) <= len(stream) <= positions.max_gaps(len(numbers), words, shift)
    if shift:
        assert len(low) == positions.low_size(len(numbers), shift)
    assert positions.decode_gaps(stream, low, shift, len(numbers), words).tolist() == numbers
    expect("TD-POS-005", positions.decode_gaps, stream, low, shift, len(numbers), numbers[-1])


@pytest.mark.parametrize("shift", positions.SHIFTS)
@examples(40)
@given(gaps=gap_lists)
def test_gaps_before_a_rank(shift: int, gaps: list[int]) -> None:
    numbers = np.cumsum(np.array(gaps) + 1) - 1
    stream, _ = positions.encode_gaps(numbers, shift)
    found = positions.gaps_before(stream, np.arange(1, len(numbers)))
    starts = [len(positions.encode_gaps(numbers[:rank], shift)[0]) for rank in range(1, len(numbers))]
    assert found.tolist() == starts


def test_gap_at_the_end_of_the_largest_chunk() -> None:
    last = 2**27 - 1
    for shift in positions.SHIFTS:
        stream, low = positions.encode_gaps(np.array([last]), shift)
        assert len(stream) == positions.max_gaps(1, 2**27, shift)
        assert positions.decode_gaps(stream, low, shift, 1, 2**27).tolist() == [last]


@pytest.mark.parametrize(
    ("gaps", "low", "shift", "changed", "words", "rule"),
    [
        ("0300", None, 0, 3, 100, "TD-POS-003"),
        ("030000", None, 0, 2, 100, "TD-POS-003"),
        ("03ff", None, 0, 2, 1000, "TD-POS-003"),
        ("0300ff", None, 0, 2, 1000, "TD-POS-004"),
        ("0306", None, 0, 2, 10, "TD-POS-005"),
        ("ffff03", None, 0, 1, 513, "TD-POS-005"),
        ("00", "05", 4, 1, 5, "TD-POS-005"),
        ("01", "00", 8, 1, 256, "TD-POS-005"),
        ("00", "10", 4, 1, 100, "TD-POS-006"),
        ("000000", "0080", 4, 3, 100, "TD-POS-006"),
    ],
)
def test_gap_faults(gaps: str, low: str | None, shift: int, changed: int, words: int, rule: str) -> None:
    stored = (octets(gaps), None if low is None else octets(low))
    expect(rule, positions.decode_gaps, *stored, shift, changed, words)
    with pytest.raises(slow_reader.Fault):
        slow_reader.decode_gap(bytes.fromhex(gaps), bytes.fromhex(low or ""), shift, changed, words)


@examples(200)
@given(st.binary(min_size=1, max_size=12), st.binary(min_size=12, max_size=12), st.sampled_from([0, 4, 8]), st.data())
def test_gap_of_any_bytes(gaps: bytes, low: bytes, shift: int, data: st.DataObject) -> None:
    """Any bytes of a legal size: both readers take them for the same positions, or refuse them."""
    words = data.draw(st.sampled_from([12, 300, 2000, 70_000, 2**27]))
    changed = data.draw(st.integers(max(1, len(gaps) - 3), len(gaps)))
    low = low[: positions.low_size(changed, shift)] if shift else b""
    try:
        wanted = slow_reader.decode_gap(gaps, low, shift, changed, words)
    except slow_reader.Fault:
        with pytest.raises(CodecFault):
            positions.decode_gaps(octets(gaps), octets(low) if shift else None, shift, changed, words)
        return
    found = positions.decode_gaps(octets(gaps), octets(low) if shift else None, shift, changed, words)
    assert found.tolist() == wanted


# -- positions bitmap (section 7.5) --------------------------------------------------------------------------------


def test_bitmap_worked() -> None:
    assert hexed(positions.encode_bitmap(np.array([0, 3, 9]), 10)) == "0902"
    assert slow_reader.encode_bitmap([0, 3, 9], 10)["bitmap"].hex() == "0902"
    assert positions.decode_bitmap(octets("0902"), 3, 10).tolist() == [0, 3, 9]


@examples(80)
@given(st.integers(1, 100), st.data())
def test_bitmap_both_ways(words: int, data: st.DataObject) -> None:
    numbers = sorted(data.draw(st.sets(st.integers(0, words - 1), min_size=1)))
    stream = positions.encode_bitmap(np.array(numbers), words)
    assert bytes(stream) == slow_reader.encode_bitmap(numbers, words)["bitmap"]
    assert positions.decode_bitmap(stream, len(numbers), words).tolist() == numbers
    assert slow_reader.decode_bitmap(bytes(stream), len(numbers), words) == numbers


@pytest.mark.parametrize(
    ("bitmap", "changed", "words", "rule"),
    [
        ("0902", 2, 10, "TD-POS-009"),
        ("0902", 4, 10, "TD-POS-009"),
        ("0906", 3, 10, "TD-POS-010"),
        ("0182", 2, 10, "TD-POS-010"),
        ("80", 1, 7, "TD-POS-010"),
    ],
)
def test_bitmap_faults(bitmap: str, changed: int, words: int, rule: str) -> None:
    expect(rule, positions.decode_bitmap, octets(bitmap), changed, words)
    with pytest.raises(slow_reader.Fault):
        slow_reader.decode_bitmap(bytes.fromhex(bitmap), changed, words)


# -- values step (section 7.7) -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("w", "base", "new", "code", "escape"),
    [
        (16, 0x3F80, 0x3F81, 1, None),
        (16, 0x3F7F, 0x3F7E, 0, None),
        (16, 0x3F80, 0x3F7E, 2, None),
        (16, 0x3F80, 0x3F82, 3, 0x0000),
        (16, 0x0000, 0xB8D1, 3, 0x8E59),
        (8, 0xFF, 0x00, 1, None),
        (8, 0x10, 0x90, 3, 0xFB),
        (32, 0x00000000, 0x3F800000, 3, 0x7EFFFFFC),
        (64, 0, 2**63, 3, 2**64 - 5),
        (64, 2**64 - 1, 0, 1, None),
    ],
)
def test_step_worked(w: int, base: int, new: int, code: int, escape: int | None) -> None:
    word = np.dtype(f"u{w // 8}")
    codes, escapes = values.encode_step(np.array([base], word), np.array([new], word))
    assert codes.tolist() == [code]
    planes = [] if escape is None else [escape >> (8 * j) & 255 for j in range(w // 8)]
    assert [plane.tolist() for plane in escapes] == [[each] for each in planes]
    assert values.decode_step(codes, escapes, np.array([base], word)).tolist() == [new]
    stored = [bytes([each]) for each in planes]
    assert slow_reader.decode_step([base], bytes([code]), stored, w) == [new]


@examples(60)
@given(rng=generators, count=st.integers(1, 70))
def test_escapes_before_a_rank(rng: np.random.Generator, count: int) -> None:
    base = rng.integers(0, 1 << 16, count, dtype=np.uint16)
    steps = rng.integers(1, 5, count).astype(np.uint16)
    codes, escapes = values.encode_step(base, base + steps)
    ranks = np.arange(count)
    escaped = (steps == 2) | (steps >= 3)
    assert values.escapes_before(codes, ranks).tolist() == [int(escaped[: rank // 4 * 4].sum()) for rank in ranks]
    assert (len(escapes[0]) if escapes else 0) == int(escaped.sum())


def test_codes_worked() -> None:
    """Codes 3, 3, 1, 0, 2 are the bytes 1F 02."""
    base = np.zeros(5, np.uint16)
    codes, escapes = values.encode_step(base, np.array([2, 3, 1, 0xFFFF, 0xFFFE], np.uint16))
    assert (hexed(codes), [hexed(plane) for plane in escapes]) == ("1f02", ["0002", "0000"])


def test_every_step_of_a_byte() -> None:
    base = np.repeat(np.arange(256, dtype=np.uint8), 255)
    new = base + np.tile(np.arange(1, 256, dtype=np.uint8), 256)
    codes, escapes = values.encode_step(base, new)
    expected = slow_reader.encode_step(base.tolist(), new.tolist(), 8)
    assert bytes(codes) == expected["codes"]
    assert [bytes(plane) for plane in escapes] == [expected["escapes.0"]]
    assert np.array_equal(values.decode_step(codes, escapes, base), new)


@pytest.mark.parametrize("w", WIDTHS)
@examples(60)
@given(rng=generators, count=st.integers(1, 70))
def test_step_both_ways(w: int, rng: np.random.Generator, count: int) -> None:
    base = random_words(rng, f"U{w}", count)
    new = stepped(rng, base, 1.0)
    codes, escapes = values.encode_step(base, new)
    expected = slow_reader.encode_step(base.tolist(), new.tolist(), w)
    assert {"codes": bytes(codes)} | {f"escapes.{j}": bytes(each) for j, each in enumerate(escapes)} == expected
    assert len(codes) == values.codes_size(count)
    assert values.check_codes(codes, count) == (len(escapes[0]) if escapes else 0)
    assert np.array_equal(values.decode_step(codes, escapes, base), new)
    assert slow_reader.decode_step(base.tolist(), bytes(codes), [bytes(each) for each in escapes], w) == new.tolist()


@pytest.mark.parametrize("w", WIDTHS)
def test_greatest_escape(w: int) -> None:
    """2^w - 5 is the step 2^(w-1); more would be the step 0, or past it."""
    word = np.dtype(f"u{w // 8}")
    base = np.array([5], word)
    for escape in (2**w - 5, 2**w - 4, 2**w - 1):
        planes = [np.array([escape >> (8 * j) & 255], np.uint8) for j in range(w // 8)]
        if escape == 2**w - 5:
            assert values.decode_step(octets("03"), planes, base).tolist() == [5 + 2 ** (w - 1)]
        else:
            expect("TD-VAL-002", values.decode_step, octets("03"), planes, base)


@pytest.mark.parametrize(("codes", "changed"), [("04", 1), ("10", 2), ("c0", 3), ("0040", 7), ("0080", 5)])
def test_padding_of_codes(codes: str, changed: int) -> None:
    expect("TD-VAL-003", values.check_codes, octets(codes), changed)


# -- values replace (section 7.8) ----------------------------------------------------------------------------------


def test_replace_worked() -> None:
    words = np.array([0x3F80, 0x3F80, 0x3F7F, 0x3F80], np.uint16)
    assert [hexed(plane) for plane in values.split_planes(words)] == ["80807f80", "3f3f3f3f"]


@pytest.mark.parametrize("w", WIDTHS)
@examples(30)
@given(rng=generators, count=st.integers(1, 70))
def test_replace_both_ways(w: int, rng: np.random.Generator, count: int) -> None:
    words = random_words(rng, f"U{w}", count)
    planes = values.split_planes(words)
    assert {f"values.{j}": bytes(each) for j, each in enumerate(planes)} == slow_reader.encode_replace(
        words.tolist(), w
    )
    assert np.array_equal(values.join_planes(planes, words.dtype), words)


# -- compression (section 7.10) ------------------------------------------------------------------------------------


def unpack(frame: bytes) -> bytes:
    """A frame's content, as a reader of chunks takes it."""
    return bytes(compression.decompress(frame, compression.content_size(frame)))


def raw_frame(
    data: bytes,
    *,
    flag: int = 2,
    single: bool = False,
    window: int = 0x50,
    checksum: bool = True,
    extra: int = 0,
    size: int | None = None,
    cut: int = 1000,
    tail: int = 0,
) -> bytes:
    """A frame of raw blocks, put together by hand."""
    head = b"\x28\xb5\x2f\xfd" + bytes([flag << 6 | single << 5 | checksum << 2 | extra])
    if not single:
        head += bytes([window])
    size = len(data) if size is None else size
    if flag or single:
        width = (1, 2, 4, 8)[flag]
        head += (size - (256 if flag == 1 else 0)).to_bytes(width, "little")
    blocks = [data[at : at + cut] for at in range(0, len(data), cut)] + [b""] * tail
    body = b"".join(
        (len(block) << 3 | (index == len(blocks) - 1)).to_bytes(3, "little") + block
        for index, block in enumerate(blocks)
    )
    return head + body + (compression.compress(np.frombuffer(data, np.uint8))[-4:] if checksum else b"")


RANDOM = os.urandom(3000)


@pytest.mark.parametrize("count", [1, 5, 255, 256, 257, 65_535, 65_792, 131_073, 1_000_000])
@pytest.mark.parametrize("kind", ["zero", "random", "text"])
def test_frames_of_the_writer(count: int, kind: str) -> None:
    """One frame with content size, checksum and no dictionary, which the slow reader's walk accepts."""
    rng = np.random.default_rng(count)
    stream = {"zero": np.zeros(count, np.uint8), "random": rng.integers(0, 256, count, np.uint8)}.get(
        kind, rng.integers(0, 4, count, np.uint8)
    )
    frame = compression.compress(stream)
    assert slow_reader.check_frame(frame, count, count) == count
    assert slow_reader.zstd.decompress(frame) == unpack(frame) == bytes(stream)
    # Cut anywhere, or with something after it, it is no frame.
    for other in (frame[:-1], frame[:-4], frame[: len(frame) // 2], frame[:5], frame[:4], b"", frame + b"\0"):
        with pytest.raises(CodecFault):
            unpack(other)
        with pytest.raises(slow_reader.Fault):
            slow_reader.check_frame(other, count, count)


def blocks_of(frame: bytes) -> list[int]:
    """The types of a frame's blocks; its header has a single segment and a content size of 4 bytes."""
    assert frame[4] & 0xE0 == 0xA0
    at, found = 9, []
    while True:
        head = int.from_bytes(frame[at : at + 3], "little")
        found.append(head >> 1 & 3)
        at += 3 + (1 if found[-1] == 1 else head >> 3)
        if head & 1:
            return found


@pytest.mark.parametrize(
    ("places", "count"),
    [
        ([], 1),
        ([40_000], 2),
        ([40_000, 40_001, 40_511], 2),  # blocks of few bytes are left out
        ([0, 511, 512, 99_999, 100_000, 100_001, 200_000], 3),  # so are those at the ends, and past them
        (list(range(600, 100_000, 600)), 167),
    ],
)
def test_frames_are_cut_into_blocks(places: list[int], count: int) -> None:
    rng = np.random.default_rng(1)
    stream = np.concatenate([rng.integers(0, 4, 40_000, np.uint8), rng.integers(100, 130, 60_000, np.uint8)])
    frame = compression.compress_cut(stream, places)
    assert len(blocks_of(frame)) == count
    assert slow_reader.check_frame(frame, len(stream), len(stream)) == len(stream)
    assert slow_reader.zstd.decompress(frame) == unpack(frame) == bytes(stream)


def test_a_cut_where_bytes_change_saves_some() -> None:
    rng = np.random.default_rng(1)
    stream = np.concatenate([rng.integers(0, 4, 40_000, np.uint8), rng.integers(100, 130, 60_000, np.uint8)])
    assert len(compression.compress_cut(stream, [40_000])) < 0.95 * len(compression.compress(stream))


def test_a_frame_that_was_interrupted_leaves_nothing_behind() -> None:
    """An error between two blocks, such as Ctrl-C, does not end up in the next frame of the thread."""
    stream = np.arange(5000).astype(np.uint8)

    def places() -> Iterator[int]:
        yield 1000
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compression.compress_cut(stream, places())
    assert unpack(compression.compress_cut(stream, [3000])) == bytes(stream)


@pytest.mark.parametrize(
    "frame",
    [
        raw_frame(RANDOM[:200], flag=0, single=True),
        raw_frame(RANDOM[:300], flag=1, single=True),
        raw_frame(RANDOM, flag=2, single=True),
        raw_frame(RANDOM, flag=3, single=True),
        raw_frame(RANDOM[:300], flag=1, window=0x00),
        raw_frame(RANDOM, flag=2, window=0x57),
        raw_frame(RANDOM, flag=3, window=0x88),  # exactly 2^27
        raw_frame(RANDOM, window=0x00, cut=100, tail=3),  # empty blocks at the end
        raw_frame(RANDOM, extra=0x10),  # bit 4 means nothing
        raw_frame(RANDOM, checksum=False),
    ],
)
def test_frames_of_every_form(frame: bytes) -> None:
    size = compression.content_size(frame)
    assert slow_reader.check_frame(frame, size, size) == size
    assert unpack(frame) == RANDOM[:size]


@pytest.mark.parametrize(
    ("frame", "rule"),
    [
        (b"", "TD-ZST-001"),
        (b"\x28\xb5\x2f\xfd", "TD-ZST-001"),
        (b"\x28\xb5\x2f\xfd\x24", "TD-ZST-001"),
        (b"\x28\xb5\x2f\xfc\x24\x00\x01\x00\x00\x00\x00\x00", "TD-ZST-001"),
        (b"\x27\xb5\x2f\xfd\x24\x00\x01\x00\x00\x00\x00\x00", "TD-ZST-001"),  # a legacy magic number
        (raw_frame(RANDOM, flag=2)[:9], "TD-ZST-001"),
        (raw_frame(RANDOM, flag=0), "TD-ZST-002"),
        (raw_frame(RANDOM, extra=1), "TD-ZST-005"),
        (raw_frame(RANDOM, extra=2), "TD-ZST-005"),
        (raw_frame(RANDOM, extra=3), "TD-ZST-005"),
        (raw_frame(RANDOM, extra=8), "TD-ZST-001"),
        (raw_frame(RANDOM) + b"\0", "TD-ZST-006"),
        (raw_frame(RANDOM) + raw_frame(b"x"), "TD-ZST-006"),
        (raw_frame(RANDOM) + struct.pack("<II", 0x184D2A50, 0), "TD-ZST-006"),
        (raw_frame(RANDOM)[:-1], "TD-ZST-006"),
        (struct.pack("<II", 0x184D2A50, 0) + raw_frame(RANDOM), "TD-ZST-007"),
        (struct.pack("<II", 0x184D2A5F, 4) + b"abcd", "TD-ZST-007"),
        (raw_frame(RANDOM, window=0x89), "TD-ZST-008"),
        (raw_frame(RANDOM, window=0x90), "TD-ZST-008"),
        (raw_frame(RANDOM, window=0xFF), "TD-ZST-008"),
        (raw_frame(RANDOM, size=2999), "TD-ZST-009"),
        (raw_frame(RANDOM, size=3001), "TD-ZST-009"),
        (raw_frame(RANDOM, size=5), "TD-ZST-009"),
        (raw_frame(RANDOM, size=2**20), "TD-ZST-009"),
    ],
)
def test_frame_faults(frame: bytes, rule: str) -> None:
    expect(rule, unpack, frame)
    with pytest.raises((slow_reader.Fault, slow_reader.zstd.ZstdError)):
        size = slow_reader.check_frame(frame, 1, 2**27)
        if len(slow_reader.zstd.decompress(frame)) != size:
            raise slow_reader.Fault("malformed", "another size")


def test_a_reserved_block_is_refused() -> None:
    frame = bytearray(raw_frame(RANDOM[:50], flag=0, single=True))
    frame[6] |= 6  # block type 3
    expect("TD-ZST-009", unpack, bytes(frame))
    with pytest.raises(slow_reader.Fault):
        slow_reader.check_frame(bytes(frame), 50, 50)


def test_a_small_frame_cannot_fill_memory() -> None:
    """A frame that decodes to more than it says stops at what it says."""
    bomb = compression.compress(np.zeros(50_000_000, np.uint8))
    at = 5 if bomb[4] & 0x20 else 6
    lying = bomb[:at] + (1000).to_bytes(4, "little") + bomb[at + 4 :]
    assert compression.content_size(lying) == 1000
    expect("TD-ZST-009", compression.decompress, lying, 1000)


@examples(150)
@given(st.data())
def test_frames_with_changed_bytes(data: st.DataObject) -> None:
    """Where the slow reader's walk refuses a frame, the reader does; what both take has the same content."""
    frame = bytearray(compression.compress(octets(bytes(range(40)) * 3 + RANDOM[:20])))
    for _ in range(data.draw(st.integers(1, 2))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    stored = bytes(frame)
    try:
        found: bytes | None = unpack(stored)
    except CodecFault:
        found = None
    try:
        size = slow_reader.check_frame(stored, 1, 2**27)
        wanted = slow_reader.zstd.decompress(stored)
        accepted = len(wanted) == size
    except (slow_reader.Fault, slow_reader.zstd.ZstdError):
        accepted = False
    assert accepted == (found is not None)
    if accepted:
        assert found == wanted


def test_steps_at_padding_boundaries() -> None:
    """Every count of codes up to two bytes, every code in the last place."""
    for count, last in itertools.product(range(1, 9), (1, 2**16 - 1, 2, 2**16 - 2, 7)):
        base = np.full(count, 100, np.uint16)
        new = base + np.array([1] * (count - 1) + [last], np.uint16)
        codes, escapes = values.encode_step(base, new)
        assert np.array_equal(values.decode_step(codes, escapes, base), new)
