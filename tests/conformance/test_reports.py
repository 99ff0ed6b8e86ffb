"""The reports of a run: report.json, junit.xml, report.html, and what is printed."""

from __future__ import annotations

import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from toy_suite import add_case, add_twins, command, read_step

from tensordelta_conformance import ReadRequest, Rejected, Report, check_reader, run
from tensordelta_conformance.cli import main
from tensordelta_conformance.reports import write_reports
from tensordelta_conformance.terminal import Terminal

NASTY = "<script>alert('hi')</script> & \x00\x1b[31m\ud800 end"


def nasty(request: ReadRequest) -> Path:
    """Accepts everything but what it is asked from nothing, where it says something that has to be escaped."""
    if request.held is None:
        raise Rejected("limit", NASTY, object="<b>")
    return request.chain / f"{request.to}.safetensors"


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    root = tmp_path / "vectors"
    add_twins(root)
    add_case(root, "from-nothing", [read_step(0, {"state": "0.safetensors"})], requirements=["TD-FIT-003"])
    add_case(root, "pinned", [read_step(0, {"state": "0.safetensors"})], needs=["pin"], requirements=["TD-OBJ-010"])
    return root


@pytest.fixture
def report(suite: Path, tmp_path: Path) -> Report:
    known = tmp_path / "known.json"
    entry = {"case": "one-word-too-many", "reason": "no <checks> yet", "link": "https://example.org/issues/1"}
    known.write_text(json.dumps([entry]))
    return check_reader(nasty, suite=suite, name="<mine>", version="0.1", known_failures=known)


def by_case(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {check["case"]: check for check in document["checks"]}


def test_json(report: Report, tmp_path: Path) -> None:
    write_reports(report, tmp_path / "out")
    document = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert document["format"] == 1
    assert document["adapter"]["name"] == "<mine>"
    assert document["verdict"] == {
        "sentence": "<mine> 0.1 does not conform to tensordelta 1.0-rc.1: "
        "reader-core (1 failed and 1 failed as expected of 3)",
        "conforms": False,
        "clean": False,
        "levels": [],
        "without": [],
    }
    (level,) = document["levels"]
    assert level == {
        "level": "reader-core",
        "conforms": False,
        "total": 4,
        "pass": 1,
        "fail": 1,
        "error": 0,
        "unsupported": 0,
        "expected-failure": 1,
        "not-applicable": 1,
    }
    checks = by_case(document)
    assert {name: check["status"] for name, check in checks.items()} == {
        "one-word": "pass",
        "from-nothing": "fail",
        "pinned": "not-applicable",
        "one-word-too-many": "expected-failure",
    }
    failed = checks["from-nothing"]
    assert failed["expected"] == "the state of 0.safetensors (fingerprint a54c85bf6961fc4e) held"
    assert failed["got"] == "rejected as limit"
    assert failed["title"] == "The case from nothing"
    assert (failed["asked"], failed["twin"], failed["differences"]) == ("read version 0, holding nothing", None, [])
    assert checks["pinned"]["reason"] == "it needs pin"
    assert "differences" not in checks["pinned"]
    known = checks["one-word-too-many"]
    assert (known["asked"], known["twin"]) == ("read version 1, holding 0.safetensors as version 0", "one-word")
    assert known["differences"] == [{"where": "1.error", "twin": "absent", "case": "9 bytes"}]
    assert (known["reason"], known["link"]) == ("no <checks> yet", "https://example.org/issues/1")
    states = {each["id"]: (each["state"], each["cases"], each["failed"]) for each in document["requirements"]}
    assert states["TD-POS-001"] == ("passed", ["one-word"], [])
    assert states["TD-FIT-003"] == ("failed", ["from-nothing"], ["from-nothing"])
    assert states["TD-POS-003"] == ("expected-failure", ["one-word-too-many"], ["one-word-too-many"])
    assert states["TD-OBJ-010"] == ("not-run", ["pinned"], [])
    assert states["TD-POS-002"] == ("untested", [], [])


def test_junit(report: Report, tmp_path: Path) -> None:
    write_reports(report, tmp_path)
    root = ElementTree.fromstring((tmp_path / "junit.xml").read_bytes())
    assert root.tag == "testsuites"
    (suite,) = root
    for element in (root, suite):
        counts = {key: element.get(key) for key in ("tests", "failures", "errors", "skipped")}
        assert counts == {"tests": "4", "failures": "1", "errors": "0", "skipped": "2"}
    assert len(suite.findall("testcase")) == 4
    (failure,) = suite.findall("testcase/failure")
    assert failure.get("message") == (
        "rejected as limit; expected: the state of 0.safetensors (fingerprint a54c85bf6961fc4e) held"
    )
    assert failure.text is not None
    assert "<script>alert('hi')</script>" in failure.text
    assert {each.get("message") for each in suite.findall("testcase/skipped")} == {
        "not applicable: it needs pin",
        "expected failure: no <checks> yet",
    }


def test_junit_of_errors_and_wrong_lists(suite: Path, tmp_path: Path) -> None:
    known = tmp_path / "known.json"
    known.write_text(json.dumps([{"case": "gone", "reason": "r", "link": "l"}]))
    write_reports(run(command("crashes"), suite=suite, levels=["reader-core"], known_failures=known), tmp_path)
    root = ElementTree.fromstring((tmp_path / "junit.xml").read_bytes())
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("5", "1", "4")
    assert {each.text for each in root.iter("system-err")} == {"about to fall over"}
    (case,) = root.findall("testsuite[@name='known failures']/testcase")
    assert case.get("name") == "gone is listed as a known failure, but there is no such case"


class Page(HTMLParser):
    """Notes what stands on a page, and that its elements are closed in order."""

    VOID = frozenset({"meta", "br", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += data


def test_page(report: Report, tmp_path: Path) -> None:
    write_reports(report, tmp_path)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert report.verdict in page.text
    for shown in ("from-nothing", "rejected as limit", "The case from nothing", "no <checks> yet", "TD-POS-002"):
        assert shown in page.text
    assert "<script>alert('hi')</script> & \\x00\\x1b[31m\\ud800 end" in page.text
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert sum("check" in (attrs.get("class") or "").split() for _, attrs in page.tags) == 2
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    links = [attrs["href"] for tag, attrs in page.tags if tag == "a"]
    assert "https://example.org/issues/1" in links
    assert {link for link in links if link and link.startswith("#")} <= {f"#{name}" for name in ids}


def failures_of(page: str) -> dict[str, tuple[str, str, str]]:
    """What each failure on a page shows: expected, got, and the rest of it, by id."""
    parts = re.findall(r'<details class="check [^>]* id="(check-[^"]+)".*?</details>', page, re.DOTALL)
    found = {}
    for name in parts:
        (text,) = re.findall(rf'<details class="check [^>]* id="{re.escape(name)}".*?</details>', page, re.DOTALL)
        (expected,) = re.findall(r"<b>expected</b> (.*?)</span>", text, re.DOTALL)
        (got,) = re.findall(r"<b>got</b> (.*?)</span>", text, re.DOTALL)
        found[name] = (expected, got, Page(text.partition("</summary>")[2].removesuffix("</details>")).text)
    return found


def test_a_failure_shows_expected_and_got_side_by_side_and_the_twin(suite: Path, tmp_path: Path) -> None:
    write_reports(run(command("accepts-all"), suite=suite, levels=["reader-core"]), tmp_path / "read")
    shown = failures_of((tmp_path / "read" / "report.html").read_text(encoding="utf-8"))
    assert set(shown) == {"check-one-word-too-many"}
    expected, got, rest = shown["check-one-word-too-many"]
    assert expected == "rejected as malformed, still the state of 0.safetensors (fingerprint a54c85bf6961fc4e) held"
    assert got.startswith("version 1")
    assert "read version 1, holding 0.safetensors as version 0" in rest
    assert re.search(r"valid twinone-word passed.*in the valid twin.*here.*1\.errorabsent9 bytes", rest, re.DOTALL)
    write_reports(run(command("verifies-nothing"), suite=suite, levels=["verifier"]), tmp_path / "verify")
    shown = failures_of((tmp_path / "verify" / "report.html").read_text(encoding="utf-8"))
    expected, got, rest = shown["check-one-word-too-many.verify"]
    assert (expected, got) == ("reported: malformed of 1.error", "no fault reported")
    assert "verify the chain" in rest


def test_every_failure_shows_what_was_expected(suite: Path, tmp_path: Path) -> None:
    faults = ("crashes", "wrong-error", "wrong-state", "unsupported", "touches-the-chain", "cries-wolf")
    for fault in faults:
        report = run(command(fault), suite=suite, levels=["reader-core", "verifier"])
        write_reports(report, tmp_path / fault)
        shown = failures_of((tmp_path / fault / "report.html").read_text(encoding="utf-8"))
        assert len(shown) == len(report.failures) > 0
        assert all(expected and got for expected, got, _ in shown.values())


def test_every_report_of_an_error_says_what_was_expected(suite: Path, tmp_path: Path) -> None:
    report = run(command("crashes"), suite=suite, levels=["reader-core"], jobs=1)
    wanted = "version 1, the state of 1.safetensors (fingerprint 4cabd1ae46847c4e) held"
    write_reports(report, tmp_path / "out")
    checks = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))["checks"]
    assert [check["status"] for check in checks] == ["error"] * 4
    assert all(check["expected"] and check["got"] for check in checks)
    assert {check["case"]: check["expected"] for check in checks}["one-word"] == wanted
    root = ElementTree.fromstring((tmp_path / "out" / "junit.xml").read_bytes())
    (error,) = root.findall("testsuite/testcase[@name='one-word']/error")
    assert error.get("message") == f"the adapter ended during read with exit code 3; expected: {wanted}"
    assert f"expected: {wanted}" in (error.text or "")
    assert wanted in Page((tmp_path / "out" / "report.html").read_text(encoding="utf-8")).text
    screen = io.StringIO()
    Terminal(screen).results(report)
    assert f"expected {wanted} got the adapter ended" in " ".join(screen.getvalue().split())


def test_page_loads_nothing(report: Report, tmp_path: Path) -> None:
    write_reports(report, tmp_path)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"\b(src|srcset|@import|url\()\s*=?|<link\b", text)
    assert "color-scheme: light dark" in text


def test_page_of_a_run_without_failures(suite: Path, tmp_path: Path) -> None:
    write_reports(run(command(), suite=suite, levels=["reader-core"]), tmp_path)
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "toy 1 conforms to tensordelta 1.0-rc.1: reader-core" in page.text
    assert "Failures" in page.text and "None." in page.text


class Screen(io.StringIO):
    """A terminal of no colour of its own."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_terminal(report: Report, monkeypatch: pytest.MonkeyPatch, no_color: str, coloured: bool) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", "xterm")
    screen = Screen()
    terminal = Terminal(screen)
    for number, check in enumerate(report.checks, 1):
        terminal.progress(check, number, len(report.checks))
    terminal.results(report)
    printed = screen.getvalue()
    assert ("\x1b[31m" in printed) == coloured
    assert "& \\x00\\x1b[31m\\ud800 end" in " ".join(printed.split()), "what an adapter says is not obeyed"
    assert "4/4, 1 not passed" in printed
    for shown in ("from-nothing", "rejected as limit", "no <checks> yet (https://example.org/issues/1)"):
        assert shown in printed


def test_reports_of_the_command(suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "deep" / "reports"
    arguments = ["run", "--vectors", str(suite), "--adapter", " ".join(command("wrong-error")), "--report", str(out)]
    assert main(arguments) == 1
    assert {path.name for path in out.iterdir()} == {"report.json", "junit.xml", "report.html"}
    printed = capsys.readouterr().out
    assert re.search(r"^fail  one-word-too-many  reader-core$", printed, re.MULTILINE)
    assert re.search(r"^reader-core +3 +1$", printed, re.MULTILINE), printed
    assert printed.splitlines()[-1].strip()
