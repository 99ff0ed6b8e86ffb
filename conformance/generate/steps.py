"""What cases of several steps share, those of readers and those of writers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self

from generate.builder import Builder
from generate.cases import Case, register


class Steps:
    """The steps of a case, and the files that they name."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}

    def put(self, objects: Mapping[str, bytes]) -> Self:
        """Objects appear in the chain, or are overwritten."""
        stage = f"stage-{sum('put' in step for step in self.steps) + 1}"
        self.files |= {f"{stage}/{name}": data for name, data in objects.items()}
        return self.add({"put": stage})

    def restart(self) -> Self:
        """The program is killed between two requests, and restarted."""
        return self.add({"restart": True})

    def add(self, step: dict[str, Any]) -> Self:
        """Any step, as in case.json."""
        self.steps.append(step)
        return self


def register_steps(slug: str, play: Callable[[Builder | None], Steps], **fields: Any) -> Case:
    """Register a case whose steps a function makes from the chain.

    Args:
        fields: of `Case`, and `error`: what a verifier reports, with verify True.
    """

    def made(builder: Builder | None) -> tuple[list[dict[str, Any]], dict[str, bytes]]:
        done = play(builder)
        return done.steps, done.files

    error = fields.pop("error", ())
    fields["errors"] = (error,) if isinstance(error, str) else error
    lists: dict[str, Any] = {name: tuple(fields.pop(name, ())) for name in ("requirements", "errors", "needs", "flags")}
    return register(Case(slug, made=made, **lists, **fields))
