"""Extracts the requirements of SPEC.md and finds the lines that break its form (SPEC.md section 1.4).

    python conformance/requirements.py [SPEC.md] [--json]

Prints each requirement's id, keyword, subject, section number and text. Exits 1 and names the lines when a
requirement word in capitals stands in a line without an id, an id is given twice, or a requirement has not exactly
one requirement word, a known area, or one of the three subjects. Standard library only.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

SUBJECTS = ("Reader", "Writer", "Verifier")
AREAS = frozenset(
    "TRM WRD OBJ JSN PTH LAY MAN FIT PCK CHK ORD POS VAL ZST FPR RDR APP SLC RTE FOL WRT RET VER LIM ERR SIG SEC"
    " STO".split()
)
DEFINING_SECTION = "Requirement words"
"""Title of the one section in which the words may stand without an id."""

_KEYWORD = re.compile(
    r"\b(?:MUST NOT|MUST|SHALL NOT|SHALL|SHOULD NOT|SHOULD|NOT RECOMMENDED|RECOMMENDED|REQUIRED|MAY|OPTIONAL)\b"
)
_REQUIREMENT = re.compile(r"^\s*(?:[-*]\s+)?\[(TD-([A-Z]{3})-[0-9]{3})\]\s+(.*\S)\s*$")
_LOOKS_LIKE_ONE = re.compile(r"^\s*(?:[-*]\s+)?\[?TD-")
_SUBJECT = re.compile(r"^A (Reader|Writer|Verifier) (?=MUST|SHALL|SHOULD|MAY)")
_HEADING = re.compile(r"^#{1,6}\s+(?:((?:[0-9]+|[A-Z])(?:\.[0-9]+)*)\s+)?(.*\S)\s*$")
_FENCE = re.compile(r"^\s*(`{3,}|~{3,})")


@dataclass(frozen=True)
class Requirement:
    """One obligation of SPEC.md."""

    id: str
    keyword: str
    subject: str
    section: str
    text: str
    line: int


@dataclass(frozen=True)
class _Line:
    number: int
    section: str
    title: str
    text: str


def _prose(text: str) -> Iterator[_Line]:
    """The lines outside fenced code blocks, each with the section it stands in."""
    section = title = fence = ""
    for number, line in enumerate(text.splitlines(), start=1):
        mark = _FENCE.match(line)
        if fence:
            if mark and mark[1].startswith(fence) and line.strip() == mark[1]:
                fence = ""
            continue
        if mark:
            fence = mark[1]
            continue
        heading = _HEADING.match(line)
        if heading:
            section, title = heading[1] or "", heading[2]
        yield _Line(number, section, title, line)


def extract(text: str) -> list[Requirement]:
    """The requirements of a specification, in its order. Lines that `faults` names may be among them."""
    found = []
    for line in _prose(text):
        match = _REQUIREMENT.match(line.text)
        if not match:
            continue
        keyword, subject = _KEYWORD.search(match[3]), _SUBJECT.match(match[3])
        found.append(
            Requirement(
                id=match[1],
                keyword=keyword[0] if keyword else "",
                subject=subject[1] if subject else "",
                section=line.section,
                text=match[3],
                line=line.number,
            )
        )
    return found


def faults(text: str) -> list[str]:
    """What breaks the form of requirements, a sentence for each fault; empty when all is well."""
    found = []
    first_line: dict[str, int] = {}
    for line in _prose(text):
        match = _REQUIREMENT.match(line.text)
        if not match:
            if _LOOKS_LIKE_ONE.match(line.text):
                found.append(f"line {line.number}: begins like a requirement but has no well-formed id")
            elif line.title != DEFINING_SECTION and (word := _KEYWORD.search(line.text)):
                found.append(f"line {line.number}: {word[0]} in a line without an id")
            continue
        name, area, sentence = match[1], match[2], match[3]
        if name in first_line:
            found.append(f"line {line.number}: {name} is already the id of line {first_line[name]}")
        first_line.setdefault(name, line.number)
        if area not in AREAS:
            found.append(f"line {line.number}: {name} is of no known area")
        words = _KEYWORD.findall(sentence)
        if len(words) != 1:
            found.append(f"line {line.number}: {name} has {len(words)} requirement words, not one")
        if not _SUBJECT.match(sentence):
            found.append(f"line {line.number}: {name} does not begin with A, one of {SUBJECTS} and its word")
    return found


def main(argv: list[str] | None = None) -> int:
    default = Path(__file__).resolve().parent.parent / "SPEC.md"
    parser = argparse.ArgumentParser(description="Extract the requirements of SPEC.md.")
    parser.add_argument("spec", nargs="?", type=Path, default=default)
    parser.add_argument("--json", action="store_true", help="print a JSON list instead of lines")
    options = parser.parse_args(argv)
    text = options.spec.read_text(encoding="utf-8")
    requirements = extract(text)
    if options.json:
        print(json.dumps([asdict(r) for r in requirements], indent=1, ensure_ascii=False))
    else:
        for r in requirements:
            print(f"{r.id}  {r.keyword:<10}  {r.subject:<8}  {r.section:<5}  {r.text}")
    broken = faults(text)
    for fault in broken:
        print(f"{options.spec}: {fault}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
