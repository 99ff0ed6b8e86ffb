"""The generator: its own arithmetic against literals, and what it refuses to write."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from generate import cases
from generate.builder import Builder
from generate.cases import case, read, reject
from generate.codecs import encode_bitmap, encode_gap, encode_replace, encode_step, permutation
from generate.frames import frame, raw_blocks, run_blocks, xxh64, zstd
from generate.model import Model, Random, fit, ordered, tensor, weights
from generate.standard import replaced, standard
from tensordelta_conformance.documents import find_cases
from tensordelta_conformance.folder import write_files


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, cases.Case]]:
    """An empty registry for one test."""
    empty: dict[str, cases.Case] = {}
    monkeypatch.setattr(cases, "CASES", empty)
    monkeypatch.setattr(cases, "_TWICE", [])
    yield empty


MORE: dict[str, Any] = {"area": "a", "title": "A title", "requirements": ["TD-TRM-001"]}


def two() -> Builder:
    return standard(last=False)


def spoiled() -> Builder:
    return standard(last=False, text=replaced(b"{", b'{"x":01,'))


def unpacked(folder: Path) -> Path:
    """The folders of the cases that are registered."""
    cases.write(folder / "out")
    for path, files in find_cases(folder / "out").items():
        write_files(files, folder / "unpacked" / path)
    return folder / "unpacked"


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"requirements": ["TD-TRM-999"]}, "good: TD-TRM-999 is no requirement"),
        ({"requirements": []}, "good: it names no requirement"),
        ({"title": "A title."}, "good: the title is empty or ends with a full stop"),
        ({"level": "reader"}, "good: reader is no level"),
    ],
    ids=str,
)
def test_a_case_of_no_form_is_refused(
    registry: dict[str, cases.Case], tmp_path: Path, more: dict[str, Any], message: str
) -> None:
    read("good", **{**MORE, "chain": two, **more})
    with pytest.raises(ValueError, match=message):
        cases.write(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_slug_is_kebab_case(registry: dict[str, cases.Case], tmp_path: Path) -> None:
    read("Good_one", **MORE, chain=two)
    with pytest.raises(ValueError, match="Good_one: the slug is not kebab-case"):
        cases.write(tmp_path / "out")


def test_two_cases_of_one_id_are_refused(registry: dict[str, cases.Case], tmp_path: Path) -> None:
    read("good", **MORE, chain=two)
    read("good", **MORE, chain=two, to=0, held=None)
    with pytest.raises(ValueError, match="good: two cases have this id"):
        cases.write(tmp_path / "out")


def test_two_cases_that_do_the_same_are_refused(registry: dict[str, cases.Case], tmp_path: Path) -> None:
    read("good", **MORE, chain=two)
    read("well", **{**MORE, "area": "b", "title": "Another title"}, chain=two)
    with pytest.raises(ValueError, match="well: it is good again"):
        cases.write(tmp_path / "out")


def test_a_twin_has_to_exist_and_to_be_valid(registry: dict[str, cases.Case], tmp_path: Path) -> None:
    reject("bad", **MORE, chain=spoiled, error="malformed", twin="good")
    with pytest.raises(ValueError, match="bad: the twin good does not exist"):
        cases.write(tmp_path / "out")
    reject("worse", **MORE, chain=spoiled, error="malformed", twin="bad")
    with pytest.raises(ValueError, match="worse: the twin bad is not valid"):
        cases.write(tmp_path / "out")


def test_an_invalid_case_differs_from_its_twin(registry: dict[str, cases.Case], tmp_path: Path) -> None:
    read("good", **MORE, chain=two)
    reject("bad", **MORE, chain=two, error="malformed", twin="good", verify=None)
    with pytest.raises(ValueError, match=r"bad: .*nothing differs from its twin good"):
        cases.write(tmp_path / "out")


def test_a_difference_of_what_is_asked_is_one(registry: dict[str, cases.Case], tmp_path: Path) -> None:
    read("good", **MORE, chain=two)
    reject("bad", **MORE, chain=two, error="missing", twin="good", to=2, verify=None)
    assert cases.write(tmp_path / "out") == 2


def test_a_verifier_is_told_to_find_what_is_there(registry: dict[str, cases.Case], tmp_path: Path) -> None:
    read("good", **MORE, chain=two)
    reject("bad", **MORE, chain=two, error="missing", twin="good", to=2)
    with pytest.raises(ValueError, match=r"bad: .*a verifier finds nothing"):
        cases.write(tmp_path / "out")


# -- what is written ---------------------------------------------------------------------------------------------------


def test_what_a_read_and_a_rejection_look_like(registry: dict[str, cases.Case], tmp_path: Path) -> None:
    read("good", **MORE, chain=two)
    reject("bad", **MORE, chain=spoiled, error="malformed", twin="good")
    out = unpacked(tmp_path)
    good, bad = out / "a" / "valid" / "good", out / "a" / "invalid" / "bad"
    objects = {str(path.relative_to(good / "chain")) for path in (good / "chain").rglob("*") if path.is_file()}
    assert objects == set(two().objects)
    assert (bad / "held.safetensors").read_bytes() == (good / "held.safetensors").read_bytes()
    asked = {"chain": "chain", "held": {"state": "held.safetensors", "version": 0}, "to": 1}
    first, second = (json.loads((each / "case.json").read_text()) for each in (good, bad))
    assert first["steps"] == [{"op": "read", "input": asked, "expect": {"version": 1, "state": "expected.safetensors"}}]
    assert second["steps"] == [
        {"op": "read", "input": asked, "expect": {"error": ["malformed"], "state": "held.safetensors"}}
    ]
    assert (first["twin"], second["twin"], first["verify"]) == (None, "good", {"faults": []})
    fault = second["verify"]["faults"][0]
    assert fault["error"] == ["malformed"] and "manifests/000000000001.json" in fault["object"]
    assert not {"chain.json", "manifests/000000000000.json"} & {*fault["object"]}


def test_a_state_is_written_in_the_order_of_its_layout(registry: dict[str, cases.Case], tmp_path: Path) -> None:
    state = cases.state_file({"b": tensor("U16", (2,), [1, 0xABCD]), "a": tensor("U8", (), 7)})
    length = int.from_bytes(state[:8], "little")
    assert json.loads(state[8 : 8 + length]) == {
        "a": {"dtype": "U8", "shape": [], "data_offsets": [0, 1]},
        "b": {"dtype": "U16", "shape": [2], "data_offsets": [1, 5]},
    }
    assert state[8 + length :] == b"\x07\x01\x00\xcd\xab"


def test_huge_states_are_described(registry: dict[str, cases.Case], tmp_path: Path) -> None:
    read("good", **MORE, chain=two, held=None, flags=["huge"])
    folder = unpacked(tmp_path) / "a" / "valid" / "good"
    state = json.loads((folder / "case.json").read_text())["steps"][0]["expect"]["state"]
    assert state["fingerprint"] == two().manifests[1]["fingerprint"]
    assert (folder / state["layout"]).is_file() and not (folder / "expected.safetensors").exists()


def test_files_may_be_made_when_they_are_written(registry: dict[str, cases.Case], tmp_path: Path) -> None:
    case("good", **MORE, valid=True, steps=[{"restart": True}], files=lambda: {"stage/x": b"1"}, kind="scenario")
    assert (unpacked(tmp_path) / "a" / "valid" / "good" / "stage" / "x").read_bytes() == b"1"


# -- numbers, codecs, frames -------------------------------------------------------------------------------------------


def test_numbers_are_the_same_everywhere() -> None:
    rng = Random(1)
    assert rng.bytes(8).hex() == "18d6e1cac2a8adaf"  # of SHA-256("1/0")
    assert Random("a").below(10, 5) == [1, 3, 5, 9, 7] and Random("a").sample(10, 5) == [3, 4, 0, 7, 6]
    assert sorted(Random(2).sample(20, 20)) == list(range(20))
    words = weights(Random(3), (700,)).words
    assert 0 < np.count_nonzero(words == 0) < 20 and len(set((words >> 7 & 0xFF).tolist())) > 5


def test_gaps() -> None:
    assert encode_gap([0, 255, 511], 0) == {"gaps": b"\x00\xfe\xff\x00"}
    assert encode_gap([256], 8) == {"gaps": b"\x01", "low": b"\x00"}
    assert encode_gap([5, 22, 23], 4) == {"gaps": b"\x00\x01\x00", "low": b"\x05\x00"}
    assert encode_gap([254], 0) == {"gaps": b"\xfe"} and encode_gap([510], 0) == {"gaps": b"\xff\xff\x00"}


def test_other_codecs() -> None:
    assert encode_bitmap([0, 9], 11) == {"bitmap": b"\x01\x02"}
    assert encode_replace([0x0102, 0x0304], 16) == {"values.0": b"\x02\x04", "values.1": b"\x01\x03"}
    assert encode_step([5, 5, 5, 0], [6, 4, 7, 0xFFFE], 16) == {
        "codes": bytes([1 | 0 << 2 | 3 << 4 | 2 << 6]),
        "escapes.0": b"\x00",
        "escapes.1": b"\x00",
    }
    assert permutation(np.array([0x3F80, 0x0000, 0x3F00, 0x0080], np.uint16), "BF16", 127) == [1, 3, 2, 0]


@pytest.mark.parametrize(
    ("data", "expected"), [(b"", 0xEF46DB3751D8E999), (b"a", 0xD24EC4F1A98C6E5B), (b"abc", 0x44BC2CF5AD770999)]
)
def test_xxh64(data: bytes, expected: int) -> None:
    assert xxh64(data) == expected


def test_frames_are_what_others_read() -> None:
    zstandard = pytest.importorskip("zstandard")
    contents = [b"", b"a", bytes(300), bytes(range(256)) * 3, Random(1).bytes(140_000), b"x" * 300_000]
    for content in contents:
        made = [zstd(content), frame(content), frame(content, window=17 << 3, size_bytes=8)]
        made.append(frame(content, blocks=[*raw_blocks(content), (0, b"", 0)]))
        if content == content[:1] * len(content) and content:
            made.append(frame(content, blocks=run_blocks(content)))
        assert all(zstandard.ZstdDecompressor().decompress(each) == content for each in made)


def test_fitting() -> None:
    base: Model = {"a": tensor("U8", (2,), 1), "b": tensor("U8", (2,), 1), "c": tensor("U8", (2,), 1)}
    wanted: Model = {"a": tensor("U8", (2,)), "b": tensor("I8", (2,)), "c": tensor("U8", (2, 1)), "d": tensor("U8", ())}
    fitted = fit(base, wanted)
    assert {name: each.words.tolist() for name, each in fitted.items()} == {
        "a": [1, 1],
        "b": [0, 0],
        "c": [0, 0],
        "d": [0],
    }
    assert ordered(["\U00010000", "\uffff", "b", "a.", "a"]) == ["a", "a.", "b", "\uffff", "\U00010000"]
