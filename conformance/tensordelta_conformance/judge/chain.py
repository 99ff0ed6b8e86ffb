"""A chain that is judged: what was read of it is kept, and each version is read over any edge that leads to it."""

from __future__ import annotations

from typing import TypeVar

from ..small_reader import chain as reader
from ..small_reader.documents import Manifest, manifest_name
from ..small_reader.rejection import Rejection, about
from ..small_reader.state import Layout, State

Read = TypeVar("Read")


class Chain(reader.Chain):
    """The objects of a chain, and what was read of them so far."""

    def __init__(self, store: reader.Store) -> None:
        super().__init__(store)
        self._manifests: dict[str, Manifest | Rejection] = {}
        self._layouts: dict[str, Layout] = {}
        self._states: dict[int, State | Rejection] = {}

    def manifest(self, name: str) -> Manifest:
        """A manifest or shortcut, by its object's name."""
        if name not in self._manifests:
            try:
                self._manifests[name] = super().manifest(name)
            except Rejection as fault:
                self._manifests[name] = fault
        return _found(self._manifests[name])

    def layout(self, digest: str) -> Layout:
        """A layout, by its digest."""
        if digest not in self._layouts:
            self._layouts[digest] = super().layout(digest)
        return self._layouts[digest]

    def version(self, version: int) -> State:
        """A version's state: over its own manifest, or, where that cannot be, over a shortcut.

        Raises:
            Rejection: that of the version's own manifest, when no edge leads to it.
        """
        if version not in self._states:
            try:
                self._states[version] = self._version(version)
            except Rejection as fault:
                self._states[version] = fault
        return _found(self._states[version])

    def _version(self, version: int) -> State:
        own = self.manifest(manifest_name(version))
        faults = []
        for name in (own.name, *(name for to, name in self.shortcuts if to == version)):
            try:
                edge = self.manifest(name)
                if edge != own:
                    self.check_shortcut(edge)
                return self.follow(edge, self.base_state(edge))
            except Rejection as fault:
                faults.append(fault)
        raise faults[0]

    def base_state(self, edge: Manifest) -> State:
        """The state that an edge starts from, if it may be followed at all."""
        with about(edge.name):
            self.check_edge(edge)
        return {} if edge.base is None else self.version(edge.base.version)


def _found(read: Read | Rejection) -> Read:
    if isinstance(read, Rejection):
        raise read
    return read
