"""The files of a report: report.json, junit.xml and report.html."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from .names import SPEC_VERSION, SUITE_VERSION
from .page import page
from .results import COUNTED, STATUSES, Check, Report

FORMAT = 1
"""Version of report.json."""


def _check(report: Report, check: Check) -> dict[str, Any]:
    case = check.case
    members = {
        "case": case.id,
        "part": check.part,
        "area": case.area,
        "valid": case.valid,
        "level": check.level,
        "title": case.title,
        "requirements": list(case.requirements),
        "status": check.status,
        "seconds": check.seconds,
        "step": check.step,
        "expected": check.expected,
        "got": check.got,
        "message": check.message,
        "stderr": check.stderr,
        "broken": list(check.broken),
        "reason": check.reason,
        "link": check.link,
    }
    if check.status in (*COUNTED, "expected-failure"):
        beside = [asdict(each) for each in report.beside_twins.get(case.id, [])]
        members |= {"asked": check.asked, "twin": case.twin, "differences": beside}
    return members


def as_document(report: Report) -> dict[str, Any]:
    """The report as report.json has it. Members are only ever added; a change of meaning raises `format`."""
    hello, run = report.hello, report.run
    return {
        "format": FORMAT,
        "suite": {"version": SUITE_VERSION, "spec": SPEC_VERSION, "cases": len(report.suite.cases)},
        "adapter": {
            "name": hello.name,
            "version": hello.version,
            "spec": hello.spec,
            "roles": list(hello.roles),
            "levels": list(hello.levels),
            "capabilities": list(hello.capabilities),
            "memory": hello.memory,
        },
        "run": {
            "form": run.form,
            "command": run.command,
            "levels": list(run.levels),
            "only": list(run.only),
            "huge": run.huge,
            "timeout": run.timeout,
            "jobs": run.jobs,
            "started": run.started,
            "seconds": run.seconds,
            "platform": run.platform,
            "python": run.python,
            "interrupted": report.interrupted,
        },
        "verdict": {
            "sentence": report.verdict,
            "conforms": report.conforms,
            "clean": report.clean,
            "levels": [level.level for level in report.levels.values() if level.conforms],
            "without": list(report.without),
        },
        "levels": [
            {
                "level": level.level,
                "conforms": level.conforms,
                "total": level.total,
                **{status: level[status] for status in STATUSES},
            }
            for level in report.levels.values()
        ],
        "requirements": [
            {
                "id": result.requirement.id,
                "keyword": result.requirement.keyword,
                "subject": result.requirement.subject,
                "section": result.requirement.section,
                "text": result.requirement.text,
                "state": result.state,
                "cases": list(result.cases),
                "failed": list(result.failed),
            }
            for result in report.requirements
        ],
        "checks": [_check(report, check) for check in report.checks],
        "known_failures": {"faults": list(report.list_faults)},
    }


def _clean(text: str) -> str:
    """A text that XML can hold."""
    return "".join(
        c if c in "\t\n\r" or "\x20" <= c <= "\ud7ff" or "\ue000" <= c <= "\ufffd" or c >= "\U00010000" else "\ufffd"
        for c in text
    )


def _short(check: Check) -> str:
    return f"{check.got}; expected: {check.expected}"


def _details(check: Check) -> str:
    lines = [check.case.title]
    if check.step is not None:
        lines.append(f"step: {check.step + 1}")
    for name in ("expected", "got", "message"):
        if getattr(check, name):
            lines.append(f"{name}: {getattr(check, name)}")
    return _clean("\n".join(lines))


def _test_case(parent: ElementTree.Element, check: Check) -> None:
    element = ElementTree.SubElement(
        parent,
        "testcase",
        classname=f"{check.level}.{check.case.area}",
        name=check.name,
        time=f"{check.seconds:.4f}",
    )
    if check.status in ("not-applicable", "expected-failure"):
        word = "not applicable" if check.status == "not-applicable" else "expected failure"
        ElementTree.SubElement(element, "skipped", message=_clean(f"{word}: {check.reason}"))
    elif check.status == "error":
        child = ElementTree.SubElement(element, "error", message=_clean(_short(check)), type="error")
        child.text = _details(check)
    elif check.counts_against:
        child = ElementTree.SubElement(element, "failure", message=_clean(_short(check)), type=check.status)
        child.text = _details(check)
    if check.stderr:
        ElementTree.SubElement(element, "system-err").text = _clean(check.stderr)


def _suites(report: Report) -> Iterator[tuple[str, list[Check]]]:
    for level in report.levels:
        yield level, [check for check in report.checks if check.level == level]


def as_junit(report: Report) -> bytes:
    """The report as JUnit XML: a test suite for each level, and one for the list of known failures if it is wrong."""
    root = ElementTree.Element("testsuites", name=f"tensordelta-conformance {SUITE_VERSION}")
    total = {"tests": 0, "failures": 0, "errors": 0, "skipped": 0}
    for level, checks in _suites(report):
        counts = {
            "tests": len(checks),
            "failures": sum(check.status in ("fail", "unsupported") for check in checks),
            "errors": sum(check.status == "error" for check in checks),
            "skipped": sum(check.status in ("not-applicable", "expected-failure") for check in checks),
        }
        element = ElementTree.SubElement(root, "testsuite", name=level)
        element.set("time", f"{sum(check.seconds for check in checks):.4f}")
        element.set("timestamp", report.run.started.rstrip("Z"))
        for key, value in counts.items():
            element.set(key, str(value))
            total[key] += value
        for check in checks:
            _test_case(element, check)
    if report.list_faults:
        number = len(report.list_faults)
        element = ElementTree.SubElement(
            root,
            "testsuite",
            name="known failures",
            tests=str(number),
            failures=str(number),
            errors="0",
            skipped="0",
            time="0",
        )
        total["tests"] += number
        total["failures"] += number
        for fault in report.list_faults:
            child = ElementTree.SubElement(element, "testcase", classname="known-failures", name=fault, time="0")
            ElementTree.SubElement(child, "failure", message=fault, type="fail")
    for key, value in total.items():
        root.set(key, str(value))
    root.set("time", f"{report.run.seconds:.4f}")
    ElementTree.indent(root)
    text: str = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'.encode()


def write_reports(report: Report, folder: Path | str) -> list[Path]:
    """Write report.json, junit.xml and report.html into a folder, which is made if need be; gives their paths."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    document = json.dumps(as_document(report), indent=1, ensure_ascii=False) + "\n"
    files = {
        "report.json": document.encode("utf-8", "backslashreplace"),
        "junit.xml": as_junit(report),
        "report.html": page(report).encode("utf-8", "backslashreplace"),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return [folder / name for name in files]
