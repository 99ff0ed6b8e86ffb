"""What a case does, as a person reads it."""

from __future__ import annotations

import hashlib
import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path

from . import wording
from .case import Case
from .suite import Suite

_WIDTH = 110


def _files(folder: Path) -> dict[str, Path]:
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _twin_lines(case: Case, twin: Case) -> Iterator[str]:
    own, other = _files(case.folder), _files(twin.folder)
    yield f"Beside its valid twin {twin.id}:"
    same = True
    for name in sorted(own.keys() | other.keys()):
        if name == "case.json":
            continue
        if name not in other:
            yield f"  {name}: only here"
        elif name not in own:
            yield f"  {name}: only in the twin"
        elif _digest(own[name]) != _digest(other[name]):
            yield f"  {name}: other bytes"
        else:
            continue
        same = False
    if same:
        yield "  the same files; what is asked differs"


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
            text = f"     -> {wording.expectation(step.expect)}"
            lines += textwrap.wrap(text, _WIDTH, subsequent_indent=" " * 8)
    if case.verify is not None:
        found = "; ".join(map(wording.expected_fault, case.verify)) or "no fault"
        lines += ["", *textwrap.wrap(f"A verifier reports: {found}", _WIDTH, subsequent_indent="  ")]
    if case.twin is not None:
        lines += ["", *_twin_lines(case, suite.cases[case.twin])]
    lines += ["", "Files:"]
    lines += [f"{path.stat().st_size:>10}  {name}" for name, path in _files(case.folder).items()]
    return "\n".join(lines)


def unpack(case: Case, folder: Path) -> Path:
    """Copy a case's folder below another; gives where it lies. Raises FileExistsError if it is there already."""
    target = folder / case.id
    shutil.copytree(case.folder, target, copy_function=shutil.copyfile)
    return target
