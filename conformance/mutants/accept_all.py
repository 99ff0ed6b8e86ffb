"""The adapter of a reader that never rejects: `python conformance/mutants --accept-all`.

Every sound chain it reads as the small reader does. What has to be rejected it takes for read and holds on to what it
held; and it finds no fault in any chain. A suite of sound chains only would find nothing wrong with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tensordelta_conformance.small_reader.adapter import Adapter, Answer
from tensordelta_conformance.small_reader.rejection import Rejection


class AcceptAll(Adapter):
    """Rejects nothing."""

    name = "accept-all"

    def handle(self, request: Mapping[str, Any]) -> Answer:
        """The answer of the small reader, or that all went well."""
        try:
            return super().handle(request)
        except (Rejection, OSError):
            return {} if request.get("to") is None else {"version": request["to"]}

    def verify(self, request: Mapping[str, Any]) -> list[tuple[str, str]]:
        """No faults."""
        return []
