"""SkyRL's checkpoint deltas: `delta-{v:08d}/manifest.json` and the files of each rank (SPEC.md appendix C.5).

There are no full versions. Version 0 is the base model of trainer and engines, which SkyRL does not write: an import
names it, and an export writes it into the folder `base`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta

from ..errors import ConflictError, MissingError, UnsupportedError, WrongBaseError
from ..format.layout import Layout, Tensor
from ..format.names import is_path
from ..state.state import State
from ..stores import Store
from . import byte_deltas, weight_index
from .checksums import DIGITS, check_installed, checksum
from .format import Found, Marker, Offer, Source, Target
from .objects import Bytes, Shard, malformed, read_document, write_shard
from .weight_index import INDEX, Full, Indexed

_RULE = "appendix C.5"
_MANIFEST = "manifest.json"
_BASE, _BASE_ID = "base/", "0"
_FOLDER = re.compile(r"delta-([0-9]{8,})/([^/]+)")
_CHECKSUMS = ("xxh3-128", "sha256")
#: Bytes of payloads in one file, as SkyRL's writer has them by default.
_FILE = 1 << 30

#: The dtypes of the manifest, which are torch's names.
_DTYPES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "I16": "int16",
    "I32": "int32",
    "I64": "int64",
    "U16": "uint16",
    "U32": "uint32",
    "U64": "uint64",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
}

_Count = Annotated[int, Meta(ge=0)]


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a manifest says of one changed tensor."""

    name: str
    dtype: str
    shape: list[_Count]
    uncompressed_num_bytes: _Count
    compressed_num_bytes: _Count
    payload_file: str
    payload_key: str
    checksum: str
    checksum_algorithm: str = "xxh3-128"


class _Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What makes a version."""

    version: _Count
    base_version: _Count
    tensors: list[_Record]
    total_uncompressed_num_bytes: _Count
    total_compressed_num_bytes: _Count
    payload_files: list[str]


def _folder(id: str) -> str:
    return _BASE if id == _BASE_ID else f"delta-{int(id):08d}/"


class _Delta:
    """A version of this format, whose manifest and files' headers were checked."""

    def __init__(self, source: Source, manifest: _Manifest, document: str, present: Collection[str]) -> None:
        self._source = source
        self._manifest = manifest
        self.id, self.number = str(manifest.version), manifest.version
        self.base = str(manifest.base_version)
        self.document = document
        self._folder = _folder(self.id)
        self._name = self._folder + _MANIFEST
        self._records = {(each.payload_file, each.payload_key): each for each in manifest.tensors}
        self._check(present)

    def _fault(self, reason: str, object: str | None = None) -> Exception:
        return malformed(reason, object=object or self._name, rule=_RULE)

    def _check(self, present: Collection[str]) -> None:
        manifest, records = self._manifest, self._manifest.tensors
        names = [each.name for each in records]
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise self._fault(f"has tensor {twice!r} twice: readers that apply both take a change back")
        if len(self._records) != len(records):
            raise self._fault("names one payload for two tensors")
        totals = (
            sum(each.uncompressed_num_bytes for each in records),
            sum(each.compressed_num_bytes for each in records),
        )
        if totals != (manifest.total_uncompressed_num_bytes, manifest.total_compressed_num_bytes):
            raise self._fault("has totals that are not the sums of its tensors")
        files = {each.payload_file for each in records}
        if len(set(manifest.payload_files)) != len(manifest.payload_files) or set(manifest.payload_files) != files:
            raise self._fault("lists other files than its tensors name")
        for file in sorted(files):
            if "/" in file or not is_path(file) or not file.endswith(".safetensors"):
                raise self._fault(f"names the file {file!r}")
        beside = sorted({name for name in present if name.endswith(".safetensors")} - files)
        if beside:
            raise self._fault(f"does not name {beside[0]}, which lies beside it")
        for each in records:
            if each.checksum_algorithm not in _CHECKSUMS:
                raise UnsupportedError(
                    f"has the checksum {each.checksum_algorithm!r} of tensor {each.name!r}",
                    object=self._name,
                    rule=_RULE,
                )
            if not re.fullmatch(f"[0-9a-f]{{{DIGITS[each.checksum_algorithm]}}}", each.checksum):
                raise self._fault(f"has no checksum of tensor {each.name!r}")
        for algorithm in {each.checksum_algorithm for each in records}:
            check_installed(algorithm)
        for file in sorted(files):
            with Shard(self._source, self._folder + file, rule=_RULE) as shard:
                self._check_shard(shard, file)

    def _check_shard(self, shard: Shard, file: str) -> None:
        said = {key: each for (name, key), each in self._records.items() if name == file}
        if said.keys() != shard.header.entries.keys():
            key = min(said.keys() ^ shard.header.entries.keys())
            reason = f"lacks {key!r}, which the manifest names" if key in said else f"has {key!r}, which it does not"
            raise self._fault(reason, shard.name)
        for key, entry in shard.header.entries.items():
            if entry.dtype != "U8" or entry.shape != (said[key].compressed_num_bytes,):
                raise self._fault(f"{key!r} is {entry.dtype} {list(entry.shape)}, not as its manifest says", shard.name)

    def files(self) -> Mapping[str, bytes]:
        return {}

    def apply(self, held: State | None) -> State:
        assert held is not None
        layout = held.layout
        words = [held.words(number) for number in range(len(layout))]
        for record in self._manifest.tensors:
            number = layout.index.get(record.name)
            tensor = None if number is None else layout.tensors[number]
            said = record.dtype, tuple(record.shape), record.uncompressed_num_bytes
            if tensor is None or (_DTYPES.get(tensor.dtype), tensor.shape, tensor.nbytes) != said:
                has = "no such tensor" if tensor is None else f"{tensor.dtype} {list(tensor.shape)}"
                raise WrongBaseError(
                    f"changes tensor {record.name!r} as {record.dtype} {record.shape}, and the base has {has}",
                    object=self._name,
                    rule=_RULE,
                    advice="The format cannot add or retype tensors: name the base that its writer began with.",
                )
        for file in sorted(set(self._manifest.payload_files)):
            with Shard(self._source, self._folder + file, rule=_RULE) as shard:
                self._check_shard(shard, file)
                for key, payload in shard.tensors():
                    record = self._records[file, key]
                    number = layout.index[record.name]
                    what = {"name": record.name, "object": shard.name, "rule": _RULE}
                    new = byte_deltas.decode(byte_deltas.XOR, payload, words[number].view(np.uint8), **what)
                    byte_deltas.check_sum(record.checksum_algorithm, record.checksum, new, **what)
                    words[number] = new.view(layout.tensors[number].kind.word)
        return State(layout, words)


class SkyRL:
    """The format of SkyRL; see `Format`."""

    name = "skyrl"
    appendix = _RULE
    unproven = (
        "tensors that a delta does not name, so the base as a whole",
        "which run a folder belongs to",
    )

    def find(self, store: Store, after: str | None, begin: str | None) -> Found:
        files: dict[str, set[str]] = {}
        base: set[str] = set()
        for name in store.names(""):
            match = _FOLDER.fullmatch(name)
            if match:
                files.setdefault(match[1], set()).add(match[2])
            elif name.startswith(_BASE):
                base.add(name.removeprefix(_BASE))
        folders = sorted(files, key=int)
        if any(folder != f"{int(folder):08d}" for folder in folders):
            raise malformed("has a folder whose number is not of eight digits", object=store.address, rule=_RULE)
        if after is not None and folders and int(folders[-1]) < int(after):
            raise ConflictError(
                f"ends with version {int(folders[-1])}, and {after} was imported: another run has taken the folder",
                object=store.address,
                rule=_RULE,
                advice="Import that run into a chain of its own.",
            )
        offers: list[Offer] = []
        if after is None and INDEX in base:
            offers.append(self._base(store, base))
            after = _BASE_ID
        if after is None and folders:
            raise MissingError(
                "has deltas alone, as this format does",
                object=store.address,
                rule=_RULE,
                advice="Name the model that trainer and engines began with by --base; it is version 0.",
            )
        for folder in folders:
            if int(folder) <= int(after or 0):
                continue
            if _MANIFEST not in files[folder]:
                fault = MissingError(
                    "has no manifest: the version is not committed",
                    object=f"delta-{folder}",
                    rule=_RULE,
                    advice="Wait until its writer has ended; if it died, remove the folder.",
                )
                if folder != folders[-1]:
                    raise fault
                return Found(offers, fault)
            delta = self._open(store, str(int(folder)), files[folder])
            if delta.base != after:
                raise WrongBaseError(
                    f"is a delta to version {delta.base}, and the version before it is {after}",
                    object=f"delta-{folder}/{_MANIFEST}",
                    rule=_RULE,
                    advice="A version between them is gone, and this format has no full versions: import again from "
                    "a folder that has all of them.",
                )
            offers.append(delta)
            after = delta.id
        return Found(offers)

    def offer(self, source: Source, id: str) -> Offer:
        return self._base(source, ()) if id == _BASE_ID else self._open(source, id, ())

    def _base(self, source: Source, present: Collection[str]) -> Indexed:
        index = weight_index.read_index(source, _BASE, rule=_RULE, encodings=(), checksums=())
        return Indexed(_BASE_ID, 0, None, Full(source, index, present))

    def _open(self, source: Source, id: str, present: Collection[str]) -> _Delta:
        name = _folder(id) + _MANIFEST
        try:
            document, digest = read_document(source, name, rule=_RULE)
        except MissingError:
            raise MissingError("has no manifest", object=_folder(id).rstrip("/"), rule=_RULE) from None
        for each in document.get("tensors", ()) if isinstance(document.get("tensors"), list) else ():
            if isinstance(each, dict) and "checksum" not in each and "sha256" in each:  # as it was written at first
                each["checksum"], each["checksum_algorithm"] = each.pop("sha256"), "sha256"
        try:
            manifest = msgspec.convert(document, _Manifest)
        except msgspec.ValidationError as error:
            raise malformed(f"is no manifest: {error}", object=name, rule=_RULE) from None
        if str(manifest.version) != id:
            raise malformed(f"says that it is version {manifest.version}", object=name, rule=_RULE)
        return _Delta(source, manifest, digest, present)

    def first_base(self) -> str:
        return _BASE_ID

    # -- writing --------------------------------------------------------------------------------------------------

    def name_after(self, id: str | None, version: int, imported: str | None) -> str:
        return _BASE_ID if id is None else str(int(id) + 1)

    def marker_names(self, id: str) -> tuple[str]:
        return (_folder(id) + (INDEX if id == _BASE_ID else _MANIFEST),)

    def folder(self, id: str) -> str:
        return _folder(id)

    def wants_full(self, id: str, held: State, state: State) -> bool:
        if held.layout != state.layout:
            raise UnsupportedError(
                "the tensors are others than those of the version before, and this format has no full versions",
                object="skyrl",
                rule=_RULE,
                advice="Export into another place, beginning with this version (--from).",
            )
        return False

    def full(self, target: Target, id: str, state: State, files: Mapping[str, bytes]) -> Marker:
        self._check_dtypes(state.layout)
        return weight_index.write_full(target, _BASE, state, files, version=None, algorithm=None)

    def _check_dtypes(self, layout: Layout) -> None:
        for tensor in layout.tensors:
            if tensor.dtype not in _DTYPES:
                raise UnsupportedError(
                    f"tensor {tensor.name!r} is {tensor.dtype}, which this format does not have",
                    object="skyrl",
                    rule=_RULE,
                    advice="Choose another format.",
                )

    def delta(self, target: Target, id: str, base: str, held: State, state: State, changed: Iterable[str]) -> Marker:
        folder = _folder(id)
        files: list[dict[str, tuple[Tensor, Bytes]]] = []
        records: list[dict[str, Any]] = []
        room = 0
        for name in sorted(changed):
            number = state.layout.index[name]
            tensor = state.layout.tensors[number]
            old, new = held.words(number).view(np.uint8), state.words(number).view(np.uint8)
            payload = byte_deltas.encode(byte_deltas.XOR, old, new, name=name, rule=_RULE)
            if payload is None:
                continue
            if not files or payload.size > room:
                files.append({})
                room = _FILE
            files[-1][name] = Tensor(name, "U8", (payload.size,)), payload
            room -= payload.size
            records.append(
                {
                    "name": name,
                    "dtype": _DTYPES[tensor.dtype],
                    "shape": list(tensor.shape),
                    "uncompressed_num_bytes": new.size,
                    "compressed_num_bytes": payload.size,
                    "payload_file": _file(len(files) - 1),
                    "payload_key": name,
                    "checksum": checksum("xxh3-128", new),
                    "checksum_algorithm": "xxh3-128",
                }
            )
        for number, tensors in enumerate(files):
            path = target.new_file()
            write_shard(path, tensors, {})
            target.put_file(folder + _file(number), path)
        manifest = {
            "version": int(id),
            "base_version": int(base),
            "tensors": records,
            "total_uncompressed_num_bytes": sum(each["uncompressed_num_bytes"] for each in records),
            "total_compressed_num_bytes": sum(each["compressed_num_bytes"] for each in records),
            "payload_files": [_file(number) for number in range(len(files))],
        }
        return Marker(folder + _MANIFEST, json.dumps(manifest).encode())


def _file(number: int) -> str:
    return f"delta-rank{0:05d}-file{number:06d}.safetensors"
