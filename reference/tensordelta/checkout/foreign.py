"""Checkouts in a cache, in which another user may have no part: their words are trusted where their sums agree."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path

from ..stores.anchored import Folder
from ..stores.own import check_own, is_own
from .making import LOCK
from .moving import PRIVATE
from .shards import altered

_LOG = logging.getLogger("tensordelta")


def drop_foreign(folder: Path) -> None:
    """Empty a folder whose private folder another user has made or could change: not even its lock counts.

    Raises:
        UntrustedError: the folder itself is another user's.
    """
    with suppress(FileNotFoundError), Folder(folder) as tree:
        check_own(folder, tree.status())
        try:
            with tree.folder(PRIVATE) as private:
                if is_own(private.status()):
                    return
        except NotADirectoryError:  # is refused where it is opened
            return
        _LOG.warning("the copy in %s is thrown away: other users can write to %s in it", folder, PRIVATE)
        for name in sorted(tree.names(), key=lambda each: each == PRIVATE):  # without it, the rest is no checkout
            tree.remove(name)


def check_all_own(tree: Folder) -> None:
    """Check that all in a folder is this user's, and that nobody else can write to it.

    Raises:
        UntrustedError: the folder itself is not.
        WrongBaseError: something in it is not.
    """
    check_own(tree.path, tree.status())
    for name in tree.names():
        inner = tree.walk(name) if tree.is_folder(name) else ()
        for each in (name, *(below for below, _ in inner)):
            if each != f"{PRIVATE}/{LOCK}" and not is_own(tree.status(each)):
                raise altered(tree, f"{each} is another user's, or other users can write to it")
