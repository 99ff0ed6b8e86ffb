"""What chains may hold besides chunks: plain packs, files, unknown fields, what is at a limit."""

from __future__ import annotations

from typing import Any

from generate.builder import Builder, dumps, of_chunks, of_plain
from generate.codecs import chunk_for, delta_chunks, full_chunks
from generate.good import good, unclean
from generate.graph import graph
from generate.model import CHAIN, Model, Random, fit, ordered, random_tensor, small, stepped, tensor, weights
from generate.scenes import small_walk


@good
def plain() -> Builder:
    """Checkpoint shards as packs: of a full version, of a delta, with tensors of no interest, with files."""
    rng = Random(7)
    builder = Builder()
    model = small(rng) | {"e.none": tensor("F32", (0, 4)), "f.none": tensor("U8", (0,)), "g": tensor("F64", (), 7)}
    one = {name: model[name] for name in ("b.bias", "a.weight")} | {"unwanted": random_tensor(rng, "I64", (3,))}
    two = {name: model[name] for name in ("f.none", "d.mask", "e.none", "c.ids", "g")}
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    metadata = {"format": "pt", "tensordelta": "means nothing here"}
    packs = [
        of_plain(one, model, metadata=metadata, fields={"name": names[0]}),
        of_plain(two, model, pad=b"", fields={"name": names[1], "sources": ["ftp://nowhere/two", "no scheme"]}),
    ]
    index = dumps({"metadata": {}, "weight_map": {name: names[name not in one] for name in model}})
    builder.edge(0, model, packs, files=[builder.file("model.safetensors.index.json", index)])
    after = stepped(rng, model, 0.2, ["c.ids", "a.weight"]) | {"b.bias": weights(rng, (24,), "F32")}
    shard = {"x": tensor("U8", (1,), 9), "b.bias": after["b.bias"]}
    part = of_plain(shard, after, fields={"name": "sub/b.safetensors"})
    chunks = [chunk_for(model, after, name) for name in ("a.weight", "c.ids")]
    builder.edge(1, after, [part, of_chunks(chunks, builder.layout(after))], base=0)
    nothing = of_plain({"e.none": model["e.none"]}, after)  # a pack without words
    builder.edge(2, after, [nothing], base=1)
    reshaped = {**after, "a.weight": weights(rng, (4, 4)), "h": weights(rng, (6,))}
    builder.edge(3, reshaped, [of_plain({name: reshaped[name] for name in ("h", "a.weight")}, reshaped)], base=2)
    return builder


@unclean
def plain_with_sources() -> Builder:
    """The own manifest's pack lies only at a source; a shortcut has the bytes."""
    builder = Builder()
    model, after = small_walk(2, 8)
    source = {"path": None, "sources": ["hf://org/model@0123abcd/model.safetensors"], "name": "model.safetensors"}
    builder.edge(0, model, [of_plain(model, model, stored=False, fields=source)])
    builder.full(0, model, shortcut="")
    builder.delta(1, after, 0)
    return builder


@good
def files() -> Builder:
    builder = Builder()
    states = small_walk(3, 9)
    config = builder.file("config.json", b'{"model_type": "tiny"}')
    builder.full(0, states[0], files=[config, builder.file("onnx/sub.d/tokenizer_config.json", b"{}")])
    other = {**builder.file("Config.json", b"[]"), "path": "files/any/path-at.all"}
    builder.put(other["path"], b"[]")
    builder.delta(1, states[1], 0, files=[builder.file("empty.txt", b""), other])
    builder.delta(2, states[2], 1)
    return builder


@good
def no_tensor_fingerprints() -> Builder:
    without = {edge: {"fingerprints": False} for edge in ("0", "0 -> 1", "1 -> 2")}
    return graph("0 -> 1 -> 2 -> 3", small_walk(4, 10), at=without)


@good
def empty_deltas_and_gaps() -> Builder:
    """Versions 3, 4, 1000, 999999999999; deltas that change nothing; a version that goes back."""
    model, after = small_walk(2, 11)
    states = {3: model, 4: model, 1000: after, 1001: after, 999_999_999_999: model}
    return graph("3 -> 4 -> 1000 -> 1001 -> 999999999999", states)


@good
def empty_state() -> Builder:
    """No tensors; then some; then none."""
    model = small(Random(12))
    return graph("0 -> 1 -> 2, 3", [{}, model, {}, fit({}, model)])


@good
def unknown_fields() -> Builder:
    """Unknown fields with any number, white space, escapes, other orders of members, noncharacters."""
    builder = Builder(chain=lambda each: each.update({"ﬀ": [1.5e3, None, {"x": -0.0}]}))
    model, after, last = small_walk(3, 13)
    odd = b'"unknown":[-0,1.0,1e999,123456789012345678901234567890,"\\ud83d\\ude00\\uffff",{"a":{"a":1}}],'
    layout = builder.layout(
        model,
        hook=lambda document: [each.update({"colour": None}) for each in document["tensors"]],
        text=lambda data: b" \n" + data.replace(b"{", b"{" + odd, 1) + b"\r\n\t",
    )

    def table(document: dict[str, Any]) -> None:
        for each in document["chunks"]:
            each["note"] = {"codec": "x"}

    def turn(document: dict[str, Any]) -> None:
        members = list(document.items())[::-1]
        document.clear()
        document.update(members)
        document["annotations"] = {"": "", "\ufdd0": "\uffff é", "step": "420"}

    base = fit({}, model)
    full = of_chunks(
        [chunk_for(base, model, name, positions="all", values="replace") for name in ordered(model)],
        layout,
        table=table,
        header=lambda head: head["__metadata__"].update({"format": "pt"}),
        table_text=lambda text: b"  " + text.replace(b"{", b"{" + odd, 1) + b"\n",
        pad=b"\n \t\r" * 3,
        fields={"name": "../any string at all", "sources": [], "future": {"a": 1.5}},
    )

    def text(data: bytes) -> bytes:
        deep = b'"deep":' + b"[" * 15 + b"]" * 15 + b","
        return data.replace(b"{", b"{" + odd + deep, 1).replace(b'"version"', b'"\\u0076ersion"')

    features = ["exponent-order", "exponent-order"]
    builder.edge(0, model, [full], layout=layout, features=features, hook=turn, text=text)
    again = builder.layout(after)  # the same list in other bytes
    assert again != layout
    builder.edge(1, after, [of_chunks(delta_chunks(model, after), again)], base=0, layout=again)
    builder.edge(2, last, [of_chunks(delta_chunks(after, last), layout)], base=1, layout=layout)
    builder.put("latest.json", b'{"tensordelta":"1.1","chain":"' + CHAIN.encode() + b'","version":2,"x":1e9}')
    return builder


@good
def at_the_limits() -> Builder:
    """Annotations, paths, shapes, times at what is just allowed."""
    rng = Random(18)
    annotations = {f"{i:02d}": "é" * 2047 for i in range(64)}
    builder = Builder(chain=lambda each: each.update({"created": "2024-02-30T23:59:60.123456789Z"}))
    model: Model = {
        "a": random_tensor(rng, "U8", (2, 1) * 8),
        "none": tensor("F64", (0, 1 << 48)),
        "none.too": tensor("U8", (1 << 24, 0, 1 << 24)),
    }
    layout = builder.layout(model)
    path = "packs/" + "_" * 97 + "/" + "_." * 47 + "_-"
    assert len(path) == 200
    pack = of_chunks(full_chunks(model), layout, fields={"path": path})
    builder.edge(0, model, [pack], annotations=annotations, created="0000-12-31T00:00:00.0Z")
    after = stepped(rng, model)
    tail = of_chunks(delta_chunks(model, after), layout, fields={"path": "packs/x/y.z", "name": ""})
    builder.edge(1, after, [tail], base=0, annotations={"k" * 4096: ""})
    builder.delta(2, model, 1)
    return builder


@good
def shared_objects() -> Builder:
    """One pack named by two manifests; a state that comes back; `replace` on other bases."""
    rng = Random(19)
    model = small(rng)
    after = stepped(rng, model, 0.2, ["a.weight"])
    builder = graph("0 -> 1 -> 2 -> 3, 4", [model, after, model, after, model])
    assert builder.pack_names(1) == builder.pack_names(3)
    return builder
