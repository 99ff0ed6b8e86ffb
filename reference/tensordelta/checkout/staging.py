"""Building the files of the next version: which tensor is in which file, and the files before they are moved."""

from __future__ import annotations

import hashlib
import mmap
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..codecs.words import Words
from ..errors import LimitError, MalformedError
from ..format.layout import Layout, Tensor
from ..format.manifest import TENSORS, FileEntry, Manifest
from ..format.names import is_path, manifest_name
from ..format.pack import PlainPack
from ..progress import Phase, phase
from ..read.budget import Budget
from ..read.prepare import zeros
from ..read.reader import Reader
from ..state.checkpoint import DEFAULT_SHARD, shard_header, shard_order
from ..state.index import INDEX_SUFFIX, SUFFIX, read_index
from ..state.shard_file import map_words
from ..state.update import Update
from ..stores.anchored import Folder
from ..stores.disk import Disk
from .record import HeldFile

#: The folder, in a checkout's private one, in which the files of the next version are built.
STAGED = "next"
#: Metadata of the written files, which some loaders require.
METADATA = {"format": "pt"}
#: Words copied at a time.
_COPY = 1 << 22
_READ = 1 << 22
#: Greatest size of an index among the files, in bytes.
MAX_INDEX = 64 << 20
#: Bytes of decoded words from which on they are kept in a file.
_ARENA = 64 << 20


@dataclass(frozen=True)
class FileLayout:
    """The files of a version: its shards, with the tensors of each, and the other files.

    Attributes:
        layout: the version's layout.
        shard_of: name of the safetensors file of each tensor, in layout order.
        files: the other files, such as config.json.
    """

    layout: Layout
    shard_of: Sequence[str]
    files: Sequence[FileEntry]

    @classmethod
    def of(cls, reader: Reader, manifest: Manifest) -> FileLayout:
        """The files of the published checkpoint where the manifest names them; else one `model.safetensors`.

        Raises:
            MalformedError: the names cannot all be files of one folder.
            TensorDeltaError: the layout, or an index among the files, cannot be read.
        """
        layout = reader.documents.layout(manifest.layout)
        weight_map: dict[str, str] = {}
        indices = sorted(
            (each for each in manifest.files if each.name.endswith(INDEX_SUFFIX)), key=lambda each: each.name
        )
        plain = [each for each in manifest.packs if each.content == TENSORS and isinstance(each.name, str)]
        if indices:
            if indices[0].size > MAX_INDEX:
                raise LimitError(f"an index of {indices[0].size} bytes", object=indices[0].name, rule="TD-LIM-002")
            blob = reader.packs.file(indices[0])
            weight_map = read_index(bytes(blob.read(0, blob.size)), object=indices[0].name)
        for entry in plain if not indices else ():
            table, _ = reader.packs.pack(entry, manifest, layout, reader.budget(), keep=False)
            assert isinstance(table, PlainPack) and isinstance(entry.name, str)
            weight_map |= {layout.tensors[tensor].name: entry.name for tensor in table.tensors}
        # Loaders take a `model.safetensors` for the whole checkpoint even where there is an index.
        named = set(weight_map.values()) if indices else set()
        other = DEFAULT_SHARD if not named or DEFAULT_SHARD in named else max(named)
        shard_of = [weight_map.get(tensor.name, other) for tensor in layout.tensors]
        files = cls(layout, shard_of, manifest.files)
        files._check_names(manifest_name(manifest.version))
        return files

    def _check_names(self, object: str) -> None:
        shards, files = set(self.shards), {file.name for file in self.files}
        for name in shards:
            if not is_path(name) or not name.endswith(SUFFIX):
                raise MalformedError(f"the shard {name!r} is no safetensors file", object=object, rule="TD-PTH-001")
        both = shards | files
        nested = any(name[:at] in both for name in both for at, letter in enumerate(name) if letter == "/")
        if shards & files or nested:
            raise MalformedError("shards and files share a name", object=object, rule="TD-MAN-020")

    @cached_property
    def shards(self) -> Mapping[str, Sequence[Tensor]]:
        """The tensors of each shard, in the order of their bytes; at least one shard."""
        shards: dict[str, list[Tensor]] = {}
        for tensor, name in zip(self.layout.tensors, self.shard_of, strict=True):
            shards.setdefault(name, []).append(tensor)
        return {name: shard_order(tensors) for name, tensors in (shards or {DEFAULT_SHARD: []}).items()}

    @property
    def nbytes(self) -> int:
        """Bytes of all files, but for the headers of shards."""
        return self.layout.nbytes + sum(file.size for file in self.files)

    @property
    def digests(self) -> dict[str, str]:
        """What state.json has of each file as its SHA-256: of a shard that of the bytes before the words."""
        headers = {name: shard_header(tensors, METADATA) for name, tensors in self.shards.items()}
        files = {file.name: file.sha256 for file in self.files}
        return files | {name: hashlib.sha256(header).hexdigest() for name, header in headers.items()}


class Staging:
    """The folder in which a version's files are built.

    Args:
        private: the private folder of a checkout.
        files: the files to build.
        disk: the disk budget, which is asked before the first of them is begun.
    """

    def __init__(self, private: Folder, files: FileLayout, disk: Disk) -> None:
        self._private = private
        self._files = files
        self._disk = disk
        self._words: dict[Tensor, Words] = {}
        self._shards = dict(zip(files.layout.tensors, files.shard_of, strict=True))

    def allocate(self, tensor: Tensor, budget: Budget) -> Words:
        """Zero words for a tensor: in its file, or in memory for a tensor that the version does not have."""
        if tensor not in self._shards:
            return zeros(tensor, budget)
        if tensor in self._words:  # dropped by one delta of the route and added by a later one
            self._words[tensor][:] = 0
        else:
            self._create(self._shards[tensor])
        return self._words[tensor]

    def _create(self, name: str) -> None:
        """Make a shard of zero words.

        Raises:
            LimitError: the files would pass the disk budget.
            OSError: the disk is full; room is allocated here because a failing write to a map kills the process.
        """
        if not self._words:
            self._disk.check(self._files.nbytes, self._private.path, object="the files of the version")
        tensors = self._files.shards[name]
        header = shard_header(tensors, METADATA)
        at = len(header)
        with self._private.create(f"{STAGED}/{name}") as file:
            file.write(header)
            file.flush()
            os.posix_fallocate(file.fileno(), 0, at + sum(tensor.nbytes for tensor in tensors))
            mapped = map_words(file, writable=True)
        for tensor in tensors:
            self._words[tensor] = mapped[at : at + tensor.nbytes].view(tensor.kind.word)
            at += tensor.nbytes

    def arena(self, size: int) -> NDArray[np.uint8]:
        """Memory for decoded words; in a file where there are many, so that a version may be larger than memory.

        Raises:
            LimitError: it would pass the disk budget.
            OSError: the disk is full.
        """
        if size < _ARENA:
            return np.empty(size, np.uint8)
        self._disk.check(size, self._private.path, object="the words of an edge")
        name = f"{STAGED}/.words"  # a name that no file of a version has
        with self._private.create(name) as file:
            self._private.unlink(name)  # the map keeps the file alive, and a crash leaves nothing
            os.posix_fallocate(file.fileno(), 0, size)
            return np.frombuffer(mmap.mmap(file.fileno(), size), np.uint8)

    def finish(self, update: Update, reader: Reader) -> dict[str, HeldFile]:
        """Complete the files and make them durable.

        Args:
            update: the prepared update, whose new tensors were allocated here.
            reader: reads the other files.

        Returns:
            What state.json says of each file, by name.
        """
        with phase("writing files", self._files.nbytes) as work:
            return self._finish(update, reader, work)

    def _finish(self, update: Update, reader: Reader, work: Phase) -> dict[str, HeldFile]:
        shards = self._files.shards
        for name, tensors in shards.items():
            if not tensors or tensors[0] not in self._words:
                self._create(name)
        for index, tensor in enumerate(self._files.layout.tensors):
            held = update.source(index)
            if held is not None:
                for start in range(0, len(held), _COPY):
                    self._words[tensor][start : start + _COPY] = held[start : start + _COPY]
        for piece in update.runs():
            words = self._words[self._files.layout.tensors[piece.tensor]]
            if piece.indices is None:
                words[piece.start : piece.stop] = piece.new
            else:
                words[piece.indices] = piece.new
        self._words.clear()
        described: dict[str, HeldFile] = {}
        digests = self._files.digests
        for name in shards:
            described[name] = HeldFile.of(settle(self._private, f"{STAGED}/{name}"), digests[name], shard=True)
            work.add(sum(tensor.nbytes for tensor in shards[name]))
        for file in self._files.files:
            blob = reader.packs.file(file)
            with self._private.create(f"{STAGED}/{file.name}") as target:
                for offset in range(0, blob.size, _READ):
                    target.write(blob.read(offset, min(_READ, blob.size - offset)))
            described[file.name] = HeldFile.of(settle(self._private, f"{STAGED}/{file.name}"), file.sha256)
        for folder in [*(name for name, is_folder in self._private.walk(STAGED) if is_folder), STAGED]:
            self._private.sync(folder)
        return described

    def discard(self) -> None:
        """Remove the folder."""
        self._words.clear()
        self._private.remove(STAGED)


def settle(folder: Folder, name: str) -> os.stat_result:
    """Make a file's bytes durable and set its modification time; returns its status.

    The kernel's own times have a resolution of some milliseconds: a second write within them would go unnoticed.
    """
    with folder.open(name, writable=True) as file:
        os.fsync(file.fileno())
        now = time.time_ns()
        os.utime(file.fileno(), ns=(now, now))
        return os.fstat(file.fileno())


def sync_file(folder: Folder, name: str) -> None:
    """Make a file's bytes durable, also those written through a map."""
    with folder.open(name, writable=True) as file:
        os.fsync(file.fileno())
