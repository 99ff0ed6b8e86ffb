"""Routes through chains: shortcuts, fitting, hints, retention, damage that another route avoids."""

from __future__ import annotations

from generate.builder import Builder, dumps, manifest_name, of_chunks, shortcut_name
from generate.codecs import chunk_for, full_chunks
from generate.good import good, unclean
from generate.graph import graph
from generate.model import (
    CHAIN,
    DTYPES,
    FOREIGN,
    FORMAT,
    Model,
    Random,
    Tensor,
    ordered,
    random_tensor,
    small,
    tensor,
    weights,
)
from generate.scenes import line, small_walk
from generate.standard import setting


@good
def shortcuts() -> Builder:
    """Skip deltas, a full shortcut, a version's own edge again, in other encodings."""
    models = small_walk(7, 4, 0.2)
    builder = graph(
        "0 -> 1 -> 2 -> 3 -> 4 -> 5 -> 6, 0 => 2, 2 => 6, => 4, => 4.b, 4 => 5, 2 => 3.0123456789abcdef",
        models,
        at={"4 => 5": {"coding": {"values": "replace", "compression": "zstd"}}},
    )
    model = models[6]
    names = [name for name in ordered(model) if DTYPES[model[name].dtype][1]]
    chunks = [chunk_for(models[5], model, name, order="exponent", limit=120, compression="zstd") for name in names]
    chunks += [chunk_for(models[5], model, name) for name in ordered(model) if name not in names]
    pack = of_chunks(chunks, builder.layout(model))
    builder.edge(6, model, [pack], base=5, features=["exponent-order"], shortcut="exp")
    builder.latest(6)
    return builder


@good
def fitting() -> Builder:
    """Tensors added, dropped, reshaped, retyped, renamed; names whose order depends on the bytes."""
    rng = Random(5)
    model = small(rng)
    added = {**model, "e.new": weights(rng, (7, 9)), "a": random_tensor(rng, "F16", (5,))}
    dropped = {name: each for name, each in added.items() if name != "b.bias"}
    reshaped = {**dropped, "a.weight": Tensor("BF16", (16, 20), dropped["a.weight"].words)}
    retyped = {**reshaped, "c.ids": random_tensor(rng, "U32", (10,)), "d.mask": tensor("U8", (13,))}
    renamed = {("z.renamed" if name == "e.new" else name): each for name, each in retyped.items()}
    odd = {
        "é": random_tensor(rng, "U8", (3,)),
        "e\u0301": random_tensor(rng, "U8", (3,)),  # looks the same, in other bytes
        "\ue000": random_tensor(rng, "U8", (4,)),  # before the next in UTF-8, after it in UTF-16
        "\U00010000": random_tensor(rng, "U8", (5,)),
        "\uffff": random_tensor(rng, "U8", (2,)),
        "a.b": random_tensor(rng, "U8", (2,)),
        'a/b c\n"\\': random_tensor(rng, "U8", (2,)),
        "x" * 1024: random_tensor(rng, "I8", (1,)),
    }
    states: list[Model] = [model, added, dropped, reshaped, retyped, renamed, {**renamed, **odd}, odd]
    states.append(model)  # and all the way back
    codings = [{"coding": {"positions": "bitmap"} if version % 2 else {"values": "replace"}} for version in range(9)]
    deltas = {f"{version - 1} -> {version}": codings[version] for version in range(1, 9)}
    return graph("0 -> 1 -> 2 -> 3 -> 4 -> 5 -> 6 -> 7 -> 8, 0 => 7", states, at=deltas)


@unclean
def listing() -> Builder:
    """Names that are none of a chain's objects, a hint that lies, a shortcut to nowhere."""
    builder = line(small_walk(2, 20))
    for name in (
        "manifests/1.json", "manifests/000000000002.json.sig", "manifests/000000000002.json.tmp", "manifests/latest",
        "manifests/0000000000002.json", "manifests/.000000000002.json", "manifests/00000000000A.json",
        "manifests/x/000000000002.json", "shortcuts/000000000001-000000000000.TAG.json", "shortcuts/000000000001-.json",
        "shortcuts/000000000001-000000000000.0123456789abcdefg.json", "shortcuts/000000000001-000000000000..json",
        "layouts/readme", "packs/.tmp-1",
    ):  # fmt: skip
        builder.put(name, b"not JSON")
    builder.put(shortcut_name(7, 0), builder.get(manifest_name(1)).replace(b'"version":1', b'"version":7', 1))
    builder.put("latest.json", dumps({"tensordelta": FORMAT, "chain": CHAIN, "version": 7}))
    return builder


@good
def hint_that_is_garbage() -> Builder:
    builder = line(small_walk(2, 21))
    builder.put("latest.json", b"\xff\xfe not JSON")
    return builder


@good
def hint_of_another_chain() -> Builder:
    builder = line(small_walk(2, 21))
    builder.put("latest.json", dumps({"tensordelta": FORMAT, "chain": FOREIGN, "version": 0}))
    return builder


@unclean
def shortcuts_that_do_not_count() -> Builder:
    """Shortcuts that are cheaper than all others and wrong, each in its own way; 7 has other words than 0."""
    return graph(
        "0 -> 1 -> 2 -> 3 -> 4 -> 5 -> 6 -> 7 -> 8, 0 => 1.a empty elsewhere, 0 => 2 empty, 0 => 3 empty foreign, "
        "0 => 4 empty, 0 => 5 empty torn, 0 => 6 empty, 0 => 7 empty, 7 => 8 empty",
        small_walk(9, 22),
        at={
            "0 => 2": {"layout": "0" * 64},
            "0 => 4": {"hook": setting(version=5)},
            "0 => 6": {"hook": lambda document: document["base"].update(fingerprint="0" * 16)},
            "7 => 8": {"features": ["not-known"]},
        },
    )


@unclean
def unknown_feature_of_the_manifest() -> Builder:
    """The version's own manifest needs what a reader lacks; a shortcut does not."""
    return graph("0 -> 1 strided -> 2, 0 => 1.plain", small_walk(3, 23))


@good
def retention() -> Builder:
    """Packs of old deltas are gone, a full shortcut leads around them; the manifests before it are gone."""
    ways = "0 gone deleted -> 1 gone deleted -> 2 gone deleted -> 3 -> 4 gone -> 5, => 3, 3 => 5, => 4"
    builder = graph(ways, small_walk(6, 24))
    builder.models = {version: state for version, state in builder.models.items() if version > 2}
    return builder


@unclean
def damaged_packs_with_a_way_around() -> Builder:
    """The cheapest route has an altered pack, the next a lost one, the third works."""
    states = small_walk(2, 25, 0.02)
    builder = graph("0 -> 1 altered, => 1 gone", states)
    other = of_chunks(full_chunks(states[1])[::-1], builder.layout(states[1]))
    builder.edge(1, states[1], [other], shortcut="b")
    return builder
