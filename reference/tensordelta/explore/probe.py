"""One tensor at version after version, each from where an older one was left."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..codecs.words import to_array
from ..errors import MissingError, UnsupportedError
from ..read import part
from ..read.reader import Reader
from ..state.state import State


class Probe:
    """Reads one tensor at versions of a chain. For one thread at a time.

    Args:
        reader: of the chain.
        name: of the tensor.
    """

    def __init__(self, reader: Reader, name: str) -> None:
        self._reader = reader
        self._name = name
        # The newest of the older versions, and the one that was read last; both hold the tensor alone.
        self._older: State | None = None
        self._last: State | None = None

    def at(self, version: int) -> NDArray[Any]:
        """The tensor at a version, in an array of its own.

        Args:
            version: the version.

        Raises:
            MissingError: the version lacks the tensor, or there is no route to it.
            TensorDeltaError: every route failed; the error of the first one.
        """
        older = [each for each in (self._older, self._last) if each is not None and (each.version or 0) <= version]
        start = max(older, key=lambda each: each.version or 0, default=None)
        self._older = start or self._older
        try:
            found = self._last = part.load_part(self._reader, version, frozenset([self._name]), start)
        except UnsupportedError:  # what this tensor alone does not tell
            layout = self._reader.documents.layout(self._reader.documents.manifest(version).layout)
            words = part.read_tensors(self._reader, version, [self._name])[self._name]
            tensor = layout.tensors[layout.index[self._name]]
            return to_array(words, tensor.kind, tensor.shape)
        if self._name not in found:
            raise MissingError(
                f"version {version} has no tensor {self._name!r}",
                object=f"version {version}",
                rule="TD-OBJ-008",
                advice="`show` lists the tensors of a version.",
            )
        return np.array(found[self._name])
