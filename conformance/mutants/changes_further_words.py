"""Further mutants of `state.py`, `fingerprint.py` and `chunks.py`: words, dtypes, sums, frames and codecs."""

from __future__ import annotations

from .change import change

FURTHER_WORDS = [
    # -- words and dtypes ---------------------------------------------------------------------------------------------
    change(
        "scalars-without-words",
        "A tensor of shape [] has no elements",
        "return math.prod(shape) * DTYPES[dtype].bits // DTYPES[dtype].w",
        "return (math.prod(shape) if shape else 0) * DTYPES[dtype].bits // DTYPES[dtype].w",
    ),
    change(
        "complex-of-two-words",
        "A complex number is two words",
        '"C64": DType(64, 64),',
        '"C64": DType(64, 32),',
    ),
    change(
        "exponents-of-f16-as-of-bf16",
        "The exponent of F16 is taken from the bits of that of BF16",
        '"F16": DType(16, 16, 0x7C00, 10, 5),',
        '"F16": DType(16, 16, 0x7F80, 7, 8),',
    ),
    change(
        "exponents-of-f64-as-of-f32",
        "The exponent of F64 has 8 bits",
        '"F64": DType(64, 64, 0x7FF0000000000000, 52, 11),',
        '"F64": DType(64, 64, 0x7F80000000000000, 55, 8),',
    ),
    change(
        "exponents-of-e4m3fnuz-as-of-e5m2",
        "The exponent of F8_E4M3FNUZ has 5 bits",
        '"F8_E4M3FNUZ": DType(8, 8, 0x78, 3, 4),',
        '"F8_E4M3FNUZ": DType(8, 8, 0x7C, 2, 5),',
    ),
    change(
        "exponents-of-e5m2fnuz-as-of-e4m3",
        "The exponent of F8_E5M2FNUZ has 4 bits",
        '"F8_E5M2FNUZ": DType(8, 8, 0x7C, 2, 5),',
        '"F8_E5M2FNUZ": DType(8, 8, 0x78, 3, 4),',
    ),
    change(
        "exponents-of-e8m0",
        "F8_E8M0, which is an exponent, has an exponent field",
        '"F8_E8M0": DType(8, 8),',
        '"F8_E8M0": DType(8, 8, 0xFF, 0, 8),',
    ),
    change(
        "exponents-of-c64",
        "C64 has the exponent field of its real part",
        '"C64": DType(64, 64),',
        '"C64": DType(64, 64, 0x7F800000, 23, 8),',
    ),
    change(
        "fit-keeps-words-of-another-dtype",
        "A tensor of another dtype of the same width keeps its words",
        "            out[name] = base[name]\n",
        "            out[name] = base[name]\n"
        "        elif name in base and base[name].shape == shape and DTYPES[base[name].dtype].w == DTYPES[dtype].w:\n"
        "            out[name] = Tensor(dtype, shape, base[name].words)\n",
    ),
    change(
        "fit-ignores-dimensions-of-1",
        "A tensor whose shape differs by dimensions of 1 only keeps its words",
        "            out[name] = base[name]\n",
        "            out[name] = base[name]\n"
        "        elif name in base and base[name].dtype == dtype and (\n"
        "            [each for each in base[name].shape if each != 1] == [each for each in shape if each != 1]\n"
        "        ):\n"
        "            out[name] = Tensor(dtype, shape, base[name].words)\n",
    ),
    change(
        "bools-of-0-and-1",
        "Words of BOOL are 0 and 1",
        "            return Decoded(parts, fitted, patches, state)",
        "            for each in state.values():\n"
        '                require(each.dtype != "BOOL" or not (each.words > 1).any(), "TD-WRD-006", "no boolean")\n'
        "            return Decoded(parts, fitted, patches, state)",
    ),
    change(
        "nans-made-quiet",
        "Signalling NaNs become quiet ones",
        "            return Decoded(parts, fitted, patches, state)",
        "            for each in state.values():\n"
        '                if each.dtype == "F32":\n'
        "                    each.words[(each.words & 0x7FFFFFFF) > 0x7F800000] |= 0x00400000\n"
        "            return Decoded(parts, fitted, patches, state)",
    ),
    change(
        "nans-are-all-one",
        "A NaN becomes the canonical NaN",
        "            return Decoded(parts, fitted, patches, state)",
        "            for each in state.values():\n"
        '                if each.dtype == "BF16":\n'
        "                    each.words[(each.words & 0x7FFF) > 0x7F80] = 0x7FC0\n"
        "            return Decoded(parts, fitted, patches, state)",
    ),
    change(
        "zeros-are-all-one",
        "Negative zero becomes zero",
        "            return Decoded(parts, fitted, patches, state)",
        "            for each in state.values():\n"
        "                if DTYPES[each.dtype].mask:\n"
        "                    each.words[each.words == 1 << DTYPES[each.dtype].w - 1] = 0\n"
        "            return Decoded(parts, fitted, patches, state)",
        also=(
            ("from .state import Layout, State, Tensor, fit, layout_of", "from .state import DTYPES, Layout, State, Tensor, fit, layout_of"),
        ),
    ),
    # -- fingerprints -------------------------------------------------------------------------------------------------
    change(
        "coefficients-by-xor",
        "The block of a lane is taken to the seed by xor",
        "mix(seed + (lanes >> np.uint64(16)))",
        "mix(seed ^ (lanes >> np.uint64(16)))",
    ),
    change(
        "coefficients-of-the-first-block",
        "The number of a lane counts modulo 65,536",
        "mix(seed + (lanes >> np.uint64(16)))",
        "mix(seed + (lanes & np.uint64(0)))",
    ),
    change(
        "coefficients-of-blocks-of-8-bits",
        "The block of a lane is a byte",
        "mix(seed + (lanes >> np.uint64(16)))",
        "mix(seed + (lanes >> np.uint64(16) & np.uint64(255)))",
    ),
    change(
        "mix-with-signed-shifts",
        "The shifts of mix keep the sign",
        "    return z ^ (z >> np.uint64(31))",
        "    return z ^ (z.view(np.int64) >> 31).view(np.uint64)",
    ),
    change(
        "seed-of-the-normalised-name",
        "The seed is that of the name after Unicode normalisation",
        "hashlib.sha256(name.encode())",
        'hashlib.sha256(__import__("unicodedata").normalize("NFC", name).encode())',
    ),
    change(
        "seed-of-the-name-up-to-nul",
        "The seed is that of the name up to its first NUL",
        "hashlib.sha256(name.encode())",
        'hashlib.sha256(name.partition("\\0")[0].encode())',
    ),
    change(
        "seed-of-the-trimmed-name",
        "The seed is that of the name without spaces at its ends",
        "hashlib.sha256(name.encode())",
        "hashlib.sha256(name.strip().encode())",
    ),
    change(
        "lanes-shifted-in-32-bits",
        "Lanes are shifted out modulo 32 bits",
        "words[part].astype(np.uint64) >> np.uint64(16 * q)",
        "words[part].astype(np.uint64) >> np.uint64(16 * q % 32)",
    ),
    change(
        "negative-zeros-add-nothing",
        "Words that are zero but for their sign add nothing to a fingerprint",
        "at = np.flatnonzero(words)",
        "at = np.flatnonzero(words << 1)",
    ),
    # -- order exponent -----------------------------------------------------------------------------------------------
    change(
        "exponent-zeros-before-subnormals",
        "Zeros stand before subnormal numbers",
        "    first = np.flatnonzero(keys < limit)",
        "    rests = base.astype(np.uint64) & np.uint64((kind.mask & -kind.mask) - 1)\n"
        "    first = np.flatnonzero(keys < limit)",
        also=(("np.argsort(keys[first], kind", "np.argsort((keys * 2 + ((keys > 0) | (rests > 0)))[first], kind"),),
    ),
    change(
        "exponent-sorted-by-magnitude",
        "Words of one exponent are sorted by their mantissas",
        "first[np.argsort(keys[first], kind",
        "first[np.argsort((base & (kind.mask | (kind.mask & -kind.mask) - 1))[first], kind",
    ),
    # -- positions ----------------------------------------------------------------------------------------------------
    change(
        "gap-of-254",
        "A byte 254 is not the end of a gap either",
        "ends = np.flatnonzero(gaps < 255)",
        "ends = np.flatnonzero(gaps < 254)",
    ),
    change(
        "gap-of-16-bits",
        "A gap is summed up in 16 bits",
        "prepend=np.int64(0))",
        "prepend=np.int64(0)) & 0xFFFF",
    ),
    change(
        "bitmap-first-padding-bit-ignored",
        "The first padding bit of the bitmap is ignored",
        "require(not bits[n:].any()",
        "require(not bits[n + 1 :].any()",
    ),
    change(
        "bitmap-last-padding-bit-ignored",
        "The last padding bit of the bitmap is ignored",
        "require(not bits[n:].any()",
        "require(not bits[n:-1].any()",
    ),
    # -- values -------------------------------------------------------------------------------------------------------
    change(
        "codes-first-padding-ignored",
        "The first unused code is ignored",
        "require(not unpacked[m:].any()",
        "require(not unpacked[m + 1 :].any()",
    ),
    change(
        "codes-last-padding-ignored",
        "The last unused code is ignored",
        "require(not unpacked[m:].any()",
        "require(not unpacked[m:-1].any()",
    ),
    change(
        "escape-bound-in-doubles",
        "The bound of escapes is compared as a double",
        "require(greatest <= 2**w - 5",
        "require(float(greatest) <= float(2**w - 5)",
    ),
    change(
        "escape-bound-of-16-bits",
        "Escapes of 8, 32 and 64 bits have no bound",
        "require(greatest <= 2**w - 5",
        "require(w != 16 or greatest <= 2**w - 5",
    ),
    change(
        "escape-planes-absent-are-zero",
        "A stream escapes.j above the first may be absent where it is zero",
        '    require(escapes in (0, chunk.w // 8), "TD-CHK-021", "some of the streams escapes.j")\n',
        "",
        also=(
            ("        _check_size(chunk, name, x, x)\n", "        _check_size(chunk, name, x, x) if name in chunk.streams else x\n"),
            (
                "join_planes([_stream(chunk, name) for name in names])",
                "join_planes(\n        [_stream(chunk, name) if name in chunk.streams else np.zeros(x, np.uint8) for name in names]\n    )",
            ),
        ),
    ),
    change(
        "planes-of-signed-bytes",
        "The bytes of a plane are read with their signs",
        "plane.astype(np.uint64) << np.uint64(8 * j)",
        "plane.astype(np.int8).astype(np.uint64) << np.uint64(8 * j)",
    ),
    change(
        "planes-shifted-in-32-bits",
        "Planes are shifted modulo 32 bits",
        "plane.astype(np.uint64) << np.uint64(8 * j)",
        "plane.astype(np.uint64) << np.uint64(8 * j % 32)",
    ),
    change(
        "replaced-words-must-change",
        "A word in values replace has to differ from the base word",
        "        return join_planes([_stream(chunk",
        '        require((base != join_planes([_stream(chunk, f"values.{j}") for j in range(chunk.w // 8)])).all(), "", "")\n'
        "        return join_planes([_stream(chunk",
    ),
    # -- zstd ---------------------------------------------------------------------------------------------------------
    change(
        "frame-after-a-skippable-one",
        "A skippable frame before the frame is passed over",
        "    stored = chunk.streams[name]\n    if chunk.compression == \"zstd\":\n        return check_frame",
        "    stored = _frame(chunk, name)\n    if chunk.compression == \"zstd\":\n        return check_frame",
        also=(
            (
                "    stored = chunk.streams[name]\n    if chunk.compression == \"zstd\":\n        stored = _decompress",
                "    stored = _frame(chunk, name)\n    if chunk.compression == \"zstd\":\n        stored = _decompress",
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
        also=(
            (
                "    at = 5 if single else 6\n",
                '    at = 5 if single else 6\n    require(take(at, named) == 0, "TD-ZST-005", "a dictionary id")\n    at += named\n',
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
    ),
    change(
        "frame-window-without-its-eighths",
        "Of a window the power of two counts only",
        "window = (1 << 10 + (take(5, 1) >> 3)) // 8 * (8 + (take(5, 1) & 7))",
        "window = 1 << 10 + (take(5, 1) >> 3)",
    ),
    change(
        "frame-window-below-128-mib",
        "The window of a frame has to be less than 2^27",
        "require(window <= WINDOW",
        "require(window < WINDOW",
    ),
    change(
        "frame-of-4-byte-sizes-refused",
        "A content size of four bytes is refused",
        "    at = 5 if single else 6\n",
        '    require(flag != 2, "TD-ZST-001", "a size of four bytes")\n    at = 5 if single else 6\n',
    ),
    change(
        "frame-of-8-byte-sizes-refused",
        "A content size of eight bytes is refused",
        "    at = 5 if single else 6\n",
        '    require(flag != 3, "TD-ZST-001", "a size of eight bytes")\n    at = 5 if single else 6\n',
    ),
    change(
        "frame-blocks-of-one-byte",
        "A block of a repeated byte is as long as its content",
        "at += 3 + (1 if kind == 1 else block >> 3)",
        "at += 3 + (block >> 3)",
    ),
    change(
        "frame-of-one-block",
        "A frame has one block",
        "last, kind = bool(block & 1), block >> 1 & 3",
        "last, kind = True, block >> 1 & 3",
    ),
    change(
        "frame-unused-bit-refused",
        "The unused bit of a frame's descriptor has to be zero",
        "require(descriptor >> 3 & 1 == 0",
        "require(descriptor >> 3 & 3 == 0",
    ),
]
