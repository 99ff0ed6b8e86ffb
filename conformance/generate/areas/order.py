"""Orders natural and exponent (SPEC.md sections 7.2 and 7.3)."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

from generate.builder import Builder, manifest_name
from generate.model import DTYPES, Model, Random, changed, random_tensor, tensor
from generate.pair import Part, chain, moved, moved_in, one
from generate.rows import Build, Rows, kebab

ROWS = Rows("order", level="reader-exponent", twin="exponent-worked-with-limit-256")
NATURAL, EXPONENT = "ORD-001", "ORD-002"
FLOATS = [dtype for dtype, (_, mask, _) in DTYPES.items() if mask]


def classes(dtype: str) -> int:
    """2^(exponent bits)."""
    _, mask, shift = DTYPES[dtype]
    return (mask >> shift) + 1


def natural(slug: str, title: str, rules: str, old: Model, new: Model, part: Part) -> None:
    """A chunk in order natural."""
    ROWS.read(f"natural-{slug}", title, rules, chain(old, new, part), level="reader-core")


def exponent(slug: str, title: str, old: Model | None, new: Model, part: Part) -> None:
    """A chunk in order exponent."""
    ROWS.read(f"exponent-{slug}", title, EXPONENT, chain(old, new, replace(part, order="exponent")), full=old is None)


def bf16(words: list[int], after: dict[int, int]) -> tuple[Model, Model]:
    """Words of BF16, and what becomes of some of them."""
    return one("BF16", words), moved(one("BF16", words), after)


# fmt: off
# -- natural -----------------------------------------------------------------------------------------------------------

THREE: Model = {
    "a": tensor("BF16", (4,), 0x3F80),
    "b": tensor("BF16", (20, 16), 0x3C00),
    "c": tensor("BF16", (4,), 0xBF80),
}
natural("worked", "The worked example of section 7.2: two words of one tensor, then four of the next", NATURAL,
    THREE, moved_in(THREE, b={319: 0x3C01}, c={0: 0xBF81, 3: 0xBF7E}),
    Part([("b", 318, 320), ("c", 0, 4)], hand={"gaps": "01 00 02", "codes": "25"}))
FOUR: Model = {f"t{number}": tensor("U8", (5 + number,), number) for number in range(4)}
natural("over-four-tensors", "A chunk over four whole tensors; first and last words of them are listed", NATURAL,
    FOUR, moved_in(FOUR, t0={4: 90}, t1={0: 91}, t2={6: 92}, t3={7: 93}),
    Part([(name, 0, len(each.words)) for name, each in FOUR.items()],
        values="replace", hand={"gaps": "04 00 0b 07", "values.0": "5a 5b 5c 5d"}))
LINE = one("U16", range(40))
natural("over-adjacent-slices", "Slices that are adjacent in one tensor", f"CHK-006 {NATURAL}",
    LINE, moved(LINE, {9: 0, 10: 0, 29: 0}),
    Part([("w", 0, 10), ("w", 10, 30), ("w", 30, 40)], values="replace", hand={"gaps": "09 00 12"}))
natural("over-slices-with-a-hole", "Slices of one tensor with words between them that no chunk has",
    f"{NATURAL} FIT-004", LINE, moved(LINE, {4: 9, 30: 9, 39: 9}),
    Part([("w", 4, 5), ("w", 30, 31), ("w", 39, 40)], positions="all", values="replace"))

# -- exponent: what the positions are, derived by hand -----------------------------------------------------------------

WORKED = bf16([0x3F80, 0x3C00, 0x0000, 0x3C10, 0xBF00], {0: 0x3F81, 3: 0x3C0F})
for limit, gaps, codes in ((121, "02 00", "04"), (120, "01 01", "01"), (256, "02 01", "04")):
    exponent(f"worked-with-limit-{limit}", f"The worked example of section 7.3 with limit {limit}",
        *WORKED, Part(limit=limit, hand={"gaps": gaps, "codes": codes}))
exponent("limit-1",
    "With limit 1 the words of key 0 come first, and the rest stay in natural order: 1, 3, 5, 0, 2, 4, 6",
    *bf16([0x3F80, 0x0000, 0x3C00, 0x8000, 0x4000, 0x0001, 0x0080], {0: 0x3F81, 3: 0x8001, 6: 0x0081}),
    Part(limit=1, hand={"gaps": "01 01 02"}))
for limit, order, gaps in ((255, "4, 5, 3, 2, 0, 1", "01 01 01"), (254, "4, 5, 3, 0, 1, 2", "01 02 00")):
    exponent(f"special-words-with-limit-{limit}",
        f"Infinity and NaN have key 255, -0 and subnormal words key 0; with limit {limit} the order is {order}",
        *bf16([0x7F80, 0xFFC1, 0x7F7F, 0x0080, 0x007F, 0x8000], {1: 0xFFC2, 2: 0x7F80, 5: 0x8001}),
        Part(limit=limit, hand={"gaps": gaps}))
exponent("is-stable", "Words of one exponent stay in natural order, whatever their signs and mantissas",
    *bf16([0x3FFF, 0xBFFE, 0x3FA0, 0xBF9F, 0x3F80, 0xBF80], {1: 0xBFFF, 4: 0x3F81}), Part(hand={"gaps": "01 02"}))
exponent("is-stable-in-two-classes", "Words of two exponents that take turns: the order is 1, 3, 5, 7, 0, 2, 4, 6",
    *bf16([0x3F80, 0x3F00, 0xBFFF, 0xBF7F, 0x3FAA, 0x3F55, 0x3F80, 0x3F00], {2: 0xBFFE, 5: 0x3F56, 6: 0x3F81}),
    Part(hand={"gaps": "02 02 01"}))
exponent("is-of-the-base",
    "The order 0, 2, 3, 1 is that of the words of the base; that of the new words would be 1, 3, 0, 2",
    *bf16([0x0000, 0x4000, 0x3000, 0x3F80], {0: 0x7E00, 1: 0x0001, 2: 0x7F00, 3: 0x3F81}),
    Part(hand={"gaps": "00 00 00 00", "codes": "df"}))
exponent("values-are-in-the-order-of-the-positions",
    "Three words whose order is turned round have their steps in that order",
    one("F32", [0x40000000, 0x3F800000, 0x3F000000]), one("F32", [0x40000001, 0x3F7FFFFF, 0x3EFFFFFE]),
    Part(hand={"gaps": "00 00 00", "codes": "12"}))
exponent("of-one-word", "A chunk of one word",
    one("F16", [0x3C00]), one("F16", [0x3C01]), Part(hand={"gaps": "00", "codes": "01"}))

# -- exponent: over several slices, and over words that fitting made ---------------------------------------------------

PAIR: Model = {
    "a": tensor("BF16", (4,), [0x0000, 0x4000, 0x3C00, 0x0000]),
    "b": tensor("BF16", (3,), [0x3F80, 0x3000, 0x0000]),
}
exponent("over-two-tensors",
    "Words of two tensors have one order: word 1 of the second, 2 of the first, 0 of the second, 1 of the first",
    PAIR, moved_in(PAIR, a={1: 0x4001, 2: 0x3C01}, b={1: 0x3001}),
    Part([("a", 1, 3), ("b", 0, 2)], hand={"gaps": "00 00 01"}))
exponent("over-adjacent-slices", "The order of two adjacent slices of one tensor is one order: 3, 1, 2, 0",
    *bf16([0x4000, 0x3C00, 0x3F80, 0x3000], {0: 0x4001, 3: 0x3001}),
    Part([("w", 0, 2), ("w", 2, 4)], hand={"gaps": "00 02"}))
HELD = one("BF16", [0x3F80, 0x3C00, 0x4000], "a")
exponent("over-a-new-tensor",
    "The words of a tensor that the base lacks have key 0, and come before those of the tensor that stayed",
    HELD, {**moved(HELD, {1: 0x3C01}, "a"), "b": tensor("BF16", (3,), [0, 0x3F80, 0])},
    Part([("a", 0, 3), ("b", 0, 3)], hand={"gaps": "01 01"}))
exponent("over-a-reshaped-tensor",
    "A tensor with another shape starts with zeros, so that the order is the natural one",
    HELD, {"a": tensor("BF16", (3, 1), [0x3F80, 0, 0x4001])}, Part(hand={"gaps": "00 01"}))
exponent("of-a-full-version", "In a full version all words have key 0, and the order is the natural one",
    None, one("F32", [0x40000000, 0, 0x3F800000]), Part(limit=1, hand={"gaps": "00 01"}))
WIDE = one("F8_E4M3", [number * number % 251 for number in range(70_000)])
exponent("of-70000-words", "A chunk of more words than 16 bits can number",
    WIDE, moved(WIDE, {place: int(WIDE["w"].words[place]) ^ 1 for place in range(699, 70_000, 700)}),
    Part(limit=12, shift=4))

for number, dtype in enumerate(FLOATS):
    rng, top = Random(800 + number), classes(dtype)
    old = {"a": random_tensor(rng, dtype, (30,)), "b": random_tensor(rng, dtype, (30,))}
    new = {name: changed(rng, each, 0.5) for name, each in old.items()}
    ROWS.read(f"exponent-of-{kebab(dtype)}", f"Order exponent in {dtype}, with the limits {top} and {top // 2}",
        f"{EXPONENT} ORD-004",
        chain(old, new, Part([("a", 0, 30)], order="exponent", limit=top),
            Part([("b", 0, 30)], order="exponent", limit=top // 2, positions="bitmap")))

# -- exponent: groups of slices ----------------------------------------------------------------------------------------

HALVES = Part([("w", 0, 2), ("w", 2, 5)], limit=121)
exponent("worked-in-two-groups", "The worked example of section 7.3 in two groups: the order is 1, 0, 2, 3, 4",
    *WORKED, replace(HALVES, groups=[1, 1], hand={"gaps": "01 01", "codes": "01"}))
exponent("in-one-group", "Groups may be given where there is one: the order is 2, 1, 3, 0, 4",
    *WORKED, replace(HALVES, groups=[2], hand={"gaps": "02 00", "codes": "04"}))
GROUPED: Model = {name: random_tensor(Random(60 + number), "BF16", (40,)) for number, name in enumerate("abcd")}
SLICES = [("a", 0, 40), ("b", 0, 10), ("b", 10, 40), ("c", 5, 33), ("d", 0, 40)]
for groups, text in (
    ([1, 1, 1, 1, 1], "each slice a group"), ([2, 3], "two groups, a tensor in both"), ([1, 3, 1], "three groups"),
    ([4, 1], "two groups, the last of one slice"),
):
    listed = {name: changed(Random(70), each, 0.3) for name, each in GROUPED.items()}
    outside = {place: int(GROUPED["c"].words[place]) for place in (*range(5), *range(33, 40))}
    new = moved(listed, outside, "c")
    slug = "-".join(map(str, groups))
    exponent(f"in-groups-of-{slug}", f"Five slices over four tensors, {text}, by gaps",
        GROUPED, new, Part(SLICES, groups=groups, limit=100))
    exponent(f"in-groups-of-{slug}-by-bitmap", f"Five slices over four tensors, {text}, by a bitmap",
        GROUPED, new, Part(SLICES, groups=groups, limit=256, positions="bitmap", compression="zstd"))
exponent("in-a-group-without-listed-words", "Of three groups the one in the middle has no listed word",
    GROUPED, moved_in(GROUPED, a={3: 1, 39: 2}, d={0: 3}),
    Part([(name, 0, 40) for name in "abd"], groups=[1, 1, 1]))
TWO_GROUPS = "exponent-worked-in-two-groups"
grouping: Any
for slug, title, rule, grouping in (
    ("one-too-few", "The groups have fewer slices than the chunk", "ORD-006", [1]),
    ("one-too-many", "The groups have more slices than the chunk", "ORD-006", [1, 1, 1]),
    ("greater", "The last group ends after the slices", "ORD-006", [1, 2]),
    ("with-zero", "A group has no slice", "ORD-006", [1, 0, 1]),
    ("none", "There are no groups", "ORD-006", []),
    ("null", "The groups are null", "CHK-013", None),
    ("a-number", "The groups are a number", "CHK-013", 2),
    ("of-strings", "A group is a string", "CHK-013", ["1", 1]),
    ("negative", "A group has -1 slices", "JSN-009", [-1, 3]),
    ("fractional", "A group has 1.0 slices", "JSN-009", [1.0, 1]),
):
    ROWS.reject(f"exponent-groups-{slug}", title, rule, chain(*WORKED, replace(HALVES, order="exponent", groups=[1, 1],
        entry={"order": {"codec": "exponent", "limit": 121, "groups": grouping}})), twin=TWO_GROUPS)
ROWS.reject("natural-with-groups", "Order natural has groups", "CHK-014",
    chain(*WORKED, replace(HALVES, entry={"order": {"codec": "natural", "groups": [1, 1]}})), twin=TWO_GROUPS)

# -- faults ------------------------------------------------------------------------------------------------------------

PART = Part(order="exponent")
SILENT = chain(*WORKED, PART, features=[])
ROWS.reject("exponent-without-its-feature",
    "A chunk has order exponent, and the manifest does not list exponent-order", "MAN-006", SILENT,
    verify=[{"error": ["malformed"], "object": [manifest_name(1), *SILENT().pack_names(1)]}])
members: dict[str, Any]
for slug, title, rule, members in (
    ("without-limit", "Order exponent has no limit", "CHK-013", {}),
    ("limit-null", "The limit is null", "CHK-013", {"limit": None}),
    ("limit-string", "The limit is a string", "CHK-013", {"limit": "256"}),
    ("limit-boolean", "The limit is true", "CHK-013", {"limit": True}),
    ("limit-fraction", "The limit is written 256.0", "JSN-009", {"limit": 256.0}),
    ("limit-negative", "The limit is -1", "JSN-009", {"limit": -1}),
    ("unknown-member", "Order exponent has a member beside limit", "CHK-014", {"limit": 256, "base": 0}),
):
    ROWS.reject(f"exponent-{slug}", title, rule,
        chain(*WORKED, replace(PART, entry={"order": {"codec": "exponent", **members}})))
ROWS.reject("exponent-position-past-the-end", "The last position in order exponent is n", "POS-005",
    chain(*WORKED, replace(PART, streams={"gaps": "02 02"})))
for dtype in ("F8_E4M3", "F16", "BF16", "F64"):
    top, sound = classes(dtype), f"greatest-limit-of-{kebab(dtype)}"
    old = one(dtype, [64, 8, 0, 72, 1 << DTYPES[dtype][2]])
    new = moved(old, {0: 65, 3: 73})
    exponent(sound, f"The greatest limit of {dtype} is {top}", old, new, Part(limit=top))
    # A reader without the check takes these limits for the greatest one, and for none at all.
    for slug, limit in (("too-great", top + 1), ("zero", 0)):
        ROWS.reject(f"exponent-limit-{slug}-for-{kebab(dtype)}", f"The limit is {limit} in {dtype}", "ORD-004",
            chain(old, new, replace(PART, limit=limit)), twin=f"exponent-{sound}")
for dtype in (dtype for dtype in DTYPES if dtype not in FLOATS):
    old = {"w": tensor(dtype, (8,), 9)}
    new = moved(old, {1: 10, 2: 8})
    ROWS.read(f"natural-of-{kebab(dtype)}",
        f"Order natural in {dtype}, while the manifest lists a feature that it does not use", f"{NATURAL} MAN-005",
        chain(old, new, Part(), features=["exponent-order"]))
    # Every word would have key 0, so that a reader without the check takes the natural order.
    ROWS.reject(f"exponent-of-{kebab(dtype)}", f"Order exponent in {dtype}, which has no exponent", "ORD-003",
        chain(old, new, Part(entry={"order": {"codec": "exponent", "limit": 1}}), features=["exponent-order"]),
        twin=f"natural-of-{kebab(dtype)}")

# -- limits ------------------------------------------------------------------------------------------------------------


def wide(*ends: int, **order: Any) -> Build:
    """A full version of a tensor of 2^24 + 1 words, of which the chunk has slices with these ends."""
    def build() -> Builder:
        new = moved(one("F8_E4M3", (1 << 24) + 1), {3: 1})
        slices = [[0, start, stop] for start, stop in pairwise((0, *ends))]
        entry = {"slices": slices, "order": {"codec": "exponent", "limit": 16, **order}}
        return chain(None, new, Part([("w", 0, 4)], entry=entry), features=["exponent-order"])()

    return build


ROWS.read("exponent-of-2-24-words", "A chunk in order exponent has 2^24 words", "LIM-005 ORD-005",
    wide(1 << 24), full=True, flags=["huge"])
ROWS.reject("exponent-of-2-24-words-and-one", "A chunk in order exponent has 2^24 + 1 words", "ORD-005",
    wide((1 << 24) + 1), "limit", "exponent-of-2-24-words", full=True)
ROWS.read("exponent-of-2-24-words-and-one-in-two-groups",
    "A chunk in order exponent has 2^24 + 1 words, in two groups that have fewer", "LIM-005 ORD-005",
    wide(5, (1 << 24) + 1, groups=[1, 1]), full=True, flags=["huge"])
ROWS.reject("exponent-of-2-24-words-and-one-in-one-of-two-groups", "A group in order exponent has 2^24 + 1 words",
    "ORD-005", wide((1 << 24) + 1, groups=[1]), "limit", "exponent-of-2-24-words", full=True)
