"""Chains of every kind, written from SPEC.md alone, good ones and ones with exactly one fault.

    python tests/gallery.py OUT

writes OUT/good/NAME/chain with OUT/good/NAME/expected/VERSION.safetensors and VERSION.json ({"fingerprint": …}), and
OUT/broken/NAME/chain with OUT/broken/NAME/expect.json ({"version": …, "errors": […]}, the names of the errors that a
reader may report). OUT/verify has chains whose fault a reader of whole states need not see, but a verifier has to.

Nothing here uses the package's own codecs, fingerprints, JSON or containers: streams follow the pseudo-code of
section 7, so that the two can be compared. Two chains are made with the package's encoder, on purpose.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zstandard

CHAIN = "5f0c8a52-3a1e-4b7d-9c64-0d2f6b1e7a90"
FOREIGN = "00000000-3a1e-4b7d-9c64-0d2f6b1e7a90"
CREATED = "2026-11-20T12:00:00Z"
MASK64 = (1 << 64) - 1

#: name -> bits of an element, exponent mask, exponent shift (section 3.2).
DTYPES: dict[str, tuple[int, int, int]] = {
    "F64": (64, 0x7FF0000000000000, 52),
    "C64": (64, 0, 0),
    "I64": (64, 0, 0),
    "U64": (64, 0, 0),
    "F32": (32, 0x7F800000, 23),
    "I32": (32, 0, 0),
    "U32": (32, 0, 0),
    "BF16": (16, 0x7F80, 7),
    "F16": (16, 0x7C00, 10),
    "I16": (16, 0, 0),
    "U16": (16, 0, 0),
    "F8_E4M3": (8, 0x78, 3),
    "F8_E4M3FNUZ": (8, 0x78, 3),
    "F8_E5M2": (8, 0x7C, 2),
    "F8_E5M2FNUZ": (8, 0x7C, 2),
    "F8_E8M0": (8, 0, 0),
    "I8": (8, 0, 0),
    "U8": (8, 0, 0),
    "BOOL": (8, 0, 0),
    "F4": (4, 0, 0),
    "F6_E2M3": (6, 0, 0),
    "F6_E3M2": (6, 0, 0),
}


# -- states ------------------------------------------------------------------------------------------------------------


class Tensor(NamedTuple):
    """dtype, shape and words of one tensor."""

    dtype: str
    shape: tuple[int, ...]
    words: np.ndarray

    def same_place(self, other: Tensor) -> bool:
        return (self.dtype, self.shape) == (other.dtype, other.shape)


Model = dict[str, Tensor]


def word_bits(dtype: str) -> int:
    return max(DTYPES[dtype][0], 8)


def word_count(dtype: str, shape: Sequence[int]) -> int:
    return math.prod(shape) * DTYPES[dtype][0] // word_bits(dtype)


def tensor(dtype: str, shape: Sequence[int], words: Any = 0) -> Tensor:
    """A tensor of given words, or all of one word."""
    kind = np.dtype(f"<u{word_bits(dtype) // 8}")
    array = np.zeros(word_count(dtype, shape), kind)
    if not (isinstance(words, int) and words == 0):
        array[:] = words
    return Tensor(dtype, tuple(shape), array)


def random_tensor(rng: np.random.Generator, dtype: str, shape: Sequence[int]) -> Tensor:
    """A tensor of any bits."""
    size = word_bits(dtype) // 8
    words = rng.integers(0, 256, word_count(dtype, shape) * size, np.uint8).view(f"<u{size}")
    return Tensor(dtype, tuple(shape), words)


def weights(rng: np.random.Generator, shape: Sequence[int], dtype: str = "BF16") -> Tensor:
    """A tensor that looks like weights: normal numbers, a few special ones."""
    values = rng.normal(0, 0.02, math.prod(shape)).astype(np.float32)
    values[:: max(len(values) // 7, 1)] = 0.0
    bits = values.view(np.uint32)
    return tensor(dtype, shape, bits if dtype == "F32" else (bits >> 16).astype(np.uint16))


def changed(rng: np.random.Generator, old: Tensor, share: float = 0.1) -> Tensor:
    """The tensor with a share of its words changed, most by a step or two."""
    words = old.words.copy()
    count = min(len(words), max(1, round(share * len(words)))) if len(words) else 0
    at = rng.choice(len(words), count, replace=False) if count else np.empty(0, np.int64)
    steps = rng.choice(np.array([1, 1, 1, -1, -1, 2, -2, 3, 77, -1000], np.int64), count)
    with np.errstate(over="ignore"):
        words[at] += steps.astype(words.dtype)
        words[at[words[at] == old.words[at]]] += np.ones(1, words.dtype)[0]
    return Tensor(old.dtype, old.shape, words)


def fit(base: Model, layout: Model) -> Model:
    """Section 5."""
    return {
        name: base[name] if name in base and base[name].same_place(each) else tensor(each.dtype, each.shape)
        for name, each in layout.items()
    }


def ordered(model: Iterable[str]) -> list[str]:
    return sorted(model, key=lambda name: name.encode())


# -- fingerprints (section 8) ------------------------------------------------------------------------------------------


def _mix(z: np.ndarray) -> np.ndarray:
    z = z + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def coefficients(name: str, lanes: np.ndarray) -> np.ndarray:
    seed = np.uint64(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little"))
    lanes = lanes.astype(np.uint64)
    with np.errstate(over="ignore"):
        outer = _mix(seed + (lanes >> np.uint64(16))) | np.uint64(1)
        return outer * (_mix(lanes & np.uint64(65535)) | np.uint64(1))


def tensor_fingerprint(name: str, words: np.ndarray) -> int:
    lanes = words if words.dtype.itemsize <= 2 else words.view(np.uint16)
    at = np.flatnonzero(lanes)  # zero lanes add nothing
    with np.errstate(over="ignore"):
        return int(np.sum(lanes[at].astype(np.uint64) * coefficients(name, at), dtype=np.uint64))


def change_fingerprint(name: str, at: np.ndarray, old: np.ndarray, new: np.ndarray) -> int:
    """Sum of section 8.3 over listed words."""
    lanes = max(old.dtype.itemsize // 2, 1)
    total = 0
    with np.errstate(over="ignore"):
        for lane in range(lanes):
            shift, mask = np.uint64(16 * lane), np.uint64(65535)
            before = old.astype(np.uint64) >> shift & mask
            after = new.astype(np.uint64) >> shift & mask
            total += int(np.sum((after - before) * coefficients(name, at * lanes + lane), dtype=np.uint64))
    return total & MASK64


def fingerprint(model: Model) -> str:
    return f"{sum(tensor_fingerprint(name, each.words) for name, each in model.items()) & MASK64:016x}"


# -- streams (section 7) -----------------------------------------------------------------------------------------------


def encode_gap(places: Sequence[int], s: int) -> dict[str, bytes]:
    gaps, lows, before = bytearray(), [], -1
    for place in places:
        g = place - before - 1
        before = place
        h = g >> s
        gaps += b"\xff" * (h // 255)
        gaps.append(h % 255)
        lows.append(g & ((1 << s) - 1))
    streams = {"gaps": bytes(gaps)}
    if s == 8:
        streams["low"] = bytes(lows)
    if s == 4:
        lows.append(0)
        streams["low"] = bytes(lows[2 * j] | lows[2 * j + 1] << 4 for j in range((len(places) + 1) // 2))
    return streams


def encode_bitmap(places: Sequence[int], n: int) -> dict[str, bytes]:
    bitmap = bytearray(-(-n // 8))
    for place in places:
        bitmap[place >> 3] |= 1 << (place & 7)
    return {"bitmap": bytes(bitmap)}


def encode_step(old: Sequence[int], new: Sequence[int], w: int) -> dict[str, bytes]:
    codes, escapes = [], []
    for before, after in zip(old, new, strict=True):
        d = (after - before) % (1 << w)
        assert d, "a step of 0 cannot be written"
        z = 2 * d if d < 1 << (w - 1) else 2 * ((1 << w) - d) - 1
        y = z - 1
        codes.append(min(y, 3))
        if y >= 3:
            escapes.append(y - 3)
    m = len(codes)
    codes += [0] * 3
    streams = {"codes": bytes(sum(codes[4 * j + q] << (2 * q) for q in range(4)) for j in range(-(-m // 4)))}
    if escapes:
        streams |= {f"escapes.{j}": bytes(x >> (8 * j) & 255 for x in escapes) for j in range(w // 8)}
    return streams


def encode_replace(new: Sequence[int], w: int) -> dict[str, bytes]:
    return {f"values.{j}": bytes(x >> (8 * j) & 255 for x in new) for j in range(w // 8)}


def permutation(base: np.ndarray, dtype: str, limit: int) -> list[int]:
    """Section 7.3."""
    _, mask, shift = DTYPES[dtype]
    keys = [(int(x) & mask) >> shift for x in base]
    first = sorted((i for i in range(len(keys)) if keys[i] < limit), key=lambda i: (keys[i], i))
    return first + [i for i in range(len(keys)) if keys[i] >= limit]


def zstd(content: bytes, *, level: int = 3) -> bytes:
    """One frame with content size and checksum."""
    return zstandard.ZstdCompressor(level=level, write_checksum=True, write_content_size=True).compress(content)


def frame(
    content: bytes,
    *,
    size: int | None = -1,
    size_bytes: int | None = None,
    checksum: bool = True,
    dictionary: int = 0,
    window: int | None = None,
    reserved: int = 0,
    unused: int = 0,
    blocks: Sequence[tuple[int, bytes, int]] | None = None,
) -> bytes:
    """A frame by hand (RFC 8878, section 3.1.1).

    Args:
        size: the content size declared; -1 for the true one, None for none.
        window: a Window_Descriptor byte; without it the frame is a single segment.
        blocks: (type, bytes, Block_Size) of the blocks before the last; by default one raw block.
    """
    declared = len(content) if size == -1 else size
    single = window is None
    if declared is None:
        flag = 0
        fcs = b""
    else:
        if size_bytes is None:
            size_bytes = (
                1 if single and declared < 256 else 2 if 256 <= declared < 65792 else 4 if declared < 1 << 32 else 8
            )
        flag = {1: 0, 2: 1, 4: 2, 8: 3}[size_bytes]
        fcs = (declared - (256 if size_bytes == 2 else 0)).to_bytes(size_bytes, "little")
    head = flag << 6 | single << 5 | unused << 4 | reserved << 3 | checksum << 2 | (1 if dictionary else 0)
    out = b"\x28\xb5\x2f\xfd" + bytes([head])
    if window is not None:
        out += bytes([window])
    if dictionary:
        out += bytes([dictionary])
    out += fcs
    if blocks is None:
        blocks = [(0, content, len(content))]
    for number, (kind, data, length) in enumerate(blocks):
        out += ((number == len(blocks) - 1) | kind << 1 | length << 3).to_bytes(3, "little") + data
    if checksum:
        out += zstd(content)[-4:]  # the checksum of the content, which any frame of it ends with
    return out


# -- chunks and packs --------------------------------------------------------------------------------------------------

Slice = tuple[str, int, int]


@dataclass
class Chunk:
    """A chunk's table entry, and its streams as stored."""

    entry: dict[str, Any]
    streams: dict[str, bytes]


def chunk(
    base: Model,
    new: Model,
    slices: Sequence[Slice],
    *,
    order: str = "natural",
    limit: int | None = None,
    positions: str = "gap",
    shift: int = 0,
    values: str = "step",
    compression: str = "none",
    restate: Sequence[int] = (),
    raw: Callable[[dict[str, bytes]], None] | None = None,
    frames: Callable[[bytes], bytes] = zstd,
) -> Chunk:
    """Encode the words of some slices that differ; with positions `all`, every word.

    Args:
        base: the fitted base.
        new: the new state.
        slices: (name, start, stop), in the order of the chunk.
        restate: natural numbers of words to list even if they are equal (values `replace`).
        raw: changes streams before compression.
    """
    index = {name: number for number, name in enumerate(ordered(new))}
    dtype = new[slices[0][0]].dtype
    w = word_bits(dtype)
    old = np.concatenate([base[name].words[start:stop] for name, start, stop in slices])
    now = np.concatenate([new[name].words[start:stop] for name, start, stop in slices])
    place = [(name, word) for name, start, stop in slices for word in range(start, stop)]
    n = len(now)
    listed = list(range(n)) if positions == "all" else sorted({*np.flatnonzero(old != now).tolist(), *restate})
    m = len(listed)
    assert m, "a chunk lists at least one word"
    order_entry: dict[str, Any] = {"codec": order}
    taken = listed
    numbers = listed
    if order == "exponent":
        bits = (DTYPES[dtype][1] >> DTYPES[dtype][2]).bit_length()
        limit = 1 << bits if limit is None else limit
        order_entry["limit"] = limit
        perm = permutation(old, dtype, limit)
        wanted = set(listed)
        numbers = [r for r in range(n) if perm[r] in wanted]
        taken = [perm[r] for r in numbers]
    streams: dict[str, bytes] = {}
    positions_entry: dict[str, Any] = {"codec": positions}
    if positions == "gap":
        positions_entry["shift"] = shift
        streams |= encode_gap(numbers, shift)
    elif positions == "bitmap":
        streams |= encode_bitmap(numbers, n)
    after = [int(now[i]) for i in taken]
    if values == "replace":
        streams |= encode_replace(after, w)
    else:
        streams |= encode_step([int(old[i]) for i in taken], after, w)
    if raw:
        raw(streams)
    total = 0
    for name in {name for name, _, _ in slices}:
        at = [i for i in listed if place[i][0] == name]
        words = np.array([place[i][1] for i in at], np.int64)
        total += change_fingerprint(name, words, old[at], now[at])
    entry = {
        "dtype": dtype,
        "slices": [[index[name], start, stop] for name, start, stop in slices],
        "changed": m,
        "order": order_entry,
        "positions": positions_entry,
        "values": {"codec": values},
        "compression": compression,
        "fingerprint": f"{total & MASK64:016x}",
    }
    if compression == "zstd":
        streams = {name: frames(stream) for name, stream in streams.items()}
    return Chunk(entry, streams)


def chunk_for(base: Model, new: Model, name: str, **options: Any) -> Chunk:
    """A chunk over one whole tensor."""
    return chunk(base, new, [(name, 0, len(new[name].words))], **options)


def full_chunks(new: Model, **options: Any) -> list[Chunk]:
    """For each tensor with words that are not zero a chunk that lists all of its words."""
    base = fit({}, new)
    options = {"positions": "all", "values": "replace", **options}
    return [chunk_for(base, new, name, **options) for name in ordered(new) if new[name].words.any()]


def delta_chunks(base: Model, new: Model, **options: Any) -> list[Chunk]:
    """For each tensor that differs from the fitted base a chunk over all of it."""
    fitted = fit(base, new)
    differ = [name for name in ordered(new) if not np.array_equal(fitted[name].words, new[name].words)]
    return [chunk_for(fitted, new, name, **options) for name in differ]


def dumps(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def safetensors(header: Mapping[str, Any] | bytes, buffer: bytes, *, pad: bytes | None = None) -> bytes:
    text = header if isinstance(header, bytes) else dumps(header)
    text += b" " * (-len(text) % 8) if pad is None else pad
    return len(text).to_bytes(8, "little") + text + buffer


def identity(value: Any) -> Any:
    return value


def _nothing(*_: Any) -> None:
    pass


def chunk_pack(
    chunks: Sequence[Chunk],
    layout: str,
    *,
    table: Callable[[dict[str, Any]], None] = _nothing,
    header: Callable[[dict[str, Any]], None] = _nothing,
    table_text: Callable[[bytes], bytes] = identity,
    header_text: Callable[[bytes], bytes] = identity,
    pad: bytes | None = None,
    reverse: bool = False,
    tail: bytes = b"",
) -> bytes:
    """A pack of chunks; with `reverse` its streams lie in the file in the reverse of their order."""
    document = {"tensordelta": "1.0", "layout": layout, "chunks": [each.entry for each in chunks]}
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
    header: Callable[[dict[str, Any]], None] = _nothing,
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


# -- chains ------------------------------------------------------------------------------------------------------------


@dataclass
class Pack:
    """A pack to be named by a manifest: its bytes, and the entry's fields beyond digest and size."""

    data: bytes
    content: str
    tensors: tuple[int, int]
    changed: int
    fields: dict[str, Any] = field(default_factory=dict)
    stored: bool = True


def of_chunks(chunks: Sequence[Chunk], layout: str, *, fields: Mapping[str, Any] | None = None, **hooks: Any) -> Pack:
    touched = [index for each in chunks for index, _, _ in each.entry["slices"]]
    listed = sum(each.entry["changed"] for each in chunks)
    data = chunk_pack(chunks, layout, **hooks)  # hooks may spoil the entries
    return Pack(data, "chunks", (min(touched), max(touched) + 1), listed, dict(fields or {}))


def of_plain(
    held: Model, layout: Model, *, stored: bool = True, fields: Mapping[str, Any] | None = None, **how: Any
) -> Pack:
    index = {name: number for number, name in enumerate(ordered(layout))}
    known = [index[name] for name in held if name in index]
    total = sum(len(held[name].words) for name in held if name in index)
    return Pack(plain_pack(held, **how), "tensors", (min(known), max(known) + 1), total, dict(fields or {}), stored)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Builder:
    """Makes the objects of one chain, and remembers what every version's state is.

    Attributes:
        objects: the chain: bytes by name.
        models: the states of the versions that can be loaded.
        manifests: the manifests as they were meant.
        outside: names of objects that lie out of the root, with a link to them under it.
    """

    def __init__(self, *, chain: Callable[[dict[str, Any]], None] = _nothing, minor: str = "1.0") -> None:
        self.objects: dict[str, bytes] = {}
        self.models: dict[int, Model] = {}
        self.manifests: dict[int, dict[str, Any]] = {}
        self.outside: set[str] = set()
        self.minor = minor
        document = {"tensordelta": minor, "chain": CHAIN, "created": CREATED}
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
        hook: Callable[[dict[str, Any]], None] = _nothing,
        text: Callable[[bytes], bytes] = identity,
    ) -> str:
        """Put the layout of a state; gives its digest."""
        tensors = [
            {"name": name, "dtype": model[name].dtype, "shape": list(model[name].shape)} for name in ordered(model)
        ]
        document = {"tensordelta": self.minor, "tensors": tensors}
        hook(document)
        data = text(dumps(document))
        self.put(f"layouts/{digest(data)}.json", data)
        return digest(data)

    def fingerprints(self, model: Model) -> str:
        data = b"".join(tensor_fingerprint(name, model[name].words).to_bytes(8, "little") for name in ordered(model))
        self.put(f"fingerprints/{digest(data)}.bin", data)
        return digest(data)

    def file(self, name: str, data: bytes) -> dict[str, Any]:
        self.put(f"files/{digest(data)}", data)
        return {"name": name, "size": len(data), "sha256": digest(data), "path": f"files/{digest(data)}"}

    def store(self, pack: Pack) -> dict[str, Any]:
        """Put a pack; gives its manifest entry."""
        sha256 = digest(pack.data)
        entry: dict[str, Any] = {
            "sha256": sha256,
            "size": len(pack.data),
            "path": f"packs/{sha256}.safetensors",
            "content": pack.content,
            "tensors": list(pack.tensors),
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
        hook: Callable[[dict[str, Any]], None] = _nothing,
        text: Callable[[bytes], bytes] = identity,
        entry: Callable[[dict[str, Any]], None] = _nothing,
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
            "tensordelta": self.minor,
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

    def latest(self, version: int) -> None:
        self.put("latest.json", dumps({"tensordelta": "1.0", "chain": CHAIN, "version": version}))

    def pack_names(self, version: int) -> list[str]:
        return [entry["path"] for entry in self.manifests[version]["packs"]]


def manifest_name(version: int) -> str:
    return f"manifests/{version:012d}.json"


def shortcut_name(version: int, base: int | None, tag: str = "") -> str:
    edge = f"{version:012d}-{'full' if base is None else f'{base:012d}'}"
    return f"shortcuts/{edge}{'.' + tag if tag else ''}.json"


# -- a store for tests -------------------------------------------------------------------------------------------------


class MemoryBlob:
    """An object of a `MemoryStore`, opened; what is read of it is counted, and cannot be written to."""

    def __init__(self, store: MemoryStore, name: str, data: bytes) -> None:
        self._store, self._name, self._data = store, name, data
        self.size = len(data)

    def read(self, offset: int, length: int) -> memoryview:
        data = memoryview(self._data)[offset : offset + length]
        assert len(data) == length, f"{self._name}: read past the end"
        self._store.fetched[self._name] = self._store.fetched.get(self._name, 0) + length
        return data

    def __enter__(self) -> MemoryBlob:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class MemoryStore:
    """A chain's objects in memory, under the protocol of the package's stores.

    Attributes:
        objects: bytes by name.
        reads: names read, in order.
        fetched: for each object that was opened, how many bytes of it were read.
    """

    address = "memory"

    def __init__(self, objects: dict[str, bytes]) -> None:
        self.objects = objects
        self.reads: list[str] = []
        self.fetched: dict[str, int] = {}

    def _get(self, name: str) -> bytes:
        from tensordelta.errors import MissingError

        if name not in self.objects:
            raise MissingError("is not there", object=name, rule="TD-MAN-014")
        self.reads.append(name)
        return self.objects[name]

    def read(self, name: str) -> bytes:
        return self._get(name)

    def open(self, name: str) -> MemoryBlob:
        return MemoryBlob(self, name, self._get(name))

    def size(self, name: str) -> int | None:
        return len(self.objects[name]) if name in self.objects else None

    def names(self, prefix: str) -> list[str]:
        return [name for name in self.objects if name.startswith(prefix)]

    def put(self, name: str, parts: Iterable[bytes | memoryview]) -> None:
        self.objects[name] = b"".join(parts)

    def create(self, name: str, data: bytes) -> bool:
        return self.objects.setdefault(name, data) is data


def open_chain(builder: Builder, **options: Any) -> Any:
    """The package's Chain over a copy of a builder's objects; its store is `chain.store`."""
    import tensordelta

    store = MemoryStore(dict(builder.objects))
    chain = tensordelta.open(store, **{"threads": 1, "memory": 1 << 30, **options})
    chain.store = store
    return chain


# -- good chains -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Good:
    """A chain that a reader accepts.

    Attributes:
        name: of the folder.
        build: makes the chain.
        clean: a verifier finds nothing, either.
    """

    name: str
    build: Callable[[], Builder]
    clean: bool = True

    @cached_property
    def builder(self) -> Builder:
        """The chain, made once; take a copy of its objects to change them."""
        return self.build()


GOOD: list[Good] = []


def good(build: Callable[[], Builder] | None = None, *, clean: bool = True) -> Any:
    """Register a builder of a good chain under its own name."""

    def register(function: Callable[[], Builder]) -> Callable[[], Builder]:
        GOOD.append(Good(function.__name__.strip("_").replace("_", "-"), function, clean))
        return function

    return register(build) if build else register


def small(rng: np.random.Generator) -> Model:
    return {
        "a.weight": weights(rng, (20, 16)),
        "b.bias": weights(rng, (24,), "F32"),
        "c.ids": random_tensor(rng, "I32", (10,)),
        "d.mask": random_tensor(rng, "U8", (13,)),
    }


def stepped(rng: np.random.Generator, model: Model, share: float = 0.1, names: Iterable[str] | None = None) -> Model:
    chosen = set(model if names is None else names)
    return {name: changed(rng, each, share) if name in chosen else each for name, each in model.items()}


COMBINATIONS: list[dict[str, Any]] = [
    {"order": order, "positions": positions, "shift": shift, "values": values}
    for order in ("natural", "exponent")
    for positions, shift in (("gap", 0), ("gap", 4), ("gap", 8), ("bitmap", 0), ("all", 0))
    for values in ("step", "replace")
    if order == "natural" or (positions != "all" and values == "step")
]


def combination_name(coding: Mapping[str, Any]) -> str:
    shift = str(coding["shift"]) if coding["positions"] == "gap" else ""
    return f"combination-{coding['order']}-{coding['positions']}{shift}-{coding['values']}"


def _combination(coding: Mapping[str, Any]) -> Callable[[], Builder]:
    """Every word width, uncompressed and compressed; then a full version of the same coding where it can be one."""

    def build() -> Builder:
        rng = np.random.default_rng(1)
        model: Model = {
            "f8": random_tensor(rng, "F8_E4M3", (11, 30)),
            "bf16": weights(rng, (3, 300)),
            "f32": weights(rng, (301,), "F32"),
            "f64": random_tensor(rng, "F64", (43,)),
        }
        builder = Builder()
        builder.full(0, model)
        features = ["exponent-order"] if coding["order"] == "exponent" else []
        for version, compression in ((1, "none"), (2, "zstd")):
            everywhere = coding["positions"] == "all" and coding["values"] == "step"
            model = {
                name: Tensor(each.dtype, each.shape, each.words + each.words.dtype.type(version * 77 + 1))
                if everywhere
                else changed(rng, each, 0.2)
                for name, each in model.items()
            }
            builder.delta(version, model, version - 1, coding={**coding, "compression": compression}, features=features)
        nonzero = {name: tensor(each.dtype, each.shape, each.words | 1) for name, each in model.items()}
        chunks = [chunk_for(fit({}, nonzero), nonzero, name, **coding, compression="zstd") for name in ordered(nonzero)]
        builder.edge(3, nonzero, [of_chunks(chunks, builder.layout(nonzero))], features=features)
        return builder

    return build


GOOD += [Good(combination_name(coding), _combination(coding)) for coding in COMBINATIONS]


@good
def dtypes() -> Builder:
    """Every dtype: full, natural steps, exponent steps where there is an exponent, replaced words."""
    rng = np.random.default_rng(2)
    model = {f"t.{dtype.lower()}": random_tensor(rng, dtype, (3, 8)) for dtype in DTYPES}
    builder = Builder()
    builder.full(0, model)
    after = stepped(rng, model, 0.3)
    builder.delta(1, after, 0, coding={"shift": 4})
    model, after = after, stepped(rng, after, 0.3)
    layout = builder.layout(after)
    chunks = [
        chunk_for(model, after, name, order="exponent" if DTYPES[after[name].dtype][1] else "natural")
        for name in ordered(after)
    ]
    builder.edge(2, after, [of_chunks(chunks, layout)], base=1, features=["exponent-order"])
    model, after = after, stepped(rng, after, 0.5)
    builder.delta(3, after, 2, coding={"positions": "bitmap", "values": "replace", "compression": "zstd"})
    return builder


@good
def packs() -> Builder:
    """Several packs a version, several tensors a chunk, several chunks a tensor, in no order at all."""
    rng = np.random.default_rng(3)
    model: Model = {f"layers.{i}.w": weights(rng, (40 + i, 10)) for i in range(6)}
    model |= {f"layers.{i}.b": weights(rng, (17,), "F32") for i in range(6)}
    builder = Builder()
    layout = builder.layout(model)
    chunks = full_chunks(model)
    builder.edge(0, model, [of_chunks(chunks[i::3], layout) for i in range(3)])
    after = stepped(rng, model, 0.05)
    w = [f"layers.{i}.w" for i in range(6)]
    b = [f"layers.{i}.b" for i in range(6)]
    first = [
        chunk(model, after, [(w[3], 100, 430), (w[4], 0, 200), (w[4], 200, 300)], shift=4),
        chunk(model, after, [(w[0], 0, 400), (w[1], 0, 410), (w[2], 0, 420), (w[3], 0, 100)], order="exponent"),
    ]
    second = [
        chunk(model, after, [(name, 0, 17) for name in b], positions="bitmap"),
        chunk(model, after, [(w[4], 300, 440), (w[5], 0, 450)], values="replace", compression="zstd"),
    ]
    builder.edge(
        1,
        after,
        [of_chunks(first, layout, reverse=True), of_chunks(second, layout)],
        base=0,
        features=["exponent-order"],
    )
    return builder


@good
def shortcuts() -> Builder:
    """Skip deltas, a full shortcut, a version's own edge again, in other encodings."""
    rng = np.random.default_rng(4)
    builder = Builder()
    model = small(rng)
    builder.full(0, model)
    for version in range(1, 7):
        model = stepped(rng, model, 0.2)
        builder.delta(version, model, version - 1)
    models = builder.models
    builder.delta(2, models[2], 0, shortcut="")
    builder.delta(6, models[6], 2, shortcut="")
    builder.full(4, models[4], shortcut="")
    builder.full(4, models[4], shortcut="b")
    builder.delta(5, models[5], 4, coding={"values": "replace", "compression": "zstd"}, shortcut="")
    names = [name for name in ordered(model) if DTYPES[model[name].dtype][1]]
    layout = builder.layout(model)
    chunks = [chunk_for(models[5], models[6], name, order="exponent", limit=120, compression="zstd") for name in names]
    chunks += [chunk_for(models[5], models[6], name) for name in ordered(model) if name not in names]
    builder.edge(6, models[6], [of_chunks(chunks, layout)], base=5, features=["exponent-order"], shortcut="exp")
    builder.delta(3, models[3], 2, shortcut="0123456789abcdef")
    builder.latest(6)
    return builder


@good
def fitting() -> Builder:
    """Tensors added, dropped, reshaped, retyped, renamed; names whose order depends on the bytes."""
    rng = np.random.default_rng(5)
    builder = Builder()
    states: list[Model] = []
    model = small(rng)
    states.append(model)
    states.append({**model, "e.new": weights(rng, (7, 9)), "a": random_tensor(rng, "F16", (5,))})
    states.append({name: each for name, each in states[-1].items() if name != "b.bias"})
    reshaped = {**states[-1], "a.weight": Tensor("BF16", (16, 20), states[-1]["a.weight"].words)}
    states.append(reshaped)
    states.append({**reshaped, "c.ids": random_tensor(rng, "U32", (10,)), "d.mask": tensor("U8", (13,))})
    renamed = {("z.renamed" if name == "e.new" else name): each for name, each in states[-1].items()}
    states.append(renamed)
    odd = {
        "é": random_tensor(rng, "U8", (3,)),
        "e\u0301": random_tensor(rng, "U8", (3,)),  # the same to look at, other bytes
        "\ue000": random_tensor(rng, "U8", (4,)),  # before the next in UTF-8, after it in UTF-16
        "\U00010000": random_tensor(rng, "U8", (5,)),
        "\uffff": random_tensor(rng, "U8", (2,)),
        "a.b": random_tensor(rng, "U8", (2,)),
        'a/b c\n"\\': random_tensor(rng, "U8", (2,)),
        "x" * 1024: random_tensor(rng, "I8", (1,)),
    }
    states.append({**renamed, **odd})
    states.append(odd)
    states.append(model)  # and all the way back
    builder.full(0, states[0])
    for version, state in enumerate(states[1:], start=1):
        coding = {"positions": "bitmap"} if version % 2 else {"values": "replace"}
        builder.delta(version, state, version - 1, coding=coding)
    builder.delta(7, states[7], 0, shortcut="")
    return builder


@good
def fitted_tensors_in_exponent_order() -> Builder:
    """Steps from zero words, whose exponents are all zero; and several slices whose order mixes."""
    rng = np.random.default_rng(6)
    builder = Builder()
    model: Model = {"a": weights(rng, (60,)), "b": weights(rng, (50,))}
    builder.full(0, model)
    after = {**stepped(rng, model, 0.3), "c": changed(rng, tensor("BF16", (40,)), 0.4)}
    chunks = [
        chunk(fit(model, after), after, [("a", 5, 55), ("b", 0, 50), ("c", 0, 40)], order="exponent", limit=limit)
        for limit in (1, 100, 121, 255, 256)
    ]
    layout = builder.layout(after)
    rest = chunk(fit(model, after), after, [("a", 0, 5), ("a", 55, 60)], restate=[0], values="replace")
    for version, each in enumerate(chunks, start=1):
        builder.edge(version, after, [of_chunks([each, rest], layout)], base=0, features=["exponent-order"])
    special = tensor(
        "BF16", (12,), [0, 0x8000, 1, 0x807F, 0x7F80, 0xFF80, 0x7FC1, 0xFFFF, 0x3F80, 0xBF80, 0x80, 0x7F7F]
    )
    both = {"s": special}
    builder.full(9, both)
    moved = {"s": Tensor("BF16", (12,), special.words + np.uint16(1))}
    builder.delta(10, moved, 9, coding={"order": "exponent", "limit": 255}, features=["exponent-order"])
    return builder


@good
def plain() -> Builder:
    """Checkpoint shards as packs: of a full version, of a delta, with tensors of no interest, with files."""
    rng = np.random.default_rng(7)
    builder = Builder()
    model = small(rng) | {"e.none": tensor("F32", (0, 4)), "f.none": tensor("U8", (0,)), "g": tensor("F64", (), 7)}
    one = {name: model[name] for name in ("b.bias", "a.weight")} | {"unwanted": random_tensor(rng, "I64", (3,))}
    two = {name: model[name] for name in ("f.none", "d.mask", "e.none", "c.ids", "g")}
    names = {"one": "model-00001-of-00002.safetensors", "two": "model-00002-of-00002.safetensors"}
    packs = [
        of_plain(
            one, model, metadata={"format": "pt", "tensordelta": "means nothing here"}, fields={"name": names["one"]}
        ),
        of_plain(two, model, pad=b"", fields={"name": names["two"], "sources": ["ftp://nowhere/two", "no scheme"]}),
    ]
    index = {name: names["one" if name in one else "two"] for name in model}
    files = [builder.file("model.safetensors.index.json", dumps({"metadata": {}, "weight_map": index}))]
    builder.edge(0, model, packs, files=files)
    after = stepped(rng, model, 0.2, ["c.ids", "a.weight"]) | {"b.bias": weights(rng, (24,), "F32")}
    plain_part = of_plain(
        {"x": tensor("U8", (1,), 9), "b.bias": after["b.bias"]}, after, fields={"name": "sub/b.safetensors"}
    )
    chunks = [chunk_for(model, after, name) for name in ("a.weight", "c.ids")]
    builder.edge(1, after, [plain_part, of_chunks(chunks, builder.layout(after))], base=0)
    nothing = of_plain({"e.none": model["e.none"]}, after)  # a pack with not one word
    builder.edge(2, after, [nothing], base=1)
    reshaped = {**after, "a.weight": weights(rng, (4, 4)), "h": weights(rng, (6,))}
    held = of_plain({"h": reshaped["h"], "a.weight": reshaped["a.weight"]}, reshaped)
    builder.edge(3, reshaped, [held], base=2)
    return builder


@good(clean=False)
def plain_with_sources() -> Builder:
    """The own manifest's pack lies only at a source; a shortcut has the bytes."""
    rng = np.random.default_rng(8)
    builder = Builder()
    model = small(rng)
    source = {"path": None, "sources": ["hf://org/model@0123abcd/model.safetensors"], "name": "model.safetensors"}
    builder.edge(0, model, [of_plain(model, model, stored=False, fields=source)])
    builder.full(0, model, shortcut="")
    builder.delta(1, stepped(rng, model), 0)
    return builder


@good
def files() -> Builder:
    rng = np.random.default_rng(9)
    builder = Builder()
    model = small(rng)
    config = builder.file("config.json", b'{"model_type": "tiny"}')
    deep = builder.file("onnx/sub.d/tokenizer_config.json", b"{}")
    builder.full(0, model, files=[config, deep])
    after = stepped(rng, model)
    empty = builder.file("empty.txt", b"")
    other = {**builder.file("Config.json", b"[]"), "path": "files/any/path-at.all"}
    builder.put(other["path"], b"[]")
    builder.delta(1, after, 0, files=[empty, other])
    builder.delta(2, stepped(rng, after), 1)
    return builder


@good
def no_tensor_fingerprints() -> Builder:
    rng = np.random.default_rng(10)
    builder = Builder()
    model = small(rng)
    builder.full(0, model, fingerprints=False)
    for version in range(1, 4):
        model = stepped(rng, model)
        builder.delta(version, model, version - 1, fingerprints=version == 3)
    return builder


@good
def empty_deltas_and_gaps() -> Builder:
    """Versions 3, 4, 1000, 999999999999; deltas that change nothing; a version that goes back."""
    rng = np.random.default_rng(11)
    builder = Builder()
    model = small(rng)
    builder.full(3, model)
    builder.delta(4, model, 3)
    after = stepped(rng, model)
    builder.delta(1000, after, 4)
    builder.delta(1001, after, 1000)
    builder.delta(999_999_999_999, model, 1001)
    return builder


@good
def empty_state() -> Builder:
    """No tensors; then some; then none."""
    rng = np.random.default_rng(12)
    builder = Builder()
    builder.full(0, {})
    model = small(rng)
    builder.delta(1, model, 0)
    builder.delta(2, {}, 1)
    builder.full(3, {name: tensor(each.dtype, each.shape) for name, each in model.items()})
    return builder


@good
def later_minor() -> Builder:
    """Format 1.7, unknown fields with any number, white space, escapes, other orders of members, noncharacters."""
    rng = np.random.default_rng(13)
    builder = Builder(minor="1.7", chain=lambda each: each.update({"ﬀ": [1.5e3, None, {"x": -0.0}]}))
    model = small(rng)
    odd = b'"unknown":[-0,1.0,1e999,123456789012345678901234567890,"\\ud83d\\ude00\\uffff",{"a":{"a":1}}],'
    layout = builder.layout(
        model,
        hook=lambda document: [each.update({"colour": None}) for each in document["tensors"]],
        text=lambda data: b" \n" + data.replace(b"{", b"{" + odd, 1) + b"\r\n\t",
    )

    def table(document: dict[str, Any]) -> None:
        document["tensordelta"] = "1.99"
        for each in document["chunks"]:
            each["note"] = {"codec": "x"}

    def turn(document: dict[str, Any]) -> None:
        members = list(document.items())[::-1]
        document.clear()
        document.update(members)
        document["annotations"] = {"": "", "\ufdd0": "\uffff é", "step": "420"}

    base = fit({}, model)
    chunks = [chunk_for(base, model, name, positions="all", values="replace") for name in ordered(model)]
    full = of_chunks(
        chunks,
        layout,
        table=table,
        header=lambda head: head["__metadata__"].update({"format": "pt"}),
        table_text=lambda text: b"  " + text.replace(b"{", b"{" + odd, 1) + b"\n",
        pad=b"\n \t\r" * 3,
        fields={"name": "../any string at all", "sources": [], "future": {"a": 1.5}},
    )
    deep = b'"deep":' + b"[" * 15 + b"]" * 15 + b","
    features = ["exponent-order", "exponent-order"]
    builder.edge(
        0,
        model,
        [full],
        layout=layout,
        features=features,
        hook=turn,
        text=lambda data: data.replace(b"{", b"{" + odd + deep, 1).replace(b'"version"', b'"\\u0076ersion"'),
    )
    after = stepped(rng, model)
    again = builder.layout(after)  # the same list in other bytes
    assert again != layout
    builder.edge(1, after, [of_chunks(delta_chunks(model, after), again)], base=0, layout=again)
    last = stepped(rng, after)
    builder.edge(2, last, [of_chunks(delta_chunks(after, last), layout)], base=1, layout=layout)
    builder.put("latest.json", b'{"tensordelta":"1.1","chain":"' + CHAIN.encode() + b'","version":2,"x":1e9}')
    return builder


@good
def scalars_and_zero_sizes() -> Builder:
    rng = np.random.default_rng(14)
    builder = Builder()
    model: Model = {
        "none": tensor("BF16", (0,)),
        "none.wide": tensor("F32", (3, 0, 1 << 20)),
        "one": random_tensor(rng, "F32", ()),
        "one.deep": random_tensor(rng, "F64", (1,) * 16),
        "scalar": random_tensor(rng, "U8", ()),
        "word": random_tensor(rng, "BF16", ()),
    }
    builder.full(0, model)
    builder.delta(1, stepped(rng, model), 0)
    builder.delta(2, stepped(rng, builder.models[1]), 1, coding={"positions": "bitmap"})
    both = of_chunks(
        [
            chunk(
                builder.models[2],
                (after := stepped(rng, builder.models[2], 1, ["one"])),
                [("one", 0, 1)],
                order="exponent",
            )
        ],
        builder.layout(after),
    )
    builder.edge(3, after, [both], base=2, features=["exponent-order"])
    return builder


@good
def restated_words() -> Builder:
    """`replace` lists words that are what they were."""
    rng = np.random.default_rng(15)
    builder = Builder()
    model = small(rng)
    builder.full(0, model)
    after = stepped(rng, model)
    layout = builder.layout(after)
    chunks = [
        chunk_for(model, after, "a.weight", values="replace", restate=range(0, 320, 3)),
        chunk_for(model, after, "b.bias", values="replace", positions="all"),
        chunk_for(model, after, "c.ids", values="replace", positions="bitmap", restate=range(5)),
        chunk_for(model, after, "d.mask", values="replace", shift=8, restate=range(13)),
    ]
    builder.edge(1, after, [of_chunks(chunks, layout)], base=0)
    same = [chunk_for(after, after, "a.weight", values="replace", positions="all")]
    builder.edge(2, after, [of_chunks(same, layout)], base=1)
    zeros = [chunk_for(fit({}, model), fit({}, model), "b.bias", values="replace", restate=[3])]
    builder.edge(3, fit({}, model), [of_chunks(zeros, layout)])
    return builder


@good
def extreme_steps() -> Builder:
    """Steps at the ends of their range, over every boundary of words and lanes."""
    builder = Builder()
    edges = {}
    after = {}
    for dtype in ("U8", "U16", "U32", "U64", "BF16", "F32", "F64", "F8_E5M2"):
        w = word_bits(dtype)
        starts = [0, 1, (1 << w) - 1, 1 << (w - 1), (1 << (w - 1)) - 1, 0xFF % (1 << w), (1 << w) - 2]
        steps = [1, -1, 2, -2, 3, -3, 1 << (w - 1), (1 << (w - 1)) - 1, (1 << (w - 1)) + 1, 0x80, -0x80]
        pairs = [(a, (a + d) % (1 << w)) for a in starts for d in steps]
        edges[f"x.{dtype}"] = tensor(dtype, (len(pairs),), [a for a, _ in pairs])
        after[f"x.{dtype}"] = tensor(dtype, (len(pairs),), [b for _, b in pairs])
    builder.full(0, edges)
    builder.delta(1, after, 0, coding={"positions": "all"})
    builder.delta(2, edges, 1, coding={"compression": "zstd"})
    builder.delta(3, after, 2, coding={"positions": "bitmap", "values": "replace"})
    names = [name for name in ordered(after) if DTYPES[after[name].dtype][1]]
    mixed = {name: edges[name] if name in names else after[name] for name in after}
    chunks = [chunk_for(after, mixed, name, order="exponent", shift=4) for name in names]
    builder.edge(4, mixed, [of_chunks(chunks, builder.layout(mixed))], base=3, features=["exponent-order"])
    return builder


@good
def sparse_and_long() -> Builder:
    """Gaps of 254, 255, 256, 509, 510 … times 2^shift, the last word, lanes beyond the first block of coefficients."""
    rng = np.random.default_rng(16)
    builder = Builder()
    count = 270_000
    words = rng.integers(0, 1 << 16, count, np.uint16)
    model: Model = {"long": tensor("BF16", (count,), words), "u64": random_tensor(rng, "U64", (17_000,))}
    model["u8"] = random_tensor(rng, "U8", (66_000,))
    builder.full(0, model)
    for version, shift in ((1, 0), (2, 4), (3, 8)):
        gaps = [g * (1 << shift) + low for g in (0, 254, 255, 256, 509, 510, 511) for low in {0, (1 << shift) - 1}]
        places = [at for at in np.cumsum([gap + 1 for gap in gaps]) - 1 if at < count - 1]
        moved = words.copy()
        moved[[*places, count - 1]] += np.uint16(version)
        words = moved
        u64 = model["u64"].words.copy()
        u64[[0, 16_383, 16_384, 16_999]] += np.uint64(1 << 48)
        u8 = model["u8"].words.copy()
        u8[[65_535, 65_536, 65_999]] += np.uint8(1)
        model = {
            "long": tensor("BF16", (count,), words),
            "u64": tensor("U64", (17_000,), u64),
            "u8": tensor("U8", (66_000,), u8),
        }
        if version < 3:
            builder.delta(
                version, model, version - 1, coding={"shift": shift, "compression": "zstd" if shift else "none"}
            )
            continue
        base, n = builder.models[2], count
        parts = [
            chunk(base, model, [("long", 0, 70_000), ("long", 70_001, n)], shift=8),
            chunk(base, model, [("u64", 16_384, 17_000)], shift=8),
            chunk(base, model, [("u64", 0, 16_384)], shift=8),
            chunk(base, model, [("u8", 65_000, 66_000)], shift=8),
        ]
        builder.edge(3, model, [of_chunks(parts, builder.layout(model))], base=2)
    return builder


@good
def frames() -> Builder:
    """Zstandard frames of every kind that is allowed."""
    rng = np.random.default_rng(17)
    builder = Builder()
    model: Model = {"a": tensor("U8", (600,), 7), "b": random_tensor(rng, "U8", (300,))}
    builder.full(0, model)

    def blocks(content: bytes) -> bytes:
        half = len(content) // 2
        parts = [(0, content[:half], half), (0, b"", 0), (0, content[half:], len(content) - half)]
        return frame(content, blocks=parts)

    def runs(content: bytes) -> bytes:
        runs = [(1, content[i : i + 1], 1) for i in range(len(content))]
        return frame(content, blocks=[*runs, (0, b"", 0)])

    kinds: list[Callable[[bytes], bytes]] = [
        lambda content: zstd(content, level=19),
        lambda content: zstd(content, level=-5),
        frame,
        blocks,
        runs,
        lambda content: frame(content, size_bytes=8),
        lambda content: frame(content, size_bytes=4),
        lambda content: frame(content, unused=1),
        lambda content: frame(content, window=0, size_bytes=4),
        lambda content: frame(content, window=17 << 3, size_bytes=8),  # 2^27 bytes, the widest window
    ]
    for version, kind in enumerate(kinds, start=1):
        after = stepped(rng, model, 0.5)
        builder.delta(version, after, version - 1, coding={"compression": "zstd", "frames": kind})
        model = after
    return builder


@good
def at_the_limits() -> Builder:
    """Annotations, paths, shapes, times at what is just allowed."""
    rng = np.random.default_rng(18)
    annotations = {f"{i:02d}": "é" * 2047 for i in range(64)}
    builder = Builder(chain=lambda each: each.update({"created": "2024-02-30T23:59:60.123456789Z"}))
    model: Model = {
        "a": random_tensor(rng, "U8", (2, 1) * 8),
        "none": tensor("F64", (0, 1 << 48)),
        "none.too": tensor("U8", (1 << 24, 0, 1 << 24)),
    }
    layout = builder.layout(model)
    path = "packs/" + "-" * 97 + "/" + "_." * 48
    assert len(path) == 200
    pack = of_chunks(full_chunks(model), layout, fields={"path": path})
    builder.edge(0, model, [pack], annotations=annotations, created="0000-12-31T00:00:00.0Z")
    after = stepped(rng, model)
    tail = of_chunks(delta_chunks(model, after), layout, fields={"path": "packs/x/y.z", "name": ""})
    builder.edge(1, after, [tail], base=0, annotations={"k" * 4096: ""})
    builder.edge(2, model, [of_chunks(delta_chunks(after, model), layout)], base=1)
    return builder


@good
def shared_objects() -> Builder:
    """One pack named by two manifests; a state that comes back; `replace` on other bases."""
    rng = np.random.default_rng(19)
    builder = Builder()
    model = small(rng)
    builder.full(0, model)
    after = stepped(rng, model, 0.2, ["a.weight"])
    builder.delta(1, after, 0)
    builder.delta(2, model, 1)
    builder.delta(3, after, 2)
    assert builder.pack_names(1) == builder.pack_names(3)
    builder.full(4, model)
    return builder


@good(clean=False)
def listing() -> Builder:
    """Names that are none of a chain's objects, a hint that lies, a shortcut to nowhere."""
    rng = np.random.default_rng(20)
    builder = Builder()
    model = small(rng)
    builder.full(0, model)
    builder.delta(1, stepped(rng, model), 0)
    manifest = builder.get(manifest_name(1))
    for name in (
        "manifests/1.json",
        "manifests/000000000002.json.sig",
        "manifests/000000000002.json.tmp",
        "manifests/0000000000002.json",
        "manifests/.000000000002.json",
        "manifests/00000000000A.json",
        "manifests/x/000000000002.json",
        "manifests/latest",
        "shortcuts/000000000001-000000000000.TAG.json",
        "shortcuts/000000000001-.json",
        "shortcuts/000000000001-000000000000.0123456789abcdefg.json",
        "shortcuts/000000000001-000000000000..json",
        "layouts/readme",
        "packs/.tmp-1",
    ):
        builder.put(name, b"not JSON")
    builder.put(shortcut_name(7, 0), manifest.replace(b'"version":1', b'"version":7', 1))
    builder.put("latest.json", dumps({"tensordelta": "1.0", "chain": CHAIN, "version": 7}))
    return builder


@good
def hint_that_is_garbage() -> Builder:
    rng = np.random.default_rng(21)
    builder = Builder()
    model = small(rng)
    builder.full(0, model)
    builder.delta(1, stepped(rng, model), 0)
    builder.put("latest.json", b"\xff\xfe not JSON")
    return builder


@good
def hint_of_another_chain() -> Builder:
    rng = np.random.default_rng(21)
    builder = Builder()
    model = small(rng)
    builder.full(0, model)
    builder.delta(1, stepped(rng, model), 0)
    builder.put("latest.json", dumps({"tensordelta": "1.0", "chain": FOREIGN, "version": 0}))
    return builder


@good(clean=False)
def shortcuts_that_do_not_count() -> Builder:
    """Shortcuts that are cheaper than all others and wrong, each in its own way."""
    rng = np.random.default_rng(22)
    builder = Builder()
    model = small(rng)
    builder.full(0, model)
    for version in range(1, 9):
        model = stepped(rng, model)
        builder.delta(version, model, version - 1)
    models = builder.models
    builder.edge(1, models[1], [], base=0, shortcut="a", fingerprint="0123456789abcdef")
    builder.edge(2, models[2], [], base=0, shortcut="", layout="0" * 64)
    builder.edge(3, models[3], [], base=0, shortcut="", chain=FOREIGN)
    builder.edge(4, models[4], [], base=0, shortcut="", hook=lambda document: document.update(version=5))
    builder.edge(5, models[5], [], base=0, shortcut="", text=lambda data: data[:-1])
    wrong = {"version": 0, "layout": builder.manifests[0]["layout"], "fingerprint": "0" * 16}
    builder.edge(6, models[6], [], base=0, shortcut="", hook=lambda document: document.update(base=wrong))
    builder.edge(7, models[7], [], base=0, shortcut="")  # an empty delta that does not make version 7
    builder.edge(8, models[8], [], base=7, shortcut="", features=["not-known"])
    return builder


@good(clean=False)
def unknown_feature_of_the_manifest() -> Builder:
    """The version's own manifest needs what a reader lacks; a shortcut does not."""
    rng = np.random.default_rng(23)
    builder = Builder()
    model = small(rng)
    builder.full(0, model)
    after = stepped(rng, model)
    builder.delta(1, after, 0, features=["strided-slices"])
    builder.delta(1, after, 0, shortcut="plain")
    last = stepped(rng, after)
    builder.delta(2, last, 1)
    return builder


@good
def retention() -> Builder:
    """Packs of old deltas are gone, a full shortcut leads around them; the manifest of version 0 is gone."""
    rng = np.random.default_rng(24)
    builder = Builder()
    model = small(rng)
    builder.full(0, model)
    for version in range(1, 6):
        model = stepped(rng, model)
        builder.delta(version, model, version - 1)
    builder.full(3, builder.models[3], shortcut="")
    builder.delta(5, builder.models[5], 3, shortcut="")
    for version in (0, 1, 2, 4):
        for name in builder.pack_names(version):
            builder.remove(name)
    for version in (0, 1, 2):
        builder.remove(manifest_name(version))
    builder.full(4, builder.models[4], shortcut="")
    builder.models = {version: state for version, state in builder.models.items() if version > 2}
    return builder


@good(clean=False)
def damaged_packs_with_a_way_around() -> Builder:
    """The cheapest route has an altered pack, the next a lost one, the third works."""
    rng = np.random.default_rng(25)
    builder = Builder()
    model = small(rng)
    builder.full(0, model)
    after = stepped(rng, model, 0.02)
    builder.delta(1, after, 0)
    layout = builder.layout(after)
    full = builder.edge(1, after, [of_chunks(full_chunks(after), layout)], shortcut="")
    other = full_chunks(after)[::-1]
    builder.edge(1, after, [of_chunks(other, layout)], shortcut="b")
    builder.change(builder.pack_names(1)[0], lambda data: data[:-1] + bytes([data[-1] ^ 1]))
    builder.remove(full["packs"][0]["path"])
    return builder


def _reference(order: str) -> Callable[[], Builder]:
    """A chain by the package's own encoder."""

    def build() -> Builder:
        from tensordelta.encoder import Encoder
        from tensordelta.state import State

        rng = np.random.default_rng(26)
        builder = Builder()
        model = small(rng) | {"e.weight": weights(rng, (300, 200)), "f": random_tensor(rng, "F4", (4, 6))}
        last: State | None = None
        for version in range(4):
            layout = builder.layout(model)
            state = as_state(model)
            encoder = Encoder(last, state, layout=layout, order=order)
            packs = [
                Pack(b"".join(built.parts), "chunks", built.entry.tensors, built.entry.changed)
                for built in encoder.packs()
            ]
            builder.edge(version, model, packs, base=version - 1 if version else None, features=encoder.features)
            last = state
            model = stepped(rng, model, 0.05)
            if version == 1:
                model["g.added"] = weights(rng, (3, 50))
        return builder

    return build


GOOD += [Good(f"reference-encoder-{order}", _reference(order)) for order in ("natural", "exponent")]


def as_state(model: Model) -> Any:
    """The package's State of the same tensors, in memory of its own."""
    from tensordelta.layout import Layout
    from tensordelta.layout import Tensor as Entry
    from tensordelta.state import State

    names = ordered(model)
    layout = Layout([Entry(name, model[name].dtype, model[name].shape) for name in names])
    return State(layout, [model[name].words.copy() for name in names])


# -- broken chains -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Broken:
    """A chain with one fault.

    Attributes:
        name: of the folder.
        build: makes the chain.
        errors: names of the errors that a reader may report.
        version: the version whose load fails; None for the newest.
        rules: requirement ids that name the fault, where one of a few is clearly right.
        reader: a reader of whole states sees it; else a verifier only.
    """

    name: str
    build: Callable[[], Builder]
    errors: tuple[str, ...]
    version: int | None = 1
    rules: tuple[str, ...] = ()
    reader: bool = True

    @property
    def builder(self) -> Builder:
        """The chain, made anew."""
        return self.build()


BROKEN: list[Broken] = []

#: Where the words of the standard chain change from version 0 to 1, tensor by tensor.
PLACES = {
    "a.weight": [3, 290, 291, 300, 302],
    "b.bias": [1, 20, 22],
    "c.ids": [0, 3, 9],
    "d.mask": list(range(13)),
}


def standard_models() -> list[Model]:
    rng = np.random.default_rng(99)
    first = small(rng)
    first["a.weight"].words[:] = np.maximum(first["a.weight"].words, 0x3C00)  # so that exponent order has two classes
    second: Model = {}
    for name, places in PLACES.items():
        words = first[name].words.copy()
        words[places] += np.array([1, 500, 1, 65535, 2, 3] * 3, np.uint64)[: len(places)].astype(words.dtype)
        second[name] = Tensor(first[name].dtype, first[name].shape, words)
    return [first, second, stepped(rng, second, 0.1, ["a.weight"])]


Plan = list[dict[str, Any]]


def standard_plan() -> Plan:
    """The chunks of version 1: two slices of one tensor, then a tensor each."""
    return [
        {"slices": [("a.weight", 0, 160), ("a.weight", 160, 320)]},
        {"slices": [("b.bias", 0, 24)], "shift": 4},
        {"slices": [("c.ids", 0, 10)], "positions": "bitmap", "values": "replace"},
        {"slices": [("d.mask", 0, 13)], "positions": "all"},
    ]


def standard(
    *,
    chain: Callable[[dict[str, Any]], None] = _nothing,
    compression: str = "none",
    models: Callable[[list[Model]], None] = _nothing,
    plan: Callable[[Plan], Any] = _nothing,
    raw: Callable[[int, dict[str, bytes]], Any] = _nothing,
    stored: Callable[[int, dict[str, bytes]], Any] = _nothing,
    chunks: Callable[[list[dict[str, Any]]], Any] = _nothing,
    layout: Callable[[dict[str, Any]], Any] = _nothing,
    layout_text: Callable[[bytes], bytes] = identity,
    table: Callable[[dict[str, Any]], Any] = _nothing,
    table_text: Callable[[bytes], bytes] = identity,
    header: Callable[[dict[str, Any]], Any] = _nothing,
    header_text: Callable[[bytes], bytes] = identity,
    pad: bytes | None = None,
    pack: Callable[[bytes], bytes] = identity,
    more: Callable[[Builder, list[Model], str], list[Pack]] = lambda *_: [],
    entry: Callable[[dict[str, Any]], Any] = _nothing,
    manifest: Callable[[dict[str, Any]], Any] = _nothing,
    text: Callable[[bytes], bytes] = identity,
    features: Sequence[str] = (),
    after: Callable[[Builder], Any] = _nothing,
    fields: Mapping[str, Any] | None = None,
    fingerprints: bool = True,
    last: bool = True,
) -> Builder:
    """Versions 0 (full), 1 (delta), 2 (delta); what is given is done to version 1, at the place that its name says."""
    builder = Builder(chain=chain)
    states = standard_models()
    models(states)
    builder.full(0, states[0])
    plans = standard_plan()
    plan(plans)
    base = fit(states[0], states[1])
    made = []
    for number, each in enumerate(plans):
        how = {"compression": compression, **each}
        made.append(chunk(base, states[1], raw=lambda streams, number=number: raw(number, streams), **how))
        stored(number, made[-1].streams)
    digest_ = builder.layout(states[1], hook=layout, text=layout_text)

    def whole_table(document: dict[str, Any]) -> None:
        chunks(document["chunks"])
        table(document)

    own = of_chunks(
        made, digest_, table=whole_table, table_text=table_text, header=header, header_text=header_text, pad=pad
    )
    own.data = pack(own.data)
    own.fields |= fields or {}
    packs = [own, *more(builder, states, digest_)]
    config = builder.file("config.json", b"{}")

    def first_entry(each: dict[str, Any]) -> None:
        if each["sha256"] == digest(own.data):
            entry(each)

    builder.edge(
        1,
        states[1],
        packs,
        base=0,
        layout=digest_,
        features=features,
        fingerprints=fingerprints,
        files=[config],
        hook=manifest,
        text=text,
        entry=first_entry,
    )
    if last:
        builder.delta(2, states[2], 1)
    after(builder)
    return builder


def fault(
    name: str,
    *errors: str,
    version: int | None = 1,
    rule: str | tuple[str, ...] = (),
    reader: bool = True,
    build: Callable[[], Builder] | None = None,
    **how: Any,
) -> None:
    """Register a fault: by what is done to the standard chain, or by a builder of its own."""
    rules = (rule,) if isinstance(rule, str) else rule
    BROKEN.append(Broken(name, build or (lambda: standard(**how)), errors, version, rules, reader))


def setting(**members: Any) -> Callable[[dict[str, Any]], None]:
    return lambda document: document.update(members)


def without(member: str) -> Callable[[dict[str, Any]], None]:
    def drop(document: dict[str, Any]) -> None:
        del document[member]

    return drop


def replaced(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        assert old in data, old
        return data.replace(old, new, 1)

    return change


def flipped(at: int) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        place = at % len(data)
        return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]

    return change


def _objects() -> None:
    """What lies in the store is not what was put there."""
    first = lambda builder: builder.pack_names(1)[0]
    layout = lambda builder: f"layouts/{builder.manifests[1]['layout']}.json"
    fault("pack-truncated", "integrity", rule="TD-MAN-013", after=lambda b: b.change(first(b), lambda d: d[:-1]))
    fault("pack-longer", "integrity", rule="TD-MAN-013", after=lambda b: b.change(first(b), lambda d: d + b"\0"))
    fault("pack-altered", "integrity", rule="TD-MAN-013", after=lambda b: b.change(first(b), flipped(-1)))
    fault("pack-header-altered", "integrity", rule="TD-MAN-013", after=lambda b: b.change(first(b), flipped(20)))
    fault("pack-empty", "integrity", after=lambda b: b.put(first(b), b""))
    fault("pack-missing", "missing", rule="TD-MAN-014", after=lambda b: b.remove(first(b)))
    fault("pack-of-another-version", "integrity", after=lambda b: b.put(first(b), b.get(b.pack_names(0)[0])))
    fault("pack-size-wrong", "integrity", entry=lambda e: e.update(size=e["size"] + 1))
    fault("pack-digest-wrong", "integrity", entry=lambda e: e.update(sha256="0" * 64))
    fault("pack-of-the-base-missing", "missing", after=lambda b: b.remove(b.pack_names(0)[0]))
    fault("pack-of-a-full-version-missing", "missing", version=0, after=lambda b: b.remove(b.pack_names(0)[0]))
    added = lambda states: states[1].update({"z": tensor("U8", (4,))})
    how: dict[str, Any] = {"models": added, "last": False}
    fault("layout-altered", "integrity", rule="TD-LAY-008", after=lambda b: b.change(layout(b), flipped(-8)), **how)
    fault("layout-truncated", "integrity", after=lambda b: b.change(layout(b), lambda d: d[:-1]), **how)
    fault("layout-missing", "missing", rule="TD-LAY-009", after=lambda b: b.remove(layout(b)), **how)
    fault("layout-longer", "integrity", after=lambda b: b.change(layout(b), lambda d: d + b" "), **how)
    fault("manifest-missing", "missing", rule="TD-OBJ-008", last=False, after=lambda b: b.remove(manifest_name(1)))
    fault("version-that-never-was", "missing", rule="TD-OBJ-008", version=3)
    fault("chain-missing", "missing", rule="TD-OBJ-009", after=lambda b: b.remove("chain.json"))
    fault("no-versions", "missing", version=None, build=Builder)
    fault("base-manifest-missing", "missing", after=lambda b: b.remove(manifest_name(0)))
    fault(
        "manifest-under-another-number",
        "malformed",
        rule="TD-OBJ-004",
        version=7,
        after=lambda b: b.put(manifest_name(7), b.get(manifest_name(1))),
    )
    fault("manifest-truncated", "malformed", last=False, text=lambda d: d[:-1])
    fault("manifest-empty", "malformed", last=False, text=lambda d: b"")
    fault("newest-manifest-unreadable", "malformed", version=None, after=lambda b: b.put(manifest_name(3), b"{"))
    fault("manifest-of-a-foreign-chain", "conflict", rule="TD-OBJ-011", manifest=setting(chain=FOREIGN))
    fault(
        "chain-id-replaced",
        "conflict",
        rule="TD-OBJ-011",
        after=lambda b: b.change("chain.json", replaced(CHAIN.encode(), FOREIGN.encode())),
    )

    def link(name: Callable[[Builder], str]) -> Callable[[Builder], None]:
        return lambda builder: builder.outside.add(name(builder))

    fault("pack-is-a-link-out-of-the-root", "untrusted", rule="TD-STO-006", after=link(first))
    fault(
        "manifest-is-a-link-out-of-the-root",
        "untrusted",
        rule="TD-STO-006",
        last=False,
        after=link(lambda b: manifest_name(1)),
    )

    def sums(how: Callable[[bytes], bytes], *, named: bool = False) -> Callable[[Builder], None]:
        """Change version 1's fingerprints object; with `named`, name it by its new digest."""

        def change(builder: Builder) -> None:
            old = builder.manifests[1]["tensor_fingerprints"]
            data = how(builder.get(f"fingerprints/{old}.bin"))
            if not named:
                builder.put(f"fingerprints/{old}.bin", data)
                return
            builder.put(f"fingerprints/{digest(data)}.bin", data)
            builder.change(manifest_name(1), replaced(old.encode(), digest(data).encode()))

        return change

    fault("fingerprints-altered", "integrity", reader=False, rule="TD-FPR-001", after=sums(flipped(0)))
    fault("fingerprints-truncated", "integrity", "malformed", reader=False, after=sums(lambda d: d[:-1]))
    fault(
        "fingerprints-of-too-few",
        "malformed",
        reader=False,
        rule="TD-FPR-002",
        after=sums(lambda d: d[:-8], named=True),
    )
    fault(
        "fingerprints-of-too-many",
        "malformed",
        reader=False,
        rule="TD-FPR-002",
        after=sums(lambda d: d + bytes(8), named=True),
    )
    fault(
        "fingerprints-sum-wrong",
        "integrity",
        reader=False,
        rule=("TD-FPR-003", "TD-FPR-005"),
        after=sums(flipped(9), named=True),
    )
    fault(
        "fingerprints-missing",
        "missing",
        reader=False,
        after=lambda b: b.remove(f"fingerprints/{b.manifests[1]['tensor_fingerprints']}.bin"),
    )
    config = lambda builder: builder.manifests[1]["files"][0]["path"]
    fault("file-altered", "integrity", reader=False, after=lambda b: b.change(config(b), lambda d: b"[]"))
    fault("file-longer", "integrity", reader=False, after=lambda b: b.change(config(b), lambda d: d + b" "))
    fault("file-missing", "missing", reader=False, after=lambda b: b.remove(config(b)))

    def nowhere(builder: Builder) -> None:
        builder.put(shortcut_name(5, 0), builder.get(manifest_name(1)).replace(b'"version":1', b'"version":5', 1))

    fault("shortcut-to-nowhere", "missing", reader=False, rule="TD-MAN-024", after=nowhere)


def _json() -> None:
    """Rules of section 4.3, on a manifest; a few on other objects."""
    first = lambda extra: replaced(b"{", b"{" + extra)
    fault("json-not-utf8", "malformed", rule="TD-JSN-001", text=first(b'"x":"\xff",'))
    fault("json-byte-order-mark", "malformed", rule="TD-JSN-002", text=lambda d: b"\xef\xbb\xbf" + d)
    fault("json-utf16", "malformed", text=lambda d: d.decode().encode("utf-16"))
    fault("json-array", "malformed", rule="TD-JSN-003", text=lambda d: b"[" + d + b"]")
    fault("json-two-objects", "malformed", rule="TD-JSN-003", text=lambda d: d + b"{}")
    fault("json-trailing-comma", "malformed", rule="TD-JSN-003", text=lambda d: d[:-1] + b",}")
    fault("json-comment", "malformed", rule="TD-JSN-003", text=lambda d: d + b"//x")
    fault("json-single-quotes", "malformed", text=first(b"'x':1,"))
    fault("json-control-character", "malformed", text=first(b'"x":"\n",'))
    fault("json-trailing-nul", "malformed", text=lambda d: d + b"\0")
    fault("json-form-feed", "malformed", text=lambda d: d + b"\x0c")
    fault("json-no-break-space", "malformed", text=lambda d: d + "\u00a0".encode())
    fault("json-leading-zero", "malformed", text=first(b'"x":01,'))
    fault("json-bare-point", "malformed", text=first(b'"x":1.,'))
    fault("json-duplicate-member", "malformed", rule="TD-JSN-004", text=first(b'"version":1,'))
    fault("json-duplicate-escaped", "malformed", rule="TD-JSN-004", text=first(b'"\\u0076ersion":1,'))
    fault("json-duplicate-deep", "malformed", rule="TD-JSN-004", text=first(b'"x":[{"a":1,"b":{"c":1,"c":1}}],'))
    fault("json-lone-surrogate", "malformed", rule="TD-JSN-005", text=first(b'"x":"\\ud800",'))
    fault("json-lone-low-surrogate", "malformed", rule="TD-JSN-005", text=first(b'"x":["\\udc00\\ud800"],'))
    fault("json-lone-surrogate-member", "malformed", rule="TD-JSN-005", text=first(b'"\\uDBFFx":1,'))
    fault("json-encoded-surrogate", "malformed", rule="TD-JSN-001", text=first(b'"x":"\xed\xa0\x80",'))
    fault("json-nan", "malformed", rule=("TD-JSN-007", "TD-JSN-003"), text=first(b'"x":NaN,'))
    fault("json-infinity", "malformed", rule=("TD-JSN-007", "TD-JSN-003"), text=first(b'"x":[-Infinity],'))
    fault("json-too-deep", "limit", rule="TD-JSN-008", text=first(b'"x":' + b"[" * 16 + b"]" * 16 + b","))
    fault(
        "json-too-deep-mixed", "limit", rule="TD-JSN-008", text=first(b'"x":' + b'[{"a":' * 8 + b"1" + b"}]" * 8 + b",")
    )
    for name, literal in {
        "minus-zero": b"-0",
        "fraction": b"1.0",
        "exponent": b"1e0",
        "negative": b"-1",
        "string": b'"1"',
        "boolean": b"true",
        "null": b"null",
    }.items():
        fault(
            f"json-integer-{name}",
            "malformed",
            last=False,
            text=replaced(b'"version":1,', b'"version":' + literal + b","),
        )
    fault(
        "json-integer-too-great", "malformed", text=lambda d: d.replace(b'"changed":24', b'"changed":9007199254740992')
    )
    fault(
        "json-integer-far-too-great", "malformed", text=lambda d: d.replace(b'"changed":24', b'"changed":' + b"9" * 400)
    )
    fault("json-integer-in-an-array", "malformed", entry=lambda e: e.update(tensors=[0.0, 4]))
    fault("json-version-too-great", "malformed", last=False, manifest=setting(version=10**12))
    for member in ("tensordelta", "chain", "version", "layout", "fingerprint", "base", "packs", "features", "created"):
        fault(f"manifest-without-{member}", "malformed", manifest=without(member))
    for member, value in {
        "annotations": None,
        "files": None,
        "tensor_fingerprints": None,
        "packs": {},
        "features": "exponent-order",
        "base": [],
        "fingerprint": 7,
        "created": None,
        "chain": None,
        "layout": None,
    }.items():
        fault(f"manifest-{member.replace('_', '-')}-of-another-type", "malformed", manifest=setting(**{member: value}))
    for name, members in {
        "format-major-only": {"tensordelta": "1"},
        "format-leading-zero": {"tensordelta": "01.0"},
        "format-patch": {"tensordelta": "1.0.0"},
        "format-number": {"tensordelta": 1.0},
        "format-newline": {"tensordelta": "1.0\n"},
        "format-digits": {"tensordelta": "\u0661.0"},
        "chain-upper-case": {"chain": CHAIN.upper()},
        "chain-newline": {"chain": CHAIN + "\n"},
        "layout-upper-case": {"layout": "A" * 64},
        "fingerprint-short": {"fingerprint": "0" * 15},
        "fingerprint-prefixed": {"fingerprint": "0x" + "0" * 14},
        "created-offset": {"created": "2026-11-20T12:00:00+00:00"},
        "created-space": {"created": "2026-11-20 12:00:00Z"},
        "created-month": {"created": "2026-13-20T12:00:00Z"},
        "created-hour": {"created": "2026-11-20T24:00:00Z"},
        "created-fraction": {"created": "2026-11-20T12:00:00.1234567890Z"},
        "created-newline": {"created": CREATED + "\n"},
        "feature-upper-case": {"features": ["Exponent-Order"]},
        "feature-empty": {"features": [""]},
        "feature-65-characters": {"features": ["f" * 65]},
        "annotation-number": {"annotations": {"step": 420}},
        "annotation-null": {"annotations": {"step": None}},
    }.items():
        fault(f"pattern-{name}", "malformed", manifest=setting(**members))
    fault("format-2", "unsupported", rule="TD-VER-002", manifest=setting(tensordelta="2.0"))
    fault("format-0", "unsupported", rule="TD-VER-002", manifest=setting(tensordelta="0.9"))
    fault("format-2-and-all-else-different", "unsupported", rule="TD-VER-002", text=lambda d: b'{"tensordelta":"2.0"}')
    fault("format-11", "unsupported", rule="TD-VER-002", manifest=setting(tensordelta="11.0"))
    fault("feature-unknown", "unsupported", rule="TD-MAN-004", features=["strided-slices"])
    fault("annotations-65", "limit", rule="TD-LIM-004", manifest=setting(annotations={str(i): "" for i in range(65)}))
    fault("annotation-4097-bytes", "limit", rule="TD-LIM-001", manifest=setting(annotations={"k": "é" * 2048}))
    # chain.json
    fault("chain-format-2", "unsupported", chain=setting(tensordelta="2.0"))
    fault("chain-upper-case", "malformed", chain=setting(chain=CHAIN.upper()))
    fault("chain-without-created", "malformed", chain=without("created"))
    fault("chain-annotations-65", "limit", chain=setting(annotations={str(i): "" for i in range(65)}))
    fault(
        "chain-65537-bytes",
        "limit",
        rule="TD-LIM-004",
        after=lambda b: b.change("chain.json", lambda d: d + b" " * (65537 - len(d))),
    )
    fault("chain-not-json", "malformed", after=lambda b: b.put("chain.json", b"tensordelta"))
    fault("chain-empty", "malformed", after=lambda b: b.put("chain.json", b""))


def _layouts() -> None:
    """Rules of section 4.6. The layout that breaks one is version 1's; the base keeps its own."""

    def add(*entries: dict[str, Any], first: bool = False) -> dict[str, Any]:
        def hook(document: dict[str, Any]) -> None:
            at = 0 if first else len(document["tensors"])
            document["tensors"][at:at] = entries

        return {"layout": hook, "last": False}

    def t(name: str, dtype: str = "U8", shape: Any = (2,)) -> dict[str, Any]:
        return {"name": name, "dtype": dtype, "shape": list(shape)}

    fault("layout-names-descending", "malformed", rule="TD-LAY-002", **add(t("a")))
    fault("layout-names-equal", "malformed", rule="TD-LAY-002", **add(t("z"), t("z")))
    fault("layout-names-by-utf16", "malformed", rule="TD-LAY-002", **add(t("\U00010000"), t("\uffff")))
    fault("layout-name-empty", "malformed", rule="TD-LAY-003", **add(t(""), first=True))
    fault("layout-name-1025-bytes", "malformed", rule="TD-LAY-003", **add(t("z" + "é" * 512)))
    fault("layout-name-metadata", "malformed", rule=("TD-LAY-003", "TD-LAY-004"), **add(t("__metadata__"), first=True))
    fault("layout-name-number", "malformed", **add({**t("z"), "name": 7}))
    fault("layout-dtype-unknown", "unsupported", rule="TD-WRD-004", **add(t("z", "F128")))
    fault("layout-dtype-lower-case", "unsupported", rule="TD-WRD-004", **add(t("z", "bf16")))
    fault("layout-dtype-null", "malformed", **add({**t("z"), "dtype": None}))
    fault("layout-odd-f4", "malformed", rule="TD-WRD-005", **add(t("z", "F4", [3])))
    fault("layout-odd-f6", "malformed", rule="TD-WRD-005", **add(t("z", "F6_E3M2", [2])))
    fault("layout-scalar-f4", "malformed", rule="TD-WRD-005", **add(t("z", "F4", [])))
    fault("layout-rank-17", "limit", rule="TD-LIM-004", **add(t("z", "U8", [1] * 17)))
    fault("layout-dimension-too-great", "limit", rule="TD-LAY-007", **add(t("z", "U8", [0, 2**48 + 1])))
    fault("layout-product-too-great", "limit", rule="TD-LAY-007", **add(t("z", "U8", [2**47, 3])))
    fault("layout-product-too-great-with-0", "limit", rule="TD-LAY-007", **add(t("z", "U8", [2**47, 0, 3])))
    fault("layout-product-overflows", "limit", rule="TD-LAY-007", **add(t("z", "U8", [2**32, 2**32])))
    fault("layout-shape-negative", "malformed", **add(t("z", "U8", [-1])))
    fault("layout-shape-fraction", "malformed", **add(t("z", "U8", [2.0])))
    fault("layout-shape-number", "malformed", **add({**t("z"), "shape": 2}))
    fault("layout-without-tensors", "malformed", layout=without("tensors"), last=False)
    fault("layout-format-2", "unsupported", layout=setting(tensordelta="2.0"), last=False)
    fault("layout-not-json", "malformed", layout_text=lambda d: d[:-1], last=False)
    fault("layout-duplicate-member", "malformed", layout_text=replaced(b'"dtype"', b'"shape":[1],"dtype"'), last=False)
    huge = t("z", "F64", [2**48])
    fault("layout-beyond-any-memory", "limit", rule=("TD-LIM-002", "TD-LIM-003"), **add(huge), fingerprints=False)

    def full_huge() -> Builder:
        builder = Builder()
        builder.full(0, {})
        layout = builder.layout({}, hook=lambda document: document["tensors"].append(huge))
        builder.edge(1, {}, [], layout=layout, fingerprints=False)
        return builder

    fault("full-version-beyond-any-memory", "limit", rule=("TD-LIM-002", "TD-LIM-003"), build=full_huge)


def _manifests() -> None:
    """Rules of sections 4.7 to 4.10."""
    base = lambda **members: lambda document: document["base"].update(members)
    fault(
        "base-fingerprint-wrong", "wrong-base", rule=("TD-RTE-002", "TD-RDR-003"), manifest=base(fingerprint="0" * 16)
    )
    fault(
        "base-layout-wrong",
        "wrong-base",
        rule=("TD-RTE-002", "TD-RDR-004"),
        models=lambda m: m[1].update(z=tensor("U8", (2,))),
        last=False,
        manifest=lambda d: d["base"].update(layout=d["layout"]),
    )
    fault("base-is-the-version", "malformed", rule="TD-MAN-003", manifest=base(version=1))
    fault("base-is-newer", "malformed", rule="TD-MAN-003", manifest=base(version=2))
    fault("base-without-layout", "malformed", manifest=lambda d: d["base"].pop("layout"))
    fault("base-version-string", "malformed", manifest=base(version="0"))
    fault(
        "fingerprint-wrong",
        "integrity",
        rule="TD-RDR-007",
        last=False,
        manifest=setting(fingerprint="0123456789abcdef"),
    )
    fault("fingerprint-of-a-full-version-wrong", "integrity", rule="TD-RDR-007", build=_full_fingerprint)
    # A planner may find this out before it chooses a route, or after.
    fault("base-of-the-base-wrong", "wrong-base", "missing", version=2, manifest=base(fingerprint="0" * 16))
    for member in ("sha256", "size", "path", "content", "tensors", "changed"):
        fault(f"pack-entry-without-{member}", "malformed", entry=without(member))
    fault("pack-entry-not-an-object", "malformed", manifest=lambda d: d["packs"].append(7))
    fault("pack-entry-sources-null", "malformed", entry=setting(sources=None))
    fault("pack-entry-name-null", "malformed", entry=setting(name=None))
    fault("pack-entry-path-null", "malformed", rule="TD-MAN-009", entry=setting(path=None))
    fault("pack-entry-path-null-no-sources", "malformed", rule="TD-MAN-009", entry=setting(path=None, sources=[]))
    fault(
        "pack-entry-path-null-source-not-allowed",
        "untrusted",
        rule="TD-MAN-017",
        entry=setting(path=None, sources=["hf://o/m@c/f.safetensors"]),
    )
    fault(
        "pack-entry-path-null-source-without-scheme",
        "untrusted",
        rule="TD-MAN-017",
        entry=setting(path=None, sources=["f.safetensors"]),
    )
    fault("pack-entry-content-unknown", "unsupported", rule="TD-MAN-012", entry=setting(content="archives"))
    fault("pack-entry-content-swapped", "malformed", entry=setting(content="tensors"))
    fault("pack-entry-size-too-great", "limit", rule="TD-LIM-004", entry=setting(size=2**40 + 1))
    for name, path in {
        "up": "packs/../x.safetensors",
        "only-up": "../x.safetensors",
        "absolute": "/packs/x.safetensors",
        "backslash": "packs\\x.safetensors",
        "hidden": "packs/.x.safetensors",
        "dot": "packs/./x.safetensors",
        "empty-segment": "packs//x.safetensors",
        "trailing-slash": "packs/x/",
        "space": "packs/x y.safetensors",
        "letters": "packs/é.safetensors",
        "newline": "packs/x.safetensors\n",
        "nul": "packs/x\0.safetensors",
        "elsewhere": "files/x.safetensors",
        "bare": "packs",
        "prefix-only-looks-right": "packs2/x.safetensors",
        "empty": "",
        "201-characters": "packs/" + "x" * 195,
        "drive": "C:/packs/x.safetensors",
        "url": "https://host/x.safetensors",
    }.items():
        fault(
            f"pack-path-{name}", "malformed", rule=("TD-PTH-001", "TD-PTH-002", "TD-PTH-003"), entry=setting(path=path)
        )
    for name, tensors in {
        "empty": [2, 2],
        "backwards": [4, 0],
        "beyond-the-layout": [0, 5],
        "too-wide": [0, 3],
        "too-narrow": [1, 4],
        "one-number": [0],
        "three-numbers": [0, 4, 4],
    }.items():
        fault(f"pack-tensors-{name}", "malformed", entry=setting(tensors=tensors))
    fault("pack-tensors-far-beyond", "malformed", rule="TD-MAN-010", entry=setting(tensors=[0, 2**53 - 1]))
    fault("pack-changed-wrong", "malformed", rule="TD-MAN-011", entry=lambda e: e.update(changed=e["changed"] + 1))
    fault("pack-changed-0", "malformed", rule="TD-MAN-011", entry=setting(changed=0))
    fault(
        "packs-65537",
        "limit",
        rule="TD-LIM-004",
        manifest=lambda d: d.update(packs=[{**d["packs"][0], "path": "packs/x"}] * 65537),
    )

    def file(**members: Any) -> Callable[[dict[str, Any]], None]:
        return lambda document: document["files"][0].update(members)

    def file_again(name: str) -> Callable[[dict[str, Any]], None]:
        return lambda document: document["files"].append({**document["files"][0], "name": name})

    for name, path in {
        "up": "../config.json",
        "absolute": "/config.json",
        "backslash": "a\\b",
        "hidden": ".config",
        "empty": "",
    }.items():
        fault(f"file-name-{name}", "malformed", rule="TD-PTH-001", manifest=file(name=path))
    fault("file-name-201-characters", "malformed", rule=("TD-PTH-001", "TD-PTH-002"), manifest=file(name="x" * 201))
    fault("file-name-twice", "malformed", rule="TD-MAN-020", manifest=file_again("config.json"))
    fault("file-name-is-a-folder", "malformed", rule="TD-MAN-021", manifest=file_again("config.json/x"))
    fault(
        "file-name-is-a-folder-above",
        "malformed",
        rule="TD-MAN-021",
        manifest=lambda d: d["files"].append({**d["files"][0], "name": "config.json/a/b"}),
    )
    fault("file-path-null", "malformed", manifest=file(path=None))
    fault("file-path-in-packs", "malformed", rule=("TD-PTH-003", "TD-PTH-004"), manifest=file(path="packs/x"))
    fault("file-path-up", "malformed", rule="TD-PTH-001", manifest=file(path="files/../x"))
    fault("file-size-too-great", "limit", rule="TD-LIM-004", manifest=file(size=2**40 + 1))
    fault("file-without-sha256", "malformed", manifest=lambda d: d["files"][0].pop("sha256"))

    # Shortcuts: the version's own pack is gone, so that one is needed.
    def shortcut(how: Callable[[dict[str, Any]], None], version: int = 1) -> dict[str, Any]:
        def after(builder: Builder) -> None:
            builder.full(version, builder.models[version], shortcut="", hook=how)
            builder.remove(builder.pack_names(version)[0])

        return {"after": after, "version": version}

    fault("shortcut-disagrees-and-no-other-route", "missing", **shortcut(setting(fingerprint="0" * 16)))
    fault("shortcut-malformed-and-no-other-route", "missing", **shortcut(without("packs")))
    fault("shortcut-of-a-foreign-chain-and-no-other-route", "missing", **shortcut(setting(chain=FOREIGN)))
    fault("shortcut-under-another-name-and-no-other-route", "missing", **shortcut(setting(version=2)))

    def only_shortcut(
        how: Callable[[dict[str, Any]], None], spoil: Callable[[Builder, dict[str, Any]], None] = _nothing
    ) -> dict[str, Any]:
        """Version 0's manifest is gone, so that version 1's own edge starts nowhere and a shortcut is all there is."""

        def after(builder: Builder) -> None:
            spoil(builder, builder.full(1, builder.models[1], shortcut="", hook=how))
            builder.remove(manifest_name(0))

        return {"after": after}

    fault("only-a-shortcut-that-disagrees", "missing", **only_shortcut(setting(fingerprint="0" * 16)))
    fault("only-a-shortcut-that-is-malformed", "missing", **only_shortcut(without("packs")))
    fault(
        "only-a-shortcut-with-another-base",
        "missing",
        **only_shortcut(setting(base={"version": 0, "layout": "0" * 64, "fingerprint": "0" * 16})),
    )
    fault("only-a-shortcut-with-an-unknown-feature", "unsupported", **only_shortcut(setting(features=["x"])))
    fault(
        "only-a-shortcut-with-an-altered-pack",
        "integrity",
        **only_shortcut(_nothing, lambda b, made: b.change(made["packs"][0]["path"], flipped(-1))),
    )
    fault("base-manifest-unreadable", "missing", version=2, text=lambda d: d[:-1])
    fault("base-manifest-of-a-foreign-chain", "missing", version=2, manifest=setting(chain=FOREIGN))
    fault("base-manifest-with-an-unknown-feature", "unsupported", version=2, features=["strided-slices"])


def _full_fingerprint() -> Builder:
    builder = Builder()
    model = standard_models()[0]
    builder.full(0, model)
    builder.full(1, model, hook=setting(fingerprint="0" * 16))
    return builder


def _containers() -> None:
    """Rules of sections 6.1, 6.2 and 6.4."""
    fault("pack-7-bytes", "malformed", rule="TD-PCK-001", pack=lambda d: d[:7])
    fault("pack-0-bytes", "malformed", rule="TD-PCK-001", pack=lambda d: b"")
    fault(
        "header-longer-than-the-file",
        "malformed",
        rule="TD-PCK-001",
        pack=lambda d: len(d).to_bytes(8, "little") + d[8:],
    )
    fault(
        "header-length-100000001",
        "limit",
        "malformed",
        rule=("TD-PCK-002", "TD-PCK-001"),
        pack=lambda d: (100_000_001).to_bytes(8, "little") + d[8:],
    )
    fault(
        "header-length-2-64-1",
        "limit",
        "malformed",
        rule=("TD-PCK-002", "TD-PCK-001"),
        pack=lambda d: b"\xff" * 8 + d[8:],
    )
    fault("header-length-0", "malformed", pack=lambda d: bytes(8) + d[8:])
    fault("header-begins-with-a-space", "malformed", rule="TD-PCK-003", header_text=lambda t: b" " + t)
    fault("header-not-json", "malformed", header_text=lambda t: t[:-1])
    fault("header-padded-with-nul", "malformed", pad=b"\0" * 8)
    fault("header-duplicate-member", "malformed", header_text=replaced(b'"0.gaps"', b'"1.gaps"'))
    fault("header-too-deep", "limit", header=lambda h: h.update(x=json.loads("[" * 16 + "]" * 16)))
    fault("header-lone-surrogate", "malformed", header_text=replaced(b"{", b'{"__metadata__2\\ud800":"",'))

    def moved(name: str, begin: int, end: int) -> Callable[[dict[str, Any]], None]:
        def move(header: dict[str, Any]) -> None:
            first, last = header[name]["data_offsets"]
            header[name].update(data_offsets=[first + begin, last + end], shape=[last + end - first - begin])

        return move

    fault("buffer-with-a-hole", "malformed", rule="TD-PCK-004", header=moved("1.gaps", 1, 0))
    fault("buffer-overlap", "malformed", rule="TD-PCK-004", header=moved("1.gaps", -1, 0))
    fault("buffer-trailing-byte", "malformed", rule="TD-PCK-004", pack=lambda d: d + b"\0")
    fault("buffer-missing-byte", "malformed", rule="TD-PCK-004", pack=lambda d: d[:-1])
    fault(
        "buffer-does-not-start-at-0",
        "malformed",
        rule="TD-PCK-004",
        header=lambda h: [
            each.update(data_offsets=[at + 1 for at in each["data_offsets"]])
            for name, each in h.items()
            if name[0] != "_"
        ],
        pack=lambda d: d + b"\0",
    )
    fault(
        "offsets-backwards",
        "malformed",
        header=lambda h: h["0.gaps"].update(data_offsets=h["0.gaps"]["data_offsets"][::-1]),
    )
    fault(
        "offsets-fraction",
        "malformed",
        header=lambda h: h["0.gaps"].update(data_offsets=[0.0, h["0.gaps"]["data_offsets"][1]]),
    )
    fault("offsets-huge", "malformed", header=lambda h: h["0.gaps"].update(data_offsets=[0, 2**53 - 1]))
    fault("entry-dtype-i8", "malformed", rule="TD-PCK-008", header=lambda h: h["0.gaps"].update(dtype="I8"))
    fault(
        "entry-shape-two",
        "malformed",
        rule="TD-PCK-008",
        header=lambda h: h["0.gaps"].update(shape=[1, *h["0.gaps"]["shape"]]),
    )
    fault("entry-shape-wrong", "malformed", header=lambda h: h["0.gaps"].update(shape=[h["0.gaps"]["shape"][0] + 1]))
    fault(
        "entry-unknown-member", "malformed", rule=("TD-PCK-009", "TD-PCK-008"), header=lambda h: h["0.gaps"].update(x=1)
    )
    fault("entry-without-shape", "malformed", header=lambda h: h["0.gaps"].pop("shape"))
    fault("metadata-absent", "malformed", rule="TD-PCK-010", header=without("__metadata__"))
    fault("metadata-without-table", "malformed", rule="TD-PCK-010", header=setting(__metadata__={"format": "pt"}))
    fault("metadata-of-numbers", "malformed", rule="TD-PCK-010", header=lambda h: h["__metadata__"].update(x=1))
    fault("metadata-null", "malformed", rule="TD-PCK-010", header=setting(__metadata__=None))
    fault("metadata-table-not-a-string", "malformed", header=lambda h: h.update(__metadata__={"tensordelta": {}}))

    def rename(old: str, new: str) -> Callable[[dict[str, Any]], None]:
        def change(header: dict[str, Any]) -> None:
            header[new] = header.pop(old)

        return change

    fault(
        "stream-of-no-chunk",
        "malformed",
        rule="TD-PCK-012",
        header=setting(**{"4.gaps": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}}),
    )
    fault(
        "stream-unknown",
        "malformed",
        rule="TD-PCK-012",
        header=setting(**{"0.extra": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}}),
    )
    fault(
        "stream-of-another-codec",
        "malformed",
        rule="TD-PCK-012",
        header=setting(**{"0.low": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}}),
    )
    fault(
        "stream-plane-too-high",
        "malformed",
        rule="TD-PCK-012",
        header=setting(**{"0.escapes.2": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}}),
    )
    fault("stream-with-a-leading-zero", "malformed", header=rename("0.gaps", "00.gaps"))
    fault("stream-without-a-chunk", "malformed", header=rename("0.gaps", "gaps"))
    fault("stream-with-an-upper-case-name", "malformed", header=rename("0.gaps", "0.Gaps"))
    for number, stream in ((0, "gaps"), (0, "codes"), (1, "low"), (2, "bitmap"), (2, "values.3"), (0, "escapes.1")):
        fault(
            f"stream-missing-{number}.{stream}",
            "malformed",
            rule="TD-PCK-013",
            stored=lambda i, s, number=number, stream=stream: s.pop(stream) if i == number else None,
        )
    fault(
        "stream-missing-all-escapes",
        "malformed",
        rule=("TD-CHK-021", "TD-PCK-013"),
        stored=lambda i, s: [s.pop(n) for n in list(s) if i == 0 and n.startswith("escapes")],
    )

    # Plain packs: version 1 takes one tensor from a shard, the rest from chunks.
    def plain(
        shard: Callable[[list[Model]], Model],
        how: dict[str, Any] | None = None,
        alter: Callable[[Pack], Any] = _nothing,
        **options: Any,
    ) -> dict[str, Any]:
        def more(builder: Builder, states: list[Model], layout: str) -> list[Pack]:
            held = shard(states)
            index = {name: i for i, name in enumerate(ordered(states[1]))}
            known = [index[name] for name in held if name in index] or [0]
            words = sum(len(states[1][name].words) for name in held if name in index)
            made = Pack(plain_pack(held, **(how or {})), "tensors", (min(known), max(known) + 1), words)
            alter(made)
            return [made]

        return {"plan": lambda plans: plans.pop(1), "more": more, "last": False, **options}

    bias = lambda states: {"b.bias": states[1]["b.bias"]}
    both = lambda change: lambda states: {"b.bias": states[1]["b.bias"], **change(states)}
    fault(
        "plain-other-dtype",
        "malformed",
        rule="TD-PCK-015",
        **plain(lambda s: {"b.bias": Tensor("I32", (24,), s[1]["b.bias"].words)}),
    )
    fault(
        "plain-other-shape",
        "malformed",
        rule="TD-PCK-015",
        **plain(lambda s: {"b.bias": Tensor("F32", (4, 6), s[1]["b.bias"].words)}),
    )
    fault("plain-no-tensor-of-the-layout", "malformed", **plain(lambda s: {"other": s[1]["b.bias"]}))
    fault("plain-no-tensors", "malformed", **plain(lambda s: {}))
    fault(
        "plain-unknown-dtype",
        "unsupported",
        rule="TD-PCK-018",
        **plain(bias, {"header": lambda h: h.update(x={"dtype": "Q4", "shape": [0], "data_offsets": [0, 0]})}),
    )
    fault(
        "plain-wrong-size-of-a-tensor",
        "malformed",
        rule="TD-PCK-014",
        **plain(bias, {"header": lambda h: h["b.bias"].update(shape=[25])}),
    )
    fault(
        "plain-wrong-size-of-an-unwanted-tensor",
        "malformed",
        rule="TD-PCK-014",
        **plain(both(lambda s: {"x": s[0]["d.mask"]}), {"header": lambda h: h["x"].update(shape=[12])}),
    )
    fault(
        "plain-with-a-hole",
        "malformed",
        rule="TD-PCK-004",
        **plain(both(lambda s: {"x": s[0]["d.mask"]}), {"header": lambda h: h.pop("x"), "order": ["x", "b.bias"]}),
    )
    fault(
        "plain-trailing-bytes",
        "malformed",
        rule="TD-PCK-004",
        **plain(both(lambda s: {"x": s[0]["d.mask"]}), {"header": lambda h: h.pop("x")}),
    )
    fault(
        "plain-metadata-of-numbers",
        "malformed",
        rule="TD-PCK-014",
        **plain(bias, {"header": setting(__metadata__={"a": 1})}),
    )
    fault("plain-header-not-json", "malformed", rule="TD-PCK-014", **plain(bias, {"pad": b"}"}))
    fault(
        "plain-header-array",
        "malformed",
        **plain(bias, alter=lambda made: setattr(made, "data", safetensors(b"[]", b""))),
    )
    fault(
        "plain-changed-wrong",
        "malformed",
        rule="TD-MAN-011",
        **plain(bias, alter=lambda made: setattr(made, "changed", 23)),
    )
    fault(
        "plain-tensors-wrong",
        "malformed",
        rule="TD-MAN-010",
        **plain(bias, alter=lambda made: setattr(made, "tensors", (0, 2))),
    )
    fault(
        "plain-name-up",
        "malformed",
        rule="TD-PTH-001",
        **plain(bias, alter=lambda made: made.fields.update(name="../b")),
    )
    fault(
        "plain-name-of-a-file",
        "malformed",
        rule="TD-MAN-020",
        **plain(bias, alter=lambda made: made.fields.update(name="config.json")),
    )
    fault(
        "plain-name-folder-of-a-file",
        "malformed",
        rule="TD-MAN-021",
        **plain(bias, alter=lambda made: made.fields.update(name="config.json/b")),
    )
    fault("plain-words-wrong", "integrity", rule="TD-RDR-007", **plain(lambda s: {"b.bias": s[0]["b.bias"]}))


def _tables() -> None:
    """Rules of section 6.3, and of overlap."""
    fault("table-not-json", "malformed", table_text=lambda t: t[:-1])
    fault("table-format-2", "unsupported", rule="TD-VER-002", table=setting(tensordelta="2.0"))
    fault("table-without-format", "malformed", table=without("tensordelta"))
    fault("table-of-another-layout", "malformed", rule="TD-CHK-003", table=setting(layout="0" * 64))
    fault("table-layout-short", "malformed", table=setting(layout="0" * 63))
    fault("table-without-chunks", "malformed", table=without("chunks"))
    fault("table-of-an-object", "malformed", table=setting(chunks={}))
    fault(
        "table-duplicate-member",
        "malformed",
        rule="TD-JSN-004",
        table_text=replaced(b'"dtype"', b'"changed":1,"dtype"'),
    )
    fault("table-lone-surrogate", "malformed", rule="TD-JSN-005", table_text=replaced(b"{", b'{"x":"\\udfff",'))
    fault(
        "table-too-deep",
        "limit",
        rule="TD-JSN-008",
        table=lambda t: t["chunks"][0].update(x=json.loads("[" * 14 + "]" * 14)),
    )

    def no_chunks() -> Builder:
        builder = standard(last=False)
        layout = builder.manifests[1]["layout"]
        empty = Pack(chunk_pack([], layout), "chunks", (0, 1), 0)
        builder.edge(1, builder.models[1], [empty], base=0, layout=layout)
        return builder

    fault("table-of-no-chunks", "malformed", build=no_chunks)
    fault("table-and-buffer-empty", "malformed", build=lambda: _two_packs(safetensors(b"{}", b"")))

    def on(number: int, **members: Any) -> dict[str, Any]:
        return {"chunks": lambda entries: entries[number].update(members)}

    def drop(number: int, member: str) -> dict[str, Any]:
        return {"chunks": lambda entries: entries[number].pop(member)}

    for member in ("dtype", "slices", "changed", "order", "positions", "values", "compression", "fingerprint"):
        fault(f"chunk-without-{member}", "malformed", **drop(1, member))
    fault("chunk-not-an-object", "malformed", table=lambda t: t["chunks"].__setitem__(0, 7))
    fault("chunk-dtype-unknown", "unsupported", rule="TD-CHK-010", **on(2, dtype="I128"))
    fault("chunk-dtype-of-another-tensor", "malformed", rule="TD-CHK-009", **on(2, dtype="U32"))
    fault("chunk-fingerprint-wrong", "integrity", rule="TD-RDR-006", **on(0, fingerprint="0123456789abcdef"))
    fault("chunk-fingerprint-upper-case", "malformed", **on(0, fingerprint="ABCDEF0123456789"))
    fault("chunk-changed-0", "malformed", **on(0, changed=0))
    fault("chunk-changed-more-than-n", "malformed", **on(2, changed=11))
    fault("chunk-changed-one-more", "malformed", **on(0, changed=6))
    fault("chunk-slices-empty", "malformed", **on(0, slices=[]))
    fault("chunk-slices-flat", "malformed", **on(0, slices=[0, 0, 320]))
    fault("chunk-slices-of-two", "malformed", **on(0, slices=[[0, 320]]))
    fault("chunk-slice-empty", "malformed", rule="TD-CHK-007", chunks=lambda e: e[0]["slices"].append([0, 320, 320]))
    fault("chunk-slice-backwards", "malformed", rule="TD-CHK-007", chunks=lambda e: e[0]["slices"].append([1, 5, 4]))
    fault("chunk-slice-past-the-tensor", "malformed", rule="TD-CHK-008", **on(0, slices=[[0, 0, 160], [0, 160, 321]]))
    fault("chunk-slice-far-past-the-tensor", "malformed", **on(0, slices=[[0, 0, 160], [0, 160, 2**53 - 1]]))
    fault("chunk-slice-of-no-tensor", "malformed", rule="TD-CHK-008", chunks=lambda e: e[3].update(slices=[[4, 0, 13]]))
    fault(
        "chunk-slice-of-another-dtype",
        "malformed",
        rule="TD-CHK-009",
        chunks=lambda e: e[0]["slices"].append([1, 0, 1]),
    )
    fault("chunk-slice-negative", "malformed", **on(0, slices=[[0, -1, 320]]))
    fault("chunk-slice-fraction", "malformed", **on(0, slices=[[0, 0, 160], [0, 160.0, 320]]))
    fault("chunk-slices-unsorted", "malformed", rule="TD-CHK-004", plan=lambda p: p[0]["slices"].reverse())
    fault(
        "chunk-slices-unsorted-tensors",
        "malformed",
        rule="TD-CHK-004",
        **_two_weights([("z", 0, 320), ("a.weight", 0, 320)]),
    )
    fault(
        "chunk-slices-overlap",
        "malformed",
        rule=("TD-CHK-004", "TD-CHK-005"),
        plan=lambda p: p[0].update(slices=[("a.weight", 0, 200), ("a.weight", 160, 320)]),
    )
    fault(
        "chunk-slices-twice",
        "malformed",
        rule=("TD-CHK-004", "TD-CHK-005"),
        plan=lambda p: p[2].update(slices=[("c.ids", 1, 2), ("c.ids", 1, 2), ("c.ids", 0, 10)][::-1], restate=[]),
    )

    # Words named twice. What the second lists is what the first made of it, or no listed word of it at all.
    fault(
        "overlap-of-chunks",
        "malformed",
        rule="TD-MAN-019",
        plan=lambda p: p.insert(1, {"slices": [("a.weight", 303, 320)], "values": "replace", "restate": [5]}),
    )

    def second_pack(builder: Builder, states: list[Model], layout: str) -> list[Pack]:
        again = chunk(states[0], states[1], [("a.weight", 303, 320)], values="replace", restate=[5])
        return [of_chunks([again], layout)]

    fault("overlap-of-packs", "malformed", rule="TD-MAN-019", more=second_pack)

    def plain_over(builder: Builder, states: list[Model], layout: str) -> list[Pack]:
        return [of_plain({"e": states[0]["a.weight"], "b.bias": states[1]["b.bias"]}, states[1])]

    restating = lambda p: p.__setitem__(1, {"slices": [("b.bias", 5, 7)], "values": "replace", "restate": [0]})
    fault("overlap-of-a-chunk-and-a-plain-tensor", "malformed", rule="TD-MAN-019", plan=restating, more=plain_over)

    def plain_twice(builder: Builder, states: list[Model], layout: str) -> list[Pack]:
        held = {"b.bias": states[1]["b.bias"]}
        return [of_plain(held, states[1]), of_plain(held | {"x": states[0]["d.mask"]}, states[1])]

    same_bias = lambda states: states[1].update({"b.bias": states[0]["b.bias"]})
    fault(
        "overlap-of-plain-tensors",
        "malformed",
        rule="TD-MAN-019",
        models=same_bias,
        plan=lambda p: p.pop(1),
        more=plain_twice,
        last=False,
    )

    def same_pack(document: dict[str, Any]) -> None:
        document["packs"].append(document["packs"][0])

    fault("overlap-of-a-pack-with-itself", "malformed", rule="TD-MAN-019", manifest=same_pack)

    for part in ("order", "positions", "values"):
        fault(f"codec-unknown-{part}", "unsupported", rule="TD-CHK-012", **on(0, **{part: {"codec": "elias-fano"}}))
        fault(f"codec-without-name-{part}", "malformed", **on(0, **{part: {}}))
        fault(f"codec-string-{part}", "malformed", **on(0, **{part: "natural"}))
        fault(f"codec-name-number-{part}", "malformed", **on(0, **{part: {"codec": 1}}))
    fault("codec-unknown-compression", "unsupported", rule="TD-CHK-015", **on(0, compression="lz4"))
    fault("codec-compression-object", "malformed", **on(0, compression={"codec": "none"}))
    fault(
        "codec-natural-with-limit",
        "malformed",
        rule=("TD-CHK-014", "TD-CHK-002"),
        **on(0, order={"codec": "natural", "limit": 3}),
    )
    fault(
        "codec-step-with-parameter",
        "malformed",
        rule=("TD-CHK-014", "TD-CHK-002"),
        **on(0, values={"codec": "step", "x": 0}),
    )
    fault(
        "codec-bitmap-with-shift",
        "malformed",
        rule=("TD-CHK-014", "TD-CHK-002"),
        **on(2, positions={"codec": "bitmap", "shift": 0}),
    )
    fault(
        "codec-gap-without-shift", "malformed", rule=("TD-CHK-013", "TD-CHK-002"), **on(0, positions={"codec": "gap"})
    )
    for shift in (5, 1, 16, -4, "0", None, 0.0, True):
        name = str(shift).lower().replace(".", "-").replace("-4", "negative")
        fault(
            f"codec-gap-shift-{name}" + ("-string" if isinstance(shift, str) else ""),
            "malformed",
            **on(0, positions={"codec": "gap", "shift": shift}),
        )

    exponent: dict[str, Any] = {"plan": lambda p: p[0].update(order="exponent"), "features": ["exponent-order"]}
    fault("exponent-without-feature", "malformed", rule="TD-MAN-006", plan=exponent["plan"])
    for limit in (0, 257, -1, "256", None, 2**53):
        fault(
            f"exponent-limit-{str(limit).lower().replace('-', 'minus-')}"
            + ("-string" if isinstance(limit, str) else ""),
            "malformed",
            **exponent,
            chunks=lambda e, limit=limit: e[0]["order"].update(limit=limit),
        )
    fault("exponent-without-limit", "malformed", **exponent, chunks=lambda e: e[0]["order"].pop("limit"))
    fault(
        "exponent-of-i32",
        "malformed",
        rule="TD-ORD-003",
        features=["exponent-order"],
        plan=lambda p: p[2].update(values="step"),
        chunks=lambda e: e[2].update(order={"codec": "exponent", "limit": 1}),
    )
    fault(
        "exponent-of-u8",
        "malformed",
        features=["exponent-order"],
        plan=lambda p: p[3].update(positions="bitmap"),
        chunks=lambda e: e[3].update(order={"codec": "exponent", "limit": 1}),
    )
    fault(
        "exponent-with-replace",
        "malformed",
        rule="TD-VAL-006",
        features=["exponent-order"],
        plan=lambda p: p[0].update(values="replace"),
        chunks=lambda e: e[0].update(order={"codec": "exponent", "limit": 1}),
    )

    def everything(states: list[Model]) -> None:
        states[1]["b.bias"] = Tensor("F32", (24,), states[0]["b.bias"].words + np.uint32(1))

    fault(
        "exponent-with-all",
        "malformed",
        rule="TD-POS-012",
        models=everything,
        features=["exponent-order"],
        plan=lambda p: p[1].update(positions="all"),
        chunks=lambda e: e[1].update(order={"codec": "exponent", "limit": 256}),
        last=False,
    )
    fault("all-with-fewer-than-n", "malformed", rule="TD-POS-011", **on(3, changed=12))

    def wide(dtype: str, count: int, order: dict[str, Any]) -> dict[str, Any]:
        """A chunk over more words than a chunk may have."""

        def models(states: list[Model]) -> None:
            states[1]["z"] = tensor(dtype, (count,))
            states[1]["z"].words[3] = 1

        def plan(plans: Plan) -> None:
            plans.append({"slices": [("z", 0, 4)]})

        def chunks(entries: list[dict[str, Any]]) -> None:
            entries[4].update(slices=[[4, 0, count]], order=order)

        return {"models": models, "plan": plan, "chunks": chunks, "features": ["exponent-order"], "last": False}

    fault("chunk-of-2-27-words-and-one", "limit", rule="TD-CHK-016", **wide("U8", 2**27 + 1, {"codec": "natural"}))
    fault(
        "exponent-of-2-24-words-and-one",
        "limit",
        rule=("TD-ORD-005", "TD-CHK-016"),
        **wide("F8_E4M3", 2**24 + 1, {"codec": "exponent", "limit": 16}),
    )


def _two_packs(data: bytes) -> Builder:
    """The standard chain, with one more pack of these bytes in version 1."""
    return standard(more=lambda *_: [Pack(data, "chunks", (0, 1), 0)], last=False)


def _two_weights(slices: list[Slice]) -> dict[str, Any]:
    """Version 1 has a second tensor like the first; its chunk has the slices of both."""

    def models(states: list[Model]) -> None:
        states[1]["z"] = states[1]["a.weight"]

    return {"models": models, "plan": lambda plans: plans[0].update(slices=slices), "last": False}


def _streams() -> None:
    """Streams that disagree with the table, before compression."""

    def on(number: int, stream: str, how: Callable[[bytes], bytes]) -> Callable[[int, dict[str, bytes]], None]:
        def change(index: int, streams: dict[str, bytes]) -> None:
            if index == number:
                streams[stream] = how(streams[stream])

        return change

    for compression in ("none", "zstd"):
        tail = "" if compression == "none" else "-zstd"
        how = {"compression": compression}
        fault(
            f"gaps-end-with-255{tail}",
            "malformed",
            rule=("TD-POS-003", "TD-POS-004", "TD-CHK-019"),
            raw=on(0, "gaps", lambda d: d[:-1] + b"\xff"),
            **how,
        )
        fault(f"gaps-one-too-few{tail}", "malformed", raw=on(0, "gaps", lambda d: d[:-1]), **how)
        fault(
            f"gaps-one-too-many{tail}",
            "malformed",
            rule=("TD-POS-003", "TD-CHK-019", "TD-ZST-003"),
            raw=on(1, "gaps", lambda d: d + b"\0"),
            **how,
        )
        fault(
            f"gaps-count-wrong-size-right{tail}",
            "malformed",
            rule="TD-POS-003",
            raw=on(0, "gaps", lambda d: d.replace(b"\xff", b"\x05")),
            **how,
        )
        fault(
            f"position-past-the-end{tail}",
            "malformed",
            rule="TD-POS-005",
            raw=on(0, "gaps", lambda d: d[:-1] + bytes([d[-1] + 18])),
            **how,
        )
        fault(
            f"low-one-short{tail}",
            "malformed",
            rule=("TD-CHK-019", "TD-ZST-003"),
            raw=on(1, "low", lambda d: d[:-1]),
            **how,
        )
        fault(
            f"low-padding{tail}",
            "malformed",
            rule="TD-POS-006",
            raw=on(1, "low", lambda d: d[:-1] + bytes([d[-1] | 0x10])),
            **how,
        )
        fault(
            f"bitmap-one-long{tail}",
            "malformed",
            rule=("TD-CHK-019", "TD-ZST-003"),
            raw=on(2, "bitmap", lambda d: d + b"\0"),
            **how,
        )
        fault(
            f"bitmap-padding{tail}",
            "malformed",
            rule="TD-POS-010",
            raw=on(2, "bitmap", lambda d: d[:-1] + bytes([d[-1] | 0x80])),
            **how,
        )
        fault(
            f"bitmap-padding-instead-of-a-word{tail}",
            "malformed",
            rule=("TD-POS-009", "TD-POS-010"),
            raw=on(2, "bitmap", lambda d: d[:-1] + b"\x04"),
            **how,
        )
        fault(
            f"bitmap-one-more{tail}",
            "malformed",
            rule="TD-POS-009",
            raw=on(2, "bitmap", lambda d: bytes([d[0] | 2]) + d[1:]),
            **how,
        )
        fault(
            f"bitmap-one-fewer{tail}",
            "malformed",
            rule="TD-POS-009",
            raw=on(2, "bitmap", lambda d: bytes([d[0] & ~1]) + d[1:]),
            **how,
        )
        fault(
            f"codes-one-long{tail}",
            "malformed",
            rule=("TD-CHK-019", "TD-ZST-003"),
            raw=on(0, "codes", lambda d: d + b"\0"),
            **how,
        )
        fault(
            f"codes-padding{tail}",
            "malformed",
            rule="TD-VAL-003",
            raw=on(3, "codes", lambda d: d[:-1] + bytes([d[-1] | 0x80])),
            **how,
        )
        fault(
            f"codes-padding-of-a-3{tail}",
            "malformed",
            rule="TD-VAL-003",
            raw=on(3, "codes", lambda d: d[:-1] + bytes([d[-1] | 0x0C])),
            **how,
        )
        fault(
            f"values-one-short{tail}",
            "malformed",
            rule=("TD-CHK-019", "TD-ZST-003"),
            raw=on(2, "values.0", lambda d: d[:-1]),
            **how,
        )
        fault(
            f"values-one-long{tail}",
            "malformed",
            rule=("TD-CHK-019", "TD-ZST-003"),
            raw=on(2, "values.3", lambda d: d + b"\0"),
            **how,
        )
        fault(f"values-altered{tail}", "integrity", rule="TD-RDR-006", raw=on(2, "values.1", flipped(0)), **how)
        fault(f"codes-altered{tail}", "integrity", rule="TD-RDR-006", raw=on(0, "codes", flipped(0)), **how)
        fault(f"low-altered{tail}", "integrity", rule="TD-RDR-006", raw=on(1, "low", flipped(0)), **how)

        def escapes(index: int, streams: dict[str, bytes], value: int = 0xFFFC) -> None:
            if index == 0:
                for plane in (0, 1):
                    planes = streams[f"escapes.{plane}"]
                    streams[f"escapes.{plane}"] = bytes([value >> 8 * plane & 255]) + planes[1:]

        fault(f"escape-too-great{tail}", "malformed", rule="TD-VAL-002", raw=escapes, **how)
        fault(f"escape-greatest{tail}", "malformed", rule="TD-VAL-002", raw=lambda i, s: escapes(i, s, 0xFFFF), **how)
        fault(
            f"escapes-one-long{tail}",
            "malformed",
            rule=("TD-CHK-019", "TD-ZST-003"),
            raw=on(0, "escapes.1", lambda d: d + b"\0"),
            **how,
        )
        fault(
            f"escapes-one-short{tail}",
            "malformed",
            rule=("TD-CHK-019", "TD-ZST-003"),
            raw=on(0, "escapes.0", lambda d: d[:-1]),
            **how,
        )

        def superfluous(index: int, streams: dict[str, bytes]) -> None:
            if index == 1:
                streams["codes"] = b"\x15"
                streams.update({f"escapes.{plane}": b"\0" for plane in range(4)})

        fault(f"escapes-of-no-code{tail}", "malformed", rule="TD-CHK-020", raw=superfluous, **how)
    fault("gaps-huge-position", "malformed", raw=on(0, "gaps", lambda d: b"\xfe" * len(d)))
    fault("stream-empty-values", "malformed", raw=on(2, "values.0", lambda d: b""))


def _frames() -> None:
    """Stored bytes that are not one good Zstandard frame."""

    def on(how: Callable[[bytes], bytes], number: int = 0, stream: str = "gaps") -> dict[str, Any]:
        """Make the stored bytes of one stream from its content."""
        seen: dict[str, bytes] = {}

        def raw(index: int, streams: dict[str, bytes]) -> None:
            if index == number:
                seen["content"] = streams[stream]

        def stored(index: int, streams: dict[str, bytes]) -> None:
            if index == number:
                streams[stream] = how(seen["content"])

        return {"compression": "zstd", "raw": raw, "stored": stored}

    def bomb(content: bytes, **how: Any) -> bytes:
        """Declares what the table says; its blocks make 128 MiB."""
        return frame(content, blocks=[(1, b"\0", 1 << 17)] * 1024, **how)

    def wide_bomb(content: bytes) -> bytes:
        return bomb(content, window=17 << 3, size_bytes=8)

    fault("frame-without-checksum", "malformed", rule="TD-ZST-004", **on(lambda c: frame(c, checksum=False)))
    fault("frame-without-size", "malformed", rule="TD-ZST-002", **on(lambda c: frame(c, size=None, window=0)))
    fault("frame-with-dictionary", "malformed", rule="TD-ZST-005", **on(lambda c: frame(c, dictionary=1)))
    fault("frame-reserved-bit", "malformed", rule="TD-ZST-001", **on(lambda c: frame(c, reserved=1)))
    fault(
        "frame-window-too-wide",
        "malformed",
        rule="TD-ZST-008",
        **on(lambda c: frame(c, window=17 << 3 | 1, size_bytes=8)),
    )
    fault("frame-window-widest", "malformed", rule="TD-ZST-008", **on(lambda c: frame(c, window=255, size_bytes=8)))
    fault("frame-size-one-more", "malformed", **on(lambda c: frame(c, size=len(c) + 1)))
    fault("frame-size-one-less", "malformed", **on(lambda c: frame(c, size=len(c) - 1)))
    fault(
        "frame-size-far-beyond-the-table",
        "malformed",
        rule=("TD-ZST-003", "TD-CHK-019"),
        **on(lambda c: frame(c, size=1 << 40)),
    )
    fault(
        "frame-size-2-64-1",
        "malformed",
        rule=("TD-ZST-003", "TD-CHK-019"),
        **on(lambda c: frame(c, size=(1 << 64) - 1)),
    )
    fault(
        "frame-bomb-declared",
        "malformed",
        rule=("TD-ZST-003", "TD-CHK-019"),
        **on(lambda c: zstd(bytes(1 << 27)), 2, "values.0"),
    )
    fault("frame-bomb-undeclared", "malformed", **on(bomb, 2, "values.0"))
    fault("frame-bomb-undeclared-codes", "malformed", **on(bomb, 0, "codes"))
    fault("frame-bomb-undeclared-window", "malformed", **on(wide_bomb, 2, "values.0"))
    fault("frame-bomb-undeclared-window-codes", "malformed", **on(wide_bomb, 0, "codes"))
    fault(
        "frame-skippable-first",
        "malformed",
        rule=("TD-ZST-001", "TD-ZST-007"),
        **on(lambda c: b"\x50\x2a\x4d\x18\x04\0\0\0abcd" + frame(c)),
    )
    fault(
        "frame-skippable-after",
        "malformed",
        rule=("TD-ZST-001", "TD-ZST-006"),
        **on(lambda c: frame(c) + b"\x50\x2a\x4d\x18\x04\0\0\0abcd"),
    )
    fault("frame-second", "malformed", rule=("TD-ZST-001", "TD-ZST-006"), **on(lambda c: frame(c) + frame(c)))
    fault("frame-second-empty", "malformed", rule=("TD-ZST-001", "TD-ZST-006"), **on(lambda c: frame(c) + frame(b"")))
    fault("frame-split-in-two", "malformed", **on(lambda c: frame(c[:2]) + frame(c[2:])))
    fault("frame-trailing-byte", "malformed", rule=("TD-ZST-001", "TD-ZST-006"), **on(lambda c: frame(c) + b"\0"))
    fault("frame-truncated", "malformed", **on(lambda c: frame(c)[:-1]))
    fault("frame-truncated-to-its-header", "malformed", **on(lambda c: frame(c)[:6]))
    fault("frame-of-4-bytes", "malformed", **on(lambda c: frame(c)[:4]))
    fault("frame-empty", "malformed", **on(lambda c: b""))
    fault(
        "frame-without-last-block",
        "malformed",
        **on(lambda c: frame(c, blocks=[(0, c, len(c)), (0, b"", 0)])[:-7] + frame(c)[-4:]),
    )
    fault("frame-reserved-block", "malformed", **on(lambda c: frame(c, blocks=[(3, c, len(c))])))
    fault("frame-block-longer-than-stored", "malformed", **on(lambda c: frame(c, blocks=[(0, c, len(c) + 64)])))
    fault("frame-magic-of-an-old-format", "malformed", **on(lambda c: b"\x27" + frame(c)[1:]))
    fault("frame-not-compressed", "malformed", **on(lambda c: c))
    fault(
        "frame-where-none-is-said",
        "malformed",
        compression="none",
        stored=lambda i, s: s.update(codes=zstd(s["codes"])) if i == 0 else None,
    )


for _register in (_objects, _json, _layouts, _manifests, _containers, _tables, _streams, _frames):
    _register()


def good_chain(name: str) -> Builder:
    """A good chain by its name; not to be changed."""
    return next(each for each in GOOD if each.name == name).builder


def broken_chain(name: str) -> Builder:
    """A broken chain by its name."""
    return next(each for each in BROKEN if each.name == name).builder


# -- writing them all --------------------------------------------------------------------------------------------------


def write_good(each: Good, folder: Path) -> None:
    builder = each.build()
    builder.write(folder / "chain")
    expected = folder / "expected"
    expected.mkdir()
    for version, model in builder.models.items():
        as_state(model).save(expected / f"{version}.safetensors")
        (expected / f"{version}.json").write_bytes(dumps({"fingerprint": fingerprint(model)}))


def write_broken(each: Broken, folder: Path) -> None:
    each.build().write(folder / "chain")
    expect = {"version": each.version, "errors": list(each.errors)}
    (folder / "expect.json").write_bytes(dumps(expect))


def main(out: Path) -> None:
    for kind in ("good", "broken", "verify"):
        shutil.rmtree(out / kind, ignore_errors=True)
    for each in GOOD:
        write_good(each, out / "good" / each.name)
    for fault_ in BROKEN:
        write_broken(fault_, out / ("broken" if fault_.reader else "verify") / fault_.name)
    counts = f"{len(GOOD)} good chains, {sum(each.reader for each in BROKEN)} broken ones"
    print(f"{counts}, {sum(not each.reader for each in BROKEN)} for a verifier in {out}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
