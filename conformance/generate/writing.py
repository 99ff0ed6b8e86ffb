"""Cases of kind `write`: the requests to a writer, step by step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from generate.area import rules
from generate.builder import Builder
from generate.cases import Case, state_file
from generate.graph import Chain, graph
from generate.model import Model, Random, random_tensor, stepped, weights
from generate.steps import Steps, register_steps

ERRORS = ("malformed", "unsupported", "limit", "integrity", "missing", "wrong-base", "conflict", "untrusted")
"""All error names: for requests that the specification requires to be refused without naming the error."""


class Desk(Steps):
    """The steps of a writer's case."""

    def __init__(self, builder: Builder | None) -> None:
        super().__init__()
        self._builder = builder

    @property
    def builder(self) -> Builder:
        """The chain as it lies in the case's folder."""
        assert self._builder is not None
        return self._builder

    def file(self, path: str, data: bytes) -> str:
        """A file of the case; gives its path."""
        self.files[path] = data
        return path

    def state(self, model: Model | bytes) -> str:
        """The file of a state."""
        data = model if isinstance(model, bytes) else state_file(model)
        for name, other in self.files.items():
            if other == data:
                return name
        number = sum(name.startswith("states/") for name in self.files)
        return self.file(f"states/{number}.safetensors", data)

    def _beside(self, data: bytes) -> str:
        """A file to publish; it is stored under a number, because its own name may be invalid."""
        for name, other in self.files.items():
            if other == data:
                return name
        return self.file(f"beside/{sum(name.startswith('beside/') for name in self.files)}", data)

    def publish(
        self,
        model: Model | bytes,
        version: int | None = None,
        *,
        error: str | Sequence[str] = (),
        files: Mapping[str, bytes] | None = None,
        expect: Mapping[str, Any] | None = None,
        kill: int | None = None,
        **members: Any,
    ) -> Desk:
        """Publish a state; the version then has this state, unless an error is expected.

        Args:
            version: the number to publish under; the writer chooses without it.
            error: names under which it may be refused.
            expect: what is expected, if it is neither this state nor an error.
        """
        asked = self._asked(model, version, files, members)
        if expect is None and error:
            expect = {"error": [error] if isinstance(error, str) else list(error)}
        if expect is None:
            expect = ({} if version is None else {"version": version}) | {"state": asked["state"]}
        return self._do({"op": "publish", "input": asked, "expect": dict(expect)}, kill)

    def line(self, *models: Model, **members: Any) -> Desk:
        """Publish states, one version after another, numbered from 0; each request has `members`."""
        for version, model in enumerate(models):
            self.publish(model, version, **members)
        return self

    def race(self, models: Sequence[Model], version: int) -> Desk:
        """Two or more writers publish under one number at the same time."""
        asked = [self._asked(model, version, None, {}) for model in models]
        expect = {"any": [{"version": version, "state": each["state"]} for each in asked]}
        return self.add({"op": "publish", "race": asked, "expect": expect})

    def _asked(
        self, model: Model | bytes, version: int | None, files: Mapping[str, bytes] | None, members: Mapping[str, Any]
    ) -> dict[str, Any]:
        asked: dict[str, Any] = {"chain": "chain", "state": self.state(model)}
        if version is not None:
            asked["version"] = version
        if files is not None:
            asked["files"] = {name: self._beside(data) for name, data in files.items()}
        return {**asked, **members}

    def shortcut(
        self,
        start: int | None,
        to: int,
        *,
        error: str | Sequence[str] = (),
        kill: int | None = None,
        **members: Any,
    ) -> Desk:
        """Create a shortcut."""
        expect = {"error": [error] if isinstance(error, str) else list(error)} if error else {"version": to}
        asked = {"chain": "chain", "from": start, "to": to} | members
        return self._do({"op": "shortcut", "input": asked, "expect": expect}, kill)

    def collect(self, keep: Sequence[int], *, grace: float = 0, kill: int | None = None) -> Desk:
        """Delete what the versions to keep do not need."""
        asked = {"chain": "chain", "keep": list(keep), "grace": grace}
        return self._do({"op": "collect", "input": asked, "expect": {}}, kill)

    def join(self, builder: Builder) -> Desk:
        """All objects of another writer appear but `chain.json`, which is there."""
        return self.put({name: data for name, data in builder.objects.items() if name != "chain.json"})

    def _do(self, step: dict[str, Any], kill: int | None = None) -> Desk:
        return self.add(step if kill is None else {**step, "kill": kill})


Script = Callable[[Desk], Any]
Scripted = TypeVar("Scripted", bound=Callable[..., Any])


def lines(*models: Model, **members: Any) -> Script:
    """Publish states, one version after another, numbered from 0; each request has `members`."""
    return lambda desk: desk.line(*models, **members)


def script(requirements: str, **how: Any) -> Callable[[Scripted], Scripted]:
    """Make a case of a function: its name is the slug, its docstring the title; `how` is of `write`."""

    def case(steps: Scripted) -> Scripted:
        slug, title = steps.__name__.replace("_", "-"), " ".join((steps.__doc__ or "").split())
        write(slug, title, requirements, steps, **how)
        return steps

    return case


def write(
    slug: str,
    title: str,
    requirements: str,
    script: Script,
    *,
    chain: Chain | str | None = None,
    twin: str | None = None,
    **fields: Any,
) -> Case:
    """Register a case of a writer; with a twin, one in which the writer must refuse.

    Args:
        requirements: their ids, between spaces, without `TD-`.
        script: adds its steps to the desk.
        chain: a function that makes it, or a text for `graph`.
        fields: of `Case`.
    """

    def stage(builder: Builder | None) -> Desk:
        desk = Desk(builder)
        script(desk)
        return desk

    given = {"area": "writer", "role": "writer", "level": "writer-core", "kind": "write", **fields}
    given |= {"chain": partial(graph, chain) if isinstance(chain, str) else chain, "twin": twin, "valid": twin is None}
    return register_steps(slug, stage, title=title, requirements=rules(requirements), **given)


# -- states ------------------------------------------------------------------------------------------------------------


def base() -> Model:
    """Two thousand words."""
    rng = Random("writer")
    return {"a": weights(rng, (30, 40)), "b": weights(rng, (500,), "F32"), "c": random_tensor(rng, "U8", (300,))}


def share(part: float) -> Model:
    """The state `base` with a share of its words changed."""
    return stepped(Random(f"writer/{part}"), base(), part)


def opposite(model: Model) -> Model:
    """Every bit of every word is flipped."""
    return {name: each._replace(words=~each.words) for name, each in model.items()}


def large(step: int) -> Model:
    """A state of some hundred kilobytes, large enough for a writer to be killed while it publishes."""
    rng = Random("large")
    first: Model = {
        "a": random_tensor(rng, "U8", (40_000,)),
        "b": random_tensor(rng, "BF16", (10_000,)),
        "c": random_tensor(rng, "F32", (5_000,)),
    }
    return stepped(Random(f"large/{step}"), first, 0.3) if step else first
