"""What the runner prints."""

from __future__ import annotations

import os
import shutil
import textwrap
from typing import TextIO

from .results import STATUSES, Check, Report
from .wording import plain

_COLOURS = {"good": "32", "bad": "31", "odd": "33", "soft": "2", "strong": "1"}
_HEADS = {
    "pass": "passed",
    "fail": "failed",
    "error": "errors",
    "unsupported": "unsupported",
    "expected-failure": "expected",
    "not-applicable": "n/a",
}
_STDERR_LINES = 6


def _uses_colour(stream: TextIO) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


class Terminal:
    """Progress while a run goes on (on a terminal only), and its results afterwards."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._live = stream.isatty()
        self._colour = _uses_colour(stream)
        self._width = min(shutil.get_terminal_size().columns, 120)
        self._bad = 0

    def _paint(self, text: str, colour: str) -> str:
        return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if self._colour else text

    def _print(self, text: str = "") -> None:
        encoding = self._stream.encoding or "utf-8"
        print(text.encode(encoding, "backslashreplace").decode(encoding), file=self._stream)

    def progress(self, check: Check, done: int, total: int) -> None:
        """One check is done."""
        self._bad += check.counts_against
        if self._live:
            bad = f", {self._bad} not passed" if self._bad else ""
            line = f"{done}/{total}{bad}  {check.name}"
            self._stream.write(f"\r\x1b[2K{line[: self._width - 1]}")
            if done == total:
                self._stream.write("\r\x1b[2K")
            self._stream.flush()

    def _wrapped(self, label: str, text: str) -> None:
        indent = " " * 14
        for index, line in enumerate(plain(text.replace("\t", "    ")).split("\n")):
            head = f"    {label:<10}" if index == 0 else indent
            for part in textwrap.wrap(line, max(40, self._width - 14), break_on_hyphens=False) or [""]:
                self._print(f"{head}{part}")
                head = indent

    def _failure(self, check: Check) -> None:
        colour = "odd" if check.status in ("unsupported", "expected-failure") else "bad"
        self._print(f"{self._paint(check.status, colour)}  {self._paint(check.name, 'strong')}  {check.level}")
        self._wrapped("", check.case.title)
        if check.step is not None and len(check.case.steps) > 1:
            self._wrapped("step", f"{check.step + 1} of {len(check.case.steps)}")
        for label, text in (("expected", check.expected), ("got", check.got), ("says", check.message)):
            if text:
                self._wrapped(label, text)
        if check.stderr:
            self._wrapped("stderr", "\n".join(check.stderr.splitlines()[-_STDERR_LINES:]))
        if check.reason:
            self._wrapped("known", f"{check.reason} ({check.link})")

    def results(self, report: Report) -> None:
        """Failures, levels, verdict."""
        if self._live:
            self._stream.write("\r\x1b[2K")
        for check in (*report.failures, *report.expected_failures):
            self._failure(check)
            self._print()
        for fault in report.list_faults:
            self._print(f"{self._paint('known failures', 'bad')}  {fault}")
        self._levels(report)
        self._print()
        colour = "good" if report.conforms else "odd" if report.clean else "bad"
        for line in textwrap.wrap(plain(report.verdict), max(40, self._width), break_on_hyphens=False):
            self._print(self._paint(line, colour))

    def _levels(self, report: Report) -> None:
        levels = report.levels.values()
        shown = [status for status in STATUSES if status == "pass" or any(level[status] for level in levels)]
        width = max((len(level.level) for level in levels), default=5)
        head = "".join(f"{_HEADS[status]:>13}" for status in shown)
        self._print(self._paint(f"{'level':<{width}}{head}", "soft"))
        for level in levels:
            numbers = "".join(f"{level[status] or '-':>13}" for status in shown)
            mark = self._paint("conforms", "good") if level.conforms else ""
            self._print(f"{level.level:<{width}}{numbers}  {mark}".rstrip())
