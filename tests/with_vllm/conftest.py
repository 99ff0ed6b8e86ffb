"""The tests of this folder run real engines, in the environment that `.ci/vllm` makes; elsewhere they are skipped.

With TENSORDELTA_ENGINES=required a skip is a failure.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Generator, Iterator
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

import pytest

_NEEDED = ("torch", "transformers", "vllm")
_MISSING = [name for name in _NEEDED if find_spec(name) is None]
if not _MISSING and not entry_points(group="vllm.general_plugins", name="tensordelta"):
    _MISSING = ["tensordelta's entry point for vLLM is"]  # run from a source tree that is installed nowhere
_REQUIRED = os.environ.get("TENSORDELTA_ENGINES") == "required"

if not _MISSING:
    with warnings.catch_warnings(action="ignore"):  # of what vLLM imports
        import tensordelta.vllm.engine  # noqa: F401


class _Skipped(pytest.Module):
    """A module that cannot be imported here."""

    def collect(self) -> Iterator[pytest.Item]:
        pytest.skip(f"{', '.join(_MISSING)} not installed: run .ci/vllm", allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Pass over modules that need what is not there."""
    return _Skipped.from_parent(parent, path=module_path) if _MISSING and not _REQUIRED else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let vLLM warn of what it imports."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.filterwarnings("ignore"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where engines are required, nothing is skipped."""
    report = yield
    if report.skipped and _REQUIRED:
        report.outcome = "failed"
        report.longrepr = f"skipped, and TENSORDELTA_ENGINES=required: {report.longrepr}"
    return report


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """vLLM keeps what it compiles: for the engines of one run of the tests, and no longer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_CACHE_ROOT", str(tmp_path_factory.mktemp("vllm")))
        yield
