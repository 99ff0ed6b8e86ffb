"""Signed chains in memory, and the keys that sign them."""

from __future__ import annotations

import base64
import json
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
KEYID = "21fe31dfa154a261626bf854046fd2271b7bed4b6abe45aa58877ef47f9721b9"

#: chain.json of appendix A, and its signature in section 14.
WORKED = b'{"tensordelta":"1.0","chain":"5f0c8a52-3a1e-4b7d-9c64-0d2f6b1e7a90","created":"2026-11-20T12:00:00Z"}'
SIG = "264fnSNSVAgNct4ongDSJ+c4bVkWz22+fjzE+65mBntbl2oRg9KUEzHqq2LqkDVNhdWU13gsGRGqflxWpYCNCA=="

FIRST, SECOND = manifest_name(1), manifest_name(2)
KEYS = {KEYID: PublicKey(bytes.fromhex(PUBLIC))}
#: The id of another chain.
ANOTHER = CHAIN[:-1].encode() + b"1"


def sig(name: str) -> str:
    return f"{name}.sig"


def signature_of(data: bytes, secret: str = SECRET, **members: Any) -> bytes:
    """A signature object made without the package."""
    key = ed25519.Ed25519PrivateKey.from_private_bytes(bytes.fromhex(secret))
    keyid = digest(key.public_key().public_bytes_raw())
    document = {"tensordelta": "1.0", "keyid": keyid, "sig": base64.b64encode(key.sign(data)).decode()}
    return json.dumps(document | members).encode()


def is_member(name: str) -> bool:
    return name == "chain.json" or (name.startswith(("manifests/", "shortcuts/")) and not name.endswith(".sig"))


def sign_all(objects: dict[str, bytes], *but: str, secret: str = SECRET) -> None:
    for name in [*objects]:
        if is_member(name) and name not in but:
            objects[sig(name)] = signature_of(objects[name], secret)


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
