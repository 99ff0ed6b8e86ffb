"""report.html: one page for a person, with everything in it."""

from __future__ import annotations

import html
from collections.abc import Iterable
from importlib import resources

from .names import SPEC_VERSION, SUITE_VERSION
from .results import STATUSES, Check, LevelResult, Report, RequirementResult
from .wording import plain

WORDS = {
    "pass": "passed",
    "fail": "failed",
    "error": "error",
    "unsupported": "unsupported",
    "expected-failure": "expected failure",
    "not-applicable": "not applicable",
    "passed": "passed",
    "failed": "failed",
    "not-run": "not run",
    "untested": "no case",
}


def _text(value: object) -> str:
    return html.escape(plain(str(value)))


def _resource(name: str) -> str:
    return (resources.files(__package__) / name).read_text(encoding="utf-8")


def _state(status: str) -> str:
    return f'<span class="state {status}">{WORDS[status]}</span>'


def _facts(report: Report) -> str:
    run = report.run
    facts = [
        ("Specification", f"tensordelta {SPEC_VERSION}"),
        ("Suite", f"{SUITE_VERSION}, {len(report.suite.cases)} cases"),
        ("Run", f"{run.started.replace('T', ' ').replace('Z', ' UTC')}, {run.seconds:.1f} s"),
        ("Adapter", run.form),
        ("On", f"{run.platform}, Python {run.python}"),
    ]
    if report.hello.capabilities:
        facts.append(("Capabilities", ", ".join(report.hello.capabilities)))
    if run.only:
        facts.append(("Only", ", ".join(run.only)))
    items = "".join(f"<div><dt>{_text(name)}</dt><dd>{_text(value)}</dd></div>" for name, value in facts)
    return f'<dl class="facts">{items}</dl>'


def _level_row(level: LevelResult) -> str:
    shown = [status for status in STATUSES if level[status]]
    bar = "".join(f'<i class="{status}" style="flex:{level[status]}"></i>' for status in shown)
    title = _text(", ".join(f"{level[status]} {WORDS[status]}" for status in shown))
    numbers = "".join(
        f'<td class="number{"" if level[status] else " zero"}">{level[status] or "–"}</td>' for status in STATUSES
    )
    if level.conforms:
        claim = '<span class="state passed">conforms</span>'
    elif level.applicable and not level.as_expected:
        claim = '<span class="state failed">does not</span>'
    else:
        claim = '<span class="state not-run">no claim</span>'
    return (
        f'<tr><td class="id">{_text(level.level)}</td><td>{claim}</td>{numbers}'
        f'<td title="{title}"><div class="bar">{bar}</div></td></tr>'
    )


def _levels(report: Report) -> str:
    head = "".join(f'<th class="number">{WORDS[status]}</th>' for status in STATUSES)
    rows = "".join(map(_level_row, report.levels.values()))
    return (
        f'<h2>Levels</h2><div class="scroll"><table><thead><tr><th>level</th><th></th>{head}<th></th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _requirement_links(names: Iterable[str]) -> str:
    return ", ".join(f'<a class="id" href="#{name}">{name}</a>' for name in names)


def _failure(check: Check) -> str:
    case = check.case
    facts = []
    if check.expected:
        facts.append(("expected", _text(check.expected)))
    if check.got:
        facts.append(("got", _text(check.got)))
    if check.message:
        facts.append(("the adapter says", f"<pre>{_text(check.message)}</pre>"))
    if check.stderr:
        facts.append(("standard error", f"<pre>{_text(check.stderr)}</pre>"))
    if check.reason:
        link = _text(check.link)
        shown = f'<a href="{link}">{link}</a>' if check.link.startswith(("http://", "https://")) else link
        facts.append(("known", f"{_text(check.reason)} {shown}"))
    if check.step is not None and len(case.steps) > 1:
        facts.append(("step", f"{check.step + 1} of {len(case.steps)}"))
    facts.append(("requirements", _requirement_links(dict.fromkeys((*check.broken, *case.requirements)))))
    if case.twin:
        facts.append(("valid twin", f'<span class="id">{_text(case.twin)}</span>'))
    body = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts)
    return (
        f'<details class="check {check.status}" data-status="{check.status}" data-level="{check.level}">'
        f'<summary><span class="title">{_text(case.title)}</span><span class="id">{_text(check.name)}</span>'
        f'{_state(check.status)}<span class="level">{_text(check.level)}</span></summary><dl>{body}</dl></details>'
    )


def _select(name: str, label: str, values: Iterable[str]) -> str:
    options = "".join(
        f'<option value="{_text(value)}">{_text(WORDS.get(value, value))}</option>' for value in dict.fromkeys(values)
    )
    return f'<select name="{name}" aria-label="{label}"><option value="">{label}</option>{options}</select>'


def _filters(target: str, hint: str, *selects: str) -> str:
    return (
        f'<form class="filters" data-of="{target}" hidden>'
        f'<input type="search" name="text" placeholder="{hint}" aria-label="{hint}">'
        f"{''.join(selects)}<output></output></form>"
    )


def _failures(report: Report) -> str:
    shown = [*report.failures, *report.expected_failures]
    if not shown:
        return '<h2>Failures</h2><p class="none">None.</p>'
    filters = _filters(
        "failures",
        "filter the failures",
        _select("level", "all levels", (check.level for check in shown)),
        _select("status", "all kinds", (check.status for check in shown)),
    )
    items = "".join(map(_failure, shown))
    return f'<h2>Failures<small>{len(shown)}</small></h2>{filters}<div id="failures">{items}</div>'


def _requirement_row(result: RequirementResult) -> str:
    requirement = result.requirement
    text = _text(requirement.text)
    if result.failed:
        names = ", ".join(f'<span class="id">{_text(name)}</span>' for name in result.failed)
        text += f'<br><span class="names failed">{names}</span>'
    cases = _text("\n".join(result.cases))
    return (
        f'<tr id="{requirement.id}" data-status="{result.state}" data-role="{requirement.subject}">'
        f'<td class="id">{requirement.id}</td><td>{_state(result.state)}</td>'
        f'<td class="number" title="{cases}">{len(result.cases)}</td><td>{text}</td></tr>'
    )


def _requirements(report: Report) -> str:
    results = report.requirements
    filters = _filters(
        "requirements",
        "filter the requirements",
        _select("role", "all roles", (result.requirement.subject for result in results)),
        _select("status", "all states", (result.state for result in results)),
    )
    passed = sum(result.state == "passed" for result in results)
    rows = "".join(map(_requirement_row, results))
    return (
        f"<h2>Requirements<small>{passed} of {len(results)} shown to be kept</small></h2>{filters}"
        '<div class="scroll"><table><thead><tr><th>id</th><th>state</th><th class="number">cases</th><th>text</th></tr>'
        f'</thead><tbody id="requirements">{rows}</tbody></table></div>'
    )


def _check_row(check: Check) -> str:
    note = f'<br><span class="none">{_text(check.reason)}</span>' if check.reason else ""
    return (
        f'<tr data-status="{check.status}" data-level="{check.level}"><td><span class="id">{_text(check.name)}</span>'
        f'<br>{_text(check.case.title)}{note}</td><td class="level">{_text(check.level)}</td>'
        f"<td>{_state(check.status)}</td>"
        f'<td class="number">{check.seconds * 1000:.0f} ms</td></tr>'
    )


def _all_checks(report: Report) -> str:
    filters = _filters(
        "checks",
        "filter the checks",
        _select("level", "all levels", (check.level for check in report.checks)),
        _select("status", "all states", (check.status for check in report.checks)),
    )
    rows = "".join(map(_check_row, report.checks))
    return (
        f'<details class="more"><summary>All {len(report.checks)} checks</summary>{filters}'
        '<div class="scroll"><table><thead><tr><th>case</th><th>level</th><th>state</th><th class="number">time</th>'
        f'</tr></thead><tbody id="checks">{rows}</tbody></table></div></details>'
    )


def page(report: Report) -> str:
    """The whole page."""
    some = report.clean or any(level.conforms for level in report.levels.values())
    mark = "conforms" if report.conforms else "some" if some else ""
    warning = ""
    if report.list_faults:
        lines = "".join(f"<p>{_text(fault)}</p>" for fault in report.list_faults)
        warning = f'<div class="warning">{lines}</div>'
    title = f"{report.hello.title}: tensordelta conformance"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(title)}</title>\n<style>\n{_resource('page.css')}</style></head>\n<body><header>"
        f'<p class="kind">tensordelta conformance</p><h1 class="{mark}">{_text(report.verdict)}</h1>'
        f"{_facts(report)}{warning}</header>\n<main>{_levels(report)}\n{_failures(report)}\n{_requirements(report)}\n"
        f"{_all_checks(report)}</main>\n<footer>Written by tensordelta-conformance {_text(SUITE_VERSION)}.</footer>\n"
        f"<script>\n{_resource('page.js')}</script></body></html>\n"
    )
