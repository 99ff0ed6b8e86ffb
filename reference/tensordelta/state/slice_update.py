"""Updates of a holder: prepared alone, proven together with the other holders of the state, and scattered."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

import numpy as np

from ..codecs import fingerprint
from ..codecs.fingerprint import U64
from ..errors import IntegrityError, StoreError, TensorDeltaError, WrongBaseError
from .group import Group, failure
from .holder import Holder, Write

_MASK = (1 << 64) - 1
#: What a holder adds to the sums that has no update.
_UNPREPARED = np.array([1, 0, 0, 0, 0, 0, 0], np.uint64)


class Totals(NamedTuple):
    """What one holder adds to four of the group's seven sums (SPEC.md section 9.5), mod 2^64.

    Attributes:
        listed: how many listed words of chunks it owns, less those of the chunks that it answers for.
        change: the change of the state's fingerprint by words that it owns.
        result: the value of the listed words of chunks that it owns, less the results of those chunks.
        replicas: see `holder.Sums`, over the words after the update.
    """

    listed: int = 0
    change: int = 0
    result: int = 0
    replicas: int = 0

    def plus(self, other: Totals) -> Totals:
        """The sums of both."""
        return Totals(*(one + another for one, another in zip(self, other, strict=True)))


@dataclass(frozen=True)
class PreparedSlices:
    """What takes a holder to a version, decoded.

    Attributes:
        writes: the scatters.
        changed: words that they write, each counted once.
        totals: what it adds to the group's sums.
        restarted: True where the route has a full version: `totals` count from there, and the change is that from zero
            words.
        version, chain, digests: the version, its chain's id, the digest of its layout and its fingerprint.
        route: names of the manifests and shortcuts that were followed.
        packs: SHA-256 of each of their packs, in that order.
        size: bytes of the packs.
        seconds: how long preparing took.
        passed_over: the faults of edges that another route was taken for.
        dropped: names of the edges that no route was to have.
    """

    writes: Sequence[Write]
    changed: int
    totals: Totals
    restarted: bool
    version: int
    chain: str
    digests: tuple[str, str]
    route: tuple[str, ...]
    packs: tuple[str, ...]
    size: int
    seconds: float
    passed_over: tuple[TensorDeltaError | StoreError, ...] = ()
    dropped: tuple[str, ...] = ()


class SliceUpdate:
    """A prepared update of one holder: fetched, checked and decoded; `apply` is only the scatter.

    What the words of one holder cannot prove, the sums of all holders do: `agree` is called by all of them before
    `apply`. Several threads may use one object.

    Args:
        holder: for which it was prepared.
        prepared: what takes it to the version.
        generation: the holder's, when preparing began.
        on_applied: called after each `apply` with the update and the seconds that it took.

    Attributes:
        version: the version that the group will hold.
        base: the version that it holds.
        route: names of the manifests and shortcuts that it takes.
        size: bytes of their packs.
        changed: words that `apply` writes in this holder.
        memory: bytes that the update holds, those for `undo` included.
        seconds: how long preparing took.
        passed_over: the faults of edges that failed, so that another route was taken; each names its object.
        dropped: names of the manifests and shortcuts that failed, here or in another holder.
        fingerprint: the new version's, 16 hex digits.
        differs: `agree` has found that another holder prepared another update.
    """

    def __init__(
        self,
        holder: Holder,
        prepared: PreparedSlices,
        generation: int,
        *,
        on_applied: Callable[[SliceUpdate, float], None] | None = None,
    ) -> None:
        self._holder = holder
        self._prepared = prepared
        self._generation = generation
        self._on_applied = on_applied
        self._before = holder.version, holder.chain, holder.version_digests
        self._agreed = False
        self.differs = False
        self._applied: int | None = None
        self.version, self.route, self.size = prepared.version, prepared.route, prepared.size
        self.base = holder.version
        self.changed, self.seconds = prepared.changed, prepared.seconds
        self.passed_over, self.dropped = prepared.passed_over, prepared.dropped
        self.fingerprint = prepared.digests[1]
        self.memory = sum(write.nbytes for write in prepared.writes)

    @property
    def stale(self) -> bool:
        """True where this update, or another after it, was applied to the holder, so that `apply` would refuse."""
        return self._applied is not None or self._holder.generation != self._generation

    @property
    def applied(self) -> bool:
        """True where it was applied, and not undone."""
        return self._applied is not None

    def agree(self) -> None:
        """Prove the update together with all other holders, which call this as well; nothing is written.

        Raises:
            WrongBaseError: the holders prepared different updates, or words that are held are not those of the base.
            IntegrityError: their words together do not change as the versions' fingerprints do.
            GroupError: another holder has not prepared its update.
        """
        agree(self._holder.group, lambda: self)

    def totals(self) -> U64:
        """What this holder adds to the group's seven sums."""
        return np.array([1, 1, self._plan, *(each & _MASK for each in self._prepared.totals)], np.uint64)

    @property
    def _plan(self) -> int:
        """A number that only holders have in common that go from one version to another over the same objects."""
        prepared = self._prepared
        parts = (self._before, prepared.chain, prepared.version, prepared.digests, prepared.route, prepared.packs)
        return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "little")

    def prove(self, sums: U64) -> None:
        """Look at the group's sums, where all holders have prepared an update; see `agree`."""
        holders, _, plans, listed, change, result, replicas = (int(each) for each in sums)
        if plans != self._plan * holders & _MASK:
            self.differs = True
            raise self._wrong_base(
                "the holders prepared different updates", "Prepare it again in all of them, for the same version."
            )
        again = "Load the version again in all of them."
        if listed:
            raise self._differs("words that the update lists have no owner, or several", again)
        held = self._before[2]
        assert held is not None
        new = fingerprint.text(change + (0 if self._prepared.restarted else int(held[1], 16)))
        if new != self.fingerprint:
            raise IntegrityError(
                f"the new state's fingerprint would be {new}, not {self.fingerprint}",
                object=self._object,
                rule="TD-RDR-007",
                advice="Words that are held, or a pack, were altered: load the version again in all holders.",
            )
        if result:
            raise self._differs("the new words are not those that were written", again, rule="TD-CHK-024")
        if replicas:
            raise self._differs("words that several holders have are not the same in all of them", again)
        self._agreed = True

    def apply(self) -> None:
        """Write the update into the holder's memory: only the scatter, in O(changes).

        Raises:
            WrongBaseError: another update was applied after this one was prepared.
            RuntimeError: the other holders have not proven it with this one; see `agree`.
        """
        started = time.perf_counter()
        with self._holder.lock:
            self._apply()
        if self._on_applied:
            self._on_applied(self, time.perf_counter() - started)

    def _apply(self) -> None:
        if self._applied is not None or self._holder.moves != self._generation:
            raise self._wrong_base(
                "the state was updated after this update was prepared",
                "Prepare the update again from the state as it is now.",
                rule="TD-APP-001",
            )
        if not self._agreed:
            raise RuntimeError("`agree` comes before `apply`, in all holders of the state")
        self._write(forward=True)
        prepared = self._prepared
        self._holder.hold(prepared.version, prepared.chain, prepared.digests)
        self._applied = self._holder.move()

    def undo(self) -> None:
        """Take the holder back to what it was before `apply`, in O(changes).

        Raises:
            WrongBaseError: the update is not the last that was applied.
        """
        with self._holder.lock:
            if self._applied is None or self._holder.moves != self._applied:
                raise self._wrong_base(
                    "the update is not the last that was applied", "Undo the later ones first.", rule="TD-APP-001"
                )
            self._write(forward=False)
            version, chain, digests = self._before
            assert version is not None and chain is not None and digests is not None
            self._holder.hold(version, chain, digests)
            self._holder.move(back=self._generation)
            self._applied = None

    def _write(self, *, forward: bool) -> None:
        """Write all words, or none: after an interruption, the words from before are written again."""
        try:
            for write in self._prepared.writes:
                write.do() if forward else write.take_back()
        except BaseException:
            for write in self._prepared.writes:
                write.take_back() if forward else write.do()
            raise

    def _wrong_base(self, reason: str, advice: str, *, rule: str = "TD-SLC-001") -> TensorDeltaError:
        return WrongBaseError(reason, object=self._object, rule=rule, advice=advice)

    def _differs(self, reason: str, advice: str, *, rule: str = "TD-SLC-001") -> TensorDeltaError:
        """The error for other words than the written ones; after a full version no held word can be its cause."""
        kind = IntegrityError if self._prepared.restarted else WrongBaseError
        return kind(reason, object=self._object, rule=rule, advice=advice)

    @property
    def _object(self) -> str:
        return self.route[-1] if self.route else "update"

    def __repr__(self) -> str:
        return (
            f"SliceUpdate(to version {self.version}, {self.size:,} bytes, {self.changed:,} words, "
            f"{self.memory:,} bytes of memory{', applied' if self._applied is not None else ''})"
        )


def agree(group: Group, prepare: Callable[[], SliceUpdate]) -> SliceUpdate:
    """Prepare an update in every holder of a group, and prove it by one sum over all of them; all call this.

    Args:
        group: the holders.
        prepare: prepares this one's, without asking another.

    Returns:
        The update, which `apply` may write.

    Raises:
        GroupError: a holder could not prepare its update. In a group of one the error itself is raised.
        WrongBaseError, IntegrityError: see `SliceUpdate.agree`.
        LostError: another holder did not answer.
    """
    update: SliceUpdate | None = None
    fault: Exception | None = None
    try:
        update = prepare()
    except Exception as error:
        if group.size == 1:
            raise
        fault = error
    sums = group.sum(_UNPREPARED if update is None else update.totals())
    if sums[1] != group.size:
        raise failure(group, fault) from fault
    assert update is not None
    update.prove(sums)
    return update


def agree_on_route(group: Group, prepare: Callable[[Sequence[str]], SliceUpdate]) -> SliceUpdate:
    """Like `agree`; where the holders' routes differ, all prepare again, without the edges that failed in any of them.

    An edge fails in a single holder where it has lost a pack that only this one needs.

    Args:
        group: the holders.
        prepare: prepares this one's update over a route without the manifests and shortcuts of these names.
    """
    without: list[str] = []
    for attempt in count():
        made: list[SliceUpdate] = []

        def prepared(made: list[SliceUpdate] = made, without: Sequence[str] = tuple(without)) -> SliceUpdate:
            made.append(prepare(without))
            return made[0]

        try:
            return agree(group, prepared)
        except WrongBaseError:
            if not (made and made[0].differs):
                raise
            failed = sorted({name for each in group.gather(json.dumps(made[0].dropped)) for name in json.loads(each)})
            if attempt and failed == without:
                raise
            without = failed
    raise AssertionError
