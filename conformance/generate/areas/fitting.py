"""Fitting the base to another layout (SPEC.md section 5)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from generate.builder import Builder, of_chunks, of_plain
from generate.cases import read, reject
from generate.codecs import chunk, chunk_for
from generate.fingerprint import fingerprint
from generate.model import Model, Random, Tensor, fit, random_tensor, stepped, tensor, weights
from generate.scenes import line, little

AREA = "fitting"


def _others(seed: int) -> Model:
    """Tensors to add."""
    rng = Random(f"fitting/{seed}")
    return {"a": random_tensor(rng, "U16", (3,)), "d.new": random_tensor(rng, "BF16", (2, 5))}


def _fitted(
    slug: str,
    title: str,
    after: Callable[[Model], Model],
    *requirements: str,
    before: Callable[[Model], Model] = dict,
) -> None:
    """A valid delta from one layout to another."""

    def chain() -> Builder:
        first = before(little())
        return line([first, after(first)])

    read(slug, area=AREA, level="chain", title=title, requirements=requirements, chain=chain)


def _without(model: Model, *names: str) -> Model:
    return {name: each for name, each in model.items() if name not in names}


def _reshaped(each: Tensor, *shape: int) -> Tensor:
    return Tensor(each.dtype, shape, each.words)


def _retyped(each: Tensor, dtype: str) -> Tensor:
    return Tensor(dtype, each.shape, each.words)


def _layers() -> Model:
    """Three tensors of one dtype and shape, each of other words."""
    return {f"layers.{number}.w": tensor("BF16", (3,), [number * 3 + at + 1 for at in range(3)]) for number in range(3)}


_fitted(
    "fit-added",
    "Tensors that the base lacks start with zero words, and those that it has keep theirs under other indices",
    lambda model: model | _others(1),
    "TD-FIT-002",
    "TD-FIT-004",
)
_fitted(
    "fit-added-and-not-listed",
    "An added tensor of which no word is listed has zero words",
    lambda model: model | {"b": tensor("F32", (3, 2)), "z": tensor("BOOL", ())},
    "TD-FIT-002",
)
_fitted(
    "fit-dropped",
    "A tensor that the layout lacks is dropped, and the others keep their words under other indices",
    lambda model: _without(model, "a.weight"),
    "TD-FIT-001",
)
_fitted("fit-all-dropped", "A layout without tensors drops all", lambda model: {}, "TD-FIT-001", "TD-LAY-005")
_fitted(
    "fit-from-the-empty-state",
    "A delta from a version without tensors",
    lambda model: little(2),
    "TD-FIT-002",
    before=lambda model: {},
)
_fitted(
    "fit-reshaped",
    "A tensor of as many elements in another shape starts with zero words",
    lambda model: model | {"a.weight": tensor("BF16", (6, 4), model["a.weight"].words[::-1])},
    "TD-FIT-002",
)
_fitted(
    "fit-reshaped-to-zero",
    "Of a tensor in another shape no word is listed, so that all are 0",
    lambda model: model | {"a.weight": tensor("BF16", (2, 12))},
    "TD-FIT-002",
)
_fitted(
    "fit-resized",
    "A tensor with more rows than before starts with zero words in all of them",
    lambda model: (
        model | {"a.weight": Tensor("BF16", (5, 6), np.append(model["a.weight"].words, [1] * 6).astype("u2"))}
    ),
    "TD-FIT-002",
)
_fitted(
    "fit-one-element-to-a-scalar",
    "The shape [] is another shape than [1]",
    lambda model: model | {"s": tensor("F32", (), 0x3F800001)},
    "TD-FIT-002",
    before=lambda model: model | {"s": tensor("F32", (1,), 0x3F800000)},
)
_fitted(
    "fit-dimension-of-zero",
    "A tensor without words takes another shape without words",
    lambda model: model | {"s": tensor("F32", (4, 0))},
    "TD-FIT-002",
    "TD-LAY-006",
    before=lambda model: model | {"s": tensor("F32", (0, 4))},
)
_fitted(
    "fit-retyped-same-width",
    "A tensor of another dtype starts with zero words, also where the dtypes are of one width",
    lambda model: model | {"c.ids": _retyped(model["c.ids"], "F8_E4M3")},
    "TD-FIT-002",
)
_fitted(
    "fit-retyped-other-width",
    "A tensor of another dtype starts with zero words, narrower than before",
    lambda model: model | {"b.bias": random_tensor(Random(3), "BF16", (5,))},
    "TD-FIT-002",
)
_fitted(
    "fit-renamed",
    "A tensor under a new name starts with zero words, and the old one is dropped",
    lambda model: _without(model, "b.bias") | {"z.bias": model["b.bias"]},
    "TD-FIT-001",
    "TD-FIT-002",
)
_fitted(
    "fit-renamed-by-normalisation",
    "A name of other bytes is another name, also where both look alike",
    lambda model: _without(model, "\u00e9") | {"e\u0301": tensor("U8", (3,), [1, 2, 4])},
    "TD-TRM-003",
    before=lambda model: model | {"\u00e9": tensor("U8", (3,), [1, 2, 3])},
)
_fitted(
    "fit-renamed-by-case",
    "A name of other case is another name",
    lambda model: _without(model, "c.ids") | {"C.ids": model["c.ids"]},
    "TD-TRM-003",
)
_fitted(
    "fit-order-of-bytes",
    "The indices of a layout go by the bytes of UTF-8, where UTF-16 has another order",
    lambda model: model | {"\U00010000": tensor("U8", (2,), [5, 6]), "\uffff": tensor("U8", (2,), [7, 9])},
    "TD-FIT-004",
    "TD-TRM-003",
    before=lambda model: model | {"\uffff": tensor("U8", (2,), [7, 8])},
)
_fitted(
    "fit-dropped-before-others-of-its-kind",
    "Of three tensors of one dtype and shape the first is dropped, so that each other gets the index of its neighbour",
    lambda model: _without(model, "layers.0.w") | {"layers.2.w": tensor("BF16", (3,), [7, 8, 0x8000])},
    "TD-FIT-001",
    "TD-FIT-004",
    before=lambda model: _layers(),
)
_fitted(
    "fit-added-before-others-of-its-kind",
    "A tensor is added before three of its dtype and shape, so that each of them gets the index of its neighbour",
    lambda model: model | {"layers.00.w": tensor("BF16", (3,), [0, 9, 0])},
    "TD-FIT-002",
    "TD-FIT-004",
    before=lambda model: _layers(),
)
_fitted(
    "fit-equal-words-swap-names",
    "Two tensors of one dtype and shape change names and thereby words",
    lambda model: model | {"x": model["y"], "y": model["x"]},
    "TD-FIT-004",
    before=lambda model: model | {"x": tensor("U8", (4,), [1, 2, 3, 4]), "y": tensor("U8", (4,), [4, 3, 3, 1])},
)


def _without_packs() -> Builder:
    """What fitting does is the whole delta."""
    model = little()
    after = _without(model, "b.bias") | {"a.weight": tensor("BF16", (6, 4)), "e": tensor("F64", (2,))}
    return line([model, after])


read(
    "fit-without-packs",
    area=AREA,
    level="chain",
    title="A delta without packs drops, adds and zeroes tensors by its layout alone",
    requirements=["TD-FIT-001", "TD-FIT-002", "TD-MAN-007"],
    chain=_without_packs,
)


def _full_over_held() -> Builder:
    builder = Builder()
    model = little()
    builder.full(0, model)
    after = {name: Tensor(each.dtype, each.shape, each.words.copy()) for name, each in little(4).items()}
    after["b.bias"].words[:] = 0  # no chunk is made of it
    builder.full(1, after)
    return builder


read(
    "fit-full-over-held",
    area=AREA,
    title="A full version starts from the empty state, not from the words held under the same names",
    requirements=["TD-FIT-003"],
    chain=_full_over_held,
)
reject(
    "fit-full-over-held-counted",
    area=AREA,
    title="The fingerprint of a full version counts the words held under the name of a tensor that it does not list",
    requirements=["TD-FIT-003"],
    chain=lambda: _counting(_full_over_held(), {"b.bias": little()["b.bias"]}),
    error="integrity",
    twin="fit-full-over-held",
)


def _counting(builder: Builder, more: Model) -> Builder:
    """The manifest of version 1 has the fingerprint of a state with other words in some tensors."""
    wrong = fingerprint(builder.models[1] | more)
    own = builder.manifests[1]["fingerprint"]
    builder.change("manifests/000000000001.json", lambda data: data.replace(own.encode(), wrong.encode(), 1))
    return builder


def _counted(slug: str, twin: str, title: str, requirement: str, chain: Callable[[], Builder], more: Model) -> None:
    """What a reader that fits wrongly in just this way takes for right."""
    reject(
        slug,
        area=AREA,
        level="chain",
        title=title,
        requirements=[requirement],
        chain=lambda: _counting(chain(), more),
        error="integrity",
        twin=twin,
    )


def _zeroed() -> Builder:
    model = little()
    return line([model, model | {"a.weight": tensor("BF16", (2, 12))}])


_counted(
    "fit-reshaped-counted",
    "fit-reshaped-to-zero",
    "The fingerprint counts the old words of a tensor that has another shape now",
    "TD-FIT-002",
    _zeroed,
    {"a.weight": little()["a.weight"]},
)
_counted(
    "fit-dropped-counted",
    "fit-dropped",
    "The fingerprint counts a tensor that the layout lacks",
    "TD-FIT-001",
    lambda: line([little(), _without(little(), "a.weight")]),
    {"a.weight": little()["a.weight"]},
)


def _retyped_to_zero() -> Builder:
    model = little()
    return line([model, model | {"c.ids": tensor("I8", (7,))}])


read(
    "fit-retyped-to-zero",
    area=AREA,
    level="chain",
    title="Of a tensor of another dtype no word is listed, so that all are 0",
    requirements=["TD-FIT-002"],
    chain=_retyped_to_zero,
)
_counted(
    "fit-retyped-counted",
    "fit-retyped-to-zero",
    "The fingerprint counts the old words of a tensor that has another dtype now",
    "TD-FIT-002",
    _retyped_to_zero,
    {"c.ids": little()["c.ids"]},
)


# -- layouts that differ in bytes --------------------------------------------------------------------------------------


def _spaced() -> Builder:
    """The second layout has the list of the first in other bytes."""
    builder = Builder()
    model = little()
    builder.full(0, model)
    after = stepped(Random(5), model, 0.2)
    spaced = builder.layout(after, hook=lambda document: document.update(note=[1.5]), text=lambda data: data + b"\n ")
    chunks = [chunk_for(model, after, name) for name in after]
    builder.edge(1, after, [of_chunks(chunks, spaced)], base=0, layout=spaced)
    return builder


read(
    "fit-layout-of-other-bytes",
    area=AREA,
    title="Two layouts of one list are equal, whatever their bytes, so that nothing is dropped or zeroed",
    requirements=["TD-TRM-002"],
    chain=_spaced,
)


# -- what is decoded against the fitted base ---------------------------------------------------------------------------


def _exponent_of_fitted() -> Builder:
    """Chunks in order exponent over a tensor that is zeroed and one that is kept."""
    builder = Builder()
    model = little() | {"a.weight": weights(Random(6), (30,))}
    builder.full(0, model)
    after = stepped(Random(7), model | {"a.weight": tensor("BF16", (5, 6))}, 0.3)
    fitted = fit(model, after)
    chunks = [chunk_for(fitted, after, name, order="exponent", limit=120) for name in ("a.weight", "b.bias")]
    chunks.append(chunk_for(fitted, after, "c.ids"))
    builder.edge(1, after, [of_chunks(chunks, builder.layout(after))], base=0, features=["exponent-order"])
    return builder


read(
    "fit-exponents-of-the-fitted-base",
    area=AREA,
    level="reader-exponent",
    title="In order exponent the words of a zeroed tensor have exponent 0, so that their order is the natural one",
    requirements=["TD-FIT-005", "TD-ORD-002"],
    chain=_exponent_of_fitted,
)


def _interleaved() -> Builder:
    """Two chunks that share a tensor, and a plain tensor between: each is decoded against the base alone."""
    builder = Builder()
    model = {"t": tensor("U8", (12,), range(1, 13)), "u": tensor("U8", (3,), [1, 2, 3])}
    builder.full(0, model)
    after = {"t": Tensor("U8", (12,), model["t"].words + np.uint8(1)), "u": tensor("U8", (3,), [9, 9, 9])}

    layout = builder.layout(after)
    first = chunk(model, after, [("t", 0, 3), ("t", 6, 9)])
    second = chunk(model, after, [("t", 3, 6), ("t", 9, 12)])
    packs = [of_chunks([second], layout), of_plain({"u": after["u"]}, after), of_chunks([first], layout)]
    builder.edge(1, after, packs, base=0)
    return builder


read(
    "fit-chunks-interleaved",
    area=AREA,
    title="Chunks of two packs take turns in one tensor, with a plain tensor beside, in any order",
    requirements=["TD-FIT-004", "TD-FIT-005"],
    chain=_interleaved,
)


def _plain_over_reshaped() -> Builder:
    builder = Builder()
    model = little()
    builder.full(0, model)
    after = model | {"a.weight": _reshaped(model["a.weight"], 24)}
    builder.edge(1, after, [of_plain({"a.weight": after["a.weight"]}, after)], base=0)
    return builder


read(
    "fit-plain-tensor-reshaped",
    area=AREA,
    level="chain",
    title="A plain pack of a delta brings the words of a tensor that has another shape now",
    requirements=["TD-FIT-002", "TD-PCK-019"],
    chain=_plain_over_reshaped,
)


# -- over several edges ------------------------------------------------------------------------------------------------


def _there_and_back(middle: Callable[[Model], Model], last: Callable[[Model], Model]) -> Callable[[], Builder]:
    def chain() -> Builder:
        model = little()
        return line([model, middle(model), last(model)])

    return chain


read(
    "fit-dropped-and-added-again",
    area=AREA,
    level="chain",
    title="A tensor that one edge drops and the next adds starts with zero words, not with those before",
    requirements=["TD-FIT-001", "TD-FIT-002"],
    chain=_there_and_back(
        lambda model: _without(model, "b.bias"), lambda model: model | {"b.bias": tensor("F32", (5,), [0, 0, 1, 0, 0])}
    ),
    to=2,
)
read(
    "fit-reshaped-and-back",
    area=AREA,
    level="chain",
    title="A tensor that one edge reshapes and the next shapes as it was has zero words where none is listed",
    requirements=["TD-FIT-002"],
    chain=_there_and_back(
        lambda model: model | {"a.weight": tensor("BF16", (24,))},
        lambda model: model | {"a.weight": tensor("BF16", (4, 6), [0] * 20 + [0x3F80] * 4)},
    ),
    to=2,
)
read(
    "fit-several-layouts-from-nothing",
    area=AREA,
    level="chain",
    title="A route from nothing over three layouts",
    requirements=["TD-FIT-001", "TD-FIT-002", "TD-FIT-003"],
    chain=lambda: line(
        [
            little(),
            little() | _others(2),
            _without(little(), "c.ids") | _others(2) | {"b.bias": tensor("F32", (1, 5), 7)},
            little(3),
        ]
    ),
    held=None,
    to=3,
)
