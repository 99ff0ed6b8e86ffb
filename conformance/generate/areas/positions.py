"""Positions: gap, bitmap, all (SPEC.md sections 7.4 to 7.6)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from generate.pair import Part, chain, listed, moved, one
from generate.rows import Rows

ROWS = Rows("positions")
GAP, BITMAP, ALL = "POS-001", "POS-008", "POS-011"


def gap(
    slug: str, title: str, rules: str, count: int, places: Iterable[int], *hand: str, shift: int = 0, full: bool = False
) -> None:
    """Some words are listed with gaps; `hand` are the streams gaps, low and codes, or the first of them."""
    part = Part(shift=shift, hand=dict(zip(("gaps", "low", "codes"), hand, strict=False)))
    ROWS.read(f"gap-{slug}", title, rules, listed(count, places, part, full=full), full=full)


# fmt: off
# -- gaps --------------------------------------------------------------------------------------------------------------

for size, digits in (
    (254, "fe"), (255, "ff 00"), (256, "ff 01"), (509, "ff fe"), (510, "ff ff 00"), (1277, "ff ff ff ff ff 02"),
):
    gap(f"of-{size}", f"A gap of {size} with shift 0 is the bytes {digits.upper()}", GAP,
        size + 3, [0, size + 1], "00" + digits)
for high, digits in ((15, "0f"), (254, "fe"), (255, "ff 00"), (256, "ff 01"), (510, "ff ff 00")):
    size = high << 4 | 11
    gap(f"of-{size}-with-shift-4",
        f"A gap of {size} with shift 4 has the high part {high}, which is the bytes {digits.upper()}", GAP,
        size + 9, [6, size + 7], "00" + digits, "b6", shift=4)
for high, digits in ((254, "fe"), (255, "ff 00"), (256, "ff 01"), (510, "ff ff 00")):
    size = high << 8 | 254
    gap(f"of-{size}-with-shift-8",
        f"A gap of {size} with shift 8 has the high part {high}, which is the bytes {digits.upper()}", GAP,
        size + 3, [0, size + 1], "00" + digits, "00 fe", shift=8, full=True)
gap("after-an-escape-starts-anew", "What a byte 255 added to one gap is not added to the next", GAP,
    1100, [300, 301, 1000, 1002], "ff 2d 00 ff ff bc 01")

WORKED = "The worked example of section 7.4, ending with the last word: positions"
gap("worked-with-shift-0", f"{WORKED} 3, 290, 320, 322 and 323", f"{GAP} ORD-001",
    324, [3, 290, 320, 322, 323], "03 ff 1f 1d 01 00")
gap("worked-with-shift-4", f"{WORKED} 1, 4 and 5", f"{GAP} ORD-001", 6, [1, 4, 5], "00 00 00", "21 00", shift=4)
gap("worked-with-shift-8", f"{WORKED} 4096 alone", f"{GAP} ORD-001", 4097, [4096], "10", "00", shift=8)
gap("worked-with-shift-8-beyond-65535", f"{WORKED} 16, 298 and 65835", f"{GAP} ORD-001",
    65836, [16, 298, 65835], "00 01 ff 01", "10 19 00", shift=8, full=True)
for shift in (0, 4, 8):
    streams = {"gaps": "00", "codes": "01"} | ({"low": "00"} if shift else {})
    ROWS.read(f"gap-of-a-chunk-of-one-word-with-shift-{shift}",
        f"A chunk of one word, listed with gaps of shift {shift}", f"{GAP} CHK-011",
        listed(1, [0], Part(shift=shift, hand=streams)))

gap("of-255-in-a-chunk-of-256-words", "The gaps have as many bytes as they may: n - m is 255", f"{GAP} CHK-019",
    256, [255], "ff 00")
gap("of-4080-in-a-chunk-of-4081-words", "The gaps have as many bytes as they may with shift 4: n - m is 4080",
    f"{GAP} CHK-019", 4081, [4080], "ff 00", "00", shift=4)
gap("first-word-only", "Only the first word of a chunk is listed", GAP, 40, [0], "00")
gap("last-word-only", "Only the last word of a chunk is listed", GAP, 40, [39], "27")
gap("every-word", "Every word is listed with gaps: the gaps are zeros", f"{GAP} CHK-011", 9, range(9), "00" * 9)
gap("low-of-an-even-number-of-words", "With shift 4 and an even number of listed words, low has no unused nibble", GAP,
    40, [15, 31], "00 00", "ff", shift=4)
gap("low-of-an-odd-number-of-words",
    "With shift 4 and an odd number of listed words, the high nibble of the last byte of low is 0", f"{GAP} POS-006",
    60, [15, 31, 47], "00 00 00", "ff 0f", shift=4)
gap("shift-8-of-neighbours", "Shift 8 is legal though all listed words are neighbours", "POS-007",
    30, range(10, 20), "00" * 10, "0a" + "00" * 9, shift=8)
gap("shift-0-of-distant-words", "Shift 0 is legal though the gaps have twenty bytes each", "POS-007",
    10200, [5000, 10099], "ff" * 19 + "9b" + "ff" * 19 + "fd")

# -- faults of gaps ----------------------------------------------------------------------------------------------------

TWO = Part(hand={"gaps": "07 05"})
ROWS.read("gaps-of-two-words", "Two listed words of a chunk of 600", GAP, listed(600, [7, 13], TWO))
for slug, title, rule, digits in (
    ("gaps-of-one-entry-more", "The gaps have three entries for two listed words", "POS-003", "07 05 03"),
    ("gaps-of-one-entry-fewer", "The gaps have one entry for two listed words", "POS-003", "ff 05"),
    ("gaps-end-with-255", "The last byte of the gaps is 255, after as many entries as there are listed words",
     "POS-004", "07 05 ff"),
    ("gaps-all-255", "All bytes of the gaps are 255", "POS-003", "ff ff"),
    ("position-just-past-the-end", "The last position is n", "POS-005", "ff 00 ff 59"),
    ("position-far-past-the-end", "The last position is far beyond n, within the bounds of the stream's size",
     "POS-005", "ff fe fe"),
):
    ROWS.reject(slug, title, rule, listed(600, [7, 13], replace(TWO, streams={"gaps": digits})),
        twin="gaps-of-two-words")

# Without the check a reader writes the word after the slice, and all sums agree.
WIDE = one("U8", 20)
LAST, AFTER = moved(WIDE, {3: 1, 9: 1}), moved(WIDE, {3: 1, 10: 1})
ROWS.read("position-of-the-last-word-of-a-slice",
    "The last position is n - 1, in a slice that ends before its tensor does", "POS-005",
    chain(WIDE, LAST, Part([("w", 0, 10)], hand={"gaps": "03 05"})))
ROWS.reject("position-of-the-word-after-a-slice",
    "The last position is n; a word of the tensor lies there, and its value is counted", "POS-005",
    chain(WIDE, AFTER,
        Part([("w", 0, 10)], new=LAST, streams={"gaps": "03 06"}, counted=[("w", 3, 1), ("w", 10, 1)])),
    twin="position-of-the-last-word-of-a-slice")

for nibble in "18":
    ROWS.reject(f"gap-low-with-{nibble}-in-its-unused-nibble",
        f"The unused high nibble of the last byte of low is {nibble}", "POS-006",
        listed(60, [15, 31, 47], Part(shift=4, streams={"low": f"ff {nibble}f"})),
        twin="gap-low-of-an-odd-number-of-words")

MANY = 65_794
EVERY = Part(shift=8, compression="zstd")
ROWS.read("gap-every-word-of-65794", "Every word of 65,794 is listed with shift 8, in streams of one repeated byte",
    "POS-002 POS-007", listed(MANY, range(MANY), EVERY, full=True), full=True)
ROWS.reject("position-past-the-end-modulo-2-32",
    "Each gap is 65,279, so that the last position is 2^32 + 65,023; in 32 bits it is less than n", "POS-002 POS-005",
    listed(MANY, range(MANY), replace(EVERY, streams={"gaps": b"\xfe" * MANY, "low": b"\xff" * MANY}), full=True),
    twin="gap-every-word-of-65794", full=True)

# -- bitmaps -----------------------------------------------------------------------------------------------------------

places: Iterable[int]
for slug, title, count, places, digits in (
    ("worked", "The worked example of section 7.5: n is 10, positions 0, 3 and 9", 10, [0, 3, 9], "09 02"),
    ("of-one-word", "The bitmap of a chunk of one word", 1, [0], "01"),
    ("of-eight-words", "A bitmap of eight words has no padding", 8, [7], "80"),
    ("of-nine-words", "A bitmap of nine words has two bytes", 9, [8], "00 01"),
    ("of-every-word", "Every word of eleven is listed in a bitmap", 11, range(11), "ff 07"),
    ("of-zeros-at-its-end", "The last byte of a bitmap is 0", 17, [1], "02 00 00"),
):
    ROWS.read(f"bitmap-{slug}", title, BITMAP, listed(count, places, Part(positions="bitmap", hand={"bitmap": digits})))
for slug, title, rule, digits in (
    ("with-a-bit-more", "A bitmap has four bits for three listed words", "POS-009", "29 02"),
    ("with-a-bit-fewer", "A bitmap has two bits for three listed words", "POS-009", "08 02"),
    ("without-a-bit", "A bitmap is all zeros", "POS-009", "00 00"),
    ("with-a-padding-bit", "The first padding bit of a bitmap is set, beside the bits of all listed words", "POS-010",
     "09 06"),
    ("with-the-last-padding-bit", "The last padding bit of a bitmap is set, beside the bits of all listed words",
     "POS-010", "09 82"),
    ("with-a-padding-bit-for-a-word", "A padding bit of a bitmap is set in place of a listed word's", "POS-010",
     "09 04"),
):
    ROWS.reject(f"bitmap-{slug}", title, rule,
        listed(10, [0, 3, 9], Part(positions="bitmap", streams={"bitmap": digits})), twin="bitmap-worked")

# -- all ---------------------------------------------------------------------------------------------------------------

for count, digits in ((1, "01"), (4, "55")):
    ROWS.read(f"all-of-{count}", f"Positions all of a chunk of {count}: there is no stream for them", ALL,
        listed(count, range(count), Part(positions="all", hand={"codes": digits})))
ROWS.read("all-of-two-slices", "Positions all number the words of two slices of one tensor", f"{ALL} ORD-001",
    chain(one("U8", 24), moved(one("U8", 24), {place: place for place in range(3, 20) if place not in (10, 11)}),
        Part([("w", 3, 10), ("w", 12, 20)], positions="all", values="replace")))

# Word 12 of 13 stays; without the check a reader takes the first 12, and all sums agree.
ZEROS = one("U8", 13)
WHOLE = Part(positions="all", values="replace")
LESS = replace(WHOLE, streams={"values.0": "05" * 12}, counted=[("w", place, 5) for place in range(12)],
    entry={"changed": 12})
ROWS.read("all-of-13", "Positions all with changed equal to n", ALL,
    chain(ZEROS, moved(ZEROS, dict.fromkeys(range(13), 5)), WHOLE))
ROWS.reject("all-of-13-with-changed-12", "Positions all with changed one less than n, and streams of that size", ALL,
    chain(ZEROS, moved(ZEROS, dict.fromkeys(range(12), 5)), LESS), twin="all-of-13")

# -- shares of 2,000 words, by each way to name them -------------------------------------------------------------------

for share, title, places in (
    ("one-word", "One", [1234]),
    ("1-percent", "1 %", [97 * k + k * k % 13 for k in range(20)]),
    ("50-percent", "50 %", [2 * k + k * k % 7 % 2 for k in range(1000)]),
    ("100-percent", "All", range(2000)),
):
    for slug, text, rule, part in (
        ("gap-0", "gap with shift 0", GAP, Part(compression="zstd")),
        ("gap-4", "gap with shift 4", GAP, Part(shift=4, compression="zstd")),
        ("bitmap", "bitmap", BITMAP, Part(positions="bitmap", compression="zstd")),
    ):
        ROWS.read(f"density-{share}-{slug}", f"{title} of 2,000 words, listed with positions {text}", rule,
            listed(2000, places, part, dtype="U16"))
