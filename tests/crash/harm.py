"""How often work ended early, after checking that it never did harm; for tests."""

from __future__ import annotations

from pathlib import Path

from .cases import Case, Ways
from .program import drive


def ends(case: Case, world: Path, tmp_path: Path, ways: Ways, *, disk: bool = False) -> int:
    """How often the work ended early.

    Args:
        case: the case.
        world: the chain that is worked on.
        tmp_path: the test's folder.
        ways: how it ends, at every how many-th step.
        disk: on the file system of `tmp_path`, else in memory where there is such a file system: losses of power are
            played either way.
    """
    report = drive(case, world, tmp_path / "case", ways, scratch=tmp_path if disk else None)
    assert not report["failures"], f"{report['failed']} failures:\n" + "\n".join(report["failures"])
    count: int = report["ends"]
    return count
