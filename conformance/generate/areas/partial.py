"""Readers of some tensors of a state (SPEC.md section 9.4)."""

from __future__ import annotations

from generate.builder import Builder, Pack, of_chunks, of_plain
from generate.codecs import chunk, chunk_for
from generate.model import Model, Tensor, ordered, tensor
from generate.parts import (
    Packs,
    chain_of,
    first,
    over_several,
    read_part,
    reject_part,
    second,
)

# -- what is read ------------------------------------------------------------------------------------------------------

read_part("part-of-a-full-version", "Two of four tensors of a full version", chain_of(), held=None, to=0)
read_part("part-of-a-delta", "Two of four tensors, through a delta", chain_of())
read_part("part-from-nothing", "Two of four tensors, over a full version and a delta", chain_of(), held=None)
read_part("part-of-one-tensor", "One of four tensors, the last", chain_of(), tensors=["d.bias"])
read_part("part-that-is-all", "All tensors, as a part", chain_of(), tensors=list(first()))
read_part(
    "part-of-a-chunk",
    "Of a chunk over two tensors the reader holds the second: all positions and codes are decoded, its words taken",
    chain_of(over_several),
    tensors=["b.weight"],
)
read_part(
    "part-of-a-chunk-compressed-with-a-bitmap",
    "The same with a bitmap, replaced words and zstd",
    chain_of(
        lambda base, new, layout: [
            of_chunks(
                [
                    chunk(
                        base,
                        new,
                        [("a.weight", 0, 24), ("b.weight", 0, 18)],
                        positions="bitmap",
                        values="replace",
                        compression="zstd",
                    ),
                    chunk_for(base, new, "c.ids"),
                    chunk_for(base, new, "d.bias"),
                ],
                layout,
            )
        ]
    ),
    tensors=["b.weight"],
)
read_part(
    "part-of-a-plain-pack",
    "Of a plain pack of three tensors the reader holds one",
    chain_of(
        lambda base, new, layout: [
            of_plain({name: new[name] for name in ("d.bias", "a.weight", "b.weight")}, new),
            of_chunks([chunk_for(base, new, "c.ids")], layout),
        ]
    ),
    tensors=["b.weight"],
)
read_part(
    "part-without-a-change",
    "No pack has a tensor that the reader holds",
    chain_of(
        lambda base, new, layout: [of_chunks([chunk_for(base, new, "a.weight")], layout)],
        after_it=lambda: first() | {"a.weight": second()["a.weight"]},
    ),
    tensors=["c.ids"],
)


def _packs_gone(builder: Builder) -> None:
    for name in builder.pack_names(1):
        builder.remove(name)


read_part(
    "part-that-is-held-already",
    "The part held is that of the target, so that no pack is needed, and none is there",
    chain_of(after=_packs_gone),
    "TD-RTE-008",
    held=1,
    verify=None,
)
read_part(
    "part-held-without-a-version",
    "No version is remembered for the part held: it is found among the fingerprints objects, or read from nothing",
    chain_of(),
    "TD-RDR-011",
    remembered=None,
)
read_part(
    "part-that-is-widened",
    "Of two tensors that the reader wants it holds one, so that the route leads from nothing, over a full shortcut",
    chain_of(after=lambda builder: builder.full(1, builder.models[1], shortcut="")),
    "TD-RDR-011",
    before={"c.ids": first()["c.ids"]},
)


def _added() -> Model:
    """A tensor before all others, so that every index moves; one dropped, one reshaped, one added."""
    model = second()
    del model["a.weight"]
    model["0.first"] = tensor("U8", (2,), [1, 2])
    model["b.weight"] = Tensor("BF16", (18,), model["b.weight"].words)
    model["e.new"] = tensor("F16", (2,), [3, 4])
    return model


def _all_differing(base: Model, new: Model, layout: str) -> list[Pack]:
    return [
        of_chunks([chunk_for(base, new, name)], layout)
        for name in ordered(new)
        if (base[name].words != new[name].words).any()
    ]


read_part(
    "part-of-another-layout",
    "The tensors held have other indices in the new layout than in the base's, and other fingerprints at the old ones",
    chain_of(_all_differing, after_it=_added),
    "TD-RDR-011",
    "TD-RDR-012",
    tensors=["c.ids", "d.bias"],
    needs=["reader-exponent"],
)
read_part(
    "part-reshaped",
    "A tensor held is reshaped, and starts with zero words",
    chain_of(_all_differing, after_it=_added),
    "TD-FIT-002",
    tensors=["b.weight", "c.ids"],
)
read_part(
    "part-added",
    "A tensor of the part is added by the delta, and starts with zero words",
    chain_of(_all_differing, after_it=_added),
    "TD-FIT-002",
    tensors=["c.ids", "e.new"],
)
read_part(
    "part-dropped",
    "A tensor held is dropped by the delta, another stays",
    chain_of(_all_differing, after_it=_added),
    "TD-FIT-001",
    tensors=["a.weight", "c.ids"],
)


def _exponent(*, whole: bool) -> Packs:
    """The bfloat16 tensors in order exponent, in one chunk or in one each."""

    def packs(base: Model, new: Model, layout: str) -> list[Pack]:
        slices = [("a.weight", 0, 24), ("b.weight", 0, 18)]
        parts = [slices] if not whole else [[each] for each in slices]
        chunks = [chunk(base, new, part, order="exponent", limit=121) for part in parts]
        return [of_chunks([*chunks, chunk_for(base, new, "c.ids"), chunk_for(base, new, "d.bias")], layout)]

    return packs


read_part(
    "part-in-order-exponent",
    "A chunk in order exponent over one tensor, which the reader holds",
    chain_of(_exponent(whole=True), features=["exponent-order"]),
    "TD-ORD-002",
    "TD-RDR-014",
    needs=["reader-exponent"],
)
read_part(
    "part-beside-order-exponent",
    "A chunk in order exponent over tensors of which the reader holds none is not needed",
    chain_of(_exponent(whole=False), features=["exponent-order"]),
    "TD-RDR-014",
    tensors=["c.ids", "d.bias"],
)
reject_part(
    "part-of-a-chunk-in-order-exponent",
    "A chunk in order exponent over two tensors of which the reader holds one",
    "unsupported",
    chain_of(_exponent(whole=False), features=["exponent-order"]),
    "TD-RDR-014",
    twin="part-in-order-exponent",
)
