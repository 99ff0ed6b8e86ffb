"""Results of a run, and what they say about levels and requirements."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from .case import Case
from .names import SPEC_VERSION
from .protocol import Hello
from .suite import Requirement, Suite
from .twins import Difference, differences
from .wording import listing, step

STATUSES = ("pass", "fail", "error", "unsupported", "expected-failure", "not-applicable")
COUNTED = ("fail", "error", "unsupported")
"""What counts against a level, apart from expected failures."""


class NonConformance(AssertionError):
    """Raised by `Report.raise_for_failures`."""


@dataclass(frozen=True)
class Check:
    """One check of a case: its steps, or its `verify`.

    `part`: "steps" or "verify"; `level`: the one that it counts to; `status`: one of STATUSES. `step` (from 0) is where
    it was decided, `expected` and `got` say why, `message` and `stderr` are the adapter's own words. `broken`: Writer
    requirements that the bytes of a chain showed to be broken. `reason`: why it is not applicable, or is expected to
    fail.
    """

    case: Case
    part: str
    level: str
    status: str
    seconds: float = 0.0
    step: int | None = None
    expected: str = ""
    got: str = ""
    message: str = ""
    stderr: str = ""
    broken: tuple[str, ...] = ()
    reason: str = ""
    link: str = ""
    without: tuple[str, ...] = ()
    """What the adapter would need for a check that is not applicable."""

    @property
    def name(self) -> str:
        """The case's id; with ` (verify)` for that part of it."""
        return self.case.id if self.part == "steps" else f"{self.case.id} (verify)"

    @property
    def asked(self) -> str:
        """What was asked for where it was decided: a step of the case, or to verify its chain."""
        if self.part == "verify":
            return "verify the chain"
        return "" if self.step is None else step(self.case.steps[self.step])

    @property
    def counts_against(self) -> bool:
        """Whether a level falls because of it without anyone expecting that."""
        return self.status in COUNTED


@dataclass(frozen=True)
class LevelResult:
    """How many checks of a level ended how."""

    level: str
    counts: Mapping[str, int]
    whole: bool

    def __getitem__(self, status: str) -> int:
        return self.counts.get(status, 0)

    @property
    def total(self) -> int:
        """All checks of the level, applicable or not."""
        return sum(self.counts.values())

    @property
    def applicable(self) -> int:
        """The checks that were made."""
        return self.total - self["not-applicable"]

    @property
    def conforms(self) -> bool:
        """Whether the level can be claimed: every case of it was run, as far as it applies, and passed."""
        return self.whole and self.applicable > 0 and self["pass"] == self.applicable

    @property
    def as_expected(self) -> bool:
        """Whether everything that was made passed, or failed as the list of known failures says."""
        made = self.applicable > 0 or not self.whole
        return made and self["pass"] + self["expected-failure"] == self.applicable

    @property
    def shortfall(self) -> str:
        """Why it cannot be claimed."""
        if not self.applicable:
            return "no case applies" if self.total else "no cases"
        parts = [
            f"{self[status]} {word}"
            for status, word in (
                ("fail", "failed"),
                ("error", "ended in errors"),
                ("unsupported", "unsupported"),
                ("expected-failure", "failed as expected"),
            )
            if self[status]
        ]
        return f"{listing(parts)} of {self.applicable}" if parts else ""


@dataclass(frozen=True)
class RequirementResult:
    """How a requirement stands: `state` is passed, failed, expected-failure, not-run or untested."""

    requirement: Requirement
    state: str
    cases: tuple[str, ...]
    failed: tuple[str, ...]


@dataclass(frozen=True)
class Run:
    """How the checks were made."""

    form: str
    levels: tuple[str, ...]
    command: str = ""
    only: tuple[str, ...] = ()
    huge: bool = False
    timeout: float = 0.0
    jobs: int = 1
    started: str = ""
    seconds: float = 0.0
    platform: str = ""
    python: str = ""


@dataclass(frozen=True)
class Report:
    """What a run showed. Files are written by `tensordelta_conformance.reports.write_reports`."""

    hello: Hello
    run: Run
    suite: Suite
    checks: Sequence[Check]
    list_faults: Sequence[str] = ()
    """What is wrong with the list of known failures."""
    interrupted: bool = field(default=False)

    def by_id(self, case: str) -> list[Check]:
        """The checks of a case."""
        return [check for check in self.checks if check.case.id == case]

    @property
    def failures(self) -> list[Check]:
        """The checks that count against a level and that nobody expected."""
        return [check for check in self.checks if check.counts_against]

    @property
    def expected_failures(self) -> list[Check]:
        """The checks that failed as the list of known failures says."""
        return [check for check in self.checks if check.status == "expected-failure"]

    @cached_property
    def beside_twins(self) -> dict[str, list[Difference]]:
        """How the cases of failures, expected ones too, differ from their valid twins, by id."""
        cases = {check.case.id: check.case for check in (*self.failures, *self.expected_failures)}
        return {name: differences(case, self.suite.cases[case.twin]) for name, case in cases.items() if case.twin}

    @property
    def levels(self) -> dict[str, LevelResult]:
        """The levels that were run."""
        counts: dict[str, Counter[str]] = {level: Counter() for level in self.run.levels}
        for check in self.checks:
            counts[check.level][check.status] += 1
        whole = not self.run.only and not self.interrupted
        return {level: LevelResult(level, count, whole) for level, count in counts.items()}

    @property
    def conforms(self) -> bool:
        """Whether all levels that were run can be claimed."""
        levels = self.levels.values()
        return bool(levels) and not self.list_faults and all(level.conforms for level in levels)

    @property
    def clean(self) -> bool:
        """Whether all is as expected. A run over a part of the suite, or with known failures, may be clean though it
        claims nothing."""
        levels = self.levels.values()
        if self.interrupted or self.list_faults or not any(level.applicable for level in levels):
            return False
        return all(level.as_expected for level in levels)

    @property
    def without(self) -> tuple[str, ...]:
        """What the claimed levels leave out, because it does not apply to this adapter."""
        claimed = {level.level for level in self.levels.values() if level.conforms}
        needed = (need for check in self.checks if check.level in claimed for need in check.without)
        return tuple(dict.fromkeys(needed))

    @property
    def verdict(self) -> str:
        """One sentence: which levels the implementation conforms to, and how far it is from the others."""
        who = self.hello.title
        if self.run.only or self.interrupted:
            applicable = sum(level.applicable for level in self.levels.values())
            passed = sum(level["pass"] for level in self.levels.values())
            why = "the run was interrupted" if self.interrupted else "a part of the suite claims no level"
            return f"{who}: {passed} of {applicable} chosen checks pass; {why}{self._list_sentence()}"
        claimed = [level.level for level in self.levels.values() if level.conforms]
        short = [f"{each.level} ({each.shortfall})" for each in self.levels.values() if not each.conforms]
        without = f" (without: {', '.join(self.without)})" if self.without else ""
        if claimed and short:
            text = f"conforms to tensordelta {SPEC_VERSION}: {', '.join(claimed)}{without}; not to {', '.join(short)}"
        elif claimed:
            text = f"conforms to tensordelta {SPEC_VERSION}: {', '.join(claimed)}{without}"
        else:
            text = f"does not conform to tensordelta {SPEC_VERSION}: {', '.join(short) or 'it claims no level'}"
        return f"{who} {text}{self._list_sentence()}"

    def _list_sentence(self) -> str:
        if not self.list_faults:
            return ""
        number = len(self.list_faults)
        return f"; the list of known failures is wrong in {number} place{'s' if number > 1 else ''}"

    @property
    def requirements(self) -> list[RequirementResult]:
        """All requirements of SPEC.md, in its order."""
        checks: dict[str, list[Check]] = {name: [] for name in self.suite.requirements}
        for check in self.checks:
            for name in {*check.case.requirements, *check.broken}:
                checks.setdefault(name, []).append(check)
        cases: dict[str, list[str]] = {name: [] for name in checks}
        for case in self.suite.cases.values():
            for name in case.requirements:
                cases.setdefault(name, []).append(case.id)
        return [
            RequirementResult(
                requirement,
                _state(checks[name], bool(cases[name])),
                tuple(cases[name]),
                tuple(dict.fromkeys(c.case.id for c in checks[name] if c.status in (*COUNTED, "expected-failure"))),
            )
            for name, requirement in self.suite.requirements.items()
        ]

    def raise_for_failures(self) -> None:
        """Raise NonConformance unless all went well (expected failures are well)."""
        if self.clean:
            return
        lines = [self.verdict, *self.list_faults]
        lines += [f"{check.name}: {check.got}; expected: {check.expected}" for check in self.failures[:20]]
        if len(self.failures) > 20:
            lines.append(f"and {len(self.failures) - 20} more")
        raise NonConformance("\n".join(lines))


def _state(checks: Iterable[Check], tested: bool) -> str:
    statuses = {check.status for check in checks} - {"not-applicable"}
    if statuses & set(COUNTED):
        return "failed"
    if "expected-failure" in statuses:
        return "expected-failure"
    if "pass" in statuses:
        return "passed"
    return "not-run" if tested else "untested"
