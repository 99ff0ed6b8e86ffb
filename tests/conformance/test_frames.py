"""The frames that conformance/generate makes by hand, read by a library."""

from __future__ import annotations

import sys

import pytest

from generate import blocks, cases
from generate.areas.frames import ZEROS_OF_2_27
from generate.builder import Builder
from generate.frames import frame, xxh64, zstd

if sys.version_info >= (3, 14):
    from compression import zstd as library
else:
    from backports import zstd as library

VALID = [each for each in cases.CASES.values() if each.area == "frames" and each.valid]
KINDS = {0: "raw", 1: "rle", 2: "huffman", 3: "treeless"}
MODES = ("predefined", "rle", "compressed", "repeat")


def stored(builder: Builder) -> bytes:
    """The only stream of the newest version."""
    data = builder.get(builder.pack_names(max(builder.models))[0])
    return data[8 + int.from_bytes(data[:8], "little") :]


@pytest.mark.parametrize("case", VALID, ids=lambda case: case.id)
def test_a_library_decodes_each_valid_frame(case):
    builder = case.builder
    content = builder.models[max(builder.models)]["w"].words.tobytes()
    data = stored(builder)
    if case.id == "frame-of-another-checksum":
        with pytest.raises(library.ZstdError, match="checksum"):
            library.decompress(data)
        data = data[:-4] + (xxh64(content) & 0xFFFFFFFF).to_bytes(4, "little")
    options = {library.DecompressionParameter.window_log_max: 27}
    assert library.decompress(data, options=options) == content


def parts(block: bytes) -> tuple[str, list[str]]:
    """The kind of a compressed block's literals, and the modes of its sequences (RFC 8878, section 3.1.1.3)."""
    kind, form = block[0] & 3, block[0] >> 2 & 3
    if kind < 2:
        length = {0: 1, 1: 2, 2: 1, 3: 3}[form]
        size = int.from_bytes(block[:length], "little") >> (3 if length == 1 else 4)
        at = length + (size if kind == 0 else 1)
    else:
        length, bits = {0: (3, 10), 1: (3, 10), 2: (4, 14), 3: (5, 18)}[form]
        sizes = int.from_bytes(block[:length], "little") >> 4
        at = length + (sizes >> bits)
    if block[at] == 0:
        return KINDS[kind], []
    modes = block[at + (1 if block[at] < 128 else 2)]
    return KINDS[kind], [f"{name} {MODES[modes >> by & 3]}" for name, by in (("LL", 6), ("OF", 4), ("ML", 2))]


def test_the_compressed_blocks_have_every_kind_of_literals_and_of_tables():
    literals, tables = set(), set()
    for each in blocks.ALL:
        for _, data, _ in each.blocks():
            kind, modes = parts(data)
            literals.add(kind)
            tables.update(modes)
    assert literals == {"raw", "huffman", "treeless"}  # rle literals stand in a block made by hand
    assert tables == {f"{name} {mode}" for name in ("LL", "OF", "ML") for mode in MODES}


def test_checksums_and_frames_by_hand_are_those_of_a_library():
    options = {library.CompressionParameter.checksum_flag: 1}
    assert library.compress(bytes(1 << 27), options=options)[-4:] == ZEROS_OF_2_27
    for content in (b"", b"a", bytes(range(256)) * 9, b"\0" * 300_000):
        assert library.compress(content, options=options)[-4:] == frame(content)[-4:]
        assert library.decompress(zstd(content)) == content
