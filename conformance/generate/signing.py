"""Signed chains (SPEC.md section 14)."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from functools import cache
from typing import Any

from generate import ed25519
from generate.builder import Builder, dumps, manifest_name, nothing
from generate.model import FORMAT
from generate.scenes import line, walk

SECRET = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
"""The first secret key of RFC 8032, section 7.1."""
SECOND = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
"""The second one."""


def keyid(secret: bytes) -> str:
    """What the names of a key's signatures have of it: the beginning of the digest of its public key."""
    return hashlib.sha256(ed25519.public_key(secret)).hexdigest()[:16]


def trusted(*secrets: bytes) -> list[str]:
    """`keys` of a request in which the user trusts these keys, or the first."""
    return [ed25519.public_key(secret).hex() for secret in secrets or (SECRET,)]


def message(name: str, data: bytes) -> bytes:
    """What is signed of an object."""
    return b"tensordelta:" + name.encode() + b"\n" + data


@cache
def signature(secret: bytes, message: bytes) -> bytes:
    """The 64 bytes of a signature."""
    return ed25519.sign(secret, message)


def signature_name(builder: Builder, name: str, secret: bytes = SECRET) -> str:
    """The name of a key's signature of an object as it is now."""
    return f"signatures/{hashlib.sha256(message(name, builder.get(name))).hexdigest()}-{keyid(secret)}.json"


def document(sig: bytes | str, **members: Any) -> bytes:
    """A signature object; `sig` is the 64 bytes, or the text that stands there."""
    text = base64.b64encode(sig).decode() if isinstance(sig, bytes) else sig
    return dumps({"tensordelta": FORMAT, "sig": text} | members)


def sign(builder: Builder, name: str, secret: bytes = SECRET, **members: Any) -> None:
    """Put the signature of an object as it is now; `members` as in `document`."""
    sig = signature(secret, message(name, builder.get(name)))
    builder.put(signature_name(builder, name, secret), document(sig, **members))


def signed(builder: Builder, *but: str, secret: bytes = SECRET) -> Builder:
    """Sign the chain object, all manifests and all shortcuts except those in `but`."""
    for name in list(builder.objects):
        is_signed = name == "chain.json" or name.split("/")[0] in ("manifests", "shortcuts")
        if is_signed and name not in but:
            sign(builder, name, secret)
    return builder


FIRST, SECOND_VERSION = manifest_name(1), manifest_name(2)


def signed_line(count: int = 2, spoil: Callable[[Builder], Any] = nothing) -> Builder:
    """A signed chain of `count` versions, which `spoil` then changes."""
    builder = signed(line(walk(count)))
    spoil(builder)
    return builder


Spoil = Callable[[Builder], None]


def unsign(name: str) -> Spoil:
    """Removes the first key's signature of an object."""
    return lambda builder: builder.remove(signature_name(builder, name))


def resign(name: str, secret: bytes = SECRET, **members: Any) -> Spoil:
    """Replaces the first key's signature of an object by one of `secret`; `members` as in `document`."""

    def spoil(builder: Builder) -> None:
        unsign(name)(builder)
        sign(builder, name, secret, **members)

    return spoil


def resigned_with(name: str, how: Callable[[bytes], bytes | str]) -> Spoil:
    """Replaces `sig`: `how` makes its text, or the bytes that it encodes, from the true 64 bytes."""

    def spoil(builder: Builder) -> None:
        sig = how(signature(SECRET, message(name, builder.get(name))))
        builder.put(signature_name(builder, name), document(sig))

    return spoil


def resigned_over(name: str, what: Callable[[bytes], bytes]) -> Spoil:
    """Replaces the signature by one over something else, which `what` makes of the object's bytes."""

    def spoil(builder: Builder) -> None:
        builder.put(signature_name(builder, name), document(signature(SECRET, what(builder.get(name)))))

    return spoil
