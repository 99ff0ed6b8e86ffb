"""Prepare, apply and undo (SPEC.md section 9.3)."""

from __future__ import annotations

from functools import partial

from generate.builder import Builder
from generate.graph import graph
from generate.model import Model, Random, Tensor, random_tensor, tensor
from generate.rows import area
from generate.scenes import ABSENT, line, little, move, walk

prepare = area("reader", level="reader-core", needs=["prepare"])


def other_layouts() -> Builder:
    """Two edges that drop, add, reshape and retype tensors; some of them words, some zero."""
    first = little() | {"d": random_tensor(Random(11), "F16", (2, 3))}
    second = {name: each for name, each in first.items() if name != "b.bias"}
    second["d"] = random_tensor(Random(12), "F16", (3, 2))
    third = second | {"a.weight": tensor("F16", (4, 6), 5), "b.bias": tensor("F32", (5,)), "e": tensor("U8", (), 1)}
    del third["c.ids"]
    return line([first, second, third])


def other_full() -> Builder:
    builder = graph("0")
    move(builder, 1, {"x": tensor("U8", (3,), [1, 2, 3])} | little(13), None)
    return builder


# fmt: off
prepare.play("prepare", "Prepare leaves the state held as it is",  # a read of it takes no edge, so that it shows
    "RDR-002", "0 -> 1", lambda scene: scene.prepare(1, held=0).read(0))
prepare.play("prepare-and-apply", "Apply makes the new state of the one held",
    "APP-002", "0 -> 1", lambda scene: scene.prepare(1, held=0).apply(1))
prepare.play("undo", "Undo gives the words before apply back",
    "APP-003", "0 -> 1", lambda scene: scene.prepare(1, held=0).apply(1).undo(0))
prepare.play("apply-over-two-layouts",
    "A prepared update spans two edges that change the layout, and is applied with all of its fitting",
    "APP-002", other_layouts, lambda scene: scene.prepare(2, held=0).apply(2), level="chain")
prepare.play("undo-over-two-layouts",
    "Undo gives back the tensors that were dropped, reshaped and retyped, with their words, and drops the added ones",
    "APP-003", other_layouts, lambda scene: scene.prepare(2, held=0).apply(2).undo(0), level="chain")
prepare.play("undo-of-a-full-version", "Undo of a full version gives back the state that it took the place of",
    "APP-003", other_full, lambda scene: scene.prepare(1, held=0).apply(1).undo(0), level="chain")
prepare.play("undo-to-nothing",
    "Undo of the first update ends with nothing held, or with a state without tensors", "APP-003", "0 -> 1",
    lambda scene: scene.prepare(1, held=None).apply(1).step("undo", {}, {"any": [scene.after(None), scene.after({})]}))
prepare.play("prepare-what-is-held", "The target is held already: apply and undo change nothing",
    "RTE-008 APP-003", "0 -> 1", lambda scene: scene.prepare(1, held=1).apply(1).undo(1))
prepare.play("prepare-again", "A second update is prepared for the result of the first, applied, and taken back",
    "APP-002 APP-003", "0 -> 1 -> 2",
    lambda scene: scene.prepare(1, held=0).apply(1).prepare(2, held=ABSENT).apply(2).undo(1))
# fmt: on

# -- another state than the one prepared for ---------------------------------------------------------------------------


def refused(slug: str, title: str, other: Model, *, held: int | None = 0) -> None:
    """Version 2, which is full, is another state than the one that the update was prepared for."""
    chain = partial(graph, "0 -> 1, 2", [*walk(2), other])
    prepare.play(
        f"apply-{slug}",
        title,
        "APP-001",
        chain,
        lambda scene: scene.prepare(1, held).read(2, held=2).apply(2, "wrong-base"),
        twin="prepare-and-apply",
    )


def other_word(*, listed: bool) -> Model:
    """One word more or less than in version 0: one that version 1 changes, or one that it does not."""
    old, new = (state["c.ids"].words for state in walk(2))
    at = next(number for number in range(len(old)) if (old[number] != new[number]) == listed)
    words = old.copy()
    words[at] ^= 0x55
    return little() | {"c.ids": Tensor("U8", (7,), words)}


# fmt: off
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
# fmt: on
