"""Further mutants of `chain.py`, `reader.py`, `follow.py` and `verifier.py`: stores, edges, routes, faults."""

from __future__ import annotations

from .change import change

FURTHER_CHAIN = [
    # -- stores -------------------------------------------------------------------------------------------------------
    change(
        "folders-are-objects",
        "A folder under the name of an object is one",
        "            if entry.is_file() or not inside:\n                names.append(prefix + entry.name)\n",
        "            names.append(prefix + entry.name)\n",
        "folder-above-the-newest-version",
    ),
    change(
        "links-to-a-neighbour",
        "A folder whose name begins with the root's counts as inside it",
        'require(path.startswith(self._root + "/"), "TD-STO-006"',
        'require(path.startswith(self._root), "TD-STO-006"',
        "link-out-of-the-root-to-a-neighbour",
    ),
    change(
        "links-inside-refused",
        "Links inside the root are refused",
        'require(path.startswith(self._root + "/"), "TD-STO-006"',
        'require(path == f"{self._root}/{name}", "TD-STO-006"',
        "link-within-the-root",
    ),
    change(
        "json-outside-the-budget",
        "The memory of parsed JSON is not counted",
        'self._check_memory(size * PARSING, "TD-LIM-008")',
        "pass",
        "names-beyond-the-budget",
    ),
    # -- packs, sources -----------------------------------------------------------------------------------------------
    change(
        "altered-pack-ends-the-search",
        "An altered pack under the root is not looked for elsewhere",
        "            except Rejection as rejection:\n                fault = rejection\n",
        "            except Rejection as rejection:\n"
        "                fault = rejection\n"
        '                if fault.name == "integrity":\n'
        "                    raise\n",
        "places-for-a-pack-that-is-altered",
    ),
    change(
        "sources-the-first-only",
        "Of several allowed sources the first is asked only",
        "for source in allowed:",
        "for source in allowed[:1]:",
        "sources-of-which-the-last-gives-the-pack",
    ),
    change(
        "sources-by-the-beginning-of-their-scheme",
        "A scheme is allowed if it begins with one that is",
        "parts[0] in self._options.sources",
        "parts[0].startswith(self._options.sources)",
        "sources-without-a-scheme",
    ),
    change(
        "sources-without-a-scheme",
        "A source that is the name of an allowed scheme only is allowed",
        "if parts[1] and parts[0] in",
        "if parts[0] in",
        "sources-without-a-scheme",
    ),
    change(
        "fingerprints-object-longer",
        "A fingerprints object may have further bytes",
        'self._size(name, "TD-FPR-010") == length',
        'self._size(name, "TD-FPR-010") >= length',
        "fingerprints-of-too-many",
    ),
    # -- edges --------------------------------------------------------------------------------------------------------
    change(
        "chunks-in-the-order-of-their-slices",
        "The chunks of a manifest have to be in the order of their slices",
        "        ranges.sort()\n",
        '        require(ranges == sorted(ranges), "TD-MAN-019", "chunks in another order")\n',
        "slices-of-a-tensor-in-three-chunks",
    ),
    change(
        "chunks-may-not-touch",
        "Slices of two chunks may not be adjacent",
        "require(tensor != following or stop <= start",
        "require(tensor != following or stop < start",
        "slices-of-a-tensor-in-three-chunks",
    ),
    change(
        "overlap-of-chunks-only",
        "A chunk and a plain tensor may have words in common",
        "for each in slices if each[1] < each[2]]",
        'for each in slices if each[1] < each[2] and entry.content == "chunks"]',
        "chunk-overlaps-a-plain-tensor",
    ),
    change(
        "overlap-of-listed-words",
        "Two chunks may have words in common that one of them does not list",
        'require(tensor != following or stop <= start, "TD-MAN-019", "two chunks or plain tensors share a word")',
        "pass",
        "chunks-overlap-by-a-word-not-listed",
        also=(
            (
                "            for patch in patches:\n                state[",
                "            seen: set[tuple[int, int]] = set()\n"
                "            for patch in patches:\n"
                "                listed = {(patch.tensor, int(word)) for word in patch.at}\n"
                '                require(not seen & listed, "TD-MAN-019", "two chunks share a word")\n'
                "                seen |= listed\n"
                "                state[",
            ),
        ),
    ),
    change(
        "layouts-by-names-and-sizes",
        "Two layouts are equal if their names and sizes are",
        "self.layout(said.layout) == layout_of(state)",
        "[(each.name, each.size) for each in self.layout(said.layout)] == [\n"
        "                (each.name, each.size) for each in layout_of(state)\n"
        "            ]",
        "fit-dimension-of-zero",
        also=(
            (
                "same = self.layout(edge.base.layout) == layout_of(held)",
                "sizes = [(each.name, each.size) for each in layout_of(held)]\n"
                "                same = [(each.name, each.size) for each in self.layout(edge.base.layout)] == sizes",
            ),
        ),
    ),
    change(
        "shortcut-with-another-layout",
        "The layout of a shortcut is not compared with its version's",
        "same = (shortcut.layout, shortcut.fingerprint) == (own.layout, own.fingerprint)",
        "same = shortcut.fingerprint == own.fingerprint",
        "shortcut-with-another-layout",
        "no-route-by-a-shortcut-of-another-layout-object",
    ),
    change(
        "base-with-another-layout",
        "The layout of an edge's base is not compared with that of the base's own manifest",
        "same = (edge.base.layout, edge.base.fingerprint) == (own.layout, own.fingerprint)",
        "same = edge.base.fingerprint == own.fingerprint",
        "base-of-another-layout-digest",
    ),
    change(
        "shortcut-disagreeing-is-malformed",
        "A shortcut that disagrees with its version is malformed",
        '"leads to another state than the version\'s", "conflict")',
        '"leads to another state than the version\'s")',
        "shortcut-with-another-fingerprint",
    ),
    change(
        "feature-listed-has-to-be-used",
        "A manifest may list no feature that it does not use",
        "        ranges.sort()\n",
        '        used = any(chunk.order == "exponent" for chunk in parts.chunks)\n'
        '        require(used or not edge.features, "TD-MAN-005", "a feature that is not used")\n'
        "        ranges.sort()\n",
        "feature-not-used",
    ),
    # -- routes -------------------------------------------------------------------------------------------------------
    change(
        "versions-only-forth",
        "A version older than the one held is refused",
        '        require(target in chain.versions, "TD-OBJ-008", f"no version {target}", "missing")\n',
        '        require(target in chain.versions, "TD-OBJ-008", f"no version {target}", "missing")\n'
        "        older = held is not None and held.version is not None and target < held.version\n"
        '        require(not older, "TD-SIG-005", "an older version", "untrusted")\n',
        "route-back-to-an-older-version",
    ),
    change(
        "versions-from-the-end",
        "A negative version counts from the newest",
        '        require(target in chain.versions, "TD-OBJ-008", f"no version {target}", "missing")\n',
        "        target = chain.versions[target] if -len(chain.versions) <= target < 0 else target\n"
        '        require(target in chain.versions, "TD-OBJ-008", f"no version {target}", "missing")\n',
        "version-minus-one",
    ),
    change(
        "held-by-fingerprint-only",
        "The version that is remembered for the held state says nothing",
        "return base.version == held.version or self._chain.describes(",
        "return self._chain.describes(",
        "held-one-tensor-more",
    ),
    change(
        "route-over-the-sizes-of-objects",
        "The cost of an edge counts its words, not its bytes",
        "return sum(pack.size for pack in self.packs)",
        "return sum(pack.changed for pack in self.packs)",
        "route-cheapest-of-four-encodings",
    ),
    change(
        "route-from-held-at-any-cost",
        "An edge that starts at the held state is taken before any other",
        "                best[version] = min(ways, key=lambda way: way[:2])",
        "                best[version] = min(ways, key=lambda way: (not way[3], *way[:2]))",
        "route-full-cheaper-than-the-delta",
    ),
    # -- following ----------------------------------------------------------------------------------------------------
    change(
        "hint-read-though-it-is-long",
        "A hint may have more than 64 KiB",
        'self._document("latest.json", SMALL, "TD-OBJ-018")',
        'self._document("latest.json", MANIFEST, "TD-OBJ-018")',
        "follow-nothing-65537-bytes",
        also=(
            (
                "    fields = document(data, SMALL)\n    stems",
                "    fields = document(data, MANIFEST)\n    stems",
            ),
        ),
    ),
    change(
        "hint-of-any-format",
        "The format of the hint is not looked at",
        "    fields = document(data, SMALL)\n    stems",
        '    require(len(data) <= SMALL, "TD-LIM-004", "", "limit")\n    fields = Fields(parse_json(data))\n    stems',
        "follow-nothing-later-format",
        also=(
            (
                "from .fields import Fields, document, integer\n",
                "from .fields import Fields, document, integer, parse_json\n",
            ),
        ),
    ),
    # -- verifying ----------------------------------------------------------------------------------------------------
    change(
        "verify-the-hint",
        "A hint that breaks a rule is a fault",
        "        if self._faults:\n            return self._faults\n",
        "        if self._faults:\n            return self._faults\n"
        '        with_hint = self._chain._store.size("latest.json") is not None\n'
        "        if with_hint and self._chain.hint() is None:\n"
        '            self._faults.append(("malformed", "latest.json"))\n',
        "hint-that-is-garbage",
    ),
    change(
        "verify-names",
        "An object of manifests/ or shortcuts/ with another name is a fault",
        "        if self._faults:\n            return self._faults\n",
        "        if self._faults:\n            return self._faults\n"
        '        names = self._chain._store.names("manifests/")\n'
        '        self._faults += [("malformed", each) for each in names if not each[-17:-5].isdigit()]\n',
        "listing-with-names-like-manifests",
    ),
    change(
        "verify-without-base-agreement",
        "A Verifier does not compare the base of an edge with its own manifest, nor look at its features",
        "        chain.check_edge(edge)\n        if edge.base is not None and edge.base.version not in",
        "        if edge.base is not None and edge.base.version not in",
        "feature-unknown",
    ),
    change(
        "verify-only-what-decodes",
        "The packs of an edge whose base cannot be had are not looked at",
        "            chain.parts(edge, 0)\n",
        "",
        "pack-altered-above-a-broken-manifest",
    ),
    change(
        "verify-shortcuts-without-their-versions",
        "A Verifier does not compare shortcuts with their versions' manifests",
        "            chain.check_shortcut(edge)\n",
        "            pass\n",
        "shortcut-with-another-fingerprint",
    ),
]
