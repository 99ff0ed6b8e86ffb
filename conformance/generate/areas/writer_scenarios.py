"""Writers that try again, are killed or run at once (SPEC.md sections 11 and 12)."""

from __future__ import annotations

from functools import partial

from generate.builder import Builder
from generate.graph import graph
from generate.model import Model, tensor
from generate.scenes import walk
from generate.writing import Desk, Script, large, script, write

CONFIG = {"config.json": b'{"model_type": "tiny"}'}
AGAIN = "WRT-005 ERR-004"
CONFLICT = "WRT-006 OBJ-003 STO-001"

# -- a manifest that is there already ----------------------------------------------------------------------------------


@script(AGAIN)
def write_the_same_again(desk: Desk, restart: bool = False) -> None:
    """The same state is published again under its number"""
    # The answer to a commit was lost; the writer tries again, and continues.
    states = walk(3, 31)
    desk.publish(states[0], 0, files=CONFIG).publish(states[1], 1, files=CONFIG)
    if restart:
        desk.restart()
    desk.publish(states[1], 1, files=CONFIG).publish(states[2], 2)


write("write-the-same-again-after-a-restart",
    "The writer is started anew, and publishes the same state under the same number again",
    AGAIN, partial(write_the_same_again, restart=True))  # fmt: skip


@script(AGAIN)
def write_the_first_version_again(desk: Desk) -> None:
    """The first version of a chain is published again"""
    states = walk(2, 32)
    desk.publish(states[0], 4).restart().publish(states[0], 4).publish(states[1], 5)


@script(f"{AGAIN} OBJ-003")
def write_the_same_again_with_other_annotations(desk: Desk) -> None:
    """The same state is published again with other annotations: the version stays as it was"""
    # Annotations, and the values asked for, may differ.
    states = walk(3, 33)
    desk.publish(states[0], 0)
    desk.publish(states[1], 1, annotations={"try": "1"}, values="step")
    desk.publish(states[1], 1, annotations={"try": "2"}, values="replace")
    desk.publish(states[2], 2)


conflict = partial(script, CONFLICT, twin="write-the-same-again")


@conflict(chain=partial(graph, "0 -> 1", seed=34))
def write_over_another_state(desk: Desk) -> None:
    """Another writer's version stands under the number, with another state"""
    states = walk(4, 34)
    desk.publish(states[2], 1, error="conflict").publish(states[3], 2)


@script(f"{CONFLICT} WRT-001 WRT-002", chain=partial(graph, "0", seed=35), twin="write-the-same-again")
def write_over_a_second_writer(desk: Desk) -> None:
    """A second writer publishes under the number first, while this one lives;
    what it wanted to publish is no base then"""
    states = walk(5, 35)
    desk.publish(states[1], 1).join(graph("2", {2: states[2]}))
    desk.publish(states[3], 2, error="conflict").publish(states[4], 3)


@conflict()
def write_over_other_files(desk: Desk) -> None:
    """The same state stands under the number, with other files"""
    states = walk(3, 36)
    desk.publish(states[0], 0).publish(states[1], 1, files=CONFIG)
    desk.publish(states[1], 1, files={"config.json": b"{}"}, error="conflict")
    desk.publish(states[1], 1, error="conflict").publish(states[2], 2)


@conflict()
def write_over_another_base(desk: Desk) -> None:
    """The same state stands under the number as a delta, and is to be published without a base"""
    states = walk(3, 37)
    desk.publish(states[0], 0).publish(states[1], 1).publish(states[1], 1, full=True, error="conflict")
    desk.publish(states[2], 2)


@conflict()
def write_over_another_layout(desk: Desk) -> None:
    """A state of the same fingerprint and another layout stands under the number"""
    # Zero words add nothing to a fingerprint.
    first, second = walk(2, 38)
    longer = {**second, "z": tensor("F32", (4,))}
    desk.publish(first, 0).publish(second, 1).publish(longer, 1, error="conflict").publish(longer, 2)


def orphan(part: int | None = None) -> Builder:
    """A file that no manifest names, as a killed writer leaves it: it may be deleted at any time.

    With `part` the writer was killed after so many bytes, on a store where names appear before all bytes are there.
    """
    builder = graph("0", seed=39)
    path = builder.file("config.json", CONFIG["config.json"])["path"]
    builder.change(path, lambda data: data[:part])
    return builder


def with_config(desk: Desk) -> None:
    desk.publish(walk(2, 39)[1], 1, files=CONFIG)


# fmt: off
write("write-a-file-that-lies-there",
    "A file's object lies there already, and no manifest names it: it is put under a name of its own",
    "RET-012 OBJ-012", with_config, chain=orphan)
write("write-a-file-that-lies-there-torn",
    "A file's object lies there with a part of its bytes, and no manifest names it",
    "RET-012 OBJ-012 WRT-004", with_config, chain=partial(orphan, 5))
# fmt: on

# -- writers that are killed, and writers at once ----------------------------------------------------------------------

KILLED = "OBJ-012 STO-005 WRT-005 ERR-004 RET-012"


def killed(last: int) -> Script:
    """The writer is killed several times during the last version, and then publishes another one."""
    return lambda desk: (
        desk.line(*map(large, range(last)))
        .publish(large(last), last, kill=8, files=CONFIG)
        .publish(large(last + 1), last + 1)
    )


def at_once(version: int, *states: Model) -> Script:
    """Writers publish all states but the last at once; the last one is a delta from the one that won."""
    return lambda desk: desk.race(states[:-1], version).publish(states[-1], version + 1)


# fmt: off
write("write-killed-in-the-first-version",
    "The writer is killed while it begins a chain: whatever is left is no chain or a whole one",
    f"{KILLED} OBJ-016 STO-010", killed(0), flags=("slow",))
write("write-killed-in-a-delta",
    "The writer is killed while it publishes a delta: the version is there as a whole or not at all",
    f"{KILLED} WRT-002 WRT-003", killed(1), flags=("slow",))
write("write-a-delta-at-once",
    "Two writers publish two states under one number at the same time: one of them does, the other reports a conflict",
    f"{CONFLICT} OBJ-012", at_once(1, *walk(4, 40)[1:]), chain=partial(graph, "0", seed=40))
write("write-the-same-at-once",
    "Three writers publish one state under one number at the same time: all of them succeed", "WRT-005 STO-001 OBJ-003",
    at_once(1, *[walk(2, 41)[1]] * 3, walk(3, 41)[2]), chain=partial(graph, "0", seed=41))
write("write-a-new-chain-at-once",
    "Two writers begin a chain in one folder at the same time: there is one chain id, and one first version",
    f"{CONFLICT} OBJ-016", at_once(0, *walk(3, 42)))
# fmt: on
