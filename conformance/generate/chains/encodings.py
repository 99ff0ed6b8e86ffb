"""Encodings of words: every dtype, codec and combination of section 7."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from generate.builder import Builder, of_chunks
from generate.codecs import Chunk, chunk, chunk_for, full_chunks
from generate.frames import frame, zstd
from generate.good import GOOD, Good, good
from generate.model import DTYPES, Model, Random, changed, fit, ordered, random_tensor, small, stepped, tensor, weights

COMBINATIONS: list[dict[str, Any]] = [
    {"order": order, "positions": positions, "shift": shift, "values": values}
    for order in ("natural", "exponent")
    for positions, shift in (("gap", 0), ("gap", 4), ("gap", 8), ("bitmap", 0), ("all", 0))
    for values in ("step", "replace")
    if order == "natural" or (positions != "all" and values == "step")
]
EXPONENT = ["exponent-order"]


def combination_name(coding: Mapping[str, Any]) -> str:
    shift = str(coding["shift"]) if coding["positions"] == "gap" else ""
    return f"combination-{coding['order']}-{coding['positions']}{shift}-{coding['values']}"


def combination(coding: Mapping[str, Any]) -> Builder:
    """Every word width, uncompressed and compressed; then a full version of the same coding where it can be one."""
    rng = Random(1)
    model: Model = {
        "f8": random_tensor(rng, "F8_E4M3", (11, 30)),
        "bf16": weights(rng, (3, 300)),
        "f32": weights(rng, (301,), "F32"),
        "f64": random_tensor(rng, "F64", (43,)),
    }
    builder = Builder()
    builder.full(0, model)
    features = EXPONENT if coding["order"] == "exponent" else []
    everywhere = coding["positions"] == "all" and coding["values"] == "step"
    for version, compression in ((1, "none"), (2, "zstd")):
        model = {
            name: each._replace(words=each.words + each.words.dtype.type(version * 77 + 1))
            if everywhere
            else changed(rng, each, 0.2)
            for name, each in model.items()
        }
        builder.delta(version, model, version - 1, coding={**coding, "compression": compression}, features=features)
    nonzero = {name: tensor(each.dtype, each.shape, each.words | 1) for name, each in model.items()}
    chunks = [chunk_for(fit({}, nonzero), nonzero, name, **coding, compression="zstd") for name in ordered(nonzero)]
    builder.edge(3, nonzero, [of_chunks(chunks, builder.layout(nonzero))], features=features)
    return builder


GOOD += [Good(combination_name(coding), partial(combination, coding)) for coding in COMBINATIONS]


def add(builder: Builder, version: int, model: Model, chunks: list[Chunk], base: int | None, **how: Any) -> None:
    """A version of these chunks, in one pack."""
    builder.edge(version, model, [of_chunks(chunks, builder.layout(model))], base=base, **how)


@good
def dtypes() -> Builder:
    """Every dtype: full, natural steps, exponent steps where there is an exponent, replaced words."""
    rng = Random(2)
    states = [{f"t.{dtype.lower()}": random_tensor(rng, dtype, (3, 8)) for dtype in DTYPES}]
    for share in (0.3, 0.3, 0.5):
        states.append(stepped(rng, states[-1], share))
    builder = Builder()
    builder.full(0, states[0])
    builder.delta(1, states[1], 0, coding={"shift": 4})
    orders = {name: "exponent" if DTYPES[each.dtype][1] else "natural" for name, each in states[2].items()}
    chunks = [chunk_for(states[1], states[2], name, order=orders[name]) for name in ordered(states[2])]
    add(builder, 2, states[2], chunks, 1, features=EXPONENT)
    builder.delta(3, states[3], 2, coding={"positions": "bitmap", "values": "replace", "compression": "zstd"})
    return builder


@good
def packs() -> Builder:
    """Several packs a version, several tensors a chunk, several chunks a tensor, in no order at all."""
    rng = Random(3)
    model: Model = {f"layers.{i}.w": weights(rng, (40 + i, 10)) for i in range(6)}
    model |= {f"layers.{i}.b": weights(rng, (17,), "F32") for i in range(6)}
    builder = Builder()
    layout = builder.layout(model)
    chunks = full_chunks(model)
    builder.edge(0, model, [of_chunks(chunks[i::3], layout) for i in range(3)])
    after = stepped(rng, model, 0.05)
    w = [f"layers.{i}.w" for i in range(6)]
    first = [
        chunk(model, after, [(w[3], 100, 430), (w[4], 0, 200), (w[4], 200, 300)], shift=4),
        chunk(model, after, [(w[0], 0, 400), (w[1], 0, 410), (w[2], 0, 420), (w[3], 0, 100)], order="exponent"),
    ]
    second = [
        chunk(model, after, [(f"layers.{i}.b", 0, 17) for i in range(6)], positions="bitmap"),
        chunk(model, after, [(w[4], 300, 440), (w[5], 0, 450)], values="replace", compression="zstd"),
    ]
    packs = [of_chunks(first, layout, reverse=True), of_chunks(second, layout)]
    builder.edge(1, after, packs, base=0, features=EXPONENT)
    return builder


@good
def fitted_tensors_in_exponent_order() -> Builder:
    """Steps from zero words, whose exponents are all zero; and several slices whose order mixes."""
    rng = Random(6)
    builder = Builder()
    model: Model = {"a": weights(rng, (60,)), "b": weights(rng, (50,))}
    builder.full(0, model)
    after = {**stepped(rng, model, 0.3), "c": changed(rng, tensor("BF16", (40,)), 0.4)}
    base = fit(model, after)
    rest = chunk(base, after, [("a", 0, 5), ("a", 55, 60)], restate=[0], values="replace")
    for version, limit in enumerate((1, 100, 121, 255, 256), start=1):
        mixed = chunk(base, after, [("a", 5, 55), ("b", 0, 50), ("c", 0, 40)], order="exponent", limit=limit)
        add(builder, version, after, [mixed, rest], 0, features=EXPONENT)
    words = [0, 0x8000, 1, 0x807F, 0x7F80, 0xFF80, 0x7FC1, 0xFFFF, 0x3F80, 0xBF80, 0x80, 0x7F7F]
    special = tensor("BF16", (12,), words)
    builder.full(9, {"s": special})
    moved = {"s": special._replace(words=special.words + np.uint16(1))}
    builder.delta(10, moved, 9, coding={"order": "exponent", "limit": 255}, features=EXPONENT)
    return builder


@good
def scalars_and_zero_sizes() -> Builder:
    rng = Random(14)
    builder = Builder()
    model: Model = {
        "none": tensor("BF16", (0,)),
        "none.wide": tensor("F32", (3, 0, 1 << 20)),
        "one": random_tensor(rng, "F32", ()),
        "one.deep": random_tensor(rng, "F64", (1,) * 16),
        "scalar": random_tensor(rng, "U8", ()),
        "word": random_tensor(rng, "BF16", ()),
    }
    builder.full(0, model)
    builder.delta(1, stepped(rng, model), 0)
    second = stepped(rng, builder.models[1])
    builder.delta(2, second, 1, coding={"positions": "bitmap"})
    third = stepped(rng, second, 1, ["one"])
    add(builder, 3, third, [chunk(second, third, [("one", 0, 1)], order="exponent")], 2, features=EXPONENT)
    return builder


@good
def restated_words() -> Builder:
    """`replace` lists words that are what they were."""
    rng = Random(15)
    builder = Builder()
    model = small(rng)
    builder.full(0, model)
    after = stepped(rng, model)
    chunks = [
        chunk_for(model, after, "a.weight", values="replace", restate=range(0, 320, 3)),
        chunk_for(model, after, "b.bias", values="replace", positions="all"),
        chunk_for(model, after, "c.ids", values="replace", positions="bitmap", restate=range(5)),
        chunk_for(model, after, "d.mask", values="replace", shift=8, restate=range(13)),
    ]
    add(builder, 1, after, chunks, 0)
    add(builder, 2, after, [chunk_for(after, after, "a.weight", values="replace", positions="all")], 1)
    zero = fit({}, model)
    add(builder, 3, zero, [chunk_for(zero, zero, "b.bias", values="replace", restate=[3])], None)
    return builder


@good
def extreme_steps() -> Builder:
    """Steps at the ends of their range, over every boundary of words and lanes."""
    builder = Builder()
    edges: Model = {}
    after: Model = {}
    for dtype in ("U8", "U16", "U32", "U64", "BF16", "F32", "F64", "F8_E5M2"):
        w = DTYPES[dtype][0]
        starts = [0, 1, (1 << w) - 1, 1 << (w - 1), (1 << (w - 1)) - 1, 0xFF % (1 << w), (1 << w) - 2]
        steps = [1, -1, 2, -2, 3, -3, 1 << (w - 1), (1 << (w - 1)) - 1, (1 << (w - 1)) + 1, 0x80, -0x80]
        pairs = [(start, (start + step) % (1 << w)) for start in starts for step in steps]
        edges[f"x.{dtype}"] = tensor(dtype, (len(pairs),), [old for old, _ in pairs])
        after[f"x.{dtype}"] = tensor(dtype, (len(pairs),), [new for _, new in pairs])
    builder.full(0, edges)
    builder.delta(1, after, 0, coding={"positions": "all"})
    builder.delta(2, edges, 1, coding={"compression": "zstd"})
    builder.delta(3, after, 2, coding={"positions": "bitmap", "values": "replace"})
    names = [name for name in ordered(after) if DTYPES[after[name].dtype][1]]
    mixed = {name: edges[name] if name in names else after[name] for name in after}
    chunks = [chunk_for(after, mixed, name, order="exponent", shift=4) for name in names]
    add(builder, 4, mixed, chunks, 3, features=EXPONENT)
    return builder


@good
def sparse_and_long() -> Builder:
    """Gaps of 254, 255, 256, 509, 510 … times 2^shift, the last word, lanes beyond the first block of coefficients."""
    rng = Random(16)
    builder = Builder()
    count = 270_000
    model: Model = {"long": random_tensor(rng, "BF16", (count,)), "u64": random_tensor(rng, "U64", (17_000,))}
    model["u8"] = random_tensor(rng, "U8", (66_000,))
    builder.full(0, model)
    for version, shift in ((1, 0), (2, 4), (3, 8)):
        base, model = model, {name: each._replace(words=each.words.copy()) for name, each in model.items()}
        gaps = [g * (1 << shift) + low for g in (0, 254, 255, 256, 509, 510, 511) for low in {0, (1 << shift) - 1}]
        places = [at for at in np.cumsum([gap + 1 for gap in gaps]) - 1 if at < count - 1]
        model["long"].words[[*places, count - 1]] += np.uint16(version)
        model["u64"].words[[0, 16_383, 16_384, 16_999]] += np.uint64(1 << 48)
        model["u8"].words[[65_535, 65_536, 65_999]] += np.uint8(1)
        if version < 3:
            coding = {"shift": shift, "compression": "zstd" if shift else "none"}
            builder.delta(version, model, version - 1, coding=coding)
    slices = [[("long", 0, 70_000), ("long", 70_001, count)], [("u64", 16_384, 17_000)], [("u64", 0, 16_384)]]
    slices.append([("u8", 65_000, 66_000)])
    add(builder, 3, model, [chunk(base, model, each, shift=8) for each in slices], 2)
    return builder


@good
def frames() -> Builder:
    """Zstandard frames of every kind that is allowed."""
    rng = Random(17)
    builder = Builder()
    model: Model = {"a": tensor("U8", (600,), 7), "b": random_tensor(rng, "U8", (300,))}
    builder.full(0, model)

    def blocks(content: bytes) -> bytes:
        half = len(content) // 2
        parts = [(0, content[:half], half), (0, b"", 0), (0, content[half:], len(content) - half)]
        return frame(content, blocks=parts)

    def runs(content: bytes) -> bytes:
        return frame(content, blocks=[*((1, content[i : i + 1], 1) for i in range(len(content))), (0, b"", 0)])

    kinds: list[Callable[[bytes], bytes]] = [
        zstd,
        frame,
        blocks,
        runs,
        partial(frame, size_bytes=8),
        partial(frame, size_bytes=4),
        partial(frame, unused=1),
        partial(frame, window=0, size_bytes=4),
        partial(frame, window=17 << 3, size_bytes=8),  # 2^27 bytes, the widest window
    ]
    for version, kind in enumerate(kinds, start=1):
        after = stepped(rng, builder.models[version - 1], 0.5)
        builder.delta(version, after, version - 1, coding={"compression": "zstd", "frames": kind})
    return builder
