"""Documents of cases: what the generator writes into them, and what the suite reads from them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from toy_suite import ONE, ZERO, add_case, add_twins, read_step

from generate.documents import LARGE, Stored, documents
from tensordelta_conformance import CaseError, Suite, SuiteError
from tensordelta_conformance.cli import main
from tensordelta_conformance.documents import find_cases
from tensordelta_conformance.folder import write_files

MANIFEST = b'{"version":1,"packs":[{"size":3,"path":"packs/a"}],"created":"2026"}'
CONTENTS = {
    "empty": b"",
    "text": "Größe, \u2028\ufeff\U0001f600\r\n\tend\n\n".encode(),
    "manifest": MANIFEST,
    "spoiled": MANIFEST[:-1],
    "control": b"\x1b[0m",
    "bytes": bytes(range(256)),
    "state": ZERO,
    "without a buffer": b"\x02\0\0\0\0\0\0\0{}",
    "a header too long": (len(ZERO)).to_bytes(8, "little") + ZERO[8:],
    "a header of bytes": b"\x02\0\0\0\0\0\0\0\xff\xfe",
    "short": b"\x01\x02\x03",
}


def case(slug: str, twin: str | None = None) -> dict[str, Any]:
    return {"id": slug, "twin": twin}


def written(root: Path, cases: dict[str, Stored]) -> dict[str, dict[str, bytes]]:
    """Cases written to documents, and read from there."""
    write_files(documents(cases), root)
    return {path: dict(files) for path, files in find_cases(root).items()}


@pytest.mark.parametrize("data", CONTENTS.values(), ids=CONTENTS)
def test_every_content_comes_back(tmp_path: Path, data: bytes) -> None:
    cases = {"a/valid/one": Stored(case("one"), {"chain/x": data}, None)}
    assert written(tmp_path, cases)["a/valid/one"]["chain/x"] == data
    (tmp_path / "a" / "valid.json").read_bytes().decode("ascii")


def test_text_is_readable() -> None:
    files = {"chain/x": MANIFEST, "chain/y": ZERO, "chain/z": b"\xff"}
    (document,) = documents({"a/valid/one": Stored(case("one"), files, None)}).values()
    assert max(map(len, document.decode("ascii").splitlines())) <= 120
    stored = json.loads(document)["cases"][0]["files"]
    assert stored["chain/x"] == ['{"version":1,', '"packs":[{"size":3,', '"path":"packs/a"}],', '"created":"2026"}']
    length, first, *_, last, data = stored["chain/y"]
    assert (first, last) == ('{"a": {"dtype": "U16",', ' "data_offsets": [6, 8]}}')
    assert length.keys() == data.keys() == {"base64"}
    assert stored["chain/z"] == [{"base64": "/w=="}]


def test_a_case_is_its_twin_but_for_what_differs(tmp_path: Path) -> None:
    cases = {
        "a/valid/one": Stored(case("one"), {"chain/kept": b"k", "chain/other": b"o", "chain/gone": b"g"}, None),
        "b/invalid/two": Stored(
            case("two", "one"), {"chain/kept": b"k", "chain/other": b"p", "chain/new": b"n"}, "a/valid/one"
        ),
    }
    made = documents(cases)
    (entry,) = json.loads(made["b/invalid.json"])["cases"]
    assert entry["files"] == {"chain/gone": None, "chain/new": ["n"], "chain/other": ["p"]}
    read = written(tmp_path, cases)
    for path, each in cases.items():
        assert json.loads(read[path].pop("case.json")) == each.case
        assert read[path] == each.files


def test_what_is_shared_is_stored_once_and_what_is_large_in_the_pool(tmp_path: Path) -> None:
    large = bytes(LARGE + 1)
    files = [{"x": b"here", "y": b"here"}, {"x": b"here", "y": b"both"}, {"x": b"both", "y": large}]
    paths = ["a/valid/one", "a/valid/two", "a/invalid/three"]
    cases = {path: Stored(case(path.split("/")[2]), each, None) for path, each in zip(paths, files, strict=True)}
    made = documents(cases)
    digests = {data: hashlib.sha256(data).hexdigest() for data in (b"here", b"both", large)}
    assert {name for name in made if name.startswith("pool/")} == {f"pool/{digests[b'both']}", f"pool/{digests[large]}"}
    assert json.loads(made["a/valid.json"])["contents"] == {digests[b"here"]: ["here"]}
    read = written(tmp_path, cases)
    assert [{name: data for name, data in read[path].items() if name != "case.json"} for path in paths] == files


def entry(slug: str, like: str | None = None, **files: Any) -> dict[str, Any]:
    return {"case": case(slug), "like": like, "files": files}


@pytest.mark.parametrize(
    ("cases", "message"),
    [
        ([entry("one"), entry("one")], "a/valid/one is there twice"),
        ([entry("one/two")], "no path of a case"),
        ([entry("one", **{"../x": [""]})], r"'\.\./x' is no path of a file"),
        ([entry("one", **{"/x": [""]})], "'/x' is no path of a file"),
        ([entry("one", **{"case.json": [""]})], r"'case\.json' is no path of a file"),
        ([entry("one", "a/valid/two")], "like a/valid/two, which is no case with all its files"),
        ([entry("one"), entry("two", "a/valid/one"), entry("three", "a/valid/two")], "a/valid/three: it is like"),
        ([{"case": case("one"), "files": {}}], r"a/valid\.json: KeyError: 'like'"),
        ("none", r"a/valid\.json: TypeError"),
    ],
    ids=str,
)
def test_a_document_that_breaks_the_form(tmp_path: Path, cases: Any, message: str) -> None:
    write_files({"a/valid.json": json.dumps({"cases": cases, "contents": {}}).encode()}, tmp_path)
    with pytest.raises(CaseError, match=message):
        find_cases(tmp_path)
    with pytest.raises(SuiteError, match=message):
        _ = Suite(tmp_path).cases


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"base64": "A"}], "cannot be read"),
        ([1], "cannot be read"),
        ({"sha256": "0" * 64}, "cannot be read"),
        ({"sha256": "../../x"}, "is no SHA-256"),
        ({"sha256": "a" * 64}, "has another digest"),
        ({"sha256": "b" * 64}, "has another digest"),
    ],
    ids=str,
)
def test_a_content_that_is_damaged(tmp_path: Path, content: Any, message: str) -> None:
    document = {"cases": [entry("one", x=content, y=["sound"])], "contents": {"a" * 64: ["text"]}}
    write_files({"a/valid.json": json.dumps(document).encode(), f"pool/{'b' * 64}": b"text"}, tmp_path)
    files = find_cases(tmp_path)["a/valid/one"]
    assert files["y"] == b"sound"
    with pytest.raises(CaseError, match=message):
        _ = files["x"]


def test_unpacked_folders_are_a_suite_as_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toys, out = tmp_path / "toys", tmp_path / "out"
    add_twins(toys)
    assert main(["unpack", "--vectors", str(toys), str(out)]) == 0
    assert capsys.readouterr().out == f"2 cases in {out}\n"
    for folder in (toys, out):
        assert Suite(folder).cases["one-word"].files["chain/1.safetensors"] == ONE
    assert main(["unpack", "--vectors", str(out), str(out)]) == 2
    assert f"{out} is not empty" in capsys.readouterr().err
    assert main(["unpack", "--vectors", str(toys), str(tmp_path / "part"), "--only", "*/valid/*"]) == 0
    assert [path.name for path in (tmp_path / "part").glob("*/*/*")] == ["one-word"]


def test_a_case_in_both_forms_is_there_twice(tmp_path: Path) -> None:
    add_case(tmp_path, "one", [read_step(1, {"state": None})])
    document = {"cases": [entry("one")], "contents": {}}
    write_files({"toys/valid.json": json.dumps(document).encode()}, tmp_path)
    with pytest.raises(SuiteError, match="toys/valid/one: it is there twice"):
        _ = Suite(tmp_path).cases
