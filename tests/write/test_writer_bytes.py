"""The bytes that the writer emits, to the last one: a tiny full version, and a tiny delta of it.

The literals were worked out with SPEC.md in hand (comments say how), so that a change of the format, or of what the
writer chooses for so small a state, does not go unseen.
"""

from __future__ import annotations

import hashlib
import json
import re

import numpy as np
import slow_reader
from strategies import CHAIN, MemoryStore, slow

import tensordelta as td
from tensordelta.format.layout import Layout, Tensor
from tensordelta.state.state import State

LAYOUT = Layout([Tensor("b", "F32", (9,)), Tensor("w", "BF16", (5, 8))])


def state_of(b: list[int], w: dict[int, int]) -> State:
    words = np.zeros(40, np.uint16)
    words[list(w)] = list(w.values())
    return State(LAYOUT, [np.array(b, np.uint32), words])


# 1.0, -0, the smallest subnormal number, a NaN with a payload, infinity, and four others.
B = [0x3F800000, 0x80000000, 0x00000001, 0x7FC00123, 0xFF800000, 0x3E4CCCCD, 0xBE4CCCCD, 0x42280000, 0x0BADF00D]
FULL = state_of(B, {3: 0x3F80, 39: 0x8000})
# b: -0 becomes 0. w: word 3 steps by +1, word 20 by +2, word 39 by -2.
DELTA = state_of([B[0], 0, *B[2:]], {3: 0x3F81, 20: 0x0002, 39: 0x7FFE})

LAYOUT_BYTES = (
    b'{"tensordelta":"1.0-rc.1","tensors":[{"name":"b","dtype":"F32","shape":[9]},'
    b'{"name":"w","dtype":"BF16","shape":[5,8]}]}'
)
LAYOUT_DIGEST = "c90bbaa0b0f6e3c9ea5b9181c570c2afdc774e5bc565c8a238e5ab7b650f4ee0"


def header(table: str, streams: str, spaces: int) -> bytes:
    """The table as a JSON string in the metadata, one entry for each stream, and spaces to a multiple of 8."""
    quoted = table.replace('"', '\\"')
    return f'{{"__metadata__":{{"tensordelta":"{quoted}"}},{streams}}}'.encode() + b" " * spaces


FULL_HEADER = header(
    f'{{"tensordelta":"1.0-rc.1","layout":"{LAYOUT_DIGEST}","chunks":['
    '{"dtype":"BF16","slices":[[1,0,40]],"changed":2,"order":{"codec":"natural"},'
    '"positions":{"codec":"gap","shift":0},"values":{"codec":"replace"},"compression":"none",'
    '"result":"bf7327f8604a8180"},'
    '{"dtype":"F32","slices":[[0,0,9]],"changed":9,"order":{"codec":"natural"},'
    '"positions":{"codec":"all"},"values":{"codec":"replace"},"compression":"none",'
    '"result":"802e6b290ca7e5c2"}]}',
    '"0.gaps":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},'
    '"0.values.0":{"dtype":"U8","shape":[2],"data_offsets":[2,4]},'
    '"0.values.1":{"dtype":"U8","shape":[2],"data_offsets":[4,6]},'
    '"1.values.0":{"dtype":"U8","shape":[9],"data_offsets":[6,15]},'
    '"1.values.1":{"dtype":"U8","shape":[9],"data_offsets":[15,24]},'
    '"1.values.2":{"dtype":"U8","shape":[9],"data_offsets":[24,33]},'
    '"1.values.3":{"dtype":"U8","shape":[9],"data_offsets":[33,42]}',
    spaces=0,
)
FULL_BUFFER = bytes.fromhex(
    "03 23"  # 0.gaps: words 3 and 39, 3 and 35 words passed over
    "80 00  3f 80"  # 0.values: 3F80 8000, low plane and high plane
    "00 00 01 23 00 cd cd 00 0d"  # 1.values.0: the lowest bytes of b
    "00 00 00 01 00 cc cc 00 f0"
    "80 00 00 c0 80 4c 4c 28 ad"
    "3f 80 00 7f ff 3e be 42 0b"
)
FULL_DIGEST = "ee5bdb5f7555ce4be46717d594f0651cfbb563ccee42ad2e61e3d592bb8f0995"

DELTA_HEADER = header(
    f'{{"tensordelta":"1.0-rc.1","layout":"{LAYOUT_DIGEST}","chunks":['
    '{"dtype":"BF16","slices":[[1,0,40]],"changed":3,"order":{"codec":"natural"},'
    '"positions":{"codec":"gap","shift":0},"values":{"codec":"step"},"compression":"none",'
    '"result":"979be0c1ba53b13d"},'
    '{"dtype":"F32","slices":[[0,0,9]],"changed":1,"order":{"codec":"natural"},'
    '"positions":{"codec":"gap","shift":0},"values":{"codec":"step"},"compression":"none",'
    '"result":"0000000000000000"}]}',
    '"0.gaps":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},'
    '"0.codes":{"dtype":"U8","shape":[1],"data_offsets":[3,4]},'
    '"0.escapes.0":{"dtype":"U8","shape":[1],"data_offsets":[4,5]},'
    '"0.escapes.1":{"dtype":"U8","shape":[1],"data_offsets":[5,6]},'
    '"1.gaps":{"dtype":"U8","shape":[1],"data_offsets":[6,7]},'
    '"1.codes":{"dtype":"U8","shape":[1],"data_offsets":[7,8]},'
    '"1.escapes.0":{"dtype":"U8","shape":[1],"data_offsets":[8,9]},'
    '"1.escapes.1":{"dtype":"U8","shape":[1],"data_offsets":[9,10]},'
    '"1.escapes.2":{"dtype":"U8","shape":[1],"data_offsets":[10,11]},'
    '"1.escapes.3":{"dtype":"U8","shape":[1],"data_offsets":[11,12]}',
    spaces=1,
)
DELTA_BUFFER = bytes.fromhex(
    "03 10 12"  # 0.gaps: words 3, 20, 39
    "2d"  # 0.codes: +1 is 1, +2 is 3, -2 is 2: 1 | 3 << 2 | 2 << 4
    "00 00"  # 0.escapes: y - 3 = 0
    "01"  # 1.gaps: word 1
    "03"  # 1.codes
    "fb ff ff ff"  # 1.escapes: the step 2^31 is z = 2^32 - 1, y = 2^32 - 2, y - 3 = FFFFFFFB
)
DELTA_DIGEST = "74e5c45be99c8fcd37be089e133236a2508b1ba953a2d352743603663017ace3"

FULL_MANIFEST = (
    f'{{"tensordelta":"1.0-rc.1","chain":"{CHAIN}","version":0,"layout":"{LAYOUT_DIGEST}",'
    '"fingerprint":"3fa193216cf26742",'  # the sum of its two chunks
    f'"base":null,"packs":[{{"sha256":"{FULL_DIGEST}","size":1082,"path":"packs/{FULL_DIGEST}.safetensors",'
    '"content":"chunks","tensors":[[0,2]],"changed":11}],"features":[],'
    '"tensor_fingerprints":"21293c5c3102299af94a3928439fb41745035ae5c3d7a54e4e844207fe922edf","files":[]}'
)
DELTA_MANIFEST = (
    f'{{"tensordelta":"1.0-rc.1","chain":"{CHAIN}","version":1,"layout":"{LAYOUT_DIGEST}",'
    '"fingerprint":"b863f964614216ff",'  # that of the base, and the change of its four words
    f'"base":{{"version":0,"layout":"{LAYOUT_DIGEST}","fingerprint":"3fa193216cf26742"}},'
    f'"packs":[{{"sha256":"{DELTA_DIGEST}","size":1236,"path":"packs/{DELTA_DIGEST}.safetensors",'
    '"content":"chunks","tensors":[[0,2]],"changed":4}],"features":[],"annotations":{"step":"420"},'
    '"tensor_fingerprints":"b464dccf4d4792aef991eccd32dffb3709875cc63b33f61ff1d205f54ce4f880","files":[]}'
)


def published() -> MemoryStore:
    store = MemoryStore()
    chain = td.open(store, create=True, chain=CHAIN, threads=1)
    chain.publish(FULL)
    chain.publish(DELTA, annotations={"step": "420"})
    return store


def without_created(data: bytes) -> str:
    """The text without what is another one at each run: the time, salts, and the digest of what has one."""
    text = re.sub(r',"created":"[0-9TZ:.-]*"', "", data.decode(), count=1)
    text = re.sub(r',"tensor_fingerprints":"[0-9a-f]{64}"', "", text)
    return re.sub(r"-[0-9a-f]{16}\.safetensors", ".safetensors", text)


def test_bytes_of_the_writer() -> None:
    store = published()
    packs = {
        FULL_DIGEST: len(FULL_HEADER).to_bytes(8, "little") + FULL_HEADER + FULL_BUFFER,
        DELTA_DIGEST: len(DELTA_HEADER).to_bytes(8, "little") + DELTA_HEADER + DELTA_BUFFER,
    }
    for digest, data in packs.items():
        (name,) = (name for name in store if name.startswith(f"packs/{digest}-"))
        assert store[name] == data
        assert hashlib.sha256(data).hexdigest() == digest
        assert int.from_bytes(data[:8], "little") % 8 == 0
    assert store[f"layouts/{LAYOUT_DIGEST}.json"] == LAYOUT_BYTES
    assert without_created(store["manifests/000000000000.json"]) == without_created(FULL_MANIFEST.encode())
    assert without_created(store["manifests/000000000001.json"]) == without_created(DELTA_MANIFEST.encode())
    assert without_created(store["chain.json"]) == f'{{"tensordelta":"1.0-rc.1","chain":"{CHAIN}"}}'
    assert store["latest.json"] == f'{{"tensordelta":"1.0-rc.1","chain":"{CHAIN}","version":1}}'.encode()


def test_fingerprints_objects_of_the_writer() -> None:
    store = published()
    for version, state in enumerate((FULL, DELTA)):
        digest = json.loads(store[f"manifests/{version:012d}.json"])["tensor_fingerprints"]
        data = store[f"fingerprints/{digest}.bin"]
        assert hashlib.sha256(data).hexdigest() == digest
        assert len(data) == 8 * (len(slow(state)) + 1)
        assert data[:-8] == b"".join(
            slow_reader.tensor_fingerprint(name, each.words, slow_reader.DTYPES[each.dtype].w).to_bytes(8, "little")
            for name, each in slow(state).items()
        )


def test_the_writer_writes_nothing_else() -> None:
    kinds = sorted(name.split("/")[0] for name in published())
    assert kinds == sorted(["chain.json", "latest.json", "layouts"] + 2 * ["packs", "fingerprints", "manifests"])


def test_the_slow_reader_reads_it() -> None:
    store = published()
    assert slow_reader.read_version(store, 0) == slow(FULL)
    assert slow_reader.read_version(store, 1) == slow(DELTA)
