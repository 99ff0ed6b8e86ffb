"""The plugin: cases of the suite as tests of pytest."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from toy_suite import add_case, add_twins, read_step

CONFORMANCE = Path(__file__).parent.parent.parent / "conformance"
PLUGIN = "tensordelta_conformance.pytest_plugin"

ENGINE = """
    import pytest
    from tensordelta_conformance import Rejected

    def my_read(request):
        if (request.chain / f"{request.to}.error").exists():
            raise Rejected("NAME")
        return request.chain / f"{request.to}.safetensors"
"""


def run_pytest(
    folder: Path, test: str, engine: str = ENGINE, files: Sequence[str] = ("test_engine.py",)
) -> subprocess.CompletedProcess[str]:
    """Run a file of tests with the plugin in a process of its own."""
    lines = [line[4:] for line in (engine + test).splitlines()]
    (folder / "test_engine.py").write_text("\n".join(lines))
    installed = [each.value for each in entry_points(group="pytest11")]  # then pytest has it by itself
    named = [] if PLUGIN in installed else ["-p", PLUGIN]
    plugin = [*named, "-p", "no:cacheprovider", "--strict-markers"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-v", *plugin, "-c", os.devnull, "--rootdir", str(folder), *files],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(CONFORMANCE), "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    root = tmp_path / "vectors"
    add_twins(root)
    add_case(root, "pinned", [read_step(0, {"state": "0.safetensors"})], needs=["pin"])
    add_case(root, "elsewhere", [read_step(0, {"state": "0.safetensors"})], level="chain")
    return root


FIVE_LINES = """
    @pytest.mark.tensordelta(levels=["reader-core"], vectors="vectors")
    def test_conformance(tensordelta_case):
        tensordelta_case.check_reader(my_read)
"""


def test_engine_that_conforms(tmp_path: Path, vectors: Path) -> None:
    result = run_pytest(tmp_path, FIVE_LINES, ENGINE.replace("NAME", "malformed"))
    assert result.returncode == 0, result.stdout
    assert re.findall(r"test_conformance\[(\S+)\] (\w+)", result.stdout) == [
        ("one-word", "PASSED"),
        ("pinned", "SKIPPED"),
        ("one-word-too-many", "PASSED"),
    ]


def test_engine_that_does_not(tmp_path: Path, vectors: Path) -> None:
    result = run_pytest(tmp_path, FIVE_LINES, ENGINE.replace("NAME", "limit"))
    assert result.returncode == 1
    assert "1 failed, 1 passed, 1 skipped" in result.stdout
    assert "expected: rejected as malformed, still the state of 0.safetensors (fingerprint " in result.stdout
    assert "got: rejected as limit" in result.stdout


def test_other_checks(tmp_path: Path, vectors: Path) -> None:
    result = run_pytest(
        tmp_path,
        """
    @pytest.mark.tensordelta(levels=["verifier"], vectors="vectors", only=["one-*"])
    def test_verifier(tensordelta_case):
        tensordelta_case.check_verifier(lambda chain: [(f.read_text(), f.name) for f in chain.glob("*.error")])

    @pytest.mark.tensordelta(levels=["chain"], vectors="vectors")
    def test_writer(tensordelta_case):
        tensordelta_case.check_writer(lambda request: 0)
""",
    )
    assert re.findall(r"(test_\w+)\[(\S+)\] (\w+)", result.stdout.split("FAILURES")[0]) == [
        ("test_verifier", "one-word", "PASSED"),
        ("test_verifier", "one-word-too-many", "PASSED"),
        ("test_writer", "elsewhere", "FAILED"),
    ]
    assert "got: read: unsupported" in result.stdout


WRONG = {
    "": "needs @pytest.mark.tensordelta(levels=[…])",
    '@pytest.mark.tensordelta(levels=["reader"], vectors="vectors")': "there is no level reader",
    '@pytest.mark.tensordelta(levels=["chain"], vectors="vectors", only=["none"])': "no case is named by none",
    '@pytest.mark.tensordelta(levels=["chain"], vectors="vectors", twice=True)': "the marker is tensordelta(",
    '@pytest.mark.tensordelta(levels=["chain"], vectors="elsewhere")': "elsewhere is no folder",
}


def test_wrong_markers_are_told(tmp_path: Path, vectors: Path) -> None:
    tests = [f"    {marker}\n    def test_{i}(tensordelta_case):\n        pass\n" for i, marker in enumerate(WRONG)]
    for number, test in enumerate(tests):
        (tmp_path / f"test_{number}.py").write_text("import pytest\n" + test.replace("    ", "", 2))
    result = run_pytest(tmp_path, "\n", files=[f"test_{number}.py" for number in range(len(tests))])
    assert result.returncode != 0
    for told in WRONG.values():
        assert told in result.stdout + result.stderr
