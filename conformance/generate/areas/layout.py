"""Layouts (SPEC.md sections 3.2, 3.3 and 4.6), most of them of a full version."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from generate.builder import Builder, identity, nothing, of_chunks
from generate.cases import read, reject
from generate.codecs import full_chunks
from generate.model import Model, Random, Tensor, random_tensor, small, stepped, tensor
from generate.standard import setting, standard, standard_models

AREA = "layout"


def _with(
    *added: tuple[str, Tensor],
    layout: Callable[[dict[str, Any]], Any] = nothing,
    layout_text: Callable[[bytes], bytes] = identity,
    after: Callable[[Builder], Any] = nothing,
) -> Callable[[], Builder]:
    """A full version with more tensors, of which all words are 0; its layout is changed as its entries say."""

    def build() -> Builder:
        model = standard_models()[0] | dict(added)
        builder = Builder()
        name = builder.layout(model, hook=layout, text=layout_text)
        builder.edge(0, model, [of_chunks(full_chunks(model), name)], layout=name)
        after(builder)
        return builder

    return build


def _with_z(**how: Any) -> Callable[[], Builder]:
    return _with(("z", tensor("U8", (4,))), **how)


def _bad(
    slug: str,
    rule: str | Sequence[str],
    title: str,
    chain: Callable[[], Builder],
    error: str = "malformed",
    twin: str = "layout-with-zeros",
) -> None:
    rules = [rule] if isinstance(rule, str) else rule
    reject(slug, area=AREA, title=title, requirements=rules, chain=chain, error=error, twin=twin, to=0, held=None)


def _z(**members: Any) -> Callable[[], Builder]:
    """Members of the entry of the tensor z are others. All its words are 0, so that nothing else has to differ."""
    return _with_z(layout=lambda document: document["tensors"][-1].update(members))


def _without_z(member: str) -> Callable[[], Builder]:
    return _with_z(layout=lambda document: document["tensors"][-1].pop(member))


def _good(slug: str, rules: list[str], title: str, chain: Callable[[], Builder]) -> None:
    read(slug, area=AREA, title=title, requirements=rules, chain=chain, to=0, held=None)


_good(
    "layout-with-zeros",
    ["TD-LAY-001", "TD-FIT-003"],
    "A full version with a tensor of which all words are 0, which no chunk lists",
    _with_z(),
)

# -- names -------------------------------------------------------------------------------------------------------------

_good(
    "layout-names-in-the-order-of-bytes",
    ["TD-LAY-002", "TD-TRM-003"],
    "Names whose order by UTF-8 bytes is not that by UTF-16 units, by letters or by shorter parts",
    _with(
        *(
            (name, random_tensor(Random(name), "U8", (2,)))
            for name in ("z", "z.", "z.-", "Z", "é", "\uffff", "\U00010000", "\ue000")
        )
    ),
)
read(
    "layout-names-equal-but-for-normalisation",
    area=AREA,
    title="A letter with an accent, and the letter followed by the accent, are two tensors",
    requirements=["TD-TRM-003", "TD-LAY-002"],
    chain=lambda: _accents(),
)


def _accents() -> Builder:
    rng = Random("accents")
    model = {name: random_tensor(rng, "U8", (3,)) for name in ("é", "e\u0301", "\u212b", "\u00c5")}
    builder = Builder()
    builder.full(0, model)
    builder.delta(1, stepped(rng, model), 0)
    return builder


def _swapped(document: dict[str, Any]) -> None:
    document["tensors"][-2:] = document["tensors"][:-3:-1]


def _pair(first: str, second: str, **how: Any) -> Callable[[], Builder]:
    return _with((first, tensor("U8", (2,))), (second, tensor("U8", (2,))), **how)


_good(
    "layout-of-two-new-tensors",
    ["TD-LAY-002"],
    "A layout with two more tensors, whose names are ascending by UTF-8 bytes",
    _pair("\uffff", "\U00010000"),
)
_bad(
    "layout-names-descending",
    "TD-LAY-002",
    "Two tensors that stand in the order of UTF-16 units, which is not that of UTF-8 bytes",
    _pair("\uffff", "\U00010000", layout=_swapped),
    twin="layout-of-two-new-tensors",
)
_bad(
    "layout-name-before-the-first",
    "TD-LAY-002",
    "A tensor at the end of the list whose name comes before all others",
    _z(name="Z"),
)
_bad("layout-names-equal", "TD-LAY-002", "A tensor with the name of the one before it", _z(name="d.mask"))
_bad(
    "layout-name-empty",
    "TD-LAY-003",
    "A tensor with an empty name",
    _with(("", tensor("U8", (4,)))),
)
_bad("layout-name-1025-bytes", "TD-LAY-003", "A tensor name of 1025 bytes in 513 characters", _z(name="z" + "é" * 512))
_bad("layout-name-metadata", "TD-LAY-004", "A tensor named `__metadata__`", _with(("__metadata__", tensor("U8", (4,)))))
_good(
    "layout-name-of-1024-bytes",
    ["TD-LAY-003", "TD-LIM-005"],
    "A tensor name of 1024 bytes, and one of one byte",
    _with(("zz" + "é" * 511, tensor("U8", (4,), 7)), ("A", tensor("U8", (1,), 9))),
)
read(
    "layout-names-of-any-characters",
    area=AREA,
    title="Names with a slash, a line feed, quotation marks, a NUL, and one that is a number",
    requirements=["TD-LAY-003"],
    chain=lambda: _odd_names(),
)


def _odd_names() -> Builder:
    rng = Random("odd names")
    names = ('a/b c\n"\\', "../up", "0.gaps", "\0", " ", "7", "__metadata__x", "metadata", "\ufeffbom")
    model = {name: random_tensor(rng, "U8", (2,)) for name in names}
    builder = Builder()
    builder.full(0, model)
    builder.delta(1, stepped(rng, model), 0)
    return builder


_bad("layout-name-number", "TD-JSN-012", "A tensor whose name is a number", _z(name=7))

# -- dtypes ------------------------------------------------------------------------------------------------------------

_bad("layout-dtype-unknown", "TD-WRD-004", "A tensor of dtype F128", _z(dtype="F128"), "unsupported")
_bad("layout-dtype-lower-case", "TD-WRD-004", "A tensor of dtype u8 in lower case", _z(dtype="u8"), "unsupported")
_bad("layout-dtype-empty", "TD-WRD-004", "A tensor whose dtype is an empty string", _z(dtype=""), "unsupported")
_bad("layout-dtype-null", "TD-JSN-012", "A tensor whose dtype is null", _z(dtype=None))
_bad("layout-odd-f4", "TD-WRD-005", "Three elements of F4 make 12 bits", _z(dtype="F4", shape=[3]))
_bad("layout-odd-f6-e2m3", "TD-WRD-005", "Six elements of F6_E2M3 make 36 bits", _z(dtype="F6_E2M3", shape=[2, 3]))
_bad("layout-odd-f6-e3m2", "TD-WRD-005", "Two elements of F6_E3M2 make 12 bits", _z(dtype="F6_E3M2", shape=[2]))
_bad("layout-scalar-f4", "TD-WRD-005", "A scalar of F4 makes 4 bits", _z(dtype="F4", shape=[]))
read(
    "layout-packed-dtypes",
    area=AREA,
    title="Packed tensors whose rows end inside a byte, but not the whole",
    requirements=["TD-WRD-005", "TD-WRD-006"],
    chain=lambda: _packed(),
)


def _packed() -> Builder:
    rng = Random("packed")
    model = {
        "f4": random_tensor(rng, "F4", (2, 3)),
        "f4.none": random_tensor(rng, "F4", (0, 3)),
        "f6.e2m3": random_tensor(rng, "F6_E2M3", (4, 3)),
        "f6.e3m2": random_tensor(rng, "F6_E3M2", (4,)),
    }
    builder = Builder()
    builder.full(0, model)
    builder.delta(1, stepped(rng, model, 0.5), 0)
    return builder


# -- shapes ------------------------------------------------------------------------------------------------------------

_bad("layout-rank-17", ["TD-LAY-001", "TD-LIM-004"], "A shape of 17 dimensions", _z(shape=[1] * 16 + [4]), "limit")
_bad(
    "layout-dimension-2-48-and-one",
    "TD-LAY-001",
    "A dimension of 2^48 + 1 in a shape without elements",
    _z(shape=[0, 2**48 + 1]),
    "limit",
)
_bad(
    "layout-product-too-great",
    "TD-LAY-007",
    "Dimensions whose product is 3 * 2^47",
    _z(shape=[2**47, 3]),
    "limit",
)
_bad(
    "layout-product-too-great-with-a-0",
    "TD-LAY-007",
    "Dimensions whose product without the 0 is 3 * 2^47",
    _z(shape=[2**47, 0, 3]),
    "limit",
)
_bad(
    "layout-product-2-64",
    "TD-LAY-007",
    "Dimensions whose product is 2^64, which is 0 in 64 bits",
    _z(shape=[2**32, 2**32]),
    "limit",
)
_bad(
    "layout-dimension-2-53",
    "TD-JSN-010",
    "A dimension of 2^53, which is no integer of this format, where 2^49 is beyond a limit",
    _z(shape=[0, 2**53]),
)
_bad("layout-shape-negative", "TD-JSN-009", "A dimension of -4", _z(shape=[-4]))
_bad("layout-shape-number", "TD-JSN-012", "A shape that is a number", _z(shape=4))
_bad("layout-shape-of-strings", "TD-JSN-012", "A shape of strings", _z(shape=["4"]))
_bad("layout-shape-nested", "TD-JSN-012", "A shape in a shape", _z(shape=[[4]]))
read(
    "layout-shapes-at-the-limits",
    area=AREA,
    title="A shape of 16 dimensions, and shapes without elements whose other dimensions have the product 2^48",
    requirements=["TD-LIM-005", "TD-LAY-006", "TD-LAY-007"],
    chain=lambda: _shapes(),
)


def _shapes() -> Builder:
    rng = Random("shapes")
    model = {
        "a": random_tensor(rng, "U8", (2, 1) * 8),
        "none": tensor("F64", (0, 1 << 48)),
        "none.too": tensor("U8", (1 << 24, 0, 1 << 24)),
    }
    builder = Builder()
    builder.full(0, model)
    builder.delta(1, stepped(rng, model), 0)
    return builder


read(
    "layout-scalars-and-tensors-without-elements",
    area=AREA,
    title="Tensors of shape [] and tensors with a dimension 0 in a full version",
    requirements=["TD-LAY-006"],
    chain=lambda: _scalars(),
    to=0,
    held=None,
)
read(
    "layout-scalars-in-a-delta",
    area=AREA,
    title="A delta over tensors of shape [] beside tensors with a dimension 0",
    requirements=["TD-LAY-006"],
    chain=lambda: _scalars(),
)


def _scalars() -> Builder:
    rng = Random("scalars")
    model: Model = {
        "none": tensor("BF16", (0,)),
        "none.wide": tensor("F32", (3, 0, 1 << 20)),
        "one": random_tensor(rng, "F32", ()),
        "one.deep": random_tensor(rng, "F64", (1,) * 4),
        "scalar": random_tensor(rng, "U8", ()),
    }
    builder = Builder()
    builder.full(0, model)
    builder.delta(1, stepped(rng, model), 0)
    return builder


# -- the object --------------------------------------------------------------------------------------------------------

_bad("layout-without-tensors", "TD-JSN-011", "A layout without `tensors`", _with_z(layout=lambda d: d.pop("tensors")))
_bad(
    "layout-tensors-of-another-type",
    "TD-JSN-012",
    "A layout whose `tensors` is an object",
    _with_z(layout=setting(tensors={})),
)
_bad(
    "layout-entry-of-another-type",
    "TD-JSN-012",
    "A layout with a string for a tensor",
    _with_z(layout=lambda document: document["tensors"].__setitem__(-1, "z")),
)
for _member in ("name", "dtype", "shape"):
    _bad(f"layout-entry-without-{_member}", "TD-JSN-011", f"A tensor entry without `{_member}`", _without_z(_member))
_bad(
    "layout-format-2", "TD-VER-002", "A layout of format 2.0", _with_z(layout=setting(tensordelta="2.0")), "unsupported"
)


def _layout_object(how: Callable[[bytes], bytes] | None) -> Callable[[], Builder]:
    """Alter the layout's object, or lose it."""

    def after(builder: Builder) -> None:
        name = f"layouts/{builder.manifests[0]['layout']}.json"
        if how is None:
            builder.remove(name)
        else:
            builder.change(name, how)

    return _with_z(after=after)


_bad(
    "layout-altered",
    "TD-LAY-008",
    "A layout object in which the last dimension differs from what was published",
    _layout_object(lambda data: data.replace(b'"shape":[4]', b'"shape":[5]')),
    "integrity",
)
_bad(
    "layout-truncated",
    "TD-LAY-008",
    "A layout object without its last byte",
    _layout_object(lambda d: d[:-1]),
    "integrity",
)
_bad(
    "layout-longer", "TD-LAY-008", "A layout object with a space more", _layout_object(lambda d: d + b" "), "integrity"
)
_bad(
    "layout-of-another-state",
    "TD-LAY-008",
    "A layout object that holds another layout, of four tensors",
    _layout_object(lambda _: next(data for name, data in standard().objects.items() if name.startswith("layouts/"))),
    "integrity",
)
_bad("layout-missing", "TD-LAY-009", "A manifest whose layout object does not exist", _layout_object(None), "missing")


read(
    "layout-in-other-bytes",
    area=AREA,
    title="A layout with the list of its base's, but with other white space and unknown fields",
    requirements=["TD-TRM-002", "TD-JSN-013"],
    chain=lambda: standard(
        layout=lambda document: document["tensors"][0].update(colour=None),
        layout_text=lambda data: b"\n" + data.replace(b",", b" , ") + b"\n",
        last=False,
    ),
)
read(
    "layout-without-any-tensors",
    area=AREA,
    title="A full version of the empty state",
    requirements=["TD-LAY-005", "TD-MAN-007"],
    chain=lambda: _empty(),
    to=0,
    held=None,
)
read(
    "layout-from-nothing-to-something",
    area=AREA,
    title="A delta from the empty state",
    requirements=["TD-LAY-005"],
    chain=lambda: _empty(),
    level="chain",
)
read(
    "layout-from-something-to-nothing",
    area=AREA,
    title="A delta to the empty state",
    requirements=["TD-LAY-005", "TD-FIT-001"],
    chain=lambda: _empty(),
    to=2,
    held=1,
    level="chain",
)
read(
    "layout-of-zeros",
    area=AREA,
    title="A full version of tensors of which all words are 0 needs no pack",
    requirements=["TD-MAN-007", "TD-FIT-002"],
    chain=lambda: _empty(),
    to=3,
    held=None,
)


def _empty() -> Builder:
    rng = Random("empty")
    builder = Builder()
    builder.full(0, {})
    model = small(rng)
    builder.delta(1, model, 0)
    builder.delta(2, {}, 1)
    builder.full(3, {name: tensor(each.dtype, each.shape) for name, each in model.items()})
    return builder
