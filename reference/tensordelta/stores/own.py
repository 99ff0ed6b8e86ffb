"""Whose a file or folder is: what this user trusts, nobody else may have made or be able to change."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ..errors import UntrustedError

#: The variable that names the cache folder.
CACHE = "TENSORDELTA_CACHE"


def is_own(status: os.stat_result) -> bool:
    """True for what belongs to this user, or to root, and what nobody else can write to."""
    return status.st_uid in (os.geteuid(), 0) and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def check_own(path: Path, status: os.stat_result) -> None:
    """Check that a cache folder is this user's alone.

    Args:
        path: the folder, for the message.
        status: its status; a link is not followed.

    Raises:
        UntrustedError: it is a link, or other users can write to it.
    """
    if stat.S_ISLNK(status.st_mode):
        reason, mend = "is a link in the place of a cache folder", f"remove {path}"
    elif not is_own(status):
        reason, mend = "is a cache folder that other users can write to", f"`chmod go-w {path}`"
    else:
        return
    raise _untrusted(path, reason, f"if you trust what is in it, {mend}")


def check_above(root: Path) -> None:
    """Check that no other user can exchange a cache folder for another one, by its name in a folder above it.

    The owner of `/` is root, also in a container in which root has another number.

    Args:
        root: the cache folder, with no link in its path.

    Raises:
        UntrustedError: a folder above it belongs to another user, or other users can rename what is in it.
    """
    trusted = (os.geteuid(), 0, Path("/").stat().st_uid)
    for folder in reversed(root.parents):
        status = folder.lstat()
        shared = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not status.st_mode & stat.S_ISVTX
        if shared or status.st_uid not in trusted:
            reason = f"is a folder above the cache folder {root}, and other users can rename what is in it"
            raise _untrusted(folder, reason, f"if it may be yours alone, `chmod go-w {folder}`")


def _untrusted(path: Path, reason: str, mend: str) -> UntrustedError:
    advice = f"Set ${CACHE} to a folder of your own, or, {mend}."
    return UntrustedError(reason, object=str(path), rule="TD-SEC-001", advice=advice)
