"""Importing: each version of a foreign folder becomes one of a chain, once it is proven."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic

from ..chain import Chain
from ..errors import ConflictError, MissingError, StoreError
from ..format.names import CHAIN
from ..live.watch import Pace
from ..read.history import Published
from ..state.checkpoint import open_checkpoint
from ..state.state import State
from ..stores import Store
from ..write.encoder import Order, Values
from .format import DOCUMENT, FORMAT, VERSION, Format, Found, Offer


@dataclass(frozen=True)
class Imported:
    """A version that was imported.

    Attributes:
        id: its name in the foreign format.
        base: the name of the version that it was a delta to; None for a full version.
        published: the version of the chain.
        seconds: how long reading and publishing took.
    """

    id: str
    base: str | None
    published: Published
    seconds: float


class Importer:
    """Imports the versions of a foreign folder into a chain, and goes on where an import ended.

    One thread uses it. The chain is made when the first version has been proven. Memory holds the newest state, and the
    next one while it is read.

    Args:
        format: of the folder.
        source: the folder.
        open_chain: opens the chain; with True, makes it if there is none. Raises MissingError if there is none.
        base: the checkpoint that the folder's versions begin with, where the folder has no full version.
        begin: the foreign name of `base`, or of the full version to begin with.
        order, values: how changed words are written.
        say: called with what the user has to know.

    Raises:
        ConflictError: the chain's newest version was not imported from this format; or the folder has another version
            than the one that was imported last.
        ValueError: a base without a name, where the format does not name it.
        TensorDeltaError: the chain's newest version cannot be read.

    Example:
        >>> store = open_store("hf://buckets/OWNER/NAME/deltas")                         # doctest: +SKIP
        >>> importer = Importer(Slime(), store, lambda create: td.open("run", create=create))  # doctest: +SKIP
        >>> [each.published.version for each in importer.all()]                          # doctest: +SKIP
        [0, 1, 2]
    """

    def __init__(
        self,
        format: Format,
        source: Store,
        open_chain: Callable[[bool], Chain],
        *,
        base: str | os.PathLike[str] | None = None,
        begin: str | None = None,
        order: Order = "natural",
        values: Values = "step",
        say: Callable[[str], object] = lambda text: None,
    ) -> None:
        self._format, self._source, self._open_chain = format, source, open_chain
        self._base, self._begin = base, begin
        self._order, self._values, self._say = order, values, say
        self._chain: Chain | None = None
        self._held: State | None = None
        self._after: str | None = None
        self._noted: set[str] = set()
        with suppress(MissingError):
            self._chain = open_chain(False)
        if self._chain is not None:
            self._resume(self._chain)
        self._start()

    def _resume(self, chain: Chain) -> None:
        """Find where the last import ended, and load its version."""
        newest = chain.newest()
        if newest is None:
            return
        annotations = chain.manifest(newest).annotations
        after = annotations.get(VERSION)
        if annotations.get(FORMAT) != self._format.name or after is None:
            raise ConflictError(
                f"its version {newest} was not imported from {self._format.name}, so that its base is not known there",
                object=chain.address,
                rule=self._format.appendix,
                advice="Import into a chain of its own; or publish that version with the annotations "
                f"{FORMAT}={self._format.name} and {VERSION}=NAME.",
            )
        self._after = after
        self._held = chain.load(newest)
        self._check_run(annotations.get(DOCUMENT))

    def _check_run(self, document: str | None) -> None:
        """Check that the folder still has the version that was imported last, where it has one of that name.

        Raises:
            ConflictError: it has another one: another run has taken the folder.
        """
        if document is None or self._after is None:
            return
        with suppress(MissingError):
            if self._format.offer(self._source, self._after).document != document:
                raise ConflictError(
                    f"has another version {self._after} than the one that was imported: another run has taken it",
                    object=self._source.address,
                    rule=self._format.appendix,
                    advice="Import that run into a chain of its own.",
                )

    @property
    def after(self) -> str | None:
        """The foreign name of the version that was imported last; None for none."""
        return self._after

    def look(self) -> Found:
        """What can be imported now; all documents are read and checked.

        Raises:
            TensorDeltaError: one breaks the format, or versions do not follow one another.
        """
        found = self._format.find(self._source, self._start(), self._begin)
        for note in found.notes:
            if note not in self._noted:
                self._noted.add(note)
                self._say(note)
        return found

    def _start(self) -> str | None:
        if self._after is None and self._base is not None:
            begin = self._begin or self._format.first_base()
            if begin is None:
                raise ValueError(f"the version of --base needs its name in {self._format.name}: --from NAME")
            return begin
        return self._after

    def take(self, offer: Offer) -> Imported:
        """Read, prove and publish one version.

        Raises:
            TensorDeltaError: it is not what it says, and nothing was published.
        """
        started = time.perf_counter()
        state = offer.apply(self._held)
        files = offer.files() if offer.base is None else {}
        annotations = {FORMAT: self._format.name, VERSION: offer.id, DOCUMENT: offer.document}
        published = self._publish(state, annotations, offer.number, files or None)
        self._held, self._after = state, offer.id
        return Imported(offer.id, offer.base, published, time.perf_counter() - started)

    def take_base(self) -> Imported | None:
        """Publish the base, if there is one to publish."""
        start = self._start()
        if self._base is None or self._after is not None or start is None:
            return None
        started = time.perf_counter()
        open_checkpoint(self._base)  # no chain is made for a checkpoint that cannot be read
        annotations = {FORMAT: self._format.name, VERSION: start}
        number = int(start) if start.isascii() and start.isdigit() else None
        published = self._publish(self._base, annotations, number, None)
        assert self._chain is not None
        self._held, self._after = self._chain.load(published.version), start
        return Imported(start, None, published, time.perf_counter() - started)

    def _publish(
        self,
        state: State | str | os.PathLike[str],
        annotations: dict[str, str],
        number: int | None,
        files: Mapping[str, bytes] | None,
    ) -> Published:
        if self._chain is None:
            self._chain = self._open_chain(True)
        newest = self._chain.newest()
        version = number if number is not None and (newest is None or number > newest) else None
        return self._chain.publish(
            state,
            annotations=annotations,
            version=version,
            layout_change=True,  # a delta keeps its base's layout, and a full version says all tensors
            values=self._values,
            order=self._order,
            files=files,
        )

    def all(self) -> Iterator[Imported]:
        """Import what is there.

        Raises:
            MissingError: nothing is there; or the folder's last version is not committed, after the others came.
            TensorDeltaError: see `look` and `take`.
        """
        found = self.look()
        if self._after is None and self._base is None and not found.offers and found.unfinished is None:
            raise MissingError(
                f"has no version of the format {self._format.name}",
                object=self._source.address,
                rule=self._format.appendix,
                advice="Name the folder in which the versions' folders or files lie.",
            )
        yield from self._take_all(found, None)
        if found.unfinished is not None:
            raise found.unfinished

    def follow(
        self, *, poll: float = 1.0, timeout: float | None = None, stop: threading.Event | None = None
    ) -> Iterator[Imported]:
        """Import what is there, and each version that is committed later.

        Args:
            poll: approximate seconds between two looks; up to four times that while nothing appears.
            timeout: seconds without a new version before `TimeoutError`; None waits for ever.
            stop: ends the iteration when set.

        Raises:
            TimeoutError: no version appeared in time.
            StoreError: the store kept failing until the time was up.
            TensorDeltaError: see `look` and `take`; what was imported before stays.
        """
        stop = stop or threading.Event()
        pace, since = Pace(poll), monotonic()
        while not stop.is_set():
            failure: StoreError | None = None
            try:
                for imported in self._take_all(self.look(), stop):
                    yield imported
                    pace.news()
                    since = monotonic()
                pause = pace.idle()
            except StoreError as error:
                failure, pause = error, pace.failed()
            if timeout is not None:
                left = since + timeout - monotonic()
                if left <= 0:
                    raise failure or TimeoutError(f"no version after {self._after} appeared within {timeout:g} seconds")
                pause = min(pause, left)
            stop.wait(pause)

    def _take_all(self, found: Found, stop: threading.Event | None) -> Iterator[Imported]:
        base = self.take_base()
        if base is not None:
            yield base
        if found.offers and self._chain is not None and self._after is not None:
            newest = self._chain.newest()
            self._check_run(None if newest is None else self._chain.manifest(newest).annotations.get(DOCUMENT))
        for offer in found.offers:
            if stop is not None and stop.is_set():
                return
            yield self.take(offer)


def is_chain(store: Store) -> bool:
    """True where a store is a chain, not a foreign folder."""
    return store.size(CHAIN) is not None
