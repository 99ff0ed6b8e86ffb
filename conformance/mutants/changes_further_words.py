"""Further mutants of `state.py`, `fingerprint.py` and `chunks.py`: words, dtypes, fitting, sums, order `exponent`."""

from __future__ import annotations

from .change import change

FURTHER_WORDS = [
    # -- words and dtypes ---------------------------------------------------------------------------------------------
    change(
        "scalars-without-words",
        "A tensor of shape [] has no elements",
        "return math.prod(shape) * DTYPES[dtype].bits // DTYPES[dtype].w",
        "return (math.prod(shape) if shape else 0) * DTYPES[dtype].bits // DTYPES[dtype].w",
        "layout-scalars-in-a-delta",
    ),
    change(
        "complex-of-two-words",
        "A complex number is two words",
        '"C64": DType(64, 64),',
        '"C64": DType(64, 32),',
        "words-of-c64",
    ),
    change(
        "exponents-of-f16-as-of-bf16",
        "The exponent of F16 is taken from the bits of that of BF16",
        '"F16": DType(16, 16, 0x7C00, 10, 5),',
        '"F16": DType(16, 16, 0x7F80, 7, 8),',
        "exponent-of-f16",
    ),
    change(
        "exponents-of-f64-as-of-f32",
        "The exponent of F64 has 8 bits",
        '"F64": DType(64, 64, 0x7FF0000000000000, 52, 11),',
        '"F64": DType(64, 64, 0x7F80000000000000, 55, 8),',
        "exponent-of-f64",
    ),
    change(
        "exponents-of-e4m3fnuz-as-of-e5m2",
        "The exponent of F8_E4M3FNUZ has 5 bits",
        '"F8_E4M3FNUZ": DType(8, 8, 0x78, 3, 4),',
        '"F8_E4M3FNUZ": DType(8, 8, 0x7C, 2, 5),',
        "exponent-of-f8-e4m3fnuz",
    ),
    change(
        "exponents-of-e5m2fnuz-as-of-e4m3",
        "The exponent of F8_E5M2FNUZ has 4 bits",
        '"F8_E5M2FNUZ": DType(8, 8, 0x7C, 2, 5),',
        '"F8_E5M2FNUZ": DType(8, 8, 0x78, 3, 4),',
        "exponent-of-f8-e5m2fnuz",
    ),
    change(
        "exponents-of-e8m0",
        "F8_E8M0, which is an exponent, has an exponent field",
        '"F8_E8M0": DType(8, 8),',
        '"F8_E8M0": DType(8, 8, 0xFF, 0, 8),',
        "exponent-of-f8-e8m0",
    ),
    change(
        "exponents-of-c64",
        "C64 has the exponent field of its real part",
        '"C64": DType(64, 64),',
        '"C64": DType(64, 64, 0x7F800000, 23, 8),',
        "exponent-of-c64",
    ),
    change(
        "fit-keeps-words-of-another-dtype",
        "A tensor of another dtype of the same width keeps its words",
        "            out[name] = base[name]\n",
        "            out[name] = base[name]\n"
        "        elif name in base and base[name].shape == shape and DTYPES[base[name].dtype].w == DTYPES[dtype].w:\n"
        "            out[name] = Tensor(dtype, shape, base[name].words)\n",
        "fit-retyped-same-width",
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
        "fit-one-element-to-a-scalar",
    ),
    change(
        "bools-of-0-and-1",
        "Words of BOOL are 0 and 1",
        "            return Decoded(parts, fitted, patches, state)",
        "            for each in state.values():\n"
        '                require(each.dtype != "BOOL" or not (each.words > 1).any(), "TD-WRD-006", "no boolean")\n'
        "            return Decoded(parts, fitted, patches, state)",
        "words-of-bool-beyond-1",
    ),
    change(
        "nans-made-quiet",
        "Signalling NaNs become quiet ones",
        "            return Decoded(parts, fitted, patches, state)",
        "            for each in state.values():\n"
        '                if each.dtype == "F32":\n'
        "                    each.words[(each.words & 0x7FFFFFFF) > 0x7F800000] |= 0x00400000\n"
        "            return Decoded(parts, fitted, patches, state)",
        "nans-of-f32-by-replace",
    ),
    change(
        "nans-are-all-one",
        "A NaN becomes the canonical NaN",
        "            return Decoded(parts, fitted, patches, state)",
        "            for each in state.values():\n"
        '                if each.dtype == "BF16":\n'
        "                    each.words[(each.words & 0x7FFF) > 0x7F80] = 0x7FC0\n"
        "            return Decoded(parts, fitted, patches, state)",
        "nans-of-bf16-by-replace",
    ),
    change(
        "zeros-are-all-one",
        "Negative zero becomes zero",
        "            return Decoded(parts, fitted, patches, state)",
        "            for each in state.values():\n"
        "                if DTYPES[each.dtype].mask:\n"
        "                    each.words[each.words == 1 << DTYPES[each.dtype].w - 1] = 0\n"
        "            return Decoded(parts, fitted, patches, state)",
        "zeros-of-bf16",
        also=(
            (
                "from .state import Layout, State, Tensor, fit, layout_of\n\n#: The memory budget",
                "from .state import DTYPES, Layout, State, Tensor, fit, layout_of\n\n#: The memory budget",
            ),
        ),
    ),
    # -- fingerprints -------------------------------------------------------------------------------------------------
    change(
        "coefficients-by-xor",
        "The block of a lane is taken to the seed by xor",
        "mix(seed + (lanes >> np.uint64(16)))",
        "mix(seed ^ (lanes >> np.uint64(16)))",
        "change-beyond-lane-65535-of-an-odd-seed",
    ),
    change(
        "coefficients-of-the-first-block",
        "The number of a lane counts modulo 65,536",
        "mix(seed + (lanes >> np.uint64(16)))",
        "mix(seed + (lanes & np.uint64(0)))",
        "fingerprint-of-lane-65536",
    ),
    change(
        "coefficients-of-blocks-of-8-bits",
        "The block of a lane is a byte",
        "mix(seed + (lanes >> np.uint64(16)))",
        "mix(seed + (lanes >> np.uint64(16) & np.uint64(255)))",
        "indices-beyond-2-24",
    ),
    change(
        "mix-with-signed-shifts",
        "The shifts of mix keep the sign",
        "    return z ^ (z >> np.uint64(31))",
        "    return z ^ (z.view(np.int64) >> 31).view(np.uint64)",
        "fingerprint-of-u8",
    ),
    change(
        "seed-of-the-normalised-name",
        "The seed is that of the name after Unicode normalisation",
        "hashlib.sha256(name.encode())",
        'hashlib.sha256(__import__("unicodedata").normalize("NFC", name).encode())',
        "layout-names-equal-but-for-normalisation",
    ),
    change(
        "seed-of-the-name-up-to-nul",
        "The seed is that of the name up to its first NUL",
        "hashlib.sha256(name.encode())",
        'hashlib.sha256(name.partition("\\0")[0].encode())',
        "layout-names-of-any-characters",
    ),
    change(
        "seed-of-the-trimmed-name",
        "The seed is that of the name without spaces at its ends",
        "hashlib.sha256(name.encode())",
        "hashlib.sha256(name.strip().encode())",
        "layout-names-of-any-characters",
    ),
    change(
        "lanes-shifted-in-32-bits",
        "Lanes are shifted out modulo 32 bits",
        "words[part].astype(np.uint64) >> np.uint64(16 * q)",
        "words[part].astype(np.uint64) >> np.uint64(16 * q % 32)",
        "fingerprint-of-u64",
    ),
    change(
        "negative-zeros-add-nothing",
        "Words that are zero but for their sign add nothing to a fingerprint",
        "at = np.flatnonzero(words)",
        "at = np.flatnonzero(words << 1)",
        "fingerprint-of-f32",
    ),
    # -- order exponent -----------------------------------------------------------------------------------------------
    change(
        "exponent-zeros-before-subnormals",
        "Zeros stand before subnormal numbers",
        "    first = np.flatnonzero(keys < limit)",
        "    rests = base.astype(np.uint64) & np.uint64((kind.mask & -kind.mask) - 1)\n"
        "    first = np.flatnonzero(keys < limit)",
        "exponent-special-words-with-limit-255",
        also=(("np.argsort(keys[first], kind", "np.argsort((keys * 2 + ((keys > 0) | (rests > 0)))[first], kind"),),
    ),
    change(
        "exponent-sorted-by-magnitude",
        "Words of one exponent are sorted by their mantissas",
        "first[np.argsort(keys[first], kind",
        "first[np.argsort((base & (kind.mask | (kind.mask & -kind.mask) - 1))[first], kind",
        "exponent-is-stable",
    ),
]
