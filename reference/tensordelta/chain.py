"""Chains: the face of the package (SPEC.md sections 4, 9 and 11)."""

from __future__ import annotations

import os
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from .checkout.checkout import Checkout, Pulled
from .codecs.fingerprint import U64
from .codecs.words import to_array
from .errors import ConflictError, MissingError, UnsupportedError
from .events import Event
from .format import strict_json
from .format.chunk_codec import Piece
from .format.layout import Layout
from .format.manifest import Manifest
from .format.names import CHAIN, MANIFESTS, ChainDocument, now
from .format.signature import SecretKey
from .keep.collect import Collected, collect
from .keep.pins import Pin, pin, read_pins, unpin
from .keep.policy import GRACE, Policy
from .live.caretaker import Upkeep
from .live.follow import Watch, follow, follow_folder, pursue
from .live.publisher import BackgroundPublisher
from .read import part
from .read.history import History
from .read.plan import Plan, plan
from .read.published import Published
from .read.reader import Reader
from .read.sources import Sources
from .read.trust import Trust
from .read.verify import Verification, verify
from .state.checkpoint import open_checkpoint
from .state.state import State
from .state.update import Update
from .stores import Store, has_strangers, open_store
from .stores.cache import PackCache
from .write.draft import Draft
from .write.encoder import Codecs, Order, Values
from .write.keys import PublicKeyLike, SecretKeyLike, secret_key, trusted
from .write.plain_packs import checkpoint_files
from .write.publish import Publisher, Tip, tensor_fingerprints
from .write.shards import LayoutLike
from .write.shortcut import make_shortcut
from .write.signing import Signer, sign_chain
from .write.writer import Writer

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
    store_options: Mapping[str, Any] | None = None,
    trusted_keys: Iterable[PublicKeyLike] | Mapping[str, PublicKeyLike] | None = None,
    allow_rollback: bool = False,
    max_age: float | None = None,
    key: SecretKeyLike | None = None,
) -> Chain:
    """Open a chain.

    Args:
        address: a folder; `hf://buckets/OWNER/NAME[/PREFIX]`; `s3://BUCKET/PREFIX`, `gs://…` or `az://…`; or a store
            of your own (see `tensordelta.stores`).
        create: make a new chain where there is none.
        chain: the chain id that is expected there, if you know it.
        memory: bytes that reading may use; by default four fifths of the machine's memory.
        threads: how many chunks are coded at once; by default $TENSORDELTA_THREADS, or all cores.
        allow_sources: schemes of public sources from which packs may be taken, such as "hf".
        pack_folders: folders whose files, by whatever name, may be taken for packs that have the same bytes.
        on_event: called with each event; all are logged under "tensordelta" as well.
        store_options: options of the store at an address; see `tensordelta.stores.open_store`.
        trusted_keys: the Ed25519 public keys that have to have signed what is read (SPEC.md section 14), each as 64 hex
            digits, the path of a file, or bytes; a mapping where signature objects call them by names of their own.
            Versions without signature are passed over, and what was held before is never left for something older.
        allow_rollback: with trusted keys, a version may be older than one that was held before.
        max_age: with trusted keys, seconds that the newest version may be old.
        key: an Ed25519 secret key, likewise. What is published is signed, and what this key signed is trusted.

    Raises:
        MissingError: there is no chain, and `create` is not set.
        ConflictError: there is another chain than `chain`, or `create` meets a place of other contents.
        UntrustedError: the chain is not signed by a trusted key; `sign` signs what is there.
        StoreError: the store failed.
        OSError: the file of a key cannot be read.
        ImportError: the package that the address, or a signature, needs is not installed.
        ValueError: an address of a kind that this version does not know, or a key that is none.
    """
    secret = None if key is None else secret_key(key)
    trust = _trust(trusted_keys, secret, allow_rollback=allow_rollback, max_age=max_age)
    store = open_store(address, options=store_options)
    absent = (create or secret is not None) and store.size(CHAIN) is None
    strange = create and absent and has_strangers(store)
    signer = None if secret is None else Signer(store, secret)
    if signer is not None and not absent:
        signer.settle(CHAIN)
    made: bytes | None = None
    if create and absent:
        if strange:
            raise ConflictError(
                "has contents, but no chain",
                object=store.address,
                rule="TD-STO-010",
                advice="Name an empty folder or prefix, or one that does not exist; a chain has a place of its own.",
            )
        document = ChainDocument(strict_json.VERSION, chain or str(uuid.uuid4()), now())
        data = strict_json.encode(document)
        created = (signer or store).create(CHAIN, data)
        made = data if created else None  # if another writer was faster, its chain is opened
    sources = Sources(allow_sources, map(Path, pack_folders))
    reader = Reader(store, chain=chain, memory=memory, threads=threads, sources=sources, listener=on_event, trust=trust)
    return Chain(reader, signer, made=made)


def _trust(
    keys: Iterable[PublicKeyLike] | Mapping[str, PublicKeyLike] | None,
    secret: SecretKey | None,
    *,
    allow_rollback: bool,
    max_age: float | None,
) -> Trust | None:
    if keys is None and secret is None:
        if allow_rollback or max_age is not None:
            raise ValueError("going back and a maximal age go with trusted keys: nothing else proves what a store says")
        return None
    if max_age is not None and not max_age >= 0:
        raise ValueError(f"a version cannot be {max_age} seconds old")
    found = {} if keys is None else trusted(keys)
    if secret is not None:
        found[secret.public.id] = secret.public
    return Trust(found, allow_rollback=allow_rollback, max_age=max_age)


class Chain:
    """A chain of versions: publish to it, load from it, follow it. Made by `open`.

    Several threads may use one object: they read, make shortcuts and commit drafts at once, and publish one after
    another. A state is for one thread at a time, but for `prepare`, which only reads it. Processes open chains of their
    own; one writer owns a chain, and a second one that publishes at the same moment gets a `ConflictError`.
    """

    def __init__(self, reader: Reader, signer: Signer | None = None, *, made: bytes | None = None) -> None:
        self._reader = reader
        self._signer = signer
        self._made = made  # chain.json, where this very object has written it
        self._publishing = threading.Lock()
        self._signing = threading.Lock()
        self._signers: dict[SecretKey, Publisher] = {}
        self._over_arrays: deque[State] = deque(maxlen=_MAPPINGS)

    @cached_property
    def _writer(self) -> Writer:
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
        """Where it lies."""
        return self._reader.store.address

    @property
    def threads(self) -> int:
        """How many chunks are coded at once."""
        return self._reader.threads

    @property
    def allow_rollback(self) -> bool:
        """Whether a version may be older than one that was held before (TD-SIG-005); without trusted keys it may.

        Set it where a user means to go back; without trusted keys that changes nothing.
        """
        return self._reader.trust is None or self._reader.trust.allow_rollback

    @allow_rollback.setter
    def allow_rollback(self, allowed: bool) -> None:
        if self._reader.trust is not None:
            self._reader.trust.allow_rollback = allowed

    # -- what there is --------------------------------------------------------------------------------------------

    def versions(self) -> list[int]:
        """The versions that exist, ascending; with trusted keys, those that are signed."""
        return self._reader.versions()

    @property
    def newest(self) -> int | None:
        """The newest version, or None where there is none yet; with trusted keys, the newest that is signed."""
        return self._reader.newest()

    def manifest(self, version: int | None = None) -> Manifest:
        """A version's manifest, by default the newest's. Raises MissingError where there is no such version."""
        return self._reader.manifest(self._reader.target(version))

    def layout(self, version: int | None = None) -> Layout:
        """A version's tensors, by default the newest's. Raises MissingError where there is no such version."""
        return self._reader.layout(self.manifest(version).layout)

    def tensor_fingerprints(self, version: int | None = None) -> U64:
        """Fingerprint of each tensor of a version, by default the newest: uint64, in the order of its layout.

        A version whose manifest does not name them is loaded and scanned.

        Raises:
            MissingError: no such version.
            TensorDeltaError: its fingerprints object is missing or damaged; or it cannot be loaded.
        """
        return tensor_fingerprints(self._reader, self.manifest(version))

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
            object=MANIFESTS,
            rule="TD-OBJ-008",
            advice="`log` lists the versions and their annotations.",
        )

    def wait(self, version: int | None = None, *, timeout: float | None = None, poll: float = 0.2) -> int:
        """Wait until a version exists, or a newer one.

        Args:
            version: the version waited for; by default the one after the newest.
            timeout: seconds; None waits for ever.
            poll: seconds between two looks, about; up to four times that while nothing comes.

        Returns:
            `version`, or the newest version where none was given.

        Raises:
            TimeoutError: it did not appear in time.
            StoreError: the store failed until the time was up.
            ConflictError, MissingError: another chain has taken this one's place, or it was removed.
        """
        known = self.newest if version is None else version - 1 if version > 0 else None
        watch = Watch(self._reader, known)
        try:
            newest = next(pursue(watch, int, int, poll=poll, timeout=timeout, until=None, stop=None))
        except TimeoutError:
            least = 0 if known is None else known + 1
            reason = f"did not appear within {timeout:g} seconds; the newest is {self.newest}"
            raise TimeoutError(f"version {least} {reason}") from None
        return newest if version is None else version

    # -- reading --------------------------------------------------------------------------------------------------

    def plan(self, version: int | None = None, base: int | None = None) -> Plan:
        """The route that a reader would take, and what it costs; nothing but manifests is read (SPEC.md section 10).

        Args:
            version: where it ends, by default the newest.
            base: the version that the reader holds; by default nothing.

        Raises:
            MissingError: no such version, or no route to it.
            TensorDeltaError: the error of the route first chosen, when no other is left.
        """
        return plan(self._reader, self._reader.target(version), base)

    def load(self, version: int | None = None) -> State:
        """A version's state in memory, by default the newest.

        Raises:
            MissingError: no such version, or no route to it.
            TensorDeltaError: the error of the route first chosen, when no other is left.
        """
        return self._reader.load(version)

    def prepare(self, state: State | Mapping[str, NDArray[Any]], version: int | None = None) -> Update:
        """Fetch, check and decode the update that takes a state to a version; the state is only read.

        A state that is no version of this chain is made anew, over a route from nothing.

        Args:
            state: a `State`, or a mapping of names to contiguous arrays, which `apply` writes into.
            version: the target, by default the newest.

        Raises:
            WrongBaseError: the state is not the version that it remembers to be.
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
            words = part.read_tensors(self._reader, version, [name])[name]
        except UnsupportedError as fault:
            if fault.rule != "TD-RDR-013":
                raise
            return self._reader.load(version)[name]  # nothing can prove a part of this version
        layout = self._reader.layout(self._reader.manifest(version).layout)
        tensor = layout.tensors[layout.index[name]]
        return to_array(words, tensor.kind, tensor.shape)

    def load_part(self, tensors: Iterable[str], version: int | None = None, *, held: State | None = None) -> State:
        """Some tensors of a version, from the packs that touch them alone, for a reader that holds only these.

        Args:
            tensors: their names; those that the version lacks are not in the state.
            version: the version, by default the newest.
            held: the same tensors of an older version, to start from; it stays as it is.

        Raises:
            MissingError: no such version, or no route.
            UnsupportedError: the chain does not tell how to prove these tensors alone, or needs others for them.
            WrongBaseError: the tensors held are not those of the version that they are said to be.
            TensorDeltaError: the error of the route first chosen, when no other is left.
        """
        return part.load_part(self._reader, self._reader.target(version), frozenset(tensors), held)

    def pull(self, folder: str | os.PathLike[str], version: int | None = None) -> Pulled:
        """Bring a folder that an engine can load to a version, by default the newest (see `Checkout`)."""
        return Checkout(folder).pull(self._reader, version)

    def follow(
        self,
        state: State | Mapping[str, NDArray[Any]],
        *,
        poll: float = 1.0,
        timeout: float | None = None,
        until: int | None = None,
        stop: threading.Event | None = None,
    ) -> Iterator[Update]:
        """Updates to newer versions as they come (SPEC.md sections 4.11 and 9.3); apply one to go on from there.

        Each leads from the state as it is to the newest version of that moment, so that versions are passed over that
        came in between. A look for a newer one costs one small request. A store that fails is tried again; a reader
        whose route was collected plans again.

            for update in chain.follow(state):
                update.apply()

        Args:
            state: see `prepare`. A state that remembers no version of this chain gets an update to the newest at once.
            poll: seconds between two looks, about; up to four times that while nothing comes, and up to 30 seconds
                while the store fails.
            timeout: seconds without a newer version after which this gives up; None for never.
            until: the last version of interest; it ends there.
            stop: ends it when set, from another thread or a signal handler.

        Raises:
            TimeoutError: nothing came in time.
            StoreError: the store failed until the time was up.
            ConflictError: another chain has taken this one's place.
            WrongBaseError: the state is not the version that it remembers to be.
            MissingError: the newest version cannot be had, and no newer one came; or the chain was removed.
            TensorDeltaError: the error of the route first chosen, when no other is left.
            ValueError: as for `prepare`; or a negative time.
        """
        own = state if isinstance(state, State) else self._over(state)
        return follow(self._reader, own, poll=poll, timeout=timeout, until=until, stop=stop)

    def follow_folder(
        self,
        folder: str | os.PathLike[str],
        *,
        poll: float = 1.0,
        timeout: float | None = None,
        until: int | None = None,
        stop: threading.Event | None = None,
    ) -> Iterator[Pulled]:
        """Keep a folder that an engine can load at the newest version; tells of each version that it pulled.

        The first one tells what the folder holds, with an empty route where nothing was to do.

        Args:
            folder: see `pull`.
            poll, timeout, until, stop: see `follow`.

        Raises:
            TimeoutError, StoreError, ConflictError, MissingError, ValueError: see `follow`.
            TensorDeltaError: see `Checkout.pull`; the folder is as it was.
        """
        return follow_folder(self._reader, folder, poll=poll, timeout=timeout, until=until, stop=stop)

    def verify(self, *, deep: bool = False, progress: Callable[[int, int], None] | None = None) -> Verification:
        """Check every object of the chain; with `deep`, rebuild every version over every edge as well.

        With trusted keys, missing and bad signatures are faults, and so is a newest version that is too old.

        Args:
            deep: decode everything.
            progress: called with the number of checked edges, and of all.
        """
        with PackCache.private() as cache:  # the packs of this machine need not be those of the store
            return verify(self._fresh(cache), deep=deep, progress=progress)

    def _fresh(self, cache: PackCache | None = None) -> Reader:
        """A reader that remembers nothing: manifests and layouts may no longer be what the store has."""
        trust = self._reader.trust
        return self._reader.trusting(None if trust is None else trust.unbound(max_age=trust.max_age), cache=cache)

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
        key: SecretKeyLike | None = None,
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
            key: the secret key to sign with; by default that of `open`. What is there has to be signed by this key, or
                by a trusted one: a delta to a version that nobody vouches for is worth no signature.

        Raises:
            ConflictError: a second writer has published this version.
            UntrustedError: there is a key, and the chain or its newest version is not signed; `sign` signs them.
            ImportError: there is a key, and the package for signatures is not installed.
            ValueError: arguments that do not go together, or a key that is none.
        """
        publisher = self._publisher if key is None else self._publisher_with(secret_key(key))
        annotations = {str(key): str(value) for key, value in (annotations or {}).items()}
        if isinstance(state, (str, os.PathLike)):
            checkpoint = open_checkpoint(state)
            if plain:
                return publisher.publish_plain(checkpoint, source=source, version=version, annotations=annotations)
            state = State(checkpoint.layout, checkpoint.words)
            if files is None and checkpoint.is_folder:
                files = checkpoint_files(checkpoint)
        if plain or source is not None:
            raise ValueError("`plain` publishes a checkpoint's files: name its path; `source` goes with it")
        if not isinstance(state, State):
            state = State.from_arrays(state)
        return publisher.publish(
            state, version=version, annotations=annotations, full=full, values=values, order=order, files=files
        )

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
            annotations, values, files: see `publish`.
            go_on: called with False before each pack is put, and with True when only the manifest is left to create.
                What it raises ends publishing, and nothing of the version becomes visible.

        Returns:
            The version, and the base of the next one.

        Raises:
            ConflictError: `base` is not the newest version, or another writer was faster.
            ValueError: pieces that the layout cannot have, or out of order; or neither a base nor a layout.
            StoreError: the store failed. Whether the version exists is not known then: `tip` tells.
        """
        return self._publisher.publish_pieces(
            pieces, base, layout, annotations=annotations, values=values, files=files, go_on=go_on
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
        grace: float = GRACE,
    ) -> BackgroundPublisher:
        """Publish in the background: `submit` copies a state and returns, a thread publishes it.

            with chain.publisher() as publisher:
                for step in steps:
                    train()
                    publisher.submit(weights, annotations={"step": step})

        Shortcuts are made when nothing waits to be published: those asked for, and a full one whenever the deltas since
        the last full version have come to cost more than a full one. For them the cache folder holds two copies of the
        model for each length of `skip`, and one for full shortcuts.

        Args:
            keep: the newest so many versions stay, with what they are rebuilt over; by default all do.
            full_every: each version whose number this divides gets a full shortcut.
            skip: each version whose number one of these divides gets a shortcut from so many versions before.
            queue: how many steps may wait. A newer step takes the place of the one that waits longest, so that versions
                are left out where the store is slower than the trainer. One state more than these is held in memory.
            order, values, files: see `publish`.
            grace: seconds that everything stays after it was written; see `collect`. With less than an hour, publishing
                and collecting take turns.

        Raises:
            ValueError: numbers that make no sense; or the chain was opened with trusted keys and no key to sign with.
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
            threads=self._reader.threads,
        )

    def _publisher_with(self, key: SecretKey) -> Publisher:
        with self._signing:
            if key not in self._signers:
                own = self._reader
                signer = Signer(own.store, key)
                if self._made is not None and own.signature(CHAIN) is None:
                    signer.sign(CHAIN, self._made)
                trust = Trust({}) if own.trust is None else own.trust
                reader = own.trusting(trust.unbound(key.public))
                self._signers[key] = Publisher(Writer(reader, signer), self._publishing)
            return self._signers[key]

    def sign(self, key: SecretKeyLike, versions: Iterable[int] | None = None) -> list[str]:
        """Sign what is there already: the chain, its versions, and the shortcuts to them (SPEC.md section 14).

        Nothing is looked at but these objects themselves; `verify(deep=True)` proves what they name. In a chain opened
        with trusted keys only what these have signed is signed again, under a new key for instance.

        Args:
            key: the secret key: 64 hex digits, the path of a file, or bytes.
            versions: which; by default all.

        Returns:
            Names of the objects that have this key's signature now and had not.

        Raises:
            MissingError: no such version.
            UntrustedError: there are trusted keys, and something is not signed by one of them.
            TensorDeltaError: an object breaks a rule; nothing was signed.
            StoreError: the store failed.
            ImportError: the package for signatures is not installed.
            ValueError: no key.
        """
        return sign_chain(self._reader, secret_key(key), versions)

    def draft(self, layout: LayoutLike | None = None, *, version: int | None = None, full: bool = False) -> Draft:
        """Open a draft of the next version, which many ranks write together (SPEC.md section 11.3).

        Nothing is put. Give `to_json()` to the ranks: each joins, encodes the words that it owns, and sends back a
        descriptor; then `commit` all of them here. A collector's grace period has to be longer than that takes.

        Args:
            layout: the version's tensors: a `Layout`, a state, or a mapping of names to arrays or to pairs such as
                ("BF16", (4096, 4096)); by default those of the newest version.
            version: its number; by default the newest plus one. The number of a draft that was committed already opens
                the same draft again.
            full: make a full version, not a delta to the newest one.

        Raises:
            TensorDeltaError: the newest version cannot be read, to which the delta would be made.
            UnsupportedError: the newest version does not tell the fingerprints of its tensors, and loses some of them.
            ValueError: a version that is not greater than the newest, or no layout for a chain without versions.
        """
        return Draft.open(self._writer, layout, version=version, full=full)

    def join(self, draft: str | bytes) -> Draft:
        """Join a draft that a coordinator opened, maybe on another machine.

        Args:
            draft: what its `to_json()` gave.

        Raises:
            ConflictError: it is for another chain.
            MissingError: its layout, which is that of the version before, is gone.
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
        """Make another way to a version that exists: from an older version, or from nothing (SPEC.md section 11.4).

        The two states are pulled to disk and mapped, so that memory stays bounded. One that is there already with the
        same states at both ends is a success.

        Args:
            base: the version that it starts from; None for nothing, which makes the version loadable by itself.
            version: the version that it leads to.
            order: "natural" (fastest), or "exponent" (smallest).
            values: "step" (smallest), or "replace" (applying twice is applying once).
            tag: up to 16 of a-z and 0-9, to tell encodings of one edge apart.
            work: a folder that keeps both states, so that a later call has less to fetch; by default a temporary one.

        Raises:
            MissingError: no such version, or no route to it.
            ConflictError: another shortcut has the name.
            UntrustedError: there are trusted keys, and a version, or a shortcut of this name, is not signed.
            ValueError: a base that is not older, a tag that no name can have, or codecs that do not go together; or the
                chain was opened with trusted keys and no key to sign with.
        """
        return make_shortcut(self._writer, base, version, codecs=Codecs(values, order), tag=tag, work=work)

    # -- retention ------------------------------------------------------------------------------------------------

    def collect(
        self,
        keep_last: int,
        *,
        keep_every: int | None = None,
        keep: Iterable[int] = (),
        grace: float = GRACE,
        dry_run: bool = False,
    ) -> Collected:
        """Delete what is no longer wanted; every version that stays can be rebuilt, at any moment (section 13).

        Versions over which others are rebuilt stay as well; a full shortcut to the oldest one that is wanted lets them
        go. Nothing goes that is younger than the grace period, which has to be longer than a version takes from its
        first pack to its manifest.

        Args:
            keep_last: how many of the newest versions stay; at least 1.
            keep_every: versions that this number divides stay as well.
            keep: and these.
            grace: seconds that everything stays after it was written, by the store's clock.
            dry_run: only tell what would go. Then nothing is written, and ages are by this machine's clock.

        Raises:
            MissingError: a version that is to be kept does not exist.
            TensorDeltaError: the manifest of a version that stays cannot be read, or a pin breaks a rule; nothing went.
            ValueError: nothing would stay, or a negative time.
        """
        return collect(self._fresh(), Policy(keep_last, keep_every, frozenset(keep), grace), dry_run=dry_run)

    def pin(self, version: int, name: str, expires: int | None = None) -> Pin:
        """Have collectors keep a version, until `unpin`, or for some seconds; again renews it (SPEC.md section 13).

        Args:
            version: the version.
            name: the pin's: up to 64 letters, digits and `. _ -`; one that is there already is replaced.
            expires: seconds that it holds from now, by the store's clock.

        Raises:
            MissingError: there is no such version, or a collector took it in the same moment.
            ValueError: a name that no pin can have.
        """
        return pin(self._reader, version, name, expires)

    def unpin(self, name: str) -> None:
        """Remove a pin.

        Raises:
            MissingError: there is none of this name.
        """
        unpin(self._reader, name)

    def pins(self) -> list[Pin]:
        """The pins that are there, by name, expired ones included.

        Raises:
            MalformedError, UnsupportedError, LimitError: a pin breaks a rule (SPEC.md section 13).
        """
        return read_pins(self._reader)

    def __repr__(self) -> str:
        return self.log().table(f"chain {self.id} at {self.address}").text()

    def _repr_html_(self) -> str:
        return self.log().table(f"chain {self.id} at {self.address}").html()
