"""Ed25519 signatures, slow but easy to check (RFC 8032, section 5.1). For test vectors; not for real keys."""

from __future__ import annotations

import hashlib
from functools import cache

P = 2**255 - 19
"""The prime of the field."""

ORDER = 2**252 + 27742317777372353535851937790883648493
"""The order L of the base point."""

_D = -121665 * pow(121666, P - 2, P) % P
_ROOT = pow(2, (P - 1) // 4, P)

Point = tuple[int, int, int, int]
"""X, Y, Z, T with x = X / Z, y = Y / Z, x * y = T / Z: an addition needs no division (RFC 8032, section 5.1.4)."""


def _add(a: Point, b: Point) -> Point:
    (x1, y1, z1, t1), (x2, y2, z2, t2) = a, b
    low, high = (y1 - x1) * (y2 - x2) % P, (y1 + x1) * (y2 + x2) % P
    c, d = 2 * t1 * t2 * _D % P, 2 * z1 * z2 % P
    e, f, g, h = high - low, d - c, d + c, high + low
    return e * f % P, g * h % P, f * g % P, e * h % P


def _times(scalar: int, point: Point) -> Point:
    out: Point = (0, 1, 1, 0)
    while scalar:
        if scalar & 1:
            out = _add(out, point)
        point = _add(point, point)
        scalar >>= 1
    return out


def _encode(point: Point) -> bytes:
    inverse = pow(point[2], P - 2, P)
    x, y = point[0] * inverse % P, point[1] * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def _decode(data: bytes) -> Point | None:
    number = int.from_bytes(data, "little")
    sign, y = number >> 255, number & ((1 << 255) - 1)
    if y >= P:
        return None
    square = (y * y - 1) * pow(_D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * _ROOT % P
    if x * x % P != square or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = P - x
    return x, y, 1, x * y % P


_BASE_Y = 4 * pow(5, P - 2, P) % P
_base = _decode(_BASE_Y.to_bytes(32, "little"))
assert _base is not None
BASE: Point = _base


def _number(*parts: bytes) -> int:
    return int.from_bytes(hashlib.sha512(b"".join(parts)).digest(), "little") % ORDER


def _expand(secret: bytes) -> tuple[int, bytes]:
    half = hashlib.sha512(secret).digest()
    scalar = int.from_bytes(half[:32], "little")
    return scalar & ((1 << 254) - 8) | 1 << 254, half[32:]


@cache
def public_key(secret: bytes) -> bytes:
    """The 32 bytes of the public key of a secret key of 32 bytes."""
    return _encode(_times(_expand(secret)[0], BASE))


def sign(secret: bytes, message: bytes) -> bytes:
    """The signature of a message: 64 bytes; there is no randomness in it."""
    scalar, prefix = _expand(secret)
    public = public_key(secret)
    nonce = _number(prefix, message)
    first = _encode(_times(nonce, BASE))
    second = (nonce + _number(first, public, message) * scalar) % ORDER
    return first + second.to_bytes(32, "little")


def verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether a signature is that of a message under a public key."""
    key, first = _decode(public), _decode(signature[:32])
    second = int.from_bytes(signature[32:], "little")
    if key is None or first is None or len(signature) != 64 or second >= ORDER:
        return False
    right = _add(first, _times(_number(signature[:32], public, message), key))
    return _encode(_times(second, BASE)) == _encode(right)
