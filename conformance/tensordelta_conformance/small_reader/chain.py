"""A chain in a store, and the steps over one edge: sections 4.2, 4.8 to 4.12, 9.1, 9.2 and 12.2."""

from __future__ import annotations

import hashlib
import os
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, Protocol
from urllib.error import HTTPError
from urllib.request import urlopen

import numpy as np

from .chunks import Patch, check_streams, decode_chunk
from .documents import (
    LAYOUT,
    MANIFEST,
    MANIFEST_NAME,
    SHORTCUT_NAME,
    SMALL,
    Base,
    File,
    Hint,
    Manifest,
    Pack,
    check_features,
    check_name,
    manifest_name,
    parse_chain,
    parse_latest,
    parse_layout,
    parse_manifest,
)
from .fingerprint import state_fingerprint
from .packs import Chunk, check_entry, open_chunk_file, read_chunks, read_plain_pack, split_file
from .rejection import Rejection, about, require
from .state import Layout, State, Tensor, fit, layout_of

#: The memory budget in bytes where none is given.
MEMORY = 4 << 30

#: Bytes of memory that a byte of JSON takes at most while it is parsed.
PARSING = 25


class Options(NamedTuple):
    """What the user of a Reader sets: its memory budget, the schemes of sources that it may use, folders in which
    packs may lie as well, and the chain id that it has pinned."""

    memory: int = MEMORY
    sources: tuple[str, ...] = ()
    places: tuple[str, ...] = ()
    pin: str | None = None


DEFAULTS = Options()


class Store(Protocol):
    """The objects under a root."""

    def names(self, prefix: str) -> list[str]:
        """The names of the objects whose names begin with `manifests/` or `shortcuts/`."""

    def size(self, name: str) -> int | None:
        """The size of an object; None if it does not exist."""

    def read(self, name: str) -> bytes:
        """The bytes of an object that exists."""


class Folder:
    """A POSIX folder as a store (section 12.2)."""

    def __init__(self, root: str | Path) -> None:
        self._root = os.path.realpath(root)

    def _path(self, name: str) -> Path:
        path = os.path.realpath(f"{self._root}/{name}")
        require(path.startswith(self._root + "/"), "TD-STO-006", "a link out of the root", "untrusted")
        return Path(path)

    def names(self, prefix: str) -> list[str]:
        """The names under a folder of the root. A link out of the root is one: to read it is refused."""
        if not os.path.realpath(f"{self._root}/{prefix}").startswith(self._root + "/"):
            return []
        names = []
        for entry in Path(self._root, prefix).glob("*"):
            inside = os.path.realpath(entry).startswith(self._root + "/")
            if entry.is_file() or not inside:
                names.append(prefix + entry.name)
        return names

    def size(self, name: str) -> int | None:
        """The size of an object; None if it does not exist."""
        path = self._path(name)
        return path.stat().st_size if path.is_file() else None

    def read(self, name: str) -> bytes:
        """The bytes of an object."""
        return self._path(name).read_bytes()


class Web:
    """Objects behind plain HTTP (section 12.5), which lists nothing. What was got is kept."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._got: dict[str, bytes | None] = {}

    def names(self, prefix: str) -> list[str]:
        """Nothing: there is no listing."""
        return []

    def size(self, name: str) -> int | None:
        """The size of an object; None if it does not exist."""
        data = self._get(name)
        return None if data is None else len(data)

    def read(self, name: str) -> bytes:
        """The bytes of an object."""
        return self._get(name) or b""

    def _get(self, name: str) -> bytes | None:
        if name not in self._got:
            self._got[name] = get(f"{self._root}/{name}")
        return self._got[name]


def get(url: str) -> bytes | None:
    """What a URL has; None if it has nothing. Raises OSError for every other answer (section 12.5)."""
    try:
        with urlopen(url) as answer:
            return bytes(answer.read())
    except HTTPError as error:
        with error:
            if error.code not in (404, 410):
                raise OSError(f"{url}: status {error.code}") from None
        return None


class Parts(NamedTuple):
    """The packs of an edge, checked as far as they can be without the base (steps 5, 7 and 8)."""

    layout: Layout
    chunks: list[Chunk]
    plain: dict[int, Tensor]


class Decoded(NamedTuple):
    """What an edge makes of a base (steps 5 to 10)."""

    parts: Parts
    fitted: State
    patches: list[Patch]
    state: State


class Chain:
    """A chain, as its objects are at this moment. Nothing is kept of what was read."""

    def __init__(self, store: Store, options: Options = DEFAULTS) -> None:
        self._store, self._options = store, options
        manifests = [MANIFEST_NAME.fullmatch(name) for name in store.names("manifests/")]
        self.versions = sorted(int(match[1]) for match in manifests if match)
        shortcuts = [SHORTCUT_NAME.fullmatch(name) for name in sorted(store.names("shortcuts/"))]
        self.shortcuts = [(int(match[1]), match[0]) for match in shortcuts if match]

    # -- objects ------------------------------------------------------------------------------------------------------

    def _size(self, name: str, rule: str) -> int:
        """The size of an object; `rule` asks that it exists."""
        size = self._store.size(name)
        if size is None:
            raise Rejection("missing", rule, "no such object")
        return size

    def _document(self, name: str, limit: int, rule: str) -> bytes:
        """The bytes of an object of at most `limit` bytes; `rule` asks that it exists."""
        size = self._size(name, rule)
        require(size <= limit, "TD-LIM-004", f"more than {limit} bytes", "limit")
        self._check_memory(size * PARSING, "TD-LIM-008")
        return self._store.read(name)

    def _object_of(self, name: str, entry: Pack | File, exists: str, same: str) -> bytes:
        """The bytes of an object of an entry; rules ask that it exists, and that size and SHA-256 are the entry's."""
        with about(name):
            require(self._size(name, exists) == entry.size, same, f"not {entry.size} bytes", "integrity")
            return _proven(self._store.read(name), entry, same)

    def id(self) -> str:
        """The chain id, which is compared with the one that is pinned (step 1)."""
        with about("chain.json"):
            chain = parse_chain(self._document("chain.json", SMALL, "TD-OBJ-009"))
            require(self._options.pin in (None, chain), "TD-OBJ-010", f"the chain is {chain}", "conflict")
            return chain

    def manifest(self, name: str) -> Manifest:
        """A manifest or shortcut (step 4, but for its features)."""
        with about(name):
            edge = parse_manifest(self._document(name, MANIFEST, "TD-OBJ-008"), name)
            check_name(edge)
            require(edge.chain == self.id(), "TD-OBJ-011", f"of the chain {edge.chain}", "conflict")
            return edge

    def find(self, version: int) -> bool:
        """True if a version exists, where nothing lists the versions (section 10.2)."""
        if version not in self.versions and self._store.size(manifest_name(version)) is not None:
            self.versions.append(version)
        return version in self.versions

    def hint(self) -> Hint | None:
        """The hint; None where it is absent, breaks a rule or names another chain (section 4.11)."""
        try:
            hint = parse_latest(self._document("latest.json", SMALL, "TD-OBJ-018"))
        except Rejection:
            return None
        return hint if hint.chain == self.id() else None

    def layout(self, digest: str) -> Layout:
        """A layout by its digest."""
        name = f"layouts/{digest}.json"
        with about(name):
            return parse_layout(self._document(name, LAYOUT, "TD-LAY-009"), digest)

    def pack(self, entry: Pack) -> bytes:
        """The bytes of a pack, from under the root or from a place that has them (section 4.8)."""
        fault: Rejection | None = None
        if entry.path is not None:
            try:
                return self._object_of(entry.path, entry, "TD-MAN-014", "TD-MAN-013")
            except Rejection as rejection:
                fault = rejection
        for path in (path for place in self._options.places for path in sorted(Path(place).rglob("*"))):
            try:
                if path.is_file() and path.stat().st_size == entry.size:
                    return _proven(path.read_bytes(), entry, "TD-MAN-013")
            except Rejection:
                continue
        schemes = {source: source.partition("://") for source in entry.sources}
        allowed = [source for source, parts in schemes.items() if parts[1] and parts[0] in self._options.sources]
        failure: OSError | None = None
        for source in allowed:
            try:
                data = get(source) if source.startswith(("http://", "https://")) else None
                if data is not None:
                    require(len(data) == entry.size, "TD-MAN-013", f"not {entry.size} bytes", "integrity")
                    return _proven(data, entry, "TD-MAN-013")
            except Rejection as altered:
                fault = altered
            except OSError as error:
                failure = error
        if failure is not None and (fault is None or fault.name != "integrity"):
            raise failure
        if fault is not None:
            raise fault
        require(allowed, "TD-MAN-017", "the pack is at sources only, and none is allowed", "untrusted")
        raise Rejection("missing", "TD-MAN-018", f"no place has the pack of {allowed}")

    def check_file(self, file: File) -> None:
        """The object of a file entry (section 4.9)."""
        self._object_of(file.path, file, "TD-MAN-029", "TD-MAN-022")

    def tensor_fingerprints(self, edge: Manifest) -> list[int] | None:
        """The numbers of the fingerprints object that a manifest names, if it names one (section 4.12)."""
        if edge.tensor_fingerprints is None:
            return None
        name = f"fingerprints/{edge.tensor_fingerprints}.bin"
        length = 8 * (len(self.layout(edge.layout)) + 1)
        with about(name):
            require(
                self._size(name, "TD-FPR-010") == length, "TD-FPR-002", "not one number for each tensor, and a salt"
            )
            data = self._store.read(name)
            digest = hashlib.sha256(data).hexdigest()
            require(digest == edge.tensor_fingerprints, "TD-FPR-001", "another SHA-256", "integrity")
            numbers = [int.from_bytes(data[at : at + 8], "little") for at in range(0, length - 8, 8)]
            same = sum(numbers) % 2**64 == edge.fingerprint
            require(same, "TD-FPR-003", "another sum than the manifest's fingerprint", "integrity")
            return numbers

    # -- what two objects say of one version --------------------------------------------------------------------------

    def describes(self, said: Manifest | Base, state: State, fingerprint: int) -> bool:
        """True if a state has the layout and the fingerprint that are said. A layout that cannot be read is another."""
        try:
            return said.fingerprint == fingerprint and self.layout(said.layout) == layout_of(state)
        except Rejection:
            return False

    def check_shortcut(self, shortcut: Manifest) -> None:
        """A shortcut leads to a version that exists, and agrees with its manifest (section 4.10)."""
        require(shortcut.version in self.versions, "TD-MAN-024", "leads to no version", "missing")
        own = self.manifest(manifest_name(shortcut.version))
        same = (shortcut.layout, shortcut.fingerprint) == (own.layout, own.fingerprint)
        require(same, "TD-MAN-025", "leads to another state than the version's", "conflict")

    def check_edge(self, edge: Manifest) -> None:
        """What keeps an edge from being followed, whatever is held: its features, and a base that disagrees."""
        check_features(edge)
        if edge.base is not None and edge.base.version in self.versions:
            try:
                own = self.manifest(manifest_name(edge.base.version))
            except Rejection:
                return
            same = (edge.base.layout, edge.base.fingerprint) == (own.layout, own.fingerprint)
            require(same, "TD-RTE-002", "the base is not as its own manifest says", "wrong-base")

    # -- one edge, section 9.1 ----------------------------------------------------------------------------------------

    def parts(self, edge: Manifest, taken: int) -> Parts:
        """Steps 5, 7 and 8; `taken` is the memory in use."""
        layout = self.layout(edge.layout)
        taken += sum(tensor.size for tensor in layout)
        self._check_memory(taken)
        parts = Parts(layout, [], {})
        ranges: list[tuple[int, int, int]] = []
        for entry in edge.packs:
            require(entry.tensors[-1][1] <= len(layout), "TD-MAN-001", "`tensors` passes the end of the layout")
            taken += entry.size
            self._check_memory(taken)
            data = self.pack(entry)
            with about(entry.path or edge.name):
                header, _ = split_file(data)
                self._check_memory(taken + len(header) * PARSING, "TD-LIM-008")
                if entry.content == "chunks":
                    chunks = read_chunks(open_chunk_file(data), layout, edge.layout, edge.features)
                    slices = [each for chunk in chunks for each in chunk.slices]
                    changed = sum(chunk.changed for chunk in chunks)
                    for chunk in chunks:
                        check_streams(chunk)
                        self._check_memory(taken + chunk.n * 24)
                    parts.chunks.extend(chunks)
                else:
                    plain = read_plain_pack(data, layout)
                    slices = [(index, 0, len(tensor.words)) for index, tensor in plain.items()]
                    changed = sum(len(tensor.words) for tensor in plain.values())
                    parts.plain.update(plain)
                check_entry(entry, [tensor for tensor, _, _ in slices], changed)
            ranges += [each for each in slices if each[1] < each[2]]
        ranges.sort()
        for (tensor, _, stop), (following, start, _) in pairwise(ranges):
            require(tensor != following or stop <= start, "TD-MAN-019", "two chunks or plain tensors share a word")
        return parts

    def _check_memory(self, size: int, rule: str = "TD-LIM-002") -> None:
        require(size <= self._options.memory, rule, f"needs {size} bytes", "limit")

    def decode(self, edge: Manifest, held: State) -> Decoded:
        """Steps 5 to 10. The held state stays as it is."""
        with about(edge.name):
            if edge.base is not None:
                same = edge.base.fingerprint == state_fingerprint(held)
                require(same, "TD-RDR-003", "the held state is not the base", "wrong-base")
                same = self.layout(edge.base.layout) == layout_of(held)
                require(same, "TD-RDR-004", "the held layout is not the base's", "wrong-base")
            parts = self.parts(edge, sum(tensor.size for tensor in layout_of(held)))
            fitted = fit(held if edge.base is not None else {}, parts.layout)
            state = {name: Tensor(each.dtype, each.shape, each.words.copy()) for name, each in fitted.items()}
            patches = [Patch(index, np.arange(len(each.words)), each.words) for index, each in parts.plain.items()]
            wrong = "integrity" if edge.base is None else "wrong-base"
            for chunk in parts.chunks:
                patches += decode_chunk(chunk, parts.layout, fitted, wrong)
            for patch in patches:
                state[parts.layout[patch.tensor].name].words[patch.at] = patch.words
            return Decoded(parts, fitted, patches, state)

    def follow(self, edge: Manifest, held: State) -> State:
        """Steps 5 to 11: the state after an edge."""
        state = self.decode(edge, held).state
        with about(edge.name):
            same = state_fingerprint(state) == edge.fingerprint
            require(same, "TD-RDR-007", "the new state has another fingerprint", "integrity")
            return state


def _proven(data: bytes, entry: Pack | File, rule: str) -> bytes:
    """The bytes, if they are those of an entry; `rule` asks for it."""
    require(hashlib.sha256(data).hexdigest() == entry.sha256, rule, "another SHA-256", "integrity")
    return data
