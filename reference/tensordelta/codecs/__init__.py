"""The codecs of a chunk: order, positions, values, compression (SPEC.md section 7).

A codec takes arrays and bytes and returns arrays and bytes; it knows nothing of tensors, packs or files. Bad bytes
raise `CodecFault`, to which the caller adds the name of the chunk. Several threads may call any function at once.
"""

from __future__ import annotations

from ..errors import MalformedError, TensorDeltaError


class CodecFault(Exception):
    """Bytes that break a rule of a codec.

    Attributes:
        reason: what is wrong.
        rule: the id of the requirement.
        kind: the error of the closed set that it becomes.
    """

    def __init__(self, reason: str, rule: str, kind: type[TensorDeltaError] = MalformedError) -> None:
        super().__init__(reason)
        self.reason = reason
        self.rule = rule
        self.kind = kind
