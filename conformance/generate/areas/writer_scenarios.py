"""Writers that try again, are killed or run at once (SPEC.md sections 11 and 12)."""

from __future__ import annotations

from functools import partial

from generate.builder import Builder
from generate.model import Model, tensor
from generate.scenes import line, walk
from generate.writing import Desk, large, write

CONFIG = b'{"model_type": "tiny"}'
AGAIN = "WRT-005 ERR-004"
CONFLICT = "WRT-006 OBJ-003 STO-001"

# -- a manifest that is there already ----------------------------------------------------------------------------------


def again(desk: Desk, restart: bool) -> None:
    """The answer to a commit was lost; the writer tries again, and goes on."""
    states = walk(3, 31)
    desk.publish(states[0], 0, files={"config.json": CONFIG})
    desk.publish(states[1], 1, files={"config.json": CONFIG})
    if restart:
        desk.restart()
    desk.publish(states[1], 1, files={"config.json": CONFIG})
    desk.publish(states[2], 2)


def first_again(desk: Desk) -> None:
    """The very first version is published twice."""
    states = walk(2, 32)
    desk.publish(states[0], 4)
    desk.restart()
    desk.publish(states[0], 4)
    desk.publish(states[1], 5)


def again_with_other_notes(desk: Desk) -> None:
    """What may differ: annotations, and the wish for values."""
    states = walk(3, 33)
    desk.publish(states[0], 0)
    desk.publish(states[1], 1, annotations={"try": "1"}, values="step")
    desk.publish(states[1], 1, annotations={"try": "2"}, values="replace")
    desk.publish(states[2], 2)


write(
    "write-the-same-again", "The same state is published again under its number", AGAIN, partial(again, restart=False)
)
write(
    "write-the-same-again-after-a-restart",
    "The writer is started anew, and publishes the same state under the same number again",
    AGAIN,
    partial(again, restart=True),
)
write("write-the-first-version-again", "The first version of a chain is published again", AGAIN, first_again)
write(
    "write-the-same-again-with-other-annotations",
    "The same state is published again with other annotations: the version stays as it was",
    f"{AGAIN} OBJ-003",
    again_with_other_notes,
)


def taken(desk: Desk, restart: bool) -> None:
    """Another writer's version stands under the number; the next one goes on from it."""
    states = walk(4, 34)
    if restart:
        desk.restart()
    desk.publish(states[2], 1, error="conflict")
    desk.publish(states[3], 2)


def taken_while_it_lives(desk: Desk) -> None:
    """A second writer is faster. What the first one wanted to publish is no base of what it publishes then."""
    states = walk(5, 35)
    desk.publish(states[1], 1)
    other = Builder()
    other.full(2, states[2])
    desk.put({name: data for name, data in other.objects.items() if name != "chain.json"})
    desk.publish(states[3], 2, error="conflict")
    desk.publish(states[4], 3)


def taken_with_other_files(desk: Desk) -> None:
    states = walk(3, 36)
    desk.publish(states[0], 0)
    desk.publish(states[1], 1, files={"config.json": CONFIG})
    desk.publish(states[1], 1, files={"config.json": b"{}"}, error="conflict")
    desk.publish(states[1], 1, error="conflict")
    desk.publish(states[2], 2)


def taken_with_another_base(desk: Desk) -> None:
    states = walk(3, 37)
    desk.publish(states[0], 0)
    desk.publish(states[1], 1)
    desk.publish(states[1], 1, full=True, error="conflict")
    desk.publish(states[2], 2)


def taken_with_another_layout(desk: Desk) -> None:
    """The two states have the same fingerprint: zero words add nothing to it."""
    first, second = walk(2, 38)
    desk.publish(first, 0)
    desk.publish(second, 1)
    desk.publish({**second, "z": tensor("F32", (4,))}, 1, error="conflict")
    desk.publish({**second, "z": tensor("F32", (4,))}, 2)


write(
    "write-over-another-state",
    "Another writer's version stands under the number, with another state",
    CONFLICT,
    partial(taken, restart=False),
    chain=lambda: line(walk(2, 34)),
    twin="write-the-same-again",
)
write(
    "write-over-a-second-writer",
    "A second writer publishes under the number first, while this one lives; what it wanted to publish is no base then",
    f"{CONFLICT} WRT-001 WRT-002",
    taken_while_it_lives,
    chain=lambda: line(walk(1, 35)),
    twin="write-the-same-again",
)
write(
    "write-over-other-files",
    "The same state stands under the number, with other files",
    CONFLICT,
    taken_with_other_files,
    twin="write-the-same-again",
)
write(
    "write-over-another-base",
    "The same state stands under the number as a delta, and is to be published without a base",
    CONFLICT,
    taken_with_another_base,
    twin="write-the-same-again",
)
write(
    "write-over-another-layout",
    "A state of the same fingerprint and another layout stands under the number",
    CONFLICT,
    taken_with_another_layout,
    twin="write-the-same-again",
)


def orphan() -> Builder:
    """A file that no manifest names, such as a writer leaves that was killed: it may be deleted at any time."""
    builder = line(walk(1, 39))
    builder.file("config.json", CONFIG)
    return builder


write(
    "write-a-file-that-lies-there",
    "A file's object lies there already, and no manifest names it: it is put again, so that it has a new age",
    "RET-005 OBJ-012",
    lambda desk: desk.publish(walk(2, 39)[1], 1, files={"config.json": CONFIG}),
    chain=orphan,
)


def torn_file() -> Builder:
    """A file of another writer that was killed in the middle of it, where names appear before all bytes."""
    builder = orphan()
    (name,) = (name for name in builder.objects if name.startswith("files/"))
    builder.put(name, CONFIG[:5])
    return builder


write(
    "write-a-file-that-lies-there-torn",
    "A file's object lies there with a part of its bytes, and no manifest names it",
    "RET-005 OBJ-012 WRT-004",
    lambda desk: desk.publish(walk(2, 39)[1], 1, files={"config.json": CONFIG}),
    chain=torn_file,
)

# -- writers that are killed, and writers at once ----------------------------------------------------------------------


def killed(desk: Desk, steps: int) -> None:
    for step in range(steps - 1):
        desk.publish(large(step), step)
    desk.publish(large(steps - 1), steps - 1, kill=8, files={"config.json": CONFIG})
    desk.publish(large(steps), steps)


KILLED = "OBJ-012 STO-005 WRT-005 ERR-004 RET-005"

write(
    "write-killed-in-the-first-version",
    "The writer is killed while it begins a chain: whatever is left is no chain or a whole one",
    f"{KILLED} OBJ-016 STO-010",
    partial(killed, steps=1),
    flags=("slow",),
)
write(
    "write-killed-in-a-delta",
    "The writer is killed while it publishes a delta: the version is there as a whole or not at all",
    f"{KILLED} WRT-002 WRT-003",
    partial(killed, steps=2),
    flags=("slow",),
)


def raced(desk: Desk, states: list[Model], version: int) -> None:
    """Writers of different states meet; what follows goes on from the one that was first."""
    desk.race(states[:-1], version)
    desk.publish(states[-1], version + 1)


write(
    "write-a-delta-at-once",
    "Two writers publish two states under one number at the same time: one of them does, the other reports a conflict",
    f"{CONFLICT} OBJ-012",
    partial(raced, states=walk(4, 40)[1:], version=1),
    chain=lambda: line(walk(1, 40)),
)
write(
    "write-the-same-at-once",
    "Three writers publish one state under one number at the same time: all of them succeed",
    "WRT-005 STO-001 OBJ-003",
    partial(raced, states=[walk(2, 41)[1]] * 3 + [walk(3, 41)[2]], version=1),
    chain=lambda: line(walk(1, 41)),
)
write(
    "write-a-new-chain-at-once",
    "Two writers begin a chain in one folder at the same time: there is one chain id, and one first version",
    f"{CONFLICT} OBJ-016",
    partial(raced, states=walk(3, 42), version=0),
)
