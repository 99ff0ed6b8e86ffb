"""The entries and the metadata of a chunk pack's header, and two packs in each other's place (SPEC.md section 6.2)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from generate.areas.packs import AREA, NEW, OLD, PARTS, SIZE, Header, fault
from generate.builder import Builder, Pack, manifest_name, of_chunks
from generate.cases import read, reject
from generate.pair import Part, chain, made
from generate.standard import without


def _entry_faults() -> None:
    kinds: list[tuple[str, str, str, Callable[[Header], Any]]] = [
        ("of-dtype-i8", "The dtype of a stream is I8", "TD-PCK-008", lambda h: h["0.gaps"].update(dtype="I8")),
        (
            "of-a-dtype-in-lower-case",
            "The dtype of a stream is u8",
            "TD-PCK-008",
            lambda h: h["0.gaps"].update(dtype="u8"),
        ),
        (
            "of-shape-1-3",
            "A stream of three bytes has the shape [1, 3]",
            "TD-PCK-008",
            lambda h: h["0.gaps"].update(shape=[1, 3]),
        ),
        (
            "of-shape-nothing",
            "A stream of one byte has the shape []",
            "TD-PCK-008",
            lambda h: h["0.codes"].update(shape=[]),
        ),
        (
            "of-another-shape",
            "The shape of a stream is one more than its bytes",
            "TD-PCK-008",
            lambda h: h["0.gaps"].update(shape=[4]),
        ),
        (
            "with-a-member-more",
            "An entry has a member that the format lacks",
            "TD-PCK-009",
            lambda h: h["0.gaps"].update(note=""),
        ),
        ("without-dtype", "An entry has no dtype", "TD-PCK-008", lambda h: h["0.gaps"].pop("dtype")),
        ("without-shape", "An entry has no shape", "TD-PCK-008", lambda h: h["0.gaps"].pop("shape")),
        ("without-offsets", "An entry has no offsets", "TD-PCK-008", lambda h: h["0.gaps"].pop("data_offsets")),
        (
            "with-three-offsets",
            "An entry has three offsets",
            "TD-PCK-008",
            lambda h: h["0.gaps"]["data_offsets"].append(3),
        ),
        ("with-one-offset", "An entry has one offset", "TD-PCK-008", lambda h: h["0.gaps"]["data_offsets"].pop()),
        (
            "with-a-string-for-an-offset",
            "An offset is a string",
            "TD-PCK-008",
            lambda h: h["0.gaps"].update(data_offsets=["0", 3]),
        ),
        ("that-is-null", "An entry is null", "TD-PCK-008", lambda h: h.update({"0.gaps": None})),
        ("that-is-an-array", "An entry is an array", "TD-PCK-008", lambda h: h.update({"0.gaps": ["U8", [3], [0, 3]]})),
    ]
    for slug, title, rule, header in kinds:
        fault(f"entry-{slug}", title, rule, header=header)
    metadata: list[tuple[str, str, Callable[[Header], Any]]] = [
        ("absent", "The header has no metadata", without("__metadata__")),
        ("null", "The metadata are null", lambda h: h.update(__metadata__=None)),
        (
            "that-are-the-table",
            "The metadata are the chunk table, as a string",
            lambda h: h.update(__metadata__=h["__metadata__"]["tensordelta"]),
        ),
        ("without-a-table", "The metadata have no chunk table", lambda h: h.update(__metadata__={"format": "pt"})),
        (
            "with-the-table-under-another-name",
            "The key of the chunk table is TensorDelta",
            lambda h: h.update(__metadata__={"TensorDelta": h["__metadata__"]["tensordelta"]}),
        ),
        (
            "with-a-number",
            "A metadatum beside the chunk table is a number",
            lambda h: h["__metadata__"].update(step=420),
        ),
        ("with-null", "A metadatum beside the chunk table is null", lambda h: h["__metadata__"].update(step=None)),
        ("with-the-table-as-an-object", "The chunk table is an object and not a string that holds one", _unwrapped),
        ("with-a-table-of-null", "The chunk table is null", lambda h: h["__metadata__"].update(tensordelta=None)),
    ]
    for slug, title, header in metadata:
        fault(f"metadata-{slug}", title, "TD-PCK-010", header=header)


def _unwrapped(header: Header) -> None:
    header["__metadata__"]["tensordelta"] = json.loads(header["__metadata__"]["tensordelta"])


def _streams() -> None:
    def added(name: str, **members: Any) -> Callable[[Header], None]:
        entry = {"dtype": "U8", "shape": [0], "data_offsets": [0, 0], **members}
        return lambda header: header.update({name: entry})

    for slug, title, name in (
        ("of-no-chunk", "An entry is the gaps of a third chunk", "2.gaps"),
        ("that-is-unknown", "An entry is a stream that no codec has", "0.extra"),
        ("of-another-codec", "An entry is the bitmap of a chunk with gaps", "0.bitmap"),
        ("of-another-value-codec", "An entry is a plane of values of a chunk with steps", "0.values.0"),
        ("of-a-plane-too-high", "An entry is the third plane of words of 16 bits", "1.values.2"),
        ("without-a-chunk", "The name of an entry has no chunk", "gaps"),
        ("without-a-stream", "The name of an entry has no stream", "0"),
        ("of-a-tensor", "The name of an entry is that of a tensor", "a"),
        ("with-a-leading-zero-beside", "An entry is named with a leading zero, beside the right one", "00.gaps"),
    ):
        fault(f"stream-{slug}", f"{title}; it has no bytes", "TD-PCK-012", header=added(name))
    fault(
        "stream-that-is-unknown-with-bytes",
        "An entry is a stream that no codec has, with a byte",
        "TD-PCK-012",
        header=added("0.extra", shape=[1], data_offsets=[SIZE, SIZE + 1]),
        pack=lambda data: data + b"\0",
    )

    def renamed(old: str, new: str) -> Callable[[Header], None]:
        def change(header: Header) -> None:
            header[new] = header.pop(old)

        return change

    for slug, title, name in (
        ("with-a-leading-zero", "The name of a stream begins with 00", "00.gaps"),
        ("with-a-plus", "The name of a stream begins with +0", "+0.gaps"),
        ("with-a-space", "The name of a stream begins with a space", " 0.gaps"),
        ("with-an-arabic-digit", "The chunk in the name of a stream is an Arabic-Indic digit", "\u0660.gaps"),
        ("in-upper-case", "The name of a stream is in upper case", "0.GAPS"),
        ("with-a-slash", "The name of a stream has a slash for the dot", "0/gaps"),
    ):
        fault(f"stream-named-{slug}", title, "TD-PCK-012", header=renamed("0.gaps", name))
    for name in ("0.gaps", "0.low", "0.codes", "1.bitmap", "1.values.0", "1.values.1"):
        fault(
            f"stream-{name.replace('.', '-')}-missing",
            f"There is no entry for the stream {name}",
            "TD-PCK-013",
            parts=_without(name),
        )


def _without(name: str) -> list[Part]:
    """The chunks without a stream, the others being together."""
    number, _, stream = name.partition(".")
    return [replace(part, streams={stream: None} if int(number) == at else {}) for at, part in enumerate(PARTS)]


def _two(*swaps: Callable[[Builder], None]) -> Builder:
    """The chunks in a pack each, and what is done to them."""

    def packs(_: Builder, layout: str) -> list[Pack]:
        return [of_chunks([made(OLD, NEW, part)], layout) for part in PARTS]

    builder = chain(OLD, NEW, more=packs)()
    for swap in swaps:
        swap(builder)
    return builder


def _names(builder: Builder) -> list[str]:
    return builder.pack_names(1)


def _objects(builder: Builder) -> None:
    """Each object of two has the bytes of the other."""
    first, second = _names(builder)
    one, other = builder.get(first), builder.get(second)
    builder.put(first, other)
    builder.put(second, one)


def _members(*members: str) -> Callable[[Builder], None]:
    """Each entry of two has these members of the other."""

    def swap(builder: Builder) -> None:
        document = json.loads(builder.get(manifest_name(1)))
        first, second = document["packs"]
        for member in members:
            first[member], second[member] = second[member], first[member]
        builder.put(manifest_name(1), json.dumps(document).encode())

    return swap


def _swapped() -> None:
    twin = "packs-of-a-chunk-each"
    read(
        twin,
        area=AREA,
        title="A delta of two packs with a chunk each",
        requirements=["TD-MAN-013"],
        chain=_two,
    )
    read(
        "packs-at-each-others-paths",
        area=AREA,
        title="Each of two packs lies under the name with the other's digest, as the manifest says",
        requirements=["TD-PTH-005"],
        chain=lambda: _two(_objects, _members("path")),
    )
    for slug, title, rule, error, swap in (
        ("swapped-as-objects", "Each of two packs lies under the other's name", "TD-MAN-013", "integrity", _objects),
        (
            "swapped-paths",
            "The entries of two packs have each other's paths",
            "TD-MAN-013",
            "integrity",
            _members("path"),
        ),
        (
            "swapped-ranges",
            "The entries of two packs have each other's tensors",
            "TD-MAN-010",
            "malformed",
            _members("tensors"),
        ),
    ):
        whole = _two(swap)
        reject(
            f"packs-{slug}",
            area=AREA,
            title=title,
            requirements=[rule],
            chain=partial(_two, swap),
            error=error,
            twin=twin,
            verify=[{"error": [error], "object": [manifest_name(1), *_names(whole)]}],
        )


_entry_faults()
_streams()
_swapped()
