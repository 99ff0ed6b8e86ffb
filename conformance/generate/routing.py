"""Cases of routes that end in an error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from generate.builder import Builder
from generate.cases import Verify, reject


def rejected(
    slug: str,
    title: str,
    error: str,
    chain: Callable[[], Builder],
    twin: str,
    requirements: Sequence[str] = ("TD-RTE-005", "TD-RTE-001"),
    *,
    to: int = 1,
    verify: Verify = None,
    **how: Any,
) -> None:
    """A case of the area `routes` that is refused at the level `chain`."""
    reject(
        slug,
        area="routes",
        level="chain",
        title=title,
        requirements=requirements,
        chain=chain,
        error=error,
        twin=twin,
        to=to,
        verify=verify,
        **how,
    )
