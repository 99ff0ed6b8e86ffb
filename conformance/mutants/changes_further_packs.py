"""Further mutants of `packs.py`: safetensors files and chunk tables."""

from __future__ import annotations

from .change import change

FURTHER_PACKS = [
    # -- packs --------------------------------------------------------------------------------------------------------
    change(
        "header-padding-of-spaces",
        "Only spaces may follow the object of a header",
        "    return data[8 : 8 + length], data[8 + length :]",
        '    require(data[8 : 8 + length].rstrip(b" ").endswith(b"}"), "TD-PCK-006", "a padding of other bytes")\n'
        "    return data[8 : 8 + length], data[8 + length :]",
        "pack-header-followed-by-white-space",
    ),
    change(
        "header-padding-of-nul",
        "NUL bytes may follow the object of a header",
        "    return data[8 : 8 + length], data[8 + length :]",
        '    return data[8 : 8 + length].rstrip(b"\\0"), data[8 + length :]',
        "plain-header-is-followed-by-nul",
    ),
    change(
        "header-aligned",
        "The buffer has to begin at a multiple of 8",
        "    return data[8 : 8 + length], data[8 + length :]",
        '    require(length % 8 == 0, "TD-PCK-006", "a buffer that is not aligned")\n'
        "    return data[8 : 8 + length], data[8 + length :]",
        "pack-header-followed-by-one-space",
    ),
    change(
        "entries-by-their-begin",
        "Entries of one begin are taken in the order of the header",
        "for begin, end in sorted(spans):",
        "for begin, end in sorted(spans, key=lambda span: span[0]):",
        "plain-unwanted-names",
    ),
    change(
        "stream-names-with-leading-zeros",
        "The index of a chunk may begin with zeros",
        "        stored[name] = buffer[begin:end]",
        '        stored[(name.split(".")[0].lstrip("0") or "0") + "." + name.partition(".")[2]] = buffer[begin:end]',
        "stream-named-with-a-leading-zero",
    ),
    change(
        "metadata-of-any-type",
        "Other keys of a chunk pack's __metadata__ may have any values",
        "require(all(isinstance(each, str) for each in metadata.values())",
        'require(isinstance(metadata.get("tensordelta", ""), str)',
        "metadata-with-a-number",
    ),
    change(
        "plain-metadata-unchecked",
        "The __metadata__ of a plain pack may hold anything",
        '    _check_strings(Fields(header.pop("__metadata__", {})))',
        '    header.pop("__metadata__", {})',
        "plain-metadata-of-a-number",
    ),
    change(
        "plain-with-a-table-refused",
        "A plain pack may have no key tensordelta in its metadata",
        '    _check_strings(Fields(header.pop("__metadata__", {})))',
        '    metadata = Fields(header.pop("__metadata__", {}))\n'
        "    _check_strings(metadata)\n"
        '    require("tensordelta" not in metadata, "TD-PCK-014", "a chunk table in a plain pack")',
        "plain-with-a-table-that-means-nothing",
    ),
    change(
        "plain-half-bytes-rounded-down",
        "The bytes of a plain tensor are rounded down",
        "require(math.prod(shape) * DTYPES[dtype].bits == 8 * (end - begin)",
        "require(math.prod(shape) * DTYPES[dtype].bits // 8 == end - begin",
        "plain-shape-of-half-a-byte-more",
    ),
    change(
        "plain-unwanted-dtypes-ignored",
        "A tensor that the layout lacks may have any dtype, as its offsets say its size",
        '        require(dtype in DTYPES, "TD-PCK-018", f"the dtype {dtype!r}", "unsupported")\n',
        "        if dtype not in DTYPES:\n"
        '            places[name] = ("U8", (), *_span(entry, "TD-PCK-014"))\n'
        "            continue\n",
        "plain-dtype-unknown",
    ),
    # -- chunk tables -------------------------------------------------------------------------------------------------
    change(
        "table-format-unchecked",
        "The format of the chunk table is not looked at",
        "    table.check_format()\n",
        "",
        "table-of-format-2",
    ),
    change(
        "table-nesting-with-the-header",
        "The levels of the chunk table are counted from those of the header",
        "table = Fields(parse_json(text.encode()))",
        """table = Fields(Fields(Fields(parse_json(f'{{"a":{{"b":{text}}}}}'.encode())).get("a")).get("b"))""",
        "table-nested-16-levels",
    ),
    change(
        "chunk-members-unknown-refused",
        "A chunk entry may have no unknown member",
        '    dtype = fields.string("dtype")\n    require(dtype in DTYPES, "TD-CHK-010"',
        '    require(len(fields.members) == 8, "TD-CHK-017", "an unknown member")\n'
        '    dtype = fields.string("dtype")\n    require(dtype in DTYPES, "TD-CHK-010"',
        "table-with-unknown-members",
    ),
    change(
        "chunk-dtype-unknown-is-malformed",
        "An unknown dtype of a chunk is malformed",
        '"TD-CHK-010", f"the dtype {dtype!r}", "unsupported")',
        '"TD-CHK-010", f"the dtype {dtype!r}")',
        "chunk-dtype-unknown",
    ),
    change(
        "compression-unknown-is-malformed",
        "An unknown compression is malformed",
        '"TD-CHK-015", f"the compression {compression!r}", "unsupported")',
        '"TD-CHK-015", f"the compression {compression!r}")',
        "compression-unknown",
    ),
    change(
        "codec-of-another-object-is-malformed",
        "A codec that is known for another object is malformed here",
        '    require(name in known, "TD-CHK-012"',
        '    others = ("natural", "exponent", "gap", "bitmap", "all", "step", "replace")\n'
        '    require(name in known or name not in others, "TD-CHK-012", "a codec of another object")\n'
        '    require(name in known, "TD-CHK-012"',
        "codec-of-order-is-gap",
    ),
    change(
        "changed-below-n",
        "A chunk whose positions are not `all` may not list all words",
        "require(1 <= chunk.changed <= chunk.n,",
        'require(1 <= chunk.changed <= chunk.n - (chunk.positions != "all"),',
        "density-100-percent-bitmap",
    ),
    change(
        "gap-shift-by-the-mean-gap",
        "`shift` has to be the one that section 7.4 advises",
        '    if chunk.positions == "all":\n        require(chunk.changed',
        "    mean = chunk.n // chunk.changed if chunk.changed else 0\n"
        '    if chunk.positions == "gap":\n'
        "        advised = 0 if mean < 256 else 4 if mean < 4096 else 8\n"
        '        require(chunk.shift == advised, "TD-POS-007", "a shift for other gaps")\n'
        '    if chunk.positions == "all":\n        require(chunk.changed',
        "gap-shift-8-of-neighbours",
    ),
    change(
        "gaps-bound-one-less",
        "The greatest size of `gaps` is computed from n - m - 1",
        "(m, m + (n - m) // (255 << s))",
        "(m, m + max(0, n - m - 1) // (255 << s))",
        "gap-of-255-in-a-chunk-of-256-words",
        "gap-of-4080-in-a-chunk-of-4081-words",
    ),
]
