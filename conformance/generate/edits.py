"""Cases as rows: the name, the requirements, the title, and how the chain differs from a sound one.

`Area("json")("json-empty", "JSN-003", "A manifest of no bytes").bad(text=lambda data: b"")` is a row.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from generate.builder import Builder, identity
from generate.cases import read, reject
from generate.scenes import Scene, play
from generate.standard import standard

two_versions = partial(standard, last=False)
"""The standard chain without version 2."""


def members_of(
    hook: str,
    place: Callable[[dict[str, Any]], dict[str, Any]] = identity,
    build: Callable[..., Builder] = two_versions,
) -> Callable[..., Builder]:
    """A `build` whose rows name members of one JSON object to set, and one to drop.

    A member whose name is a keyword of `read` goes into `members`.

    Args:
        hook: the keyword under which `build` takes a function that changes the document.
        place: finds the object in the document.
    """

    def built(*, members: Mapping[str, Any] | None = None, drop: str | None = None, **more: Any) -> Builder:
        def change(document: dict[str, Any]) -> None:
            found = place(document)
            found.update(members or {}, **more)
            if drop is not None:
                del found[drop]

        return build(**{hook: change})

    return built


@dataclass(frozen=True)
class Area:
    """What the rows of an area have in common.

    Attributes:
        build: makes the chain, from the keywords of a row that `read` does not have.
        twin, error: of a rejected case, unless its row names others.
        common: keywords of `read`, unless a row gives them.
    """

    name: str
    build: Callable[..., Builder] = two_versions
    twin: str = "standard-of-two"
    common: Mapping[str, Any] = field(default_factory=dict)
    error: str = "malformed"

    def __call__(self, slug: str, rules: str, title: str) -> Row:
        """Begin a row, which `good`, `bad` or `play` ends; `rules` are ids of requirements without their `TD-`."""
        return Row(self, slug, rules, title)


_OF_READ = frozenset(inspect.signature(read).parameters)


@dataclass(frozen=True)
class Row:
    """A row that is still without an end."""

    area: Area
    slug: str
    rules: str
    title: str

    def good(self, **how: Any) -> None:
        """Register a case that is read; `how` has keywords of `cases.read` and of the area's `build`."""
        read(self.slug, **self._given(how))

    def bad(self, error: str | Sequence[str] = (), *, twin: str | None = None, **how: Any) -> None:
        """Register a case that is rejected; `how` has keywords of `cases.reject` and of the area's `build`."""
        reject(self.slug, error=error or self.area.error, twin=twin or self.area.twin, **self._given(how))

    def play(self, scene: Callable[[Scene], None], *, twin: str | None = None, **how: Any) -> None:
        """Register a case of several steps, invalid if it has a twin; `how` has keywords of `scenes.play`."""
        common = {"chain": self.area.build, **self.area.common, **how}
        play(self.slug, **self._head(), scene=scene, valid=twin is None, twin=twin, **common)

    def _head(self) -> dict[str, Any]:
        requirements = [f"TD-{each}" for each in self.rules.split()]
        return {"area": self.area.name, "title": self.title, "requirements": requirements}

    def _given(self, how: dict[str, Any]) -> dict[str, Any]:
        given = {word: value for word, value in how.items() if word in _OF_READ}
        built = {word: value for word, value in how.items() if word not in _OF_READ}
        assert not (built and "chain" in given), f"{self.slug}: {sorted(built)} would do nothing to the chain given"
        return {"chain": partial(self.area.build, **built), **self.area.common, **self._head(), **given}
