"""Damage to bytes, as disks, networks and programs do it; each gives other bytes and says what was done."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

Harm = Callable[[bytes, Random], tuple[bytes, str]]


def flip_bit(data: bytes, rng: Random) -> tuple[bytes, str]:
    """One bit."""
    if not data:
        return b"\0", "a byte in what was empty"
    # The first bytes say how the others are read, so they are taken more often than others.
    at = rng.randrange(min(16, len(data))) if rng.random() < 0.1 else rng.randrange(len(data))
    bit = rng.randrange(8)
    return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :], f"bit {bit} of byte {at}"


def truncate(data: bytes, rng: Random) -> tuple[bytes, str]:
    """The end is gone."""
    at = rng.choice([0, len(data) - 1, len(data) // 2, rng.randrange(len(data) + 1)]) if data else 0
    return data[: max(at, 0)], f"cut at {at} of {len(data)}"


def extend(data: bytes, rng: Random) -> tuple[bytes, str]:
    """There is more at the end, or at the beginning."""
    more = rng.choice([b"\0", b" ", b"\n", b"{}", data[:64], bytes(4096), rng.randbytes(16)])
    return (
        (more + data, f"{len(more)} bytes before") if rng.random() < 0.2 else (data + more, f"{len(more)} bytes after")
    )


def zero(data: bytes, rng: Random) -> tuple[bytes, str]:
    """A range is zero."""
    at, stop = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    if rng.random() < 0.5:
        stop = min(at + rng.choice([1, 8, 64, 512]), len(data))
    return data[:at] + bytes(stop - at) + data[stop:], f"{at} to {stop} zeroed"


def tear(data: bytes, rng: Random) -> tuple[bytes, str]:
    """A range is that of another place."""
    if len(data) < 2:
        return data, "nothing"
    length = rng.randrange(1, len(data) // 2 + 1)
    source, at = rng.randrange(len(data) - length + 1), rng.randrange(len(data) - length + 1)
    return data[:at] + data[source : source + length] + data[at + length :], f"{length} bytes at {at} from {source}"


def scramble(data: bytes, rng: Random) -> tuple[bytes, str]:
    """A few bytes are others."""
    changed = bytearray(data)
    for _ in range(rng.randrange(1, 9) if data else 0):
        changed[rng.randrange(len(data))] = rng.choice([0, 1, 127, 128, 255, rng.randrange(256)])
    return bytes(changed), "some bytes"


HARMS: dict[str, Harm] = {
    "bit flipped": flip_bit,
    "truncated": truncate,
    "extended": extend,
    "range zeroed": zero,
    "range torn": tear,
    "bytes changed": scramble,
}
