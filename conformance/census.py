"""A census of the vectors: `python conformance/census.py [--lacking] [--vectors DIR]`.

A reader that takes less than the format allows is found only if some accepted vector has what the reader does not
take. For each kind of accepted value this prints how many distinct ones the vectors have, and two examples. Exit code
1 if a kind has fewer than two, or lacks a value that it has to have.

Counted are the objects of valid cases for readers: of chains in which a verifier finds no fault and of level `sources`,
and the hints and signatures of all.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from counted.documents import Documents
from counted.packs import Packs
from counted.states import States
from counted.table import Census
from counted.texts import Texts

from tensordelta_conformance import Case, Suite, parse_state
from tensordelta_conformance.small_reader.documents import parse_latest, parse_layout, parse_manifest, parse_signature
from tensordelta_conformance.small_reader.packs import open_chunk_file, read_chunks, split_file
from tensordelta_conformance.small_reader.rejection import Rejection

VECTORS = Path(__file__).resolve().parent / "vectors"

EDGE = re.compile(r"manifests/[0-9]{12}\.json|shortcuts/[0-9]{12}-([0-9]{12}|full)(\.[a-z0-9]{1,16})?\.json")
_SIGNATURE = re.compile(r"signatures/([0-9a-f]{64})-([0-9a-f]{16})\.json")


class Count:
    """A census over cases."""

    def __init__(self) -> None:
        self.census = Census()
        self._texts, self._documents = Texts(self.census), Documents(self.census)
        self._packs, self._states = Packs(self.census), States(self.census)
        self._seen: set[tuple[str, bytes]] = set()

    def case(self, case: Case) -> None:
        """Note what a case has."""
        if case.role == "writer" or not case.valid:
            return
        prefix = "chain/"
        objects = {name.removeprefix(prefix): name for name in case.files if name.startswith(prefix)}
        self._hint(case, objects)
        self._signatures(case, objects)
        if case.verify == () or case.level == "sources":
            self._chain(case, {name: case.files[path] for name, path in objects.items()})
        for before, after in _states(case):
            new = parse_state(case.files[after])
            self._states.look(new, case.id)
            if before is not None:
                self._states.fitted(parse_state(case.files[before]), new, case.id)

    def _is_new(self, kind: str, data: bytes) -> bool:
        """Many cases share objects."""
        known = len(self._seen)
        self._seen.add((kind, data))
        return len(self._seen) > known

    def _hint(self, case: Case, objects: Mapping[str, str]) -> None:
        data = case.files[objects["latest.json"]] if "latest.json" in objects else b""
        try:
            parse_latest(data)
        except Rejection:
            return
        self._documents.hint_of(self._texts.look("hint", data, case.id), case.id)

    def _signatures(self, case: Case, objects: Mapping[str, str]) -> None:
        keys: dict[str, int] = {}
        for name, path in objects.items():
            match = _SIGNATURE.fullmatch(name)
            try:
                if match:
                    parse_signature(case.files[path])
                    self._texts.look("signature", case.files[path], case.id)
                    keys[match[1]] = keys.get(match[1], 0) + 1
            except Rejection:
                continue
        for number in keys.values():
            self._documents.signatures.note(number, case.id)

    def _chain(self, case: Case, objects: Mapping[str, bytes]) -> None:
        self._documents.chain(self._texts.look("chain", objects["chain.json"], case.id), case.id)
        manifests, edges = {}, {}
        for name in filter(EDGE.fullmatch, objects):
            edges[name] = self._texts.look("manifest", objects[name], case.id)
            if name.startswith("manifests/"):
                manifests[int(name[10:22])] = edges[name]
        layouts = {}
        for digest in {document["layout"] for document in edges.values()}:
            layouts[digest] = self._texts.look("layout", objects[f"layouts/{digest}.json"], case.id)
            self._documents.layout(layouts[digest], case.id)
        self._documents.chain_of(layouts, manifests, case.id)
        for name, document in edges.items():
            self._documents.edge(document, case.id)
            if name.startswith("shortcuts/"):
                own = manifests.get(int(document["version"]))
                self._documents.shortcut_of(name.removeprefix("shortcuts/"), document, own, case.id)
            self._edge(case, name, objects)

    def _edge(self, case: Case, name: str, objects: Mapping[str, bytes]) -> None:
        edge = parse_manifest(objects[name], name)
        layout = parse_layout(objects[f"layouts/{edge.layout}.json"], edge.layout)
        uses_exponent = False
        for entry in edge.packs:
            data = objects.get(entry.path or "")
            if data is None:
                continue
            header, _ = split_file(data)
            names = [tensor.name for tensor in layout]
            if entry.content == "tensors":
                kind = "header of a plain pack"
                parsed = self._texts.look(kind, header, case.id)
                self._packs.plain_pack(data, parsed, names, edge.base is not None, case.id)
                self._entries("entry of a plain pack", parsed, case.id)
                used = {names.index(tensor) for tensor in parsed if tensor in names}
            else:
                parsed = self._texts.look("header of a chunk pack", header, case.id)
                chunks = read_chunks(open_chunk_file(data), layout, edge.layout, edge.features)
                uses_exponent |= any(chunk.order == "exponent" for chunk in chunks)
                used = {tensor for chunk in chunks for tensor, _, _ in chunk.slices}
                if self._is_new(entry.content, data):
                    self._packs.chunk_pack(data, parsed, case.id)
                    text = parsed["__metadata__"]["tensordelta"].encode()
                    table = self._texts.look("chunk table", text, case.id)
                    self._packs.chunk_table(chunks, table["chunks"], case.id)
                    self._entries("stream entry", parsed, case.id)
            held = {tensor for first, stop in entry.tensors for tensor in range(first, stop)}
            if held - used:
                self._documents.pack["more"].note(entry.tensors, case.id)
        if "exponent-order" in edge.features and not uses_exponent:
            self._documents.unused.note(name, case.id)

    def _entries(self, kind: str, header: Mapping[str, Any], case: str) -> None:
        for name, entry in header.items():
            if name != "__metadata__":
                self._texts.entry(kind, entry, case)


def _states(case: Case) -> Iterator[tuple[str | None, str]]:
    """The files of the states that are held and read, where a step ends with a state in a file."""
    for step in case.steps:
        if step.op == "read" and not step.expect.errors and isinstance(step.expect.state, str):
            held = step.input.get("held")
            whole = not {"tensors", "holders"} & step.input.keys()
            yield (held["state"] if held and whole else None), step.expect.state


def main(argv: Sequence[str] | None = None) -> int:
    """Gives the exit code."""
    parser = argparse.ArgumentParser(prog="census", description="Count the kinds of values of accepted vectors.")
    parser.add_argument("--vectors", type=Path, default=VECTORS)
    parser.add_argument("--lacking", action="store_true", help="show the kinds that are not met alone")
    options = parser.parse_args(argv)
    count = Count()
    for case in Suite(options.vectors).cases.values():
        count.case(case)
    lacking = count.census.lacking
    for row in count.census.rows():
        if not options.lacking or "LACKING" in row:
            print(row)
    print(f"{len(count.census.kinds)} kinds of accepted values; {len(lacking)} of them lack vectors")
    return 1 if lacking else 0


if __name__ == "__main__":
    raise SystemExit(main())
