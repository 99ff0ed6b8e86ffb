"""report.html: one page for a person, with everything in it."""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from importlib import resources

from .names import SPEC_VERSION, SUITE_VERSION
from .results import STATUSES, Check, LevelResult, Report, RequirementResult
from .wording import expected_of_case, plain, short_digests

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


# -- failures ----------------------------------------------------------------------------------------------------------


def _anchor(check: Check) -> str:
    return f"check-{check.case.id}" + ("" if check.part == "steps" else f".{check.part}")


def _gist(text: str) -> str:
    """What an expectation or an answer comes to, the same for many cases."""
    reported = re.match(r"reported: ([a-z-]+)", text)
    if reported:
        return f"{reported[1]} reported"
    text = re.split("[;,]", text)[0]
    text = re.sub(r"^version \d+$", "read", text)
    text = re.sub(r"^the state of .*", "a state held", text)
    return text if len(text) <= 50 else f"{text[:49]}…"


def _outcome(check: Check) -> str:
    expected, got = _gist(check.expected), "an error" if check.status == "error" else _gist(check.got)
    return f"{expected} → {'not quite' if expected == got else got}"


def _beside_twin(check: Check, report: Report, made: Mapping[tuple[str, str], Check]) -> str:
    """The valid twin, how it went, and what differs."""
    twin = check.case.twin
    if twin is None:
        return ""
    same = made.get((twin, check.part))
    state = "" if same is None else _state(same.status)
    found = report.beside_twins[check.case.id]
    rows = "".join(
        f'<tr><th scope="row">{_text(each.where)}</th><td>{_text(each.twin)}</td><td>{_text(each.case)}</td></tr>'
        for each in found
    )
    table = (
        f'<table class="twin"><thead><tr><th></th><th>in the valid twin</th><th>here</th></tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )
    return (
        f'<dt>valid twin</dt><dd><span class="id">{_text(twin)}</span> {state}'
        f"{table if found else '<p>The same files and requests: only what is expected differs.</p>'}</dd>"
    )


def _failure(check: Check, report: Report, made: Mapping[tuple[str, str], Check]) -> str:
    case = check.case
    facts = []
    if check.asked:
        of = (
            f" (step {(check.step or 0) + 1} of {len(case.steps)})"
            if check.part == "steps" and len(case.steps) > 1
            else ""
        )
        facts.append(("asked", _text(f"{check.asked}{of}")))
    if check.message:
        facts.append(("the adapter says", f"<pre>{_text(check.message)}</pre>"))
    if check.stderr:
        facts.append(("standard error", f"<pre>{_text(check.stderr)}</pre>"))
    if check.reason:
        link = _text(check.link)
        shown = f'<a href="{link}">{link}</a>' if check.link.startswith(("http://", "https://")) else link
        facts.append(("known", f"{_text(check.reason)} {shown}"))
    facts.append(("requirements", _requirement_links(dict.fromkeys((*check.broken, *case.requirements)))))
    body = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts)
    body += _beside_twin(check, report, made)
    anchor = _anchor(check)
    expected = check.expected or expected_of_case(case, check.part)
    return (
        f'<details class="check {check.status}" id="{anchor}" data-status="{check.status}" data-level="{check.level}"'
        f' data-area="{_text(case.area)}" data-outcome="{_text(_outcome(check))}">'
        f'<summary><span class="title">{_text(case.title)}</span><span class="id">{_text(check.name)}</span>'
        f'{_state(check.status)}<span class="level">{_text(check.level)}</span>'
        f'<span class="sides">{_side("expected", expected)}{_side("got", check.got)}</span></summary>'
        f'<dl>{body}</dl><p class="link"><a href="#{anchor}">link to this failure</a></p></details>'
    )


def _side(name: str, text: str) -> str:
    return f"<span><b>{name}</b> {_text(short_digests(text))}</span>"


def _select(name: str, label: str, values: Iterable[str], *, often: bool = False) -> str:
    """The values with how often they occur, in their order or the frequent ones first; none if there is no choice."""
    counts = Counter(values)
    if len(counts) < 2:
        return ""
    options = "".join(
        f'<option value="{_text(value)}">{_text(WORDS.get(value, value))} ({count})</option>'
        for value, count in (counts.most_common() if often else counts.items())
    )
    return f'<select name="{name}" aria-label="{label}"><option value="">{label}</option>{options}</select>'


def _filters(target: str, hint: str, *selects: str) -> str:
    return (
        f'<form class="filters" data-of="{target}" hidden>'
        f'<input type="search" name="text" placeholder="{hint}" aria-label="{hint}">'
        f'{"".join(selects)}<output></output><button type="reset" hidden>all</button></form>'
    )


def _failures(report: Report) -> str:
    shown = [*report.failures, *report.expected_failures]
    if not shown:
        return '<h2>Failures</h2><p class="none">None.</p>'
    filters = _filters(
        "failures",
        "filter the failures",
        _select("level", "all levels", (check.level for check in shown)),
        _select("area", "all areas", (check.case.area for check in shown)),
        _select("status", "all kinds", (check.status for check in shown)),
        _select("outcome", "expected → got", map(_outcome, shown), often=True),
    )
    made = {(check.case.id, check.part): check for check in report.checks}
    items = "".join(_failure(check, report, made) for check in shown)
    return f'<h2>Failures<small>{len(shown)}</small></h2>{filters}<div id="failures">{items}</div>'


def _requirement_row(result: RequirementResult, anchors: Mapping[str, str]) -> str:
    requirement = result.requirement
    text = _text(requirement.text)
    if result.failed:
        names = ", ".join(f'<a class="id" href="#{anchors[name]}">{_text(name)}</a>' for name in result.failed)
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
    anchors = {check.case.id: _anchor(check) for check in (*report.failures, *report.expected_failures)}
    rows = "".join(_requirement_row(result, anchors) for result in results)
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
