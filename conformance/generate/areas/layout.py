"""Layouts (SPEC.md sections 3.2, 3.3 and 4.6), most of them of a full version."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from generate.builder import Builder, identity, nothing, of_chunks
from generate.codecs import full_chunks
from generate.edits import Area, members_of
from generate.model import Model, Random, random_tensor, small, stepped, tensor
from generate.standard import replaced, setting, standard, standard_models

Z = {"z": tensor("U8", (4,))}
"""The last tensor of the layout. All its words are 0, so a case changes nothing but the layout."""


def full_version(
    added: Model = Z,
    layout: Callable[[dict[str, Any]], Any] = nothing,
    layout_text: Callable[[bytes], bytes] = identity,
    after: Callable[[Builder], Any] = nothing,
) -> Builder:
    """A full version of the standard tensors and of `added`; `layout` changes the layout's document."""
    model = standard_models()[0] | added
    builder = Builder()
    name = builder.layout(model, hook=layout, text=layout_text)
    builder.edge(0, model, [of_chunks(full_chunks(model), name)], layout=name)
    after(builder)
    return builder


def two_states(seed: str, tensors: Mapping[str, tuple[str, tuple[int, ...]]], share: float = 0.1) -> Builder:
    """A full version of random words and a delta; `tensors` has the dtype and the shape of each tensor."""
    rng = Random(seed)
    model = {name: random_tensor(rng, dtype, shape) for name, (dtype, shape) in tensors.items()}
    builder = Builder()
    builder.full(0, model)
    builder.delta(1, stepped(rng, model, share), 0)
    return builder


FULL = {"to": 0, "held": None}
case = Area("layout", full_version, "layout-with-zeros", FULL)
z = Area("layout", members_of("layout", lambda document: document["tensors"][-1], full_version), case.twin, FULL)
delta = Area("layout", two_states)

case(
    "layout-with-zeros",
    "LAY-001 FIT-003",
    "A full version with a tensor of which all words are 0, which no chunk lists",
).good()

# -- names -------------------------------------------------------------------------------------------------------------

case(
    "layout-names-in-the-order-of-bytes",
    "LAY-002 TRM-003",
    "Names whose order by UTF-8 bytes is not that by UTF-16 units, by letters or by shorter parts",
).good(
    added={
        name: random_tensor(Random(name), "U8", (2,))
        for name in ("z", "z.", "z.-", "Z", "é", "\uffff", "\U00010000", "\ue000")
    }
)
delta(
    "layout-names-equal-but-for-normalisation",
    "TRM-003 LAY-002",
    "A letter with an accent, and the letter followed by the accent, are two tensors",
).good(seed="accents", tensors=dict.fromkeys(("é", "e\u0301", "\u212b", "\u00c5"), ("U8", (3,))))

BY_UNITS = {"\uffff": tensor("U8", (2,)), "\U00010000": tensor("U8", (2,))}
"""Two tensors whose order by UTF-8 bytes is not that by UTF-16 units."""


def swapped(document: dict[str, Any]) -> None:
    document["tensors"][-2:] = document["tensors"][:-3:-1]


case(
    "layout-of-two-new-tensors", "LAY-002", "A layout with two more tensors, whose names are ascending by UTF-8 bytes"
).good(added=BY_UNITS)
case(
    "layout-names-descending",
    "LAY-002",
    "Two tensors that stand in the order of UTF-16 units, which is not that of UTF-8 bytes",
).bad(twin="layout-of-two-new-tensors", added=BY_UNITS, layout=swapped)
z("layout-name-before-the-first", "LAY-002", "A tensor at the end of the list whose name comes before all others").bad(
    name="Z"
)
z("layout-names-equal", "LAY-002", "A tensor with the name of the one before it").bad(name="d.mask")
case("layout-name-empty", "LAY-003", "A tensor with an empty name").bad(added={"": tensor("U8", (4,))})
z("layout-name-1025-bytes", "LAY-003", "A tensor name of 1025 bytes in 513 characters").bad(name="z" + "é" * 512)
case("layout-name-metadata", "LAY-004", "A tensor named `__metadata__`").bad(added={"__metadata__": tensor("U8", (4,))})
case("layout-name-of-1024-bytes", "LAY-003 LIM-005", "A tensor name of 1024 bytes, and one of one byte").good(
    added={"zz" + "é" * 511: tensor("U8", (4,), 7), "A": tensor("U8", (1,), 9)}
)
delta(
    "layout-names-of-any-characters",
    "LAY-003",
    "Names with a slash, a line feed, quotation marks, a NUL, and one that is a number",
).good(
    seed="odd names",
    tensors=dict.fromkeys(
        ('a/b c\n"\\', "../up", "0.gaps", "\0", " ", "7", "__metadata__x", "metadata", "\ufeffbom"), ("U8", (2,))
    ),
)
z("layout-name-number", "JSN-012", "A tensor whose name is a number").bad(name=7)

# -- dtypes ------------------------------------------------------------------------------------------------------------

for slug, title, dtype in (
    ("layout-dtype-unknown", "A tensor of dtype F128", "F128"),
    ("layout-dtype-lower-case", "A tensor of dtype u8 in lower case", "u8"),
    ("layout-dtype-empty", "A tensor whose dtype is an empty string", ""),
):
    z(slug, "WRD-004", title).bad("unsupported", dtype=dtype)
z("layout-dtype-null", "JSN-012", "A tensor whose dtype is null").bad(dtype=None)
for slug, title, dtype, dimensions in (
    ("layout-odd-f4", "Three elements of F4 make 12 bits", "F4", [3]),
    ("layout-odd-f6-e2m3", "Six elements of F6_E2M3 make 36 bits", "F6_E2M3", [2, 3]),
    ("layout-odd-f6-e3m2", "Two elements of F6_E3M2 make 12 bits", "F6_E3M2", [2]),
    ("layout-scalar-f4", "A scalar of F4 makes 4 bits", "F4", []),
):
    z(slug, "WRD-005", title).bad(dtype=dtype, shape=dimensions)
delta("layout-packed-dtypes", "WRD-005 WRD-006", "Packed tensors whose rows end inside a byte, but not the whole").good(
    seed="packed",
    tensors={
        "f4": ("F4", (2, 3)),
        "f4.none": ("F4", (0, 3)),
        "f6.e2m3": ("F6_E2M3", (4, 3)),
        "f6.e3m2": ("F6_E3M2", (4,)),
    },
    share=0.5,
)

# -- shapes ------------------------------------------------------------------------------------------------------------

z("layout-rank-17", "LAY-001 LIM-004", "A shape of 17 dimensions").bad("limit", shape=[1] * 16 + [4])
z("layout-dimension-2-48-and-one", "LAY-001", "A dimension of 2^48 + 1 in a shape without elements").bad(
    "limit", shape=[0, 2**48 + 1]
)
for slug, title, dimensions in (
    ("layout-product-too-great", "Dimensions whose product is 3 * 2^47", [2**47, 3]),
    ("layout-product-too-great-with-a-0", "Dimensions whose product without the 0 is 3 * 2^47", [2**47, 0, 3]),
    ("layout-product-2-64-with-a-0", "Dimensions whose product without the 0 is 2^64", [2**32, 0, 2**32]),
    ("layout-product-2-64", "Dimensions whose product is 2^64, which is 0 in 64 bits", [2**32, 2**32]),
):
    z(slug, "LAY-007", title).bad("limit", shape=dimensions)
z("layout-shape-negative", "JSN-009", "A dimension of -4").bad(shape=[-4])
z("layout-shape-number", "JSN-012", "A shape that is a number").bad(shape=4)
z("layout-shape-of-strings", "JSN-012", "A shape of strings").bad(shape=["4"])
z("layout-shape-nested", "JSN-012", "A shape in a shape").bad(shape=[[4]])
z(
    "layout-dimension-2-53",
    "JSN-010",
    "A dimension of 2^53, which is no integer of this format, where 2^49 is beyond a limit",
).bad(shape=[0, 2**53])
delta(
    "layout-shapes-at-the-limits",
    "LIM-005 LAY-006 LAY-007",
    "A shape of 16 dimensions, and shapes without elements whose other dimensions have the product 2^48",
).good(
    seed="shapes",
    tensors={"a": ("U8", (2, 1) * 8), "none": ("F64", (0, 1 << 48)), "none.too": ("U8", (1 << 24, 0, 1 << 24))},
)

SCALARS: dict[str, Any] = {
    "seed": "scalars",
    "tensors": {
        "none": ("BF16", (0,)),
        "none.wide": ("F32", (3, 0, 1 << 20)),
        "one": ("F32", ()),
        "one.deep": ("F64", (1,) * 4),
        "scalar": ("U8", ()),
    },
}
delta(
    "layout-scalars-and-tensors-without-elements",
    "LAY-006",
    "Tensors of shape [] and tensors with a dimension 0 in a full version",
).good(to=0, held=None, **SCALARS)
delta(
    "layout-scalars-in-a-delta", "LAY-006", "A delta over tensors of shape [] beside tensors with a dimension 0"
).good(**SCALARS)

# -- the object --------------------------------------------------------------------------------------------------------

case("layout-without-tensors", "JSN-011", "A layout without `tensors`").bad(layout=lambda d: d.pop("tensors"))
case("layout-tensors-of-another-type", "JSN-012", "A layout whose `tensors` is an object").bad(
    layout=setting(tensors={})
)
case("layout-entry-of-another-type", "JSN-012", "A layout with a string for a tensor").bad(
    layout=lambda document: document["tensors"].__setitem__(-1, "z")
)
for member in ("name", "dtype", "shape"):
    z(f"layout-entry-without-{member}", "JSN-011", f"A tensor entry without `{member}`").bad(drop=member)
case("layout-format-2", "VER-002", "A layout of format 2.0").bad("unsupported", layout=setting(tensordelta="2.0"))


def layout_name(builder: Builder) -> str:
    return f"layouts/{builder.manifests[0]['layout']}.json"


def altered(how: Callable[[bytes], bytes]) -> Builder:
    """The bytes of the layout's object differ from those that its name is the digest of."""
    return full_version(after=lambda builder: builder.change(layout_name(builder), how))


stored = Area("layout", altered, case.twin, FULL, "integrity")
stored("layout-altered", "LAY-008", "A layout object in which the last dimension differs from what was published").bad(
    how=replaced(b'"shape":[4]', b'"shape":[5]')
)
stored("layout-truncated", "LAY-008", "A layout object without its last byte").bad(how=lambda data: data[:-1])
stored("layout-longer", "LAY-008", "A layout object with a space more").bad(how=lambda data: data + b" ")
stored("layout-of-another-state", "LAY-008", "A layout object that holds another layout, of four tensors").bad(
    how=lambda _: next(data for name, data in standard().objects.items() if name.startswith("layouts/"))
)
case("layout-missing", "LAY-009", "A manifest whose layout object does not exist").bad(
    "missing", after=lambda builder: builder.remove(layout_name(builder))
)
Area("layout")(
    "layout-in-other-bytes",
    "TRM-002 JSN-013",
    "A layout with the list of its base's, but with other white space and unknown fields",
).good(
    layout=lambda document: document["tensors"][0].update(colour=None),
    layout_text=lambda data: b"\n" + data.replace(b",", b" , ") + b"\n",
)


def empty() -> Builder:
    """Version 0 has no tensors, 1 has some, 2 has none, and 3 has those of 1 with all words 0."""
    rng = Random("empty")
    builder = Builder()
    builder.full(0, {})
    model = small(rng)
    builder.delta(1, model, 0)
    builder.delta(2, {}, 1)
    builder.full(3, {name: tensor(each.dtype, each.shape) for name, each in model.items()})
    return builder


around_empty = Area("layout", empty)
around_empty("layout-without-any-tensors", "LAY-005 MAN-007", "A full version of the empty state").good(to=0, held=None)
around_empty("layout-from-nothing-to-something", "LAY-005", "A delta from the empty state").good(level="chain")
around_empty("layout-from-something-to-nothing", "LAY-005 FIT-001", "A delta to the empty state").good(
    to=2, held=1, level="chain"
)
around_empty(
    "layout-of-zeros", "MAN-007 FIT-002", "A full version of tensors of which all words are 0 needs no pack"
).good(to=3, held=None)
