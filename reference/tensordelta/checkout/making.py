"""Making a checkout's folder, locking it, and whose it is."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from ..stores import sync_folder
from ..stores.anchored import Folder
from ..stores.file_lock import file_lock
from ..stores.own import check_own, is_own
from ..stores.regular import IrregularError
from .moving import PRIVATE, conflict
from .record import garbled
from .shards import altered

LOCK = "lock"
_LOG = logging.getLogger("tensordelta")
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


def drop_foreign(path: Path) -> None:
    """Empty a folder whose private folder another user has made or could change: not even its lock counts.

    Raises:
        UntrustedError: the folder itself is another user's.
    """
    with suppress(FileNotFoundError), Folder(path) as tree:
        check_own(path, tree.status())
        try:
            with tree.folder(PRIVATE) as private:
                if is_own(private.status()):
                    return
        except NotADirectoryError:  # is refused where it is opened
            return
        _LOG.warning("the copy in %s is thrown away: other users can write to %s in it", path, PRIVATE)
        for name in sorted(tree.names(), key=lambda each: each == PRIVATE):  # without it, the rest is no checkout
            tree.remove(name)


def check_all_own(tree: Folder) -> None:
    """Check that all in a folder is this user's, and that nobody else can write to it.

    Raises:
        UntrustedError: the folder is not.
        WrongBaseError: something in it is not.
    """
    check_own(tree.path, tree.status())
    for name in tree.names():
        inner = tree.walk(name) if tree.is_folder(name) else ()
        for each in (name, *(below for below, _ in inner)):
            if each != f"{PRIVATE}/{LOCK}" and not is_own(tree.status(each)):
                raise altered(tree, f"{each} is another user's, or other users can write to it")
