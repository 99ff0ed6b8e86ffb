"""Exporting: each version of a chain becomes one of a foreign folder, and is read back before it is visible."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..chain import Chain
from ..errors import IntegrityError, MissingError, UnsupportedError
from ..state.state import State
from ..stores import Store
from .destination import Destination
from .format import FORMAT, VERSION, Format, Source


@dataclass(frozen=True)
class Exported:
    """A version that was exported.

    Attributes:
        id: its name in the foreign format.
        base: the name of the version that it is a delta to; None for a full version.
        version: its number in the chain.
        size: its bytes there.
        seconds: how long reading, writing and proving took.
    """

    id: str
    base: str | None
    version: int
    size: int
    seconds: float


class Exporter:
    """Exports the versions of a chain in a foreign format, and goes on where an export ended.

    One thread uses it. Memory holds two states.

    Args:
        format: to write.
        chain: to read.
        store: the place to write to.
        begin: the first version to export; by default the oldest one.

    Raises:
        ConflictError: see `Destination`.
        MissingError: the version that was exported last is gone from the chain.
    """

    def __init__(self, format: Format, chain: Chain, store: Store, *, begin: int | None = None) -> None:
        self._format, self._chain, self._begin = format, chain, begin
        self._destination = Destination(store, format, chain.id)
        self._id: str | None = None
        self._version: int | None = None
        self._held: State | None = None
        newest = self._destination.newest()
        if newest is not None:
            self._id, self._version = newest
            self._held = chain.load(self._version)

    @property
    def version(self) -> int | None:
        """The version of the chain that was exported last; None for none."""
        return self._version

    def waiting(self) -> list[int]:
        """The versions that can be exported now.

        Raises:
            MissingError: the first version that was asked for is not there.
        """
        versions = self._chain.versions()
        if self._version is not None:
            return [version for version in versions if version > self._version]
        if self._begin is not None and self._begin not in versions:
            raise MissingError(
                f"has no version {self._begin}",
                object=self._chain.address,
                rule="TD-OBJ-008",
                advice="`log` lists them.",
            )
        return [version for version in versions if version >= (self._begin or 0)]

    def write(self, version: int) -> Exported:
        """Export one version, the next one.

        Raises:
            UnsupportedError: the format cannot hold it; nothing was written.
            IntegrityError: what was written does not lead to the version; it is not visible.
            TensorDeltaError: the version cannot be read.
        """
        started = time.perf_counter()
        state, changed = self._read(version)
        if not state.layout.tensors:
            raise UnsupportedError(
                f"version {version} has no tensors", object=self._format.name, rule=self._format.appendix
            )
        id = self._name(version)
        held, base = self._held, self._id
        if held is None or base is None or self._format.wants_full(id, held, state):
            base = None
            files = self._files(version)
            make = lambda target: self._format.full(target, id, state, files)  # noqa: E731
        else:
            at, before = base, held
            make = lambda target: self._format.delta(target, id, at, before, state, changed)  # noqa: E731

        def prove(source: Source) -> None:
            offer = self._format.offer(source, id)
            if offer.base != base or not offer.apply(held).equals(state):
                raise IntegrityError(
                    f"what was written for version {version} does not lead to it",
                    object=self._destination.address,
                    rule=self._format.appendix,
                    advice="The place loses or alters bytes: look at its disk, then export again.",
                )

        size = self._destination.write(id, version, make, prove)
        self._held, self._id, self._version = state, id, version
        return Exported(id, base, version, size, time.perf_counter() - started)

    def _name(self, version: int) -> str:
        annotations = self._chain.manifest(version).annotations
        imported = annotations.get(VERSION) if annotations.get(FORMAT) == self._format.name else None
        return self._format.name_after(self._id, version, imported)

    def _read(self, version: int) -> tuple[State, Iterable[str]]:
        """A version's state, and the names of the tensors that may differ from the version before."""
        if self._held is None:
            return self._chain.load(version), ()
        state = self._held.copy()
        update = self._chain.prepare(state, version)
        touched = {update.layout.tensors[piece.tensor].name for piece in update.runs()}
        touched |= {update.layout.tensors[tensor].name for tensor in update.built}
        update.apply()
        return state, touched

    def _files(self, version: int) -> dict[str, bytes]:
        found = self._chain[version]
        files: dict[str, bytes] = {}
        for entry in found.manifest.files:
            files[entry.name] = bytes(found.reader.packs.file(entry).read(0, entry.size))
        return files

    def all(self) -> Iterator[Exported]:
        """Export what is there."""
        for version in self.waiting():
            yield self.write(version)

    def follow(
        self, *, poll: float = 1.0, timeout: float | None = None, stop: threading.Event | None = None
    ) -> Iterator[Exported]:
        """Export what is there, and each version that is published later.

        Args, Raises: see `Chain.follow`.
        """

        def go(newest: int) -> Exported | None:
            waiting = self.waiting()
            return self.write(waiting[0]) if waiting else None

        yield from self._chain.pursue(go, known=lambda: self._version, poll=poll, timeout=timeout, stop=stop)
