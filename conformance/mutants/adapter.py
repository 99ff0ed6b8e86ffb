"""The adapter of the small reader and its mutants (see `__main__.py`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .documents import Rejection
from .protocol import Answer, answer, read_state, write_state
from .reader import MEMORY, Chain, Held, Options, Update, Verifier

LEVELS = ["reader-core", "reader-exponent", "chain", "verifier"]
CAPABILITIES = ["prepare", "memory", "sources", "places", "pin"]


class Adapter:
    """Answers requests with the small reader."""

    name = "small-reader"

    def __init__(self) -> None:
        self._held: Held | None = None
        self._update: Update | None = None

    def __call__(self, request: Mapping[str, Any]) -> Answer:
        """The answer to a request."""
        return answer(self.handle, request)

    def restart(self) -> None:
        """Hold nothing."""
        self._held = self._update = None

    def handle(self, request: Mapping[str, Any]) -> Answer:
        """The answer to a request that succeeds."""
        operation = request["op"]
        if operation == "hello":
            return {
                "protocol": 1,
                "name": self.name,
                "version": "1.0",
                "spec": "1.0",
                "roles": ["reader", "verifier"],
                "levels": LEVELS,
                "capabilities": CAPABILITIES,
                "limits": {"memory": MEMORY},
            }
        if operation == "verify":
            return {"faults": [{"error": error, "object": object} for error, object in self.verify(request)]}
        if operation not in ("read", "prepare", "apply", "undo"):
            raise NotImplementedError(operation)
        if "tensors" in request:
            raise NotImplementedError("reads whole states only")
        self._take_held(request)
        operations = {"read": self.read, "prepare": self.prepare, "apply": self.apply, "undo": self.undo}
        try:
            return operations[operation](request)
        finally:
            if "out" in request and self._held is not None:
                write_state(request["out"], self._held.state)

    def _take_held(self, request: Mapping[str, Any]) -> None:
        if "held" in request:
            held = request["held"]
            self._held = Held(read_state(held["state"]), held.get("version")) if held else None

    @staticmethod
    def _options(request: Mapping[str, Any]) -> Options:
        if "keys" in request:
            raise NotImplementedError("verifies no signatures")
        return Options(
            request.get("memory", MEMORY),
            tuple(request.get("sources", ())),
            tuple(request.get("places", ())),
            request.get("pin"),
        )

    def _prepare(self, request: Mapping[str, Any]) -> Update:
        return Chain(request["chain"], self._options(request)).prepare(request["to"], self._held)

    def read(self, request: Mapping[str, Any]) -> Answer:
        """Bring what is held to a version."""
        update = self._prepare(request)
        self._held = update.apply(self._held)
        return {"version": self._held.version}

    def prepare(self, request: Mapping[str, Any]) -> Answer:
        """Keep an update."""
        self._update = self._prepare(request)
        return {"version": self._update.after.version}

    def apply(self, request: Mapping[str, Any]) -> Answer:
        """Apply the update that is kept."""
        assert self._update is not None
        self._held = self._update.apply(self._held)
        return {"version": self._held.version}

    def undo(self, request: Mapping[str, Any]) -> Answer:
        """Take it back."""
        assert self._update is not None
        self._held = self._update.undo(self._held)
        return {"version": None if self._held is None else self._held.version}

    def verify(self, request: Mapping[str, Any]) -> list[tuple[str, str]]:
        """The faults of a chain."""
        try:
            return Verifier(request["chain"], self._options(request)).run()
        except Rejection as fault:
            return [(fault.error, fault.object)]
