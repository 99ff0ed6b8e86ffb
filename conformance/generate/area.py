"""Cases as rows: an area holds what its rows share; a row holds what distinguishes its case."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from generate import cases, scenes
from generate.graph import Chain, graph
from generate.scenes import Scene

Script = Callable[[Scene], Any]


def rules(text: str) -> list[str]:
    """Requirement ids from a text such as `RTE-001 RDR-005`."""
    return [f"TD-{each}" for each in text.split()]


def blamed(error: str, *objects: str) -> list[Mapping[str, Any]]:
    """What a verifier reports: one error, of one of these objects."""
    return [{"error": [error], "object": list(objects)}]


@dataclass(frozen=True)
class Area:
    """An area of cases, and the options that they have unless a row says otherwise.

    A chain is a function that makes it, or a text for `graph`; `how` is of `read`, `reject` and `play`.
    """

    name: str
    options: Mapping[str, Any]

    def read(self, slug: str, title: str, ids: str, chain: Chain | str, **how: Any) -> None:
        """A valid case of one read."""
        cases.read(slug, chain=_build(chain), **self._given(title, ids, how))

    def reject(
        self, slug: str, title: str, ids: str, error: str | Sequence[str], twin: str, chain: Chain | str, **how: Any
    ) -> None:
        """An invalid case of one read."""
        cases.reject(slug, error=error, twin=twin, chain=_build(chain), **self._given(title, ids, how))

    def play(self, slug: str, title: str, ids: str, chain: Chain | str, scene: Script, **how: Any) -> None:
        """A case of several steps; with a twin it is invalid."""
        given = {"valid": "twin" not in how} | self._given(title, ids, how)
        scenes.play(slug, chain=_build(chain), scene=scene, **given)

    def scene(self, ids: str, chain: Chain | str, **how: Any) -> Callable[[Script], Script]:
        """Make a case of a function: its name is the slug, its docstring the title."""

        def register(script: Script) -> Script:
            title = " ".join((script.__doc__ or "").split())
            self.play(script.__name__.replace("_", "-"), title, ids, chain, script, **how)
            return script

        return register

    def _given(self, title: str, ids: str, how: Mapping[str, Any]) -> dict[str, Any]:
        return {"area": self.name, "title": title, "requirements": rules(ids), **self.options, **how}


def area(name: str, level: str = "reader-core", **options: Any) -> Area:
    """An area with the options of its rows."""
    return Area(name, {"level": level, **options})


def _build(chain: Chain | str) -> Chain:
    return partial(graph, chain) if isinstance(chain, str) else chain
