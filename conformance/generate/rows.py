"""Rows: what the cases of an area share is said once, and each case on a line or two.

In the modules of `areas` the rows stand after `# fmt: off`: first slug, title and requirements, then what the case is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from generate.builder import Builder
from generate.cases import read, reject

Build = Callable[[], Builder]


def kebab(name: str) -> str:
    """A name of the format, such as that of a dtype or a stream, as part of a slug."""
    return name.lower().replace("_", "-").replace(".", "-")


@dataclass(frozen=True)
class Rows:
    """Registers the cases of an area, each of which is one read.

    In all rows the requirements are given as their ids, between spaces, without `TD-`; with `full` version 0 is read
    from nothing; and whatever else a row has is an argument of `generate.cases.read` or `reject`.

    Attributes:
        area: its name.
        level: of a case whose row has none.
        twin: of an invalid case whose row has none.
    """

    area: str
    level: str = "reader-core"
    twin: str = ""

    def read(self, slug: str, title: str, rules: str, chain: Build, *, full: bool = False, **how: Any) -> None:
        """A chain that is read."""
        read(slug, title=title, chain=chain, **self._shared(rules, full) | how)

    def reject(
        self,
        slug: str,
        title: str,
        rules: str,
        chain: Build,
        error: str | Sequence[str] = "malformed",
        twin: str = "",
        *,
        full: bool = False,
        **how: Any,
    ) -> None:
        """A chain that is rejected."""
        known = self._shared(rules, full) | how
        reject(slug, title=title, chain=chain, error=error, twin=twin or self.twin, **known)

    def _shared(self, rules: str, full: bool) -> dict[str, Any]:
        held = {"to": 0, "held": None} if full else {}
        return {"area": self.area, "level": self.level, "requirements": [f"TD-{each}" for each in rules.split()]} | held
