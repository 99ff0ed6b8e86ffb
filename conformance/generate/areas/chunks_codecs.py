"""Codec objects, and which of them go together (SPEC.md sections 6.3 and 7.11)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from generate.model import Model, Random, changed, random_tensor, tensor, weights
from generate.pair import Part, chain, moved, moved_in, one
from generate.rows import Rows

ROWS = Rows("chunks")
POSITIONS = [("gap", 0), ("gap", 4), ("gap", 8), ("bitmap", 0), ("all", 0)]


def named(part: Part) -> tuple[str, str]:
    """The codecs of a chunk for a slug, and for a title."""
    slug = f"{part.order}-{part.positions}{part.shift if part.positions == 'gap' else ''}-{part.values}"
    shift = f" with shift {part.shift}" if part.positions == "gap" else ""
    return slug, f"order {part.order}, positions {part.positions}{shift}, values {part.values}"


def models(everywhere: bool) -> tuple[Model, Model]:
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


# fmt: off
# -- combinations ------------------------------------------------------------------------------------------------------

FIVE = one("BF16", [0x3F80, 0x3C00, 0x0000, 0x3C10, 0xBF00])
UP = one("BF16", [0x3F81, 0x3C01, 0x0001, 0x3C11, 0xBF01])
ROWS.read("exponent-of-five-words", "Order exponent with gaps and steps, of five words that all change", "CHK-023",
    chain(FIVE, UP, Part(order="exponent")), level="reader-exponent")
LEGAL = [
    *(("natural", *each, values) for each in POSITIONS for values in ("step", "replace")),
    *(("exponent", *each, "step") for each in POSITIONS if each[0] != "all"),
]
for order, positions, shift, values in LEGAL:
    old, new = models(everywhere=positions == "all")
    for compression in ("none", "zstd"):
        part = Part(order=order, positions=positions, shift=shift, values=values, compression=compression)
        slug, text = named(part)
        ROWS.read(f"combination-{slug}-{compression}",
            f"Chunks of words of 8 to 64 bits: {text}, compression {compression}", "CHK-023",
            chain(old, new, *(replace(part, slices=[(name, 0, len(each.words))]) for name, each in old.items())),
            level="reader-core" if order == "natural" else "reader-exponent")
# The fingerprints are those of what a reader without the check would read.
for positions, shift, values, rules in (
    *((*each, "replace", "CHK-022 VAL-006") for each in POSITIONS if each[0] != "all"),
    ("all", 0, "replace", "CHK-022"),
    ("all", 0, "step", "CHK-022 POS-012"),
):
    part = Part(order="exponent", positions=positions, shift=shift, values=values)
    slug, text = named(part)
    ROWS.reject(f"illegal-{slug}", f"Codecs that do not go together: {text}", rules,
        chain(FIVE, UP, part), twin="exponent-of-five-words", level="reader-exponent")

MIXED: Model = {"a": tensor("U8", (40,), 1), "b": tensor("BF16", (40,), 2), "c": tensor("U8", (4,), 3)}
ROWS.read("codecs-of-all-kinds-in-one-pack", "Chunks of one pack with other dtypes, codecs and compressions", "CHK-023",
    chain(MIXED, moved_in(MIXED, a={3: 5, 4: 5}, b={39: 9}, c=dict.fromkeys(range(4), 7)),
        Part([("a", 0, 40)], compression="zstd"), Part([("b", 0, 40)], positions="bitmap", values="replace"),
        Part([("c", 0, 4)], positions="all", compression="zstd")))

# -- codec objects -----------------------------------------------------------------------------------------------------

OLD = one("U8", 300)
NEW = moved(OLD, dict.fromkeys([3, 9, 299], 1))
SOUND = {"gap": Part(shift=4), "bitmap": Part(positions="bitmap"), "all": Part(positions="all", values="replace")}
for name, part in SOUND.items():
    ROWS.read(f"codecs-{name}", f"A chunk with positions {name}", "CHK-023", chain(OLD, NEW, part))


def fault(slug: str, title: str, rule: str, entry: dict[str, Any], error: str = "malformed", twin: str = "gap") -> None:
    """Members of the chunk's entry are set."""
    ROWS.reject(slug, title, rule, chain(OLD, NEW, replace(SOUND[twin], entry=entry)), error, f"codecs-{twin}")


for member, known in (("order", "natural"), ("positions", "gap"), ("values", "step")):
    for slug, title, rule, value, error in (
        ("unknown", f"The codec of {member} is one that no version of the format has", "CHK-012",
         {"codec": "elias-fano"}, "unsupported"),
        ("empty", f"The codec of {member} is the empty string", "CHK-012", {"codec": ""}, "unsupported"),
        ("without-a-name", f"The codec object of {member} has no codec", "CHK-002", {}, "malformed"),
        ("named-by-a-number", f"The codec of {member} is a number", "CHK-002", {"codec": 1}, "malformed"),
        ("that-is-null", f"The codec object of {member} is null", "CHK-002", None, "malformed"),
        ("that-is-a-string", f"The codec object of {member} is the codec's name", "CHK-002", known, "malformed"),
    ):
        fault(f"codec-of-{member}-{slug}", title, rule, {member: value}, error)
for member, codec in (
    ("order", "gap"),
    ("order", "step"),
    ("positions", "natural"),
    ("positions", "replace"),
    ("values", "all"),
    ("values", "exponent"),
):
    fault(f"codec-of-{member}-is-{codec}", f"The codec of {member} is {codec}, which is known, but not there",
        "CHK-012", {member: {"codec": codec}}, "unsupported")
fault("codec-in-upper-case", "The codec of values is STEP", "CHK-012", {"values": {"codec": "STEP"}}, "unsupported")

fault("gap-without-shift", "Codec gap has no shift", "CHK-013", {"positions": {"codec": "gap"}})
wrong: Any
for slug, text, rule, wrong in (
    *((f"{number}", f"{number}", "CHK-013", number) for number in (1, 3, 5, 7, 9, 16)),
    ("minus-4", "-4", "JSN-009", -4),
    ("string", "a string", "CHK-013", "4"),
    ("null", "null", "CHK-013", None),
    ("fraction", "written 4.0", "JSN-009", 4.0),
    ("boolean", "false", "CHK-013", False),
    ("array", "an array", "CHK-013", [4]),
):
    fault(f"gap-shift-{slug}", f"The shift is {text}", rule, {"positions": {"codec": "gap", "shift": wrong}})
for slug, twin, entry in (
    ("natural-with-limit", "gap", {"order": {"codec": "natural", "limit": 3}}),
    ("gap-with-another-member", "gap", {"positions": {"codec": "gap", "shift": 4, "Shift": 4}}),
    ("bitmap-with-shift", "bitmap", {"positions": {"codec": "bitmap", "shift": 0}}),
    ("all-with-shift", "all", {"positions": {"codec": "all", "shift": 0}}),
    ("step-with-another-member", "gap", {"values": {"codec": "step", "signed": None}}),
    ("replace-with-another-member", "all", {"values": {"codec": "replace", "planes": 1}}),
):
    fault(f"codec-{slug}", f"A codec object has a member too many: {slug.replace('-', ' ')}", "CHK-014",
        entry, twin=twin)

UNKNOWN = "The compression is one that no version of the format has"
fault("compression-unknown", UNKNOWN, "CHK-015", {"compression": "lz4"}, "unsupported")
fault("compression-in-upper-case", "The compression is NONE", "CHK-015", {"compression": "NONE"}, "unsupported")
fault("compression-empty", "The compression is the empty string", "CHK-015", {"compression": ""}, "unsupported")
fault("compression-object", "The compression is a codec object", "CHK-002", {"compression": {"codec": "none"}})
fault("compression-null", "The compression is null", "CHK-002", {"compression": None})
