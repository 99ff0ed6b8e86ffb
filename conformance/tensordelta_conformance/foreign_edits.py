"""How sound folders of other projects' weight deltas are broken: one fault each, at one version."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Files = dict[str, bytes]


@dataclass(frozen=True)
class Edit:
    """A folder that is broken.

    Attributes:
        id: the case's name.
        of: the sound case.
        version: the name of the version that must be refused.
        title: what is wrong.
        apply: breaks the files.
    """

    id: str
    of: str
    version: str
    title: str
    apply: Callable[[Files], None]


# -- safetensors files, and JSON documents -------------------------------------------------------------------------


def read_shard(data: bytes) -> tuple[dict[str, Any], bytes]:
    """The header of a safetensors file, and its buffer."""
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def write_shard(header: dict[str, Any], buffer: bytes) -> bytes:
    """A safetensors file of a header and a buffer."""
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + buffer


def replace_tensor(data: bytes, name: str, content: bytes, **entry: Any) -> bytes:
    """A safetensors file in which one tensor has other bytes; by default one row of bytes."""
    header, buffer = read_shard(data)
    metadata = header.pop("__metadata__", None)
    order = sorted(header, key=lambda each: header[each]["data_offsets"])
    built, at, made = b"", 0, {}
    for each in order:
        begin, end = header[each]["data_offsets"]
        part = content if each == name else buffer[begin:end]
        changed = {"shape": [len(part)], **entry} if each == name else {}
        made[each] = {**header[each], **changed, "data_offsets": [at, at + len(part)]}
        built, at = built + part, at + len(part)
    return write_shard(made if metadata is None else {"__metadata__": metadata, **made}, built)


def tensor(data: bytes, name: str) -> bytes:
    """A tensor's bytes in a safetensors file."""
    header, buffer = read_shard(data)
    begin, end = header[name]["data_offsets"]
    return buffer[begin:end]


def _json(name: str, change: Callable[[dict[str, Any]], object]) -> Callable[[Files], None]:
    def apply(files: Files) -> None:
        document = json.loads(files[name])
        change(document)
        files[name] = json.dumps(document).encode()

    return apply


def _bytes(name: str, change: Callable[[bytes], bytes]) -> Callable[[Files], None]:
    def apply(files: Files) -> None:
        files[name] = change(files[name])

    return apply


def _header(name: str, change: Callable[[dict[str, Any]], object]) -> Callable[[Files], None]:
    def changed(data: bytes) -> bytes:
        header, buffer = read_shard(data)
        change(header)
        return write_shard(header, buffer)

    return _bytes(name, changed)


def _frame(name: str, entry: str, change: Callable[[bytes], bytes]) -> Callable[[Files], None]:
    """Change a compressed tensor as it lies there."""
    return _bytes(name, lambda data: replace_tensor(data, entry, change(tensor(data, entry))))


def _content(name: str, entry: str, change: Callable[[bytes], bytes]) -> Callable[[Files], None]:
    """Change what a compressed tensor decompresses to."""
    return _frame(name, entry, lambda frame: zstd.compress(change(zstd.decompress(frame)), 1))


def _remove(*names: str) -> Callable[[Files], None]:
    def apply(files: Files) -> None:
        for name in names:
            del files[name]

    return apply


def _rename(old: str, new: str) -> Callable[[Files], None]:
    def apply(files: Files) -> None:
        for name in [name for name in files if name.startswith(old)]:
            files[new + name.removeprefix(old)] = files.pop(name)

    return apply


def _put(key: str, value: Any, *path: str) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        for each in path:
            document = document[each]
        document[key] = value

    return change


def _drop(key: str, *path: str) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        for each in path:
            document = document[each]
        del document[key]

    return change


# -- the family of slime -------------------------------------------------------------------------------------------

_UP, _EMBED, _NORM = "model.layers.0.mlp.up_proj.weight", "model.embed_tokens.weight", "model.norm.weight"
_INDEX = "model.safetensors.index.json"
_TWO = "model-00000-of-00002.safetensors", "model-00001-of-00002.safetensors"


def _swapped(content: bytes) -> bytes:
    """An overwrite whose first two positions are exchanged, and their values."""
    count = int.from_bytes(content[:4], "little")
    at, new = (
        np.frombuffer(content[4 : 4 + 4 * count], "<u4").copy(),
        np.frombuffer(content[4 + 4 * count :], "u1").copy(),
    )
    at[[0, 1]], new[[0, 1]] = at[[1, 0]], new[[1, 0]]
    return content[:4] + at.tobytes() + new.tobytes()


def _with_last_position(value: int) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        count = int.from_bytes(content[:4], "little")
        return content[: 4 * count] + value.to_bytes(4, "little") + content[4 + 4 * count :]

    return change


def _index_edits(prefix: str, of: str, folder: str, version: str, before: str) -> list[Edit]:
    """Faults that an index, a file's header or a frame can have, in slime and ModelExpress alike."""
    index, first, second = f"{folder}/{_INDEX}", f"{folder}/{_TWO[0]}", f"{folder}/{_TWO[1]}"
    rows: list[tuple[str, str, Callable[[Files], None]]] = [
        ("no-file", "the index names a file that is not there", _remove(second)),
        ("cut-file", "a file ends before its tensors", _bytes(first, lambda data: data[:-9])),
        ("long-file", "something follows a file's tensors", _bytes(first, lambda data: data + b"\0")),
        ("path-up", "the index names a file above the folder", _json(index, _put(_UP, f"../{_TWO[1]}", "weight_map"))),
        (
            "path-root",
            "the index names a file by its path from the root",
            _json(index, _put(_UP, "/x.safetensors", "weight_map")),
        ),
        ("path-other", "the index names a file of another kind", _json(index, _put(_UP, "config.json", "weight_map"))),
        (
            "numbering",
            "the index names one of two files that their names count",
            _json(
                index,
                lambda document: document.update(
                    weight_map={name: file for name, file in document["weight_map"].items() if file == _TWO[0]}
                ),
            ),
        ),
        ("renumbered", "files are numbered 0 and 7 of 2", lambda files: _renumber(files, folder)),
        ("map-lacks", "the index lacks a tensor of its files", _json(index, _drop(_UP, "weight_map"))),
        ("map-more", "the index names a tensor that its file lacks", _json(index, _put("x", _TWO[0], "weight_map"))),
        ("map-swapped", "the index puts a tensor in the other file", lambda files: _swap_file(files, index)),
        ("map-list", "the weight map is a list", _json(index, _put("weight_map", []))),
        ("map-none", "the index has no weight map", _json(index, _drop("weight_map"))),
        ("no-json", "the index is no JSON", _bytes(index, lambda data: data[:-1])),
        (
            "key-twice",
            "the index has a key twice",
            _bytes(index, lambda data: data.replace(b'"zstd"', b'"zstd", "compression_format": "zstd"')),
        ),
        (
            "stray-file",
            "a file lies in the folder that the index does not name",
            lambda files: files.update({f"{folder}/model-extra.safetensors": files[first]}),
        ),
        (
            "no-encoding",
            "the index does not say that it is a delta: the folder reads as a full version",
            _json(index, _drop("delta_encoding", "metadata")),
        ),
        (
            "encoding",
            "an encoding that the format does not have",
            _json(index, _put("delta_encoding", "add", "metadata")),
        ),
        (
            "compression",
            "a compression that the format does not have",
            _json(index, _put("compression_format", "lz4", "metadata")),
        ),
        (
            "checksum-format",
            "a checksum that the format does not have",
            _json(index, _put("checksum_format", "crc32", "metadata")),
        ),
        ("no-base", "a delta without a base", _json(index, _drop("base_version", "metadata"))),
        ("base-itself", "a delta to itself", _json(index, _put("base_version", version, "metadata"))),
        ("base-number", "the base is a number, not a text", _json(index, _put("base_version", 1, "metadata"))),
        ("no-checksum", "a tensor without a checksum", _header(second, _drop(_UP, "__metadata__"))),
        (
            "checksum-short",
            "a checksum that lacks a digit",
            _header(second, lambda header: _put(_UP, header["__metadata__"][_UP][1:], "__metadata__")(header)),
        ),
        (
            "checksum-upper",
            "a checksum in upper case",
            _header(
                second, lambda header: _put(_UP, "ABCDEF01" + header["__metadata__"][_UP][8:], "__metadata__")(header)
            ),
        ),
        (
            "checksum-wrong",
            "a checksum of another tensor",
            _header(second, lambda header: _put(_UP, _other(header["__metadata__"][_UP]), "__metadata__")(header)),
        ),
        ("dtype", "a compressed tensor that is I8", _header(second, _put("dtype", "I8", _UP))),
        (
            "two-dimensional",
            "a compressed tensor of two dimensions",
            _header(second, lambda header: _put("shape", [1, *header[_UP]["shape"]], _UP)(header)),
        ),
        (
            "offsets",
            "tensors that do not cover their file",
            _header(second, lambda header: _put("data_offsets", [0, header[_UP]["data_offsets"][1] - 1], _UP)(header)),
        ),
        (
            "header-long",
            "a header that is longer than its file",
            _bytes(second, lambda data: (1 << 40).to_bytes(8, "little") + data[8:]),
        ),
        ("frame-cut", "a frame that is cut short", _frame(second, _UP, lambda frame: frame[:-3])),
        ("frame-more", "bytes after a frame", _frame(second, _UP, lambda frame: frame + b"\0")),
        ("frame-twice", "a second frame after the first", _frame(second, _UP, lambda frame: frame + frame)),
        ("frame-none", "no frame", _frame(second, _UP, lambda frame: b"\0" * len(frame))),
        (
            "frame-skip",
            "a skippable frame before the frame",
            _frame(second, _UP, lambda frame: b"\x50\x2a\x4d\x18\x01\0\0\0x" + frame),
        ),
        ("content-short", "a delta that is shorter than its tensor", _content(second, _UP, lambda data: data[:-1])),
        ("content-long", "a delta that is longer than its tensor", _content(second, _UP, lambda data: data + b"\0")),
        (
            "content-bit",
            "a delta with one other bit",
            _content(second, _UP, lambda data: bytes([data[0] ^ 1]) + data[1:]),
        ),
        (
            "unknown-tensor",
            "a tensor that the base does not have",
            lambda files: _rename_tensor(files, folder, _UP, "model.unknown.weight"),
        ),
    ]
    return [Edit(f"{prefix}-{name}", of, version, title, apply) for name, title, apply in rows]


def _other(checksum: str) -> str:
    return checksum[:-1] + ("0" if checksum[-1] != "0" else "1")


def _renumber(files: Files, folder: str) -> None:
    index = f"{folder}/{_INDEX}"
    renamed = "model-00007-of-00002.safetensors"
    files[f"{folder}/{renamed}"] = files.pop(f"{folder}/{_TWO[1]}")
    files[index] = files[index].replace(_TWO[1].encode(), renamed.encode())


def _swap_file(files: Files, index: str) -> None:
    document = json.loads(files[index])
    weight_map = document["weight_map"]
    weight_map[_UP] = _TWO[0] if weight_map[_UP] == _TWO[1] else _TWO[1]
    files[index] = json.dumps(document).encode()


def _rename_tensor(files: Files, folder: str, old: str, new: str) -> None:
    for name in [name for name in files if name.startswith(f"{folder}/")]:
        if name.endswith(".json"):
            files[name] = files[name].replace(f'"{old}"'.encode(), f'"{new}"'.encode())
            continue
        header, buffer = read_shard(files[name])
        metadata = {new if key == old else key: value for key, value in header.pop("__metadata__", {}).items()}
        renamed = {new if key == old else key: value for key, value in header.items()}
        files[name] = write_shard({"__metadata__": metadata, **renamed}, buffer)


_SLIME_2, _OVER_2 = "weight_v000002", "weight_v000002"
_SLIME = [
    *_index_edits("slime", "slime-xor", _SLIME_2, "000002", "000001"),
    Edit(
        "slime-uncommitted",
        "slime-xor",
        "000003",
        "the last version has files and no index: it reads as a full version",
        _remove(f"weight_v000003/{_INDEX}"),
    ),
    Edit(
        "slime-uncommitted-amid",
        "slime-xor",
        "000002",
        "a version before the last has no index",
        _remove(f"weight_v000002/{_INDEX}"),
    ),
    Edit(
        "slime-gap",
        "slime-xor",
        "000002",
        "a version is gone",
        lambda files: _remove(*[name for name in files if name.startswith("weight_v000002/")])(files),
    ),
    Edit(
        "slime-other-base",
        "slime-xor",
        "000003",
        "the base is not the version before",
        _json(f"weight_v000003/{_INDEX}", _put("base_version", "000001", "metadata")),
    ),
    Edit(
        "slime-other-name",
        "slime-xor",
        "000003",
        "the folder has another number than the index says",
        _rename("weight_v000003/", "weight_v000004/"),
    ),
    Edit(
        "slime-two-folders",
        "slime-xor",
        "000002",
        "two folders of one number",
        lambda files: files.update(
            {
                name.replace("weight_v000002/", "weight_v0000002/"): data
                for name, data in files.items()
                if name.startswith("weight_v000002/")
            }
        ),
    ),
    Edit(
        "slime-base-text",
        "slime-xor",
        "000002",
        "a base that is no number",
        _json(f"weight_v000002/{_INDEX}", _put("base_version", "one", "metadata")),
    ),
    *(
        Edit(
            f"slime-overwrite-{name}", "slime-overwrite", "000002", title, _content(f"{_OVER_2}/{_TWO[1]}", _UP, change)
        )
        for name, title, change in (
            ("count-more", "an overwrite that names more positions than it has", lambda data: b"\xff\0\0\0" + data[4:]),
            ("count-less", "an overwrite that names fewer positions than it has", lambda data: b"\1\0\0\0" + data[4:]),
            ("count-huge", "an overwrite that names 2^32 - 1 positions", lambda data: b"\xff\xff\xff\xff" + data[4:]),
            ("empty", "an overwrite without a count", lambda data: b"\0"),
            ("beyond", "a position behind the tensor", _with_last_position(24 * 8 * 2)),
            ("far-beyond", "a position at the end of 32 bits", _with_last_position(2**32 - 1)),
            ("descending", "positions that do not ascend", _swapped),
            ("equal", "a position twice", lambda data: data[:8] + data[4:8] + data[12:]),
            ("value", "a new byte that is another one", lambda data: data[:-1] + bytes([data[-1] ^ 64])),
        )
    ),
    Edit(
        "slime-xor-as-overwrite",
        "slime-xor",
        "000002",
        "an xor that says it is an overwrite",
        _json(f"weight_v000002/{_INDEX}", _put("delta_encoding", "overwrite", "metadata")),
    ),
    Edit(
        "slime-overwrite-as-xor",
        "slime-overwrite",
        "000002",
        "an overwrite that says it is an xor",
        _json(f"weight_v000002/{_INDEX}", _put("delta_encoding", "xor", "metadata")),
    ),
]


# -- ModelExpress --------------------------------------------------------------------------------------------------


def _fork(files: Files) -> None:
    for name in [name for name in files if name.startswith("rel-2/")]:
        files[name.replace("rel-2/", "rel-2b/")] = files[name]
    files[f"rel-2b/{_INDEX}"] = files[f"rel-2/{_INDEX}"].replace(b'"rel-2"', b'"rel-2b"')


_FULL = "rel-3"
_FULL_TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
_MODELEXPRESS = [
    *_index_edits("modelexpress", "modelexpress", "rel-2", "rel-2", "rel-1"),
    Edit(
        "modelexpress-overwrite",
        "modelexpress",
        "rel-2",
        "the encoding overwrite, which ModelExpress does not have",
        _json(f"rel-2/{_INDEX}", _put("delta_encoding", "overwrite", "metadata")),
    ),
    Edit(
        "modelexpress-xxh3",
        "modelexpress",
        "rel-2",
        "the checksum xxh3-128, which ModelExpress does not have",
        _json(f"rel-2/{_INDEX}", _put("checksum_format", "xxh3-128", "metadata")),
    ),
    Edit("modelexpress-fork", "modelexpress", "rel-2", "two deltas to one version", _fork),
    Edit(
        "modelexpress-two-names",
        "modelexpress",
        "rel-2",
        "two folders of one version",
        lambda files: files.update(
            {name.replace("rel-2/", "copy/"): data for name, data in files.items() if name.startswith("rel-2/")}
        ),
    ),
    Edit(
        "modelexpress-gone",
        "modelexpress",
        "rel-4",
        "the version is gone to which a delta leads from the full one",
        lambda files: _remove(*[name for name in files if name.startswith("rel-4/")])(files),
    ),
    Edit(
        "modelexpress-blank",
        "modelexpress",
        "rel-2",
        "a blank name",
        _json(f"rel-2/{_INDEX}", _put("version", " ", "metadata")),
    ),
    Edit(
        "modelexpress-full-bit",
        "modelexpress",
        _FULL,
        "a full version with one other bit",
        _bytes(f"{_FULL}/{_FULL_TWO[0]}", lambda data: data[:-1] + bytes([data[-1] ^ 1])),
    ),
    Edit(
        "modelexpress-full-no-checksum",
        "modelexpress",
        _FULL,
        "a full version that lacks a checksum which its index promises",
        _header(f"{_FULL}/{_FULL_TWO[0]}", _drop(_EMBED, "__metadata__")),
    ),
    Edit(
        "modelexpress-full-size",
        "modelexpress",
        _FULL,
        "a full version of another size than it says",
        _json(f"{_FULL}/{_INDEX}", _put("total_size", 1, "metadata")),
    ),
    Edit(
        "modelexpress-full-empty",
        "modelexpress",
        _FULL,
        "a full version without tensors",
        _json(f"{_FULL}/{_INDEX}", _put("weight_map", {})),
    ),
    Edit(
        "modelexpress-full-dtype",
        "modelexpress",
        _FULL,
        "a full version with a dtype that no checkpoint has",
        _header(f"{_FULL}/{_FULL_TWO[0]}", _put("dtype", "BF17", _EMBED)),
    ),
]


# -- SkyRL ---------------------------------------------------------------------------------------------------------

_DELTA = "delta-00000002"
_MANIFEST = f"{_DELTA}/manifest.json"
_FILE_0, _FILE_1 = (f"{_DELTA}/delta-rank00000-file{number:06d}.safetensors" for number in range(2))


def _record(change: Callable[[dict[str, Any]], object], name: str = _UP) -> Callable[[Files], None]:
    """Change what the manifest says of one tensor."""
    return _json(_MANIFEST, lambda document: change(next(each for each in document["tensors"] if each["name"] == name)))


def _payload(change: Callable[[bytes], bytes]) -> Callable[[Files], None]:
    """Change one compressed tensor, and what the manifest says of its size."""

    def apply(files: Files) -> None:
        document = json.loads(files[_MANIFEST])
        record = next(each for each in document["tensors"] if each["name"] == _UP)
        file = f"{_DELTA}/{record['payload_file']}"
        frame = change(tensor(files[file], _UP))
        files[file] = replace_tensor(files[file], _UP, frame)
        document["total_compressed_num_bytes"] += len(frame) - record["compressed_num_bytes"]
        record["compressed_num_bytes"] = len(frame)
        files[_MANIFEST] = json.dumps(document).encode()

    return apply


def _unpacked(change: Callable[[bytes], bytes]) -> Callable[[Files], None]:
    return _payload(lambda frame: zstd.compress(change(zstd.decompress(frame)), 1))


def _twice(document: dict[str, Any]) -> None:
    record = next(each for each in document["tensors"] if each["name"] == _UP)
    document["tensors"].append(dict(record))
    for key in ("uncompressed_num_bytes", "compressed_num_bytes"):
        document[f"total_{key}"] += record[key]


_SKYRL = [
    Edit(f"skyrl-{name}", "skyrl-files", version, title, apply)
    for name, version, title, apply in (
        ("uncommitted", "3", "the last version has files and no manifest", _remove("delta-00000003/manifest.json")),
        ("uncommitted-amid", "2", "a version before the last has no manifest", _remove(_MANIFEST)),
        (
            "gap",
            "2",
            "a version is gone",
            lambda files: _remove(*[name for name in files if name.startswith(_DELTA)])(files),
        ),
        (
            "other-name",
            "3",
            "the folder has another number than the manifest says",
            _rename("delta-00000003/", "delta-00000004/"),
        ),
        ("other-base", "2", "the base is not the version before", _json(_MANIFEST, _put("base_version", 0))),
        ("base-text", "2", "the base is a text", _json(_MANIFEST, _put("base_version", "1"))),
        ("negative", "2", "a version of a negative number", _json(_MANIFEST, _put("version", -2))),
        ("no-file", "2", "a file is not there", _remove(_FILE_1)),
        (
            "stray-file",
            "2",
            "a file that the manifest does not name",
            lambda files: files.update({f"{_DELTA}/delta-rank00001-file000000.safetensors": files[_FILE_0]}),
        ),
        (
            "files-more",
            "2",
            "payload files that no tensor names",
            _json(
                _MANIFEST, lambda document: document["payload_files"].append("delta-rank00007-file000000.safetensors")
            ),
        ),
        (
            "files-less",
            "2",
            "a tensor's file is not among the payload files",
            _json(_MANIFEST, lambda document: document["payload_files"].pop()),
        ),
        (
            "files-twice",
            "2",
            "a payload file twice",
            _json(_MANIFEST, lambda document: document["payload_files"].append(document["payload_files"][0])),
        ),
        (
            "path-up",
            "2",
            "a file above the folder",
            lambda files: files.update(
                {_MANIFEST: files[_MANIFEST].replace(b'"delta-rank00000-file000000', b'"../delta-rank00000-file000000')}
            ),
        ),
        ("twice", "2", "a tensor twice: applied twice it is taken back", _json(_MANIFEST, _twice)),
        ("total", "2", "a total that is not the sum", _json(_MANIFEST, _put("total_compressed_num_bytes", 1))),
        (
            "total-raw",
            "2",
            "a total of tensors that is not the sum",
            _json(_MANIFEST, _put("total_uncompressed_num_bytes", 1)),
        ),
        ("dtype", "2", "another dtype than the base has", _record(_put("dtype", "float16"))),
        ("shape", "2", "another shape than the base has", _record(_put("shape", [8, 24]))),
        ("rank", "2", "a shape of another rank", _record(_put("shape", [192]))),
        ("size", "2", "another size than the base has", _json(_MANIFEST, lambda document: _resize(document))),
        ("key", "2", "a payload under another key", _record(_put("payload_key", "x"))),
        ("key-other", "2", "two tensors with one payload", lambda files: _share_payload(files)),
        (
            "compressed-size",
            "2",
            "a payload of another size than the manifest says",
            _json(_MANIFEST, lambda document: _recompress(document)),
        ),
        ("algorithm", "2", "a checksum that the format does not have", _record(_put("checksum_algorithm", "crc32"))),
        (
            "checksum-wrong",
            "2",
            "a checksum of another tensor",
            _record(lambda record: record.update(checksum=_other(record["checksum"]))),
        ),
        (
            "checksum-short",
            "2",
            "a checksum that lacks a digit",
            _record(lambda record: record.update(checksum=record["checksum"][1:])),
        ),
        ("checksum-none", "2", "no checksum", _record(_drop("checksum"))),
        (
            "checksum-sha256",
            "2",
            "a SHA-256 of something else",
            _record(
                lambda record: record.update(checksum=hashlib.sha256(b"").hexdigest(), checksum_algorithm="sha256")
            ),
        ),
        ("field", "2", "a field that is not known", _json(_MANIFEST, _put("layout", "x"))),
        ("field-record", "2", "a field of a tensor that is not known", _record(_put("stride", 2))),
        ("no-tensors", "2", "no list of tensors", _json(_MANIFEST, _drop("tensors"))),
        ("no-json", "2", "the manifest is no JSON", _bytes(_MANIFEST, lambda data: data[:-1])),
        ("no-object", "2", "the manifest is a list", _bytes(_MANIFEST, lambda data: b"[" + data + b"]")),
        (
            "key-twice",
            "2",
            "the manifest has a key twice",
            _bytes(_MANIFEST, lambda data: data.replace(b'{"version": 2', b'{"version": 1, "version": 2')),
        ),
        ("cut-file", "2", "a file ends before its tensors", _bytes(_FILE_0, lambda data: data[:-1])),
        ("frame-cut", "2", "a frame that is cut short", _payload(lambda frame: frame[:-3])),
        ("frame-more", "2", "bytes after a frame", _payload(lambda frame: frame + b"\0")),
        ("frame-none", "2", "no frame", _payload(lambda frame: b"\0" * len(frame))),
        ("content-short", "2", "a delta that is shorter than its tensor", _unpacked(lambda data: data[:-1])),
        ("content-long", "2", "a delta that is longer than its tensor", _unpacked(lambda data: data + b"\0")),
        ("content-bit", "2", "a delta with one other bit", _unpacked(lambda data: bytes([data[0] ^ 1]) + data[1:])),
        (
            "entry-dtype",
            "2",
            "a payload that is I8",
            _header(
                _FILE_0,
                lambda header: _put("dtype", "I8", next(key for key in header if key != "__metadata__"))(header),
            ),
        ),
        ("unknown-tensor", "2", "a tensor that the base does not have", _record(_put("name", "model.unknown.weight"))),
        ("eight-digits", "2", "a folder whose number has nine digits", _rename(f"{_DELTA}/", "delta-000000002/")),
    )
]


def _resize(document: dict[str, Any]) -> None:
    record = next(each for each in document["tensors"] if each["name"] == _UP)
    record["uncompressed_num_bytes"] += 2
    document["total_uncompressed_num_bytes"] += 2


def _recompress(document: dict[str, Any]) -> None:
    record = next(each for each in document["tensors"] if each["name"] == _UP)
    record["compressed_num_bytes"] += 1
    document["total_compressed_num_bytes"] += 1


def _share_payload(files: Files) -> None:
    document = json.loads(files[_MANIFEST])
    first, second = document["tensors"][:2]
    second.update(payload_file=first["payload_file"], payload_key=first["payload_key"])
    files[_MANIFEST] = json.dumps(document).encode()


# -- TRL -----------------------------------------------------------------------------------------------------------

_STEP = "deltas/step_000002.safetensors"


def _metadata(**values: str | None) -> Callable[[Files], None]:
    def change(header: dict[str, Any]) -> None:
        for key, value in values.items():
            if value is None:
                del header["__metadata__"][key]
            else:
                header["__metadata__"][key] = value

    return _header(_STEP, change)


def _positions(change: Callable[[Any], Any], dtype: str, suffix: str) -> Callable[[Files], None]:
    """Change the positions of one parameter."""

    def changed(data: bytes) -> bytes:
        at = np.frombuffer(tensor(data, _EMBED + suffix), dtype).astype(np.int64)
        made = np.asarray(change(at)).astype(dtype)
        return replace_tensor(data, _EMBED + suffix, made.tobytes(), shape=[made.size])

    return _bytes(_STEP, changed)


def _trl_edits(of: str, dtype: str, positions: str, values: str) -> list[Edit]:
    safetensors_dtype = {"<i4": "I32", "<u2": "U16"}[dtype]
    rows: list[tuple[str, str, Callable[[Files], None]]] = [
        ("number", "says that it is another step", _metadata(model_version="3")),
        ("number-none", "does not say which step it is", _metadata(model_version=None)),
        ("number-text", "a step that is no number", _metadata(model_version="two")),
        ("sparse-none", "does not say whether it is sparse", _metadata(sparse=None)),
        ("sparse-false", "a delta that says it is an anchor", _metadata(sparse="False")),
        ("parameters", "says another number of parameters", _metadata(num_changed_params="1")),
        ("elements", "says another number of changed elements", _metadata(total_changed_elements="1")),
        ("all-elements", "says another number of elements than its base has", _metadata(total_elements="1")),
        ("version", "a version of the format that is not known", _metadata(version="2")),
        (
            "no-positions",
            "values without positions",
            _header(_STEP, lambda header: _move(header, _EMBED + positions, "x")),
        ),
        ("no-values", "positions without values", _header(_STEP, lambda header: _move(header, _EMBED + values, "x"))),
        (
            "dtype-positions",
            "positions of another dtype",
            _header(_STEP, _put("dtype", "F16" if safetensors_dtype == "U16" else "F32", _EMBED + positions)),
        ),
        (
            "dtype-values",
            "values of another dtype than the base has",
            _header(_STEP, _put("dtype", "F16", _EMBED + values)),
        ),
        (
            "shape-values",
            "values of two dimensions",
            _header(
                _STEP, lambda header: _put("shape", [1, *header[_EMBED + values]["shape"]], _EMBED + values)(header)
            ),
        ),
        (
            "unknown-tensor",
            "a parameter that the base does not have",
            lambda files: _rename_parameter(files, positions, values),
        ),
        ("cut-file", "the file ends before its tensors", _bytes(_STEP, lambda data: data[:-1])),
        ("long-file", "something follows its tensors", _bytes(_STEP, lambda data: data + b"\0")),
        ("fewer-positions", "fewer positions than values", _positions(lambda at: at[:-1], dtype, positions)),
        ("beyond", "a position behind the tensor", _positions(lambda at: [*at[:-1], 256], dtype, positions)),
        ("gap", "a step is gone", _remove(_STEP)),
        (
            "both",
            "an anchor and a delta of one step",
            lambda files: files.update({"anchors/step_000002.safetensors": files[_STEP]}),
        ),
        (
            "two-names",
            "two names of one step",
            lambda files: files.update({"deltas/step_0000002.safetensors": files[_STEP]}),
        ),
    ]
    return [Edit(f"{of}-{name}", of, "000002", title, apply) for name, title, apply in rows]


def _move(header: dict[str, Any], old: str, new: str) -> None:
    header[new] = header.pop(old)


def _rename_parameter(files: Files, positions: str, values: str) -> None:
    header, buffer = read_shard(files[_STEP])
    for suffix in (positions, values):
        _move(header, _EMBED + suffix, "model.unknown.weight" + suffix)
    if "changed_params" in header["__metadata__"]:
        header["__metadata__"]["changed_params"] = header["__metadata__"]["changed_params"].replace(
            _EMBED, "model.unknown.weight"
        )
    files[_STEP] = write_shard(header, buffer)


_ANCHOR = "anchors/step_000004.safetensors"


def _anchor(change: Callable[[dict[str, Any]], object]) -> Callable[[Files], None]:
    return _header(_ANCHOR, change)


_TRL = [
    *_trl_edits("trl-5417", "<i4", ".indices", ".values"),
    *_trl_edits("trl-5937-raw", "<i4", ".idx", ".val"),
    *_trl_edits("trl-5937-gaps", "<u2", ".idx", ".val"),
    *(
        Edit(f"trl-{name}-{of}", f"trl-{of}", "000002", title, _positions(change, "<i4", suffix))
        for of, suffix in (("5417", ".indices"), ("5937-raw", ".idx"))
        for name, title, change in (
            ("descending", "positions that do not ascend", lambda at: at[::-1]),
            ("equal", "a position twice", lambda at: [at[0], at[0], *at[2:]]),
            ("negative", "a position before the tensor", lambda at: [-1, *at[1:]]),
        )
    ),
    Edit(
        "trl-5417-listed",
        "trl-5417",
        "000002",
        "a list of other parameters than it has",
        _metadata(changed_params='["x"]'),
    ),
    Edit(
        "trl-5417-listed-text",
        "trl-5417",
        "000002",
        "a list of parameters that is no JSON",
        _metadata(changed_params="x"),
    ),
    *(
        Edit(f"{of}-{name}", of, "000002", title, _metadata(encoding=value))
        for of in ("trl-5937-raw", "trl-5937-gaps")
        for name, title, value in (
            ("nvcomp", "positions encoded by nvCOMP, which nothing but a GPU decodes", "nvcomp_cascaded"),
            ("encoding", "positions in an encoding that the format does not have", "varint"),
        )
    ),
    Edit(
        "trl-5937-raw-as-gaps",
        "trl-5937-raw",
        "000002",
        "int32 positions that are said to be gaps",
        _metadata(encoding="gap_delta"),
    ),
    Edit(
        "trl-5937-gaps-as-raw",
        "trl-5937-gaps",
        "000002",
        "gaps that are said to be int32 positions",
        _metadata(encoding="raw"),
    ),
    *(
        Edit(f"{of}-anchor-{name}", of, "000004", title, _anchor(change))
        for of in ("trl-5417", "trl-5937-raw", "trl-5937-gaps")
        for name, title, change in (
            ("number", "an anchor that says it is another step", _put("model_version", "5", "__metadata__")),
            ("sparse", "an anchor that says it is a delta", _put("sparse", "True", "__metadata__")),
            (
                "parameters",
                "an anchor that says another number of parameters",
                _put("num_changed_params", "1", "__metadata__"),
            ),
            ("elements", "an anchor that says another number of elements", _put("total_elements", "1", "__metadata__")),
            ("dtype", "an anchor with a dtype that no checkpoint has", _put("dtype", "BF17", _EMBED)),
            ("shape", "an anchor whose tensor does not fill its bytes", _put("shape", [7, 8], _EMBED)),
        )
    ),
]

EDITS = [*_SLIME, *_MODELEXPRESS, *_SKYRL, *_TRL]
assert len({edit.id for edit in EDITS}) == len(EDITS)
