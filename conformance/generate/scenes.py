"""Cases of a reader in several steps, and the chains that they read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import EllipsisType
from typing import Any

from generate.builder import Builder, of_chunks
from generate.cases import Case, state_file
from generate.codecs import Chunk, delta_chunks, full_chunks
from generate.model import Model, Random, random_tensor, small, stepped, tensor, weights
from generate.steps import Steps, register_steps

State = Model | int | None
"""A state, the version of the chain that has it, or nothing."""

Held = tuple[State, int | None] | int | str | None
"""A state and the version remembered for it; a version stands for both."""

ABSENT = "absent"
"""`held` is left out: the reader keeps what it holds."""


class Scene(Steps):
    """The steps of a reader's case.

    Attributes:
        builder: the chain as it lies in the case's folder.
        tensors: the part of the state that the reader holds; None for all.
    """

    def __init__(self, builder: Builder) -> None:
        super().__init__()
        self.builder = builder
        self.tensors: Sequence[str] | None = None

    def state(self, state: State) -> str | None:
        """The file of a state."""
        if state is None:
            return None
        model = self.builder.models[state] if isinstance(state, int) else state
        if self.tensors is not None:
            model = {name: each for name, each in model.items() if name in self.tensors}
        data = state_file(model)
        for name, other in self.files.items():
            if name.startswith("states/") and other == data:
                return name
        label = str(state) if isinstance(state, int) else chr(ord("a") + len(self.files))
        self.files[f"states/{label}.safetensors"] = data
        return f"states/{label}.safetensors"

    def after(self, state: State, version: int | None = None, error: str | Sequence[str] = ()) -> dict[str, Any]:
        """What is expected: a version read, or an error; and the state held afterwards."""
        if error:
            return {"error": [error] if isinstance(error, str) else list(error), "state": self.state(state)}
        if version is None and isinstance(state, int):
            version = state
        return ({} if version is None else {"version": version}) | {"state": self.state(state)}

    def ask(self, held: Held, to: int | None, **more: Any) -> dict[str, Any]:
        """The input of a read."""
        given: dict[str, Any] = {"chain": "chain"}
        if held is None:
            given["held"] = None
        elif not isinstance(held, str):
            state, version = (held, held) if isinstance(held, int) else held
            given["held"] = {"state": self.state(state), "version": version}
        if self.tensors is not None:
            more = {"tensors": list(self.tensors), **more}
        return given | {"to": to} | more

    def step(self, op: str, given: Mapping[str, Any], expect: Mapping[str, Any], **more: Any) -> Scene:
        """Any request."""
        return self.add({"op": op, "input": dict(given), "expect": dict(expect), **more})

    def read(
        self,
        to: int | None,
        state: State | EllipsisType = ...,
        *,
        held: Held = ABSENT,
        version: int | None = None,
        error: str | Sequence[str] = (),
        expect: Mapping[str, Any] | None = None,
        op: str = "read",
        **given: Any,
    ) -> Scene:
        """A read, and the state held after it.

        Args:
            state: the state after the read; by default that of version `to`.
            version: the version read, if `state` does not name it.
            error: names under which it may be rejected.
            expect: more that is expected.
            given: more members of the input.
        """
        asked = self.ask(held, to, **given)
        after = self.after(to if isinstance(state, EllipsisType) else state, version, error)
        return self.step(op, asked, after | dict(expect or {}))

    def either(self, to: int | None, *expected: Mapping[str, Any], held: Held = ABSENT, **given: Any) -> Scene:
        """A read whose outcome the specification leaves open."""
        return self.step("read", self.ask(held, to, **given), {"any": [dict(each) for each in expected]})

    def prepare(self, to: int, held: Held, error: str = "") -> Scene:
        """A request to prepare; other steps check what is held."""
        return self.step("prepare", self.ask(held, to), {"error": [error]} if error else {"version": to})

    def apply(self, state: State, error: str | Sequence[str] = (), *, op: str = "apply") -> Scene:
        """`apply`, or `undo`."""
        return self.step(op, {}, self.after(state, None, error))

    def undo(self, state: State) -> Scene:
        """`undo`, and the state held after it."""
        return self.apply(state, op="undo")

    def grow(self, builder: Builder) -> Scene:
        """The chain becomes another one: the objects that it did not have yet appear."""
        self.put({name: data for name, data in builder.objects.items() if self.builder.objects.get(name) != data})
        self.builder = builder
        return self

    def remove(self, *names: str) -> Scene:
        """Objects disappear."""
        return self.add({"remove": list(names)})

    def link(self, links: Mapping[str, str]) -> Scene:
        """Symbolic links appear; each leads to a path relative to its own folder."""
        return self.add({"link": dict(links)})


def play(slug: str, *, scene: Callable[[Scene], Any], chain: Callable[[], Builder], **fields: Any) -> Case:
    """Register a case of a reader; `scene` adds its steps to the scene that it is given, `fields` are of `Case`."""

    def stage(builder: Builder | None) -> Scene:
        assert builder is not None
        made = Scene(builder)
        scene(made)
        return made

    given = {"role": "reader", "valid": True, "level": "chain", "kind": "scenario", "chain": chain, **fields}
    return register_steps(slug, stage, **given)


# -- chains ------------------------------------------------------------------------------------------------------------


def little(seed: int = 1) -> Model:
    """A state of three small tensors."""
    rng = Random(seed)
    return {
        "a.weight": weights(rng, (4, 6)),
        "b.bias": random_tensor(rng, "F32", (5,)),
        "c.ids": random_tensor(rng, "U8", (7,)),
    }


def small_walk(count: int, seed: int, share: float = 0.1) -> list[Model]:
    """States of which each differs from the one before in a share of its words; the first is `small`."""
    rng = Random(seed)
    states = [small(rng)]
    for _ in range(1, count):
        states.append(stepped(rng, states[-1], share))
    return states


def walk(count: int, seed: int = 1) -> list[Model]:
    """States of which each differs from the one before in a few words."""
    states = [little(seed)]
    for number in range(1, count):
        states.append(stepped(Random(f"{seed}/{number}"), states[-1], 0.2))
    return states


def move(
    builder: Builder,
    version: int,
    model: Model,
    base: int | None = None,
    *,
    size: int | None = None,
    start: Model | None = None,
    coding: Mapping[str, Any] | None = None,
    spoil: Callable[[list[Chunk]], Any] | None = None,
    hooks: Mapping[str, Any] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """A manifest or shortcut with one pack.

    Args:
        size: the bytes of the pack, made up of spaces after its header.
        start: the state to encode against, if it is not that of `base`.
        coding: codecs of the chunks.
        spoil: changes the chunks.
        hooks: of `chunk_pack`.
        options: of `Builder.edge`.
    """
    if base is None:
        chunks = full_chunks(model, **(coding or {}))
    else:
        chunks = delta_chunks(builder.models[base] if start is None else start, model, **(coding or {}))
    if spoil:
        spoil(chunks)
    layout = options.get("layout") or builder.layout(model)
    pack = of_chunks(chunks, layout, pad=b"", **(hooks or {}))
    if size is not None:
        room = size - len(pack.data)
        assert room >= 0, f"a pack of {len(pack.data)} bytes does not fit into {size}"
        pack = of_chunks(chunks, layout, pad=b" " * room, **(hooks or {}))
    return builder.edge(version, model, [pack], base=base, **options)


def line(states: Sequence[Model]) -> Builder:
    """Version 0, full, and a delta for each state after it."""
    builder = Builder()
    builder.full(0, states[0])
    for version, state in enumerate(states[1:], start=1):
        builder.delta(version, state, version - 1)
    return builder


# -- states that no fingerprint distinguishes --------------------------------------------------------------------------

#: Differences of the first words of a tensor of 16-bit words that add nothing to any fingerprint: the sum of
#: d_i * c(name, i) is 0 modulo 2^64, and as c(name, i) has a factor common to all i below 65536, for every name.
UNSEEN = (-48, 71, -10, -123, -95, -115, -11, 153)


def twins(seed: int = 1) -> tuple[Model, Model, Model]:
    """A state, and two states after it that have the same layout and the same fingerprint.

    A chain has no such states by chance. Here they show which of two edges a reader took.
    """
    rng = Random(f"twins/{seed}")
    before = tensor("U16", (12,), rng.words(16, 12) % 60000 + 1000)
    after = before.words.copy()
    after[[1, 4, 9, 11]] += 3
    other = after.copy()
    other[: len(UNSEEN)] = after[: len(UNSEEN)].astype(int) + UNSEEN
    return (
        {"t": before},
        {"t": tensor("U16", (12,), after)},
        {"t": tensor("U16", (12,), other)},
    )
