"""Signatures (SPEC.md section 14)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from typing import Any

from generate import ed25519
from generate.builder import Builder, manifest_name
from generate.cases import read
from generate.scenes import line, walk
from generate.signing import (
    AREA,
    CHAIN_SIG,
    FIRST,
    SECOND,
    SECRET,
    base64_of,
    document,
    keyid,
    read_signed,
    reject_signed,
    resign,
    resigned_with,
    signature,
    signed,
    signed_line,
    trusted,
)


def _by_second(builder: Builder) -> Builder:
    builder.put(f"{FIRST}.sig", document(builder.get(FIRST), SECOND))
    return builder


def _garbage(builder: Builder) -> Builder:
    for name in ("chain.json", manifest_name(0), FIRST):
        builder.put(f"{name}.sig", b"garbage")
    return builder


def _urls(builder: Builder) -> None:
    sig = base64_of(signature(SECRET, builder.get(FIRST)))
    assert "+" in sig or "/" in sig
    builder.put(f"{FIRST}.sig", document(builder.get(FIRST), sig=sig.replace("+", "-").replace("/", "_")))


def _padded(size: int) -> Builder:
    """White space after a signature object."""
    builder = signed_line()
    builder.change(f"{FIRST}.sig", lambda data: data + b" " * (size - len(data)))
    return builder


# -- what is signed ----------------------------------------------------------------------------------------------------

read_signed(
    "signed-by-the-key",
    "The chain and its manifests are signed by the key that the reader trusts",
    "TD-SIG-001",
    chain=signed_line,
    verify=True,
)
read_signed(
    "signed-read-from-nothing",
    "A route of two signed manifests, with nothing held",
    "TD-SIG-001",
    chain=signed_line,
    held=None,
)
read_signed(
    "signed-by-one-of-two-keys",
    "One manifest is signed by another trusted key than the chain object and the other manifest",
    "TD-SIG-003",
    chain=lambda: _by_second(signed_line()),
    keys=trusted(SECRET, SECOND),
    held=None,
)


def _under_any_name() -> Builder:
    """The name of a key is any string."""
    builder = line(walk(2))
    for name in ("chain.json", manifest_name(0), FIRST):
        builder.put(f"{name}.sig", document(builder.get(name), keyid="trainer é 1", colour=[1e3]))
    return builder


read_signed(
    "signed-under-a-name-of-any-form",
    "The name of a key is what the reader's configuration calls it, and unknown fields are ignored",
    "TD-SIG-003",
    chain=_under_any_name,
    keys={"trainer é 1": ed25519.public_key(SECRET).hex()},
)


def _over_bytes_as_stored() -> Builder:
    """Manifests with white space and escapes: the signature is over these bytes."""
    builder = Builder()
    states = walk(2)
    builder.full(0, states[0], text=lambda data: b"\n" + data.replace(b'"layout"', b'"l\\u0061yout"') + b"\n ")
    builder.delta(1, states[1], 0, text=lambda data: data.replace(b",", b" ,\t"))
    return signed(builder)


read_signed(
    "signed-over-bytes-as-stored",
    "The signature is over the manifest's bytes with their white space and escapes",
    "TD-SIG-001",
    chain=_over_bytes_as_stored,
    held=None,
)
read(
    "signatures-without-keys",
    area=AREA,
    title="Without keys signature objects are ignored, even those that are no JSON",
    requirements=["TD-SIG-007"],
    chain=lambda: _garbage(line(walk(2))),
    verify=None,
)


# -- chain and manifests that were asked for ---------------------------------------------------------------------------

reject_signed(
    "unsigned-chain",
    "The chain object has no signature",
    "TD-SIG-002",
    spoil=lambda builder: builder.remove(CHAIN_SIG),
)
reject_signed(
    "unsigned-manifest-asked-for",
    "The manifest that was asked for by its version has no signature",
    "TD-SIG-002",
    spoil=lambda builder: builder.remove(f"{FIRST}.sig"),
)
reject_signed(
    "chain-signed-by-another-key",
    "The chain object is signed by a key that the reader does not have",
    "TD-SIG-003",
    spoil=resign("chain.json", secret=SECOND),
)
reject_signed(
    "manifest-signed-by-another-key",
    "The manifest is signed by a key that the reader does not have",
    "TD-SIG-003",
    spoil=resign(FIRST, secret=SECOND),
)
reject_signed(
    "manifest-signed-by-another-key-under-the-name-of-the-first",
    "The manifest is signed by another key under the name of the trusted one",
    "TD-SIG-003",
    spoil=resign(FIRST, secret=SECOND, keyid=keyid(SECRET)),
)
reject_signed(
    "manifest-signed-under-the-name-of-the-other-key",
    "Both keys are trusted, and the signature is by the first under the name of the second",
    "TD-SIG-003",
    spoil=resign(FIRST, keyid=keyid(SECOND)),
    keys=trusted(SECRET, SECOND),
    twin="signed-by-one-of-two-keys",
)
reject_signed(
    "signature-of-another-object",
    "The signature of version 0's manifest stands beside version 1's",
    "TD-SIG-003",
    spoil=lambda builder: builder.put(f"{FIRST}.sig", builder.get(f"{manifest_name(0)}.sig")),
)
reject_signed(
    "manifest-altered-after-signing",
    "One digit of the manifest's time is another than when it was signed",
    "TD-SIG-003",
    spoil=lambda builder: builder.change(FIRST, lambda data: data.replace(b'12:00:00Z"', b'12:00:01Z"')),
)
reject_signed(
    "manifest-with-a-space-after-signing",
    "A space was put after the manifest when it was signed already",
    "TD-SIG-003",
    spoil=lambda builder: builder.change(FIRST, lambda data: data + b" "),
)


def _flipped(at: int, sig: bytes) -> str:
    return base64_of(sig[:at] + bytes([sig[at] ^ 1]) + sig[at + 1 :])


for number, where in ((0, "first"), (31, "32nd"), (32, "33rd"), (63, "last")):
    reject_signed(
        f"signature-with-a-bit-of-its-{where}-byte-changed",
        f"One bit of the {where} byte of the signature is another",
        "TD-SIG-003",
        spoil=resigned_with(FIRST, partial(_flipped, number)),
    )
reject_signed(
    "signature-with-the-order-added",
    "The second half of the signature is greater by the order of the base point",
    "TD-SIG-003",
    spoil=resigned_with(
        FIRST,
        lambda sig: base64_of(sig[:32] + (int.from_bytes(sig[32:], "little") + ed25519.ORDER).to_bytes(32, "little")),
    ),
)
reject_signed(
    "signature-of-zeros",
    "The signature is 64 zero bytes",
    "TD-SIG-003",
    spoil=resigned_with(FIRST, lambda sig: base64_of(bytes(64))),
)
reject_signed(
    "signature-of-the-digest",
    "The signature is over the manifest's SHA-256 instead of its bytes",
    "TD-SIG-003",
    spoil=lambda builder: builder.put(
        f"{FIRST}.sig",
        document(builder.get(FIRST), sig=base64_of(signature(SECRET, hashlib.sha256(builder.get(FIRST)).digest()))),
    ),
)

# -- the signature object ----------------------------------------------------------------------------------------------


def _form(slug: str, title: str, spoil: Callable[[Builder], Any], error: str = "malformed") -> None:
    reject_signed(slug, title, "TD-SIG-003", spoil=spoil, error=error)


def _rewritten(how: Callable[[bytes], bytes]) -> Callable[[Builder], None]:
    return lambda builder: builder.change(f"{FIRST}.sig", how)


_form("signature-that-is-no-json", "The signature object is no JSON", _rewritten(lambda data: data[:-1]))
_form(
    "signature-without-keyid",
    "The signature object names no key",
    _rewritten(lambda data: data.replace(b'"keyid"', b'"key"')),
)
_form(
    "signature-without-sig",
    "The signature object has no `sig`",
    _rewritten(lambda data: data.replace(b'"sig"', b'"signature"')),
)
_form("signature-in-hex", "`sig` is in hex", resigned_with(FIRST, lambda sig: sig.hex()))
_form("signature-of-63-bytes", "`sig` has 63 bytes", resigned_with(FIRST, lambda sig: base64_of(sig[:63])))
_form("signature-of-65-bytes", "`sig` has 65 bytes", resigned_with(FIRST, lambda sig: base64_of(sig + b"\0")))
_form(
    "signature-without-padding",
    "`sig` lacks its padding",
    resigned_with(FIRST, lambda sig: base64_of(sig).rstrip("=")),
)
_form(
    "signature-with-a-line-feed",
    "`sig` ends with a line feed after the padding",
    resigned_with(FIRST, lambda sig: base64_of(sig) + "\n"),
)
_form(
    "signature-in-the-alphabet-of-urls",
    "`sig` has characters of the alphabet of RFC 4648 section 5",
    _urls,
)
_form(
    "signature-of-a-later-format",
    "The signature object is of a later format",
    resign(FIRST, tensordelta="2.0"),
    "unsupported",
)
_form(
    "signature-of-more-than-64-kib",
    "The signature object has 65,537 bytes",
    _rewritten(lambda data: data + b" " * (65537 - len(data))),
    "limit",
)
read_signed(
    "signature-of-64-kib",
    "A signature object of 65,536 bytes",
    "TD-LIM-005",
    chain=lambda: _padded(65536),
)


# -- before parsing ----------------------------------------------------------------------------------------------------


def _no_json(name: str) -> Callable[[Builder], None]:
    """An object that is no JSON, signed by another key."""

    def spoil(builder: Builder) -> None:
        builder.put(name, b"{")
        resign(name, secret=SECOND)(builder)

    return spoil


def _copied(builder: Builder) -> None:
    for end in ("", ".sig"):
        builder.put(f"{FIRST}{end}", builder.get(f"{manifest_name(0)}{end}"))


reject_signed(
    "manifest-that-is-no-json-signed-by-another-key",
    "A manifest that is no JSON is signed by another key: its signature is verified before it is parsed",
    "TD-SIG-001",
    spoil=_no_json(FIRST),
)
reject_signed(
    "chain-that-is-no-json-signed-by-another-key",
    "A chain object that is no JSON is signed by another key: its signature is verified before it is parsed",
    "TD-SIG-001",
    spoil=_no_json("chain.json"),
)
reject_signed(
    "signed-manifest-under-another-name",
    "Version 0's manifest and its signature were copied to the name of version 1's",
    "TD-OBJ-004",
    spoil=_copied,
    error="malformed",
)
