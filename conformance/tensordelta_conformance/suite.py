"""The suite: where its vectors lie, its cases, and the requirements that they test."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from .case import Case, CaseError, load_case
from .documents import find_cases

_PACKAGE = Path(__file__).resolve().parent


class SuiteError(ValueError):
    """No vectors, or vectors that break the contract of CASES.md."""


@dataclass(frozen=True)
class Requirement:
    """One requirement of SPEC.md: `text` is its whole sentence."""

    id: str
    keyword: str
    subject: str
    section: str
    text: str


def load_requirements() -> dict[str, Requirement]:
    """The requirements of SPEC.md in its order, by id."""
    listed = json.loads((_PACKAGE / "requirements.json").read_text(encoding="utf-8"))
    found = [
        Requirement(item["id"], item["keyword"], item["subject"], item["section"], item["text"]) for item in listed
    ]
    return {requirement.id: requirement for requirement in found}


class Suite:
    """The cases below a folder, in documents `<area>/<valid|invalid>.json` or unpacked (CASES.md)."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def find(cls, root: Path | None = None) -> Suite:
        """The vectors of `root`; else those inside the package; else those beside it. Raises SuiteError."""
        if root is not None:
            if not root.is_dir():
                raise SuiteError(f"{root} is no folder")
            return cls(root)
        for place in (_PACKAGE / "vectors", _PACKAGE.parent / "vectors"):
            if place.is_dir():
                return cls(place)
        raise SuiteError("there are no vectors in the package, nor beside it; say where they are")

    @cached_property
    def cases(self) -> dict[str, Case]:
        """All cases by id, area by area, valid ones first. Raises SuiteError where one breaks the contract."""
        found: dict[str, Case] = {}
        faults = []
        try:
            paths = find_cases(self.root)
        except CaseError as error:
            raise SuiteError(str(error)) from error
        for path in sorted(paths, key=_area_valid_first):
            try:
                case = load_case(path, paths[path])
            except CaseError as error:
                faults.append(str(error))
                continue
            if case.id in found:
                faults.append(f"{case.path}: {found[case.id].path} has the same id")
            found[case.id] = case
        for case in found.values():
            if case.twin is not None and case.twin not in found:
                faults.append(f"{case.path}: its twin {case.twin} does not exist")
        if faults:
            raise SuiteError("\n".join(faults))
        if not found:
            raise SuiteError(f"there are no cases below {self.root}")
        return found

    @cached_property
    def requirements(self) -> dict[str, Requirement]:
        """The requirements of SPEC.md."""
        return load_requirements()

    def select(self, levels: Iterable[str] | None = None, only: Iterable[str] = ()) -> list[Case]:
        """The cases with something to do at one of the levels, and, if given, that a pattern of `only` names.

        A pattern (`*` and `?` as in a shell) is compared with a case's id and with `area/valid/id`. Raises SuiteError
        for a pattern that names no case of the suite.
        """
        patterns = list(only)
        wanted = None if levels is None else frozenset(levels)
        used: set[str] = set()
        chosen = []
        for case in self.cases.values():
            matching = [p for p in patterns if fnmatch.fnmatchcase(case.id, p) or fnmatch.fnmatchcase(case.path, p)]
            used.update(matching)
            if patterns and not matching:
                continue
            if wanted is None or parts_of(case, wanted):
                chosen.append(case)
        unused = sorted(set(patterns) - used)
        if unused:
            raise SuiteError(f"no case is named by {', '.join(unused)}")
        return chosen


def _area_valid_first(path: str) -> tuple[str, bool, str]:
    area, half, name = path.split("/")
    return area, half != "valid", name


def parts_of(case: Case, levels: frozenset[str]) -> list[str]:
    """What of a case is done at these levels: its `steps`, its `verify`, both or nothing."""
    parts = []
    if case.steps and case.level in levels:
        parts.append("steps")
    if case.verify is not None and "verifier" in levels:
        parts.append("verify")
    return parts
