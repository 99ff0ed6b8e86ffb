"""Zstandard frames by hand (RFC 8878, section 3.1.1), of raw and repeated blocks.

A compressor's output depends on its version; these bytes do not.
"""

from __future__ import annotations

from collections.abc import Sequence

from generate.model import MASK64

MAGIC = b"\x28\xb5\x2f\xfd"
BLOCK = 1 << 17
"""The most bytes that a block may make."""

RAW, RLE, COMPRESSED, RESERVED = range(4)

Block = tuple[int, bytes, int]
"""Type, bytes as stored, Block_Size."""

_P1, _P2, _P3, _P4, _P5 = (
    0x9E3779B185EBCA87,
    0xC2B2AE3D27D4EB4F,
    0x165667B19E3779F9,
    0x85EBCA77C2B2AE63,
    0x27D4EB2F165667C5,
)


def _rotate(x: int, by: int) -> int:
    return (x << by | x >> (64 - by)) & MASK64


def _round(lane: int, word: int) -> int:
    return _rotate((lane + word * _P2) & MASK64, 31) * _P1 & MASK64


def xxh64(data: bytes) -> int:
    """XXH64 with seed 0, of which a frame ends with the low 32 bits."""
    whole = len(data) // 32 * 32
    if whole:
        lanes = [(_P1 + _P2) & MASK64, _P2, 0, -_P1 & MASK64]
        for at in range(0, whole, 32):
            for number in range(4):
                word = int.from_bytes(data[at + 8 * number : at + 8 * number + 8], "little")
                lanes[number] = _round(lanes[number], word)
        h = sum(_rotate(lane, by) for lane, by in zip(lanes, (1, 7, 12, 18), strict=True)) & MASK64
        for lane in lanes:
            h = ((h ^ _round(0, lane)) * _P1 + _P4) & MASK64
    else:
        h = _P5
    h = (h + len(data)) & MASK64
    at = whole
    while at + 8 <= len(data):
        h = (_rotate(h ^ _round(0, int.from_bytes(data[at : at + 8], "little")), 27) * _P1 + _P4) & MASK64
        at += 8
    if at + 4 <= len(data):
        h = (_rotate(h ^ int.from_bytes(data[at : at + 4], "little") * _P1 & MASK64, 23) * _P2 + _P3) & MASK64
        at += 4
    for byte in data[at:]:
        h = _rotate(h ^ byte * _P5 & MASK64, 11) * _P1 & MASK64
    h = (h ^ h >> 33) * _P2 & MASK64
    h = (h ^ h >> 29) * _P3 & MASK64
    return h ^ h >> 32


def raw_blocks(content: bytes) -> list[Block]:
    """Content as it is."""
    parts = [content[at : at + BLOCK] for at in range(0, len(content), BLOCK)] or [b""]
    return [(RAW, part, len(part)) for part in parts]


def run_blocks(content: bytes) -> list[Block]:
    """One byte, again and again."""
    sizes = [min(BLOCK, len(content) - at) for at in range(0, len(content), BLOCK)]
    return [(RLE, content[:1], size) for size in sizes]


def frame(
    content: bytes,
    *,
    size: int | None = -1,
    size_bytes: int | None = None,
    checksum: bool | bytes = True,
    dictionary: int = 0,
    window: int | None = None,
    reserved: int = 0,
    unused: int = 0,
    blocks: Sequence[Block] | None = None,
) -> bytes:
    """A frame.

    Args:
        size: the content size declared; -1 for the true one, None for none.
        size_bytes: 1 (single segment only), 2, 4 or 8; the shortest unless given.
        checksum: whether the frame ends with the content's checksum; or the four bytes with which it ends.
        dictionary: a dictionary id of one byte; 0 for none.
        window: a Window_Descriptor byte; without it the frame is a single segment.
        reserved, unused: these bits of the Frame_Header_Descriptor.
        blocks: by default the content in raw blocks.
    """
    declared = len(content) if size == -1 else size
    single = window is None
    if declared is None:
        flag, fcs = 0, b""
    else:
        if size_bytes is None:
            size_bytes = (
                1 if single and declared < 256 else 2 if 256 <= declared < 65792 else 4 if declared < 1 << 32 else 8
            )
        flag = {1: 0, 2: 1, 4: 2, 8: 3}[size_bytes]
        fcs = (declared - (256 if size_bytes == 2 else 0)).to_bytes(size_bytes, "little")
    head = flag << 6 | single << 5 | unused << 4 | reserved << 3 | bool(checksum) << 2 | bool(dictionary)
    out = MAGIC + bytes([head])
    if window is not None:
        out += bytes([window])
    if dictionary:
        out += bytes([dictionary])
    out += fcs
    if blocks is None:
        blocks = raw_blocks(content)
    for number, (kind, data, length) in enumerate(blocks):
        out += ((number == len(blocks) - 1) | kind << 1 | length << 3).to_bytes(3, "little") + data
    if isinstance(checksum, bytes):
        return out + checksum
    return out + (xxh64(content) & 0xFFFFFFFF).to_bytes(4, "little") if checksum else out


def zstd(content: bytes) -> bytes:
    """A frame as the format wants it: runs where all bytes are equal, else raw blocks."""
    same = len(content) > 1 and content == content[:1] * len(content)
    return frame(content, blocks=run_blocks(content) if same else None)
