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

A folder that another program wrote to is refused, since its owner may want what was written. Where bits were lost and
no program wrote, the version is made anew.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import stat
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ..errors import ConflictError, IntegrityError, MissingError, StoreError, TensorDeltaError, WrongBaseError
from ..events import Event, emit
from ..format.manifest import Manifest
from ..progress import Phase, phase
from ..read.reader import Reader
from ..state.state import State
from ..state.update import Update
from ..stores.anchored import REMOVED, Folder
from ..stores.folder import naming
from ..threads import Lock
from .examination import Examination, Scan, examine
from .foreign import check_all_own, drop_foreign
from .making import LOCK, lock, made
from .moving import PRIVATE, check_following, check_way, conflict, in_the_way, move_files
from .others import left_alone
from .proof import check_unchanged, damage, note_own
from .record import NEXT, STATE, Holding
from .shards import UnsteadyError, altered, mapped_words, state_of
from .staging import STAGED, FileLayout, Staging, settle
from .undo import UNDO, UndoHead, is_pending, undo_record, write_back

_LOG = logging.getLogger("tensordelta")

#: The rule that shows a listed word of the base to be another than it was.
_WRONG_RESULT = "TD-CHK-024"
#: Errors of a file system that cannot be written to by this user.
_READ_ONLY = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
#: Nanoseconds after which a later write gives a file other times.
_SETTLED = 2_000_000_000
#: Process, device and inode of each folder whose words this process has scanned or written.
_KNOWN: set[tuple[int, int, int]] = set()


@dataclass(frozen=True)
class Pulled:
    """The result of a pull.

    Attributes:
        version: the version that the folder holds now.
        route: names of the manifests and shortcuts that were applied; empty where the folder held the version already.
        size: bytes of their packs.
        seconds: duration.
        scanned: bytes of the words that were there before and were compared with the version held.
        repaired: what was wrong in the folder although no program had written to it, file by file; or why nothing in it
            counted. The whole version was made anew then.
        passed_over: the faults of edges that failed, so that another route was taken; each names its object.
        left_alone: names of files that a loader may take although no pull made them, such as an adapter.
    """

    version: int
    route: tuple[str, ...]
    size: int
    seconds: float
    scanned: int = 0
    repaired: tuple[str, ...] = ()
    passed_over: tuple[TensorDeltaError | StoreError, ...] = ()
    left_alone: tuple[str, ...] = ()


class Checkout:
    """A folder that holds one version of a chain.

    Threads and processes may open the same folder; one at a time can work on it, others get a `ConflictError`.

    Args:
        folder: its path; it may not exist yet.
        own: it belongs to a cache, whose words are trusted where their sums agree: a folder, or anything in it, that
            another user has made or could change is refused, with an error that names the folder.
    """

    def __init__(self, folder: str | os.PathLike[str], *, own: bool = False) -> None:
        self.folder = Path(folder)
        self._own = own
        self._using = Lock()
        self._owner: tuple[int, int] | None = None  # the process and thread that hold the lock
        self._tree: Folder  # both are set while the lock is held
        self._private: Folder
        self._written = ""  # digest of the record that was written last

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
            if self._own:
                drop_foreign(self.folder)
            with self._entered(writable=True):
                self._owner = caller
                try:
                    yield
                finally:
                    self._owner = None
        finally:
            self._using.release()

    @contextmanager
    def _entered(self, *, writable: bool) -> Iterator[None]:
        """Open the folder and lock it: exclusively, or shared with other readers. To be written to, it is made.

        All that follows uses these descriptors: who can write to a folder above may exchange it at any moment.
        """
        with ExitStack() as stack:
            self._tree = stack.enter_context(
                made(self.folder, 0o755 if self._own else 0o777) if writable else Folder(self.folder)
            )
            try:
                self._private = stack.enter_context(self._tree.folder(PRIVATE))
            except NotADirectoryError:
                raise in_the_way(self.folder, PRIVATE) from None
            stack.enter_context(lock(self._tree, self._private, exclusive=writable))
            yield

    def _conflict(self, reason: str, advice: str) -> ConflictError:
        return conflict(self.folder, reason, advice)

    def _write_private(self, name: str, parts: Iterable[bytes | memoryview]) -> None:
        temporary = f"{name}.tmp"
        with self._private.create(temporary) as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        self._private.replace(temporary, name)
        self._private.sync()

    def _write_record(self, name: str, held: Holding) -> None:
        data = held.encode(self._private, name)
        self._write_private(name, [data])
        self._written = hashlib.sha256(data).hexdigest()

    # -- recovery -------------------------------------------------------------------------------------------------

    def _recover(self) -> Holding | None:
        """Complete or undo an interrupted pull.

        Raises:
            ConflictError: another user began it, or could have changed its files.
            IntegrityError: its files are not as a pull leaves them.
        """
        if self._own:
            check_all_own(self._tree)
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

    def _move_over(self, following: Holding, *, built_now: bool = False) -> None:
        """Move the files of next/ into place, each by a rename; after a crash it can be repeated, and does the rest.

        A rename gives a file another change time. It is recorded only of files that were `built_now`, so that all
        others are scanned.
        """
        before = Holding.read(self._private, STATE)
        check_following(self._tree, following)
        staged = [name for name in following.files if self._tree.has(f"{PRIVATE}/{STAGED}/{name}")]
        # After a loss of power a file may be in both places.
        check_way(self._tree, before, (name for name in staged if not self._tree.is_file(name)))
        move_files(self._tree, before, following, staged)
        if built_now:
            moved = {name: file.moved(self._tree.status(name)) for name, file in following.files.items()}
            following = msgspec.structs.replace(following, files=moved)
        self._write_record(STATE, following)
        self._private.unlink(NEXT)
        self._private.sync()

    # -- opening --------------------------------------------------------------------------------------------------

    def _examine(self, held: Holding, reader: Reader, scan: Scan | None, *, note: bool = True) -> Examination:
        """Examine the folder, and note the present times and inodes of files that are as they were pulled.

        Raises:
            ConflictError: it follows another chain.
            WrongBaseError: its files were changed by another program.
        """
        if held.chain != reader.chain:
            raise self._conflict(
                f"follows chain {held.chain}, not {reader.chain}", "Pull each chain into a folder of its own."
            )
        now = time.time_ns()
        found = examine(held, self._tree, scan, threads=reader.threads)
        # A program that writes to a file gives it another time; a disk that loses a bit, or a copy that does, keeps it.
        written = {name for name, file in held.files.items() if found.files[name].mtime_ns != file.mtime_ns}
        # Without headers it is not known what was written to a shard.
        found.refuse(self._tree, written if found.places or not written & {*held.shards} else None)
        if found.altered:
            return found
        touched = [file for name, file in found.files.items() if file != held.files[name]]
        # Then the next use need not scan again. A file just written may still change without another time.
        if note and touched and all(file.changed_ns < now - _SETTLED for file in touched):
            found.held = msgspec.structs.replace(held, files=found.files)
            self._write_record(STATE, found.held)
        if scan is not None:
            _KNOWN.add(self._identity())
        return found

    def _identity(self) -> tuple[int, int, int]:
        status = self._tree.status()
        return os.getpid(), status.st_dev, status.st_ino

    def open(self, reader: Reader, *, scan: bool | Scan = False) -> State | None:
        """The state that the folder holds, mapped read-only; None for a new folder.

        As with any mapped file, a program that truncates one while the state is in use ends this process.

        Args:
            reader: of the chain that the folder follows.
            scan: scan every word even where the file system shows no change, or as many as a `Scan` says.

        Raises:
            ConflictError: the folder is no checkout, follows another chain, or is locked.
            WrongBaseError: its files were changed.
        """
        with naming(self.folder), self.locked(), self._steady():
            held = self._recover()
            if held is None:
                return None
            found = self._examine(held, reader, Scan() if scan is True else scan or None)
            found.refuse(self._tree)
            return state_of(found.held, mapped_words(found.held, self._tree, found.places))

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
                with self._steady():
                    examine(held, self._tree, Scan(), threads=threads).refuse(self._tree)
            except TensorDeltaError as fault:
                return held.version, [fault]
            return held.version, []

    def left_alone(self) -> tuple[str, ...]:
        """Names of the files that a loader may take although no pull made them, such as an adapter.

        Raises:
            IntegrityError: its state.json is damaged.
        """
        with naming(self.folder), self._entered(writable=False):
            records = [Holding.read(self._private, name) for name in (STATE, NEXT)]
            return left_alone(self._tree, (name for each in records if each is not None for name in each.files))

    @contextmanager
    def _steady(self) -> Iterator[None]:
        """Report a file that another process changed in the block."""
        try:
            yield
        except UnsteadyError as fault:
            raise altered(self._tree, str(fault)) from None

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

    def pull(self, reader: Reader, version: int | None = None, *, scan: bool | None = None) -> Pulled:
        """Bring the folder to a version, by default the newest. One that cannot be written to may hold it already.

        Where words are not those of the version held although no program wrote to their file, since a disk or a copy
        lost them, the whole version is made anew: see `Pulled.repaired`. So it is where the folder's record has other
        files than the chain; and, with trusted keys, where the last pull of this user with keys did not leave the
        folder as it is, since its words may be others with the same fingerprints (SPEC.md section 18).

        Args:
            reader: of the chain.
            version: the version.
            scan: read every word that the folder holds first, and compare it with the version held. By default the
                first pull of a process into a folder reads 4 GiB of them, and as much more as half a minute allows.
                Words of a file are read in any case where the file system shows that it may have changed.

        Raises:
            ConflictError: the folder is no checkout, follows another chain, or is locked.
            WrongBaseError: its files were changed, or the chain has another version under the same number.
            UntrustedError: keys are configured, and the version is not signed, or is older than what the folder held.
            TensorDeltaError: the version cannot be read; the folder is unchanged.
        """
        started = time.perf_counter()
        with ExitStack() as stack:
            stack.enter_context(phase("looking at what is held"))
            stack.enter_context(naming(self.folder))
            try:
                stack.enter_context(self.locked())
            except OSError as refused:
                if refused.errno not in _READ_ONLY or not self.is_checkout(self.folder):
                    raise
                return self._held_already(reader, version, scan, refused)
            stack.enter_context(self._steady())
            held = self._recover()
            target = reader.target(version, None if held is None else held.version)
            reader.documents.admit(target, None if held is None else held.applied)
            base = None if held is None else self._examine(held, reader, self._scan(scan))
            scanned = 0 if base is None else base.scanned
            manifest = reader.documents.manifest(target)
            repaired = () if held is None or base is None else self._damage(held, base, reader, manifest)
            if held is not None and held.version == target and not repaired:
                reader.documents.remember(target)
                others = left_alone(self._tree, held.files)
                return Pulled(target, (), 0, time.perf_counter() - started, scanned, left_alone=others)
            if repaired:
                base = None
            state = State.empty() if base is None else base.state(self._tree)
            layout = FileLayout.of(reader, manifest)
            staging = Staging(self._private, layout, reader.disk)
            try:
                try:
                    update = reader.prepare(state, target, allocate=staging.allocate, arena=staging.arena)
                except WrongBaseError as fault:
                    if base is None or scan or fault.rule != _WRONG_RESULT:
                        raise
                    _LOG.warning("%s is read in full: %s", self.folder, fault)
                    return self.pull(reader, target, scan=True)  # a listed word was lost since the last scan
                if base is not None and self._in_place(base.held, update, layout):
                    self._patch(base, update, reader, manifest)
                else:
                    self._replace(held, staging, reader, update, manifest)
                note_own(self._written, reader, self._private)
                reader.documents.remember(target)
                _KNOWN.add(self._identity())
            finally:
                if not self._private.has(NEXT):
                    staging.discard()
            seconds = time.perf_counter() - started
            others = left_alone(self._tree, layout.digests)
            return Pulled(target, update.route, update.size, seconds, scanned, repaired, update.passed_over, others)

    def _held_already(self, reader: Reader, version: int | None, scan: bool | None, refused: OSError) -> Pulled:
        """The result of a pull that has nothing to do, in a folder that this user cannot write to.

        Raises:
            OSError: `refused`, if there is something to do.
            WrongBaseError: its files were changed, or have lost words.
            UntrustedError: there are trusted keys, and no pull of this user with keys left the folder so.
        """
        started = time.perf_counter()
        with self._entered(writable=False), self._steady():
            held = Holding.read(self._private, STATE)
            if held is None or self._is_interrupted(held):
                raise refused
            target = reader.target(version, held.version)
            if held.version != target:
                raise refused
            reader.documents.admit(target, held.applied)
            found = self._examine(held, reader, self._scan(scan), note=False)
            check_unchanged(held, found, reader, reader.documents.manifest(target), (self._tree, self._private))
            reader.documents.remember(target)
            others = left_alone(self._tree, held.files)
            return Pulled(target, (), 0, time.perf_counter() - started, found.scanned, left_alone=others)

    def _is_interrupted(self, held: Holding) -> bool:
        return self._private.has(NEXT) or (self._private.has(UNDO) and is_pending(held, self._private))

    def _scan(self, wanted: bool | None) -> Scan | None:
        """What a pull scans."""
        if wanted is None:
            return None if self._identity() in _KNOWN else Scan.brief()
        return Scan() if wanted else None

    def _damage(self, held: Holding, found: Examination, reader: Reader, manifest: Manifest) -> tuple[str, ...]:
        """Why the version has to be made anew although no program wrote to the folder's files; see `damage`."""
        reasons = damage(held, found, reader, manifest, (self._tree, self._private))
        if reasons:
            _LOG.warning("%s is rebuilt: %s", self.folder, "; ".join(reasons))
        return tuple(reasons)

    def clear(self) -> None:
        """Remove all contents, for a folder that can be rebuilt from the chain."""
        with self.locked():
            for folder, kept in ((self._tree, PRIVATE), (self._private, LOCK)):
                for name in folder.names():
                    if name != kept:
                        folder.remove(name)

    def _in_place(self, held: Holding, update: Update, layout: FileLayout) -> bool:
        """True where the new version has the same files, and only words differ."""
        return (
            not update.built
            and layout.digests == {name: file.sha256 for name, file in held.files.items()}
            and set(layout.shards) == set(held.shards)
            # A file with a second hard link is also a file elsewhere, which must not change.
            and all(self._tree.status(name).st_nlink == 1 for name in layout.shards)
        )

    def _patch(self, base: Examination, update: Update, reader: Reader, manifest: Manifest) -> None:
        """Patch the words in place: write the undo record, then the words, then state.json."""
        started = time.perf_counter()
        held, places = base.held, base.places
        head = UndoHead.of(update, held, places)
        reader.disk.check(head.size, self._private.path, object="the undo record")
        self._write_private(UNDO, undo_record(head, update))
        try:
            size = sum(piece.new.nbytes for piece in update.runs())
            with phase("patching files", size) as work:
                self._write_words(base, update, work)
            files = dict(held.files)
            for name in sorted(head.files):
                files[name] = files[name].seen(settle(self._tree, name))
        except BaseException:
            with suppress(OSError, TensorDeltaError):  # else the next use does it
                write_back(held, self._tree, self._private)
            raise
        self._write_record(STATE, Holding.after(update, manifest, files))
        self._private.unlink(UNDO)
        self._private.sync()
        emit(Event("applied", update.version, update.size, time.perf_counter() - started), reader.listener)

    def _write_words(self, base: Examination, update: Update, work: Phase) -> None:
        words = base.words(self._tree)
        for piece in update.runs():
            where = slice(piece.start, piece.stop) if piece.indices is None else piece.indices
            words[piece.tensor].put(where, piece.new)
            work.add(piece.new.nbytes)

    def _replace(
        self, held: Holding | None, staging: Staging, reader: Reader, update: Update, manifest: Manifest
    ) -> None:
        """Build the version's files in next/, then move them over."""
        started = time.perf_counter()
        files = staging.finish(update, reader)
        following = Holding.after(update, manifest, files)
        check_way(self._tree, held, files)
        self._write_record(NEXT, following)
        self._move_over(following, built_now=True)
        emit(Event("applied", update.version, update.size, time.perf_counter() - started), reader.listener)
