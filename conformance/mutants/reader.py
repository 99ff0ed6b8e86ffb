"""A small reader of whole states, and a verifier on it: SPEC.md sections 5, 9 and 10.

It is correct, and written to be read: one step of the document after another, nothing kept between two reads. The
self-test changes single lines of this package, and demands that the suite sees each change.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .codecs import (
    WORD,
    Chunk,
    Words,
    change,
    decode_chunk,
    read_chunk_pack,
    read_plain_pack,
    tensor_fingerprint,
)
from .documents import (
    DTYPES,
    FEATURES,
    LAYOUT,
    MANIFEST,
    SMALL,
    Base,
    Manifest,
    Pack,
    Rejection,
    Tensor,
    manifest_name,
    parse_chain,
    parse_layout,
    parse_manifest,
    require,
)

#: The memory budget in bytes where none is given.
MEMORY = 4 << 30

_MANIFEST_NAME = re.compile(r"[0-9]{12}\.json")
_SHORTCUT_NAME = re.compile(r"([0-9]{12})-([0-9]{12}|full)(\.[a-z0-9]{1,16})?\.json")


class State(NamedTuple):
    """Tensors sorted by name, the words of each, and their fingerprint."""

    layout: list[Tensor]
    words: list[Words]
    fingerprint: int

    @property
    def size(self) -> int:
        """Its bytes."""
        return sum(tensor.size for tensor in self.layout)

    def equals(self, other: State) -> bool:
        """True if both have the same tensors and the same words."""
        return self.layout == other.layout and all(
            np.array_equal(mine, theirs) for mine, theirs in zip(self.words, other.words, strict=True)
        )


EMPTY = State([], [], 0)


def scan(layout: list[Tensor], words: list[Words]) -> State:
    """A state with its fingerprint, from all words."""
    sums = (tensor_fingerprint(tensor.name, each) for tensor, each in zip(layout, words, strict=True))
    return State(layout, words, sum(sums) % 2**64)


class Options(NamedTuple):
    """What the user of a reader sets."""

    memory: int = MEMORY
    sources: tuple[str, ...] = ()
    places: tuple[str, ...] = ()
    pin: str | None = None


class Held(NamedTuple):
    """What a reader holds; `version` is what it remembers."""

    state: State
    version: int | None = None


class Update(NamedTuple):
    """A prepared update. Nothing of the old state is written over, so that undo only goes back to it."""

    before: Held | None
    after: Held

    def apply(self, held: Held | None) -> Held:
        """What is held after step 12."""
        require(_state(held).equals(_state(self.before)), "wrong-base", "the update is for another state")
        return self.after

    def undo(self, held: Held | None) -> Held | None:
        """What was held before it."""
        require(_state(held).equals(self.after.state), "wrong-base", "the update was not the last")
        return self.before


def _state(held: Held | None) -> State:
    return EMPTY if held is None else held.state


class Parts(NamedTuple):
    """A manifest's packs, checked as far as they can be without the base."""

    layout: list[Tensor]
    chunks: list[Chunk]
    plain: dict[int, Words]


class Chain:
    """A chain in a folder, as it is at this moment."""

    def __init__(self, root: str, options: Options) -> None:
        self._root = os.path.realpath(root)
        self._options = options
        with _about("chain.json"):
            self.id = parse_chain(self.get("chain.json", SMALL))
            require(options.pin in (None, self.id), "conflict", f"the chain is {self.id}")
        names = [name for name in self._names("manifests") if _MANIFEST_NAME.fullmatch(name)]
        self.versions = sorted(int(name[:12]) for name in names)
        shortcuts = [_SHORTCUT_NAME.fullmatch(name) for name in sorted(self._names("shortcuts"))]
        self.shortcuts = [(int(match[1]), f"shortcuts/{match[0]}") for match in shortcuts if match]

    # -- objects, section 12.2 ----------------------------------------------------------------------------------------

    def _path(self, name: str) -> str:
        path = os.path.realpath(f"{self._root}/{name}")
        require(path.startswith(self._root + "/"), "untrusted", "a link out of the root")
        return path

    def _names(self, folder: str) -> list[str]:
        """The names of the objects in a folder, and of links out of the root, which are for `get` to refuse."""
        if not os.path.realpath(f"{self._root}/{folder}").startswith(self._root + "/"):
            return []
        names = []
        for entry in Path(self._root, folder).glob("*"):
            inside = os.path.realpath(entry).startswith(self._root + "/")
            if entry.is_file() or not inside:
                names.append(entry.name)
        return names

    def get(self, name: str, limit: int) -> bytes:
        """The bytes of an object of at most `limit` bytes."""
        with _about(name):
            path = Path(self._path(name))
            require(path.is_file(), "missing", "no such object")
            require(path.stat().st_size <= limit, "limit", f"more than {limit} bytes")
            return path.read_bytes()

    def edge(self, name: str) -> Manifest:
        """A manifest or shortcut."""
        with _about(name):
            return parse_manifest(self.get(name, MANIFEST), name, self.id)

    def layout(self, digest: str) -> list[Tensor]:
        """A layout by its digest."""
        name = f"layouts/{digest}.json"
        with _about(name):
            data = self.get(name, LAYOUT)
            require(hashlib.sha256(data).hexdigest() == digest, "integrity", "SHA-256 differs")
            return parse_layout(data)

    def pack(self, pack: Pack) -> bytes:
        """The bytes of a pack, from under the root or from a place that has them."""

        def proven(data: bytes) -> bytes:
            require(len(data) == pack.size, "integrity", f"{len(data)} bytes, not {pack.size}")
            require(hashlib.sha256(data).hexdigest() == pack.sha256, "integrity", "SHA-256 differs")
            return data

        fault: Rejection | None = None
        if pack.path is not None:
            try:
                with _about(pack.path):
                    path = Path(self._path(pack.path))
                    require(path.is_file(), "missing", "no such object")
                    require(path.stat().st_size == pack.size, "integrity", f"not {pack.size} bytes")
                    return proven(path.read_bytes())
            except Rejection as caught:
                fault = caught
        for place in self._options.places:
            for path in sorted(Path(place).rglob("*")):
                try:
                    if path.is_file() and path.stat().st_size == pack.size:
                        return proven(path.read_bytes())
                except Rejection:
                    continue
        if fault is not None:
            raise fault
        schemes = {source: source.partition("://") for source in pack.sources}
        allowed = [source for source, parts in schemes.items() if parts[1] and parts[0] in self._options.sources]
        require(allowed, "untrusted", "the pack is at sources only, and none is allowed")
        raise Rejection("missing", f"no place has the pack of {allowed}")

    # -- one edge, section 9.1 ----------------------------------------------------------------------------------------

    def parts(self, edge: Manifest, taken: int) -> Parts:
        """Steps 5, 7 and 8; `taken` is the memory in use."""
        layout = self.layout(edge.layout)
        taken += sum(tensor.size for tensor in layout)
        require(taken <= self._options.memory, "limit", f"needs {taken} bytes")
        parts = Parts(layout, [], {})
        ranges: list[tuple[int, int, int]] = []
        for pack in edge.packs:
            require(pack.tensors[1] <= len(layout), "malformed", "`tensors` passes the end of the layout")
            taken += pack.size
            require(taken <= self._options.memory, "limit", f"needs {taken} bytes")
            data = self.pack(pack)
            with _about(pack.path or edge.name):
                if pack.content == "chunks":
                    parts.chunks.extend(read_chunk_pack(data, pack, edge, layout))
                else:
                    plain = read_plain_pack(data, pack, layout)
                    ranges += [(at, 0, layout[at].words) for at in plain if layout[at].words]
                    parts.plain.update(plain)
        for chunk in parts.chunks:
            ranges += chunk.slices
            require(taken + chunk.n * 24 <= self._options.memory, "limit", "a chunk needs more memory")
        ranges.sort()
        for (tensor, _, stop), (following, start, _) in pairwise(ranges):
            require(tensor != following or stop <= start, "malformed", "two chunks or plain tensors share a word")
        return parts

    def follow(self, edge: Manifest, held: State) -> State:
        """Steps 5 to 11: the state after an edge. The held state stays as it is."""
        with _about(edge.name):
            if edge.base is not None:
                require(edge.base.fingerprint == held.fingerprint, "wrong-base", "the held state is not the base")
                require(self.layout(edge.base.layout) == held.layout, "wrong-base", "the held layout is not the base's")
            parts = self.parts(edge, held.size)
            after = _decode(parts, fit(held if edge.base is not None else EMPTY, parts.layout))
            require(after.fingerprint == edge.fingerprint, "integrity", "the new state has another fingerprint")
            return after

    # -- routes, section 10 -------------------------------------------------------------------------------------------

    def _edges_to(self, version: int) -> list[Manifest]:
        """The edges that lead to a version: its manifest, and the shortcuts that count."""
        try:
            own = self.edge(manifest_name(version))
        except Rejection:
            return []
        edges = [own]
        for name in (name for target, name in self.shortcuts if target == version):
            try:
                shortcut = self.edge(name)
            except Rejection:
                continue
            if (shortcut.layout, shortcut.fingerprint) == (own.layout, own.fingerprint):
                edges.append(shortcut)
        return edges

    def is_base(self, base: Base, held: Held) -> bool:
        """True where an edge from this base starts at the held state."""
        if base.version == held.version:
            return True
        try:
            return base.fingerprint == held.state.fingerprint and self.layout(base.layout) == held.state.layout
        except Rejection:
            return False

    def route(self, target: int, held: Held | None, failed: Iterable[str]) -> tuple[list[Manifest], bool] | None:
        """The cheapest route without the edges that failed, and whether it starts at the held state."""
        best: dict[int, tuple[int, int, list[Manifest], bool]] = {}
        for version in (each for each in self.versions if each <= target):
            ways = []
            for edge in (each for each in self._edges_to(version) if each.name not in failed):
                if edge.base is None:
                    ways.append((edge.cost, 1, [edge], False))
                elif held is not None and self.is_base(edge.base, held):
                    ways.append((edge.cost, 1, [edge], True))
                elif edge.base.version in best:
                    cost, length, edges, from_held = best[edge.base.version]
                    ways.append((cost + edge.cost, length + 1, [*edges, edge], from_held))
            if ways:
                best[version] = min(ways, key=lambda way: way[:2])
        return (best[target][2], best[target][3]) if target in best else None

    def check_edge(self, edge: Manifest) -> None:
        """What keeps an edge from being followed, whatever the state is."""
        for feature in edge.features:
            require(feature in FEATURES, "unsupported", f"unknown feature {feature}")
        if edge.base is not None and edge.base.version in self.versions:
            try:
                own = self.edge(manifest_name(edge.base.version))
            except Rejection:
                return
            told = (edge.base.layout, edge.base.fingerprint)
            require(told == (own.layout, own.fingerprint), "wrong-base", "the base is not as its own manifest says")

    def prepare(self, target: int | None, held: Held | None) -> Update:
        """Steps 1 to 11 over the cheapest route that holds."""
        if target is None:
            require(self.versions, "missing", "the chain has no version")
            target = self.versions[-1]
        require(target in self.versions, "missing", f"no version {target}")
        before = _state(held)
        failed: dict[str, Rejection] = {}
        try:
            own = self.edge(manifest_name(target))
            if held is not None and own.fingerprint == before.fingerprint and self.layout(own.layout) == before.layout:
                return Update(held, Held(before, target))
        except Rejection as fault:
            if fault.object == manifest_name(target):
                raise
        while True:
            found = self.route(target, held, failed)
            if found is None:
                raise next(iter(failed.values()), Rejection("missing", "no route", manifest_name(target)))
            edges, from_held = found
            state = before if from_held else EMPTY
            for edge in edges:
                try:
                    self.check_edge(edge)
                    state = self.follow(edge, state)
                except Rejection as fault:
                    failed[edge.name] = fault
                    break
            else:
                return Update(held, Held(state, target))


@contextmanager
def _about(object: str) -> Iterator[None]:
    """Say of what object a rejection is, unless that is known already."""
    try:
        yield
    except Rejection as fault:
        raise Rejection(fault.error, str(fault), fault.object or object) from None


def fit(base: State, layout: list[Tensor]) -> State:
    """Section 5."""
    held = dict(zip(base.layout, base.words, strict=True))
    words = [held[t] if t in held else np.zeros(t.words, WORD[DTYPES[t.dtype].w]) for t in layout]
    dropped = sum(tensor_fingerprint(t.name, held[t]) for t in held if t not in layout)
    return State(layout, words, (base.fingerprint - dropped) % 2**64)


def _decode(parts: Parts, base: State) -> State:
    """Steps 9 and 10: the new state, and its fingerprint from the changes."""
    words = list(base.words)
    fingerprint = base.fingerprint
    for tensor in {tensor for chunk in parts.chunks for tensor, _, _ in chunk.slices}:
        words[tensor] = words[tensor].copy()
    for chunk in parts.chunks:
        old = np.concatenate([base.words[tensor][start:stop] for tensor, start, stop in chunk.slices])
        places, values = decode_chunk(chunk, old)
        order = np.argsort(places)
        places, values = places[order], values[order]
        total = first = 0
        for tensor, start, stop in chunk.slices:
            mine = (places >= first) & (places < first + stop - start)
            at, new = places[mine] - first + start, values[mine]
            total += change(parts.layout[tensor].name, at, base.words[tensor][at], new)
            words[tensor][at] = new
            first += stop - start
        require(total % 2**64 == chunk.fingerprint, "integrity", "a chunk has another fingerprint")
        fingerprint += total
    for tensor, new in parts.plain.items():
        fingerprint += change(parts.layout[tensor].name, np.arange(len(new)), base.words[tensor], new)
        words[tensor] = new
    return State(parts.layout, words, fingerprint % 2**64)


# -- the verifier -----------------------------------------------------------------------------------------------------


class Verifier:
    """Checks every object of a chain: every edge is followed, not only those of the cheapest routes."""

    def __init__(self, root: str, options: Options) -> None:
        self.faults: list[tuple[str, str]] = []
        self._states: dict[int, State] = {}
        self._lost: list[tuple[int, Rejection]] = []
        self._chain = Chain(root, options)

    def run(self) -> list[tuple[str, str]]:
        """The faults: (error, object)."""
        chain = self._chain
        edges = [(version, manifest_name(version)) for version in chain.versions] + chain.shortcuts
        for version, name in sorted(edges):
            try:
                with _about(name):
                    self._edge(version, name)
            except Rejection as fault:
                # Retention may take the packs of an edge while another leads to its version.
                if fault.error == "missing" and fault.object != name:
                    self._lost.append((version, fault))
                else:
                    self._report(fault)
        for version, lost in self._lost:
            if version not in self._states:
                self._report(lost)
        return self.faults

    def _report(self, fault: Rejection) -> None:
        if (fault.error, fault.object) not in self.faults:
            self.faults.append((fault.error, fault.object))

    def _noting(self, check: Callable[..., object], *arguments: object) -> None:
        try:
            check(*arguments)
        except Rejection as fault:
            self._report(fault)

    def _edge(self, version: int, name: str) -> None:
        chain = self._chain
        edge = chain.edge(name)
        self._noting(chain.layout, edge.layout)
        if name == manifest_name(version):
            self._noting(self._check_sums, edge)
            for file in edge.files:
                self._noting(self._get, file.path, file.sha256, file.size)
        else:
            require(version in chain.versions, "missing", "leads to no version")
            own = chain.edge(manifest_name(version))
            same = (edge.layout, edge.fingerprint) == (own.layout, own.fingerprint)
            require(same, "conflict", "leads to another state")
        chain.check_edge(edge)
        if edge.base is not None and edge.base.version not in self._states:
            chain.parts(edge, 0)
            raise Rejection("missing", "its base cannot be had", manifest_name(edge.base.version))
        base = EMPTY if edge.base is None else self._states[edge.base.version]
        self._states[version] = chain.follow(edge, base)

    def _get(self, name: str, sha256: str, size: int) -> bytes:
        data = self._chain.get(name, max(size, MANIFEST))
        with _about(name):
            require(len(data) == size, "integrity", "another size")
            require(hashlib.sha256(data).hexdigest() == sha256, "integrity", "SHA-256 differs")
            return data

    def _check_sums(self, edge: Manifest) -> None:
        if edge.tensor_fingerprints is not None:
            name = f"fingerprints/{edge.tensor_fingerprints}.bin"
            length = 8 * len(self._chain.layout(edge.layout))
            data = self._chain.get(name, max(length, MANIFEST))
            with _about(name):
                require(len(data) == length, "malformed", "not one number for each tensor")
                require(hashlib.sha256(data).hexdigest() == edge.tensor_fingerprints, "integrity", "SHA-256 differs")
                total = sum(int.from_bytes(data[at : at + 8], "little") for at in range(0, length, 8))
                require(total % 2**64 == edge.fingerprint, "integrity", "the sum is not the manifest's fingerprint")
