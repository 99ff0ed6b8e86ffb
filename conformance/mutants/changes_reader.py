"""Mutants of `reader.py`: objects, fitting, the reader's procedure, routes, and the verifier."""

from __future__ import annotations

from .change import Change


def _change(name: str, title: str, old: str, new: str, *cases: str, also: tuple[str, str] | None = None) -> Change:
    return Change(name, title, "reader", ((old, new), also) if also else ((old, new),), cases)


READER = [
    # -- objects ------------------------------------------------------------------------------------------------------
    _change(
        "newest-by-text",
        "The names of manifests need not have twelve digits",
        'r"[0-9]{12}\\.json")',
        'r"[0-9]{12}[^/]*")',
        "listing-with-names-like-manifests",
    ),
    _change(
        "newest-is-the-first",
        "The newest version is the lowest",
        "target = self.versions[-1]",
        "target = self.versions[0]",
        "newest-version",
    ),
    _change(
        "newest-by-the-hint",
        "The newest version is that of latest.json",
        "target = self.versions[-1]",
        'import json\n            hint = Path(self._root, "latest.json")\n'
        "            target = json.loads(hint.read_bytes())['version'] if hint.is_file() else self.versions[-1]",
        "hint-too-high",
        "hint-too-low",
    ),
    _change(
        "newest-falls-back",
        "Instead of a newest version that cannot be read the one before it is read",
        "            target = self.versions[-1]\n",
        "            target = self.versions[-1]\n"
        "            try:\n"
        "                self.edge(manifest_name(target))\n"
        "            except Rejection:\n"
        "                target = self.versions[-2]\n",
        "newest-manifest-unreadable",
    ),
    _change(
        "gaps-are-missing",
        "Version numbers may have no gaps",
        'require(target in self.versions, "missing", f"no version {target}")',
        'require(target in self.versions and self.versions == list(range(len(self.versions))), "missing", "a gap")',
        "gap-before-a-version",
    ),
    _change(
        "pin-ignored",
        "The chain id that is pinned is not compared",
        'require(options.pin in (None, self.id), "conflict", f"the chain is {self.id}")',
        "pass",
        "pinned-another-with-held",
    ),
    _change(
        "links-followed",
        "Links out of the root are followed",
        'require(path.startswith(self._root + "/"), "untrusted", "a link out of the root")',
        "pass",
        "link-out-of-the-root-for-a-pack",
        "link-out-of-the-root-for-a-layout",
    ),
    _change(
        "layout-digest-unchecked",
        "The digest of a layout is not checked",
        'require(hashlib.sha256(data).hexdigest() == digest, "integrity", "SHA-256 differs")\n            return',
        "return",
        "layout-altered",
    ),
    _change(
        "pack-digest-unchecked",
        "The digest of a pack is not checked",
        'require(hashlib.sha256(data).hexdigest() == pack.sha256, "integrity", "SHA-256 differs")',
        "pass",
        "pack-header-altered",
    ),
    _change(
        "pack-size-unchecked",
        "A pack may be longer than its entry says",
        '                    require(path.stat().st_size == pack.size, "integrity", f"not {pack.size} bytes")\n'
        "                    return proven(path.read_bytes())",
        "                    return proven(path.read_bytes()[: pack.size])",
        "pack-longer",
    ),
    _change(
        "pack-missing-is-integrity",
        "A pack that is gone is reported as altered",
        'require(path.is_file(), "missing", "no such object")\n                    require(path.stat()',
        'require(path.is_file(), "integrity", "no such object")\n                    require(path.stat()',
        "pack-missing",
    ),
    _change(
        "pack-by-its-digest-alone",
        "A pack is looked for under its digest, whatever its path",
        "path = Path(self._path(pack.path))\n                    require(path.is_file()",
        'path = Path(self._path(f"packs/{pack.sha256}.safetensors"))\n                    require(path.is_file()',
        "pack-under-any-path",
    ),
    _change(
        "sources-allowed-by-default",
        "A source of any scheme is allowed",
        "if parts[1] and parts[0] in self._options.sources]",
        "if parts[1]]",
        "sources-without-a-path",
        "sources-of-another-scheme-than-allowed",
    ),
    _change(
        "places-unproven",
        "A pack from another place is taken by its size",
        "return proven(path.read_bytes())\n                except",
        "return path.read_bytes()\n                except",
        "places-with-other-bytes",
        "places-with-others-of-the-same-size",
    ),
    # -- memory -------------------------------------------------------------------------------------------------------
    _change(
        "budget-ignored",
        "The memory budget is not heeded for the words of a state",
        'taken += sum(tensor.size for tensor in layout)\n        require(taken <= self._options.memory, "limit", '
        'f"needs {taken} bytes")\n        parts',
        "parts",
        "budget-that-is-passed-with-nothing-held",
    ),
    # -- fitting ------------------------------------------------------------------------------------------------------
    _change(
        "fit-not-at-all",
        "Tensors that the layout lacks stay in the state's fingerprint",
        "return State(layout, words, (base.fingerprint - dropped) % 2**64)",
        "return State(layout, words, base.fingerprint)",
        "fit-dropped",
    ),
    _change(
        "fit-keeps-reshaped-words",
        "A tensor of another shape keeps its words",
        "    words = [held[t] if t in held else",
        "    named = {t.name: each for t, each in held.items()}\n"
        "    words = [named[t.name] if t.name in named and len(named[t.name]) == t.words\n"
        "             and named[t.name].dtype == WORD[DTYPES[t.dtype].w] else",
        "fit-reshaped-to-zero",
    ),
    _change(
        "fit-by-index",
        "The tensor at an index of the new layout starts with the words of the old one there",
        "    words = [held[t] if t in held else",
        "    held |= {t: each for t, o, each in zip(layout, base.layout, base.words) if t[1:] == o[1:]}\n"
        "    words = [held[t] if t in held else",
        "fit-renamed-by-normalisation",
    ),
    _change(
        "fit-normalises-names",
        "Names are compared after Unicode normalisation",
        "    words = [held[t] if t in held else",
        "    import unicodedata\n"
        "    held |= {t: each for t in layout for o, each in held.items() if t[1:] == o[1:]\n"
        "             and unicodedata.normalize('NFC', t.name) == unicodedata.normalize('NFC', o.name)}\n"
        "    words = [held[t] if t in held else",
        "fit-renamed-by-normalisation",
    ),
    _change(
        "full-starts-from-held",
        "A full version starts from what is held",
        "fit(held if edge.base is not None else EMPTY, parts.layout)",
        "fit(held, parts.layout)",
        "fit-full-over-held",
        also=("state = before if from_held else EMPTY", "state = before"),
    ),
    _change(
        "chunks-against-each-other",
        "A chunk is decoded against the result of the chunks before it",
        "old = np.concatenate([base.words[tensor][start:stop] for",
        "old = np.concatenate([words[0][:stop - start] if words[0].dtype == base.words[tensor].dtype "
        "and len(words[0]) >= stop - start else base.words[tensor][start:stop] for",
        "standard",
    ),
    _change(
        "plain-packs-in-full-versions-only",
        "A delta takes nothing from plain packs",
        "    for tensor, new in parts.plain.items():\n",
        "    for tensor, new in parts.plain.items() if not base.fingerprint else ():\n",
        "plain-pack-in-a-delta",
    ),
    # -- the procedure ------------------------------------------------------------------------------------------------
    _change(
        "base-by-version-only",
        "The held state is taken for the base if its version is the base's",
        'require(edge.base.fingerprint == held.fingerprint, "wrong-base", "the held state is not the base")',
        "held = held._replace(fingerprint=edge.base.fingerprint)",
        "held-other-unlisted-word",
        "held-other-word-in-an-untouched-tensor",
    ),
    _change(
        "base-by-fingerprint-only",
        "The layout of the held state is not compared with the base's",
        'require(self.layout(edge.base.layout) == held.layout, "wrong-base", "the held layout is not the base\'s")',
        "pass",
        "held-other-shape",
        "held-other-dtype",
    ),
    _change(
        "chunk-fingerprint-unchecked",
        "The fingerprint of a chunk is not checked",
        'require(total % 2**64 == chunk.fingerprint, "integrity", "a chunk has another fingerprint")',
        "pass",
        "chunk-fingerprint-swapped",
        "chunk-fingerprint-that-cancel-out",
    ),
    _change(
        "manifest-fingerprint-unchecked",
        "The fingerprint of the new state is not checked",
        'require(after.fingerprint == edge.fingerprint, "integrity", "the new state has another fingerprint")',
        "pass",
        "manifest-of-another-fingerprint",
        "fingerprint-wrong",
    ),
    _change(
        "manifest-fingerprint-of-deltas-only",
        "The fingerprint of a full version is not checked",
        "require(after.fingerprint == edge.fingerprint,",
        "require(edge.base is None or after.fingerprint == edge.fingerprint,",
        "full-of-another-fingerprint",
        "fingerprint-of-a-full-version-wrong",
    ),
    _change(
        "state-changed-before-all-checks",
        "Words are written into the held state as they are decoded",
        "        words[tensor] = words[tensor].copy()\n",
        "        pass\n",
        "manifest-of-another-fingerprint",
        "fault-in-the-second-edge",
    ),
    _change(
        "overlap-unchecked",
        "Chunks may have words in common",
        'require(tensor != following or stop <= start, "malformed", "two chunks or plain tensors share a word")',
        "pass",
        "chunks-overlap-by-a-word-not-listed",
        "chunk-overlaps-a-plain-tensor",
        "plain-tensors-overlap",
    ),
    _change(
        "overlap-within-a-pack-only",
        "Chunks of one pack may have no word in common, those of two packs may",
        "            with _about(pack.path or edge.name):\n",
        "            ranges = []\n            with _about(pack.path or edge.name):\n",
        "plain-tensors-overlap",
    ),
    _change(
        "overlap-of-nothing",
        "A tensor without words may be named once only",
        "for at in plain if layout[at].words]",
        "for at in plain] + [(len(layout) + at, 0, 1) for at in plain if not layout[at].words]",
        "pack-without-words-named-twice",
    ),
    _change(
        "update-applied-to-any-state",
        "A prepared update is applied to whatever is held",
        'require(_state(held).equals(_state(self.before)), "wrong-base", "the update is for another state")',
        "pass",
        "apply-to-another-unlisted-word",
        "apply-twice",
    ),
    _change(
        "update-applied-by-fingerprint",
        "A prepared update is applied to any state of the same fingerprint",
        "require(_state(held).equals(_state(self.before)),",
        "require(_state(held).fingerprint == _state(self.before).fingerprint,",
        "apply-to-another-shape",
        "apply-to-one-tensor-more",
    ),
    _change(
        "undo-forgets-dropped-tensors",
        "Undo gives the words back, but not the tensors that were dropped",
        "        return self.before\n",
        "        if self.before is None:\n"
        "            return None\n"
        "        kept = [i for i, t in enumerate(self.before.state.layout)\n"
        "                if t.name in {o.name for o in self.after.state.layout}]\n"
        "        old = self.before.state\n"
        "        return self.before._replace(state=State([old.layout[i] for i in kept],\n"
        "                                                [old.words[i] for i in kept], old.fingerprint))\n",
        "undo-over-two-layouts",
    ),
    # -- routes -------------------------------------------------------------------------------------------------------
    _change(
        "route-of-fewest-edges",
        "The route of the fewest edges is taken, whatever it costs",
        "key=lambda way: way[:2]",
        "key=lambda way: (way[1], way[0])",
        "route-bytes-and-not-edges",
    ),
    _change(
        "route-dearest",
        "The dearest route is taken",
        "best[version] = min(ways",
        "best[version] = max(ways",
        "route-manifest-cheaper",
    ),
    _change(
        "route-over-manifests-only",
        "Shortcuts are not used",
        "                edges.append(shortcut)\n",
        "                pass\n",
        "route-shortcut-cheaper",
        "route-by-a-full-shortcut-alone",
    ),
    _change(
        "route-first-pack-counts",
        "Of an edge the first pack counts only",
        "ways.append((edge.cost, 1, [edge], True))",
        "ways.append((sum(pack.size for pack in edge.packs[:1]), 1, [edge], True))",
        "route-all-packs-count",
    ),
    _change(
        "route-not-planned-again",
        "After the first failure nothing else is tried",
        "                    failed[edge.name] = fault\n                    break",
        "                    raise",
        "detour-pack-altered",
        "detour-pack-gone",
        "detour-feature",
    ),
    _change(
        "route-planned-again-once",
        "After the second failure nothing else is tried",
        "                    failed[edge.name] = fault\n                    break",
        "                    failed[edge.name] = fault\n"
        "                    if len(failed) > 1:\n"
        "                        raise next(iter(failed.values())) from None\n"
        "                    break",
        "detour-after-three-edges",
    ),
    _change(
        "last-error",
        "The error of the edge that failed last is reported",
        "raise next(iter(failed.values()), Rejection",
        "raise next(reversed(failed.values()), Rejection",
        "first-error-is-missing",
        "first-error-is-integrity",
    ),
    _change(
        "error-missing-always",
        "Where no route is left, the version is missing",
        'raise next(iter(failed.values()), Rejection("missing", "no route", manifest_name(target)))',
        'raise Rejection("missing", "no route", manifest_name(target))',
        "first-error-is-integrity",
        "pack-altered",
    ),
    _change(
        "shortcut-disagreeing-used",
        "A shortcut to another fingerprint than the version's is used",
        "if (shortcut.layout, shortcut.fingerprint) == (own.layout, own.fingerprint):",
        "if shortcut.layout == own.layout:",
        "no-route-by-a-shortcut-that-disagrees",
    ),
    _change(
        "shortcut-without-its-version",
        "A route may pass through a version of which there is a shortcut only",
        "            return []\n        edges = [own]\n",
        "            return [self.edge(name) for target, name in self.shortcuts if target == version]\n"
        "        edges = [own]\n",
        "route-through-a-version-that-is-gone",
        also=(
            "for version in (each for each in self.versions if each <= target)",
            "for version in sorted({*self.versions, *(each for each, _ in self.shortcuts)})",
        ),
    ),
    _change(
        "shortcut-unreadable-fails",
        "A shortcut that cannot be read fails the read",
        "            except Rejection:\n                continue\n            if (shortcut",
        "            except ZeroDivisionError:\n                continue\n            if (shortcut",
        "route-past-a-shortcut-that-is-no-json",
    ),
    _change(
        "base-disagreement-ignored",
        "The base of an edge is not compared with its own manifest",
        'require(told == (own.layout, own.fingerprint), "wrong-base", "the base is not as its own manifest says")',
        "pass",
        "base-that-is-held-but-not-its-manifests",
    ),
    _change(
        "features-ignored",
        "Unknown features do not keep an edge from being followed",
        'require(feature in FEATURES, "unsupported", f"unknown feature {feature}")',
        "pass",
        "feature-unknown",
        "first-error-is-a-feature",
    ),
    _change(
        "features-keep-the-version-out",
        "A version whose manifest has an unknown feature cannot be read by a shortcut either",
        "        edges = [own]\n",
        "        edges = [own]\n"
        "        if any(feature not in FEATURES for feature in own.features):\n"
        "            return edges\n",
        "shortcut-instead-of-an-unknown-feature",
    ),
    _change(
        "held-by-version-only",
        "The held state is known by the version that is remembered only",
        "return base.fingerprint == held.state.fingerprint and self.layout(base.layout) == held.state.layout",
        "return False",
        "route-held-known-by-its-words",
        "route-held-is-two-versions",
    ),
    _change(
        "held-ignored",
        "The route starts from nothing, whatever is held",
        "            found = self.route(target, held, failed)",
        "            found = self.route(target, None, failed)",
        "held-in-a-chain-whose-start-is-gone",
    ),
    _change(
        "target-held-not-seen",
        "The target is read again although it is held",
        "                return Update(held, Held(before, target))",
        "                pass",
        "route-target-is-held",
    ),
    _change(
        "target-held-by-version",
        "The target is held if its version is remembered",
        "if held is not None and own.fingerprint == before.fingerprint and self.layout(own.layout) == before.layout:",
        "if held is not None and target == held.version:",
        "route-held-under-the-number-of-the-target",
    ),
    _change(
        "target-held-by-fingerprint",
        "The target is held if its fingerprint is",
        "if held is not None and own.fingerprint == before.fingerprint and self.layout(own.layout) == before.layout:",
        "if held is not None and own.fingerprint == before.fingerprint:",
        "route-same-fingerprint-in-another-shape",
    ),
    # -- the verifier -------------------------------------------------------------------------------------------------
    _change(
        "verify-manifests-only",
        "Shortcuts are not verified",
        "for version in chain.versions] + chain.shortcuts",
        "for version in chain.versions]",
        "shortcut-with-an-altered-pack",
    ),
    _change(
        "verify-without-files",
        "Files are not verified",
        "            for file in edge.files:\n",
        "            for file in ():\n",
        "file-altered",
        "file-missing",
    ),
    _change(
        "verify-without-fingerprints-objects",
        "Fingerprints objects are not verified",
        "            self._noting(self._check_sums, edge)\n",
        "",
        "fingerprints-altered",
        "fingerprints-missing",
    ),
    _change(
        "verify-without-sums",
        "The sum of a fingerprints object is not compared with the manifest's fingerprint",
        'require(total % 2**64 == edge.fingerprint, "integrity", "the sum is not the manifest\'s fingerprint")',
        "pass",
        "fingerprints-sum-wrong",
    ),
    _change(
        "verify-without-decoding",
        "Chunks are not decoded",
        "        self._states[version] = chain.follow(edge, base)\n",
        "        chain.parts(edge, 0)\n        self._states[version] = base\n",
        "bitmap-with-a-bit-more",
    ),
    _change(
        "verify-reports-dropped-packs",
        "Packs that are gone are faults although another route leads to the version",
        "            if version not in self._states:\n                self._report(lost)",
        "            self._report(lost)",
        "retained-from-nothing",
    ),
    _change(
        "verify-stops-at-the-first-fault",
        "After a fault in a manifest its shortcuts are not verified",
        "                    self._report(fault)\n        for version, lost",
        "                    self._report(fault)\n                    break\n        for version, lost",
        "detour-after-three-edges",
    ),
]
