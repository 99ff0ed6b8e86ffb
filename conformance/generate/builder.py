"""Packs, and chains of them (SPEC.md sections 4 and 6)."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from generate.codecs import Chunk, delta_chunks, full_chunks
from generate.fingerprint import fingerprint, tensor_fingerprint
from generate.model import CHAIN, CREATED, FORMAT, Model, ordered


def dumps(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def safetensors(header: Mapping[str, Any] | bytes, buffer: bytes, *, pad: bytes | None = None) -> bytes:
    text = header if isinstance(header, bytes) else dumps(header)
    text += b" " * (-len(text) % 8) if pad is None else pad
    return len(text).to_bytes(8, "little") + text + buffer


def identity(value: Any) -> Any:
    return value


def nothing(*_: Any) -> None:
    pass


def chunk_pack(
    chunks: Sequence[Chunk],
    layout: str,
    *,
    table: Callable[[dict[str, Any]], Any] = nothing,
    header: Callable[[dict[str, Any]], Any] = nothing,
    table_text: Callable[[bytes], bytes] = identity,
    header_text: Callable[[bytes], bytes] = identity,
    pad: bytes | None = None,
    reverse: bool = False,
    tail: bytes = b"",
) -> bytes:
    """A pack of chunks; with `reverse` its streams lie in the file in the reverse of their order."""
    document = {"tensordelta": FORMAT, "layout": layout, "chunks": [each.entry for each in chunks]}
    table(document)
    named = [(f"{i}.{name}", data) for i, each in enumerate(chunks) for name, data in each.streams.items()]
    entries: dict[str, Any] = {}
    at, buffer = 0, b""
    for name, data in reversed(named) if reverse else named:
        entries[name] = {"dtype": "U8", "shape": [len(data)], "data_offsets": [at, at + len(data)]}
        at += len(data)
        buffer += data
    head: dict[str, Any] = {
        "__metadata__": {"tensordelta": table_text(dumps(document)).decode("utf-8", "surrogateescape")}
    }
    head |= {name: entries[name] for name, _ in named} if reverse else entries
    header(head)
    return safetensors(header_text(dumps(head)), buffer + tail, pad=pad)


def plain_pack(
    model: Model,
    *,
    metadata: Mapping[str, str] | None = None,
    order: Sequence[str] | None = None,
    header: Callable[[dict[str, Any]], Any] = nothing,
    pad: bytes | None = None,
) -> bytes:
    """A checkpoint shard as other tools write it."""
    head: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    at, buffer = 0, b""
    for name in order or list(model):
        each = model[name]
        data = each.words.tobytes()
        head[name] = {"dtype": each.dtype, "shape": list(each.shape), "data_offsets": [at, at + len(data)]}
        at += len(data)
        buffer += data
    header(head)
    return safetensors(head, buffer, pad=pad)


@dataclass
class Pack:
    """A pack to be named by a manifest: its bytes, and the entry's fields beyond digest and size."""

    data: bytes
    content: str
    tensors: Sequence[tuple[int, int]]
    changed: int
    fields: dict[str, Any] = field(default_factory=dict)
    stored: bool = True


def of_chunks(chunks: Sequence[Chunk], layout: str, *, fields: Mapping[str, Any] | None = None, **hooks: Any) -> Pack:
    touched = [index for each in chunks for index, _, _ in each.entry["slices"]]
    listed = sum(each.entry["changed"] for each in chunks)
    data = chunk_pack(chunks, layout, **hooks)  # hooks may spoil the entries
    return Pack(data, "chunks", ranges(touched), listed, dict(fields or {}))


def of_plain(
    held: Model, layout: Model, *, stored: bool = True, fields: Mapping[str, Any] | None = None, **how: Any
) -> Pack:
    index = {name: number for number, name in enumerate(ordered(layout))}
    known = [index[name] for name in held if name in index]
    total = sum(len(held[name].words) for name in held if name in index)
    return Pack(plain_pack(held, **how), "tensors", ranges(known), total, dict(fields or {}), stored)


def ranges(tensors: Sequence[int]) -> list[tuple[int, int]]:
    """The ranges of `tensors` that hold these indices and no others."""
    found: list[tuple[int, int]] = []
    for index in sorted(set(tensors)):
        if found and found[-1][1] == index:
            found[-1] = found[-1][0], index + 1
        else:
            found.append((index, index + 1))
    return found


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Builder:
    """Makes the objects of one chain, and remembers what every version's state is.

    Attributes:
        objects: the chain: bytes by name.
        models: the states of the versions that can be loaded.
        manifests: the manifests as they were meant.
        outside: names of objects that lie out of the root, with a link to them under it.
        version: of the format, as the objects state it, but for chunk tables.
        salt: of this, and of the bytes, salts are made: equal vectors at each run, and other names for another writer.
    """

    def __init__(
        self, *, chain: Callable[[dict[str, Any]], Any] = nothing, version: str = FORMAT, salt: str = ""
    ) -> None:
        self.objects: dict[str, bytes] = {}
        self.models: dict[int, Model] = {}
        self.manifests: dict[int, dict[str, Any]] = {}
        self.outside: set[str] = set()
        self.salt = salt
        self.version = version
        document = {"tensordelta": version, "chain": CHAIN, "created": CREATED}
        chain(document)
        self.put("chain.json", dumps(document))

    def put(self, name: str, data: bytes) -> None:
        self.objects[name] = data

    def get(self, name: str) -> bytes:
        return self.objects[name]

    def change(self, name: str, how: Callable[[bytes], bytes]) -> None:
        """Alter an object as stored, and leave its name."""
        self.put(name, how(self.get(name)))

    def remove(self, name: str) -> None:
        del self.objects[name]

    def write(self, folder: Path) -> Path:
        """Write the chain as a folder."""
        for name, data in self.objects.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if name in self.outside:
                outside = folder.parent / "outside"
                outside.write_bytes(data)
                path.symlink_to(os.path.relpath(outside, path.parent))
            else:
                path.write_bytes(data)
        return folder

    def layout(
        self,
        model: Model,
        *,
        hook: Callable[[dict[str, Any]], Any] = nothing,
        text: Callable[[bytes], bytes] = identity,
    ) -> str:
        """Put the layout of a state; gives its digest."""
        tensors = [
            {"name": name, "dtype": model[name].dtype, "shape": list(model[name].shape)} for name in ordered(model)
        ]
        document = {"tensordelta": self.version, "tensors": tensors}
        hook(document)
        data = text(dumps(document))
        self.put(f"layouts/{digest(data)}.json", data)
        return digest(data)

    def fingerprints(self, model: Model) -> str:
        sums = b"".join(tensor_fingerprint(name, model[name].words).to_bytes(8, "little") for name in ordered(model))
        data = sums + bytes.fromhex(self.salt_of(sums))
        self.put(f"fingerprints/{digest(data)}.bin", data)
        return digest(data)

    def salt_of(self, data: bytes) -> str:
        return digest(b"salt" + self.salt.encode() + data)[:16]

    def file(self, name: str, data: bytes) -> dict[str, Any]:
        path = f"files/{digest(data)}-{self.salt_of(data)}"
        self.put(path, data)
        return {"name": name, "size": len(data), "sha256": digest(data), "path": path}

    def store(self, pack: Pack) -> dict[str, Any]:
        """Put a pack; gives its manifest entry."""
        sha256 = digest(pack.data)
        entry: dict[str, Any] = {
            "sha256": sha256,
            "size": len(pack.data),
            "path": f"packs/{sha256}-{self.salt_of(pack.data)}.safetensors",
            "content": pack.content,
            "tensors": [list(each) for each in pack.tensors],
            "changed": pack.changed,
        }
        entry |= pack.fields
        if pack.stored and entry["path"] is not None:
            self.put(entry["path"], pack.data)
        return entry

    def edge(
        self,
        version: int,
        model: Model,
        packs: Sequence[Pack],
        *,
        base: int | None = None,
        layout: str | None = None,
        features: Sequence[str] = (),
        fingerprints: bool = True,
        shortcut: str | None = None,
        hook: Callable[[dict[str, Any]], Any] = nothing,
        text: Callable[[bytes], bytes] = identity,
        entry: Callable[[dict[str, Any]], Any] = nothing,
        **fields: Any,
    ) -> dict[str, Any]:
        """Put a manifest, or with `shortcut` (its tag, or "") a shortcut.

        Args:
            base: the version that it starts from.
            layout: the digest of the layout, if it was put already.
            features: names to list; `exponent-order` is not added by itself.
            hook, text: change the document, and its bytes.
            entry: changes the entry of each pack.
        """
        entries = [self.store(pack) for pack in packs]
        for each in entries:
            entry(each)
        document: dict[str, Any] = {
            "tensordelta": self.version,
            "chain": CHAIN,
            "version": version,
            "layout": layout or self.layout(model),
            "fingerprint": fingerprint(model),
            "base": None,
            "packs": entries,
            "features": list(features),
            "created": CREATED,
        }
        if base is not None:
            own = self.manifests[base]
            document["base"] = {"version": base, "layout": own["layout"], "fingerprint": own["fingerprint"]}
        if fingerprints:
            document["tensor_fingerprints"] = self.fingerprints(model)
        document |= fields
        if shortcut is None:
            self.models[version] = model
            self.manifests[version] = json.loads(json.dumps(document))
        hook(document)
        name = manifest_name(version) if shortcut is None else shortcut_name(version, base, shortcut)
        self.put(name, text(dumps(document)))
        return document

    def full(self, version: int, model: Model, **options: Any) -> dict[str, Any]:
        """A full version in one pack."""
        chunks = full_chunks(model)
        return self.edge(version, model, [of_chunks(chunks, self.layout(model))] if chunks else [], **options)

    def delta(
        self, version: int, model: Model, base: int, *, coding: Mapping[str, Any] | None = None, **options: Any
    ) -> dict[str, Any]:
        """A delta, or a shortcut, in one pack."""
        chunks = delta_chunks(self.models[base], model, **(coding or {}))
        packs = [of_chunks(chunks, self.layout(model))] if chunks else []
        return self.edge(version, model, packs, base=base, **options)

    def latest(self, version: int, **more: Any) -> None:
        self.put("latest.json", dumps({"tensordelta": FORMAT, "chain": CHAIN, "version": version} | more))

    def pack_names(self, version: int) -> list[str]:
        return [entry["path"] for entry in self.manifests[version]["packs"]]


def manifest_name(version: int) -> str:
    return f"manifests/{version:012d}.json"


def shortcut_name(version: int, base: int | None, tag: str = "") -> str:
    edge = f"{version:012d}-{'full' if base is None else f'{base:012d}'}"
    return f"shortcuts/{edge}{'.' + tag if tag else ''}.json"
