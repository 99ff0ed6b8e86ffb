"""Folders that other projects' programs wrote are read as these programs meant them, and broken ones are refused."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from crossings import CASES, MODELS, import_case, importer, model, unpacked

import tensordelta as td
from tensordelta.errors import TensorDeltaError
from tensordelta_conformance.cli import main
from tensordelta_conformance.foreign import ForeignCase

_SOUND = [case for case in CASES.values() if case.refused is None]
_BROKEN = [case for case in CASES.values() if case.refused is not None]


def _names(case: ForeignCase) -> str:
    return case.id


def _check(case: ForeignCase, chain: Path) -> None:
    """The chain holds the case's versions, bit for bit, and no other."""
    expected = [*([] if case.base is None else [case.base]), *case.versions]
    if not expected:
        assert not (chain / "chain.json").exists()
        return
    opened = td.open(chain)
    versions = opened.versions()
    assert [opened.manifest(each).annotations["foreign-version"] for each in versions] == [name for name, _ in expected]
    for version, (_, path) in zip(versions, expected, strict=True):
        assert opened.load(version).equals(model(path)), path


@pytest.mark.parametrize("case", _SOUND, ids=_names)
def test_a_folder_is_read_bit_for_bit(case: ForeignCase, tmp_path: Path) -> None:
    source = unpacked(case, tmp_path / "source")
    imported = import_case(case, source, tmp_path / "chain")
    _check(case, tmp_path / "chain")
    assert [each.id for each in imported][-len(case.versions) :] == [name for name, _ in case.versions]
    again = import_case(case, source, tmp_path / "chain")
    assert again == []


@pytest.mark.parametrize("case", _BROKEN, ids=_names)
def test_a_broken_version_is_refused_before_it_is_published(case: ForeignCase, tmp_path: Path) -> None:
    """What precedes it may have been published; nothing of it is, and nothing after it."""
    source = unpacked(case, tmp_path / "source")
    assert case.refused is not None
    with pytest.raises(TensorDeltaError) as caught:
        import_case(case, source, tmp_path / "chain")
    assert caught.value.object and caught.value.reason and caught.value.advice and caught.value.rule
    assert "Traceback" not in str(caught.value)
    if (tmp_path / "chain" / "chain.json").exists():
        opened = td.open(tmp_path / "chain")
        names = [opened.manifest(each).annotations["foreign-version"] for each in opened.versions()]
        expected = [name for name, _ in [*([] if case.base is None else [case.base]), *case.versions]]
        assert names == expected[: len(names)]
        for name, version in zip(names, opened.versions(), strict=True):
            path = dict([*([] if case.base is None else [case.base]), *case.versions])[name]
            assert opened.load(version).equals(model(path))


def test_there_are_broken_folders_of_each_format() -> None:
    counts = {
        format: sum(case.format == format for case in _BROKEN) for format in ("trl", "slime", "modelexpress", "skyrl")
    }
    assert all(count >= 40 for count in counts.values()), counts


def test_a_wrong_base_shows_where_the_delta_changes_it(tmp_path: Path) -> None:
    """Of the base only tensors that change are proven: which is what the formats give."""
    case = CASES["slime-xor"]
    assert case.base is not None
    state = model(case.base[1]).copy()
    words = state.words(state.layout.index["model.layers.0.mlp.up_proj.weight"])
    words[17] ^= 1
    td.State(state.layout, [state.words(n) for n in range(len(state.layout))]).save(tmp_path / "base.safetensors")
    source = unpacked(case, tmp_path / "source")
    with pytest.raises(td.IntegrityError, match="made to another base"):
        list(importer("slime", source, tmp_path / "chain", base=tmp_path / "base.safetensors").all())


def test_deltas_alone_need_a_base(tmp_path: Path) -> None:
    source = unpacked(CASES["skyrl-files"], tmp_path / "source")
    with pytest.raises(td.MissingError, match="--base"):
        list(importer("skyrl", source, tmp_path / "chain").all())
    assert not (tmp_path / "chain").exists()


def test_the_archive_is_the_same_each_time_and_says_what_lies_in_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "a.tar.gz", tmp_path / "b.tar.gz"
    assert main(["foreign", str(first)]) == main(["foreign", str(second)]) == 0
    assert first.read_bytes() == second.read_bytes()
    digest = hashlib.sha256(first.read_bytes()).hexdigest()
    assert capsys.readouterr().out.split()[0] == digest == (tmp_path / "a.tar.gz.sha256").read_text().split()[0]
    with tarfile.open(first) as archive:
        archive.extractall(tmp_path / "out", filter="data")
    (root,) = (tmp_path / "out").iterdir()
    assert (root / "README.md").read_text().startswith("# Weight deltas")
    rows = json.loads((root / "cases.json").read_text())["cases"]
    assert {row["id"] for row in rows} == set(CASES)
    for row in rows:
        folder = root / row["path"]
        held = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        assert held == set(CASES[row["id"]].files)
        assert all((root / each["model"]).is_file() for each in row["versions"])
        assert row["written_by"]["licence"] and row["written_by"]["commit"]


def test_the_archive_is_used_without_this_package(tmp_path: Path) -> None:
    """A reader of some lines, on numpy, zstd and the standard library, reads a folder of the archive by its README."""
    assert main(["foreign", str(tmp_path / "a.tar.gz")]) == 0
    with tarfile.open(tmp_path / "a.tar.gz") as archive:
        archive.extractall(tmp_path / "out", filter="data")
    (root,) = (tmp_path / "out").iterdir()
    code = """
import json, sys, zlib
from pathlib import Path
try:
    from compression import zstd
except ImportError:
    from backports import zstd
root = Path(sys.argv[1])

def shard(path):
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    sums = header.pop("__metadata__", {})
    return sums, {k: data[8 + size :][slice(*v["data_offsets"])] for k, v in header.items()}

row = next(row for row in json.loads((root / "cases.json").read_text())["cases"] if row["id"] == "slime-adler")
held = shard(root / row["base"]["model"])[1]
for each in row["versions"]:
    folder = root / row["path"] / f"weight_v{each['version']}"
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    for file in set(index["weight_map"].values()):
        sums, tensors = shard(folder / file)
        for name, frame in tensors.items():
            held[name] = bytes(a ^ b for a, b in zip(held[name], zstd.decompress(frame), strict=True))
            assert f"{zlib.adler32(held[name]):08x}" == sums[name]
    assert held == shard(root / each["model"])[1]
print("read", len(row["versions"]))
"""
    done = subprocess.run([sys.executable, "-c", code, str(root)], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("read 3\n", 0), done.stderr


def test_the_files_are_small() -> None:
    assert sum(path.stat().st_size for path in MODELS.rglob("*") if path.is_file()) < 400_000
