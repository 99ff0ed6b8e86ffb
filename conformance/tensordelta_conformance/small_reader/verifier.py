"""A Verifier: sections 1.3 and 17."""

from __future__ import annotations

from collections.abc import Callable

from .chain import Chain
from .documents import manifest_name
from .rejection import Rejection, about
from .state import State


class Verifier:
    """Checks every object of a chain: every edge is followed, not only those of the cheapest routes."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._faults: list[tuple[str, str]] = []
        self._states: dict[int, State] = {}
        self._lost: list[tuple[int, Rejection]] = []

    def run(self) -> list[tuple[str, str]]:
        """The faults: (error, object)."""
        self._note(self._chain.id)
        if self._faults:
            return self._faults
        edges = [(version, manifest_name(version)) for version in self._chain.versions] + self._chain.shortcuts
        for version, name in sorted(edges):
            try:
                with about(name):
                    self._check(version, name)
            except Rejection as fault:
                # Retention may take the packs of an edge while another leads to its version (section 13).
                if fault.name == "missing" and fault.object != name:
                    self._lost.append((version, fault))
                else:
                    self._report(fault)
        for version, lost in self._lost:
            if version not in self._states:
                self._report(lost)
        return self._faults

    def _report(self, fault: Rejection) -> None:
        if (fault.name, fault.object) not in self._faults:
            self._faults.append((fault.name, fault.object))

    def _note(self, check: Callable[..., object], *arguments: object) -> None:
        """Make a check whose fault does not end the others."""
        try:
            check(*arguments)
        except Rejection as fault:
            self._report(fault)

    def _check(self, version: int, name: str) -> None:
        """One edge, and the objects that it names."""
        chain = self._chain
        edge = chain.manifest(name)
        self._note(chain.layout, edge.layout)
        if name == manifest_name(version):
            self._note(chain.tensor_fingerprints, edge)
            for file in edge.files:
                self._note(chain.check_file, file)
        else:
            chain.check_shortcut(edge)
        chain.check_edge(edge)
        if edge.base is not None and edge.base.version not in self._states:
            chain.parts(edge, 0)
            raise Rejection("missing", "TD-RTE-006", "no state of its base", manifest_name(edge.base.version))
        self._states[version] = chain.follow(edge, {} if edge.base is None else self._states[edge.base.version])
