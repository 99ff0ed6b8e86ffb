"""Holders of slices of a state, which prove updates together (SPEC.md section 9.5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from generate.area import area
from generate.builder import Builder, Pack, of_chunks, of_plain
from generate.codecs import chunk, chunk_for
from generate.graph import ANOTHER, Chain, graph
from generate.model import Model, Random, Tensor, fit, ordered, random_tensor, stepped, weights
from generate.scenes import Scene, move

Share = Mapping[str, Sequence[Sequence[int]]]
Altered = Sequence[tuple[int, str, int, int]]

SLICES = area("slices", level="slice")
CHUNK, STATE, TOGETHER, SCAN = "CHK-024", "RDR-007", "SLC-001", "SLC-002"


def first() -> Model:
    """A matrix, a norm, a bias and a tensor that one holder has alone."""
    rng = Random(91)
    return {
        "bias": weights(rng, (16,), "F32"),
        "matrix": weights(rng, (6, 8)),
        "norm": random_tensor(rng, "BF16", (8,)),
        "only": random_tensor(rng, "F8_E4M3", (5,)),
    }


def second() -> Model:
    return stepped(Random(92), first(), 0.6)


def third() -> Model:
    return stepped(Random(93), second(), 0.6)


#: Four holders: columns of the matrix, the norm in all of them, halves of the bias twice, and the last one alone.
FOUR: list[Share] = [
    {"matrix": [[2 * rank, 2 * rank + 2, 8]], "norm": [[0, 8]], "bias": [[8 * (rank % 2), 8 * (rank % 2) + 8]]}
    | ({"only": [[0, 5]]} if rank == 3 else {})
    for rank in range(4)
]
#: Two holders of rows, of which the second has all of the first's bias in two pieces.
TWO: list[Share] = [
    {"matrix": [[0, 24]], "norm": [[0, 3]], "bias": [[0, 16]]},
    {"matrix": [[24, 48]], "norm": [[2, 8]], "bias": [[0, 5], [5, 16]], "only": [[0, 5]]},
]
#: Two holders of whole tensors.
WHOLE: list[Share] = [{"matrix": [[0, 48]], "norm": [[0, 8]]}, {"bias": [[0, 16]], "only": [[0, 5]]}]
#: One holder of everything.
ALONE: list[Share] = [{"bias": [[0, 16]], "matrix": [[0, 48]], "norm": [[0, 8]], "only": [[0, 5]]}]


def held(model: Model, shares: Sequence[Share], altered: Altered = ()) -> Model:
    """What each holder has, as its `out` says."""
    found: Model = {}
    for rank, share in enumerate(shares):
        for name, pieces in share.items():
            if name not in model:
                continue
            words = model[name].words.copy()
            for place, tensor, word, value in altered:
                if (place, tensor) == (rank, name):
                    words[word] = value
            at: set[int] = set()
            for start, stop, *row in pieces:
                width = row[0] if row else len(words)
                at |= {word for word in range(len(words)) if start <= word % width < stop}
            own = words[np.array(sorted(at))]
            found[f"{rank}:{name}"] = Tensor(model[name].dtype, (len(own),), own)
    return found


def versions(*states: Model, packs: Callable[[Model, Model, str], list[Pack]] | None = None, **how: Any) -> Chain:
    """A full version, and deltas; `packs` makes those of the last."""

    def build() -> Builder:
        builder = Builder()
        builder.full(0, states[0])
        for version, new in enumerate(states[1:], 1):
            if packs is None or version < len(states) - 1:
                builder.delta(version, new, version - 1)
            else:
                made = packs(fit(states[version - 1], new), new, builder.layout(new))
                builder.edge(version, new, made, base=version - 1, **how)
        return builder

    return build


def each(spoil: Callable[[list[Any]], Any] = lambda chunks: None, **coding: Any) -> Callable[..., list[Pack]]:
    """A pack for each tensor, of a chunk."""

    def packs(base: Model, new: Model, layout: str) -> list[Pack]:
        chunks = [chunk_for(base, new, name, **coding) for name in ordered(new)]
        spoil(chunks)
        return [of_chunks([made], layout) for made in chunks]

    return packs


def listed(name: str) -> tuple[int, int]:
    """A word of a tensor that the delta lists, and its value with one bit flipped, with which no step wraps around."""
    before, after = first()[name].words, second()[name].words
    inner = (np.minimum(before, after) > 4) & (before != after)
    word = int(np.flatnonzero(inner)[0])
    return word, int(before[word]) ^ 1


def unlisted(name: str) -> tuple[int, int]:
    """A word of a tensor that the delta does not list, and its value with one bit flipped."""
    words = first()[name].words
    word = int(np.flatnonzero(words == second()[name].words)[0])
    return word, int(words[word]) ^ 1


def with_word(name: str, word: int, value: int) -> Model:
    """The first state with a word changed."""
    words = first()[name].words.copy()
    words[word] = value
    return {**first(), name: first()[name]._replace(words=words)}


def read(
    slug: str,
    title: str,
    rules: str,
    shares: Sequence[Share],
    build: Chain,
    to: int = 1,
    after: Model | None = None,
    altered: Altered = (),
    held_version: int | None = 0,
    **how: Any,
) -> None:
    """Holders that end at a version, from another one or from nothing."""
    new = {0: first, 1: second, 2: third}[to]() if after is None else after

    def scene(scene: Scene) -> None:
        given: dict[str, Any] = {"holders": list(shares)} | ({"altered": [*map(list, altered)]} if altered else {})
        expected = {"version": to, "state": scene.state(held(new, shares))}
        scene.step("read", scene.ask(held_version, to, **given), expected)

    SLICES.play(f"slices-{slug}", title, rules, build, scene, **{"kind": "read", "verify": True, **how})


def refuse(
    slug: str,
    title: str,
    rules: str,
    shares: Sequence[Share],
    build: Chain,
    error: str | Sequence[str],
    altered: Altered = (),
    before: Model | None = None,
    remembered: int = 0,
    to: int = 1,
    twin: str = "of-a-delta",
    unlike: Altered = (),
    **how: Any,
) -> None:
    """Holders that all stay where they are; there is no statement about a verifier unless a row has one."""
    words = first() if before is None else before

    def scene(scene: Scene) -> None:
        given: dict[str, Any] = {"holders": list(shares)}
        for member, changed in (("unlike", unlike), ("altered", altered)):
            if changed:
                given[member] = [list(each) for each in changed]
        errors = [error] if isinstance(error, str) else list(error)
        expected = {"error": errors, "state": scene.state(held(words, shares, [*unlike, *altered]))}
        scene.step("read", scene.ask((words, remembered), to, **given), expected)

    common = {"kind": "read", "verify": None, "twin": f"slices-{twin}", "error": error}
    SLICES.play(f"slices-{slug}", title, rules, build, scene, **common | how)


def another_result(chunks: list[Any]) -> None:
    """Gives a chunk another result."""
    chunks[1].entry.update(result=ANOTHER)


def in_part(base: Model, new: Model, layout: str, **coding: Any) -> list[Pack]:
    """A chunk of two tensors, and one for each of the others."""
    both = chunk(base, new, [("matrix", 0, 48), ("norm", 0, 8)], **coding)
    return [of_chunks([both, *(chunk_for(base, new, name, **coding) for name in ("bias", "only"))], layout)]


def full_in_part() -> Builder:
    """Version 1 is full, in such chunks."""
    builder, new = Builder(), second()
    builder.full(0, first())
    builder.edge(1, new, in_part(fit({}, new), new, builder.layout(new), positions="all", values="replace"))
    return builder


def lost_by_one() -> Builder:
    """The delta lost the pack of a tensor that one of four holders has; a costlier shortcut has all."""
    builder = STEPS()
    builder.remove(
        next(entry["path"] for entry in builder.manifests[1]["packs"] if list(entry["tensors"][0]) == [3, 4])
    )
    move(builder, 1, second(), 0, size=9000, shortcut="")
    return builder


def collected(spoil: bool) -> Builder:
    """The held version was collected; with `spoil`, its edge lost its pack, and a shortcut is from another base."""
    return graph("0 deleted -> 1: 4000" + (" gone, 0 => 1: 6000 wrong-base" if spoil else ""), [first(), second()])


def full_after() -> Builder:
    """Version 1 is full."""
    builder = Builder()
    builder.full(0, first())
    builder.full(1, second())
    return builder


def zero() -> int:
    """A word of the matrix that is zero, and that the delta lists."""
    before, after = first()["matrix"].words, second()["matrix"].words
    return int(np.flatnonzero((before == 0) & (after != 0))[-1])


def reshaped() -> Model:
    """A state after the first without one of its tensors, with a new one, another shape and another dtype."""
    new = {name: each for name, each in second().items() if name != "only"}
    bias, norm = Tensor("I32", (16,), new["bias"].words), random_tensor(Random(94), "BF16", (2, 4))
    return new | {"bias": bias, "norm": norm, "added": random_tensor(Random(95), "U8", (6,))}


STEPS, REPLACED = versions(first(), second(), packs=each()), versions(first(), second(), packs=each(values="replace"))

# fmt: off
# -- what is read ------------------------------------------------------------------------------------------------------
read("of-a-delta", "Four holders, of columns, replicas, halves that two have each, and a tensor that one has", TOGETHER,
    FOUR, STEPS)
read("of-replaced-words", "The same over replaced words", TOGETHER, FOUR, REPLACED)
read("of-rows", "Two holders of rows, and of ranges that overlap", TOGETHER, TWO, STEPS)
read("of-whole-tensors", "Two holders of whole tensors", TOGETHER, WHOLE, STEPS)
read("of-one-holder", "One holder of everything", TOGETHER, ALONE, STEPS)
read("of-columns-beside-the-whole", "One holder has a matrix, others have columns of it, and a fourth has nothing",
    TOGETHER, [{"matrix": [[0, 48]], "norm": [[0, 8]], "bias": [[0, 16]], "only": [[0, 5]]},
               {"matrix": [[3, 5, 8]], "bias": [[1, 3, 4]]}, {}, {"matrix": [[0, 1, 8], [4, 8, 8]]}], STEPS)
read("over-two-deltas", "Four holders, over two deltas at once", TOGETHER, FOUR,
    versions(first(), second(), third(), packs=each(positions="bitmap")), to=2)
read("of-one-chunk", "Four holders of one chunk over two tensors", f"{TOGETHER} CHK-024", FOUR,
    versions(first(), second(), packs=lambda base, new, layout: [of_chunks(
        [chunk(base, new, [("matrix", 0, 48), ("norm", 0, 8)]), chunk_for(base, new, "bias"),
         chunk_for(base, new, "only")], layout)]))
read("of-a-plain-pack", "Four holders, over a delta of which a plain pack has two tensors", f"{TOGETHER} PCK-019", FOUR,
    versions(first(), second(), packs=lambda base, new, layout: [
        of_plain({name: new[name] for name in ("matrix", "norm")}, new),
        of_chunks([chunk_for(base, new, name) for name in ("bias", "only")], layout)]))
read("over-a-full-version", "Four holders, over a full version", f"{TOGETHER} RDR-009", FOUR,
    full_after)
read("in-order-exponent", "Each group of a chunk in order exponent is held by one holder", f"{TOGETHER} RDR-017",
    [{"matrix": [[0, 48]]}, {"norm": [[0, 8]], "bias": [[0, 16]], "only": [[0, 5]]}],
    versions(first(), second(), packs=lambda base, new, layout: [of_chunks(
        [chunk(base, new, [("matrix", 0, 48), ("norm", 0, 8)], order="exponent", groups=[1, 1]),
         chunk_for(base, new, "bias"), chunk_for(base, new, "only")], layout)], features=["exponent-order"]),
    needs=["reader-exponent"])
refuse("in-order-exponent-of-half-a-group", "A group of a chunk in order exponent is held in halves", "RDR-017", TWO,
    versions(first(), second(), packs=lambda base, new, layout: [of_chunks(
        [chunk(base, new, [("matrix", 0, 48)], order="exponent"), chunk_for(base, new, "norm"),
         chunk_for(base, new, "bias"), chunk_for(base, new, "only")], layout)], features=["exponent-order"]),
    "unsupported")

read("of-a-version-held", "Four holders have the version already, whose packs are gone", "RTE-008", FOUR,
    partial(graph, "0: 4000 gone", [first()]), to=0, verify=False)
read("of-a-version-that-is-the-same", "Four holders, to a version of the same state", "RTE-008", FOUR,
    partial(graph, "0 -> 1 empty", [first(), first()]), after=first())
read("over-a-shortcut", "The cheapest edge lost its pack, of which all four holders have words; a shortcut remains",
    f"RTE-004 {TOGETHER}", FOUR, partial(graph, "0 -> 1: 4000 gone, 0 => 1: 6000", [first(), second()]), verify=False)
read("over-a-shortcut-for-one", "The cheapest edge lost a pack of which one of four holders has words",
    f"RTE-004 {TOGETHER}", FOUR, lost_by_one, verify=False)
read("over-a-shortcut-with-a-full-version", "A delta lost its pack; a full shortcut remains", f"RTE-004 {TOGETHER}",
    FOUR, partial(graph, "0 -> 1: 4000 gone, => 1: 6000", [first(), second()]), verify=False)
read("over-a-delta-after-a-full-version", "Four holders, over a full shortcut and a delta",
    f"{TOGETHER} RDR-009", FOUR,
    partial(graph, "0 -> 1: 4000 gone -> 2: 4000, => 1: 6000", [first(), second(), third()]), to=2, verify=False)
read("of-nothing", "Four holders that have nothing, over a full version and a delta", f"{TOGETHER} RDR-009", FOUR,
    STEPS, held_version=None, needs=["slice-fit"])
read("of-a-new-layout", "A delta drops a tensor, adds one, and gives others another shape and another dtype",
    f"{TOGETHER} SLC-003", [{**share, "added": [[rank, rank + 3]]} for rank, share in enumerate(FOUR)],
    versions(first(), reshaped(), packs=each()), after=reshaped(), needs=["slice-fit"])

read("of-a-collected-version", "The manifest of the version that the group has was collected", f"{SCAN} RTE-008", FOUR,
    partial(collected, False), verify=None)
refuse("of-a-collected-version-and-another-base", "The version was collected, its edge lost its pack, and a shortcut "
    "starts from another base", "SLC-003", FOUR, partial(collected, True), ["wrong-base", "missing"],
    twin="of-a-collected-version")

# -- groups that lack tensors ------------------------------------------------------------------------------------------
LACKING: list[Share] = [{name: pieces for name, pieces in share.items() if name != "norm"} for share in FOUR]
read("of-three-tensors", "A group that lacks a tensor", f"{TOGETHER} RDR-012", LACKING, STEPS, needs=["slice-part"])
read("of-chunks-in-part", "A group that lacks a tensor, and has the other tensor of its chunk", f"{TOGETHER} RDR-012",
    LACKING, versions(first(), second(), packs=in_part), needs=["slice-part"])
read("of-chunks-in-part-over-a-full-version", "The same over a full version", f"{TOGETHER} RDR-012", LACKING,
    full_in_part, needs=["slice-part"])
refuse("of-three-tensors-without-fingerprints", "A group lacks a tensor, and the version has no fingerprints object",
    "RDR-013", LACKING, versions(first(), second(), packs=each(), fingerprints=False), "unsupported",
    twin="of-three-tensors", needs=["slice-part"])

# -- words that changed in memory --------------------------------------------------------------------------------------
for name, rank, who, rules, error in (
    ("matrix", 0, "an owner, who has it alone", CHUNK, "wrong-base"),
    ("norm", 0, "an owner of which others have replicas", CHUNK, "wrong-base"),
    ("norm", 3, "a replica", "", "wrong-base"),
    ("bias", (listed("bias")[0] // 8) + 2, "the second of two who have it", "", "wrong-base"),
    ("only", 3, "the one holder that has the tensor", CHUNK, "wrong-base"),
):
    word, value = listed(name)
    place = word % 8 // 2 if name == "matrix" else rank
    refuse(f"{name}-altered-in-{rank}", f"A listed word changed in the memory of {who}", f"{TOGETHER} {rules}",
        FOUR, STEPS, error, [(place, name, word, value)])
word, value = listed("norm")
refuse("norm-altered-in-all", "A listed word changed in the memory of an owner and all replicas in the same way",
    f"{TOGETHER} {CHUNK}", FOUR, STEPS, "wrong-base", [(rank, "norm", word, value) for rank in range(4)])
refuse("replaced-word-altered", "A listed word changed in the memory of its owner, over replaced words",
    f"{TOGETHER} {STATE}", FOUR, REPLACED, "integrity", [(0, "norm", word, value)], twin="of-replaced-words")
read("replaced-in-a-replica", "A listed word changed in a replica, over replaced words, and is written over",
    TOGETHER, FOUR, REPLACED, altered=[(2, "norm", word, value)], verify=None)
PLAIN = versions(first(), second(), packs=lambda base, new, layout: [
    of_plain({"norm": new["norm"]}, new), of_chunks([chunk_for(base, new, name) for name in ("bias", "matrix", "only")],
                                                    layout)])
read("of-a-plain-pack-over-a-replica", "A word of a plain tensor changed in a replica, and is written over", TOGETHER,
    FOUR, PLAIN, altered=[(2, "norm", word, value)], verify=None)
refuse("of-a-plain-pack-over-an-owner", "A word of a plain tensor changed in the memory of its owner",
    f"{TOGETHER} {STATE}", FOUR, PLAIN, "integrity", [(0, "norm", word, value)], twin="of-a-plain-pack")
word = zero()
refuse("of-a-word-without-a-holder", "No holder has a word that is zero, and that the update lists", TOGETHER,
    [{"matrix": [[0, word]], "norm": [[0, 8]]}, {"matrix": [[word + 1, 48]], "bias": [[0, 16]], "only": [[0, 5]]}],
    STEPS, "wrong-base", twin="of-rows")
word, value = listed("matrix")
refuse("of-three-tensors-altered", "A listed word changed in the memory of a group that lacks a tensor",
    f"{TOGETHER} {CHUNK}", LACKING, STEPS, "wrong-base", [(word % 8 // 2, "matrix", word, value)],
    twin="of-three-tensors", needs=["slice-part"])
refuse("of-three-replaced-tensors-altered", "The same over replaced words", f"{TOGETHER} RDR-012", LACKING, REPLACED,
    "integrity", [(word % 8 // 2, "matrix", word, value)], twin="of-three-tensors", needs=["slice-part"])

# -- the scan ----------------------------------------------------------------------------------------------------------
refuse("of-another-state", "The words of the group are not those of the version that it remembers", f"{SCAN} SLC-003",
    FOUR, STEPS, "wrong-base", before=with_word("matrix", *listed("matrix")))

refuse("of-another-unlisted-word", "A word that the update does not list is not that of the version", f"{SCAN} SLC-003",
    FOUR, STEPS, "wrong-base", before=with_word("matrix", *unlisted("matrix")))
word, value = unlisted("norm")
refuse("of-an-owner-that-differs", "A word that the update does not list differs in the memory of its owner", SCAN,
    FOUR, STEPS, "wrong-base", unlike=[(0, "norm", word, value)])
refuse("of-a-replica-that-differs", "A word that the update does not list differs in the memory of a replica", SCAN,
    FOUR, STEPS, "wrong-base", unlike=[(2, "norm", word, value)])
word, value = unlisted("bias")
refuse("of-the-second-half-that-differs", "A word that two holders have differs in the memory of the second", SCAN,
    FOUR, STEPS, "wrong-base", unlike=[(word // 8 + 2, "bias", word, value)])
refuse("of-another-layout", "The words have the fingerprint of the version, in another layout", "SLC-003", WHOLE,
    STEPS, "wrong-base", before={**first(), "matrix": Tensor("BF16", (8, 6), first()["matrix"].words)},
    twin="of-whole-tensors")
refuse("of-another-version", "The words have the fingerprint of another version than the group remembers", SCAN, FOUR,
    versions(first(), second(), third(), packs=each()), "wrong-base", remembered=1, to=2, twin="over-two-deltas")
word, value = unlisted("matrix")
refuse("of-three-tensors-that-differ", "A word differs that a group has that lacks a tensor", SCAN, LACKING, STEPS,
    "wrong-base", unlike=[(word % 8 // 2, "matrix", word, value)], twin="of-three-tensors", needs=["slice-part"])

# -- the chain ---------------------------------------------------------------------------------------------------------
refuse("of-a-chunk-of-another-result", "A chunk has another result", f"{TOGETHER} {CHUNK}", FOUR,
    versions(first(), second(), packs=each(another_result)), "wrong-base",
    verify=True)
refuse("with-a-tensor-left-out", "A tensor that changed is in no pack", f"{TOGETHER} {STATE}", FOUR,
    versions(first(), second(), packs=each(lambda chunks: chunks.pop(2))), "integrity", verify=True)
refuse("of-another-base", "The base has another fingerprint than the one that the holders remember", "SLC-003 RTE-002",
    FOUR, versions(first(), second(), packs=each(), hook=lambda document: document["base"].update(fingerprint=ANOTHER)),
    "wrong-base", verify=True)
refuse("of-another-fingerprint", "The manifest has another fingerprint", f"{TOGETHER} {STATE}", FOUR,
    versions(first(), second(), packs=each(), fingerprint=ANOTHER), "integrity", verify=True)
refuse("of-another-fingerprint-and-result", "The manifest has another fingerprint, and a chunk another result",
    f"{TOGETHER} {STATE}", FOUR, versions(first(), second(), packs=each(another_result), fingerprint=ANOTHER),
    "integrity")
refuse("of-a-full-version-of-another-result", "A chunk of a full version has another result", f"{TOGETHER} {CHUNK}",
    FOUR, partial(graph, "0, 1", [first(), second()], at={"1": {"spoil": another_result}}, tight=True),
    "integrity", twin="over-a-full-version")
