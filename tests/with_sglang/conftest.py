"""The tests of this folder run SGLang's and verl's own classes, in the environment that `.ci/sglang` makes.

Elsewhere they are skipped. With TENSORDELTA_ENGINES=required a skip is a failure.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Generator, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

_MISSING = [name for name in ("ray", "sglang", "torch", "verl") if find_spec(name) is None]
_REQUIRED = os.environ.get("TENSORDELTA_ENGINES") == "required"


class _Skipped(pytest.Module):
    """A module that cannot be imported here."""

    def collect(self) -> Iterator[pytest.Item]:
        pytest.skip(f"{', '.join(_MISSING)} not installed: run .ci/sglang", allow_module_level=True)


class _Deprecating(pytest.Module):
    """A module whose imports warn of what SGLang, verl and Ray deprecate of one another."""

    def collect(self) -> Iterator[pytest.Item]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield from super().collect()


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module:
    """Pass over modules that need what is not there."""
    kind = _Skipped if _MISSING and not _REQUIRED else _Deprecating
    return kind.from_parent(parent, path=module_path)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where engines are required, nothing is skipped."""
    report = yield
    if report.skipped and _REQUIRED:
        report.outcome = "failed"
        report.longrepr = f"skipped, and TENSORDELTA_ENGINES=required: {report.longrepr}"
    return report
