"""Chains of one delta, or of one full version, over tensors given word by word."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from generate.builder import Builder, Pack, identity, nothing, of_chunks
from generate.codecs import Chunk, Slice, chunk
from generate.fingerprint import value_of
from generate.frames import zstd
from generate.model import MASK64, Model, fit, tensor
from generate.rows import Build

Frame = Callable[[bytes], bytes]
Stream = bytes | str | None
Counted = tuple[str, int, int]
"""A word's tensor, number and value."""


def one(dtype: str, words: int | Sequence[int], name: str = "w") -> Model:
    """A state of one tensor: of these words, or of so many zeros."""
    if isinstance(words, int):
        return {name: tensor(dtype, (words,))}
    return {name: tensor(dtype, (len(words),), list(words))}


def moved(model: Model, words: Mapping[int, int], name: str = "w") -> Model:
    """The state with some words of a tensor replaced."""
    new = model[name].words.copy()
    for place, word in words.items():
        new[place] = word
    return {**model, name: model[name]._replace(words=new)}


def moved_in(model: Model, **words: Mapping[int, int]) -> Model:
    """The state with some words of several tensors replaced."""
    for name, some in words.items():
        model = moved(model, some, name)
    return model


@dataclass(frozen=True)
class Part:
    """A chunk to be made, and what is done to it.

    Attributes:
        slices: (name, start, stop); the whole of the only tensor unless given.
        restate: numbers, in natural order, of words to list although they are equal.
        hand: the streams before compression in hexadecimal digits, as derived by hand; the slow encoder must agree.
        streams: streams that take the place of the encoder's before compression, as bytes or in hexadecimal digits;
            None: no such stream.
        frames: compresses a stream.
        stored: compresses the streams of these names.
        new: the state to encode, if it is not that of the manifest.
        counted: the words of which `result` is the sum, if they are not the listed ones.
        entry: members of the chunk's entry in the chunk table.
    """

    slices: Sequence[Slice] = ()
    order: str = "natural"
    limit: int | None = None
    groups: Sequence[int] | None = None
    positions: str = "gap"
    shift: int = 0
    values: str = "step"
    compression: str = "none"
    restate: Sequence[int] = ()
    hand: Mapping[str, str] = field(default_factory=dict)
    streams: Mapping[str, Stream] = field(default_factory=dict)
    frames: Frame = zstd
    stored: Mapping[str, Frame] = field(default_factory=dict)
    new: Model | None = None
    counted: Sequence[Counted] | None = None
    entry: Mapping[str, Any] = field(default_factory=dict)


def made(base: Model, new: Model, part: Part) -> Chunk:
    """The chunk of a part."""
    encoded = new if part.new is None else part.new
    slices = part.slices or [(name, 0, len(each.words)) for name, each in encoded.items()]
    each = chunk(
        base,
        encoded,
        slices,
        order=part.order,
        limit=part.limit,
        groups=part.groups,
        positions=part.positions,
        shift=part.shift,
        values=part.values,
        restate=part.restate,
    )
    for name, digits in part.hand.items():
        if each.streams[name] != bytes.fromhex(digits):
            raise AssertionError(f"{name} is {each.streams[name].hex(' ')}, by hand it was {digits}")
    for name, data in part.streams.items():
        if data is None:
            del each.streams[name]
        else:
            each.streams[name] = bytes.fromhex(data) if isinstance(data, str) else data
    default: Frame = part.frames if part.compression == "zstd" else bytes
    each.streams = {name: part.stored.get(name, default)(data) for name, data in each.streams.items()}
    each.entry["compression"] = part.compression
    if part.counted is not None:
        each.entry["result"] = total(base, part.counted)
    each.entry.update(part.entry)
    return each


def total(base: Model, counted: Iterable[Counted]) -> str:
    """The sum of section 8.3 over some words."""
    added = 0
    for name, place, word in counted:
        added += value_of(name, np.array([place]), np.array([word], base[name].words.dtype))
    return f"{added & MASK64:016x}"


def pair(
    old: Model | None,
    new: Model,
    *parts: Part,
    table: Callable[[dict[str, Any]], Any] = nothing,
    table_text: Callable[[bytes], bytes] = identity,
    header: Callable[[dict[str, Any]], Any] = nothing,
    header_text: Callable[[bytes], bytes] = identity,
    pad: bytes | None = None,
    reverse: bool = False,
    pack: Callable[[bytes], bytes] = identity,
    more: Callable[[Builder, str], Sequence[Pack]] = lambda *_: (),
    fields: Mapping[str, Any] | None = None,
    entry: Callable[[dict[str, Any]], Any] = nothing,
    manifest: Callable[[dict[str, Any]], Any] = nothing,
    features: Sequence[str] | None = None,
) -> Builder:
    """Version 0 of the old state and version 1 of the new one; with no old state, version 0 of the new one.

    The other arguments change the last version, each the place that it is named after.

    Args:
        parts: the chunks of the last version, in one pack; without any there is no such pack.
        more: makes more packs, from the builder and the layout's digest.
        fields: members of the pack's entry in the manifest.
        features: by default `exponent-order` if a chunk has that order.
    """
    builder = Builder()
    if old is not None:
        builder.full(0, old)
    base = fit(old or {}, new)
    layout = builder.layout(new)
    packs: list[Pack] = []
    if parts:
        hooks = {"table": table, "table_text": table_text, "header": header, "header_text": header_text}
        chunks = [made(base, new, part) for part in parts]
        packs.append(of_chunks(chunks, layout, fields=fields, pad=pad, reverse=reverse, **hooks))
        packs[0].data = pack(packs[0].data)
    packs += more(builder, layout)
    if features is None:
        features = ["exponent-order"] if any(part.order == "exponent" for part in parts) else []
    builder.edge(
        0 if old is None else 1,
        new,
        packs,
        base=None if old is None else 0,
        layout=layout,
        features=features,
        hook=manifest,
        entry=entry,
    )
    return builder


def chain(old: Model | None, new: Model, *parts: Part, **how: Any) -> Build:
    """The chain of `pair`, made when it is needed."""
    return partial(pair, old, new, *parts, **how)


def listed(
    count: int, places: Iterable[int], part: Part, *, dtype: str = "U8", full: bool = False, **how: Any
) -> Build:
    """A tensor `w` of zeros, of which some words become 1; with `full` in a full version."""
    old = one(dtype, count)
    return chain(None if full else old, moved(old, dict.fromkeys(places, 1)), part, **how)


def turned(members: dict[str, Any]) -> None:
    """The members of an object stand in the reverse order."""
    reverse = [*reversed(members.items())]
    members.clear()
    members.update(reverse)
