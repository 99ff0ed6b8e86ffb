"""Where cases lie: in documents (CASES.md), or in unpacked folders."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from .case import CaseError

_DIGEST = re.compile(r"[0-9a-f]{64}")
_POOL = "pool"


class Files(Mapping[str, bytes]):
    """The files of a case by path relative to its folder, `case.json` among them. A file is read when it is used."""

    def __init__(self, readers: Mapping[str, Callable[[], bytes]]) -> None:
        self._readers = dict(readers)

    def __getitem__(self, name: str) -> bytes:
        return self._readers[name]()

    def __contains__(self, name: object) -> bool:
        return name in self._readers

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)


def folder_files(folder: Path) -> Files:
    """The files below a case's folder."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return Files({path.relative_to(folder).as_posix(): path.read_bytes for path in paths})


def find_cases(root: Path) -> dict[str, Files]:
    """The files of all cases below a folder, by path such as `positions/invalid/gap-past-the-end`.

    Both forms count: documents `<area>/<valid|invalid>.json`, and folders `<area>/<valid|invalid>/<id>/`. Raises
    CaseError for a document that breaks its form, and for a case that is there twice.
    """
    found = _document_cases(root)
    for file in sorted(root.glob("*/*/*/case.json")):
        path = file.parent.relative_to(root).as_posix()
        if path in found:
            raise CaseError(f"{path}: it is there twice")
        found[path] = folder_files(file.parent)
    return found


# -- documents ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Entry:
    """A case in a document: the path of the case whose files it has (or None), and its own files."""

    like: str | None
    own: Mapping[str, Callable[[], bytes] | None]


def _document_cases(root: Path) -> dict[str, Files]:
    entries: dict[str, _Entry] = {}
    for file in sorted(root.glob("*/*.json")):
        if file.stem not in ("valid", "invalid"):
            continue
        half = f"{file.parent.name}/{file.stem}"
        try:
            document = json.loads(file.read_bytes())
            read = partial(_content, contents=document["contents"], pool=root / _POOL)
            for stored in document["cases"]:
                path = f"{half}/{stored['case']['id']}"
                if path in entries or path.count("/") != 2:
                    raise CaseError(f"{path} is there twice, or is no path of a case")
                entries[path] = _entry(stored, read)
        except CaseError as error:
            raise CaseError(f"{half}.json: {error}") from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CaseError(f"{half}.json: {type(error).__name__}: {error}") from error
    return {path: _files(path, entry, entries) for path, entry in entries.items()}


def _entry(stored: Mapping[str, Any], read: Callable[[Any], bytes]) -> _Entry:
    own: dict[str, Callable[[], bytes] | None] = {"case.json": partial(_case_json, stored["case"])}
    for name, content in stored["files"].items():
        if any(part in ("", ".", "..") for part in name.split("/")) or "\0" in name or name in own:
            raise CaseError(f"{name!r} is no path of a file")
        own[name] = None if content is None else partial(read, content)
    return _Entry(stored["like"], own)


def _files(path: str, entry: _Entry, entries: Mapping[str, _Entry]) -> Files:
    """The own files of an entry put over those of the case that it is like; None removes a file."""
    if entry.like is None:
        merged = dict(entry.own)
    else:
        other = entries.get(entry.like)
        if other is None or other.like is not None:
            raise CaseError(f"{path}: it is like {entry.like}, which is no case with all its files")
        merged = {**other.own, **entry.own}
    return Files({name: reader for name, reader in sorted(merged.items()) if reader is not None})


def _case_json(case: Mapping[str, Any]) -> bytes:
    return (json.dumps(case, ensure_ascii=False, indent=1) + "\n").encode()


def _content(content: Any, contents: Mapping[str, Any], pool: Path) -> bytes:
    """The bytes of a content: its pieces, or the content with a digest, which the document has or else the pool.

    Raises CaseError.
    """
    try:
        if isinstance(content, list):
            return b"".join(map(_piece, content))
        digest = content["sha256"]
        if not _DIGEST.fullmatch(digest):
            raise CaseError(f"{digest!r} is no SHA-256")
        data = b"".join(map(_piece, contents[digest])) if digest in contents else (pool / digest).read_bytes()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CaseError(f"a file cannot be read: {type(error).__name__}: {error}") from error
    if hashlib.sha256(data).hexdigest() != digest:
        raise CaseError(f"the content {digest} has another digest")
    return data


def _piece(piece: Any) -> bytes:
    return piece.encode() if isinstance(piece, str) else base64.b64decode(piece["base64"], validate=True)
