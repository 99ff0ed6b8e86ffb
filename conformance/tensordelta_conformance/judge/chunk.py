"""Decoding a chunk against the fitted base (SPEC.md section 7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .codecs import (
    Numbers,
    decode_bitmap,
    decode_gap,
    decode_step,
    exponent_permutation,
    join_planes,
    unpack_codes,
)
from .faults import need
from .fingerprint import change, written
from .frames import read_stream
from .model import Layout, Words
from .table import Chunk


@dataclass(frozen=True)
class Listed:
    """The listed words of a chunk in one tensor: their indices and new words."""

    tensor: int
    indices: NDArray[Any]
    words: Words


def decode_chunk(chunk: Chunk, layout: Layout, base: Sequence[Words]) -> list[Listed]:
    """The listed words of a chunk; `base` has the words of the fitted base's tensors. Its fingerprint is checked."""
    old = np.concatenate([base[tensor][start:stop] for tensor, start, stop in chunk.slices])
    numbers = decode_positions(chunk)
    if chunk.order == "exponent":
        numbers = exponent_permutation(old, chunk.dtype, chunk.limit)[numbers]
    new = decode_values(chunk, old[numbers])
    listed = _by_tensor(chunk, numbers, new)
    total = sum(
        change(layout[each.tensor][0], each.indices, base[each.tensor][each.indices], each.words, chunk.w)
        for each in listed
    )
    need(written(total) == chunk.fingerprint, "TD-RDR-006", "the chunk's fingerprint", "integrity")
    return listed


def decode_positions(chunk: Chunk) -> Numbers:
    """The positions of the listed words."""
    n, m, s = chunk.n, chunk.changed, chunk.shift
    if chunk.positions == "gap":
        gaps = read_stream(chunk, "gaps", m, m + (n - m) // (255 * 2**s))
        size = {0: 0, 4: (m + 1) // 2, 8: m}[s]
        low = read_stream(chunk, "low", size, size) if s else b""
        return decode_gap(gaps, low, s, m, n)
    if chunk.positions == "bitmap":
        size = (n + 7) // 8
        return decode_bitmap(read_stream(chunk, "bitmap", size, size), m, n)
    return np.arange(n, dtype=np.int64)


def decode_values(chunk: Chunk, base: Words) -> Words:
    """The new words of the listed words, whose base words are given."""
    m, w = chunk.changed, chunk.w
    if chunk.values == "replace":
        return join_planes([read_stream(chunk, f"values.{j}", m, m) for j in range(w // 8)], w)
    size = (m + 3) // 4
    codes = unpack_codes(read_stream(chunk, "codes", size, size), m)
    x = int(np.count_nonzero(codes == 3))
    if x == 0:
        extra = any(name.startswith("escapes.") for name in chunk.streams)
        need(not extra, "TD-CHK-020", "escapes, but no code is 3")
        return decode_step(base, codes, base[:0], w)
    escapes = join_planes([read_stream(chunk, f"escapes.{j}", x, x) for j in range(w // 8)], w)
    return decode_step(base, codes, escapes, w)


def _by_tensor(chunk: Chunk, numbers: Numbers, new: Words) -> list[Listed]:
    tensor_of = np.repeat([tensor for tensor, _, _ in chunk.slices], [stop - start for _, start, stop in chunk.slices])
    index_of = np.concatenate([np.arange(start, stop) for _, start, stop in chunk.slices])
    tensors, indices = tensor_of[numbers], index_of[numbers]
    return [Listed(int(each), indices[tensors == each], new[tensors == each]) for each in np.unique(tensors)]
