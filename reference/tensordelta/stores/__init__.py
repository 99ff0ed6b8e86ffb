"""Stores: where a chain's objects are kept (SPEC.md section 12)."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from ..format.names import FOLDERS
from .base import Batch, DirectBatch, NoSuchObject, Parts, Store, StoredBlob, StoredObject, read_small
from .folder import FileBlob, FolderStore, sync_folder
from .retries import Retries
from .spool import cache_folder, cache_root, in_cache, user_path

#: An address with too few slashes, or too many.
_MISTYPED = re.compile(r"(hf|s3|gs|az|https?):/{0,1}(?!/)")

__all__ = [
    "Batch",
    "DirectBatch",
    "FileBlob",
    "FolderStore",
    "NoSuchObject",
    "Parts",
    "Retries",
    "Store",
    "StoredBlob",
    "StoredObject",
    "absolute",
    "cache_folder",
    "cache_root",
    "check_slashes",
    "has_strangers",
    "in_cache",
    "open_store",
    "read_small",
    "sync_folder",
    "user_path",
]


def open_store(address: str | os.PathLike[str] | Store, *, options: Mapping[str, Any] | None = None) -> Store:
    """The store at an address; a store is returned as it is.

    Args:
        address: a folder, `hf://buckets/OWNER/NAME[/PREFIX]`, `s3://BUCKET/PREFIX`, `gs://…` or `az://…`; or, to read
            only, `https://HOST/PATH`.
        options: for a bucket of the Hugging Face Hub `token` and `endpoint`; for object stores keywords of obstore's
            `from_url`, such as `endpoint` and `client_options`; for HTTPS `headers` and `timeout`; for each `retries`,
            a `Retries`.

    Raises:
        ImportError: the package that the address needs is not installed.
        FileNotFoundError: a path with `~`, and this user has no home.
        ValueError: an address of an unknown kind, or options that it does not have.
    """
    if not isinstance(address, (str, os.PathLike)):
        _refuse(options, "a store")
        return address
    text = os.fspath(address)
    scheme, separator, _ = text.partition("://")
    if not separator:
        check_slashes(text)
        _refuse(options, "a folder")
        return FolderStore(user_path(text))
    options = dict(options or {})
    retries = options.pop("retries", None)
    if scheme == "hf":
        from .hub import open_hub

        return open_hub(text, options=options, retries=retries)
    if scheme in ("s3", "gs", "az"):
        from .cloud import open_cloud

        return open_cloud(text, options=options, retries=retries)
    if scheme in ("https", "http"):
        from .web import open_web

        return open_web(text, options=options, retries=retries)
    raise ValueError(
        f"{text!r}: chains live in folders, hf://buckets/…, s3://…, gs://… and az://…, and behind https://…"
    )


def check_slashes(path: str) -> None:
    """Check that a path is no address that was mistyped.

    Raises:
        ValueError: it is one, and there is no such path.
    """
    mistyped = _MISTYPED.match(path)
    if mistyped and not os.path.lexists(path):
        right = f"{mistyped[1]}://{path[mistyped.end() :]}"
        raise ValueError(f"{path!r} is no address: write {right}, with two slashes after the colon")


def absolute(address: str | os.PathLike[str]) -> str:
    """An address as other processes can open it, whose working directories differ: a folder's path from the root."""
    text = os.fspath(address)
    return text if "://" in text else str(user_path(text).absolute())


def _refuse(options: Mapping[str, Any] | None, what: str) -> None:
    if options:
        raise ValueError(f"{what} has no option {min(options)!r}")


def has_strangers(store: Store) -> bool:
    """True if something under the root is no object of a chain.

    Raises:
        StoreError: the store failed.
    """
    if isinstance(store, FolderStore):
        return store.is_foreign()
    return any("/" not in name or name.partition("/")[0] not in FOLDERS for name in store.names(""))
