"""Values: step and replace, and the words of every dtype (SPEC.md sections 3.1, 7.7 and 7.8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from generate.cases import read, reject
from generate.model import DTYPES, Random, random_tensor, stepped, tensor, word_bits
from generate.pair import Build, Part, chain, moved, one

AREA = "values"
STEP, REPLACE, ANY = "TD-VAL-001", "TD-VAL-005", "TD-WRD-006"
OF_BITS = {8: "U8", 16: "U16", 32: "U32", 64: "U64"}


def pairs(dtype: str, words: Sequence[tuple[int, int]], part: Part) -> Build:
    """A tensor `w` of words that become others; all of them are listed."""
    old = one(dtype, [before for before, _ in words])
    return chain(old, one(dtype, [after for _, after in words]), replace(part, positions="all"))


def _planes(name: str, *digits: str) -> dict[str, str]:
    return {f"{name}.{j}": each for j, each in enumerate(digits)}


def _steps() -> None:
    for bits, words, codes, planes in (
        (
            16,
            [(0x3F80, 0x3F81), (0x3F7F, 0x3F7E), (0x3F80, 0x3F7E), (0x3F80, 0x3F82), (0, 0xB8D1)],
            "e1 03",
            ("00 59", "00 8e"),
        ),
        (8, [(0xFF, 0x00), (0x10, 0x90)], "0d", ("fb",)),
        (32, [(0, 0x3F800000)], "03", ("fc", "ff", "ff", "7e")),
    ):
        read(
            f"step-worked-of-{bits}-bits",
            area=AREA,
            title=f"The worked steps of section 7.7 of {bits} bits",
            requirements=[STEP],
            chain=pairs(OF_BITS[bits], words, Part(hand={"codes": codes} | _planes("escapes", *planes))),
        )
    read(
        "step-codes-worked",
        area=AREA,
        title="The codes 3, 3, 1, 0 and 2 are the bytes 1F 02",
        requirements=[STEP],
        chain=pairs(
            "U16",
            [(10, 12), (10, 13), (10, 11), (10, 9), (10, 8)],
            Part(hand={"codes": "1f 02"} | _planes("escapes", "00 02", "00 00")),
        ),
    )
    for count, codes in ((1, "02"), (2, "06"), (3, "26"), (4, "66"), (5, "66 02")):
        words = [(0x20, 0x1E), (0x20, 0x21)] * 3
        read(
            f"step-codes-of-{count}-words",
            area=AREA,
            title=f"The codes of {count} listed word{'s'[: count - 1]}, none of them an escape",
            requirements=[STEP, "TD-CHK-020"],
            chain=pairs("BF16", words[:count], Part(hand={"codes": codes})),
        )
    read(
        "step-escapes-only",
        area=AREA,
        title="Every code is 3",
        requirements=[STEP, "TD-CHK-021"],
        chain=pairs(
            "U16",
            [(0x100, 0x100 + step) for step in (2, -3, 129, -129, 1000)],
            Part(hand={"codes": "ff 03"} | _planes("escapes", "00 01 fe fd cc", "00 00 00 00 07")),
        ),
    )
    for bits, dtype in OF_BITS.items():
        top = 1 << bits
        read(
            f"step-wraps-at-{bits}-bits",
            area=AREA,
            title=f"Steps of 1, 2, -1 and -2 over the end of the range of {bits} bits",
            requirements=[STEP, "TD-WRD-001"],
            chain=pairs(
                dtype,
                [(top - 1, 0), (0, top - 1), (top - 2, 0), (1, top - 1), (top - 1, 1)],
                Part(hand={"codes": "b1 03"} | _planes("escapes", *["00 00"] * (bits // 8))),
            ),
        )
        read(
            f"step-sign-at-{bits}-bits",
            area=AREA,
            title=f"The greatest step forth and the greatest step back but one of {bits} bits",
            requirements=[STEP],
            chain=pairs(
                dtype,
                [(7, 7 + top // 2 - 1), (7, (7 + top // 2 + 1) % top)],
                Part(hand={"codes": "0f"} | _planes("escapes", "fa f9", *["ff ff"] * (bits // 8 - 1))),
            ),
        )
        half = [(5, 6), (7, (7 + top // 2) % top), (9, 8)]
        low = ["ff"] * (bits // 8 - 1)
        whole = Part(hand={"codes": "0d"} | _planes("escapes", "fb", *low))
        read(
            f"step-greatest-escape-of-{bits}-bits",
            area=AREA,
            title=f"The greatest escape of {bits} bits, 2^{bits} - 5, steps over half of the range",
            requirements=[STEP, "TD-VAL-002"],
            chain=pairs(dtype, half, whole),
        )
        # With arithmetic modulo 2^w these steps are 0 and -2, and the sums are those of such a reader.
        for less, escape, after in (("4", "fc", 7), ("1", "ff", 5)):
            old = one(dtype, [before for before, _ in half])
            told = one(dtype, [6, after, 8])
            reject(
                f"escape-of-2-{bits}-minus-{less}",
                area=AREA,
                title=f"An escape of 2^{bits} - {less}, in words of {bits} bits",
                requirements=["TD-VAL-002"],
                chain=chain(
                    old,
                    told,
                    replace(
                        whole,
                        positions="all",
                        new=one(dtype, [new for _, new in half]),
                        streams={f"escapes.{j}": bytes.fromhex(each) for j, each in enumerate([escape, *low])},
                        counted=[("w", 0, 5, 6), ("w", 1, 7, after), ("w", 2, 9, 8)],
                    ),
                ),
                error="malformed",
                twin=f"step-greatest-escape-of-{bits}-bits",
            )


def _paddings() -> None:
    words = [(4, 5)] * 5
    read(
        "codes-of-five-steps-forth",
        area=AREA,
        title="Five steps of 1, in two bytes of codes",
        requirements=[STEP, "TD-VAL-003"],
        chain=pairs("U16", words, Part(hand={"codes": "55 01"})),
    )
    for slug, title, last in (
        ("the-first-padding-bit", "The first padding bit of codes is set", 0x05),
        ("the-last-padding-bit", "The last padding bit of codes is set", 0x81),
        ("a-padding-code-of-3", "A code in the padding of codes is 3", 0x31),
    ):
        reject(
            f"codes-with-{slug}",
            area=AREA,
            title=title,
            requirements=["TD-VAL-003"],
            chain=pairs("U16", words, Part(streams={"codes": bytes([0x55, last])})),
            error="malformed",
            twin="codes-of-five-steps-forth",
        )


def _replaced() -> None:
    words = [0x3F80, 0x3F80, 0x3F7F, 0x3F80]
    read(
        "replace-worked-bf16",
        area=AREA,
        title="The worked example of section 7.8 in BF16: two planes of four words",
        requirements=[REPLACE],
        chain=pairs(
            "BF16",
            [(0x4000, word) for word in words],
            Part(values="replace", hand=_planes("values", "80 80 7f 80", "3f 3f 3f 3f")),
        ),
    )
    read(
        "replace-worked-f32",
        area=AREA,
        title="The worked example of section 7.8 in F32: four planes of three words",
        requirements=[REPLACE, "TD-WRD-003"],
        chain=pairs(
            "F32",
            [(0, word) for word in (0x3DCCCCCD, 0xBE4CCCCE, 0xBF7FFFFD)],
            Part(values="replace", hand=_planes("values", "cd ce fd", "cc cc ff", "cc 4c 7f", "3d be bf")),
        ),
    )
    numbers = [0x0807060504030201, 0x1817161514131211]
    digits = [f"{j + 1:02x} {j + 17:02x}" for j in range(8)]
    read(
        "replace-planes-of-64-bits",
        area=AREA,
        title="Each of the eight planes of 64 bits has other bytes",
        requirements=[REPLACE, "TD-WRD-003"],
        chain=pairs("U64", [(0, word) for word in numbers], Part(values="replace", hand=_planes("values", *digits))),
    )
    escape = 0x0807060504030201  # e; y = e + 3 is even, so that the step is back by y / 2 + 1
    read(
        "step-planes-of-64-bits",
        area=AREA,
        title="Each of the eight planes of an escape of 64 bits has another byte",
        requirements=[STEP, "TD-WRD-003"],
        chain=pairs(
            "U64",
            [(0, (1 << 64) - (escape + 3) // 2 - 1)],
            Part(hand={"codes": "03"} | _planes("escapes", *(f"{j + 1:02x}" for j in range(8)))),
        ),
    )
    old = one("U16", range(500, 512))
    new = moved(old, {2: 9, 7: 0xFFFF})
    for positions, which, title in (
        ("gap", [2, 3, 4, 7, 11], "Gaps list words that keep their values"),
        ("bitmap", [0, 1, 2, 7], "A bitmap lists words that keep their values"),
        ("all", range(12), "All words are listed, and most keep their values"),
    ):
        read(
            f"replace-of-equal-words-{positions}",
            area=AREA,
            title=f"{title}; with replace that is legal",
            requirements=["TD-VAL-007"],
            chain=chain(old, new, Part(positions=positions, values="replace", restate=which)),
        )
    read(
        "replace-of-equal-words-only",
        area=AREA,
        title="Each listed word keeps its value, and the fingerprint of the chunk is 0",
        requirements=["TD-VAL-007"],
        chain=chain(old, old, Part(values="replace", restate=[0, 5], entry={"fingerprint": "0" * 16})),
    )
    read(
        "replace-by-zero",
        area=AREA,
        title="Words become 0",
        requirements=[REPLACE],
        chain=chain(old, moved(old, {0: 0, 11: 0}), Part(values="replace", hand=_planes("values", "00 00", "00 00"))),
    )


#: dtype: 0, -0, 1; infinity, a quiet NaN, a quiet NaN with a payload, a signalling NaN, NaN of all bits
_SPECIAL: dict[str, tuple[tuple[int, int, int], tuple[int, ...]]] = {
    "F8_E4M3": ((0x00, 0x80, 0x38), ()),
    "F8_E5M2": ((0x00, 0x80, 0x3C), (0x7C, 0x7E, 0xFE, 0x7D, 0xFF)),
    "F16": ((0x0000, 0x8000, 0x3C00), (0x7C00, 0x7E00, 0x7E55, 0x7C01, 0xFFFF)),
    "BF16": ((0x0000, 0x8000, 0x3F80), (0x7F80, 0x7FC0, 0x7FD5, 0x7F81, 0xFFFF)),
    "F32": ((0, 1 << 31, 0x3F800000), (0x7F800000, 0x7FC00000, 0x7FC12345, 0x7F800001, 0xFFFFFFFF)),
    "F64": (
        (0, 1 << 63, 0x3FF << 52),
        (0x7FF << 52, 0x7FF8 << 48, 0x7FF8123456789ABC, (0x7FF << 52) + 1, (1 << 64) - 1),
    ),
}


def _special() -> None:
    for dtype, ((zero, minus, unit), numbers) in _SPECIAL.items():
        name = dtype.lower().replace("_", "-")
        read(
            f"zeros-of-{name}",
            area=AREA,
            title=f"0 becomes -0 and -0 becomes 0 in {dtype}: the words differ, and both are changes",
            requirements=["TD-WRD-001"],
            chain=pairs(dtype, [(zero, minus), (minus, zero), (unit, minus), (minus, unit)], Part()),
        )
        if not numbers:
            continue
        infinite, quiet, payload, signalling, ones = numbers
        nans = [(infinite, signalling), (quiet, payload), (payload, quiet), (signalling, ones), (ones, infinite)]
        for values in ("step", "replace"):
            read(
                f"nans-of-{name}-by-{values}",
                area=AREA,
                title=f"Infinity, and NaNs of several payloads, become one another in {dtype} by {values}",
                requirements=["TD-WRD-001", ANY],
                chain=pairs(dtype, nans, Part(values=values)),
            )
    read(
        "words-of-bool-beyond-1",
        area=AREA,
        title="Bytes other than 0 and 1 are words of BOOL",
        requirements=[ANY],
        chain=pairs("BOOL", [(0, 1), (1, 2), (2, 255), (255, 0)], Part()),
    )
    halves = [(0x3F80000000000000, 0x3F8000003F800000), (0x80000000, 0x8000000000000000), (0xFFFFFFFF, 0x100000000)]
    read(
        "words-of-c64",
        area=AREA,
        title="A word of C64 has the real part in its low half; a step carries into the high half",
        requirements=[STEP, "TD-WRD-003"],
        chain=pairs("C64", halves, Part()),
    )


def _dtypes() -> None:
    """Each dtype in a full version, and in a delta of steps, replaced words, gaps and bitmaps."""
    for number, dtype in enumerate(DTYPES):
        rng = Random(700 + number)
        old = {"w": random_tensor(rng, dtype, (4, 12)), "z": tensor(dtype, (2, 4))}
        new = stepped(rng, old, 0.4)
        count = len(old["w"].words)
        half = count // 2
        parts = [
            Part([("w", 0, half)], shift=4),
            Part([("w", half, count)], positions="bitmap", values="replace"),
            Part([("z", 0, len(old["z"].words))], positions="bitmap"),
        ]
        read(
            f"dtype-{dtype.lower().replace('_', '-')}",
            area=AREA,
            title=f"Words of {dtype}, which have {word_bits(dtype)} bits, are stepped and replaced",
            requirements=[STEP, REPLACE, ANY],
            chain=chain(old, new, *parts),
        )


_steps()
_paddings()
_replaced()
_special()
_dtypes()
