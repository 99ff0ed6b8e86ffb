"""Streams as they are stored: plain, or as one zstd frame (SPEC.md sections 7.9 and 7.10)."""

from __future__ import annotations

import sys

from .faults import Fault, need
from .table import Chunk

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


def check_frame(f: bytes, lowest: int, highest: int) -> int:
    """check_frame of section 7.10; gives the content size."""

    def number(at: int, count: int) -> int:
        need(at + count <= len(f), "TD-ZST-006", "the frame is cut short")
        return int.from_bytes(f[at : at + count], "little")

    need(len(f) >= 5 and f[:4] == b"\x28\xb5\x2f\xfd", "TD-ZST-001", "no zstd frame")
    fhd = f[4]
    flag, single, reserved, checksum, dictionary = fhd >> 6, fhd >> 5 & 1, fhd >> 3 & 1, fhd >> 2 & 1, fhd & 3
    need(not reserved, "TD-ZST-001", "the reserved bit of the frame header is set")
    need(checksum, "TD-ZST-004", "no checksum")
    need(not dictionary, "TD-ZST-005", "a dictionary id")
    p = 5
    window = 0
    if not single:
        b = number(p, 1)
        p += 1
        window_base = 2 ** (10 + (b >> 3))
        window = window_base + window_base // 8 * (b & 7)
    need(flag or single, "TD-ZST-002", "no content size")
    width = (1, 2, 4, 8)[flag]
    size = number(p, width) + (256 if flag == 1 else 0)
    p += width
    if single:
        window = size
    need(lowest <= size <= highest, "TD-ZST-003", f"a content size of {size}, not {lowest} to {highest}")
    need(window <= 2**27, "TD-ZST-008", f"a window of {window} bytes")
    while True:
        b = number(p, 3)
        p += 3
        last, kind, length = b & 1, b >> 1 & 3, b >> 3
        need(kind != 3, "TD-ZST-001", "a reserved block")
        p += 1 if kind == 1 else length
        if last:
            break
    p += 4
    need(p == len(f), "TD-ZST-006", "the frame does not end where the stored bytes end")
    return size


def read_stream(chunk: Chunk, name: str, lowest: int, highest: int) -> bytes:
    """A stream of a chunk, whose size is between two bounds."""
    need(name in chunk.streams, "TD-CHK-021", f"the stream {name} is absent")
    stored = chunk.streams[name]
    if chunk.compression == "none":
        need(lowest <= len(stored) <= highest, "TD-CHK-019", f"the stream {name} has {len(stored)} bytes")
        return stored
    size = check_frame(stored, lowest, highest)
    try:
        decoder = zstd.ZstdDecompressor()
        stream = decoder.decompress(stored, size + 1)  # a byte more, so that a frame that lies shows
    except zstd.ZstdError as error:
        raise Fault("malformed", "TD-ZST-009", str(error)) from None
    need(len(stream) == size and decoder.eof, "TD-ZST-009", "the frame decodes to another size")
    return stream
