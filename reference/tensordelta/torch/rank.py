"""A rank of an engine: what it does with a chain, alone or together with the other ranks.

While the engine serves, a thread prepares newer versions. In the engine's pause all ranks call `update`: they exchange
what they prepared, add up their sums, scatter, and confirm. If anything fails in one of them, all keep the old version.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import count
from typing import Self

from ..chain import Chain
from ..state.blocks import Block
from ..state.group import Group, GroupError, LostError, together
from ..state.holder import Holder
from ..state.slice_update import SliceUpdate, agree_on_route
from ..threads import Process
from .device_state import DeviceState

_LOG = logging.getLogger("tensordelta")
#: Seconds from one attempt to follow the chain to the next, after one that failed.
_AGAIN = 5.0


class Rank:
    """One rank of an engine that follows a chain. All ranks make one, and call the same methods in the same order.

    `update` is called by one thread; the rank's own thread only prepares. A rank belongs to one process: in a forked
    child `update` raises RuntimeError. Where a rank is lost, or cannot go back, it
    is not known any more what the ranks have: every further update is refused, and the engine has to be started again.

    Args:
        group: the ranks.
        start: opens the chain, and finds what this rank has of the weights.
        follow: prepare newer versions in a thread as they are published; else only when `update` asks for them.
        poll: seconds between two looks for a newer version, approximately.
        scan_every: at every so many updates all words that the ranks have are read and proven, before anything is
            written; 0 for never. Words that no update lists are proven in no other way.

    Attributes:
        chain, state: what `start` returned.
        torn: True where it is not known whether all ranks have the same version; nothing may be served then.

    Raises:
        GroupError: `start` failed in a rank. In a group of one the error itself is raised.
        WrongBaseError: the words of the ranks are those of none of the newest 128 versions.
        LostError: another rank did not come.
    """

    def __init__(
        self,
        group: Group,
        start: Callable[[], tuple[Chain, DeviceState]],
        *,
        follow: bool = True,
        poll: float = 1.0,
        scan_every: int = 0,
    ) -> None:
        self._group = group
        self._scan_every = scan_every
        self._updates = 0
        self._anew = False
        self._broken = False
        self.torn = False
        self._ready: SliceUpdate | None = None
        self._process = Process("the rank")
        self._stop = threading.Event()
        self.chain, self.state = together(group, start)
        meet(self.state)
        self.chain.identify(self.state)
        self._thread = threading.Thread(target=self._follow, args=(poll,), name="tensordelta-rank", daemon=True)
        if follow:
            self._thread.start()

    @property
    def version(self) -> int:
        """The version that the ranks have."""
        assert self.state.version is not None
        return self.state.version

    @property
    def ready(self) -> SliceUpdate | None:
        """The update that this rank's thread has prepared; other ranks may have prepared another one, or none."""
        update = self._ready
        return None if update is None or update.stale else update

    def update(self, version: int) -> SliceUpdate | None:
        """Take all ranks to a version; all of them call this, while the engine computes nothing.

        Args:
            version: the same for all ranks.

        Returns:
            The update that was applied; None where the ranks have the version already.

        Raises:
            GroupError: a rank could not prepare or apply it; every rank has the old version. In a group of one the
                error itself is raised.
            WrongBaseError, IntegrityError: the ranks together could not prove it; every rank has the old version.
            LostError: a rank hangs, has died, or could not go back: start the engine again.
        """
        self._process.check()
        if self._broken:
            raise LostError("an earlier update lost a rank: start the engine again")
        if self.version == version:
            return None
        update: SliceUpdate | None = None
        try:
            update = self._agreed(version)
            self._updates += 1
            if self._scan_every and self._updates % self._scan_every == 0:
                self.chain.identify(self.state)
            self.torn = True
            together(self._group, update.apply)
        except GroupError:
            self._go_back(lambda: together(self._group, lambda: _undo(update)))
            self.torn = False
            raise
        except BaseException as error:
            self._broken = isinstance(error, LostError) or not isinstance(error, Exception)
            self._go_back(lambda: _undo(update))
            self.torn = self.torn and self._broken
            raise
        self._anew = self.torn = False
        return update

    def close(self) -> None:
        """Stop following."""
        self._stop.set()
        if self._process.is_here and self._thread.is_alive():
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _agreed(self, version: int) -> SliceUpdate:
        """The update to a version that all ranks have prepared and proven."""
        attempts = count()

        def prepare(without: Sequence[str]) -> SliceUpdate:
            if next(attempts):  # the first ones were prepared at different moments, over different routes
                return self.chain.prepare(self.state, version, without=without)
            return self._prepared(version)

        return agree_on_route(self._group, prepare)

    def _prepared(self, version: int) -> SliceUpdate:
        ready = self.ready
        if ready is not None and ready.version == version and not self._anew:
            return ready
        return self.chain.prepare(self.state, version)

    def _go_back(self, back: Callable[[], None]) -> None:
        self._anew = True  # what failed is not tried again as it was prepared
        try:
            back()
        except BaseException as error:
            self._broken = True
            raise LostError("a rank could not go back to the old version: start the engine again") from error

    def _follow(self, poll: float) -> None:
        while not self._stop.is_set():
            try:
                for update in self.chain.follow(self.state, poll=poll, stop=self._stop):
                    self._ready = update
                    del update
            except Exception as error:
                with suppress(ValueError):  # a handler whose stream was closed must not end the thread
                    _LOG.warning("following the chain: %s", error)
                self._stop.wait(_AGAIN)


def _undo(update: SliceUpdate | None) -> None:
    if update is not None and update.applied:
        update.undo()


def meet(holder: Holder) -> None:
    """Tell the holders of a group what each of them has; all of them call this, after they have opened the same state.

    Raises:
        GroupError: they have states of different layouts.
    """
    group = holder.group
    layout = [[tensor.name, tensor.dtype, tensor.shape] for tensor in holder.layout.tensors]
    layouts = group.gather(hashlib.sha256(json.dumps(layout).encode()).hexdigest())
    if len(set(layouts)) > 1:
        raise GroupError("the ranks have states of different layouts: they must read the same chain")
    table = [[(block.offset, block.shape, block.strides) for block in blocks] for blocks in holder.blocks]
    holder.meet([_blocks(json.loads(each)) for each in group.gather(json.dumps(table))])


def _blocks(table: list[list[tuple[int, list[int], list[int]]]]) -> list[list[Block]]:
    return [[Block(offset, tuple(shape), tuple(strides)) for offset, shape, strides in blocks] for blocks in table]
