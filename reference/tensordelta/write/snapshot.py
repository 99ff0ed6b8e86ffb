"""The snapshot: the state last published, as a writer keeps it on its machine (SPEC.md section 11.1).

It is a checkout of the chain in a cache folder, and never ahead of the chain: it moves after the commit (TD-WRT-002).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path

from ..checkout.checkout import Checkout
from ..checkout.examination import Scan
from ..errors import IntegrityError, LimitError, MalformedError, StoreError, TensorDeltaError, WrongBaseError
from ..format.manifest import Manifest
from ..format.pack import BuiltPack
from ..progress import phase
from ..read.packs import Sources, free_memory
from ..read.reader import Reader
from ..state.checkpoint import Checkpoint
from ..state.state import State
from ..stores import cache_folder, cache_root, in_cache
from ..stores.disk import DISK_BUDGET
from .encoder import Encoder

_LOG = logging.getLogger("tensordelta")

#: What progress calls it.
_OWN = "own copy"
#: What each publish scans of the snapshot: so many bytes, or this share of it.
_PART = 16 << 20
_SHARE = 1 / 64


def snapshot_folder(chain: str) -> Path:
    """Where the writer keeps its copy of the last published state: $TENSORDELTA_CACHE, or the user's cache folder."""
    return cache_root() / chain


class Snapshot:
    """A writer's copy of the state last published to a chain. For one thread at a time; its folder is locked in use.

    Args:
        reader: of the chain, one that may go from any version to any other.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._scan: Scan | None = None  # the next one; None until every word was scanned

    @cached_property
    def checkout(self) -> Checkout:
        """The folder that it lies in."""
        return Checkout(cache_folder(self._reader.chain), own=True)

    @contextmanager
    def at(self, manifest: Manifest) -> Iterator[State | None]:
        """The state of the newest version, proven, for comparison: no other process moves the snapshot in the block.

        The snapshot is brought to that version first, and rebuilt if it is damaged. Where the cache folder cannot be
        used (its disk is full, or has no locks or maps), the version is read into memory, if half of what is free can
        hold it; else there is None.

        Raises:
            TensorDeltaError: the version cannot be read, or another process uses the snapshot.
        """
        with ExitStack() as stack:
            state: State | None
            try:
                with in_cache(self._reader.chain), phase(_OWN, of=True):
                    stack.enter_context(self.checkout.locked())
                    # The first use in a process scans every word. Later ones scan a part, since a disk may lose bits
                    # meanwhile.
                    state = pulled(self.checkout, self._reader, manifest.version, scan=self._scan or Scan())
                self._scan = self._scan or Scan(_PART, share=_SHARE)
            except (OSError, TensorDeltaError) as error:
                if not self._is_of_this_disk(error):
                    raise
                self._scan = None
                state = self._in_memory(manifest, error)
            yield state

    def _is_of_this_disk(self, error: OSError | TensorDeltaError) -> bool:
        """True where the cache's disk is at fault; a disk budget that the user set is no fault, but kept."""
        if isinstance(error, LimitError):
            return error.rule == DISK_BUDGET and self._reader.disk.limit is None
        return not isinstance(error, TensorDeltaError | StoreError)

    def _in_memory(self, manifest: Manifest, error: OSError | TensorDeltaError) -> State | None:
        if 2 * self._reader.documents.layout(manifest.layout).nbytes > free_memory():
            _LOG.warning("the copy of version %d cannot be used, nor can memory hold it: %s", manifest.version, error)
            return None
        _LOG.warning("version %d is read into memory: %s", manifest.version, error)
        return self._reader.load(manifest.version)

    def expect(self, built: BuiltPack) -> None:
        """Note a pack that was put for the next version. The snapshot does not move before `follow`."""
        self._reader.packs.keep(built.entry.sha256, built.parts)

    def follow(self, manifest: Manifest, made_of: Encoder | Checkpoint) -> None:
        """Move the snapshot to a version that was just committed; if that fails, it is rebuilt before the next delta.

        Today this is a pull: each version is decoded once before the next one is compared with it. It may as well take
        the changed words from the encoder.

        Args:
            manifest: as committed. It may be that of an earlier try, and name other packs for the same words.
            made_of: the exhausted encoder of its packs, or the checkpoint whose files the packs are.

        Raises:
            IntegrityError, MalformedError: what was put does not make what was published.
        """
        try:
            with in_cache(self._reader.chain), phase(_OWN, of=True):
                self.checkout.pull(self._source(made_of), manifest.version, scan=False)
        except (IntegrityError, MalformedError) as fault:
            # The arrays were written to meanwhile, or the store answers with other bytes.
            self._scan = None
            raise type(fault)(
                f"version {manifest.version} cannot be read back: {fault.reason}",
                object=fault.object,
                rule=fault.rule,
                advice="Publish a full version after it, from arrays that no other thread writes to.",
            ) from None
        except (TensorDeltaError, OSError) as fault:
            _LOG.warning("the copy of the version before did not follow and will be rebuilt: %s", fault)
            self._scan = None

    def _source(self, made_of: Encoder | Checkpoint) -> Reader:
        """A reader that finds the packs: a checkpoint's need not be in the store, so it takes them from its folder."""
        reader = self._reader
        if isinstance(made_of, Encoder):
            return reader.along_bases()
        folders = sorted({shard.path.parent for shard in made_of.shards})
        sources = Sources(reader.packs.sources.schemes, (*reader.packs.sources.folders, *folders))
        return reader.trusting(reader.trust, sources=sources).along_bases()


def pulled(checkout: Checkout, reader: Reader, version: int, *, scan: Scan | None = None) -> State:
    """A version in a locked folder that can be made anew, mapped; it is, if the folder is damaged.

    Args:
        scan: what of the words that are there is scanned first; by default what a pull scans.

    Raises:
        TensorDeltaError: the version cannot be read; the folder is as it was.
    """
    try:
        if scan is not None:
            checkout.open(reader, scan=scan)
        return _pulled(checkout, reader, version, scan=None if scan is None else False)
    except TensorDeltaError as fault:
        # After a fault of the chain the folder is kept: the fault would occur again.
        if not isinstance(fault, WrongBaseError) and not fault.object.startswith(str(checkout.folder)):
            raise
        _LOG.warning("the copy in %s is rebuilt: %s", checkout.folder, fault)
        checkout.clear()
        return _pulled(checkout, reader, version, scan=False)


def _pulled(checkout: Checkout, reader: Reader, version: int, *, scan: bool | None) -> State:
    checkout.pull(reader, version, scan=scan)
    state = checkout.open(reader)
    assert state is not None
    return state
