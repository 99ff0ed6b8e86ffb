"""Keys in files, in arguments and in configurations (SPEC.md section 14)."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from ..format.keys import KEY_SIZE, PublicKey, SecretKey, parse_public_key, parse_secret_key
from ..stores import sync_folder

#: A public key as users write it: 64 hex digits, the path of a file that has them or PEM, PEM, or the 32 bytes.
PublicKeyLike = PublicKey | str | os.PathLike[str] | bytes
#: A secret key likewise.
SecretKeyLike = SecretKey | str | os.PathLike[str] | bytes

K = TypeVar("K", PublicKey, SecretKey)

_HEX = re.compile(r"[0-9a-fA-F]{64}")
_PEM = "-----BEGIN "


def public_key(key: PublicKeyLike) -> PublicKey:
    """A public key.

    Args:
        key: 64 hex digits; the path of a file that has them, or PEM (SubjectPublicKeyInfo); the contents of such a
            file; or the key's 32 bytes.

    Raises:
        ValueError: no Ed25519 public key.
        OSError: the file cannot be read.
        ImportError: PEM, and `cryptography` is not installed.
    """
    return key if isinstance(key, PublicKey) else _key(key, PublicKey, parse_public_key)


def secret_key(key: SecretKeyLike) -> SecretKey:
    """A secret key.

    Args:
        key: as for `public_key`; PEM is PKCS#8.

    Raises:
        ValueError: no Ed25519 secret key.
        OSError: the file cannot be read.
        ImportError: PEM, and `cryptography` is not installed.
    """
    return key if isinstance(key, SecretKey) else _key(key, SecretKey, parse_secret_key)


def _key(key: str | os.PathLike[str] | bytes, kind: Callable[[bytes], K], parse: Callable[[bytes], K]) -> K:
    if isinstance(key, bytes):
        return kind(key) if len(key) == KEY_SIZE else parse(key)
    if isinstance(key, str) and (_HEX.fullmatch(key.strip()) or _PEM in key):
        return parse(key.encode())
    path = Path(key).expanduser()
    try:
        return parse(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def trusted(keys: Iterable[PublicKeyLike] | Mapping[str, PublicKeyLike]) -> dict[str, PublicKey]:
    """Trusted keys by key id.

    Args:
        keys: the keys; a mapping gives them names of its own, for signature objects whose `keyid` is not the SHA-256
            of the public key.

    Raises:
        ValueError: none, or one that is no key.
        OSError: a file cannot be read.
        ImportError: PEM, and `cryptography` is not installed.
    """
    if isinstance(keys, (str, bytes, os.PathLike, PublicKey)):
        raise ValueError("trusted keys are a list of keys, not one")
    if isinstance(keys, Mapping):
        found = [PublicKey(public_key(key).raw, name) for name, key in keys.items()]
    else:
        found = [public_key(key) for key in keys]
    if not found:
        raise ValueError("no trusted key is given; leave the argument out to read without signatures")
    return {key.id: key for key in found}


def write_key_pair(path: str | os.PathLike[str]) -> tuple[PublicKey, Path]:
    """Make a new key and write it to a file, and its public part to another beside it, FILE.pub; both as PEM.

    The file of the secret key is readable by its owner alone. What is there is never overwritten.

    Returns:
        The public key, and its file.

    Raises:
        FileExistsError: one of the files is there already.
        OSError: they cannot be written.
        ImportError: `cryptography` is not installed.
    """
    secret = SecretKey.generate()
    path = Path(path)
    other = path.with_name(f"{path.name}.pub")
    _write_new(path, secret.pem(), 0o600)
    try:
        _write_new(other, secret.public.pem(), 0o644)
    except BaseException:
        path.unlink()
        raise
    sync_folder(path.parent)
    return secret.public, other


def _write_new(path: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
