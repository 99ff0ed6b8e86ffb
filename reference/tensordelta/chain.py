"""The class that users work with (SPEC.md sections 4, 9 and 11)."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar, overload

from numpy.typing import NDArray

from .checkout.checkout import Checkout, Pulled
from .codecs.fingerprint import U64
from .errors import MissingError, StoreError
from .explore.questions import Questions
from .explore.version import Version
from .format.chunk_codec import Piece
from .format.keys import SecretKey
from .format.layout import Layout
from .format.layout_change import LayoutChange
from .format.manifest import Manifest
from .format.names import CHAIN, MANIFESTS
from .keep.collect import Collected, collect
from .keep.pins import Pin, pin, read_pins, unpin
from .keep.policy import Policy
from .live.caretaker import Upkeep
from .live.follow import follow, follow_folder
from .live.publisher import BackgroundPublisher
from .live.watch import Watch, pursue
from .read import history, part, slices
from .read.history import Published
from .read.reader import Reader
from .read.routes import Plan
from .read.trust import Trust
from .read.verify import Verification, verify
from .state.arrays import ArrayStates
from .state.checkpoint import open_checkpoint
from .state.folder import LeftOut
from .state.frameworks import ArraysLike
from .state.holder import Holder
from .state.slice_update import SliceUpdate
from .state.state import State
from .state.update import Update
from .stores.cache import PackCache
from .threads import Lock
from .write.commit import Files
from .write.draft import Draft
from .write.encoder import Codecs, Order, Values
from .write.keys import SecretKeyLike, secret_key
from .write.plain_packs import checkpoint_files
from .write.publish import Publisher, Tip, tensor_fingerprints
from .write.shards import LayoutLike
from .write.shortcut import make_shortcut
from .write.signing import Signer, sign_chain
from .write.writer import Writer

T = TypeVar("T")


class Chain(Questions):
    """A chain of versions: publish to it, load from it, follow it, ask it. Made by `open`.

    Several threads may use one object: they read, make shortcuts and commit drafts in parallel, and publish one after
    another. A state may be used by one thread at a time; `prepare` only reads it. Processes have objects of
    their own: a pickled chain is opened again where it arrives, unless it has a secret key, or options of a store that
    may have credentials, which raise TypeError. A forked child may use a chain in a folder or on the Hub; one in an
    object store raises RuntimeError there, where the parent has used it.
    A chain has one writer; a second one that publishes at the same moment gets a `ConflictError`.
    """

    def __init__(self, reader: Reader, signer: Signer | None = None, *, made: bytes | None = None) -> None:
        self._reader = reader
        self._signer = signer
        self._made = made  # the bytes of chain.json, if this object has just created it
        self._publishing = Lock(threading.RLock)
        self._signing = Lock()
        self._signers: dict[SecretKey, Publisher] = {}
        self._arrays = ArrayStates()

    def __reduce__(self) -> tuple[object, ...]:
        """A chain travels as what it was opened with, but no key or credentials; the other process connects anew."""
        return Chain, (self._reader, self._signer)

    @cached_property
    def _writer(self) -> Writer:
        """The writer, whose own reader may go from any version to any other."""
        return Writer(self._reader.unbound(), self._signer)

    @cached_property
    def _publisher(self) -> Publisher:
        return Publisher(self._writer, self._publishing)

    @property
    def id(self) -> str:
        """The chain id: a UUID that names the run."""
        return self._reader.chain

    @property
    def address(self) -> str:
        """The address of its store."""
        return self._reader.store.address

    @property
    def threads(self) -> int:
        """How many chunks are coded at once."""
        return self._reader.threads

    @property
    def allow_rollback(self) -> bool:
        """Whether a version may be older than one held before (TD-SIG-005); always True without trusted keys.

        Set it to go back on purpose; without trusted keys setting it has no effect.
        """
        return self._reader.trust is None or self._reader.trust.allow_rollback

    @allow_rollback.setter
    def allow_rollback(self, allowed: bool) -> None:
        if self._reader.trust is not None:
            self._reader.trust.allow_rollback = allowed

    # -- versions -------------------------------------------------------------------------------------------------

    def versions(self) -> list[int]:
        """The versions that exist, ascending; with trusted keys, only signed ones, which reads all manifests."""
        return list(self._reader.documents.signed(self._reader.documents.versions()))

    def newest(self) -> int | None:
        """The newest version, or None if there is none; with trusted keys, the newest signed one."""
        return self._reader.documents.newest()

    def manifest(self, version: int | None = None) -> Manifest:
        """A version's manifest, by default the newest's. Raises MissingError if there is no such version."""
        return self._reader.documents.manifest(self._reader.target(version))

    def layout(self, version: int | None = None) -> Layout:
        """A version's tensors, by default the newest's. Raises MissingError if there is no such version."""
        return self._reader.documents.layout(self.manifest(version).layout)

    def layout_change(self, version: int | None = None) -> LayoutChange | None:
        """How a version's tensors, by default the newest's, differ from those of the version before.

        Returns:
            None where they do not, or where there is no version before.

        Raises:
            MissingError: no such version.
            TensorDeltaError: a manifest or layout of the two cannot be read.
        """
        return history.layout_change(self._reader, self._reader.target(version))

    def tensor_fingerprints(self, version: int | None = None) -> U64:
        """Fingerprint of each tensor of a version, by default the newest: uint64, in the order of its layout.

        A version whose manifest does not name them is loaded and scanned.

        Raises:
            MissingError: no such version.
            TensorDeltaError: its fingerprints object is missing or damaged; or it cannot be loaded.
        """
        return tensor_fingerprints(self._reader, self.manifest(version))

    def at(self, **annotations: object) -> int:
        """The newest version with these annotations, such as `at(step=420)`.

        Raises:
            MissingError: there is none.
        """
        wanted = {key: str(value) for key, value in annotations.items()}
        documents = self._reader.documents
        for version in documents.signed(documents.versions()[::-1]):
            if wanted.items() <= documents.manifest(version).annotations.items():
                return version
        raise MissingError(
            f"no version is annotated {wanted}",
            object=MANIFESTS,
            rule="TD-OBJ-008",
            advice="`log` lists the versions and their annotations.",
        )

    def wait(self, version: int | None = None, *, timeout: float | None = None, poll: float = 0.2) -> int:
        """Wait until a version exists, or a newer one.

        Args:
            version: the version to wait for; by default the one after the newest.
            timeout: seconds; None waits for ever.
            poll: approximate seconds between two looks; up to four times that while nothing is published.

        Returns:
            `version`, or the newest version if none was given.

        Raises:
            TimeoutError: it did not appear in time.
            StoreError: the store kept failing until the time was up.
            ConflictError, MissingError: the chain was replaced by another one, or removed.
        """
        known = self.newest() if version is None else version - 1 if version > 0 else None
        try:
            watch = Watch(self._reader)
            newest = next(pursue(watch, int, known=lambda: known, poll=poll, timeout=timeout, until=None, stop=None))
        except TimeoutError:
            least = 0 if known is None else known + 1
            reason = f"did not appear within {timeout:g} seconds; the newest is {self.newest()}"
            raise TimeoutError(f"version {least} {reason}") from None
        return newest if version is None else version

    # -- reading --------------------------------------------------------------------------------------------------

    def plan(self, version: int | None = None, base: int | None = None) -> Plan:
        """The route that a reader would take, and its cost; only manifests are read (SPEC.md section 10).

        Args:
            version: where it ends, by default the newest.
            base: the version that the reader holds; by default nothing.

        Raises:
            MissingError: no such version, or no route to it.
            TensorDeltaError: every route failed; the error of the first one.
        """
        return self._reader.plan(self._reader.target(version), base)

    def load(self, version: int | None = None) -> State:
        """A version's state in memory, by default the newest.

        Raises:
            MissingError: no such version, or no route to it.
            TensorDeltaError: every route failed; the error of the first one.
        """
        return self._reader.load(version)

    def identify(self, state: Holder) -> int:
        """Find the version that a state is whose words lie in the tensors of an engine, by reading every word.

        The state remembers it then; where it remembers one already, that is proven. Where several ranks have the state
        together, all of them call this.

        Args:
            state: such as a `tensordelta.torch.DeviceState`.

        Returns:
            The version.

        Raises:
            WrongBaseError: the words are those of none of the newest 128 versions; some are missing, or ranks differ.
        """
        return slices.identify(self._reader, state)

    @overload
    def prepare(self, state: State | Mapping[str, NDArray[Any]], version: int | None = None) -> Update: ...

    @overload
    def prepare(self, state: Holder, version: int | None = None, *, without: Collection[str] = ()) -> SliceUpdate: ...

    def prepare(
        self,
        state: State | Holder | Mapping[str, NDArray[Any]],
        version: int | None = None,
        *,
        without: Collection[str] = (),
    ) -> Update | SliceUpdate:
        """Fetch, check and decode the update that takes a state to a version; the state is only read.

        If the state remembers no version of this chain, and is none of the newest 128, it is read from nothing.

        Args:
            state: a `State`, or a mapping of names to C-contiguous arrays, which `apply` writes to; or a
                `tensordelta.torch.DeviceState`, which `identify` knows.
            version: the target, by default the newest.
            without: for an engine's state: names of manifests and shortcuts that failed in another rank.

        Raises:
            WrongBaseError: the state's words are not those of the version that it was.
            MissingError: no such version, or no route to it.
            TensorDeltaError: every route failed; the error of the first one.
            ValueError: no arrays, arrays that are not C-contiguous and little-endian, or that share memory.
        """
        if isinstance(state, Holder):
            return slices.prepare(self._reader, state, version, without=without)
        if not isinstance(state, State):
            state = self._arrays.over(state)
        return self._reader.prepare(state, version)

    def load_part(self, tensors: Iterable[str], version: int | None = None, *, held: State | None = None) -> State:
        """Some tensors of a version, read only from the packs that have words of them.

        Args:
            tensors: their names; the result lacks those that the version does not have.
            version: the version, by default the newest.
            held: the same tensors of an older version, to start from; it is not changed.

        Raises:
            MissingError: no such version, or no route.
            UnsupportedError: these tensors cannot be checked, or not decoded, without others.
            WrongBaseError: the words of `held` are not those of its version.
            TensorDeltaError: every route failed; the error of the first one.
        """
        return part.load_part(self._reader, self._reader.target(version), frozenset(tensors), held)

    def pull(self, folder: str | os.PathLike[str], version: int | None = None, *, scan: bool | None = None) -> Pulled:
        """Bring a folder that an engine can load to a version, by default the newest (see `Checkout.pull`)."""
        return Checkout(folder).pull(self._reader, version, scan=scan)

    @overload
    def follow(
        self,
        state: State | Mapping[str, NDArray[Any]],
        *,
        poll: float = ...,
        timeout: float | None = ...,
        until: int | None = ...,
        stop: threading.Event | None = ...,
        one_by_one: bool = ...,
    ) -> Iterator[Update]: ...

    @overload
    def follow(
        self,
        state: Holder,
        *,
        poll: float = ...,
        timeout: float | None = ...,
        until: int | None = ...,
        stop: threading.Event | None = ...,
        one_by_one: bool = ...,
    ) -> Iterator[SliceUpdate]: ...

    def follow(
        self,
        state: State | Holder | Mapping[str, NDArray[Any]],
        *,
        poll: float = 1.0,
        timeout: float | None = None,
        until: int | None = None,
        stop: threading.Event | None = None,
        one_by_one: bool = False,
    ) -> Iterator[Update] | Iterator[SliceUpdate]:
        """Updates to newer versions as they are published (SPEC.md sections 4.11 and 9.3).

        Each leads from the present state to the newest version, so versions between two looks are skipped unless
        `one_by_one` is set. Apply it before asking for the next one. A look costs one small request. Requests are
        repeated while the store fails; if a collector removed the route, another one is planned.

            for update in chain.follow(state):
                update.apply()

        Args:
            state: see `prepare`. A state that is no version of this chain gets an update to the newest at once.
            poll: approximate seconds between two looks; up to four times that while nothing is published, and up to 30
                seconds while the store fails.
            timeout: seconds without a newer version before `TimeoutError`; None waits for ever.
            until: the version at which the iteration ends.
            stop: ends the iteration when set, by another thread or a signal handler.
            one_by_one: see `Follower`.

        Raises:
            TimeoutError: no newer version was published in time.
            StoreError: the store kept failing until the time was up.
            ConflictError: the chain was replaced by another one.
            WrongBaseError: the state's words are not those of the version that it was.
            MissingError: the newest version cannot be read, and no newer one appeared; or the chain was removed.
            TensorDeltaError: every route failed; the error of the first one.
            ValueError: as for `prepare`; or a negative time.
        """
        own = state if isinstance(state, State | Holder) else self._arrays.over(state)
        prepare: Callable[[int], Any] = partial(self.prepare, own)
        return follow(
            self._reader, own, prepare, poll=poll, timeout=timeout, until=until, stop=stop, one_by_one=one_by_one
        )

    def follow_folder(
        self,
        folder: str | os.PathLike[str],
        *,
        poll: float = 1.0,
        timeout: float | None = None,
        until: int | None = None,
        stop: threading.Event | None = None,
        scan: bool | None = None,
    ) -> Iterator[Pulled]:
        """Keep a folder that an engine can load at the newest version; yields the result of each pull.

        The first result is for the version that the folder holds then; its route is empty if nothing was pulled.

        Args:
            folder, scan: see `pull`.
            poll, timeout, until, stop: see `follow`.

        Raises:
            TimeoutError, StoreError, ConflictError, MissingError, ValueError: see `follow`.
            TensorDeltaError: see `Checkout.pull`; the folder is unchanged.
        """
        return follow_folder(self._reader, folder, poll=poll, timeout=timeout, until=until, stop=stop, scan=scan)

    def pursue(
        self,
        go: Callable[[int], T | None],
        *,
        known: Callable[[], int | None],
        passing: Callable[[Exception], bool] = lambda error: isinstance(error, StoreError),
        poll: float = 1.0,
        timeout: float | None = None,
        until: int | None = None,
        stop: threading.Event | None = None,
    ) -> Iterator[T]:
        """Call a function with the newest version, again and again: for engines that take versions in their own way.

        Args:
            go: goes to a version, and returns the outcome, which is yielded; None if nothing had to be done after all.
            known: the version where the engine is; None if at none. Asked before each look.
            passing: says of an error of `go`, or of a look, whether trying again may help.
            poll, timeout, until, stop: see `follow`.

        Raises:
            TimeoutError, StoreError, ConflictError, MissingError, ValueError: see `follow`.
            Exception: raised by `go`, and not passing, or raised until the time was up.
        """
        return pursue(
            Watch(self._reader),
            go,
            known=known,
            passing=passing,
            poll=poll,
            timeout=timeout,
            until=until,
            stop=stop,
        )

    def verify(self, *, deep: bool = False, progress: Callable[[int, int], None] | None = None) -> Verification:
        """Check every object of the chain; with `deep`, rebuild every version over every edge as well.

        With trusted keys, missing and bad signatures are faults, and so is a newest version that is too old.

        Args:
            deep: decode everything.
            progress: called with the number of checked edges and the number of all edges.
        """
        # Cached packs may differ from those of the store.
        with PackCache.private() if self._reader.store.remote else nullcontext() as cache:
            return verify(self._fresh(cache), deep=deep, progress=progress)

    def _fresh(self, cache: PackCache | None = None) -> Reader:
        """A reader without cached manifests and layouts, which may differ from those of the store by now."""
        trust = self._reader.trust
        return self._reader.trusting(
            None if trust is None else trust.unbound(max_age=trust.max_age, remembered=trust.remembered), cache=cache
        )

    # -- writing --------------------------------------------------------------------------------------------------

    def publish(
        self,
        state: State | ArraysLike | str | os.PathLike[str],
        *,
        annotations: Mapping[str, str] | None = None,
        version: int | None = None,
        full: bool = False,
        layout_change: bool = False,
        plain: bool = False,
        source: str | None = None,
        values: Values = "step",
        order: Order = "natural",
        files: Mapping[str, bytes | Path] | None = None,
        key: SecretKeyLike | None = None,
    ) -> Published:
        """Publish a state as the chain's next version.

        The first version is full; later ones are deltas to the newest. The last published state is kept in a cache
        folder of this machine, and rebuilt from the chain if it is not there.

        Args:
            state: a state; arrays or torch tensors by name, as a mapping or in pairs; or the path of a safetensors file
                or a Hugging Face folder, or `hf://ORG/MODEL[@REVISION]`, whose small files (config.json …) are
                published with it. The result's `left_out` says what else the folder holds: other weights, hidden
                files, logs, chains …
            annotations: information about the version, such as {"step": "420"}.
            version: its number; by default the newest plus one.
            full: make a full version.
            layout_change: it may drop, add, retype or reshape tensors of the version before. Otherwise that is an
                error, because the wrong model would be published; of a full version, too.
            plain: make a full version of unchanged copies of a checkpoint's safetensors files.
            source: with `plain`, where these files are public ("hf://ORG/MODEL@COMMIT"); then they are not copied.
            values: "step" (smallest), or "replace" (may be applied twice).
            order: "natural" (fastest), or "exponent" (smallest).
            files: the files to publish with a state, by name; by default those of the newest version.
            key: the secret key to sign with; by default that of `open`. A delta is made to the newest version that this
                key or a trusted one signed.

        Raises:
            ConflictError: another writer has published this version; or the state has other tensors than the version
                before, and `layout_change` is not set.
            MissingError: no such checkpoint, or one of several files of it is missing.
            MalformedError, UnsupportedError, LimitError: not a checkpoint; a folder of which loaders would take
                different weights, or whose index does not agree with its files; or what the format cannot hold.
            IntegrityError: another process wrote to the checkpoint's files meanwhile.
            UntrustedError: there is a key, and the chain, or a version of this number, is not signed by it or a
                trusted one; `sign` signs them.
            ImportError: there is a key, and the package for signatures is not installed.
            ValueError: arguments that do not go together, or a key that is not valid.
        """
        publisher = self._publisher if key is None else self._publisher_with(secret_key(key))
        annotations = {str(key): str(value) for key, value in (annotations or {}).items()}
        left_out: Sequence[LeftOut] = ()
        taken: Files | None = files
        if isinstance(state, (str, os.PathLike)):
            checkpoint = open_checkpoint(state)
            left_out = tuple(checkpoint.left_out)
            if plain:
                published = publisher.publish_plain(
                    checkpoint, source=source, version=version, annotations=annotations, layout_change=layout_change
                )
                return replace(published, left_out=left_out)
            state = State(checkpoint.layout, checkpoint.words)
            if files is None and checkpoint.is_folder:
                taken = checkpoint_files(checkpoint)
        if plain or source is not None:
            raise ValueError("`plain` publishes a checkpoint's files: name its path; `source` goes with it")
        if not isinstance(state, State):
            state = state.load() if isinstance(state, Version) else State.from_arrays(state)
        published = publisher.publish(
            state,
            version=version,
            annotations=annotations,
            full=full,
            layout_change=layout_change,
            values=values,
            order=order,
            files=taken,
        )
        return replace(published, left_out=left_out)

    def tip(self) -> Tip | None:
        """The newest version, to which `publish_pieces` makes a delta; None if there is none.

        Raises:
            TensorDeltaError: its manifest, layout or fingerprints cannot be read.
            ValueError: the chain was opened with trusted keys and no key to sign with.
        """
        return self._publisher.tip()

    def publish_pieces(
        self,
        pieces: Iterable[Piece],
        base: Tip | None,
        layout: Layout | None = None,
        *,
        annotations: Mapping[str, str] | None = None,
        layout_change: bool = False,
        values: Values = "step",
        files: Mapping[str, bytes | Path] | None = None,
        go_on: Callable[[bool], None] = lambda committing: None,
    ) -> tuple[Published, Tip]:
        """Publish the next version from its changed words, for trainers that find these by themselves.

        Nothing but the changed words is read, and the caller vouches for them: old words that are not the base's make a
        version that no reader accepts. The copy of the newest version in the cache folder is not used, and stays as it
        is until the next `publish`.

        Args:
            pieces: the changed words, taken lazily: sorted by dtype, tensor (its index in the layout) and start,
                without overlap, each of at most 8 MiB of its tensor.
            base: the newest version, of `tip` or of the call before; None for a full version.
            layout: of a full version, whose pieces have no old words.
            annotations, layout_change, values, files: see `publish`.
            go_on: called with False before each pack is put, and with True when only the manifest is left to create.
                What it raises ends publishing, and nothing of the version becomes visible.

        Returns:
            The version, and the base of the next one.

        Raises:
            ConflictError: `base` is not the newest version, or another writer was faster; or a full version has other
                tensors than the newest one, and `layout_change` is not set.
            ValueError: pieces that the layout cannot have, or out of order; or neither a base nor a layout.
            StoreError: the store failed. Whether the version exists is not known then: `tip` tells.
        """
        return self._publisher.publish_pieces(
            pieces,
            base,
            layout,
            annotations={str(key): str(value) for key, value in (annotations or {}).items()},
            layout_change=layout_change,
            values=values,
            files=files,
            go_on=go_on,
        )

    def publisher(
        self,
        *,
        keep: int | None = None,
        full_every: int | None = None,
        skip: Iterable[int] = (8, 64),
        queue: int = 1,
        order: Order = "natural",
        values: Values = "step",
        files: Mapping[str, bytes | Path] | None = None,
        layout_change: bool = False,
        grace: float | None = None,
    ) -> BackgroundPublisher:
        """Publish in the background: `submit` copies a state and returns, a thread publishes it.

            with chain.publisher() as publisher:
                for step in steps:
                    train()
                    publisher.submit(weights, annotations={"step": step})

        Shortcuts are made while no state waits: the requested ones, and a full one whenever the deltas since the last
        full version have become larger than a full one. For them the cache folder holds two copies of the model for
        each length of `skip`, and one for full shortcuts.

        Args:
            keep: how many of the newest versions are kept, with those over which they are rebuilt; by default all.
            full_every: each version whose number this divides gets a full shortcut.
            skip: each version whose number one of these divides gets a shortcut from so many versions before.
            queue: how many states may wait; a newer one replaces the one that has waited longest, so versions are
                skipped if the store is slower than the trainer. Memory holds one state more than these.
            order, values, files: see `publish`.
            layout_change: see `publish`; for all states that are submitted. Without it, a state with other tensors than
                the newest version fails, which the next call raises, and the chain stays as it is.
            grace: see `collect`. With 0, publishing and collecting take turns.

        Raises:
            ValueError: a number that is not valid; or the chain was opened with trusted keys and without a key.
        """
        self._writer.check_signer()
        upkeep = Upkeep(keep, full_every, tuple(skip), grace)
        return BackgroundPublisher(
            self,
            self._publisher.publish,
            upkeep,
            queue=queue,
            values=values,
            order=order,
            files=files,
            layout_change=layout_change,
            threads=self._reader.threads,
        )

    def _publisher_with(self, key: SecretKey) -> Publisher:
        with self._signing:
            if key not in self._signers:
                own = self._reader
                signer = Signer(own.store, key)
                if self._made is not None:
                    signer.sign(CHAIN, self._made)
                trust = Trust(()) if own.trust is None else own.trust
                reader = own.trusting(trust.unbound(key.public, threshold=1))
                self._signers[key] = Publisher(Writer(reader, signer), self._publishing)
            return self._signers[key]

    def sign(self, key: SecretKeyLike, versions: Iterable[int] | None = None) -> list[str]:
        """Sign an existing chain, its versions, and the shortcuts to them (SPEC.md section 14).

        Only these objects are checked; `verify(deep=True)` checks what they name. In a chain opened with trusted keys,
        only objects that one of these has signed are signed, with a new key for instance.

        Args:
            key: the secret key: 64 hex digits, the path of a file, or bytes.
            versions: which; by default all.

        Returns:
            Names of the objects that this key had not signed before.

        Raises:
            MissingError: no such version.
            UntrustedError: there are trusted keys, and an object is signed by none of them.
            TensorDeltaError: an object breaks a rule; nothing was signed.
            StoreError: the store failed.
            ImportError: the package for signatures is not installed.
            ValueError: the key is not valid.
        """
        return sign_chain(self._reader, secret_key(key), versions)

    def draft(
        self,
        layout: LayoutLike | None = None,
        *,
        version: int | None = None,
        full: bool = False,
        layout_change: bool = False,
    ) -> Draft:
        """Open a draft of the next version, which many ranks write together (SPEC.md section 11.3).

        This writes nothing. Give `to_json()` to the ranks: each joins, encodes the words that it owns, and returns a
        descriptor; then `commit` all descriptors here, within four fifths of the chain's grace period.

        Args:
            layout: the version's tensors: a `Layout`, a state, or a mapping of names to arrays or to pairs such as
                ("BF16", (4096, 4096)); by default those of the newest version.
            version: its number; by default the newest plus one. The number of a committed draft opens that draft again.
            full: make a full version, not a delta to the newest one.
            layout_change: see `publish`.

        Raises:
            ConflictError: other tensors than those of the newest version, and `layout_change` is not set.
            TensorDeltaError: the newest version, to which the delta would be made, cannot be read.
            UnsupportedError: the draft drops tensors, and the newest version lacks the fingerprints of its tensors.
            ValueError: a version that is not greater than the newest, or no layout for a chain without versions.
        """
        return Draft.open(self._writer, layout, version=version, full=full, layout_change=layout_change)

    def join(self, draft: str | bytes) -> Draft:
        """Join a draft that a coordinator opened, on this machine or another.

        Args:
            draft: the result of its `to_json()`.

        Raises:
            ConflictError: it is for another chain.
            MissingError: the layout of the version before was deleted.
            MalformedError, UnsupportedError: it is no draft of this format.
        """
        return Draft.join(self._writer, draft)

    def shortcut(
        self,
        base: int | None,
        version: int,
        *,
        order: Order = "natural",
        values: Values = "step",
        tag: str = "",
        work: str | os.PathLike[str] | None = None,
    ) -> Published:
        """Make a shortcut to an existing version, from an older version or from nothing (SPEC.md section 11.4).

        Both states are pulled to disk and mapped, so that memory is bounded. A shortcut with the same states that
        exists already is left as it is.

        Args:
            base: the version that it starts from; None for nothing, which makes the version loadable by itself.
            version: the version that it leads to.
            order, values: see `publish`.
            tag: up to 16 of a-z and 0-9, to distinguish encodings of one edge.
            work: a folder that keeps both states, so that a later call fetches less; by default a temporary one.

        Raises:
            MissingError: no such version, or no route to it.
            ConflictError: another shortcut has the name.
            UntrustedError: there are trusted keys, and a version, or a shortcut of this name, is not signed.
            ValueError: a base that is not older, a tag that is not valid, or codecs that do not go together; or the
                chain was opened with trusted keys and without a key.
        """
        return make_shortcut(self._writer, base, version, codecs=Codecs(values, order), tag=tag, work=work)

    # -- retention ------------------------------------------------------------------------------------------------

    def collect(
        self,
        keep_last: int,
        *,
        keep_every: int | None = None,
        keep: Iterable[int] = (),
        grace: float | None = None,
        dry_run: bool = False,
    ) -> Collected:
        """Drop versions; every version that is kept can be rebuilt, at any moment (SPEC.md section 13).

        Versions over which kept ones are rebuilt are kept as well, unless there is a full shortcut to the oldest wanted
        version. What a version names is deleted once the grace period has passed since it was dropped, by a later call,
        so that readers who saw it finish. The newest version is never dropped.

        Args:
            keep_last: how many of the newest versions are kept; at least 1.
            keep_every: versions that this number divides are kept as well.
            keep: other versions to keep.
            grace: seconds for which what was dropped can still be read, by the store's clock; by default, and at least,
                those of the chain. 0 says that nothing reads or writes the chain meanwhile: all is deleted at once.
            dry_run: only report; nothing is written, and ages are by this machine's clock.

        Raises:
            MissingError: a version in `keep` does not exist.
            TensorDeltaError: the manifest of a kept version cannot be read; nothing is deleted.
            ValueError: nothing would be kept, or a grace period shorter than the chain's.
            TimeoutError: the store is so slow that its listings are old when they are acted upon.
        """
        return collect(self._fresh(), Policy(keep_last, keep_every, frozenset(keep), grace), dry_run=dry_run)

    def pin(self, version: int, name: str, expires: int | None = None) -> Pin:
        """Keep a version from collectors, until `unpin` or for some seconds; repeat it to renew (SPEC.md section 13).

        Args:
            version: the version.
            name: the pin's name: up to 64 letters, digits and `. _ -`; a pin of the same name is replaced.
            expires: seconds until it expires, by the store's clock.

        Raises:
            MissingError: there is no such version, or a collector deleted it at the same moment.
            ValueError: the name is not valid.
        """
        return pin(self._reader, version, name, expires)

    def unpin(self, name: str) -> None:
        """Remove a pin.

        Raises:
            MissingError: no pin has this name.
        """
        unpin(self._reader, name)

    def pins(self) -> list[Pin]:
        """All pins, by name, including expired ones, but not those that break a rule, which `collect` reports."""
        return list(read_pins(self._reader).good)
