"""Mutants of `codecs.py`: fingerprints, packs and chunk tables."""

from __future__ import annotations

from .change import change

PACKS = [
    # -- fingerprints -------------------------------------------------------------------------------------------------
    change(
        "lanes-of-16-bits-for-all",
        "The lanes of 8-bit words are numbered in pairs",
        "lanes = 1 if w == 8 else w // 16",
        "lanes = 1 if w == 8 else w // 16\n    at = at // 2 if w == 8 else at",
        "dtype-u8",
    ),
    change(
        "lanes-highest-first",
        "The lanes of a word are numbered from its highest bits",
        "coefficients(name, first + np.uint64(q))",
        "coefficients(name, first + np.uint64(lanes - 1 - q))",
        "dtype-f32",
        "dtype-i64",
    ),
    change(
        "lanes-stepped",
        "The fingerprint of a change is that of the step, carried from lane to lane",
        "            total += int(((b - a) * coefficients(name, first + np.uint64(q))).sum(dtype=np.uint64))",
        "            d = new[part].astype(np.uint64) - old[part].astype(np.uint64)\n"
        "            e = d >> np.uint64(16 * q) & np.uint64(65535)\n"
        "            total += int((e * coefficients(name, first + np.uint64(q))).sum(dtype=np.uint64))",
        "step-wraps-at-32-bits",
    ),
    change(
        "coefficients-of-15-bits",
        "The block of a lane is i >> 15",
        "seed + (lanes >> np.uint64(16))",
        "seed + (lanes >> np.uint64(15))",
        "exponent-of-70000-words",
    ),
    change(
        "coefficients-even",
        "Coefficients are not made odd",
        "(mix(lanes & np.uint64(65535)) | one)",
        "mix(lanes & np.uint64(65535))",
        "standard",
    ),
    change(
        "seed-big-endian",
        "The seed is read with its highest byte first",
        '.digest()[:8], "little")',
        '.digest()[:8], "big")',
        "standard",
    ),
    # -- the file -----------------------------------------------------------------------------------------------------
    change(
        "header-length-big-endian",
        "The length of the header is read in either byte order",
        'length = int.from_bytes(data[:8], "little")',
        'length = min(int.from_bytes(data[:8], "little"), int.from_bytes(data[:8], "big"))',
        "pack-header-length-big-endian",
    ),
    change(
        "header-limit-after-size",
        "That the header fits is checked before its limit",
        '    require(length <= HEADER, "TD-PCK-002", f"a header of {length} bytes", "limit")\n'
        '    require(8 + length <= len(data), "TD-PCK-001", "the header does not fit into the file")\n',
        '    require(8 + length <= len(data), "TD-PCK-001", "the header does not fit into the file")\n'
        '    require(length <= HEADER, "TD-PCK-002", f"a header of {length} bytes", "limit")\n',
        "pack-header-length-100000001",
    ),
    change(
        "header-of-32-bits",
        "The length of the header is read as 32 bits",
        "int.from_bytes(data[:8]",
        "int.from_bytes(data[:4]",
        "pack-header-length-2-32",
    ),
    change(
        "header-may-begin-with-a-space",
        "The header need not begin with a brace",
        'require(data[8:9] == b"{", "TD-PCK-003", "the header does not begin with a brace")',
        "pass",
        "pack-header-begins-with-a-space",
    ),
    change(
        "holes-in-the-buffer",
        "Bytes of the buffer may belong to no entry",
        'require(begin == at, "TD-PCK-004", "entries that leave a gap in the buffer, or overlap")',
        'require(begin >= at, "TD-PCK-004", "entries that overlap")',
        "pack-with-a-byte-between-its-streams",
        "pack-with-a-byte-before-its-streams",
    ),
    change(
        "streams-may-share-bytes",
        "Entries may overlap in the buffer",
        'require(begin == at, "TD-PCK-004", "entries that leave a gap in the buffer, or overlap")\n        at = end',
        'require(begin <= at, "TD-PCK-004", "entries that leave a gap in the buffer")\n        at = max(at, end)',
        "pack-with-streams-that-share-a-byte",
        "pack-with-two-streams-in-one-place",
    ),
    change(
        "bytes-after-the-buffer",
        "The file may go on after its last entry",
        "require(at == length,",
        "require(at <= length,",
        "pack-with-a-byte-after-its-streams",
        "plain-with-a-byte-after-its-tensors",
    ),
    change(
        "entries-in-the-order-of-the-file",
        "Entries have to stand in the order of their offsets",
        "for begin, end in sorted(spans):",
        "for begin, end in spans:",
        "pack-with-entries-in-reverse",
    ),
    change(
        "entry-members-refused",
        "An entry may have no unknown member",
        'require(entry.string("dtype") == "U8", "TD-PCK-008", f"{name!r} is not U8")',
        'require(entry.string("dtype") == "U8" and len(entry.members) == 3, "TD-PCK-008", f"{name!r} is not U8")',
        "entry-with-a-member-more",
    ),
    change(
        "entry-dtype-ignored",
        "A stream may have any dtype",
        'require(entry.string("dtype") == "U8", "TD-PCK-008", f"{name!r} is not U8")',
        'entry.string("dtype")',
        "entry-of-dtype-i8",
    ),
    change(
        "entry-shape-ignored",
        "The shape of a stream's entry says nothing",
        'require(shape == [end - begin], "TD-PCK-008", f"the shape of {name!r}")',
        "pass",
        "entry-of-another-shape",
    ),
    change(
        "entries-unknown-ignored",
        "Entries that are no streams are passed over",
        'require(sum(len(each.streams) for each in chunks) == len(file.stored), "TD-PCK-012", "an entry that '
        'is no stream")',
        "pass",
        "stream-that-is-unknown",
        "stream-of-no-chunk",
    ),
    # -- pack entries and plain packs ---------------------------------------------------------------------------------
    change(
        "pack-tensors-unchecked",
        "The `tensors` of a pack entry say nothing",
        "require(pack.tensors == span,",
        "require(True,",
        "pack-tensors-too-wide-at-the-end",
        "pack-tensors-too-narrow-in-front",
    ),
    change(
        "pack-changed-unchecked",
        "The `changed` of a pack entry says nothing",
        'require(pack.changed == changed, "TD-MAN-011", f"`changed` is {pack.changed}, not {changed}")',
        "pass",
        "pack-changed-one-more",
    ),
    change(
        "plain-unwanted-rejected",
        "A plain pack may hold tensors of the layout only",
        "        if name in index:\n            entry =",
        '        require(name in index, "TD-PCK-017", "a tensor that the layout lacks")\n'
        "        if name in index:\n"
        "            entry =",
        "plain-unwanted-names",
    ),
    change(
        "plain-shape-by-size",
        "A plain tensor need only have the dtype and the bytes of the layout's",
        "require((tensor.dtype, tensor.shape) == entry[1:],",
        "tensor = Tensor(tensor.dtype, entry.shape, tensor.words)\n"
        "            require(tensor.dtype == entry.dtype and len(tensor.words) == entry.words,",
        "plain-tensor-of-another-shape",
    ),
    change(
        "plain-dtype-by-width",
        "A plain tensor may have another dtype of the same width",
        "require((tensor.dtype, tensor.shape) == entry[1:],",
        "tensor = Tensor(entry.dtype, tensor.shape, tensor.words)\n"
        "            require(tensor.words.dtype.itemsize * 8 == DTYPES[entry.dtype].w and tensor.shape == entry.shape,",
        "plain-tensor-of-another-dtype",
    ),
    change(
        "plain-may-hold-nothing",
        "A plain pack may hold no tensor of the layout",
        '    require(found, "TD-PCK-016", "no tensor of the layout")\n',
        "",
        "plain-pack-of-unwanted-tensors",
        also=(
            (
                "    span = min(tensors), max(tensors) + 1\n",
                "    if not tensors:\n        return\n    span = min(tensors), max(tensors) + 1\n",
            ),
        ),
    ),
    change(
        "plain-sizes-wrap",
        "The elements of a plain tensor are counted in 64 bits",
        "require(math.prod(shape) * DTYPES[dtype].bits == 8 * (end - begin)",
        "require(math.prod(shape) * DTYPES[dtype].bits % 2**64 == 8 * (end - begin)",
        "plain-shape-that-wraps-to-0",
    ),
    # -- the chunk table ----------------------------------------------------------------------------------------------
    change(
        "table-layout-unchecked",
        "The layout digest of the chunk table says nothing",
        'require(table.digest("layout") == digest, "TD-CHK-003", "the chunk table is for another layout")',
        'table.digest("layout")',
        "table-of-another-layout",
    ),
    change(
        "table-may-be-empty",
        "A pack may have no chunks",
        '    require(entries, "TD-CHK-001", "no chunks")\n',
        "",
        "table-of-no-chunks",
        also=(
            (
                "    span = min(tensors), max(tensors) + 1\n",
                "    if not tensors:\n        return\n    span = min(tensors), max(tensors) + 1\n",
            ),
        ),
    ),
    change(
        "codec-parameters-ignored",
        "Unknown members of a codec object are ignored",
        'require(set(codec.members) <= {"codec", parameter}, "TD-CHK-014", f"codec {name!r} has an unknown member")',
        "pass",
        "codec-natural-with-limit",
        "codec-step-with-another-member",
    ),
    change(
        "codec-unknown-is-malformed",
        "An unknown codec is malformed",
        'require(name in known, "TD-CHK-012", f"the codec {name!r}", "unsupported")',
        'require(name in known, "TD-CHK-012", f"the codec {name!r}")',
        "codec-of-order-unknown",
        "codec-of-values-unknown",
    ),
    change(
        "shift-of-any-size",
        "`shift` may be any number of bits",
        'require(shift in (0, 4, 8), "TD-CHK-013", "`shift` is not 0, 4 or 8")',
        "pass",
        "gap-shift-3",
    ),
    change(
        "slices-unsorted",
        "Slices may stand in any order",
        'require((tensor, start) <= (following, begin), "TD-CHK-004", "slices that are not sorted")',
        "pass",
        "slices-not-sorted-by-tensor",
        "slices-not-sorted-by-start",
        also=(
            (
                "require(tensor < following or stop <= begin,",
                "require(tensor != following or stop <= begin or start > begin,",
            ),
        ),
    ),
    change(
        "slices-may-not-touch",
        "Slices of one tensor may not be adjacent",
        "require(tensor < following or stop <= begin,",
        "require(tensor < following or stop < begin,",
        "natural-over-adjacent-slices",
    ),
    change(
        "slices-beyond-the-tensor",
        "A slice may pass the end of its tensor",
        'require(stop <= layout[tensor].words, "TD-CHK-008", "a slice beyond its tensor")',
        "chunk.slices[chunk.slices.index((tensor, start, stop))] = (tensor, start, min(stop, layout[tensor].words))",
        "slices-past-their-tensor",
    ),
    change(
        "slices-of-32-bits",
        "The tensor of a slice is read as 32 bits",
        "tensor, start, stop = (integer(each) for each in entry)",
        "tensor, start, stop = (integer(each) % 2**32 for each in entry)",
        "slices-of-tensor-2-32",
    ),
    change(
        "slices-may-be-empty",
        "A slice may have no words",
        'require(start < stop, "TD-CHK-007"',
        'require(start <= stop, "TD-CHK-007"',
        "slices-one-empty-between",
    ),
    change(
        "slices-of-another-dtype",
        "A slice need only be of words of the same width",
        "require(layout[tensor].dtype == chunk.dtype,",
        "require(DTYPES[layout[tensor].dtype].w == chunk.w,",
        "chunk-dtype-of-the-same-width",
    ),
    change(
        "chunk-limit-malformed",
        "A chunk of more than 2^27 words is malformed",
        '"more than 2^27 words", "limit"',
        '"more than 2^27 words"',
        "chunk-of-2-27-words-and-one",
    ),
    change(
        "chunk-limit-of-the-exponent",
        "A chunk in order exponent may have more than 2^24 words",
        "EXPONENT_CHUNK = 2**24\n",
        "EXPONENT_CHUNK = 2**27\n",
        "exponent-of-2-24-words-and-one",
    ),
    change(
        "exponents-of-any-dtype",
        "Order exponent is legal for every dtype, and numbers words without exponent as they stand",
        'require(kind.mask, "TD-ORD-003", "a dtype without exponents")',
        'kind = kind if kind.mask else DTYPES["BF16"]',
        "exponent-of-i16",
        "exponent-of-u8",
    ),
    change(
        "exponent-limit-of-0",
        "`limit` may be 0",
        "require(1 <= chunk.limit <= 1 << kind.exponent_bits",
        "require(chunk.limit <= 1 << kind.exponent_bits",
        "exponent-limit-zero-for-bf16",
    ),
    change(
        "exponent-limit-below-the-greatest",
        "`limit` has to be less than 2^(exponent bits)",
        "require(1 <= chunk.limit <= 1 << kind.exponent_bits",
        "require(1 <= chunk.limit < 1 << kind.exponent_bits",
        "exponent-greatest-limit-of-bf16",
    ),
    change(
        "feature-need-not-be-listed",
        "Order exponent may be used without its feature",
        'require("exponent-order" in features, "TD-MAN-006", "a feature that is not listed")',
        "pass",
        "exponent-without-its-feature",
    ),
    change(
        "exponent-with-all",
        "Positions `all` are legal in order exponent",
        'require(chunk.positions != "all", "TD-POS-012", "positions `all` in another order")',
        "pass",
        "illegal-exponent-all-step",
    ),
    change(
        "exponent-with-replace",
        "Values `replace` are legal in order exponent",
        'require(chunk.values != "replace", "TD-VAL-006", "values `replace` in another order")',
        "pass",
        "illegal-exponent-bitmap-replace",
    ),
    change(
        "all-with-fewer",
        "Positions `all` list the first `changed` words",
        'require(chunk.changed == chunk.n, "TD-POS-011", "positions `all` without all words")',
        "pass",
        "all-of-13-with-changed-12",
    ),
]
