"""Shortcuts, collectors and signatures (SPEC.md sections 4.10, 11.4, 13 and 14)."""

from __future__ import annotations

from functools import partial
from typing import Any

from generate.builder import Builder, manifest_name
from generate.graph import graph
from generate.model import Model, Random, stepped, tensor, weights
from generate.pair import moved, one
from generate.scenes import line, move, walk
from generate.signing import SECRET, signed
from generate.writing import ERRORS, Desk, Script, base, large, share, write

CONFIG = b'{"model_type": "tiny"}'

SHORTCUT = "MAN-026 MAN-027 MAN-008 WRT-004"


def shortcut(slug: str, title: str, rules: str, script: Script, **how: Any) -> None:
    write(f"shortcut-{slug}", title, rules, script, needs=("shortcut",), **how)


def edges(states: list[Model], *asked: tuple[int | None, int], **members: Any) -> Script:
    """These states, and a shortcut for each of these edges."""
    return lambda desk: [desk.line(*states), *(desk.shortcut(start, to, **members) for start, to in asked)]


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


def three_weights() -> list[Model]:
    states: list[Model] = [{"w": weights(Random("weights"), (20, 30))}]
    for number in range(2):
        states.append(stepped(Random(f"weights/{number}"), states[-1], 0.2))
    return states


def other_layout_text() -> Builder:
    """The layout of the newest version is written with white space."""
    states = walk(3, 58)
    builder = line(states[:2])
    layout = builder.layout(states[2], text=lambda data: data.replace(b",", b" , "))
    move(builder, 2, states[2], 1, layout=layout)
    return builder


def refused(slug: str, title: str, rules: str, start: int, to: int, *errors: str) -> None:
    """A shortcut between versions of a chain that has 0, 2 and 4."""

    def script(desk: Desk) -> None:
        for version, state in zip((0, 2, 4), walk(3, 56), strict=True):
            desk.publish(state, version)
        desk.shortcut(start, to, error=errors or ERRORS)

    shortcut(slug, title, rules, script, twin="shortcut-over-two-versions")


COLLECT = "RET-001 RET-011 OBJ-003"


def collect(
    slug: str, title: str, rules: str, script: Script, needs: tuple[str, ...] = ("collect",), **how: Any
) -> None:
    write(f"collect-{slug}", title, rules, script, needs=needs, **how)


def four_versions(desk: Desk) -> Desk:
    for version, state in enumerate(walk(4, 61)):
        files = {"config.json": CONFIG} if version % 2 else {"config.json": b"%d" % version}
        desk.publish(state, version, files=files, full=version == 2)
    return desk


def squashed() -> Builder:
    builder = graph("0 -> 1 -> 2 -> 3, => 3.squash, 1 => 3", seed=62)
    builder.put("notes.txt", b"mine\n")
    return builder


KEY = SECRET.hex()


def with_an_unsigned_newest() -> Builder:
    """A signed chain whose newest version is not signed."""
    return signed(line(walk(3, 73)), manifest_name(2))


# fmt: off
# -- shortcuts ---------------------------------------------------------------------------------------------------------
shortcut("over-two-versions", "A shortcut leads over two versions", SHORTCUT, edges(walk(4, 51), (0, 2), (1, 3)))
shortcut("from-nothing", "A shortcut leads from nothing to the newest version, and one to an older version",
    SHORTCUT, edges(walk(3, 52), (None, 2), (None, 1)))
shortcut("of-a-delta-s-own-edge", "A shortcut with a tag repeats the edge of a version's own manifest",
    f"{SHORTCUT} OBJ-002", edges(walk(2, 53), (0, 1), tag="again"))
shortcut("over-words-that-return",
    "Of the words that changed between the ends of a shortcut some are again what they were",
    f"{SHORTCUT} VAL-004", edges(there_and_back(), (0, 2)))
shortcut("between-equal-states", "A shortcut leads between two versions of one state",
    SHORTCUT, edges([base(), share(0.05), base()], (0, 2)))
shortcut("over-other-layouts",
    "Shortcuts between layouts that differ, and between equal ones with another between them",
    f"{SHORTCUT} CHK-018", edges(retyped(), (0, 2), (1, 3), (0, 3), (None, 3)))
shortcut("in-exponent-order", "A shortcut in order exponent, beside one of the same edge in order natural",
    f"{SHORTCUT} VER-004", lambda desk: desk.line(*three_weights())
    .shortcut(0, 2, order="exponent", tag="exp").shortcut(0, 2, tag="nat"), level="writer-exponent")
shortcut("of-another-writer-s-chain", "Shortcuts are added to a chain of another writer",
    SHORTCUT, lambda desk: desk.shortcut(0, 3).shortcut(None, 3, tag="full"),
    chain=partial(graph, "0 -> 1 -> 2 -> 3", seed=54))
shortcut("again", "A shortcut is asked for twice: the first one stays as it is",
    "WRT-005 OBJ-003 MAN-028", edges(walk(3, 55), (0, 2), (0, 2)))
refused("to-no-version", "A shortcut is to lead to a version that does not exist", "MAN-026 ERR-004", 0, 7, "missing")
refused("from-no-version", "A shortcut is to lead from a version that does not exist",
    "MAN-026 ERR-004", 1, 4, "missing")
refused("backwards", "A shortcut is to lead to an older version", "WRT-004 ERR-004", 2, 0)
refused("to-itself", "A shortcut is to lead from a version to itself", "WRT-004 ERR-004", 2, 2)
shortcut("after-another-layout-text",
    "A shortcut leads to a version whose layout another writer has written with other bytes",
    SHORTCUT, lambda desk: desk.shortcut(0, 2).shortcut(None, 2), chain=other_layout_text)
shortcut("where-another-stands", "A shortcut of another fingerprint stands under the name",
    "WRT-006 OBJ-003 MAN-028", lambda desk: desk.shortcut(0, 2, error="conflict"),
    chain=partial(graph, "0 -> 1 -> 2, 0 => 2", seed=57, others={2: walk(4, 57)[3]}),
    twin="shortcut-of-another-writer-s-chain")
shortcut("killed", "The writer is killed while it makes a shortcut: it is there as a whole or not at all",
    "MAN-026 OBJ-012 STO-005", lambda desk: desk.line(large(0), large(1), large(2)).shortcut(0, 2, kill=6),
    flags=("slow",))

# -- retention ---------------------------------------------------------------------------------------------------------
collect("all-but-the-newest", "The newest version is kept, and with it what its delta starts from",
    COLLECT, lambda desk: four_versions(desk).collect([3]))
collect("around-one-in-the-middle", "A version in the middle of the chain is kept, and a later one",
    COLLECT, lambda desk: four_versions(desk).collect([1, 3]))
collect("nothing", "All versions are kept", COLLECT, lambda desk: four_versions(desk).collect([0, 1, 2, 3]))
collect("within-the-grace-period",
    "All objects are young: what is dropped has a copy, and no pack, fingerprints object or file is deleted yet",
    "RET-011 RET-001", lambda desk: four_versions(desk).collect([3], grace=86400))
collect("twice-within-the-grace-period", "What young copies of dropped manifests name stays as well",
    "RET-011 RET-001", lambda desk: four_versions(desk).collect([3], grace=86400).collect([3], grace=86400))
collect("another-writer-s-chain",
    "A chain of another writer is collected, of which the newest version is reached over a shortcut as well",
    COLLECT, lambda desk: desk.collect([3]), chain=squashed)
collect("and-go-on", "After a collection the chain goes on from the newest version",
    f"{COLLECT} OBJ-014 RET-012 RET-015 WRT-001", lambda desk: four_versions(desk).collect([3])
    .publish(walk(5, 61)[4], 4, files={"config.json": b"0"}).publish(walk(1, 61)[0], 5))
collect("the-newest-and-go-on", "The newest version is not asked for, and stays; the next number is greater",
    "OBJ-014 RET-001 RET-016", lambda desk: four_versions(desk).collect([1]).restart().publish(walk(5, 61)[4]))
collect("after-a-shortcut", "A full shortcut to the newest version is made, and everything before it collected",
    COLLECT, lambda desk: desk.line(*walk(4, 63)).shortcut(None, 3).collect([3]), needs=("collect", "shortcut"))
collect("killed", "The collector is killed: manifests and shortcuts of dropped versions go before what they name",
    "RET-011 RET-001",
    lambda desk: [*(desk.publish(large(step), step, full=step == 3) for step in range(5)), desk.collect([4], kill=8)],
    flags=("slow",))
collect("killed-within-the-grace-period", "The collector is killed while it drops versions: each has a copy first",
    "RET-011 RET-001",
    lambda desk: [*(desk.publish(large(step), step, full=step == 3) for step in range(5)),
                  desk.collect([4], kill=8, grace=86400)],
    flags=("slow",))
collect("a-signed-chain", "Signatures stay as long as what they sign, or a copy of it",
    "RET-011 RET-001", lambda desk: desk.line(*walk(4, 64), key=KEY).publish(walk(5, 64)[4], 4, key=KEY, full=True)
    .collect([4], grace=86400).collect([4], grace=0), level="signed", needs=("collect", "sign"))

# -- signatures --------------------------------------------------------------------------------------------------------
write("sign-versions", "A chain is signed from its first version on",
    "SIG-010 WRT-004 VER-005", lambda desk: desk.line(*walk(3, 71), key=KEY), level="signed", needs=("sign",))
write("sign-the-same-again", "A version is published again, and its signature still fits", "SIG-010 WRT-005",
    lambda desk: desk.line(*walk(2, 72), key=KEY).restart().publish(walk(2, 72)[1], 1, key=KEY),
    level="signed", needs=("sign",))
write("sign-killed", "The writer is killed while it publishes and signs: no manifest stands without its signature",
    "SIG-010 OBJ-012 WRT-005",
    lambda desk: desk.publish(large(0), 0, key=KEY).publish(large(1), 1, key=KEY, kill=8),
    level="signed", needs=("sign",), flags=("slow",))
write("sign-past-an-unsigned-version",
    "The newest version is not signed: the writer goes on with a greater number, from the newest signed version",
    "SIG-013 OBJ-014", lambda desk: desk.publish(walk(4, 73)[3], key=KEY).publish(walk(4, 73)[3], 9, key=KEY),
    chain=with_an_unsigned_newest, level="signed", needs=("sign",))
write("sign-what-was-there-unsigned", "A version that is not signed stands under the number, with the same contents",
    "SIG-013 WRT-006 OBJ-003", lambda desk: desk.publish(walk(3, 73)[2], 2, key=KEY, error=("untrusted", "conflict")),
    chain=with_an_unsigned_newest, level="signed", needs=("sign",), twin="sign-past-an-unsigned-version")
