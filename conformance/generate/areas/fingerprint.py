"""Fingerprints of states, tensors and changes (SPEC.md section 8), and what a reader finds by them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from generate.builder import Builder
from generate.cases import read, reject
from generate.fingerprint import fingerprint
from generate.model import Model, tensor
from generate.pair import Build, Part, chain, moved, one

AREA = "fingerprint"
RULE, CHUNK, STATE = "TD-FPR-006", "TD-RDR-006", "TD-RDR-007"
WEIGHTS: Model = {
    "a": tensor("BF16", (3,), [0x3F80, 0, 0xBF80]),
    "b": tensor("F32", (2,), [0x3F800000, 0x80000000]),
    "é": tensor("U8", (2,), [1, 0xFF]),
}


def whole(new: Model) -> Build:
    """A full version of gaps and steps, a chunk for each tensor that has a word other than 0."""
    parts = [Part([(name, 0, len(each.words))]) for name, each in new.items() if each.words.any()]
    return chain(None, new, *parts)


def state(slug: str, title: str, new: Model, digits: str) -> None:
    """Register a full version whose fingerprint is known by hand or from section 8.2."""

    def build() -> Builder:
        if fingerprint(new) != digits:
            raise AssertionError(f"the fingerprint is {fingerprint(new)}, not {digits}")
        return whole(new)()

    read(f"fingerprint-{slug}", area=AREA, title=title, requirements=[RULE], chain=build, to=0, held=None)


def _states() -> None:
    """The test values of section 8.2."""
    u64 = 0x0001000200030004
    for slug, text, new, digits in (
        ("no-tensors", "no tensors", {}, "0000000000000000"),
        ("u8", "one word of U8", one("U8", [1]), "06b0e25fa27a0ddf"),
        ("u16", "one word of U16", one("U16", [1]), "06b0e25fa27a0ddf"),
        ("u16-lane-1", "two words of U16, the first of them 0", one("U16", [0, 1]), "e4582d4b0bbbb791"),
        ("u32-lane-1", "one word of U32 with a bit in its high lane", one("U32", [0x10000]), "e4582d4b0bbbb791"),
        ("u8-lane-2", "three words of U8, a lane each", one("U8", [0, 0, 0xFF]), "22c5a6a86cb03e01"),
        ("f8-e4m3", "two words of F8_E4M3", one("F8_E4M3", [0x38, 0xB8]), "961212dbf99ef900"),
        ("f4", "four elements of F4 in two bytes", {"w": tensor("F4", (4,), [0x21, 0x43])}, "9fe108f803dcd4b2"),
        ("u64", "one word of U64, four lanes of it", one("U64", [u64]), "e03d6fa0563506aa"),
        ("bf16", "three words of BF16", one("BF16", [0x3F80, 0, 0xBF80]), "1838f607cecf9100"),
        ("f32", "two words of F32, one of them -0", one("F32", [0x3F800000, 0x80000000]), "3960cde52346f780"),
        ("name-in-utf-8", "a tensor whose name is not ASCII", one("U8", [1, 0xFF], "é"), "3cce9ccab0fc774a"),
        ("three-tensors", "three tensors", WEIGHTS, "f87480fe356892ca"),
        (
            "lane-65536",
            "U8 with its only bit in lane 65,536",
            moved(one("U8", 65_537), {65_536: 1}),
            "20ccf4e39b5c78e7",
        ),
        (
            "lanes-from-65536",
            "U64 with its only word in the lanes from 65,536",
            moved(one("U64", 16_385), {16_384: u64}),
            "a151bb2508fc8d5a",
        ),
    ):
        state(f"of-{slug}", f"The test value of section 8.2 for {text}", new, digits)
    state("of-zeros", "A state whose words are all 0 has the fingerprint 0", {"w": tensor("F32", (3, 2))}, "0" * 16)
    state(
        "that-begins-with-zeros",
        "A fingerprint is written with its leading zeros",
        one("U16", [0x1A5]),
        "00e4474632b8cfbb",
    )


def _change(slug: str, title: str, old: Model, new: Model, digits: str, part: Part | None = None) -> None:
    """Register a delta of one chunk whose fingerprint is known from section 8.3."""

    def build() -> Builder:
        return chain(old, new, part or Part(), table=check)()

    def check(document: dict[str, Any]) -> None:
        if document["chunks"][0]["fingerprint"] != digits:
            raise AssertionError(f"the chunk's fingerprint is {document['chunks'][0]['fingerprint']}, not {digits}")

    read(f"change-{slug}", area=AREA, title=title, requirements=[RULE], chain=build)


def _changes() -> None:
    old = one("F32", [0x3F80FFFF, 0xBF800000, 7])
    _change(
        "that-carries",
        "A step of 1 that carries from the low lane into the high one changes both lanes",
        old,
        moved(old, {0: 0x3F810000}),
        "08a96d30a056c570",
    )
    _change(
        "that-borrows",
        "A step of -2 that borrows from the high lane changes both lanes",
        old,
        moved(old, {1: 0xBF7FFFFE}),
        "3c8a45d017e55785",
    )
    first = one("F32", [0xBF800000, 7])
    _change(
        "that-borrows-in-word-0",
        "The same step in word 0 of the tensor",
        first,
        moved(first, {0: 0xBF7FFFFE}),
        "f0a5b06fbd2f2cb1",
    )
    _change(
        "of-two-words",
        "The fingerprint of a chunk is the sum of two changes modulo 2^64",
        old,
        moved(old, {0: 0x3F810000, 1: 0xBF7FFFFE}),
        f"{0x08A96D30A056C570 + 0x3C8A45D017E55785:016x}",
    )
    _change(
        "in-an-inner-slice",
        "The lanes of a change are numbered from the first word of the tensor, not of the slice",
        old,
        moved(old, {1: 0xBF7FFFFE}),
        "3c8a45d017e55785",
        Part([("w", 1, 3)]),
    )
    wide = one("U8", 65_540)
    read(
        "change-beyond-lane-65535",
        area=AREA,
        title="Words of U8 on both sides of lane 65,536 change",
        requirements=[RULE],
        chain=chain(wide, moved(wide, {65_535: 1, 65_536: 1, 65_539: 255}), Part(shift=8)),
    )
    lanes = one("U32", 32_770)
    read(
        "words-of-u32-beyond-lane-65535",
        area=AREA,
        title="Words of U32 on both sides of lane 65,536, in a full version",
        requirements=[RULE],
        chain=whole(moved(lanes, {32_767: 0x00010002, 32_768: 0x00030004, 32_769: 0xFFFFFFFF})),
        to=0,
        held=None,
    )
    read(
        "change-of-two-tensors-in-a-chunk",
        area=AREA,
        title="A chunk over two tensors adds up changes with the coefficients of each name",
        requirements=[RULE],
        chain=chain(
            {"v": old["w"], **old},
            moved(moved({"v": old["w"], **old}, {2: 8}, "v"), {0: 0x3F810000}),
            Part([("v", 0, 3), ("w", 0, 3)]),
        ),
    )


OLD: Model = {"a": tensor("BF16", (5, 8), 0x3FFF), "b": tensor("U16", (20,), 0xFFFF)}
NEW = moved(moved(OLD, {3: 0x4000, 39: 0x3FFE}, "a"), {0: 0, 19: 1}, "b")
PARTS = (Part([("a", 0, 40)], shift=4), Part([("b", 0, 20)], values="replace"))
TWIN = "two-chunks-with-fingerprints"


def _unsummed(document: dict[str, Any]) -> None:
    """Without its own sums, so that nothing but `fingerprint` tells what the state is."""
    del document["tensor_fingerprints"]


def _tell(**members: Any) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        _unsummed(document)
        document.update(members)

    return change


def fault(slug: str, title: str, rule: str, build: Build, twin: str = TWIN, **how: Any) -> None:
    """Register a fault that only a fingerprint shows."""
    reject(slug, area=AREA, title=title, requirements=[rule], chain=build, error="integrity", twin=twin, **how)


def _entries(how: Callable[[list[int]], list[int]]) -> Callable[[dict[str, Any]], None]:
    """Change the fingerprints of the chunks."""

    def change(document: dict[str, Any]) -> None:
        chunks = document["chunks"]
        told = how([int(each["fingerprint"], 16) for each in chunks])
        for each, number in zip(chunks, told, strict=True):
            each["fingerprint"] = f"{number % (1 << 64):016x}"

    return change


def _chunks() -> None:
    read(
        TWIN,
        area=AREA,
        title="Two chunks, of steps and of replaced words",
        requirements=[CHUNK, STATE],
        chain=chain(OLD, NEW, *PARTS),
    )

    for slug, title, how in (
        ("one-more", "The fingerprint of a chunk is one more than it should be", lambda told: [told[0] + 1, told[1]]),
        (
            "with-its-highest-bit-changed",
            "The highest bit of a chunk's fingerprint is wrong",
            lambda told: [told[0] ^ 1 << 63, told[1]],
        ),
        ("swapped", "Two chunks have each other's fingerprints, whose sum is right", lambda told: told[::-1]),
        (
            "that-cancel-out",
            "The fingerprints of two chunks are wrong, and their sum is right",
            lambda told: [told[0] + 5, told[1] - 5],
        ),
        ("of-no-change", "The fingerprint of a chunk is 0", lambda told: [told[0], 0]),
    ):
        fault(f"chunk-fingerprint-{slug}", title, CHUNK, chain(OLD, NEW, *PARTS, table=_entries(how)))
    old = one("F32", [0x3F80FFFF, 7])
    fault(
        "chunk-fingerprint-of-steps",
        "The fingerprint of a chunk counts a step that carries as a change of the low lane by 1",
        RULE,
        chain(old, moved(old, {0: 0x3F810000}), Part(counted=[("w", 0, 0, 1)])),
        twin="change-alone-that-carries",
    )
    read(
        "change-alone-that-carries",
        area=AREA,
        title="A step that carries from the low lane into the high one",
        requirements=[RULE],
        chain=chain(old, moved(old, {0: 0x3F810000}), Part()),
    )
    streams: list[tuple[str, str, int, Mapping[str, bytes]]] = [
        ("step-in-the-other-direction", "A code says -1 for a step of 1", 0, {"codes": b"\x00"}),
        ("position-next-to-the-right-one", "A position is one too low", 0, {"low": b"\x23"}),
        ("replaced-word-altered", "A bit of a replaced word is wrong", 1, {"values.0": b"\x80\x01"}),
        (
            "replaced-words-in-another-order",
            "Two replaced words stand in each other's place",
            1,
            {"values.0": b"\x01\x00"},
        ),
    ]
    for slug, title, number, spoiled in streams:
        parts = [replace(part, streams=spoiled) if at == number else part for at, part in enumerate(PARTS)]
        fault(slug, title, CHUNK, chain(OLD, NEW, *parts))


def _manifests() -> None:
    read(
        "two-chunks-without-fingerprints-object",
        area=AREA,
        title="Two chunks, and a manifest that names no fingerprints object",
        requirements=[STATE],
        chain=chain(OLD, NEW, *PARTS, manifest=_unsummed),
    )
    number = int(fingerprint(NEW), 16)
    for slug, title, told in (
        ("one-more", "The manifest's fingerprint is one more than that of the state", number + 1),
        ("with-its-highest-bit-changed", "The highest bit of the manifest's fingerprint is wrong", number ^ 1 << 63),
        ("that-is-0", "The manifest's fingerprint is 0", 0),
        (
            "turned-round",
            "The manifest's fingerprint has its bytes in the reverse order",
            int.from_bytes(number.to_bytes(8, "little")),
        ),
        (
            "of-the-changes",
            "The manifest's fingerprint is that of the changes alone",
            number - int(fingerprint(OLD), 16),
        ),
    ):
        fault(
            f"manifest-fingerprint-{slug}",
            title,
            STATE,
            chain(OLD, NEW, *PARTS, manifest=_tell(fingerprint=f"{told % (1 << 64):016x}")),
            twin="two-chunks-without-fingerprints-object",
        )
    fault(
        "chunk-left-out",
        "A chunk is left out, of which the manifest's fingerprint knows",
        STATE,
        chain(OLD, NEW, PARTS[0]),
    )
    less = moved(NEW, {39: 0x3FFF}, "a")
    fault(
        "word-left-out",
        "A chunk leaves out a word, and its fingerprint does as well",
        STATE,
        chain(OLD, NEW, replace(PARTS[0], new=less), PARTS[1]),
    )
    more = moved(NEW, {20: 0x3FFE}, "a")
    fault(
        "word-too-many",
        "A chunk changes a word too many, and its fingerprint counts it",
        STATE,
        chain(OLD, NEW, replace(PARTS[0], new=more), PARTS[1]),
    )
    fault(
        "nothing-but-the-manifest",
        "A delta has no packs, and another fingerprint than its base",
        STATE,
        chain(OLD, NEW),
    )
    read(
        "full-version-of-two-chunks",
        area=AREA,
        title="A full version of two chunks that names no fingerprints object",
        requirements=[STATE],
        chain=chain(None, NEW, *PARTS, manifest=_unsummed),
        to=0,
        held=None,
    )
    for slug, title, digits in (
        ("one-less", "The fingerprint of a full version is one less than that of the state", f"{number - 1:016x}"),
        ("that-is-0", "The fingerprint of a full version is 0", "0" * 16),
    ):
        fault(
            f"full-fingerprint-{slug}",
            title,
            "TD-RDR-009",
            chain(None, NEW, *PARTS, manifest=_tell(fingerprint=digits)),
            twin="full-version-of-two-chunks",
            to=0,
            held=None,
        )
    fault(
        "full-chunk-fingerprint-one-more",
        "The fingerprint of a chunk of a full version is one more than it should be",
        "TD-RDR-009",
        chain(None, NEW, *PARTS, manifest=_unsummed, table=_entries(lambda told: [told[0], told[1] + 1])),
        twin="full-version-of-two-chunks",
        to=0,
        held=None,
    )


_states()
_changes()
_chunks()
_manifests()
