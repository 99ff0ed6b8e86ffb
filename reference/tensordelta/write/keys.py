"""Keys in files, in arguments and in configurations (SPEC.md section 14)."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from ..errors import UntrustedError
from ..format.keys import KEY_SIZE, PublicKey, SecretKey, parse_public_key, parse_secret_key
from ..stores import sync_folder, user_path
from ..stores.regular import IrregularError, open_regular

#: A public key as users write it: 64 hex digits, the path of a file that has them or PEM, PEM, or the 32 bytes.
PublicKeyLike = PublicKey | str | os.PathLike[str] | bytes
#: A secret key likewise.
SecretKeyLike = SecretKey | str | os.PathLike[str] | bytes

K = TypeVar("K", PublicKey, SecretKey)

_HEX = re.compile(r"[0-9a-fA-F]{64}")
_PEM = "-----BEGIN "
#: Bytes that the file of a key may have.
_MAX_KEY = 1 << 14


def public_key(key: PublicKeyLike) -> PublicKey:
    """A public key.

    Args:
        key: 64 hex digits; the path of a file that has them, or PEM (SubjectPublicKeyInfo); the contents of such a
            file; or the key's 32 bytes.

    Raises:
        ValueError: no Ed25519 public key.
        OSError: the file cannot be read, or is no regular file.
        UntrustedError: other users can write to the file, or one other than root owns it.
        ImportError: PEM, and `cryptography` is not installed.
    """
    return key if isinstance(key, PublicKey) else _key(key, PublicKey, parse_public_key)


def secret_key(key: SecretKeyLike) -> SecretKey:
    """A secret key.

    Args:
        key: as for `public_key`; PEM is PKCS#8.

    Raises:
        ValueError: no Ed25519 secret key.
        OSError: the file cannot be read, or is no regular file.
        UntrustedError: other users can read the file or write to it, or one other than root owns it.
        ImportError: PEM, and `cryptography` is not installed.
    """
    return key if isinstance(key, SecretKey) else _key(key, SecretKey, parse_secret_key)


def _key(key: str | os.PathLike[str] | bytes, kind: Callable[[bytes], K], parse: Callable[[bytes], K]) -> K:
    if isinstance(key, bytes):
        return kind(key) if len(key) == KEY_SIZE else parse(key)
    if isinstance(key, str) and (_HEX.fullmatch(key.strip()) or _PEM in key):
        return parse(key.encode())
    path = user_path(key)
    data, status = _read(path, secret=kind is SecretKey)
    try:
        found = parse(data)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if isinstance(found, SecretKey):
        _check_hidden(path, status)
    return found


def _read(path: Path, *, secret: bool) -> tuple[bytes, os.stat_result]:
    """The contents of the file of a key, and its status."""
    try:
        descriptor = open_regular(path, follow=True)
    except IrregularError as error:
        raise IrregularError(error.errno, "is no regular file, and a key is in one", str(path)) from None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        _check_own(path, status, secret=secret)
        if status.st_size > _MAX_KEY:
            raise ValueError(f"{path}: no key: the file of a key has at most {_MAX_KEY} bytes, not {status.st_size}")
        return file.read(_MAX_KEY), status


def _check_own(path: Path, status: os.stat_result, *, secret: bool) -> None:
    """Refuse the file of a key that other users can replace: they would sign as this user, or be trusted."""
    # Public keys lie in folders of source code, which are often a group's.
    others = stat.S_IWOTH | (stat.S_IWGRP if secret else 0)
    if status.st_uid not in (os.geteuid(), 0):
        raise _untrusted(path, "another user owns it", "If it is the key that you mean, copy it to a file of your own.")
    if status.st_mode & others:
        mend = f"`chmod {'600' if secret else 'go-w'} {path}`"
        raise _untrusted(path, "other users can write to it", f"If it is still the key that you mean, {mend}.")


def _check_hidden(path: Path, status: os.stat_result) -> None:
    """Refuse the file of a secret key that other users can read: they can sign as this user."""
    # Keys that root hands to a service are often its group's to read.
    others = stat.S_IROTH | (stat.S_IRGRP if status.st_uid == os.geteuid() else 0)
    if status.st_mode & others:
        advice = f"`chmod 600 {path}`; if one of them may have read it, make a new key."
        raise _untrusted(path, "other users can read it", advice)


def _untrusted(path: Path, fault: str, advice: str) -> UntrustedError:
    return UntrustedError(f"is the file of a key, and {fault}", object=str(path), rule="TD-SEC-001", advice=advice)


def trusted(keys: Iterable[PublicKeyLike]) -> list[PublicKey]:
    """Trusted keys.

    Raises:
        ValueError: none, or one that is no key.
        OSError: a file cannot be read.
        ImportError: PEM, and `cryptography` is not installed.
    """
    if isinstance(keys, (str, bytes, os.PathLike, PublicKey)):
        raise ValueError("trusted keys are a list of keys, not one")
    found = [public_key(key) for key in keys]
    if not found:
        raise ValueError("no trusted key is given; leave the argument out to read without signatures")
    return found


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
