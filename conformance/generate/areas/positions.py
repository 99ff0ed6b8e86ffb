"""Positions: gap, bitmap, all (SPEC.md sections 7.4 to 7.6)."""

from __future__ import annotations

from dataclasses import replace

from generate.cases import read, reject
from generate.pair import Part, chain, listed, moved, one

AREA = "positions"
GAP = "TD-POS-001"
BITMAP = "TD-POS-008"


def _gaps() -> None:
    """Gaps at the edges of their bytes."""
    for gap, digits in (
        (254, "fe"),
        (255, "ff 00"),
        (256, "ff 01"),
        (509, "ff fe"),
        (510, "ff ff 00"),
        (1277, "ff ff ff ff ff 02"),
    ):
        read(
            f"gap-of-{gap}",
            area=AREA,
            title=f"A gap of {gap} with shift 0 is the bytes {digits.upper()}",
            requirements=[GAP],
            chain=listed(gap + 3, [0, gap + 1], Part(hand={"gaps": "00" + digits})),
        )
    for high, digits in ((15, "0f"), (254, "fe"), (255, "ff 00"), (256, "ff 01"), (510, "ff ff 00")):
        gap = high << 4 | 11
        read(
            f"gap-of-{gap}-with-shift-4",
            area=AREA,
            title=f"A gap of {gap} with shift 4 has the high part {high}, which is the bytes {digits.upper()}",
            requirements=[GAP],
            chain=listed(gap + 9, [6, gap + 7], Part(shift=4, hand={"gaps": "00" + digits, "low": "b6"})),
        )
    for high, digits in ((254, "fe"), (255, "ff 00"), (256, "ff 01"), (510, "ff ff 00")):
        gap = high << 8 | 254
        read(
            f"gap-of-{gap}-with-shift-8",
            area=AREA,
            title=f"A gap of {gap} with shift 8 has the high part {high}, which is the bytes {digits.upper()}",
            requirements=[GAP],
            chain=listed(gap + 3, [0, gap + 1], Part(shift=8, hand={"gaps": "00" + digits, "low": "00 fe"}), full=True),
            to=0,
            held=None,
        )
    read(
        "gap-after-an-escape-starts-anew",
        area=AREA,
        title="What a byte 255 added to one gap is not added to the next",
        requirements=[GAP],
        chain=listed(
            1100,
            [300, 301, 1000, 1002],
            Part(hand={"gaps": "ff 2d 00 ff ff bc 01"}),
        ),
    )
    for slug, title, places, shift, gaps, low in (
        ("0", "3, 290, 320, 322 and 323", [3, 290, 320, 322, 323], 0, "03 ff 1f 1d 01 00", ""),
        ("4", "1, 4 and 5", [1, 4, 5], 4, "00 00 00", "21 00"),
        ("8", "4096 alone", [4096], 8, "10", "00"),
        ("8-beyond-65535", "16, 298 and 65835", [16, 298, 65835], 8, "00 01 ff 01", "10 19 00"),
    ):
        far = places[-1] > 60000
        hand = {"gaps": gaps} | ({"low": low} if shift else {})
        read(
            f"gap-worked-with-shift-{slug}",
            area=AREA,
            title=f"The worked example of section 7.4, ending with the last word: positions {title}",
            requirements=[GAP, "TD-ORD-001"],
            chain=listed(places[-1] + 1, places, Part(shift=shift, hand=hand), full=far),
            to=0 if far else 1,
            held=None if far else 0,
        )
    for shift in (0, 4, 8):
        streams = {"gaps": "00", "codes": "01"} | ({"low": "00"} if shift else {})
        read(
            f"gap-of-a-chunk-of-one-word-with-shift-{shift}",
            area=AREA,
            title=f"A chunk of one word, listed with gaps of shift {shift}",
            requirements=[GAP, "TD-CHK-011"],
            chain=listed(1, [0], Part(shift=shift, hand=streams)),
        )
    read(
        "gap-first-word-only",
        area=AREA,
        title="Only the first word of a chunk is listed",
        requirements=[GAP],
        chain=listed(40, [0], Part(hand={"gaps": "00"})),
    )
    read(
        "gap-last-word-only",
        area=AREA,
        title="Only the last word of a chunk is listed",
        requirements=[GAP],
        chain=listed(40, [39], Part(hand={"gaps": "27"})),
    )
    read(
        "gap-every-word",
        area=AREA,
        title="Every word is listed with gaps: the gaps are zeros",
        requirements=[GAP, "TD-CHK-011"],
        chain=listed(9, range(9), Part(hand={"gaps": "00" * 9})),
    )
    read(
        "gap-low-of-an-even-number-of-words",
        area=AREA,
        title="With shift 4 and an even number of listed words, low has no unused nibble",
        requirements=[GAP],
        chain=listed(40, [15, 31], Part(shift=4, hand={"gaps": "00 00", "low": "ff"})),
    )
    read(
        "gap-low-of-an-odd-number-of-words",
        area=AREA,
        title="With shift 4 and an odd number of listed words, the high nibble of the last byte of low is 0",
        requirements=[GAP, "TD-POS-006"],
        chain=listed(60, [15, 31, 47], Part(shift=4, hand={"gaps": "00 00 00", "low": "ff 0f"})),
    )
    read(
        "gap-shift-8-of-neighbours",
        area=AREA,
        title="Shift 8 is legal though all listed words are neighbours",
        requirements=["TD-POS-007"],
        chain=listed(30, range(10, 20), Part(shift=8, hand={"gaps": "00" * 10, "low": "0a" + "00" * 9})),
    )
    read(
        "gap-shift-0-of-distant-words",
        area=AREA,
        title="Shift 0 is legal though the gaps have twenty bytes each",
        requirements=["TD-POS-007"],
        chain=listed(
            10200,
            [5000, 10099],
            Part(hand={"gaps": "ff" * 19 + "9b" + "ff" * 19 + "fd"}),
        ),
    )


def _gap_faults() -> None:
    old = one("U8", 600)
    new = moved(old, {7: 1, 13: 1})
    good = Part(hand={"gaps": "07 05"})
    read(
        "gaps-of-two-words",
        area=AREA,
        title="Two listed words of a chunk of 600",
        requirements=[GAP],
        chain=chain(old, new, good),
    )

    def fault(slug: str, title: str, requirement: str, gaps: str) -> None:
        reject(
            slug,
            area=AREA,
            title=title,
            requirements=[requirement],
            chain=chain(old, new, replace(good, streams={"gaps": bytes.fromhex(gaps)})),
            error="malformed",
            twin="gaps-of-two-words",
        )

    fault("gaps-of-one-entry-more", "The gaps have three entries for two listed words", "TD-POS-003", "07 05 03")
    fault("gaps-of-one-entry-fewer", "The gaps have one entry for two listed words", "TD-POS-003", "ff 05")
    fault(
        "gaps-end-with-255",
        "The last byte of the gaps is 255, after as many entries as there are listed words",
        "TD-POS-004",
        "07 05 ff",
    )
    fault("gaps-all-255", "All bytes of the gaps are 255", "TD-POS-003", "ff ff")
    fault("position-just-past-the-end", "The last position is n", "TD-POS-005", "ff 00 ff 59")
    fault(
        "position-far-past-the-end",
        "The last position is far beyond n, within the bounds of the stream's size",
        "TD-POS-005",
        "ff fe fe",
    )

    # Without the check a reader writes the word after the slice, and all sums agree.
    wide = one("U8", 20)
    last, after = moved(wide, {3: 1, 9: 1}), moved(wide, {3: 1, 10: 1})
    slices = [("w", 0, 10)]
    read(
        "position-of-the-last-word-of-a-slice",
        area=AREA,
        title="The last position is n - 1, in a slice that ends before its tensor does",
        requirements=["TD-POS-005"],
        chain=chain(wide, last, Part(slices, hand={"gaps": "03 05"})),
    )
    reject(
        "position-of-the-word-after-a-slice",
        area=AREA,
        title="The last position is n; a word of the tensor lies there, and its change is counted",
        requirements=["TD-POS-005"],
        chain=chain(
            wide,
            after,
            Part(
                slices,
                new=last,
                streams={"gaps": bytes.fromhex("03 06")},
                counted=[("w", 3, 0, 1), ("w", 10, 0, 1)],
            ),
        ),
        error="malformed",
        twin="position-of-the-last-word-of-a-slice",
    )

    three = moved(one("U8", 60), dict.fromkeys([15, 31, 47], 1))
    for shift, low in ((4, "ff 1f"), (4, "ff 8f")):
        digit = low[-2]
        reject(
            f"gap-low-with-{digit}-in-its-unused-nibble",
            area=AREA,
            title=f"The unused high nibble of the last byte of low is {digit}",
            requirements=["TD-POS-006"],
            chain=chain(one("U8", 60), three, Part(shift=shift, streams={"low": bytes.fromhex(low)})),
            error="malformed",
            twin="gap-low-of-an-odd-number-of-words",
        )

    count = 65_794
    every = Part(shift=8, compression="zstd")
    read(
        "gap-every-word-of-65794",
        area=AREA,
        title="Every word of 65,794 is listed with shift 8, in streams of one repeated byte",
        requirements=["TD-POS-002", "TD-POS-007"],
        chain=listed(count, range(count), every, full=True),
        to=0,
        held=None,
    )
    reject(
        "position-past-the-end-modulo-2-32",
        area=AREA,
        title="Each gap is 65,279, so that the last position is 2^32 + 65,023; in 32 bits it is less than n",
        requirements=["TD-POS-002", "TD-POS-005"],
        chain=listed(
            count,
            range(count),
            replace(every, streams={"gaps": b"\xfe" * count, "low": b"\xff" * count}),
            full=True,
        ),
        error="malformed",
        twin="gap-every-word-of-65794",
        to=0,
        held=None,
    )


def _bitmaps() -> None:
    for slug, title, count, places, digits in (
        ("worked", "The worked example of section 7.5: n is 10, positions 0, 3 and 9", 10, [0, 3, 9], "09 02"),
        ("of-one-word", "The bitmap of a chunk of one word", 1, [0], "01"),
        ("of-eight-words", "A bitmap of eight words has no padding", 8, [7], "80"),
        ("of-nine-words", "A bitmap of nine words has two bytes", 9, [8], "00 01"),
        ("of-every-word", "Every word of eleven is listed in a bitmap", 11, range(11), "ff 07"),
        ("of-zeros-at-its-end", "The last byte of a bitmap is 0", 17, [1], "02 00 00"),
    ):
        read(
            f"bitmap-{slug}",
            area=AREA,
            title=title,
            requirements=[BITMAP],
            chain=listed(count, places, Part(positions="bitmap", hand={"bitmap": digits})),
        )

    old = one("U8", 10)
    new = moved(old, {0: 1, 3: 1, 9: 1})
    for slug, title, requirement, digits in (
        ("with-a-bit-more", "A bitmap has four bits for three listed words", "TD-POS-009", "29 02"),
        ("with-a-bit-fewer", "A bitmap has two bits for three listed words", "TD-POS-009", "08 02"),
        ("without-a-bit", "A bitmap is all zeros", "TD-POS-009", "00 00"),
        (
            "with-a-padding-bit",
            "The first padding bit of a bitmap is set, beside the bits of all listed words",
            "TD-POS-010",
            "09 06",
        ),
        (
            "with-the-last-padding-bit",
            "The last padding bit of a bitmap is set, beside the bits of all listed words",
            "TD-POS-010",
            "09 82",
        ),
        (
            "with-a-padding-bit-for-a-word",
            "A padding bit of a bitmap is set in place of a listed word's",
            "TD-POS-010",
            "09 04",
        ),
    ):
        reject(
            f"bitmap-{slug}",
            area=AREA,
            title=title,
            requirements=[requirement],
            chain=chain(old, new, Part(positions="bitmap", streams={"bitmap": bytes.fromhex(digits)})),
            error="malformed",
            twin="bitmap-worked",
        )


def _all() -> None:
    for count in (1, 4):
        read(
            f"all-of-{count}",
            area=AREA,
            title=f"Positions all of a chunk of {count}: there is no stream for them",
            requirements=["TD-POS-011"],
            chain=listed(count, range(count), Part(positions="all", hand={"codes": {1: "01", 4: "55"}[count]})),
        )
    old = one("U8", 24)
    wide = moved(old, {place: place for place in range(3, 20) if place not in (10, 11)})
    read(
        "all-of-two-slices",
        area=AREA,
        title="Positions all number the words of two slices of one tensor",
        requirements=["TD-POS-011", "TD-ORD-001"],
        chain=chain(old, wide, Part([("w", 3, 10), ("w", 12, 20)], positions="all", values="replace")),
    )
    # Word 12 of 13 stays; without the check a reader takes the first 12, and all sums agree.
    old = one("U8", 13)
    new = moved(old, dict.fromkeys(range(13), 5))
    twelve = moved(old, dict.fromkeys(range(12), 5))
    whole = Part(positions="all", values="replace")
    read(
        "all-of-13",
        area=AREA,
        title="Positions all with changed equal to n",
        requirements=["TD-POS-011"],
        chain=chain(old, new, whole),
    )
    reject(
        "all-of-13-with-changed-12",
        area=AREA,
        title="Positions all with changed one less than n, and streams of that size",
        requirements=["TD-POS-011"],
        chain=chain(
            old,
            twelve,
            replace(
                whole,
                streams={"values.0": b"\x05" * 12},
                counted=[("w", place, 0, 5) for place in range(12)],
                entry={"changed": 12},
            ),
        ),
        error="malformed",
        twin="all-of-13",
    )


def _densities() -> None:
    """Shares of 2,000 words, by each way to name them."""
    count = 2000
    for slug, title, places in (
        ("one-word", "One", [1234]),
        ("1-percent", "1 %", [97 * k + k * k % 13 for k in range(20)]),
        ("50-percent", "50 %", [2 * k + k * k % 7 % 2 for k in range(1000)]),
        ("100-percent", "All", list(range(count))),
    ):
        for positions, shift in (("gap", 0), ("gap", 4), ("bitmap", 0)):
            name = f"{positions} with shift {shift}" if positions == "gap" else positions
            read(
                f"density-{slug}-{positions}" + (f"-{shift}" if positions == "gap" else ""),
                area=AREA,
                title=f"{title} of 2,000 words, listed with positions {name}",
                requirements=[BITMAP if positions == "bitmap" else GAP],
                chain=listed(count, places, Part(positions=positions, shift=shift, compression="zstd"), dtype="U16"),
            )


_gaps()
_gap_faults()
_bitmaps()
_all()
_densities()
