"""Accepted values that a reader easily takes for wrong, of kinds that other areas show less than twice (census.py)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from generate.area import area
from generate.areas.frames import noise
from generate.builder import Builder, manifest_name, of_plain
from generate.edits import Area, two_versions
from generate.frames import RAW, RLE, frame
from generate.model import CHAIN, DTYPES, Model, Random, changed, stepped, tensor, weights, word_bits
from generate.pair import Frame, Part, chain, moved, one, turned
from generate.rows import Rows, kebab
from generate.scenes import walk
from generate.standard import replaced, setting, standard

case = Area("breadth", standard)
ROWS = Rows("breadth")
breadth = area("breadth")

Document = dict[str, Any]
INTEGER = "1" + "0" * 4999
LONGER = "-" + "98765" * 1100


def in_document(builder: Builder, name: str, how: Callable[[Document], Any]) -> None:
    """Change a document whose name is not its digest."""
    document = json.loads(builder.get(name))
    how(document)
    builder.put(name, json.dumps(document, separators=(",", ":")).encode())


def of_id(uuid: str) -> Callable[[Builder], None]:
    """Every object of the chain names another chain id."""

    def after(builder: Builder) -> None:
        for name in [name for name in builder.objects if name.startswith(("chain.json", "manifests/"))]:
            builder.change(name, lambda data: data.replace(CHAIN.encode(), uuid.encode()))

    return after


def at_times(*times: str) -> Callable[[Builder], None]:
    """When the chain and its versions were created."""

    def after(builder: Builder) -> None:
        for name, time in zip(["chain.json", *map(manifest_name, range(3))], times, strict=True):
            in_document(builder, name, setting(created=time))

    return after


def first(extra: str) -> Callable[[bytes], bytes]:
    """A member before all others."""
    return replaced(b"{", b"{" + extra.encode() + b",")


def everywhere(extra: str) -> dict[str, Any]:
    """A member in the chain object, a manifest, its layout and a chunk table."""
    return {
        "after": lambda builder: builder.change("chain.json", first(extra)),
        "text": first(extra),
        "layout_text": first(extra),
        "table_text": first(extra),
    }


def in_entries(members: Mapping[str, Any]) -> dict[str, Any]:
    """Members in the chain object, tensor entries, the base, file entries, pack entries, chunks and stream entries."""

    def manifest(document: Document) -> None:
        for each in (document["base"], *document["files"], *document["packs"]):
            each.update(members)

    def layout(document: Document) -> None:
        for each in document["tensors"]:
            each.update(members)

    return {
        "chain": setting(**members),
        "manifest": manifest,
        "layout": layout,
        "chunks": lambda chunks: [each.update(members) for each in chunks],
        "header": lambda header: [each.update(members) for key, each in header.items() if key != "__metadata__"],
    }


def all_turned() -> dict[str, Any]:
    """Members in the reverse order in layouts, tensor entries, the base, pack and file entries, and chunks."""

    def manifest(document: Document) -> None:
        for each in (document["base"], *document["files"], *document["packs"]):
            turned(each)

    def layout(document: Document) -> None:
        turned(document)
        for each in document["tensors"]:
            turned(each)

    def chunks(entries: list[Document]) -> None:
        for each in entries:
            turned(each)

    return {"manifest": manifest, "layout": layout, "chunks": chunks}


def plain_turned() -> Builder:
    """A full version in a plain pack, the members of whose entries are turned round."""
    builder = Builder()
    state = walk(1)[0]

    def header(members: Document) -> None:
        for key, each in members.items():
            if key != "__metadata__":
                turned(each)

    builder.edge(0, state, [of_plain(state, state, header=header)])
    return builder


def numbered(*versions: int) -> Builder:
    """A full version and deltas under these numbers."""
    builder = Builder()
    for number, (version, state) in enumerate(zip(versions, walk(len(versions)), strict=True)):
        if number == 0:
            builder.full(version, state)
        else:
            builder.delta(version, state, versions[number - 1])
    return builder


def of_shapes(shapes: Sequence[Sequence[int]]) -> Model:
    """A tensor of each shape."""
    rng = Random("breadth")
    made: Model = {}
    for number, shape in enumerate(shapes):
        each = tensor("U8", shape)
        if len(each.words):
            each.words[:] = rng.words(8, len(each.words))
        made[f"t{number:02}"] = each
    return made


def moving(old: Model) -> Builder:
    """A full version and a delta."""
    builder = Builder()
    builder.full(0, old)
    builder.delta(1, stepped(Random("breadth/1"), old, 0.5, [name for name in old if len(old[name].words)]), 0)
    return builder


def with_shortcuts(*tags: str) -> Builder:
    """Encodings of version 1's own edge under tags, and one from nothing, with files and annotations of their own."""
    builder = two_versions()
    for number, tag in enumerate(tags):
        files = [builder.file(f"{number}.txt", tag.encode())]
        coding = {"positions": "bitmap"} if number else {"shift": 8}
        more = {"annotations": {"tag": tag}, "files": files}
        builder.delta(1, builder.models[1], 0, shortcut=tag, coding=coding, hook=setting(**more))
    builder.full(1, builder.models[1], shortcut="all", hook=setting(annotations={}))
    return builder


def two_names(builder: Builder) -> list[Document]:
    """Two files of one path, and one whose path is long."""
    one_path = builder.file("a/LICENSE", b"")
    long = builder.file("b.tar.gz", b"long")
    name = f"files/{'_' * 194}"
    builder.put(name, builder.objects.pop(long["path"]))
    return [one_path, {**one_path, "name": "b/NOTICE_1"}, {**long, "path": name}]


def with_files() -> Builder:
    builder = two_versions()
    in_document(builder, manifest_name(1), lambda document: document.update(files=two_names(builder)))
    return builder


def far_words(dtype: str, name: str, words: Mapping[int, int], count: int) -> None:
    """A full version of a tensor of zeros, but for words beyond lane 65,536."""
    state = moved(one(dtype, count, name), words, name)
    slug = f"lanes-of-{name}-in-{kebab(dtype)}"
    title = f"Words of {dtype} beyond lane 65,536 of the tensor `{name}`, whose seed has low bits that carry"
    ROWS.read(slug, title, "FPR-006", chain(None, state, Part()), full=True)


def extremes(dtype: str) -> list[int]:
    """The greatest word, and the least and the greatest of each half."""
    bits = word_bits(dtype)
    return [(1 << bits) - 1, 1 << bits - 1, (1 << bits - 1) - 1, (1 << bits) - 2]


def framed(slug: str, title: str, rule: str, content: bytes, how: Frame) -> None:
    """A full version of one stream in a frame."""
    part = Part(positions="all", values="replace", compression="zstd", stored={"values.0": how})
    ROWS.read(f"breadth-frame-{slug}", title, rule, chain(None, one("U8", list(content)), part), full=True)


# fmt: off
# -- identifiers and times ---------------------------------------------------------------------------------------------
for slug, uuid, title in (
    ("of-zeros", "00000000-0000-0000-0000-000000000000", "The chain id is the UUID of zeros"),
    ("of-ones", "ffffffff-ffff-ffff-ffff-ffffffffffff", "The chain id is the UUID of ones"),
    ("of-version-7", "0192f0c1-7b3a-7c4d-8a1b-0123456789ab", "The chain id is a UUID of version 7"),
    ("of-version-1", "c232ab00-9414-11ec-c3c8-9f6bdeced846", "The chain id is a UUID of version 1 and an old variant"),
):
    case(f"chain-id-{slug}", "JSN-015", title).good(after=of_id(uuid))
case("times-of-two-to-five-digits", "JSN-015 JSN-016", "Fractions of two to five digits in times, and far years").good(
    after=at_times("1969-12-31T23:59:59.12Z", "0001-01-01T00:00:00.123Z", "2038-01-19T03:14:08.1234Z",
                   "9999-12-31T23:59:60.12345Z"))
case("times-of-six-to-eight-digits", "JSN-015 JSN-016", "Times with fractions of six to eight digits, going back").good(
    after=at_times("2100-02-29T00:00:00.123456Z", "2023-04-31T23:59:60.1234567Z", "1582-10-10T12:00:00.12345678Z",
                   "1500-06-31T23:59:59Z"))
case("annotations-of-nothing", "JSN-012", "Empty objects of annotations, in the chain object and in a manifest").good(
    chain=partial(standard, chain=setting(annotations={}), manifest=setting(annotations={}, files=[])))
ROWS.read("versions-beyond-2-32", "Versions beyond 2^31, 2^32 and 2^39", "OBJ-013 RTE-001",
    partial(numbered, 2**31, 2**32, 2**32 + 1, 10**12 - 2), to=10**12 - 2, held=2**32 + 1)

# -- texts -------------------------------------------------------------------------------------------------------------
case("escapes-of-control-characters", "JSN-003", "All escapes of JSON in unknown fields of four objects").good(
    **everywhere('"\\b\\f":["\\r\\n\\t\\/\\"\\\\\\u00e9\\uABCD\\ud83d\\udE00",""]'))
case("integers-of-5000-digits", "JSN-014", "Integers of 5,000 digits in unknown fields of four objects").good(
    **everywhere(f'"x":{INTEGER}'))
case("integers-of-5500-digits", "JSN-014", "Negative integers of 5,500 digits in an array, in four objects").good(
    **everywhere(f'"y":[{LONGER},{{"z":{LONGER}}}]'))
case("numbers-of-odd-forms", "JSN-014", "Numbers in unknown fields of four objects that a double does not hold").good(
    **everywhere('"x":{"a":[-0.0,-0e0,0E+0,1e400,-1E-400,123456789012345678901234567890.5]}'))
case("unknown-members-of-entries", "JSN-013", "Unknown members of entries, some with names of known fields").good(
    chain=partial(standard, **in_entries(
        {"ranges": [], "sums": {}, "": False, "Name": True, "codec": "", "chunk": None})))
case("members-of-entries-in-another-order", "JSN-013", "The members of objects and entries are turned round").good(
    chain=partial(standard, chain=turned, **all_turned()))
ROWS.read("members-of-plain-entries-in-another-order", "The members of the entries of a plain pack are turned round",
    "PCK-005", plain_turned, full=True)

# -- layouts -----------------------------------------------------------------------------------------------------------
ROWS.read("shapes-of-five-to-fifteen-dimensions", "Tensors of five to fifteen dimensions", "LAY-006",
    partial(moving, of_shapes([[1] * (rank - 2) + [2, 3] for rank in range(5, 16)])))
ROWS.read("shapes-of-no-words", "Tensors without words whose other dimensions are vast", "LAY-006 LAY-007",
    partial(moving, of_shapes([[2**33, 0], [0, 2**40, 3], [2**24, 0, 2**24], [4], [0, 0]])))
ROWS.read("names-of-1024-bytes", "Names of 1024 bytes in one, two, three and four bytes a character", "LAY-003",
    partial(moving, {name: weights(Random(name), (6,)) for name in (
        "a" * 1024, "ж" * 512, "ツ" * 341 + "b", "𝒲" * 256)}))
ROWS.read("names-of-odd-characters", "Names with white space, quotes, dots, escapes and characters of no width",
    "LAY-002 TRM-003", partial(moving, {name: weights(Random(name), (4,)) for name in (
        " ", ".", "..", "a b", "a\tb", "a\n", "\x00", "\x7f", "/", "a/../b", "\\", '"', "a.", ".a", "\u200b", "\ufeff",
        "0", "-0", "null", "__metadata", "é", "e\u0301", "שלום", "नमस्ते", "ไทย", "한국어", "\ud55c\u1100", "😀",
        "\uffff")}))

# -- paths, files, shortcuts -------------------------------------------------------------------------------------------
ROWS.read("files-of-one-path", "Two files of one path, an empty one, and a path of 200 characters", "PTH-005 MAN-023",
    with_files)
ROWS.read("shortcuts-with-tags", "Shortcuts with tags of one and of sixteen characters, and with files of their own",
    "OBJ-005", partial(with_shortcuts, "0", "abcdefghijklmnop", "0123456789"), level="chain")

case("sources-of-odd-schemes", "MAN-016", "Sources beside a path, of schemes that no reader knows, and of none").good(
    entry=setting(sources=["", "packs/x", "://", "s3+x://bucket/\u00e9", "hf://org/model@main/a b", "HTTP://x.invalid/"]))

# -- packs -------------------------------------------------------------------------------------------------------------
MANY = {f"t{number:02}": weights(Random(f"many/{number}"), (3 + number,)) for number in range(23)}
MOVED = {name: changed(Random(name), each, 0.5) for name, each in MANY.items()}
EACH = [Part(slices=[(name, 0, len(each.words))]) for name, each in MANY.items()]
ROWS.read("streams-of-23-chunks-in-reverse", "The streams of 23 chunks stand in the reverse order in the buffer",
    "PCK-005", chain(MANY, MOVED, *EACH, reverse=True))
ROWS.read("entries-of-23-chunks-in-reverse", "The entries of 23 chunks stand in the reverse order in the header",
    "PCK-005", chain(MANY, MOVED, *EACH, header=turned))
ROWS.read("bitmap-of-15-words", "A bitmap of 15 words, of which the last is listed", "POS-008",
    chain(one("U16", 15), moved(one("U16", 15), {0: 7, 14: 9}), Part(positions="bitmap")))
for dtype in ("I32", "F64"):
    old = one(dtype, 300)
    ROWS.read(f"gap-8-of-{kebab(dtype)}", f"Positions gap with shift 8 in {dtype}, and gaps beyond 255", "POS-001",
        chain(old, moved(old, {2: 5, 259: 6, 299: 7}), Part(shift=8)))
ROWS.read("exponent-in-a-group-of-one-slice", "`groups` says that the one slice is a group", "ORD-002",
    chain({"w": weights(Random(31), (40,))}, {"w": changed(Random(32), weights(Random(31), (40,)), 0.4)},
          Part(order="exponent", groups=[1])), level="reader-exponent")

# -- words -------------------------------------------------------------------------------------------------------------
ALL_WORDS = {kebab(dtype): one(dtype, extremes(dtype))["w"] for dtype, (bits, *_) in DTYPES.items() if bits % 8 == 0}
ALL_WORDS |= {kebab(dtype): tensor(dtype, (8, 4), 255) for dtype in ("F4", "F6_E2M3", "F6_E3M2")}
ROWS.read("greatest-words", "The greatest words of all dtypes, signed and not", "WRD-001 WRD-006",
    chain(None, ALL_WORDS, *[Part(slices=[(name, 0, len(each.words))]) for name, each in ALL_WORDS.items()]), full=True)
SPECIAL = {"F64": (0xFFF0 << 48, 0x7FF0 << 48, 1 << 63), "F32": (0xFF80 << 16, 0x7F80 << 16, 1 << 31),
           "BF16": (0xFF80, 0x7F80, 1 << 15), "F16": (0xFC00, 0x7C00, 1 << 15)}
ROWS.read("infinities-and-negative-zeros", "Both infinities and negative zeros of four dtypes, listed by steps",
    "WRD-001", chain({kebab(name): one(name, 5)["w"] for name in SPECIAL},
    {kebab(name): one(name, [0, 0, *words])["w"] for name, words in SPECIAL.items()},
    *[Part(slices=[(kebab(name), 0, 5)]) for name in SPECIAL]))

# -- lanes beyond 65,536: where the seed is odd, or has bit 1, `xor` and `|` are not `+` -------------------------------
far_words("U8", "lanes", {65_536: 1, 131_073: 0xFE}, 131_080)
far_words("U16", "h", {65_536: 0xFFFF, 131_072: 1, 131_073: 0x8000}, 131_074)
far_words("BF16", "n", {65_536: 0x3F80, 65_999: 0xBF80}, 66_000)
far_words("F32", "u", {32_768: 0x3F800000, 32_769: 0x80000001}, 32_770)
far_words("I64", "t", {16_384: 0x0001000200030004, 32_767: (1 << 64) - 1, 32_768: 7, 49_152: 8}, 49_160)

# -- frames ------------------------------------------------------------------------------------------------------------
SHORT = noise(77)
framed("without-a-checksum", "A frame of 77 bytes has no checksum", "ZST-014", SHORT, partial(frame, checksum=False))
framed("of-77-bytes-in-8", "A frame of one segment has its content size, 77, in eight bytes", "ZST-001", SHORT,
    partial(frame, size_bytes=8))
framed("of-77-bytes-in-8-with-a-window", "A frame with a window has its content size, 77, in eight bytes", "ZST-001",
    SHORT, partial(frame, size_bytes=8, window=0x1D))
framed("of-77-bytes-in-4-with-a-window", "A frame with a window has its content size, 77, in four bytes", "ZST-001",
    SHORT, partial(frame, size_bytes=4, window=0x02))
framed("with-the-unused-bit", "The unused bit of the descriptor of a frame of 77 bytes is set", "ZST-001", SHORT,
    partial(frame, unused=1))
framed("with-an-empty-last-block", "A run and a raw block of no bytes are the blocks of a frame", "ZST-009",
    b"\x05" * 90, partial(frame, blocks=[(RLE, b"\x05", 90), (RAW, b"", 0)]))
# fmt: on
