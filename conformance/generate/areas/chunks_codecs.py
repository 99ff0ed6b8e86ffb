"""Codec objects, and which of them go together (SPEC.md sections 6.3 and 7.11)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from generate.cases import read, reject
from generate.model import Model, Random, changed, random_tensor, tensor, weights
from generate.pair import Part, chain, moved, one

AREA = "chunks"
POSITIONS = [("gap", 0), ("gap", 4), ("gap", 8), ("bitmap", 0), ("all", 0)]


def _name(part: Part) -> str:
    return f"{part.order}-{part.positions}{part.shift if part.positions == 'gap' else ''}-{part.values}"


def _words(part: Part) -> str:
    shift = f" with shift {part.shift}" if part.positions == "gap" else ""
    return f"order {part.order}, positions {part.positions}{shift}, values {part.values}"


def _models(everywhere: bool) -> tuple[Model, Model]:
    """Tensors of every width of words, and what they become."""
    rng = Random(900)
    old: Model = {
        "w16": weights(rng, (40,)),
        "w32": weights(rng, (30,), "F32"),
        "w64": random_tensor(rng, "F64", (20,)),
        "w8": random_tensor(rng, "F8_E4M3", (50,)),
    }
    if not everywhere:
        return old, {name: changed(rng, each, 0.3) for name, each in old.items()}
    return old, {name: each._replace(words=each.words + each.words.dtype.type(77)) for name, each in old.items()}


def _legal() -> None:
    for order in ("natural", "exponent"):
        for positions, shift in POSITIONS:
            for values in ("step", "replace"):
                if order == "exponent" and (positions == "all" or values == "replace"):
                    continue
                old, new = _models(positions == "all")
                for compression in ("none", "zstd"):
                    coding = Part(order=order, positions=positions, shift=shift, values=values, compression=compression)
                    parts = [replace(coding, slices=[(name, 0, len(each.words))]) for name, each in old.items()]
                    read(
                        f"combination-{_name(coding)}-{compression}",
                        area=AREA,
                        title=f"Chunks of words of 8 to 64 bits: {_words(coding)}, compression {compression}",
                        requirements=["TD-CHK-023"],
                        chain=chain(old, new, *parts),
                        level=f"reader-{'core' if order == 'natural' else 'exponent'}",
                    )


def _illegal() -> None:
    """What a reader without the check would read from these is what their fingerprints tell."""
    old = one("BF16", [0x3F80, 0x3C00, 0x0000, 0x3C10, 0xBF00])
    new = moved(old, {place: int(old["w"].words[place]) + 1 for place in range(5)})
    exponent = Part(order="exponent")
    read(
        "exponent-of-five-words",
        area=AREA,
        title="Order exponent with gaps and steps, of five words that all change",
        requirements=["TD-CHK-023"],
        chain=chain(old, new, exponent),
        level="reader-exponent",
    )
    for positions, shift in POSITIONS:
        for values in ("replace", "step"):
            if positions != "all" and values == "step":
                continue
            part = replace(exponent, positions=positions, shift=shift, values=values)
            rules = ["TD-CHK-022", "TD-VAL-006" if values == "replace" else "TD-POS-012"]
            reject(
                f"illegal-{_name(part)}",
                area=AREA,
                title=f"Codecs that do not go together: {_words(part)}",
                requirements=rules if positions != "all" or values == "step" else ["TD-CHK-022"],
                chain=chain(old, new, part),
                error="malformed",
                twin="exponent-of-five-words",
                level="reader-exponent",
            )


def _objects() -> None:
    old = one("U8", 300)
    new = moved(old, dict.fromkeys([3, 9, 299], 1))
    gap = Part(shift=4)
    twins: dict[str, Part] = {
        "gap": gap,
        "bitmap": Part(positions="bitmap"),
        "all": Part(positions="all", values="replace"),
    }
    for name, sound in twins.items():
        read(
            f"codecs-{name}",
            area=AREA,
            title=f"A chunk with positions {name}",
            requirements=["TD-CHK-023"],
            chain=chain(old, new, sound),
        )

    def fault(
        slug: str, title: str, rule: str, entry: dict[str, Any], twin: str = "gap", error: str = "malformed"
    ) -> None:
        reject(
            slug,
            area=AREA,
            title=title,
            requirements=[rule],
            chain=chain(old, new, replace(twins[twin], entry=entry)),
            error=error,
            twin=f"codecs-{twin}",
        )

    for part in ("order", "positions", "values"):
        for slug, title, rule, value, error in (
            (
                "unknown",
                f"The codec of {part} is one that no version of the format has",
                "TD-CHK-012",
                {"codec": "elias-fano"},
                "unsupported",
            ),
            ("empty", f"The codec of {part} is the empty string", "TD-CHK-012", {"codec": ""}, "unsupported"),
            ("without-a-name", f"The codec object of {part} has no codec", "TD-CHK-002", {}, "malformed"),
            ("named-by-a-number", f"The codec of {part} is a number", "TD-CHK-002", {"codec": 1}, "malformed"),
            ("that-is-null", f"The codec object of {part} is null", "TD-CHK-002", None, "malformed"),
            (
                "that-is-a-string",
                f"The codec object of {part} is the codec's name",
                "TD-CHK-002",
                {"order": "natural", "positions": "gap", "values": "step"}[part],
                "malformed",
            ),
        ):
            fault(f"codec-of-{part}-{slug}", title, rule, {part: value}, error=error)
    for part, codec in (
        ("order", "gap"),
        ("order", "step"),
        ("positions", "natural"),
        ("positions", "replace"),
        ("values", "all"),
        ("values", "exponent"),
    ):
        fault(
            f"codec-of-{part}-is-{codec}",
            f"The codec of {part} is {codec}, which is known, but not there",
            "TD-CHK-012",
            {part: {"codec": codec}},
            error="unsupported",
        )
    fault(
        "codec-in-upper-case",
        "The codec of values is STEP",
        "TD-CHK-012",
        {"values": {"codec": "STEP"}},
        error="unsupported",
    )

    fault("gap-without-shift", "Codec gap has no shift", "TD-CHK-013", {"positions": {"codec": "gap"}})
    for slug, text, rule, shift in (
        ("1", "1", "TD-CHK-013", 1),
        ("3", "3", "TD-CHK-013", 3),
        ("5", "5", "TD-CHK-013", 5),
        ("7", "7", "TD-CHK-013", 7),
        ("9", "9", "TD-CHK-013", 9),
        ("16", "16", "TD-CHK-013", 16),
        ("minus-4", "-4", "TD-JSN-009", -4),
        ("string", "a string", "TD-CHK-013", "4"),
        ("null", "null", "TD-CHK-013", None),
        ("fraction", "written 4.0", "TD-JSN-009", 4.0),
        ("boolean", "false", "TD-CHK-013", False),
        ("array", "an array", "TD-CHK-013", [4]),
    ):
        fault(f"gap-shift-{slug}", f"The shift is {text}", rule, {"positions": {"codec": "gap", "shift": shift}})
    for slug, twin, entry in (
        ("natural-with-limit", "gap", {"order": {"codec": "natural", "limit": 3}}),
        ("gap-with-another-member", "gap", {"positions": {"codec": "gap", "shift": 4, "Shift": 4}}),
        ("bitmap-with-shift", "bitmap", {"positions": {"codec": "bitmap", "shift": 0}}),
        ("all-with-shift", "all", {"positions": {"codec": "all", "shift": 0}}),
        ("step-with-another-member", "gap", {"values": {"codec": "step", "signed": None}}),
        ("replace-with-another-member", "all", {"values": {"codec": "replace", "planes": 1}}),
    ):
        fault(
            f"codec-{slug}",
            f"A codec object has a member too many: {slug.replace('-', ' ')}",
            "TD-CHK-014",
            entry,
            twin,
        )

    for slug, title, rule, value, error in (
        ("unknown", "The compression is one that no version of the format has", "TD-CHK-015", "lz4", "unsupported"),
        ("in-upper-case", "The compression is NONE", "TD-CHK-015", "NONE", "unsupported"),
        ("empty", "The compression is the empty string", "TD-CHK-015", "", "unsupported"),
        ("object", "The compression is a codec object", "TD-CHK-002", {"codec": "none"}, "malformed"),
        ("null", "The compression is null", "TD-CHK-002", None, "malformed"),
    ):
        fault(f"compression-{slug}", title, rule, {"compression": value}, error=error)

    mixed = {"a": tensor("U8", (40,), 1), "b": tensor("BF16", (40,), 2), "c": tensor("U8", (4,), 3)}
    after = moved(moved(moved(mixed, {3: 5, 4: 5}, "a"), {39: 9}, "b"), dict.fromkeys(range(4), 7), "c")
    read(
        "codecs-of-all-kinds-in-one-pack",
        area=AREA,
        title="Chunks of one pack with other dtypes, codecs and compressions",
        requirements=["TD-CHK-023"],
        chain=chain(
            mixed,
            after,
            Part([("a", 0, 40)], compression="zstd"),
            Part([("b", 0, 40)], positions="bitmap", values="replace"),
            Part([("c", 0, 4)], positions="all", compression="zstd"),
        ),
    )


_legal()
_illegal()
_objects()
