"""The chain that most invalid cases spoil, and helpers that spoil it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from generate.builder import Builder, Pack, digest, identity, nothing, of_chunks
from generate.codecs import chunk
from generate.model import Model, Random, Tensor, fit, small, stepped

#: Where the words of the standard chain change from version 0 to 1, tensor by tensor.
PLACES = {
    "a.weight": [3, 290, 291, 300, 302],
    "b.bias": [1, 20, 22],
    "c.ids": [0, 3, 9],
    "d.mask": list(range(13)),
}


def standard_models() -> list[Model]:
    rng = Random(99)
    first = small(rng)
    first["a.weight"].words[:] = np.maximum(first["a.weight"].words, 0x3C00)  # so that exponent order has two classes
    second: Model = {}
    for name, places in PLACES.items():
        words = first[name].words.copy()
        words[places] += np.array([1, 500, 1, 65535, 2, 3] * 3, np.uint64)[: len(places)].astype(words.dtype)
        second[name] = Tensor(first[name].dtype, first[name].shape, words)
    return [first, second, stepped(rng, second, 0.1, ["a.weight"])]


Plan = list[dict[str, Any]]


def standard_plan() -> Plan:
    """The chunks of version 1: two slices of one tensor, then a tensor each."""
    return [
        {"slices": [("a.weight", 0, 160), ("a.weight", 160, 320)]},
        {"slices": [("b.bias", 0, 24)], "shift": 4},
        {"slices": [("c.ids", 0, 10)], "positions": "bitmap", "values": "replace"},
        {"slices": [("d.mask", 0, 13)], "positions": "all"},
    ]


def standard(
    *,
    chain: Callable[[dict[str, Any]], Any] = nothing,
    compression: str = "none",
    models: Callable[[list[Model]], Any] = nothing,
    plan: Callable[[Plan], Any] = nothing,
    raw: Callable[[int, dict[str, bytes]], Any] = nothing,
    stored: Callable[[int, dict[str, bytes]], Any] = nothing,
    chunks: Callable[[list[dict[str, Any]]], Any] = nothing,
    layout: Callable[[dict[str, Any]], Any] = nothing,
    layout_text: Callable[[bytes], bytes] = identity,
    table: Callable[[dict[str, Any]], Any] = nothing,
    table_text: Callable[[bytes], bytes] = identity,
    header: Callable[[dict[str, Any]], Any] = nothing,
    header_text: Callable[[bytes], bytes] = identity,
    pad: bytes | None = None,
    pack: Callable[[bytes], bytes] = identity,
    more: Callable[[Builder, list[Model], str], list[Pack]] = lambda *_: [],
    entry: Callable[[dict[str, Any]], Any] = nothing,
    manifest: Callable[[dict[str, Any]], Any] = nothing,
    text: Callable[[bytes], bytes] = identity,
    features: Sequence[str] = (),
    after: Callable[[Builder], Any] = nothing,
    fields: Mapping[str, Any] | None = None,
    fingerprints: bool = True,
    last: bool = True,
) -> Builder:
    """Versions 0 (full), 1 (delta), 2 (delta); each hook changes version 1 at the place that its name says."""
    builder = Builder(chain=chain)
    states = standard_models()
    models(states)
    builder.full(0, states[0])
    plans = standard_plan()
    plan(plans)
    base = fit(states[0], states[1])
    made = []
    for number, each in enumerate(plans):
        how = {"compression": compression, **each}
        made.append(chunk(base, states[1], raw=partial(raw, number), **how))
        stored(number, made[-1].streams)
    layout_digest = builder.layout(states[1], hook=layout, text=layout_text)

    def whole_table(document: dict[str, Any]) -> None:
        chunks(document["chunks"])
        table(document)

    own = of_chunks(
        made, layout_digest, table=whole_table, table_text=table_text, header=header, header_text=header_text, pad=pad
    )
    own.data = pack(own.data)
    own.fields |= fields or {}

    def first_entry(each: dict[str, Any]) -> None:
        if each["sha256"] == digest(own.data):
            entry(each)

    options: dict[str, Any] = {"hook": manifest, "text": text, "entry": first_entry, "layout": layout_digest}
    options |= {"features": features, "fingerprints": fingerprints, "files": [builder.file("config.json", b"{}")]}
    builder.edge(1, states[1], [own, *more(builder, states, layout_digest)], base=0, **options)
    if last:
        builder.delta(2, states[2], 1)
    after(builder)
    return builder


def setting(**members: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda document: document.update(members)


def without(member: str) -> Callable[[dict[str, Any]], Any]:
    def drop(document: dict[str, Any]) -> None:
        del document[member]

    return drop


def replaced(old: bytes, new: bytes, *, required: bool = True) -> Callable[[bytes], bytes]:
    """Replace the first occurrence of `old`."""

    def change(data: bytes) -> bytes:
        assert old in data or not required, old
        return data.replace(old, new, 1)

    return change


def flipped(at: int) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        place = at % len(data)
        return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]

    return change


def exponent(**more: Any) -> dict[str, Any]:
    """What makes chunk 0 of `standard` one of order `exponent`."""
    return {"plan": lambda plan: plan[0].update(order="exponent"), "features": ["exponent-order"], **more}
