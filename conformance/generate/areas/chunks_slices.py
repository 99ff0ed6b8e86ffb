"""Slices, and words that are named twice (SPEC.md sections 4.8 and 6.3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from generate.builder import Builder, Pack, of_chunks, of_plain
from generate.codecs import Slice
from generate.model import Model, tensor
from generate.pair import Part, chain, made, moved, moved_in
from generate.rows import Rows
from generate.standard import setting

ROWS = Rows("chunks", twin="slices-of-two-tensors")
OLD: Model = {
    "a": tensor("U16", (30,), range(30)),
    "b": tensor("U16", (20,), 7),
    "c": tensor("I32", (6,), 9),
    "d": tensor("U16", (0, 3)),
    "e": tensor("U16", (4,), 3),
}
NEW = moved_in(OLD, a={3: 4, 25: 0}, b={0: 8, 19: 6}, c={1: 10})
OF_C = Part([("c", 0, 6)], values="replace")
WHOLE = (Part([("a", 0, 30), ("b", 0, 20)]), OF_C)


def fault(slug: str, title: str, rule: str, number: int, slices: Any, **how: Any) -> None:
    """The entry of a chunk has these slices, and its streams are those of the whole tensors."""

    def table(document: dict[str, Any]) -> None:
        document["chunks"][number]["slices"] = slices

    ROWS.reject(f"slices-{slug}", title, rule, chain(OLD, NEW, *WHOLE, table=table, **how))


def odd(slug: str, title: str, rule: str, *slices: Slice) -> None:
    """A chunk has these slices, and streams to go with them."""
    ROWS.reject(f"slices-{slug}", title, rule, chain(OLD, NEW, Part(slices), OF_C))


# fmt: off
ROWS.read("slices-of-two-tensors", "A chunk has slices of two tensors, another chunk one of a third", "CHK-004",
    chain(OLD, NEW, *WHOLE))
ROWS.read("slices-of-one-word-each", "Each slice has one word: the first, the last and one between", "CHK-007 CHK-008",
    chain(OLD, moved_in(OLD, a={0: 9, 29: 9, 11: 9}, b={19: 9}),
        Part([("a", 0, 1), ("a", 11, 12), ("a", 29, 30), ("b", 19, 20)], positions="all")))
ROWS.read("slices-of-a-tensor-in-three-chunks",
    "Chunks have adjacent slices of one tensor, and stand in no order", "CHK-006 MAN-019",
    chain(OLD, NEW, Part([("a", 20, 30)]), Part([("b", 10, 20)]), Part([("a", 0, 10), ("b", 0, 10)]),
        Part([("a", 10, 20)], values="replace", restate=[0]), OF_C))

# -- slices that are none ----------------------------------------------------------------------------------------------

fault("empty", "A chunk has an empty list of slices", "CHK-002", 0, [])
fault("flat", "The slices of a chunk are one list of three numbers", "CHK-002", 0, [0, 0, 30])
fault("of-two-numbers", "A slice has two numbers", "CHK-002", 0, [[0, 0, 30], [1, 20]])
fault("of-four-numbers", "A slice has four numbers", "CHK-002", 0, [[0, 0, 30], [1, 0, 20, 1]])
fault("objects", "A slice is an object", "CHK-002", 0, [[0, 0, 30], {"tensor": 1, "start": 0, "stop": 20}])
fault("null", "The slices of a chunk are null", "JSN-012", 0, None)
fault("with-a-string", "A number of a slice is a string", "JSN-012", 0, [[0, 0, 30], ["1", 0, 20]])
fault("with-a-fraction", "A number of a slice is written 0.0", "JSN-009", 0, [[0, 0.0, 30], [1, 0, 20]])
fault("with-a-negative-number", "A slice starts at -1", "JSN-009", 0, [[0, -1, 30], [1, 0, 20]])
fault("beyond-2-53", "A slice stops at 2^53", "JSN-010", 0, [[0, 0, 30], [1, 0, 1 << 53]])
fault("one-empty", "A slice stops where it starts", "CHK-007", 0, [[0, 0, 30], [1, 0, 20], [1, 20, 20]])
fault("one-empty-between", "A slice between others stops where it starts", "CHK-007",
    0, [[0, 0, 9], [0, 9, 9], [0, 9, 30], [1, 0, 20]])
fault("one-backwards", "A slice stops before it starts", "CHK-007", 0, [[0, 0, 30], [1, 0, 20], [1, 20, 19]])
fault("past-their-tensor", "A slice stops one past the words of its tensor", "CHK-008", 0, [[0, 0, 30], [1, 0, 21]])
fault("far-past-their-tensor", "A slice stops at 2^53 - 1", "CHK-008", 0, [[0, 0, 30], [1, 0, (1 << 53) - 1]])
fault("that-start-past-their-tensor", "A slice lies past the words of its tensor", "CHK-008",
    0, [[0, 0, 30], [1, 0, 20], [1, 20, 25]])
fault("of-a-tensor-without-words", "A slice has a word of a tensor that has none", "CHK-008",
    0, [[0, 0, 30], [1, 0, 20], [3, 0, 1]], entry=setting(tensors=[[0, 4]]))
fault("of-no-tensor", "A slice is of tensor 5 of a layout of five", "CHK-008", 1, [[2, 0, 6], [5, 0, 1]])
fault("of-tensor-2-32", "A slice is of tensor 2^32 + 2, which in 32 bits is tensor 2", "CHK-008",
    1, [[(1 << 32) + 2, 0, 6]])
fault("of-another-dtype", "The slices of a chunk of I32 are one of I32 and one of U16", "CHK-009",
    1, [[2, 0, 6], [4, 0, 1]], entry=setting(tensors=[[0, 5]]))

odd("not-sorted-by-start", "Two slices of one tensor stand in the wrong order", "CHK-004",
    ("a", 10, 30), ("a", 0, 10), ("b", 0, 20))
odd("not-sorted-by-tensor", "Slices of two tensors stand in the wrong order", "CHK-004", ("b", 0, 20), ("a", 0, 30))
odd("of-a-tensor-again", "A slice of a tensor stands after one of the next tensor", "CHK-004",
    ("a", 0, 10), ("b", 0, 20), ("a", 10, 30))
odd("that-overlap-by-a-word", "Two slices of a chunk have one word in common, which is not listed", "CHK-005",
    ("a", 0, 16), ("a", 15, 30), ("b", 0, 20))
odd("inside-another", "A slice of a chunk lies inside the one before", "CHK-005",
    ("a", 0, 30), ("a", 10, 12), ("b", 0, 20))
odd("inside-an-earlier-one", "A slice of a chunk lies inside the one before the one before", "CHK-005",
    ("a", 0, 24), ("a", 10, 12), ("a", 20, 30), ("b", 0, 20))
odd("named-twice", "A chunk names one slice twice", "CHK-005",
    ("a", 0, 5), ("a", 5, 10), ("a", 5, 10), ("a", 10, 30), ("b", 0, 20))

# -- overlaps ----------------------------------------------------------------------------------------------------------
# A chunk that names a word again gives its right value or does not list it: without the check no fault is found.
# fmt: on


def chunks(part: Part) -> Callable[[Builder, str], list[Pack]]:
    """A second pack, of a chunk."""
    return lambda _, layout: [of_chunks([made(OLD, NEW, part)], layout)]


def plain(*shards: Model, new: Model = NEW) -> Callable[[Builder, str], list[Pack]]:
    """More packs, plain ones."""
    return lambda *_: [of_plain(held, new) for held in shards]


def of_a(start: int, stop: int, restate: Sequence[int] = (0,)) -> Part:
    """A chunk of words of which some are listed though they are equal."""
    return Part([("a", start, stop)], values="replace", restate=restate)


# fmt: off
APART = (Part([("a", 0, 10)]), Part([("a", 20, 30), ("b", 0, 20)]), OF_C)
ROWS.read("chunks-with-a-hole-between-them", "A third chunk fills the hole between two", "MAN-019",
    chain(OLD, NEW, *APART, of_a(10, 20)))
for slug, title, part in (
    ("by-its-first-word", "The first word of a chunk is the last word of another", of_a(9, 20, [1])),
    ("by-its-last-word", "The last word of a chunk is the first word of another", of_a(10, 21, [1])),
    ("wholly", "All words of a chunk are words of another", of_a(21, 24, [1])),
):
    ROWS.reject(f"chunks-overlap-{slug}", title, "MAN-019",
        chain(OLD, NEW, *APART, part), twin="chunks-with-a-hole-between-them")
ROWS.reject("chunks-overlap-by-a-word-not-listed",
    "A chunk over many words shares one with another; neither lists it", "MAN-019",
    chain(OLD, NEW, Part([("a", 0, 30), ("b", 1, 20)]), OF_C, Part([("b", 0, 3)])))
ROWS.reject("packs-overlap", "Chunks of two packs have words in common", "MAN-019",
    chain(OLD, NEW, *WHOLE, more=chunks(of_a(9, 21))))

OTHER: Model = {"other": tensor("U8", (3,))}
EQUAL: Model = {"c": OLD["c"]}
SHARD = plain({"c": NEW["c"], **OTHER})
ROWS.read("chunks-and-a-plain-tensor",
    "A delta of a chunk pack and a plain pack that have no word in common", "MAN-019 PCK-019",
    chain(OLD, NEW, WHOLE[0], more=SHARD))
ROWS.reject("chunk-overlaps-a-plain-tensor",
    "A chunk lists a word of a tensor of a plain pack, with the same value", "MAN-019",
    chain(OLD, NEW, WHOLE[0], Part([("c", 4, 5)], values="replace", restate=[0]), more=SHARD),
    twin="chunks-and-a-plain-tensor")
ROWS.reject("plain-tensors-overlap",
    "Two plain packs have the same tensor, with the words that the base has", "MAN-019",
    chain(OLD, NEW | EQUAL, WHOLE[0], more=plain(EQUAL, EQUAL | OTHER, new=NEW | EQUAL)),
    twin="chunks-and-a-plain-tensor")
ONLY = moved(OLD, {3: 4, 25: 0}, "a")
ROWS.read("pack-named-once", "A manifest names one pack", "MAN-019", chain(OLD, ONLY, of_a(0, 30, ())))
ROWS.reject("pack-named-twice", "A manifest names one pack twice", "MAN-019",
    chain(OLD, ONLY, of_a(0, 30, ()), manifest=lambda document: document["packs"].append(document["packs"][0])),
    twin="pack-named-once")
ROWS.read("pack-without-words-named-twice",
    "A plain pack that holds no word is named twice, which is no overlap", "MAN-019",
    chain(OLD, NEW, *WHOLE, more=plain({"d": NEW["d"]}, {"d": NEW["d"]})))
ROWS.read("plain-packs-share-a-tensor-of-no-interest",
    "Two plain packs have a tensor that the layout lacks, which is no overlap", "MAN-019 PCK-017",
    chain(OLD, NEW, WHOLE[0], more=plain({"c": NEW["c"], **OTHER}, {"d": NEW["d"], **OTHER})))
