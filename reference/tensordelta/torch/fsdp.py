"""Ranks: which part of a model each publishes, and how they agree (SPEC.md section 11.3)."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, NamedTuple, Self, TypeVar, cast

import torch.distributed as dist
from torch import Tensor, nn

_LOG = logging.getLogger("tensordelta")

T = TypeVar("T")


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """What a rank made, or why it could not."""

    value: T | None
    error: Exception | None

    @classmethod
    def of(cls, make: Callable[[], T]) -> Self:
        """What a function makes, or raises."""
        try:
            return cls(make(), None)
        except Exception as error:
            return cls(None, _portable(error))

    def get(self) -> T:
        """What was made. Raises why it was not."""
        if self.error is not None:
            raise self.error
        return cast(T, self.value)


def _portable(error: Exception) -> Exception:
    """An error that another process can read."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


class Ranks:
    """The ranks that publish a model together, each its own part; rank 0 leads.

    They have a process group of their own, so that threads that publish exchange messages while the trainer uses
    others. All of them make and use it alike.

    Args:
        timeout: seconds for which they wait for one another.
    """

    def __init__(self, timeout: float) -> None:
        self._group = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout))
        self._gathered: set[str] = set()
        self.is_leader = dist.get_rank() == 0

    @classmethod
    def of(cls, model: nn.Module, timeout: float) -> Self | None:
        """The ranks of a model; None if this process has all of it."""
        if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
            return None
        return cls(timeout) if any(_is_sharded(parameter) for parameter in model.parameters()) else None

    def close(self) -> None:
        """Give the process group back; closing again does nothing."""
        group, self._group = self._group, None
        if group is not None and dist.is_initialized():
            dist.destroy_process_group(group)

    def lead(self, make: Callable[[], T]) -> T:
        """What the leader makes, on all ranks. Raises on all ranks what it raises."""
        message = [Outcome.of(make) if self.is_leader else None]
        dist.broadcast_object_list(message, src=0, group=self._group)
        return cast(Outcome[T], message[0]).get()

    def gather(self, make: Callable[[], T]) -> list[Outcome[T]]:
        """What each rank makes; all of it on the leader, nothing on others."""
        mine = Outcome.of(make)
        found: list[Any] | None = [None] * dist.get_world_size() if self.is_leader else None
        dist.gather_object(mine, found, dst=0, group=self._group)
        return found or []

    def note_gathered(self, name: str) -> None:
        """Log once that a parameter is gathered."""
        if name not in self._gathered:
            self._gathered.add(name)
            _LOG.warning("%s is not sharded by rows: it is gathered on all ranks, and rank 0 publishes it", name)


class Shard(NamedTuple):
    """The part of a tensor that this rank publishes.

    Attributes:
        name: of the tensor.
        part: consecutive elements; none where other ranks have all.
        shape: of the whole tensor.
        start: how many elements precede them.
    """

    name: str
    part: Tensor
    shape: tuple[int, ...]
    start: int


def shards(weights: Iterable[tuple[str, Tensor]], ranks: Ranks | None) -> Iterator[Shard]:
    """The parts of a model's weights that this rank publishes; each element is published by one rank.

    Of a parameter that is sharded by rows (`Shard(0)`, uneven shards and replicas of shards included), each rank
    publishes its own rows, of replicas the first. Parameters that are sharded otherwise are gathered, one at a time,
    and published by rank 0, as is what all ranks have whole.

    Args:
        weights: names and tensors, taken lazily; all ranks iterate alike.
        ranks: None if this process publishes all.
    """
    for name, tensor in weights:
        shape = tuple(tensor.shape)
        rows = _own_rows(tensor) if ranks is not None and _is_sharded(tensor) else None
        if ranks is not None and rows is not None:
            start, count = rows
            local = tensor.to_local()
            if count:
                yield Shard(name, local, shape, start * (tensor.numel() // shape[0]))
            else:
                yield Shard(name, _none_of(local), shape, 0)
            continue
        if _is_sharded(tensor):
            if ranks is not None:
                ranks.note_gathered(name)
            tensor = tensor.full_tensor()
        yield Shard(name, tensor if ranks is None or ranks.is_leader else _none_of(tensor), shape, 0)


def _is_sharded(tensor: Tensor) -> bool:
    """True for a `DTensor`."""
    return hasattr(tensor, "full_tensor")


def _none_of(tensor: Tensor) -> Tensor:
    return tensor.reshape(-1)[:0]


def _own_rows(tensor: Any) -> tuple[int, int] | None:
    """The first of the rows that this rank publishes, and how many; None if the tensor is not sharded by rows."""
    from torch.distributed.tensor import Replicate
    from torch.distributed.tensor import Shard as ShardOf

    mesh = tensor.device_mesh
    place = mesh.get_coordinate()
    if place is None:
        return 0, 0
    sharded = [axis for axis, each in enumerate(tensor.placements) if type(each) is not Replicate]
    if not tensor.ndim or len(sharded) > 1:
        return None
    if any(type(tensor.placements[axis]) is not ShardOf or tensor.placements[axis].dim != 0 for axis in sharded):
        return None
    # Of replicas, those with the first coordinate count; of replicas of the whole mesh, the one that has rank 0.
    if any(at for axis, at in enumerate(place) if axis not in sharded) or not bool((mesh.mesh == 0).any()):
        return 0, 0
    rows = tensor.shape[0]
    if not sharded:
        return 0, rows
    each = -(-rows // mesh.size(sharded[0]))
    start = min(place[sharded[0]] * each, rows)
    return start, min(start + each, rows) - start
