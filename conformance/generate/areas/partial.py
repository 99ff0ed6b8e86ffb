"""Readers of some tensors of a state (SPEC.md section 9.4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from generate.area import area
from generate.builder import Builder, Pack, digest, of_chunks, of_plain
from generate.codecs import chunk, chunk_for
from generate.fingerprint import tensor_fingerprint
from generate.graph import ANOTHER, Chain, graph
from generate.model import MASK64, Model, Random, Tensor, fit, ordered, random_tensor, stepped, tensor, weights
from generate.scenes import Scene
from generate.standard import flipped

partials = area("partial", level="partial")

PART = ["b.weight", "c.ids"]
"""The tensors that the reader holds unless a case says otherwise."""


def first() -> Model:
    """The state of version 0."""
    rng = Random("partial")
    return {
        "a.weight": weights(rng, (4, 6)),
        "b.weight": weights(rng, (3, 6)),
        "c.ids": random_tensor(rng, "U8", (7,)),
        "d.bias": random_tensor(rng, "F32", (5,)),
    }


def second() -> Model:
    """A state after it, with changes in every tensor."""
    return stepped(Random("partial/1"), first(), 0.3)


Packs = Callable[[Model, Model, str], Sequence[Pack]]
"""From the fitted base, the new state and its layout's digest."""


def each_its_own(base: Model, new: Model, layout: str) -> list[Pack]:
    """A pack for each tensor that changes."""
    changed = [name for name in ordered(new) if (base[name].words != new[name].words).any()]
    return [of_chunks([chunk_for(base, new, name)], layout) for name in changed]


def own(*names: str) -> Packs:
    """A pack for each of these tensors."""
    return lambda base, new, layout: [of_chunks([chunk_for(base, new, name)], layout) for name in names]


def shared(*, apart: bool = False, **coding: Any) -> Packs:
    """One pack, with one chunk over `a.weight` and `b.weight`, or with one for each, and one for each other tensor."""

    def packs(base: Model, new: Model, layout: str) -> list[Pack]:
        slices = [("a.weight", 0, 24), ("b.weight", 0, 18)]
        chunks = [chunk(base, new, part, **coding) for part in ([[each] for each in slices] if apart else [slices])]
        return [of_chunks([*chunks, chunk_for(base, new, "c.ids"), chunk_for(base, new, "d.bias")], layout)]

    return packs


def part_of(
    packs: Packs = each_its_own,
    *,
    after: Callable[[Builder], Any] | None = None,
    state: Callable[[], Model] = second,
    fingerprints: tuple[bool, bool] = (True, True),
    **how: Any,
) -> Chain:
    """Version 0, full, and 1, a delta.

    Args:
        packs: makes the packs of the delta.
        after: changes the chain.
        state: of version 1.
        fingerprints: whether the versions name fingerprints objects.
        how: of `Builder.edge`, for version 1.
    """

    def chain() -> Builder:
        builder = Builder()
        old, new = first(), state()
        builder.full(0, old, fingerprints=fingerprints[0])
        made = packs(fit(old, new), new, builder.layout(new))
        builder.edge(1, new, made, base=0, fingerprints=fingerprints[1], **how)
        if after:
            after(builder)
        return builder

    return chain


def part(
    slug: str, title: str, chain: Chain, rules: str = "RDR-012", tensors: Sequence[str] = PART, **how: Any
) -> None:
    """A part that is read."""
    partials.read(f"part-{slug}", title, rules, chain, input={"tensors": tensors}, **how)


def no_part(slug: str, title: str, rules: str, error: str, chain: Chain, twin: str = "of-a-delta", **how: Any) -> None:
    """A part that is refused; there is no statement about a verifier unless a row has one."""
    given = {"input": {"tensors": PART}, "verify": None, **how}
    partials.reject(f"part-{slug}", title, rules, error, f"part-{twin}", chain, **given)


def over_several(base: Model, new: Model, layout: str) -> list[Pack]:
    """One chunk over two tensors of which the reader holds the second, in natural order; a pack of the others."""
    both = chunk(base, new, [("a.weight", 3, 24), ("b.weight", 0, 18)], shift=4)
    rest = [chunk_for(base, new, name) for name in ("c.ids", "d.bias")]
    if (base["a.weight"].words[:3] != new["a.weight"].words[:3]).any():
        rest.append(chunk(base, new, [("a.weight", 0, 3)]))
    return [of_chunks([both], layout), of_chunks(rest, layout)]


def around(base: Model, new: Model, layout: str) -> list[Pack]:
    """A pack of the tensors in the middle, and one of those around them."""
    inside, outside = (
        [chunk_for(base, new, name) for name in names] for names in (("b.weight", "c.ids"), ("a.weight", "d.bias"))
    )
    return [of_chunks(inside, layout), of_chunks(outside, layout)]


def one_plain(base: Model, new: Model, layout: str) -> list[Pack]:
    held = {name: new[name] for name in ("d.bias", "a.weight", "b.weight")}
    return [of_plain(held, new), of_chunks([chunk_for(base, new, "c.ids")], layout)]


def vast(more: int) -> Chain:
    """A full version of a small tensor, and of zero words that have 2^53 bytes with it, or more."""

    def chain() -> Builder:
        builder = Builder()
        state: Model = {"a": tensor("U8", (16,), 7)}
        shapes = [[1 << 48], [1 << 48], [1 << 48], [(1 << 48) - 2]]
        entries = [{"name": f"z{number}", "dtype": "F64", "shape": shape} for number, shape in enumerate(shapes)]
        entries.append({"name": "zz", "dtype": "U8", "shape": [more]})
        layout = builder.layout(state, hook=lambda document: document["tensors"].extend(entries))
        sums = tensor_fingerprint("a", state["a"].words).to_bytes(8, "little") + bytes(48)
        builder.put(f"fingerprints/{digest(sums)}.bin", sums)
        packs = [of_chunks([chunk_for(fit({}, state), state, "a")], layout)]
        builder.edge(0, state, packs, layout=layout, fingerprints=False, tensor_fingerprints=digest(sums))
        return builder

    return chain


def packs_gone(builder: Builder) -> None:
    for name in builder.pack_names(1):
        builder.remove(name)


def other_layout() -> Model:
    """A tensor before all others, so that every index moves; one dropped, one reshaped, one added."""
    model = second()
    del model["a.weight"]
    model["0.first"] = tensor("U8", (2,), [1, 2])
    model["b.weight"] = Tensor("BF16", (18,), model["b.weight"].words)
    model["e.new"] = tensor("F16", (2,), [3, 4])
    return model


EXPONENT = ["exponent-order"]
APART = part_of(shared(apart=True, order="exponent", limit=121), features=EXPONENT)
GROUPS = part_of(shared(order="exponent", groups=[1, 1], limit=121), features=EXPONENT)
TOGETHER = part_of(shared(order="exponent", limit=121), features=EXPONENT)


def held(**members: Tensor) -> Model:
    """The state of version 0, but for these tensors."""
    return first() | {name.replace("_", "."): each for name, each in members.items()}


def one_off(*names: str) -> Model:
    """The state of version 0 with another first word in each of these tensors."""
    state = first()
    for name in names:
        state[name].words[0] ^= 1
    return state


def one_changed() -> Model:
    """The delta touches one of the two tensors held."""
    return first() | {"b.weight": second()["b.weight"]}


def sums(model: Model, **more: int) -> bytes:
    """A fingerprints object, with numbers added to some of its entries."""
    added = {name.replace("_", "."): number for name, number in more.items()}
    return (
        b"".join(
            (tensor_fingerprint(name, model[name].words) + added.get(name, 0) & MASK64).to_bytes(8, "little")
            for name in ordered(model)
        )
        + b"\xff" * 8
    )


def with_sums(version: int, change: Callable[[bytes], bytes] = bytes, **more: int) -> Chain:
    """Another fingerprints object of a version, under the digest of its own bytes."""

    def chain() -> Builder:
        builder = Builder()
        old, new = states = first(), second()
        data = change(sums(states[version], **more))
        builder.put(f"fingerprints/{digest(data)}.bin", data)
        options: list[dict[str, Any]] = [{}, {}]
        options[version] = {"fingerprints": False, "tensor_fingerprints": digest(data)}
        builder.full(0, old, **options[0])
        builder.edge(1, new, each_its_own(old, new, builder.layout(new)), base=0, **options[1])
        return builder

    return chain


def other_sum(base: Model, new: Model, layout: str) -> list[Pack]:
    """The chunk over one tensor has a wrong result, and decodes to the right words."""
    chunks = {name: chunk_for(base, new, name) for name in ordered(new)}
    chunks["c.ids"].entry["result"] = ANOTHER
    return [of_chunks([each], layout) for each in chunks.values()]


Spoil = Callable[[Builder, str], Any]


def object_of(version: int, spoil: Spoil) -> Chain:
    """The fingerprints object of a version is spoiled."""
    return part_of(
        after=lambda chain: spoil(chain, f"fingerprints/{chain.manifests[version]['tensor_fingerprints']}.bin")
    )


def altered(at: int) -> Spoil:
    return lambda builder, name: builder.change(name, flipped(at))


def pack_of(tensor: str, spoil: Spoil) -> Chain:
    """The pack of one tensor is spoiled."""
    number = ordered(first()).index(tensor)
    return part_of(after=lambda builder: spoil(builder, builder.pack_names(1)[number]))


def shared_sum(base: Model, new: Model, layout: str) -> list[Pack]:
    """The chunk over a tensor held and one not held has a wrong result, and decodes to the right words."""
    both = chunk(base, new, [("a.weight", 0, 24), ("b.weight", 0, 18)])
    both.entry["result"] = ANOTHER
    return [of_chunks([both], layout), of_chunks([chunk_for(base, new, name) for name in ("c.ids", "d.bias")], layout)]


def either(slug: str, title: str, rules: str, error: str, chain: Chain) -> None:
    """A rule that lets the reader skip work: it ends with the new state, or with the error and the old state."""

    def scene(scene: Scene) -> None:
        scene.tensors = PART
        scene.either(1, scene.after(1), scene.after(0, error=error), held=0)

    partials.play(f"part-{slug}", title, rules, chain, scene, kind="read")


# fmt: off
# -- what is read ------------------------------------------------------------------------------------------------------
part("of-a-full-version", "Two of four tensors of a full version", part_of(), held=None, to=0)
part("of-a-delta", "Two of four tensors, through a delta", part_of())
part("from-nothing", "Two of four tensors, over a full version and a delta", part_of(), held=None)
part("of-one-tensor", "One of four tensors, the last", part_of(), tensors=["d.bias"])
part("that-is-all", "All tensors, as a part", part_of(), tensors=list(first()))
part("of-a-chunk",
    "Of a chunk over two tensors the reader holds the second: all positions and codes are decoded, its words taken",
    part_of(over_several), tensors=["b.weight"])
part("of-a-chunk-compressed-with-a-bitmap", "The same with a bitmap, replaced words and zstd",
    part_of(shared(positions="bitmap", values="replace", compression="zstd")), tensors=["b.weight"])
part("of-a-plain-pack", "Of a plain pack of three tensors the reader holds one",
    part_of(one_plain), tensors=["b.weight"])
part("without-a-change", "No pack has a tensor that the reader holds",
    part_of(state=lambda: first() | {"a.weight": second()["a.weight"]}), tensors=["c.ids"])
part("that-is-held-already", "The part held is that of the target, so that no pack is needed, and none is there",
    part_of(after=packs_gone), "RTE-008", held=1, verify=None)
part("held-without-a-version",
    "No version is remembered for the part held: it is found among the fingerprints objects, or read from nothing",
    part_of(), "RDR-011", remembered=None)
part("that-is-widened",
    "Of two tensors that the reader wants it holds one, so that the route leads from nothing, over a full shortcut",
    part_of(after=lambda builder: builder.full(1, second(), shortcut="")), "RDR-011",
    before={"c.ids": first()["c.ids"]})
part("beside-a-name-that-no-layout-has", "The reader wants a tensor that no version has: it ends without it",
    part_of(), "RDR-012", tensors=[*PART, "z.none"])
part("beside-a-held-tensor-that-the-base-lacks",
    "The reader holds a tensor that neither the base nor the new version has: it is dropped",
    part_of(), "RDR-011 FIT-001", tensors=[*PART, "z.none"],
    before={name: first()[name] for name in PART} | {"z.none": tensor("U8", (3,), 7)})
part("with-a-held-tensor-that-the-delta-adds",
    "The reader holds a tensor that the base lacks and the delta adds: it starts with zero words",
    part_of(state=other_layout), "RDR-011 FIT-002", tensors=["c.ids", "e.new"],
    before={"c.ids": first()["c.ids"], "e.new": other_layout()["e.new"]})
part("of-another-layout",
    "The tensors held have other indices in the new layout than in the base's, and other fingerprints at the old ones",
    part_of(state=other_layout), "RDR-011 RDR-012", tensors=["c.ids", "d.bias"], needs=["reader-exponent"])
part("reshaped", "A tensor held is reshaped, and starts with zero words",
    part_of(state=other_layout), "FIT-002", tensors=["b.weight", "c.ids"])
part("added", "A tensor of the part is added by the delta, and starts with zero words",
    part_of(state=other_layout), "FIT-002", tensors=["c.ids", "e.new"])
part("dropped", "A tensor held is dropped by the delta, another stays",
    part_of(state=other_layout), "FIT-001", tensors=["a.weight", "c.ids"])
part("in-order-exponent", "A chunk in order exponent over one tensor, which the reader holds",
    APART, "ORD-002 RDR-017", needs=["reader-exponent"])
part("beside-order-exponent",
    "A chunk in order exponent over tensors of which the reader holds none is not needed",
    TOGETHER, "RDR-017", tensors=["c.ids", "d.bias"])
no_part("of-a-chunk-in-order-exponent",
    "A chunk in order exponent over two tensors of which the reader holds one",
    "RDR-017", "unsupported", TOGETHER, "in-order-exponent")
part("of-a-chunk-in-groups",
    "A chunk in order exponent over two tensors, each a group; the reader holds one",
    GROUPS, "ORD-002 RDR-017", needs=["reader-exponent"])
part("of-a-chunk-in-groups-the-other", "The same chunk, of which the reader holds the other tensor",
    GROUPS, "ORD-002 RDR-017", tensors=["a.weight", "d.bias"], needs=["reader-exponent"])

# -- the base ----------------------------------------------------------------------------------------------------------
no_part("held-other-word", "A word of the part held differs from the base",
    "RDR-011", "wrong-base", part_of(), before=one_off("c.ids"))
part("with-an-untouched-tensor", "Of two tensors held the delta touches one", part_of(state=one_changed), "RDR-011")
no_part("held-other-word-in-an-untouched-tensor",
    "A word of a tensor held that the delta does not touch differs from the base",
    "RDR-011", "wrong-base", part_of(state=one_changed), "with-an-untouched-tensor", before=one_off("c.ids"))
no_part("held-two-words-that-cancel",
    "Two tensors held differ from the base, and the sum of their fingerprints does not",
    "RDR-011", "wrong-base", part_of(), before=one_off("b.weight", "c.ids"))
no_part("held-other-shape", "A tensor of the part is held in another shape than the base's",
    "RDR-011", "wrong-base", part_of(), before=held(b_weight=Tensor("BF16", (6, 3), first()["b.weight"].words)))
no_part("held-other-dtype", "A tensor of the part is held under another dtype than the base's",
    "RDR-011", "wrong-base", part_of(), before=held(c_ids=Tensor("I8", (7,), first()["c.ids"].words)))

# -- the new version ---------------------------------------------------------------------------------------------------
no_part("with-other-fingerprints-after",
    "The version's object gives a tensor held another fingerprint, and takes the difference from the other tensor held",
    "RDR-012", "integrity", with_sums(1, b_weight=1, c_ids=-1))
part("beside-other-fingerprints",
    "The version's object is wrong about two tensors that the reader does not hold, and its sum is right",
    with_sums(1, a_weight=1, d_bias=-1), verify=None)
no_part("with-other-fingerprints-before",
    "The base's object gives a tensor held another fingerprint than it has",
    "RDR-011", "wrong-base", with_sums(0, b_weight=1, c_ids=-1))
no_part("left-out", "No pack has the changes of a tensor held",
    "RDR-012", "integrity", part_of(own("a.weight", "b.weight", "d.bias")), verify=True)
no_part("with-a-chunk-of-another-result",
    "A chunk over a tensor held, which the reader holds whole, has a wrong result",
    "CHK-024", "wrong-base", part_of(other_sum), verify=True)

# -- a state of as many bytes as a layout may have ---------------------------------------------------------------------
part("of-a-state-of-2-53-bytes", "One small tensor of a state whose words have 2^53 bytes", vast(0), "LIM-005",
    tensors=["a"], held=None, to=0, verify=None)
no_part("of-a-state-of-more-than-2-53-bytes", "One small tensor of a state whose words have 2^53 + 1 bytes", "LIM-004",
    "limit", vast(1), "of-a-state-of-2-53-bytes", input={"tensors": ["a"]}, held=None, to=0)

# -- fingerprints objects ----------------------------------------------------------------------------------------------
no_part("without-fingerprints-after", "The new version names no fingerprints object",
    "RDR-013", "unsupported", part_of(fingerprints=(True, False)))
no_part("without-fingerprints-before", "The base names no fingerprints object",
    "RDR-013", "unsupported", part_of(fingerprints=(False, True)))
part("of-a-full-version-after-one-without-fingerprints",
    "A full version has no base, so that only its own fingerprints object is needed",
    partial(graph, "0, 1", [first(), second()], at={"0": {"fingerprints": False}}), "RDR-013")
no_part("with-fingerprints-gone-before", "The fingerprints object of the base is gone",
    "FPR-010", "missing", object_of(0, Builder.remove))
no_part("with-fingerprints-gone-after", "The fingerprints object of the new version is gone",
    "FPR-010", "missing", object_of(1, Builder.remove))
no_part("with-fingerprints-altered-before",
    "The fingerprints object of the base is altered in an entry of no interest",
    "FPR-001", "integrity", object_of(0, altered(0)), verify=True)
no_part("with-fingerprints-altered-after",
    "The fingerprints object of the new version is altered in an entry of no interest",
    "FPR-001", "integrity", object_of(1, altered(0)), verify=True)
no_part("with-fingerprints-too-long", "The fingerprints object of the new version has an entry too many",
    "FPR-002", "malformed", with_sums(1, lambda data: data + bytes(8)), verify=True)
no_part("with-fingerprints-too-short", "The fingerprints object of the new version lacks the last byte",
    "FPR-002", "malformed", with_sums(1, lambda data: data[:-1]), verify=True)

# -- packs -------------------------------------------------------------------------------------------------------------
no_part("whose-pack-is-gone", "The pack of a tensor held is gone",
    "MAN-014", "missing", pack_of("c.ids", Builder.remove))
no_part("whose-pack-is-altered", "The pack of a tensor held is altered",
    "MAN-013", "integrity", pack_of("c.ids", altered(-1)), verify=True)
either("beside-a-pack-that-is-gone",
    "A pack of tensors that the reader does not hold is gone, which it may leave unread",
    "RDR-015", "missing", pack_of("a.weight", Builder.remove))
either("beside-a-pack-of-tensors-around-that-is-gone",
    "A pack of tensors before and after those that the reader holds is gone, which it may leave unread",
    "RDR-015", "missing", part_of(around, after=lambda builder: builder.remove(builder.pack_names(1)[1])))
either("beside-a-pack-that-is-altered",
    "A pack of tensors that the reader does not hold is altered, which it may leave unread",
    "RDR-015", "integrity", pack_of("a.weight", altered(-1)))
either("of-a-chunk-of-another-result",
    "A chunk with a tensor that is not held has a wrong result, which the reader may leave unchecked",
    "RDR-016", "wrong-base", part_of(shared_sum))
