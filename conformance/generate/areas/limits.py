"""Memory, and indices beyond 2^32 (SPEC.md sections 9.2 and 16)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from generate.builder import Builder, digest, of_chunks
from generate.codecs import Chunk, chunk, encode_gap, encode_replace, encode_step
from generate.edits import Area
from generate.fingerprint import value_of
from generate.model import Model, tensor
from generate.scenes import Scene, little

MIB = 1 << 20

# -- budgets -----------------------------------------------------------------------------------------------------------


def put_zeros(builder: Builder, version: int, tensors: Mapping[str, tuple[str, list[int]]], base: Model) -> None:
    """Put a version of the tensors of `base` and of `tensors`, whose words are all 0 and which no pack names."""
    entries = [{"name": name, "dtype": dtype, "shape": shape} for name, (dtype, shape) in tensors.items()]
    builder.edge(
        version,
        base,
        [],
        base=version - 1 if version else None,
        layout=builder.layout(base, hook=lambda document: document["tensors"].extend(entries)),
        fingerprints=False,
    )


def one_more() -> Builder:
    """A small version 0, and version 1 with one more tensor, which is too large for a small budget."""
    builder = Builder()
    builder.full(0, little())
    put_zeros(builder, 1, {"z.large": ("U8", [1 << 24])}, little())
    return builder


TARGET = one_more().manifests[1]
budget = Area("limits", one_more, "budget-that-is-enough", {"level": "chain", "needs": ["memory"]})
budget("budget-that-is-enough", "LIM-005", "A tensor of 2^24 words is added, with a budget of 256 MiB").good(
    input={"memory": 256 * MIB},
    expect={"state": {"fingerprint": TARGET["fingerprint"], "layout": f"chain/layouts/{TARGET['layout']}.json"}},
)
SMALL: dict[str, Any] = {"input": {"memory": 4 * MIB}, "expect": {"memory": 12 * MIB}, "verify": None}
budget(
    "budget-that-is-passed-with-a-state-held",
    "LIM-002 LIM-003",
    "A tensor of 2^24 words is added, with a budget of 4 MiB and a state held",
).bad("limit", **SMALL)
budget(
    "budget-that-is-passed-with-nothing-held",
    "LIM-002 LIM-003",
    "A tensor of 2^24 words is added, with a budget of 4 MiB and nothing held",
).bad("limit", held=None, **SMALL)


def many_chunks() -> Builder:
    """A delta of 4,000 words, each in a chunk of its own: 1 MB of JSON for 4 kB of words."""
    before, after = ({"t": tensor("U8", (4_000,), word)} for word in (1, 2))
    builder = Builder()
    builder.full(0, before)
    chunks = [chunk(before, after, [("t", word, word + 1)], positions="all", values="replace") for word in range(4_000)]
    builder.edge(1, after, [of_chunks(chunks, builder.layout(after))], base=0)
    return builder


def in_a_budget(scene: Scene) -> None:
    """A reader may need little for JSON: it ends with the new state, or with the old one, and takes no more memory."""
    expected = [scene.after(1), scene.after(0, error="limit")]
    scene.either(1, *({**each, "memory": 12 * MIB} for each in expected), held=0, memory=4 * MIB)


def long_names() -> Builder:
    """A full version of 120 tensors without words, whose names have 1000 bytes each."""
    builder = Builder()
    put_zeros(builder, 0, {f"{number:03d}".ljust(1000, "x"): ("U8", [0]) for number in range(120)}, {})
    return builder


Area("limits", long_names, "words-that-no-pack-names", {"held": None, "to": 0, "needs": ["memory"]})(
    "names-beyond-the-budget", "LIM-008", "Names of 120,000 bytes, of tensors without words, with a budget of 64 KiB"
).bad("limit", input={"memory": 65_536}, verify=None)
Area("limits", many_chunks, common={"level": "reader-core", "needs": ["memory"], "kind": "read"})(
    "parsed-json-in-a-budget", "LIM-008", "4,000 chunks of one word, with a budget of 4 MiB"
).play(in_a_budget)


def all_zero(tensors: Mapping[str, tuple[str, list[int]]]) -> Builder:
    """A full version without packs."""
    builder = Builder()
    put_zeros(builder, 0, tensors, {})
    builder.models[0] = {name: tensor(dtype, shape) for name, (dtype, shape) in tensors.items() if sum(shape) < MIB}
    return builder


zeros = Area("limits", all_zero, "words-that-no-pack-names", {"held": None, "to": 0})
zeros("words-that-no-pack-names", "LIM-005 MAN-007", "A full version of 1024 zero words, which no pack names").good(
    tensors={"t": ("U8", [1 << 10])}
)
for slug, title, tensors in (
    ("words-2-40", "2^40 zero words of 8 bits", {"t": ("U8", [1 << 40])}),
    ("words-2-48-of-64-bits", "2^48 zero words of 64 bits", {"t": ("F64", [1 << 24, 1 << 24])}),
    (
        "words-2-42-in-1024-tensors",
        "1024 tensors of 2^32 zero words each, which together are 4 TiB",
        {f"t{number:04d}": ("U8", [1 << 32]) for number in range(1024)},
    ),
):
    zeros(slug, "LIM-002 LIM-003", f"A full version of {title}: refused before any memory is taken").bad(
        "limit", tensors=tensors, verify=None, expect={"memory": 64 * MIB}
    )

# -- indices beyond 2^32 -----------------------------------------------------------------------------------------------

HUGE = (1 << 32) + 10
"""The number of words of a tensor of bytes."""

Words = Mapping[int, int]
"""The words that are not 0, by index."""


def sparse_chunk(slices: list[tuple[int, int]], old: Words, new: Words, *, step: bool) -> Chunk:
    """A chunk over ranges of the tensor `t`; it lists the words that differ with `step`, else those that are not 0."""
    place = [word for start, stop in slices for word in range(start, stop)]
    listed = [i for i, word in enumerate(place) if (old.get(word, 0) != new.get(word, 0) if step else word in new)]
    at = [place[i] for i in listed]
    before, after = [[words.get(word, 0) for word in at] for words in (old, new)]
    total = value_of("t", np.array(at), np.array(after, np.uint8))
    streams = encode_gap(listed, 8)
    streams |= encode_step(before, after, 8) if step else encode_replace(after, 8)
    entry = {
        "dtype": "U8",
        "slices": [[0, start, stop] for start, stop in slices],
        "changed": len(listed),
        "order": {"codec": "natural"},
        "positions": {"codec": "gap", "shift": 8},
        "values": {"codec": "step" if step else "replace"},
        "compression": "none",
        "result": f"{total:016x}",
    }
    return Chunk(entry, streams)


def huge_chain() -> Builder:
    """Words are listed on both sides of index 2^32, and at the indices equal to those modulo 2^32."""
    top = 1 << 32
    first = {0: 1, 3: 2, 65536: 3, 1 << 31: 4, top - 1: 5, top: 6, top + 3: 7, top + 9: 8}
    second = first | {3: 4, top - 1: 250, top: 9, top + 2: 1, top + 3: 6}
    chunks = [
        sparse_chunk([(0, 10), (65530, 65540), ((1 << 31) - 3, (1 << 31) + 3)], {}, first, step=False),
        sparse_chunk([(top - 100, HUGE)], {}, first, step=False),
    ]
    steps = [
        sparse_chunk([(top - 1000, top - 500), (top - 500, HUGE)], first, second, step=True),
        sparse_chunk([(2, 5)], first, second, step=True),
    ]
    builder = Builder()
    entry = {"name": "t", "dtype": "U8", "shape": [HUGE]}
    layout = builder.layout({}, hook=lambda document: document.update(tensors=[entry]))
    for version, (made, words) in enumerate(((chunks, first), (steps, second))):
        total = value_of("t", np.array(list(words)), np.array(list(words.values()), np.uint8))
        data = total.to_bytes(8, "little") + bytes(8)
        builder.put(f"fingerprints/{digest(data)}.bin", data)
        builder.edge(
            version,
            {},
            [of_chunks(made, layout)],
            base=version - 1 if version else None,
            layout=layout,
            fingerprints=False,
            fingerprint=f"{total:016x}",
            tensor_fingerprints=digest(data),
        )
    return builder


huge = Area("limits", huge_chain, common={"held": None, "flags": ["huge"]})
for slug, version, title in (("full", 0, "A full version"), ("delta", 1, "A full version and a delta")):
    huge(
        f"indices-beyond-2-32-{slug}",
        "POS-002 FPR-006",
        f"{title} of a tensor of 2^32 + 10 words, with words listed on both sides of 2^32",
    ).good(to=version)


def beyond_two_to_24() -> Builder:
    """A full version of a tensor of bytes with words on both sides of index 2^24."""
    top = 1 << 24
    words = {3: 1, top - 1: 2, top: 3, top + 3: 4}
    builder = Builder()
    entry = {"name": "t", "dtype": "U8", "shape": [top + 4]}
    layout = builder.layout({}, hook=lambda document: document.update(tensors=[entry]))
    total = value_of("t", np.array(list(words)), np.array(list(words.values()), np.uint8))
    made = [sparse_chunk([(0, 5), (top - 5, top + 4)], {}, words, step=False)]
    builder.edge(0, {}, [of_chunks(made, layout)], layout=layout, fingerprints=False, fingerprint=f"{total:016x}")
    return builder


BEYOND = beyond_two_to_24().manifests[0]
Area("limits", beyond_two_to_24, common={"held": None, "to": 0})(
    "indices-beyond-2-24", "FPR-006", "A tensor of bytes with words on both sides of index 2^24"
).good(expect={"state": {"fingerprint": BEYOND["fingerprint"], "layout": f"chain/layouts/{BEYOND['layout']}.json"}})


def five_words(later: int = 0) -> Builder:
    """The five words of a tensor, listed in a slice whose start and stop are greater by `later`."""
    first, second = dict.fromkeys(range(5), 1), dict.fromkeys(range(5), 2)
    made = [sparse_chunk([(0, 5)], old, new, step=False) for old, new in (({}, first), (first, second))]
    made[1].entry["slices"] = [[0, later, later + 5]]
    builder = Builder()
    for version, each in enumerate(made):
        state = {"t": tensor("U8", (5,), version + 1)}
        builder.edge(version, state, [of_chunks([each], builder.layout(state))], base=version - 1 if version else None)
    return builder


five = Area("limits", five_words, "slice-of-five-words")
five("slice-of-five-words", "CHK-008", "A slice of the five words of a tensor").good()
five(
    "slice-of-five-words-beyond-2-32",
    "CHK-008",
    "A slice of the words [2^32, 2^32 + 5) of a tensor of five, which 32 bits take for all of them",
).bad(later=1 << 32)
