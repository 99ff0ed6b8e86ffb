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
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from . import checkpoint
from .checkpoint import map_words, tensor_words
from .container import Header
from .errors import ConflictError, IntegrityError, MissingError, TensorDeltaError, WrongBaseError
from .events import Event, emit
from .fingerprint import U64, combine, text
from .layout import Layout, Tensor
from .manifest import Manifest
from .reader import Reader
from .staging import Plan, Staging, sync_file
from .state import State
from .store import sync_folder
from .update import Update
from .words import Words

PRIVATE = ".tensordelta"
_STATE = "state.json"
_NEXT = "next.json"
_UNDO = "undo"
_UNDO_MAGIC = b"tensordelta undo 1\n"


class _File(msgspec.Struct, frozen=True):
    """A file of the checkout: a shard where `sha256` is None, else a file beside the checkpoint."""

    size: int
    mtime_ns: int
    sha256: str | None = None


class _Held(msgspec.Struct, frozen=True):
    """state.json: which version the folder holds, and how to know that it still does."""

    chain: str
    version: int
    layout: str
    tensors: list[Tensor]
    sums: str
    files: dict[str, _File]

    @property
    def tensor_sums(self) -> U64:
        """Fingerprint of each tensor."""
        return np.frombuffer(bytes.fromhex(self.sums), "<u8").astype(np.uint64)

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the state."""
        return text(combine(self.tensor_sums))


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

    @staticmethod
    def is_checkout(folder: str | os.PathLike[str]) -> bool:
        """True if the folder is a checkout, a damaged one included."""
        return Path(folder, PRIVATE).is_dir()

    # -- what is there --------------------------------------------------------------------------------------------

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Own the folder: one process works on it at a time."""
        if not self._private.is_dir():
            if self.folder.exists() and not self.folder.is_dir():
                raise self._conflict("is a file", "Name a folder.")
            if self.folder.is_dir() and any(self.folder.iterdir()):
                raise self._conflict(
                    "has contents, but no pull made them", "Name an empty folder, or one that does not exist."
                )
            self._private.mkdir(parents=True)
            sync_folder(self.folder)
        with (self._private / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise self._conflict("another process is working on it", "Wait for it to end.") from None
            yield

    def _conflict(self, reason: str, advice: str) -> ConflictError:
        return ConflictError(reason, object=str(self.folder), rule="TD-APP-005", advice=advice)

    def _altered(self, reason: str) -> WrongBaseError:
        return WrongBaseError(
            f"{reason}; someone else changed the folder",
            object=str(self.folder),
            rule="TD-RDR-003",
            advice="Remove the folder and pull again.",
        )

    def _read_private(self, name: str) -> _Held | None:
        path = self._private / name
        try:
            return msgspec.json.decode(path.read_bytes(), type=_Held)
        except FileNotFoundError:
            return None
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise IntegrityError(
                "does not say what the folder holds",
                object=str(path),
                rule="TD-APP-005",
                advice="Someone changed it: remove the folder and pull again.",
            ) from None

    def _write_private(self, name: str, *parts: bytes | memoryview) -> None:
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
        Staging.discard_folder(self._private / "next")
        held = self._read_private(_STATE)
        undo = self._private / _UNDO
        if undo.exists():
            if held is not None:
                self._write_back(undo, held)
            undo.unlink()
            sync_folder(self._private)
        return held

    def _write_back(self, undo: Path, held: _Held) -> None:
        """Write the old words back, unless the new version was reached.

        The files' times stay those of the crash, so that the next use proves every word by a scan.
        """
        with undo.open("rb") as file:
            if file.readline() != _UNDO_MAGIC:
                raise IntegrityError(
                    "is no undo record", object=str(undo), rule="TD-APP-005", advice="Remove the folder and pull again."
                )
            head = json.loads(file.readline())
            if (head["version"], head["fingerprint"]) != (held.version, held.fingerprint):
                return
            for run in head["runs"]:
                mapped = map_words(self.folder / run["file"], writable=True)
                word = np.dtype(run["word"])
                words = mapped[run["offset"] : run["offset"] + run["words"] * word.itemsize].view(word)
                if run["range"] is not None:
                    start, stop = run["range"]
                    words[start:stop] = np.frombuffer(file.read(run["count"] * word.itemsize), word)
                else:
                    indices = np.frombuffer(file.read(run["count"] * 8), np.int64)
                    words[indices] = np.frombuffer(file.read(run["count"] * word.itemsize), word)
                del words, mapped
        for name in {run["file"] for run in head["runs"]}:
            sync_file(self.folder / name)

    def _move_over(self, following: _Held) -> None:
        """Move the files of next/ into place, each by a rename; repeated after a crash, it does what is left."""
        before = self._read_private(_STATE)
        for name in before.files if before else ():
            if name not in following.files:
                (self.folder / name).unlink(missing_ok=True)
        for name in following.files:
            source, target = self._private / "next" / name, self.folder / name
            if source.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(source, target)
                sync_folder(target.parent)
        self._write_private(_STATE, msgspec.json.encode(following))
        (self._private / _NEXT).unlink()
        sync_folder(self._private)

    # -- the words ------------------------------------------------------------------------------------------------

    def _open(self, held: _Held, reader: Reader, *, scan: bool, writable: bool) -> State:
        if held.chain != reader.chain:
            raise self._conflict(
                f"follows chain {held.chain}, not {reader.chain}", "Pull each chain into a folder of its own."
            )
        sure = self._check_files(held, digests=False)
        state = self._state(held, writable=writable)
        if scan or not sure:
            self._scan(held, state, threads=reader.threads)
        state.assume(held.tensor_sums)
        return state

    def _check_files(self, held: _Held, *, digests: bool) -> bool:
        """Check the files against state.json; False where only a scan can tell whether shards are as they were.

        Raises:
            WrongBaseError: a file is gone, has another size, or is another file beside the checkpoint.
        """
        sure = True
        for name, file in held.files.items():
            path = self.folder / name
            try:
                status = path.stat()
            except (FileNotFoundError, NotADirectoryError):
                raise self._altered(f"{name} is gone") from None
            if status.st_size != file.size:
                raise self._altered(f"{name} has {status.st_size} bytes, not {file.size}")
            if digests or status.st_mtime_ns != file.mtime_ns:
                if file.sha256 is None:
                    sure = False
                elif hashlib.sha256(path.read_bytes()).hexdigest() != file.sha256:
                    raise self._altered(f"{name} is not as it was pulled")
        return sure

    def _headers(self, held: _Held) -> dict[str, Header]:
        return {
            name: checkpoint.read_header(self.folder / name) for name, file in held.files.items() if file.sha256 is None
        }

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
        state.version, state.chain = held.version, held.chain
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
        with self._locked():
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
        with self._locked():
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
            WrongBaseError: someone else changed its files.
            TensorDeltaError: the version cannot be had; the folder is as it was.
        """
        started = time.perf_counter()
        with self._locked():
            held = self._recover()
            target = reader.target(version)
            state = State.empty() if held is None else self._open(held, reader, scan=False, writable=True)
            if held is not None and held.version == target:
                return Pulled(target, (), 0, time.perf_counter() - started)
            manifest = reader.manifest(target)
            plan = Plan.of(reader, manifest)
            staging = Staging(self._private / "next", plan)
            update = reader.prepare(state, target, allocate=staging.allocate)
            if held is not None and self._in_place(held, update, plan):
                self._patch(held, update, manifest)
            else:
                self._replace(staging, reader, update, manifest)
            return Pulled(target, update.route, update.size, time.perf_counter() - started)

    def _in_place(self, held: _Held, update: Update, plan: Plan) -> bool:
        """True where the new version has the same files, and differs in words alone."""
        files = {file.name: file.sha256 for file in plan.files} | dict.fromkeys(plan.shards)
        return (
            not update.built
            and list(update.layout.tensors) == held.tensors
            and files == {name: file.sha256 for name, file in held.files.items()}
            and all(
                set(header.entries) == {tensor.name for tensor in plan.shards[name]}
                for name, header in self._headers(held).items()
            )
        )

    def _patch(self, held: _Held, update: Update, manifest: Manifest) -> None:
        """Patch the words in place: undo record, words, state.json."""
        runs = self._describe_runs(held, update)
        head = {"version": held.version, "fingerprint": held.fingerprint, "runs": runs}
        self._write_private(_UNDO, *self._undo_record(head, update))
        update.apply()
        files = dict(held.files)
        for name in sorted({run["file"] for run in runs}):
            sync_file(self.folder / name)
            now = time.time_ns()
            os.utime(self.folder / name, ns=(now, now))
            files[name] = _File(held.files[name].size, (self.folder / name).stat().st_mtime_ns)
        self._write_private(_STATE, msgspec.json.encode(_held(update, manifest, files)))
        (self._private / _UNDO).unlink()
        sync_folder(self._private)

    def _describe_runs(self, held: _Held, update: Update) -> list[dict[str, Any]]:
        headers = self._headers(held)
        where = {tensor: name for name, header in headers.items() for tensor in header.entries}
        runs: list[dict[str, Any]] = []
        for piece in update.runs():
            tensor = update.layout.tensors[piece.tensor]
            name = where[tensor.name]
            runs.append(
                {
                    "file": name,
                    "offset": headers[name].start + headers[name].entries[tensor.name].data_offsets[0],
                    "words": tensor.words,
                    "word": tensor.kind.word.str,
                    "count": len(piece.new),
                    "range": [piece.start, piece.stop] if piece.indices is None else None,
                }
            )
        return runs

    @staticmethod
    def _undo_record(head: Mapping[str, Any], update: Update) -> Iterator[bytes | memoryview]:
        yield _UNDO_MAGIC + json.dumps(head).encode() + b"\n"
        for piece in update.runs():
            if piece.indices is None:
                held = update.source(piece.tensor)
                assert held is not None
                yield held[piece.start : piece.stop].data
            else:
                assert piece.old is not None
                yield np.ascontiguousarray(piece.indices).data
                yield np.ascontiguousarray(piece.old).data

    def _replace(self, staging: Staging, reader: Reader, update: Update, manifest: Manifest) -> None:
        """Build the version's files in next/, then move them over."""
        started = time.perf_counter()
        files = {name: _File(*each) for name, each in staging.finish(update, reader).items()}
        following = _held(update, manifest, files)
        before = self._read_private(_STATE)
        for name in files:
            if (before is None or name not in before.files) and (self.folder / name).exists():
                raise self._conflict(f"{name} is in the way, and no pull made it", "Move it elsewhere and pull again.")
        self._write_private(_NEXT, msgspec.json.encode(following))
        self._move_over(following)
        staging.discard()
        emit(Event("applied", update.version, update.size, time.perf_counter() - started), reader.listener)


def _held(update: Update, manifest: Manifest, files: dict[str, _File]) -> _Held:
    return _Held(
        chain=manifest.chain,
        version=manifest.version,
        layout=manifest.layout,
        tensors=list(update.layout.tensors),
        sums=update.sums.astype("<u8").tobytes().hex(),
        files=files,
    )
