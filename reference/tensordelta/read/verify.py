"""The verifier's procedure (SPEC.md section 17): every object of a chain, and with `deep` every edge decoded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from ..codecs import fingerprint
from ..errors import IntegrityError, MissingError, TensorDeltaError, WrongBaseError
from ..format.manifest import Base, check_features
from ..format.names import ShortcutName, manifest_name, shortcut_name
from ..format.pack import Pack, check_overlap
from ..progress import is_seen, phase
from ..state.state import State
from ..tables import Shown
from .listing import Member, check_shortcut
from .reader import Reader
from .routes import Edge


@dataclass(frozen=True, repr=False)
class Verification(Shown):
    """What a verifier found.

    Attributes:
        versions: the versions that exist.
        faults: the faults, each with its object and rule.
    """

    versions: Sequence[int]
    faults: Sequence[TensorDeltaError]

    @property
    def ok(self) -> bool:
        """True if nothing is wrong."""
        return not self.faults


def verify(reader: Reader, *, deep: bool = False, progress: Callable[[int, int], None] | None = None) -> Verification:
    """Check every manifest, shortcut, layout, pack, file and fingerprints object of a chain.

    Where the store lists nothing, these are the versions and shortcuts to which the hint leads.

    Args:
        reader: of the chain.
        deep: rebuild every version over every edge that leads to it, and prove each.
        progress: called with the number of checked edges, and the number of all.

    Raises:
        StoreError: the store failed, or a source that has a pack; then nothing is known of the rest.
    """
    return _Verifier(reader, deep, progress).run()


class _Verifier:
    def __init__(self, reader: Reader, deep: bool, progress: Callable[[int, int], None] | None) -> None:
        self._reader = reader
        self._deep = deep
        self._progress = progress
        self._faults: list[TensorDeltaError] = []
        self._known: set[tuple[str, str, str]] = set()
        self._failed: dict[str, TensorDeltaError] = {}
        self._collected: dict[str, TensorDeltaError] = {}
        self._held = State.empty()

    def run(self) -> Verification:
        versions = self._reader.documents.versions()
        shortcuts = sorted(self._reader.documents.shortcuts(), key=lambda each: (each.version, str(each)))
        with phase("checking packs", self._size(versions, shortcuts), passes=self._passes, whole=True):
            return self._check(versions, shortcuts)

    def _size(self, versions: Sequence[int], shortcuts: Sequence[ShortcutName]) -> int:
        """Bytes of all packs and files, where somebody looks at the progress."""
        size = 0
        members: list[Member] = [*versions, *shortcuts] if is_seen() else []
        for member in members:
            with suppress(TensorDeltaError):
                manifest = self._reader.documents.member(member)
                size += manifest.size + sum(file.size for file in manifest.files)
        return size

    @property
    def _passes(self) -> int:
        """How often each byte is counted: it is downloaded, proven, and with `deep` proven and decoded once more."""
        return 1 + self._reader.store.remote + 2 * self._deep

    def _check(self, versions: Sequence[int], shortcuts: Sequence[ShortcutName]) -> Verification:
        total, done = len(versions) + len(shortcuts), 0
        members: dict[int, list[str]] = {version: [] for version in versions}
        for version in versions:
            name = manifest_name(version)
            members[version].append(name)
            with self._noting(name):
                self._manifest(version, name)
            done = self._step(done, total)
        for shortcut in shortcuts:
            name = shortcut_name(*shortcut)
            members.get(shortcut.version, []).append(name)
            with self._noting(name):
                self._shortcut(shortcut, name, versions)
            done = self._step(done, total)
        self._unreachable(members)
        if versions:
            with self._always():
                self._reader.documents.check_newest(versions[-1])
        return Verification(versions, self._faults)

    def _step(self, done: int, total: int) -> int:
        if self._progress:
            self._progress(done + 1, total)
        return done + 1

    def _fault(self, fault: TensorDeltaError) -> None:
        """Report a fault, once even if several manifests name the object."""
        key = (fault.object, fault.rule, fault.reason)
        if key not in self._known:
            self._known.add(key)
            self._faults.append(fault)

    @contextmanager
    def _noting(self, name: str) -> Iterator[None]:
        """Collect the errors of a member of routes."""
        try:
            yield
        except MissingError as fault:
            # Retention may take the packs of a member while another leads to its version.
            self._collected.setdefault(name, fault)
        except TensorDeltaError as fault:
            self._failed.setdefault(name, fault)
            self._fault(fault)

    @contextmanager
    def _always(self) -> Iterator[None]:
        """Report the error of an object that retention keeps as long as its manifest."""
        try:
            yield
        except TensorDeltaError as fault:
            self._fault(fault)

    def _manifest(self, version: int, name: str) -> None:
        manifest = self._reader.documents.manifest(version)
        with self._always():
            sums = self._reader.documents.tensor_fingerprints(manifest)
            if sums is not None and fingerprint.text(fingerprint.combine(sums)) != manifest.fingerprint:
                raise IntegrityError(
                    "the sum of its tensor fingerprints is not its fingerprint", object=name, rule="TD-FPR-005"
                )
        for file in manifest.files:
            with self._always():
                self._reader.packs.file(file)
        check_features(manifest, object=name)
        self._edge(Edge(name, manifest))

    def _shortcut(self, shortcut: ShortcutName, name: str, versions: Sequence[int]) -> None:
        if shortcut.version not in versions:
            self._fault(
                MissingError(
                    "leads to a version that does not exist", object=name, rule="TD-MAN-024", advice="Remove it."
                )
            )
            return
        manifest = self._reader.documents.shortcut(shortcut)
        check_shortcut(manifest, self._reader.documents.manifest(shortcut.version), object=name)
        check_features(manifest, object=name)
        self._edge(Edge(name, manifest))

    def _edge(self, edge: Edge) -> None:
        manifest = edge.manifest
        layout = self._reader.documents.layout(manifest.layout)
        if manifest.base is not None:
            with self._noting(edge.name):
                self._base(edge, manifest.base)
        packs: list[Pack] = []
        with self._reader.packs.ahead((manifest.version, entry) for entry in manifest.packs):
            for entry in manifest.packs:
                with self._noting(edge.name):
                    packs.append(self._reader.packs.pack(entry, manifest, layout, self._reader.budget(), keep=False)[0])
        if edge.name in self._failed or edge.name in self._collected:
            return
        check_overlap(packs, layout, object=edge.name)
        if self._deep:
            self._rebuild(edge)

    def _base(self, edge: Edge, base: Base) -> None:
        own = self._reader.documents.manifest(base.version)
        if (own.layout, own.fingerprint) != (base.layout, base.fingerprint):
            raise WrongBaseError(
                f"its base is not what version {own.version}'s own manifest says", object=edge.name, rule="TD-RTE-002"
            )
        self._reader.documents.layout(base.layout)

    def _rebuild(self, edge: Edge) -> None:
        """Decode an edge from its base; the newest state so far is kept, since most edges start there."""
        if edge.base is None:
            base = State.empty()
        elif edge.base == self._held.version:
            base = self._held
        else:
            base = self._reader.load(edge.base)
        update = self._reader.prepare_edge(base, edge)
        if self._held.version is None or edge.manifest.version > self._held.version:
            update.apply()
            self._held = base

    def _unreachable(self, members: dict[int, list[str]]) -> None:
        """Report collected members to whose version no other route leads."""
        if not self._collected:
            return
        planner = self._reader.planner()
        for version, names in members.items():
            lost = [self._collected[name] for name in names if name in self._collected]
            try:
                if lost:
                    planner.plan(version, dropped={**self._collected, **self._failed})
            except TensorDeltaError:
                for fault in lost:
                    self._fault(fault)
