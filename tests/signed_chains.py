"""Signed chains in memory, and the keys that sign them."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ed25519
from gallery import CHAIN, MemoryStore, as_state, digest, manifest_name, shortcut_name

import tensordelta as td
from generate.scenes import line, move, walk
from tensordelta.format.keys import PublicKey

#: The first two secret keys of RFC 8032, section 7.1, and their public keys.
SECRET = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"
PUBLIC = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
OTHER_SECRET = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"
OTHER_PUBLIC = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
KEYID = "21fe31dfa154a261"

#: chain.json of appendix A, the SHA-256 of what is signed of it, and its signature in section 14.
WORKED = b'{"tensordelta":"1.0-rc.1","chain":"5f0c8a52-3a1e-4b7d-9c64-0d2f6b1e7a90","created":"2026-11-20T12:00:00Z"}'
DIGEST = "0449e387d478fdc8ab0b8c7b0396fbcf156006353c696af7d7830408fa4d2448"
SIG = "UsInZ5v3ULS7CZU1HsFUiMOvgoR9BYD2xWMZ/KWoYM9O4lPlX8LEH6GHnwPfeSxJAqRN5ievtfYZi10SCB7eBg=="

FIRST, SECOND = manifest_name(1), manifest_name(2)
KEY = PublicKey(bytes.fromhex(PUBLIC))
#: The id of another chain.
ANOTHER = CHAIN[:-1].encode() + b"1"


def _message(name: str, data: bytes) -> bytes:
    return b"tensordelta:" + name.encode() + b"\n" + data


def _key(secret: str) -> ed25519.Ed25519PrivateKey:
    return ed25519.Ed25519PrivateKey.from_private_bytes(bytes.fromhex(secret))


def signature_of(name: str, data: bytes, secret: str = SECRET, **members: Any) -> bytes:
    """A signature object made without the package."""
    sig = base64.b64encode(_key(secret).sign(_message(name, data))).decode()
    return json.dumps({"tensordelta": "1.0-rc.1", "sig": sig} | members).encode()


def sig(objects: Mapping[str, bytes], name: str, secret: str = SECRET) -> str:
    """The name of a key's signature of an object that is there."""
    keyid = digest(_key(secret).public_key().public_bytes_raw())[:16]
    return f"signatures/{digest(_message(name, objects[name]))}-{keyid}.json"


def sign(objects: dict[str, bytes], name: str, secret: str = SECRET, **members: Any) -> None:
    objects[sig(objects, name, secret)] = signature_of(name, objects[name], secret, **members)


def unsign(objects: dict[str, bytes], name: str, secret: str = SECRET) -> None:
    del objects[sig(objects, name, secret)]


def is_member(name: str) -> bool:
    return name == "chain.json" or name.startswith(("manifests/", "shortcuts/"))


def unsigned(objects: Mapping[str, bytes], secret: str = SECRET) -> list[str]:
    """Members without the signature of a key; all signatures have the right bytes."""
    members = [name for name in objects if is_member(name)]
    for name in members:
        signature = objects.get(sig(objects, name, secret))
        assert signature is None or json.loads(signature) == json.loads(signature_of(name, objects[name], secret))
    return [name for name in members if sig(objects, name, secret) not in objects]


def sign_all(objects: dict[str, bytes], *but: str, secret: str = SECRET) -> None:
    for name in [*objects]:
        if is_member(name) and name not in but:
            sign(objects, name, secret)


@cache
def _line(count: int) -> dict[str, bytes]:
    objects = dict(line(walk(count)).objects)
    sign_all(objects)
    return objects


def store_of(count: int = 3) -> MemoryStore:
    """A signed chain: version 0, full, and deltas from each to the next."""
    return MemoryStore(dict(_line(count)))


def state(version: int) -> td.State:
    return as_state(walk(version + 1)[version])


def trusting(store: Any, *keys: str, **options: Any) -> td.Chain:
    return td.open(store, threads=1, trusted_keys=keys or (PUBLIC,), **options)


def skipping(*but: str) -> MemoryStore:
    """A signed chain of three versions and a cheap shortcut from 0 to 2, of which some are not signed."""
    builder = line(walk(3))
    move(builder, 2, walk(3)[2], 0, shortcut="")
    sign_all(builder.objects, *but)
    return MemoryStore(builder.objects)


SHORTCUT = shortcut_name(2, 0)
