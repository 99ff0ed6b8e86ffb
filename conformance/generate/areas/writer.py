"""What a writer makes of states of every kind, in chains of its own (SPEC.md sections 3, 4, 7 and 11)."""

from __future__ import annotations

from functools import partial

from generate.model import (
    DTYPES,
    Model,
    Random,
    changed,
    random_tensor,
    stepped,
    tensor,
    weights,
    word_bits,
)
from generate.pair import moved, one
from generate.writing import base, opposite, share, write

# -- how much changes --------------------------------------------------------------------------------------------------


def only(name: str, place: int) -> Model:
    """The state with one word one greater."""
    state = base()
    state[name].words[place] += 1
    return state


write(
    "write-a-full-version",
    "A root that has no chain yet becomes a chain of one full version",
    "STO-010 OBJ-002 PTH-006 VER-005 FPR-007 FPR-009 WRT-004 LIM-006",
    lambda desk: desk.publish(base(), 0),
)
write(
    "write-the-first-word",
    "A delta of one word, the first of its tensor",
    "CHK-018 MAN-008 WRT-001",
    lambda desk: desk.line(base(), only("a", 0)),
)
write(
    "write-the-last-word",
    "A delta of one word, the last of the last tensor",
    "CHK-018 MAN-008 WRT-001",
    lambda desk: desk.line(base(), only("c", 299)),
)
for percent in (1, 10, 50):
    write(
        f"write-{percent}-percent",
        f"Three deltas, in each of which {percent} % of the words change",
        "CHK-018 MAN-008 FPR-007 FPR-009 ZST-012",
        lambda desk, percent=percent: desk.line(
            base(), *(stepped(Random(f"{percent}/{n}"), base(), percent / 100) for n in range(3))
        ),
    )
write(
    "write-all-words",
    "A delta in which every bit of every word changes",
    "CHK-018 FPR-009",
    lambda desk: desk.line(base(), opposite(base())),
)
write(
    "write-nothing-changed",
    "An unchanged state is published as a version of its own, and the next one as a delta from it",
    "CHK-018 MAN-008 WRT-004",
    lambda desk: desk.line(base(), base(), share(0.02)),
)
write(
    "write-words-that-change-back",
    "The third state is the first again",
    "CHK-018 WRT-001 WRT-002",
    lambda desk: desk.line(base(), share(0.05), base(), share(0.05)),
)
write(
    "write-the-step-before-the-last",
    "Each state differs from the version last published, and less from an older one",
    "WRT-001 CHK-018",
    lambda desk: desk.line(base(), opposite(base()), share(0.01)),
)
write(
    "write-sparse-words",
    "Gaps of 0, 1, 254, 255, 256, 510, 4,096 and 65,536 words between words that change",
    "CHK-018 WRT-004",
    lambda desk: desk.line(one("U8", 72_000), moved(one("U8", 72_000), dict.fromkeys(sparse_places(), 1))),
)
write(
    "write-many-words",
    "A tensor of 100,000 words, all of which change",
    "CHK-018 LIM-006",
    lambda desk: desk.line(
        {"w": random_tensor(Random("many"), "U8", (500, 200))}, {"w": random_tensor(Random("more"), "U8", (500, 200))}
    ),
    flags=("slow",),
)


def sparse_places() -> list[int]:
    places = [0]
    for gap in (0, 1, 254, 255, 256, 510, 4096, 65536):
        places.append(places[-1] + 1 + gap)
    return [*places, 71_999]


# -- words -------------------------------------------------------------------------------------------------------------

#: Dtypes whose zero has a sign, and for each of them two NaNs of one sign, if it has two.
SIGNED_ZERO = {
    "F64": (0x7FF8000000000000, 0x7FF8000000000001),
    "F32": (0x7FC00000, 0x7FC00001),
    "BF16": (0x7FC0, 0x7FC1),
    "F16": (0x7E00, 0x7E01),
    "F8_E5M2": (0x7E, 0x7D),
    "F8_E4M3": None,
    "C64": (0x7FC00000_3F800000, 0x7FC00001_3F800000),
}

for dtype, nans in SIGNED_ZERO.items():
    minus = 1 << (word_bits(dtype) - 1)
    slug = dtype.lower().replace("_", "-")
    write(
        f"write-minus-zero-{slug}",
        f"{dtype}: 0 becomes -0, and -0 becomes 0, beside words that stay",
        "WRD-002 CHK-018",
        lambda desk, dtype=dtype, minus=minus: desk.line(
            one(dtype, [0, minus, 0, minus, 1]), one(dtype, [minus, 0, 0, minus, 1]), one(dtype, [0, minus, 0, 0, 1])
        ),
    )
    if nans:
        write(
            f"write-nan-payloads-{slug}",
            f"{dtype}: a NaN becomes one of another payload, one of another sign, and a number; others stay",
            "WRD-002 CHK-018 VAL-004",
            lambda desk, dtype=dtype, minus=minus, nans=nans: desk.line(
                one(dtype, [nans[0], nans[0], nans[0], nans[0], nans[1]]),
                one(dtype, [nans[1], nans[0] ^ minus, nans[0], nans[0], nans[1]]),
                one(dtype, [nans[1], nans[0] ^ minus, 1, nans[0], nans[0]]),
            ),
        )

for dtype, (bits, _, _) in DTYPES.items():
    count = 24 if bits < 8 else 12
    write(
        f"write-{dtype.lower().replace('_', '-')}",
        f"{dtype}: words of any bits, of which the first, the last and one between change",
        "WRD-002 CHK-018 OBJ-002",
        lambda desk, dtype=dtype, count=count: desk.line(
            {"w": random_tensor(Random(dtype), dtype, (count,))}, ends_changed(dtype, count)
        ),
    )


def ends_changed(dtype: str, count: int) -> Model:
    each = random_tensor(Random(dtype), dtype, (count,))
    for place in (0, len(each.words) // 2, -1):
        each.words[place] ^= 1
    return {"w": each}


def extremes(bits: int) -> tuple[list[int], list[int]]:
    """Words before and after: the greatest steps up and down, those that wrap, and those at the edges of the codes."""
    top, half = (1 << bits) - 1, 1 << (bits - 1)
    pairs = [(0, half), (half, 0), (0, half - 1), (0, half + 1), (0, top), (top, 0), (0, 1), (1, 0), (1, top)]
    pairs += [(5, 7), (5, 3), (5, 8), (5, 2), (half, half - 2), (top - 1, 1), (half - 1, half), (7, 7)]
    return [old for old, _ in pairs], [new for _, new in pairs]


for bits, dtype in ((8, "U8"), (16, "BF16"), (32, "F32"), (64, "F64")):
    before, after = extremes(bits)
    for values in ("step", "replace"):
        write(
            f"write-extreme-steps-of-{bits}-bits-by-{values}",
            f"The greatest and least steps that words of {bits} bits have, those that wrap included; values {values}",
            "CHK-018 VAL-004 FPR-009" if values == "step" else "CHK-018 FPR-009",
            partial(
                lambda desk, old, new, values: desk.line(old, new, values=values),
                old=one(dtype, before),
                new=one(dtype, after),
                values=values,
            ),
        )

write(
    "write-bools-beyond-one",
    "The words of BOOL are bytes: 1 becomes 2, 255 and 0",
    "WRD-002 CHK-018",
    lambda desk: desk.line(one("BOOL", [1, 1, 1, 1, 0]), one("BOOL", [2, 255, 0, 1, 128])),
)
write(
    "write-steps-that-carry-between-lanes",
    "Steps of 1 and -2 that carry from the low 16 bits into the high ones",
    "FPR-007 FPR-009",
    lambda desk: desk.line(
        {**one("F32", [0x3F80FFFF, 0xBF800000], "w"), **one("U64", [0x0000FFFFFFFFFFFF, 1 << 48], "x")},
        {**one("F32", [0x3F810000, 0xBF7FFFFE], "w"), **one("U64", [1 << 48, (1 << 48) - 2], "x")},
    ),
)

# -- orders and wishes -------------------------------------------------------------------------------------------------

FLOATS = [name for name, (_, mask, _) in DTYPES.items() if mask]


def floats(dtype: str) -> Model:
    """Weights of a dtype, as many as make an order worth while."""
    return {"w": weights(Random(f"floats/{dtype}"), (20, 40), dtype), "ids": tensor("I32", (4,), [1, 2, 3, 4])}


for dtype in FLOATS:
    write(
        f"write-exponent-order-{dtype.lower().replace('_', '-')}",
        f"{dtype}: two deltas in order exponent, the second on words that the first has changed",
        "VER-004 CHK-018 FPR-009",
        lambda desk, dtype=dtype: desk.line(
            floats(dtype),
            stepped(Random(1), floats(dtype), 0.2),
            stepped(Random(2), stepped(Random(1), floats(dtype), 0.2), 0.1),
            order="exponent",
        ),
        level="writer-exponent",
    )
write(
    "write-exponent-order-of-integers",
    "Order exponent is asked for, and no tensor has an exponent",
    "WRT-004 VER-004",
    lambda desk: desk.line(
        {"a": random_tensor(Random(1), "I16", (200,)), "b": random_tensor(Random(2), "F8_E8M0", (200,))},
        {"a": random_tensor(Random(3), "I16", (200,)), "b": random_tensor(Random(4), "F8_E8M0", (200,))},
        order="exponent",
    ),
    level="writer-exponent",
)
write(
    "write-exponent-order-of-all-words",
    "In order exponent every word changes, and then one",
    "WRT-004 VER-004",
    lambda desk: desk.line(
        floats("BF16"), opposite(floats("BF16")), stepped(Random(1), opposite(floats("BF16")), 0.001), order="exponent"
    ),
    level="writer-exponent",
)
write(
    "write-exponent-order-of-zeros-and-infinities",
    "In order exponent words of both signs of zero, infinity and NaN change",
    "VER-004 CHK-018 WRD-002",
    lambda desk: desk.line(
        one("BF16", [0, 0x8000, 0x7F80, 0xFF80, 0x7FC0, 0x7FFF, 0xFFFF, 1, 0x80, 0x3F80] * 9),
        one("BF16", [0x8000, 0, 0x7F81, 0x7F80, 0x7FC1, 0xFFFF, 0xFFFF, 2, 0x7F, 0x3F80] * 9),
        order="exponent",
    ),
    level="writer-exponent",
)
write(
    "write-exponent-order-of-fitted-tensors",
    "In order exponent a tensor is added and another one reshaped, so that their base words are 0",
    "VER-004 CHK-018 FPR-009",
    lambda desk: desk.line(
        {"a": weights(Random(1), (10, 12)), "b": weights(Random(2), (100,))},
        {
            "a": weights(Random(1), (12, 10)),
            "b": changed(Random(3), weights(Random(2), (100,)), 0.9),
            "c": tensor("F32", (5,), [1, 2, 3, 4, 5]),
        },
        order="exponent",
    ),
    level="writer-exponent",
)
write(
    "write-exponent-order-then-natural",
    "A delta in order exponent, and after it one in order natural",
    "VER-004 CHK-018",
    lambda desk: [
        desk.publish(floats("BF16"), 0),
        desk.publish(stepped(Random(1), floats("BF16"), 0.3), 1, order="exponent"),
        desk.publish(stepped(Random(2), floats("BF16"), 0.3), 2),
    ],
    level="writer-exponent",
)
write(
    "write-replaced-values",
    "Deltas whose values are new words",
    "CHK-018 FPR-009",
    lambda desk: desk.line(base(), share(0.05), share(0.5), values="replace"),
)
write(
    "write-full-versions-between-deltas",
    "A full version in the middle of a chain, and a delta from it",
    "MAN-008 WRT-001 FPR-007",
    lambda desk: [
        desk.publish(base(), 0),
        desk.publish(share(0.1), 1, full=True),
        desk.publish(share(0.2), 2),
        desk.publish(share(0.2), 3, full=True),
    ],
)
