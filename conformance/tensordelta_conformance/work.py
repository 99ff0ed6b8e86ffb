"""The temporary folder of a case in which its steps are done."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from .case import Case, HugeState, Serve, StateRef, Step
from .fingerprint import state_fingerprint
from .folder import Contents, changes, contents, copy_files, temporary_folder, write_files
from .server import Server
from .state import State, StateError, parse_state, read_state, state_differences

_DEPTH = "copy/of/case"
"""The copy lies some folders deep, so that a file written to `../../x` is noticed."""

_MOST_DIFFERENCES = 3


class Work:
    """The unpacked folder of a case, and a folder beside it for what the adapter writes."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self._temporary = temporary_folder("huge" in case.flags)
        self._top = Path(self._temporary.name).resolve()
        self.root = self._top / _DEPTH
        self.outside = self._top / "out"
        self.outside.mkdir()
        write_files({name: data for name, data in case.files.items() if name != "case.json"}, self.root)
        # A chain that is yet to be written has no objects.
        (self.root / "chain").mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Work:
        return self

    def __exit__(self, *exception: object) -> None:
        self._temporary.cleanup()

    def request(self, members: Mapping[str, Any]) -> dict[str, Any]:
        """The members of a request, with all paths absolute."""
        made = dict(members)
        for key in ("chain", "dir", "state"):
            if isinstance(made.get(key), str):
                made[key] = str(self.root / made[key])
        if isinstance(made.get("held"), Mapping):
            made["held"] = {**made["held"], "state": str(self.root / made["held"]["state"])}
        if "places" in made:
            made["places"] = [str(self.root / place) for place in made["places"]]
        if "files" in made:
            made["files"] = {name: str(self.root / path) for name, path in made["files"].items()}
        return made

    def change(self, step: Step) -> None:
        """Do a step that changes the copy."""
        chain = self.root / "chain"
        if step.put is not None:
            copy_files(self.root / step.put, chain)
        for name in step.remove:
            (chain / name).unlink()
        for name, target in step.link.items():
            path = chain / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
            path.symlink_to(target)

    def serve(self, serve: Serve) -> Server:
        """A server of a folder of the copy; sources that name the folder lead there."""
        server = Server(self.root / serve.folder, serve.status)
        if serve.folder != "chain":
            for path in (self.root / "chain").rglob("*.json"):
                text = path.read_bytes()
                made = text.replace(f"http://{serve.folder}.invalid".encode(), server.url.encode())
                if made != text:
                    path.write_bytes(made)
        return server

    def look(self, skip: Collection[str] = ()) -> Contents:
        """What lies in and around the copy; `skip`: paths in the copy to leave out."""
        return contents(self._top, {"out", *(f"{_DEPTH}/{name}" for name in skip)})

    def changed(self, before: Contents, skip: Collection[str] = ()) -> list[str]:
        """What has changed since `look`."""
        return [text.removeprefix(f"{_DEPTH}/") for text in changes(before, self.look(skip))]

    def text(self, text: str) -> str:
        """A text without the names of temporary folders."""
        for place in (self.root, self._top):
            text = text.replace(f"{place}/", "").replace(str(place), ".")
        return text

    def differences(self, expected: StateRef, found: State | None) -> list[str]:
        """How what is held (None: nothing) differs from what should be."""
        if expected is None or found is None:
            if expected is None and found is None:
                return []
            return ["a state is held where nothing should be" if expected is None else "nothing is held"]
        if isinstance(expected, HugeState):
            return self._huge_differences(expected, found)
        found_differences = state_differences(parse_state(self.case.files[expected]), found)
        more = len(found_differences) - _MOST_DIFFERENCES
        if more > 0:
            return [*found_differences[:_MOST_DIFFERENCES], f"and {more} more tensors"]
        return found_differences

    def _huge_differences(self, expected: HugeState, found: State) -> list[str]:
        layout = json.loads(self.case.files[expected.layout])
        wanted = [(entry["name"], entry["dtype"], tuple(entry["shape"])) for entry in layout["tensors"]]
        if sorted((name, tensor.dtype, tensor.shape) for name, tensor in found.items()) != sorted(wanted):
            return [f"the layout is not that of {expected.layout}"]
        fingerprint = state_fingerprint(found)
        if fingerprint != expected.fingerprint:
            return [f"the state's fingerprint is {fingerprint}, not {expected.fingerprint}"]
        return []


def held_afterwards(out: Path) -> State | None:
    """What an adapter says it holds: None where it wrote no file. Raises StateError."""
    if not out.exists():
        return None
    try:
        return read_state(out)
    except StateError as error:
        raise StateError(f"{out.name}: {error}") from error
