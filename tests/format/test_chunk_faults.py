"""Chunks and packs with faults (SPEC.md sections 6 and 7): both readers refuse them with the same error."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from packs_by_hand import (
    Draft,
    Form,
    check,
    compress,
    encode,
    example,
    exponent_example,
    outcomes,
    reordered,
    zstd_example,
)
from slow_reader import zstd
from strategies import examples, slow

from tensordelta.errors import TensorDeltaError
from tensordelta.format import chunk as chunks
from tensordelta.format import chunk_codec
from tensordelta.format.chunk_codec import Piece
from tensordelta.format.layout import Layout, Tensor
from tensordelta.state.state import State

# -- faults --------------------------------------------------------------------------------------------------------

ABSENT = object()


def entry(index: int, **members: Any) -> Callable[[Draft], None]:
    """Changes members of a chunk entry."""

    def spoil(draft: Draft) -> None:
        for name, value in members.items():
            if value is ABSENT:
                del draft.entries[index][name]
            else:
                draft.entries[index][name] = value

    return spoil


def stream(index: int, **streams: bytes | None) -> Callable[[Draft], None]:
    """Changes streams of a chunk; `escapes_0` is the stream `escapes.0`."""

    def spoil(draft: Draft) -> None:
        for name, value in streams.items():
            if value is None:
                del draft.streams[index][name.replace("_", ".")]
            else:
                draft.streams[index][name.replace("_", ".")] = value

    return spoil


def header(change: Callable[[dict[str, Any]], Any]) -> Callable[[Draft], None]:
    """Changes the pack's header."""

    def spoil(draft: Draft) -> None:
        def apply(value: dict[str, Any]) -> dict[str, Any] | bytes:
            result = change(value)
            return value if result is None else result

        draft.header = apply

    return spoil


def setting(**fields: Any) -> Callable[[Draft], None]:
    """Sets fields of the draft."""

    def spoil(draft: Draft) -> None:
        for name, value in fields.items():
            setattr(draft, name, value)

    return spoil


def moved(value: dict[str, Any], name: str, begin: int, end: int) -> None:
    value[name]["data_offsets"] = [value[name]["data_offsets"][0] + begin, value[name]["data_offsets"][1] + end]
    value[name]["shape"] = [value[name]["data_offsets"][1] - value[name]["data_offsets"][0]]


def again(draft: Draft) -> None:
    """A third chunk that lists a word of the first one's slices."""
    form = Form("natural", 0, {"codec": "gap", "shift": 0}, "replace", "none")
    made, streams = encode(draft.old, draft.new, [(0, 39, 40)], [0], form)
    draft.entries.append(made)
    draft.streams.append(streams)


GAP = {"codec": "gap", "shift": 4}
FAULTS: list[tuple[str, Callable[[], Draft], Callable[[Draft], None], str, str]] = [
    # Section 6.1: the file.
    ("short file", example, setting(pack=lambda data: data[:7]), "malformed", "TD-PCK-001"),
    ("empty file", example, setting(pack=lambda data: b""), "malformed", "TD-PCK-001"),
    ("header cut", example, setting(pack=lambda data: data[:100]), "malformed", "TD-PCK-001"),
    (
        "long header",
        example,
        setting(pack=lambda data: (10**8 + 1).to_bytes(8, "little") + data[8:]),
        "limit",
        "TD-PCK-002",
    ),
    ("header of all ones", example, setting(pack=lambda data: b"\xff" * 8 + data[8:]), "limit", "TD-PCK-002"),
    ("no brace", example, header(lambda value: b" " + json.dumps(value).encode()), "malformed", "TD-PCK-003"),
    ("no header", example, setting(pack=lambda data: bytes(8)), "malformed", "TD-PCK-003"),
    ("byte after", example, setting(pack=lambda data: data + b"\0"), "malformed", "TD-PCK-004"),
    ("byte missing", example, setting(pack=lambda data: data[:-1]), "malformed", "TD-PCK-004"),
    ("hole", example, header(lambda value: moved(value, "0.low", 1, 0)), "malformed", "TD-PCK-004"),
    ("overlap", example, header(lambda value: moved(value, "0.low", -1, 0)), "malformed", "TD-PCK-004"),
    ("begins late", example, header(lambda value: moved(value, "0.gaps", 1, 0)), "malformed", "TD-PCK-004"),
    (
        "zeros after the JSON",
        example,
        header(lambda value: json.dumps(value).encode() + b"\0"),
        "malformed",
        "TD-JSN-003",
    ),
    ("byte order mark", example, header(lambda value: b"{" + json.dumps(value).encode()), "malformed", "TD-JSN-003"),
    (
        "twice",
        example,
        header(lambda value: json.dumps(value).encode()[:-1] + b', "0.gaps": {}}'),
        "malformed",
        "TD-JSN-004",
    ),
    # Section 6.2: the container.
    ("dtype of a stream", example, header(lambda value: value["0.gaps"].update(dtype="I8")), "malformed", "TD-PCK-008"),
    ("unknown dtype", example, header(lambda value: value["0.gaps"].update(dtype="V8")), "malformed", "TD-PCK-008"),
    ("shape", example, header(lambda value: value["0.gaps"].update(shape=[2])), "malformed", "TD-PCK-008"),
    ("two dimensions", example, header(lambda value: value["0.gaps"].update(shape=[3, 1])), "malformed", "TD-PCK-008"),
    ("no shape", example, header(lambda value: value["0.gaps"].pop("shape") and None), "malformed", "TD-PCK-008"),
    (
        "real offset",
        example,
        header(lambda value: value["0.gaps"].update(data_offsets=[0.0, 3])),
        "malformed",
        "TD-PCK-008",
    ),
    ("one offset", example, header(lambda value: value["0.gaps"].update(data_offsets=[3])), "malformed", "TD-PCK-008"),
    ("an entry that is none", example, header(lambda value: value.update({"0.gaps": None})), "malformed", "TD-PCK-008"),
    ("no metadata", example, header(lambda value: value.pop("__metadata__") and None), "malformed", "TD-PCK-010"),
    ("null metadata", example, header(lambda value: value.update(__metadata__=None)), "malformed", "TD-PCK-010"),
    ("array as metadata", example, header(lambda value: value.update(__metadata__=[])), "malformed", "TD-PCK-010"),
    ("number in metadata", example, setting(metadata={"step": 1}), "malformed", "TD-PCK-010"),
    ("table that is no string", example, setting(metadata={"tensordelta": {}}), "malformed", "TD-PCK-010"),
    ("no table", example, header(lambda value: value.update(__metadata__={"format": "pt"})), "malformed", "TD-PCK-010"),
    ("stream of no chunk", example, lambda draft: draft.streams.append({"gaps": b"\0"}), "malformed", "TD-PCK-012"),
    ("stream of another codec", example, stream(0, bitmap=b"\0"), "malformed", "TD-PCK-012"),
    ("plane too many", example, stream(0, escapes_2=b"\0"), "malformed", "TD-PCK-012"),
    ("low with shift 0", example, entry(0, positions={"codec": "gap", "shift": 0}), "malformed", "TD-PCK-012"),
    ("escapes with replace", example, stream(1, escapes_0=b"\0"), "malformed", "TD-PCK-012"),
    ("name without chunk", example, lambda draft: draft.streams[1].update({"": b"\0"}), "malformed", "TD-PCK-012"),
    (
        "zero before a number",
        example,
        header(lambda v: v.update({"00.gaps": v.pop("0.gaps")})),
        "malformed",
        "TD-PCK-012",
    ),
    (
        "a name with a newline",
        example,
        header(lambda v: v.update({"0.gaps\n": v.pop("0.gaps")})),
        "malformed",
        "TD-PCK-012",
    ),
    ("no gaps", example, stream(0, gaps=None), "malformed", "TD-PCK-013"),
    ("no low", example, stream(0, low=None), "malformed", "TD-PCK-013"),
    ("no codes", example, stream(0, codes=None), "malformed", "TD-PCK-013"),
    ("no bitmap", example, stream(1, bitmap=None), "malformed", "TD-PCK-013"),
    ("one plane of escapes", example, stream(0, escapes_0=None), "malformed", "TD-PCK-013"),
    ("one plane of values", example, stream(1, values_3=None), "malformed", "TD-PCK-013"),
    # Section 6.3: the table.
    ("later format", example, setting(table={"tensordelta": "2.0"}), "unsupported", "TD-VER-002"),
    ("no format", example, setting(table={"tensordelta": None}), "malformed", "TD-JSN-012"),
    ("another layout", example, setting(table={"layout": "0" * 64}), "malformed", "TD-CHK-003"),
    ("chunks is no array", example, setting(table={"chunks": {}}), "malformed", "TD-JSN-012"),
    ("a chunk is no object", example, setting(table={"chunks": [1]}), "malformed", "TD-JSN-012"),
    ("no chunks", example, lambda draft: (draft.entries.clear(), draft.streams.clear()), "malformed", "TD-CHK-001"),
    ("no slices", example, entry(0, slices=[]), "malformed", "TD-CHK-002"),
    ("slice of two", example, entry(0, slices=[[0, 0]]), "malformed", "TD-JSN-012"),
    ("slice of four", example, entry(0, slices=[[0, 0, 40, 1]]), "malformed", "TD-JSN-012"),
    ("negative slice", example, entry(0, slices=[[0, -1, 40]]), "malformed", "TD-JSN-009"),
    ("real slice", example, entry(0, slices=[[0, 0.0, 40]]), "malformed", "TD-JSN-009"),
    ("unsorted tensors", example, entry(0, slices=[[1, 4, 20], [0, 0, 40]]), "malformed", "TD-CHK-004"),
    ("unsorted slices", example, entry(0, slices=[[0, 20, 40], [0, 0, 20]]), "malformed", "TD-CHK-004"),
    ("overlapping slices", example, entry(0, slices=[[0, 0, 20], [0, 19, 40]]), "malformed", "TD-CHK-005"),
    ("equal slices", example, entry(0, slices=[[0, 0, 40], [0, 0, 40]]), "malformed", "TD-CHK-005"),
    ("empty slice", example, entry(0, slices=[[0, 0, 40], [1, 4, 4]]), "malformed", "TD-CHK-007"),
    ("backward slice", example, entry(0, slices=[[0, 40, 0]]), "malformed", "TD-CHK-007"),
    ("no such tensor", example, entry(0, slices=[[0, 0, 40], [4, 0, 1]]), "malformed", "TD-CHK-008"),
    ("past the end", example, entry(0, slices=[[0, 0, 41]]), "malformed", "TD-CHK-008"),
    ("far past the end", example, entry(0, slices=[[0, 0, 2**53 - 1]]), "malformed", "TD-CHK-008"),
    ("another dtype", example, entry(0, dtype="F16"), "malformed", "TD-CHK-009"),
    ("mixed dtypes", example, entry(0, slices=[[0, 0, 40], [2, 0, 10]]), "malformed", "TD-CHK-009"),
    ("unknown dtype of a chunk", example, entry(0, dtype="F128"), "unsupported", "TD-CHK-010"),
    ("nothing listed", example, entry(0, changed=0), "malformed", "TD-CHK-011"),
    ("more than n", example, entry(0, changed=57), "malformed", "TD-CHK-011"),
    ("changed as text", example, entry(0, changed="3"), "malformed", "TD-JSN-012"),
    ("changed too great", example, entry(0, changed=2**53), "malformed", "TD-JSN-010"),
    ("unknown order", example, entry(0, order={"codec": "mantissa"}), "unsupported", "TD-CHK-012"),
    ("unknown positions", example, entry(0, positions={"codec": "elias-fano", "k": 1}), "unsupported", "TD-CHK-012"),
    ("unknown values", example, entry(0, values={"codec": "xor"}), "unsupported", "TD-CHK-012"),
    ("unknown codec, empty", example, entry(0, values={"codec": ""}), "unsupported", "TD-CHK-012"),
    ("shift 5", example, entry(0, positions={"codec": "gap", "shift": 5}), "malformed", "TD-CHK-013"),
    ("shift 12", example, entry(0, positions={"codec": "gap", "shift": 12}), "malformed", "TD-CHK-013"),
    ("no shift", example, entry(0, positions={"codec": "gap"}), "malformed", "TD-CHK-013"),
    ("shift as text", example, entry(0, positions={"codec": "gap", "shift": "4"}), "malformed", "TD-CHK-013"),
    ("real shift", example, entry(0, positions={"codec": "gap", "shift": 4.0}), "malformed", "TD-CHK-013"),
    ("shift false", example, entry(0, positions={"codec": "gap", "shift": False}), "malformed", "TD-CHK-013"),
    ("no codec", example, entry(0, positions={"shift": 4}), "malformed", "TD-CHK-013"),
    ("codec is a number", example, entry(0, positions={"codec": 4, "shift": 4}), "malformed", "TD-CHK-013"),
    ("codec object is a string", example, entry(0, values="step"), "malformed", "TD-CHK-013"),
    ("codec object is null", example, entry(0, order=None), "malformed", "TD-CHK-013"),
    ("limit of natural", example, entry(0, order={"codec": "natural", "limit": 3}), "malformed", "TD-CHK-014"),
    ("note in gap", example, entry(0, positions={**GAP, "note": None}), "malformed", "TD-CHK-014"),
    ("note in bitmap", example, entry(1, positions={"codec": "bitmap", "shift": 0}), "malformed", "TD-CHK-014"),
    ("note in step", example, entry(0, values={"codec": "step", "w": 16}), "malformed", "TD-CHK-014"),
    ("note in replace", example, entry(1, values={"codec": "replace", "": 0}), "malformed", "TD-CHK-014"),
    ("unknown compression", example, entry(0, compression="lz4"), "unsupported", "TD-CHK-015"),
    ("compression is null", example, entry(0, compression=None), "malformed", "TD-JSN-012"),
    ("result in capitals", example, entry(0, result="A" * 16), "malformed", "TD-JSN-015"),
    *(
        (f"no {name}", example, entry(0, **{name: ABSENT}), "malformed", "TD-JSN-011")
        for name in ("dtype", "slices", "changed", "order", "positions", "values", "compression", "result")
    ),
    # Sections 7.3 to 7.8: combinations and streams.
    (
        "no exponent field",
        example,
        entry(1, dtype="F32", order={"codec": "exponent", "limit": 1}),
        "malformed",
        "TD-VAL-006",
    ),
    ("limit 0", exponent_example, entry(0, order={"codec": "exponent", "limit": 0}), "malformed", "TD-CHK-013"),
    ("limit 257", exponent_example, entry(0, order={"codec": "exponent", "limit": 257}), "malformed", "TD-ORD-004"),
    ("limit 4096", exponent_example, entry(0, order={"codec": "exponent", "limit": 4096}), "malformed", "TD-CHK-013"),
    ("no limit", exponent_example, entry(0, order={"codec": "exponent"}), "malformed", "TD-CHK-013"),
    ("feature not listed", exponent_example, setting(features=[]), "malformed", "TD-MAN-006"),
    ("all, but m < n", example, entry(1, positions={"codec": "all"}), "malformed", "TD-POS-011"),
    ("gap ends", example, stream(0, gaps=b"\0\0\xff"), "malformed", "TD-POS-003"),
    ("gaps short", example, stream(0, gaps=b"\0\0"), "malformed", "TD-CHK-019"),
    ("gaps long", example, stream(0, gaps=bytes(4)), "malformed", "TD-CHK-019"),
    ("gaps empty", example, stream(0, gaps=b""), "malformed", "TD-CHK-019"),
    ("low long", example, stream(0, low=bytes(3)), "malformed", "TD-CHK-019"),
    ("position past the end", example, stream(0, gaps=b"\0\0\x03"), "malformed", "TD-POS-005"),
    (
        "padding of low",
        example,
        lambda d: stream(0, low=d.streams[0]["low"][:1] + b"\x1a")(d),
        "malformed",
        "TD-POS-006",
    ),
    ("bitmap long", example, stream(1, bitmap=bytes(3)), "malformed", "TD-CHK-019"),
    ("bitmap counts", example, stream(1, bitmap=b"\x01\x03"), "malformed", "TD-POS-009"),
    ("padding of bitmap", example, stream(1, bitmap=b"\x01\x06"), "malformed", "TD-POS-010"),
    ("codes long", example, stream(0, codes=b"\x35\0"), "malformed", "TD-CHK-019"),
    ("padding of codes", example, stream(0, codes=b"\xf5"), "malformed", "TD-VAL-003"),
    ("escapes, but no code 3", example, stream(0, codes=b"\x15"), "malformed", "TD-CHK-020"),
    ("no escapes", example, stream(0, escapes_0=None, escapes_1=None), "malformed", "TD-CHK-021"),
    ("more escapes", example, stream(0, codes=b"\x3d"), "malformed", "TD-CHK-019"),
    ("escapes long", example, stream(0, escapes_1=b"\0\0"), "malformed", "TD-CHK-019"),
    ("escapes uneven", example, stream(0, escapes_0=b"\0\0"), "malformed", "TD-CHK-019"),
    ("greatest escape", example, stream(0, escapes_0=b"\xfc", escapes_1=b"\xff"), "malformed", "TD-VAL-002"),
    ("values short", example, stream(1, values_0=b"\0"), "malformed", "TD-CHK-019"),
    # Section 7.10.
    (
        "stored as it is",
        zstd_example,
        lambda d: stream(0, gaps=zstd.decompress(d.streams[0]["gaps"]))(d),
        "malformed",
        "TD-ZST-001",
    ),
    ("of another size", zstd_example, stream(0, gaps=compress(bytes(4))), "malformed", "TD-ZST-003"),
    ("two frames", zstd_example, lambda d: stream(0, gaps=d.streams[0]["gaps"] * 2)(d), "malformed", "TD-ZST-006"),
    ("empty frame", zstd_example, stream(0, gaps=compress(b"")), "malformed", "TD-ZST-003"),
    ("no bytes", zstd_example, stream(0, gaps=b""), "malformed", "TD-ZST-001"),
    (
        "skippable",
        zstd_example,
        lambda d: stream(0, gaps=b"\x50\x2a\x4d\x18\0\0\0\0" + d.streams[0]["gaps"])(d),
        "malformed",
        "TD-ZST-007",
    ),
    # Section 8.3, 9.1.
    ("chunk result", example, entry(0, result="0" * 16), "wrong-base", "TD-CHK-024"),
    ("another step", example, stream(0, codes=b"\x34"), "wrong-base", "TD-CHK-024"),
    ("another word", example, stream(1, values_3=b"\0\0"), "wrong-base", "TD-CHK-024"),
    ("chunk left out", example, lambda draft: (draft.entries.pop(), draft.streams.pop()), "integrity", "TD-RDR-007"),
    # Section 4.8: what the manifest says of the pack.
    ("tensors begin", example, setting(described={"tensors": [[1, 3]]}), "malformed", "TD-MAN-030"),
    ("tensors out of the layout", example, setting(described={"tensors": [[0, 5]]}), "malformed", "TD-MAN-001"),
    ("changed differs", example, setting(described={"changed": 6}), "malformed", "TD-MAN-011"),
    ("size", example, setting(described={"size": 10}), "integrity", "TD-MAN-013"),
    ("digest", example, setting(described={"sha256": "0" * 64}), "integrity", "TD-MAN-013"),
    ("gone", example, setting(described={"path": "packs/gone"}), "missing", "TD-MAN-014"),
    ("named twice", example, again, "malformed", "TD-MAN-019"),
]


@pytest.mark.parametrize(
    ("make", "spoil", "error", "rule"), [each[1:] for each in FAULTS], ids=[each[0] for each in FAULTS]
)
def test_faults(make: Callable[[], Draft], spoil: Callable[[Draft], None], error: str, rule: str) -> None:
    draft = make()
    spoil(draft)
    found, wanted = outcomes(draft.build())
    assert isinstance(found, TensorDeltaError), "accepted"
    assert (found.name, found.rule) == (error, rule), found
    assert wanted == error


@pytest.mark.parametrize("make", [example, exponent_example, zstd_example])
def test_the_unspoilt_examples(make: Callable[[], Draft]) -> None:
    draft = make()
    check(draft.build(), draft.new)


@pytest.mark.parametrize(
    "spoil",
    [
        header(lambda value: json.dumps(value).encode() + b" \n\t\r  "),
        header(reordered),
        header(lambda value: json.dumps(value, indent=3).encode()),
        setting(metadata={"format": "pt", "é": "any string"}),
        setting(table={"note": {"a": [1.5, None]}}),
        setting(features=["exponent-order"]),  # listed, but not used
        entry(0, note={"codec": 3}),
        entry(1, slices=[[2, 0, 4], [2, 4, 10]]),  # adjacent slices
    ],
)
def test_what_means_nothing(spoil: Callable[[Draft], None]) -> None:
    draft = example()
    spoil(draft)
    check(draft.build(), draft.new)


def test_streams_in_any_order_in_the_buffer() -> None:
    draft = example()
    draft.streams = [dict(reversed(streams.items())) for streams in draft.streams]
    check(draft.build(), draft.new)


def test_a_table_may_be_nested_by_itself() -> None:
    """16 levels in the table, though its string lies two levels deep in the header."""
    draft = example()
    deep: Any = []
    for _ in range(14):
        deep = [deep]
    draft.table = {"note": deep}
    check(draft.build(), draft.new)
    draft.table = {"note": [deep]}
    found, wanted = outcomes(draft.build())
    assert isinstance(found, TensorDeltaError)
    assert (found.name, found.rule, wanted) == ("limit", "TD-JSN-008", "limit")


def test_limits_of_n() -> None:
    """2^27 words are accepted, 2^24 in a group of order exponent; one more is beyond the limit."""
    layout = Layout([Tensor("w", "BF16", (2**28,)), Tensor("x", "U8", (9,))])
    good = {
        "dtype": "BF16",
        "slices": [[0, 0, 2**27]],
        "changed": 1,
        "order": {"codec": "natural"},
        "positions": {"codec": "bitmap"},
        "values": {"codec": "step"},
        "compression": "none",
        "result": "0" * 16,
    }
    exponent = {**good, "order": {"codec": "exponent", "limit": 256}, "slices": [[0, 0, 2**24]]}
    for table_entry in (good, exponent):
        chunks.check(chunks.parse(table_entry, object="chunk"), layout, object="chunk")
    beyond = [
        ({**good, "slices": [[0, 0, 2**27 + 1]]}, "limit", "TD-CHK-016"),
        ({**good, "slices": [[0, 0, 2**26], [0, 2**27, 2**27 + 2**26 + 1]]}, "limit", "TD-CHK-016"),
        ({**exponent, "slices": [[0, 0, 2**24 + 1]]}, "limit", "TD-ORD-005"),
        ({**exponent, "dtype": "U8", "slices": [[1, 0, 9]]}, "malformed", "TD-ORD-003"),
        ({**exponent, "positions": {"codec": "all"}, "changed": 2**24}, "malformed", "TD-POS-012"),
        ({**exponent, "values": {"codec": "replace"}}, "malformed", "TD-VAL-006"),
    ]
    for table_entry, error, rule in beyond:
        with pytest.raises(TensorDeltaError) as caught:
            chunks.check(chunks.parse(table_entry, object="chunk"), layout, object="chunk")
        assert (caught.value.name, caught.value.rule) == (error, rule)


def test_the_largest_gap_chunk_decodes() -> None:
    """One word at the end of 2^27: the stream of escapes is as long as it gets."""
    count = 2**27
    layout = Layout([Tensor("w", "U8", (count,))])
    old = np.zeros(count, np.uint8)
    piece = Piece(0, 0, count, np.array([count - 1]), old[-1:], np.array([200], np.uint8))
    encoded = chunk_codec.encode([piece], layout)
    chunks.check(encoded.chunk, layout, object="chunk")

    class Base:
        def is_zero(self, tensor: int) -> bool:
            return False

        def wants(self, tensor: int, start: int, stop: int) -> bool:
            return True

        def is_whole(self, tensor: int) -> bool:
            return True

        def held(self, tensor: int, indices: np.ndarray) -> slice:
            return slice(None)

        def take(self, tensor: int, indices: np.ndarray) -> np.ndarray:
            return old[indices]

        def part(self, tensor: int, start: int, stop: int) -> np.ndarray:
            return old[start:stop]

    def read(name: str) -> memoryview | None:
        found = encoded.streams.get(name)
        return None if found is None else memoryview(found)

    (decoded,) = chunk_codec.decode(encoded.chunk, layout, read, Base(), object="chunk").pieces
    assert (decoded.indices.tolist(), decoded.new.tolist()) == ([count - 1], [200])


# -- changed at random ---------------------------------------------------------------------------------------------


def spoilt(draw: Callable[[st.SearchStrategy[Any]], Any], draft: Draft) -> None:
    """Changes one thing of a pack: a number or word of its table, or bytes of a stream."""
    numbers = st.sampled_from(
        [0, 1, 2, 3, 4, 5, 8, 9, 10, 16, 20, 39, 40, 41, 56, 57, 256, 2**27, 2**53, -1, 1.0, "1", None]
    )
    chunk = draw(st.integers(0, len(draft.entries) - 1))
    if draw(st.booleans()):
        name = draw(st.sampled_from(sorted(draft.streams[chunk])))
        data = bytearray(draft.streams[chunk][name])
        at = draw(st.integers(0, len(data)))
        what = draw(st.sampled_from(["change", "change", "cut", "add"]))
        if what == "change" and at < len(data):
            data[at] ^= draw(st.sampled_from([1, 2, 3, 4, 16, 64, 128, 255]))
        elif what == "cut":
            del data[at:]
        else:
            data[at:at] = bytes([draw(st.sampled_from([0, 1, 255]))])
        draft.streams[chunk][name] = bytes(data)
        return
    member = draw(st.sampled_from(sorted(draft.entries[chunk])))
    if member == "slices":
        slices = draft.entries[chunk]["slices"]
        which = slices[draw(st.integers(0, len(slices) - 1))]
        which[draw(st.integers(0, 2))] = draw(numbers)
    elif member == "changed":
        draft.entries[chunk]["changed"] = draw(numbers)
    elif member == "order":
        draft.entries[chunk]["order"] = draw(
            st.sampled_from([{"codec": "natural"}]) | numbers.map(lambda each: {"codec": "exponent", "limit": each})
        )
    elif member == "positions":
        draft.entries[chunk]["positions"] = draw(
            st.sampled_from([{"codec": "bitmap"}, {"codec": "all"}, {"codec": "natural"}])
            | numbers.map(lambda each: {"codec": "gap", "shift": each})
        )
    elif member == "values":
        draft.entries[chunk]["values"] = {"codec": draw(st.sampled_from(["step", "replace", "", "gap"]))}
    elif member == "compression":
        draft.entries[chunk]["compression"] = draw(st.sampled_from(["none", "zstd", "gzip"]))
    else:
        draft.entries[chunk][member] = draw(st.sampled_from(["BF16", "F32", "F16", "U8", "", "0" * 16]))


@examples(250)
@given(st.data())
def test_both_readers_agree_on_spoilt_packs(data: st.DataObject) -> None:
    make = data.draw(st.sampled_from([example, exponent_example, zstd_example]))
    draft = copy.deepcopy(make())
    draft.features = ["exponent-order"]
    changes = data.draw(st.integers(1, 2))
    for _ in range(changes):
        spoilt(data.draw, draft)
    found, wanted = outcomes(draft.build())
    if isinstance(found, State):
        assert slow(found) == wanted
    elif changes == 1:
        assert found.name == wanted, found
    else:  # which of two faults is reported is free
        assert isinstance(wanted, str), found
