"""Deltas of a whole tensor's bytes, as slime, its kin and SkyRL write them: one zstd frame for each changed tensor.

`xor` is the old bytes xor the new ones. `overwrite` is a count, so many byte positions, and the new bytes there; count
and positions are unsigned 32-bit integers.
"""

from __future__ import annotations

import sys

import numpy as np

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

from ..errors import IntegrityError, UnsupportedError
from .checksums import checksum
from .objects import Bytes, malformed

XOR, OVERWRITE = "xor", "overwrite"
ENCODINGS = (XOR, OVERWRITE)
#: Bytes from which on a position does not fit 32 bits.
REACH = 1 << 32

_LEVEL = 1


def frame(content: Bytes) -> Bytes:
    """One zstd frame with the content's size, at level 1 as the peers write it."""
    return np.frombuffer(zstd.compress(content.data, _LEVEL), np.uint8)


def encode(encoding: str, old: Bytes, new: Bytes, *, name: str, rule: str) -> Bytes | None:
    """A tensor's delta, compressed; None where nothing changed.

    Args:
        encoding: one of `ENCODINGS`.
        old, new: the tensor's bytes, of one length.
        name: the tensor's, for errors.

    Raises:
        UnsupportedError: `overwrite`, for a tensor whose positions do not fit 32 bits.
    """
    difference = old ^ new
    if not difference.any():
        return None
    if encoding == XOR:
        return frame(difference)
    check_reach(new.size, name=name, rule=rule)
    positions = np.flatnonzero(difference).astype("<u4")
    count = np.array([positions.size], "<u4")
    return frame(np.concatenate([count.view(np.uint8), positions.view(np.uint8), new[positions]]))


def check_reach(size: int, *, name: str, rule: str) -> None:
    """Check that the positions of a tensor's bytes fit 32 bits.

    Raises:
        UnsupportedError: they do not.
    """
    if size > REACH:
        raise UnsupportedError(
            f"tensor {name!r} has {size:,} bytes, and the positions of `overwrite` end at 4 GiB",
            object=name,
            rule=rule,
            advice="Have the version written with the encoding `xor`.",
        )


def decode(encoding: str, payload: memoryview, old: Bytes, *, name: str, object: str, rule: str) -> Bytes:
    """A tensor's new bytes, in memory of their own.

    Raises:
        MalformedError: the frame is damaged, or its content does not fit the tensor.
        UnsupportedError: `overwrite`, for a tensor whose positions do not fit 32 bits.
    """
    limit = old.size if encoding == XOR else 4 + 5 * old.size
    content = _content(payload, limit, name=name, object=object, rule=rule)
    if encoding == XOR and content.size != old.size:
        raise malformed(
            f"the frame of tensor {name!r} has {content.size:,} bytes, and the base {old.size:,}",
            object=object,
            rule=rule,
        )
    if encoding == XOR:
        return old ^ content
    check_reach(old.size, name=name, rule=rule)
    count = int(content[:4].view("<u4")[0]) if content.size >= 4 else -1
    if content.size != 4 + 5 * count:
        raise malformed(
            f"the delta of tensor {name!r} has {content.size:,} bytes, which no count of positions gives",
            object=object,
            rule=rule,
        )
    positions = content[4 : 4 + 4 * count].view("<u4")
    if count and (positions[-1] >= old.size or not (positions[:-1] < positions[1:]).all()):
        raise malformed(
            f"the positions in tensor {name!r} do not ascend, or pass its {old.size:,} bytes", object=object, rule=rule
        )
    new = old.copy()
    new[positions] = content[4 + 4 * count :]
    return new


def _content(payload: memoryview, limit: int, *, name: str, object: str, rule: str) -> Bytes:
    """What a tensor's frame holds, of at most so many bytes; nothing may follow the frame."""
    decompressor = zstd.ZstdDecompressor()
    try:
        content = decompressor.decompress(payload, max_length=limit)
        ended = decompressor.eof or (not decompressor.decompress(b"", max_length=1) and decompressor.eof)
    except zstd.ZstdError as error:
        raise malformed(f"the frame of tensor {name!r} does not decode: {error}", object=object, rule=rule) from None
    if not ended or decompressor.unused_data:
        reason = "is followed by something" if ended else f"is cut short, or has more than {limit:,} bytes"
        raise malformed(f"the frame of tensor {name!r} {reason}", object=object, rule=rule)
    return np.frombuffer(content, np.uint8)


def check_sum(algorithm: str, expected: str, new: Bytes, *, name: str, object: str, rule: str) -> None:
    """Check a tensor's new bytes.

    Raises:
        IntegrityError: they have another checksum.
        ImportError: the algorithm needs a package that is not installed.
    """
    if checksum(algorithm, new) != expected:
        raise IntegrityError(
            f"tensor {name!r} does not have the {algorithm} checksum that its version gives",
            object=object,
            rule=rule,
            advice="The delta is damaged, or was made to another base: compare the base with the writer's own, "
            "or begin at a full version.",
        )
