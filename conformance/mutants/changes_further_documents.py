"""Further mutants of `documents.py` and `packs.py`: objects, names, layouts, pack entries, containers, chunk tables."""

from __future__ import annotations

from .change import change

FURTHER_DOCUMENTS = [
    # -- small objects, names -----------------------------------------------------------------------------------------
    change(
        "small-objects-below-64-kib",
        "chain.json has to have less than 65,536 bytes",
        "SMALL = 65_536",
        "SMALL = 65_535",
    ),
    change(
        "chain-annotations-unchecked",
        "The annotations of chain.json are not looked at",
        "    fields.check_created()\n    fields.annotations()\n",
        "    fields.check_created()\n",
    ),
    change(
        "grace-of-more-than-a-minute",
        "A grace period of 60 seconds is refused",
        'require(60 <= fields.integer("grace")',
        'require(60 < fields.integer("grace")',
    ),
    change(
        "grace-of-32-bits",
        "A grace period of 2^32 seconds is refused",
        '<= fields.integer("grace") <= 2**32',
        '<= fields.integer("grace") < 2**32',
    ),
    change(
        "hint-with-63-names",
        "A hint may name 63 shortcuts only",
        "require(len(stems) <= HINTED",
        "require(len(stems) < HINTED",
    ),
    change(
        "hinted-tags-dropped",
        "The tag of a shortcut that the hint names is dropped",
        'f"shortcuts/{stem}.json" for stem in stems',
        "f\"shortcuts/{stem.partition('.')[0]}.json\" for stem in stems",
    ),
    change(
        "names-with-any-character-for-the-dot",
        "Any character may stand for the dot before json in a manifest's name",
        'r"manifests/([0-9]{12})\\.json"',
        'r"manifests/([0-9]{12}).json"',
    ),
    change(
        "names-with-digits-of-any-script",
        "The digits of a manifest's name may be of any script",
        'r"manifests/([0-9]{12})\\.json"',
        'r"manifests/(\\d{12})\\.json"',
    ),
    change(
        "names-by-their-beginning",
        "More may follow the name of a manifest",
        "manifests = [MANIFEST_NAME.fullmatch(name)",
        "manifests = [MANIFEST_NAME.match(name)",
    ),
    change(
        "shortcuts-with-a-tag-unused",
        "A shortcut with a tag is none",
        'r"shortcuts/([0-9]{12})-([0-9]{12}|full)(\\.[a-z0-9]{1,16})?\\.json"',
        'r"shortcuts/([0-9]{12})-([0-9]{12}|full)\\.json"',
    ),
    change(
        "shortcuts-with-any-tag",
        "The tag of a shortcut may have any length, and capitals",
        'r"shortcuts/([0-9]{12})-([0-9]{12}|full)(\\.[a-z0-9]{1,16})?\\.json"',
        'r"shortcuts/([0-9]{12})-([0-9]{12}|full)(\\.[A-Za-z0-9_-]+)?\\.json"',
    ),
    change(
        "shortcut-base-not-of-its-name",
        "The base of a shortcut is not compared with its name",
        'require(stem == f"{version}-{base}"',
        'require(stem.startswith(f"{version}-")',
    ),
    # -- layouts ------------------------------------------------------------------------------------------------------
    change(
        "name-limit-in-characters",
        "The length of a tensor's name is counted in characters",
        "require(1 <= len(name.encode()) <= NAME",
        "require(1 <= len(name) <= NAME",
    ),
    change(
        "names-of-less-than-1024",
        "A tensor's name has to have less than 1024 bytes",
        "require(1 <= len(name.encode()) <= NAME",
        "require(1 <= len(name.encode()) < NAME",
    ),
    change(
        "names-in-any-case",
        "Names are ordered without regard to case",
        "names = [tensor.name.encode() for tensor in layout]",
        "names = [tensor.name.lower().encode() for tensor in layout]",
    ),
    change(
        "names-in-natural-order",
        "Numbers in names are ordered by their values",
        "names = [tensor.name.encode() for tensor in layout]",
        'names = [re.sub(r"[0-9]+", lambda each: each[0].zfill(20), tensor.name).encode() for tensor in layout]',
    ),
    change(
        "names-in-the-order-of-signed-bytes",
        "The bytes of names are compared with their signs",
        "names = [tensor.name.encode() for tensor in layout]",
        "names = [[each - (each & 128) * 2 for each in tensor.name.encode()] for tensor in layout]",
    ),
    change(
        "dtypes-in-lower-case",
        "A dtype may be written in lower case",
        'name, dtype = fields.string("name"), fields.string("dtype")',
        'name, dtype = fields.string("name"), fields.string("dtype").upper()',
    ),
    change(
        "rank-below-16",
        "A shape may have 15 dimensions only",
        "DIMENSIONS = 16",
        "DIMENSIONS = 15",
    ),
    change(
        "product-modulo-2-64",
        "The product of the dimensions is computed in 64 bits",
        "require(math.prod(d for d in shape if d) <= DIMENSION",
        "require(math.prod(d for d in shape if d) % 2**64 <= DIMENSION",
    ),
    change(
        "product-below-2-48",
        "The product of the dimensions has to be less than 2^48",
        "require(math.prod(d for d in shape if d) <= DIMENSION",
        "require(math.prod(d for d in shape if d) < DIMENSION",
    ),
    change(
        "half-bytes-by-row",
        "The last dimension has to fill whole bytes",
        "require(math.prod(shape) * DTYPES[dtype].bits % 8 == 0",
        "require((shape or (1,))[-1] * DTYPES[dtype].bits % 8 == 0",
    ),
    change(
        "half-bytes-by-pairs",
        "An even number of elements fills whole bytes",
        "require(math.prod(shape) * DTYPES[dtype].bits % 8 == 0",
        "require(DTYPES[dtype].bits >= 8 or math.prod(shape) % 2 == 0",
    ),
    # -- manifests ----------------------------------------------------------------------------------------------------
    change(
        "base-may-be-the-version",
        "The base may be the version itself",
        "require(base.version < version",
        "require(base.version <= version",
    ),
    change(
        "created-unchecked",
        "The time of a manifest is not looked at",
        '    fields.check_created()\n    version = fields.version("version")\n',
        '    version = fields.version("version")\n',
    ),
    change(
        "features-may-be-absent",
        "A manifest without `features` has none",
        'features = fields.strings("features", _FEATURE)',
        'features = fields.strings("features", _FEATURE) if "features" in fields else []',
    ),
    change(
        "features-once",
        "A feature may be listed once only",
        'features = fields.strings("features", _FEATURE)',
        'features = fields.strings("features", _FEATURE)\n'
        '    require(len(set(features)) == len(features), "TD-MAN-001", "a feature that is listed twice")',
    ),
    change(
        "features-of-any-length",
        "The name of a feature may be longer than 64 characters",
        '_FEATURE = re.compile(r"[a-z0-9][a-z0-9-]{0,63}|',
        '_FEATURE = re.compile(r"[a-z0-9][a-z0-9-]*|',
    ),
    change(
        "features-of-third-parties-of-any-length",
        "The name of a third party's feature may be longer than 128 characters",
        "(?=.{1,128}\\Z)",
        "",
    ),
    change(
        "packs-at-least-one",
        "A full version has to have packs",
        'require(len(packs) <= PACKS, "TD-LIM-004", "more than 2^16 packs", "limit")',
        'require(len(packs) <= PACKS, "TD-LIM-004", "more than 2^16 packs", "limit")\n'
        '    require(packs or base, "TD-MAN-007", "a full version without packs")',
    ),
    change(
        "shortcut-files-unchecked",
        "The files of a shortcut are not looked at",
        'fields.array("files") if "files" in fields else []',
        'fields.array("files") if "files" in fields and not name.startswith("shortcuts/") else []',
    ),
    change(
        "names-of-chunk-packs-are-paths",
        "The name of a chunk pack has to be a path, and one of its own",
        'each.get("content") == "tensors" and "name" in each',
        '"name" in each',
    ),
    change(
        "names-of-plain-packs-apart",
        "The names of files and of plain packs are not compared with one another",
        '    _check_file_names([each.path("name") for each in files + plain])',
        '    _check_file_names([each.path("name") for each in files])\n'
        '    _check_file_names([each.path("name") for each in plain])',
    ),
    change(
        "file-names-in-any-case",
        "File names that differ in case are equal",
        "require(len(set(names)) == len(names)",
        "require(len({name.lower() for name in names}) == len(names)",
    ),
    change(
        "name-of-a-chunk-pack-of-any-type",
        "The name of a chunk pack need not be a string",
        '    if "name" in fields:\n        fields.string("name")\n',
        "",
    ),
    change(
        "size-below-2-40",
        "A pack has to have less than 2^40 bytes",
        'require(size <= PACK, "TD-LIM-004", "a pack',
        'require(size < PACK, "TD-LIM-004", "a pack',
    ),
    change(
        "sizes-together-unlimited",
        "The packs of a manifest may have more than 2^48 bytes together",
        '    require(sum(each.size for each in entries) <= EDGE, "TD-LIM-004", "packs of more than 2^48 bytes", "limit")\n',
        "",
    ),
    change(
        "paths-with-the-digest",
        "The path of a pack has to hold its digest",
        '    require(path is not None or sources, "TD-MAN-009", "neither a path nor a source")',
        '    require(path is not None or sources, "TD-MAN-009", "neither a path nor a source")\n'
        '    require(path is None or fields.digest("sha256") in path, "TD-PTH-005", "a path without the digest")',
    ),
    change(
        "pack-tensors-with-their-stop",
        "The range [a, b) holds tensor b",
        "any(first <= tensor < stop for",
        "any(first <= tensor <= stop for",
    ),
    change(
        "pack-tensors-beyond-the-layout",
        "The ranges of `tensors` may pass the end of the layout",
        '            require(entry.tensors[-1][1] <= len(layout), "TD-MAN-001", "`tensors` passes the end of the layout")\n',
        "",
    ),
    change(
        "pack-changed-in-elements",
        "The words of a plain pack are counted in elements",
        "changed = sum(len(tensor.words) for tensor in plain.values())",
        "changed = sum(int(np.prod(tensor.shape, dtype=np.int64)) for tensor in plain.values())",
    ),
    # -- packs --------------------------------------------------------------------------------------------------------
    change(
        "header-padding-of-spaces",
        "Only spaces may follow the object of a header",
        '    return data[8 : 8 + length], data[8 + length :]',
        '    require(data[8 : 8 + length].rstrip(b" ").endswith(b"}"), "TD-PCK-006", "a padding of other bytes")\n'
        '    return data[8 : 8 + length], data[8 + length :]',
    ),
    change(
        "header-padding-of-nul",
        "NUL bytes may follow the object of a header",
        '    return data[8 : 8 + length], data[8 + length :]',
        '    return data[8 : 8 + length].rstrip(b"\\0"), data[8 + length :]',
    ),
    change(
        "header-aligned",
        "The buffer has to begin at a multiple of 8",
        '    return data[8 : 8 + length], data[8 + length :]',
        '    require(length % 8 == 0, "TD-PCK-006", "a buffer that is not aligned")\n'
        '    return data[8 : 8 + length], data[8 + length :]',
    ),
    change(
        "entries-by-their-begin",
        "Entries of one begin are taken in the order of the header",
        "for begin, end in sorted(spans):",
        "for begin, end in sorted(spans, key=lambda span: span[0]):",
    ),
    change(
        "stream-names-with-leading-zeros",
        "The index of a chunk may begin with zeros",
        "        stored[name] = buffer[begin:end]",
        '        stored[(name.split(".")[0].lstrip("0") or "0") + "." + name.partition(".")[2]] = buffer[begin:end]',
    ),
    change(
        "metadata-of-any-type",
        "Other keys of a chunk pack's __metadata__ may have any values",
        "require(all(isinstance(each, str) for each in metadata.values())",
        'require(isinstance(metadata.get("tensordelta", ""), str)',
    ),
    change(
        "plain-metadata-unchecked",
        "The __metadata__ of a plain pack may hold anything",
        '    _check_strings(Fields(header.pop("__metadata__", {})))',
        '    header.pop("__metadata__", {})',
    ),
    change(
        "plain-with-a-table-refused",
        "A plain pack may have no key tensordelta in its metadata",
        '    _check_strings(Fields(header.pop("__metadata__", {})))',
        '    metadata = Fields(header.pop("__metadata__", {}))\n'
        "    _check_strings(metadata)\n"
        '    require("tensordelta" not in metadata, "TD-PCK-014", "a chunk table in a plain pack")',
    ),
    change(
        "plain-half-bytes-rounded-down",
        "The bytes of a plain tensor are rounded down",
        "require(math.prod(shape) * DTYPES[dtype].bits == 8 * (end - begin)",
        "require(math.prod(shape) * DTYPES[dtype].bits // 8 == end - begin",
    ),
    change(
        "plain-unwanted-dtypes-ignored",
        "A tensor that the layout lacks may have any dtype, as its offsets say its size",
        '        require(dtype in DTYPES, "TD-PCK-018", f"the dtype {dtype!r}", "unsupported")\n',
        "        if dtype not in DTYPES:\n"
        '            places[name] = ("U8", (), *_span(entry, "TD-PCK-014"))\n'
        "            continue\n",
    ),
    # -- chunk tables -------------------------------------------------------------------------------------------------
    change(
        "table-format-unchecked",
        "The format of the chunk table is not looked at",
        "    table.check_format()\n",
        "",
    ),
    change(
        "table-nesting-with-the-header",
        "The levels of the chunk table are counted from those of the header",
        "table = Fields(parse_json(text.encode()))",
        """table = Fields(Fields(Fields(parse_json(f'{{"a":{{"b":{text}}}}}'.encode())).get("a")).get("b"))""",
    ),
    change(
        "chunk-members-unknown-refused",
        "A chunk entry may have no unknown member",
        '    dtype = fields.string("dtype")\n    require(dtype in DTYPES, "TD-CHK-010"',
        '    require(len(fields.members) == 8, "TD-CHK-017", "an unknown member")\n'
        '    dtype = fields.string("dtype")\n    require(dtype in DTYPES, "TD-CHK-010"',
    ),
    change(
        "chunk-dtype-unknown-is-malformed",
        "An unknown dtype of a chunk is malformed",
        '"TD-CHK-010", f"the dtype {dtype!r}", "unsupported")',
        '"TD-CHK-010", f"the dtype {dtype!r}")',
    ),
    change(
        "compression-unknown-is-malformed",
        "An unknown compression is malformed",
        '"TD-CHK-015", f"the compression {compression!r}", "unsupported")',
        '"TD-CHK-015", f"the compression {compression!r}")',
    ),
    change(
        "codec-of-another-object-is-malformed",
        "A codec that is known for another object is malformed here",
        '    require(name in known, "TD-CHK-012"',
        '    others = ("natural", "exponent", "gap", "bitmap", "all", "step", "replace")\n'
        '    require(name in known or name not in others, "TD-CHK-012", "a codec of another object")\n'
        '    require(name in known, "TD-CHK-012"',
    ),
    change(
        "changed-below-n",
        "A chunk whose positions are not `all` may not list all words",
        "require(1 <= chunk.changed <= chunk.n,",
        'require(1 <= chunk.changed <= chunk.n - (chunk.positions != "all"),',
    ),
    change(
        "gap-shift-by-the-mean-gap",
        "`shift` has to be the one that section 7.4 advises",
        "    if chunk.positions == \"all\":\n        require(chunk.changed",
        '    mean = chunk.n // chunk.changed if chunk.changed else 0\n'
        '    if chunk.positions == "gap":\n'
        "        advised = 0 if mean < 256 else 4 if mean < 4096 else 8\n"
        '        require(chunk.shift == advised, "TD-POS-007", "a shift for other gaps")\n'
        "    if chunk.positions == \"all\":\n        require(chunk.changed",
    ),
    change(
        "gaps-bound-one-less",
        "The greatest size of `gaps` is computed from n - m - 1",
        "(m, m + (n - m) // (255 << s))",
        "(m, m + max(0, n - m - 1) // (255 << s))",
    ),
]
