"""Stored bytes that are not one good Zstandard frame (SPEC.md section 7.10)."""

from __future__ import annotations

from functools import partial

from generate.areas.frames import AREA, checksum, framed, headed, noise, written
from generate.blocks import ALL
from generate.cases import reject
from generate.frames import BLOCK, COMPRESSED, MAGIC, RAW, RESERVED, RLE, frame
from generate.pair import Build, Frame, Part, chain, moved, one

CONTENT = noise(600)
SKIPPABLE = b"\x50\x2a\x4d\x18\x04\0\0\0abcd"
MIB = 1 << 20


def fault(
    slug: str,
    title: str,
    rule: str | tuple[str, ...],
    how: Frame,
    twin: str = "of-a-size-of-2-bytes",
    content: bytes = CONTENT,
    memory: int | None = None,
) -> None:
    """Register a frame that a reader has to reject, beside a good one of the same content."""
    reject(
        f"frame-{slug}",
        area=AREA,
        title=title,
        requirements=[rule] if isinstance(rule, str) else rule,
        chain=framed(content, how),
        error="malformed",
        twin=f"frame-{twin}",
        expect={} if memory is None else {"memory": memory},
    )


def data(stored: bytes) -> Frame:
    """These bytes, whatever the content is."""
    return lambda _: stored


def _headers() -> None:
    for slug, title, rule, digits in (
        ("with-the-reserved-bit", "The reserved bit of a frame's descriptor is set", "TD-ZST-001", "6c 58 01"),
        ("without-a-size", "A frame has a window and no content size", "TD-ZST-002", "04 00"),
        ("with-a-dictionary-id-of-1-byte", "A frame names dictionary 1", "TD-ZST-005", "65 01 58 01"),
        (
            "with-a-dictionary-id-of-0",
            "A frame has the dictionary id 0 in one byte, which for a library is none",
            "TD-ZST-005",
            "65 00 58 01",
        ),
        (
            "with-a-dictionary-id-of-2-bytes",
            "A frame has the dictionary id 0 in two bytes",
            "TD-ZST-005",
            "66 00 00 58 01",
        ),
        (
            "with-a-dictionary-id-of-4-bytes",
            "A frame has the dictionary id 0 in four bytes",
            "TD-ZST-005",
            "67 00 00 00 00 58 01",
        ),
        (
            "of-a-window-beyond-128-mib",
            "The window of a frame is 2^27 bytes and an eighth",
            "TD-ZST-008",
            "44 89 58 01",
        ),
        (
            "of-the-widest-window",
            "The window of a frame is the widest that a frame can have",
            "TD-ZST-008",
            "44 ff 58 01",
        ),
        (
            "of-a-size-one-more",
            "The content size of a frame is one more than its content, and than the stream has",
            "TD-ZST-003",
            "64 59 01",
        ),
        (
            "of-a-size-one-less",
            "The content size of a frame is one less than its content, and than the stream has",
            "TD-ZST-003",
            "64 57 01",
        ),
        (
            "of-a-size-of-2-32-more",
            "The content size of a frame is 2^32 more than its content",
            "TD-ZST-003",
            "e4 58 02 00 00 01 00 00 00",
        ),
        (
            "of-a-size-of-2-64-minus-1",
            "The content size of a frame is 2^64 - 1",
            "TD-ZST-003",
            "e4 ff ff ff ff ff ff ff ff",
        ),
        ("of-a-size-of-0", "The content size of a frame is 0", "TD-ZST-003", "24 00"),
    ):
        fault(slug, title, rule, partial(headed, digits))
    fault("without-a-checksum", "A frame has no checksum, and says so", "TD-ZST-004", partial(frame, checksum=False))
    fault(
        "with-a-checksum-that-it-denies",
        "A frame says that it has no checksum, and ends with one",
        "TD-ZST-004",
        partial(headed, "60 58 01"),
    )
    fault(
        "without-the-checksum-that-it-announces",
        "A frame says that it has a checksum, and ends without",
        "TD-ZST-001",
        lambda content: headed("64 58 01", content)[:-4],
    )
    longer, shorter = noise(601), noise(599)
    fault(
        "of-a-longer-content",
        "A frame has one byte more than the stream, and says so",
        "TD-ZST-003",
        lambda _: frame(longer),
    )
    fault(
        "of-a-shorter-content",
        "A frame has one byte fewer than the stream, and says so",
        "TD-ZST-003",
        lambda _: frame(shorter),
    )
    fault(
        "that-makes-more",
        "A frame has a byte more than its content size, which is the stream's",
        "TD-ZST-009",
        data(frame(longer, size=600)),
    )
    fault(
        "that-makes-fewer",
        "A frame has a byte fewer than its content size, which is the stream's",
        "TD-ZST-009",
        data(frame(shorter, size=600)),
    )


def _truncated() -> None:
    """The stored bytes end at each edge of a frame with all of its parts; the entry's offsets say so."""
    whole = headed("44 00 58 01", CONTENT)
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
        ("after-the-last-block", "ends after its block", len(whole) - 4),
        ("in-the-checksum", "ends in its checksum", len(whole) - 1),
    ):
        fault(
            f"that-ends-{slug}",
            f"A frame {text}",
            "TD-ZST-001",
            data(whole[:length]),
            "of-a-window-of-1-kib",
        )


def _more() -> None:
    """More than one frame."""
    one_frame = frame(CONTENT)
    after = "TD-ZST-006"
    for slug, title, rule, stored in (
        ("after-a-skippable-frame", "A skippable frame stands before the frame", "TD-ZST-007", SKIPPABLE + one_frame),
        (
            "that-is-skippable",
            "The stored bytes are a skippable frame",
            "TD-ZST-007",
            b"\x50\x2a\x4d\x18" + (600).to_bytes(4, "little") + CONTENT,
        ),
        ("before-a-skippable-frame", "A skippable frame stands after the frame", after, one_frame + SKIPPABLE),
        ("before-a-second", "The frame is there twice", after, one_frame * 2),
        ("before-an-empty-one", "A frame of no content stands after the frame", after, one_frame + frame(b"")),
        ("after-an-empty-one", "A frame of no content stands before the frame", "TD-ZST-003", frame(b"") + one_frame),
        ("before-a-byte", "A byte 0 stands after the frame", after, one_frame + b"\0"),
        (
            "in-two",
            "The content is in two frames, which together have its size",
            "TD-ZST-003",
            frame(CONTENT[:300]) + frame(CONTENT[300:]),
        ),
        (
            "in-two-of-which-the-first-says-all",
            "The content is in two frames, of which the first says the size of both",
            "TD-ZST-009",
            frame(CONTENT[:300], size=600) + frame(CONTENT[300:]),
        ),
    ):
        fault(slug, title, rule, data(stored))


def _forms() -> None:
    """Other things than frames, and blocks that are none."""
    good = frame(CONTENT)
    rule = "TD-ZST-001"
    for slug, title, stored in (
        (
            "of-an-old-format",
            "The magic number is that of a format before version 0.8 of the library",
            b"\x27" + good[1:],
        ),
        ("with-its-magic-number-turned-round", "The magic number is big-endian", good[3::-1] + good[4:]),
        ("without-a-magic-number", "A frame has no magic number", good[4:]),
        ("that-is-the-content", "The stored bytes are the stream, and the compression is zstd", CONTENT),
        ("of-a-reserved-block", "A block has the reserved type", frame(CONTENT, blocks=[(RESERVED, CONTENT, 600)])),
        (
            "of-a-block-longer-than-the-file",
            "A block is longer than what is stored",
            frame(CONTENT, blocks=[(RAW, CONTENT, 664)]),
        ),
        (
            "without-a-last-block",
            "No block of a frame is its last",
            MAGIC + b"\x64\x58\x01" + (RAW << 1 | 600 << 3).to_bytes(3, "little") + CONTENT + checksum(CONTENT),
        ),
        (
            "with-a-block-after-the-last",
            "A raw block of no bytes stands after the last block",
            good[:-4] + written([(RAW, b"", 0)]) + good[-4:],
        ),
    ):
        fault(slug, title, rule, data(stored))
    for each in ALL:
        if each.slug not in ("compressed-weights", "many-sequences"):
            continue
        (block,) = map(bytes.fromhex, each.digits)
        cut = block[:-1]
        fault(
            f"of-{each.slug}-cut-short",
            f"A compressed block lacks its last byte: {each.title}",
            "TD-ZST-009",
            data(frame(each.content, blocks=[(COMPRESSED, cut, len(cut))])),
            f"of-{each.slug}",
            each.content,
        )
    tree = ALL[1]
    second = bytes.fromhex(tree.digits[1])
    fault(
        "of-a-tree-that-never-was",
        "The first block of a frame uses the tree of the block before",
        "TD-ZST-009",
        data(frame(tree.content, blocks=[(COMPRESSED, second, len(second)), (RAW, tree.content[300:], 300)])),
        f"of-{tree.slug}",
        tree.content,
    )
    old, new = one("U8", 600), one("U8", list(CONTENT))
    reject(
        "frame-where-none-is-said",
        area=AREA,
        title="The stored bytes are a frame, and the compression is none",
        requirements=["TD-CHK-019"],
        chain=chain(old, new, Part(positions="all", values="replace", stored={"values.0": frame})),
        error="malformed",
        twin="frame-of-a-size-of-2-bytes",
    )


ZEROS_OF_2_27 = bytes.fromhex("34 0f 66 71")
ZEROS_OF_2_30 = bytes.fromhex("7f 07 ff b7")
"""The checksums of so many zeros."""


def _bomb(content: bytes, count: int, end: bytes, *, size: int, window: int | None = None) -> bytes:
    """A frame of few bytes that makes many."""
    blocks = [(RLE, b"\0", BLOCK)] * (count // BLOCK)
    return frame(content, blocks=blocks, checksum=end, size=size, size_bytes=8, window=window)


def _steps(how: Frame, stream: str) -> Build:
    """A chunk of gaps and steps with escapes, of which one stream is made by `how`."""
    old = one("U16", 600)
    new = moved(old, {3: 1, 9: 1000, 290: 65535, 291: 700, 599: 1})
    return chain(old, new, Part(compression="zstd", stored={stream: how}))


def _bombs() -> None:
    """Small frames that make much; a reader knows before it decodes them."""
    wide = 17 << 3
    for slug, title, rule, size, window, count, end in (
        ("says-so", "A frame of 4 KB makes 128 MiB, and says so", "TD-ZST-003", 1 << 27, None, 1 << 27, ZEROS_OF_2_27),
        (
            "says-1-gib",
            "A frame of 33 KB makes 1 GiB, and says so",
            "TD-ZST-003",
            1 << 30,
            None,
            1 << 30,
            ZEROS_OF_2_30,
        ),
        (
            "says-600-bytes",
            "A frame makes 128 MiB, and says that it makes the 600 bytes of the stream",
            ("TD-ZST-009", "TD-ZST-010"),
            600,
            None,
            1 << 27,
            ZEROS_OF_2_27,
        ),
        (
            "says-600-bytes-in-a-window",
            "A frame with a window of 128 MiB makes 1 GiB, and says that it makes the 600 bytes of the stream",
            ("TD-ZST-009", "TD-ZST-010"),
            600,
            wide,
            1 << 30,
            ZEROS_OF_2_30,
        ),
    ):
        fault(
            f"bomb-that-{slug}",
            title,
            rule,
            partial(_bomb, count=count, end=end, size=size, window=window),
            memory=(160 if window else 64) * MIB,
        )
    for stream, length in (("gaps", 7), ("codes", 2), ("escapes.1", 2)):
        for slug, text, size in (
            ("says-so", "says so", 1 << 27),
            ("says-the-size-of-the-stream", "says that it makes as much as the stream has", length),
        ):
            reject(
                f"frame-bomb-for-{stream.replace('.', '-')}-that-{slug}",
                area=AREA,
                title=f"A frame of the stream {stream} makes 128 MiB, and {text}",
                requirements=["TD-ZST-003"] if size > length else ["TD-ZST-009", "TD-ZST-010"],
                chain=_steps(data(_bomb(b"", 1 << 27, ZEROS_OF_2_27, size=size)), stream),
                error="malformed",
                twin="streams-of-gaps-in-frames",
                expect={"memory": 64 * MIB},
            )


_headers()
_truncated()
_more()
_forms()
_bombs()
