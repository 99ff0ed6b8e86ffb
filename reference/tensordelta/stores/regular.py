"""Opening regular files by name. Nothing else is opened, even for a moment: opening a device may do something."""

from __future__ import annotations

import errno
import os
import stat

_PATH: int | None = getattr(os, "O_PATH", None)


class IrregularError(OSError):
    """Not a regular file but a link, a folder, a pipe or a device."""


def open_regular(
    name: str | os.PathLike[str], flags: int = os.O_RDONLY, *, dir_fd: int | None = None, follow: bool = False
) -> int:
    """Open a file that exists; gives its descriptor.

    Args:
        name: its path, or its name in the folder `dir_fd`.
        flags: those of `os.open`, without `O_CREAT`.
        dir_fd: the descriptor of a folder.
        follow: follow a symbolic link with this name.

    Raises:
        FileNotFoundError, NotADirectoryError: it does not exist.
        IrregularError: it is no regular file.
    """
    more = os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    # Without O_PATH, O_NONBLOCK keeps the opening of a pipe from waiting for its other end.
    found = _open(name, flags | os.O_NONBLOCK if _PATH is None else _PATH, more, dir_fd)
    try:
        if not stat.S_ISREG(os.fstat(found).st_mode):
            raise IrregularError(errno.EINVAL, "is no regular file", str(name))
        return os.dup(found) if _PATH is None else _reopened(found, name, flags, more, dir_fd)
    finally:
        os.close(found)


def _open(name: str | os.PathLike[str], flags: int, more: int, dir_fd: int | None) -> int:
    try:
        return os.open(name, flags | more, dir_fd=dir_fd)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.ENODEV):
            raise
        raise IrregularError(error.errno, "is no regular file", str(name)) from None


def _reopened(found: int, name: str | os.PathLike[str], flags: int, more: int, dir_fd: int | None) -> int:
    """The file of a descriptor that only names it, opened for use."""
    try:
        return os.open(f"/proc/self/fd/{found}", flags | os.O_CLOEXEC)
    except FileNotFoundError:  # a system without /proc
        descriptor = _open(name, flags | os.O_NONBLOCK, more, dir_fd)
    except OSError as error:
        error.filename = str(name)
        raise
    if os.path.samestat(os.fstat(found), os.fstat(descriptor)):
        return descriptor
    os.close(descriptor)
    raise IrregularError(errno.EINVAL, "was replaced while it was opened", str(name))
