"""Inputs made from others: damaged bytes, edited JSON, lengths that agree again, and parts of two."""

from __future__ import annotations

from random import Random

from damage.documents import EDITS, edited
from damage.harms import HARMS

#: No input is longer.
LONGEST = 1 << 16


def mutated(data: bytes, others: list[bytes], rng: Random) -> bytes:
    """An input that is one to four changes away from another."""
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        data = _changed(data, others, rng)[:LONGEST]
    return data


def _changed(data: bytes, others: list[bytes], rng: Random) -> bytes:
    roll = rng.random()
    if roll < 0.35 and data[:1] == b"{":
        return edited(data, EDITS[rng.choice([*EDITS])], rng)[0]
    if roll < 0.5 and len(data) > 10 and data[8:9] == b"{":
        return _with_header(data, rng)
    if roll < 0.6 and others:
        other = rng.choice(others)
        return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]
    return HARMS[rng.choice([*HARMS])](data, rng)[0]


def _with_header(data: bytes, rng: Random) -> bytes:
    """A safetensors file with an edited header, whose length is right again."""
    stop = 8 + int.from_bytes(data[:8], "little")
    header, _ = edited(data[8:stop], EDITS[rng.choice([*EDITS])], rng)
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data[stop:]
