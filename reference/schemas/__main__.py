"""JSON Schemas of the format's documents, made from the package's own types (SPEC.md appendix D).

    python reference/schemas [DIR]

A schema states shapes and patterns only; SPEC.md holds where the two differ.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from tensordelta.format.documents import ChainDocument, LatestDocument
from tensordelta.format.layout import LayoutDocument
from tensordelta.format.manifest import Manifest
from tensordelta.format.pack import ChunkTable

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_SUFFIX = ".schema.json"

#: The documents: name -> (type, title, description).
_DOCUMENTS: dict[str, tuple[type[msgspec.Struct], str, str]] = {
    "chain": (ChainDocument, "tensordelta chain object", "chain.json, SPEC.md section 4.5."),
    "latest": (LatestDocument, "tensordelta hint", "latest.json, SPEC.md section 4.11."),
    "layout": (LayoutDocument, "tensordelta layout", "layouts/{digest}.json, SPEC.md section 4.6."),
    "manifest": (
        Manifest,
        "tensordelta manifest or shortcut",
        "manifests/V.json and shortcuts/V-B.json, SPEC.md sections 4.7 to 4.10.",
    ),
    "chunk-table": (
        ChunkTable,
        "tensordelta chunk table",
        "The string under the key `tensordelta` of a chunk pack's metadata, SPEC.md section 6.3.",
    ),
}


def schemas() -> dict[str, dict[str, Any]]:
    """JSON Schemas (draft 2020-12) of the documents, by name: chain, latest, layout, manifest and chunk-table."""
    return {
        name: {"$schema": _DIALECT, "title": title, "description": description, **_portable(msgspec.json.schema(kind))}
        for name, (kind, title, description) in _DOCUMENTS.items()
    }


def _portable(part: Any) -> Any:
    """A schema whose patterns are regular expressions of ECMA 262, as JSON Schema asks."""
    if isinstance(part, dict):
        return {
            key: value.replace(r"\Z", "$") if key == "pattern" and isinstance(value, str) else _portable(value)
            for key, value in part.items()
        }
    return [_portable(each) for each in part] if isinstance(part, list) else part


def text(schema: dict[str, Any]) -> str:
    """A schema as it stands in its file."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write each schema to DIR/NAME.schema.json, by default beside this file; gives the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if len(arguments) > 1 or (arguments[:1] and arguments[0].startswith("-")):
        print("usage: python reference/schemas [DIR]", file=sys.stderr)
        return 2
    folder = Path(arguments[0]) if arguments else Path(__file__).parent
    folder.mkdir(parents=True, exist_ok=True)
    for name, schema in schemas().items():
        (folder / f"{name}{_SUFFIX}").write_text(text(schema), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
