"""Shortcuts: other ways to a version that exists, made of the difference of two states (SPEC.md section 11.4)."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ..checkout.checkout import Checkout
from ..codecs.fingerprint import combine, text
from ..errors import ConflictError, IntegrityError, MissingError
from ..format.manifest import Manifest
from ..format.names import ShortcutName, manifest_name, shortcut_name
from ..progress import phase
from ..read.history import Published, describe
from ..read.reader import Reader
from ..state.state import State
from ..stores.spool import in_cache, scratch_folder
from .clock import Clock
from .commit import Commit, Contents, base_of
from .encoder import Codecs, Comparison, Encoder
from .snapshot import pulled
from .writer import Writer

_TAG = re.compile(r"[a-z0-9]{1,16}")


def make_shortcut(
    writer: Writer,
    base: int | None,
    version: int,
    *,
    codecs: Codecs,
    tag: str = "",
    work: str | os.PathLike[str] | None = None,
) -> Published:
    """Encode a version as a delta to an older one, or as a whole, and commit that under the name of a shortcut.

    Both states lie on disk and are mapped, so that memory stays bounded. A shortcut that exists with the same layout,
    fingerprint and base is the success of an earlier call. Several threads may call this, each with another `work`.

    Args:
        writer: of the chain.
        base: where it starts; None for nothing.
        version: where it leads.
        codecs: how changed words are written.
        tag: distinguishes encodings of one edge; empty for none.
        work: a folder that keeps both states for the next call; None for one that is removed.

    Raises:
        MissingError: no such version, or no route to it.
        ConflictError: another shortcut has the name, or `work` is in use.
        UntrustedError: there are trusted keys, and a version, or the shortcut of this name, is not signed.
        ValueError: a base that is not older, or a tag that no name can have; see also `Writer.check_signer`.
        StoreError: the store failed.
    """
    clock = Clock()
    writer.check_signer()
    if tag and not _TAG.fullmatch(tag):
        raise ValueError(f"the tag {tag!r} is not up to 16 of a-z and 0-9")
    if base is not None and base >= version:
        raise ValueError(f"version {base} is not older than version {version}")
    name = ShortcutName(version, base, tag or None)
    reader = writer.reader
    own = reader.documents.manifest(version)
    layout = reader.documents.layout(own.layout)
    start = None if base is None else reader.documents.manifest(base)
    if reader.store.size(shortcut_name(*name)) is not None:
        made = _adopt(reader, name, own, start)
        return describe(made, layout, None, size=0, seconds=clock.seconds)
    with _states(reader, base, version, work) as (old, new), Commit.begin(writer, name, own, clock) as commit:
        sums = None if old is None else old.sums(threads=reader.threads)
        encoder = Encoder(Comparison.of_states(old, new, own.layout, sums), codecs, threads=reader.threads)
        with phase(f"writing the shortcut to version {version}", layout.nbytes):
            for built in clock.packs(encoder):
                commit.put_pack(built.entry, built.parts)
        if text(combine(encoder.sums)) != own.fingerprint:
            raise IntegrityError(
                "the difference does not lead to its fingerprint",
                object=manifest_name(version),
                rule="TD-MAN-027",
                advice="The states on this machine's disk were changed: try again.",
            )
        contents = Contents(version, own.layout, encoder.sums, base_of(start), features=encoder.features)
        manifest = commit.complete(contents)
    if reader.store.size(manifest_name(version)) is None:
        raise MissingError("was dropped meanwhile", object=manifest_name(version), rule="TD-MAN-026")
    return commit.finish(commit.create(manifest, lambda _: _adopt(reader, name, own, start)), layout)


def _adopt(reader: Reader, name: ShortcutName, own: Manifest, start: Manifest | None) -> Manifest:
    """The shortcut that has the name already, if it is the same edge (SPEC.md section 11.2)."""
    object = shortcut_name(*name)
    found = reader.documents.shortcut(name)
    if (found.layout, found.fingerprint, found.base) != (own.layout, own.fingerprint, base_of(start)):
        raise ConflictError(
            "exists, and leads from or to other states",
            object=object,
            rule="TD-WRT-006",
            advice="Another writer made it: remove it, or choose another tag.",
        )
    for pack in found.packs:
        if pack.path is not None and reader.store.size(pack.path) != pack.size:
            raise MissingError(
                f"exists, but its pack {pack.path} is gone",
                object=object,
                rule="TD-MAN-014",
                advice="Remove it, or choose another tag.",
            )
    return found


@contextmanager
def _states(
    reader: Reader, base: int | None, version: int, work: str | os.PathLike[str] | None
) -> Iterator[tuple[State | None, State]]:
    """The states of two versions, pulled to disk and mapped; None for the base of a full shortcut."""
    with ExitStack() as stack:
        with in_cache("the cache folder" if work is None else os.fspath(work)):
            folder = stack.enter_context(scratch_folder()) if work is None else Path(work)
            old = None if base is None else _locked(stack, reader, folder / "base", base)
            if old is not None and not (folder / "new").exists() and _continues(reader, old, version):
                # The part of the route that both have in common is not fetched and decoded again.
                # The copy appears whole or not at all: half a copy would be refused as no checkout.
                shutil.rmtree(folder / ".new", ignore_errors=True)
                try:
                    shutil.copytree(folder / "base", folder / ".new", symlinks=True)
                except shutil.Error:  # of a full disk, perhaps, which the pull says with the name of a file
                    shutil.rmtree(folder / ".new", ignore_errors=True)
                else:
                    (folder / ".new").rename(folder / "new")
            new = _locked(stack, reader, folder / "new", version)
        yield old, new


def _continues(reader: Reader, old: State, version: int) -> bool:
    """True if the cheapest route to a version, for a reader that holds a state, starts from that state."""
    edges = reader.plan(version, old.version).edges
    return not edges or edges[0].base is not None


def _locked(stack: ExitStack, reader: Reader, folder: Path, version: int) -> State:
    """A version in a folder, which is locked until the stack ends."""
    checkout = Checkout(folder, own=True)
    stack.enter_context(checkout.locked())
    return pulled(checkout, reader, version)
