"""What a writer makes of states of every kind, in chains of its own (SPEC.md sections 3, 4, 7 and 11)."""

from __future__ import annotations

from itertools import accumulate

from generate.model import DTYPES, Model, Random, changed, random_tensor, stepped, tensor, weights, word_bits
from generate.pair import moved, one
from generate.writing import base, lines, opposite, share, write


def only(name: str, place: int) -> Model:
    """The state with one word one greater."""
    state = base()
    state[name].words[place] += 1
    return state


SPARSE = accumulate((0, 1, 254, 255, 256, 510, 4096, 65536), lambda place, gap: place + 1 + gap, initial=0)

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


def slug(dtype: str) -> str:
    return dtype.lower().replace("_", "-")


def exponent(slug: str, title: str, rules: str, *models: Model) -> None:
    """Versions whose deltas are requested in order exponent."""
    script = lines(*models, order="exponent")
    write(f"write-exponent-order-{slug}", title, rules, script, level="writer-exponent")


def floats(dtype: str = "BF16") -> Model:
    """Weights of a dtype, enough of them for an order to matter."""
    return {"w": weights(Random(f"floats/{dtype}"), (20, 40), dtype), "ids": tensor("I32", (4,), [1, 2, 3, 4])}


def integers(first: int, second: int) -> Model:
    return {"a": random_tensor(Random(first), "I16", (200,)), "b": random_tensor(Random(second), "F8_E8M0", (200,))}


#: Both signs of zero, infinity and NaN, and numbers between.
SPECIAL = one("BF16", [0, 0x8000, 0x7F80, 0xFF80, 0x7FC0, 0x7FFF, 0xFFFF, 1, 0x80, 0x3F80] * 9)
OTHER_SPECIAL = one("BF16", [0x8000, 0, 0x7F81, 0x7F80, 0x7FC1, 0xFFFF, 0xFFFF, 2, 0x7F, 0x3F80] * 9)
REFITTED = {
    "a": weights(Random(1), (12, 10)),
    "b": changed(Random(3), weights(Random(2), (100,)), 0.9),
    "c": tensor("F32", (5,), [1, 2, 3, 4, 5]),
}


# fmt: off
# -- how much changes --------------------------------------------------------------------------------------------------
write("write-a-full-version", "A root that has no chain yet becomes a chain of one full version",
    "STO-010 OBJ-002 PTH-006 VER-005 FPR-007 CHK-025 WRT-004 LIM-006", lambda desk: desk.publish(base(), 0))
write("write-the-first-word", "A delta of one word, the first of its tensor",
    "CHK-018 MAN-008 WRT-001", lambda desk: desk.line(base(), only("a", 0)))
write("write-the-last-word", "A delta of one word, the last of the last tensor",
    "CHK-018 MAN-008 WRT-001", lambda desk: desk.line(base(), only("c", 299)))
for percent in (1, 10, 50):
    write(f"write-{percent}-percent", f"Three deltas, in each of which {percent} % of the words change",
        "CHK-018 MAN-008 FPR-007 CHK-025 ZST-012",
        lines(base(), *(stepped(Random(f"{percent}/{n}"), base(), percent / 100) for n in range(3))))
write("write-all-words", "A delta in which every bit of every word changes",
    "CHK-018 CHK-025", lambda desk: desk.line(base(), opposite(base())))
write("write-nothing-changed",
    "An unchanged state is published as a version of its own, and the next one as a delta from it",
    "CHK-018 MAN-008 WRT-004", lambda desk: desk.line(base(), base(), share(0.02)))
write("write-words-that-change-back", "The third state is the first again",
    "CHK-018 WRT-001 WRT-002", lambda desk: desk.line(base(), share(0.05), base(), share(0.05)))
write("write-the-step-before-the-last",
    "Each state differs from the version last published, and less from an older one",
    "WRT-001 CHK-018", lambda desk: desk.line(base(), opposite(base()), share(0.01)))
write("write-sparse-words", "Gaps of 0, 1, 254, 255, 256, 510, 4,096 and 65,536 words between words that change",
    "CHK-018 WRT-004", lines(one("U8", 72_000), moved(one("U8", 72_000), dict.fromkeys([*SPARSE, 71_999], 1))))
write("write-many-words", "A tensor of 100,000 words, all of which change",
    "CHK-018 LIM-006", lines(*({"w": random_tensor(Random(seed), "U8", (500, 200))} for seed in ("many", "more"))),
    flags=("slow",))

# -- words -------------------------------------------------------------------------------------------------------------
for dtype, nans in SIGNED_ZERO.items():
    minus = 1 << (word_bits(dtype) - 1)
    zeros = [0, minus, 0, minus, 1], [minus, 0, 0, minus, 1], [0, minus, 0, 0, 1]
    write(f"write-minus-zero-{slug(dtype)}", f"{dtype}: 0 becomes -0, and -0 becomes 0, beside words that stay",
        "WRD-002 CHK-018", lines(*(one(dtype, words) for words in zeros)))
    if nans:
        nan, other, negative = nans[0], nans[1], nans[0] ^ minus
        write(f"write-nan-payloads-{slug(dtype)}",
            f"{dtype}: a NaN becomes one of another payload, one of another sign, and a number; others stay",
            "WRD-002 CHK-018 VAL-004",
            lines(one(dtype, [nan, nan, nan, nan, other]), one(dtype, [other, negative, nan, nan, other]),
                one(dtype, [other, negative, 1, nan, nan])))
for dtype, (bits, _, _) in DTYPES.items():
    count = 24 if bits < 8 else 12
    write(f"write-{slug(dtype)}", f"{dtype}: words of any bits, of which the first, the last and one between change",
        "WRD-002 CHK-018 OBJ-002",
        lines({"w": random_tensor(Random(dtype), dtype, (count,))}, ends_changed(dtype, count)))
for bits, dtype in ((8, "U8"), (16, "BF16"), (32, "F32"), (64, "F64")):
    for values, rules in (("step", "CHK-018 VAL-004 CHK-025"), ("replace", "CHK-018 CHK-025")):
        write(f"write-extreme-steps-of-{bits}-bits-by-{values}",
            f"The greatest and least steps that words of {bits} bits have, those that wrap included; values {values}",
            rules, lines(*(one(dtype, words) for words in extremes(bits)), values=values))
write("write-bools-beyond-one", "The words of BOOL are bytes: 1 becomes 2, 255 and 0",
    "WRD-002 CHK-018", lines(one("BOOL", [1, 1, 1, 1, 0]), one("BOOL", [2, 255, 0, 1, 128])))
write("write-steps-that-carry-between-lanes",
    "Steps of 1 and -2 that carry from the low 16 bits into the high ones", "FPR-007 CHK-025",
    lines({**one("F32", [0x3F80FFFF, 0xBF800000], "w"), **one("U64", [0x0000FFFFFFFFFFFF, 1 << 48], "x")},
        {**one("F32", [0x3F810000, 0xBF7FFFFE], "w"), **one("U64", [1 << 48, (1 << 48) - 2], "x")}))

# -- orders and wishes -------------------------------------------------------------------------------------------------
for dtype in (name for name, (_, mask, _) in DTYPES.items() if mask):
    stepped_once = stepped(Random(1), floats(dtype), 0.2)
    exponent(slug(dtype), f"{dtype}: two deltas in order exponent, the second on words that the first has changed",
        "VER-004 CHK-018 CHK-025", floats(dtype), stepped_once, stepped(Random(2), stepped_once, 0.1))
exponent("of-integers", "Order exponent is asked for, and no tensor has an exponent",
    "WRT-004 VER-004", integers(1, 2), integers(3, 4))
exponent("of-all-words", "In order exponent every word changes, and then one", "WRT-004 VER-004",
    floats(), opposite(floats()), stepped(Random(1), opposite(floats()), 0.001))
exponent("of-zeros-and-infinities", "In order exponent words of both signs of zero, infinity and NaN change",
    "VER-004 CHK-018 WRD-002", SPECIAL, OTHER_SPECIAL)
exponent("of-fitted-tensors",
    "In order exponent a tensor is added and another one reshaped, so that their base words are 0",
    "VER-004 CHK-018 CHK-025", {"a": weights(Random(1), (10, 12)), "b": weights(Random(2), (100,))}, REFITTED)
write("write-exponent-order-then-natural", "A delta in order exponent, and after it one in order natural",
    "VER-004 CHK-018", lambda desk: desk.publish(floats(), 0)
    .publish(stepped(Random(1), floats(), 0.3), 1, order="exponent").publish(stepped(Random(2), floats(), 0.3), 2),
    level="writer-exponent")
write("write-replaced-values", "Deltas whose values are new words",
    "CHK-018 CHK-025", lambda desk: desk.line(base(), share(0.05), share(0.5), values="replace"))
write("write-full-versions-between-deltas", "A full version in the middle of a chain, and a delta from it",
    "MAN-008 WRT-001 FPR-007", lambda desk: desk.publish(base(), 0).publish(share(0.1), 1, full=True)
    .publish(share(0.2), 2).publish(share(0.2), 3, full=True))
