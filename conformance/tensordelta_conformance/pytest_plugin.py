"""Cases of the suite as tests of pytest.

    @pytest.mark.tensordelta(levels=["reader-core"])
    def test_conformance(tensordelta_case):
        tensordelta_case.check_reader(my_read)

The marker takes `levels`, and optionally `only` (patterns of case ids), `huge` and `vectors` (a folder). The test is
run once for each case; ids are those of the cases.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

from .case import Case
from .inprocess import Collect, FunctionAdapter, Publish, Reader, Shortcut, Verify, introduce
from .protocol import Hello
from .results import Check
from .runner import Options, check_task, chosen_levels
from .suite import Suite, SuiteError, parts_of

_MARKER = (
    "tensordelta(levels, only=(), huge=False, vectors=None): "
    "run the test with `tensordelta_case` for each case of these levels of the tensordelta conformance suite"
)
_FIXTURE = "tensordelta_case"


@dataclass(frozen=True)
class CaseUnderTest:
    """One case of the suite, to be checked against an implementation."""

    case: Case
    levels: tuple[str, ...]
    huge: bool

    def check_reader(self, read: Reader, *, capabilities: Iterable[str] = ()) -> None:
        """Do the steps of the case with `read`, as `tensordelta_conformance.check_reader` does; fails the test."""
        hello = self._hello(read, "reader", capabilities)
        self._check("steps", FunctionAdapter(hello, read=read), hello)

    def check_verifier(self, verify: Verify) -> None:
        """Let `verify` look at the chain, as `tensordelta_conformance.check_verifier` does; fails the test."""
        hello = self._hello(verify, "verifier", ())
        self._check("verify", FunctionAdapter(hello, verify=verify), hello)

    def check_writer(
        self,
        publish: Publish,
        *,
        shortcut: Shortcut | None = None,
        collect: Collect | None = None,
        capabilities: Iterable[str] = (),
    ) -> None:
        """Do the steps of the case with these functions, as `tensordelta_conformance.check_writer` does."""
        given = {"shortcut": shortcut, "collect": collect}
        claimed = {*capabilities, *(name for name, function in given.items() if function is not None)}
        hello = self._hello(publish, "writer", claimed)
        self._check("steps", FunctionAdapter(hello, publish=publish, shortcut=shortcut, collect=collect), hello)

    def _hello(self, function: object, role: str, capabilities: Iterable[str]) -> Hello:
        return introduce(function, role, levels=self.levels, capabilities=capabilities, name=None, version="")

    def _check(self, part: str, adapter: FunctionAdapter, hello: Hello) -> None:
        if part not in parts_of(self.case, frozenset(self.levels)):
            pytest.skip(f"the case asks for no {part} at these levels")
        check = check_task(self.case, part, adapter, hello, Options(huge=self.huge))
        if check.status == "not-applicable":
            pytest.skip(check.reason)
        if check.status != "pass":
            pytest.fail(_failure(check), pytrace=False)


def _failure(check: Check) -> str:
    lines = [f"{check.case.path}: {check.case.title}", f"requirements: {', '.join(check.case.requirements)}"]
    if check.step is not None and len(check.case.steps) > 1:
        lines.append(f"step: {check.step + 1} of {len(check.case.steps)}")
    for name in ("expected", "got", "message", "stderr"):
        if getattr(check, name):
            lines.append(f"{name}: {getattr(check, name)}")
    return "\n".join(lines)


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", _MARKER)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give a test with `tensordelta_case` the cases of its marker."""
    if _FIXTURE not in metafunc.fixturenames:
        return
    marker = metafunc.definition.get_closest_marker("tensordelta")
    where = metafunc.definition.nodeid
    if marker is None or "levels" not in marker.kwargs:
        raise pytest.UsageError(f"{where}: {_FIXTURE} needs @pytest.mark.tensordelta(levels=[…])")
    unknown = set(marker.kwargs) - {"levels", "only", "huge", "vectors"}
    if unknown or marker.args:
        raise pytest.UsageError(f"{where}: the marker is {_MARKER}")
    vectors = marker.kwargs.get("vectors")
    huge = bool(marker.kwargs.get("huge", False))
    try:
        levels = chosen_levels(marker.kwargs["levels"]) or ()
        cases = Suite.find(None if vectors is None else Path(vectors)).select(levels, marker.kwargs.get("only", ()))
    except (ValueError, SuiteError) as error:
        raise pytest.UsageError(f"{where}: {error}") from error
    chosen = [CaseUnderTest(case, levels, huge) for case in cases]
    metafunc.parametrize(_FIXTURE, chosen, ids=[each.case.id for each in chosen])
