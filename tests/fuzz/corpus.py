"""What fuzzing starts from: objects of the good chains, and the inputs in the tree."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from gallery import CHAIN, CREATED, MemoryStore, digest, dumps
from signed_chains import PUBLIC, SECRET, WORKED, signature_of

import tensordelta as td
from generate.frames import frame
from generate.good import good_chain
from tensordelta.format.layout import Layout, Tensor
from tensordelta.format.strict_json import VERSION

from . import own_files, streams  # noqa: F401 - registers their targets
from .targets import TARGETS

FOLDER = Path(__file__).parent / "corpus"


#: The chain that targets read, first; and others of the same layout, and of other kinds.
_CHAINS = (
    "combination-natural-gap4-step",
    "combination-exponent-bitmap-step",
    "plain",
    "files",
    "shortcuts",
    "frames",
    "reference-encoder-exponent",
)


@cache
def _chains() -> list[dict[str, bytes]]:
    return [good_chain(name).objects for name in _CHAINS]


def _objects(prefix: str, *, each: int = 3) -> list[bytes]:
    """Objects below a prefix: some of each chain, the shortest ones."""
    found: list[bytes] = []
    for objects in _chains():
        mine = {data for name, data in objects.items() if name.startswith(prefix)}
        found += sorted(mine, key=lambda data: (len(data), data))[:each]
    return list(dict.fromkeys(found))


def _headers() -> list[bytes]:
    return [data[8 : 8 + int.from_bytes(data[:8], "little")] for data in _objects("packs/")]


def _header(members: dict[str, object]) -> bytes:
    """A header of tensors of 100 bytes in all."""
    return dumps(members) + b" " * (-len(dumps(members)) % 8)


def _tables() -> list[bytes]:
    """Chunk tables; one of them has groups."""
    texts = (json.loads(header).get("__metadata__", {}).get("tensordelta") for header in _headers())
    tables = [text for text in texts if text]
    grouped = json.loads(next(text for text in tables if "exponent" in text))
    for chunk in grouped["chunks"]:
        if chunk["order"]["codec"] == "exponent":
            tensor, start, stop = chunk["slices"][-1]
            middle = (start + stop) // 2
            chunk["slices"][-1:] = [[tensor, start, middle], [tensor, middle, stop]]
            chunk["order"]["groups"] = [1, len(chunk["slices"]) - 1]
    return [*(table.encode() for table in tables), dumps(grouped)]


def _plain_packs() -> list[bytes]:
    """Checkpoint files of the chain that targets read, and of others."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "model.safetensors")
        td.open(MemoryStore(dict(_chains()[0])), threads=1).load(0).save(path)
        return [path.read_bytes(), *_objects("packs/")]


def _numbers(*numbers: int, stored: Sequence[bytes] = ()) -> bytes:
    """A head of a stream target: four numbers of a byte, three of two, and streams."""
    head = bytes(numbers[:4]) + b"".join(each.to_bytes(2, "little") for each in numbers[4:])
    return head + b"".join(len(each).to_bytes(2, "little") + each for each in stored)


def _streams() -> list[bytes]:
    return [
        _numbers(1, 4, 0, 0, 3, 4, 5, stored=[b"\x1b"]),
        _numbers(1, 0, 0, 0, 40, 3, 5, stored=[b"\x04", b"\x01\x05\x02"]),
        _numbers(0, 3, 1, 0, 15, 4, 5, stored=[b"\x0f\0", b"\x55"]),
        _numbers(2, 8, 0, 0, 400, 2, 99, stored=[b"\x0b", b"\xff\x05\x02", b"\x01"]),
        _numbers(2, 4, 0, 0, 1, 2, 5, stored=[b"ab", b"cd", b"ef", b"gh"]),
        _numbers(1, 3, 0, 1, 15, 4, 130, stored=[frame(b"\x0f\0"), frame(b"\xff")]) + b"\x01\x04\0abcd\x04\0efgh",
    ]


_FORMAT = {"tensordelta": VERSION, "chain": CHAIN}
_DRAFT = _FORMAT | {"version": 5, "opened": 1_764_500_000, "base": None, "layout": "0" * 64, "before": None}
_TENSORS = [{"name": "a", "dtype": "BF16", "shape": [3]}]
_DIGEST, _SALT = digest(b""), "0123456789abcdef"


def _layout_digest() -> str:
    """Of the draft's layout, as its object would have it."""
    return digest(Layout((Tensor("a", "BF16", (3,)),)).encode())


_SEEDS: dict[str, Callable[[], list[bytes]]] = {
    "chain": lambda: [WORKED, dumps(_FORMAT | {"created": CREATED, "grace": 3600})],
    "latest": lambda: [
        dumps(_FORMAT | {"version": 3}),
        dumps(_FORMAT | {"version": 64, "shortcuts": ["000000000064-full", "000000000064-000000000000.a1"]}),
    ],
    "pin": lambda: [dumps(_FORMAT | {"version": 3, "seconds": 60}), dumps(_FORMAT | {"version": 3})],
    "manifest": lambda: _objects("manifests/000000000001"),
    "shortcut": lambda: _objects("shortcuts/", each=12),
    "layout": lambda: [*_objects("layouts/"), dumps({"tensordelta": VERSION, "tensors": _TENSORS, "salt": "0" * 16})],
    "signature-object": lambda: [signature_of("chain.json", WORKED), signature_of("chain.json", b"x")],
    "draft": lambda: [dumps(_DRAFT | {"layout": _layout_digest(), "tensors": _TENSORS}), dumps(_DRAFT)],
    "descriptor": lambda: [
        dumps(
            _FORMAT
            | {"version": 3, "base": None, "layout": "0" * 64, "packs": packs, "features": []}
            | {"slices": [[0, 0, 3, "0" * 16]], "changes": [[0, 1, "0" * 16]], "microseconds": {"put": 7}}
        )
        for packs in ([], json.loads(_objects("manifests/000000000001")[0])["packs"])
    ],
    "index": lambda: [b'{"metadata": {"total_size": 3}, "weight_map": {"a": "model-00001-of-00001.safetensors"}}'],
    "fingerprints": lambda: _objects("fingerprints/"),
    "safetensors-header": lambda: [
        _header({"0.codes": {"dtype": "U8", "shape": [100], "data_offsets": [0, 100]}}),
        *_headers(),
    ],
    "plain-header": lambda: [
        _header({"a": {"dtype": "BF16", "shape": [5, 10], "data_offsets": [0, 100]}, "__metadata__": {"format": "pt"}}),
        *_headers(),
    ],
    "header-size": lambda: [b"\x08" + bytes(7) + b"{}      ", bytes(8)],
    "chunk-table": _tables,
    "whole-pack": lambda: _objects("packs/"),
    "plain-pack": _plain_packs,
    "zstd-frame": lambda: [frame(b"abc" * 9), frame(b""), frame(b"x" * 300, size_bytes=8)],
    "object-name": lambda: [
        b"manifests/000000000001.json",
        b"shortcuts/000000000002-full.a1.json",
        b"pins/a.json",
        *(
            name.encode()
            for name in (
                f"packs/{_DIGEST}-{_SALT}.safetensors",
                f"files/{_DIGEST}-{_SALT}",
                f"signatures/{_DIGEST}-{_SALT}.json",
                "retired/manifests/000000000001.json",
            )
        ),
    ],
    "address": lambda: [
        b"run-1",
        b"https://h.example/p/",
        b"hf://buckets/o/n/p",
        b"s3://bucket/prefix",
        b"gs://b",
        b"az://c",
        b"x://y",
    ],
    "version-option": lambda: [b"0", b"full", b"999999999999", b"-1", b"1e3"],
    "key": lambda: [PUBLIC.encode(), SECRET.encode() + b"\n", bytes(32), b"-----BEGIN PUBLIC KEY-----\nMCow\n"],
    "step-streams": _streams,
    "replace-streams": _streams,
    "exponent-streams": lambda: [*_streams(), _numbers(1, 25, 0, 0, 15, 1, 130, stored=[b"\x01", b"\x03"])],
    "gaps": lambda: [b"\x02\x20\0\x03\0\x01\x02\x03", b"\x00\xff\x01\x02\0\xff\x02"],
    "bitmap": lambda: [b"\x0f\0\x02\0\x02\0\x03\0"],
    "codes": lambda: [b"\x03\x01\0\x1b", b"\x03\x01\0\xff\x04\0abcd\x04\0efgh"],
    "state-json": lambda: [own_files.kept().state],
    "undo-record": lambda: [own_files.kept().undo],
    "undo-sealed": lambda: [own_files.kept().undo[:-32]],
    "shard": lambda: [own_files.kept().shard, *_objects("packs/")],
}
assert _SEEDS.keys() == TARGETS.keys()


def seeds(name: str) -> list[bytes]:
    """The inputs that fuzzing a target starts from."""
    found = sorted((FOLDER / name).glob("*")) if (FOLDER / name).is_dir() else []
    return [*_SEEDS[name](), *(path.read_bytes() for path in found)]
