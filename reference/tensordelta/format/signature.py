"""Signatures: what is signed, and the signature objects (SPEC.md section 14)."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Collection
from typing import Annotated

import msgspec
from msgspec import Meta

from ..errors import TensorDeltaError
from . import strict_json
from .documents import MAX_SMALL
from .keys import PublicKey, SecretKey
from .names import FormatVersion, signature_name

# Only two bits of the last letter belong to the 64 bytes; an encoder leaves the others 0 (RFC 4648, section 3.5).
_SIGNATURE = r"^[A-Za-z0-9+/]{85}[AQgw]==\Z"


class SignatureDocument(msgspec.Struct, frozen=True):
    """A signature object: the signature in base64. Its name says of what, and by which key (SPEC.md section 14)."""

    tensordelta: FormatVersion
    sig: Annotated[str, Meta(pattern=_SIGNATURE)]


class Message:
    """What is signed for an object: its name and its bytes, so that it cannot stand under another name.

    Args:
        name: the object's name under the root.
        data: its bytes, as stored.

    Attributes:
        bytes: what Ed25519 signs.
        digest: their SHA-256, which is in the names of the signatures.
    """

    def __init__(self, name: str, data: bytes) -> None:
        self.bytes = b"tensordelta:%s\n%s" % (name.encode(), data)
        self.digest = hashlib.sha256(self.bytes).hexdigest()

    def signature_name(self, key: PublicKey) -> str:
        """The name of the object of a key's signature."""
        return signature_name(self.digest, key.id)

    def sign(self, key: SecretKey) -> tuple[str, bytes]:
        """Name and bytes of a signature object; the same for the same key.

        Raises:
            ImportError: `cryptography` is not installed.
        """
        document = SignatureDocument(strict_json.VERSION, base64.b64encode(key.sign(self.bytes)).decode())
        return self.signature_name(key.public), strict_json.encode(document)

    def is_signed_by(self, key: PublicKey, read: Callable[[str], bytes | None]) -> bool:
        """True if a signature object of a key verifies; one that is absent, broken or wrong counts for nothing.

        Args:
            key: the key.
            read: gives the bytes of an object, or None if there is none.

        Raises:
            ImportError: `cryptography` is not installed.
        """
        name = self.signature_name(key)
        data = read(name)
        if data is None:
            return False
        try:
            document = parse_signature(data, object=name)
        except TensorDeltaError:
            return False
        return key.verifies(base64.b64decode(document.sig), self.bytes)

    def signers(self, keys: Collection[PublicKey], read: Callable[[str], bytes | None], *, enough: int) -> int:
        """How many keys signed it, at most `enough`: no more signatures are read."""
        found = 0
        for key in keys:
            found += self.is_signed_by(key, read)
            if found == enough:
                break
        return found


def parse_signature(data: bytes, *, object: str) -> SignatureDocument:
    """Parse a signature object; readers take any error as an absent signature.

    Args:
        data: its bytes.
        object: its name.

    Raises:
        MalformedError, UnsupportedError, LimitError: see SPEC.md section 14.
    """
    return strict_json.parse_document(data, SignatureDocument, object=object, limit=MAX_SMALL, rule="TD-SIG-011")
