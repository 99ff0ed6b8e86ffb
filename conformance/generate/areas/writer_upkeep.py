"""Shortcuts, collectors and signatures (SPEC.md sections 4.10, 11.4, 13 and 14)."""

from __future__ import annotations

from typing import Any

from generate.builder import Builder, of_chunks
from generate.codecs import delta_chunks
from generate.model import Model, Random, stepped, tensor, weights
from generate.pair import moved, one
from generate.scenes import line, move, walk
from generate.writing import ERRORS, Desk, base, large, share, write

CONFIG = b'{"model_type": "tiny"}'

# -- shortcuts ---------------------------------------------------------------------------------------------------------

SHORTCUT = "MAN-026 MAN-027 MAN-008 WRT-004"


def shortcuts(desk: Desk, states: list[Model], *edges: tuple[int | None, int], **members: Any) -> None:
    desk.line(*states)
    for start, to in edges:
        desk.shortcut(start, to, **members)


def there_and_back() -> list[Model]:
    """A word moves and returns, one moves twice, and one moves in the second step only."""
    first = one("BF16", [0x3F80, 0x3F81, 0x3F82, 0x3F83, 0] * 8)
    second = moved(first, {0: 0x3F90, 1: 0x3F82, 4: 0x8000})
    return [first, second, moved(second, {0: 0x3F80, 1: 0x3F84, 2: 0, 4: 0})]


def retyped() -> list[Model]:
    """Layouts that change between the ends of a shortcut, and come back."""
    first: Model = {"a": tensor("U8", (4,), [1, 2, 3, 4]), "b": tensor("I16", (2,), [5, 6])}
    second: Model = {"a": tensor("U8", (2, 2), [1, 2, 3, 4]), "c": tensor("I16", (2,), [5, 6])}
    return [first, second, {**first, "b": tensor("I16", (2,), [5, 7])}, second]


write(
    "shortcut-over-two-versions",
    "A shortcut leads over two versions",
    SHORTCUT,
    lambda desk: shortcuts(desk, walk(4, 51), (0, 2), (1, 3)),
    needs=("shortcut",),
)
write(
    "shortcut-from-nothing",
    "A shortcut leads from nothing to the newest version, and one to an older version",
    SHORTCUT,
    lambda desk: shortcuts(desk, walk(3, 52), (None, 2), (None, 1)),
    needs=("shortcut",),
)
write(
    "shortcut-of-a-delta-s-own-edge",
    "A shortcut with a tag repeats the edge of a version's own manifest",
    f"{SHORTCUT} OBJ-002",
    lambda desk: shortcuts(desk, walk(2, 53), (0, 1), tag="again"),
    needs=("shortcut",),
)
write(
    "shortcut-over-words-that-return",
    "Of the words that changed between the ends of a shortcut some are again what they were",
    f"{SHORTCUT} WRT-007 VAL-004",
    lambda desk: shortcuts(desk, there_and_back(), (0, 2)),
    needs=("shortcut",),
)
write(
    "shortcut-between-equal-states",
    "A shortcut leads between two versions of one state",
    f"{SHORTCUT} WRT-007",
    lambda desk: shortcuts(desk, [base(), share(0.05), base()], (0, 2)),
    needs=("shortcut",),
)
write(
    "shortcut-over-other-layouts",
    "Shortcuts between layouts that differ, and between equal ones with another between them",
    f"{SHORTCUT} CHK-018",
    lambda desk: shortcuts(desk, retyped(), (0, 2), (1, 3), (0, 3), (None, 3)),
    needs=("shortcut",),
)
write(
    "shortcut-in-exponent-order",
    "A shortcut in order exponent, beside one of the same edge in order natural",
    f"{SHORTCUT} VER-004",
    lambda desk: [
        desk.line(*(weights_after(step) for step in range(3))),
        desk.shortcut(0, 2, order="exponent", tag="exp"),
        desk.shortcut(0, 2, tag="nat"),
    ],
    needs=("shortcut",),
    level="writer-exponent",
)


def weights_after(step: int) -> Model:
    state: Model = {"w": weights(Random("weights"), (20, 30))}
    for number in range(step):
        state = stepped(Random(f"weights/{number}"), state, 0.2)
    return state


write(
    "shortcut-of-another-writer-s-chain",
    "Shortcuts are added to a chain of another writer",
    SHORTCUT,
    lambda desk: [desk.shortcut(0, 3), desk.shortcut(None, 3, tag="full")],
    chain=lambda: line(walk(4, 54)),
    needs=("shortcut",),
)
write(
    "shortcut-again",
    "A shortcut is asked for twice: the first one stays as it is",
    "WRT-005 OBJ-003 MAN-028",
    lambda desk: shortcuts(desk, walk(3, 55), (0, 2), (0, 2)),
    needs=("shortcut",),
)
for slug, title, edge, errors in (
    ("to-no-version", "A shortcut is to lead to a version that does not exist", (0, 7), ["missing"]),
    ("from-no-version", "A shortcut is to lead from a version that does not exist", (1, 4), ["missing"]),
    ("backwards", "A shortcut is to lead to an older version", (2, 0), list(ERRORS)),
    ("to-itself", "A shortcut is to lead from a version to itself", (2, 2), list(ERRORS)),
):
    write(
        f"shortcut-{slug}",
        title,
        "MAN-026 ERR-004" if "no-version" in slug else "WRT-004 ERR-004",
        lambda desk, edge=edge, errors=errors: [
            desk.publish(walk(3, 56)[0], 0),
            desk.publish(walk(3, 56)[1], 2),
            desk.publish(walk(3, 56)[2], 4),
            desk.shortcut(*edge, error=errors),
        ],
        twin="shortcut-over-two-versions",
        needs=("shortcut",),
    )


def other_layout_text() -> Builder:
    """The layout of the newest version is written with white space."""
    states = walk(3, 58)
    builder = line(states[:2])
    layout = builder.layout(states[2], text=lambda data: data.replace(b",", b" , "))
    move(builder, 2, states[2], 1, layout=layout)
    return builder


write(
    "shortcut-after-another-layout-text",
    "A shortcut leads to a version whose layout another writer has written with other bytes",
    SHORTCUT,
    lambda desk: [desk.shortcut(0, 2), desk.shortcut(None, 2)],
    chain=other_layout_text,
    needs=("shortcut",),
)


def disagreeing() -> Builder:
    """A shortcut of another writer, between the same versions and with another fingerprint."""
    builder = line(walk(3, 57))
    states = walk(4, 57)
    chunks = delta_chunks(states[0], states[3])
    builder.edge(2, states[3], [of_chunks(chunks, builder.layout(states[3]))], base=0, shortcut="")
    return builder


write(
    "shortcut-where-another-stands",
    "A shortcut of another fingerprint stands under the name",
    "WRT-006 OBJ-003 MAN-028",
    lambda desk: desk.shortcut(0, 2, error="conflict"),
    chain=disagreeing,
    twin="shortcut-of-another-writer-s-chain",
    needs=("shortcut",),
)
write(
    "shortcut-killed",
    "The writer is killed while it makes a shortcut: it is there as a whole or not at all",
    "MAN-026 OBJ-012 STO-005",
    lambda desk: [desk.line(large(0), large(1), large(2)), desk.shortcut(0, 2, kill=6)],
    needs=("shortcut",),
    flags=("slow",),
)

# -- retention ---------------------------------------------------------------------------------------------------------

COLLECT = "RET-001 RET-004 OBJ-003"


def four_versions(desk: Desk) -> Desk:
    for version, state in enumerate(walk(4, 61)):
        files = {"config.json": CONFIG} if version % 2 else {"config.json": b"%d" % version}
        desk.publish(state, version, files=files, full=version == 2)
    return desk


write(
    "collect-all-but-the-newest",
    "The newest version is kept, and with it what its delta starts from",
    COLLECT,
    lambda desk: [four_versions(desk), desk.collect([3])],
    needs=("collect",),
)
write(
    "collect-around-one-in-the-middle",
    "A version in the middle of the chain is kept, and a later one",
    COLLECT,
    lambda desk: [four_versions(desk), desk.collect([1, 3])],
    needs=("collect",),
)
write(
    "collect-nothing",
    "All versions are kept",
    COLLECT,
    lambda desk: [four_versions(desk), desk.collect([0, 1, 2, 3])],
    needs=("collect",),
)
write(
    "collect-within-the-grace-period",
    "All objects are young: no pack, layout, fingerprints object or file is deleted yet",
    "RET-003 RET-001",
    lambda desk: [four_versions(desk), desk.collect([3], grace=86400)],
    needs=("collect",),
)
write(
    "collect-another-writer-s-chain",
    "A chain of another writer is collected, of which the newest version is reached over a shortcut as well",
    COLLECT,
    lambda desk: desk.collect([3]),
    chain=lambda: squashed(),
    needs=("collect",),
)


def squashed() -> Builder:
    builder = line(walk(4, 62))
    builder.full(3, builder.models[3], shortcut="squash")
    builder.delta(3, builder.models[3], 1, shortcut="")
    builder.put("notes.txt", b"mine\n")
    return builder


write(
    "collect-and-go-on",
    "After a collection the chain goes on from the newest version",
    f"{COLLECT} OBJ-014 RET-005 WRT-001",
    lambda desk: [
        four_versions(desk),
        desk.collect([3]),
        desk.publish(walk(5, 61)[4], 4, files={"config.json": b"0"}),
        desk.publish(walk(1, 61)[0], 5),
    ],
    needs=("collect",),
)
write(
    "collect-the-newest-and-go-on",
    "The newest versions are not kept; their numbers are not given again",
    "OBJ-014 RET-001",
    lambda desk: [four_versions(desk), desk.collect([1]), desk.restart(), desk.publish(walk(5, 61)[4])],
    needs=("collect",),
)
write(
    "collect-after-a-shortcut",
    "A full shortcut to the newest version is made, and everything before it collected",
    COLLECT,
    lambda desk: [desk.line(*walk(4, 63)), desk.shortcut(None, 3), desk.collect([3])],
    needs=("collect", "shortcut"),
)
write(
    "collect-killed",
    "The collector is killed: manifests and shortcuts of dropped versions go before what they name",
    "RET-002 RET-001 RET-004",
    lambda desk: [
        *(desk.publish(large(step), step, full=step == 3) for step in range(5)),
        desk.collect([4], kill=8),
    ],
    needs=("collect",),
    flags=("slow",),
)

# -- signatures --------------------------------------------------------------------------------------------------------

#: The first secret key of RFC 8032, section 7.1.
KEY = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"

write(
    "sign-versions",
    "A chain is signed from its first version on",
    "SIG-009 WRT-004 VER-005",
    lambda desk: desk.line(*walk(3, 71), key=KEY),
    level="signed",
    needs=("sign",),
)
write(
    "sign-the-same-again",
    "A version is published again, and its signature still fits",
    "SIG-009 WRT-005",
    lambda desk: [
        desk.line(*walk(2, 72), key=KEY),
        desk.restart(),
        desk.publish(walk(2, 72)[1], 1, key=KEY),
    ],
    level="signed",
    needs=("sign",),
)
write(
    "sign-killed",
    "The writer is killed while it publishes and signs: no signature stands there without its object",
    "SIG-009 OBJ-012 WRT-005",
    lambda desk: [
        desk.publish(large(0), 0, key=KEY),
        desk.publish(large(1), 1, key=KEY, kill=8),
    ],
    level="signed",
    needs=("sign",),
    flags=("slow",),
)
