"""Ed25519 keys: how they sign and verify, and how they are written (SPEC.md section 14).

Bytes in, bytes out: no file is touched here. Ed25519 comes from the package `cryptography` (extra `sign`), which is
imported when a key is first used. Keys may be shared between threads.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

#: Bytes of a key, secret or public.
KEY_SIZE = 32

_HEX = re.compile(rb"[0-9a-fA-F]{64}")
_PEM = b"-----BEGIN "


def _cryptography(module: str) -> Any:
    """A module of the package `cryptography`, or an ImportError that says what to install."""
    try:
        return import_module(f"cryptography.{module}")
    except ImportError:
        raise ImportError(
            "signatures need the package cryptography: pip install 'tensordelta[sign]'", name="cryptography"
        ) from None


def _ed25519() -> Any:
    return _cryptography("hazmat.primitives.asymmetric.ed25519")


def _serialization() -> Any:
    return _cryptography("hazmat.primitives.serialization")


def _check_size(raw: bytes) -> None:
    if len(raw) != KEY_SIZE:
        raise ValueError(f"an Ed25519 key has {KEY_SIZE} bytes, not {len(raw)}")


@dataclass(frozen=True)
class PublicKey:
    """A key that a reader trusts.

    Attributes:
        raw: its 32 bytes.

    Raises:
        ValueError: not 32 bytes.
    """

    raw: bytes

    def __post_init__(self) -> None:
        _check_size(self.raw)

    def __reduce__(self) -> tuple[object, ...]:
        """A key travels as its bytes."""
        return PublicKey, (self.raw,)

    @property
    def id(self) -> str:
        """The `keyid` in the names of its signatures: the first 16 hex digits of the SHA-256 of its bytes."""
        return hashlib.sha256(self.raw).hexdigest()[:16]

    def verifies(self, signature: bytes, data: bytes) -> bool:
        """True where 64 bytes are this key's signature of `data` (RFC 8032, section 5.1.7).

        Raises:
            ImportError: `cryptography` is not installed.
        """
        try:
            self._key.verify(signature, data)
        except _cryptography("exceptions").InvalidSignature:
            return False
        return True

    @cached_property
    def _key(self) -> Ed25519PublicKey:
        key: Ed25519PublicKey = _ed25519().Ed25519PublicKey.from_public_bytes(self.raw)
        return key

    def pem(self) -> bytes:
        """The key as PEM (SubjectPublicKeyInfo), as openssl writes it. Raises ImportError without `cryptography`."""
        form = _serialization()
        return self._key.public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)


@dataclass(frozen=True)
class SecretKey:
    """A key to sign with. Its bytes are in no message and no representation.

    Attributes:
        raw: the 32 bytes of RFC 8032.

    Raises:
        ValueError: not 32 bytes.
    """

    raw: bytes = field(repr=False)

    def __post_init__(self) -> None:
        _check_size(self.raw)

    @classmethod
    def generate(cls) -> SecretKey:
        """A new key, from the operating system's random generator."""
        return cls(secrets.token_bytes(KEY_SIZE))

    @cached_property
    def public(self) -> PublicKey:
        """The key that readers need. Raises ImportError without `cryptography`."""
        return PublicKey(self._key.public_key().public_bytes_raw())

    @cached_property
    def _key(self) -> Ed25519PrivateKey:
        key: Ed25519PrivateKey = _ed25519().Ed25519PrivateKey.from_private_bytes(self.raw)
        return key

    def sign(self, data: bytes) -> bytes:
        """The 64 bytes of the signature of `data`; the same for the same data. Raises ImportError."""
        return self._key.sign(data)

    def pem(self) -> bytes:
        """The key as PEM (PKCS#8, not encrypted), as openssl writes it. Raises ImportError without `cryptography`."""
        form = _serialization()
        return self._key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())


def parse_public_key(data: bytes) -> PublicKey:
    """A public key from the contents of a file: 64 hex digits, or PEM (SubjectPublicKeyInfo).

    Raises:
        ValueError: neither, or a key of another kind; a secret key in PEM is refused as well.
        ImportError: PEM, and `cryptography` is not installed.
    """
    text = data.strip()
    if _HEX.fullmatch(text):
        return PublicKey(bytes.fromhex(text.decode()))
    if b"PRIVATE KEY-----" in text:
        raise ValueError("a secret key; a public key is needed here")
    key = _from_pem(text, "public")
    if not isinstance(key, _ed25519().Ed25519PublicKey):
        raise ValueError("a key of another kind than Ed25519")
    return PublicKey(key.public_bytes_raw())


def parse_secret_key(data: bytes) -> SecretKey:
    """A secret key from the contents of a file: 64 hex digits, or PEM (PKCS#8, not encrypted).

    Raises:
        ValueError: neither, or a key of another kind.
        ImportError: PEM, and `cryptography` is not installed.
    """
    text = data.strip()
    if _HEX.fullmatch(text):
        return SecretKey(bytes.fromhex(text.decode()))
    if b"PUBLIC KEY-----" in text:
        raise ValueError("a public key; the secret key is needed here")
    key = _from_pem(text, "secret")
    if not isinstance(key, _ed25519().Ed25519PrivateKey):
        raise ValueError("a key of another kind than Ed25519")
    return SecretKey(key.private_bytes_raw())


def _from_pem(text: bytes, kind: Literal["public", "secret"]) -> Any:
    if _PEM not in text:
        raise ValueError(f"no {kind} key: neither 64 hex digits nor PEM")
    form = _serialization()
    try:
        return form.load_pem_public_key(text) if kind == "public" else form.load_pem_private_key(text, password=None)
    except TypeError:
        raise ValueError("an encrypted key: decrypt it first, with `openssl pkey` for instance") from None
    except (ValueError, _cryptography("exceptions").UnsupportedAlgorithm):
        raise ValueError(f"no {kind} key: PEM that cannot be read") from None
