"""How a codec reports bad bytes, without knowing whose they are."""

from __future__ import annotations

from ..errors import MalformedError, TensorDeltaError


class CodecFault(Exception):
    """Bytes that break a rule of a codec.

    Attributes:
        reason: what is wrong.
        rule: the id of the requirement.
        kind: the error of the closed set; `malformed` unless told otherwise.
    """

    def __init__(self, reason: str, rule: str, kind: type[TensorDeltaError] = MalformedError) -> None:
        super().__init__(reason)
        self.reason = reason
        self.rule = rule
        self.kind = kind
