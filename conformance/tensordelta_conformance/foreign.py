"""Folders of other projects' weight deltas: written by their own programs, and broken by hand, as one archive.

The archive needs nothing of this package: its README says what lies in it, and `cases.json` what a reader should find.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .archive import write_files_archive
from .foreign_edits import EDITS, Edit
from .names import SUITE_VERSION
from .suite import SuiteError

_PACKAGE = Path(__file__).parent


@dataclass(frozen=True)
class ForeignCase:
    """A folder of another project's format, and what a reader finds in it.

    Attributes:
        id: its name.
        format: "trl", "slime", "modelexpress" or "skyrl".
        title: what it is.
        files: the folder's files by path.
        base: the name and the model of the version that an engine holds at first; None where the folder has it.
        versions: names and models of the versions that can be read, in order.
        refused: the name of the version that must be refused, and why; None where all can be read.
        written_by: the program that wrote it, or from which it was made.
    """

    id: str
    format: str
    title: str
    files: Mapping[str, bytes]
    base: tuple[str, str] | None
    versions: Sequence[tuple[str, str]]
    refused: tuple[str, str] | None
    written_by: Mapping[str, str]

    @property
    def path(self) -> str:
        """Its folder in the archive."""
        return f"{'written' if self.refused is None else 'malformed'}/{self.id}"

    def row(self) -> dict[str, Any]:
        """What `cases.json` says of it."""
        return {
            "id": self.id,
            "format": self.format,
            "title": self.title,
            "path": self.path,
            "base": None if self.base is None else {"version": self.base[0], "model": self.base[1]},
            "versions": [{"version": name, "model": model} for name, model in self.versions],
            "refused": None if self.refused is None else {"version": self.refused[0], "why": self.refused[1]},
            "written_by": dict(self.written_by),
        }


def foreign_folder() -> Path:
    """Where the files lie: inside the package, else beside it.

    Raises:
        SuiteError: they are not there.
    """
    for place in (_PACKAGE / "foreign_files", _PACKAGE.parent / "foreign"):
        if (place / "README.md").is_file():
            return place
    raise SuiteError("the files of other formats are not there")


def _files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def foreign_cases() -> dict[str, ForeignCase]:
    """All cases by id: those that programs wrote, then those that were broken by hand.

    Raises:
        SuiteError: the files are not there.
    """
    root = foreign_folder()
    cases: dict[str, ForeignCase] = {}
    for row in json.loads((root / "written.json").read_bytes()):
        base, refused = row["base"], row["refused"]
        cases[row["id"]] = ForeignCase(
            row["id"],
            row["format"],
            row["title"],
            _files(root / "written" / row["id"]),
            None if base is None else (base["version"], base["model"]),
            [(each["version"], each["model"]) for each in row["versions"]],
            None if refused is None else (refused["version"], refused["why"]),
            row["written_by"],
        )
    for edit in EDITS:
        cases[edit.id] = _edited(cases[edit.of], edit)
    return cases


def _edited(case: ForeignCase, edit: Edit) -> ForeignCase:
    files = dict(case.files)
    edit.apply(files)
    before = [name for name, _ in case.versions].index(edit.version)
    return ForeignCase(
        edit.id,
        case.format,
        edit.title,
        files,
        case.base,
        case.versions[:before],
        (edit.version, edit.title),
        {**case.written_by, "broken_by": "tensordelta-conformance"},
    )


def write_foreign(path: Path) -> str:
    """Write README, models and all cases as a .tar.gz, and `path`.sha256 beside it; gives the SHA-256 in hex.

    Raises:
        SuiteError: the files are not there.
    """
    root, cases = foreign_folder(), foreign_cases().values()
    files = {name: data for name, data in _files(root).items() if name == "README.md" or name.startswith("models/")}
    rows = {"suite": SUITE_VERSION, "cases": [case.row() for case in cases]}
    files["cases.json"] = json.dumps(rows, indent=1, ensure_ascii=False).encode() + b"\n"
    for case in cases:
        files |= {f"{case.path}/{name}": data for name, data in case.files.items()}
    return write_files_archive(
        {f"tensordelta-foreign-{SUITE_VERSION}/{name}": data for name, data in files.items()}, path
    )
