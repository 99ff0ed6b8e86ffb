"""Checkouts: a version in a folder that an engine can load (SPEC.md section 9.3, for states held on disk).

A checkout is a checkpoint folder with a private folder in it:

    .tensordelta/state.json    the version that the folder holds; replaced by an atomic rename
    .tensordelta/undo          the old words, during a patch in place
    .tensordelta/next/         the files of the next version, where patching in place is not possible
    .tensordelta/next.json     says that next/ is complete

The process may die at any instant; the next one finds either the old version or the new one:

- A patch in place first makes the old words durable. Before state.json is replaced, recovery writes them back; after
  that, it removes them.
- Other changes are built in next/. Before next.json appears, recovery removes next/; after that, it moves its files
  into place.

Other users may have made these files, in an archive or on a shared disk. So they are checked as strictly as objects of
a store, opened below the folder's own descriptor without following links, and recovery happens only in a folder of this
user.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import msgspec

from ..errors import ConflictError, IntegrityError, MissingError, StoreError, TensorDeltaError, WrongBaseError
from ..events import Event, emit
from ..format.layout import Layout
from ..format.manifest import Manifest
from ..read.reader import Reader
from ..state import checkpoint
from ..state.state import State
from ..state.update import Update
from ..stores import sync_folder
from ..stores.file_lock import file_lock
from ..stores.folder import naming
from ..threads import Lock
from .anchored import REMOVED, Folder, IrregularError
from .record import NEXT, STATE, Holding, garbled
from .staging import METADATA, STAGED, FileLayout, Staging, fill_holes, settle
from .undo import UNDO, UndoHead, is_pending, undo_record, write_back

PRIVATE = ".tensordelta"
_LOCK = "lock"
#: Errors of a file system without locks, and of one that cannot be written to by this user.
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL})
_READ_ONLY = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
#: Nanoseconds after which a later write gives a file another modification time.
_SETTLED = 2_000_000_000


@dataclass(frozen=True)
class Pulled:
    """The result of a pull.

    Attributes:
        version: the version that the folder holds now.
        route: names of the manifests and shortcuts that were applied; empty where the folder held the version already.
        size: bytes of their packs.
        seconds: duration.
        passed_over: the faults of edges that failed, so that another route was taken; each names its object.
    """

    version: int
    route: tuple[str, ...]
    size: int
    seconds: float
    passed_over: tuple[TensorDeltaError | StoreError, ...] = ()


class Checkout:
    """A folder that holds one version of a chain.

    Threads and processes may open the same folder; one at a time can work on it, others get a `ConflictError`.

    Args:
        folder: its path; it may not exist yet.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._using = Lock()
        self._owner: tuple[int, int] | None = None  # the process and thread that hold the lock
        self._tree: Folder  # both are set while the lock is held
        self._private: Folder

    @staticmethod
    def is_checkout(folder: str | os.PathLike[str]) -> bool:
        """True for a checkout, even a damaged one."""
        return Path(folder, PRIVATE).is_dir()

    # -- locking --------------------------------------------------------------------------------------------------

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the folder for this thread of this process, which may lock it again; a new folder is made.

        Raises:
            ConflictError: the folder is no checkout, or is locked.
        """
        caller = os.getpid(), threading.get_ident()
        if self._owner == caller:
            yield
            return
        if not self._using.acquire(blocking=False):
            raise self._conflict("another thread is working on it", "Wait for it to end.")
        try:
            if not os.path.lexists(self.folder / PRIVATE):
                self._make()
            with self._entered(writable=True):
                self._owner = caller
                try:
                    yield
                finally:
                    self._owner = None
        finally:
            self._using.release()

    def _make(self) -> None:
        if self.folder.exists() and not self.folder.is_dir():
            raise self._conflict("is a file", "Name a folder.")
        has_contents = self.folder.is_dir() and any(self.folder.iterdir())
        if has_contents and not os.path.lexists(self.folder / PRIVATE):  # else another process has just made it
            raise self._conflict(
                "has contents, but no pull made them", "Name an empty folder, or one that does not exist."
            )
        made = [self.folder / PRIVATE, *(each for each in (self.folder, *self.folder.parents) if not each.exists())]
        self.folder.mkdir(parents=True, exist_ok=True)
        # Only its owner may write to it: after a crash, recovery does what its files say.
        (self.folder / PRIVATE).mkdir(mode=0o755, exist_ok=True)
        for each in made:
            sync_folder(each.parent)

    @contextmanager
    def _entered(self, *, writable: bool) -> Iterator[None]:
        """Open the folder and lock it: exclusively, or shared with other readers."""
        with ExitStack() as stack:
            self._tree = stack.enter_context(Folder(self.folder))
            try:
                self._private = stack.enter_context(self._tree.folder(PRIVATE))
            except NotADirectoryError:
                raise self._in_the_way(PRIVATE) from None
            self._lock(stack, exclusive=writable)
            yield

    def _lock(self, stack: ExitStack, *, exclusive: bool) -> None:
        """Lock the folder; a reader does without where there are no locks, or none that this user may take."""
        try:
            lock = stack.enter_context(self._private.open_or_create(_LOCK) if exclusive else self._private.open(_LOCK))
            stack.enter_context(file_lock(lock.fileno(), exclusive=exclusive))
        except FileNotFoundError:  # only in a copy of a checkout, which no pull has used
            return
        except IrregularError as fault:
            raise garbled(self._private.path / _LOCK, str(fault.strerror)) from None
        except BlockingIOError:
            raise self._conflict("another process is working on it", "Wait for it to end.") from None
        except PermissionError:
            if exclusive:
                raise
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            if exclusive:
                reason = f"{error.strerror}: its file system has no locks; choose a folder on another one"
                raise OSError(error.errno, reason, str(self._private.path / _LOCK)) from None

    def _conflict(self, reason: str, advice: str) -> ConflictError:
        return ConflictError(reason, object=str(self.folder), rule="TD-APP-005", advice=advice)

    def _write_private(self, name: str, parts: Iterable[bytes | memoryview]) -> None:
        temporary = f"{name}.tmp"
        with self._private.create(temporary) as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        self._private.replace(temporary, name)
        self._private.sync()

    # -- recovery -------------------------------------------------------------------------------------------------

    def _recover(self) -> Holding | None:
        """Complete or undo an interrupted pull.

        Raises:
            ConflictError: another user began it, or could have changed its files.
            IntegrityError: its files are not as a pull leaves them.
        """
        following = Holding.read(self._private, NEXT)
        pending = following is not None or self._private.has(UNDO)
        if pending:
            self._check_owner()
        if following is not None:
            self._move_over(following)
        held = Holding.read(self._private, STATE)
        if self._private.has(UNDO):
            if held is not None:
                write_back(held, self._tree, self._private)
            self._private.unlink(UNDO)
            self._private.sync()
        for name in self._private.names():
            if name == STAGED or name.startswith(REMOVED):
                self._private.remove(name)
        for name in (NEXT, STATE, UNDO):
            self._private.remove(f"{name}.tmp")
        return held

    def _check_owner(self) -> None:
        """Check that an interrupted pull was this user's, since completing it moves files and writes words.

        Raises:
            ConflictError: it was not, or other users could have changed it.
        """
        advice = "Remove the folder and pull again, or have its owner pull."
        for folder in (self._tree, self._private):
            if folder.status().st_uid != os.geteuid():
                raise self._conflict("another user's pull was interrupted here", advice)
        if self._private.status().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise self._conflict(
                f"a pull was interrupted here, and other users can write to {PRIVATE}",
                f"If you trust what they wrote, `chmod go-w {self._private.path}` and pull again.",
            )

    def _check_following(self, following: Holding) -> None:
        """Check that every file of the next version exists, in next/ or moved already, as a regular file.

        Raises:
            IntegrityError: one does not.
        """
        for name, file in following.files.items():
            place = staged if self._tree.has(staged := f"{PRIVATE}/{STAGED}/{name}") else name
            if not self._tree.is_file(place) or self._tree.status(place).st_size != file.size:
                raise garbled(self._private.path / NEXT, f"names {name!r}, which is not there as it was built")

    def _move_over(self, following: Holding) -> None:
        """Move the files of next/ into place, each by a rename; after a crash it can be repeated, and does the rest."""
        before = Holding.read(self._private, STATE)
        self._check_following(following)
        staged = [name for name in following.files if self._tree.has(f"{PRIVATE}/{STAGED}/{name}")]
        # After a loss of power a file may be in both places.
        self._check_way(before, (name for name in staged if not self._tree.is_file(name)))
        touched: set[str] = set()
        for name in before.files if before else ():
            if name not in following.files:
                touched.add(self._remove(name))
        for name in staged:
            self._remove_empty(name)
            self._tree.replace(f"{PRIVATE}/{STAGED}/{name}", name)
        for name in following.files:
            touched.update(_folders_of(name))
        for folder in sorted(touched, reverse=True):
            if not folder or self._tree.is_folder(folder):  # it may have been removed with the files of the old version
                self._tree.sync(folder)
        self._write_private(STATE, [msgspec.json.encode(following)])
        self._private.unlink(NEXT)
        self._private.sync()

    def _remove(self, name: str) -> str:
        """Remove a file of the old version and the folders that become empty; returns the folder that changed."""
        # After a crash a new folder or file may already be in this place.
        if not self._tree.is_folder(name):
            self._tree.unlink(name)
        *_, parent = folders = _folders_of(name)
        for folder in reversed(folders[1:]):
            try:
                self._tree.rmdir(folder)
            except OSError:
                break
            parent = _folders_of(folder)[-1]
        return parent

    def _remove_empty(self, name: str) -> None:
        """Remove a folder that contains folders only; anything else stays."""
        if self._tree.is_folder(name):
            for each in [*(each for each, _ in self._tree.walk(name)), name]:
                self._tree.rmdir(each)

    def _check_way(self, before: Holding | None, names: Iterable[str]) -> None:
        """Refuse to overwrite what no pull made.

        Raises:
            ConflictError: a file or a link has one of these names.
        """
        ours = set(before.files) if before else set()
        for name in names:
            for folder in _folders_of(name)[1:]:
                if self._tree.has(folder) and not self._tree.is_folder(folder):
                    if folder in ours and self._tree.is_file(folder):
                        break  # this file is removed before the folder is made
                    raise self._in_the_way(folder)
            if name in ours or not self._tree.has(name):
                continue
            if not self._tree.is_folder(name):
                raise self._in_the_way(name)
            for each, is_folder in self._tree.walk(name):
                if not is_folder and each not in ours:
                    raise self._in_the_way(each)

    def _in_the_way(self, name: str) -> ConflictError:
        return self._conflict(f"{name} is in the way, and no pull made it", "Move it elsewhere and pull again.")

    # -- opening --------------------------------------------------------------------------------------------------

    def _open(self, held: Holding, reader: Reader, *, scan: bool, writable: bool, note: bool = True) -> State:
        if held.chain != reader.chain:
            raise self._conflict(
                f"follows chain {held.chain}, not {reader.chain}", "Pull each chain into a folder of its own."
            )
        now = time.time_ns()
        files = held.check_files(self._tree, digests=False)
        state = held.state(self._tree, writable=writable)
        touched = [name for name, file in files.items() if file != held.files[name]]
        if scan or any(files[name].shard for name in touched):
            held.scan(self._tree, state, threads=reader.threads)
        # Then the next use need not scan again. A file just written may still change without a new modification time.
        if note and touched and all(files[name].mtime_ns < now - _SETTLED for name in touched):
            self._write_private(STATE, [msgspec.json.encode(msgspec.structs.replace(held, files=files))])
        state.assume(held.tensor_sums)
        return state

    def open(self, reader: Reader, *, scan: bool = False) -> State | None:
        """The state that the folder holds, mapped read-only; None for a new folder.

        Args:
            reader: of the chain that the folder follows.
            scan: scan every word even where no file's time has changed.

        Raises:
            ConflictError: the folder is no checkout, follows another chain, or is locked.
            WrongBaseError: its files were changed.
        """
        with naming(self.folder), self.locked():
            held = self._recover()
            return None if held is None else self._open(held, reader, scan=scan, writable=False)

    def verify(self, *, threads: int, chain: str | None = None) -> tuple[int, list[TensorDeltaError]]:
        """Scan the whole folder; nothing is changed, and an interrupted pull is not completed.

        Args:
            threads: how many scan at once.
            chain: the id of the chain that the folder must follow.

        Returns:
            The version that the folder holds, and its faults.

        Raises:
            MissingError: no pull made the folder, or none has succeeded yet.
            ConflictError: a pull is in progress, or the folder follows another chain.
            IntegrityError: its state.json is damaged.
        """
        if not self.is_checkout(self.folder):
            raise self._nothing("is no folder that a pull made")
        with naming(self.folder), self._entered(writable=False):
            held = Holding.read(self._private, STATE)
            following = Holding.read(self._private, NEXT)
            if following is not None:
                return following.version, [self._interrupted()]
            if held is None:
                raise self._nothing("holds no version yet")
            if chain is not None and held.chain != chain:
                raise self._conflict(f"follows chain {held.chain}, not {chain}", "Name the folder of that chain.")
            try:
                if self._private.has(UNDO) and is_pending(held, self._private):
                    return held.version, [self._interrupted()]
                held.check_files(self._tree, digests=True)
                held.scan(self._tree, held.state(self._tree, writable=False), threads=threads)
            except TensorDeltaError as fault:
                return held.version, [fault]
            return held.version, []

    def _interrupted(self) -> IntegrityError:
        return IntegrityError(
            "a pull was interrupted here: the folder may have files of two versions",
            object=str(self.folder),
            rule="TD-APP-005",
            advice="Pull again: that first completes or undoes the interrupted pull.",
        )

    def _nothing(self, reason: str) -> MissingError:
        return MissingError(reason, object=str(self.folder), rule="TD-APP-005", advice="Pull a version into it.")

    # -- moving to a version --------------------------------------------------------------------------------------

    def pull(self, reader: Reader, version: int | None = None) -> Pulled:
        """Bring the folder to a version, by default the newest. One that cannot be written to may hold it already.

        Raises:
            ConflictError: the folder is no checkout, follows another chain, or is locked.
            WrongBaseError: its files were changed, or the chain has another version under the same number.
            UntrustedError: keys are configured, and the version is not signed, or is older than what the folder held.
            TensorDeltaError: the version cannot be read; the folder is unchanged.
        """
        started = time.perf_counter()
        with ExitStack() as stack:
            stack.enter_context(naming(self.folder))
            try:
                stack.enter_context(self.locked())
            except OSError as refused:
                if refused.errno not in _READ_ONLY or not self.is_checkout(self.folder):
                    raise
                return self._held_already(reader, version, refused)
            held = self._recover()
            target = reader.target(version)
            reader.documents.admit(target, None if held is None else held.applied)
            state = State.empty() if held is None else self._open(held, reader, scan=False, writable=True)
            manifest = reader.documents.manifest(target)
            if held is not None and held.version == target:
                self._check_same(held, reader, manifest)
                reader.documents.remember(target)
                return Pulled(target, (), 0, time.perf_counter() - started)
            layout = FileLayout.of(reader, manifest)
            staging = Staging(self._private, layout)
            try:
                update = reader.prepare(state, target, allocate=staging.allocate, arena=staging.arena)
                if held is not None and self._in_place(held, update, layout):
                    self._patch(held, update, manifest)
                else:
                    self._replace(held, staging, reader, update, manifest)
                reader.documents.remember(target)
            finally:
                if not self._private.has(NEXT):
                    staging.discard()
            return Pulled(target, update.route, update.size, time.perf_counter() - started, update.passed_over)

    def _held_already(self, reader: Reader, version: int | None, refused: OSError) -> Pulled:
        """The result of a pull that has nothing to do, in a folder that this user cannot write to.

        Raises:
            OSError: `refused`, if there is something to do.
        """
        started = time.perf_counter()
        with self._entered(writable=False):
            held = Holding.read(self._private, STATE)
            if held is None or self._is_interrupted(held):
                raise refused
            target = reader.target(version)
            if held.version != target:
                raise refused
            reader.documents.admit(target, held.applied)
            self._open(held, reader, scan=False, writable=False, note=False)
            self._check_same(held, reader, reader.documents.manifest(target))
            reader.documents.remember(target)
            return Pulled(target, (), 0, time.perf_counter() - started)

    def _is_interrupted(self, held: Holding) -> bool:
        return self._private.has(NEXT) or (self._private.has(UNDO) and is_pending(held, self._private))

    def _check_same(self, held: Holding, reader: Reader, manifest: Manifest) -> None:
        """Check that the chain still has the held version under its number."""
        if held.fingerprint != manifest.fingerprint or Layout(held.tensors) != reader.documents.layout(manifest.layout):
            raise WrongBaseError(
                f"holds version {held.version} with fingerprint {held.fingerprint}, "
                f"the chain's has {manifest.fingerprint}",
                object=str(self.folder),
                rule="TD-RDR-003",
                advice="The chain was rewritten under its old id: remove the folder and pull again.",
            )

    def clear(self) -> None:
        """Remove all contents, for a folder that can be rebuilt from the chain."""
        with self.locked():
            for folder, kept in ((self._tree, PRIVATE), (self._private, _LOCK)):
                for name in folder.names():
                    if name != kept:
                        folder.remove(name)

    def _in_place(self, held: Holding, update: Update, layout: FileLayout) -> bool:
        """True where the new version has the same files, and only words differ."""
        headers = {name: checkpoint.shard_header(tensors, METADATA) for name, tensors in layout.shards.items()}
        digests = {file.name: file.sha256 for file in layout.files}
        digests |= {name: hashlib.sha256(header).hexdigest() for name, header in headers.items()}
        return (
            not update.built
            and digests == {name: file.sha256 for name, file in held.files.items()}
            and set(headers) == set(held.shards)
            # A file with a second hard link is also a file elsewhere, which must not change.
            and all(self._tree.status(name).st_nlink == 1 for name in headers)
        )

    def _patch(self, held: Holding, update: Update, manifest: Manifest) -> None:
        """Patch the words in place: write the undo record, then the words, then state.json."""
        head = UndoHead.of(update, held, self._tree)
        for name in sorted(head.files):
            with self._tree.open(name, writable=True) as file:
                fill_holes(file)
        self._write_private(UNDO, undo_record(head, update))
        update.apply()
        files = dict(held.files)
        for name in sorted(head.files):
            _, mtime_ns = settle(self._tree, name)
            files[name] = msgspec.structs.replace(files[name], mtime_ns=mtime_ns)
        self._write_private(STATE, [msgspec.json.encode(Holding.after(update, manifest, files))])
        self._private.unlink(UNDO)
        self._private.sync()

    def _replace(
        self, held: Holding | None, staging: Staging, reader: Reader, update: Update, manifest: Manifest
    ) -> None:
        """Build the version's files in next/, then move them over."""
        started = time.perf_counter()
        files = staging.finish(update, reader)
        following = Holding.after(update, manifest, files)
        self._check_way(held, files)
        self._write_private(NEXT, [msgspec.json.encode(following)])
        self._move_over(following)
        emit(Event("applied", update.version, update.size, time.perf_counter() - started), reader.listener)


def _folders_of(name: str) -> list[str]:
    """The parents of a file, from the checkout's own folder, whose name is empty, downwards."""
    return ["", *(str(each) for each in reversed(PurePosixPath(name).parents[:-1]))]
