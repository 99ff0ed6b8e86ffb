"""Which cases test which requirement of SPEC.md, and whether each MUST is tested or listed as untestable.

    python conformance/coverage.py [--vectors DIR] [--json]

Prints each requirement with the ids of its cases. Exits 1, and says why, when a MUST or MUST NOT is neither named by a
case nor listed in untestable.json, when a listed one is named by a case, is no MUST, or lacks a reason or what would
make it testable, or when more than a tenth of all MUSTs is listed. Standard library only.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from requirements import Requirement, extract

HERE = Path(__file__).resolve().parent
MOST = 10
"""At most one in so many MUSTs may be listed."""


def index(vectors: Path) -> dict[str, list[str]]:
    """The ids of cases by requirement, in the order of the documents."""
    found: dict[str, list[str]] = {}
    for path in sorted(vectors.glob("*/*.json")):
        for entry in json.loads(path.read_text(encoding="utf-8"))["cases"]:
            for name in entry["case"]["requirements"]:
                found.setdefault(name, []).append(entry["case"]["id"])
    return found


def musts(requirements: Iterable[Requirement]) -> list[str]:
    """The ids that bind every implementation."""
    return [each.id for each in requirements if each.keyword in ("MUST", "MUST NOT")]


def problems(
    binding: Sequence[str], tested: Mapping[str, Sequence[str]], listed: Sequence[Mapping[str, Any]]
) -> list[str]:
    """What is wrong with a suite that tests some requirements and lists others; empty when all is well."""
    names = [str(each.get("requirement")) for each in listed]
    found = [f"{name} is neither tested nor listed" for name in binding if name not in tested and name not in names]
    found += [f"{name} is listed and tested by {', '.join(tested[name][:3])}" for name in names if name in tested]
    found += [f"{name} is listed and no MUST" for name in names if name not in binding]
    found += [f"{name} is listed twice" for name in sorted({name for name in names if names.count(name) > 1})]
    for each in listed:
        for member in ("reason", "testable_when"):
            if not each.get(member):
                found.append(f"{each.get('requirement')} is listed without `{member}`")
    if len(names) * MOST > len(binding):
        found.append(f"{len(names)} of {len(binding)} MUSTs are listed, more than one in {MOST}")
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Gives the exit code."""
    parser = argparse.ArgumentParser(description="Which cases test which requirement.")
    parser.add_argument("--vectors", type=Path, default=HERE / "vectors")
    parser.add_argument("--json", action="store_true", help="print a JSON object instead of lines")
    options = parser.parse_args(argv)
    requirements = extract((HERE.parent / "SPEC.md").read_text(encoding="utf-8"))
    listed = json.loads((HERE / "untestable.json").read_text(encoding="utf-8"))
    tested = index(options.vectors)
    if options.json:
        print(json.dumps({each.id: tested.get(each.id, []) for each in requirements}, indent=1))
    else:
        for each in requirements:
            print(f"{each.id}  {each.keyword:<10}  {each.subject:<8}  {' '.join(tested.get(each.id, [])) or '-'}")
    binding = musts(requirements)
    wrong = problems(binding, tested, listed)
    for text in wrong:
        print(text, file=sys.stderr)
    covered = sum(name in tested for name in binding)
    print(f"{covered} of {len(binding)} MUSTs are tested, {len(listed)} are listed as untestable", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
