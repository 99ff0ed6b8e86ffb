"""What a case does, as a person reads it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path

from . import wording
from .case import Case
from .folder import write_files
from .suite import Suite
from .twins import differences

_WIDTH = 110


def _twin_lines(case: Case, twin: Case) -> Iterator[str]:
    found = differences(case, twin)
    if not found:
        yield f"The same as its valid twin {twin.id}, but for what is expected."
        return
    yield f"Beside its valid twin {twin.id}:"
    for each in found:
        yield f"  {each.where}"
        if each.twin or each.case:
            yield f"    twin: {each.twin}"
            yield f"    here: {each.case}"


def describe(case: Case, suite: Suite) -> str:
    """The case in words: what it is about, what is done, what has to come, and which files it has."""
    lines = textwrap.wrap(case.title, _WIDTH)
    lines += ["", f"{case.path}", f"{case.kind}, {'valid' if case.valid else 'invalid'}, level {case.level}"]
    if case.needs:
        lines.append(f"needs {', '.join(case.needs)}")
    if case.flags:
        lines.append(f"flags {', '.join(case.flags)}")
    lines.append("")
    for name in case.requirements:
        requirement = suite.requirements.get(name)
        text = f"{name}  {requirement.text if requirement else 'is no requirement of this version'}"
        lines += textwrap.wrap(text, _WIDTH, subsequent_indent=" " * 12)
    if case.steps:
        lines += ["", "Steps:"]
    for number, step in enumerate(case.steps, 1):
        lines += textwrap.wrap(f"{number:>3}. {wording.step(step)}", _WIDTH, subsequent_indent=" " * 5)
        if step.op is not None:
            text = f"     -> {wording.expected(step, case.files)}"
            lines += textwrap.wrap(text, _WIDTH, subsequent_indent=" " * 8)
    if case.verify is not None:
        found = "; ".join(map(wording.expected_fault, case.verify)) or "no fault"
        lines += ["", *textwrap.wrap(f"A verifier reports: {found}", _WIDTH, subsequent_indent="  ")]
    if case.twin is not None:
        lines += ["", *_twin_lines(case, suite.cases[case.twin])]
    lines += ["", "Files:"]
    lines += [f"{len(data):>10}  {name}" for name, data in case.files.items()]
    return "\n".join(lines)


def unpack(case: Case, folder: Path) -> Path:
    """Write a case's folder below another; gives where it lies. Raises FileExistsError if it is there already."""
    target = folder / case.id
    target.mkdir(parents=True)
    write_files(case.files, target)
    return target
