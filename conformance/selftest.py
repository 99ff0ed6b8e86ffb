"""The suite's own test: `python conformance/selftest.py [MUTANT …] [--vectors DIR] [--jobs N]`.

A suite is worth what it finds. It is run against a small reader that is right, against readers that accept everything
and reject everything, and against mutants: the small reader with one change each. Exit code 1 if the small reader
fails a case, if either of the extreme readers gets through where it must not, or if a mutant survives.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

from mutants.mutants import MUTANTS, adapter_of

from tensordelta_conformance import Case, Check, Suite, run, run_handler

HERE = Path(__file__).resolve().parent

#: Shares of the cases at which the extreme readers must fail, as measured: all of them. A reader that accepts
#: everything passes no invalid case, and one that rejects everything passes no valid one, but for those in which the
#: specification leaves it to the reader whether to reject.
ACCEPT_ALL = 1.0
REJECT_ALL = 1.0


class Row(NamedTuple):
    """A line of the table: what was run, how it came out, and whether that is as it has to be."""

    name: str
    result: str
    good: bool


def small_reader(suite: Suite, jobs: int) -> Row:
    """The small reader passes all cases of its levels."""
    report = run([sys.executable, str(HERE / "mutants")], suite=suite, jobs=jobs)
    failed = [f"{check.name} {check.status}" for check in report.failures]
    made = sum(check.status != "not-applicable" for check in report.checks)
    result = f"fails {', '.join(failed)}" if failed else f"passes {made} checks"
    return Row("small reader", result, report.conforms)


def extreme(option: str, valid: bool, least: float, suite: Suite, jobs: int) -> Row:
    """A reader that says the same of everything fails at a share of the valid, or of the invalid cases."""
    report = run([sys.executable, str(HERE / "mutants"), option], suite=suite, jobs=jobs)
    made = [check for check in report.checks if check.status != "not-applicable"]
    cases = {check.case.id for check in made if check.case.valid == valid and not leaves_a_choice(check.case)}
    failed = cases & {check.case.id for check in made if check.status == "fail"}
    errors = [check.name for check in made if check.status == "error"]
    share = len(failed) / len(cases) if cases else 0.0
    kind = "valid" if valid else "invalid"
    result = f"fails {len(failed)} of {len(cases)} {kind} cases"
    if errors:
        result += f", and ends in errors: {', '.join(errors[:5])}"
    elif share < least:
        result += f", and passes {', '.join(sorted(cases - failed)[:5])}"
    return Row(option.strip("-"), result, share >= least and not errors)


def leaves_a_choice(case: Case) -> bool:
    """True for a valid case in which a reader may as well reject."""
    return case.valid and any(each.errors for step in case.steps for each in step.expect.alternatives)


def mutant(name: str, vectors: Path) -> Row:
    """A mutant fails at every case that is named for it, and passes the twins of these."""
    change = MUTANTS[name]
    suite = _suite(vectors)
    unknown = [case for case in change.cases if case not in suite.cases]
    if unknown:
        return Row(name, f"no case {', '.join(unknown)}", False)
    twins = [twin for twin in (suite.cases[case].twin for case in change.cases) if twin is not None]
    report = run_handler(adapter_of(change), only=[*change.cases, *twins], suite=suite)
    survived = [case for case in change.cases if not _killed(report.by_id(case))]
    broken = [twin for twin in twins if any(check.counts_against for check in report.by_id(twin))]
    if survived:
        return Row(name, f"SURVIVES {', '.join(survived)}", False)
    if broken:
        return Row(name, f"fails the twin {', '.join(broken)} as well", False)
    return Row(name, f"killed by {', '.join(change.cases)}", True)


def _killed(checks: Iterable[Check]) -> bool:
    statuses = {check.status for check in checks}
    return "fail" in statuses and "error" not in statuses


_SUITES: dict[Path, Suite] = {}


def _suite(vectors: Path) -> Suite:
    """The suite, loaded once in each process."""
    return _SUITES.setdefault(vectors, Suite(vectors))


def main(argv: Sequence[str] | None = None) -> int:
    """Gives the exit code."""
    parser = argparse.ArgumentParser(prog="selftest", description="Test the conformance suite.")
    parser.add_argument("mutants", nargs="*", metavar="MUTANT", help="run these mutants only")
    parser.add_argument("--vectors", type=Path, default=HERE / "vectors")
    parser.add_argument("--jobs", type=int, default=2, metavar="N")
    options = parser.parse_args(argv)
    unknown = sorted(set(options.mutants) - set(MUTANTS))
    if unknown:
        parser.error(f"no mutant {', '.join(unknown)}")
    started = time.monotonic()
    rows: list[Row] = []

    def show(row: Row) -> None:
        rows.append(row)
        print(f"{'ok  ' if row.good else 'BAD '} {row.name:<40} {row.result}", flush=True)

    if not options.mutants:
        suite = _suite(options.vectors)
        show(small_reader(suite, options.jobs))
        show(extreme("--accept-all", False, ACCEPT_ALL, suite, options.jobs))
        show(extreme("--reject-all", True, REJECT_ALL, suite, options.jobs))
    names = options.mutants or list(MUTANTS)
    with ProcessPoolExecutor(options.jobs) as pool:
        for row in pool.map(mutant, names, [options.vectors] * len(names)):
            show(row)
    bad = sum(not row.good for row in rows)
    print(f"{len(names)} mutants; {bad} of {len(rows)} lines bad; {time.monotonic() - started:.0f} seconds")
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
