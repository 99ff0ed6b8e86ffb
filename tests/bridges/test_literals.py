"""What an export writes, byte for byte; of zstd frames what they hold, since versions of zstd differ."""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import pytest
from crossings import exporter, run_of
from strategies import MemoryStore

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

import tensordelta as td
from tensordelta.format.layout import Layout, Tensor

_LAYOUT = Layout.of([Tensor("a", "BF16", (2, 3)), Tensor("b", "F32", (2,)), Tensor("still", "U8", (3,))])
_OLD = ["803f 0040 0000 0080 c17f 803f", "0000803f 000000c0", "010203"]
_NEW = ["803f 0140 0000 0000 c27f 803f", "0000803f 010000c0", "010203"]


def _state(texts: list[str]) -> td.State:
    words = [
        np.frombuffer(bytes.fromhex(text), tensor.kind.word).copy()
        for text, tensor in zip(texts, _LAYOUT.tensors, strict=True)
    ]
    return td.State(_LAYOUT, words)


def _shard(data: bytes) -> tuple[dict[str, Any], dict[str, str], dict[str, bytes]]:
    size = int.from_bytes(data[:8], "little")
    assert size % 8 == 0
    header = json.loads(data[8 : 8 + size])
    metadata = header.pop("__metadata__", {})
    parts = {name: data[8 + size :][slice(*entry["data_offsets"])] for name, entry in header.items()}
    return header, metadata, parts


@pytest.fixture
def exported(request: pytest.FixtureRequest) -> MemoryStore:
    format, options = request.param
    store = MemoryStore()
    list(exporter(format, run_of(MemoryStore(), [_state(_OLD), _state(_NEW)]), store, **options).all())
    return store


@pytest.mark.parametrize("exported", [("slime", {"checksum": "adler32"})], indirect=True)
def test_xor_of_slime(exported: MemoryStore) -> None:
    assert exported["weight_v000001/model.safetensors.index.json"] == (
        b'{"metadata": {"version": "000001", "base_version": "000000", "delta_encoding": "xor", '
        b'"compression_format": "zstd", "checksum_format": "adler32"}, "weight_map": '
        b'{"a": "model-00000-of-00001.safetensors", "b": "model-00000-of-00001.safetensors"}}'
    )
    header, metadata, parts = _shard(exported["weight_v000001/model-00000-of-00001.safetensors"])
    assert metadata == {"a": "10cf0301", "b": "05070181"}
    assert {name: (entry["dtype"], len(entry["shape"])) for name, entry in header.items()} == {
        "a": ("U8", 1),
        "b": ("U8", 1),
    }
    assert zstd.decompress(parts["a"]) == bytes.fromhex("0000 0100 0000 0080 0300 0000")
    assert zstd.decompress(parts["b"]) == bytes.fromhex("00000000 01000000")
    assert exported["weight_v000000/model.safetensors.index.json"] == (
        b'{"metadata": {"total_size": 23, "version": "000000"}, "weight_map": {'
        b'"a": "model-00001-of-00001.safetensors", "b": "model-00001-of-00001.safetensors", '
        b'"still": "model-00001-of-00001.safetensors"}}'
    )
    header, metadata, parts = _shard(exported["weight_v000000/model-00001-of-00001.safetensors"])
    assert metadata == {"format": "pt"}
    assert parts == {name: bytes.fromhex(text) for name, text in zip(("a", "b", "still"), _OLD, strict=True)}
    assert header["a"]["dtype"] == "BF16" and header["a"]["shape"] == [2, 3]


@pytest.mark.parametrize("exported", [("slime", {"encoding": "overwrite"})], indirect=True)
def test_overwrite_of_slime(exported: MemoryStore) -> None:
    _, metadata, parts = _shard(exported["weight_v000001/model-00000-of-00001.safetensors"])
    assert zstd.decompress(parts["a"]) == bytes.fromhex("03000000 02000000 07000000 08000000 01 00 c2")
    assert zstd.decompress(parts["b"]) == bytes.fromhex("01000000 04000000 01")
    assert metadata == {"a": "1d9966af5dd5ad18052341fa050a2658", "b": "9eafe854297c6b8845f0802e3e489b94"}


@pytest.mark.parametrize("exported", [("slime", {"checksum": "blake3"})], indirect=True)
def test_blake3_of_slime(exported: MemoryStore) -> None:
    _, metadata, _ = _shard(exported["weight_v000001/model-00000-of-00001.safetensors"])
    assert metadata == {
        "a": "3716ce5451e80fdc8081d79986a33530ac203634543954831b893d51181975a8",
        "b": "d4fcd228ed1fc7380c409e2fe23c03bac5dc367c63c47e0f447114d31ed6f486",
    }


@pytest.mark.parametrize("exported", [("modelexpress", {})], indirect=True)
def test_modelexpress(exported: MemoryStore) -> None:
    assert exported["v1/model.safetensors.index.json"] == (
        b'{"metadata": {"version": "v1", "base_version": "v0", "delta_encoding": "xor", "compression_format": "zstd", '
        b'"checksum_format": "adler32"}, "weight_map": {"a": "model-00000-of-00001.safetensors", '
        b'"b": "model-00000-of-00001.safetensors"}}'
    )
    assert json.loads(exported["v0/model.safetensors.index.json"])["metadata"] == {
        "total_size": 23,
        "checksum_format": "adler32",
    }
    assert _shard(exported["v0/model-00001-of-00001.safetensors"])[1] == {
        "format": "pt",
        "a": "1341037f",
        "b": "05030180",
        "still": "000d0007",
    }


@pytest.mark.parametrize("exported", [("skyrl", {})], indirect=True)
def test_skyrl(exported: MemoryStore) -> None:
    manifest = json.loads(exported["delta-00000001/manifest.json"])
    sizes = [record.pop("compressed_num_bytes") for record in manifest["tensors"]]
    assert manifest.pop("total_compressed_num_bytes") == sum(sizes)
    assert manifest == {
        "version": 1,
        "base_version": 0,
        "tensors": [
            {
                "name": "a",
                "dtype": "bfloat16",
                "shape": [2, 3],
                "uncompressed_num_bytes": 12,
                "payload_file": "delta-rank00000-file000000.safetensors",
                "payload_key": "a",
                "checksum": "1d9966af5dd5ad18052341fa050a2658",
                "checksum_algorithm": "xxh3-128",
            },
            {
                "name": "b",
                "dtype": "float32",
                "shape": [2],
                "uncompressed_num_bytes": 8,
                "payload_file": "delta-rank00000-file000000.safetensors",
                "payload_key": "b",
                "checksum": "9eafe854297c6b8845f0802e3e489b94",
                "checksum_algorithm": "xxh3-128",
            },
        ],
        "total_uncompressed_num_bytes": 20,
        "payload_files": ["delta-rank00000-file000000.safetensors"],
    }
    header, metadata, parts = _shard(exported["delta-00000001/delta-rank00000-file000000.safetensors"])
    assert metadata == {} and [header[name]["shape"] for name in "ab"] == [[size] for size in sizes]
    assert zstd.decompress(parts["a"]) == bytes.fromhex("0000 0100 0000 0080 0300 0000")
