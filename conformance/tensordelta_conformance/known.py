"""The list of known failures: cases that an implementation is known not to pass yet, each with a reason."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_MEMBERS = {"case", "reason", "link"}


class KnownFailuresError(ValueError):
    """What is wrong with a list of known failures."""


@dataclass(frozen=True)
class KnownFailure:
    """Why a case fails, and where that is followed up."""

    case: str
    reason: str
    link: str


def load_known_failures(path: Path) -> dict[str, KnownFailure]:
    """The list of a file, by case id: `[{"case": "…", "reason": "…", "link": "…"}]`. Raises KnownFailuresError."""
    try:
        items = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise KnownFailuresError(f"{path}: {error}") from error
    if not isinstance(items, list):
        raise KnownFailuresError(f"{path} is no list")
    found: dict[str, KnownFailure] = {}
    for index, item in enumerate(items):
        if not isinstance(item, dict) or set(item) != _MEMBERS:
            raise KnownFailuresError(f"{path}: entry {index} has not exactly case, reason and link")
        if not all(isinstance(item[key], str) and item[key].strip() for key in _MEMBERS):
            raise KnownFailuresError(f"{path}: entry {index} has an empty member, or one that is no string")
        if item["case"] in found:
            raise KnownFailuresError(f"{path}: {item['case']} is listed twice")
        found[item["case"]] = KnownFailure(**item)
    return found


def faults_of_list(known: Mapping[str, KnownFailure], cases: set[str], statuses: Mapping[str, set[str]]) -> list[str]:
    """What a run shows to be wrong with a list.

    `cases`: the ids of the suite; `statuses`: by case id, those of the checks that ran.
    """
    found = []
    for name in known:
        if name not in cases:
            found.append(f"{name} is listed as a known failure, but there is no such case")
        elif statuses.get(name) == {"pass"}:
            found.append(f"{name} is listed as a known failure, but passes")
    return found
