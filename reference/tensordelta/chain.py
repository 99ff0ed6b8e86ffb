"""Chains: the face of the package (SPEC.md sections 4, 9 and 11)."""

from __future__ import annotations

import os
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from . import ijson, objects, partial
from .checkout import Checkout, Pulled
from .checkpoint import Checkpoint, open_checkpoint
from .encoder import Order, Values
from .errors import ConflictError, MissingError, UnsupportedError
from .events import Event
from .fetch import Sources
from .history import History
from .layout import Layout
from .manifest import Manifest
from .objects import ChainDocument
from .publish import Published, Publisher, checkpoint_files
from .reader import Reader
from .state import State
from .store import FolderStore, Store
from .update import Update
from .verify import Verification, verify
from .words import to_array

__all__ = ["Chain", "open"]

#: Mappings of arrays that a chain remembers.
_MAPPINGS = 8


def open(
    address: str | os.PathLike[str] | Store,
    *,
    create: bool = False,
    chain: str | None = None,
    memory: int | None = None,
    threads: int | None = None,
    allow_sources: Iterable[str] = (),
    pack_folders: Iterable[str | os.PathLike[str]] = (),
    on_event: Callable[[Event], None] | None = None,
) -> Chain:
    """Open a chain.

    Args:
        address: a folder, or a store.
        create: make a new chain where there is none.
        chain: the chain id that is expected there, if you know it.
        memory: bytes that reading may use; by default four fifths of the machine's memory.
        threads: how many chunks are coded at once; by default $TENSORDELTA_THREADS, or all cores.
        allow_sources: schemes of public sources from which packs may be taken, such as "hf".
        pack_folders: folders whose safetensors files may be taken for packs that have the same bytes.
        on_event: called with each event; all are logged under "tensordelta" as well.

    Raises:
        MissingError: there is no chain, and `create` is not set.
        ConflictError: there is another chain than `chain`, or `create` meets a folder of other contents.
        ValueError: an address of a kind that this version does not know.
    """
    store = _store(address)
    if create and store.size(objects.CHAIN) is None:
        if isinstance(store, FolderStore) and store.is_foreign():
            raise ConflictError(
                "has contents, but no chain",
                object=store.address,
                rule="TD-STO-010",
                advice="Name an empty folder, or one that does not exist; a chain has a folder of its own.",
            )
        document = ChainDocument(ijson.VERSION, chain or str(uuid.uuid4()), objects.now())
        store.create(objects.CHAIN, ijson.encode(document))  # where another was faster, its chain is opened
    sources = Sources(allow_sources, map(Path, pack_folders))
    return Chain(Reader(store, chain=chain, memory=memory, threads=threads, sources=sources, listener=on_event))


def _store(address: str | os.PathLike[str] | Store) -> Store:
    if isinstance(address, (str, os.PathLike)):
        text = os.fspath(address)
        if "://" in text:
            raise ValueError(f"{text!r}: chains live in folders for now; name a folder")
        return FolderStore(Path(text).expanduser())
    return address


class Chain:
    """A chain of versions: publish to it, load from it, follow it. Made by `open`."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._publisher = Publisher(reader)
        self._over_arrays: deque[State] = deque(maxlen=_MAPPINGS)

    @property
    def id(self) -> str:
        """The chain id: a UUID that names the run."""
        return self._reader.chain

    @property
    def address(self) -> str:
        """Where it lies."""
        return self._reader.store.address

    # -- what there is --------------------------------------------------------------------------------------------

    def versions(self) -> list[int]:
        """The versions that exist, ascending."""
        return self._reader.versions()

    @property
    def newest(self) -> int | None:
        """The newest version, or None where there is none yet."""
        return self._reader.newest()

    def manifest(self, version: int | None = None) -> Manifest:
        """A version's manifest, by default the newest's. Raises MissingError where there is no such version."""
        return self._reader.manifest(self._reader.target(version))

    def layout(self, version: int | None = None) -> Layout:
        """A version's tensors, by default the newest's. Raises MissingError where there is no such version."""
        return self._reader.layout(self.manifest(version).layout)

    def log(self) -> History:
        """All versions, with their sizes."""
        return History.of(self._reader)

    def at(self, **annotations: object) -> int:
        """The newest version with these annotations, such as `at(step=420)`.

        Raises:
            MissingError: there is none.
        """
        wanted = {key: str(value) for key, value in annotations.items()}
        for version in reversed(self.versions()):
            if wanted.items() <= self._reader.manifest(version).annotations.items():
                return version
        raise MissingError(
            f"no version is annotated {wanted}",
            object=objects.MANIFESTS,
            rule="TD-OBJ-008",
            advice="`log` lists the versions and their annotations.",
        )

    def wait(self, version: int | None = None, *, timeout: float | None = None, poll: float = 0.2) -> int:
        """Wait until a version exists, or a newer one.

        Args:
            version: the version waited for; by default the one after the newest.
            timeout: seconds; None waits for ever.
            poll: seconds between two looks.

        Returns:
            `version`, or the newest version where none was given.

        Raises:
            TimeoutError: it did not appear in time.
        """
        newest = self.newest
        least = version if version is not None else -1 if newest is None else newest + 1
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            newest = self.newest
            if newest is not None and newest >= least:
                return newest if version is None else version
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(f"version {least} did not appear within {timeout:g} seconds; the newest is {newest}")
            time.sleep(poll if deadline is None else max(0.0, min(poll, deadline - time.monotonic())))

    # -- reading --------------------------------------------------------------------------------------------------

    def load(self, version: int | None = None) -> State:
        """A version's state in memory, by default the newest.

        Raises:
            MissingError: no such version, or no route to it.
            TensorDeltaError: the error of the route first chosen, when no other is left.
        """
        return self._reader.load(version)

    def prepare(self, state: State | Mapping[str, NDArray[Any]], version: int | None = None) -> Update:
        """Fetch, check and decode the update that takes a state to a version; the state is only read.

        Args:
            state: a `State`, or a mapping of names to contiguous arrays, which `apply` writes into.
            version: the target, by default the newest.

        Raises:
            WrongBaseError: the state is no version of this chain.
            MissingError: no such version, or no route to it.
            TensorDeltaError: the error of the route first chosen, when no other is left.
            ValueError: an array that is not contiguous and little-endian, or no array at all; or two that share memory.
        """
        if not isinstance(state, State):
            state = self._over(state)
        return self._reader.prepare(state, version)

    def _over(self, arrays: Mapping[str, NDArray[Any]]) -> State:
        """The state over a mapping: the same one as before, so that its updates know of one another."""
        for state in self._over_arrays:
            if state.arrays is arrays and state.is_over(arrays):
                return state
        state = State.from_arrays(arrays)
        if state.copies:
            raise ValueError(
                f"array {min(state.copies)!r} is not C-contiguous and little-endian, "
                "so that an update could not write into it"
            )
        shared = state.overlap()
        if shared:
            raise ValueError(
                f"arrays {shared[0]!r} and {shared[1]!r} share memory, so that an update would write one through the "
                "other; give one of them memory of its own"
            )
        self._over_arrays.append(state)
        return state

    def read(self, version: int | None, name: str) -> NDArray[Any]:
        """One tensor of a version, from the packs that touch it alone.

        Raises:
            MissingError: no such version or tensor, or no route.
            TensorDeltaError: the error of the route first chosen, when no other is left.
        """
        version = self._reader.target(version)
        try:
            words = partial.read_tensors(self._reader, version, [name])[name]
        except UnsupportedError as fault:
            if fault.rule != "TD-RDR-013":
                raise
            return self._reader.load(version)[name]  # nothing can prove a part of this version
        layout = self._reader.layout(self._reader.manifest(version).layout)
        tensor = layout.tensors[layout.index[name]]
        return to_array(words, tensor.kind, tensor.shape)

    def pull(self, folder: str | os.PathLike[str], version: int | None = None) -> Pulled:
        """Bring a folder that an engine can load to a version, by default the newest (see `Checkout`)."""
        return Checkout(folder).pull(self._reader, version)

    def verify(self, *, deep: bool = False, progress: Callable[[int, int], None] | None = None) -> Verification:
        """Check every object of the chain; with `deep`, rebuild every version over every edge as well.

        Args:
            deep: decode everything.
            progress: called with the number of checked edges, and of all.
        """
        own = self._reader  # what it remembers of manifests and layouts may no longer be what the store has
        fresh = Reader(
            own.store,
            chain=own.chain,
            memory=own.memory,
            threads=own.threads,
            sources=own.sources,
            listener=own.listener,
        )
        return verify(fresh, deep=deep, progress=progress)

    # -- writing --------------------------------------------------------------------------------------------------

    def publish(
        self,
        state: State | Mapping[str, NDArray[Any]] | str | os.PathLike[str],
        *,
        annotations: Mapping[str, str] | None = None,
        version: int | None = None,
        full: bool = False,
        plain: bool = False,
        source: str | None = None,
        values: Values = "step",
        order: Order = "natural",
        files: Mapping[str, bytes | Path] | None = None,
    ) -> Published:
        """Publish a state as the chain's next version.

        The first version is full; later ones are deltas to the newest. What was last published is kept in a cache
        folder of this machine, or rebuilt from the chain.

        Args:
            state: a state, a mapping of arrays, or the path of a safetensors file or Hugging Face folder; the small
                files of a folder (config.json …) are published with it.
            annotations: strings that say more of the version, such as {"step": "420"}.
            version: its number; by default the newest plus one.
            full: make a full version.
            plain: make a full version of a checkpoint's safetensors files as they stand.
            source: with `plain`, where the same files lie publicly ("hf://ORG/MODEL@COMMIT"); they are not copied then.
            values: "step" (smallest), or "replace" (applying twice is applying once).
            order: "natural" (fastest), or "exponent" (smallest).
            files: the files to lay beside the weights of a state, by name; by default those of the newest version.

        Raises:
            ConflictError: a second writer has published this version.
            ValueError: arguments that do not go together.
        """
        annotations = {str(key): str(value) for key, value in (annotations or {}).items()}
        if isinstance(state, (str, os.PathLike)):
            checkpoint = open_checkpoint(state)
            if plain:
                return self._publish_plain(checkpoint, source, version, annotations)
            state = State(checkpoint.layout, checkpoint.words)
            if files is None and checkpoint.is_folder:
                files = checkpoint_files(checkpoint)
        if plain or source is not None:
            raise ValueError("`plain` publishes a checkpoint's files: name its path; `source` goes with it")
        if not isinstance(state, State):
            state = State.from_arrays(state)
        return self._publisher.publish(
            state, version=version, annotations=annotations, full=full, values=values, order=order, files=files
        )

    def _publish_plain(
        self, checkpoint: Checkpoint, source: str | None, version: int | None, annotations: Mapping[str, str] | None
    ) -> Published:
        return self._publisher.publish_plain(checkpoint, source=source, version=version, annotations=annotations)

    def __repr__(self) -> str:
        return self.log().table(f"chain {self.id} at {self.address}").text()

    def _repr_html_(self) -> str:
        return self.log().table(f"chain {self.id} at {self.address}").html()
