"""The filters of report.html in a Chromium, if there is one: $CHROMIUM names it."""

from __future__ import annotations

import html
import os
import re
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import pytest
from toy_suite import add_case, add_twins, command, read_step

from tensordelta_conformance import run
from tensordelta_conformance.reports import write_reports

pytestmark = pytest.mark.slow

OPTIONS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]


def prints(chromium: str) -> bool:
    """False for builds that show pages, but hang when they have to print one."""
    with suppress(subprocess.TimeoutExpired):
        done = subprocess.run([chromium, *OPTIONS, "--dump-dom", "about:blank"], capture_output=True, timeout=120)
        return b"<html>" in done.stdout
    return False


@pytest.fixture(scope="module")
def chromium() -> str:
    for name in (os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome"):
        found = shutil.which(name) if name else None
        if found and prints(found):
            return found
    pytest.skip("there is no Chromium that prints pages: set CHROMIUM to the command of one")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of an adapter that fails in several ways."""
    folder = tmp_path_factory.mktemp("report")
    vectors = folder / "vectors"
    add_twins(vectors)
    for number in range(3):
        add_case(vectors, f"gap-{number}", [read_step(0, {"state": "1.safetensors"})])
    write_reports(run(command("verifies-nothing"), suite=vectors, levels=["reader-core", "verifier"]), folder)
    return folder / "report.html"


def opened(chromium: str, page: Path, fragment: str, script: str = "") -> str:
    """The document as it stands after its script, and another one, have run."""
    if script:
        text = page.read_text(encoding="utf-8")
        page = page.with_name("acted.html")
        page.write_text(text.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
    profile = page.parent / "profile"
    options = [*OPTIONS, f"--user-data-dir={profile}"]
    address = f"{page.as_uri()}#{fragment}"
    done = subprocess.run(
        [chromium, *options, "--virtual-time-budget=5000", "--dump-dom", address], capture_output=True, timeout=600
    )
    return done.stdout.decode()


def shown(document: str) -> list[str]:
    """The failures that are not hidden."""
    tags = re.findall(r'<details class="check [^>]*>', document)
    return [re.findall('id="check-([^"]+)"', tag)[0] for tag in tags if not re.search(r'\shidden(="")?[\s>]', tag)]


def test_filters_in_the_fragment_are_applied(chromium: str, page: Path) -> None:
    everything = ["gap-0", "gap-1", "gap-2", "one-word-too-many.verify"]
    assert shown(opened(chromium, page, "")) == everything
    assert shown(opened(chromium, page, "failures.text=gap-1")) == ["gap-1"]
    assert shown(opened(chromium, page, "failures.level=verifier")) == ["one-word-too-many.verify"]
    outcome = quote("malformed reported → no fault reported")
    document = opened(chromium, page, f"failures.outcome={outcome}&requirements.status=failed&checks.status=pass")
    assert shown(document) == ["one-word-too-many.verify"]
    assert "1 of 4" in document
    assert re.search(r'<details class="more" open', document), "the table whose filter is set is open"
    assert shown(opened(chromium, page, "failures.level=no-such-level")) == everything


def test_a_link_opens_a_failure_and_shows_it_whatever_the_filters(chromium: str, page: Path) -> None:
    document = opened(chromium, page, "failures.text=gap&at=check-gap-2")
    assert shown(document) == ["gap-0", "gap-1", "gap-2"]
    (tag,) = re.findall(r'<details class="check [^>]*id="check-gap-2"[^>]*>', document)
    assert " open" in tag
    document = opened(chromium, page, "failures.text=gap-0&at=check-one-word-too-many.verify")
    assert "one-word-too-many.verify" in shown(document) and len(shown(document)) == 4


def test_what_is_chosen_is_kept_in_the_address(chromium: str, page: Path) -> None:
    act = """
      const form = document.querySelector("form.filters");
      form.elements.text.value = "gap 1 & more";
      form.elements.level.value = "reader-core";
      form.elements.level.dispatchEvent(new Event("input", { bubbles: true }));
      document.title = location.hash;
      addEventListener("hashchange", () => setTimeout(() => { document.title += " then " + location.hash; }));
      location.hash = "#TD-POS-001";
    """
    document = opened(chromium, page, "requirements.status=failed", act)
    (title,) = re.findall("<title>(.*?)</title>", document)
    chosen = "failures.text=gap+1+%26+more&failures.level=reader-core&requirements.status=failed"
    assert html.unescape(title) == f"#{chosen} then #{chosen}&at=TD-POS-001"


def test_all_are_shown_again(chromium: str, page: Path) -> None:
    act = """
      const button = document.querySelector("form.filters button");
      document.title = String(button.hidden);
      button.click();
      setTimeout(() => { document.title += " " + button.hidden + " " + location.hash; }, 100);
    """
    document = opened(chromium, page, "failures.text=gap-1", act)
    assert len(shown(document)) == 4
    assert "<title>false true </title>" in document
