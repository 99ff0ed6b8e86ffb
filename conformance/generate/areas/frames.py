"""Zstandard frames, good ones of every form and stored bytes that are none (SPEC.md section 7.10)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from generate.areas.chunks_streams import OLD, STEPS
from generate.blocks import ALL
from generate.frames import BLOCK, COMPRESSED, MAGIC, RAW, RESERVED, RLE, Block, frame, raw_blocks, xxh64
from generate.model import Random
from generate.pair import Frame, Part, chain, one
from generate.rows import Build, Rows, kebab

ROWS = Rows("frames", twin="frame-of-a-size-of-2-bytes")
FORM, SIZE, DICTIONARY, WINDOW, CONTENT = "ZST-001", "ZST-003", "ZST-005", "ZST-008", "ZST-009"
ONE_FRAME, SKIPPABLE = "ZST-006", "ZST-007"


def noise(count: int) -> bytes:
    """Bytes that no compressor makes smaller."""
    return Random("frames").bytes(count)


FEW, SOME, MANY = noise(200), noise(600), noise(3000)


def framed(content: bytes, how: Frame, *, full: bool = False) -> Build:
    """A tensor of zeros becomes a content, which is the only stream of the chunk; `how` makes a frame of it."""
    old = one("U8", len(content))
    part = Part(positions="all", values="replace", compression="zstd", stored={"values.0": how})
    return chain(None if full else old, one("U8", list(content)), part)


def checksum(content: bytes) -> bytes:
    """The end of a frame."""
    return (xxh64(content) & 0xFFFFFFFF).to_bytes(4, "little")


def written(blocks: Sequence[Block]) -> bytes:
    """Blocks with their headers."""
    last = len(blocks) - 1
    return b"".join(
        ((number == last) | kind << 1 | size << 3).to_bytes(3, "little") + data
        for number, (kind, data, size) in enumerate(blocks)
    )


def headed(digits: str, content: bytes, blocks: Sequence[Block] | None = None) -> bytes:
    """A frame whose header after the magic number is given in hexadecimal digits."""
    made = raw_blocks(content) if blocks is None else blocks
    return MAGIC + bytes.fromhex(digits) + written(made) + checksum(content)


def bomb(count: int, end: bytes, size: int, window: int | None = None) -> bytes:
    """A frame of few bytes that makes many; `end` is the checksum of so many zeros."""
    blocks = [(RLE, b"\0", BLOCK)] * (count // BLOCK)
    return frame(b"", blocks=blocks, checksum=end, size=size, size_bytes=8, window=window)


def always(stored: bytes) -> Frame:
    """These bytes, whatever the content is."""
    return lambda _: stored


def valid(slug: str, title: str, rule: str, content: bytes, how: Frame, *, full: bool = False) -> None:
    """A frame that `how` makes of a content."""
    ROWS.read(f"frame-{slug}", title, rule, framed(content, how, full=full), full=full)


def blocks(slug: str, title: str, content: bytes, *made: Block) -> None:
    """A frame of certain blocks."""
    valid(slug, title, CONTENT, content, partial(frame, blocks=made))


def fault(
    slug: str, title: str, rules: str, how: Frame | bytes, twin: str = "", content: bytes = SOME, **more: Any
) -> None:
    """What `how` makes of the content of a good frame, or whatever bytes are stored."""
    made = always(how) if isinstance(how, bytes) else how
    ROWS.reject(f"frame-{slug}", title, rules, framed(content, made), twin=twin, **more)


# fmt: off
# -- headers: the bytes after the magic number, by hand ----------------------------------------------------------------

for slug, title, content, digits in (
    ("of-a-size-of-1-byte", "A frame of one segment has its content size, 200, in one byte", FEW, "24 c8"),
    ("of-a-size-of-1-in-1-byte", "A frame of one segment has the content size 1", b"\x07", "24 01"),
    ("of-a-size-of-255-in-1-byte", "A frame of one segment has the greatest content size of one byte, 255", noise(255),
     "24 ff"),
    ("of-a-size-of-2-bytes", "A frame of one segment has its content size, 600, in two bytes as 344", SOME, "64 58 01"),
    ("of-a-size-of-256-in-2-bytes", "A frame of one segment has the smallest content size of two bytes, 256, as 0",
     noise(256), "64 00 00"),
    ("of-a-size-of-4-bytes", "A frame of one segment has its content size, 600, in four bytes", SOME, "a4 58 02 00 00"),
    ("of-a-small-size-of-4-bytes", "A frame of one segment has its content size, 200, in four bytes", FEW,
     "a4 c8 00 00 00"),
    ("of-a-size-of-8-bytes", "A frame of one segment has its content size, 600, in eight bytes", SOME,
     "e4 58 02 00 00 00 00 00 00"),
    ("of-a-window-of-1-kib", "A frame has the smallest window, 1 KiB, and a content size of two bytes", SOME,
     "44 00 58 01"),
    ("of-a-window-of-1664-bytes", "A frame has a window of 1 KiB and five eighths, and a content size of four bytes",
     SOME, "84 05 58 02 00 00"),
    ("of-a-window-of-120-mib", "A frame has a window of 64 MiB and seven eighths, and a content size of eight bytes",
     SOME, "c4 87 58 02 00 00 00 00 00 00"),
    ("of-a-window-of-128-mib", "A frame has the widest window, 2^27 bytes", SOME, "44 88 58 01"),
    ("with-the-unused-bit", "The unused bit of a frame's descriptor is set, which nobody looks at", SOME, "74 58 01"),
):
    valid(slug, title, FORM, content, partial(headed, digits))
valid("of-a-window-smaller-than-its-content",
    "A frame of 3,000 bytes has a window of 1 KiB, and blocks no longer than that", FORM,
    MANY, partial(headed, "44 00 b8 0a", blocks=[(RAW, MANY[at : at + 1000], 1000) for at in (0, 1000, 2000)]))
for count, which, digits in ((65_791, "greatest that fits", "64 ff ff"), (65_792, "smallest beyond", "a4 00 01 01 00")):
    valid(f"of-a-size-of-{count}", f"A frame of one segment has the content size {count:,}, the {which} two bytes",
        FORM, b"\x07" * count, partial(headed, digits, blocks=[(RLE, b"\x07", count)]), full=True)

for slug, title, rule, digits in (
    ("with-the-reserved-bit", "The reserved bit of a frame's descriptor is set", FORM, "6c 58 01"),
    ("without-a-size", "A frame has a window and no content size", "ZST-002", "04 00"),
    ("with-a-dictionary-id-of-1-byte", "A frame names dictionary 1", DICTIONARY, "65 01 58 01"),
    ("with-a-dictionary-id-of-0", "A frame has the dictionary id 0 in one byte, which for a library is none",
     DICTIONARY, "65 00 58 01"),
    ("with-a-dictionary-id-of-2-bytes", "A frame has the dictionary id 0 in two bytes", DICTIONARY, "66 00 00 58 01"),
    ("with-a-dictionary-id-of-4-bytes", "A frame has the dictionary id 0 in four bytes", DICTIONARY,
     "67 00 00 00 00 58 01"),
    ("of-a-window-beyond-128-mib", "The window of a frame is 2^27 bytes and an eighth", WINDOW, "44 89 58 01"),
    ("of-the-widest-window", "The window of a frame is the widest that a frame can have", WINDOW, "44 ff 58 01"),
    ("of-a-size-one-more", "The content size of a frame is one more than its content, and than the stream has", SIZE,
     "64 59 01"),
    ("of-a-size-one-less", "The content size of a frame is one less than its content, and than the stream has", SIZE,
     "64 57 01"),
    ("of-a-size-of-2-32-more", "The content size of a frame is 2^32 more than its content", SIZE,
     "e4 58 02 00 00 01 00 00 00"),
    ("of-a-size-of-2-64-minus-1", "The content size of a frame is 2^64 - 1", SIZE, "e4 ff ff ff ff ff ff ff ff"),
    ("of-a-size-of-0", "The content size of a frame is 0", SIZE, "24 00"),
    ("with-a-checksum-that-it-denies", "A frame says that it has no checksum, and ends with one", "ZST-006",
     "60 58 01"),
):
    fault(slug, title, rule, partial(headed, digits))
valid("without-a-checksum", "A frame has no checksum, and says so", "ZST-014", SOME, partial(frame, checksum=False))
fault("without-the-checksum-that-it-announces", "A frame says that it has a checksum, and ends without", FORM,
    headed("64 58 01", SOME)[:-4])
fault("of-a-longer-content", "A frame has one byte more than the stream, and says so", SIZE, frame(noise(601)))
fault("of-a-shorter-content", "A frame has one byte fewer than the stream, and says so", SIZE, frame(noise(599)))
fault("that-makes-more", "A frame has a byte more than its content size, which is the stream's", CONTENT,
    frame(noise(601), size=600))
fault("that-makes-fewer", "A frame has a byte fewer than its content size, which is the stream's", CONTENT,
    frame(noise(599), size=600))

# -- blocks ------------------------------------------------------------------------------------------------------------

RUNS = b"\x05" * 300 + b"\0" * 200 + b"\x09"
blocks("of-three-raw-blocks", "A frame of three raw blocks", SOME,
    (RAW, SOME[:1], 1), (RAW, SOME[1:400], 399), (RAW, SOME[400:], 200))
blocks("with-an-empty-block", "A frame has a raw block of no bytes between others", SOME,
    (RAW, SOME[:300], 300), (RAW, b"", 0), (RAW, SOME[300:], 300))
blocks("with-an-empty-last-block", "The last block of a frame has no bytes", SOME, (RAW, SOME, 600), (RAW, b"", 0))
blocks("of-runs", "A frame has blocks of one repeated byte", RUNS,
    (RLE, b"\x05", 300), (RLE, b"\0", 200), (RLE, b"\x09", 1))
blocks("of-runs-and-raw-blocks", "A frame has raw blocks and blocks of one repeated byte", RUNS + SOME[:99],
    (RLE, b"\x05", 300), (RAW, RUNS[300:], 201), (RAW, SOME[:99], 99))
blocks("of-literals-of-one-byte", "A compressed block has literals of one repeated byte, and no sequences",
    b"\x05" * 300, (COMPRESSED, bytes.fromhex("c5 12 05 00"), 4))
blocks("of-few-literals-of-one-byte", "A compressed block has 31 literals of one repeated byte, and no sequences",
    b"\x05" * 31, (COMPRESSED, bytes.fromhex("f9 05 00"), 3))
valid("of-raw-literals", "A compressed block has raw literals, and no sequences", CONTENT,
    SOME[:300], partial(headed, "44 00 2c 00", blocks=[(COMPRESSED, b"\xc4\x12" + SOME[:300] + b"\0", 303)]))
for each in ALL:
    blocks(f"of-{each.slug}", f"Compressed blocks: {each.title}", each.content, *each.blocks())
LAST = ALL[-1]
valid("of-compressed-and-other-blocks", "A frame with a window has raw, repeated and compressed blocks", CONTENT,
    SOME + b"\x04" * 300 + LAST.content,
    partial(headed, "44 05 dc 04", blocks=[(RAW, SOME, 600), (RLE, b"\x04", 300), *LAST.blocks()]))
ROWS.read("frame-of-another-checksum",
    "The checksum of a frame is wrong, and the content right: a reader may check it or not", "ZST-011 ZST-013",
    framed(SOME, partial(frame, checksum=b"\0\0\0\0")), verify=None, expect={"any": [
        {"version": 1, "state": "expected.safetensors"}, {"error": ["malformed"], "state": "held.safetensors"},
    ]})

GOOD = frame(SOME)
fault("of-a-reserved-block", "A block has the reserved type", FORM, frame(SOME, blocks=[(RESERVED, SOME, 600)]))
fault("of-a-block-longer-than-the-file", "A block is longer than what is stored", FORM,
    frame(SOME, blocks=[(RAW, SOME, 664)]))
fault("without-a-last-block", "No block of a frame is its last", FORM,
    MAGIC + b"\x64\x58\x01" + (RAW << 1 | 600 << 3).to_bytes(3, "little") + SOME + checksum(SOME))
fault("with-a-block-after-the-last", "A raw block of no bytes stands after the last block", FORM,
    GOOD[:-4] + written([(RAW, b"", 0)]) + GOOD[-4:])
for each in (each for each in ALL if each.slug in ("compressed-weights", "many-sequences")):
    cut = bytes.fromhex(each.digits[0])[:-1]
    fault(f"of-{each.slug}-cut-short", f"A compressed block lacks its last byte: {each.title}", CONTENT,
        frame(each.content, blocks=[(COMPRESSED, cut, len(cut))]), f"frame-of-{each.slug}", each.content)
TREE = ALL[1]
fault("of-a-tree-that-never-was", "The first block of a frame uses the tree of the block before", CONTENT,
    frame(TREE.content, blocks=[TREE.blocks()[1], (RAW, TREE.content[300:], 300)]), f"frame-of-{TREE.slug}",
    TREE.content)

# -- bytes that are no frame, or more than one -------------------------------------------------------------------------

fault("of-an-old-format", "The magic number is that of a format before version 0.8 of the library", FORM,
    b"\x27" + GOOD[1:])
fault("with-its-magic-number-turned-round", "The magic number is big-endian", FORM, GOOD[3::-1] + GOOD[4:])
fault("without-a-magic-number", "A frame has no magic number", FORM, GOOD[4:])
fault("that-is-the-content", "The stored bytes are the stream, and the compression is zstd", FORM, SOME)
ROWS.reject("frame-where-none-is-said", "The stored bytes are a frame, and the compression is none", "CHK-019",
    chain(one("U8", 600), one("U8", list(SOME)), Part(positions="all", values="replace", stored={"values.0": frame})))

# The stored bytes end at each edge of a frame with all of its parts; the entry's offsets say so.
WHOLE = headed("44 00 58 01", SOME)
for slug, text, length in (
    ("before-its-first-byte", "has no bytes", 0),
    ("in-the-magic-number", "ends in its magic number", 3),
    ("after-the-magic-number", "ends after its magic number", 4),
    ("after-the-descriptor", "ends after its descriptor", 5),
    ("after-the-window", "ends after its window", 6),
    ("in-the-size", "ends in its content size", 7),
    ("after-the-header", "ends after its header", 8),
    ("in-the-header-of-a-block", "ends in the header of its block", 10),
    ("after-the-header-of-a-block", "ends after the header of its block", 11),
    ("in-a-block", "ends in its block", 300),
    ("after-the-last-block", "ends after its block", len(WHOLE) - 4),
    ("in-the-checksum", "ends in its checksum", len(WHOLE) - 1),
):
    fault(f"that-ends-{slug}", f"A frame {text}", FORM, WHOLE[:length], "frame-of-a-window-of-1-kib")

SKIPPED = b"\x50\x2a\x4d\x18\x04\0\0\0abcd"
fault("after-a-skippable-frame", "A skippable frame stands before the frame", SKIPPABLE, SKIPPED + GOOD)
fault("that-is-skippable", "The stored bytes are a skippable frame", SKIPPABLE,
    SKIPPED[:4] + (600).to_bytes(4, "little") + SOME)
fault("before-a-skippable-frame", "A skippable frame stands after the frame", ONE_FRAME, GOOD + SKIPPED)
fault("before-a-second", "The frame is there twice", ONE_FRAME, GOOD * 2)
fault("before-an-empty-one", "A frame of no content stands after the frame", ONE_FRAME, GOOD + frame(b""))
fault("after-an-empty-one", "A frame of no content stands before the frame", SIZE, frame(b"") + GOOD)
fault("before-a-byte", "A byte 0 stands after the frame", ONE_FRAME, GOOD + b"\0")
fault("in-two", "The content is in two frames, which together have its size", SIZE,
    frame(SOME[:300]) + frame(SOME[300:]))
fault("in-two-of-which-the-first-says-all", "The content is in two frames, of which the first says the size of both",
    CONTENT, frame(SOME[:300], size=600) + frame(SOME[300:]))

# -- small frames of large contents, which a reader notices before it decodes them -------------------------------------

ZEROS_OF_2_27, ZEROS_OF_2_30 = bytes.fromhex("34 0f 66 71"), bytes.fromhex("7f 07 ff b7")
MIB = 1 << 20
fault("bomb-that-says-so", "A frame of 4 KB makes 128 MiB, and says so", SIZE,
    bomb(1 << 27, ZEROS_OF_2_27, 1 << 27), expect={"memory": 64 * MIB})
fault("bomb-that-says-1-gib", "A frame of 33 KB makes 1 GiB, and says so", SIZE,
    bomb(1 << 30, ZEROS_OF_2_30, 1 << 30), expect={"memory": 64 * MIB})
fault("bomb-that-says-600-bytes", "A frame makes 128 MiB, and says that it makes the 600 bytes of the stream",
    f"{CONTENT} ZST-010", bomb(1 << 27, ZEROS_OF_2_27, 600), expect={"memory": 64 * MIB})
fault("bomb-that-says-600-bytes-in-a-window",
    "A frame with a window of 128 MiB makes 1 GiB, and says that it makes the 600 bytes of the stream",
    f"{CONTENT} ZST-010", bomb(1 << 30, ZEROS_OF_2_30, 600, window=17 << 3), expect={"memory": 160 * MIB})
for stream, length in (("gaps", 7), ("codes", 2), ("escapes.1", 2)):
    for slug, text, rules, size in (
        ("says-so", "says so", SIZE, 1 << 27),
        ("says-the-size-of-the-stream", "says that it makes as much as the stream has", f"{CONTENT} ZST-010", length),
    ):
        ROWS.reject(f"frame-bomb-for-{kebab(stream)}-that-{slug}",
            f"A frame of the stream {stream} makes 128 MiB, and {text}", rules,
            chain(OLD, STEPS, Part(compression="zstd", stored={stream: always(bomb(1 << 27, ZEROS_OF_2_27, size))})),
            twin="streams-of-gaps-in-frames", expect={"memory": 64 * MIB})
