"""The snapshot: the state last published, as a writer keeps it on its machine (SPEC.md section 11.1).

It is a checkout of the chain in a cache folder. It moves by pulling what was just published, so that it is never ahead
of the chain, and every version was decoded once before the next is made of it.
"""

from __future__ import annotations

import logging
from functools import cached_property
from pathlib import Path

from ..checkout.checkout import Checkout
from ..errors import IntegrityError, MalformedError, TensorDeltaError, WrongBaseError
from ..format.manifest import Manifest
from ..read.reader import Reader
from ..state.state import State
from ..stores import cache_root

_LOG = logging.getLogger("tensordelta")


def snapshot_folder(chain: str) -> Path:
    """Where the writer keeps its copy of the last published state: $TENSORDELTA_CACHE, or the user's cache folder."""
    return cache_root() / chain


class Snapshot:
    """A writer's copy of the state last published to a chain.

    Args:
        reader: of the chain, one that may go from any version to any other.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._proven = False

    @cached_property
    def checkout(self) -> Checkout:
        """The folder that it lies in; lock it while words are compared with it."""
        return Checkout(cache_root(make=True) / self._reader.chain)

    def at(self, manifest: Manifest) -> State:
        """The state of the newest version, proven; the snapshot is brought there, and rebuilt where it is damaged.

        Raises:
            TensorDeltaError: the version cannot be read.
        """
        folder = str(self.checkout.folder)
        try:
            state = self._state(manifest)
        except TensorDeltaError as fault:
            # A fault of the chain is no reason to lose the snapshot, and would come again.
            if not isinstance(fault, WrongBaseError) and not fault.object.startswith(folder):
                raise
            _LOG.warning("the snapshot in %s is rebuilt: %s", folder, fault)
            self.checkout.clear()
            state = self._state(manifest)
        self._proven = True
        return state

    def _state(self, manifest: Manifest) -> State:
        # The first use in a process proves every word; after that, only proven updates wrote them.
        if not self._proven:
            self.checkout.open(self._reader, scan=True)
        self.checkout.pull(self._reader, manifest.version)
        state = self.checkout.open(self._reader)
        assert state is not None
        return state

    def follow(self, version: int) -> None:
        """Bring the snapshot to what was published; if that fails, it is rebuilt before the next delta.

        Raises:
            IntegrityError, MalformedError: what was put does not make what was published.
        """
        try:
            self.checkout.pull(self._reader, version)
        except (IntegrityError, MalformedError) as fault:
            # The arrays were written to meanwhile, or the store lies.
            self._proven = False
            advice = "Publish a full version after it, from arrays that nobody writes to."
            raise type(fault)(
                f"version {version} cannot be read back: {fault.reason}",
                object=fault.object,
                rule=fault.rule,
                advice=advice,
            ) from None
        except (TensorDeltaError, OSError) as fault:
            _LOG.warning("the snapshot in %s did not follow and will be rebuilt: %s", self.checkout.folder, fault)
            self._proven = False
