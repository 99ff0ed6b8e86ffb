"""The small reader under the protocol of ADAPTER.md: `python -m tensordelta_conformance.small_reader`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .chain import MEMORY, Chain, Folder, Options, Web
from .follow import Follower
from .packs import read_tensors
from .reader import Held, Reader, Update
from .rejection import Rejection
from .slices import Group, SliceReader
from .state import State, layout_of
from .verifier import Verifier

LEVELS = ["reader-core", "reader-exponent", "chain", "follow", "slice", "sources", "verifier"]
CAPABILITIES = ["prepare", "undo", "memory", "places", "pin", "slice-fit", "slice-part"]

Answer = dict[str, Any]


class Adapter:
    """Answers requests; between two of them it keeps what is held and the update that is prepared."""

    name = "small-reader"

    def __init__(self) -> None:
        self._held: Held | None = None
        self._update: Update | None = None

    def __call__(self, request: Mapping[str, Any]) -> Answer:
        """The answer to a request."""
        number = {"id": request["id"]} if "id" in request else {}
        try:
            return {**number, "ok": True, **self.handle(request)}
        except Rejection as fault:
            return {**number, "error": fault.name, "object": fault.object, "message": str(fault)}
        except NotImplementedError as fault:
            return {**number, "unsupported": str(fault)}
        except OSError as fault:
            return {**number, "failed": str(fault)}

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
                "spec": "1.0-rc.1",
                "roles": ["reader", "verifier"],
                "levels": LEVELS,
                "capabilities": CAPABILITIES,
                "limits": {"memory": MEMORY},
            }
        if operation == "verify":
            return {"faults": [{"error": error, "object": object} for error, object in self.verify(request)]}
        operations = {"read": self.read, "prepare": self.prepare, "apply": self.apply, "undo": self.undo}
        if operation not in operations:
            raise NotImplementedError(operation)
        if "tensors" in request:
            raise NotImplementedError("reads no part of a state by itself")
        if "holders" in request:
            return self.read_slices(request)
        if "held" in request:
            held = request["held"]
            self._held = Held(read_state(held["state"]), held.get("version")) if held else None
        try:
            return operations[operation](request)
        finally:
            if "out" in request and self._held is not None:
                write_state(request["out"], self._held.state)

    def prepare_update(self, request: Mapping[str, Any]) -> Update:
        """The update that a request asks for."""
        reader = Follower if "://" in request["chain"] else Reader
        return reader(_chain(request)).prepare(request["to"], self._held)

    def read(self, request: Mapping[str, Any]) -> Answer:
        """Bring what is held to a version."""
        self._held = self.prepare_update(request).apply(self._held)
        return {"version": self._held.version}

    def read_slices(self, request: Mapping[str, Any]) -> Answer:
        """Bring a group of holders to a version; nothing is kept of it."""
        reader, held = SliceReader(_chain(request)), request.get("held")
        if held and held["version"] is None:
            raise NotImplementedError("a group that remembers no version")
        group = Group.of(read_state(held["state"]) if held else {}, request["holders"])
        try:
            if held:
                group.alter(request.get("unlike", ()))
                reader.prove(group, held["version"])
                group.alter(request.get("altered", ()))
            group = reader.bring(request["to"], group)
            assert group.remembered is not None
            return {"version": group.remembered.version}
        finally:
            if held or group.remembered:
                write_state(request["out"], group.state())

    def prepare(self, request: Mapping[str, Any]) -> Answer:
        """Prepare an update, and keep it."""
        self._update = self.prepare_update(request)
        return {"version": self._update.after.version}

    def apply(self, request: Mapping[str, Any]) -> Answer:
        """Apply the update that is kept."""
        assert self._update is not None
        self._held = self._update.apply(self._held)
        return {"version": self._held.version}

    def undo(self, request: Mapping[str, Any]) -> Answer:
        """Undo it."""
        assert self._update is not None
        self._held = self._update.undo(self._held)
        return {"version": None if self._held is None else self._held.version}

    def verify(self, request: Mapping[str, Any]) -> list[tuple[str, str]]:
        """The faults of a chain."""
        return Verifier(_chain(request)).run()


def _chain(request: Mapping[str, Any]) -> Chain:
    if "keys" in request:
        raise NotImplementedError("verifies no signatures")
    options = Options(
        request.get("memory", MEMORY),
        tuple(request.get("sources", ())),
        tuple(request.get("places", ())),
        request.get("pin"),
    )
    root = request["chain"]
    return Chain(Web(root) if "://" in root else Folder(root), options)


def read_state(path: str) -> State:
    """The state in a safetensors file, in the order of its layout."""
    state = read_tensors(Path(path).read_bytes())
    return {tensor.name: state[tensor.name] for tensor in layout_of(state)}


def write_state(path: str, state: State) -> None:
    """Write a state as a safetensors file."""
    header, at = {}, 0
    for name, dtype, shape in layout_of(state):
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + state[name].words.nbytes]}
        at += state[name].words.nbytes
    text = json.dumps(header).encode()
    with Path(path).open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in header:
            file.write(state[name].words.tobytes())


def serve(adapter: Adapter, arguments: Sequence[str]) -> int:
    """Answer requests line by line, or the one request that the arguments are; gives the exit code."""
    if arguments:
        operation, request = arguments
        reply = adapter({"op": operation, **json.loads(request)})
        print(json.dumps(reply), flush=True)
        return 0 if "ok" in reply else 1 if "error" in reply else 3
    for line in sys.stdin:
        print(json.dumps(adapter(json.loads(line))), flush=True)
    return 0
