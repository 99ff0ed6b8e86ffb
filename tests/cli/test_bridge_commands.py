"""`import`, `export` and `publish --watch` as users and scripts see them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tensordelta as td
from tensordelta_conformance.folder import write_files
from tensordelta_conformance.foreign import foreign_cases, foreign_folder

CASES = foreign_cases()


def run(*arguments: object, folder: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    package = str(Path(td.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-m", "tensordelta", *map(str, arguments)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": package},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert "Traceback" not in done.stderr + done.stdout
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture
def chain(tmp_path: Path) -> td.Chain:
    opened = td.open(tmp_path / "chain", create=True)
    words = np.arange(600, dtype=np.uint16)
    for number in range(3):
        words[number * 7] += 1
        opened.publish(td.State.from_arrays({"w": words.copy()}, dtypes={"w": "BF16"}))
    return opened


def test_what_an_import_prints(tmp_path: Path) -> None:
    write_files(CASES["slime-xor"].files, tmp_path / "deltas")
    base = foreign_folder() / "models/mixed/000000.safetensors"
    lines = run("import", "slime", "deltas", "run", "--base", base, folder=tmp_path).stdout.splitlines()
    assert lines[0].startswith("not proven, since slime does not give it: dtypes and shapes, which are the base's; ")
    assert [line.split(":")[0] for line in lines[1:]] == [
        "000000, full",
        "000001, a delta to 000000",
        "000002, a delta to 000001",
        "000003, a delta to 000002",
    ]
    lines = run("import", "slime", "deltas", "run", folder=tmp_path).stdout.splitlines()
    assert lines[1:] == ["nothing new after 000003"]
    facts = json.loads(run("import", "slime", "deltas", "run", "--json", folder=tmp_path).stdout)
    assert facts["format"] == "slime" and facts["versions"] == [] and len(facts["unproven"]) == 4


def test_what_is_refused_is_said(tmp_path: Path) -> None:
    write_files(CASES["slime-uncommitted"].files, tmp_path / "deltas")
    base = foreign_folder() / "models/mixed/000000.safetensors"
    done = run("import", "slime", "deltas", "run", "--base", base, folder=tmp_path, code=1)
    assert "version 2" in done.stdout and "version 3" not in done.stdout
    assert "error: weight_v000003 has no index: the version is not committed" in done.stderr
    done = run("import", "slime", "deltas", "run", "--json", folder=tmp_path, code=1)
    fault = json.loads(done.stdout)
    assert (fault["ok"], fault["error"], fault["object"]) == (False, "missing", "weight_v000003")
    assert fault["faults"][0]["rule"] == "appendix C.3"


def test_what_an_export_prints(tmp_path: Path, chain: td.Chain) -> None:
    lines = run("export", "slime", "chain", "out", folder=tmp_path).stdout.splitlines()
    assert [line.split(",")[0] for line in lines] == [
        "version 0: 000000",
        "version 1: 000001",
        "version 2: 000002",
    ]
    assert run("export", "slime", "chain", "out", folder=tmp_path).stdout == "nothing new after version 2\n"
    facts = json.loads(run("export", "trl", "chain", "trl", "--encoding", "raw", "--json", folder=tmp_path).stdout)
    assert [(each["id"], each["base_id"]) for each in facts["versions"]] == [
        ("000001", None),
        ("000002", "000001"),
        ("000003", "000002"),
    ]
    lines = run("export", "skyrl", "chain", "later", "--from", "1", folder=tmp_path).stdout.splitlines()
    assert [line.split(",")[0] for line in lines] == ["version 1: 0", "version 2: 1"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["export", "skyrl", "chain", "out", "--encoding", "xor"], "the format skyrl has no option 'encoding'"),
        (["export", "slime", "chain", "out", "--encoding", "gap"], "slime has the encodings xor and overwrite"),
        (["export", "trl", "chain", "out", "--encoding", "gap"], "trl has the encodings gap_delta and raw"),
        (["export", "slime", "chain", "out", "--timeout", "1"], "--timeout goes with --follow"),
        (["import", "slime", "deltas", "new", "--timeout", "1"], "--timeout goes with --follow"),
        (["import", "vime", "deltas", "new"], "is not one of"),
        (["publish", "chain"], "Name a CHECKPOINT, or a folder by --watch"),
        (["publish", "chain", "x", "--watch", "y"], "Name a CHECKPOINT, or a folder by --watch"),
        (["publish", "chain", "x", "--marker", "y"], "--marker, --settle and --timeout go with --watch"),
        (["publish", "chain", "--watch", "y", "--plain"], "go with CHECKPOINT"),
        (["publish", "chain", "--watch", "y", "--marker", "z", "--settle", "1"], "--settle goes without --marker"),
    ],
)
def test_wrong_usage(arguments: list[str], says: str, tmp_path: Path, chain: td.Chain) -> None:
    done = run(*arguments, folder=tmp_path, code=2)
    assert says in " ".join(done.stderr.split())
    assert not (tmp_path / "out").exists() and not (tmp_path / "new").exists()


def test_places_that_are_exchanged_are_refused(tmp_path: Path, chain: td.Chain) -> None:
    """A chain where a foreign folder has to be."""
    for arguments in (["import", "slime", "chain", "new"], ["export", "slime", "chain", "chain"]):
        done = run(*arguments, folder=tmp_path, code=1)
        assert "is a chain, not a folder of another format" in " ".join(done.stderr.split())
    done = run("export", "slime", "out", "chain2", folder=tmp_path, code=1)
    assert "there is no chain at out" in done.stderr
    assert not (tmp_path / "chain2").exists()


def test_a_package_that_is_not_there_is_named(tmp_path: Path, chain: td.Chain) -> None:
    code = "import sys; sys.modules[{!r}] = None; from tensordelta.__main__ import main; main()"
    for package, checksum in (("xxhash", "xxh3-128"), ("blake3", "blake3")):
        done = subprocess.run(
            [sys.executable, "-c", code.format(package), "export", "slime", "chain", "out", "--checksum", checksum],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(Path(td.__file__).parents[1])},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        assert f"{checksum} checksums need {package}: pip install 'tensordelta[bridges]'" in done.stderr
