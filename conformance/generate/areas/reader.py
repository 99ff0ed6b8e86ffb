"""What a reader checks before it writes a word, and what it holds after a fault (SPEC.md sections 9.1 and 9.3)."""

from __future__ import annotations

from functools import partial
from typing import Any

from generate.area import area
from generate.builder import Builder, of_chunks
from generate.codecs import Chunk, chunk
from generate.fingerprint import fingerprint
from generate.frames import BLOCK, RLE, frame
from generate.graph import ANOTHER, Chain, graph
from generate.model import Model, Random, Tensor, random_tensor, tensor
from generate.pair import moved
from generate.scenes import ABSENT, Scene, line, little, move, walk

reader = area("reader")
prepare = area("reader", needs=["prepare"])
undo = area("reader", needs=["prepare", "undo"])

#: Words that programs confuse with others: zeros of both signs, a NaN, an infinity.
PROBED: Model = {
    "a": tensor("F32", (6,), [0, 0x80000000, 0x7FC00000, 0x7F800000, 1, 0x3F800000]),
    "b": tensor("I32", (2, 3), range(10, 16)),
    "z": tensor("U8", (4,)),
}


def probe() -> Builder:
    """A delta that lists words 4 and 5 of `a` and word 1 of `b`."""
    return line([PROBED, moved(moved(PROBED, {4: 2, 5: 0x3F800001}, "a"), {1: 100}, "b")])


def wrong(slug: str, title: str, rules: str, before: Model) -> None:
    """The state held is remembered as version 0, and differs from it."""
    reader.reject(slug, title, rules, "wrong-base", "held-is-the-base", probe, before=before, verify=None)


THREE = partial(graph, "0 -> 1 -> 2", tight=True)


def spoiled(edge: str, **how: Any) -> Chain:
    """The chain THREE, of which one edge is spoiled."""
    return partial(THREE, at={edge: how})


def last_sum(chunks: list[Chunk]) -> None:
    """The result of the last chunk is wrong."""
    chunks[-1].entry["result"] = ANOTHER


def full_after(state: Model, **how: Any) -> Builder:
    """Version 1 is full and has other tensors than 0."""
    builder = graph("0")
    move(builder, 1, state, None, **how)
    return builder


OTHER_TENSORS = {"b.bias": little(6)["b.bias"], "x": tensor("I16", (3,), [1, 2, 3])}
BEFORE_THE_SECOND = int(fingerprint(walk(2)[1]), 16) - 1


def full(slug: str, title: str, error: str = "integrity", **how: Any) -> None:
    """A full version that is spoiled."""
    chain = partial(graph, "0", tight=True, at={"0": how})
    reader.reject(slug, title, "RDR-009", error, "full-version", chain, held=None, to=0)


def other_value(chunks: list[Chunk]) -> None:
    """One byte of a plane is another; the chunk's result shows it."""
    stream = chunks[0].streams["values.0"]
    chunks[0].streams["values.0"] = bytes([stream[0] ^ 1]) + stream[1:]


LYING = 1 << 26
"""Words of a slice of a tensor that has five."""

CHECKSUM = bytes.fromhex("a70f257c")
"""The low 32 bits of XXH64 of 2^26 zero bytes."""


def small_and_large(*, lying: bool) -> Builder:
    """A tensor of five bytes, written over by a chunk of bytes that are all 7; with `lying` of 2^26 words."""
    builder = Builder()
    before = {"t": tensor("U8", (5,), [1, 2, 3, 4, 5])}
    after = {"t": tensor("U8", (5,), 7)}
    builder.full(0, before)
    made = chunk(before, after, [("t", 0, 5)], positions="all", values="replace", compression="zstd")
    if lying:
        made.entry["slices"], made.entry["changed"] = [[0, 0, LYING]], LYING
        # A frame of 2^26 zero bytes, in 2 KB.
        blocks = [(RLE, b"\0", BLOCK)] * (LYING // BLOCK)
        made.streams["values.0"] = frame(b"", size=LYING, blocks=blocks, checksum=CHECKSUM)
    builder.edge(1, after, [of_chunks([made], builder.layout(after))], base=0)
    return builder


def other_layouts() -> Builder:
    """Two edges that drop, add, reshape and retype tensors; some of them words, some zero."""
    first = little() | {"d": random_tensor(Random(11), "F16", (2, 3))}
    second = {name: each for name, each in first.items() if name != "b.bias"}
    second["d"] = random_tensor(Random(12), "F16", (3, 2))
    third = second | {"a.weight": tensor("F16", (4, 6), 5), "b.bias": tensor("F32", (5,)), "e": tensor("U8", (), 1)}
    del third["c.ids"]
    return line([first, second, third])


MORE_TENSORS = {"x": tensor("U8", (3,), [1, 2, 3])} | little(13)


def refused(slug: str, title: str, other: Model, *, held: int | None = 0) -> None:
    """Version 2, which is full, is not the state that the update was prepared for."""

    def scene(scene: Scene) -> None:
        scene.prepare(1, held).read(2, held=2).apply(2, "wrong-base")

    chain = partial(graph, "0 -> 1, 2", [*walk(2), other])
    prepare.play(f"apply-{slug}", title, "APP-001", chain, scene, twin="prepare-and-apply")


def other_word(*, listed: bool) -> Model:
    """Version 0 with one other word: one that version 1 changes, or one that it does not."""
    old, new = (state["c.ids"].words for state in walk(2))
    at = next(number for number in range(len(old)) if (old[number] != new[number]) == listed)
    words = old.copy()
    words[at] ^= 0x55
    return little() | {"c.ids": Tensor("U8", (7,), words)}


# fmt: off
# -- the state held is not the base ------------------------------------------------------------------------------------
reader.read("held-is-the-base", "The state held is the base", "RDR-003 RDR-004", probe)
reader.read("held-without-a-version", "The state held is the base, and no version is remembered for it",
    "RDR-005", probe, remembered=None)
reader.read("held-under-another-version", "The state held is the base, and another version is remembered for it",
    "RDR-005", probe, remembered=999)

wrong("held-other-listed-word", "A word held that the delta lists differs from the base",
    "RDR-003", moved(PROBED, {1: 12}, "b"))
wrong("held-other-unlisted-word", "A word held that the delta does not list differs from the base",
    "RDR-003", moved(PROBED, {5: 16}, "b"))
wrong("held-other-word-in-an-untouched-tensor",
    "A word of a tensor that the delta does not touch differs from the base",
    "RDR-003", moved(PROBED, {3: 1}, "z"))
wrong("held-other-zero", "A zero is held with the other sign than in the base",
    "RDR-003", moved(PROBED, {1: 0}, "a"))
wrong("held-other-nan", "A NaN is held with another payload than in the base",
    "RDR-003", moved(PROBED, {2: 0x7FC00001}, "a"))
wrong("held-two-words-swapped", "Two words are held in each other's place",
    "RDR-003", moved(PROBED, {4: 15, 5: 14}, "b"))
wrong("held-other-dtype", "A tensor is held with the words of the base under another dtype, which no fingerprint shows",
    "RDR-004", PROBED | {"b": Tensor("U32", (2, 3), PROBED["b"].words)})
wrong("held-other-dtype-of-other-width",
    "Zero words are held under a dtype of another width, which no fingerprint shows",
    "RDR-004", PROBED | {"z": tensor("U16", (4,))})
wrong("held-other-shape", "A tensor is held with the words of the base in another shape, which no fingerprint shows",
    "RDR-004", PROBED | {"b": Tensor("I32", (3, 2), PROBED["b"].words)})
wrong("held-one-tensor-more", "A tensor of zero words is held that the base lacks, which no fingerprint shows",
    "RDR-004", PROBED | {"zz": tensor("U8", (4,))})
wrong("held-one-tensor-less", "A tensor of zero words is not held, which no fingerprint shows",
    "RDR-004", {name: PROBED[name] for name in "ab"})
wrong("held-other-name", "A tensor of zero words is held under another name, which no fingerprint shows",
    "RDR-004", {"a": PROBED["a"], "b": PROBED["b"], "y": PROBED["z"]})

# Only the edge from 1 is left, so that a missed delta cannot be recovered from.
reader.reject("held-is-a-version-before-the-base",
    "The state of version 0 is remembered as version 1, from which the only edge to version 2 starts",
    "RDR-003", "wrong-base", "held-in-a-chain-whose-start-is-gone",
    "0 deleted -> 1 deleted -> 2", to=2, remembered=1, level="chain", verify=None)
reader.read("held-in-a-chain-whose-start-is-gone",
    "The version held has lost its manifest, and the only edge to version 2 starts from it",
    "RDR-003", "0 deleted -> 1 deleted -> 2", held=1, to=2, level="chain", verify=None)

# -- nothing is written before everything is checked -------------------------------------------------------------------
reader.read("three-versions", "A full version and two deltas, read from nothing", "RDR-001", THREE, held=None, to=2)
reader.read("three-versions-from-the-first", "Two deltas from the version held", "RDR-001", THREE, to=2)
reader.read("three-versions-to-the-second", "A delta from the version held, and another version after it",
    "RDR-001", THREE)
reader.reject("fault-in-the-second-edge",
    "The last chunk of the second of two edges has a wrong result: nothing of the first edge is written",
    "RDR-001 RDR-002", "wrong-base", "three-versions-from-the-first", spoiled("1 -> 2", spoil=last_sum), to=2)
reader.reject("fault-in-the-state-of-the-second-edge",
    "The second of two edges leads to another state than its manifest says: nothing of the first edge is written",
    "RDR-002 RDR-007", "integrity", "three-versions-from-the-first",
    spoiled("1 -> 2", spoil=lambda chunks: chunks.pop()), to=2)
reader.reject("fault-in-an-edge-from-nothing",
    "The second of three edges fails with nothing held: nothing is held afterwards",
    "RDR-001", "wrong-base", "three-versions", spoiled("0 -> 1", spoil=last_sum), held=None, to=2)
reader.read("full-version-over-the-one-held",
    "A full version of other tensors takes the place of the state held",
    "FIT-003 RDR-009", partial(full_after, OTHER_TENSORS), level="chain")
reader.reject("fault-in-a-full-version-over-the-one-held",
    "A full version fails, and the state held before stays, though the route does not start from it",
    "RDR-001 RDR-009", "integrity", "full-version-over-the-one-held",
    partial(full_after, OTHER_TENSORS, spoil=last_sum), level="chain")
reader.reject("state-without-a-chunk",
    "A chunk that the delta needs is not there, so that the new state has another fingerprint than the manifest's",
    "RDR-007", "integrity", "three-versions-to-the-second", spoiled("0 -> 1", spoil=lambda chunks: chunks.pop(1)))
reader.reject("manifest-of-another-fingerprint", "The manifest's fingerprint is less by one than that of the new state",
    "RDR-007", "integrity", "three-versions-to-the-second", spoiled("0 -> 1", fingerprint=f"{BEFORE_THE_SECOND:016x}"))

# -- a full version is checked like a delta ----------------------------------------------------------------------------
reader.read("full-version", "A full version, with nothing held",
    "RDR-009", partial(graph, "0", tight=True), held=None, to=0)
full("full-with-another-word", "A word of a full version is not the one that the chunk's result sums",
    spoil=other_value)
full("full-without-a-tensor", "A full version lists no word of a tensor that is not all 0",
    spoil=lambda chunks: chunks.pop())
full("full-of-another-fingerprint", "The manifest of a full version has the fingerprint 0", fingerprint="0" * 16)
full("full-out-of-bounds", "A slice of a full version ends past the end of its tensor", "malformed",
    hooks={"table": lambda table: table["chunks"][0]["slices"][0].__setitem__(2, 25)})

# -- bounds before streams ---------------------------------------------------------------------------------------------
reader.read("bounds-within", "A chunk over all words of a tensor, compressed",
    "RDR-008", partial(small_and_large, lying=False))
reader.reject("bounds-before-streams",
    "A slice of 2^26 words of a tensor that has 5, with a stream that would decode to all of them",
    "RDR-008", "malformed", "bounds-within", partial(small_and_large, lying=True), expect={"memory": 24 << 20})

# -- prepare, apply and undo -------------------------------------------------------------------------------------------
prepare.play("prepare", "Prepare leaves the state held as it is",  # shown by a read of the version held
    "RDR-002", "0 -> 1", lambda scene: scene.prepare(1, held=0).read(0))
prepare.play("prepare-and-apply", "Apply makes the new state of the one held",
    "APP-002", "0 -> 1", lambda scene: scene.prepare(1, held=0).apply(1))
undo.play("undo", "Undo gives the words before apply back",
    "APP-003", "0 -> 1", lambda scene: scene.prepare(1, held=0).apply(1).undo(0))
prepare.play("apply-over-two-layouts",
    "A prepared update spans two edges that change the layout, and is applied with all of its fitting",
    "APP-002", other_layouts, lambda scene: scene.prepare(2, held=0).apply(2), level="chain")
undo.play("undo-over-two-layouts",
    "Undo gives back the tensors that were dropped, reshaped and retyped, with their words, and drops the added ones",
    "APP-003", other_layouts, lambda scene: scene.prepare(2, held=0).apply(2).undo(0), level="chain")
undo.play("undo-of-a-full-version", "Undo of a full version gives back the state that it took the place of",
    "APP-003", partial(full_after, MORE_TENSORS),
    lambda scene: scene.prepare(1, held=0).apply(1).undo(0), level="chain")
undo.play("undo-to-nothing",
    "Undo of the first update ends with nothing held, or with a state without tensors", "APP-003", "0 -> 1",
    lambda scene: scene.prepare(1, held=None).apply(1).step("undo", {}, {"any": [scene.after(None), scene.after({})]}))
undo.play("prepare-what-is-held", "The target is held already: apply and undo change nothing",
    "RTE-008 APP-003", "0 -> 1", lambda scene: scene.prepare(1, held=1).apply(1).undo(1))
undo.play("prepare-again", "A second update is prepared for the result of the first, applied, and taken back",
    "APP-002 APP-003", "0 -> 1 -> 2",
    lambda scene: scene.prepare(1, held=0).apply(1).prepare(2, held=ABSENT).apply(2).undo(1))

# -- another state than the one prepared for ---------------------------------------------------------------------------
refused("to-another-listed-word",
    "A prepared update meets a state of which a word that it writes is another", other_word(listed=True))
refused("to-another-unlisted-word",
    "A prepared update meets a state of which a word that it does not write is another", other_word(listed=False))
refused("to-another-shape", "A prepared update meets a state of the same words in another shape",
    little() | {"a.weight": Tensor("BF16", (24,), little()["a.weight"].words)})
refused("to-one-tensor-more", "A prepared update meets a state with one more tensor, of zero words",
    little() | {"z": tensor("U8", (4,))})
refused("from-nothing-onto-a-state", "An update prepared with nothing held meets a state", little(14), held=None)
prepare.play("apply-twice", "A prepared update is applied, and meets its own result",
    "APP-001", "0 -> 1", lambda scene: scene.prepare(1, held=0).apply(1).apply(1, "wrong-base"),
    twin="prepare-and-apply")
prepare.play("prepare-in-vain", "Prepare meets an altered pack, and leaves the state held as it is",
    "RDR-001", "0 -> 1 altered", lambda scene: scene.prepare(1, held=0, error="integrity").read(0),
    twin="prepare-and-apply")
