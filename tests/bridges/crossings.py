"""What tests of bridges share: foreign cases on disk, imports and exports by hand, and runs to export."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from strategies import stepped

import tensordelta as td
from tensordelta import bridges
from tensordelta.codecs.words import DTYPES
from tensordelta.format.layout import Layout, Tensor
from tensordelta.stores import FolderStore, Store
from tensordelta_conformance.folder import write_files
from tensordelta_conformance.foreign import ForeignCase, foreign_cases, foreign_folder

CASES = foreign_cases()
MODELS = foreign_folder()

#: Each format with the options of its exports.
EXPORTS: list[tuple[str, dict[str, Any]]] = [
    ("trl", {}),
    ("trl", {"encoding": "raw", "full_every": 3}),
    ("slime", {}),
    ("slime", {"encoding": "overwrite", "checksum": "blake3"}),
    ("slime", {"checksum": "adler32", "full_every": 2}),
    ("modelexpress", {}),
    ("skyrl", {}),
]


def export_id(each: tuple[str, dict[str, Any]]) -> str:
    return "-".join([each[0], *map(str, each[1].values())])


def unpacked(case: ForeignCase, folder: Path) -> Path:
    write_files(case.files, folder)
    return folder


def model(path: str) -> td.State:
    return td.read_state(MODELS / path)


def importer(format: str, source: Path | Store, chain: Path | str | Store, **options: Any) -> bridges.Importer:
    store = FolderStore(source) if isinstance(source, Path) else source
    return bridges.Importer(bridges.new_format(format), store, lambda create: td.open(chain, create=create), **options)


def import_case(case: ForeignCase, source: Path, chain: Path) -> list[bridges.Imported]:
    """Import a case's folder; of one whose base is no part of it, the base comes first."""
    base = None if case.base is None else MODELS / case.base[1]
    return list(importer(case.format, source, chain, base=base).all())


def exporter(format: str, chain: td.Chain, target: Path | Store, **options: Any) -> bridges.Exporter:
    begin = options.pop("begin", None)
    store = FolderStore(target) if isinstance(target, Path) else target
    return bridges.Exporter(bridges.new_format(format, **options), chain, store, begin=begin)


def random_state(rng: np.random.Generator, tensors: Sequence[tuple[str, str, tuple[int, ...]]]) -> td.State:
    """A state of any words."""
    layout = Layout.of(Tensor(*each) for each in tensors)
    words = [
        rng.integers(0, 2**tensor.kind.word_bits, tensor.words, dtype=np.uint64).astype(tensor.kind.word)
        for tensor in layout.tensors
    ]
    return td.State(layout, words)


def step(rng: np.random.Generator, state: td.State, density: float = 0.05) -> td.State:
    """The state after a step of training."""
    words = [stepped(rng, state.words(number), density) for number in range(len(state.layout))]
    return td.State(state.layout, words)


#: Tensors of a small model: in one dtype, and in several.
PLAIN = [("embed", "BF16", (20, 6)), ("layers.0.up", "BF16", (9, 7)), ("norm", "BF16", (6,))]
MIXED = [
    *PLAIN[:2],
    ("layers.0.scale", "F32", (9,)),
    ("layers.0.codes", "U8", (33,)),
    ("layers.0.fp8", "F8_E4M3", (5, 5)),
    ("count", "I64", ()),
]


def tensors_of(format: str) -> list[tuple[str, str, tuple[int, ...]]]:
    """A model that the format can hold."""
    return PLAIN if format == "trl" else MIXED


def run_of(chain: Path | Store, states: Sequence[td.State], files: dict[str, bytes] | None = None) -> td.Chain:
    """A chain of these states."""
    opened = td.open(chain, create=True)
    for number, state in enumerate(states):
        opened.publish(state, files=files if number == 0 else None, layout_change=True)
    return opened


def states(seed: int, count: int, tensors: Sequence[tuple[str, str, tuple[int, ...]]]) -> list[td.State]:
    """A run of training."""
    rng = np.random.default_rng(seed)
    found = [random_state(rng, tensors)]
    while len(found) < count:
        found.append(step(rng, found[-1]))
    return found


assert set(DTYPES) >= {dtype for _, dtype, _ in MIXED}
