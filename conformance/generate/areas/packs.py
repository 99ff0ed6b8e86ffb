"""Packs: the file, the header of a chunk pack, packs in each other's place (SPEC.md sections 6.1 and 6.2)."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from generate.builder import Builder, Pack, manifest_name, of_chunks
from generate.model import Model, tensor
from generate.pair import Part, chain, made, moved, moved_in, turned
from generate.rows import Build, Rows, kebab
from generate.standard import replaced, without

ROWS = Rows("packs", twin="pack-of-two-chunks")
OLD: Model = {"a": tensor("BF16", (5, 8), 0x3F80), "b": tensor("U16", (20,), 7)}
NEW = moved_in(OLD, a={3: 0x3F81, 4: 0x3F90, 39: 0x4000}, b={0: 1, 19: 0x0202})
#: Streams 0.gaps, 0.low, 0.codes, 0.escapes.0, 0.escapes.1, 1.bitmap, 1.values.0 and 1.values.1.
PARTS = (Part([("a", 0, 40)], shift=8), Part([("b", 0, 20)], positions="bitmap", values="replace"))
Header = dict[str, Any]


def pack(**how: Any) -> Build:
    """The chain of two chunks; `how` is done to their pack."""
    return chain(OLD, NEW, *PARTS, **how)


def valid(slug: str, title: str, rules: str, **how: Any) -> None:
    """A pack of two chunks in another form."""
    ROWS.read(slug, title, rules, pack(**how))


def fault(slug: str, title: str, rule: str, error: str | Sequence[str] = "malformed", **how: Any) -> None:
    """A pack of two chunks that is spoiled."""
    ROWS.reject(slug, title, rule, pack(**how), error)


def parted(data: bytes) -> tuple[bytes, bytes]:
    """Header and buffer of a pack."""
    stop = 8 + int.from_bytes(data[:8], "little")
    return data[8:stop], data[stop:]


def buffer(how: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """Change the buffer of a pack."""

    def change(data: bytes) -> bytes:
        header, rest = parted(data)
        return len(header).to_bytes(8, "little") + header + how(rest)

    return change


def shifted(by: int, first: int = 0) -> Callable[[Header], None]:
    """Move the entries that begin at a place or after it."""

    def move(header: Header) -> None:
        for name, entry in header.items():
            if name != "__metadata__" and entry["data_offsets"][0] >= first:
                entry["data_offsets"] = [at + by for at in entry["data_offsets"]]

    return move


def length(number: int) -> Callable[[bytes], bytes]:
    """Another length of the header."""
    return lambda data: number.to_bytes(8, "little") + data[8:]


def inside_out(header: Header) -> None:
    """The members of each entry stand in the reverse order."""
    for name in header:
        if name != "__metadata__":
            turned(header[name])


def on(name: str, **members: Any) -> Callable[[Header], None]:
    """Set members of an entry, or of the metadata."""
    return lambda header: header[name].update(members)


def renamed(old: str, new: str) -> Callable[[Header], None]:
    """An entry has another name."""

    def change(header: Header) -> None:
        header[new] = header.pop(old)

    return change


def added(name: str, size: int = 0, at: int = 0) -> Callable[[Header], None]:
    """An entry more."""
    return lambda header: header.update({name: {"dtype": "U8", "shape": [size], "data_offsets": [at, at + size]}})


SOUND = pack()()
DATA = SOUND.get(SOUND.pack_names(1)[0])
HEADER, BUFFER = parted(DATA)
HEAD = len(DATA) - len(BUFFER)

# fmt: off
# -- good packs --------------------------------------------------------------------------------------------------------

valid("pack-of-two-chunks", "A pack of two chunks with streams of every kind", "PCK-013")
valid("pack-with-streams-in-reverse", "The streams lie in the buffer in the reverse of their order in the header",
    "PCK-005", reverse=True)
valid("pack-with-entries-in-reverse",
    "The entries stand in the header in the reverse of their order in the buffer, the chunk table last", "PCK-005",
    header=turned)
valid("pack-with-members-in-another-order", "The members of the entries stand in another order", "PCK-005",
    header=inside_out)
valid("pack-header-followed-by-nothing", "Nothing follows the header's object, and the buffer is aligned to nothing",
    "PCK-006", pad=b"")
valid("pack-header-followed-by-one-space", "One space follows the header's object", "PCK-006", pad=b" ")
valid("pack-header-followed-by-white-space", "White space of all four kinds follows the header's object", "PCK-006",
    pad=b"\n \t\r\n")
valid("pack-header-followed-by-many-spaces", "A thousand spaces follow the header's object", "PCK-006", pad=b" " * 1000)
valid("pack-with-other-metadata", "The metadata has other keys than tensordelta", "PCK-011",
    header=on("__metadata__", **{"format": "pt", "": "\n", "Tensordelta": "{}"}))
valid("pack-with-the-table-after-other-metadata", "The chunk table is the last of several metadata", "PCK-011",
    header=lambda h: h.update(__metadata__={"format": "pt"} | h["__metadata__"]))
valid("pack-header-with-white-space-and-escapes", "The header has white space in it, and names with escapes", "JSN-003",
    header_text=lambda text: text.replace(b'"0.gaps":', b'"\\u0030.g\\u0061ps" :\r\n\t').replace(b"[0,", b"[ 0 ,"))

# -- the file ends early; its size and digest are those of the manifest ------------------------------------------------

for slug, text, stop in (
    ("before-its-first-byte", "has no bytes", 0),
    ("in-the-header-length", "ends in the header's length, after 7 bytes", 7),
    ("after-the-header-length", "ends after the header's length, after 8 bytes", 8),
    ("in-the-header", "ends in the header", HEAD // 2),
    ("before-the-last-byte-of-the-header", "ends before the last byte of the header, a space", HEAD - 1),
):
    fault(f"pack-ends-{slug}", f"The pack {text}", "PCK-001", pack=lambda data, stop=stop: data[:stop])
for name, entry in json.loads(HEADER).items():
    if name != "__metadata__":
        begin = entry["data_offsets"][0]
        place = f"before the stream {name}" if begin else "after the header"
        fault(f"pack-ends-{kebab(place.replace(' ', '-'))}", f"The pack ends {place}", "PCK-004",
            pack=lambda data, stop=HEAD + begin: data[:stop])
fault("pack-ends-a-byte-early", "The pack lacks its last byte", "PCK-004", pack=lambda data: data[:-1])

# -- the length of the header ------------------------------------------------------------------------------------------

fault("pack-header-length-0", "The length of the header is 0", "PCK-003", pack=length(0))
fault("pack-header-length-2", "The header ends after two bytes", "JSN-003", pack=length(2))
fault("pack-header-length-one-past-the-file", "The header is one byte longer than the file", "PCK-001",
    pack=length(len(DATA) - 7))
fault("pack-header-length-100000000",
    "The length of the header is the greatest that is allowed, and that of the file is not", "PCK-001",
    pack=length(100_000_000))
fault("pack-header-length-100000001", "The length of the header is 100,000,001", "PCK-002",
    "limit", pack=length(100_000_001))
fault("pack-header-length-2-32", "The length of the header is 2^32 more than it is", "PCK-002",
    "limit", pack=length((1 << 32) + len(HEADER)))
fault("pack-header-length-2-63", "The length of the header is 2^63", "PCK-002", "limit", pack=length(1 << 63))
fault("pack-header-length-2-64-minus-1", "The length of the header is 2^64 - 1", "PCK-002",
    "limit", pack=length((1 << 64) - 1))
fault("pack-header-length-big-endian", "The length of the header is big-endian", "PCK-002",
    "limit", pack=lambda data: data[7::-1] + data[8:])

# -- the header as JSON ------------------------------------------------------------------------------------------------

AGAIN = b':{"dtype":"U8","shape":[3],"data_offsets":[1,4]},"0.gaps"'
for slug, title, rule, header in (
    ("begins-with-a-space", "The header begins with a space", "PCK-003", lambda text: b" " + text),
    ("begins-with-a-byte-order-mark", "The header begins with a byte order mark", "PCK-003",
     lambda text: b"\xef\xbb\xbf" + text),
    ("is-an-array", "The header is an array that holds its object", "PCK-003", lambda text: b"[" + text + b"]"),
    ("cut-short", "The header lacks its last brace", "JSN-003", lambda text: text[:-1]),
    ("twice", "A second object follows the header's", "JSN-003", lambda text: text + b"{}"),
    ("followed-by-nul", "A byte 0 follows the header's object", "JSN-003", lambda text: text + b"\0"),
    ("not-utf-8", "A key of the metadata is not UTF-8", "JSN-001",
     replaced(b'{"tensordelta"', b'{"\xff":"","tensordelta"')),
    ("with-a-lone-surrogate", "A key of the metadata is half of a surrogate pair", "JSN-005",
     replaced(b'{"tensordelta"', b'{"\\ud800":"","tensordelta"')),
    ("with-an-entry-twice", "The header has one entry twice, the last of which is right", "JSN-004",
     replaced(b'"0.gaps"', b'"0.gaps"' + AGAIN)),
    ("with-a-member-twice", "An entry has one member twice, the last of which is right", "JSN-004",
     replaced(b'{"dtype"', b'{"dtype":"I8","dtype"')),
    ("with-the-table-twice", "The metadata has the chunk table twice", "JSN-004",
     replaced(b'{"tensordelta"', b'{"tensordelta":"","tensordelta"')),
    ("with-a-name-twice-unescaped", "The header has an entry twice, once with an escape in its name", "JSN-004",
     replaced(b'"0.gaps"', b'"0.\\u0067aps"' + AGAIN)),
    ("with-an-offset-that-is-no-integer", "An offset is written 0.0", "JSN-009", replaced(b"[0,", b"[0.0,")),
    ("with-an-offset-of-minus-0", "An offset is written -0", "JSN-009", replaced(b"[0,", b"[-0,")),
    ("with-an-offset-beyond-2-53", "An offset is 2^53", "JSN-010", replaced(b"[0,", b"[9007199254740992,")),
    ("with-a-shape-that-is-no-integer", "A size in a shape is written 3e0", "JSN-009",
     replaced(b'"shape":[3]', b'"shape":[3e0]')),
):
    fault(f"pack-header-{slug}", title, rule, header_text=header)
fault("pack-header-nested-20001-levels", "An entry that is no stream is nested 20,000 levels deep", "JSN-008",
    ("limit", "malformed"), header_text=lambda text: b'{"x":' + b"[" * 20_000 + b"]" * 20_000 + b"," + text[1:])

# -- offsets that a reader can follow, all streams being whole ---------------------------------------------------------

fault("pack-with-a-byte-before-its-streams", "The buffer has a byte before the first stream", "PCK-004",
    header=shifted(1), pack=buffer(lambda data: b"\0" + data))
fault("pack-with-a-byte-between-its-streams", "The buffer has a byte between two streams", "PCK-004",
    header=shifted(1, 3), pack=buffer(lambda data: data[:3] + b"\0" + data[3:]))
fault("pack-with-a-byte-after-its-streams", "The buffer has a byte after the last stream", "PCK-004",
    pack=lambda data: data + b"\0")
fault("pack-with-its-streams-twice", "The buffer is there twice, and the entries are in the second", "PCK-004",
    header=shifted(len(BUFFER)), pack=buffer(lambda data: data * 2))
fault("pack-with-offsets-backwards", "An entry ends before it begins", "PCK-008",
    header=on("0.gaps", data_offsets=[3, 0]))
fault("pack-with-offsets-far-away", "An entry ends at 2^53 - 1", "PCK-004",
    header=on("1.values.1", data_offsets=[len(BUFFER) - 2, (1 << 53) - 1], shape=[(1 << 53) + 1 - len(BUFFER)]))

# The planes of b are 01 02 and 00 02. With the words 0x0101 and 0x0202 they are equal, and can lie in one place.
SAME = moved(NEW, {0: 0x0101}, "b")
ROWS.read("pack-of-equal-streams", "Two streams have the same bytes", "PCK-004", chain(OLD, SAME, *PARTS))
ROWS.reject("pack-with-two-streams-in-one-place",
    "Two streams of the same bytes lie in one place, and all of the buffer is used", "PCK-004",
    chain(OLD, SAME, *PARTS, pack=lambda data: data[:-2],
        header=lambda h: h["1.values.1"].update(data_offsets=h["1.values.0"]["data_offsets"])),
    twin="pack-of-equal-streams")
SHARED = moved(NEW, {0: 0x0201, 19: 0x0102}, "b")  # planes 01 02 and 02 01
ROWS.read("pack-of-streams-that-could-share-a-byte", "One stream ends with the byte with which the next begins",
    "PCK-004", chain(OLD, SHARED, *PARTS))
ROWS.reject("pack-with-streams-that-share-a-byte", "Two streams overlap by a byte that both have", "PCK-004",
    chain(OLD, SHARED, *PARTS, pack=lambda data: data[:-2] + data[-1:],
        header=lambda h: h["1.values.1"].update(data_offsets=[at - 1 for at in h["1.values.1"]["data_offsets"]])),
    twin="pack-of-streams-that-could-share-a-byte")

valid("entry-with-a-member-more", "An entry has a member that the format lacks", "JSN-013",
    header=on("0.gaps", note=""))

# -- entries and metadata ----------------------------------------------------------------------------------------------

for slug, title, rule, header in (
    ("of-dtype-i8", "The dtype of a stream is I8", "PCK-008", on("0.gaps", dtype="I8")),
    ("of-a-dtype-in-lower-case", "The dtype of a stream is u8", "PCK-008", on("0.gaps", dtype="u8")),
    ("of-shape-1-3", "A stream of three bytes has the shape [1, 3]", "PCK-008", on("0.gaps", shape=[1, 3])),
    ("of-shape-nothing", "A stream of one byte has the shape []", "PCK-008", on("0.codes", shape=[])),
    ("of-another-shape", "The shape of a stream is one more than its bytes", "PCK-008", on("0.gaps", shape=[4])),
    ("without-dtype", "An entry has no dtype", "PCK-008", lambda h: h["0.gaps"].pop("dtype")),
    ("without-shape", "An entry has no shape", "PCK-008", lambda h: h["0.gaps"].pop("shape")),
    ("without-offsets", "An entry has no offsets", "PCK-008", lambda h: h["0.gaps"].pop("data_offsets")),
    ("with-three-offsets", "An entry has three offsets", "PCK-008", on("0.gaps", data_offsets=[0, 3, 3])),
    ("with-one-offset", "An entry has one offset", "PCK-008", on("0.gaps", data_offsets=[0])),
    ("with-a-string-for-an-offset", "An offset is a string", "PCK-008", on("0.gaps", data_offsets=["0", 3])),
    ("that-is-null", "An entry is null", "PCK-008", lambda h: h.update({"0.gaps": None})),
    ("that-is-an-array", "An entry is an array", "PCK-008", lambda h: h.update({"0.gaps": ["U8", [3], [0, 3]]})),
):
    fault(f"entry-{slug}", title, rule, header=header)
for slug, title, header in (
    ("absent", "The header has no metadata", without("__metadata__")),
    ("null", "The metadata are null", lambda h: h.update(__metadata__=None)),
    ("that-are-the-table", "The metadata are the chunk table, as a string",
     lambda h: h.update(__metadata__=h["__metadata__"]["tensordelta"])),
    ("without-a-table", "The metadata have no chunk table", lambda h: h.update(__metadata__={"format": "pt"})),
    ("with-the-table-under-another-name", "The key of the chunk table is TensorDelta",
     lambda h: h.update(__metadata__={"TensorDelta": h["__metadata__"]["tensordelta"]})),
    ("with-a-number", "A metadatum beside the chunk table is a number", on("__metadata__", step=420)),
    ("with-null", "A metadatum beside the chunk table is null", on("__metadata__", step=None)),
    ("with-the-table-as-an-object", "The chunk table is an object and not a string that holds one",
     lambda h: h["__metadata__"].update(tensordelta=json.loads(h["__metadata__"]["tensordelta"]))),
    ("with-a-table-of-null", "The chunk table is null", on("__metadata__", tensordelta=None)),
):
    fault(f"metadata-{slug}", title, "PCK-010", header=header)

# -- names of streams --------------------------------------------------------------------------------------------------

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
    fault(f"stream-{slug}", f"{title}; it has no bytes", "PCK-012", header=added(name))
fault("stream-that-is-unknown-with-bytes", "An entry is a stream that no codec has, with a byte", "PCK-012",
    header=added("0.extra", 1, len(BUFFER)), pack=lambda data: data + b"\0")
for slug, title, name in (
    ("with-a-leading-zero", "The name of a stream begins with 00", "00.gaps"),
    ("with-a-plus", "The name of a stream begins with +0", "+0.gaps"),
    ("with-a-space", "The name of a stream begins with a space", " 0.gaps"),
    ("with-an-arabic-digit", "The chunk in the name of a stream is an Arabic-Indic digit", "\u0660.gaps"),
    ("in-upper-case", "The name of a stream is in upper case", "0.GAPS"),
    ("with-a-slash", "The name of a stream has a slash for the dot", "0/gaps"),
):
    fault(f"stream-named-{slug}", title, "PCK-012", header=renamed("0.gaps", name))
# The other streams are together.
for number, name in ((0, "gaps"), (0, "low"), (0, "codes"), (1, "bitmap"), (1, "values.0"), (1, "values.1")):
    parts = [replace(part, streams={name: None}) if at == number else part for at, part in enumerate(PARTS)]
    ROWS.reject(f"stream-{number}-{kebab(name)}-missing", f"There is no entry for the stream {number}.{name}",
        "PCK-013", chain(OLD, NEW, *parts))

# -- two packs in each other's place -----------------------------------------------------------------------------------
# fmt: on


def two(*swaps: Callable[[Builder], None]) -> Builder:
    """The chunks in a pack each, and what is done to them."""

    def packs(_: Builder, layout: str) -> list[Pack]:
        return [of_chunks([made(OLD, NEW, part)], layout) for part in PARTS]

    builder = chain(OLD, NEW, more=packs)()
    for swap in swaps:
        swap(builder)
    return builder


def objects(builder: Builder) -> None:
    """Each object of two has the bytes of the other."""
    first, second = builder.pack_names(1)
    one, other = builder.get(first), builder.get(second)
    builder.put(first, other)
    builder.put(second, one)


def members(name: str) -> Callable[[Builder], None]:
    """Each entry of two has this member of the other."""

    def swap(builder: Builder) -> None:
        document = json.loads(builder.get(manifest_name(1)))
        first, second = document["packs"]
        first[name], second[name] = second[name], first[name]
        builder.put(manifest_name(1), json.dumps(document).encode())

    return swap


# fmt: off
ROWS.read("packs-of-a-chunk-each", "A delta of two packs with a chunk each", "MAN-013", two)
ROWS.read("packs-at-each-others-paths",
    "Each of two packs lies under the name with the other's digest, as the manifest says", "PTH-005",
    partial(two, objects, members("path")))
for slug, title, rule, error, swap in (
    ("as-objects", "Each of two packs lies under the other's name", "MAN-013", "integrity", objects),
    ("paths", "The entries of two packs have each other's paths", "MAN-013", "integrity", members("path")),
    ("ranges", "The entries of two packs have each other's tensors", "MAN-030", "malformed", members("tensors")),
):
    blamed = [manifest_name(1), *two().pack_names(1)]
    ROWS.reject(f"packs-swapped-{slug}", title, rule, partial(two, swap), error,
        "packs-of-a-chunk-each", verify=[{"error": [error], "object": blamed}])
