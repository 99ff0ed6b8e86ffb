"""Links within the repository lead to files, and to headings that are there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pages import ROOT, anchors, links


def _pages() -> list[str]:
    found = []
    for folder, inner, names in os.walk(ROOT):
        inner[:] = [
            name for name in inner if not name.startswith(".") and name not in ("node_modules", "corpus", "pool")
        ]
        found += [(Path(folder) / name).relative_to(ROOT).as_posix() for name in names if name.endswith(".md")]
    return sorted(found)


@pytest.mark.parametrize("name", _pages())
def test_the_links_of_a_page(name: str) -> None:
    page = ROOT / name
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_pages_are_found() -> None:
    assert {"README.md", "SPEC.md", "CONTRIBUTING.md", "reference/README.md", "conformance/README.md"} <= set(_pages())
