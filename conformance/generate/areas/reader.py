"""What a reader checks before it writes a word, and what it holds after a fault (SPEC.md section 9.1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from generate.builder import Builder, of_chunks
from generate.cases import read, reject
from generate.codecs import Chunk, chunk
from generate.fingerprint import fingerprint
from generate.frames import BLOCK, RLE, frame
from generate.model import Model, Tensor, tensor
from generate.scenes import line, little, move, walk

AREA = "reader"

# -- the state held is not the base ------------------------------------------------------------------------------------


def _with(model: Model, name: str, at: int, word: int) -> Model:
    """A state with one word set."""
    words = model[name].words.copy()
    assert words[at] != word
    words[at] = word
    return model | {name: Tensor(model[name].dtype, model[name].shape, words)}


def _probed() -> Model:
    """Words whose neighbours programs take for them: zeros of both signs, a NaN, an infinity."""
    return {
        "a": tensor("F32", (6,), [0, 0x80000000, 0x7FC00000, 0x7F800000, 1, 0x3F800000]),
        "b": tensor("I32", (2, 3), range(10, 16)),
        "z": tensor("U8", (4,)),
    }


def _probe() -> Builder:
    """A delta that lists words 4 and 5 of `a` and word 1 of `b`."""
    model = _probed()
    after = _with(_with(_with(model, "a", 4, 2), "a", 5, 0x3F800001), "b", 1, 100)
    return line([model, after])


read(
    "held-is-the-base",
    area=AREA,
    title="The state held is the base",
    requirements=["TD-RDR-003", "TD-RDR-004"],
    chain=_probe,
)
read(
    "held-without-a-version",
    area=AREA,
    title="The state held is the base, and no version is remembered for it",
    requirements=["TD-RDR-005"],
    chain=_probe,
    remembered=None,
)
read(
    "held-under-another-version",
    area=AREA,
    title="The state held is the base, and another version is remembered for it",
    requirements=["TD-RDR-005"],
    chain=_probe,
    remembered=999,
)


def _wrong(slug: str, title: str, requirement: str, before: Callable[[Model], Model]) -> None:
    """The state held, remembered as version 0, is another than that of version 0."""
    reject(
        slug,
        area=AREA,
        title=title,
        requirements=[requirement],
        chain=_probe,
        error="wrong-base",
        twin="held-is-the-base",
        before=before(_probed()),
        verify=None,
    )


_wrong(
    "held-other-listed-word",
    "A word held that the delta lists differs from the base",
    "TD-RDR-003",
    lambda model: _with(model, "b", 1, 12),
)
_wrong(
    "held-other-unlisted-word",
    "A word held that the delta does not list differs from the base",
    "TD-RDR-003",
    lambda model: _with(model, "b", 5, 16),
)
_wrong(
    "held-other-word-in-an-untouched-tensor",
    "A word of a tensor that the delta does not touch differs from the base",
    "TD-RDR-003",
    lambda model: _with(model, "z", 3, 1),
)
_wrong(
    "held-other-zero",
    "A zero is held with the other sign than in the base",
    "TD-RDR-003",
    lambda model: _with(model, "a", 1, 0),
)
_wrong(
    "held-other-nan",
    "A NaN is held with another payload than in the base",
    "TD-RDR-003",
    lambda model: _with(model, "a", 2, 0x7FC00001),
)
_wrong(
    "held-two-words-swapped",
    "Two words are held in each other's place",
    "TD-RDR-003",
    lambda model: _with(_with(model, "b", 4, 15), "b", 5, 14),
)
_wrong(
    "held-other-dtype",
    "A tensor is held with the words of the base under another dtype, which no fingerprint shows",
    "TD-RDR-004",
    lambda model: model | {"b": Tensor("U32", (2, 3), model["b"].words)},
)
_wrong(
    "held-other-dtype-of-other-width",
    "Zero words are held under a dtype of another width, which no fingerprint shows",
    "TD-RDR-004",
    lambda model: model | {"z": tensor("U16", (4,))},
)
_wrong(
    "held-other-shape",
    "A tensor is held with the words of the base in another shape, which no fingerprint shows",
    "TD-RDR-004",
    lambda model: model | {"b": Tensor("I32", (3, 2), model["b"].words)},
)
_wrong(
    "held-one-tensor-more",
    "A tensor of zero words is held that the base lacks, which no fingerprint shows",
    "TD-RDR-004",
    lambda model: model | {"zz": tensor("U8", (4,))},
)
_wrong(
    "held-one-tensor-less",
    "A tensor of zero words is not held, which no fingerprint shows",
    "TD-RDR-004",
    lambda model: {name: each for name, each in model.items() if name != "z"},
)
_wrong(
    "held-other-name",
    "A tensor of zero words is held under another name, which no fingerprint shows",
    "TD-RDR-004",
    lambda model: {("y" if name == "z" else name): each for name, each in model.items()},
)


def _only_from_1() -> Builder:
    """0, 1 and 2, of which only the edge from 1 is left: a missed delta cannot be made good."""
    builder = line(walk(3))
    builder.remove("manifests/000000000001.json")
    builder.remove("manifests/000000000000.json")
    return builder


reject(
    "held-is-a-version-before-the-base",
    area=AREA,
    level="chain",
    title="The state of version 0 is remembered as version 1, from which the only edge to version 2 starts",
    requirements=["TD-RDR-003"],
    chain=_only_from_1,
    error="wrong-base",
    twin="held-in-a-chain-whose-start-is-gone",
    held=0,
    remembered=1,
    to=2,
    verify=None,
)


read(
    "held-in-a-chain-whose-start-is-gone",
    area=AREA,
    level="chain",
    title="The version held has lost its manifest, and the only edge to version 2 starts from it",
    requirements=["TD-RDR-003"],
    chain=_only_from_1,
    held=1,
    to=2,
    verify=None,
)

# -- nothing is written before everything is checked -------------------------------------------------------------------


def _spoiled(at: int, count: int = 3, **how: Any) -> Callable[[], Builder]:
    """A chain of deltas, of which one is spoiled."""

    def chain() -> Builder:
        states = walk(count)
        builder = Builder()
        for version, state in enumerate(states):
            options = how if version == at else {}
            move(builder, version, state, version - 1 if version else None, **options)
        return builder

    return chain


def _last_sum(chunks: list[Chunk]) -> None:
    """The fingerprint of the last chunk is wrong."""
    chunks[-1].entry["fingerprint"] = "0123456789abcdef"


_THREE = "three-versions"
read(
    _THREE,
    area=AREA,
    title="A full version and two deltas, read from nothing",
    requirements=["TD-RDR-001"],
    chain=_spoiled(9),
    held=None,
    to=2,
)
read(
    "three-versions-from-the-first",
    area=AREA,
    title="Two deltas from the version held",
    requirements=["TD-RDR-001"],
    chain=_spoiled(9),
    held=0,
    to=2,
)


def _left(
    slug: str,
    title: str,
    error: str,
    chain: Callable[[], Builder],
    *requirements: str,
    held: int | None = 0,
    to: int = 2,
) -> None:
    reject(
        slug,
        area=AREA,
        title=title,
        requirements=requirements or ["TD-RDR-001", "TD-RDR-002"],
        chain=chain,
        error=error,
        twin=_THREE if held is None else "three-versions-from-the-first" if to == 2 else "three-versions-to-the-second",
        held=held,
        to=to,
    )


_left(
    "fault-in-the-second-edge",
    "The last chunk of the second of two edges has a wrong fingerprint: nothing of the first edge is written",
    "integrity",
    _spoiled(2, spoil=_last_sum),
)
_left(
    "fault-in-the-state-of-the-second-edge",
    "The second of two edges leads to another state than its manifest says: nothing of the first edge is written",
    "integrity",
    _spoiled(2, spoil=lambda chunks: chunks.pop()),
    "TD-RDR-002",
    "TD-RDR-007",
)
_left(
    "fault-in-an-edge-from-nothing",
    "The second of three edges fails with nothing held: nothing is held afterwards",
    "integrity",
    _spoiled(1, spoil=_last_sum),
    "TD-RDR-001",
    held=None,
)


def _newer_full(spoil: Callable[[list[Chunk]], Any] | None = None) -> Builder:
    """Version 1 is full and has other tensors than 0."""
    builder = Builder()
    builder.full(0, little())
    after = {"b.bias": little(6)["b.bias"], "x": tensor("I16", (3,), [1, 2, 3])}
    move(builder, 1, after, None, spoil=spoil)
    return builder


read(
    "full-version-over-the-one-held",
    area=AREA,
    level="chain",
    title="A full version of other tensors takes the place of the state held",
    requirements=["TD-FIT-003", "TD-RDR-009"],
    chain=_newer_full,
)
reject(
    "fault-in-a-full-version-over-the-one-held",
    area=AREA,
    level="chain",
    title="A full version fails, and the state held before stays, though the route does not start from it",
    requirements=["TD-RDR-001", "TD-RDR-009"],
    chain=lambda: _newer_full(_last_sum),
    error="integrity",
    twin="full-version-over-the-one-held",
)
read(
    "three-versions-to-the-second",
    area=AREA,
    title="A delta from the version held, and another version after it",
    requirements=["TD-RDR-001"],
    chain=_spoiled(9),
    held=0,
)
_left(
    "state-without-a-chunk",
    "A chunk that the delta needs is not there, so that the new state has another fingerprint than the manifest's",
    "integrity",
    _spoiled(1, spoil=lambda chunks: chunks.pop(1)),
    "TD-RDR-007",
    to=1,
)
_left(
    "manifest-of-another-fingerprint",
    "The manifest's fingerprint is less by one than that of the new state",
    "integrity",
    _spoiled(1, fingerprint=f"{int(fingerprint(walk(2)[1]), 16) - 1:016x}"),
    "TD-RDR-007",
    to=1,
)

# -- a full version is checked like a delta ----------------------------------------------------------------------------


def _full(
    spoil: Callable[[list[Chunk]], Any] | None = None, hooks: dict[str, Any] | None = None, **how: Any
) -> Callable[[], Builder]:
    def chain() -> Builder:
        builder = Builder()
        move(builder, 0, little(), None, spoil=spoil, hooks=hooks, **how)
        return builder

    return chain


read(
    "full-version",
    area=AREA,
    title="A full version, with nothing held",
    requirements=["TD-RDR-009"],
    chain=_full(),
    held=None,
    to=0,
)


def _full_fault(slug: str, title: str, chain: Callable[[], Builder], error: str = "integrity") -> None:
    reject(
        slug,
        area=AREA,
        title=title,
        requirements=["TD-RDR-009"],
        chain=chain,
        error=error,
        twin="full-version",
        held=None,
        to=0,
    )


def _other_value(chunks: list[Chunk]) -> None:
    """One byte of a plane is another; the chunk's fingerprint tells."""
    stream = chunks[0].streams["values.0"]
    chunks[0].streams["values.0"] = bytes([stream[0] ^ 1]) + stream[1:]


_full_fault(
    "full-with-another-word",
    "A word of a full version is not the one that the chunk's fingerprint sums",
    _full(_other_value),
)
_full_fault(
    "full-without-a-tensor",
    "A full version lists no word of a tensor that is not all 0",
    _full(lambda chunks: chunks.pop()),
)
_full_fault(
    "full-of-another-fingerprint",
    "The manifest of a full version has the fingerprint 0",
    _full(fingerprint="0" * 16),
)
_full_fault(
    "full-out-of-bounds",
    "A slice of a full version ends past the end of its tensor",
    _full(hooks={"table": lambda table: table["chunks"][0]["slices"][0].__setitem__(2, 25)}),
    "malformed",
)

# -- bounds before streams ---------------------------------------------------------------------------------------------

LYING = 1 << 26
"""Words of a slice of a tensor that has five."""

CHECKSUM = bytes.fromhex("a70f257c")
"""The low 32 bits of XXH64 of 2^26 zero bytes."""


def _zeros() -> bytes:
    """A frame of 2^26 zero bytes, in 2 KB."""
    return frame(b"", size=LYING, blocks=[(RLE, b"\0", BLOCK)] * (LYING // BLOCK), checksum=CHECKSUM)


def _small_and_large(lying: bool) -> Callable[[], Builder]:
    """A tensor of five bytes, written over by a chunk of bytes that are all 7; with `lying` of 2^26 words."""

    def chain() -> Builder:
        builder = Builder()
        before = {"t": tensor("U8", (5,), [1, 2, 3, 4, 5])}
        after = {"t": tensor("U8", (5,), 7)}
        builder.full(0, before)
        made = chunk(before, after, [("t", 0, 5)], positions="all", values="replace", compression="zstd")
        if lying:
            made.entry["slices"], made.entry["changed"] = [[0, 0, LYING]], LYING
            made.streams["values.0"] = _zeros()
        builder.edge(1, after, [of_chunks([made], builder.layout(after))], base=0)
        return builder

    return chain


read(
    "bounds-within",
    area=AREA,
    title="A chunk over all words of a tensor, compressed",
    requirements=["TD-RDR-008"],
    chain=_small_and_large(False),
)
reject(
    "bounds-before-streams",
    area=AREA,
    title="A slice of 2^26 words of a tensor that has 5, with a stream that would decode to all of them",
    requirements=["TD-RDR-008"],
    chain=_small_and_large(True),
    error="malformed",
    twin="bounds-within",
    expect={"memory": 24 << 20},
)
