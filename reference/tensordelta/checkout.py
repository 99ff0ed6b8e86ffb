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
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta

from . import checkpoint
from .checkpoint import map_words, tensor_words
from .container import Header
from .errors import ConflictError, IntegrityError, MissingError, TensorDeltaError, WrongBaseError
from .events import Event, emit
from .fingerprint import U64, combine, text
from .layout import Layout, Tensor
from .manifest import Manifest
from .objects import ChainId, Sha256, Version, is_path
from .reader import Reader
from .staging import METADATA, Plan, Staging, sync_file
from .state import State
from .stores import sync_folder
from .trust import Applied
from .update import Update
from .words import Words

PRIVATE = ".tensordelta"
_STATE = "state.json"
_NEXT = "next.json"
_UNDO = "undo"
_UNDO_MAGIC = b"tensordelta undo 2\n"
_LOCK = "lock"
#: Bytes of the undo record's digest, which follows the old words.
_DIGEST = 32
_READ = 1 << 22
#: Nanoseconds after which a file's time tells whether it was written again.
_SETTLED = 2_000_000_000

_Count = Annotated[int, Meta(ge=0)]


class _File(msgspec.Struct, frozen=True):
    """A file of the checkout.

    Of a shard, `sha256` is that of the bytes before the words, which the fingerprints do not cover.
    """

    size: _Count
    mtime_ns: int
    sha256: Sha256
    shard: bool = False


class _Held(msgspec.Struct, frozen=True):
    """state.json: which version the folder holds, and how to know that it still does."""

    chain: ChainId
    version: Version
    layout: Sha256
    tensors: list[Tensor]
    sums: str
    files: dict[str, _File]

    def __post_init__(self) -> None:
        """Refuse what no pull writes: a garbled file must not lead out of the folder."""
        try:
            Layout(self.tensors).check(object=_STATE)
        except TensorDeltaError as fault:
            raise ValueError(fault.reason) from None
        if len(bytes.fromhex(self.sums)) != 8 * len(self.tensors):
            raise ValueError("not one sum for each tensor")
        for name in self.files:
            if not is_path(name):
                raise ValueError(f"{name!r} is no name of a file")

    @property
    def tensor_sums(self) -> U64:
        """Fingerprint of each tensor."""
        return np.frombuffer(bytes.fromhex(self.sums), "<u8").astype(np.uint64)

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the state."""
        return text(combine(self.tensor_sums))

    @property
    def applied(self) -> Applied:
        """What a reader of signed chains remembers of the version (SPEC.md section 14)."""
        return Applied(self.chain, self.version, self.layout, self.fingerprint)

    @property
    def shards(self) -> list[str]:
        """Names of the files with tensors."""
        return [name for name, file in self.files.items() if file.shard]


class _Run(msgspec.Struct, frozen=True):
    """A piece of the undo record: which words of which tensor in which file.

    Attributes:
        file, offset: where the tensor's bytes begin.
        words, word: their number, and numpy's name of their type.
        count: number of old words in the record.
        range: first word and the one after the last; None where the record has an index for each.
    """

    file: str
    offset: _Count
    words: _Count
    word: Annotated[str, Meta(pattern=r"^([|]u1|<u[248])\Z")]
    count: _Count
    range: tuple[_Count, _Count] | None


class _UndoHead(msgspec.Struct, frozen=True):
    """The undo record's first part: what the folder held when it was written, and the runs that follow."""

    version: Version
    fingerprint: str
    runs: list[_Run]


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

    def _altered(self, reason: str) -> WrongBaseError:
        return WrongBaseError(
            f"{reason}; someone else changed the folder",
            object=str(self.folder),
            rule="TD-RDR-003",
            advice="Remove the folder and pull again.",
        )

    def _garbled(self, name: str, reason: str) -> IntegrityError:
        return IntegrityError(
            reason,
            object=str(self._private / name),
            rule="TD-APP-005",
            advice="Someone changed it: remove the folder and pull again.",
        )

    def _read_private(self, name: str) -> _Held | None:
        try:
            return msgspec.json.decode((self._private / name).read_bytes(), type=_Held)
        except FileNotFoundError:
            return None
        except (msgspec.DecodeError, UnicodeDecodeError) as fault:
            raise self._garbled(name, f"does not say what the folder holds: {fault}") from None

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

    def _recover(self) -> _Held | None:
        """Finish or take back what a dead process began."""
        following = self._read_private(_NEXT)
        if following is not None:
            self._move_over(following)
        held = self._read_private(_STATE)
        undo = self._private / _UNDO
        if undo.exists():
            if held is not None:
                self._write_back(undo, held)
            undo.unlink()
            sync_folder(self._private)
        Staging.discard_folder(self._private / "next")
        for name in (_NEXT, _STATE, _UNDO):
            (self._private / f"{name}.tmp").unlink(missing_ok=True)
        return held

    def _write_back(self, undo: Path, held: _Held) -> None:
        """Write the old words back, unless the new version was reached.

        The files' times stay those of the crash, so that the next use proves every word by a scan.
        """
        head, start = self._read_undo(undo)
        if (head.version, head.fingerprint) != (held.version, held.fingerprint):
            return
        for name in {run.file for run in head.runs}:
            if name not in held.files:
                raise self._garbled(_UNDO, f"names the file {name!r}")
            self._check_file(name, held.files[name])
        with undo.open("rb") as file:
            file.seek(start)
            for run in head.runs:
                mapped = map_words(self.folder / run.file, writable=True)
                word = np.dtype(run.word)
                words = mapped[run.offset : run.offset + run.words * word.itemsize].view(word)
                if run.range is not None:
                    first, stop = run.range
                    words[first:stop] = np.frombuffer(file.read(run.count * word.itemsize), word)
                else:
                    indices = np.frombuffer(file.read(run.count * 8), np.int64)
                    words[indices] = np.frombuffer(file.read(run.count * word.itemsize), word)
                del words, mapped
        for name in {run.file for run in head.runs}:
            sync_file(self.folder / name)

    def _read_undo(self, undo: Path) -> tuple[_UndoHead, int]:
        """The undo record's head and where its words begin; no word is written before the whole record is proven."""
        digest = hashlib.sha256()
        with undo.open("rb") as file:
            left = os.fstat(file.fileno()).st_size - _DIGEST
            if file.readline(len(_UNDO_MAGIC)) != _UNDO_MAGIC:
                raise self._garbled(_UNDO, "is no undo record")
            line = file.readline()
            start = file.tell()
            file.seek(0)
            while left > 0 and (part := file.read(min(left, _READ))):
                digest.update(part)
                left -= len(part)
            if left or file.read() != digest.digest():
                raise self._garbled(_UNDO, "is no whole undo record")
        try:
            return msgspec.json.decode(line, type=_UndoHead), start
        except (msgspec.DecodeError, UnicodeDecodeError) as fault:
            raise self._garbled(_UNDO, f"does not say what to undo: {fault}") from None

    def _move_over(self, following: _Held) -> None:
        """Move the files of next/ into place, each by a rename; repeated after a crash, it does what is left."""
        before = self._read_private(_STATE)
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
        self._write_private(_STATE, [msgspec.json.encode(following)])
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

    def _check_way(self, before: _Held | None, names: Iterable[str]) -> None:
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

    # -- the words ------------------------------------------------------------------------------------------------

    def _open(self, held: _Held, reader: Reader, *, scan: bool, writable: bool) -> State:
        if held.chain != reader.chain:
            raise self._conflict(
                f"follows chain {held.chain}, not {reader.chain}", "Pull each chain into a folder of its own."
            )
        now = time.time_ns()
        files = self._check_files(held, digests=False)
        state = self._state(held, writable=writable)
        touched = [name for name, file in files.items() if file != held.files[name]]
        if scan or any(files[name].shard for name in touched):
            self._scan(held, state, threads=reader.threads)
        # So that the next use need not scan again; a file of this very moment may change once more within its time.
        if touched and all(files[name].mtime_ns < now - _SETTLED for name in touched):
            self._write_private(_STATE, [msgspec.json.encode(msgspec.structs.replace(held, files=files))])
        state.assume(held.tensor_sums)
        return state

    def _check_files(self, held: _Held, *, digests: bool) -> dict[str, _File]:
        """Check the files against state.json, all but the words; gives them with the times that they have now.

        Raises:
            WrongBaseError: a file is gone, has another size, or is another file beside the checkpoint.
        """
        files: dict[str, _File] = {}
        for name, file in held.files.items():
            status = self._check_file(name, file)
            if (digests or status.st_mtime_ns != file.mtime_ns) and not file.shard:
                with (self.folder / name).open("rb") as opened:
                    if hashlib.file_digest(opened, "sha256").hexdigest() != file.sha256:
                        raise self._altered(f"{name} is not as it was pulled")
            files[name] = msgspec.structs.replace(file, mtime_ns=status.st_mtime_ns)
        return files

    def _check_file(self, name: str, file: _File) -> os.stat_result:
        """Check that a file is there, and as large as it should be."""
        try:
            status = (self.folder / name).lstat()
        except (FileNotFoundError, NotADirectoryError):
            raise self._altered(f"{name} is gone") from None
        if not stat.S_ISREG(status.st_mode):  # a write through a link would change a file elsewhere
            raise self._altered(f"{name} is no longer a file of its own")
        if status.st_size != file.size:
            raise self._altered(f"{name} has {status.st_size} bytes, not {file.size}")
        return status

    def _headers(self, held: _Held) -> dict[str, Header]:
        headers: dict[str, Header] = {}
        for name in held.shards:
            try:
                raw, headers[name] = checkpoint.read_raw_header(self.folder / name)
            except TensorDeltaError as fault:
                raise self._altered(f"{name}: {fault.reason}") from None
            if hashlib.sha256(raw).hexdigest() != held.files[name].sha256:
                raise self._altered(f"the header of {name} is not as it was pulled")
        return headers

    def _state(self, held: _Held, *, writable: bool) -> State:
        """The words in the folder's files, mapped."""
        headers = self._headers(held)
        where = {tensor: name for name, header in headers.items() for tensor in header.entries}
        maps = {name: map_words(self.folder / name, writable=writable) for name in headers}
        words: list[Words] = []
        for tensor in held.tensors:
            name = where.get(tensor.name)
            entry = headers[name].entries[tensor.name] if name is not None else None
            if name is None or entry is None or (entry.dtype, entry.shape) != (tensor.dtype, tensor.shape):
                raise self._altered(f"tensor {tensor.name!r} is not there as it was pulled")
            words.append(tensor_words(maps[name], headers[name], tensor))
        state = State(Layout(held.tensors), words)
        state.version, state.chain, state.version_digests = held.version, held.chain, (held.layout, held.fingerprint)
        return state

    def _scan(self, held: _Held, state: State, *, threads: int) -> None:
        different = np.flatnonzero(state.sums(threads=threads) != held.tensor_sums)
        if len(different):
            names = ", ".join(state.layout.tensors[index].name for index in different[:3])
            raise self._altered(
                f"{len(different)} tensors have other words ({names}{' …' if len(different) > 3 else ''})"
            )

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
                self._check_files(held, digests=True)
                self._scan(held, self._state(held, writable=False), threads=threads)
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

    def _check_same(self, held: _Held, reader: Reader, manifest: Manifest) -> None:
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

    def _in_place(self, held: _Held, update: Update, plan: Plan) -> bool:
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

    def _patch(self, held: _Held, update: Update, manifest: Manifest) -> None:
        """Patch the words in place: undo record, words, state.json."""
        head = _UndoHead(held.version, held.fingerprint, self._describe_runs(held, update))
        self._write_private(_UNDO, _undo_record(head, update))
        update.apply()
        files = dict(held.files)
        for name in sorted({run.file for run in head.runs}):
            sync_file(self.folder / name)
            now = time.time_ns()
            os.utime(self.folder / name, ns=(now, now))
            files[name] = msgspec.structs.replace(files[name], mtime_ns=(self.folder / name).stat().st_mtime_ns)
        self._write_private(_STATE, [msgspec.json.encode(_held(update, manifest, files))])
        (self._private / _UNDO).unlink()
        sync_folder(self._private)

    def _describe_runs(self, held: _Held, update: Update) -> list[_Run]:
        headers = self._headers(held)
        where = {tensor: name for name, header in headers.items() for tensor in header.entries}
        runs: list[_Run] = []
        for piece in update.runs():
            tensor = update.layout.tensors[piece.tensor]
            name = where[tensor.name]
            runs.append(
                _Run(
                    file=name,
                    offset=headers[name].start + headers[name].entries[tensor.name].data_offsets[0],
                    words=tensor.words,
                    word=tensor.kind.word.str,
                    count=len(piece.new),
                    range=(piece.start, piece.stop) if piece.indices is None else None,
                )
            )
        return runs

    def _replace(
        self, held: _Held | None, staging: Staging, reader: Reader, update: Update, manifest: Manifest
    ) -> None:
        """Build the version's files in next/, then move them over."""
        started = time.perf_counter()
        files = {name: _File(*each) for name, each in staging.finish(update, reader).items()}
        following = _held(update, manifest, files)
        self._check_way(held, files)
        self._write_private(_NEXT, [msgspec.json.encode(following)])
        self._move_over(following)
        emit(Event("applied", update.version, update.size, time.perf_counter() - started), reader.listener)


def _undo_record(head: _UndoHead, update: Update) -> Iterator[bytes | memoryview]:
    """The parts of the undo record: a magic line, the head, indices and old words run by run, a digest of it all."""
    digest = hashlib.sha256()

    def parts() -> Iterator[bytes | memoryview]:
        yield _UNDO_MAGIC + msgspec.json.encode(head) + b"\n"
        for piece in update.runs():
            if piece.indices is None:
                held = update.source(piece.tensor)
                assert held is not None
                yield held[piece.start : piece.stop].data
            else:
                assert piece.old is not None
                yield np.ascontiguousarray(piece.indices).data
                yield np.ascontiguousarray(piece.old).data

    for part in parts():
        digest.update(part)
        yield part
    yield digest.digest()


def _remove_empty(folder: Path) -> None:
    """Remove a folder in which there is no file; nothing is done to what is no folder."""
    if folder.is_dir() and not folder.is_symlink():
        for each, _, _ in os.walk(folder, topdown=False):
            Path(each).rmdir()


def _held(update: Update, manifest: Manifest, files: dict[str, _File]) -> _Held:
    return _Held(
        chain=manifest.chain,
        version=manifest.version,
        layout=manifest.layout,
        tensors=list(update.layout.tensors),
        sums=update.sums.astype("<u8").tobytes().hex(),
        files=files,
    )
