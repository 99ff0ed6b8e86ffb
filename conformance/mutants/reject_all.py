"""The adapter of a reader that rejects everything: `python conformance/mutants --reject-all`.

What is wrong with a chain it reports as the small reader does, and it never changes what it holds; of a sound chain it
says that it is malformed. A suite of faulty chains only would find nothing wrong with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tensordelta_conformance.small_reader.adapter import Adapter, Answer
from tensordelta_conformance.small_reader.reader import Update
from tensordelta_conformance.small_reader.rejection import Rejection


class RejectAll(Adapter):
    """Accepts nothing."""

    name = "reject-all"

    def prepare_update(self, request: Mapping[str, Any]) -> Update:
        """Never, whatever the chain is."""
        super().prepare_update(request)
        raise Rejection("malformed", "none", "as everything is", "chain.json")

    def read_slices(self, request: Mapping[str, Any]) -> Answer:
        """Never, whatever the chain is."""
        super().read_slices(request)
        raise Rejection("malformed", "none", "as everything is", "chain.json")

    def apply(self, request: Mapping[str, Any]) -> Answer:
        """Never: nothing was prepared."""
        raise Rejection("wrong-base", "none", "nothing was prepared")

    def undo(self, request: Mapping[str, Any]) -> Answer:
        """Never: nothing was applied."""
        raise Rejection("wrong-base", "none", "nothing was applied")

    def verify(self, request: Mapping[str, Any]) -> list[tuple[str, str]]:
        """At least one fault."""
        return super().verify(request) or [("malformed", "chain.json")]
