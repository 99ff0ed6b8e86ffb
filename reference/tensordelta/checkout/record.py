"""state.json, which says what a checkout holds, and next.json, which has the same form."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from msgspec import UNSET, Meta, UnsetType

from ..codecs.fingerprint import U64, combine, text
from ..errors import IntegrityError, LimitError, TensorDeltaError
from ..format.layout import Layout, Tensor
from ..format.manifest import Manifest
from ..format.names import ChainId, Sha256, Version, is_path
from ..read.packs import default_memory
from ..read.remembered import Applied
from ..state.update import Update
from ..stores.anchored import Folder
from ..stores.regular import IrregularError

STATE = "state.json"
NEXT = "next.json"
#: Greatest size of state.json, in bytes: twice that of a layout object, because it also has sums and files.
_MAX = 1 << 29
#: Bytes of memory that a byte of JSON may take when it is parsed and compared.
_PARSED = 10
_Nanoseconds = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]


class HeldFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of the folder, and how the file system described it when its bytes were last known to be right.

    For a shard, `sha256` covers the bytes before the words; fingerprints cover the words. Folders of earlier versions
    of this package have neither change time nor inode.
    """

    size: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    mtime_ns: _Nanoseconds
    sha256: Sha256
    shard: bool = False
    ctime_ns: _Nanoseconds | UnsetType = UNSET
    inode: Annotated[int, Meta(ge=0)] | UnsetType = UNSET

    @classmethod
    def of(cls, status: os.stat_result, sha256: str, *, shard: bool = False) -> HeldFile:
        """A file with this status."""
        return cls(status.st_size, 0, sha256, shard).seen(status)

    def seen(self, status: os.stat_result) -> HeldFile:
        """The same file, with the times and the inode of a status."""
        return msgspec.structs.replace(
            self, mtime_ns=status.st_mtime_ns, ctime_ns=status.st_ctime_ns, inode=status.st_ino
        )

    def moved(self, status: os.stat_result) -> HeldFile:
        """The same file after it was renamed; unchanged if the status is that of another file."""
        return self.seen(status) if (status.st_ino, status.st_mtime_ns) == (self.inode, self.mtime_ns) else self

    @property
    def changed_ns(self) -> int:
        """The later of its times."""
        return self.mtime_ns if self.ctime_ns is UNSET else max(self.mtime_ns, self.ctime_ns)


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
        if any(name[:at] in self.files for name in self.files for at, letter in enumerate(name) if letter == "/"):
            raise ValueError("one name is that of a file and of a folder")

    @classmethod
    def read(cls, private: Folder, name: str) -> Holding | None:
        """Read state.json, or next.json, which has the same form; None where it is absent.

        Raises:
            IntegrityError: it is not as a pull writes it.
            LimitError: to parse it would take more than this machine's memory.
        """
        path = private.path / name
        try:
            with private.open(name) as file:
                size = os.fstat(file.fileno()).st_size
                if size > _MAX:
                    raise garbled(path, "is longer than any that a pull writes")
                check_memory(size, object=str(path))
                data = file.read(size + 1)
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

    def encode(self, private: Folder, name: str) -> bytes:
        """The bytes of state.json, or next.json.

        Raises:
            LimitError: this machine could not read them back.
        """
        data = msgspec.json.encode(self)
        check_memory(len(data), object=str(private.path / name))
        return data

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
    def digest(self) -> str:
        """SHA-256 of the record."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()

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


def garbled(path: Path, reason: str) -> IntegrityError:
    """The error for a private file that is not as a pull writes it."""
    return IntegrityError(
        reason,
        object=str(path),
        rule="TD-APP-005",
        advice="It was changed after the pull: remove the folder and pull again.",
    )


def check_memory(size: int, *, object: str) -> None:
    """Check that this machine has the memory to parse so many bytes of JSON.

    Raises:
        LimitError: it has not.
    """
    if size * _PARSED > default_memory():
        raise LimitError(
            f"has {size:,} bytes, for which this machine has too little memory",
            object=object,
            rule="TD-LIM-002",
            advice="No pull of a model that this machine can hold writes as much: remove the folder and pull again.",
        )
