"""The command `tensordelta-conformance`."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from .archive import write_archive
from .case import CaseError
from .folder import write_files
from .foreign import write_foreign
from .known import KnownFailure, KnownFailuresError, load_known_failures
from .names import LEVELS, SPEC_VERSION, SUITE_VERSION
from .process import LongLived, OneShot, split_command
from .protocol import Adapter, AdapterError
from .reports import write_reports
from .runner import TIMEOUT, Options, run_suite
from .show import describe, unpack
from .suite import Suite, SuiteError
from .terminal import Terminal

CONFORMS, FALLS_SHORT, WRONG_USAGE = 0, 1, 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tensordelta-conformance",
        description="Prove that a reader, verifier or writer speaks the tensordelta format.",
        epilog="Exit status: 0 all is well, 1 it is not, 2 wrong usage.",
    )
    version = f"tensordelta-conformance {SUITE_VERSION}, for tensordelta {SPEC_VERSION}"
    parser.add_argument("--version", action="version", version=version)
    vectors = argparse.ArgumentParser(add_help=False)
    vectors.add_argument("--vectors", type=Path, metavar="DIR", help="use these vectors, not those of the package")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_run(commands.add_parser("run", parents=[vectors], help="run the cases against an adapter"))
    listing = commands.add_parser("list", parents=[vectors], help="list the cases, or the requirements")
    listing.add_argument("what", nargs="?", choices=("cases", "requirements"), default="cases")
    _add_choice(listing)
    listing.add_argument("--json", action="store_true", help="as JSON")
    show = commands.add_parser("show", parents=[vectors], help="tell what a case does")
    show.add_argument("case", metavar="CASE", help="the id of a case")
    show.add_argument("--unpack", type=Path, metavar="DIR", help="write the case's files to DIR/CASE")
    unpacking = commands.add_parser("unpack", parents=[vectors], help="write the cases as folders")
    unpacking.add_argument("folder", type=Path, metavar="DIR", help="DIR/AREA/valid/CASE and so on are written")
    _add_choice(unpacking)
    archive = commands.add_parser("archive", parents=[vectors], help="write the folders of all cases as one .tar.gz")
    archive.add_argument("file", type=Path, metavar="FILE", help="FILE and FILE.sha256 are written")
    foreign = commands.add_parser(
        "foreign", help="write folders of other projects' formats, sound and broken, as .tar.gz"
    )
    foreign.add_argument("file", type=Path, metavar="FILE", help="FILE and FILE.sha256 are written")
    return parser


def _add_choice(parser: argparse.ArgumentParser) -> None:
    levels = ", ".join(LEVELS)
    parser.add_argument(
        "--level", nargs="+", action="extend", choices=LEVELS, metavar="L", help=f"only these levels: {levels}"
    )
    parser.add_argument(
        "--only", nargs="+", action="extend", default=[], metavar="GLOB", help="only cases whose id or path matches"
    )


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--adapter", required=True, metavar="CMD", help="the adapter's command, as in a shell")
    _add_choice(parser)
    parser.add_argument("--report", type=Path, metavar="DIR", help="write report.json, junit.xml and report.html there")
    parser.add_argument(
        "--known-failures",
        type=Path,
        metavar="FILE",
        help='JSON list of {"case", "reason", "link"}: these have to fail, and no level of theirs is claimed',
    )
    parser.add_argument(
        "--timeout", type=float, default=TIMEOUT, metavar="S", help=f"seconds for a request ({TIMEOUT:g})"
    )
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="adapters at once (2)")
    parser.add_argument("--one-shot", action="store_true", help="start the adapter for each request")
    parser.add_argument("--huge", action="store_true", help="also cases that need more than 256 MiB of memory")


class _UsageError(Exception):
    pass


def _run(options: argparse.Namespace, suite: Suite) -> int:
    if options.jobs < 1 or options.timeout <= 0:
        raise _UsageError("--jobs and --timeout have to be greater than 0")
    try:
        words = split_command(options.adapter)
    except ValueError as error:
        raise _UsageError(f"--adapter: {error}") from error
    known: dict[str, KnownFailure] = load_known_failures(options.known_failures) if options.known_failures else {}
    suite.select(options.level, options.only)

    def adapters() -> Adapter:
        return OneShot(words) if options.one_shot else LongLived(words)

    terminal = Terminal(sys.stdout)
    try:
        report = run_suite(
            suite,
            adapters,
            Options(
                levels=tuple(options.level) if options.level else None,
                only=tuple(options.only),
                huge=options.huge,
                timeout=options.timeout,
                jobs=options.jobs,
                known=known,
                command=shlex.join(words),
            ),
            terminal.progress,
        )
    except AdapterError as error:
        print(f"the adapter does not say who it is: {error}", file=sys.stderr)
        if error.stderr:
            print(error.stderr, file=sys.stderr)
        return FALLS_SHORT
    terminal.results(report)
    if options.report is not None:
        write_reports(report, options.report)
    return CONFORMS if report.clean else FALLS_SHORT


def _list(options: argparse.Namespace, suite: Suite) -> int:
    cases = suite.select(options.level, options.only)
    if options.what == "cases":
        rows = [
            {
                "id": case.id,
                "area": case.area,
                "valid": case.valid,
                "level": case.level,
                "kind": case.kind,
                "title": case.title,
                "requirements": list(case.requirements),
                "needs": list(case.needs),
                "flags": list(case.flags),
            }
            for case in cases
        ]
        texts = [f"{case.path}  [{case.level}]  {case.title}" for case in cases]
    else:
        tests = {name: [case.id for case in cases if name in case.requirements] for name in suite.requirements}
        rows = [
            {
                "id": each.id,
                "section": each.section,
                "text": each.text,
                "cases": tests[each.id],
            }
            for each in suite.requirements.values()
        ]
        texts = [f"{each.id}  {len(tests[each.id]):>3}  {each.text}" for each in suite.requirements.values()]
    print(json.dumps(rows, indent=1, ensure_ascii=False) if options.json else "\n".join(texts))
    return CONFORMS


def _show(options: argparse.Namespace, suite: Suite) -> int:
    case = suite.cases.get(options.case)
    if case is None:
        raise _UsageError(f"there is no case {options.case}; `list` names them all")
    print(describe(case, suite))
    if options.unpack is not None:
        print(f"\nWritten to {unpack(case, options.unpack)}")
    return CONFORMS


def _unpack(options: argparse.Namespace, suite: Suite) -> int:
    cases = suite.select(options.level, options.only)
    if options.folder.exists() and any(options.folder.iterdir()):
        raise _UsageError(f"{options.folder} is not empty")
    for case in cases:
        write_files(case.files, options.folder / case.path)
    print(f"{len(cases)} cases in {options.folder}")
    return CONFORMS


def _archive(options: argparse.Namespace, suite: Suite) -> int:
    print(f"{write_archive(suite.cases.values(), options.file)}  {options.file}")
    return CONFORMS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; gives its exit status."""
    options = _parser().parse_args(arguments)
    commands = {"run": _run, "list": _list, "show": _show, "unpack": _unpack, "archive": _archive}
    try:
        if options.command == "foreign":
            print(f"{write_foreign(options.file)}  {options.file}")
            return CONFORMS
        return commands[options.command](options, Suite.find(options.vectors))
    except BrokenPipeError:
        # Whoever reads has seen enough; nothing more can be written, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FALLS_SHORT
    except (_UsageError, SuiteError, CaseError, KnownFailuresError, OSError) as error:
        print(f"tensordelta-conformance: {error}", file=sys.stderr)
        return WRONG_USAGE
