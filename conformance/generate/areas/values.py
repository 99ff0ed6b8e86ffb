"""Values: step and replace, and the words of every dtype (SPEC.md sections 3.1, 7.7 and 7.8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from generate.model import DTYPES, Random, random_tensor, stepped, tensor, word_bits
from generate.pair import Part, chain, moved, one
from generate.rows import Build, Rows, kebab

ROWS = Rows("values")
STEP, REPLACE, ANY = "VAL-001", "VAL-005", "WRD-006"
OF_BITS = {8: "U8", 16: "U16", 32: "U32", 64: "U64"}
Pairs = Sequence[tuple[int, int]]


def pairs(dtype: str, words: Pairs, part: Part) -> Build:
    """A tensor `w` of words that become others; all of them are listed."""
    old = one(dtype, [before for before, _ in words])
    return chain(old, one(dtype, [after for _, after in words]), replace(part, positions="all"))


def planes(name: str, *digits: str) -> dict[str, str]:
    """Streams of a plane each."""
    return {f"{name}.{j}": each for j, each in enumerate(digits)}


def steps(slug: str, title: str, rules: str, dtype: str, words: Pairs, codes: str, *escapes: str) -> None:
    """Words that are stepped; codes, and each plane of the escapes, by hand."""
    ROWS.read(slug, title, rules, pairs(dtype, words, Part(hand={"codes": codes} | planes("escapes", *escapes))))


def replaced(slug: str, title: str, rules: str, dtype: str, words: Pairs, *digits: str) -> None:
    """Words that are replaced; each plane by hand."""
    ROWS.read(slug, title, rules, pairs(dtype, words, Part(values="replace", hand=planes("values", *digits))))


# fmt: off
# -- steps -------------------------------------------------------------------------------------------------------------

WORKED = "The worked steps of section 7.7 of"
steps("step-worked-of-16-bits", f"{WORKED} 16 bits", STEP,
    "U16", [(0x3F80, 0x3F81), (0x3F7F, 0x3F7E), (0x3F80, 0x3F7E), (0x3F80, 0x3F82), (0, 0xB8D1)],
    "e1 03", "00 59", "00 8e")
steps("step-worked-of-8-bits", f"{WORKED} 8 bits", STEP, "U8", [(0xFF, 0x00), (0x10, 0x90)], "0d", "fb")
steps("step-worked-of-32-bits", f"{WORKED} 32 bits", STEP, "U32", [(0, 0x3F800000)], "03", "fc", "ff", "ff", "7e")
steps("step-codes-worked", "The codes 3, 3, 1, 0 and 2 are the bytes 1F 02", STEP,
    "U16", [(10, 12), (10, 13), (10, 11), (10, 9), (10, 8)], "1f 02", "00 02", "00 00")
for count, codes in ((1, "02"), (2, "06"), (3, "26"), (4, "66"), (5, "66 02")):
    steps(f"step-codes-of-{count}-words",
        f"The codes of {count} listed word{'s' if count > 1 else ''}, none of them an escape", f"{STEP} CHK-020",
        "BF16", ([(0x20, 0x1E), (0x20, 0x21)] * 3)[:count], codes)
steps("step-escapes-only", "Every code is 3", f"{STEP} CHK-021",
    "U16", [(0x100, 0x100 + step) for step in (2, -3, 129, -129, 1000)],
    "ff 03", "00 01 fe fd cc", "00 00 00 00 07")
for bits, dtype in OF_BITS.items():
    top, half, high = 1 << bits, 1 << bits - 1, bits // 8 - 1
    steps(f"step-wraps-at-{bits}-bits",
        f"Steps of 1, 2, -1 and -2 over the end of the range of {bits} bits", f"{STEP} WRD-001",
        dtype, [(top - 1, 0), (0, top - 1), (top - 2, 0), (1, top - 1), (top - 1, 1)], "b1 03", *["00 00"] * (high + 1))
    steps(f"step-sign-at-{bits}-bits",
        f"The greatest step forth and the greatest step back but one of {bits} bits", STEP,
        dtype, [(7, 7 + half - 1), (7, (7 + half + 1) % top)], "0f", "fa f9", *["ff ff"] * high)
    over = [(5, 6), (7, (7 + half) % top), (9, 8)]
    steps(f"step-greatest-escape-of-{bits}-bits",
        f"The greatest escape of {bits} bits, 2^{bits} - 5, steps over half of the range", f"{STEP} VAL-002",
        dtype, over, "0d", "fb", *["ff"] * high)
    # With arithmetic modulo 2^w these steps are 0 and -2; the fingerprints are those of a reader that computes so.
    for less, escape, after in ((4, "fc", 7), (1, "ff", 5)):
        spoiled = Part(positions="all", new=one(dtype, [new for _, new in over]),
            streams=planes("escapes", escape, *["ff"] * high),
            counted=[("w", 0, 6), ("w", 1, after), ("w", 2, 8)])
        ROWS.reject(f"escape-of-2-{bits}-minus-{less}",
            f"An escape of 2^{bits} - {less}, in words of {bits} bits", "VAL-002",
            chain(one(dtype, [5, 7, 9]), one(dtype, [6, after, 8]), spoiled),
            twin=f"step-greatest-escape-of-{bits}-bits")

steps("codes-of-five-steps-forth", "Five steps of 1, in two bytes of codes", f"{STEP} VAL-003",
    "U16", [(4, 5)] * 5, "55 01")
for slug, title, codes in (
    ("the-first-padding-bit", "The first padding bit of codes is set", "55 05"),
    ("the-last-padding-bit", "The last padding bit of codes is set", "55 81"),
    ("a-padding-code-of-3", "A code in the padding of codes is 3", "55 31"),
):
    ROWS.reject(f"codes-with-{slug}", title, "VAL-003",
        pairs("U16", [(4, 5)] * 5, Part(streams={"codes": codes})), twin="codes-of-five-steps-forth")

# -- replaced words ----------------------------------------------------------------------------------------------------

replaced("replace-worked-bf16", "The worked example of section 7.8 in BF16: two planes of four words", REPLACE,
    "BF16", [(0x4000, word) for word in (0x3F80, 0x3F80, 0x3F7F, 0x3F80)], "80 80 7f 80", "3f 3f 3f 3f")
replaced("replace-worked-f32", "The worked example of section 7.8 in F32: four planes of three words",
    f"{REPLACE} WRD-003",
    "F32", [(0, 0x3DCCCCCD), (0, 0xBE4CCCCE), (0, 0xBF7FFFFD)], "cd ce fd", "cc cc ff", "cc 4c 7f", "3d be bf")
replaced("replace-planes-of-64-bits", "Each of the eight planes of 64 bits has other bytes", f"{REPLACE} WRD-003",
    "U64", [(0, 0x0807060504030201), (0, 0x1817161514131211)], *(f"0{j} 1{j}" for j in range(1, 9)))
# The escape is e = 0x0807060504030201; y = e + 3 is even, so that the step is back by y / 2 + 1.
steps("step-planes-of-64-bits", "Each of the eight planes of an escape of 64 bits has another byte", f"{STEP} WRD-003",
    "U64", [(0, (1 << 64) - (0x0807060504030201 + 3) // 2 - 1)], "03", *(f"0{j}" for j in range(1, 9)))

OLD = one("U16", range(500, 512))
places: Sequence[int]
for positions, title, places in (
    ("gap", "Gaps list words that keep their values", [2, 3, 4, 7, 11]),
    ("bitmap", "A bitmap lists words that keep their values", [0, 1, 2, 7]),
    ("all", "All words are listed, and most keep their values", range(12)),
):
    ROWS.read(f"replace-of-equal-words-{positions}", f"{title}; with replace that is legal", "VAL-007",
        chain(OLD, moved(OLD, {2: 9, 7: 0xFFFF}), Part(positions=positions, values="replace", restate=places)))
ROWS.read("replace-of-equal-words-only",
    "Each listed word keeps its value", "VAL-007",
    chain(OLD, OLD, Part(values="replace", restate=[0, 5])))
ROWS.read("replace-by-zero", "Words become 0", REPLACE,
    chain(OLD, moved(OLD, {0: 0, 11: 0}), Part(values="replace", hand=planes("values", "00 00", "00 00"))))

# -- special words -----------------------------------------------------------------------------------------------------

for dtype, minus, unit in (
    ("F8_E4M3", 0x80, 0x38), ("F8_E5M2", 0x80, 0x3C), ("F16", 0x8000, 0x3C00), ("BF16", 0x8000, 0x3F80),
    ("F32", 1 << 31, 0x3F800000), ("F64", 1 << 63, 0x3FF << 52),
):
    ROWS.read(f"zeros-of-{kebab(dtype)}",
        f"0 becomes -0 and -0 becomes 0 in {dtype}: the words differ, and both are changes", "WRD-001",
        pairs(dtype, [(0, minus), (minus, 0), (unit, minus), (minus, unit)], Part()))
# Infinity, a quiet NaN, a quiet NaN with a payload, a signalling NaN, NaN of all bits.
for dtype, infinite, quiet, payload, signalling, ones in (
    ("F8_E5M2", 0x7C, 0x7E, 0xFE, 0x7D, 0xFF),
    ("F16", 0x7C00, 0x7E00, 0x7E55, 0x7C01, 0xFFFF),
    ("BF16", 0x7F80, 0x7FC0, 0x7FD5, 0x7F81, 0xFFFF),
    ("F32", 0x7F800000, 0x7FC00000, 0x7FC12345, 0x7F800001, 0xFFFFFFFF),
    ("F64", 0x7FF << 52, 0x7FF8 << 48, 0x7FF8123456789ABC, (0x7FF << 52) + 1, (1 << 64) - 1),
):
    nans = [(infinite, signalling), (quiet, payload), (payload, quiet), (signalling, ones), (ones, infinite)]
    for values in ("step", "replace"):
        ROWS.read(f"nans-of-{kebab(dtype)}-by-{values}",
            f"Infinity, and NaNs of several payloads, become one another in {dtype} by {values}", f"WRD-001 {ANY}",
            pairs(dtype, nans, Part(values=values)))
ROWS.read("words-of-bool-beyond-1", "Bytes other than 0 and 1 are words of BOOL", ANY,
    pairs("BOOL", [(0, 1), (1, 2), (2, 255), (255, 0)], Part()))
ROWS.read("words-of-c64", "A word of C64 has the real part in its low half; a step carries into the high half",
    f"{STEP} WRD-003",
    pairs("C64",
        [(0x3F80000000000000, 0x3F8000003F800000), (0x80000000, 0x8000000000000000), (0xFFFFFFFF, 0x100000000)],
        Part()))

# -- each dtype in a full version, and in a delta of steps, replaced words, gaps and bitmaps ---------------------------

for number, dtype in enumerate(DTYPES):
    rng = Random(700 + number)
    old = {"w": random_tensor(rng, dtype, (4, 12)), "z": tensor(dtype, (2, 4))}
    count = len(old["w"].words)
    parts = (
        Part([("w", 0, count // 2)], shift=4),
        Part([("w", count // 2, count)], positions="bitmap", values="replace"),
        Part([("z", 0, len(old["z"].words))], positions="bitmap"),
    )
    ROWS.read(f"dtype-{kebab(dtype)}",
        f"Words of {dtype}, which have {word_bits(dtype)} bits, are stepped and replaced", f"{STEP} {REPLACE} {ANY}",
        chain(old, stepped(rng, old, 0.4), *parts))
