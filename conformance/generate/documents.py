"""Cases as documents (CASES.md): what several cases share is stored once, and JSON stands as text."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

LARGE = 8192
"""Contents of more bytes go to the pool."""

WIDTH = 120
"""Characters of a line, where its member's name and the strings in it allow."""

Files = Mapping[str, bytes]


@dataclass(frozen=True)
class Stored:
    """A case to be stored: its case.json, its other files, and the path of the case that it is like, if any."""

    case: Mapping[str, Any]
    files: Files
    like: str | None


def documents(cases: Mapping[str, Stored]) -> dict[str, bytes]:
    """The files of vectors/ by path, from the cases by path (`area/valid/id`)."""
    own = {path: _own(each, cases) for path, each in sorted(cases.items())}
    users: dict[bytes, list[str]] = {}
    for path, files in own.items():
        for data in files.values():
            if data is not None:
                users.setdefault(data, []).append(_half(path))
    pool = {data for data, halves in users.items() if len(data) > LARGE or len(set(halves)) > 1}
    shared = {data for data, halves in users.items() if len(halves) > 1} - pool

    written = {f"pool/{_digest(data)}": data for data in pool}
    for half in sorted({_half(path) for path in cases}):
        paths = [path for path in own if _half(path) == half]
        contents = {_digest(data): _pieces(data) for path in paths for data in own[path].values() if data in shared}
        entries = [
            {
                "case": cases[path].case,
                "like": cases[path].like,
                "files": {
                    name: data if data is None else _reference(data) if data in pool | shared else _pieces(data)
                    for name, data in own[path].items()
                },
            }
            for path in paths
        ]
        document = {"cases": entries, "contents": contents}
        written[f"{half}.json"] = (_json(document) + "\n").encode("ascii")
    return written


def _half(path: str) -> str:
    return path.rpartition("/")[0]


def _own(each: Stored, cases: Mapping[str, Stored]) -> dict[str, bytes | None]:
    """The files in which a case differs from the one that it is like; None: it lacks the file."""
    others: Files = {} if each.like is None else cases[each.like].files
    names = sorted(each.files.keys() | others.keys())
    return {name: each.files.get(name) for name in names if each.files.get(name) != others.get(name)}


# -- contents ----------------------------------------------------------------------------------------------------------


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _reference(data: bytes) -> dict[str, str]:
    return {"sha256": _digest(data)}


def _pieces(data: bytes) -> list[str | dict[str, str]]:
    """Text in lines; a safetensors file as its length, the lines of its header, and its data; else base64."""
    text = _text(data)
    if text is not None:
        return [*_lines(text)]
    end = 8 + int.from_bytes(data[:8], "little")
    header = _text(data[8:end]) if end <= len(data) else None
    if header:
        return [_base64(data[:8]), *_lines(header), *([_base64(data[end:])] if data[end:] else [])]
    return [_base64(data)]


def _base64(data: bytes) -> dict[str, str]:
    return {"base64": base64.b64encode(data).decode()}


def _text(data: bytes) -> str | None:
    """None for bytes that are not UTF-8, or have control characters other than those of white space."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    return None if re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", text) else text


def _lines(text: str) -> Iterator[str]:
    """JSON in lines: each member, and each item that is no number, begins one."""
    return filter(None, re.split(r'(?<=,)(?= ?\\*["{\[])|(?<=\n)', text))


# -- the text of a document --------------------------------------------------------------------------------------------


def _json(value: Any, indent: str = "") -> str:
    """ASCII. What fits into a line stands in one; else each member or item begins one."""
    text = json.dumps(value)
    if len(indent) + len(text) <= WIDTH or not value or not isinstance(value, dict | list):
        return text
    deeper = f"{indent} "
    if isinstance(value, dict):
        lines = [f"{deeper}{json.dumps(name)}: {_json(item, deeper)}" for name, item in value.items()]
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    return "[\n" + ",\n".join(f"{deeper}{_json(item, deeper)}" for item in value) + f"\n{indent}]"
