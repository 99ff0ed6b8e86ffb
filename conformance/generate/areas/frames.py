"""Zstandard frames of every form that is allowed (SPEC.md section 7.10)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from generate.blocks import ALL, Compressed
from generate.cases import read
from generate.frames import COMPRESSED, MAGIC, RAW, RLE, Block, frame, raw_blocks, xxh64
from generate.model import Random
from generate.pair import Build, Frame, Part, chain, one

AREA = "frames"


def noise(count: int) -> bytes:
    """Bytes that no compressor makes smaller."""
    return Random("frames").bytes(count)


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


def valid(slug: str, title: str, content: bytes, how: Frame, rule: str = "TD-ZST-001", *, full: bool = False) -> None:
    """Register a valid case."""
    read(
        f"frame-{slug}",
        area=AREA,
        title=title,
        requirements=[rule],
        chain=framed(content, how, full=full),
        to=0 if full else 1,
        held=None if full else 0,
    )


def _headers() -> None:
    """Headers: what follows the magic number, by hand."""
    few, some, many = noise(200), noise(600), noise(3000)
    parts = [(RAW, many[at : at + 1000], 1000) for at in range(0, 3000, 1000)]
    for slug, title, content, digits in (
        ("of-a-size-of-1-byte", "A frame of one segment has its content size, 200, in one byte", few, "24 c8"),
        ("of-a-size-of-1-in-1-byte", "A frame of one segment has the content size 1", b"\x07", "24 01"),
        (
            "of-a-size-of-255-in-1-byte",
            "A frame of one segment has the greatest content size of one byte, 255",
            noise(255),
            "24 ff",
        ),
        (
            "of-a-size-of-2-bytes",
            "A frame of one segment has its content size, 600, in two bytes as 344",
            some,
            "64 58 01",
        ),
        (
            "of-a-size-of-256-in-2-bytes",
            "A frame of one segment has the smallest content size of two bytes, 256, as 0",
            noise(256),
            "64 00 00",
        ),
        (
            "of-a-size-of-4-bytes",
            "A frame of one segment has its content size, 600, in four bytes",
            some,
            "a4 58 02 00 00",
        ),
        (
            "of-a-small-size-of-4-bytes",
            "A frame of one segment has its content size, 200, in four bytes",
            few,
            "a4 c8 00 00 00",
        ),
        (
            "of-a-size-of-8-bytes",
            "A frame of one segment has its content size, 600, in eight bytes",
            some,
            "e4 58 02 00 00 00 00 00 00",
        ),
        (
            "of-a-window-of-1-kib",
            "A frame has the smallest window, 1 KiB, and a content size of two bytes",
            some,
            "44 00 58 01",
        ),
        (
            "of-a-window-of-1664-bytes",
            "A frame has a window of 1 KiB and five eighths, and a content size of four bytes",
            some,
            "84 05 58 02 00 00",
        ),
        (
            "of-a-window-of-120-mib",
            "A frame has a window of 64 MiB and seven eighths, and a content size of eight bytes",
            some,
            "c4 87 58 02 00 00 00 00 00 00",
        ),
        ("of-a-window-of-128-mib", "A frame has the widest window, 2^27 bytes", some, "44 88 58 01"),
        (
            "with-the-unused-bit",
            "The unused bit of a frame's descriptor is set, which nobody looks at",
            some,
            "74 58 01",
        ),
    ):
        valid(slug, title, content, partial(headed, digits))
    valid(
        "of-a-window-smaller-than-its-content",
        "A frame of 3,000 bytes has a window of 1 KiB, and blocks no longer than that",
        many,
        partial(headed, "44 00 b8 0a", blocks=parts),
    )
    for count, which, digits in (
        (65_791, "greatest that fits", "64 ff ff"),
        (65_792, "smallest beyond", "a4 00 01 01 00"),
    ):
        valid(
            f"of-a-size-of-{count}",
            f"A frame of one segment has the content size {count:,}, the {which} two bytes",
            b"\x07" * count,
            partial(headed, digits, blocks=[(RLE, b"\x07", count)]),
            full=True,
        )


def _compressed(each: Compressed, content: bytes) -> bytes:
    return frame(content, blocks=each.blocks())


def _blocks() -> None:
    some = noise(600)
    runs = b"\x05" * 300 + b"\0" * 200 + b"\x09"
    rule = "TD-ZST-009"
    for slug, title, content, blocks in (
        (
            "of-three-raw-blocks",
            "A frame of three raw blocks",
            some,
            [(RAW, some[:1], 1), (RAW, some[1:400], 399), (RAW, some[400:], 200)],
        ),
        (
            "with-an-empty-block",
            "A frame has a raw block of no bytes between others",
            some,
            [(RAW, some[:300], 300), (RAW, b"", 0), (RAW, some[300:], 300)],
        ),
        ("with-an-empty-last-block", "The last block of a frame has no bytes", some, [(RAW, some, 600), (RAW, b"", 0)]),
        (
            "of-runs",
            "A frame has blocks of one repeated byte",
            runs,
            [(RLE, b"\x05", 300), (RLE, b"\0", 200), (RLE, b"\x09", 1)],
        ),
        (
            "of-runs-and-raw-blocks",
            "A frame has raw blocks and blocks of one repeated byte",
            runs + some[:99],
            [(RLE, b"\x05", 300), (RAW, runs[300:], 201), (RAW, some[:99], 99)],
        ),
        (
            "of-literals-of-one-byte",
            "A compressed block has literals of one repeated byte, and no sequences",
            b"\x05" * 300,
            [(COMPRESSED, bytes.fromhex("c5 12 05 00"), 4)],
        ),
        (
            "of-few-literals-of-one-byte",
            "A compressed block has 31 literals of one repeated byte, and no sequences",
            b"\x05" * 31,
            [(COMPRESSED, bytes.fromhex("f9 05 00"), 3)],
        ),
    ):
        valid(slug, title, content, partial(frame, blocks=blocks), rule)
    literals = some[:300]
    valid(
        "of-raw-literals",
        "A compressed block has raw literals, and no sequences",
        literals,
        partial(headed, "44 00 2c 00", blocks=[(COMPRESSED, b"\xc4\x12" + literals + b"\0", 303)]),
        rule,
    )
    for each in ALL:
        valid(f"of-{each.slug}", f"Compressed blocks: {each.title}", each.content, partial(_compressed, each), rule)
    last = ALL[-1]
    valid(
        "of-compressed-and-other-blocks",
        "A frame with a window has raw, repeated and compressed blocks",
        some + b"\x04" * 300 + last.content,
        lambda content: headed("44 05 dc 04", content, [(RAW, some, 600), (RLE, b"\x04", 300), *last.blocks()]),
        rule,
    )
    read(
        "frame-of-another-checksum",
        area=AREA,
        title="The checksum of a frame is wrong, and the content right: a reader may check it or not",
        requirements=["TD-ZST-011", "TD-ZST-013"],
        chain=framed(some, partial(frame, checksum=b"\0\0\0\0")),
        expect={
            "any": [
                {"version": 1, "state": "expected.safetensors"},
                {"error": ["malformed"], "state": "held.safetensors"},
            ]
        },
        verify=None,
    )


_headers()
_blocks()
