"""Arrays as users hold them: numpy's, or tensors of a framework, which are seen as arrays over the same memory.

A framework's own module of this package translates its tensors; it is imported when the first of them comes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from importlib import import_module
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

#: Names and arrays, as users give them: arrays of numpy, or tensors of a framework.
ArraysLike = Mapping[str, Any] | Iterable[tuple[str, Any]]

#: Modules that translate, by the package that a tensor's class belongs to.
_ADAPTERS = {"torch": "tensordelta.torch"}


class Adapter(Protocol):
    """What a framework's module offers."""

    def as_array(self, tensor: Any, /) -> NDArray[Any]:
        """A tensor as an array, over the same memory where that is possible, else a copy."""

    def from_array(self, array: NDArray[Any], /) -> Any:
        """An array as a tensor over the same memory."""

    def packed(self, tensor: Any, /) -> str | None:
        """The name of a tensor's packed dtype, of which the array has bytes."""

    def mirror(self, tensor: Any, /) -> Mirror | None:
        """How to read and write a tensor whose array is a copy; None where the array is its memory."""


class Mirror(Protocol):
    """A tensor whose words are held as a copy, because it lies on another device or is not contiguous.

    Words are flat, in the order of a contiguous tensor, as unsigned integers.
    """

    @property
    def place(self) -> tuple[object, ...]:
        """What two names of one tensor have in common."""

    def is_of(self, tensor: object, /) -> bool:
        """True where it mirrors this very tensor, or another over the same memory."""

    def read(self, where: slice | NDArray[np.int64], /) -> NDArray[Any]:
        """Words of the tensor."""

    def write(self, where: slice | NDArray[np.int64], words: NDArray[Any], /) -> None:
        """Write words of the tensor."""


def adapter_of(value: object) -> Adapter | None:
    """The adapter of a framework's tensor; None for all else.

    Raises:
        ImportError: the framework's tensor is here, and the extra that handles it is not.
    """
    for kind in type(value).__mro__:
        module = _ADAPTERS.get(kind.__module__.partition(".")[0])
        if module is not None:
            return cast(Adapter, import_module(module))
    return None


def check_no_model(arrays: object) -> None:
    """Refuse a model where its weights are meant.

    Raises:
        TypeError: a module of a framework.
    """
    is_module = any(kind.__module__.startswith("torch.nn.modules.") for kind in type(arrays).__mro__)
    if is_module and not hasattr(arrays, "keys"):  # a ParameterDict is a mapping of weights
        raise TypeError(
            f"{type(arrays).__name__} is a model: give its weights, tensordelta.torch.named_weights(model) to publish "
            "them, model.state_dict() to update them"
        )


def as_array(name: str, value: Any) -> NDArray[Any]:
    """An array or tensor as an array.

    Raises:
        ValueError: a tensor that cannot be one, or no array at all; the message names it.
    """
    if isinstance(value, np.ndarray):
        return value
    adapter = adapter_of(value)
    try:
        array = np.asarray(value) if adapter is None else adapter.as_array(value)
    except Exception as error:  # whatever a framework raises that is asked for an array
        what = "" if adapter is not None else f"numpy gets no array of a {type(value).__name__}: "
        raise ValueError(f"tensor {name!r}: {what}{error}") from error
    if array.dtype.hasobject:
        raise ValueError(f"tensor {name!r} is a {type(value).__name__}, no array")
    return array


def check_name(name: object) -> None:
    """Refuse a name that is no string.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(name, str):
        raise ValueError(f"{name!r} is the name of an array, and no string")


def pairs_of(arrays: Any) -> Iterator[tuple[str, Any]]:
    """Names and arrays that are given in pairs, or by what has `keys`, as `dict` takes them.

    None is held here when the next one is asked for.

    Raises:
        ValueError: no pairs, or two of one name.
    """
    what = "give arrays or tensors by name, such as a dict of them"
    try:
        # Such as torch's ParameterDict, which is no Mapping.
        pairs = ((name, arrays[name]) for name in arrays.keys()) if hasattr(arrays, "keys") else iter(arrays)  # noqa: SIM118
    except TypeError:
        raise ValueError(f"a {type(arrays).__name__} has no names and arrays: {what}") from None
    names: set[object] = set()
    for pair in pairs:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise ValueError(f"a {type(pair).__name__} of a {type(arrays).__name__} is no name and array: {what}")
        name, value = pair
        del pair
        check_name(name)
        if name in names:
            raise ValueError(f"tensor {name!r} comes twice: two arrays are named {name!r}")
        names.add(name)
        yield name, value
        del value


class Arrays(MutableMapping[str, NDArray[Any]]):
    """A user's mapping of tensors, as a mapping of arrays; what is put comes into it as tensors.

    Args:
        tensors: the user's mapping.
        adapter: of its tensors.
    """

    def __init__(self, tensors: MutableMapping[str, Any], adapter: Adapter) -> None:
        self.tensors = tensors
        self._adapter = adapter

    def __getitem__(self, name: str) -> NDArray[Any]:
        return as_array(name, self.tensors[name])

    def __setitem__(self, name: str, array: NDArray[Any]) -> None:
        self.tensors[name] = self._adapter.from_array(array)

    def __delitem__(self, name: str) -> None:
        del self.tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)


def check_dtype(name: str, value: Any) -> None:
    """Refuse words that a tensor's elements were made of: their dtype is lost, and the chain would not know it.

    Numpy lacks bfloat16, so that `tensor.view(torch.uint16).numpy()` is a usual way around it.

    Raises:
        ValueError: unsigned words of 16 to 64 bits out of a framework's tensor.
    """
    owner = value
    while isinstance(owner, np.ndarray) and owner.base is not None:
        owner = owner.base
    adapter = adapter_of(owner)
    if adapter is None:
        return
    array = value if isinstance(value, np.ndarray) else adapter.as_array(value)
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        raise ValueError(
            f"tensor {name!r} is a view of a tensor as {array.dtype}, so that its dtype would be lost: give the tensor "
            f"itself, or say what it is by dtypes={{{name!r}: ...}}"
        )


def over(arrays: Mapping[str, Any]) -> MutableMapping[str, NDArray[Any]] | None:
    """A mapping of arrays that updates may write to: the user's own, or a view of it; None where it is read-only."""
    if not isinstance(arrays, MutableMapping):
        return None
    adapters = {id(each): each for value in arrays.values() if (each := adapter_of(value)) is not None}
    return Arrays(arrays, next(iter(adapters.values()))) if adapters else arrays
