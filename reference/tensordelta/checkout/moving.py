"""Moving the files of the next version into place, past whatever else lies in the folder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from ..errors import ConflictError
from ..stores.anchored import Folder
from .record import NEXT, Holding, garbled
from .staging import STAGED

PRIVATE = ".tensordelta"


def conflict(folder: Path, reason: str, advice: str) -> ConflictError:
    """The error for a folder that cannot be pulled into."""
    return ConflictError(reason, object=str(folder), rule="TD-APP-005", advice=advice)


def in_the_way(folder: Path, name: str) -> ConflictError:
    """The error for a file that no pull made."""
    return conflict(folder, f"{name} is in the way, and no pull made it", "Move it elsewhere and pull again.")


def check_following(tree: Folder, following: Holding) -> None:
    """Check that every file of the next version exists, in next/ or moved already, as a regular file.

    Raises:
        IntegrityError: one does not.
    """
    for name, file in following.files.items():
        place = staged if tree.has(staged := f"{PRIVATE}/{STAGED}/{name}") else name
        if not tree.is_file(place) or tree.status(place).st_size != file.size:
            raise garbled(tree.path / PRIVATE / NEXT, f"names {name!r}, which is not there as it was built")


def check_way(tree: Folder, before: Holding | None, names: Iterable[str]) -> None:
    """Refuse to overwrite what no pull made.

    Raises:
        ConflictError: a file or a link has one of these names.
    """
    ours = set(before.files) if before else set()
    for name in names:
        for folder in _folders_of(name)[1:]:
            if tree.has(folder) and not tree.is_folder(folder):
                if folder in ours and tree.is_file(folder):
                    break  # this file is removed before the folder is made
                raise in_the_way(tree.path, folder)
        if name in ours or not tree.has(name):
            continue
        if not tree.is_folder(name):
            raise in_the_way(tree.path, name)
        for each, is_folder in tree.walk(name):
            if not is_folder and each not in ours:
                raise in_the_way(tree.path, each)


def move_files(tree: Folder, before: Holding | None, following: Holding, staged: Sequence[str]) -> None:
    """Remove the files that only the old version has, move the staged ones, and make the folders' entries durable."""
    touched: set[str] = set()
    for name in before.files if before else ():
        if name not in following.files:
            touched.add(_remove(tree, name))
    for name in staged:
        _remove_empty(tree, name)
        tree.replace(f"{PRIVATE}/{STAGED}/{name}", name)
    for name in following.files:
        touched.update(_folders_of(name))
    for folder in sorted(touched, reverse=True):
        if not folder or tree.is_folder(folder):  # it may have been removed with the files of the old version
            tree.sync(folder)


def _remove(tree: Folder, name: str) -> str:
    """Remove a file of the old version and the folders that become empty; returns the folder that changed."""
    # After a crash a new folder or file may already be in this place.
    if not tree.is_folder(name):
        tree.unlink(name)
    *_, parent = folders = _folders_of(name)
    for folder in reversed(folders[1:]):
        try:
            tree.rmdir(folder)
        except OSError:
            break
        parent = _folders_of(folder)[-1]
    return parent


def _remove_empty(tree: Folder, name: str) -> None:
    """Remove a folder that contains folders only; anything else stays."""
    if tree.is_folder(name):
        for each in [*(each for each, _ in tree.walk(name)), name]:
            tree.rmdir(each)


def _folders_of(name: str) -> list[str]:
    """The parents of a file, from the checkout's own folder, whose name is empty, downwards."""
    return ["", *(str(each) for each in reversed(PurePosixPath(name).parents[:-1]))]
