"""Chains for readers of some tensors of a state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from generate.builder import Builder, Pack, of_chunks
from generate.cases import read, reject
from generate.codecs import chunk, chunk_for
from generate.model import Model, Random, fit, ordered, random_tensor, stepped, weights

AREA = "partial"
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


Packs = Callable[[Model, Model, str], Sequence[Pack]]


def each_its_own(base: Model, new: Model, layout: str) -> list[Pack]:
    """A pack for each tensor."""
    return [of_chunks([chunk_for(base, new, name)], layout) for name in ordered(new)]


def over_several(base: Model, new: Model, layout: str) -> list[Pack]:
    """One chunk over two tensors of which the reader holds the second, in natural order; a pack of the others."""
    both = chunk(base, new, [("a.weight", 3, 24), ("b.weight", 0, 18)], shift=4)
    rest = [chunk_for(base, new, name) for name in ("c.ids", "d.bias")]
    if (base["a.weight"].words[:3] != new["a.weight"].words[:3]).any():
        rest.append(chunk(base, new, [("a.weight", 0, 3)]))
    return [of_chunks([both], layout), of_chunks(rest, layout)]


def chain_of(
    packs: Packs = each_its_own,
    *,
    after: Callable[[Builder], Any] | None = None,
    after_it: Callable[[], Model] = second,
    fingerprints: tuple[bool, bool] = (True, True),
    **how: Any,
) -> Callable[[], Builder]:
    """Version 0, full, and 1, a delta.

    Args:
        packs: makes the packs of the delta.
        after: changes the chain.
        after_it: the state of version 1.
        fingerprints: whether the versions name fingerprints objects.
        how: of `Builder.edge`, for version 1.
    """

    def chain() -> Builder:
        builder = Builder()
        old, new = first(), after_it()
        builder.full(0, old, fingerprints=fingerprints[0])
        made = packs(fit(old, new), new, builder.layout(new))
        builder.edge(1, new, made, base=0, fingerprints=fingerprints[1], **how)
        if after:
            after(builder)
        return builder

    return chain


def read_part(slug: str, title: str, chain: Callable[[], Builder], *requirements: str, **how: Any) -> None:
    """A valid case; `how` is of `read`, and `tensors`."""
    given = {"tensors": how.pop("tensors", PART)}
    read(
        slug,
        area=AREA,
        level="partial",
        title=title,
        requirements=requirements or ["TD-RDR-012"],
        chain=chain,
        input=given,
        **how,
    )


def reject_part(
    slug: str,
    title: str,
    error: str,
    chain: Callable[[], Builder],
    *requirements: str,
    twin: str = "part-of-a-delta",
    **how: Any,
) -> None:
    """An invalid case; `how` is of `reject`, and `tensors`."""
    given = {"tensors": how.pop("tensors", PART)}
    reject(
        slug,
        area=AREA,
        level="partial",
        title=title,
        requirements=requirements,
        chain=chain,
        error=error,
        twin=twin,
        input=given,
        **{"verify": None, **how},
    )
