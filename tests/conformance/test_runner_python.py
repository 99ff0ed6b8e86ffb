"""Checking functions instead of programs, and how states are compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_suite import add_case, add_twins, command, only_check, read_step, scenario, state_file

from tensordelta_conformance import (
    Held,
    ReadRequest,
    Rejected,
    Tensor,
    Unsupported,
    check_reader,
    check_verifier,
    parse_state,
    run,
    run_handler,
)
from tensordelta_conformance.fingerprint import state_fingerprint
from tensordelta_conformance.page import page
from tensordelta_conformance.state import StateError, encode_state, state_differences


@pytest.fixture
def twins(tmp_path: Path) -> Path:
    root = tmp_path / "vectors"
    add_twins(root)
    return root


def stored(request: ReadRequest) -> Path:
    if (request.chain / f"{request.to}.error").exists():
        raise Rejected("malformed", "it says so", object="1.error")
    return request.chain / f"{request.to}.safetensors"


def arrays(request: ReadRequest) -> dict[str, Any]:
    state = parse_state(stored(request).read_bytes())
    return {name: np.frombuffer(t.data, dtype="<u2").reshape(t.shape) for name, t in state.items()}


def swapped(request: ReadRequest) -> dict[str, Any]:
    return {name: array.astype(">u2") for name, array in arrays(request).items()}


def tuples(request: ReadRequest) -> dict[str, Any]:
    state = parse_state(stored(request).read_bytes())
    return {name: (t.dtype, list(t.shape), bytes(t.data)) for name, t in state.items()}


@pytest.mark.parametrize("read", [stored, arrays, swapped, tuples, lambda request: stored(request).read_bytes()])
def test_reader_in_python(twins: Path, read: Any) -> None:
    report = check_reader(read, suite=twins, name="mine", version="2")
    assert report.verdict == "mine 2 conforms to tensordelta 1.0-rc.1: reader-core"


def test_reader_without_a_version(twins: Path) -> None:
    report = check_reader(stored, suite=twins, name="mine")
    assert report.verdict == "mine conforms to tensordelta 1.0-rc.1: reader-core"
    assert "<title>mine: tensordelta conformance</title>" in page(report)


def test_reader_in_python_is_given_what_it_holds(tmp_path: Path) -> None:
    scenario(tmp_path)
    seen: list[Held | None] = []

    def read(request: ReadRequest) -> Any:
        seen.append(request.held)
        to = request.to
        if to is None:
            to = max(int(path.stem) for path in request.chain.glob("*.safetensors"))
        error = request.chain / f"{to}.error"
        if error.exists():
            raise Rejected(error.read_text())
        return request.chain / f"{to}.safetensors"

    report = check_reader(read, suite=tmp_path)
    assert report.conforms, report.failures
    states = [None if held is None else bytes(held.state["a"].data).hex() for held in seen]
    assert states == [None, "010002000380", "010002000500", None, "010002000300", "010002000300"]


def spoils(request: ReadRequest) -> Path:
    if request.held is not None:
        data = request.held.state["a"].data
        assert isinstance(data, bytearray)
        data[0] ^= 255
    return stored(request)


def forgets(request: ReadRequest) -> Path:
    try:
        return stored(request)
    except Rejected as rejected:
        raise Rejected("malformed", state=None) from rejected


def moves_on(request: ReadRequest) -> Path:
    try:
        return stored(request)
    except Rejected as rejected:
        raise Rejected("malformed", state={"a": np.array([1], dtype="<u2")}) from rejected


def raises(request: ReadRequest) -> Path:
    raise KeyError("layouts")


def declines(request: ReadRequest) -> Path:
    raise Unsupported("not for me")


@pytest.mark.parametrize(
    ("read", "status", "told"),
    [
        (spoils, "fail", "tensor 'a': word 0 is 0x00fe, not 0x0001 (1 of 3 words differ)"),
        (forgets, "fail", "nothing is held"),
        (moves_on, "fail", "tensor 'a' has shape [1], not [3]"),
        (raises, "error", "KeyError: 'layouts'"),
        (declines, "unsupported", "read: unsupported"),
        (lambda request: None, "error", "returned None"),
        (lambda request: 7, "error", "a int is no state"),
        (lambda request: {"a": np.zeros(1, dtype="datetime64[s]")}, "error", "datetime64"),
    ],
)
def test_broken_reader_in_python(twins: Path, read: Any, status: str, told: str) -> None:
    check = only_check(check_reader(read, suite=twins), "one-word-too-many")
    assert check.status == status
    assert told in check.got
    assert (
        check.expected == "rejected as malformed, still the state of 0.safetensors (fingerprint a54c85bf6961fc4e) held"
    )


def test_rejected_knows_the_closed_set() -> None:
    with pytest.raises(ValueError, match="'broken' is no error"):
        Rejected("broken")


@pytest.mark.parametrize("form", [tuple, dict])
def test_verifier_in_python(twins: Path, form: Any) -> None:
    def verify(chain: Path) -> list[Any]:
        found = [(path.read_text(), path.name) for path in chain.glob("*.error")]
        return found if form is tuple else [{"error": error, "object": name} for error, name in found]

    assert check_verifier(verify, suite=twins).conforms
    assert not check_verifier(lambda chain: [], suite=twins).conforms


class Handle:
    """The requests of ADAPTER.md as dicts; holds a state until it is restarted."""

    def __init__(self) -> None:
        self.held: bytes | None = None
        self.restarts = 0

    def __call__(self, request: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = {"id": request["id"], "ok": True}
        if request["op"] == "hello":
            return answer | {"protocol": 1, "name": "h", "version": "1", "spec": "1.0", "levels": ["reader-core"]}
        if "held" in request:
            self.held = Path(request["held"]["state"]).read_bytes() if request["held"] else None
        chain, to = Path(request["chain"]), request["to"]
        if to is None:
            to = max(int(path.stem) for path in chain.glob("*.safetensors"))
        error = chain / f"{to}.error"
        if error.exists():
            answer = {"id": request["id"], "error": error.read_text()}
        else:
            self.held = (chain / f"{to}.safetensors").read_bytes()
        if self.held is not None:
            Path(request["out"]).write_bytes(self.held)
        return answer

    def restart(self) -> None:
        self.held = None
        self.restarts += 1


def test_handler_of_requests(twins: Path) -> None:
    scenario(twins)
    handle = Handle()
    assert run_handler(handle, suite=twins).conforms
    assert handle.restarts == 1
    add_case(twins, "trusting", [read_step(0, {"state": "0.safetensors"}, keys={"k": "00" * 32})])
    run_handler(handle, suite=twins, only=["trusting"])
    assert handle.restarts == 2, "what a reader with keys remembers does not reach into a case"


def test_wrong_levels_are_refused(twins: Path) -> None:
    with pytest.raises(ValueError, match="there is no level reader"):
        check_reader(stored, levels=["reader"], suite=twins)


# -- states ------------------------------------------------------------------------------------------------------------


def test_state_differences_name_the_first_word() -> None:
    def floats(*words: int) -> Tensor:
        return Tensor("F32", (len(words),), np.array(words, dtype="<u4").tobytes())

    nan, other_nan = 0x7FC00000, 0x7FC00001
    same = {"w": floats(0, nan, 0x80000000)}
    assert state_differences(same, {"w": floats(0, nan, 0x80000000)}) == []
    assert state_differences(same, {"w": floats(0x80000000, other_nan, 0x80000000)}) == [
        "tensor 'w': word 0 is 0x80000000, not 0x00000000 (2 of 3 words differ)"
    ]
    assert state_differences(same, {"v": floats(0)}) == ["tensor 'v' should not be there", "tensor 'w' is missing"]
    assert state_differences(same, {"w": Tensor("I32", (3,), bytes(12))}) == ["tensor 'w' has dtype I32, not F32"]
    assert state_differences(same, {"w": Tensor("F32", (3, 1), bytes(12))}) == ["tensor 'w' has shape [3, 1], not [3]"]


def test_state_survives_its_file() -> None:
    state = {
        "é": Tensor("BF16", (2, 1), b"\x80\x3f\x00\x80"),
        "a": Tensor("F4", (4,), b"\x21\x43"),
        "none": Tensor("U8", (0, 7), b""),
        "scalar": Tensor("F64", (), b"12345678"),
    }
    found = parse_state(encode_state(state))
    assert {name: (t.dtype, t.shape, bytes(t.data)) for name, t in found.items()} == {
        name: (t.dtype, t.shape, t.data) for name, t in state.items()
    }


def _file(header: str, buffer: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header.encode() + buffer


GOOD_ENTRY = '"a": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}'


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x02\0\0\0\0\0\0\0{",
        _file("{" + GOOD_ENTRY + "}", b"\0"),
        _file("{" + GOOD_ENTRY + "}", b"\0\0\0"),
        _file(" {" + GOOD_ENTRY + "}", b"\0\0"),
        _file("{" + GOOD_ENTRY + ", " + GOOD_ENTRY + "}", b"\0\0"),
        _file("{" + GOOD_ENTRY.replace('"U8"', '"U9"') + "}", b"\0\0"),
        _file("{" + GOOD_ENTRY.replace("[2]", "[3]") + "}", b"\0\0"),
        _file("{" + GOOD_ENTRY.replace("[2]", "[true, 2]") + "}", b"\0\0"),
        _file("{" + GOOD_ENTRY.replace("[0, 2]", "[1, 3]") + "}", b"\0\0\0"),
        _file("{" + GOOD_ENTRY + ', "b": {"dtype": "U8", "shape": [1], "data_offsets": [1, 2]}}', b"\0\0"),
        _file('{"a": {"dtype": "F4", "shape": [3], "data_offsets": [0, 1]}}', b"\0"),
        _file("{" + GOOD_ENTRY + ', "__metadata__": {"x": 1}}', b"\0\0"),
        _file("{" + GOOD_ENTRY, b"\0\0"),
    ],
)
def test_state_files_are_read_strictly(data: bytes) -> None:
    assert parse_state(_file("{" + GOOD_ENTRY + ', "__metadata__": {"x": "1"}}', b"\0\0"))
    with pytest.raises(StateError):
        parse_state(data)


@pytest.mark.parametrize(
    ("state", "fingerprint"),
    [
        # SPEC.md appendix A.8
        ({}, "0000000000000000"),
        ({"w": Tensor("U16", (2,), b"\0\0\1\0")}, "e4582d4b0bbbb791"),
        ({"w": Tensor("F8_E4M3", (2,), b"\x38\xb8")}, "961212dbf99ef900"),
        ({"w": Tensor("U64", (1,), bytes.fromhex("0400030002000100"))}, "e03d6fa0563506aa"),
        ({"w": Tensor("U8", (65537,), bytes(65536) + b"\1")}, "20ccf4e39b5c78e7"),
        ({"é": Tensor("U8", (2,), b"\x01\xff")}, "3cce9ccab0fc774a"),
    ],
)
def test_fingerprint(state: dict[str, Tensor], fingerprint: str) -> None:
    assert state_fingerprint(state) == fingerprint


def test_huge_state_is_compared_by_layout_and_fingerprint(tmp_path: Path) -> None:
    layout = {"tensordelta": "1.0-rc.1", "tensors": [{"name": "w", "dtype": "U16", "shape": [2]}]}
    files = {"layout.json": json.dumps(layout).encode(), "chain/5.safetensors": state_file(w=[0, 1])}
    right = {"fingerprint": "e4582d4b0bbbb791", "layout": "layout.json"}
    wrong = {"fingerprint": "e4582d4b0bbbb792", "layout": "layout.json"}
    add_case(tmp_path, "right", [read_step(5, {"state": right})], files)
    add_case(tmp_path, "wrong", [read_step(5, {"state": wrong})], files)
    add_case(tmp_path, "other", [read_step(0, {"state": right})], files)
    report = run(command(), suite=tmp_path, levels=["reader-core"])
    told = {check.case.id: check.got for check in report.checks}
    assert told == {
        "right": "",
        "wrong": "version 5; the state's fingerprint is e4582d4b0bbbb791, not e4582d4b0bbbb792",
        "other": "version 0; the layout is not that of layout.json",
    }
