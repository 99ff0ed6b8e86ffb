"""The conformance suite's slow reader, and its slow encoders, on Python's integers: as the tests compare them.

The reader is `tensordelta_conformance.small_reader`, written from SPEC.md alone. It shares no code with the package, so
that both have to agree on the document.

    state = read_version({"chain.json": b"…", "manifests/000000000000.json": b"…", …}, 0)
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from generate.codecs import encode_bitmap, encode_gap, encode_replace, encode_step
from tensordelta_conformance.judge.chain import Chain
from tensordelta_conformance.small_reader import chunks, documents, fingerprint, packs
from tensordelta_conformance.small_reader import state as model
from tensordelta_conformance.small_reader.chunks import check_frame
from tensordelta_conformance.small_reader.documents import (
    Manifest,
    parse_chain,
    parse_latest,
    parse_layout,
    parse_signature,
)
from tensordelta_conformance.small_reader.fields import parse_json
from tensordelta_conformance.small_reader.packs import Chunk, parse_table
from tensordelta_conformance.small_reader.rejection import Rejection as Fault
from tensordelta_conformance.small_reader.state import DTYPES, Layout, State, TensorEntry, fit, word_count

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = [
    "DTYPES",
    "Chunk",
    "Fault",
    "Layout",
    "State",
    "Tensor",
    "check_frame",
    "encode_bitmap",
    "encode_gap",
    "encode_replace",
    "encode_step",
    "fit",
    "parse_chain",
    "parse_json",
    "parse_latest",
    "parse_layout",
    "parse_manifest",
    "parse_signature",
    "parse_table",
    "state_fingerprint",
    "word_count",
    "zstd",
]


class Objects(NamedTuple):
    """Objects in memory, as the reader has a folder."""

    objects: Mapping[str, bytes]

    def names(self, prefix: str) -> list[str]:
        return [name for name in self.objects if name.startswith(prefix)]

    def size(self, name: str) -> int | None:
        return len(self.objects[name]) if name in self.objects else None

    def read(self, name: str) -> bytes:
        return self.objects[name]


def array(words: Iterable[int], w: int) -> model.Words:
    """Words as the reader has them."""
    return np.array(list(words), model.WORD[w])


def octets(data: bytes) -> model.Octets:
    return np.frombuffer(data, np.uint8)


class Tensor(model.Tensor):
    """A tensor of a state, made of integers."""

    def __init__(self, dtype: str, shape: tuple[int, ...], words: Iterable[int]) -> None:
        super().__init__(dtype, shape, array(words, DTYPES[dtype].w))


def parse_manifest(data: bytes, name: str | None = None) -> Manifest:
    """A manifest or shortcut whose features are known; where its object's name is given, it is that of its contents."""
    manifest = documents.parse_manifest(data, name or "")
    if name is not None:
        documents.check_name(manifest)
    documents.check_features(manifest)
    return manifest


def decode_gap(gaps: bytes, low: bytes, s: int, m: int, n: int) -> list[int]:
    return chunks.decode_gap(octets(gaps), octets(low), s, m, n).tolist()


def decode_bitmap(bitmap: bytes, m: int, n: int) -> list[int]:
    return chunks.decode_bitmap(octets(bitmap), m, n).tolist()


def decode_step(base: list[int], codes: bytes, escapes: list[bytes], w: int) -> list[int]:
    numbers = chunks.join_planes([octets(each) for each in escapes]) if escapes else array([], w)
    return chunks.decode_step(array(base, w), chunks.unpack_codes(octets(codes), len(base)), numbers).tolist()


def exponent_permutation(base: list[int], dtype: str, limit: int) -> list[int]:
    return chunks.exponent_permutation(array(base, DTYPES[dtype].w), dtype, limit).tolist()


def c(name: str, i: int) -> int:
    return int(fingerprint.coefficients(name, np.array([i], np.uint64))[0])


def tensor_fingerprint(name: str, words: Iterable[int], w: int) -> int:
    return fingerprint.tensor_fingerprint(name, array(words, w))


def state_fingerprint(state: State) -> str:
    """The fingerprint of a state, as it is written."""
    return f"{fingerprint.state_fingerprint(state):016x}"


def value(name: str, j: int, word: int, w: int) -> int:
    return fingerprint.value(name, np.array([j]), array([word], w))


def layout_of(objects: Mapping[str, bytes], digest: str) -> Layout:
    return Chain(Objects(objects)).layout(digest)


def read_chunk_pack(data: bytes, layout: Layout, digest: str, features: list[str]) -> list[Chunk]:
    return packs.read_chunks(packs.open_chunk_file(data), layout, digest, features)


def decode_chunk(each: Chunk, layout: Layout, base: Sequence[model.Words]) -> dict[tuple[int, int], int]:
    """The listed words of a chunk: (tensor, word index) -> new word."""
    entries = [TensorEntry(*entry) for entry in layout]
    fitted = {
        name: model.Tensor(dtype, shape, words) for (name, dtype, shape), words in zip(entries, base, strict=True)
    }
    return {
        (patch.tensor, index): word
        for patch in chunks.decode_chunk(each, entries, fitted, "wrong-base")
        for index, word in zip(patch.at.tolist(), patch.words.tolist(), strict=True)
    }


def apply_edge(objects: Mapping[str, bytes], name: str, held: State) -> State:
    """The state that a manifest or shortcut makes of the state held."""
    chain = Chain(Objects(objects))
    edge = chain.manifest(name)
    documents.check_features(edge)
    return chain.follow(edge, held)


def read_version(objects: Mapping[str, bytes], version: int) -> State:
    """A version's state."""
    return Chain(Objects(objects)).version(version)


def objects_of(folder: Path) -> dict[str, bytes]:
    """All objects of a chain in a folder, by name."""
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
