"""Compression of streams (SPEC.md section 7.10)."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable
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
}
_HASH_LOG = 10
#: Of streams that are cut: blocks of like bytes have fewer matches yet.
_HASH_LOG_CUT = 6
#: Bytes of a block that is cut, at least: its header and its Huffman table take some 60.
_BLOCK = 512


class _Compressors(threading.local):
    """A thread's compressors: making one costs more than compressing a stream."""

    def __init__(self) -> None:
        self.whole: Any = zstd.ZstdCompressor(options=_OPTIONS | {zstd.CompressionParameter.hash_log: _HASH_LOG})
        self.cut: Any = None

    def new_cut(self) -> None:
        self.cut = zstd.ZstdCompressor(options=_OPTIONS | {zstd.CompressionParameter.hash_log: _HASH_LOG_CUT})


_COMPRESSORS = _Compressors()


def compress(stream: Bytes) -> bytes:
    """One zstd frame with content size and checksum."""
    frame: bytes = _COMPRESSORS.whole.compress(stream.data, mode=zstd.ZstdCompressor.FLUSH_FRAME)
    return frame


def compress_cut(stream: Bytes, cuts: Iterable[int]) -> bytes:
    """The same, of a stream whose bytes have another distribution after each cut.

    Args:
        stream: the content.
        cuts: places in it, ascending. A block ends there, unless it would be short.
    """
    if _COMPRESSORS.cut is None or _COMPRESSORS.cut.last_mode != zstd.ZstdCompressor.FLUSH_FRAME:
        _COMPRESSORS.new_cut()  # the one before was interrupted in the midst of a frame
    compressor = _COMPRESSORS.cut
    compressor.set_pledged_input_size(len(stream))
    parts: list[bytes] = []
    start = 0
    for cut in cuts:
        if start + _BLOCK <= cut < len(stream):
            parts.append(compressor.compress(stream[start:cut].data, mode=zstd.ZstdCompressor.FLUSH_BLOCK))
            start = cut
    parts.append(compressor.compress(stream[start:].data, mode=zstd.ZstdCompressor.FLUSH_FRAME))
    return b"".join(parts)


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
