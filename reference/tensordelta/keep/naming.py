"""What manifests and shortcuts name, and so keep from a collector (SPEC.md section 13)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ..errors import ConflictError, LimitError, MissingError, TensorDeltaError
from ..format.manifest import MAX_MANIFEST, Manifest, parse_manifest
from ..format.names import CHAIN, parse_manifest_name, parse_shortcut_name, retired_name
from ..format.signature import Message
from ..progress import phase
from ..read.history import named_objects
from ..stores import Store
from ..threads import ordered_map


class Named(NamedTuple):
    """A manifest or shortcut.

    Attributes:
        manifest: it.
        digest: of the message that is signed for it.
    """

    manifest: Manifest
    digest: str


class Naming:
    """Reads manifests and shortcuts, signed or not, each once: their bytes never change. Threads may share it.

    Args:
        store: of the chain.
        chain: its id.
        threads: how many reads run at once.
    """

    def __init__(self, store: Store, chain: str, threads: int) -> None:
        self._store = store
        self._chain = chain
        self._threads = threads
        self._known: dict[str, Named | TensorDeltaError] = {}

    @property
    def chain_digest(self) -> str:
        """The digest of the message that is signed for chain.json."""
        return Message(CHAIN, self._store.read(CHAIN)).digest

    def read(self, names: Iterable[str]) -> None:
        """Read several, so that `of` need not."""
        wanted = [name for name in dict.fromkeys(names) if name not in self._known]
        with phase("reading manifests", len(wanted), unit="objects") as work:
            for name, found in zip(wanted, ordered_map(self._load, wanted, threads=self._threads), strict=True):
                self._known[name] = found
                work.add(1)

    def of(self, name: str) -> Named:
        """A manifest or shortcut, or its copy where it was dropped after the listing.

        Raises:
            MissingError: there is neither.
            TensorDeltaError: it breaks a rule.
        """
        self.read([name])
        found = self._known[name]
        if isinstance(found, TensorDeltaError):
            raise found
        return found

    def forget(self) -> None:
        """Read again what could not be read."""
        self._known = {name: found for name, found in self._known.items() if isinstance(found, Named)}

    def _load(self, name: str) -> Named | TensorDeltaError:
        try:
            try:
                return self._parsed(name, name)
            except MissingError:  # dropped after the listing
                return self._parsed(name, retired_name(name))
        except TensorDeltaError as fault:
            return fault

    def _parsed(self, name: str, place: str) -> Named:
        with self._store.open(place) as blob:
            if blob.size > MAX_MANIFEST:
                raise LimitError(f"{blob.size} bytes, more than {MAX_MANIFEST}", object=place, rule="TD-LIM-004")
            data = bytes(blob.read(0, blob.size))
        version, shortcut = parse_manifest_name(name), parse_shortcut_name(name)
        if shortcut is not None:
            manifest = parse_manifest(data, version=shortcut.version, base=shortcut.base, tag=shortcut.tag)
        else:
            assert version is not None
            manifest = parse_manifest(data, version=version)
        if manifest.chain != self._chain:
            raise ConflictError(f"belongs to chain {manifest.chain}", object=place, rule="TD-OBJ-011")
        return Named(manifest, Message(name, data).digest)

    def held(self, names: Iterable[str]) -> Iterator[str]:
        """Names of the objects that manifests and shortcuts hold, which stand there or have a young copy.

        Held are also packs, but for those of an edge whose base has neither: no reader can follow it. Of a shortcut
        that breaks a rule nothing is held.

        Raises:
            TensorDeltaError: a manifest breaks a rule.
        """
        names = list(names)
        self.read(names)
        versions = {parse_manifest_name(name) for name in names}
        for name in names:
            try:
                manifest = self.of(name).manifest
            except TensorDeltaError:
                if parse_manifest_name(name) is not None:
                    raise
                continue
            packs = {pack.path for pack in manifest.packs if pack.path is not None}
            usable = manifest.base is None or manifest.base.version in versions
            yield from (each for each in named_objects(manifest) if usable or each not in packs)

    def digests(self, names: Iterable[str]) -> Iterator[str]:
        """The digests of what is signed for those of some manifests and shortcuts that follow the rules."""
        for name in names:
            found = self._known.get(name)
            if isinstance(found, Named):
                yield found.digest
