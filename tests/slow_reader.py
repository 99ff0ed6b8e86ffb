"""The conformance suite's slow reader, and its slow encoders, on Python's integers: as the tests compare them.

The reader is `tensordelta_conformance.judge`, written from SPEC.md alone. It shares no code with the package, so that
both have to agree on the document.

    state = read_version({"chain.json": b"…", "manifests/000000000000.json": b"…", …}, 0)
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from generate.codecs import encode_bitmap, encode_gap, encode_replace, encode_step
from tensordelta_conformance.judge import chunk, codecs, container, fingerprint, model, table
from tensordelta_conformance.judge.chain import Chain
from tensordelta_conformance.judge.documents import parse_chain, parse_latest, parse_layout, parse_signature
from tensordelta_conformance.judge.faults import Fault
from tensordelta_conformance.judge.fingerprint import state_fingerprint
from tensordelta_conformance.judge.frames import check_frame
from tensordelta_conformance.judge.ijson import parse_json
from tensordelta_conformance.judge.manifest import parse_manifest
from tensordelta_conformance.judge.model import DTYPES, Layout, State, fit, word_count
from tensordelta_conformance.judge.table import Chunk, parse_table

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


def array(words: Iterable[int], w: int) -> model.Words:
    """Words as the reader has them."""
    return np.array(list(words), model.word_type(w))


class Tensor(model.Tensor):
    """A tensor of a state, made of integers."""

    def __init__(self, dtype: str, shape: tuple[int, ...], words: Iterable[int]) -> None:
        super().__init__(dtype, shape, array(words, DTYPES[dtype].w))


def decode_gap(gaps: bytes, low: bytes, s: int, m: int, n: int) -> list[int]:
    return codecs.decode_gap(gaps, low, s, m, n).tolist()


def decode_bitmap(bitmap: bytes, m: int, n: int) -> list[int]:
    return codecs.decode_bitmap(bitmap, m, n).tolist()


def decode_step(base: list[int], codes: bytes, escapes: list[bytes], w: int) -> list[int]:
    numbers = codecs.join_planes(escapes, w) if escapes else array([], w)
    return codecs.decode_step(array(base, w), codecs.unpack_codes(codes, len(base)), numbers, w).tolist()


def exponent_permutation(base: list[int], dtype: str, limit: int) -> list[int]:
    return codecs.exponent_permutation(array(base, DTYPES[dtype].w), dtype, limit).tolist()


def c(name: str, i: int) -> int:
    return int(fingerprint.coefficients(name, np.array([i], np.uint64))[0])


def tensor_fingerprint(name: str, words: Iterable[int], w: int) -> int:
    return fingerprint.tensor_fingerprint(name, array(words, w), w)


def change(name: str, j: int, before: int, after: int, w: int) -> int:
    return fingerprint.change(name, np.array([j]), array([before], w), array([after], w), w)


def layout_of(objects: Mapping[str, bytes], digest: str) -> Layout:
    return Chain(objects).layout(digest)


def read_chunk_pack(data: bytes, layout: Layout, digest: str, features: list[str]) -> list[Chunk]:
    return table.read_chunks(container.read_chunk_file(data), layout, digest, features)


def decode_chunk(each: Chunk, layout: Layout, base: Sequence[model.Words]) -> dict[tuple[int, int], int]:
    """The listed words of a chunk: (tensor, word index) -> new word."""
    return {
        (listed.tensor, index): word
        for listed in chunk.decode_chunk(each, layout, base)
        for index, word in zip(listed.indices.tolist(), listed.words.tolist(), strict=True)
    }


def apply_edge(objects: Mapping[str, bytes], name: str, held: State) -> State:
    """The state that a manifest or shortcut makes of the state held."""
    return Chain(objects).edge(name, held)


def read_version(objects: Mapping[str, bytes], version: int) -> State:
    """A version's state."""
    return Chain(objects).version(version)


def objects_of(folder: Path) -> dict[str, bytes]:
    """All objects of a chain in a folder, by name."""
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
