"""The repository's pages in Markdown: their blocks of code, their links, and the anchors that links may name."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
GUIDE = ROOT / "reference" / "README.md"
EXAMPLES = ROOT / "reference" / "examples" / "README.md"
#: Pages every block of which runs in a test.
RUN = (README, GUIDE)


def blocks(page: Path, language: str) -> list[str]:
    """What stands in a page's blocks of a language, in its order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


def block(page: Path, language: str, text: str) -> str:
    """The block of a page that has a text."""
    (found,) = (each for each in blocks(page, language) if text in each)
    return found


def needs(python: str) -> str:
    """What a block of Python needs: "trl", "torch", "suite", or the "library" alone."""
    names = {"tensordelta.trl": "trl", "import torch": "torch", "tensordelta_conformance": "suite"}
    return next((need for name, need in names.items() if name in python), "library")


def environment() -> dict[str, str]:
    """Of a process that may import the suite, a package of its own that these tests do not install."""
    paths = [str(ROOT / "conformance"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}


def run(code: str, folder: Path) -> str:
    """What Python code prints, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{code}\n{done.stderr}"
    return done.stdout


def prose(page: Path) -> str:
    """A page without its blocks of code, and without code in its lines."""
    text = re.sub(r"^```.*?^```$|^    .*?$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", "", text)


def links(page: Path) -> Iterator[str]:
    """The targets of a page's links and pictures that are files of the repository or parts of them."""
    for target in re.findall(r"\]\(([^()\s]+)\)", prose(page)):
        if not re.match(r"[a-z]+:", target):
            yield target


def anchors(page: Path) -> set[str]:
    """What a link to a part of a page may name: its headings, as GitHub makes them, and ids."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    found: set[str] = set(re.findall(r'<a (?:id|name)="([^"]+)"', text))
    for heading in re.findall(r"^#+ (.*?)\s*$", text, re.MULTILINE):
        words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        anchor = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        repeated = (f"{anchor}-{number}" for number in range(1, 100))
        found.add(anchor if anchor not in found else next(each for each in repeated if each not in found))
    return found
