"""How a case is told apart from its valid twin."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from toy_suite import add_case, read_step, state_file

from tensordelta_conformance.suite import Suite
from tensordelta_conformance.twins import MOST, Difference, differences


@pytest.fixture(scope="module")
def suite() -> Suite:
    return Suite.find()


def beside(suite: Suite, name: str) -> list[Difference]:
    case = suite.cases[name]
    assert case.twin is not None
    return differences(case, suite.cases[case.twin])


def the_one(suite: Suite, name: str) -> tuple[str, str, str]:
    (found,) = beside(suite, name)
    return found.where, found.twin, found.case


@pytest.mark.parametrize(
    ("name", "where", "twin", "case"),
    [
        ("base-without-fingerprint", "manifests/000000000001.json: base.fingerprint", '"6d55aff5d25e81d2"', "absent"),
        ("json-integer-null", "manifests/000000000001.json: base.version", "0", "null"),
        ("manifest-annotations-of-another-type", "manifests/000000000001.json: annotations", "absent", "null"),
        ("pack-of-a-full-version-missing", "packs/e35b52af….safetensors", "2557 bytes", "absent"),
        (
            "format-with-a-tag-that-begins-alike",
            "manifests/000000000001.json: tensordelta",
            '"1.0-rc.1"',
            '"1.0-rc.1.1"',
        ),
        ("held-one-tensor-less", "held.safetensors: z", '{"dtype": "U8", "shape": [4]}', "absent"),
    ],
)
def test_one_difference(suite: Suite, name: str, where: str, twin: str, case: str) -> None:
    assert the_one(suite, name) == (where, twin, case)


def test_what_follows_from_other_bytes_of_a_pack_is_left_out(suite: Suite) -> None:
    where, twin, case = the_one(suite, "chunk-changed-fraction")
    assert where.startswith("packs/") and where.endswith(".safetensors: chunk table.chunks[0].changed")
    assert (twin, case) == ("3", "3.0")


def test_a_pack_of_another_name_is_told(suite: Suite) -> None:
    assert beside(suite, "pack-path-tilde") == [
        Difference("the name of an object", "packs/x.safetensors", "packs/~x"),
        Difference("manifests/000000000001.json: packs[0].path", '"packs/x.safetensors"', '"packs/~x"'),
    ]


def test_bytes_that_differ(suite: Suite) -> None:
    where, twin, case = the_one(suite, "plain-words-altered")
    assert where.endswith(".safetensors: bytes of b: byte 44, the first of 2 that differ")
    assert (twin, case) == ("0b 00 00 40", "05 00 00 00")


def test_a_member_that_is_there_twice(suite: Suite) -> None:
    where, twin, case = the_one(suite, "json-duplicate-member")
    assert where.startswith("manifests/000000000001.json: at character ")
    assert case.count('"version"') == twin.count('"version"') + 1


def test_another_request(suite: Suite) -> None:
    found = {(each.where, each.case) for each in beside(suite, "slices-norm-altered-in-0")}
    assert ("the request.input.altered", '[[0, "norm", 0, 15600]]') in found


def test_every_case_with_a_twin_differs_from_it_visibly(suite: Suite) -> None:
    for case in suite.cases.values():
        if case.twin is None:
            continue
        found = differences(case, suite.cases[case.twin])
        assert 0 < len(found) <= MOST, case.path
        for each in found:
            assert each.twin != each.case or each.where.startswith("and "), (case.path, each)
            assert f"{each.where}{each.twin}{each.case}".replace("\n", "").replace("\t", "").isprintable(), case.path
            assert len(each.twin) + len(each.case) < 1000, case.path


def test_lists_and_many_differences(tmp_path: Path) -> None:
    def document(*items: object) -> bytes:
        return json.dumps({"list": items}).encode()

    step = [read_step(1, {"version": 1, "state": "1.safetensors"}, "0.safetensors")]
    wrong = [read_step(1, {"error": ["malformed"]}, "0.safetensors")]
    add_case(tmp_path, "good", step, {"chain/a.json": document(1, 2, 3), "chain/1.error": b"x", "chain/b": b"1"})
    for name, files in {
        "one-more": {"chain/a.json": document(1, 7, 2, 3)},
        "true-for-one": {"chain/a.json": document(True, 2, 3)},
        "other-order": {"chain/a.json": document(1, 3, 2)},
        "other-words": {"chain/1.safetensors": state_file(a=[1, 2, 4], b=[4])},
        "all-of-it": {f"chain/more/{number}": b"x" for number in range(20)},
        "expected-alone": {"1.safetensors": b"of the twin alone"},
    }.items():
        content = {"chain/a.json": document(1, 2, 3), "chain/1.error": b"x", "chain/b": b"1", **files}
        add_case(tmp_path, name, wrong, content, valid=False, twin="good")
    suite = Suite(tmp_path)
    assert the_one(suite, "one-more") == ("a.json: list[1]", "absent", "7")
    assert the_one(suite, "true-for-one") == ("a.json: list[0]", "1", "true")
    assert [each.where for each in beside(suite, "other-order")] == ["a.json: list[1]", "a.json: list[2]"]
    assert the_one(suite, "other-words") == (
        "1.safetensors: bytes of a: byte 4, the first of 2 that differ",
        "03 80",
        "04 00",
    )
    many = beside(suite, "all-of-it")
    assert (len(many), many[-1]) == (MOST, Difference("and 9 more", "", ""))
    assert beside(suite, "expected-alone") == []
