"""States: names to tensors, as a user holds them (SPEC.md section 3)."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..codecs import fingerprint
from ..codecs.fingerprint import U64
from ..codecs.words import DTYPES, DType, Words, dtype_of, to_array, to_words
from ..format.layout import Layout, Tensor
from ..progress import phase
from ..tables import as_table
from ..threads import Lock, ordered_map, thread_count
from . import checkpoint
from .folder import OTHER_FORMAT, OTHER_WEIGHTS, names_text
from .frameworks import (
    Arrays,
    ArraysLike,
    Mirror,
    adapter_of,
    as_array,
    check_dtype,
    check_name,
    check_no_model,
    over,
    pairs_of,
)
from .shard_file import READ, FileWords

_LOG = logging.getLogger("tensordelta")

#: Words that one thread scans at a time.
_SCAN = 1 << 24


class State(Mapping[str, NDArray[Any]]):
    """Names to arrays: one model's weights at one moment.

    Indexing gives a read-only view, because a state remembers its fingerprint: write through an `Update`, or take
    a `copy()` of the array. Arrays that you gave to `from_arrays` stay yours to write; such a state is scanned again
    whenever its fingerprint is needed.

    Several threads may read one state while one of them applies or undoes an update: that takes a lock, but the words
    read meanwhile may be old or new. Processes share no state: a forked child has a copy, which is no known version if
    it was forked while an update was applied.

    Args:
        layout: the tensors.
        words: for each tensor its words, one-dimensional, in memory or in a file; they are not copied.
        owned: True where only updates write to the words.
        arrays: the mapping that the words belong to, which updates keep complete.

    Attributes:
        layout: the tensors, sorted by name.
        version: the version of a chain that this state is known to be, if it is.
        chain: that chain's id.
        version_digests: the digest of that version's layout, and its fingerprint, as its manifest had them when it was
            applied; None where no manifest was read.
        copies: names of arrays that `from_arrays` had to copy, so that an update cannot write into them.
    """

    def __init__(
        self,
        layout: Layout,
        words: Sequence[Words | FileWords],
        *,
        owned: bool = True,
        arrays: MutableMapping[str, NDArray[Any]] | None = None,
    ) -> None:
        self.layout = layout
        self.version: int | None = None
        self.chain: str | None = None
        self.version_digests: tuple[str, str] | None = None
        self._words: list[Words | FileWords] = list(words)
        self._owned = owned
        self._arrays = arrays
        self._sums: U64 | None = None
        self.copies: frozenset[str] = frozenset()
        self._mirrors: dict[str, Mirror] = {}
        # Held while an update is applied or undone.
        self._lock = Lock(interrupted=self._forget)
        self._generation = self._generations = 0

    @classmethod
    def from_arrays(cls, arrays: ArraysLike, *, dtypes: Mapping[str, str] | None = None) -> State:
        """A state over arrays; contiguous ones are not copied, so updates write into them.

        Args:
            arrays: name -> array of any shape, bfloat16 and the 8-bit floats by their ml_dtypes dtypes; or tensors of
                torch, on any device. Pairs of name and array as well.
            dtypes: name -> name of the dtype, where an array does not tell: for packed dtypes ("F4", "F6_E2M3",
                "F6_E3M2") over uint8 with the last dimension in bytes, and for words, such as "BF16" over uint16.

        Raises:
            ValueError: no names and arrays, or two of one name; a name that is no string; a dtype that the format does
                not have, or a torch tensor seen as words of another dtype.
            TypeError: a model instead of its weights.
            MalformedError, LimitError: a name or shape that the format does not allow.

        Example:
            >>> State.from_arrays({"w": np.zeros((2, 3), np.float32)}).layout.words
            6
        """
        check_no_model(arrays)
        if not isinstance(arrays, Mapping):
            arrays = dict(pairs_of(arrays))
        tensors: list[Tensor] = []
        held: dict[str, NDArray[Any]] = {}
        mirrors: dict[str, Mirror] = {}
        for name, value in arrays.items():
            check_name(name)
            array = held[name] = as_array(name, value)
            adapter, named = adapter_of(value), (dtypes or {}).get(name)
            if adapter is not None:
                named = named or adapter.packed(value)
                mirror = adapter.mirror(value)
                if mirror is not None:
                    mirrors[name] = mirror
            if named is None:
                check_dtype(name, value)
            try:
                kind, shape = _kind_and_shape(array, named)
            except ValueError as error:
                raise ValueError(f"tensor {name!r}: {error}") from None
            tensors.append(Tensor(name, kind.name, shape))
        layout = Layout.of(tensors, object="the arrays")
        words = [to_words(held[tensor.name], tensor.kind) for tensor in layout.tensors]
        state = cls(layout, words, owned=False, arrays=over(arrays))
        state._mirrors = mirrors
        state.copies = frozenset(
            tensor.name
            for tensor, each in zip(layout.tensors, words, strict=True)
            if each.size
            and tensor.name not in mirrors
            and not np.may_share_memory(each, as_array(tensor.name, arrays[tensor.name]))
        )
        return state

    def overlap(self) -> tuple[str, str] | None:
        """Names of two tensors that share a part of their memory; None where there are none.

        Tensors that are one and the same, such as tied embeddings, do not count.
        """
        spans = sorted(
            (each.ctypes.data, each.ctypes.data + each.nbytes, tensor.dtype, tensor.name)
            for tensor, each in zip(self.layout.tensors, map(self.words, range(len(self))), strict=True)
            if each.size
        )
        for (begin, end, kind, one), (start, stop, other_kind, other) in pairwise(spans):
            if start < end and (begin, end, kind) != (start, stop, other_kind):
                return one, other
        return None

    def _refresh(self) -> None:
        """Copy the words of tensors that are held as copies."""
        for name, mirror in self._mirrors.items():
            words = self.words(self.layout.index[name])
            for start in range(0, len(words), _SCAN):
                part = slice(start, start + _SCAN)
                words[part] = mirror.read(part)

    def __getstate__(self) -> dict[str, Any]:
        members = {name: value for name, value in self.__dict__.items() if name != "_lock"}
        return members | {"_words": [each[:] if isinstance(each, FileWords) else each for each in self._words]}

    def __setstate__(self, members: dict[str, Any]) -> None:
        self.__dict__ |= members
        self._lock = Lock(interrupted=self._forget)

    def is_over(self, arrays: Mapping[str, NDArray[Any]]) -> bool:
        """True if the state was made of this mapping, and its words are the memory of its arrays or tensors."""
        same = self._given is arrays and arrays.keys() == self.layout.index.keys()
        return same and all(map(self._is_over, self.layout.tensors))

    @property
    def _given(self) -> Mapping[str, Any] | None:
        """The mapping that the user gave."""
        return self._arrays.tensors if isinstance(self._arrays, Arrays) else self._arrays

    def _is_over(self, tensor: Tensor) -> bool:
        value = None if self._given is None else self._given.get(tensor.name)
        mirror = self._mirrors.get(tensor.name)
        if mirror is not None:
            return mirror.is_of(value)
        if value is None:
            return False
        array, words = as_array(tensor.name, value), self.words(self.layout.index[tensor.name])
        return (
            array.ctypes.data == words.ctypes.data
            and array.nbytes == words.nbytes
            and array.dtype.itemsize == words.dtype.itemsize
            and array.flags.writeable == words.flags.writeable
        )

    @classmethod
    def empty(cls) -> State:
        """The state of no tensors, from which full versions start."""
        state = cls(Layout(()), [])
        state._sums = np.zeros(0, np.uint64)
        return state

    def __getitem__(self, name: str) -> NDArray[Any]:
        index = self.layout.index[name]
        tensor = self.layout.tensors[index]
        array = to_array(self.words(index), tensor.kind, tensor.shape)
        if self._owned:
            array = array.view()
            array.flags.writeable = False
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self.layout.index)

    def __len__(self) -> int:
        return len(self.layout)

    def words(self, tensor: int) -> Words:
        """The words of a tensor by its index in the layout, one-dimensional; the state's own memory, or a mapped file.

        Raises:
            IntegrityError: the file changed since it was opened.
        """
        words = self._words[tensor]
        return words.mapped if isinstance(words, FileWords) else words

    def source(self, tensor: int) -> Words | FileWords:
        """As `words`, to be read in slices: of a file these are read when they are asked for, so that one which is
        truncated meanwhile is an `IntegrityError` and no signal."""
        return self._words[tensor]

    def has(self, tensor: int, words: Words) -> bool:
        """True if a tensor, by its index in the layout, has these words."""
        return _equal(self._words[tensor], words)

    def check_files(self) -> None:
        """Check that nothing has written to the files that the words lie in since these were opened.

        Raises:
            IntegrityError: one changed.
        """
        for file in {each.file for each in self._words if isinstance(each, FileWords)}:
            file.check()

    @property
    def owned(self) -> bool:
        """True where the words are the state's own memory, which only updates write to."""
        return self._owned

    @property
    def known(self) -> bool:
        """True where the fingerprint is remembered, and only updates can have changed the words."""
        return self._owned and self._sums is not None

    @property
    def generation(self) -> int:
        """A number for the present words, by which a prepared update is bound to them; undo restores the old number.

        Waits until an update that is being applied or undone has ended.
        """
        with self._lock:
            return self._generation

    @property
    def changes(self) -> int:
        """How many updates have been applied or undone."""
        with self._lock:
            return self._generations

    def sums(self, *, threads: int | None = None, scan: bool = False) -> U64:
        """Fingerprint of each tensor, uint64 in layout order.

        Args:
            threads: how many scan at once; by default $TENSORDELTA_THREADS, or all cores.
            scan: read all words, even where the fingerprints are remembered.
        """
        if self.known and not scan:
            assert self._sums is not None
            return self._sums
        if self._sums is not None:  # else the copies have just been made
            self._refresh()
        parts = [
            (index, start, start + step)
            for index, words in enumerate(self._words)
            for step in (READ // words.itemsize if isinstance(words, FileWords) else _SCAN,)
            for start in range(0, max(len(words), 1), step)
        ]

        def scan_part(part: tuple[int, int, int]) -> int:
            index, start, stop = part
            return fingerprint.scan(self.layout.tensors[index].name, self._words[index][start:stop], start=start)

        sums = np.zeros(len(self.layout), np.uint64)
        with phase("reading the weights", self.layout.nbytes) as work:
            found = ordered_map(scan_part, parts, threads=thread_count(threads))
            for (index, start, stop), each in zip(parts, found, strict=True):
                fingerprint.add_to(sums, index, each)
                words = self._words[index]
                work.add((min(stop, len(words)) - start) * words.itemsize)
        self._sums = sums
        return sums

    def _replace(self, layout: Layout, words: Sequence[Words], sums: U64) -> None:
        """Take over new tensors and their sums: how an update changes a state."""
        self.layout, self._words, self._sums = layout, list(words), sums
        self._generations += 1
        self._generation = self._generations

    def _forget(self) -> None:
        """Forget what the words are: a fork has copied them while another thread applied or undid an update."""
        self._sums = self.version = self.chain = self.version_digests = None
        self._generations += 1
        self._generation = self._generations

    def assume(self, sums: U64) -> None:
        """Remember fingerprints that were proven elsewhere, so that no scan is needed; uint64 in layout order."""
        self._sums = sums

    def fingerprint(self, *, threads: int | None = None, scan: bool = False) -> str:
        """The state's fingerprint, 16 hex digits (SPEC.md section 8); arguments as for `sums`."""
        return fingerprint.text(fingerprint.combine(self.sums(threads=threads, scan=scan)))

    @property
    def arrays(self) -> MutableMapping[str, NDArray[Any]] | None:
        """The user's own mapping, where the state was made of one."""
        return self._arrays

    def copy(self) -> State:
        """A state of its own memory, with the same words."""
        words = [each[:] if isinstance(each, FileWords) else each.copy() for each in self._words]
        other = State(self.layout, words)
        if self.known:
            other._sums = self._sums
        other.version, other.chain, other.version_digests = self.version, self.chain, self.version_digests
        return other

    def equals(self, other: State) -> bool:
        """True if both have the same tensors and the same words; bit patterns count, so NaN equals itself."""
        return self.layout == other.layout and all(
            _equal(mine, theirs) for mine, theirs in zip(self._words, other._words, strict=True)
        )

    def __eq__(self, other: object) -> bool:
        """As `equals` (SPEC.md section 3.3). A mapping of arrays or torch tensors equals a state of the same words."""
        if not isinstance(other, Mapping):
            return NotImplemented
        if not isinstance(other, State):
            if isinstance(getattr(other, "layout", None), Layout):  # it has dtypes of its own, which arrays do not tell
                return NotImplemented
            try:
                other = State.from_arrays(other)
            except (ValueError, OverflowError, NotImplementedError):  # it has what no state can hold
                return False
        return self.equals(other)

    def save(self, path: str | os.PathLike[str], *, metadata: Mapping[str, str] | None = None) -> None:
        """Write the state as one safetensors file, atomically.

        Threads and processes may save to one path at the same time: the file is always one of their states, whole.
        What a process left in the folder that was killed while it saved is removed a day later.

        Raises:
            OSError: the file cannot be written, or the disk is full; what was there before is unchanged.
        """
        checkpoint.write_file(path, self.layout, self._words, metadata)

    def __repr__(self) -> str:
        version = "" if self.version is None else f", version {self.version}"
        return f"State({len(self)} tensors, {self.layout.words:,} words, {self.layout.nbytes:,} bytes{version})"

    def _repr_html_(self) -> str:
        return as_table(self).html()


def _equal(mine: Words | FileWords, theirs: Words | FileWords) -> bool:
    """True if two rows of words are the same; of a file a part is read at a time."""
    if isinstance(theirs, FileWords):
        mine, theirs = theirs, mine
    at = 0
    for part in checkpoint.parts(mine):
        if not np.array_equal(part, theirs[at : at + len(part)]):
            return False
        at += len(part)
    return True


def _kind_and_shape(array: NDArray[Any], named: str | None) -> tuple[DType, tuple[int, ...]]:
    if named is None:
        return dtype_of(array.dtype), array.shape
    kind = DTYPES.get(named)
    if kind is not None and not kind.packed and array.dtype in (kind.word, kind.array):
        return kind, array.shape
    if kind is None or not kind.packed or array.dtype != np.uint8 or not array.ndim:
        raise ValueError(f"{named!r} is no dtype of the format that an array of {array.dtype} can hold")
    if array.shape[-1] * 8 % kind.bits:
        raise ValueError(f"rows of {array.shape[-1]} bytes hold no whole number of {named}")
    return kind, (*array.shape[:-1], array.shape[-1] * 8 // kind.bits)


def read_state(path: str | os.PathLike[str]) -> State:
    """The state in a safetensors file, a Hugging Face folder or a model on the Hub, whose words stay in the files.

    Of a model, `hf://ORG/MODEL[@REVISION]`, the weights are brought into the cache of the Hub's client.

    An array of it is the file, mapped: if another process truncates the file meanwhile, using the array ends this
    process. All else reads by position, and raises `IntegrityError` then. Weights of the folder that are not taken are
    logged.

    Raises:
        MissingError: nothing there, or one of several files that belong together is missing.
        MalformedError, UnsupportedError, LimitError: not a checkpoint, or not one that the format can hold; or loaders
            would take different weights of it.
        StoreError: the Hub did not answer, or refused.
        ValueError: an address that is none of a model.
    """
    opened = checkpoint.open_checkpoint(path, part=True)
    weights = [each for each in opened.left_out if each.reason in (OTHER_WEIGHTS, OTHER_FORMAT)]
    if weights:
        _LOG.warning("%s: not taken: %s", path, names_text(weights))
    return State(opened.layout, opened.words)
