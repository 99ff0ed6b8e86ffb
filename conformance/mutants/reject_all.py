"""The adapter of a reader that rejects everything: `python conformance/mutants --reject-all`.

What is wrong with a chain it reports as the small reader does, and it never changes what it holds; of a sound chain it
says that it is malformed. A suite of faulty chains only would find nothing wrong with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .adapter import Adapter
from .documents import Rejection
from .protocol import Answer
from .reader import Update


class RejectAll(Adapter):
    """Accepts nothing."""

    name = "reject-all"

    def _prepare(self, request: Mapping[str, Any]) -> Update:
        super()._prepare(request)
        raise Rejection("malformed", "as everything is", "chain.json")

    def apply(self, request: Mapping[str, Any]) -> Answer:
        """Never: nothing was prepared."""
        raise Rejection("wrong-base", "nothing was prepared")

    def undo(self, request: Mapping[str, Any]) -> Answer:
        """Never: nothing was applied."""
        raise Rejection("wrong-base", "nothing was applied")

    def verify(self, request: Mapping[str, Any]) -> list[tuple[str, str]]:
        """At least one fault."""
        return super().verify(request) or [("malformed", "chain.json")]
