"""Shortcuts: other ways to a version that exists, made of the difference of two states (SPEC.md section 11.4)."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ..checkout.checkout import Checkout
from ..codecs.fingerprint import combine, text
from ..errors import ConflictError, IntegrityError, MissingError, TensorDeltaError, WrongBaseError
from ..events import Event, emit
from ..format import strict_json
from ..format.manifest import Base, Manifest, PackEntry, parse_manifest
from ..format.names import ShortcutName, fingerprints_name, manifest_name, now, pack_name, shortcut_name
from ..read.published import Published, describe
from ..read.reader import Reader
from ..state.state import State
from ..stores.spool import SCRATCH, cache_root, sweep
from .encoder import Encoder, Order, Values, check_codecs

_TAG = re.compile(r"[a-z0-9]{1,16}")


def make_shortcut(
    reader: Reader,
    base: int | None,
    version: int,
    *,
    order: Order,
    values: Values,
    tag: str,
    work: str | os.PathLike[str] | None,
) -> Published:
    """Encode a version as a delta to an older one, or as a whole, and commit that under the name of a shortcut.

    Both states lie on disk and are mapped, so that memory stays bounded. One that is there already with the same
    layout, fingerprint and base is the success of an earlier call.

    Args:
        reader: of the chain.
        base: where it starts; None for nothing.
        version: where it leads.
        order, values: see `Encoder`.
        tag: tells encodings of one edge apart; empty for none.
        work: a folder that keeps both states for the next call; None for one that is removed.

    Raises:
        MissingError: no such version, or no route to it.
        ConflictError: another shortcut has the name.
        ValueError: a base that is not older, a tag that no name can have, or codecs that do not go together.
    """
    started = time.perf_counter()
    check_codecs(values, order)
    if tag and not _TAG.fullmatch(tag):
        raise ValueError(f"the tag {tag!r} is not up to 16 of a-z and 0-9")
    if base is not None and base >= version:
        raise ValueError(f"version {base} is not older than version {version}")
    name = ShortcutName(version, base, tag or None)
    own = reader.documents.manifest(version)
    layout = reader.documents.layout(own.layout)
    start = None if base is None else reader.documents.manifest(base)
    object = shortcut_name(*name)
    if reader.store.size(object) is not None:
        return describe(_same(reader, name, own, start), layout, size=0, seconds=time.perf_counter() - started)
    with _states(reader, base, version, work) as (old, new):
        manifest, put = _put(reader, old, new, own, start, order=order, values=values)
    data = manifest.encode()
    parse_manifest(data, version=version, base=base, tag=name.tag)  # a writer publishes only what a reader accepts
    if reader.store.size(manifest_name(version)) is None:
        raise MissingError("was dropped meanwhile", object=manifest_name(version), rule="TD-MAN-026")
    if reader.store.create(object, data):
        put += len(data)
    else:
        manifest = _same(reader, name, own, start)
    seconds = time.perf_counter() - started
    emit(Event("published", version, put, seconds), reader.listener)
    return describe(manifest, layout, size=put, seconds=seconds)


def _same(reader: Reader, name: ShortcutName, own: Manifest, start: Manifest | None) -> Manifest:
    """The shortcut that has the name already, if it is the same edge (SPEC.md section 11.2)."""
    object = shortcut_name(*name)
    other = reader.documents.shortcut(name)
    if (other.layout, other.fingerprint, other.base) != (own.layout, own.fingerprint, _base(start)):
        raise ConflictError(
            "is there already, and leads from or to other states",
            object=object,
            rule="TD-WRT-006",
            advice="Another writer made it: remove it, or choose another tag.",
        )
    for pack in other.packs:
        if pack.path is not None and reader.store.size(pack.path) != pack.size:
            raise MissingError(
                f"is there already, but its pack {pack.path} is gone",
                object=object,
                rule="TD-MAN-014",
                advice="Remove it, or choose another tag.",
            )
    return other


def _base(start: Manifest | None) -> Base | None:
    return None if start is None else Base(start.version, start.layout, start.fingerprint)


def _put(
    reader: Reader,
    old: State | None,
    new: State,
    own: Manifest,
    start: Manifest | None,
    *,
    order: Order,
    values: Values,
) -> tuple[Manifest, int]:
    """Put the packs; gives the shortcut that names them, and the bytes put."""
    encoder = Encoder(old, new, layout=own.layout, values=values, order=order, threads=reader.threads)
    entries: list[PackEntry] = []
    put = 0
    with reader.store.batch() as batch:
        for built in encoder.packs():
            batch.put(pack_name(built.entry.sha256), built.parts)
            put += built.entry.size
            entries.append(built.entry)
        if text(combine(encoder.sums)) != own.fingerprint:
            raise IntegrityError(
                "the difference does not lead to its fingerprint",
                object=manifest_name(own.version),
                rule="TD-MAN-027",
                advice="The states on this machine's disk were changed: try again.",
            )
        fingerprints = encoder.sums.astype("<u8").tobytes()
        digest = hashlib.sha256(fingerprints).hexdigest()
        if own.tensor_fingerprints != digest:
            batch.put(fingerprints_name(digest), [fingerprints])
            put += len(fingerprints)
    manifest = Manifest(
        tensordelta=strict_json.VERSION,
        chain=reader.chain,
        version=own.version,
        layout=own.layout,
        fingerprint=own.fingerprint,
        base=_base(start),
        packs=entries,
        features=encoder.features,
        created=now(),
        tensor_fingerprints=digest,
    )
    return manifest, put


@contextmanager
def _states(
    reader: Reader, base: int | None, version: int, work: str | os.PathLike[str] | None
) -> Iterator[tuple[State | None, State]]:
    """The states of two versions, pulled to disk and mapped; None for the base of a full shortcut."""
    with ExitStack() as stack:
        if work is None:
            root = cache_root(make=True)
            sweep(root)
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=root, prefix=SCRATCH)))
        else:
            folder = Path(work)
        old = None if base is None else _pulled(stack, reader, folder / "base", base)
        if old is not None and not (folder / "new").exists() and _leads_on(reader, old, version):
            # What the way there has in common with the way to the base is not fetched and decoded again.
            # It appears whole or not at all: half a copy would be taken for somebody else's folder.
            shutil.rmtree(folder / ".new", ignore_errors=True)
            shutil.copytree(folder / "base", folder / ".new")
            (folder / ".new").rename(folder / "new")
        new = _pulled(stack, reader, folder / "new", version)
        yield old, new


def _leads_on(reader: Reader, old: State, version: int) -> bool:
    """True where the cheapest route of a reader that holds a state begins with it."""
    edges = reader.plan(version, old.version).edges
    return not edges or edges[0].base is not None


def _pulled(stack: ExitStack, reader: Reader, folder: Path, version: int) -> State:
    """A version in a folder, which nobody else moves as long as the stack is open."""
    checkout = Checkout(folder)
    stack.enter_context(checkout.locked())
    try:
        checkout.pull(reader, version)
    except TensorDeltaError as fault:
        # What an earlier call left there and somebody changed is made anew; a fault of the chain would come again.
        if not isinstance(fault, WrongBaseError) and not fault.object.startswith(str(folder)):
            raise
        checkout.clear()
        checkout.pull(reader, version)
    state = checkout.open(reader)
    assert state is not None
    return state
