"""Mutants of `reader.py`: objects, fitting, the reader's procedure, routes, and the verifier."""

from __future__ import annotations

from .change import change

READER = [
    # -- objects ------------------------------------------------------------------------------------------------------
    change(
        "newest-by-text",
        "The names of manifests need not have twelve digits",
        'r"manifests/([0-9]{12})\\.json"',
        'r"manifests/([0-9]{12})[^/]*"',
        "listing-with-names-like-manifests",
    ),
    change(
        "newest-is-the-first",
        "The newest version is the lowest",
        "target = chain.versions[-1]",
        "target = chain.versions[0]",
        "newest-version",
    ),
    change(
        "newest-by-the-hint",
        "The newest version is that of latest.json",
        "target = chain.versions[-1]",
        "import json\n"
        '            if chain._store.size("latest.json") is not None:\n'
        '                target = json.loads(chain._store.read("latest.json"))["version"]\n'
        "            else:\n"
        "                target = chain.versions[-1]",
        "hint-too-high",
        "hint-too-low",
    ),
    change(
        "newest-falls-back",
        "Instead of a newest version that cannot be read the one before it is read",
        "            target = chain.versions[-1]\n",
        "            target = chain.versions[-1]\n"
        "            try:\n"
        "                chain.manifest(manifest_name(target))\n"
        "            except Rejection:\n"
        "                target = chain.versions[-2]\n",
        "newest-manifest-unreadable",
    ),
    change(
        "gaps-are-missing",
        "Version numbers may have no gaps",
        "require(target in chain.versions,",
        "require(target in chain.versions and chain.versions == list(range(len(chain.versions))),",
        "gap-before-a-version",
    ),
    change(
        "pin-ignored",
        "The chain id that is pinned is not compared",
        'require(self._options.pin in (None, chain), "TD-OBJ-010", f"the chain is {chain}", "conflict")',
        "pass",
        "pinned-another-with-held",
    ),
    change(
        "links-followed",
        "Links out of the root are followed",
        'require(path.startswith(self._root + "/"), "TD-STO-006", "a link out of the root", "untrusted")',
        "pass",
        "link-out-of-the-root-for-a-pack",
        "link-out-of-the-root-for-a-layout",
    ),
    change(
        "layout-digest-unchecked",
        "The digest of a layout is not checked",
        'require(hashlib.sha256(data).hexdigest() == digest, "TD-LAY-008", "another SHA-256", "integrity")',
        "pass",
        "layout-altered",
    ),
    change(
        "pack-digest-unchecked",
        "The digest of a pack is not checked",
        'require(hashlib.sha256(data).hexdigest() == entry.sha256, rule, "another SHA-256", "integrity")',
        "pass",
        "pack-header-altered",
    ),
    change(
        "pack-size-unchecked",
        "A pack may be longer than its entry says",
        '            require(self._size(name, exists) == entry.size, same, f"not {entry.size} bytes", "integrity")\n'
        "            return _proven(self._store.read(name), entry, same)",
        "            return _proven(self._store.read(name)[: entry.size], entry, same)",
        "pack-longer",
    ),
    change(
        "salt-summed",
        "The salt of a fingerprints object counts as one of its numbers",
        "range(0, length - 8, 8)]",
        "range(0, length, 8)]",
        "standard-of-two",
    ),
    change(
        "pack-missing-is-integrity",
        "A pack that is gone is reported as altered",
        "                fault = rejection\n",
        '                fault = rejection\n                fault.name = "integrity"\n',
        "pack-missing",
    ),
    change(
        "pack-by-its-digest-alone",
        "A pack is looked for under its digest, whatever its path",
        "        fault: Rejection | None = None\n        if entry.path is not None:\n",
        "        fault: Rejection | None = None\n"
        "        if entry.path is not None:\n"
        "            entry = entry._replace(path=entry.path[:6] + entry.sha256 + entry.path[70:])\n",
        "pack-under-any-path",
    ),
    change(
        "sources-allowed-by-default",
        "A source of any scheme is allowed",
        "if parts[1] and parts[0] in self._options.sources]",
        "if parts[1]]",
        "sources-without-a-path",
        "sources-of-another-scheme-than-allowed",
    ),
    change(
        "places-unproven",
        "A pack from another place is taken by its size",
        'return _proven(path.read_bytes(), entry, "TD-MAN-013")\n            except',
        "return path.read_bytes()\n            except",
        "places-with-other-bytes",
        "places-with-others-of-the-same-size",
    ),
    # -- memory -------------------------------------------------------------------------------------------------------
    change(
        "budget-ignored",
        "The memory budget is not heeded for the words of a state",
        "        taken += sum(tensor.size for tensor in layout)\n        self._check_memory(taken)\n",
        "",
        "budget-that-is-passed-with-nothing-held",
    ),
    # -- fitting ------------------------------------------------------------------------------------------------------
    change(
        "fit-not-at-all",
        "Tensors that the layout lacks stay in the state's fingerprint",
        "same = state_fingerprint(state) == edge.fingerprint",
        "same = state_fingerprint({**held, **state} if edge.base else state) == edge.fingerprint",
        "fit-dropped",
    ),
    change(
        "fit-keeps-reshaped-words",
        "A tensor of another shape keeps its words",
        "and base[name].shape == shape:\n            out[name] = base[name]\n",
        "and len(base[name].words) == word_count(dtype, shape):\n"
        "            out[name] = Tensor(dtype, shape, base[name].words)\n",
        "fit-reshaped-to-zero",
    ),
    change(
        "fit-by-index",
        "The tensor at an index of the new layout starts with the words of the old one there",
        "    out: State = {}\n",
        "    pairs = zip(layout, layout_of(base), strict=False)\n"
        "    base = base | {new.name: base[old.name] for new, old in pairs if new[1:] == old[1:]}\n"
        "    out: State = {}\n",
        "fit-renamed-by-normalisation",
    ),
    change(
        "fit-normalises-names",
        "Names are compared after Unicode normalisation",
        "    out: State = {}\n",
        "    import unicodedata\n"
        "\n"
        "    def normal(name: str) -> str:\n"
        '        return unicodedata.normalize("NFC", name)\n'
        "\n"
        "    named = {normal(name): tensor for name, tensor in base.items()}\n"
        "    base = {each.name: named[normal(each.name)] for each in layout if normal(each.name) in named}\n"
        "    out: State = {}\n",
        "fit-renamed-by-normalisation",
    ),
    change(
        "full-starts-from-held",
        "A full version starts from what is held",
        "fit(held if edge.base is not None else {}, parts.layout)",
        "fit(held, parts.layout)",
        "fit-full-over-held",
        also=(("state = _state(held) if from_held else {}", "state = _state(held)"),),
    ),
    change(
        "chunks-against-each-other",
        "A chunk is decoded against the result of the chunks before it",
        "decode_chunk(chunk, parts.layout, fitted, wrong)",
        "decode_chunk(chunk, parts.layout, {name: Tensor(each.dtype, each.shape, "
        "np.resize(patches[-1].words, len(each.words))) if patches and patches[-1].words.dtype == each.words.dtype "
        "else each for name, each in fitted.items()}, wrong)",
        "exponent-of-bf16",
    ),
    change(
        "plain-packs-in-full-versions-only",
        "A delta takes nothing from plain packs",
        "for index, each in parts.plain.items()]",
        "for index, each in parts.plain.items() if not edge.base]",
        "plain-pack-in-a-delta",
    ),
    # -- the procedure ------------------------------------------------------------------------------------------------
    change(
        "base-by-version-only",
        "The held state is taken for the base if its version is the base's",
        'require(same, "TD-RDR-003", "the held state is not the base", "wrong-base")',
        "pass",
        "held-other-unlisted-word",
        "held-other-word-in-an-untouched-tensor",
        also=(("same = state_fingerprint(state) == edge.fingerprint", "same = True"),),
    ),
    change(
        "base-by-fingerprint-only",
        "The layout of the held state is not compared with the base's",
        'require(same, "TD-RDR-004", "the held layout is not the base\'s", "wrong-base")',
        "pass",
        "held-other-dtype-of-other-width",
        "held-one-tensor-more",
    ),
    change(
        "chunk-result-unchecked",
        "The result of a chunk is not checked",
        'require(total % 2**64 == chunk.result, "TD-CHK-024", "a chunk has another result", wrong)',
        "pass",
        "chunk-result-swapped",
        "chunk-result-that-cancel-out",
    ),
    change(
        "chunk-result-of-steps-only",
        "The result of a chunk is checked for steps only",
        "require(total % 2**64 == chunk.result,",
        "require(chunk.values == 'replace' or total % 2**64 == chunk.result,",
        "chunk-result-one-less-of-replaced-words",
    ),
    change(
        "chunk-result-always-wrong-base",
        "Another result is wrong-base in a full version too",
        'wrong = "integrity" if edge.base is None else "wrong-base"',
        'wrong = "wrong-base"',
        "full-chunk-result-one-more",
    ),
    change(
        "chunk-result-always-integrity",
        "Another result is integrity in a delta too",
        'wrong = "integrity" if edge.base is None else "wrong-base"',
        'wrong = "integrity"',
        "chunk-result-one-more",
    ),
    change(
        "manifest-fingerprint-unchecked",
        "The fingerprint of the new state is not checked",
        'require(same, "TD-RDR-007", "the new state has another fingerprint", "integrity")',
        "pass",
        "manifest-of-another-fingerprint",
        "fingerprint-wrong",
    ),
    change(
        "manifest-fingerprint-of-deltas-only",
        "The fingerprint of a full version is not checked",
        "same = state_fingerprint(state) == edge.fingerprint",
        "same = edge.base is None or state_fingerprint(state) == edge.fingerprint",
        "full-of-another-fingerprint",
        "fingerprint-of-a-full-version-wrong",
    ),
    change(
        "state-changed-before-all-checks",
        "Words are written into the held state as they are decoded",
        "each.words.copy())",
        "each.words)",
        "manifest-of-another-fingerprint",
        "fault-in-the-second-edge",
    ),
    change(
        "overlap-unchecked",
        "Chunks may have words in common",
        'require(tensor != following or stop <= start, "TD-MAN-019", "two chunks or plain tensors share a word")',
        "pass",
        "chunks-overlap-by-a-word-not-listed",
        "chunk-overlaps-a-plain-tensor",
        "plain-tensors-overlap",
    ),
    change(
        "overlap-within-a-pack-only",
        "Chunks of one pack may have no word in common, those of two packs may",
        "            ranges += [each for",
        "            ranges = [each for",
        "plain-tensors-overlap",
    ),
    change(
        "overlap-of-nothing",
        "A tensor without words may be named once only",
        "ranges += [each for each in slices if each[1] < each[2]]",
        "ranges += [each if each[1] < each[2] else (len(layout) + each[0], 0, 1) for each in slices]",
        "pack-without-words-named-twice",
    ),
    change(
        "update-applied-to-any-state",
        "A prepared update is applied to whatever is held",
        'require(_state(held) == _state(self.before), "TD-APP-001", "the update is for another state", "wrong-base")',
        "pass",
        "apply-to-another-unlisted-word",
        "apply-twice",
    ),
    change(
        "update-applied-by-fingerprint",
        "A prepared update is applied to any state of the same fingerprint",
        "require(_state(held) == _state(self.before),",
        "require(state_fingerprint(_state(held)) == state_fingerprint(_state(self.before)),",
        "apply-to-another-shape",
        "apply-to-one-tensor-more",
    ),
    change(
        "undo-forgets-dropped-tensors",
        "Undo gives the words back, but not the tensors that were dropped",
        "        return self.before\n",
        "        if self.before is None:\n"
        "            return None\n"
        "        kept = {name: each for name, each in self.before.state.items() if name in self.after.state}\n"
        "        return Held(kept, self.before.version)\n",
        "undo-over-two-layouts",
    ),
    # -- routes -------------------------------------------------------------------------------------------------------
    change(
        "route-of-fewest-edges",
        "The route of the fewest edges is taken, whatever it costs",
        "key=lambda way: way[:2]",
        "key=lambda way: (way[1], way[0])",
        "route-bytes-and-not-edges",
    ),
    change(
        "route-dearest",
        "The dearest route is taken",
        "best[version] = min(ways",
        "best[version] = max(ways",
        "route-manifest-cheaper",
    ),
    change(
        "route-over-manifests-only",
        "Shortcuts are not used",
        "            edges.append(shortcut)\n",
        "",
        "route-shortcut-cheaper",
        "route-by-a-full-shortcut-alone",
    ),
    change(
        "route-first-pack-counts",
        "Of an edge the first pack counts only",
        "ways.append((edge.cost, 1, [edge], True))",
        "ways.append((sum(pack.size for pack in edge.packs[:1]), 1, [edge], True))",
        "route-all-packs-count",
    ),
    change(
        "route-not-planned-again",
        "After the first failure nothing else is tried",
        "                    failed[edge.name] = fault\n                    break",
        "                    raise",
        "detour-pack-altered",
        "detour-pack-gone",
        "detour-feature",
    ),
    change(
        "route-planned-again-once",
        "After the second failure nothing else is tried",
        "                    failed[edge.name] = fault\n                    break",
        "                    failed[edge.name] = fault\n"
        "                    if len(failed) > 1:\n"
        "                        raise next(iter(failed.values())) from None\n"
        "                    break",
        "detour-after-three-edges",
    ),
    change(
        "error-missing-always",
        "Where no route is left, the version is missing",
        "raise next(iter(failed.values()), self._no_route(own))",
        "raise self._no_route(own)",
        "error-of-one-that-was-tried-alone",
        "pack-altered",
    ),
    change(
        "broken-manifest-is-missing",
        "Where a manifest on the way cannot be read, the version is missing",
        "            return fault\n",
        "            del fault\n",
        "no-route-past-a-manifest-that-is-no-json",
    ),
    change(
        "shortcut-disagreeing-used",
        "A shortcut to another fingerprint than the version's is used",
        "same = (shortcut.layout, shortcut.fingerprint) == (own.layout, own.fingerprint)",
        "same = shortcut.layout == own.layout",
        "no-route-by-a-shortcut-that-disagrees",
    ),
    change(
        "shortcut-without-its-version",
        "A route may pass through a version of which there is a shortcut only",
        "            return []\n        for name in",
        "            edges = []\n        for name in",
        "route-through-a-version-that-is-gone",
        also=(
            (
                '        require(shortcut.version in self.versions, "TD-MAN-024", "leads to no version", "missing")\n',
                "        if shortcut.version not in self.versions:\n            return\n",
            ),
            (
                "for version in (each for each in self._chain.versions if each <= target)",
                "for version in sorted({*self._chain.versions, *(each for each, _ in self._chain.shortcuts)})",
            ),
        ),
    ),
    change(
        "shortcut-unreadable-fails",
        "A shortcut that cannot be read fails the read",
        "            except Rejection:\n                continue\n            edges",
        "            except ZeroDivisionError:\n                continue\n            edges",
        "route-past-a-shortcut-that-is-no-json",
    ),
    change(
        "base-disagreement-ignored",
        "The base of an edge is not compared with its own manifest",
        'require(same, "TD-RTE-002", "the base is not as its own manifest says", "wrong-base")',
        "pass",
        "base-that-is-held-but-not-its-manifests",
    ),
    change(
        "features-ignored",
        "Unknown features do not keep an edge from being followed",
        'require(feature in FEATURES, "TD-MAN-004", f"the feature {feature!r}", "unsupported")',
        "pass",
        "feature-unknown",
        "no-route-past-an-unknown-feature",
    ),
    change(
        "unknown-content-keeps-the-version-out",
        "Unknown content makes a manifest unreadable, although an unknown feature announces it",
        'require(content in ("chunks", "tensors") or not known,',
        'require(content in ("chunks", "tensors"),',
        "shortcut-instead-of-an-unknown-feature-and-content",
    ),
    change(
        "features-keep-the-version-out",
        "A version whose manifest has an unknown feature cannot be read by a shortcut either",
        "        for name in (name for to, name in self._chain.shortcuts if to == version):\n",
        "        if any(feature not in FEATURES for feature in edges[0].features):\n"
        "            return edges\n"
        "        for name in (name for to, name in self._chain.shortcuts if to == version):\n",
        "shortcut-instead-of-an-unknown-feature",
        also=(
            (
                "from .documents import Base, Manifest, manifest_name\nfrom .fingerprint import state",
                "from .documents import FEATURES, Base, Manifest, manifest_name\nfrom .fingerprint import state",
            ),
        ),
    ),
    change(
        "held-by-version-only",
        "The held state is known by the version that is remembered only",
        "return base.version == held.version or self._chain.describes(base, held.state, held.fingerprint)",
        "return base.version == held.version",
        "route-held-known-by-its-words",
        "route-held-is-two-versions",
    ),
    change(
        "held-ignored",
        "The route starts from nothing, whatever is held",
        "found = self._route(target, held, failed)",
        "found = self._route(target, None, failed)",
        "held-in-a-chain-whose-start-is-gone",
    ),
    change(
        "target-held-not-seen",
        "The target is read again although it is held",
        "            return Update(held, Held(held.state, target))",
        "            pass",
        "route-target-is-held",
    ),
    change(
        "target-held-by-version",
        "The target is held if its version is remembered",
        "if held is not None and chain.describes(own, held.state, held.fingerprint):",
        "if held is not None and target == held.version:",
        "route-held-under-the-number-of-the-target",
    ),
    change(
        "target-held-by-fingerprint",
        "The target is held if its fingerprint is",
        "if held is not None and chain.describes(own, held.state, held.fingerprint):",
        "if held is not None and own.fingerprint == held.fingerprint:",
        "route-same-fingerprint-in-another-shape",
    ),
    # -- the verifier -------------------------------------------------------------------------------------------------
    change(
        "verify-manifests-only",
        "Shortcuts are not verified",
        "for version in self._chain.versions] + self._chain.shortcuts",
        "for version in self._chain.versions]",
        "shortcut-with-an-altered-pack",
    ),
    change(
        "verify-without-files",
        "Files are not verified",
        "            for file in edge.files:\n",
        "            for file in ():\n",
        "file-altered",
        "file-missing",
    ),
    change(
        "verify-without-fingerprints-objects",
        "Fingerprints objects are not verified",
        "            self._note(chain.tensor_fingerprints, edge)\n",
        "",
        "fingerprints-altered",
        "fingerprints-missing",
    ),
    change(
        "verify-without-sums",
        "The sum of a fingerprints object is not compared with the manifest's fingerprint",
        'require(same, "TD-FPR-003", "another sum than the manifest\'s fingerprint", "integrity")',
        "pass",
        "fingerprints-sum-wrong",
    ),
    change(
        "verify-without-decoding",
        "Chunks are not decoded",
        "        self._states[version] = chain.follow(edge, {} if edge.base is None else "
        "self._states[edge.base.version])\n",
        "        chain.parts(edge, 0)\n        self._states[version] = {}\n",
        "bitmap-with-a-bit-more",
    ),
    change(
        "verify-reports-dropped-packs",
        "Packs that are gone are faults although another route leads to the version",
        "            if version not in self._states:\n                self._report(lost)",
        "            self._report(lost)",
        "retained-from-nothing",
    ),
    change(
        "verify-stops-at-the-first-fault",
        "After a fault in a manifest its shortcuts are not verified",
        "                    self._report(fault)\n        for version, lost",
        "                    self._report(fault)\n                    break\n        for version, lost",
        "detour-after-three-edges",
    ),
]
