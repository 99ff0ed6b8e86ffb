"""Fingerprints of states, results of chunks (SPEC.md section 8), and what a reader finds by them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from generate.builder import Builder
from generate.fingerprint import fingerprint, value_of
from generate.model import MASK64, Model, tensor
from generate.pair import Part, chain, moved, moved_in, one
from generate.rows import Build, Rows

ROWS = Rows("fingerprint", twin="two-chunks-with-fingerprints")
RULE, CHUNK, STATE, FULL = "FPR-006", "CHK-024", "RDR-007", "RDR-009"
BOTH = ("wrong-base", "integrity")
"""The errors where a chunk's result and the state's fingerprint are wrong."""
Document = dict[str, Any]


def whole(new: Model) -> Build:
    """A full version of gaps and steps, a chunk for each tensor that has a word other than 0."""
    return chain(None, new, *(Part([(name, 0, len(each.words))]) for name, each in new.items() if each.words.any()))


def state(slug: str, title: str, new: Model, digits: str) -> None:
    """A full version whose fingerprint is known by hand or from section 8.2."""

    def build() -> Builder:
        if fingerprint(new) != digits:
            raise AssertionError(f"the fingerprint is {fingerprint(new)}, not {digits}")
        return whole(new)()

    ROWS.read(f"fingerprint-{slug}", title, RULE, build, full=True)


def change(slug: str, title: str, old: Model, new: Model, digits: str, part: Part | None = None) -> None:
    """A delta of one chunk whose result is known from section 8.3."""

    def check(document: Document) -> None:
        if document["chunks"][0]["result"] != digits:
            raise AssertionError(f"the chunk's result is {document['chunks'][0]['result']}, not {digits}")

    ROWS.read(f"change-{slug}", title, RULE, chain(old, new, part or Part(), table=check))


def fault(
    slug: str,
    title: str,
    rule: str,
    build: Build,
    twin: str = "",
    error: str | tuple[str, ...] = "integrity",
    **how: Any,
) -> None:
    """Something that only a sum shows."""
    ROWS.reject(slug, title, rule, build, error, twin, **how)


def unsummed(document: Document) -> None:
    """A manifest without the sums of its tensors, so that `fingerprint` alone says what the state is."""
    del document["tensor_fingerprints"]


def saying(number: int) -> Callable[[Document], None]:
    """A manifest of another fingerprint."""

    def manifest(document: Document) -> None:
        unsummed(document)
        document["fingerprint"] = f"{number % (1 << 64):016x}"

    return manifest


def chunks(how: Callable[[int, int], tuple[int, int]]) -> Callable[[Document], None]:
    """A chunk table in which the results of two chunks are others."""

    def table(document: Document) -> None:
        first, second = document["chunks"]
        numbers = how(int(first["result"], 16), int(second["result"], 16))
        first["result"], second["result"] = (f"{number % (1 << 64):016x}" for number in numbers)

    return table


# fmt: off
# -- the test values of section 8.2 ------------------------------------------------------------------------------------

WEIGHTS: Model = {
    "a": tensor("BF16", (3,), [0x3F80, 0, 0xBF80]),
    "b": tensor("F32", (2,), [0x3F800000, 0x80000000]),
    "é": tensor("U8", (2,), [1, 0xFF]),
}
U64 = 0x0001000200030004
for slug, text, new, digits in (
    ("no-tensors", "no tensors", {}, "0000000000000000"),
    ("u8", "one word of U8", one("U8", [1]), "06b0e25fa27a0ddf"),
    ("u16", "one word of U16", one("U16", [1]), "06b0e25fa27a0ddf"),
    ("u16-lane-1", "two words of U16, the first of them 0", one("U16", [0, 1]), "e4582d4b0bbbb791"),
    ("u32-lane-1", "one word of U32 with a bit in its high lane", one("U32", [0x10000]), "e4582d4b0bbbb791"),
    ("u8-lane-2", "three words of U8, a lane each", one("U8", [0, 0, 0xFF]), "22c5a6a86cb03e01"),
    ("f8-e4m3", "two words of F8_E4M3", one("F8_E4M3", [0x38, 0xB8]), "961212dbf99ef900"),
    ("f4", "four elements of F4 in two bytes", {"w": tensor("F4", (4,), [0x21, 0x43])}, "9fe108f803dcd4b2"),
    ("u64", "one word of U64, four lanes of it", one("U64", [U64]), "e03d6fa0563506aa"),
    ("bf16", "three words of BF16", one("BF16", [0x3F80, 0, 0xBF80]), "1838f607cecf9100"),
    ("f32", "two words of F32, one of them -0", one("F32", [0x3F800000, 0x80000000]), "3960cde52346f780"),
    ("name-in-utf-8", "a tensor whose name is not ASCII", one("U8", [1, 0xFF], "é"), "3cce9ccab0fc774a"),
    ("three-tensors", "three tensors", WEIGHTS, "f87480fe356892ca"),
    ("lane-65536", "U8 with its only bit in lane 65,536", moved(one("U8", 65_537), {65_536: 1}), "20ccf4e39b5c78e7"),
    ("lanes-from-65536", "U64 with its only word in the lanes from 65,536", moved(one("U64", 16_385), {16_384: U64}),
     "a151bb2508fc8d5a"),
):
    state(f"of-{slug}", f"The test value of section 8.2 for {text}", new, digits)
state("of-zeros", "A state whose words are all 0 has the fingerprint 0", {"w": tensor("F32", (3, 2))}, "0" * 16)
state("that-begins-with-zeros", "A fingerprint is written with its leading zeros", one("U16", [0x1A5]),
    "00e4474632b8cfbb")

# -- changes -----------------------------------------------------------------------------------------------------------

F32 = one("F32", [0x3F80FFFF, 0xBF800000, 7])
CARRIED, BORROWED = moved(F32, {0: 0x3F810000}), moved(F32, {1: 0xBF7FFFFE})
CARRY, BORROW = 0xC3944AB41BC42F11, 0x9A6729D9B8AFD905
change("that-carries", "A step of 1 that carries from the low lane into the high one changes both lanes",
    F32, CARRIED, f"{CARRY:016x}")
change("that-borrows", "A step of -2 that borrows from the high lane changes both lanes", F32,
    BORROWED, f"{BORROW:016x}")
change("that-borrows-in-word-0", "The same step in word 0 of the tensor",
    one("F32", [0xBF800000, 7]), one("F32", [0xBF7FFFFE, 7]), "e68753b6a9002431")
change("of-two-words", "The result of a chunk is the sum of two values modulo 2^64",
    F32, moved(CARRIED, {1: 0xBF7FFFFE}), f"{CARRY + BORROW & MASK64:016x}")
change("in-an-inner-slice", "The lanes of a word are numbered from the first word of the tensor, not of the slice",
    F32, BORROWED, f"{BORROW:016x}", Part([("w", 1, 3)]))
WIDE, LANES = one("U8", 65_540), one("U32", 32_770)
ROWS.read("change-beyond-lane-65535", "Words of U8 on both sides of lane 65,536 change", RULE,
    chain(WIDE, moved(WIDE, {65_535: 1, 65_536: 1, 65_539: 255}), Part(shift=8)))
# The seed of "w" is even, so that to add 1 is the same as to take xor 1; that of "t" is odd.
ODD = {"t": WIDE["w"]}
ROWS.read("change-beyond-lane-65535-of-an-odd-seed", "Lanes from 65,536 on, where adding to the seed carries", RULE,
    chain(ODD, moved_in(ODD, t={65_535: 1, 65_536: 1, 65_539: 255}), Part([("t", 0, 65_540)], shift=8)))
ROWS.read("words-of-u32-beyond-lane-65535", "Words of U32 on both sides of lane 65,536, in a full version", RULE,
    whole(moved(LANES, {32_767: 0x00010002, 32_768: 0x00030004, 32_769: 0xFFFFFFFF})), full=True)
ROWS.read("change-of-two-tensors-in-a-chunk",
    "A chunk over two tensors adds up values with the coefficients of each name", RULE,
    chain({"v": F32["w"], **F32}, moved_in({"v": F32["w"], **F32}, v={2: 8}, w={0: 0x3F810000}),
        Part([("v", 0, 3), ("w", 0, 3)])))

# -- results of chunks -------------------------------------------------------------------------------------------------

OLD: Model = {"a": tensor("BF16", (5, 8), 0x3FFF), "b": tensor("U16", (20,), 0xFFFF)}
NEW = moved_in(OLD, a={3: 0x4000, 39: 0x3FFE}, b={0: 0, 19: 1})
CHUNK_A, CHUNK_B = Part([("a", 0, 40)], shift=4), Part([("b", 0, 20)], values="replace")
A_BEFORE = value_of("a", AT := np.array([3, 39]), OLD["a"].words[AT])
ROWS.read("two-chunks-with-fingerprints", "Two chunks, of steps and of replaced words", f"{CHUNK} {STATE}",
    chain(OLD, NEW, CHUNK_A, CHUNK_B))
for slug, title, how in (
    ("one-more", "The result of a chunk is one more than it should be", lambda a, b: (a + 1, b)),
    ("one-less-of-replaced-words", "The result of a chunk of replaced words is one less than it should be",
     lambda a, b: (a, b - 1)),
    ("with-its-highest-bit-changed", "The highest bit of a chunk's result is wrong",
     lambda a, b: (a ^ 1 << 63, b)),
    ("swapped", "Two chunks have each other's results, whose sum is right", lambda a, b: (b, a)),
    ("that-cancel-out", "The results of two chunks are wrong, and their sum is right",
     lambda a, b: (a + 5, b - 5)),
    ("that-is-0", "The result of a chunk is 0", lambda a, b: (a, 0)),
    ("of-the-changes", "The result of a chunk counts the changes of its words, not the new words",
     lambda a, b: (a - A_BEFORE, b)),
):
    fault(f"chunk-result-{slug}", title, CHUNK, chain(OLD, NEW, CHUNK_A, CHUNK_B, table=chunks(how)),
        error="wrong-base")
STEP = one("F32", [0x3F80FFFF, 7]), one("F32", [0x3F810000, 7])
ROWS.read("change-alone-that-carries", "A step that carries from the low lane into the high one", RULE,
    chain(*STEP, Part()))
fault("chunk-result-without-the-carry",
    "The result of a chunk counts a step that carries as a change of the low lane by 1", CHUNK,
    chain(*STEP, Part(counted=[("w", 0, 0x3F800000)])), "change-alone-that-carries", "wrong-base")
for slug, title, streams in (
    ("step-in-the-other-direction", "A code says -1 for a step of 1", {"codes": "00"}),
    ("position-next-to-the-right-one", "A position is one too low", {"low": "23"}),
):
    fault(slug, title, CHUNK, chain(OLD, NEW, replace(CHUNK_A, streams=streams), CHUNK_B), error=BOTH)
for slug, title, streams in (
    ("replaced-word-altered", "A bit of a replaced word is wrong", {"values.0": "80 01"}),
    ("replaced-words-in-another-order", "Two replaced words stand in each other's place", {"values.0": "01 00"}),
):
    fault(slug, title, CHUNK, chain(OLD, NEW, CHUNK_A, replace(CHUNK_B, streams=streams)), error=BOTH)

# -- fingerprints of manifests -----------------------------------------------------------------------------------------

NUMBER = int(fingerprint(NEW), 16)
ROWS.read("two-chunks-without-fingerprints-object", "Two chunks, and a manifest that names no fingerprints object",
    STATE, chain(OLD, NEW, CHUNK_A, CHUNK_B, manifest=unsummed))
for slug, title, number in (
    ("one-more", "The manifest's fingerprint is one more than that of the state", NUMBER + 1),
    ("with-its-highest-bit-changed", "The highest bit of the manifest's fingerprint is wrong", NUMBER ^ 1 << 63),
    ("that-is-0", "The manifest's fingerprint is 0", 0),
    ("turned-round", "The manifest's fingerprint has its bytes in the reverse order",
     int.from_bytes(NUMBER.to_bytes(8, "little"))),
    ("of-the-changes", "The manifest's fingerprint is that of the changes alone", NUMBER - int(fingerprint(OLD), 16)),
):
    fault(f"manifest-fingerprint-{slug}", title, STATE, chain(OLD, NEW, CHUNK_A, CHUNK_B, manifest=saying(number)),
        "two-chunks-without-fingerprints-object")
fault("chunk-left-out", "A chunk is left out, of which the manifest's fingerprint knows", STATE,
    chain(OLD, NEW, CHUNK_A))
fault("word-left-out", "A chunk leaves out a word, and its result does as well", STATE,
    chain(OLD, NEW, replace(CHUNK_A, new=moved(NEW, {39: 0x3FFF}, "a")), CHUNK_B))
fault("word-too-many", "A chunk changes a word too many, and its result counts it", STATE,
    chain(OLD, NEW, replace(CHUNK_A, new=moved(NEW, {20: 0x3FFE}, "a")), CHUNK_B))
fault("nothing-but-the-manifest", "A delta has no packs, and another fingerprint than its base", STATE, chain(OLD, NEW))
ROWS.read("full-version-of-two-chunks", "A full version of two chunks that names no fingerprints object", STATE,
    chain(None, NEW, CHUNK_A, CHUNK_B, manifest=unsummed), full=True)
fault("full-fingerprint-one-less", "The fingerprint of a full version is one less than that of the state", FULL,
    chain(None, NEW, CHUNK_A, CHUNK_B, manifest=saying(NUMBER - 1)), "full-version-of-two-chunks", full=True)
fault("full-fingerprint-that-is-0", "The fingerprint of a full version is 0", FULL,
    chain(None, NEW, CHUNK_A, CHUNK_B, manifest=saying(0)), "full-version-of-two-chunks", full=True)
fault("full-chunk-result-one-more", "The result of a chunk of a full version is one more than it should be",
    f"{CHUNK} {FULL}", chain(None, NEW, CHUNK_A, CHUNK_B, manifest=unsummed, table=chunks(lambda a, b: (a, b + 1))),
    "full-version-of-two-chunks", full=True)
