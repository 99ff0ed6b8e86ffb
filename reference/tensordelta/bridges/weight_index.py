"""Versions that are a folder of safetensors files and a Hugging Face index, which says whether it is a delta.

A delta's entries are compressed deltas of whole tensors as bytes, and its files' metadata hold a checksum of each new
tensor. This is the form of slime, miles, SGLang's `/pull_weights`, stitch and ModelExpress; these differ in the names
of versions, and in what a full version says of itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..codecs.words import Words
from ..errors import MissingError, UnsupportedError, WrongBaseError
from ..format.layout import Layout, Tensor
from ..format.names import is_path
from ..state.checkpoint import DEFAULT_SHARD
from ..state.index import INDEX, INDEX_SUFFIX, SUFFIX, build_index
from ..state.state import State
from . import byte_deltas
from .checksums import DIGITS, check_installed, checksum
from .format import Marker, Source, Target
from .objects import Bytes, Shard, malformed, read_bytes, read_document, write_shard

__all__ = ["INDEX", "Delta", "Full", "Index", "Indexed", "read_index", "write_delta", "write_full"]

#: What the metadata of a delta's index has, and what they may have besides.
_DELTA = ("version", "base_version", "delta_encoding", "compression_format", "checksum_format")
_BESIDE = ("total_size",)
#: Bytes of tensors in one file of a full version or a delta.
_SHARD = 4 << 30

_NUMBERED = re.compile(r"model-([0-9]{5,})-of-([0-9]{5,})\.safetensors")


@dataclass(frozen=True)
class Index:
    """An index, checked.

    Attributes:
        folder: of the version, with a slash at the end.
        name: of the index.
        metadata: what it says of the version.
        weight_map: name of the tensor -> name of the file, without the folder.
        digest: SHA-256 of its bytes.
        rule: of SPEC.md, for errors.
    """

    folder: str
    name: str
    metadata: Mapping[str, Any]
    weight_map: Mapping[str, str]
    digest: str
    rule: str

    @property
    def is_delta(self) -> bool:
        """True for a delta."""
        return "delta_encoding" in self.metadata

    @property
    def files(self) -> list[str]:
        """The safetensors files, without the folder."""
        return sorted(set(self.weight_map.values()))


def read_index(source: Source, folder: str, *, rule: str, encodings: Sequence[str], checksums: Sequence[str]) -> Index:
    """The index of a version's folder.

    Args:
        folder: with a slash at the end.
        encodings, checksums: those that the format has.

    Raises:
        MissingError: there is none: the version was not committed.
        MalformedError: it breaks the format.
        UnsupportedError: an encoding, compression or checksum that the format does not have.
    """
    name = folder + INDEX
    try:
        document, digest = read_document(source, name, rule=rule)
    except MissingError:
        raise MissingError(
            "has no index: the version is not committed, though readers that take a folder without one for a full "
            "version would load it",
            object=folder.rstrip("/"),
            rule=rule,
            advice="Wait until its writer has ended; if it died, remove the folder and have the version written again.",
        ) from None
    metadata, weight_map = document.get("metadata", {}), document.get("weight_map")
    if not isinstance(metadata, dict) or not isinstance(weight_map, dict):
        raise malformed("has no weight map, or metadata that are no object", object=name, rule=rule)
    for tensor, file in weight_map.items():
        if not isinstance(file, str) or "/" in file or not is_path(file) or not file.endswith(SUFFIX):
            raise malformed(f"names the file {file!r} for tensor {tensor!r}", object=name, rule=rule)
    index = Index(folder, name, metadata, weight_map, digest, rule)
    _check_numbers(index)
    if index.is_delta:
        _check_delta(index, encodings, checksums)
    elif present := [key for key in _DELTA if key in metadata and key not in ("version", "checksum_format")]:
        raise malformed(f"has {present[0]!r} and no `delta_encoding`: neither a delta nor full", object=name, rule=rule)
    elif not weight_map:
        raise malformed("is the index of a full version without tensors", object=name, rule=rule)
    return index


def _check_delta(index: Index, encodings: Sequence[str], checksums: Sequence[str]) -> None:
    for key in _DELTA:
        if not isinstance(index.metadata.get(key), str):
            raise malformed(f"has no text {key!r} in its metadata", object=index.name, rule=index.rule)
    known = {
        "delta_encoding": list(encodings),
        "compression_format": ["zstd"],
        "checksum_format": list(checksums),
    }
    for key, values in known.items():
        if index.metadata[key] not in values:
            raise UnsupportedError(
                f"has {key} {index.metadata[key]!r}; this format has {' and '.join(values)}",
                object=index.name,
                rule=index.rule,
            )
    beside = sorted(set(index.metadata) - {*_DELTA, *_BESIDE})
    if beside:
        raise UnsupportedError(f"says {beside[0]!r}, which is not known", object=index.name, rule=index.rule)


def _check_numbers(index: Index) -> None:
    """Check that files that are numbered are all there: `model-00000-of-00002`, or counted from 1."""
    found = [_NUMBERED.fullmatch(file) for file in index.files]
    numbered = [(int(match[1]), int(match[2])) for match in found if match]
    if not numbered:
        return
    numbers, counts = sorted(number for number, _ in numbered), {count for _, count in numbered}
    if len(numbered) != len(found) or len(counts) != 1:
        raise malformed("names files of several sets", object=index.name, rule=index.rule)
    count = counts.pop()
    if numbers not in (list(range(count)), list(range(1, count + 1))):
        raise malformed(
            f"names {len(numbers)} of the {count} files that their names count", object=index.name, rule=index.rule
        )


def _check_names(index: Index, shard: Shard, file: str) -> None:
    """Check that a file has the tensors that the index says."""
    said = {tensor for tensor, each in index.weight_map.items() if each == file}
    held = shard.header.entries.keys()
    if said == held:
        return
    elsewhere = sorted(name for name in held - said if name in index.weight_map)
    if elsewhere:
        raise malformed(
            f"has tensor {elsewhere[0]!r}, which the index puts in {index.weight_map[elsewhere[0]]}: a replicated "
            "tensor that was published twice is taken back by readers that apply both",
            object=shard.name,
            rule=index.rule,
        )
    name = min(said ^ held)
    reason = f"lacks tensor {name!r}, which the index names" if name in said else f"has {name!r}, unknown to the index"
    raise malformed(reason, object=shard.name, rule=index.rule)


def _bytes(words: Words) -> Bytes:
    return words.view(np.uint8)


class Delta:
    """A delta whose index and files' headers were checked.

    Args:
        source: where it is.
        index: its index.
        present: names of all files in its folder that are known, without the folder.

    Raises:
        MissingError: a file is missing.
        MalformedError: a file has other tensors than the index says, or breaks the form of a delta.
        UnsupportedError: its folder holds files that the index does not name.
    """

    def __init__(self, source: Source, index: Index, present: Iterable[str]) -> None:
        self._source = source
        self.index = index
        check_installed(index.metadata["checksum_format"])
        _check_present(index, present)
        for file in index.files:
            with Shard(source, index.folder + file, rule=index.rule) as shard:
                _check_names(index, shard, file)
                self._check_entries(shard)

    def _check_entries(self, shard: Shard) -> None:
        digits = DIGITS[self.index.metadata["checksum_format"]]
        for name, entry in shard.header.entries.items():
            if entry.dtype != "U8" or len(entry.shape) != 1:
                raise malformed(
                    f"tensor {name!r} is {entry.dtype} {list(entry.shape)}, not one row of bytes",
                    object=shard.name,
                    rule=self.index.rule,
                )
            if not re.fullmatch(f"[0-9a-f]{{{digits}}}", shard.header.metadata.get(name, "")):
                raise malformed(f"has no checksum of tensor {name!r}", object=shard.name, rule=self.index.rule)

    def files(self) -> Mapping[str, bytes]:
        """See `Offer.files`."""
        return {}

    def apply(self, held: State) -> State:
        """See `Offer.apply`."""
        index, layout = self.index, held.layout
        encoding, algorithm = index.metadata["delta_encoding"], index.metadata["checksum_format"]
        words = [held.words(number) for number in range(len(layout))]
        for file in index.files:
            with Shard(self._source, index.folder + file, rule=index.rule) as shard:
                _check_names(index, shard, file)
                self._check_entries(shard)
                for name, payload in shard.tensors():
                    number = layout.index.get(name)
                    if number is None:
                        raise _unknown(name, shard.name, index.rule)
                    old = _bytes(words[number])
                    what = {"name": name, "object": shard.name, "rule": index.rule}
                    new = byte_deltas.decode(encoding, payload, old, **what)
                    byte_deltas.check_sum(algorithm, shard.header.metadata[name], new, **what)
                    words[number] = new.view(layout.tensors[number].kind.word)
        return State(layout, words)


def _unknown(name: str, object: str, rule: str) -> WrongBaseError:
    return WrongBaseError(
        f"changes tensor {name!r}, which the base does not have",
        object=object,
        rule=rule,
        advice="The format cannot add tensors: name the base that its writer began with.",
    )


def _check_present(index: Index, present: Iterable[str]) -> None:
    beside = sorted({name for name in present if name.endswith(SUFFIX)} - set(index.files))
    if beside:
        raise UnsupportedError(
            f"holds {beside[0]}, which the index does not name, and which some readers of this format apply",
            object=index.folder.rstrip("/"),
            rule=index.rule,
            advice="Find out which program wrote the file, and remove it or have the version written again.",
        )


class Full:
    """A full version whose index and files' headers were checked.

    Args, Raises: see `Delta`.
    """

    def __init__(self, source: Source, index: Index, present: Iterable[str]) -> None:
        self._source = source
        self.index = index
        self._beside = sorted(name for name in present if not name.endswith((SUFFIX, INDEX_SUFFIX)))
        algorithm = index.metadata.get("checksum_format")
        if algorithm is not None and algorithm not in DIGITS:
            raise UnsupportedError(f"has checksum_format {algorithm!r}", object=index.name, rule=index.rule)
        if algorithm is not None:
            check_installed(algorithm)
        self._algorithm: str | None = algorithm
        _check_present(index, present)
        tensors: list[Tensor] = []
        for file in index.files:
            with Shard(source, index.folder + file, rule=index.rule) as shard:
                _check_names(index, shard, file)
                tensors += shard.layout().tensors
        self._layout = Layout.of(tensors, object=index.name)
        total = index.metadata.get("total_size", self._layout.nbytes)
        if total != self._layout.nbytes:
            raise malformed(
                f"says {total!r} bytes, and its files have {self._layout.nbytes}", object=index.name, rule=index.rule
            )

    def files(self) -> Mapping[str, bytes]:
        """See `Offer.files`."""
        files = {name: read_bytes(self._source, self.index.folder + name) for name in self._beside}
        if files and self.index.files != [DEFAULT_SHARD]:  # so that a pulled folder has the same shards
            files[INDEX] = build_index(self.index.weight_map, self._layout.nbytes)
        return files

    def apply(self) -> State:
        """See `Offer.apply`."""
        index, layout = self.index, self._layout
        words: dict[str, Words] = {}
        for file in index.files:
            with Shard(self._source, index.folder + file, rule=index.rule) as shard:
                _check_names(index, shard, file)
                if any(layout.tensors[layout.index[each.name]] != each for each in shard.layout().tensors):
                    raise malformed("changed while it was read", object=shard.name, rule=index.rule)
                for name, raw in shard.tensors():
                    data = np.array(raw, np.uint8)
                    if self._algorithm is not None:
                        expected = shard.header.metadata.get(name, "")
                        byte_deltas.check_sum(
                            self._algorithm, expected, data, name=name, object=shard.name, rule=index.rule
                        )
                    words[name] = data.view(layout.tensors[layout.index[name]].kind.word)
        return State(layout, [words[tensor.name] for tensor in layout.tensors])


@dataclass(frozen=True)
class Indexed:
    """A version of such a folder; see `Offer`.

    Attributes:
        content: what its files hold.
    """

    id: str
    number: int | None
    base: str | None
    content: Delta | Full

    @property
    def document(self) -> str:
        return self.content.index.digest

    def files(self) -> Mapping[str, bytes]:
        return self.content.files()

    def apply(self, held: State | None) -> State:
        if isinstance(self.content, Full):
            return self.content.apply()
        assert held is not None
        return self.content.apply(held)


# -- writing -------------------------------------------------------------------------------------------------------


def _put_shards(
    target: Target,
    folder: str,
    tensors: Mapping[str, tuple[Tensor, Bytes]],
    metadata: Mapping[str, Mapping[str, str]],
    common: Mapping[str, str],
    first: int,
) -> dict[str, str]:
    """Write files of at most 4 GiB, or of one tensor; gives the weight map.

    Args:
        metadata: for each tensor what its file's metadata say.
        common: what all files' metadata say.
        first: the first file's number.
    """
    groups: list[list[str]] = []
    room = 0
    for name, (_, data) in tensors.items():
        if not groups or data.nbytes > room:
            groups.append([])
            room = _SHARD
        groups[-1].append(name)
        room -= data.nbytes
    weight_map: dict[str, str] = {}
    for number, names in enumerate(groups, first):
        file = f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        said = dict(common)
        for name in names:
            said.update(metadata.get(name, {}))
            weight_map[name] = file
        path = target.new_file()
        write_shard(path, {name: tensors[name] for name in names}, said)
        target.put_file(folder + file, path)
    return weight_map


def _marker(folder: str, metadata: Mapping[str, Any], weight_map: Mapping[str, str]) -> Marker:
    return Marker(folder + INDEX, json.dumps({"metadata": metadata, "weight_map": weight_map}).encode())


def write_delta(
    target: Target,
    folder: str,
    held: State,
    state: State,
    changed: Iterable[str],
    *,
    version: str,
    base: str,
    encoding: str,
    algorithm: str,
    rule: str,
) -> Marker:
    """Write the files of a delta, numbered from 0; gives its index.

    Args:
        folder: with a slash at the end.
        held, state: of the base and of the version, of one layout.
        changed: names of the tensors that may differ.

    Raises:
        UnsupportedError: a tensor is too large for the encoding.
    """
    tensors: dict[str, tuple[Tensor, Bytes]] = {}
    sums: dict[str, dict[str, str]] = {}
    for name in sorted(changed):
        number = state.layout.index[name]
        old, new = _bytes(held.words(number)), _bytes(state.words(number))
        payload = byte_deltas.encode(encoding, old, new, name=name, rule=rule)
        if payload is not None:
            tensors[name] = Tensor(name, "U8", (payload.size,)), payload
            sums[name] = {name: checksum(algorithm, new)}
    weight_map = _put_shards(target, folder, tensors, sums, {}, 0)
    metadata = {
        "version": version,
        "base_version": base,
        "delta_encoding": encoding,
        "compression_format": "zstd",
        "checksum_format": algorithm,
    }
    return _marker(folder, metadata, weight_map)


def write_full(
    target: Target,
    folder: str,
    state: State,
    files: Mapping[str, bytes],
    *,
    version: str | None,
    algorithm: str | None,
) -> Marker:
    """Write the files of a full version, numbered from 1; gives its index.

    Args:
        files: small files that belong beside the weights; weights and indices among them are left out.
        version: what the index says of its name, where the format's does.
        algorithm: of the checksums that the files' metadata hold; None for none.
    """
    for name, content in files.items():
        if not name.endswith((SUFFIX, INDEX_SUFFIX)):
            target.put(folder + name, content)
    tensors = {tensor.name: (tensor, _bytes(state.words(number))) for number, tensor in enumerate(state.layout.tensors)}
    sums = {} if algorithm is None else {name: {name: checksum(algorithm, data)} for name, (_, data) in tensors.items()}
    common = {} if "format" in tensors else {"format": "pt"}  # without which transformers refuses a file
    weight_map = _put_shards(target, folder, tensors, sums, common, 1)
    metadata: dict[str, Any] = {"total_size": state.layout.nbytes}
    if version is not None:
        metadata["version"] = version
    if algorithm is not None:
        metadata["checksum_format"] = algorithm
    return _marker(folder, metadata, weight_map)
