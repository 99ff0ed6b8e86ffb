"""One way to commit: objects first, then the manifest that names them (SPEC.md sections 11.1 and 12).

Versions, drafts and shortcuts are all committed here. The creation of the manifest is the only commit: nothing that was
put before is visible without it, and nothing that fails after it takes it back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from msgspec import UNSET, UnsetType

from ..codecs.fingerprint import U64, combine, text
from ..errors import ConflictError, LimitError, MalformedError, MissingError
from ..events import Event, emit
from ..format import strict_json
from ..format.layout import Layout
from ..format.manifest import Base, FileEntry, Manifest, PackEntry, parse_manifest
from ..format.names import (
    MANIFESTS,
    ShortcutName,
    check_annotations,
    check_path,
    file_name,
    fingerprints_name,
    layout_name,
    manifest_name,
    new_salt,
    now,
    parse_manifest_name,
)
from ..read.history import Published, describe, named_objects
from ..read.listing import Member, member_name
from ..read.reader import Reader
from ..state.index import INDEX_SUFFIX
from ..state.own_file import OwnFile
from ..stores import Batch, Parts
from .clock import Clock
from .hint import renew_hint
from .plain_packs import same_parts
from .writer import Writer

#: Seconds of a publish after which a remote store is asked whether a collector was faster.
_LONG = 600.0

#: The files that belong to a version, by name: their bytes, or where these lie.
Files = Mapping[str, bytes | Path | OwnFile]
#: A file's entry, and its bytes or where they lie; None if they are in the store.
FileContents = tuple[FileEntry, bytes | OwnFile | None]


class Commit:
    """The commit of one version or shortcut, made by `begin`. It belongs to one publish and one thread.

    Args:
        writer: of the chain.
        batch: takes the objects.
        member: the version, or the shortcut's name.
        before: a manifest whose layout, fingerprints and files are in the store, and are not put again.
        clock: runs since the publish began.
        spent: seconds since the first pack may have been put, if that is longer ago.

    Attributes:
        packs: entries of the packs that the manifest will name.
        size: bytes that were put.
    """

    def __init__(
        self, writer: Writer, batch: Batch, member: Member, before: Manifest | None, clock: Clock, spent: float = 0.0
    ) -> None:
        self._writer = writer
        self._spent = spent - clock.seconds
        self._batch = batch
        self._member = member
        self._before = before
        self._clock = clock
        self.packs: list[PackEntry] = []
        self.size = 0

    @classmethod
    @contextmanager
    def begin(
        cls, writer: Writer, member: Member, before: Manifest | None, clock: Clock, *, spent: float = 0.0
    ) -> Iterator[Commit]:
        """A commit. What is put in the block is durable at its end; `create` comes after it (TD-OBJ-012, TD-STO-007).

        Raises:
            StoreError: at the end of the block, if an object could not be put.
        """
        with ExitStack() as storing:
            batch = storing.enter_context(writer.reader.store.batch())
            yield cls(writer, batch, member, before, clock, spent)
            with clock.during("put"):
                storing.close()

    def put_pack(self, entry: PackEntry, parts: Parts) -> None:
        """Put a pack, unless its entry says that it lies elsewhere."""
        if entry.path is not None:
            with self._clock.during("put"):
                self._batch.put(entry.path, parts)
            self.size += entry.size
        self.packs.append(entry)

    def add_stored(self, packs: Sequence[PackEntry]) -> None:
        """Add packs that other writers of the version have put."""
        self.size += sum(entry.size for entry in packs)
        self.packs += packs

    def put_layout(self, layout: Layout) -> str:
        """Put the layout; gives its digest."""
        digest = digest_layout(self._writer.reader, layout, self._before)
        if self._before is None or self._before.layout != digest:
            self._put(layout_name(digest), [layout.encode()])
        return digest

    def complete(self, contents: Contents) -> Manifest:
        """Put the tensor fingerprints and the files; gives the manifest, which names all that was put."""
        for entry, data in contents.files:
            if data is not None:
                self._put(entry.path, [data] if isinstance(data, bytes) else same_parts(data, entry.sha256))
        return contents.manifest(self._writer.reader.chain, self.packs, self._put_fingerprints(contents))

    def _put_fingerprints(self, contents: Contents) -> str:
        """Put the tensor fingerprints, and a salt, so that no other version has this object; gives its digest.

        A shortcut names the object of its version, if that has one.
        """
        if isinstance(self._member, ShortcutName) and self._before is not None:
            own = self._before.tensor_fingerprints
            if isinstance(own, str):
                return own
        data = contents.sums.astype("<u8").tobytes() + bytes.fromhex(new_salt())
        digest = hashlib.sha256(data).hexdigest()
        self._put(fingerprints_name(digest), [data])
        return digest

    def _put(self, name: str, parts: Parts) -> None:
        with self._clock.during("put"):
            self._batch.put(name, self._counted(parts))

    def _counted(self, parts: Parts) -> Parts:
        for part in parts:
            self.size += len(part)
            yield part

    def create(self, manifest: Manifest, adopt: Callable[[Manifest], Manifest]) -> Manifest:
        """Sign the manifest, and create it, which is the commit; for a version, then put the hint.

        Args:
            manifest: the manifest or shortcut.
            adopt: called with it if the name is taken; gives what has it if it is an earlier success, and raises if
                not.

        Returns:
            The manifest that is in the store now.

        Raises:
            TensorDeltaError: a reader would refuse the manifest; nothing was created (TD-WRT-004).
            TimeoutError: collectors may have deleted what was put first (TD-RET-014); nothing was created.
            MissingError: a collector deleted what it names, for the publish took longer than the grace period. If that
                happened amid the creation, the version is there and cannot be read; the next one has to be full.
            ConflictError: a later version was published meanwhile.
            StoreError: the store failed. Whether the manifest exists is not known then.
        """
        with self._clock.during("commit"):
            return self._create(manifest, adopt)

    def _create(self, manifest: Manifest, adopt: Callable[[Manifest], Manifest]) -> Manifest:
        member, data, reader = self._member, manifest.encode(), self._writer.reader
        try:
            if isinstance(member, ShortcutName):
                parse_manifest(data, version=member.version, base=member.base, tag=member.tag)
            else:
                parse_manifest(data, version=member)
        except (MalformedError, LimitError) as fault:
            advice = (
                "Publish it with annotations and names of files that the format has (SPEC.md sections 4.3 and 4.4)."
            )
            raise type(fault)(fault.reason, object=fault.object, rule=fault.rule, advice=advice) from None
        took, limit = self._clock.seconds + max(self._spent, 0.0), 0.8 * reader.documents.grace
        if took > limit:
            raise TimeoutError(
                f"{member_name(member)} was not created: what it names was put up to {took:,.0f} seconds ago, and "
                f"collectors leave that alone for {limit:,.0f}; publish it again, in a chain with a longer grace period"
            )
        # The process may have been stopped for long since it put what the manifest names.
        late = not reader.store.remote or self._clock.seconds > _LONG
        if late:
            self._check_order()
            self._check_objects(manifest)
        created = (self._writer.signer or reader.store).create(member_name(member), data)
        if created:
            self.size += len(data)
            if late:
                self._check_committed(manifest)
        else:
            manifest = adopt(manifest)
        if isinstance(member, ShortcutName):
            renew_hint(reader, lambda names: [*(each for each in names if each != member), member])
        else:
            self._writer.announce(member, created=created)
        return manifest

    def _check_order(self) -> None:
        """Check that the version is still the newest one to come (TD-OBJ-014).

        Raises:
            ConflictError: a later version exists, and this one does not.
        """
        if isinstance(self._member, ShortcutName):
            return
        before = manifest_name(self._member - 1) if self._member else None
        found = {parse_manifest_name(name) for name in self._writer.reader.store.names(MANIFESTS, after=before)}
        later = max((version for version in found if version is not None), default=self._member)
        if later > self._member and self._member not in found:
            raise ConflictError(
                f"version {later} was published meanwhile",
                object=manifest_name(self._member),
                rule="TD-OBJ-014",
                advice="One writer owns a chain: stop the other one, then publish again.",
            )

    def _check_objects(self, manifest: Manifest) -> None:
        """Check that the store has what the manifest names (TD-OBJ-012).

        Raises:
            MissingError: something is gone.
        """
        for name in named_objects(manifest):
            if self._writer.reader.store.size(name) is None:
                raise MissingError(
                    f"was deleted before {member_name(self._member)} was created, which names it",
                    object=name,
                    rule="TD-OBJ-012",
                    advice="Publish again, and give collectors a grace period that is longer than publishing takes.",
                )

    def _check_committed(self, manifest: Manifest) -> None:
        """Check once more when the manifest is there: a collector that lists manifests from now on keeps what it names.

        The manifest stays, with which nobody can read the version: its number must not be given twice.

        Raises:
            MissingError: something is gone.
        """
        try:
            self._check_objects(manifest)
        except MissingError as fault:
            name = member_name(self._member)
            next_one = "give it another tag" if isinstance(self._member, ShortcutName) else "the next version is full"
            raise MissingError(
                f"was deleted when {name} was created, which names it and cannot be read",
                object=fault.object,
                rule=fault.rule,
                advice=f"Publish again ({next_one}), and give collectors a grace period that is longer than publishing "
                "takes.",
            ) from None

    def finish(self, manifest: Manifest, layout: Layout) -> Published:
        """Emit the event of the commit; gives its result."""
        change = self._writer.layout_change(self._before, layout)
        seconds, timings = self._clock.seconds, self._clock.timings
        event = Event("published", manifest.version, self.size, seconds, timings=timings)
        emit(event, self._writer.reader.listener)
        return describe(manifest, layout, change, size=self.size, seconds=seconds, timings=timings)


@dataclass(frozen=True, eq=False)
class Contents:
    """What the manifest of a version or shortcut says, apart from its packs.

    Attributes:
        version, layout_digest, base, annotations, features: as the manifest has them.
        sums: fingerprint of each tensor of the new state, uint64 in layout order.
        files: of `file_entries`.
    """

    version: int
    layout_digest: str
    sums: U64
    base: Base | None
    files: Sequence[FileContents] = ()
    annotations: Mapping[str, str] | None = None
    features: Sequence[str] = ()

    def manifest(
        self, chain: str, packs: Sequence[PackEntry] = (), tensor_fingerprints: str | UnsetType = UNSET
    ) -> Manifest:
        """A manifest that is created now."""
        return Manifest(
            tensordelta=strict_json.VERSION,
            chain=chain,
            version=self.version,
            layout=self.layout_digest,
            fingerprint=text(combine(self.sums)),
            base=self.base,
            packs=list(packs),
            features=list(self.features),
            created=now(),
            annotations=dict(self.annotations or {}),
            tensor_fingerprints=tensor_fingerprints,
            files=[entry for entry, _ in self.files],
        )


def check_description(annotations: Mapping[str, str] | None, files: Files | None) -> None:
    """Check the annotations and the names of files that are given for a version, before anything is put.

    Raises:
        MalformedError, LimitError: the format does not allow one.
    """
    for part in (part for pair in (annotations or {}).items() for part in pair):
        if any("\ud800" <= letter <= "\udfff" for letter in part):
            raise MalformedError(
                f"{part[:80]!r} is no Unicode text",
                object="the annotations",
                rule="TD-JSN-005",
                advice="Give other annotations.",
            )
    try:
        check_annotations(dict(annotations or {}), object="the annotations")
        for name in files or {}:
            check_path(name, object="the files")
    except (MalformedError, LimitError) as fault:
        advice = f"Give other {fault.object.removeprefix('the ')}."
        raise type(fault)(fault.reason, object=fault.object, rule=fault.rule, advice=advice) from None


def base_of(manifest: Manifest | None) -> Base | None:
    """A version as the base of a delta; None for nothing."""
    return None if manifest is None else Base(manifest.version, manifest.layout, manifest.fingerprint)


def digest_layout(reader: Reader, layout: Layout, before: Manifest | None) -> str:
    """The digest of a layout: that of the version before if it has the same tensors, however its object writes them."""
    if before is not None and reader.documents.layout(before.layout) == layout:
        return before.layout
    return hashlib.sha256(layout.encode()).hexdigest()


def file_entries(before: Manifest | None, layout_digest: str, files: Files | None) -> list[FileContents]:
    """Entries of the files of a version, by name. Files on disk are hashed part by part.

    Args:
        before: the version before.
        layout_digest: of the version that the files are for.
        files: None for those of the version before. Of these, an index is left out if the layout is another one: it
            says which file has which tensor.
    """
    if files is None:
        kept = [] if before is None else before.files
        same = before is not None and before.layout == layout_digest
        return [(entry, None) for entry in kept if same or not entry.name.endswith(INDEX_SUFFIX)]
    stored = {} if before is None else {entry.sha256: entry.path for entry in before.files}
    made: list[FileContents] = []
    for name, given in sorted(files.items()):
        content = OwnFile.given(given) if isinstance(given, Path) else given
        size, digest = 0, hashlib.sha256()
        for part in content.parts() if isinstance(content, OwnFile) else [content]:
            digest.update(part)
            size += len(part)
        sha256 = digest.hexdigest()
        is_new = sha256 not in stored
        path = stored.setdefault(sha256, file_name(sha256, new_salt()))
        made.append((FileEntry(name, size, sha256, path), content if is_new else None))
    return made
