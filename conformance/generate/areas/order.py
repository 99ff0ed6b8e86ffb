"""Orders natural and exponent (SPEC.md sections 7.2 and 7.3)."""

from __future__ import annotations

from dataclasses import replace

from generate.builder import Builder, manifest_name
from generate.cases import read, reject
from generate.codecs import Slice
from generate.model import DTYPES, Model, Random, changed, random_tensor, tensor
from generate.pair import Build, Part, chain, moved, one

AREA = "order"
NATURAL, EXPONENT = "TD-ORD-001", "TD-ORD-002"
FLOATS = [dtype for dtype, (_, mask, _) in DTYPES.items() if mask]


def classes(dtype: str) -> int:
    """2^(exponent bits)."""
    _, mask, shift = DTYPES[dtype]
    return (mask >> shift) + 1


def _natural() -> None:
    two: Model = {
        "a": tensor("BF16", (4,), 0x3F80),
        "b": tensor("BF16", (20, 16), 0x3C00),
        "c": tensor("BF16", (4,), 0xBF80),
    }
    slices: list[Slice] = [("b", 318, 320), ("c", 0, 4)]
    after = moved(moved(two, {319: 0x3C01}, "b"), {0: 0xBF81, 3: 0xBF7E}, "c")
    read(
        "natural-worked",
        area=AREA,
        title="The worked example of section 7.2: two words of one tensor, then four of the next",
        requirements=[NATURAL],
        chain=chain(two, after, Part(slices, hand={"gaps": "01 00 02", "codes": "25"})),
    )
    many: Model = {f"t{number}": tensor("U8", (5 + number,), number) for number in range(4)}
    last = moved(moved(moved(moved(many, {4: 90}, "t0"), {0: 91}, "t1"), {6: 92}, "t2"), {7: 93}, "t3")
    whole: list[Slice] = [(name, 0, len(each.words)) for name, each in many.items()]
    read(
        "natural-over-four-tensors",
        area=AREA,
        title="A chunk over four whole tensors; first and last words of them are listed",
        requirements=[NATURAL],
        chain=chain(many, last, Part(whole, values="replace", hand={"gaps": "04 00 0b 07", "values.0": "5a 5b 5c 5d"})),
    )
    line = one("U16", range(40))
    read(
        "natural-over-adjacent-slices",
        area=AREA,
        title="Slices that are adjacent in one tensor",
        requirements=["TD-CHK-006", NATURAL],
        chain=chain(
            line,
            moved(line, {9: 0, 10: 0, 29: 0}),
            Part([("w", 0, 10), ("w", 10, 30), ("w", 30, 40)], values="replace", hand={"gaps": "09 00 12"}),
        ),
    )
    read(
        "natural-over-slices-with-a-hole",
        area=AREA,
        title="Slices of one tensor with words between them that no chunk has",
        requirements=[NATURAL, "TD-FIT-004"],
        chain=chain(
            line,
            moved(line, {4: 9, 30: 9, 39: 9}),
            Part([("w", 4, 5), ("w", 30, 31), ("w", 39, 40)], positions="all", values="replace"),
        ),
    )


def exponent(slug: str, title: str, old: Model | None, new: Model, part: Part) -> Build:
    """Register a valid case of order exponent; gives its chain."""
    build = chain(old, new, replace(part, order="exponent"))
    read(
        slug,
        area=AREA,
        title=title,
        requirements=[EXPONENT],
        chain=build,
        level="reader-exponent",
        to=0 if old is None else 1,
        held=None if old is None else 0,
    )
    return build


def _exponent() -> None:
    """What the positions are, derived by hand."""
    old = one("BF16", [0x3F80, 0x3C00, 0x0000, 0x3C10, 0xBF00])
    new = moved(old, {0: 0x3F81, 3: 0x3C0F})
    for limit, gaps, codes in ((121, "02 00", "04"), (120, "01 01", "01"), (256, "02 01", "04")):
        exponent(
            f"exponent-worked-with-limit-{limit}",
            f"The worked example of section 7.3 with limit {limit}",
            old,
            new,
            Part(limit=limit, hand={"gaps": gaps, "codes": codes}),
        )
    old = one("BF16", [0x3F80, 0x0000, 0x3C00, 0x8000, 0x4000, 0x0001, 0x0080])
    exponent(
        "exponent-limit-1",
        "With limit 1 the words of key 0 come first, and the rest stay in natural order: 1, 3, 5, 0, 2, 4, 6",
        old,
        moved(old, {0: 0x3F81, 3: 0x8001, 6: 0x0081}),
        Part(limit=1, hand={"gaps": "01 01 02"}),
    )
    old = one("BF16", [0x7F80, 0xFFC1, 0x7F7F, 0x0080, 0x007F, 0x8000])
    new = moved(old, {1: 0xFFC2, 2: 0x7F80, 5: 0x8001})
    for limit, order, gaps in ((255, "4, 5, 3, 2, 0, 1", "01 01 01"), (254, "4, 5, 3, 0, 1, 2", "01 02 00")):
        exponent(
            f"exponent-special-words-with-limit-{limit}",
            f"Infinity and NaN have key 255, -0 and subnormal words key 0; with limit {limit} the order is {order}",
            old,
            new,
            Part(limit=limit, hand={"gaps": gaps}),
        )
    old = one("BF16", [0x3FFF, 0xBFFE, 0x3FA0, 0xBF9F, 0x3F80, 0xBF80])
    exponent(
        "exponent-is-stable",
        "Words of one exponent stay in natural order, whatever their signs and mantissas",
        old,
        moved(old, {1: 0xBFFF, 4: 0x3F81}),
        Part(hand={"gaps": "01 02"}),
    )
    old = one("BF16", [0x3F80, 0x3F00, 0xBFFF, 0xBF7F, 0x3FAA, 0x3F55, 0x3F80, 0x3F00])
    exponent(
        "exponent-is-stable-in-two-classes",
        "Words of two exponents that take turns: the order is 1, 3, 5, 7, 0, 2, 4, 6",
        old,
        moved(old, {2: 0xBFFE, 5: 0x3F56, 6: 0x3F81}),
        Part(hand={"gaps": "02 02 01"}),
    )
    old = one("BF16", [0x0000, 0x4000, 0x3000, 0x3F80])
    exponent(
        "exponent-is-of-the-base",
        "The order 0, 2, 3, 1 is that of the words of the base; that of the new words would be 1, 3, 0, 2",
        old,
        moved(old, {0: 0x7E00, 1: 0x0001, 2: 0x7F00, 3: 0x3F81}),
        Part(hand={"gaps": "00 00 00 00", "codes": "df"}),
    )
    old = one("F32", [0x40000000, 0x3F800000, 0x3F000000])
    exponent(
        "exponent-values-are-in-the-order-of-the-positions",
        "Three words whose order is turned round have their steps in that order",
        old,
        moved(old, {0: 0x40000001, 1: 0x3F7FFFFF, 2: 0x3EFFFFFE}),
        Part(hand={"gaps": "00 00 00", "codes": "12"}),
    )
    old = one("F16", [0x3C00])
    exponent(
        "exponent-of-one-word",
        "A chunk of one word",
        old,
        moved(old, {0: 0x3C01}),
        Part(hand={"gaps": "00", "codes": "01"}),
    )


def _exponent_over() -> None:
    """Chunks over several slices, and over words that fitting made."""
    old: Model = {
        "a": tensor("BF16", (4,), [0x0000, 0x4000, 0x3C00, 0x0000]),
        "b": tensor("BF16", (3,), [0x3F80, 0x3000, 0x0000]),
    }
    part = Part([("a", 1, 3), ("b", 0, 2)], hand={"gaps": "00 00 01"})
    exponent(
        "exponent-over-two-tensors",
        "Words of two tensors have one order: word 1 of the second, 2 of the first, 0 of the second, 1 of the first",
        old,
        moved(moved(old, {1: 0x4001, 2: 0x3C01}, "a"), {1: 0x3001}, "b"),
        part,
    )
    line = one("BF16", [0x4000, 0x3C00, 0x3F80, 0x3000])
    exponent(
        "exponent-over-adjacent-slices",
        "The order of two adjacent slices of one tensor is one order: 3, 1, 2, 0",
        line,
        moved(line, {0: 0x4001, 3: 0x3001}),
        Part([("w", 0, 2), ("w", 2, 4)], hand={"gaps": "00 02"}),
    )
    held = one("BF16", [0x3F80, 0x3C00, 0x4000], "a")
    grown = {**moved(held, {1: 0x3C01}, "a"), "b": tensor("BF16", (3,), [0, 0x3F80, 0])}
    exponent(
        "exponent-over-a-new-tensor",
        "The words of a tensor that the base lacks have key 0, and come before those of the tensor that stayed",
        held,
        grown,
        Part([("a", 0, 3), ("b", 0, 3)], hand={"gaps": "01 01"}),
    )
    shaped = {"a": tensor("BF16", (3, 1), [0x3F80, 0, 0x4001])}
    exponent(
        "exponent-over-a-reshaped-tensor",
        "A tensor with another shape starts with zeros, so that the order is the natural one",
        held,
        shaped,
        Part(hand={"gaps": "00 01"}),
    )
    exponent(
        "exponent-of-a-full-version",
        "In a full version all words have key 0, and the order is the natural one",
        None,
        one("F32", [0x40000000, 0, 0x3F800000]),
        Part(limit=1, hand={"gaps": "00 01"}),
    )
    count = 70_000
    wide = one("F8_E4M3", [number * number % 251 for number in range(count)])
    places = [count - 1 - 700 * k for k in range(100)]
    exponent(
        "exponent-of-70000-words",
        "A chunk of more words than 16 bits can number",
        wide,
        moved(wide, {place: int(wide["w"].words[place]) ^ 1 for place in places}),
        Part(limit=12, shift=4),
    )


def _exponent_dtypes() -> None:
    for number, dtype in enumerate(FLOATS):
        rng = Random(800 + number)
        top = classes(dtype)
        old = {"a": random_tensor(rng, dtype, (30,)), "b": random_tensor(rng, dtype, (30,))}
        new = {name: changed(rng, each, 0.5) for name, each in old.items()}
        parts = [
            Part([("a", 0, 30)], order="exponent", limit=top),
            Part([("b", 0, 30)], order="exponent", limit=top // 2, positions="bitmap"),
        ]
        read(
            f"exponent-of-{dtype.lower().replace('_', '-')}",
            area=AREA,
            title=f"Order exponent in {dtype}, with the limits {top} and {top // 2}",
            requirements=[EXPONENT, "TD-ORD-004"],
            chain=chain(old, new, *parts),
            level="reader-exponent",
        )


def _faults() -> None:
    old = one("BF16", [0x3F80, 0x3C00, 0x0000, 0x3C10, 0xBF00])
    new = moved(old, {0: 0x3F81, 3: 0x3C0F})
    twin = "exponent-worked-with-limit-256"
    part = Part(order="exponent")

    def fault(
        slug: str, title: str, requirement: str, build: Build, error: str = "malformed", twin: str = twin
    ) -> None:
        reject(
            slug,
            area=AREA,
            title=title,
            requirements=[requirement],
            chain=build,
            error=error,
            twin=twin,
            level="reader-exponent",
        )

    silent = chain(old, new, part, features=[])
    reject(
        "exponent-without-its-feature",
        area=AREA,
        title="A chunk has order exponent, and the manifest does not list exponent-order",
        requirements=["TD-MAN-006"],
        chain=silent,
        error="malformed",
        twin=twin,
        level="reader-exponent",
        verify=[{"error": ["malformed"], "object": [manifest_name(1), *silent().pack_names(1)]}],
    )
    for slug, title, requirement, order in (
        ("without-limit", "Order exponent has no limit", "TD-CHK-013", {}),
        ("limit-null", "The limit is null", "TD-CHK-013", {"limit": None}),
        ("limit-string", "The limit is a string", "TD-CHK-013", {"limit": "256"}),
        ("limit-boolean", "The limit is true", "TD-CHK-013", {"limit": True}),
        ("limit-fraction", "The limit is written 256.0", "TD-JSN-009", {"limit": 256.0}),
        ("limit-negative", "The limit is -1", "TD-JSN-009", {"limit": -1}),
        ("unknown-member", "Order exponent has a member beside limit", "TD-CHK-014", {"limit": 256, "base": 0}),
    ):
        entry = {"order": {"codec": "exponent", **order}}
        fault(f"exponent-{slug}", title, requirement, chain(old, new, replace(part, entry=entry)))
    for dtype in ("F8_E4M3", "F16", "BF16", "F64"):
        top = classes(dtype)
        name = dtype.lower().replace("_", "-")
        words = one(dtype, [64, 8, 0, 72, 1 << DTYPES[dtype][2]])
        after = moved(words, {0: 65, 3: 73})
        exponent(
            f"exponent-greatest-limit-of-{name}",
            f"The greatest limit of {dtype} is {top}",
            words,
            after,
            Part(limit=top),
        )
        # A reader without the check takes these limits for the greatest one, and for none at all.
        for slug, limit, text in (("too-great", top + 1, f"{top + 1}"), ("zero", 0, "0")):
            fault(
                f"exponent-limit-{slug}-for-{name}",
                f"The limit is {text} in {dtype}",
                "TD-ORD-004",
                chain(words, after, replace(part, limit=limit)),
                twin=f"exponent-greatest-limit-of-{name}",
            )
    fault(
        "exponent-position-past-the-end",
        "The last position in order exponent is n",
        "TD-POS-005",
        chain(old, new, replace(part, streams={"gaps": b"\x02\x02"})),
    )
    for dtype in DTYPES:
        if dtype in FLOATS:
            continue
        words = {"w": tensor(dtype, (8,), 9)}
        after = moved(words, {1: 10, 2: 8})
        name = dtype.lower().replace("_", "-")
        natural = Part()
        read(
            f"natural-of-{name}",
            area=AREA,
            title=f"Order natural in {dtype}, while the manifest lists a feature that it does not use",
            requirements=[NATURAL, "TD-MAN-005"],
            chain=chain(words, after, natural, features=["exponent-order"]),
            level="reader-exponent",
        )
        # Every word would have key 0, so that a reader without the check takes the natural order.
        fault(
            f"exponent-of-{name}",
            f"Order exponent in {dtype}, which has no exponent",
            "TD-ORD-003",
            chain(
                words,
                after,
                replace(natural, entry={"order": {"codec": "exponent", "limit": 1}}),
                features=["exponent-order"],
            ),
            twin=f"natural-of-{name}",
        )


def _wide(n: int) -> Builder:
    """A full version of a tensor of 2^24 + 1 words, of which the chunk has n."""
    new = moved(one("F8_E4M3", (1 << 24) + 1), {3: 1})
    entry = {"slices": [[0, 0, n]], "order": {"codec": "exponent", "limit": 16}}
    return chain(None, new, Part([("w", 0, 4)], entry=entry), features=["exponent-order"])()


def _limits() -> None:
    read(
        "exponent-of-2-24-words",
        area=AREA,
        title="A chunk in order exponent has 2^24 words",
        requirements=["TD-LIM-005", "TD-ORD-005"],
        chain=lambda: _wide(1 << 24),
        to=0,
        held=None,
        level="reader-exponent",
        flags=["huge"],
    )
    reject(
        "exponent-of-2-24-words-and-one",
        area=AREA,
        title="A chunk in order exponent has 2^24 + 1 words",
        requirements=["TD-ORD-005"],
        chain=lambda: _wide((1 << 24) + 1),
        error="limit",
        twin="exponent-of-2-24-words",
        to=0,
        held=None,
        level="reader-exponent",
    )


_natural()
_exponent()
_exponent_over()
_exponent_dtypes()
_faults()
_limits()
