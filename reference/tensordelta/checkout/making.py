"""Making a checkout's folder, and locking it."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ..stores import sync_folder
from ..stores.anchored import Folder
from ..stores.file_lock import file_lock
from ..stores.regular import IrregularError
from .moving import PRIVATE, conflict
from .record import garbled

LOCK = "lock"
#: Errors of a file system without locks.
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL})


def made(path: Path, mode: int) -> Folder:
    """A folder, open, with a private folder in it; both are made where they are absent.

    Raises:
        ConflictError: the path is a file's, or the folder has contents that no pull made.
    """
    if path.exists() and not path.is_dir():
        raise conflict(path, "is a file", "Name a folder.")
    absent = [each for each in (path, *path.parents) if not each.exists()]
    path.mkdir(mode, parents=True, exist_ok=True)
    for each in absent:
        sync_folder(each.parent)
    folder = Folder(path)
    try:
        # The private folder first: another process may make it at this moment.
        names = folder.names() if not folder.has(PRIVATE) else [PRIVATE]
        if PRIVATE not in names:
            if names:
                raise conflict(
                    path, "has contents, but no pull made them", "Name an empty folder, or one that does not exist."
                )
            # Only its owner may write to it: after a crash, recovery does what its files say.
            folder.make(PRIVATE, mode=0o755)
            folder.sync()
    except BaseException:
        folder.close()
        raise
    return folder


@contextmanager
def lock(tree: Folder, private: Folder, *, exclusive: bool) -> Iterator[None]:
    """Lock a folder; a reader does without where there are no locks, or none that this user may take.

    Raises:
        ConflictError: another process has locked it.
        IntegrityError: its lock is no regular file.
    """
    with ExitStack() as stack:
        try:
            file = stack.enter_context(private.open_or_create(LOCK) if exclusive else private.open(LOCK))
            stack.enter_context(file_lock(file.fileno(), exclusive=exclusive))
        except FileNotFoundError:  # only in a copy of a checkout, which no pull has used
            pass
        except IrregularError as fault:
            raise garbled(private.path / LOCK, str(fault.strerror)) from None
        except BlockingIOError:
            raise conflict(tree.path, "another process is working on it", "Wait for it to end.") from None
        except PermissionError:
            if exclusive:
                raise
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            if exclusive:
                reason = f"{error.strerror}: its file system has no locks; choose a folder on another one"
                raise OSError(error.errno, reason, str(private.path / LOCK)) from None
        yield
