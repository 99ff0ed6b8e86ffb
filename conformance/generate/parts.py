"""Chains for readers of some tensors of a state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from generate.builder import Builder, Pack, of_chunks
from generate.codecs import chunk, chunk_for
from generate.graph import Chain
from generate.model import Model, Random, fit, ordered, random_tensor, stepped, weights
from generate.rows import area

partials = area("partial", level="partial")

PART = ["b.weight", "c.ids"]
"""The tensors that the reader holds unless a case says otherwise."""


def first() -> Model:
    """The state of version 0."""
    rng = Random("partial")
    return {
        "a.weight": weights(rng, (4, 6)),
        "b.weight": weights(rng, (3, 6)),
        "c.ids": random_tensor(rng, "U8", (7,)),
        "d.bias": random_tensor(rng, "F32", (5,)),
    }


def second() -> Model:
    """A state after it, with changes in every tensor."""
    return stepped(Random("partial/1"), first(), 0.3)


# -- the packs of a delta ----------------------------------------------------------------------------------------------

Packs = Callable[[Model, Model, str], Sequence[Pack]]
"""From the fitted base, the new state and its layout's digest."""


def each_its_own(base: Model, new: Model, layout: str) -> list[Pack]:
    """A pack for each tensor that changes."""
    changed = [name for name in ordered(new) if (base[name].words != new[name].words).any()]
    return [of_chunks([chunk_for(base, new, name)], layout) for name in changed]


def own(*names: str) -> Packs:
    """A pack for each of these tensors."""
    return lambda base, new, layout: [of_chunks([chunk_for(base, new, name)], layout) for name in names]


def shared(*, apart: bool = False, **coding: Any) -> Packs:
    """One pack, with one chunk over `a.weight` and `b.weight`, or with one for each, and one for each other tensor."""

    def packs(base: Model, new: Model, layout: str) -> list[Pack]:
        slices = [("a.weight", 0, 24), ("b.weight", 0, 18)]
        chunks = [chunk(base, new, part, **coding) for part in ([[each] for each in slices] if apart else [slices])]
        return [of_chunks([*chunks, chunk_for(base, new, "c.ids"), chunk_for(base, new, "d.bias")], layout)]

    return packs


def part_of(
    packs: Packs = each_its_own,
    *,
    after: Callable[[Builder], Any] | None = None,
    state: Callable[[], Model] = second,
    fingerprints: tuple[bool, bool] = (True, True),
    **how: Any,
) -> Chain:
    """Version 0, full, and 1, a delta.

    Args:
        packs: makes the packs of the delta.
        after: changes the chain.
        state: of version 1.
        fingerprints: whether the versions name fingerprints objects.
        how: of `Builder.edge`, for version 1.
    """

    def chain() -> Builder:
        builder = Builder()
        old, new = first(), state()
        builder.full(0, old, fingerprints=fingerprints[0])
        made = packs(fit(old, new), new, builder.layout(new))
        builder.edge(1, new, made, base=0, fingerprints=fingerprints[1], **how)
        if after:
            after(builder)
        return builder

    return chain


# -- rows --------------------------------------------------------------------------------------------------------------


def part(
    slug: str, title: str, chain: Chain, rules: str = "RDR-012", tensors: Sequence[str] = PART, **how: Any
) -> None:
    """A part that is read."""
    partials.read(f"part-{slug}", title, rules, chain, input={"tensors": tensors}, **how)


def no_part(slug: str, title: str, rules: str, error: str, chain: Chain, twin: str = "of-a-delta", **how: Any) -> None:
    """A part that is refused; a verifier says nothing unless a row tells what."""
    given = {"input": {"tensors": PART}, "verify": None, **how}
    partials.reject(f"part-{slug}", title, rules, error, f"part-{twin}", chain, **given)
