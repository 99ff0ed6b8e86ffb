"""Signature objects: making, parsing and verifying them (SPEC.md section 14)."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Annotated

import msgspec
from msgspec import Meta

from ..errors import UntrustedError
from . import strict_json
from .documents import MAX_SMALL
from .keys import PublicKey, SecretKey
from .names import FormatVersion, signature_name

# Only two bits of the last letter belong to the 64 bytes; an encoder leaves the others 0 (RFC 4648, section 3.5).
_SIGNATURE = r"^[A-Za-z0-9+/]{85}[AQgw]==\Z"


class SignatureDocument(msgspec.Struct, frozen=True):
    """A signature object: which key signed, and the signature in base64 (SPEC.md section 14)."""

    tensordelta: FormatVersion
    keyid: str
    sig: Annotated[str, Meta(pattern=_SIGNATURE)]


def sign(data: bytes, key: SecretKey) -> bytes:
    """The signature object of an object's bytes.

    Raises:
        ImportError: `cryptography` is not installed.
    """
    return strict_json.encode(
        SignatureDocument(strict_json.VERSION, key.public.id, base64.b64encode(key.sign(data)).decode())
    )


def parse_signature(data: bytes, *, object: str) -> SignatureDocument:
    """Parse a signature object.

    Args:
        data: its bytes.
        object: its name.

    Raises:
        MalformedError, UnsupportedError, LimitError: see SPEC.md section 14.
    """
    return strict_json.parse_document(data, SignatureDocument, object=object, limit=MAX_SMALL, rule="TD-SIG-003")


def verify(data: bytes, signature: bytes, keys: Mapping[str, PublicKey], *, object: str) -> PublicKey:
    """Verify an object's bytes against its signature object; the object itself need not be parsed.

    Args:
        data: the object's bytes, as stored.
        signature: the bytes of its signature object.
        keys: the trusted keys, by key id.
        object: the name of the signed object.

    Returns:
        The key that signed it.

    Raises:
        UntrustedError: signed by a key that is not trusted, or the signature does not verify.
        MalformedError, UnsupportedError, LimitError: the signature object breaks a rule of SPEC.md section 14.
        ImportError: `cryptography` is not installed.
    """
    document = parse_signature(signature, object=signature_name(object))
    key = keys.get(document.keyid)
    if key is None:
        raise UntrustedError(
            f"signed by the key {document.keyid[:80]!r}, which is not trusted",
            object=object,
            rule="TD-SIG-003",
            advice="If you trust the holder of this key, add its public key to the trusted keys.",
        )
    if not key.verifies(base64.b64decode(document.sig), data):
        raise UntrustedError(
            f"not what the key {document.keyid[:80]!r} signed",
            object=object,
            rule="TD-SIG-003",
            advice="The object or its signature was altered: restore both from a copy, or have it signed again.",
        )
    return key
