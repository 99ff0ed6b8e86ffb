"""Pointers: what a driver sends to an engine in place of weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from torch import Tensor

#: The name of the one tensor that is sent.
NAME = "tensordelta"


class Opening(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Keywords for `tensordelta.open` on each rank; see there."""

    chain: str | None = None
    memory: int | None = None
    threads: int | None = None
    allow_sources: list[str] = []
    pack_folders: list[str] = []
    store_options: dict[str, Any] | None = None
    trusted_keys: list[str] | None = None
    allow_rollback: bool = False
    max_age: float | None = None

    def keywords(self) -> dict[str, Any]:
        """As keywords."""
        return msgspec.structs.asdict(self)


class Pointer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A version of a chain, for an engine to take.

    Attributes:
        root: the chain's address, as the engine's machine knows it.
        version: the version.
        follow: prepare newer versions in a thread as they are published, else only when a pointer names them.
        poll: seconds between two looks for a newer version, approximately.
        scan_every: at every so many updates all words of the engine are read and proven, before anything is written;
            0 for never. Words that no update lists are proven in no other way after the first pointer.
        timeout: seconds that a rank of the engine waits for the others; of the engine's first pointer.
        opening: how the chain is opened.
    """

    root: str
    version: int
    follow: bool = True
    poll: float = 1.0
    scan_every: int = 0
    timeout: float = 60.0
    opening: Opening = Opening()

    @classmethod
    def of(cls, named_tensors: list[tuple[str, Tensor]]) -> Pointer:
        """The pointer in what an engine was sent.

        Raises:
            ValueError: there is none, or it is not valid.
        """
        if len(named_tensors) != 1:
            raise ValueError(f"{len(named_tensors)} tensors were sent, not one that holds a pointer to a version")
        name, tensor = named_tensors[0]
        try:
            return msgspec.json.decode(tensor.cpu().numpy().tobytes(), type=cls)
        except msgspec.MsgspecError as error:
            raise ValueError(f"the tensor {name!r} holds no pointer to a version: {error}") from None

    @property
    def text(self) -> str:
        """The pointer as JSON."""
        return msgspec.json.encode(self).decode()


def pointer(root: str, version: int, **options: Any) -> list[tuple[str, Tensor]]:
    """A pointer as the named tensors that `Engine.update_weights_from_tensor` takes.

    Args:
        root: the chain's address, as the engine's machine knows it.
        version: the version.
        options: other attributes of `Pointer`; `opening` as a dictionary.

    Raises:
        ValueError: an option that there is not.

    Example:
        >>> engine.begin_weight_update(selector="target")                        # doctest: +SKIP
        >>> engine.update_weights_from_tensor(pointer("hf://buckets/me/run", 7), "tensordelta.sglang.apply")
        ...                                                                      # doctest: +SKIP
        >>> engine.end_weight_update()                                           # doctest: +SKIP
    """
    import torch

    try:
        text = msgspec.convert({"root": root, "version": version, **options}, Pointer).text
    except msgspec.MsgspecError as error:
        raise ValueError(f"no pointer: {error}") from None
    return [(NAME, torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8))]
