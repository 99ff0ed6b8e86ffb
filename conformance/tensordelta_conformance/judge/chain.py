"""Edges and versions of a chain (SPEC.md sections 4, 5 and 9): every object is read as it lies there."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .chunk import decode_chunk
from .container import read_chunk_file, read_plain_pack
from .documents import parse_chain, parse_layout
from .faults import Fault, need, reading
from .fingerprint import state_fingerprint, tensor_fingerprints
from .manifest import SHORTCUT_NAME, Manifest, Pack, manifest_name, parse_manifest
from .model import DTYPES, Layout, State, Tensor, fit, layout_of, word_count
from .table import Chunk, read_chunks

MOST_BYTES = 2**31
"""Larger states are not read here."""


@dataclass
class Reading:
    """What a manifest or shortcut makes of a base.

    Attributes:
        fitted: the fitted base.
        state: the new state.
        listed: for each tensor of the layout, which words a chunk lists or a plain tensor holds.
        chunks: the chunks of all packs.
    """

    manifest: Manifest
    layout: Layout
    fitted: State
    state: State
    listed: list[NDArray[np.bool_]]
    chunks: list[Chunk] = field(default_factory=list)


class Chain:
    """The objects of a chain, by name, and what was read of them so far."""

    def __init__(self, objects: Mapping[str, bytes]) -> None:
        self.objects = objects
        self._manifests: dict[str, Manifest | Fault] = {}
        self._states: dict[int, State | Fault] = {}
        self._layouts: dict[str, Layout] = {}

    def get(self, name: str, rule: str) -> bytes:
        """The bytes of an object; `rule` asks for the rejection where there is none."""
        if name not in self.objects:
            fault = Fault("missing", rule, f"{name} does not exist")
            fault.object = name
            raise fault
        return self.objects[name]

    def manifest(self, name: str) -> Manifest:
        """A manifest or shortcut, by its object's name."""
        if name not in self._manifests:
            try:
                self._manifests[name] = self._manifest(name)
            except Fault as fault:
                self._manifests[name] = fault
        found = self._manifests[name]
        if isinstance(found, Fault):
            raise found
        return found

    def _manifest(self, name: str) -> Manifest:
        data = self.get(name, "TD-OBJ-008")
        with reading(name):
            manifest = parse_manifest(data, name)
        chain = self.get("chain.json", "TD-OBJ-009")
        with reading("chain.json"):
            own = parse_chain(chain)
        with reading(name):
            need(manifest.chain == own, "TD-OBJ-011", "another chain id than that of chain.json", "conflict")
        return manifest

    def layout(self, digest: str) -> Layout:
        """A layout, by its digest."""
        if digest not in self._layouts:
            name = f"layouts/{digest}.json"
            data = self.get(name, "TD-LAY-009")
            with reading(name):
                self._layouts[digest] = parse_layout(data, digest)
        return self._layouts[digest]

    def pack(self, entry: Pack) -> bytes:
        """The bytes of a pack, checked by size and digest."""
        need(entry.path is not None, "TD-MAN-017", "a pack without a path, and no source is allowed", "untrusted")
        assert entry.path is not None
        data = self.get(entry.path, "TD-MAN-014")
        with reading(entry.path):
            need(len(data) == entry.size, "TD-MAN-013", "the size of a pack", "integrity")
            need(hashlib.sha256(data).hexdigest() == entry.sha256, "TD-MAN-013", "the digest of a pack", "integrity")
        return data

    def apply(self, name: str, held: State) -> Reading:
        """Steps 4 to 10 of section 9.1 for an edge whose base is the state held."""
        manifest = self.manifest(name)
        layout = self.layout(manifest.layout)
        with reading(name):
            check_memory(layout)
        base: State = {}
        if manifest.base is not None:
            base_layout = self.layout(manifest.base.layout)
            with reading(name):
                need(base_layout == layout_of(held), "TD-RDR-004", "the layout held", "wrong-base")
                wanted = manifest.base.fingerprint
                need(state_fingerprint(held) == wanted, "TD-RDR-003", "the fingerprint held", "wrong-base")
            base = held
        fitted = fit(base, layout)
        new = {each: Tensor(tensor.dtype, tensor.shape, tensor.words.copy()) for each, tensor in fitted.items()}
        listed = [np.zeros(word_count(dtype, shape), np.bool_) for _, dtype, shape in layout]
        found = Reading(manifest, layout, fitted, new, listed)
        named: list[tuple[int, int, int]] = []
        for entry in manifest.packs:
            with reading(name):
                need(entry.tensors[1] <= len(layout), "TD-MAN-010", "`tensors` of a pack")
                data = self.pack(entry)
            with reading(entry.path or name):
                slices, changed = _apply_pack(found, entry, data, named)
            with reading(name):
                held_by_pack = [tensor for tensor, _, _ in slices]
                smallest = (min(held_by_pack), max(held_by_pack) + 1)
                need(entry.tensors == smallest, "TD-MAN-010", f"`tensors` of a pack is not {smallest}")
                need(entry.changed == changed, "TD-MAN-011", f"`changed` of a pack is not {changed}")
        return found

    def edge(self, name: str, held: State) -> State:
        """The state that a manifest or shortcut makes of the state held, step 11 included."""
        found = self.apply(name, held)
        with reading(name):
            total = state_fingerprint(found.state)
            need(total == found.manifest.fingerprint, "TD-RDR-007", f"the new state has {total}", "integrity")
        return found.state

    def version(self, version: int) -> State:
        """A version's state: over its own manifest, or, where that cannot be, over a shortcut.

        Raises:
            Fault: that of the version's own manifest, when no edge leads to it.
        """
        if version not in self._states:
            try:
                self._states[version] = self._version(version)
            except Fault as fault:
                self._states[version] = fault
        found = self._states[version]
        if isinstance(found, Fault):
            raise found
        return found

    def _version(self, version: int) -> State:
        name = manifest_name(version)
        self.manifest(name)
        faults = []
        for edge in [name, *self.shortcuts(version)]:
            try:
                if edge != name:
                    self.check_shortcut(edge)
                return self.edge(edge, self.base_state(edge))
            except Fault as fault:
                faults.append(fault)
        raise faults[0]

    def base_state(self, edge: str) -> State:
        """The state that an edge starts from, described as the base version's own manifest is (section 10)."""
        base = self.manifest(edge).base
        if base is None:
            return {}
        own = self.manifest(manifest_name(base.version))
        with reading(edge):
            described = (base.layout, base.fingerprint)
            need(described == (own.layout, own.fingerprint), "TD-RTE-002", "a base that disagrees", "wrong-base")
        return self.version(base.version)

    def check_shortcut(self, name: str) -> None:
        """A shortcut leads to a version that exists, and agrees with its manifest."""
        shortcut = self.manifest(name)
        own = manifest_name(shortcut.version)
        with reading(name):
            need(own in self.objects, "TD-MAN-024", "a shortcut to a version that does not exist", "missing")
        manifest = self.manifest(own)
        with reading(name):
            need(shortcut.layout == manifest.layout, "TD-MAN-025", "another layout than the version's", "conflict")
            same = shortcut.fingerprint == manifest.fingerprint
            need(same, "TD-MAN-025", "another fingerprint than the version's", "conflict")

    def shortcuts(self, version: int) -> list[str]:
        """The names of all shortcuts to a version."""
        found = [SHORTCUT_NAME.fullmatch(name) for name in self.objects]
        return sorted(each[0] for each in found if each is not None and int(each[1]) == version)

    def check_fingerprints(self, name: str, state: State) -> None:
        """The fingerprints object that a manifest names, number by number (section 4.12)."""
        digest = self.manifest(name).tensor_fingerprints
        if digest is None:
            return
        object = f"fingerprints/{digest}.bin"
        data = self.get(object, "TD-FPR-010")
        with reading(object):
            need(hashlib.sha256(data).hexdigest() == digest, "TD-FPR-001", "its digest differs", "integrity")
            need(len(data) == 8 * len(state), "TD-FPR-002", f"{len(data)} bytes for {len(state)} tensors")
            found = [int.from_bytes(data[at : at + 8], "little") for at in range(0, len(data), 8)]
            wanted = tensor_fingerprints(state)
            need(sum(found) % 2**64 == sum(wanted) % 2**64, "TD-FPR-003", "its sum differs", "integrity")
            wrong = [index for index, pair in enumerate(zip(found, wanted, strict=True)) if pair[0] != pair[1]]
            need(not wrong, "TD-RDR-012", f"the fingerprints of the tensors {wrong} differ", "integrity")

    def check_files(self, name: str) -> None:
        """The files that a manifest names (section 4.9)."""
        for file in self.manifest(name).files:
            data = self.get(file.path, "TD-MAN-029")
            with reading(file.path):
                same = len(data) == file.size and hashlib.sha256(data).hexdigest() == file.sha256
                need(same, "TD-MAN-022", "size or digest of a file", "integrity")


def _apply_pack(
    found: Reading, entry: Pack, data: bytes, named: list[tuple[int, int, int]]
) -> tuple[list[tuple[int, int, int]], int]:
    """Takes over the words of a pack; gives the slices that it names, and its number of words.

    Args:
        named: the slices of the packs before, to which this pack's are added.
    """
    base = [found.fitted[name].words for name, _, _ in found.layout]
    new = [found.state[name].words for name, _, _ in found.layout]
    if entry.content == "tensors":
        tensors = read_plain_pack(data, found.layout)
        slices = [(index, 0, len(tensor.words)) for index, tensor in tensors.items()]
        _name(named, slices)
        for index, tensor in tensors.items():
            new[index][:] = tensor.words
            found.listed[index][:] = True
        return slices, sum(len(tensor.words) for tensor in tensors.values())
    chunks = read_chunks(read_chunk_file(data), found.layout, found.manifest.layout, found.manifest.features)
    slices = []
    for chunk in chunks:
        _name(named, chunk.slices)
        slices += chunk.slices
        for each in decode_chunk(chunk, found.layout, base):
            new[each.tensor][each.indices] = each.words
            found.listed[each.tensor][each.indices] = True
    found.chunks += chunks
    return slices, sum(chunk.changed for chunk in chunks)


def _name(named: list[tuple[int, int, int]], slices: list[tuple[int, int, int]]) -> None:
    """Adds slices to those named before; no word may be named twice."""
    named += [each for each in slices if each[1] < each[2]]
    named.sort()
    for (tensor, _, stop), after in itertools.pairwise(named):
        need(tensor < after[0] or stop <= after[1], "TD-MAN-019", f"words of tensor {tensor} are named twice")


def check_memory(layout: Layout) -> None:
    """A state that is small enough to be read here."""
    size = sum(word_count(dtype, shape) * DTYPES[dtype].w // 8 for _, dtype, shape in layout)
    need(size <= MOST_BYTES, "TD-LIM-002", f"a state of {size} bytes", "limit")
