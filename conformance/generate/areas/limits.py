"""Memory, and indices beyond 2^32 (SPEC.md sections 9.2 and 16)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from generate.builder import Builder, digest, of_chunks
from generate.cases import read, reject
from generate.codecs import Chunk, encode_gap, encode_replace, encode_step
from generate.fingerprint import change_fingerprint
from generate.model import MASK64, Model, tensor
from generate.scenes import little

AREA = "limits"
MIB = 1 << 20

# -- budgets -----------------------------------------------------------------------------------------------------------

LARGE = 1 << 24
"""Words of a tensor that does not fit into a small budget."""


def _zeros(builder: Builder, version: int, tensors: Mapping[str, tuple[str, list[int]]], base: Model) -> None:
    """A version of given tensors and of more that are all zero, which no pack names."""
    entries = [{"name": name, "dtype": dtype, "shape": shape} for name, (dtype, shape) in tensors.items()]
    builder.edge(
        version,
        base,
        [],
        base=version - 1 if version else None,
        layout=builder.layout(base, hook=lambda document: document["tensors"].extend(entries)),
        fingerprints=False,
    )


def _added(words: int) -> Callable[[], Builder]:
    """A small version 0, and version 1 with one more tensor."""

    def chain() -> Builder:
        builder = Builder()
        builder.full(0, little())
        _zeros(builder, 1, {"z.large": ("U8", [words])}, little())
        return builder

    return chain


def _state_of(chain: Callable[[], Builder], version: int) -> dict[str, str]:
    manifest = chain().manifests[version]
    return {"fingerprint": manifest["fingerprint"], "layout": f"chain/layouts/{manifest['layout']}.json"}


_SIXTEEN = _added(LARGE)
read(
    "budget-that-is-enough",
    area=AREA,
    level="chain",
    title="A tensor of 2^24 words is added, with a budget of 256 MiB",
    requirements=["TD-LIM-005"],
    chain=_SIXTEEN,
    needs=["memory"],
    input={"memory": 256 * MIB},
    expect={"state": _state_of(_SIXTEEN, 1)},
)
for held, what in ((0, "a state held"), (None, "nothing held")):
    reject(
        f"budget-that-is-passed-with-{'a-state' if held == 0 else 'nothing'}-held",
        area=AREA,
        level="chain",
        title=f"A tensor of 2^24 words is added, with a budget of 4 MiB and {what}",
        requirements=["TD-LIM-002", "TD-LIM-003"],
        chain=_SIXTEEN,
        error="limit",
        twin="budget-that-is-enough",
        held=held,
        needs=["memory"],
        input={"memory": 4 * MIB},
        expect={"memory": 12 * MIB},
        verify=None,
    )


def _all_zero(tensors: Mapping[str, tuple[str, list[int]]]) -> Callable[[], Builder]:
    """A full version without packs."""

    def chain() -> Builder:
        builder = Builder()
        _zeros(builder, 0, tensors, {})
        builder.models[0] = {name: tensor(dtype, shape) for name, (dtype, shape) in tensors.items() if sum(shape) < MIB}
        return builder

    return chain


read(
    "words-that-no-pack-names",
    area=AREA,
    title="A full version of 1024 zero words, which no pack names",
    requirements=["TD-LIM-005", "TD-MAN-007"],
    chain=_all_zero({"t": ("U8", [1 << 10])}),
    held=None,
    to=0,
)


def _refused(slug: str, title: str, tensors: Mapping[str, tuple[str, list[int]]]) -> None:
    reject(
        slug,
        area=AREA,
        title=f"{title}: refused before any memory is taken",
        requirements=["TD-LIM-002", "TD-LIM-003"],
        chain=_all_zero(tensors),
        error="limit",
        twin="words-that-no-pack-names",
        held=None,
        to=0,
        verify=None,
        expect={"memory": 64 * MIB},
    )


_refused("words-2-40", "A full version of 2^40 zero words of 8 bits", {"t": ("U8", [1 << 40])})
_refused("words-2-48-of-64-bits", "A full version of 2^48 zero words of 64 bits", {"t": ("F64", [1 << 24, 1 << 24])})
_refused(
    "words-2-42-in-1024-tensors",
    "A full version of 1024 tensors of 2^32 zero words each, which together are 4 TiB",
    {f"t{number:04d}": ("U8", [1 << 32]) for number in range(1024)},
)

# -- indices beyond 2^32 -----------------------------------------------------------------------------------------------

HUGE = (1 << 32) + 10
"""Words of a tensor of bytes."""

Words = Mapping[int, int]
"""Words that are not zero, by index."""


def _sparse_chunk(slices: list[tuple[int, int]], old: Words, new: Words, *, step: bool) -> Chunk:
    """A chunk over ranges of the tensor `t`: with `step` the words that differ, else all words that are not zero."""
    place = [word for start, stop in slices for word in range(start, stop)]
    listed = [i for i, word in enumerate(place) if (old.get(word, 0) != new.get(word, 0) if step else word in new)]
    at = [place[i] for i in listed]
    before, after = [[words.get(word, 0) for word in at] for words in (old, new)]
    total = change_fingerprint("t", np.array(at), np.array(before, np.uint8), np.array(after, np.uint8))
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
        "fingerprint": f"{total:016x}",
    }
    return Chunk(entry, streams)


def _huge() -> Builder:
    """Words on both sides of index 2^32, and of the indices that are equal to them modulo 2^32."""
    top = 1 << 32
    first = {0: 1, 3: 2, 65536: 3, 1 << 31: 4, top - 1: 5, top: 6, top + 3: 7, top + 9: 8}
    second = first | {3: 4, top - 1: 250, top: 9, top + 2: 1, top + 3: 6}
    chunks = [
        _sparse_chunk([(0, 10), (65530, 65540), ((1 << 31) - 3, (1 << 31) + 3)], {}, first, step=False),
        _sparse_chunk([(top - 100, HUGE)], {}, first, step=False),
    ]
    steps = [
        _sparse_chunk([(top - 1000, top - 500), (top - 500, HUGE)], first, second, step=True),
        _sparse_chunk([(2, 5)], first, second, step=True),
    ]
    builder = Builder()
    entry = {"name": "t", "dtype": "U8", "shape": [HUGE]}
    layout = builder.layout({}, hook=lambda document: document.update(tensors=[entry]))
    total = 0
    for version, made in enumerate((chunks, steps)):
        total = total + sum(int(each.entry["fingerprint"], 16) for each in made) & MASK64
        data = total.to_bytes(8, "little")

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


for version, title in ((0, "A full version"), (1, "A full version and a delta")):
    read(
        f"indices-beyond-2-32-{'full' if version == 0 else 'delta'}",
        area=AREA,
        title=f"{title} of a tensor of 2^32 + 10 words, with words listed on both sides of 2^32",
        requirements=["TD-POS-002", "TD-FPR-006"],
        chain=_huge,
        held=None,
        to=version,
        flags=["huge"],
    )


def _wrapped(by: int) -> Callable[[], Builder]:
    """The five words of a tensor, listed in a slice that starts and stops `by` later."""

    def chain() -> Builder:
        first, second = dict.fromkeys(range(5), 1), dict.fromkeys(range(5), 2)
        made = [_sparse_chunk([(0, 5)], old, new, step=False) for old, new in (({}, first), (first, second))]
        made[1].entry["slices"] = [[0, by, by + 5]]
        builder = Builder()
        states = [{"t": tensor("U8", (5,), 1)}, {"t": tensor("U8", (5,), 2)}]
        for version, (state, each) in enumerate(zip(states, made, strict=True)):
            base = version - 1 if version else None
            builder.edge(version, state, [of_chunks([each], builder.layout(state))], base=base)
        return builder

    return chain


read(
    "slice-of-five-words",
    area=AREA,
    title="A slice of the five words of a tensor",
    requirements=["TD-CHK-008"],
    chain=_wrapped(0),
)
reject(
    "slice-of-five-words-beyond-2-32",
    area=AREA,
    title="A slice of the words [2^32, 2^32 + 5) of a tensor of five, which 32 bits take for all of them",
    requirements=["TD-CHK-008"],
    chain=_wrapped(1 << 32),
    error="malformed",
    twin="slice-of-five-words",
)
