"""Compression of streams (SPEC.md section 7.10)."""

from __future__ import annotations

import sys
import threading
from typing import Any

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

import numpy as np
from numpy.typing import NDArray

from . import CodecFault

Bytes = NDArray[np.uint8]

NONE = "none"
ZSTD = "zstd"
#: The compressions of version 1.0.
KNOWN = (NONE, ZSTD)

_MAGIC = 0xFD2FB528
#: Skippable frames have the magic numbers 0x184D2A50 to 0x184D2A5F.
_SKIPPABLE = 0x184D2A5
_MAX_WINDOW = 1 << 27

# Streams are close to random bytes, with few matches: a small hash table is fast and finds the runs of equal bytes.
_OPTIONS: dict[int, int] = {
    zstd.CompressionParameter.compression_level: 1,
    zstd.CompressionParameter.checksum_flag: 1,
    zstd.CompressionParameter.content_size_flag: 1,
    zstd.CompressionParameter.min_match: 7,
    zstd.CompressionParameter.hash_log: 10,
}
_LOCAL = threading.local()


def compress(stream: Bytes) -> bytes:
    """One zstd frame with content size and checksum."""
    compressor: Any = getattr(_LOCAL, "compressor", None)
    if compressor is None:
        compressor = _LOCAL.compressor = zstd.ZstdCompressor(options=_OPTIONS)
    frame: bytes = compressor.compress(stream.data, mode=zstd.ZstdCompressor.FLUSH_FRAME)
    return frame


def content_size(frame: bytes | memoryview) -> int:
    """The content size that a frame's header declares, after checking the header (RFC 8878, section 3.1.1.1).

    Nothing is decompressed. The frame must have a content size, no dictionary, and a window of at most
    128 MiB.
    """
    magic = int.from_bytes(frame[:4], "little")
    if len(frame) >= 4 and magic >> 4 == _SKIPPABLE:
        raise CodecFault("begins with a skippable frame", "TD-ZST-007")
    if len(frame) < 6 or magic != _MAGIC:
        raise CodecFault("not a zstd frame", "TD-ZST-001")
    descriptor = frame[4]
    single = bool(descriptor & 0x20)
    size_bytes = (1 if single else 0, 2, 4, 8)[descriptor >> 6]
    if descriptor & 0x08:
        raise CodecFault("the zstd frame has its reserved bit set", "TD-ZST-001")
    if not size_bytes:
        raise CodecFault("the zstd frame has no content size", "TD-ZST-002")
    if descriptor & 0x03:
        raise CodecFault("the zstd frame names a dictionary", "TD-ZST-005")
    at = 5
    if not single:
        exponent, mantissa = frame[5] >> 3, frame[5] & 7
        window = (1 << (10 + exponent)) + ((1 << (10 + exponent)) >> 3) * mantissa
        if window > _MAX_WINDOW:
            raise CodecFault(f"the zstd frame wants a window of {window} bytes", "TD-ZST-008")
        at = 6
    if len(frame) < at + size_bytes:
        raise CodecFault("the zstd frame is cut short", "TD-ZST-001")
    return int.from_bytes(frame[at : at + size_bytes], "little") + (256 if size_bytes == 2 else 0)


def decompress(frame: bytes | memoryview, size: int) -> Bytes:
    """The content of a frame whose header declares `size` bytes; nothing may follow the frame."""
    decompressor = zstd.ZstdDecompressor()
    try:
        content = decompressor.decompress(frame, max_length=size)
    except zstd.ZstdError as error:
        raise CodecFault(f"the zstd frame does not decode: {error}", "TD-ZST-009") from None
    if not decompressor.eof or len(content) != size:
        raise CodecFault("the zstd frame is cut short", "TD-ZST-006")
    if decompressor.unused_data:
        raise CodecFault("something follows the zstd frame", "TD-ZST-006")
    return np.frombuffer(content, np.uint8)
