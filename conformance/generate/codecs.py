"""Streams and chunks, written from the pseudo-code of SPEC.md sections 6.3 and 7."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from generate.fingerprint import value_of
from generate.frames import zstd
from generate.model import DTYPES, MASK64, Model, fit, ordered, word_bits


def encode_gap(places: Sequence[int], s: int) -> dict[str, bytes]:
    gaps, lows, before = bytearray(), [], -1
    for place in places:
        g = place - before - 1
        before = place
        h = g >> s
        gaps += b"\xff" * (h // 255)
        gaps.append(h % 255)
        lows.append(g & ((1 << s) - 1))
    streams = {"gaps": bytes(gaps)}
    if s == 8:
        streams["low"] = bytes(lows)
    if s == 4:
        lows.append(0)
        streams["low"] = bytes(lows[2 * j] | lows[2 * j + 1] << 4 for j in range((len(places) + 1) // 2))
    return streams


def encode_bitmap(places: Sequence[int], n: int) -> dict[str, bytes]:
    bitmap = bytearray(-(-n // 8))
    for place in places:
        bitmap[place >> 3] |= 1 << (place & 7)
    return {"bitmap": bytes(bitmap)}


def encode_step(old: Sequence[int], new: Sequence[int], w: int) -> dict[str, bytes]:
    codes, escapes = [], []
    for before, after in zip(old, new, strict=True):
        d = (after - before) % (1 << w)
        assert d, "a step of 0 cannot be written"
        z = 2 * d if d < 1 << (w - 1) else 2 * ((1 << w) - d) - 1
        y = z - 1
        codes.append(min(y, 3))
        if y >= 3:
            escapes.append(y - 3)
    m = len(codes)
    codes += [0] * 3
    streams = {"codes": bytes(sum(codes[4 * j + q] << (2 * q) for q in range(4)) for j in range(-(-m // 4)))}
    if escapes:
        streams |= {f"escapes.{j}": bytes(x >> (8 * j) & 255 for x in escapes) for j in range(w // 8)}
    return streams


def encode_replace(new: Sequence[int], w: int) -> dict[str, bytes]:
    return {f"values.{j}": bytes(x >> (8 * j) & 255 for x in new) for j in range(w // 8)}


def permutation(base: np.ndarray, dtype: str, limit: int) -> list[int]:
    """Section 7.3."""
    _, mask, shift = DTYPES[dtype]
    keys = [(int(x) & mask) >> shift for x in base]
    first = sorted((i for i in range(len(keys)) if keys[i] < limit), key=lambda i: (keys[i], i))
    return first + [i for i in range(len(keys)) if keys[i] >= limit]


Slice = tuple[str, int, int]


@dataclass
class Chunk:
    """A chunk's table entry, and its streams as stored."""

    entry: dict[str, Any]
    streams: dict[str, bytes]


def chunk(
    base: Model,
    new: Model,
    slices: Sequence[Slice],
    *,
    order: str = "natural",
    limit: int | None = None,
    groups: Sequence[int] | None = None,
    positions: str = "gap",
    shift: int = 0,
    values: str = "step",
    compression: str = "none",
    restate: Sequence[int] = (),
    raw: Callable[[dict[str, bytes]], Any] | None = None,
    frames: Callable[[bytes], bytes] = zstd,
) -> Chunk:
    """Encode the words of some slices that differ; with positions `all`, every word.

    Args:
        base: the fitted base.
        new: the new state.
        slices: (name, start, stop), in the order of the chunk.
        groups: how many slices each group has, for order exponent.
        restate: natural numbers of words to list even if they are equal (values `replace`).
        raw: changes streams before compression.
    """
    index = {name: number for number, name in enumerate(ordered(new))}
    dtype = new[slices[0][0]].dtype
    w = word_bits(dtype)
    old = np.concatenate([base[name].words[start:stop] for name, start, stop in slices])
    now = np.concatenate([new[name].words[start:stop] for name, start, stop in slices])
    place = [(name, word) for name, start, stop in slices for word in range(start, stop)]
    n = len(now)
    listed = list(range(n)) if positions == "all" else sorted({*np.flatnonzero(old != now).tolist(), *restate})
    m = len(listed)
    assert m, "a chunk lists at least one word"
    order_entry: dict[str, Any] = {"codec": order}
    taken = listed
    numbers = listed
    if order == "exponent":
        bits = (DTYPES[dtype][1] >> DTYPES[dtype][2]).bit_length()
        limit = 1 << bits if limit is None else limit
        order_entry["limit"] = limit
        perm: list[int] = []
        parts = iter([stop - start for _, start, stop in slices])
        for count in groups or [len(slices)]:
            first = len(perm)
            last = first + sum(next(parts) for _ in range(count))
            perm += [first + number for number in permutation(old[first:last], dtype, limit)]
        if groups is not None:
            order_entry["groups"] = list(groups)
        wanted = set(listed)
        numbers = [r for r in range(n) if perm[r] in wanted]
        taken = [perm[r] for r in numbers]
    streams: dict[str, bytes] = {}
    positions_entry: dict[str, Any] = {"codec": positions}
    if positions == "gap":
        positions_entry["shift"] = shift
        streams |= encode_gap(numbers, shift)
    elif positions == "bitmap":
        streams |= encode_bitmap(numbers, n)
    after = [int(now[i]) for i in taken]
    if values == "replace":
        streams |= encode_replace(after, w)
    else:
        streams |= encode_step([int(old[i]) for i in taken], after, w)
    if raw:
        raw(streams)
    total = 0
    for name in {name for name, _, _ in slices}:
        at = [i for i in listed if place[i][0] == name]
        words = np.array([place[i][1] for i in at], np.int64)
        total += value_of(name, words, now[at])
    entry = {
        "dtype": dtype,
        "slices": [[index[name], start, stop] for name, start, stop in slices],
        "changed": m,
        "order": order_entry,
        "positions": positions_entry,
        "values": {"codec": values},
        "compression": compression,
        "result": f"{total & MASK64:016x}",
    }
    if compression == "zstd":
        streams = {name: frames(stream) for name, stream in streams.items()}
    return Chunk(entry, streams)


def chunk_for(base: Model, new: Model, name: str, **options: Any) -> Chunk:
    """A chunk over one whole tensor."""
    return chunk(base, new, [(name, 0, len(new[name].words))], **options)


def full_chunks(new: Model, **options: Any) -> list[Chunk]:
    """For each tensor with words that are not zero a chunk that lists all of its words."""
    base = fit({}, new)
    options = {"positions": "all", "values": "replace", **options}
    return [chunk_for(base, new, name, **options) for name in ordered(new) if new[name].words.any()]


def delta_chunks(base: Model, new: Model, **options: Any) -> list[Chunk]:
    """For each tensor that differs from the fitted base a chunk over all of it."""
    fitted = fit(base, new)
    differ = [name for name in ordered(new) if not np.array_equal(fitted[name].words, new[name].words)]
    return [chunk_for(fitted, new, name, **options) for name in differ]
