"""Streams and their sizes (SPEC.md section 7.9), uncompressed and by the content size of their frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from generate.pair import Part, Stream, chain, moved, one
from generate.rows import Build, Rows, kebab

ROWS = Rows("chunks")
OLD = one("U16", 600)
STEPS = moved(OLD, {3: 1, 9: 1000, 290: 65535, 291: 700, 599: 1})
WORDS = moved(OLD, {3: 1, 9: 1000, 290: 65535, 291: 700, 599: 700})
#: The chain of each kind of streams, five listed words of 600 in each.
KINDS: dict[str, tuple[str, Part]] = {
    "gaps": (
        "gaps with shift 0, codes and escapes",
        Part(hand={"gaps": "03 05 ff 19 00 ff 34", "codes": "cd 01", "escapes.0": "cc 74", "escapes.1": "07 05"}),
    ),
    "low-of-shift-4": ("gaps with shift 4", Part(shift=4, hand={"gaps": "00 00 11 00 13", "low": "53 08 03"})),
    "low-of-shift-8": ("gaps with shift 8", Part(shift=8, hand={"gaps": "00 00 01 00 01", "low": "03 05 18 00 33"})),
    "bitmap": ("a bitmap", Part(positions="bitmap")),
    "values": (
        "gaps and replaced words",
        Part(values="replace", hand={"values.0": "01 e8 ff bc bc", "values.1": "00 03 ff 02 02"}),
    ),
}


def build(kind: str, compression: str = "none", streams: Mapping[str, Stream] | None = None) -> Build:
    """The chain of a kind of streams, some of them others."""
    part = replace(KINDS[kind][1], compression=compression, streams=streams or {})
    return chain(OLD, WORDS if kind == "values" else STEPS, part)


def fault(slug: str, title: str, rule: str, kind: str, streams: Mapping[str, Stream]) -> None:
    """Some streams are others."""
    ROWS.reject(slug, title, rule, build(kind, "none", streams), twin=f"streams-of-{kind}")


def size(slug: str, title: str, kind: str, streams: Mapping[str, Stream]) -> None:
    """Some streams have another size, as they are and in frames."""
    fault(slug, title, "CHK-019", kind, streams)
    title += ", and so does the content size of the frame"
    ROWS.reject(
        f"{slug}-in-a-frame", title, "ZST-003", build(kind, "zstd", streams), twin=f"streams-of-{kind}-in-frames"
    )


# fmt: off
for kind, (text, _) in KINDS.items():
    for suffix, compression in (("", "none"), ("-in-frames", "zstd")):
        ROWS.read(f"streams-of-{kind}{suffix}", f"The streams of {text}, with compression {compression}", "CHK-019",
            build(kind, compression))

# -- sizes -------------------------------------------------------------------------------------------------------------

size("gaps-shorter-than-m", "The gaps have a byte fewer than m", "gaps", {"gaps": "03 05 ff 19"})
size("gaps-longer-than-their-bound", "The gaps have a byte more than m + (n - m) // 255", "gaps",
    {"gaps": "03 05 ff 19 00 ff 34 00"})
size("gaps-longer-than-their-bound-with-shift-4", "The gaps have a byte more than m + (n - m) // (255 * 16)",
    "low-of-shift-4", {"gaps": "00 00 11 00 13 00"})
size("low-shorter-with-shift-4", "The stream low has a byte fewer than half of m", "low-of-shift-4", {"low": "53 08"})
size("low-longer-with-shift-4", "The stream low has a byte more than half of m", "low-of-shift-4",
    {"low": "53 08 03 00"})
size("low-shorter-with-shift-8", "The stream low has a byte fewer than m", "low-of-shift-8", {"low": "03 05 18 00"})
size("low-longer-with-shift-8", "The stream low has a byte more than m", "low-of-shift-8", {"low": "03 05 18 00 33 00"})
BITMAP = "08 02" + "00" * 34 + "0c" + "00" * 37
size("bitmap-shorter", "The bitmap has a byte fewer than it needs", "bitmap", {"bitmap": BITMAP})
size("bitmap-longer", "The bitmap has a byte more than it needs", "bitmap", {"bitmap": BITMAP + "80 00"})
size("codes-shorter", "The codes have a byte fewer than they need", "gaps", {"codes": "cd"})
size("codes-longer", "The codes have a byte more than they need", "gaps", {"codes": "cd 01 00"})
size("escapes-all-shorter", "Each plane of the escapes has a byte fewer than there are codes of 3", "gaps",
    {"escapes.0": "cc", "escapes.1": "07"})
size("escapes-all-longer", "Each plane of the escapes has a byte more than there are codes of 3", "gaps",
    {"escapes.0": "cc 74 00", "escapes.1": "07 05 00"})
size("escapes-one-plane-longer", "One plane of the escapes has a byte more than there are codes of 3", "gaps",
    {"escapes.1": "07 05 00"})
size("escapes-more-than-m", "Each plane of the escapes has more bytes than m", "gaps",
    {"escapes.0": "cc 74 00 00 00 00", "escapes.1": "07 05 00 00 00 00"})
size("values-all-shorter", "Each plane of the values has a byte fewer than m", "values",
    {"values.0": "01 e8 ff bc", "values.1": "00 03 ff 02"})
size("values-all-longer", "Each plane of the values has a byte more than m", "values",
    {"values.0": "01 e8 ff bc bc 00", "values.1": "00 03 ff 02 02 00"})
size("values-one-plane-shorter", "One plane of the values has a byte fewer than m", "values",
    {"values.1": "00 03 ff 02"})
for kind, name in (
    ("gaps", "gaps"), ("low-of-shift-4", "low"), ("bitmap", "bitmap"), ("gaps", "codes"), ("gaps", "escapes.0"),
    ("values", "values.1"),
):
    fault(f"stream-{kebab(name)}-empty", f"The stream {name} has no bytes", "CHK-019", kind, {name: ""})

# -- escapes without a code of 3, and the other way round --------------------------------------------------------------

NO_3 = Part(hand={"codes": "05"})
OLD_3 = one("U16", 40)
NEW_3 = moved(OLD_3, {3: 1, 9: 1, 20: 65535})
ROWS.read("escapes-absent", "No code is 3, so there are no escapes", "CHK-020", chain(OLD_3, NEW_3, NO_3))
for slug, title, planes in (
    ("of-no-code", "No code is 3, and each plane of the escapes has a byte", {"escapes.0": "00", "escapes.1": "00"}),
    ("of-no-code-and-no-bytes", "No code is 3, and each plane of the escapes is there with no bytes",
     {"escapes.0": "", "escapes.1": ""}),
    ("of-no-code-in-one-plane", "No code is 3, and one plane of the escapes has a byte", {"escapes.0": "00"}),
):
    ROWS.reject(f"escapes-{slug}", title, "CHK-020", chain(OLD_3, NEW_3, replace(NO_3, streams=planes)),
        twin="escapes-absent")
fault("escapes-missing", "Two codes are 3, and there are no escapes", "CHK-021",
    "gaps", {"escapes.0": None, "escapes.1": None})
fault("escapes-without-their-first-plane", "Two codes are 3, and the first plane of the escapes is missing", "CHK-021",
    "gaps", {"escapes.0": None})
fault("escapes-without-their-last-plane", "Two codes are 3, and the last plane of the escapes is missing", "CHK-021",
    "gaps", {"escapes.1": None})
