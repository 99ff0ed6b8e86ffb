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
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import msgspec

from . import checkpoint
from .errors import ConflictError, MissingError, TensorDeltaError, WrongBaseError
from .events import Event, emit
from .holding import STATE, HeldFile, Holding
from .layout import Layout
from .manifest import Manifest
from .reader import Reader
from .staging import METADATA, Plan, Staging, sync_file
from .state import State
from .stores import sync_folder
from .undo import UNDO, UndoHead, undo_record, write_back
from .update import Update

PRIVATE = ".tensordelta"
_NEXT = "next.json"
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
        self._private = self.folder / PRIVATE
        self._locks = 0

    @staticmethod
    def is_checkout(folder: str | os.PathLike[str]) -> bool:
        """True if the folder is a checkout, a damaged one included."""
        return Path(folder, PRIVATE).is_dir()

    # -- what is there --------------------------------------------------------------------------------------------

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Own the folder: one process works on it at a time. Whoever owns it may own it once more.

        Raises:
            ConflictError: no checkout, or in use.
        """
        if self._locks:
            yield
            return
        if not self._private.is_dir():
            if self.folder.exists() and not self.folder.is_dir():
                raise self._conflict("is a file", "Name a folder.")
            if self.folder.is_dir() and any(each != self._private for each in self.folder.iterdir()):
                raise self._conflict(
                    "has contents, but no pull made them", "Name an empty folder, or one that does not exist."
                )
            made = [self._private, *(each for each in (self.folder, *self.folder.parents) if not each.exists())]
            self._private.mkdir(parents=True, exist_ok=True)
            for each in made:
                sync_folder(each.parent)
        if self._private.is_symlink():
            raise self._in_the_way(PRIVATE)
        descriptor = os.open(self._private / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        with os.fdopen(descriptor, "r+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise self._conflict("another process is working on it", "Wait for it to end.") from None
            self._locks += 1
            try:
                yield
            finally:
                self._locks -= 1

    def _conflict(self, reason: str, advice: str) -> ConflictError:
        return ConflictError(reason, object=str(self.folder), rule="TD-APP-005", advice=advice)

    def _write_private(self, name: str, parts: Iterable[bytes | memoryview]) -> None:
        temporary = self._private / f"{name}.tmp"
        with temporary.open("wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self._private / name)
        sync_folder(self._private)

    # -- recovery -------------------------------------------------------------------------------------------------

    def _recover(self) -> Holding | None:
        """Finish or take back what a dead process began."""
        following = Holding.read(self._private / _NEXT)
        if following is not None:
            self._move_over(following)
        held = Holding.read(self._private / STATE)
        undo = self._private / UNDO
        if undo.exists():
            if held is not None:
                write_back(undo, held, self.folder)
            undo.unlink()
            sync_folder(self._private)
        Staging.discard_folder(self._private / "next")
        for name in (_NEXT, STATE, UNDO):
            (self._private / f"{name}.tmp").unlink(missing_ok=True)
        return held

    def _move_over(self, following: Holding) -> None:
        """Move the files of next/ into place, each by a rename; repeated after a crash, it does what is left."""
        before = Holding.read(self._private / STATE)
        touched: set[Path] = set()
        for name in before.files if before else ():
            if name not in following.files:
                touched.add(self._remove(name))
        for name in following.files:
            source, target = self._private / "next" / name, self.folder / name
            if source.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                _remove_empty(target)
                os.replace(source, target)
            touched.update(self._folders_of(name))
        for folder in sorted(touched, reverse=True):
            if folder.is_dir():  # else another removal took it
                sync_folder(folder)
        self._write_private(STATE, [msgspec.json.encode(following)])
        (self._private / _NEXT).unlink()
        sync_folder(self._private)

    def _folders_of(self, name: str) -> list[Path]:
        """The folders that a file lies in, from the checkout's own downwards."""
        return [self.folder / each for each in reversed(PurePosixPath(name).parents)]

    def _remove(self, name: str) -> Path:
        """Remove a file of the version before, and folders that are empty then; gives the folder that changed."""
        # After a crash a new folder or file may have the place of the old one already.
        if not (self.folder / name).is_dir():
            with suppress(FileNotFoundError, NotADirectoryError):
                (self.folder / name).unlink()
        *_, parent = folders = self._folders_of(name)
        for folder in reversed(folders[1:]):
            try:
                folder.rmdir()
            except OSError:
                break
            parent = folder.parent
        return parent

    def _check_way(self, before: Holding | None, names: Iterable[str]) -> None:
        """Refuse to move files to where others lie that no pull made."""
        ours = set(before.files) if before else set()
        for name in names:
            for folder in self._folders_of(name)[1:]:
                if folder.is_symlink():  # what lies behind it is not the checkout's
                    raise self._in_the_way(folder.relative_to(self.folder).as_posix())
            if name in ours:
                continue
            for folder in self._folders_of(name)[1:]:
                relative = folder.relative_to(self.folder).as_posix()
                if os.path.lexists(folder) and not folder.is_dir() and relative not in ours:
                    raise self._in_the_way(relative)
            target = self.folder / name
            if not target.is_dir() or target.is_symlink():
                if os.path.lexists(target):
                    raise self._in_the_way(name)
                continue
            for root, folders, files in os.walk(target):
                links = [each for each in folders if Path(root, each).is_symlink()]
                for each in (*links, *files):
                    if Path(root, each).relative_to(self.folder).as_posix() not in ours:
                        raise self._in_the_way(name)

    def _in_the_way(self, name: str) -> ConflictError:
        return self._conflict(f"{name} is in the way, and no pull made it", "Move it elsewhere and pull again.")

    # -- opening --------------------------------------------------------------------------------------------------

    def _open(self, held: Holding, reader: Reader, *, scan: bool, writable: bool) -> State:
        if held.chain != reader.chain:
            raise self._conflict(
                f"follows chain {held.chain}, not {reader.chain}", "Pull each chain into a folder of its own."
            )
        now = time.time_ns()
        files = held.check_files(self.folder, digests=False)
        state = held.state(self.folder, writable=writable)
        touched = [name for name, file in files.items() if file != held.files[name]]
        if scan or any(files[name].shard for name in touched):
            held.scan(self.folder, state, threads=reader.threads)
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
        """Scan the folder in full.

        Returns:
            The version it holds, and what is wrong with it.

        Raises:
            MissingError: no pull made the folder, or none came to an end.
        """
        if not self.is_checkout(self.folder):
            raise self._nothing("is no folder that a pull made")
        with self.locked():
            held = self._recover()
            if held is None:
                raise self._nothing("holds no version yet")
            try:
                held.check_files(self.folder, digests=True)
                held.scan(self.folder, held.state(self.folder, writable=False), threads=threads)
            except TensorDeltaError as fault:
                return held.version, [fault]
            return held.version, []

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
            reader.admit(target, None if held is None else held.applied)
            state = State.empty() if held is None else self._open(held, reader, scan=False, writable=True)
            manifest = reader.manifest(target)
            if held is not None and held.version == target:
                self._check_same(held, reader, manifest)
                reader.remember(target)
                return Pulled(target, (), 0, time.perf_counter() - started)
            plan = Plan.of(reader, manifest)
            staging = Staging(self._private / "next", plan)
            try:
                update = reader.prepare(state, target, allocate=staging.allocate, arena=staging.arena)
                if held is not None and self._in_place(held, update, plan):
                    self._patch(held, update, manifest)
                else:
                    self._replace(held, staging, reader, update, manifest)
                reader.remember(target)
            finally:
                if not (self._private / _NEXT).exists():
                    staging.discard()
            return Pulled(target, update.route, update.size, time.perf_counter() - started)

    def _check_same(self, held: Holding, reader: Reader, manifest: Manifest) -> None:
        """Check that the version held is the one that the chain has under that number."""
        if held.fingerprint != manifest.fingerprint or Layout(held.tensors) != reader.layout(manifest.layout):
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
            for folder in (self.folder, self._private):
                for path in folder.iterdir():
                    if path.is_dir() and not path.is_symlink():
                        if path != self._private:
                            shutil.rmtree(path)
                    elif path != self._private / _LOCK:
                        path.unlink()

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
            and all((self.folder / name).stat().st_nlink == 1 for name in headers)
        )

    def _patch(self, held: Holding, update: Update, manifest: Manifest) -> None:
        """Patch the words in place: undo record, words, state.json."""
        head = UndoHead.of(update, held, self.folder)
        self._write_private(UNDO, undo_record(head, update))
        update.apply()
        files = dict(held.files)
        for name in sorted(head.files):
            sync_file(self.folder / name)
            now = time.time_ns()
            os.utime(self.folder / name, ns=(now, now))
            files[name] = msgspec.structs.replace(files[name], mtime_ns=(self.folder / name).stat().st_mtime_ns)
        self._write_private(STATE, [msgspec.json.encode(Holding.after(update, manifest, files))])
        (self._private / UNDO).unlink()
        sync_folder(self._private)

    def _replace(
        self, held: Holding | None, staging: Staging, reader: Reader, update: Update, manifest: Manifest
    ) -> None:
        """Build the version's files in next/, then move them over."""
        started = time.perf_counter()
        files = {name: HeldFile(*each) for name, each in staging.finish(update, reader).items()}
        following = Holding.after(update, manifest, files)
        self._check_way(held, files)
        self._write_private(_NEXT, [msgspec.json.encode(following)])
        self._move_over(following)
        emit(Event("applied", update.version, update.size, time.perf_counter() - started), reader.listener)


def _remove_empty(folder: Path) -> None:
    """Remove a folder in which there is no file; nothing is done to what is no folder."""
    if folder.is_dir() and not folder.is_symlink():
        for each, _, _ in os.walk(folder, topdown=False):
            Path(each).rmdir()
