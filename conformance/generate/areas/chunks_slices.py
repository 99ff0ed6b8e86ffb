"""Slices, and words that are named twice (SPEC.md sections 4.8 and 6.3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from generate.builder import Builder, Pack, of_chunks, of_plain
from generate.cases import read, reject
from generate.codecs import Slice
from generate.model import Model, tensor
from generate.pair import Build, Part, chain, made, moved
from generate.standard import setting

AREA = "chunks"
OLD: Model = {
    "a": tensor("U16", (30,), range(30)),
    "b": tensor("U16", (20,), 7),
    "c": tensor("I32", (6,), 9),
    "d": tensor("U16", (0, 3)),
    "e": tensor("U16", (4,), 3),
}
NEW = moved(moved(moved(OLD, {3: 4, 25: 0}, "a"), {0: 8, 19: 6}, "b"), {1: 10}, "c")


def _parts(*slices: Slice, ids: Sequence[Slice] = (("c", 0, 6),)) -> list[Part]:
    """A chunk over slices of a and b, and one over c."""
    return [Part(slices), Part(ids, values="replace")]


WHOLE = _parts(("a", 0, 30), ("b", 0, 20))
TWIN = "slices-of-two-tensors"


def fault(slug: str, title: str, rule: str, build: Build, *, error: str = "malformed", twin: str = TWIN) -> None:
    """Register a fault of the slices."""
    reject(slug, area=AREA, title=title, requirements=[rule], chain=build, error=error, twin=twin)


def on(number: int, *slices: Any) -> Callable[[dict[str, Any]], None]:
    """Set the slices of a chunk's entry."""
    return lambda document: document["chunks"][number].update(slices=list(slices))


def _valid() -> None:
    read(
        TWIN,
        area=AREA,
        title="A chunk has slices of two tensors, another chunk one of a third",
        requirements=["TD-CHK-004"],
        chain=chain(OLD, NEW, *WHOLE),
    )
    read(
        "slices-of-one-word-each",
        area=AREA,
        title="Each slice has one word: the first, the last and one between",
        requirements=["TD-CHK-007", "TD-CHK-008"],
        chain=chain(
            OLD,
            moved(moved(OLD, {0: 9, 29: 9, 11: 9}, "a"), {19: 9}, "b"),
            Part([("a", 0, 1), ("a", 11, 12), ("a", 29, 30), ("b", 19, 20)], positions="all"),
        ),
    )
    read(
        "slices-of-a-tensor-in-three-chunks",
        area=AREA,
        title="Chunks have adjacent slices of one tensor, and stand in no order",
        requirements=["TD-CHK-006", "TD-MAN-019"],
        chain=chain(
            OLD,
            NEW,
            Part([("a", 20, 30)]),
            Part([("b", 10, 20)]),
            Part([("a", 0, 10), ("b", 0, 10)]),
            Part([("a", 10, 20)], values="replace", restate=[0]),
            Part([("c", 0, 6)], values="replace"),
        ),
    )


def _slices() -> None:
    kinds: list[tuple[str, str, str, list[Any] | None]] = [
        ("empty", "A chunk has an empty list of slices", "TD-CHK-002", []),
        ("flat", "The slices of a chunk are one list of three numbers", "TD-CHK-002", [0, 0, 30]),
        ("of-two-numbers", "A slice has two numbers", "TD-CHK-002", [[0, 0, 30], [1, 20]]),
        ("of-four-numbers", "A slice has four numbers", "TD-CHK-002", [[0, 0, 30], [1, 0, 20, 1]]),
        ("objects", "A slice is an object", "TD-CHK-002", [[0, 0, 30], {"tensor": 1, "start": 0, "stop": 20}]),
        ("null", "The slices of a chunk are null", "TD-JSN-012", None),
        ("with-a-string", "A number of a slice is a string", "TD-JSN-012", [[0, 0, 30], ["1", 0, 20]]),
        ("with-a-fraction", "A number of a slice is written 0.0", "TD-JSN-009", [[0, 0.0, 30], [1, 0, 20]]),
        ("with-a-negative-number", "A slice starts at -1", "TD-JSN-009", [[0, -1, 30], [1, 0, 20]]),
        ("beyond-2-53", "A slice stops at 2^53", "TD-JSN-010", [[0, 0, 30], [1, 0, 1 << 53]]),
        ("one-empty", "A slice stops where it starts", "TD-CHK-007", [[0, 0, 30], [1, 0, 20], [1, 20, 20]]),
        (
            "one-empty-between",
            "A slice between others stops where it starts",
            "TD-CHK-007",
            [[0, 0, 9], [0, 9, 9], [0, 9, 30], [1, 0, 20]],
        ),
        ("one-backwards", "A slice stops before it starts", "TD-CHK-007", [[0, 0, 30], [1, 0, 20], [1, 20, 19]]),
        ("past-their-tensor", "A slice stops one past the words of its tensor", "TD-CHK-008", [[0, 0, 30], [1, 0, 21]]),
        ("far-past-their-tensor", "A slice stops at 2^53 - 1", "TD-CHK-008", [[0, 0, 30], [1, 0, (1 << 53) - 1]]),
        (
            "that-start-past-their-tensor",
            "A slice lies past the words of its tensor",
            "TD-CHK-008",
            [[0, 0, 30], [1, 0, 20], [1, 20, 25]],
        ),
    ]
    for slug, title, rule, entries in kinds:
        table = on(0, *entries) if entries is not None else _null
        fault(f"slices-{slug}", title, rule, chain(OLD, NEW, *WHOLE, table=table))
    fault(
        "slices-of-a-tensor-without-words",
        "A slice has a word of a tensor that has none",
        "TD-CHK-008",
        chain(OLD, NEW, *WHOLE, table=on(0, [0, 0, 30], [1, 0, 20], [3, 0, 1]), entry=setting(tensors=[0, 4])),
    )
    fault(
        "slices-of-no-tensor",
        "A slice is of tensor 5 of a layout of five",
        "TD-CHK-008",
        chain(OLD, NEW, *WHOLE, table=on(1, [2, 0, 6], [5, 0, 1])),
    )
    fault(
        "slices-of-tensor-2-32",
        "A slice is of tensor 2^32 + 2, which in 32 bits is tensor 2",
        "TD-CHK-008",
        chain(OLD, NEW, *WHOLE, table=on(1, [(1 << 32) + 2, 0, 6])),
    )
    fault(
        "slices-of-another-dtype",
        "The slices of a chunk of I32 are one of I32 and one of U16",
        "TD-CHK-009",
        chain(OLD, NEW, *WHOLE, table=on(1, [2, 0, 6], [4, 0, 1]), entry=setting(tensors=[0, 5])),
    )
    for slug, title, slices in (
        (
            "not-sorted-by-start",
            "Two slices of one tensor stand in the wrong order",
            [("a", 10, 30), ("a", 0, 10), ("b", 0, 20)],
        ),
        ("not-sorted-by-tensor", "Slices of two tensors stand in the wrong order", [("b", 0, 20), ("a", 0, 30)]),
        (
            "of-a-tensor-again",
            "A slice of a tensor stands after one of the next tensor",
            [("a", 0, 10), ("b", 0, 20), ("a", 10, 30)],
        ),
    ):
        fault(f"slices-{slug}", title, "TD-CHK-004", chain(OLD, NEW, *_parts(*slices)))
    for slug, title, slices in (
        (
            "that-overlap-by-a-word",
            "Two slices of a chunk have one word in common, which is not listed",
            [("a", 0, 16), ("a", 15, 30), ("b", 0, 20)],
        ),
        (
            "inside-another",
            "A slice of a chunk lies inside the one before",
            [("a", 0, 30), ("a", 10, 12), ("b", 0, 20)],
        ),
        (
            "inside-an-earlier-one",
            "A slice of a chunk lies inside the one before the one before",
            [("a", 0, 24), ("a", 10, 12), ("a", 20, 30), ("b", 0, 20)],
        ),
        (
            "named-twice",
            "A chunk names one slice twice",
            [("a", 0, 5), ("a", 5, 10), ("a", 5, 10), ("a", 10, 30), ("b", 0, 20)],
        ),
    ):
        fault(f"slices-{slug}", title, "TD-CHK-005", chain(OLD, NEW, *_parts(*slices)))


def _null(document: dict[str, Any]) -> None:
    document["chunks"][0]["slices"] = None


def _chunks(*parts: Part) -> Callable[[Builder, str], list[Pack]]:
    """A second pack, of chunks."""
    return lambda _, layout: [of_chunks([made(OLD, NEW, part) for part in parts], layout)]


def _plain(*shards: Model, new: Model = NEW) -> Callable[[Builder, str], list[Pack]]:
    """More packs, plain ones."""
    return lambda *_: [of_plain(held, new) for held in shards]


def _overlaps() -> None:
    """What names a word again says of it what is so, or does not list it; a reader without the check sees no fault."""
    same = Part([("a", 9, 21)], values="replace", restate=[0])
    parts = [Part([("a", 0, 10)]), Part([("a", 20, 30), ("b", 0, 20)]), WHOLE[1]]
    read(
        "chunks-with-a-hole-between-them",
        area=AREA,
        title="A third chunk fills the hole between two",
        requirements=["TD-MAN-019"],
        chain=chain(OLD, NEW, *parts, Part([("a", 10, 20)], values="replace", restate=[0])),
    )
    for slug, title, slices in (
        ("by-its-first-word", "The first word of a chunk is the last word of another", ("a", 9, 20)),
        ("by-its-last-word", "The last word of a chunk is the first word of another", ("a", 10, 21)),
        ("wholly", "All words of a chunk are words of another", ("a", 21, 24)),
    ):
        again = Part([slices], values="replace", restate=[1])
        fault(
            f"chunks-overlap-{slug}",
            title,
            "TD-MAN-019",
            chain(OLD, NEW, *parts, again),
            twin="chunks-with-a-hole-between-them",
        )
    fault(
        "chunks-overlap-by-a-word-not-listed",
        "A chunk over many words shares one with another; neither lists it",
        "TD-MAN-019",
        chain(OLD, NEW, *_parts(("a", 0, 30), ("b", 1, 20)), Part([("b", 0, 3)])),
        twin=TWIN,
    )
    fault(
        "packs-overlap",
        "Chunks of two packs have words in common",
        "TD-MAN-019",
        chain(OLD, NEW, *WHOLE, more=_chunks(same)),
    )

    other = {"other": tensor("U8", (3,))}
    plain = _plain({"c": NEW["c"], **other})
    read(
        "chunks-and-a-plain-tensor",
        area=AREA,
        title="A delta of a chunk pack and a plain pack that have no word in common",
        requirements=["TD-MAN-019", "TD-PCK-019"],
        chain=chain(OLD, NEW, WHOLE[0], more=plain),
    )
    fault(
        "chunk-overlaps-a-plain-tensor",
        "A chunk lists a word of a tensor of a plain pack, with the same value",
        "TD-MAN-019",
        chain(OLD, NEW, WHOLE[0], Part([("c", 4, 5)], values="replace", restate=[0]), more=plain),
        twin="chunks-and-a-plain-tensor",
    )
    equal = {"c": OLD["c"]}
    fault(
        "plain-tensors-overlap",
        "Two plain packs have the same tensor, with the words that the base has",
        "TD-MAN-019",
        chain(OLD, NEW | equal, WHOLE[0], more=_plain(equal, equal | other, new=NEW | equal)),
        twin="chunks-and-a-plain-tensor",
    )
    listed = Part([("a", 0, 30)], values="replace")
    only = moved(OLD, {3: 4, 25: 0}, "a")
    read(
        "pack-named-once",
        area=AREA,
        title="A manifest names one pack",
        requirements=["TD-MAN-019"],
        chain=chain(OLD, only, listed),
    )
    fault(
        "pack-named-twice",
        "A manifest names one pack twice",
        "TD-MAN-019",
        chain(OLD, only, listed, manifest=lambda document: document["packs"].append(document["packs"][0])),
        twin="pack-named-once",
    )
    read(
        "pack-without-words-named-twice",
        area=AREA,
        title="A plain pack that holds no word is named twice, which is no overlap",
        requirements=["TD-MAN-019"],
        chain=chain(OLD, NEW, *WHOLE, more=_plain({"d": NEW["d"]}, {"d": NEW["d"]})),
    )
    read(
        "plain-packs-share-a-tensor-of-no-interest",
        area=AREA,
        title="Two plain packs have a tensor that the layout lacks, which is no overlap",
        requirements=["TD-MAN-019", "TD-PCK-017"],
        chain=chain(OLD, NEW, WHOLE[0], more=_plain({"c": NEW["c"], **other}, {"d": NEW["d"], **other})),
    )


_valid()
_slices()
_overlaps()
