"""Signed chains (SPEC.md section 14)."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from functools import cache
from typing import Any

from generate import ed25519
from generate.builder import Builder, dumps, manifest_name, nothing
from generate.scenes import line, walk

SECRET = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
"""The first secret key of RFC 8032, section 7.1."""
SECOND = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
"""The second one."""


def keyid(secret: bytes) -> str:
    """The name of a key that the specification recommends: the digest of its public key."""
    return hashlib.sha256(ed25519.public_key(secret)).hexdigest()


def trusted(*secrets: bytes) -> dict[str, str]:
    """`keys` of a request in which the user trusts these keys, or the first."""
    return {keyid(secret): ed25519.public_key(secret).hex() for secret in secrets or (SECRET,)}


@cache
def signature(secret: bytes, data: bytes) -> bytes:
    """The 64 bytes of a signature."""
    return ed25519.sign(secret, data)


def document(data: bytes, secret: bytes = SECRET, **members: Any) -> bytes:
    """The signature object of an object's bytes."""
    sig = base64.b64encode(signature(secret, data)).decode()
    return dumps({"tensordelta": "1.0", "keyid": keyid(secret), "sig": sig} | members)


def signed(builder: Builder, *but: str, secret: bytes = SECRET) -> Builder:
    """Sign the chain object, all manifests and all shortcuts except those in `but`."""
    for name in list(builder.objects):
        is_signed = name == "chain.json" or name.split("/")[0] in ("manifests", "shortcuts")
        if is_signed and name not in but and not name.endswith(".sig"):
            builder.put(f"{name}.sig", document(builder.get(name), secret))
    return builder


CHAIN_SIG = "chain.json.sig"
FIRST, SECOND_VERSION = manifest_name(1), manifest_name(2)


def signed_line(count: int = 2, spoil: Callable[[Builder], Any] = nothing) -> Builder:
    """A signed chain of `count` versions, which `spoil` then changes."""
    builder = signed(line(walk(count)))
    spoil(builder)
    return builder


def resign(name: str, **members: Any) -> Callable[[Builder], None]:
    """Replaces the signature object of an object; `members` as in `document`."""
    return lambda builder: builder.put(f"{name}.sig", document(builder.get(name), **members))


def base64_of(data: bytes) -> str:
    """The text of `sig` for these 64 bytes."""
    return base64.b64encode(data).decode()


def resigned_with(name: str, how: Callable[[bytes], bytes | str]) -> Callable[[Builder], None]:
    """Replaces `sig`: `how` makes its text, or the bytes that it encodes, from the true 64 bytes."""

    def spoil(builder: Builder) -> None:
        sig = how(signature(SECRET, builder.get(name)))
        resign(name, sig=sig if isinstance(sig, str) else base64_of(sig))(builder)

    return spoil
