"""Checkouts: a version kept in a folder that an engine can load (SPEC.md section 9.3, for states held on disk).

A checkout is a checkpoint folder with a private folder beside its files:

    .tensordelta/state.json    what the folder holds; moves by an atomic rename
    .tensordelta/undo          the old words of a patch under way
    .tensordelta/next/         files of a version under way, where patching in place is not enough
    .tensordelta/next.json     the decision to move to them

Whatever instant the process dies at, the next one finds either the old version or the new one:

- A patch in place makes the old words durable first. Until state.json moves, they are written back; after that, the
  record is litter.
- Other changes are built in next/. Until next.json appears, next/ is litter; after that, the files are moved over.

These files may come from others, with an archive or over a shared disk. They are read as strictly as objects of a
store, everything is opened below the folder's own descriptor and through no link, and recovery happens only in a folder
of this user.
"""

from __future__ import annotations

import fcntl
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

from ..errors import ConflictError, IntegrityError, MissingError, TensorDeltaError, WrongBaseError
from ..events import Event, emit
from ..format.layout import Layout
from ..format.manifest import Manifest
from ..read.reader import Reader
from ..state import checkpoint
from ..state.state import State
from ..state.update import Update
from ..stores import sync_folder
from .anchored import Folder, IrregularError
from .record import NEXT, STATE, HeldFile, Holding, garbled
from .staging import METADATA, STAGED, Plan, Staging, settle
from .undo import UNDO, UndoHead, is_pending, undo_record, write_back

PRIVATE = ".tensordelta"
_LOCK = "lock"
#: Nanoseconds after which a file's time tells whether it was written again.
_SETTLED = 2_000_000_000


@dataclass(frozen=True)
class Pulled:
    """What a pull did.

    Attributes:
        version: the version that the folder holds now.
        route: names of the manifests and shortcuts that were taken; empty where nothing was to do.
        size: bytes of their packs.
        seconds: how long it took.
    """

    version: int
    route: tuple[str, ...]
    size: int
    seconds: float


class Checkout:
    """A folder that holds one version of a chain.

    Args:
        folder: where it is, or will be.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._using = threading.Lock()
        self._owner: int | None = None  # the thread that works on the folder
        self._tree: Folder  # both are there while it does
        self._private: Folder

    @staticmethod
    def is_checkout(folder: str | os.PathLike[str]) -> bool:
        """True if the folder is a checkout, a damaged one included."""
        return Path(folder, PRIVATE).is_dir()

    # -- what is there --------------------------------------------------------------------------------------------

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Own the folder: one thread of one process works on it at a time, and may enter again.

        Raises:
            ConflictError: no checkout, or in use.
        """
        if self._owner == threading.get_ident():
            yield
            return
        if not self._using.acquire(blocking=False):
            raise self._conflict("another thread is working on it", "Wait for it to end.")
        try:
            if not os.path.lexists(self.folder / PRIVATE):
                self._make()
            with self._entered(writable=True):
                self._owner = threading.get_ident()
                try:
                    yield
                finally:
                    self._owner = None
        finally:
            self._using.release()

    def _make(self) -> None:
        if self.folder.exists() and not self.folder.is_dir():
            raise self._conflict("is a file", "Name a folder.")
        if self.folder.is_dir() and any(self.folder.iterdir()):
            raise self._conflict(
                "has contents, but no pull made them", "Name an empty folder, or one that does not exist."
            )
        made = [self.folder / PRIVATE, *(each for each in (self.folder, *self.folder.parents) if not each.exists())]
        self.folder.mkdir(parents=True, exist_ok=True)
        # Nobody else may write to it: what is recovered after a crash is done on the word of its files.
        (self.folder / PRIVATE).mkdir(mode=0o755, exist_ok=True)
        for each in made:
            sync_folder(each.parent)

    @contextmanager
    def _entered(self, *, writable: bool) -> Iterator[None]:
        """Hold the folder open, and its lock: exclusively, or shared with others that only read."""
        with ExitStack() as stack:
            self._tree = stack.enter_context(Folder(self.folder))
            try:
                self._private = stack.enter_context(self._tree.folder(PRIVATE))
            except NotADirectoryError:
                raise self._in_the_way(PRIVATE) from None
            self._lock(stack, exclusive=writable)
            yield

    def _lock(self, stack: ExitStack, *, exclusive: bool) -> None:
        try:
            lock = stack.enter_context(self._private.open_or_create(_LOCK) if exclusive else self._private.open(_LOCK))
            fcntl.flock(lock, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except FileNotFoundError:  # only in a copy without it, on which no pull works
            return
        except IrregularError as fault:
            raise garbled(self._private.path / _LOCK, str(fault.strerror)) from None
        except BlockingIOError:
            raise self._conflict("another process is working on it", "Wait for it to end.") from None

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
        """Finish or take back what a dead process began.

        Raises:
            ConflictError: another user began it, or could have.
            IntegrityError: it is not as a pull leaves it.
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
        self._private.remove(STAGED)
        for name in (NEXT, STATE, UNDO):
            self._private.unlink(f"{name}.tmp")
        return held

    def _check_owner(self) -> None:
        """Check that what a pull began here is this user's to finish: it moves files and writes words.

        Raises:
            ConflictError: it is not.
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
        """Check that every file of a version under way is there, built or moved already, and a file of its own.

        Raises:
            IntegrityError: one is not.
        """
        for name, file in following.files.items():
            place = staged if self._tree.has(staged := f"{PRIVATE}/{STAGED}/{name}") else name
            if not self._tree.is_file(place) or self._tree.status(place).st_size != file.size:
                raise garbled(self._private.path / NEXT, f"names {name!r}, which is not there as it was built")

    def _move_over(self, following: Holding) -> None:
        """Move the files of next/ into place, each by a rename; repeated after a crash, it does what is left."""
        before = Holding.read(self._private, STATE)
        self._check_following(following)
        staged = [name for name in following.files if self._tree.has(f"{PRIVATE}/{STAGED}/{name}")]
        # After a loss of power a file may stand in both places.
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
            if not folder or self._tree.is_folder(folder):  # else another removal took it
                self._tree.sync(folder)
        self._write_private(STATE, [msgspec.json.encode(following)])
        self._private.unlink(NEXT)
        self._private.sync()

    def _remove(self, name: str) -> str:
        """Remove a file of the version before, and folders that are empty then; gives the folder that changed."""
        # After a crash a new folder or file may have the place of the old one already.
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
        """Remove a folder in which there is no file; nothing is done to what is no folder."""
        if self._tree.is_folder(name):
            for each in [*(each for each, _ in self._tree.walk(name)), name]:
                self._tree.rmdir(each)

    def _check_way(self, before: Holding | None, names: Iterable[str]) -> None:
        """Refuse to move files to where others lie that no pull made.

        Raises:
            ConflictError: a file, or a link, is there.
        """
        ours = set(before.files) if before else set()
        for name in names:
            for folder in _folders_of(name)[1:]:
                if self._tree.has(folder) and not self._tree.is_folder(folder):
                    if folder in ours and self._tree.is_file(folder):
                        break  # it goes before the folder comes
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

    def _open(self, held: Holding, reader: Reader, *, scan: bool, writable: bool) -> State:
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
        # So that the next use need not scan again; a file of this very moment may change once more within its time.
        if touched and all(files[name].mtime_ns < now - _SETTLED for name in touched):
            self._write_private(STATE, [msgspec.json.encode(msgspec.structs.replace(held, files=files))])
        state.assume(held.tensor_sums)
        return state

    def open(self, reader: Reader, *, scan: bool = False) -> State | None:
        """The state that the folder holds, mapped read-only; None where it holds none yet.

        Args:
            reader: of the chain that the folder follows.
            scan: prove every word, whatever the files' times say.

        Raises:
            ConflictError: no checkout, one of another chain, or in use.
            WrongBaseError: someone else changed its files.
        """
        with self.locked():
            held = self._recover()
            return None if held is None else self._open(held, reader, scan=scan, writable=False)

    def verify(self, *, threads: int) -> tuple[int, list[TensorDeltaError]]:
        """Scan the folder in full; nothing is changed, an interrupted pull included.

        Returns:
            The version it holds, and what is wrong with it.

        Raises:
            MissingError: no pull made the folder, or none came to an end.
            ConflictError: a pull is working on it.
            IntegrityError: it does not say what it holds.
        """
        if not self.is_checkout(self.folder):
            raise self._nothing("is no folder that a pull made")
        with self._entered(writable=False):
            held = Holding.read(self._private, STATE)
            following = Holding.read(self._private, NEXT)
            if following is not None:
                return following.version, [self._interrupted()]
            if held is None:
                raise self._nothing("holds no version yet")
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
            "a pull was interrupted here: some files are of the version before, and some of the next",
            object=str(self.folder),
            rule="TD-APP-005",
            advice="Pull again: that first finishes the interrupted pull, or takes it back.",
        )

    def _nothing(self, reason: str) -> MissingError:
        return MissingError(reason, object=str(self.folder), rule="TD-APP-005", advice="Pull a version into it.")

    # -- moving to a version --------------------------------------------------------------------------------------

    def pull(self, reader: Reader, version: int | None = None) -> Pulled:
        """Bring the folder to a version, by default the newest.

        Raises:
            ConflictError: no checkout, one of another chain, or in use.
            WrongBaseError: someone else changed its files, or the chain's version is another one than it was.
            UntrustedError: keys are configured, and the version is not signed, or not one to go to from what the folder
                held before, in whatever process.
            TensorDeltaError: the version cannot be had; the folder is as it was.
        """
        started = time.perf_counter()
        with self.locked():
            held = self._recover()
            target = reader.target(version)
            reader.documents.admit(target, None if held is None else held.applied)
            state = State.empty() if held is None else self._open(held, reader, scan=False, writable=True)
            manifest = reader.documents.manifest(target)
            if held is not None and held.version == target:
                self._check_same(held, reader, manifest)
                reader.documents.remember(target)
                return Pulled(target, (), 0, time.perf_counter() - started)
            plan = Plan.of(reader, manifest)
            staging = Staging(self._private, plan)
            try:
                update = reader.prepare(state, target, allocate=staging.allocate, arena=staging.arena)
                if held is not None and self._in_place(held, update, plan):
                    self._patch(held, update, manifest)
                else:
                    self._replace(held, staging, reader, update, manifest)
                reader.documents.remember(target)
            finally:
                if not self._private.has(NEXT):
                    staging.discard()
            return Pulled(target, update.route, update.size, time.perf_counter() - started)

    def _check_same(self, held: Holding, reader: Reader, manifest: Manifest) -> None:
        """Check that the version held is the one that the chain has under that number."""
        if held.fingerprint != manifest.fingerprint or Layout(held.tensors) != reader.documents.layout(manifest.layout):
            raise WrongBaseError(
                f"holds version {held.version} with fingerprint {held.fingerprint}, "
                f"the chain's has {manifest.fingerprint}",
                object=str(self.folder),
                rule="TD-RDR-003",
                advice="The chain was written anew under its old id: remove the folder and pull again.",
            )

    def clear(self) -> None:
        """Remove all that the folder holds, for a folder that can be made anew."""
        with self.locked():
            for folder, kept in ((self._tree, PRIVATE), (self._private, _LOCK)):
                for name in folder.names():
                    if name != kept:
                        folder.remove(name)

    def _in_place(self, held: Holding, update: Update, plan: Plan) -> bool:
        """True where the new version has the same files, and differs in words alone."""
        headers = {name: checkpoint.shard_header(tensors, METADATA) for name, tensors in plan.shards.items()}
        digests = {file.name: file.sha256 for file in plan.files}
        digests |= {name: hashlib.sha256(header).hexdigest() for name, header in headers.items()}
        return (
            not update.built
            and digests == {name: file.sha256 for name, file in held.files.items()}
            and set(headers) == set(held.shards)
            # A file with a second name is someone's copy, which is to stay as it is.
            and all(self._tree.status(name).st_nlink == 1 for name in headers)
        )

    def _patch(self, held: Holding, update: Update, manifest: Manifest) -> None:
        """Patch the words in place: undo record, words, state.json."""
        head = UndoHead.of(update, held, self._tree)
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
        files = {name: HeldFile(*each) for name, each in staging.finish(update, reader).items()}
        following = Holding.after(update, manifest, files)
        self._check_way(held, files)
        self._write_private(NEXT, [msgspec.json.encode(following)])
        self._move_over(following)
        emit(Event("applied", update.version, update.size, time.perf_counter() - started), reader.listener)


def _folders_of(name: str) -> list[str]:
    """The folders that a file lies in, from the checkout's own, which has no name, downwards."""
    return ["", *(str(each) for each in reversed(PurePosixPath(name).parents[:-1]))]
