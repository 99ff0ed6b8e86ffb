"""The file of a pack, and the header of a chunk pack (SPEC.md sections 6.1 and 6.2)."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from generate.cases import read, reject
from generate.model import Model, tensor
from generate.pair import Build, Part, chain, moved
from generate.standard import replaced

AREA = "packs"
TWIN = "pack-of-two-chunks"
OLD: Model = {"a": tensor("BF16", (5, 8), 0x3F80), "b": tensor("U16", (20,), 7)}
NEW = moved(moved(OLD, {3: 0x3F81, 4: 0x3F90, 39: 0x4000}, "a"), {0: 1, 19: 0x0202}, "b")
#: Streams 0.gaps, 0.low, 0.codes, 0.escapes.0, 0.escapes.1, 1.bitmap, 1.values.0 and 1.values.1.
PARTS = (Part([("a", 0, 40)], shift=8), Part([("b", 0, 20)], positions="bitmap", values="replace"))
Header = dict[str, Any]


def pack(parts: Sequence[Part] = PARTS, **how: Any) -> Build:
    """The chain of two chunks; what is given is done to its pack."""
    return chain(OLD, NEW, *parts, **how)


def fault(
    slug: str, title: str, rule: str, error: str | tuple[str, ...] = "malformed", twin: str = TWIN, **how: Any
) -> None:
    """Register a fault of the pack of two chunks."""
    reject(slug, area=AREA, title=title, requirements=[rule], chain=pack(**how), error=error, twin=twin)


def valid(slug: str, title: str, rule: str, **how: Any) -> None:
    """Register a pack of two chunks in another form."""
    read(slug, area=AREA, title=title, requirements=[rule], chain=pack(**how))


def parted(data: bytes) -> tuple[bytes, bytes]:
    """Header and buffer of a pack."""
    stop = 8 + int.from_bytes(data[:8], "little")
    return data[8:stop], data[stop:]


def joined(header: bytes, buffer: bytes) -> bytes:
    """A pack of a header and a buffer."""
    return len(header).to_bytes(8, "little") + header + buffer


def entries(data: bytes) -> Header:
    """The entries of a pack's header."""
    header: Header = json.loads(parted(data)[0])
    del header["__metadata__"]
    return header


def _sound() -> bytes:
    """The pack of two chunks."""
    builder = pack()()
    return builder.get(builder.pack_names(1)[0])


DATA = _sound()
SIZE = len(parted(DATA)[1])


def buffer(how: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """Change the buffer of a pack."""

    def change(data: bytes) -> bytes:
        header, rest = parted(data)
        return joined(header, how(rest))

    return change


def shifted(by: int, first: int = 0) -> Callable[[Header], None]:
    """Move the entries that begin at a place or after it."""

    def move(header: Header) -> None:
        for name, entry in header.items():
            if name != "__metadata__" and entry["data_offsets"][0] >= first:
                entry["data_offsets"] = [at + by for at in entry["data_offsets"]]

    return move


def _valid() -> None:
    valid(TWIN, "A pack of two chunks with streams of every kind", "TD-PCK-013")
    valid(
        "pack-with-streams-in-reverse",
        "The streams lie in the buffer in the reverse of their order in the header",
        "TD-PCK-005",
        reverse=True,
    )

    def turned(header: Header) -> None:
        members = [*reversed(header.items())]
        header.clear()
        header.update(members)

    valid(
        "pack-with-entries-in-reverse",
        "The entries stand in the header in the reverse of their order in the buffer, the chunk table last",
        "TD-PCK-005",
        header=turned,
    )

    def inside(header: Header) -> None:
        for name in header:
            if name != "__metadata__":
                header[name] = dict(reversed(header[name].items()))

    valid(
        "pack-with-members-in-another-order",
        "The members of the entries stand in another order",
        "TD-PCK-005",
        header=inside,
    )
    for slug, title, pad in (
        ("nothing", "Nothing follows the header's object, and the buffer is aligned to nothing", b""),
        ("one-space", "One space follows the header's object", b" "),
        ("white-space", "White space of all four kinds follows the header's object", b"\n \t\r\n"),
        ("many-spaces", "A thousand spaces follow the header's object", b" " * 1000),
    ):
        valid(f"pack-header-followed-by-{slug}", title, "TD-PCK-006", pad=pad)
    valid(
        "pack-with-other-metadata",
        "The metadata has other keys than tensordelta",
        "TD-PCK-011",
        header=lambda header: header["__metadata__"].update({"format": "pt", "": "\n", "Tensordelta": "{}"}),
    )
    valid(
        "pack-header-with-white-space-and-escapes",
        "The header has white space in it, and names with escapes",
        "TD-JSN-003",
        header_text=lambda text: text.replace(b'"0.gaps":', b'"\\u0030.g\\u0061ps" :\r\n\t').replace(b"[0,", b"[ 0 ,"),
    )

    def swapped(header: Header) -> None:
        header["__metadata__"] = dict(reversed([*header["__metadata__"].items(), ("format", "pt")]))

    valid(
        "pack-with-the-table-after-other-metadata",
        "The chunk table is the last of several metadata",
        "TD-PCK-011",
        header=swapped,
    )


def _truncated() -> None:
    """The file ends at each edge of its structure; its size and digest are those of the manifest."""
    head = len(DATA) - SIZE
    edges: list[tuple[str, str, int]] = [
        ("before-its-first-byte", "has no bytes", 0),
        ("in-the-header-length", "ends in the header's length, after 7 bytes", 7),
        ("after-the-header-length", "ends after the header's length, after 8 bytes", 8),
        ("in-the-header", "ends in the header", head // 2),
        ("before-the-last-byte-of-the-header", "ends before the last byte of the header, a space", head - 1),
    ]
    for slug, text, length in edges:
        fault(f"pack-ends-{slug}", f"The pack {text}", "TD-PCK-001", pack=lambda data, length=length: data[:length])
    for name, entry in entries(DATA).items():
        begin = head + entry["data_offsets"][0]
        place = "after the header" if begin == head else f"before the stream {name}"
        fault(
            f"pack-ends-{place.replace(' ', '-').replace('.', '-')}",
            f"The pack ends {place}",
            "TD-PCK-004",
            pack=lambda data, begin=begin: data[:begin],
        )
    fault("pack-ends-a-byte-early", "The pack lacks its last byte", "TD-PCK-004", pack=lambda data: data[:-1])


def _lengths() -> None:
    for slug, title, rule, error, length in (
        ("0", "The length of the header is 0", "TD-PCK-003", "malformed", 0),
        ("2", "The header ends after two bytes", "TD-JSN-003", "malformed", 2),
        ("one-past-the-file", "The header is one byte longer than the file", "TD-PCK-001", "malformed", None),
        (
            "100000000",
            "The length of the header is the greatest that is allowed, and that of the file is not",
            "TD-PCK-001",
            "malformed",
            100_000_000,
        ),
        ("100000001", "The length of the header is 100,000,001", "TD-PCK-002", "limit", 100_000_001),
        ("2-32", "The length of the header is 2^32 more than it is", "TD-PCK-002", "limit", -1),
        ("2-63", "The length of the header is 2^63", "TD-PCK-002", "limit", 1 << 63),
        ("2-64-minus-1", "The length of the header is 2^64 - 1", "TD-PCK-002", "limit", (1 << 64) - 1),
    ):

        def longer(data: bytes, length: int | None = length) -> bytes:
            if length is None:
                length = len(data) - 7
            elif length < 0:
                length = (1 << 32) + len(parted(data)[0])
            return length.to_bytes(8, "little") + data[8:]

        fault(f"pack-header-length-{slug}", title, rule, error, pack=longer)
    fault(
        "pack-header-length-big-endian",
        "The length of the header is big-endian",
        "TD-PCK-002",
        "limit",
        pack=lambda data: data[7::-1] + data[8:],
    )


def _texts() -> None:
    """The header as JSON."""
    for slug, title, rule, text in (
        ("begins-with-a-space", "The header begins with a space", "TD-PCK-003", lambda text: b" " + text),
        (
            "begins-with-a-byte-order-mark",
            "The header begins with a byte order mark",
            "TD-PCK-003",
            lambda text: b"\xef\xbb\xbf" + text,
        ),
        ("is-an-array", "The header is an array that holds its object", "TD-PCK-003", lambda text: b"[" + text + b"]"),
        ("cut-short", "The header lacks its last brace", "TD-JSN-003", lambda text: text[:-1]),
        ("twice", "A second object follows the header's", "TD-JSN-003", lambda text: text + b"{}"),
        ("followed-by-nul", "A byte 0 follows the header's object", "TD-JSN-003", lambda text: text + b"\0"),
        (
            "not-utf-8",
            "A key of the metadata is not UTF-8",
            "TD-JSN-001",
            replaced(b'{"tensordelta"', b'{"\xff":"","tensordelta"'),
        ),
        (
            "with-a-lone-surrogate",
            "A key of the metadata is half of a surrogate pair",
            "TD-JSN-005",
            replaced(b'{"tensordelta"', b'{"\\ud800":"","tensordelta"'),
        ),
        (
            "with-an-entry-twice",
            "The header has one entry twice, the last of which is right",
            "TD-JSN-004",
            replaced(b'"0.gaps"', b'"0.gaps":{"dtype":"U8","shape":[3],"data_offsets":[1,4]},"0.gaps"'),
        ),
        (
            "with-a-member-twice",
            "An entry has one member twice, the last of which is right",
            "TD-JSN-004",
            replaced(b'{"dtype"', b'{"dtype":"I8","dtype"'),
        ),
        (
            "with-the-table-twice",
            "The metadata has the chunk table twice",
            "TD-JSN-004",
            lambda text: text.replace(b'{"tensordelta"', b'{"tensordelta":"","tensordelta"', 1),
        ),
        (
            "with-a-name-twice-unescaped",
            "The header has an entry twice, once with an escape in its name",
            "TD-JSN-004",
            replaced(b'"0.gaps"', b'"0.\\u0067aps":{"dtype":"U8","shape":[3],"data_offsets":[1,4]},"0.gaps"'),
        ),
        ("with-an-offset-that-is-no-integer", "An offset is written 0.0", "TD-JSN-009", replaced(b"[0,", b"[0.0,")),
        ("with-an-offset-of-minus-0", "An offset is written -0", "TD-JSN-009", replaced(b"[0,", b"[-0,")),
        (
            "with-an-offset-beyond-2-53",
            "An offset is 2^53",
            "TD-JSN-010",
            lambda text: text.replace(b"[0,", b"[9007199254740992,", 1),
        ),
        (
            "with-a-shape-that-is-no-integer",
            "A size in a shape is written 3e0",
            "TD-JSN-009",
            replaced(b'"shape":[3]', b'"shape":[3e0]'),
        ),
    ):
        fault(f"pack-header-{slug}", title, rule, header_text=text)
    deep = b'"x":' + b"[" * 20_000 + b"]" * 20_000
    fault(
        "pack-header-nested-20001-levels",
        "An entry that is no stream is nested 20,000 levels deep",
        "TD-JSN-008",
        ("limit", "malformed"),
        header_text=lambda text: b"{" + deep + b"," + text[1:],
    )


def _offsets() -> None:
    """Offsets that a reader can follow, all streams being whole."""
    fault(
        "pack-with-a-byte-before-its-streams",
        "The buffer has a byte before the first stream",
        "TD-PCK-004",
        header=shifted(1),
        pack=buffer(lambda data: b"\0" + data),
    )
    fault(
        "pack-with-a-byte-between-its-streams",
        "The buffer has a byte between two streams",
        "TD-PCK-004",
        header=shifted(1, 3),
        pack=buffer(lambda data: data[:3] + b"\0" + data[3:]),
    )
    fault(
        "pack-with-a-byte-after-its-streams",
        "The buffer has a byte after the last stream",
        "TD-PCK-004",
        pack=lambda data: data + b"\0",
    )
    fault(
        "pack-with-its-streams-twice",
        "The buffer is there twice, and the entries are in the second",
        "TD-PCK-004",
        header=shifted(SIZE),
        pack=buffer(lambda data: data * 2),
    )

    # The planes of b are 01 02 and 00 02. With the words 0x0101 and 0x0202 they are equal, and can lie in one place.
    same = moved(NEW, {0: 0x0101}, "b")
    read(
        "pack-of-equal-streams",
        area=AREA,
        title="Two streams have the same bytes",
        requirements=["TD-PCK-004"],
        chain=chain(OLD, same, *PARTS),
    )

    def one_place(header: Header) -> None:
        header["1.values.1"]["data_offsets"] = header["1.values.0"]["data_offsets"]

    def partly(header: Header) -> None:
        begin, end = header["1.values.1"]["data_offsets"]
        header["1.values.1"]["data_offsets"] = [begin - 1, end - 1]

    reject(
        "pack-with-two-streams-in-one-place",
        area=AREA,
        title="Two streams of the same bytes lie in one place, and all of the buffer is used",
        requirements=["TD-PCK-004"],
        chain=chain(OLD, same, *PARTS, header=one_place, pack=lambda data: data[:-2]),
        error="malformed",
        twin="pack-of-equal-streams",
    )
    shared = moved(NEW, {0: 0x0201, 19: 0x0102}, "b")  # planes 01 02 and 02 01
    read(
        "pack-of-streams-that-could-share-a-byte",
        area=AREA,
        title="One stream ends with the byte with which the next begins",
        requirements=["TD-PCK-004"],
        chain=chain(OLD, shared, *PARTS),
    )
    reject(
        "pack-with-streams-that-share-a-byte",
        area=AREA,
        title="Two streams overlap by a byte that both have",
        requirements=["TD-PCK-004"],
        chain=chain(OLD, shared, *PARTS, header=partly, pack=lambda data: data[:-2] + data[-1:]),
        error="malformed",
        twin="pack-of-streams-that-could-share-a-byte",
    )
    fault(
        "pack-with-offsets-backwards",
        "An entry ends before it begins",
        "TD-PCK-008",
        header=lambda h: h["0.gaps"].update(data_offsets=[3, 0]),
    )
    fault(
        "pack-with-offsets-far-away",
        "An entry ends at 2^53 - 1",
        "TD-PCK-004",
        header=lambda h: h["1.values.1"].update(
            data_offsets=[h["1.values.1"]["data_offsets"][0], (1 << 53) - 1],
            shape=[(1 << 53) - 1 - h["1.values.1"]["data_offsets"][0]],
        ),
    )


_valid()
_truncated()
_lengths()
_texts()
_offsets()
