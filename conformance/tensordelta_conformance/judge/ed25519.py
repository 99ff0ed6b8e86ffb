"""Verifying an Ed25519 signature, slowly, as RFC 8032 section 5.1.7 says."""

from __future__ import annotations

import hashlib

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
Point = tuple[int, int]
NEUTRAL: Point = (0, 1)


def add(a: Point, b: Point) -> Point:
    """The sum of two points of the curve -x^2 + y^2 = 1 + d x^2 y^2."""
    (x1, y1), (x2, y2) = a, b
    product = D * x1 * x2 * y1 * y2 % P
    x = (x1 * y2 + x2 * y1) * pow(1 + product, -1, P) % P
    y = (y1 * y2 + x1 * x2) * pow(1 - product, -1, P) % P
    return x, y


def times(k: int, point: Point) -> Point:
    """k times a point."""
    result = NEUTRAL
    while k:
        if k & 1:
            result = add(result, point)
        point = add(point, point)
        k >>= 1
    return result


def decode(data: bytes) -> Point | None:
    """A point from its 32 bytes, or None (RFC 8032 section 5.1.3)."""
    number = int.from_bytes(data, "little")
    sign, y = number >> 255, number & (2**255 - 1)
    if y >= P:
        return None
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    if x * x % P != square or (x == 0 and sign):
        return None
    return (P - x if x & 1 != sign else x), y


def encode(point: Point) -> bytes:
    """The 32 bytes of a point."""
    x, y = point
    return (y | (x & 1) << 255).to_bytes(32, "little")


_y = 4 * pow(5, -1, P) % P
_BASE = decode(_y.to_bytes(32, "little"))
assert _BASE is not None
BASE: Point = _BASE


def public_key(secret: bytes) -> bytes:
    """The public key of a secret key of 32 bytes (RFC 8032 section 5.1.5)."""
    number = int.from_bytes(hashlib.sha512(secret).digest()[:32], "little")
    number = number & ((1 << 254) - 8) | 1 << 254
    return encode(times(number, BASE))


def verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether a signature of 64 bytes is one of the message under a public key."""
    a, r = decode(public), decode(signature[:32])
    s = int.from_bytes(signature[32:], "little")
    if a is None or r is None or s >= L:
        return False
    k = int.from_bytes(hashlib.sha512(signature[:32] + public + message).digest(), "little")
    return times(s, BASE) == add(r, times(k % L, a))
