"""Readers of some tensors of a state (SPEC.md section 9.4)."""

from __future__ import annotations

from generate.builder import Builder, Pack, of_chunks, of_plain
from generate.codecs import chunk, chunk_for
from generate.model import Model, Tensor, tensor
from generate.parts import first, no_part, part, part_of, second, shared


def over_several(base: Model, new: Model, layout: str) -> list[Pack]:
    """One chunk over two tensors of which the reader holds the second, in natural order; a pack of the others."""
    both = chunk(base, new, [("a.weight", 3, 24), ("b.weight", 0, 18)], shift=4)
    rest = [chunk_for(base, new, name) for name in ("c.ids", "d.bias")]
    if (base["a.weight"].words[:3] != new["a.weight"].words[:3]).any():
        rest.append(chunk(base, new, [("a.weight", 0, 3)]))
    return [of_chunks([both], layout), of_chunks(rest, layout)]


def one_plain(base: Model, new: Model, layout: str) -> list[Pack]:
    held = {name: new[name] for name in ("d.bias", "a.weight", "b.weight")}
    return [of_plain(held, new), of_chunks([chunk_for(base, new, "c.ids")], layout)]


def packs_gone(builder: Builder) -> None:
    for name in builder.pack_names(1):
        builder.remove(name)


def full_shortcut(builder: Builder) -> None:
    builder.full(1, builder.models[1], shortcut="")


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
TOGETHER = part_of(shared(order="exponent", limit=121), features=EXPONENT)

# fmt: off
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
    part_of(after=full_shortcut), "RDR-011", before={"c.ids": first()["c.ids"]})
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
    APART, "ORD-002 RDR-014", needs=["reader-exponent"])
part("beside-order-exponent",
    "A chunk in order exponent over tensors of which the reader holds none is not needed",
    TOGETHER, "RDR-014", tensors=["c.ids", "d.bias"])
no_part("of-a-chunk-in-order-exponent",
    "A chunk in order exponent over two tensors of which the reader holds one",
    "RDR-014", "unsupported", TOGETHER, "in-order-exponent")
# fmt: on
