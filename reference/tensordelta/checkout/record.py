"""state.json, which says what a checkout holds, and the checks of the folder against it."""

from __future__ import annotations

import hashlib
import os
from io import BufferedIOBase
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta

from ..codecs.fingerprint import U64, combine, text
from ..codecs.words import Words
from ..errors import IntegrityError, LimitError, MalformedError, TensorDeltaError, WrongBaseError
from ..format.layout import Layout, Tensor
from ..format.manifest import Manifest
from ..format.names import ChainId, Sha256, Version, is_path
from ..format.safetensors import Header
from ..read.remembered import Applied
from ..state.checkpoint import map_words, read_raw_header, tensor_words
from ..state.state import State
from ..state.update import Update
from .anchored import Folder, IrregularError

STATE = "state.json"
NEXT = "next.json"
#: Greatest size of state.json, in bytes: twice that of a layout object, because it also has sums and files.
_MAX = 1 << 29
_Nanoseconds = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]


class HeldFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of the folder.

    For a shard, `sha256` covers the bytes before the words; fingerprints cover the words.
    """

    size: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    mtime_ns: _Nanoseconds
    sha256: Sha256
    shard: bool = False


class Holding(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """state.json: which version the folder holds, and what is needed to check that it still does."""

    chain: ChainId
    version: Version
    layout: Sha256
    tensors: list[Tensor]
    sums: str
    files: dict[str, HeldFile]

    def __post_init__(self) -> None:
        """Refuse what no pull writes; above all, names that lead out of the folder."""
        try:
            Layout(self.tensors).check(object=STATE)
        except TensorDeltaError as fault:
            raise ValueError(fault.reason) from None
        if len(bytes.fromhex(self.sums)) != 8 * len(self.tensors):
            raise ValueError("not one sum for each tensor")
        for name in self.files:
            if not is_path(name):
                raise ValueError(f"{name[:200]!r} is no name of a file")
        folders = {name[:at] for name in self.files for at, letter in enumerate(name) if letter == "/"}
        if folders & self.files.keys():
            raise ValueError("one name is that of a file and of a folder")

    @classmethod
    def read(cls, private: Folder, name: str) -> Holding | None:
        """Read state.json, or next.json, which has the same form; None where it is absent.

        Raises:
            IntegrityError: it is not as a pull writes it.
        """
        path = private.path / name
        try:
            data = private.read(name, limit=_MAX)
            if len(data) > _MAX:
                raise garbled(path, "is longer than any that a pull writes")
            held = msgspec.json.decode(data, type=cls)
        except FileNotFoundError:
            return None
        except IrregularError as fault:
            raise garbled(path, str(fault.strerror)) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as fault:
            raise garbled(path, f"does not say what the folder holds: {fault}") from None
        if msgspec.json.encode(held) != data:  # duplicate members, or other spellings of numbers
            raise garbled(path, "is not as a pull writes it")
        return held

    @classmethod
    def after(cls, update: Update, manifest: Manifest, files: dict[str, HeldFile]) -> Holding:
        """The record of a folder with these files after an update."""
        return cls(
            chain=manifest.chain,
            version=manifest.version,
            layout=manifest.layout,
            tensors=list(update.layout.tensors),
            sums=update.sums.astype("<u8").tobytes().hex(),
            files=files,
        )

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
        """The version as readers of signed chains remember it (SPEC.md section 14)."""
        return Applied(self.chain, self.version, self.layout, self.fingerprint)

    @property
    def shards(self) -> list[str]:
        """Names of the files with tensors."""
        return [name for name, file in self.files.items() if file.shard]

    def check_files(self, folder: Folder, *, digests: bool) -> dict[str, HeldFile]:
        """Check everything but the words against state.json.

        Args:
            digests: check digests even of files whose modification time is as recorded.

        Returns:
            The files with their present modification times.

        Raises:
            WrongBaseError: a file is missing, or has another size or digest.
        """
        files: dict[str, HeldFile] = {}
        for name, file in self.files.items():
            with self.open(folder, name) as opened:
                mtime_ns = os.fstat(opened.fileno()).st_mtime_ns
                suspect = not file.shard and (digests or mtime_ns != file.mtime_ns)
                if suspect and hashlib.file_digest(opened, "sha256").hexdigest() != file.sha256:
                    raise _altered(folder, f"{name} is not as it was pulled")
            files[name] = msgspec.structs.replace(file, mtime_ns=mtime_ns)
        return files

    def open(self, folder: Folder, name: str, *, writable: bool = False) -> BufferedIOBase:
        """Open a file, and check that it has its recorded size.

        Raises:
            WrongBaseError: it is missing or has another size; or it is opened for writing and has a second hard link.
        """
        try:
            file = folder.open(name, writable=writable)
        except FileNotFoundError:
            raise _altered(folder, f"{name} is gone") from None
        except (NotADirectoryError, IrregularError):  # a write through a link would change a file elsewhere
            raise _altered(folder, f"{name} is no longer a file of its own") from None
        held, size = os.fstat(file.fileno()).st_size, self.files[name].size
        if held != size:
            file.close()
            raise _altered(folder, f"{name} has {held} bytes, not {size}")
        return file

    def headers(self, folder: Folder) -> dict[str, Header]:
        """The headers of the shards, by name.

        Raises:
            WrongBaseError: one was changed.
        """
        headers: dict[str, Header] = {}
        for name in self.shards:
            try:
                with self.open(folder, name) as file:
                    raw, headers[name] = read_raw_header(file, object=name)
            except (MalformedError, LimitError) as fault:
                raise _altered(folder, f"{name}: {fault.reason}") from None
            if hashlib.sha256(raw).hexdigest() != self.files[name].sha256:
                raise _altered(folder, f"the header of {name} is not as it was pulled")
        return headers

    def _map(self, folder: Folder, name: str, *, writable: bool) -> np.ndarray[Any, np.dtype[np.uint8]]:
        # A file with a second hard link is also a file elsewhere, which must not change.
        writable = writable and folder.status(name).st_nlink == 1
        with self.open(folder, name, writable=writable) as file:
            return map_words(file, writable=writable)

    def state(self, folder: Folder, *, writable: bool) -> State:
        """The words in the folder's files, mapped; read-only where a file has a second hard link.

        Raises:
            WrongBaseError: a header was changed.
        """
        headers = self.headers(folder)
        where = {tensor: name for name, header in headers.items() for tensor in header.entries}
        maps = {name: self._map(folder, name, writable=writable) for name in headers}
        words: list[Words] = []
        for tensor in self.tensors:
            name = where.get(tensor.name)
            entry = headers[name].entries[tensor.name] if name is not None else None
            if name is None or entry is None or (entry.dtype, entry.shape) != (tensor.dtype, tensor.shape):
                raise _altered(folder, f"tensor {tensor.name!r} is not there as it was pulled")
            words.append(tensor_words(maps[name], headers[name], tensor))
        state = State(Layout(self.tensors), words)
        state.version, state.chain, state.version_digests = self.version, self.chain, (self.layout, self.fingerprint)
        return state

    def scan(self, folder: Folder, state: State, *, threads: int) -> None:
        """Check every word of the folder's state.

        Raises:
            WrongBaseError: some were changed.
        """
        different = np.flatnonzero(state.sums(threads=threads) != self.tensor_sums)
        if len(different):
            names = ", ".join(state.layout.tensors[index].name for index in different[:3])
            raise _altered(
                folder, f"{len(different)} tensors have other words ({names}{' …' if len(different) > 3 else ''})"
            )


def _altered(folder: Folder, reason: str) -> WrongBaseError:
    return WrongBaseError(
        f"{reason}; the folder was changed after the pull",
        object=str(folder.path),
        rule="TD-RDR-003",
        advice="Remove the folder and pull again.",
    )


def garbled(path: Path, reason: str) -> IntegrityError:
    """The error for a private file that is not as a pull writes it."""
    return IntegrityError(
        reason,
        object=str(path),
        rule="TD-APP-005",
        advice="It was changed after the pull: remove the folder and pull again.",
    )
