"""Further mutants of `chunks.py`: positions, values, frames."""

from __future__ import annotations

from .change import change

FURTHER_STREAMS = [
    # -- positions ----------------------------------------------------------------------------------------------------
    change(
        "gap-of-254",
        "A byte 254 is not the end of a gap either",
        "ends = np.flatnonzero(gaps < 255)",
        "ends = np.flatnonzero(gaps < 254)",
        "gap-of-254",
    ),
    change(
        "gap-of-16-bits",
        "A gap is summed up in 16 bits",
        "prepend=np.int64(0))",
        "prepend=np.int64(0)) & 0xFFFF",
        "fingerprint-of-lane-65536",
    ),
    change(
        "bitmap-first-padding-bit-ignored",
        "The first padding bit of the bitmap is ignored",
        "require(not bits[n:].any()",
        "require(not bits[n + 1 :].any()",
        "bitmap-with-a-padding-bit",
    ),
    change(
        "bitmap-last-padding-bit-ignored",
        "The last padding bit of the bitmap is ignored",
        "require(not bits[n:].any()",
        "require(not bits[n:-1].any()",
        "bitmap-with-the-last-padding-bit",
    ),
    # -- values -------------------------------------------------------------------------------------------------------
    change(
        "codes-first-padding-ignored",
        "The first unused code is ignored",
        "require(not unpacked[m:].any()",
        "require(not unpacked[m + 1 :].any()",
        "codes-with-the-first-padding-bit",
    ),
    change(
        "codes-last-padding-ignored",
        "The last unused code is ignored",
        "require(not unpacked[m:].any()",
        "require(not unpacked[m:-1].any()",
        "codes-with-the-last-padding-bit",
    ),
    change(
        "escape-bound-in-doubles",
        "The bound of escapes is compared as a double",
        "require(greatest <= 2**w - 5",
        "require(float(greatest) <= float(2**w - 5)",
        "escape-of-2-64-minus-4",
    ),
    change(
        "escape-bound-of-16-bits",
        "Escapes of 8, 32 and 64 bits have no bound",
        "require(greatest <= 2**w - 5",
        "require(w != 16 or greatest <= 2**w - 5",
        "escape-of-2-32-minus-4",
    ),
    change(
        "escape-planes-absent-are-zero",
        "A stream escapes.j above the first may be absent where it is zero",
        '    require(escapes in (0, chunk.w // 8), "TD-CHK-021", "some of the streams escapes.j")\n',
        "",
        "escapes-without-their-last-plane",
        also=(
            (
                "        _check_size(chunk, name, x, x)\n",
                "        _check_size(chunk, name, x, x) if name in chunk.streams else x\n",
            ),
            (
                "join_planes([_stream(chunk, name) for name in names])",
                "join_planes(\n"
                "        [_stream(chunk, name) if name in chunk.streams else np.zeros(x, np.uint8) for name in names]\n"
                "    )",
            ),
        ),
    ),
    change(
        "planes-of-signed-bytes",
        "The bytes of a plane are read with their signs",
        "plane.astype(np.uint64) << np.uint64(8 * j)",
        "plane.astype(np.int8).astype(np.uint64) << np.uint64(8 * j)",
        "replace-worked-bf16",
    ),
    change(
        "planes-shifted-in-32-bits",
        "Planes are shifted modulo 32 bits",
        "plane.astype(np.uint64) << np.uint64(8 * j)",
        "plane.astype(np.uint64) << np.uint64(8 * j % 32)",
        "replace-planes-of-64-bits",
    ),
    change(
        "replaced-words-must-change",
        "A word in values replace has to differ from the base word",
        "        return join_planes([_stream(chunk",
        '        new = join_planes([_stream(chunk, f"values.{j}") for j in range(chunk.w // 8)])\n'
        '        require((base != new).all(), "TD-VAL-007", "a word that does not change")\n'
        "        return join_planes([_stream(chunk",
        "replace-of-equal-words-gap",
    ),
    # -- zstd ---------------------------------------------------------------------------------------------------------
    change(
        "frame-after-a-skippable-one",
        "A skippable frame before the frame is passed over",
        '    stored = chunk.streams[name]\n    if chunk.compression == "zstd":\n        return check_frame',
        '    stored = _frame(chunk, name)\n    if chunk.compression == "zstd":\n        return check_frame',
        "frame-after-a-skippable-frame",
        also=(
            (
                '    stored = chunk.streams[name]\n    if chunk.compression == "zstd":\n        stored = _decompress',
                '    stored = _frame(chunk, name)\n    if chunk.compression == "zstd":\n        stored = _decompress',
            ),
            (
                "def check_frame(",
                "def _frame(chunk: Chunk, name: str) -> bytes:\n"
                "    stored = chunk.streams[name]\n"
                '    while chunk.compression == "zstd" and int.from_bytes(stored[:4], "little") >> 4 == 0x184D2A5:\n'
                '        stored = stored[8 + int.from_bytes(stored[4:8], "little") :]\n'
                "    return stored\n\n\n"
                "def check_frame(",
            ),
        ),
    ),
    change(
        "frame-of-dictionary-0",
        "A frame may name the dictionary 0",
        '    require(descriptor & 3 == 0, "TD-ZST-005", "a dictionary id")\n',
        "    named = (0, 1, 2, 4)[descriptor & 3]\n",
        "frame-with-a-dictionary-id-of-0",
        also=(
            (
                "    at = 5 if single else 6\n",
                "    at = 5 if single else 6\n"
                '    require(take(at, named) == 0, "TD-ZST-005", "a dictionary id")\n'
                "    at += named\n",
            ),
        ),
    ),
    change(
        "frame-without-its-size",
        "A frame without content size is decoded to its end",
        '    require(flag or single, "TD-ZST-002", "no content size")\n',
        "    if not (flag or single):\n"
        "        size = len(zstd.decompress(stored))\n"
        '        require(lowest <= size <= highest, "TD-ZST-003", "another content size")\n'
        "        return size\n",
        "frame-without-a-size",
    ),
    change(
        "frame-window-without-its-eighths",
        "Of a window the power of two counts only",
        "window = (1 << 10 + (take(5, 1) >> 3)) // 8 * (8 + (take(5, 1) & 7))",
        "window = 1 << 10 + (take(5, 1) >> 3)",
        "frame-of-a-window-beyond-128-mib",
    ),
    change(
        "frame-window-below-128-mib",
        "The window of a frame has to be less than 2^27",
        "require(window <= WINDOW",
        "require(window < WINDOW",
        "frame-of-a-window-of-128-mib",
    ),
    change(
        "frame-of-4-byte-sizes-refused",
        "A content size of four bytes is refused",
        "    at = 5 if single else 6\n",
        '    require(flag != 2, "TD-ZST-001", "a size of four bytes")\n    at = 5 if single else 6\n',
        "frame-of-a-size-of-4-bytes",
    ),
    change(
        "frame-of-8-byte-sizes-refused",
        "A content size of eight bytes is refused",
        "    at = 5 if single else 6\n",
        '    require(flag != 3, "TD-ZST-001", "a size of eight bytes")\n    at = 5 if single else 6\n',
        "frame-of-a-size-of-8-bytes",
    ),
    change(
        "frame-blocks-of-one-byte",
        "A block of a repeated byte is as long as its content",
        "at += 3 + (1 if kind == 1 else block >> 3)",
        "at += 3 + (block >> 3)",
        "frame-of-runs",
    ),
    change(
        "frame-of-one-block",
        "A frame has one block",
        "last, kind = bool(block & 1), block >> 1 & 3",
        "last, kind = True, block >> 1 & 3",
        "frame-of-three-raw-blocks",
    ),
    change(
        "frame-unused-bit-refused",
        "The unused bit of a frame's descriptor has to be zero",
        "require(descriptor >> 3 & 1 == 0",
        "require(descriptor >> 3 & 3 == 0",
        "frame-with-the-unused-bit",
    ),
]
