"""Streams and their sizes (SPEC.md section 7.9), uncompressed and by the content size of their frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from generate.cases import read, reject
from generate.model import Model
from generate.pair import Build, Part, chain, moved, one

AREA = "chunks"
OLD = one("U16", 600)
STEPS: Model = moved(OLD, {3: 1, 9: 1000, 290: 65535, 291: 700, 599: 1})
WORDS: Model = moved(OLD, {3: 1, 9: 1000, 290: 65535, 291: 700, 599: 700})
#: The chain of each kind of streams, five listed words of 600 in each.
PARTS: dict[str, Part] = {
    "gaps": Part(hand={"gaps": "03 05 ff 19 00 ff 34", "codes": "cd 01", "escapes.0": "cc 74", "escapes.1": "07 05"}),
    "low-of-shift-4": Part(shift=4, hand={"gaps": "00 00 11 00 13", "low": "53 08 03"}),
    "low-of-shift-8": Part(shift=8, hand={"gaps": "00 00 01 00 01", "low": "03 05 18 00 33"}),
    "bitmap": Part(positions="bitmap"),
    "values": Part(values="replace", hand={"values.0": "01 e8 ff bc bc", "values.1": "00 03 ff 02 02"}),
}
TITLES = {
    "gaps": "gaps with shift 0, codes and escapes",
    "low-of-shift-4": "gaps with shift 4",
    "low-of-shift-8": "gaps with shift 8",
    "bitmap": "a bitmap",
    "values": "gaps and replaced words",
}


def _twin(kind: str, compression: str) -> str:
    return f"streams-of-{kind}" + ("-in-frames" if compression == "zstd" else "")


def _chain(kind: str, compression: str, streams: Mapping[str, bytes | None]) -> Build:
    part = replace(PARTS[kind], compression=compression, streams=streams)
    return chain(OLD, WORDS if kind == "values" else STEPS, part)


def fault(
    slug: str,
    title: str,
    kind: str,
    streams: Mapping[str, bytes | None],
    rule: str | None = None,
    compression: str = "none",
) -> None:
    """Register a fault of some streams."""
    frames = compression == "zstd"
    reject(
        f"{slug}-in-a-frame" if frames else slug,
        area=AREA,
        title=f"{title}, and so does the content size of the frame" if frames else title,
        requirements=[rule or ("TD-ZST-003" if frames else "TD-CHK-019")],
        chain=_chain(kind, compression, streams),
        error="malformed",
        twin=_twin(kind, compression),
    )


def _sizes() -> None:
    for kind in PARTS:
        for compression in ("none", "zstd"):
            read(
                _twin(kind, compression),
                area=AREA,
                title=f"The streams of {TITLES[kind]}, with compression {compression}",
                requirements=["TD-CHK-019"],
                chain=_chain(kind, compression, {}),
            )
    for compression in ("none", "zstd"):
        for slug, title, kind, streams in (
            ("gaps-shorter-than-m", "The gaps have a byte fewer than m", "gaps", {"gaps": b"\x03\x05\xff\x19"}),
            (
                "gaps-longer-than-their-bound",
                "The gaps have a byte more than m + (n - m) // 255",
                "gaps",
                {"gaps": bytes.fromhex("03 05 ff 19 00 ff 34 00")},
            ),
            (
                "gaps-longer-than-their-bound-with-shift-4",
                "The gaps have a byte more than m + (n - m) // (255 * 16)",
                "low-of-shift-4",
                {"gaps": bytes.fromhex("00 00 11 00 13 00")},
            ),
            (
                "low-shorter-with-shift-4",
                "The stream low has a byte fewer than half of m",
                "low-of-shift-4",
                {"low": b"\x53\x08"},
            ),
            (
                "low-longer-with-shift-4",
                "The stream low has a byte more than half of m",
                "low-of-shift-4",
                {"low": b"\x53\x08\x03\0"},
            ),
            (
                "low-shorter-with-shift-8",
                "The stream low has a byte fewer than m",
                "low-of-shift-8",
                {"low": b"\x03\x05\x18\0"},
            ),
            (
                "low-longer-with-shift-8",
                "The stream low has a byte more than m",
                "low-of-shift-8",
                {"low": b"\x03\x05\x18\0\x33\0"},
            ),
            (
                "bitmap-shorter",
                "The bitmap has a byte fewer than it needs",
                "bitmap",
                {"bitmap": b"\x08\x02" + bytes(34) + b"\x0c" + bytes(37)},
            ),
            (
                "bitmap-longer",
                "The bitmap has a byte more than it needs",
                "bitmap",
                {"bitmap": b"\x08\x02" + bytes(34) + b"\x0c" + bytes(37) + b"\x80\0"},
            ),
            ("codes-shorter", "The codes have a byte fewer than they need", "gaps", {"codes": b"\xcd"}),
            ("codes-longer", "The codes have a byte more than they need", "gaps", {"codes": b"\xcd\x01\0"}),
            (
                "escapes-all-shorter",
                "Each plane of the escapes has a byte fewer than there are codes of 3",
                "gaps",
                {"escapes.0": b"\xcc", "escapes.1": b"\x07"},
            ),
            (
                "escapes-all-longer",
                "Each plane of the escapes has a byte more than there are codes of 3",
                "gaps",
                {"escapes.0": b"\xcc\x74\0", "escapes.1": b"\x07\x05\0"},
            ),
            (
                "escapes-one-plane-longer",
                "One plane of the escapes has a byte more than there are codes of 3",
                "gaps",
                {"escapes.1": b"\x07\x05\0"},
            ),
            (
                "escapes-more-than-m",
                "Each plane of the escapes has more bytes than m",
                "gaps",
                {"escapes.0": b"\xcc\x74\0\0\0\0", "escapes.1": b"\x07\x05\0\0\0\0"},
            ),
            (
                "values-all-shorter",
                "Each plane of the values has a byte fewer than m",
                "values",
                {"values.0": b"\x01\xe8\xff\xbc", "values.1": b"\x00\x03\xff\x02"},
            ),
            (
                "values-all-longer",
                "Each plane of the values has a byte more than m",
                "values",
                {"values.0": b"\x01\xe8\xff\xbc\xbc\0", "values.1": b"\x00\x03\xff\x02\x02\0"},
            ),
            (
                "values-one-plane-shorter",
                "One plane of the values has a byte fewer than m",
                "values",
                {"values.1": b"\x00\x03\xff\x02"},
            ),
        ):
            fault(slug, title, kind, streams, compression=compression)


def _empty() -> None:
    """Streams of no bytes."""
    for kind, name in (
        ("gaps", "gaps"),
        ("low-of-shift-4", "low"),
        ("bitmap", "bitmap"),
        ("gaps", "codes"),
        ("gaps", "escapes.0"),
        ("values", "values.1"),
    ):
        slug = name.replace(".", "-")
        fault(f"stream-{slug}-empty", f"The stream {name} has no bytes", kind, {name: b""})


def _escapes() -> None:
    """Escapes without a code of 3, and the other way round."""
    old = one("U16", 40)
    new = moved(old, {3: 1, 9: 1, 20: 65535})
    part = Part(hand={"codes": "05"})
    read(
        "escapes-absent",
        area=AREA,
        title="No code is 3, so there are no escapes",
        requirements=["TD-CHK-020"],
        chain=chain(old, new, part),
    )
    for slug, title, planes in (
        (
            "of-no-code",
            "No code is 3, and each plane of the escapes has a byte",
            {"escapes.0": b"\0", "escapes.1": b"\0"},
        ),
        (
            "of-no-code-and-no-bytes",
            "No code is 3, and each plane of the escapes is there with no bytes",
            {"escapes.0": b"", "escapes.1": b""},
        ),
        ("of-no-code-in-one-plane", "No code is 3, and one plane of the escapes has a byte", {"escapes.0": b"\0"}),
    ):
        reject(
            f"escapes-{slug}",
            area=AREA,
            title=title,
            requirements=["TD-CHK-020"],
            chain=chain(old, new, replace(part, streams=planes)),
            error="malformed",
            twin="escapes-absent",
        )
    fault(
        "escapes-missing",
        "Two codes are 3, and there are no escapes",
        "gaps",
        {"escapes.0": None, "escapes.1": None},
        "TD-CHK-021",
    )
    fault(
        "escapes-without-their-first-plane",
        "Two codes are 3, and the first plane of the escapes is missing",
        "gaps",
        {"escapes.0": None},
        "TD-CHK-021",
    )
    fault(
        "escapes-without-their-last-plane",
        "Two codes are 3, and the last plane of the escapes is missing",
        "gaps",
        {"escapes.1": None},
        "TD-CHK-021",
    )


_sizes()
_empty()
_escapes()
