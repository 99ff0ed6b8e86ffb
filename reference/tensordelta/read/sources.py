"""Fetching packs: from the root, from folders that may hold the same bytes, or from public sources (section 4.8).

A pack is its digest: where its bytes come from does not matter, and they are proven before they are parsed. Small packs
are kept in memory. Of large ones each block's digest is kept, so that what is read later is what was proven.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from ..errors import IntegrityError, MissingError, StoreError, TensorDeltaError, UntrustedError
from ..format.manifest import TENSORS, PackEntry
from ..format.pack import Blob
from ..state.checkpoint import SUFFIX
from ..stores import FileBlob, Store, StoredBlob
from ..stores.cache import CachedBlob
from ..stores.download import Downloads, Wanted
from ..stores.hub import is_client_error

#: Bytes whose digest is kept for later reads.
_BLOCK = 1 << 18
#: Bytes of packs that one update keeps in memory.
KEPT = 64 << 20


class UnansweredError(MissingError):
    """A pack is in no place that answered: a route around it may be found, but nobody is told that it is missing.

    Attributes:
        failure: that of the source, which is told in the end (TD-STO-003).
    """

    def __init__(self, failure: StoreError, *, object: str) -> None:
        super().__init__(f"a source did not answer: {failure.cause}", object=object, rule="TD-MAN-018")
        self.failure = failure

    def __reduce__(self) -> tuple[object, ...]:
        return _unanswered, (self.failure, self.object)


def told(fault: TensorDeltaError) -> TensorDeltaError | StoreError:
    """What is told of a fault: of a source that did not answer, just that."""
    return fault.failure if isinstance(fault, UnansweredError) else fault


def _unanswered(failure: StoreError, object: str) -> UnansweredError:
    return UnansweredError(failure, object=object)


class MemoryBlob:
    """Proven bytes in memory."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self.size = len(data)

    def read(self, offset: int, length: int) -> memoryview:
        """Exactly `length` bytes from `offset`."""
        return self._data[offset : offset + length]


class ProvenBlob:
    """An object too large for memory, whose blocks are proven again whenever they are read."""

    def __init__(self, open_blob: Callable[[], StoredBlob], size: int, digests: Sequence[bytes], label: str) -> None:
        self._open = open_blob
        self._digests = digests
        self._label = label
        self.size = size

    def read(self, offset: int, length: int) -> memoryview:
        """Exactly `length` bytes from `offset`, or fewer where the object ends."""
        length = min(length, self.size - offset)
        if length <= 0:
            return memoryview(b"")
        first, last = offset // _BLOCK, (offset + length - 1) // _BLOCK
        start = first * _BLOCK
        with self._open() as blob:
            data = blob.read(start, min((last + 1) * _BLOCK, self.size) - start)
        for block in range(first, last + 1):
            at = block * _BLOCK - start
            if hashlib.sha256(data[at : at + _BLOCK]).digest() != self._digests[block]:
                raise IntegrityError("changed while it was read", object=self._label, rule="TD-SEC-002")
        return data[offset - start : offset - start + length]


def prove(open_blob: Callable[[], StoredBlob], *, sha256: str, size: int, keep: bool, label: str) -> Blob:
    """Read an object once, prove its size and SHA-256, and give it for reading.

    Args:
        open_blob: opens the object.
        keep: keep the bytes in memory.

    Raises:
        IntegrityError: another size or SHA-256.
    """
    digest = hashlib.sha256()
    digests: list[bytes] = []
    with open_blob() as blob:
        if blob.size != size:
            raise IntegrityError(f"{blob.size} bytes, not {size}", object=label, rule="TD-MAN-013")
        kept: memoryview | None = None
        if keep:
            kept = blob.read(0, size)
            digest.update(kept)
        else:
            for offset in range(0, size, _BLOCK):
                block = blob.read(offset, min(_BLOCK, size - offset))
                digest.update(block)
                digests.append(hashlib.sha256(block).digest())
    if digest.hexdigest() != sha256:
        raise IntegrityError(f"its SHA-256 is {digest.hexdigest()}", object=label, rule="TD-MAN-013")
    return MemoryBlob(kept) if kept is not None else ProvenBlob(open_blob, size, digests, label)


def prove_download(downloads: Downloads, wanted: Wanted, *, keep: bool, label: str) -> Blob:
    """An object of a far store, here and proven. What turns out damaged is fetched once more.

    Raises:
        MissingError: it is not in the store.
        IntegrityError: another size or SHA-256, twice.
        StoreError: the store failed.
    """
    fetched = 0
    while True:
        blob: CachedBlob | None = None
        try:
            blob = downloads.take(wanted, anew=fetched > 0)
            return prove(partial(_same, blob), sha256=wanted.sha256, size=wanted.size, keep=keep, label=label)
        except IntegrityError as fault:
            # A file of the cache was damaged here; what has just come may have been on its way.
            fetched += 1 if blob is None or blob.fresh else 0
            if fetched == 2:
                downloads.drop(wanted)
                raise IntegrityError(fault.reason, object=label, rule=fault.rule) from None
            downloads.drop(wanted)


def _same(blob: CachedBlob) -> CachedBlob:
    return blob


class Sources:
    """Places beside the root that may have a pack's bytes, as far as the user allows them.

    Args:
        schemes: schemes of `sources` that may be used, such as "hf"; none by default.
        folders: folders whose files, by whatever name, may be packs of the chain.
    """

    def __init__(self, schemes: Iterable[str] = (), folders: Iterable[str | Path] = ()) -> None:
        self.schemes = frozenset(schemes)
        self.folders = tuple(Path(folder) for folder in folders)

    def _candidates(self, entry: PackEntry) -> Iterator[Path]:
        for folder in self.folders:
            named = [folder / entry.name] if entry.content == TENSORS and isinstance(entry.name, str) else []
            named += [folder / f"{entry.sha256}{SUFFIX}", folder / "packs" / f"{entry.sha256}{SUFFIX}"]
            others = sorted(folder.iterdir()) if folder.is_dir() else []
            seen: set[Path] = set()
            for path in (*named, *others):
                if path not in seen and path.is_file() and path.stat().st_size == entry.size:
                    seen.add(path)
                    yield path

    def _from_folders(self, entry: PackEntry, keep: bool) -> Blob | None:
        for candidate in self._candidates(entry):
            try:
                return _prove_file(candidate, entry, keep)
            except (IntegrityError, OSError):
                continue
        return None

    def _allowed(self, entry: PackEntry) -> list[str]:
        sources = entry.sources if isinstance(entry.sources, list) else []
        # A source without a scheme is passed over, also where it reads like one.
        return [source for source in sources if "://" in source and source.partition("://")[0] in self.schemes]

    def has_candidate(self, entry: PackEntry) -> bool:
        """True where a folder has a file that may be the pack."""
        return next(self._candidates(entry), None) is not None

    def fetch(self, entry: PackEntry, store: Store, *, keep: bool, downloads: Downloads | None = None) -> Blob:
        """A pack's proven bytes.

        Args:
            entry: the pack.
            store: the chain's.
            keep: keep the bytes in memory.
            downloads: of a store that is far away; then the folders come first.

        Raises:
            IntegrityError: the bytes under the root, or at a source, are not the pack.
            MissingError: no place has them.
            UntrustedError: only sources that are not allowed have them.
            UnansweredError: no other place has them, and a source did not answer.
        """
        fault: MissingError | IntegrityError | None = None
        if downloads is not None and (blob := self._from_folders(entry, keep)) is not None:
            return blob
        if entry.path is not None:
            try:
                return _from_root(entry, entry.path, store, keep, downloads)
            except (MissingError, IntegrityError) as error:
                fault = error
        if downloads is None and (blob := self._from_folders(entry, keep)) is not None:
            return blob
        allowed = self._allowed(entry)
        failed: StoreError | None = None
        for source in allowed:
            for anew in (False, True):  # the client's cache may be damaged
                try:
                    downloaded = _download(source, anew=anew)
                except StoreError as error:
                    failed = failed or error
                    break
                if downloaded is None:
                    break
                try:
                    return _prove_file(downloaded, entry, keep)
                except IntegrityError as error:
                    fault = fault if isinstance(fault, IntegrityError) else error
        if failed is not None and not isinstance(fault, IntegrityError):
            raise UnansweredError(failed, object=entry.label)
        if fault is not None:
            raise fault
        if not allowed:
            raise UntrustedError(
                f"lies only at {entry.sources}, and none of these is allowed",
                object=entry.label,
                rule="TD-MAN-017",
                advice="Allow the scheme (allow_sources=…, --allow-source), or name a folder that holds the file.",
            )
        raise MissingError(f"could not be had from {allowed}", object=entry.label, rule="TD-MAN-018")


def _from_root(entry: PackEntry, path: str, store: Store, keep: bool, downloads: Downloads | None) -> Blob:
    if downloads is not None:
        wanted = Wanted(path, entry.sha256, entry.size)
        return prove_download(downloads, wanted, keep=keep, label=entry.label)
    return prove(lambda: store.open(path), sha256=entry.sha256, size=entry.size, keep=keep, label=entry.label)


def _prove_file(path: Path, entry: PackEntry, keep: bool) -> Blob:
    return prove(lambda: FileBlob(path), sha256=entry.sha256, size=entry.size, keep=keep, label=entry.label)


def _download(source: str, *, anew: bool) -> Path | None:
    """A source's file in the local cache of its own client, or None where there is no such file.

    Args:
        source: such as "hf://org/model@commit/file".
        anew: download it again, whatever the cache has.

    Raises:
        StoreError: the source did not answer, or refused.
    """
    scheme, _, rest = source.partition("://")
    if scheme != "hf":
        return None
    repository, _, tail = rest.partition("@")
    revision, _, filename = tail.partition("/")
    if not (repository and revision) or any(part in ("", ".", "..") for part in filename.split("/")):
        return None
    import huggingface_hub
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return Path(huggingface_hub.hf_hub_download(repository, filename, revision=revision, force_download=anew))
    except (LocalEntryNotFoundError, RepositoryNotFoundError) as error:
        # No answer; or what the Hub says of private repositories to those who may not see them.
        cause: Exception = error
    except (EntryNotFoundError, RevisionNotFoundError, HFValidationError):
        return None
    except Exception as error:
        if not is_client_error(error) and not isinstance(error, ValueError):
            raise
        cause = error
    advice = "Check the network, HF_ENDPOINT and your token, or name a folder that holds the file (--packs-from)."
    raise StoreError(source, "read", filename, " ".join(str(cause).split()) or type(cause).__name__, advice) from None
