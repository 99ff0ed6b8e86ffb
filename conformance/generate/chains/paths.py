"""Ways through chains: shortcuts, fitting, hints, retention, damage with a way around."""

from __future__ import annotations

from generate.builder import Builder, dumps, manifest_name, of_chunks, shortcut_name
from generate.codecs import chunk_for, full_chunks
from generate.good import good, unclean
from generate.model import (
    CHAIN,
    DTYPES,
    FOREIGN,
    Model,
    Random,
    Tensor,
    ordered,
    random_tensor,
    small,
    stepped,
    tensor,
    weights,
)


@good
def shortcuts() -> Builder:
    """Skip deltas, a full shortcut, a version's own edge again, in other encodings."""
    rng = Random(4)
    builder = Builder()
    model = small(rng)
    builder.full(0, model)
    for version in range(1, 7):
        model = stepped(rng, model, 0.2)
        builder.delta(version, model, version - 1)
    models = builder.models
    builder.delta(2, models[2], 0, shortcut="")
    builder.delta(6, models[6], 2, shortcut="")
    builder.full(4, models[4], shortcut="")
    builder.full(4, models[4], shortcut="b")
    builder.delta(5, models[5], 4, coding={"values": "replace", "compression": "zstd"}, shortcut="")
    names = [name for name in ordered(model) if DTYPES[model[name].dtype][1]]
    layout = builder.layout(model)
    chunks = [chunk_for(models[5], models[6], name, order="exponent", limit=120, compression="zstd") for name in names]
    chunks += [chunk_for(models[5], models[6], name) for name in ordered(model) if name not in names]
    builder.edge(6, models[6], [of_chunks(chunks, layout)], base=5, features=["exponent-order"], shortcut="exp")
    builder.delta(3, models[3], 2, shortcut="0123456789abcdef")
    builder.latest(6)
    return builder


@good
def fitting() -> Builder:
    """Tensors added, dropped, reshaped, retyped, renamed; names whose order depends on the bytes."""
    rng = Random(5)
    builder = Builder()
    states: list[Model] = []
    model = small(rng)
    states.append(model)
    states.append({**model, "e.new": weights(rng, (7, 9)), "a": random_tensor(rng, "F16", (5,))})
    states.append({name: each for name, each in states[-1].items() if name != "b.bias"})
    reshaped = {**states[-1], "a.weight": Tensor("BF16", (16, 20), states[-1]["a.weight"].words)}
    states.append(reshaped)
    states.append({**reshaped, "c.ids": random_tensor(rng, "U32", (10,)), "d.mask": tensor("U8", (13,))})
    renamed = {("z.renamed" if name == "e.new" else name): each for name, each in states[-1].items()}
    states.append(renamed)
    odd = {
        "é": random_tensor(rng, "U8", (3,)),
        "e\u0301": random_tensor(rng, "U8", (3,)),  # the same to look at, other bytes
        "\ue000": random_tensor(rng, "U8", (4,)),  # before the next in UTF-8, after it in UTF-16
        "\U00010000": random_tensor(rng, "U8", (5,)),
        "\uffff": random_tensor(rng, "U8", (2,)),
        "a.b": random_tensor(rng, "U8", (2,)),
        'a/b c\n"\\': random_tensor(rng, "U8", (2,)),
        "x" * 1024: random_tensor(rng, "I8", (1,)),
    }
    states.append({**renamed, **odd})
    states.append(odd)
    states.append(model)  # and all the way back
    builder.full(0, states[0])
    for version, state in enumerate(states[1:], start=1):
        coding = {"positions": "bitmap"} if version % 2 else {"values": "replace"}
        builder.delta(version, state, version - 1, coding=coding)
    builder.delta(7, states[7], 0, shortcut="")
    return builder


@unclean
def listing() -> Builder:
    """Names that are none of a chain's objects, a hint that lies, a shortcut to nowhere."""
    rng = Random(20)
    builder = Builder()
    model = small(rng)
    builder.full(0, model)
    builder.delta(1, stepped(rng, model), 0)
    manifest = builder.get(manifest_name(1))
    for name in (
        "manifests/1.json",
        "manifests/000000000002.json.sig",
        "manifests/000000000002.json.tmp",
        "manifests/0000000000002.json",
        "manifests/.000000000002.json",
        "manifests/00000000000A.json",
        "manifests/x/000000000002.json",
        "manifests/latest",
        "shortcuts/000000000001-000000000000.TAG.json",
        "shortcuts/000000000001-.json",
        "shortcuts/000000000001-000000000000.0123456789abcdefg.json",
        "shortcuts/000000000001-000000000000..json",
        "layouts/readme",
        "packs/.tmp-1",
    ):
        builder.put(name, b"not JSON")
    builder.put(shortcut_name(7, 0), manifest.replace(b'"version":1', b'"version":7', 1))
    builder.put("latest.json", dumps({"tensordelta": "1.0", "chain": CHAIN, "version": 7}))
    return builder


@good
def hint_that_is_garbage() -> Builder:
    rng = Random(21)
    builder = Builder()
    model = small(rng)
    builder.full(0, model)
    builder.delta(1, stepped(rng, model), 0)
    builder.put("latest.json", b"\xff\xfe not JSON")
    return builder


@good
def hint_of_another_chain() -> Builder:
    rng = Random(21)
    builder = Builder()
    model = small(rng)
    builder.full(0, model)
    builder.delta(1, stepped(rng, model), 0)
    builder.put("latest.json", dumps({"tensordelta": "1.0", "chain": FOREIGN, "version": 0}))
    return builder


@unclean
def shortcuts_that_do_not_count() -> Builder:
    """Shortcuts that are cheaper than all others and wrong, each in its own way."""
    rng = Random(22)
    builder = Builder()
    model = small(rng)
    builder.full(0, model)
    for version in range(1, 9):
        model = stepped(rng, model)
        builder.delta(version, model, version - 1)
    models = builder.models
    builder.edge(1, models[1], [], base=0, shortcut="a", fingerprint="0123456789abcdef")
    builder.edge(2, models[2], [], base=0, shortcut="", layout="0" * 64)
    builder.edge(3, models[3], [], base=0, shortcut="", chain=FOREIGN)
    builder.edge(4, models[4], [], base=0, shortcut="", hook=lambda document: document.update(version=5))
    builder.edge(5, models[5], [], base=0, shortcut="", text=lambda data: data[:-1])
    wrong = {"version": 0, "layout": builder.manifests[0]["layout"], "fingerprint": "0" * 16}
    builder.edge(6, models[6], [], base=0, shortcut="", hook=lambda document: document.update(base=wrong))
    builder.edge(7, models[7], [], base=0, shortcut="")  # an empty delta that does not make version 7
    builder.edge(8, models[8], [], base=7, shortcut="", features=["not-known"])
    return builder


@unclean
def unknown_feature_of_the_manifest() -> Builder:
    """The version's own manifest needs what a reader lacks; a shortcut does not."""
    rng = Random(23)
    builder = Builder()
    model = small(rng)
    builder.full(0, model)
    after = stepped(rng, model)
    builder.delta(1, after, 0, features=["strided-slices"])
    builder.delta(1, after, 0, shortcut="plain")
    last = stepped(rng, after)
    builder.delta(2, last, 1)
    return builder


@good
def retention() -> Builder:
    """Packs of old deltas are gone, a full shortcut leads around them; the manifest of version 0 is gone."""
    rng = Random(24)
    builder = Builder()
    model = small(rng)
    builder.full(0, model)
    for version in range(1, 6):
        model = stepped(rng, model)
        builder.delta(version, model, version - 1)
    builder.full(3, builder.models[3], shortcut="")
    builder.delta(5, builder.models[5], 3, shortcut="")
    for version in (0, 1, 2, 4):
        for name in builder.pack_names(version):
            builder.remove(name)
    for version in (0, 1, 2):
        builder.remove(manifest_name(version))
    builder.full(4, builder.models[4], shortcut="")
    builder.models = {version: state for version, state in builder.models.items() if version > 2}
    return builder


@unclean
def damaged_packs_with_a_way_around() -> Builder:
    """The cheapest route has an altered pack, the next a lost one, the third works."""
    rng = Random(25)
    builder = Builder()
    model = small(rng)
    builder.full(0, model)
    after = stepped(rng, model, 0.02)
    builder.delta(1, after, 0)
    layout = builder.layout(after)
    full = builder.edge(1, after, [of_chunks(full_chunks(after), layout)], shortcut="")
    other = full_chunks(after)[::-1]
    builder.edge(1, after, [of_chunks(other, layout)], shortcut="b")
    builder.change(builder.pack_names(1)[0], lambda data: data[:-1] + bytes([data[-1] ^ 1]))
    builder.remove(full["packs"][0]["path"])
    return builder
