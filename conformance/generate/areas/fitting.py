"""Fitting the base to another layout (SPEC.md section 5)."""

from __future__ import annotations

from generate.builder import Builder, of_chunks, of_plain
from generate.codecs import chunk, chunk_for
from generate.fingerprint import fingerprint
from generate.model import Model, Random, fit, random_tensor, stepped, tensor, weights
from generate.rows import Build, Rows
from generate.scenes import line, little

ROWS = Rows("fitting", level="chain")
BASE = little()
WEIGHT, BIAS, IDS = BASE["a.weight"], BASE["b.bias"], BASE["c.ids"]
ZEROED: Model = {"a.weight": tensor("BF16", (2, 12))}
"""The first tensor in another shape; no word of it is listed."""


def without(model: Model, *names: str) -> Model:
    """The state without some tensors."""
    return {name: each for name, each in model.items() if name not in names}


def others(seed: int) -> Model:
    """Tensors to add."""
    rng = Random(f"fitting/{seed}")
    return {"a": random_tensor(rng, "U16", (3,)), "d.new": random_tensor(rng, "BF16", (2, 5))}


def states(*models: Model) -> Build:
    """A full version and deltas."""
    return lambda: line(models)


def fitted(slug: str, title: str, rules: str, after: Model, before: Model = BASE) -> None:
    """A delta from one layout to another."""
    ROWS.read(f"fit-{slug}", title, rules, states(before, after))


def counted(slug: str, title: str, rule: str, build: Build, more: Model, twin: str, level: str = "chain") -> None:
    """The fingerprint of version 1 counts other words of some tensors, as a reader does that fits wrongly."""

    def counting() -> Builder:
        builder = build()
        right, wrong = fingerprint(builder.models[1]), fingerprint(builder.models[1] | more)
        builder.change("manifests/000000000001.json", lambda data: data.replace(right.encode(), wrong.encode(), 1))
        return builder

    ROWS.reject(f"fit-{slug}", title, rule, counting, "integrity", f"fit-{twin}", level=level)


# fmt: off
fitted("added",
    "Tensors that the base lacks start with zero words, and those that it has keep theirs under other indices",
    "FIT-002 FIT-004", BASE | others(1))
fitted("added-and-not-listed", "An added tensor of which no word is listed has zero words", "FIT-002",
    BASE | {"b": tensor("F32", (3, 2)), "z": tensor("BOOL", ())})
fitted("dropped", "A tensor that the layout lacks is dropped, and the others keep their words under other indices",
    "FIT-001", without(BASE, "a.weight"))
fitted("all-dropped", "A layout without tensors drops all", "FIT-001 LAY-005", {})
fitted("from-the-empty-state", "A delta from a version without tensors", "FIT-002", little(2), before={})
fitted("reshaped", "A tensor of as many elements in another shape starts with zero words", "FIT-002",
    BASE | {"a.weight": tensor("BF16", (6, 4), WEIGHT.words[::-1])})
fitted("reshaped-to-zero", "Of a tensor in another shape no word is listed, so that all are 0", "FIT-002",
    BASE | ZEROED)
fitted("resized", "A tensor with more rows than before starts with zero words in all of them", "FIT-002",
    BASE | {"a.weight": tensor("BF16", (5, 6), [*WEIGHT.words, *[1] * 6])})
fitted("one-element-to-a-scalar", "The shape [] is another shape than [1]", "FIT-002",
    BASE | {"s": tensor("F32", (), 0x3F800001)}, before=BASE | {"s": tensor("F32", (1,), 0x3F800000)})
fitted("dimension-of-zero", "A tensor without words takes another shape without words", "FIT-002 LAY-006",
    BASE | {"s": tensor("F32", (4, 0))}, before=BASE | {"s": tensor("F32", (0, 4))})
fitted("retyped-same-width",
    "A tensor of another dtype starts with zero words, also where the dtypes are of one width", "FIT-002",
    BASE | {"c.ids": IDS._replace(dtype="F8_E4M3")})
fitted("retyped-other-width", "A tensor of another dtype starts with zero words, narrower than before", "FIT-002",
    BASE | {"b.bias": random_tensor(Random(3), "BF16", (5,))})
fitted("retyped-to-zero", "Of a tensor of another dtype no word is listed, so that all are 0", "FIT-002",
    BASE | {"c.ids": tensor("I8", (7,))})
fitted("renamed", "A tensor under a new name starts with zero words, and the old one is dropped", "FIT-001 FIT-002",
    without(BASE, "b.bias") | {"z.bias": BIAS})
fitted("renamed-by-normalisation", "A name of other bytes is another name, also where both look alike", "TRM-003",
    BASE | {"e\u0301": tensor("U8", (3,), [1, 2, 4])}, before=BASE | {"\u00e9": tensor("U8", (3,), [1, 2, 3])})
fitted("renamed-by-case", "A name of other case is another name", "TRM-003", without(BASE, "c.ids") | {"C.ids": IDS})
fitted("order-of-bytes", "The indices of a layout go by the bytes of UTF-8, where UTF-16 has another order",
    "FIT-004 TRM-003", BASE | {"\U00010000": tensor("U8", (2,), [5, 6]), "\uffff": tensor("U8", (2,), [7, 9])},
    before=BASE | {"\uffff": tensor("U8", (2,), [7, 8])})
#: Three tensors of one dtype and shape, each of other words.
LAYERS: Model = {f"layers.{n}.w": tensor("BF16", (3,), [3 * n + 1, 3 * n + 2, 3 * n + 3]) for n in range(3)}
fitted("dropped-before-others-of-its-kind",
    "Of three tensors of one dtype and shape the first is dropped, so that each other gets the index of its neighbour",
    "FIT-001 FIT-004",
    without(LAYERS, "layers.0.w") | {"layers.2.w": tensor("BF16", (3,), [7, 8, 0x8000])}, before=LAYERS)
fitted("added-before-others-of-its-kind",
    "A tensor is added before three of its dtype and shape, so that each of them gets the index of its neighbour",
    "FIT-002 FIT-004", LAYERS | {"layers.00.w": tensor("BF16", (3,), [0, 9, 0])}, before=LAYERS)
FORTH, BACK = tensor("U8", (4,), [1, 2, 3, 4]), tensor("U8", (4,), [4, 3, 3, 1])
fitted("equal-words-swap-names", "Two tensors of one dtype and shape change names and thereby words", "FIT-004",
    BASE | {"x": BACK, "y": FORTH}, before=BASE | {"x": FORTH, "y": BACK})
fitted("without-packs", "A delta without packs drops, adds and zeroes tensors by its layout alone",
    "FIT-001 FIT-002 MAN-007", without(BASE, "b.bias") | {"a.weight": tensor("BF16", (6, 4)), "e": tensor("F64", (2,))})

counted("reshaped-counted", "The fingerprint counts the old words of a tensor that has another shape now", "FIT-002",
    states(BASE, BASE | ZEROED), {"a.weight": WEIGHT}, "reshaped-to-zero")
counted("dropped-counted", "The fingerprint counts a tensor that the layout lacks", "FIT-001",
    states(BASE, without(BASE, "a.weight")), {"a.weight": WEIGHT}, "dropped")
counted("retyped-counted", "The fingerprint counts the old words of a tensor that has another dtype now", "FIT-002",
    states(BASE, BASE | {"c.ids": tensor("I8", (7,))}), {"c.ids": IDS}, "retyped-to-zero")

# -- over several edges ------------------------------------------------------------------------------------------------

ROWS.read("fit-dropped-and-added-again",
    "A tensor that one edge drops and the next adds starts with zero words, not with those before", "FIT-001 FIT-002",
    states(BASE, without(BASE, "b.bias"), BASE | {"b.bias": tensor("F32", (5,), [0, 0, 1, 0, 0])}), to=2)
ROWS.read("fit-reshaped-and-back",
    "A tensor that one edge reshapes and the next shapes as it was has zero words where none is listed", "FIT-002",
    states(BASE, BASE | {"a.weight": tensor("BF16", (24,))},
        BASE | {"a.weight": tensor("BF16", (4, 6), [0] * 20 + [0x3F80] * 4)}), to=2)
ROWS.read("fit-several-layouts-from-nothing", "A route from nothing over three layouts", "FIT-001 FIT-002 FIT-003",
    states(BASE, BASE | others(2), without(BASE, "c.ids") | others(2) | {"b.bias": tensor("F32", (1, 5), 7)},
        little(3)), held=None, to=3)

# -- chains that a list of states does not describe --------------------------------------------------------------------
# fmt: on


def full_over_held() -> Builder:
    """Two full versions; the second has no chunk of a tensor of zeros."""
    builder = Builder()
    builder.full(0, BASE)
    builder.full(1, little(4) | {"b.bias": tensor("F32", (5,))})
    return builder


def other_bytes() -> Builder:
    """The second layout has the list of the first in other bytes."""
    builder = Builder()
    builder.full(0, BASE)
    after = stepped(Random(5), BASE, 0.2)
    spaced = builder.layout(after, hook=lambda document: document.update(note=[1.5]), text=lambda data: data + b"\n ")
    chunks = [chunk_for(BASE, after, name) for name in after]
    builder.edge(1, after, [of_chunks(chunks, spaced)], base=0, layout=spaced)
    return builder


def exponents() -> Builder:
    """Chunks in order exponent over a tensor that is zeroed and one that is kept."""
    builder = Builder()
    model = BASE | {"a.weight": weights(Random(6), (30,))}
    builder.full(0, model)
    after = stepped(Random(7), model | {"a.weight": tensor("BF16", (5, 6))}, 0.3)
    base = fit(model, after)
    chunks = [chunk_for(base, after, name, order="exponent", limit=120) for name in ("a.weight", "b.bias")]
    chunks.append(chunk_for(base, after, "c.ids"))
    builder.edge(1, after, [of_chunks(chunks, builder.layout(after))], base=0, features=["exponent-order"])
    return builder


def interleaved() -> Builder:
    """Two chunks that share a tensor, and a plain tensor between: each is decoded against the base alone."""
    builder = Builder()
    model = {"t": tensor("U8", (12,), range(1, 13)), "u": tensor("U8", (3,), [1, 2, 3])}
    builder.full(0, model)
    after = {"t": tensor("U8", (12,), range(2, 14)), "u": tensor("U8", (3,), [9, 9, 9])}
    layout = builder.layout(after)
    first = chunk(model, after, [("t", 0, 3), ("t", 6, 9)])
    second = chunk(model, after, [("t", 3, 6), ("t", 9, 12)])
    packs = [of_chunks([second], layout), of_plain({"u": after["u"]}, after), of_chunks([first], layout)]
    builder.edge(1, after, packs, base=0)
    return builder


def plain_reshaped() -> Builder:
    """A plain pack has a tensor in another shape."""
    builder = Builder()
    builder.full(0, BASE)
    flat = {"a.weight": WEIGHT._replace(shape=(24,))}
    builder.edge(1, BASE | flat, [of_plain(flat, BASE | flat)], base=0)
    return builder


# fmt: off
ROWS.read("fit-full-over-held",
    "A full version starts from the empty state, not from the words held under the same names", "FIT-003",
    full_over_held, level="reader-core")
counted("full-over-held-counted",
    "The fingerprint of a full version counts the words held under the name of a tensor that it does not list",
    "FIT-003", full_over_held, {"b.bias": BIAS}, "full-over-held", level="reader-core")
ROWS.read("fit-layout-of-other-bytes",
    "Two layouts of one list are equal, whatever their bytes, so that nothing is dropped or zeroed", "TRM-002",
    other_bytes, level="reader-core")
ROWS.read("fit-exponents-of-the-fitted-base",
    "In order exponent the words of a zeroed tensor have exponent 0, so that their order is the natural one",
    "FIT-005 ORD-002", exponents, level="reader-exponent")
ROWS.read("fit-chunks-interleaved",
    "Chunks of two packs take turns in one tensor, with a plain tensor beside, in any order", "FIT-004 FIT-005",
    interleaved, level="reader-core")
ROWS.read("fit-plain-tensor-reshaped",
    "A plain pack of a delta brings the words of a tensor that has another shape now", "FIT-002 PCK-019",
    plain_reshaped)
