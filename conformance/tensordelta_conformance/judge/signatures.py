"""Signatures that a Writer with a key has to put (SPEC.md section 14)."""

from __future__ import annotations

import base64
import hashlib

from ..small_reader.documents import manifest_name, parse_signature
from ..small_reader.rejection import Rejection
from . import ed25519
from .case import Case
from .snapshot import Snapshot


def message(name: str, data: bytes) -> bytes:
    """What is signed of an object."""
    return b"tensordelta:" + name.encode() + b"\n" + data


def message_digest(name: str, data: bytes) -> str:
    """Its SHA-256, with which the names of its signatures begin."""
    return hashlib.sha256(message(name, data)).hexdigest()


def signature_name(name: str, data: bytes, secret: str) -> str:
    """The name of the signature of an object by a secret key, which is in hex."""
    keyid = hashlib.sha256(ed25519.public_key(bytes.fromhex(secret))).hexdigest()[:16]
    return f"signatures/{message_digest(name, data)}-{keyid}.json"


def is_signed(case: Case, version: int) -> bool:
    """Whether the request has no key, or this key signed the manifest of a version."""
    key, name = case.request.get("key"), manifest_name(version)
    if key is None:
        return True
    return name in case.folder and signature_name(name, case.folder[name], key) in case.folder


def check_signatures(case: Case) -> None:
    """TD-SIG-010: each object that is new was never there without its signature; and the signatures are right."""
    key = case.request.get("key")
    if key is None:
        return
    for name in case.written("chain", "manifest", "shortcut"):
        if name in case.before.objects:
            continue
        signature = signature_name(name, case.folder[name], key)
        for snapshot in (*case.between, case.now):
            _check_order(case, snapshot, name, signature)
        if signature in case.folder:
            _check_signature(case, name, signature, key)


def _check_order(case: Case, snapshot: Snapshot, name: str, signature: str) -> None:
    if name in snapshot.objects and signature not in snapshot.objects:
        case.findings.add("TD-SIG-010", name, "it was there without its signature")


def _check_signature(case: Case, name: str, signature: str, key: str) -> None:
    try:
        sig = parse_signature(case.folder[signature])
    except Rejection:
        return  # reported where objects are read
    public = ed25519.public_key(bytes.fromhex(key))
    if not ed25519.verify(public, message(name, case.folder[name]), base64.b64decode(sig)):
        case.findings.fault(Rejection("untrusted", "TD-SIG-011", "the signature does not verify"), signature)
