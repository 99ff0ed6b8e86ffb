"""The tests of this folder run real trainers, in the environment that `.ci/trainers` makes; elsewhere they are skipped.

With TENSORDELTA_TRAINERS=required a skip is a failure.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Generator, Iterator
from importlib.util import find_spec
from pathlib import Path

# Read when the client and hf-xet are imported: no telemetry, and no waits between their tries.
os.environ.update(HF_HUB_DISABLE_TELEMETRY="1", HF_XET_CLIENT_RETRY_BASE_DELAY="10ms", TRL_EXPERIMENTAL_SILENCE="1")

import pytest
from hub_server import Hub

_NEEDED = ("accelerate", "peft", "torch", "transformers", "trl", "uv")
_MISSING = [name for name in _NEEDED if find_spec(name) is None]
_REQUIRED = os.environ.get("TENSORDELTA_TRAINERS") == "required"


class _Skipped(pytest.Module):
    """A module that cannot be imported here."""

    def collect(self) -> Iterator[pytest.Item]:
        pytest.skip(f"{', '.join(_MISSING)} not installed: run .ci/trainers", allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Pass over modules that need what is not there."""
    return _Skipped.from_parent(parent, path=module_path) if _MISSING and not _REQUIRED else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let trainers deprecate their own calls."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.filterwarnings("ignore::FutureWarning:transformers"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where trainers are required, nothing is skipped."""
    report = yield
    if report.skipped and _REQUIRED:
        report.outcome = "failed"
        report.longrepr = f"skipped, and TENSORDELTA_TRAINERS=required: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def hub() -> Iterator[Hub]:
    with Hub() as server:
        yield server


@pytest.fixture
def bucket(hub: Hub) -> str:
    """The address of a chain in a new bucket."""
    name = f"me/bucket-{secrets.token_hex(4)}"
    hub.buckets[name] = {}
    return f"hf://buckets/{name}/run"
