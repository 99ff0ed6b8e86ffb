"""The runner: what it makes of good and of broken adapters, and of steps (conformance/ADAPTER.md, CASES.md)."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest
from toy_suite import add_case, add_twins, command, only_check, read_step, scenario

from tensordelta_conformance import (
    NonConformance,
    run,
)
from tensordelta_conformance.cli import main


@pytest.fixture
def twins(tmp_path: Path) -> Path:
    root = tmp_path / "vectors"
    add_twins(root)
    return root


# -- adapters that are programs ----------------------------------------------------------------------------------------


def test_good_adapter_conforms(twins: Path) -> None:
    report = run(command(), suite=twins, levels=["reader-core", "verifier"], jobs=1)
    assert report.verdict == "toy 1 conforms to tensordelta 1.0-rc.1: reader-core, verifier"
    assert report.conforms and report.clean
    assert [(check.case.id, check.part, check.status) for check in report.checks] == [
        ("one-word", "steps", "pass"),
        ("one-word", "verify", "pass"),
        ("one-word-too-many", "steps", "pass"),
        ("one-word-too-many", "verify", "pass"),
    ]
    report.raise_for_failures()


@pytest.mark.parametrize("one_shot", [False, True])
def test_good_adapter_in_both_forms_and_by_many_workers(twins: Path, one_shot: bool) -> None:
    assert run(command(), suite=twins, levels=["reader-core", "verifier"], jobs=3, one_shot=one_shot).conforms


BROKEN = [
    # fault, case, status, what the result says
    ("wrong-state", "one-word", "fail", "tensor 'b': word 0 is 0x0104, not 0x0004 (1 of 1 words differ)"),
    ("wrong-version", "one-word", "fail", "version 2"),
    ("writes-nothing", "one-word", "fail", "nothing is held"),
    ("writes-nonsense", "one-word", "error", "cannot be read"),
    ("wrong-error", "one-word-too-many", "fail", "rejected as integrity"),
    ("changes-held", "one-word-too-many", "fail", "tensor 'a': word 2 is 0x8003, not 0x0003 (1 of 3 words differ)"),
    ("accepts-all", "one-word-too-many", "fail", "version 1"),
    ("touches-the-chain", "one-word", "fail", "chain/lock is new"),
    ("rewrites-the-chain", "one-word-too-many", "fail", "chain/chain.json has changed"),
    ("writes-beside", "one-word", "fail", "note is new"),
    ("unsupported", "one-word", "unsupported", "read: unsupported"),
    ("crashes", "one-word", "error", "the adapter ended during read with exit code 3"),
    ("wrong-id", "one-word", "error", "the answer to request 1 has the id 2"),
    ("no-json", "one-word", "error", "the answer is no JSON"),
    ("two-answers", "one-word", "error", "has not exactly one of ok, error, unsupported and failed"),
    ("invents-errors", "one-word-too-many", "error", "error 'broken' is no name of SPEC.md section 17"),
]


@pytest.mark.parametrize(("fault", "case", "status", "told"), BROKEN)
def test_broken_adapter_does_not_pass(twins: Path, fault: str, case: str, status: str, told: str) -> None:
    report = run(command(fault), suite=twins, levels=["reader-core"], jobs=1)
    check = only_check(report, case)
    assert check.status == status
    assert told in check.got
    assert str(twins.parent) not in check.got
    assert check.expected in {
        "version 1, the state of 1.safetensors (fingerprint 4cabd1ae46847c4e) held",
        "rejected as malformed, still the state of 0.safetensors (fingerprint a54c85bf6961fc4e) held",
        "read changes nothing in the chain or beside it",
    }
    assert not report.conforms and not report.clean
    assert report.verdict.startswith("toy 1 does not conform to tensordelta 1.0-rc.1: reader-core (")
    with pytest.raises(NonConformance, match=case):
        report.raise_for_failures()


def test_expectation_and_message_are_told(twins: Path) -> None:
    check = only_check(run(command("wrong-error"), suite=twins, levels=["reader-core"]), "one-word-too-many")
    assert (
        check.expected == "rejected as malformed, still the state of 0.safetensors (fingerprint a54c85bf6961fc4e) held"
    )
    assert check.message == "integrity (1.error, TD-POS-003, it says so)"


def test_standard_error_is_told(twins: Path) -> None:
    assert only_check(run(command("crashes"), suite=twins), "one-word").stderr == "about to fall over"


def test_adapter_that_hangs_is_killed_with_its_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, pids = tmp_path / "vectors", tmp_path / "pids"
    monkeypatch.setenv("TOY_PIDS", str(pids))
    add_case(root, "first", [read_step(0, {"state": "0.safetensors"})])
    add_case(root, "second", [read_step(0, {"state": "0.safetensors"})])
    report = run(command("hangs"), suite=root, levels=["reader-core"], jobs=1, timeout=0.7)
    assert [(check.status, check.got) for check in report.checks] == [("error", "no answer to read within 0.7 s")] * 2
    deadline = time.monotonic() + 5
    for pid in pids.read_text().split():
        while alive(int(pid)):
            assert time.monotonic() < deadline, f"{pid} lives on"
            time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")


def test_adapter_is_started_anew_after_an_error(tmp_path: Path) -> None:
    root = tmp_path / "vectors"
    add_case(root, "first", [read_step(1, {"state": "1.safetensors"})])
    add_case(root, "second", [read_step(1, {"state": "1.safetensors"})])
    checks = run(command("crashes"), suite=root, levels=["reader-core"], jobs=1).checks
    assert [check.got for check in checks] == ["the adapter ended during read with exit code 3"] * 2


def test_one_shot_exit_code_has_to_agree(twins: Path) -> None:
    report = run(command("always-ends-well"), suite=twins, levels=["reader-core"], one_shot=True)
    assert only_check(report, "one-word").status == "pass"
    check = only_check(report, "one-word-too-many")
    assert (check.status, check.got) == ("error", "read ended with exit code 0, but its answer means 1")


@pytest.mark.parametrize(
    ("fault", "valid", "invalid"),
    [
        ("none", "pass", "pass"),
        ("verifies-nothing", "pass", "fail"),
        ("cries-wolf", "fail", "fail"),
        ("invents-errors", "error", "error"),
        ("cannot-verify", "pass", "pass"),
        ("unsupported", "unsupported", "unsupported"),
    ],
)
def test_verifiers(twins: Path, fault: str, valid: str, invalid: str) -> None:
    report = run(command(fault), suite=twins, levels=["verifier"])
    for check in report.failures:
        assert check.expected == ("no fault" if check.case.valid else "reported: malformed of 1.error")
    assert only_check(report, "one-word", "verify").status == valid
    assert only_check(report, "one-word-too-many", "verify").status == invalid


@pytest.mark.parametrize("adapter", ["no-such-program-here", [*command("other-protocol")], ["false"]])
def test_adapter_that_does_not_introduce_itself(
    twins: Path, adapter: str | list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = adapter if isinstance(adapter, str) else " ".join(adapter)
    assert main(["run", "--vectors", str(twins), "--adapter", words]) == 1
    assert "does not say who it is" in capsys.readouterr().err


# -- steps -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("one_shot", [False, True])
def test_scenario(tmp_path: Path, one_shot: bool) -> None:
    scenario(tmp_path)
    check = only_check(run(command(), suite=tmp_path, levels=["reader-core"], one_shot=one_shot), "following")
    assert check.status == "pass", check.got


def test_rejection_without_a_state_means_what_was_held_before(tmp_path: Path) -> None:
    step = {"op": "read", "input": {"chain": "chain", "to": 1}, "expect": {"error": ["malformed"]}}
    add_case(tmp_path, "two-reads", [read_step(0, {"state": "0.safetensors"}), step], valid=False)
    assert run(command(), suite=tmp_path, levels=["reader-core"]).conforms
    check = only_check(run(command("changes-held"), suite=tmp_path, levels=["reader-core"]), "two-reads")
    assert (check.status, check.step) == ("fail", 1)


def test_holding_nothing_is_no_file(tmp_path: Path) -> None:
    add_case(tmp_path, "from-nothing", [read_step(1, {"error": ["malformed"], "state": None})], valid=False)
    assert run(command(), suite=tmp_path, levels=["reader-core"]).conforms
    check = only_check(run(command("changes-held"), suite=tmp_path, levels=["reader-core"]), "from-nothing")
    assert check.got == "rejected as malformed; a state is held where nothing should be"


def test_alternatives_all_failing_are_all_told(tmp_path: Path) -> None:
    either = {"any": [{"version": 1, "state": "2.safetensors"}, {"error": ["limit"], "state": None}]}
    add_case(tmp_path, "either", [read_step(1, either)])
    check = only_check(run(command(), suite=tmp_path, levels=["reader-core"]), "either")
    assert check.expected == (
        "version 1, the state of 2.safetensors (fingerprint 975368511c9a3314) held; "
        "or rejected as limit, still nothing held"
    )
    assert check.got.startswith("version 1; tensor 'a': word 2 is 0x8003, not 0x0005")


def prepared(root: Path) -> None:
    add_case(
        root,
        "prepared",
        [
            {**read_step(1, {}, "0.safetensors"), "op": "prepare"},
            {"op": "apply", "input": {}, "expect": {"state": "1.safetensors"}},
            {"op": "undo", "input": {}, "expect": {"state": "0.safetensors"}},
        ],
        needs=["prepare"],
    )


def test_what_the_adapter_lacks_is_not_applicable_and_told(tmp_path: Path, twins: Path) -> None:
    prepared(twins)
    add_case(twins, "far-ahead", [read_step(0, {"state": "0.safetensors"})], since="1.1")
    add_case(twins, "large", [read_step(0, {"state": "0.safetensors"})], flags=["huge"])
    report = run(command(), suite=twins, levels=["reader-core"])
    assert report.verdict == "toy 1 conforms to tensordelta 1.0-rc.1: reader-core (without: spec 1.1, huge, prepare)"
    assert {check.case.id for check in report.checks if check.status == "not-applicable"} == {
        "prepared",
        "far-ahead",
        "large",
    }
    assert only_check(run(command(), suite=twins, levels=["reader-core"], huge=True), "large").status == "pass"


def test_prepare_apply_undo(tmp_path: Path) -> None:
    prepared(tmp_path)
    check = only_check(run(command("prepares"), suite=tmp_path, levels=["reader-core"]), "prepared")
    assert check.status == "pass", check.got
    report = run(command("prepares"), suite=tmp_path, levels=["reader-core"], one_shot=True)
    assert only_check(report, "prepared").status == "not-applicable"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is looked at on Linux")
@pytest.mark.parametrize(("fault", "status"), [("none", "pass"), ("hungry", "fail")])
def test_memory(tmp_path: Path, fault: str, status: str) -> None:
    add_case(tmp_path, "small", [read_step(1, {"state": "1.safetensors", "memory": 32 << 20})])
    check = only_check(run(command(fault), suite=tmp_path, levels=["reader-core"]), "small")
    assert check.status == status, check.got
    assert ("the memory in use grew by" in check.got) == (status == "fail")


def test_a_fault_within_a_scenario_says_what_that_step_expects(tmp_path: Path) -> None:
    """The reads before it went well, and what they expect is not told."""
    first = read_step(0, {"state": "0.safetensors"})
    add_case(tmp_path, "no-such-version", [first, read_step(7, {"error": ["missing"], "state": None})])
    check = only_check(run(command(), suite=tmp_path, levels=["reader-core"]), "no-such-version")
    assert (check.status, check.step) == ("error", 1), "the toy ends with a traceback"
    assert check.expected == "rejected as missing, still nothing held"


def test_a_case_that_cannot_be_done_says_what_it_expects(tmp_path: Path) -> None:
    steps = [read_step(0, {"state": "0.safetensors"}), {"remove": ["gone"]}, read_step(1, {"error": ["limit"]})]
    add_case(tmp_path, "no-such-object", steps, valid=False)
    check = only_check(run(command(), suite=tmp_path, levels=["reader-core"]), "no-such-object")
    assert check.status == "error" and check.got.startswith("the case cannot be done: FileNotFoundError")
    held = "the state of 0.safetensors (fingerprint a54c85bf6961fc4e) held"
    assert check.expected == f"{held}; then rejected as limit, still what was held before"


# -- folders kept at a version -----------------------------------------------------------------------------------------


def pull_case(root: Path, kill: int = 0) -> None:
    step = {
        "op": "pull",
        "input": {"chain": "chain", "dir": "engine", "to": 1},
        "expect": {"version": 1, "state": "1.safetensors", "files": {"config.json": "chain/chain.json"}},
    }
    add_case(root, "kept", [{**step, "kill": kill} if kill else step], level="checkout")


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("none", ""),
        ("leaves-files", "old.json is no file of the version"),
        ("puts-a-tensor-twice", "tensor 'a' stands in model.safetensors and in another file"),
        ("forgets-files", "config.json is missing"),
        ("unsupported", "pull: unsupported"),
    ],
)
def test_pull(tmp_path: Path, fault: str, told: str) -> None:
    pull_case(tmp_path)
    check = only_check(run(command(fault), suite=tmp_path, levels=["checkout"]), "kept")
    assert (check.status == "pass") == (not told)
    assert told in check.got
    wanted = "version 1, the state of 1.safetensors (fingerprint 4cabd1ae46847c4e) held, the files config.json"
    assert check.expected == (wanted if told else "")


@pytest.mark.parametrize(("fault", "status"), [("none", "pass"), ("does-not-resume", "fail")])
def test_killed_pull(tmp_path: Path, fault: str, status: str) -> None:
    pull_case(tmp_path, kill=3)
    check = only_check(run(command(fault), suite=tmp_path, levels=["checkout"]), "kept")
    assert check.status == status, check.got


# -- known failures ----------------------------------------------------------------------------------------------------


def known_list(folder: Path, *cases: str) -> Path:
    path = folder / "known.json"
    entries = [{"case": case, "reason": "not done yet", "link": "https://example.org/1"} for case in cases]
    path.write_text(json.dumps(entries))
    return path


def test_known_failure_is_expected_and_claims_nothing(twins: Path, tmp_path: Path) -> None:
    known = known_list(tmp_path, "one-word-too-many")
    report = run(command("wrong-error"), suite=twins, levels=["reader-core"], known_failures=known)
    assert only_check(report, "one-word-too-many").status == "expected-failure"
    assert report.clean and not report.conforms
    assert report.verdict == ("toy 1 does not conform to tensordelta 1.0-rc.1: reader-core (1 failed as expected of 2)")
    report.raise_for_failures()


def test_known_failure_that_passes_is_a_failure(twins: Path, tmp_path: Path) -> None:
    known = known_list(tmp_path, "one-word")
    report = run(command(), suite=twins, levels=["reader-core"], known_failures=known)
    assert report.list_faults == ["one-word is listed as a known failure, but passes"]
    assert not report.clean and not report.conforms
    assert report.verdict.endswith("the list of known failures is wrong in 1 place")


def test_known_failure_that_does_not_exist_is_a_failure(twins: Path, tmp_path: Path) -> None:
    report = run(command(), suite=twins, levels=["reader-core"], known_failures=known_list(tmp_path, "no-such"))
    assert not report.clean


@pytest.mark.parametrize(
    "text",
    ["{}", "[", '[{"case": "one-word", "reason": "x"}]', '[{"case": "one-word", "reason": "", "link": "x"}]'],
)
def test_list_of_known_failures_is_strict(twins: Path, tmp_path: Path, text: str) -> None:
    path = tmp_path / "known.json"
    path.write_text(text)
    arguments = ["run", "--vectors", str(twins), "--adapter", "true", "--known-failures", str(path)]
    assert main(arguments) == 2
