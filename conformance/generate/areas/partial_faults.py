"""Faults that readers of some tensors of a state find (SPEC.md section 9.4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from generate.builder import Builder, Pack, digest, of_chunks
from generate.codecs import chunk, chunk_for
from generate.fingerprint import tensor_fingerprint
from generate.graph import ANOTHER, Chain
from generate.model import MASK64, Model, Tensor, ordered
from generate.parts import PART, each_its_own, first, no_part, own, part, part_of, partials, second
from generate.scenes import Scene
from generate.standard import flipped

# -- the base ----------------------------------------------------------------------------------------------------------


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


# fmt: off
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
# fmt: on

# -- the new version ---------------------------------------------------------------------------------------------------


def sums(model: Model, **more: int) -> bytes:
    """A fingerprints object, with numbers added to some of its entries."""
    added = {name.replace("_", "."): number for name, number in more.items()}
    return b"".join(
        (tensor_fingerprint(name, model[name].words) + added.get(name, 0) & MASK64).to_bytes(8, "little")
        for name in ordered(model)
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
    """A chunk over one tensor has a wrong fingerprint, and decodes to the right words."""
    chunks = {name: chunk_for(base, new, name) for name in ordered(new)}
    chunks["c.ids"].entry["fingerprint"] = ANOTHER
    return [of_chunks([each], layout) for each in chunks.values()]


# fmt: off
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
no_part("with-a-chunk-of-another-fingerprint",
    "A chunk over a tensor held, which the reader holds whole, has a wrong fingerprint",
    "RDR-006", "integrity", part_of(other_sum), verify=True)
# fmt: on

# -- fingerprints objects ----------------------------------------------------------------------------------------------

Spoil = Callable[[Builder, str], Any]


def two_full() -> Builder:
    builder = Builder()
    builder.full(0, first(), fingerprints=False)
    builder.full(1, second())
    return builder


def object_of(version: int, spoil: Spoil) -> Chain:
    """The fingerprints object of a version is spoiled."""
    return part_of(
        after=lambda chain: spoil(chain, f"fingerprints/{chain.manifests[version]['tensor_fingerprints']}.bin")
    )


def altered(at: int) -> Spoil:
    return lambda builder, name: builder.change(name, flipped(at))


# fmt: off
no_part("without-fingerprints-after", "The new version names no fingerprints object",
    "RDR-013", "unsupported", part_of(fingerprints=(True, False)))
no_part("without-fingerprints-before", "The base names no fingerprints object",
    "RDR-013", "unsupported", part_of(fingerprints=(False, True)))
part("of-a-full-version-after-one-without-fingerprints",
    "A full version has no base, so that only its own fingerprints object is needed", two_full, "RDR-013")
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
# fmt: on

# -- packs -------------------------------------------------------------------------------------------------------------


def pack_of(tensor: str, spoil: Spoil) -> Chain:
    """The pack of one tensor is spoiled."""
    number = ordered(first()).index(tensor)
    return part_of(after=lambda builder: spoil(builder, builder.pack_names(1)[number]))


def shared_sum(base: Model, new: Model, layout: str) -> list[Pack]:
    """The chunk over a tensor held and one not held has a wrong fingerprint, and decodes to the right words."""
    both = chunk(base, new, [("a.weight", 0, 24), ("b.weight", 0, 18)])
    both.entry["fingerprint"] = ANOTHER
    return [of_chunks([both], layout), of_chunks([chunk_for(base, new, name) for name in ("c.ids", "d.bias")], layout)]


def either(slug: str, title: str, rules: str, error: str, chain: Chain) -> None:
    """Rules that allow the reader to leave work out: the new state, or the error with the old one."""

    def scene(scene: Scene) -> None:
        scene.tensors = PART
        scene.either(1, scene.after(1), scene.after(0, error=error), held=0)

    partials.play(f"part-{slug}", title, rules, chain, scene, kind="read")


# fmt: off
no_part("whose-pack-is-gone", "The pack of a tensor held is gone",
    "MAN-014", "missing", pack_of("c.ids", Builder.remove))
no_part("whose-pack-is-altered", "The pack of a tensor held is altered",
    "MAN-013", "integrity", pack_of("c.ids", altered(-1)), verify=True)
either("beside-a-pack-that-is-gone",
    "A pack of tensors that the reader does not hold is gone, which it may leave unread",
    "RDR-015", "missing", pack_of("a.weight", Builder.remove))
either("beside-a-pack-that-is-altered",
    "A pack of tensors that the reader does not hold is altered, which it may leave unread",
    "RDR-015", "integrity", pack_of("a.weight", altered(-1)))
either("of-a-chunk-of-another-fingerprint",
    "A chunk with a tensor that is not held has a wrong fingerprint, which the reader may leave unchecked",
    "RDR-016", "integrity", part_of(shared_sum))
# fmt: on
