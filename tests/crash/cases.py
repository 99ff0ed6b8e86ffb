"""The cases: each scene with the folder that it starts from, and at which steps it is ended.

A way to end has a stride: the work is ended at every how many-th step.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from folders import flip

import tensordelta as td
from tensordelta.keep.copy import copy

from .worlds import cache

Spec = dict[str, Any]
Ways = Mapping[str, int]


@dataclass(frozen=True)
class Case:
    """A case.

    Attributes:
        make: gives the specification for the driver, after making the folder to start from in a new folder; called
            with the world and that folder.
        steps: the least number of steps at which the work can be killed.
        all: the ways to end it that are tried, with their strides.
    """

    make: Callable[[Path, Path], Spec]
    steps: int
    all: Ways


def _template(place: Path) -> Path:
    template = place / "template"
    template.mkdir(parents=True)
    return template


def _states(world: Path, versions: Iterable[int]) -> dict[int, str]:
    """Paths of checkpoints: the numbers are those of the world's versions, counted anew from 0."""
    return {number: str(world / "checkpoints" / str(version)) for number, version in enumerate(versions)}


# -- pull --------------------------------------------------------------------------------------------------------------


def pull(held: int | None, target: int) -> Callable[[Path, Path], Spec]:
    """A pull from one version to another."""

    def make(world: Path, place: Path) -> Spec:
        template = _template(place)
        if held is not None:
            shutil.copytree(world / "pulled" / str(held), template / "out")
        return {
            "kind": "pull",
            "chain": str(world / "chain"),
            "template": str(template),
            "held": held,
            "target": target,
            "old": None if held is None else str(world / "pulled" / str(held)),
            "new": str(world / "pulled" / str(target)),
        }

    return make


def repair(target: int) -> Callable[[Path, Path], Spec]:
    """A pull into a folder of which a disk lost a bit."""

    def make(world: Path, place: Path) -> Spec:
        spec = pull(0, target)(world, place)
        folder = Path(spec["template"]) / "out"
        flip(folder / "model-00002-of-00002.safetensors", restore_time=True)
        shutil.copytree(folder, place / "damaged")
        return {**spec, "damaged": str(place / "damaged")}

    return make


# -- publish -----------------------------------------------------------------------------------------------------------


def publish(
    before: list[int], target: int, following: int, *, damaged: bool = False, **more: object
) -> Callable[[Path, Path], Spec]:
    """A publish: the checkpoints published before, the one published, and the one published later."""

    def make(world: Path, place: Path) -> Spec:
        template = _template(place)
        with cache(template / "cache"):
            if before:
                chain = td.open(template / "chain", create=True, threads=1)
                for each in before:
                    chain.publish(world / "checkpoints" / str(each), layout_change=True)
                if damaged:
                    flip(next(template.glob("cache/*/model-00002-of-00002.safetensors")))
        return {
            "kind": "publish",
            "template": str(template),
            "states": _states(world, [*before, target]),
            "more": more,
            "next": str(world / "checkpoints" / str(following)),
        }

    return make


def background(before: int, versions: int, **upkeep: object) -> Callable[[Path, Path], Spec]:
    """A publisher in the background: versions that are there, and how many there are at the end."""

    def make(world: Path, place: Path) -> Spec:
        template = _template(place)
        with cache(template / "cache"):
            if before:
                chain = td.open(template / "chain", create=True, threads=1)
                for version in range(before):
                    chain.publish(world / "checkpoints" / str(version), layout_change=True)
        states = _states(world, range(versions))
        return {"kind": "background", "template": str(template), "states": states, "upkeep": {"skip": [], **upkeep}}

    return make


# -- shortcut, gc, copy, save ------------------------------------------------------------------------------------------


def shortcut(base: int | None, target: int, *, work: bool = False) -> Callable[[Path, Path], Spec]:
    """A shortcut; with `work`, in a folder that already has the states of an earlier one."""

    def make(world: Path, place: Path) -> Spec:
        template = _template(place)
        shutil.copytree(world / "chain", template / "chain")
        if work:
            with cache(place / "cache"):
                chain = td.open(template / "chain", threads=1)
                chain.shortcut(None if base is None else 0, target - 1, work=template / "work")
        return {
            "kind": "shortcut",
            "template": str(template),
            "states": _states(world, range(6)),
            "base": base,
            "target": target,
            "work": work,
        }

    return make


def collect(keep: int, full: Iterable[int], stay: list[int]) -> Callable[[Path, Path], Spec]:
    """A collection in a chain with full shortcuts, one by difference, and packs of a version that never was."""

    def make(world: Path, place: Path) -> Spec:
        template = _template(place)
        shutil.copytree(world / "chain", template / "chain")
        with cache(place / "cache"):
            chain = td.open(template / "chain", threads=1)
            chain.shortcut(0, 2)
            for version in full:
                chain.shortcut(None, version)
            chain.pin(0, "over", expires=0)
        packs = template / "chain" / "packs"
        shutil.copy(next(packs.iterdir()), packs / f"{'0' * 64}-{'0' * 16}.safetensors")
        return {
            "kind": "collect",
            "template": str(template),
            "states": _states(world, range(6)),
            "keep": keep,
            "stay": stay,
        }

    return make


def copied(before: list[int], versions: list[int]) -> Callable[[Path, Path], Spec]:
    """A copy of some versions; those of `before` were copied earlier."""

    def make(world: Path, place: Path) -> Spec:
        template, source = _template(place), place / "source"
        shutil.copytree(world / "chain", source)
        with cache(place / "cache"):
            td.open(source, threads=1).shortcut(0, 2)
        if before:
            copy(source, template / "copy", before)
        return {
            "kind": "copy",
            "template": str(template),
            "chain": str(source),
            "states": _states(world, range(6)),
            "before": before,
            "versions": versions,
        }

    return make


def save(world: Path, place: Path) -> Spec:
    """A state that is saved over another one."""
    template = _template(place)
    checkpoints = world / "checkpoints"
    td.read_state(checkpoints / "0").save(template / "state.safetensors")
    return {"kind": "save", "template": str(template), "old": str(checkpoints / "0"), "new": str(checkpoints / "1")}


# -- two processes -----------------------------------------------------------------------------------------------------


def two_pulls(held: int | None, target: int, other: int, *, follow: bool = False) -> Callable[[Path, Path], Spec]:
    """Pulls into one folder: one is stopped, the other one tries then."""

    def make(world: Path, place: Path) -> Spec:
        spec = pull(held, target)(world, place)
        return {**spec, "kind": "two pulls", "other": other, "follow": follow, "whole": _pulled(world)}

    return make


def pull_and_collect(held: int | None, target: int) -> Callable[[Path, Path], Spec]:
    """A pull that is stopped, while a collector drops all but the newest version."""

    def make(world: Path, place: Path) -> Spec:
        spec = pull(held, target)(world, place)
        template = Path(spec["template"])
        shutil.copytree(world / "chain", template / "chain")
        with cache(place / "cache"):
            td.open(template / "chain", threads=1).shortcut(None, 5)
        return {**spec, "kind": "pull and gc", "whole": _pulled(world)}

    return make


def publish_and_others(before: list[int], target: int, others: list[int]) -> Callable[[Path, Path], Spec]:
    """A publish that is stopped, while full versions are published and a collector drops all but the newest one."""

    def make(world: Path, place: Path) -> Spec:
        spec = publish(before, target, target)(world, place)
        paths = [str(world / "checkpoints" / str(version)) for version in (*others, target)]
        states = _states(world, before)
        return {**spec, "kind": "publish and others", "states": states, "mine": paths.pop(), "others": paths}

    return make


def _pulled(world: Path) -> dict[int, str]:
    return {version: str(world / "pulled" / str(version)) for version in range(6)}


# -- all ---------------------------------------------------------------------------------------------------------------

_FULL = {"ENOSPC": 1, "EDQUOT": 5, "EIO": 3, "files": 1, "size": 31, "tmpfs": 1}
_PULL = {"kill": 1, "interrupt": 2, "error": 3, "power": 2, **_FULL}
_PUBLISH = {"kill": 1, "interrupt": 7, "error": 7, "power": 11, **_FULL}
_OTHER = {"kill": 1, "interrupt": 7, "error": 3, "power": 7, "twice": 29, **_FULL}

PULLS = {
    "first": Case(pull(None, 0), 120, _PULL),
    "in place": Case(pull(0, 1), 50, _PULL | {"twice": 2, "power_twice": 4}),
    "several hops": Case(pull(0, 2), 50, _PULL),
    "every word": Case(pull(2, 3), 50, _PULL | {"twice": 5, "power_twice": 10}),
    "other layout": Case(pull(3, 4), 120, _PULL | {"twice": 7, "power_twice": 14}),
    "hops over layouts": Case(pull(1, 5), 120, _PULL),
    "rollback": Case(pull(5, 1), 120, _PULL | {"twice": 11, "power_twice": 22}),
}
REPAIRS = {
    "to the same version": Case(repair(0), 120, {"kill": 1, "interrupt": 2, "error": 3, **_FULL}),
    "to the next version": Case(repair(1), 120, {"kill": 1, "twice": 11, "interrupt": 2, "error": 3, **_FULL}),
}
PUBLISHES = {
    "first": Case(publish([], 0, 1), 200, _PUBLISH),
    "delta": Case(publish([0], 1, 2), 200, _PUBLISH | {"twice": 53}),
    "every word": Case(publish([2], 3, 1), 200, _PUBLISH),
    "other layout": Case(publish([3], 4, 5), 200, _PUBLISH | {"twice": 53}),
    "full": Case(publish([0], 1, 2, full=True), 200, _PUBLISH),
    "plain": Case(publish([0], 4, 5, plain=True), 200, _PUBLISH),
    "first plain": Case(publish([], 0, 1, plain=True), 200, _PUBLISH),
    "damaged snapshot": Case(publish([0], 1, 2, damaged=True), 200, _PUBLISH),
}
BACKGROUND = {
    "a run": Case(background(0, 3), 300, _OTHER),
    "shortcuts": Case(background(2, 4, skip=[2], full_every=2), 300, _OTHER),
    "shortcuts and collections": Case(background(2, 5, skip=[2], full_every=2, keep=1, grace=0.0), 300, _OTHER),
}
SHORTCUTS = {
    "by difference": Case(shortcut(0, 2), 100, _OTHER),
    "over layouts": Case(shortcut(1, 5), 100, _OTHER),
    "full": Case(shortcut(None, 5), 100, _OTHER),
    "in a folder that is kept": Case(shortcut(1, 3, work=True), 50, _OTHER),
}
COLLECTIONS = {
    "old versions": Case(collect(2, [4], [4, 5]), 50, _OTHER),
    "nothing but garbage": Case(collect(6, [], [0, 1, 2, 3, 4, 5]), 5, _OTHER),
    "supporting versions": Case(collect(1, [2], [2, 3, 4, 5]), 30, _OTHER),
}
COPIES = {
    "whole": Case(copied([], [0, 1, 2, 3, 4, 5]), 200, _OTHER),
    "the rest": Case(copied([0, 1], [0, 1, 2, 3, 4, 5]), 100, _OTHER),
    "some": Case(copied([], [0, 1, 2]), 100, _OTHER),
}
SAVES = {"over another": Case(save, 8, {"kill": 1, "interrupt": 1, "error": 1, **_FULL})}
MEETINGS = {
    "two pulls into a new folder": Case(two_pulls(None, 0, 1), 120, {"stop": 1}),
    "two pulls in place": Case(two_pulls(0, 1, 2), 50, {"stop": 1}),
    "two pulls over layouts": Case(two_pulls(3, 4, 2), 120, {"stop": 1}),
    "a follower and a pull": Case(two_pulls(3, 5, 4, follow=True), 120, {"stop": 1}),
    "a pull and gc": Case(pull_and_collect(0, 1), 50, {"stop": 1}),
    "a first pull and gc": Case(pull_and_collect(None, 2), 100, {"stop": 1}),
    "a pull of the newest and gc": Case(pull_and_collect(0, 5), 100, {"stop": 1}),
    "a publish and gc": Case(publish_and_others([0], 1, []), 200, {"stop": 1}),
    "a publish, another writer and gc": Case(publish_and_others([0], 1, [2]), 200, {"stop": 1}),
    "a publish, many versions and gc": Case(publish_and_others([0], 1, [2, 3]), 200, {"stop": 1}),
}

#: All cases, by command.
CASES: dict[str, dict[str, Case]] = {
    "pull": PULLS,
    "pull (repair)": REPAIRS,
    "publish": PUBLISHES,
    "publish in the background": BACKGROUND,
    "shortcut": SHORTCUTS,
    "gc": COLLECTIONS,
    "copy": COPIES,
    "save": SAVES,
    "two processes": MEETINGS,
}


def in_memory(disk: Path) -> Path:
    """A folder for scratch: in memory where there is such a file system, else the one given."""
    memory = Path("/dev/shm")
    return memory if memory.is_dir() and os.access(memory, os.W_OK) else disk
