"""Signatures: keys, the bytes of a signature object, and whether it holds (SPEC.md section 14).

Bytes in, bytes out: no file is touched here. Ed25519 comes from the package `cryptography` (extra `sign`), which is
imported when a key is used and not before.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

from ..errors import UntrustedError
from . import strict_json
from .names import MAX_SMALL, SIGNATURE, FormatVersion

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

#: Bytes of a key, secret or public.
KEY_SIZE = 32

_HEX = re.compile(rb"[0-9a-fA-F]{64}")
_PEM = b"-----BEGIN "
# Of the last letter only two bits belong to the 64 bytes; an encoder leaves the others 0 (RFC 4648, section 3.5).
_SIGNATURE = r"^[A-Za-z0-9+/]{85}[AQgw]==\Z"


class SignatureDocument(msgspec.Struct, frozen=True):
    """A signature object: which key signed, and the signature in base64 (SPEC.md section 14)."""

    tensordelta: FormatVersion
    keyid: str
    sig: Annotated[str, Meta(pattern=_SIGNATURE)]


@contextmanager
def _extra() -> Iterator[None]:
    """Say how to get what signatures need, where it is not installed."""
    try:
        yield
    except ImportError:
        raise ImportError(
            "signatures need the package cryptography: pip install 'tensordelta[sign]'", name="cryptography"
        ) from None


def _name_of(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def _check_size(raw: bytes) -> None:
    if len(raw) != KEY_SIZE:
        raise ValueError(f"an Ed25519 key has {KEY_SIZE} bytes, not {len(raw)}")


@dataclass(frozen=True)
class PublicKey:
    """A key that a reader trusts.

    Attributes:
        raw: its 32 bytes.
        name: what signature objects call it; None for the SHA-256 of its bytes.

    Raises:
        ValueError: not 32 bytes.
    """

    raw: bytes
    name: str | None = None

    def __post_init__(self) -> None:
        _check_size(self.raw)

    @property
    def id(self) -> str:
        """The `keyid` of what it signs."""
        return _name_of(self.raw) if self.name is None else self.name

    def verifies(self, signature: bytes, data: bytes) -> bool:
        """True where 64 bytes are this key's signature of `data` (RFC 8032, section 5.1.7).

        Raises:
            ImportError: `cryptography` is not installed.
        """
        with _extra():
            from cryptography.exceptions import InvalidSignature
        try:
            self._key.verify(signature, data)
        except InvalidSignature:
            return False
        return True

    @cached_property
    def _key(self) -> Ed25519PublicKey:
        with _extra():
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        return Ed25519PublicKey.from_public_bytes(self.raw)

    def pem(self) -> bytes:
        """The key as PEM (SubjectPublicKeyInfo), as openssl writes it."""
        with _extra():
            from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
        return self._key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@dataclass(frozen=True)
class SecretKey:
    """A key to sign with. Its bytes are in no message and no representation.

    Attributes:
        raw: the 32 bytes of RFC 8032.
        name: what its signature objects call it; None for the SHA-256 of the public key.

    Raises:
        ValueError: not 32 bytes.
    """

    raw: bytes = field(repr=False)
    name: str | None = None

    def __post_init__(self) -> None:
        _check_size(self.raw)

    @classmethod
    def generate(cls) -> SecretKey:
        """A new key, of the machine's own randomness."""
        return cls(secrets.token_bytes(KEY_SIZE))

    @cached_property
    def public(self) -> PublicKey:
        """The key that readers are given. Raises ImportError without `cryptography`."""
        return PublicKey(self._key.public_key().public_bytes_raw(), self.name)

    @cached_property
    def _key(self) -> Ed25519PrivateKey:
        with _extra():
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        return Ed25519PrivateKey.from_private_bytes(self.raw)

    def sign(self, data: bytes) -> bytes:
        """The 64 bytes of the signature of `data`; the same for the same data. Raises ImportError."""
        return self._key.sign(data)

    def pem(self) -> bytes:
        """The key as PEM (PKCS#8, not encrypted), as openssl writes it."""
        with _extra():
            from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


# -- keys as they stand in files ---------------------------------------------------------------------------------------


def parse_public_key(data: bytes) -> PublicKey:
    """A public key as it stands in a file: 64 hex digits, or PEM (SubjectPublicKeyInfo).

    Raises:
        ValueError: neither, or another kind of key. A secret key is refused as well where it can be told from one.
        ImportError: PEM, and `cryptography` is not installed.
    """
    text = data.strip()
    if _HEX.fullmatch(text):
        return PublicKey(bytes.fromhex(text.decode()))
    if _PEM not in text:
        raise ValueError("no public key: neither 64 hex digits nor PEM")
    if b"PRIVATE KEY-----" in text:
        raise ValueError("a secret key, where the public one belongs")
    with _extra():
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
    try:
        key = load_pem_public_key(text)
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("no public key: PEM that cannot be read") from None
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("a key of another kind than Ed25519")
    return PublicKey(key.public_bytes_raw())


def parse_secret_key(data: bytes) -> SecretKey:
    """A secret key as it stands in a file: 64 hex digits, or PEM (PKCS#8, not encrypted).

    Raises:
        ValueError: neither, or another kind of key.
        ImportError: PEM, and `cryptography` is not installed.
    """
    text = data.strip()
    if _HEX.fullmatch(text):
        return SecretKey(bytes.fromhex(text.decode()))
    if _PEM not in text:
        raise ValueError("no secret key: neither 64 hex digits nor PEM")
    if b"PUBLIC KEY-----" in text:
        raise ValueError("a public key, where the secret one belongs")
    with _extra():
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    try:
        key = load_pem_private_key(text, password=None)
    except TypeError:
        raise ValueError("an encrypted key: decrypt it first, with `openssl pkey` for instance") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("no secret key: PEM that cannot be read") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("a key of another kind than Ed25519")
    return SecretKey(key.private_bytes_raw())


# -- signature objects -------------------------------------------------------------------------------------------------


def signature_name(name: str) -> str:
    """The name of the signature object of an object."""
    return name + SIGNATURE


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
    value = strict_json.parse(data, object=object, limit=MAX_SMALL)
    strict_json.check_version(value, object=object)
    return strict_json.convert(value, SignatureDocument, object=object, rule="TD-SIG-003")


def verify(data: bytes, signature: bytes, keys: Mapping[str, PublicKey], *, object: str) -> PublicKey:
    """Verify an object's bytes against its signature object; the object need not be parsed for that.

    Args:
        data: the object's bytes, as stored.
        signature: those of its signature object.
        keys: the keys that are trusted, by key id.
        object: the name of the object that is signed.

    Returns:
        The key that signed it.

    Raises:
        UntrustedError: signed by a key that is not among them, or not by the key that it names.
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
            advice="If you trust whoever holds this key, add its public key to the trusted ones.",
        )
    if not key.verifies(base64.b64decode(document.sig), data):
        raise UntrustedError(
            f"not what the key {document.keyid[:80]!r} signed",
            object=object,
            rule="TD-SIG-003",
            advice="The object or its signature was altered: restore both from a copy, or have it signed again.",
        )
    return key
