"""Damage to what a reader or a writer keeps for itself: pulled folders, interrupted pulls, snapshots, cached packs."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, NamedTuple
from unittest import mock

import msgspec
from folders import PRIVATE, contents
from gallery import CHAIN, MemoryStore

import tensordelta as td
from tensordelta.checkout import checkout as module
from tensordelta.checkout.checkout import Checkout

from .documents import EDITS, edited
from .harms import HARMS
from .operations import DETECTED, HARMLESS, Case, Wrong, leftovers, published, pulled_right, weights
from .worlds import World, is_state, pick

_UNDO = ("own: undo record", "own: undo record, resealed")
_NEXT = ("own: next.json", "own: staged file")


class Made(NamedTuple):
    """A damage that was done.

    Attributes:
        damage: its kind.
        what: what was done to which object or file.
        operation: what is done now.
        act: does it, and gives the verdict.
    """

    damage: str
    what: str
    operation: str
    act: Callable[[], str]


class _Died(BaseException):
    """The process dies here."""


def _in_folder(kind: str, world: World, rng: Random, work: Path) -> Made | None:
    """Damage a file of a pulled folder, or of one in which a pull was interrupted; None where there is none."""
    state = rng.choice(["settled"] * 4 + ["patching", "moving"])
    if kind in _UNDO or kind in _NEXT:
        state = "patching" if kind in _UNDO else "staged"
    held, other, target = rng.choice(world.versions), rng.choice(world.versions), pick(rng, world)
    source = world.folder(held) if state == "settled" else _interrupted(world, held, other, state)
    if source is None:
        return None
    folder = work / "folder"
    shutil.copytree(source, folder)
    what = _damage(kind, folder, world, rng)
    if not what:
        return None
    what = f"{state} {held}; {what}"
    if rng.random() < 0.15:
        return Made(kind, what, "Checkout.verify", lambda: _verify(world, folder))
    return Made(kind, what, f"pull {target}", lambda: _pull(world, folder, target, settled=state == "settled"))


# -- damage ------------------------------------------------------------------------------------------------------------


def _damage(kind: str, folder: Path, world: World, rng: Random) -> str:
    """Damage one file of a folder; gives an empty text where there is none of that kind."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    inside = [path for path in paths if path.is_relative_to(folder / PRIVATE)]
    outside = [path for path in paths if path not in inside]
    candidates = {
        "own: a shard": [path for path in outside if path.suffix == ".safetensors"],
        "own: a file beside it": [path for path in outside if path.suffix != ".safetensors"],
        "own: state.json": [path for path in inside if path.name == "state.json"],
        "own: undo record": [path for path in inside if path.name == "undo"],
        "own: undo record, resealed": [path for path in inside if path.name == "undo"],
        "own: next.json": [path for path in inside if path.name == "next.json"],
        "own: staged file": [path for path in inside if path.is_relative_to(folder / PRIVATE / "next")],
        "own: lock": [path for path in inside if path.name == "lock"],
    }[kind]
    if not candidates:
        return ""
    path = rng.choice(candidates)
    status, data = path.stat(), path.read_bytes()
    what = _change(kind, path, data, world, rng)
    if path.exists() and path.read_bytes() == data:
        return ""
    times = rng.choice(["written", "kept", "unseen"])
    if times != "written" and path.exists():
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    if times == "unseen" and not path.is_relative_to(folder / PRIVATE):
        _unsee(folder)
    return f"{path.relative_to(folder)}: {what}, {times}"


def _change(kind: str, path: Path, data: bytes, world: World, rng: Random) -> str:
    roll = rng.random()
    if kind == "own: undo record, resealed":
        start = data.index(b"\n") + 1
        stop = data.index(b"\n", start)
        head, rest = data[start:stop], data[stop:-32]
        if rng.random() < 0.5:
            head, what = edited(head, EDITS[rng.choice([*EDITS])], rng)
        else:
            rest, what = HARMS[rng.choice(["bit flipped", "range zeroed", "bytes changed"])](rest, rng)
        body = data[:start] + head + rest
        path.write_bytes(body + hashlib.sha256(body).digest())
        return what
    if path.suffix == ".json" and path.parent.name == PRIVATE and roll < 0.6:
        changed, what = edited(data, EDITS[rng.choice([*EDITS])], rng)
        if rng.random() < 0.8:
            changed = _canonical(changed)
        path.write_bytes(changed)
        return what
    if roll < 0.15:
        path.unlink()
        return "deleted"
    if roll < 0.3:
        other = world.folder(rng.choice(world.versions)) / path.name
        if other.is_file():
            path.write_bytes(other.read_bytes())
            return f"that of {other.parent.name}"
    changed, what = HARMS[rng.choice([*HARMS])](data, rng)
    path.write_bytes(changed)
    return what


def _canonical(data: bytes) -> bytes:
    """A document as the package would write it, so that its spelling does not give it away."""
    try:
        return msgspec.json.encode(json.loads(data))
    except (ValueError, RecursionError, OverflowError):
        return data


def _unsee(folder: Path) -> None:
    """Make the record say that the files are as they are now, as after a loss that no time tells of."""
    path = folder / PRIVATE / "state.json"
    try:
        record = json.loads(path.read_bytes())
    except (ValueError, FileNotFoundError):
        return
    for name, file in record["files"].items():
        if (folder / name).is_file():
            status = (folder / name).stat()
            file.update(mtime_ns=status.st_mtime_ns, ctime_ns=status.st_ctime_ns, inode=status.st_ino)
    path.write_bytes(json.dumps(record, separators=(",", ":"), ensure_ascii=False).encode())


# -- interrupted pulls -------------------------------------------------------------------------------------------------


def _interrupted(world: World, held: int, target: int, state: str) -> Path | None:
    """A folder in which a pull was interrupted; not to be changed. None where that pull does not come so far."""
    path = world.root / world.name / f"{state}-{held}-{target}"
    if not path.exists():
        shutil.copytree(world.folder(held), path)
        interrupt(world, path, target, state)
    wanted = "undo" if state == "patching" else "next.json"
    return path if wanted in leftovers(path) else None


def interrupt(world: World, folder: Path, target: int, state: str) -> None:
    write, move = Checkout._write_words, module.move_files

    def dies(*_: Any, **__: Any) -> None:
        raise _Died

    def writes_and_dies(*given: Any) -> None:
        write(*given)
        raise _Died

    def moves_some(tree: Any, before: Any, following: Any, staged: Any) -> None:
        move(tree, before, following, staged[: max(1, len(staged) // 2)])
        raise _Died

    with (
        mock.patch.object(Checkout, "_write_words", writes_and_dies),
        mock.patch.object(module, "write_back", dies),
        mock.patch.object(module, "move_files", dies if state == "staged" else moves_some),
        suppress(_Died),
    ):
        world.open(world.objects).pull(folder, target)


# -- what comes of it --------------------------------------------------------------------------------------------------


def _pull(world: World, folder: Path, target: int, *, settled: bool) -> str:
    before = contents(folder)
    try:
        world.open(world.objects).pull(folder, target)
    except td.TensorDeltaError:
        if settled and contents(folder) != before:
            raise Wrong("a pull that was refused changed the folder") from None
        if not settled and not _is_known_bad(folder):
            held = weights(folder)
            if not any(held == weights(world.folder(version)) for version in world.versions):
                raise Wrong("a pull that was refused left words of no version, and no verifier sees it") from None
        raise
    pulled_right(world, folder, target, files=True)
    return HARMLESS


def _is_known_bad(folder: Path) -> bool:
    try:
        return bool(Checkout(folder).verify(threads=1)[1])
    except td.TensorDeltaError:
        return True


def _verify(world: World, folder: Path) -> str:
    before = contents(folder, private=True)
    try:
        version, faults = Checkout(folder).verify(threads=1)
    finally:
        if contents(folder, private=True) != before:
            raise Wrong("verify changed the folder")
    if faults:
        return DETECTED
    held = weights(folder)
    # Only a pull compares the folder's record with the chain.
    if not any(held == weights(world.folder(each)) for each in world.versions):
        raise Wrong(f"verify finds nothing, and the words are not those of version {version}")
    return HARMLESS


def _snapshot(world: World, rng: Random, work: Path) -> Made | None:
    if world.next is None:
        return None
    cache = work / "cache"
    shutil.copytree(world.cache, cache)
    kind = rng.choice(["own: a shard", "own: a file beside it", "own: state.json"])
    what = _damage(kind, cache / CHAIN, world, rng)
    if not what:
        return None
    following = world.next
    os.environ["TENSORDELTA_CACHE"] = str(cache)
    store = MemoryStore(dict(world.objects))
    case = Case(world, world.objects, rng, work)
    return Made("own: snapshot", what, "publish", lambda: published(case, store, following))


def _cached(world: World, rng: Random, work: Path) -> Made | None:
    version = pick(rng, world)
    cache = world.root / world.name / f"packs-{version}"
    if not cache.exists():
        cache.mkdir(mode=0o700, parents=True)
        _load_remote(world, cache, version)
    mine = work / "cache"
    shutil.copytree(cache, mine)
    packs = sorted(path for path in mine.rglob("*") if path.is_file() and len(path.name) == 64)
    if not packs:
        return None
    path = rng.choice(packs)
    data, what = HARMS[rng.choice([*HARMS])](path.read_bytes(), rng)
    if rng.random() < 0.2:
        data, what = rng.choice(packs).read_bytes(), "that of another"
    if data == path.read_bytes():
        return None
    path.write_bytes(data)

    def act() -> str:
        if not is_state(_load_remote(world, mine, version), world.models[version]):
            raise Wrong(f"version {version} has other words")
        return HARMLESS

    return Made("own: cached pack", f"{path.name[:8]}…: {what}", f"load {version}", act)


def _load_remote(world: World, cache: Path, version: int) -> td.State:
    os.environ["TENSORDELTA_CACHE"] = str(cache)
    store = MemoryStore(dict(world.objects))
    store.remote = True
    return world.open(store).load(version)


#: Damages to own files. Each gives what it did, or None where a chain, or what a reader made of it, has no such file.
OWN: dict[str, Callable[[World, Random, Path], Made | None]] = {
    **{
        kind: partial(_in_folder, kind)
        for kind in ("own: a shard", "own: a file beside it", "own: state.json", *_UNDO, *_NEXT, "own: lock")
    },
    "own: snapshot": _snapshot,
    "own: cached pack": _cached,
}
