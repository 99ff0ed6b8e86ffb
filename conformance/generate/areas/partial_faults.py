"""Faults that readers of some tensors of a state find (SPEC.md section 9.4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from generate.builder import Builder, Pack, digest, of_chunks
from generate.codecs import Chunk, chunk, chunk_for
from generate.fingerprint import tensor_fingerprint
from generate.model import MASK64, Model, Tensor, ordered
from generate.parts import (
    AREA,
    PART,
    Packs,
    chain_of,
    each_its_own,
    first,
    read_part,
    reject_part,
    second,
)
from generate.scenes import Scene, play

# -- the base ----------------------------------------------------------------------------------------------------------


def _held(**members: Tensor) -> Model:
    return first() | {name.replace("_", "."): each for name, each in members.items()}


def _one_off(each: Tensor, at: int) -> Tensor:
    words = each.words.copy()
    words[at] ^= 1
    return Tensor(each.dtype, each.shape, words)


reject_part(
    "part-held-other-word",
    "A word of the part held differs from the base",
    "wrong-base",
    chain_of(),
    "TD-RDR-011",
    before=_held(c_ids=_one_off(first()["c.ids"], 0)),
)
reject_part(
    "part-held-other-word-in-an-untouched-tensor",
    "A word of a tensor held that the delta does not touch differs from the base",
    "wrong-base",
    chain_of(
        lambda base, new, layout: [of_chunks([chunk_for(base, new, "b.weight")], layout)],
        after_it=lambda: first() | {"b.weight": second()["b.weight"]},
    ),
    "TD-RDR-011",
    before=_held(c_ids=_one_off(first()["c.ids"], 0)),
    twin="part-with-an-untouched-tensor",
)
read_part(
    "part-with-an-untouched-tensor",
    "Of two tensors held the delta touches one",
    chain_of(
        lambda base, new, layout: [of_chunks([chunk_for(base, new, "b.weight")], layout)],
        after_it=lambda: first() | {"b.weight": second()["b.weight"]},
    ),
    "TD-RDR-011",
)
reject_part(
    "part-held-two-words-that-cancel",
    "Two tensors held differ from the base, and the sum of their fingerprints does not",
    "wrong-base",
    chain_of(),
    "TD-RDR-011",
    before=_held(c_ids=_one_off(first()["c.ids"], 0), b_weight=_one_off(first()["b.weight"], 0)),
)
reject_part(
    "part-held-other-shape",
    "A tensor of the part is held in another shape than the base's",
    "wrong-base",
    chain_of(),
    "TD-RDR-011",
    before=_held(b_weight=Tensor("BF16", (6, 3), first()["b.weight"].words)),
)
reject_part(
    "part-held-other-dtype",
    "A tensor of the part is held under another dtype than the base's",
    "wrong-base",
    chain_of(),
    "TD-RDR-011",
    before=_held(c_ids=Tensor("I8", (7,), first()["c.ids"].words)),
)

# -- the new version ---------------------------------------------------------------------------------------------------


def _sums(model: Model, **more: int) -> bytes:
    """A fingerprints object, with numbers added to some of its entries."""
    added = {name.replace("_", "."): number for name, number in more.items()}
    return b"".join(
        (tensor_fingerprint(name, model[name].words) + added.get(name, 0) & MASK64).to_bytes(8, "little")
        for name in ordered(model)
    )


def _with_sums(version: int, change: Callable[[Model], bytes]) -> Callable[[], Builder]:
    """Another fingerprints object, under the digest of its own bytes."""

    def chain() -> Builder:
        builder = Builder()
        states = [first(), second()]
        for number, state in enumerate(states):
            more: dict[str, Any] = {}
            if number == version:
                data = change(state)
                builder.put(f"fingerprints/{digest(data)}.bin", data)
                more = {"fingerprints": False, "tensor_fingerprints": digest(data)}
            if number:
                packs = each_its_own(states[0], state, builder.layout(state))
                builder.edge(number, state, packs, base=0, **more)
            else:
                builder.full(0, state, **more)
        return builder

    return chain


reject_part(
    "part-with-other-fingerprints-after",
    "The version's object gives a tensor held another fingerprint, and takes the difference from the other tensor held",
    "integrity",
    _with_sums(1, lambda model: _sums(model, b_weight=1, c_ids=-1)),
    "TD-RDR-012",
)
read_part(
    "part-beside-other-fingerprints",
    "The version's object is wrong about two tensors that the reader does not hold, and its sum is right",
    _with_sums(1, lambda model: _sums(model, a_weight=1, d_bias=-1)),
    "TD-RDR-012",
    verify=None,
)
reject_part(
    "part-with-other-fingerprints-before",
    "The base's object gives a tensor held another fingerprint than it has",
    "wrong-base",
    _with_sums(0, lambda model: _sums(model, b_weight=1, c_ids=-1)),
    "TD-RDR-011",
)


def _left_out(base: Model, new: Model, layout: str) -> list[Pack]:
    """The changes of a tensor held are left out."""
    return [pack for name, pack in zip(ordered(new), each_its_own(base, new, layout), strict=True) if name != "c.ids"]


reject_part(
    "part-left-out",
    "No pack has the changes of a tensor held",
    "integrity",
    chain_of(_left_out),
    "TD-RDR-012",
    verify=True,
)


def _spoiled(name: str, spoil: Callable[[Chunk], Any]) -> Packs:
    def packs(base: Model, new: Model, layout: str) -> list[Pack]:
        chunks = {each: chunk_for(base, new, each) for each in ordered(new)}
        spoil(chunks[name])
        return [of_chunks([each], layout) for each in chunks.values()]

    return packs


def _other_sum(each: Chunk) -> None:
    each.entry["fingerprint"] = "0123456789abcdef"


reject_part(
    "part-with-a-chunk-of-another-fingerprint",
    "A chunk over a tensor held, which the reader holds whole, has a wrong fingerprint",
    "integrity",
    chain_of(_spoiled("c.ids", _other_sum)),
    "TD-RDR-006",
    verify=True,
)

# -- fingerprints objects ----------------------------------------------------------------------------------------------

reject_part(
    "part-without-fingerprints-after",
    "The new version names no fingerprints object",
    "unsupported",
    chain_of(fingerprints=(True, False)),
    "TD-RDR-013",
)
reject_part(
    "part-without-fingerprints-before",
    "The base names no fingerprints object",
    "unsupported",
    chain_of(fingerprints=(False, True)),
    "TD-RDR-013",
)


def _two_full() -> Builder:
    builder = Builder()
    builder.full(0, first(), fingerprints=False)
    builder.full(1, second())
    return builder


read_part(
    "part-of-a-full-version-after-one-without-fingerprints",
    "A full version has no base, so that only its own fingerprints object is needed",
    _two_full,
    "TD-RDR-013",
)


def _object(version: int, how: Callable[[Builder, str], Any]) -> Callable[[], Builder]:
    return chain_of(
        after=lambda builder: how(builder, f"fingerprints/{builder.manifests[version]['tensor_fingerprints']}.bin")
    )


for number, which in ((0, "before"), (1, "after")):
    whose = "base" if number == 0 else "new version"
    reject_part(
        f"part-with-fingerprints-gone-{which}",
        f"The fingerprints object of the {whose} is gone",
        "missing",
        _object(number, Builder.remove),
        "TD-FPR-010",
    )
    reject_part(
        f"part-with-fingerprints-altered-{which}",
        f"The fingerprints object of the {whose} is altered in an entry of no interest",
        "integrity",
        _object(number, lambda builder, name: builder.change(name, lambda data: bytes([data[0] ^ 1]) + data[1:])),
        "TD-FPR-001",
        verify=True,
    )
reject_part(
    "part-with-fingerprints-too-long",
    "The fingerprints object of the new version has an entry too many",
    "malformed",
    _with_sums(1, lambda model: _sums(model) + bytes(8)),
    "TD-FPR-002",
    verify=True,
)
reject_part(
    "part-with-fingerprints-too-short",
    "The fingerprints object of the new version lacks the last byte",
    "malformed",
    _with_sums(1, lambda model: _sums(model)[:-1]),
    "TD-FPR-002",
    verify=True,
)

# -- packs -------------------------------------------------------------------------------------------------------------


def _pack(number: int, how: Callable[[Builder, str], Any]) -> Callable[[], Builder]:
    """Something happens to the pack of one tensor."""
    return chain_of(after=lambda builder: how(builder, builder.pack_names(1)[number]))


def _alter(builder: Builder, name: str) -> None:
    builder.change(name, lambda data: data[:-1] + bytes([data[-1] ^ 1]))


reject_part(
    "part-whose-pack-is-gone", "The pack of a tensor held is gone", "missing", _pack(2, Builder.remove), "TD-MAN-014"
)
reject_part(
    "part-whose-pack-is-altered",
    "The pack of a tensor held is altered",
    "integrity",
    _pack(2, _alter),
    "TD-MAN-013",
    verify=True,
)


def _either(slug: str, title: str, error: str, how: Callable[[Builder, str], Any], *requirements: str) -> None:
    """Rules that allow the reader to leave work out: the new state, or the error with the old one."""

    def scene(scene: Scene) -> None:
        scene.tensors = PART
        scene.either(1, scene.after(1), scene.after(0, error=error), held=0)

    play(
        slug,
        area=AREA,
        level="partial",
        kind="read",
        title=title,
        requirements=requirements,
        chain=_pack(0, how),
        scene=scene,
    )


_either(
    "part-beside-a-pack-that-is-gone",
    "A pack of tensors that the reader does not hold is gone, which it may leave unread",
    "missing",
    Builder.remove,
    "TD-RDR-015",
)
_either(
    "part-beside-a-pack-that-is-altered",
    "A pack of tensors that the reader does not hold is altered, which it may leave unread",
    "integrity",
    _alter,
    "TD-RDR-015",
)


def _shared_sum() -> Builder:
    """The chunk over a tensor held and one not held has a wrong fingerprint, and decodes to the right words."""

    def packs(base: Model, new: Model, layout: str) -> list[Pack]:
        both = chunk(base, new, [("a.weight", 0, 24), ("b.weight", 0, 18)])
        _other_sum(both)
        return [of_chunks([both], layout), of_chunks([chunk_for(base, new, n) for n in ("c.ids", "d.bias")], layout)]

    return chain_of(packs)()


def _either_sum(scene: Scene) -> None:
    scene.tensors = PART
    scene.either(1, scene.after(1), scene.after(0, error="integrity"), held=0)


play(
    "part-of-a-chunk-of-another-fingerprint",
    area=AREA,
    level="partial",
    kind="read",
    title="A chunk with a tensor that is not held has a wrong fingerprint, which the reader may leave unchecked",
    requirements=["TD-RDR-016"],
    chain=_shared_sum,
    scene=_either_sum,
)
