"""Cases of the standard chain, as it stands or spoiled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from generate.builder import Builder
from generate.cases import read, reject
from generate.standard import standard


def bad(
    area: str,
    slug: str,
    rule: str | Sequence[str],
    title: str,
    error: str,
    after: Callable[[Builder], Any] | None = None,
    twin: str = "standard-of-two",
    how: dict[str, Any] | None = None,
    **more: Any,
) -> None:
    """A case that is refused: `after` spoils the chain, `how` makes it otherwise (`standard`)."""
    given = {"last": False} | (how or {}) | ({"after": after} if after else {})
    reject(
        slug,
        area=area,
        title=title,
        requirements=[rule] if isinstance(rule, str) else rule,
        chain=lambda: standard(**given),
        error=error,
        twin=twin,
        **more,
    )


def good(area: str, slug: str, rules: Sequence[str], title: str, after: Callable[[Builder], Any], **more: Any) -> None:
    """A case that is read although `after` changed the chain."""
    read(
        slug,
        area=area,
        title=title,
        requirements=rules,
        chain=lambda: standard(last=False, after=after),
        **more,
    )
