"""Names below a root, resolved by descriptors: links that stay below the root are followed, and no others.

Others may write to a chain's folder. A path is resolved at each use, so that a folder in it could be exchanged for a
link after it was checked; here each folder is opened once, without following links, and held until the use is over.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Self

from .anchored import opened_folder

#: Links that one name may lead through, as the system has it.
_MAX_LINKS = 40
#: Bytes that a part of a name may have.
_MAX_PART = 255
#: What resolving gives for a name that is none: no file, a file amid it, a link that leads nowhere.
ABSENT = (FileNotFoundError, NotADirectoryError)


class OutsideError(Exception):
    """A link leads out of the root."""


class Rooted:
    """The place of a name below a root; a context manager that closes the folders on the way.

    Args:
        root: the folder; links in its own path are followed, because the user chose it.
        name: relative, with `/` between its parts; the empty text for the root itself.
        make: make the folders on the way, durably.
        whole: the name is that of a folder, which is entered as well; then `last` is empty.

    Attributes:
        last: the last part of the name, in `folder`.

    Raises:
        OutsideError: a link on the way leads out of the root.
        FileNotFoundError, NotADirectoryError: a folder on the way does not exist.
    """

    def __init__(self, root: Path, name: str, *, make: bool = False, whole: bool = False) -> None:
        self._root = root
        self._make = make
        self._links = 0
        self._held = [os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)]
        self.last = ""
        try:
            self._go(name, whole=whole)
        except BaseException:
            self.close()
            raise

    @property
    def folder(self) -> int:
        """The descriptor of the folder that has the last part of the name."""
        return self._held[-1]

    def status(self, *, follow: bool = False) -> os.stat_result:
        """The status of what has the name; with `follow`, of what a link leads to.

        Raises:
            OutsideError, FileNotFoundError, NotADirectoryError: as for the constructor.
        """
        status = os.stat(self.last or ".", dir_fd=self.folder, follow_symlinks=False)
        while follow and stat.S_ISLNK(status.st_mode):
            self.follow()
            status = os.stat(self.last, dir_fd=self.folder, follow_symlinks=False)
        return status

    def has(self, name: str) -> bool:
        """True where `folder` has a name."""
        try:
            os.stat(name, dir_fd=self.folder, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def follow(self) -> None:
        """Go on to what a link with this name leads to.

        Raises:
            OutsideError, FileNotFoundError: as for the constructor.
            NotADirectoryError: it is no link.
        """
        self._go(self._target(self.last), whole=False)

    def close(self) -> None:
        """Close the folders."""
        while self._held:
            os.close(self._held.pop())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _go(self, path: str, *, whole: bool) -> None:
        waiting = _parts(path)
        while waiting and (whole or len(waiting) > 1 or waiting[0] == ".."):
            part = waiting.pop()
            if part != "..":
                waiting += self._enter(part)
            elif len(self._held) > 1:
                os.close(self._held.pop())
            else:
                raise OutsideError
        if not whole and not waiting:
            raise FileNotFoundError(errno.ENOENT, "is a link to a folder", path)
        self.last = "" if whole else waiting[0]

    def _enter(self, part: str) -> list[str]:
        """Open the folder of a name; where that is a link, gives the parts of its target instead."""
        try:
            try:
                self._held.append(opened_folder(part, self.folder))
            except FileNotFoundError:
                if not self._make:
                    raise
                self._made(part)
                self._held.append(opened_folder(part, self.folder))
        except NotADirectoryError:
            return _parts(self._target(part))
        return []

    def _made(self, part: str) -> None:
        try:
            os.mkdir(part, dir_fd=self.folder)
        except FileExistsError:  # another process has just made it
            return
        os.fsync(self.folder)

    def _target(self, part: str) -> str:
        """The target of a link, relative to `folder`, which becomes the root for one that names a path from `/`."""
        try:
            target = os.readlink(part, dir_fd=self.folder)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            raise NotADirectoryError(errno.ENOTDIR, "is no folder", part) from None
        self._links += 1
        if self._links > _MAX_LINKS or any(len(os.fsencode(each)) > _MAX_PART for each in target.split("/")):
            raise FileNotFoundError(errno.ENOENT, "is a link that leads nowhere", part)
        if not target.startswith("/"):
            return target
        root, real = os.path.realpath(self._root), os.path.realpath(target)
        if os.path.commonpath([root, real]) != root:
            raise OutsideError
        while len(self._held) > 1:
            os.close(self._held.pop())
        return os.path.relpath(real, root)


def _parts(path: str) -> list[str]:
    """The parts of a path, the first one last."""
    return [part for part in reversed(path.split("/")) if part not in ("", ".")]
