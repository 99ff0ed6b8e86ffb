"""What is done to a damaged chain, and the verdict on what came of it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from folders import PRIVATE, all_tensors, contents
from gallery import MemoryStore, Model, as_model, as_state
from signed_chains import sig

import tensordelta as td
from tensordelta.checkout.checkout import Checkout
from tensordelta.format.names import parse_manifest_name

from .worlds import World, is_state, pick

DETECTED, HARMLESS, OLDER, FAULT = "detected", "harmless", "older", "FAULT"
VERDICTS = [DETECTED, HARMLESS, OLDER, FAULT]


class Wrong(Exception):
    """What may not come of a damage."""


@dataclass
class Case:
    """A damaged chain.

    Attributes:
        world: the chain before.
        objects: the chain after.
        rng: for what is done.
        work: an empty folder.
    """

    world: World
    objects: Mapping[str, bytes]
    rng: Random
    work: Path

    def open(self, **how: Any) -> td.Chain:
        """The damaged chain; in some cases a reader that knows its documents from before the damage."""
        if self.rng.random() < 0.2:
            store = MemoryStore(dict(self.world.objects))
            chain = self.world.open(store, **how)
            chain.log()
            store.objects = dict(self.objects)
            return chain
        return self.world.open(self.objects, **how)

    def target(self) -> int | None:
        """The version that is asked for; None for the newest."""
        return None if self.rng.random() < 0.3 else pick(self.rng, self.world)

    @property
    def lost(self) -> bool:
        """True if the newest version does not exist any more, or not for readers with keys, who miss its signature."""
        name = f"manifests/{self.world.newest:012d}.json"
        if name not in self.objects or not self.world.signed:
            return name not in self.objects
        signature = sig(self.objects, name)
        return signature not in self.objects or self.objects[signature] != self.world.objects.get(signature)

    def is_whole(self, version: int | None) -> bool:
        """True if a version's own manifest is as it was."""
        name = f"manifests/{version:012d}.json"
        return self.objects.get(name) == self.world.objects.get(name)

    def judge(
        self, asked: int | None, version: int | None, right: Callable[[Model], bool], *, fell: bool = False
    ) -> str:
        """The verdict on a version that a reader took for the one asked for.

        Args:
            asked: the version asked for; None for the newest.
            version: the version read.
            right: says whether what was read is a state, bit for bit.
            fell: it may be an older one, since the reader keeps what it has.
        """
        wanted = self.world.newest if asked is None else asked
        if version not in self.world.models:
            raise Wrong(f"read version {version}, which there is not")
        if not right(self.world.models[version]):
            raise Wrong(f"version {version} has other words")
        if version == wanted:
            return HARMLESS
        if asked is None and version < wanted and (self.lost or fell):
            return OLDER
        raise Wrong(f"read version {version}, not {wanted}")


Operation = Callable[[Case], str]


def bits(state: td.State) -> tuple[Any, ...]:
    """Everything of a state, byte for byte."""
    return (
        state.version,
        state.chain,
        [(each.name, each.dtype, each.shape) for each in state.layout.tensors],
        [state.words(index).tobytes() for index in range(len(state.layout))],
    )


# -- states ------------------------------------------------------------------------------------------------------------


def load(case: Case) -> str:
    """`Chain.load`."""
    asked = case.target()
    state = case.open().load(asked)
    return case.judge(asked, state.version, lambda model: is_state(state, model))


def prepare(case: Case) -> str:
    """`prepare` from a held state, `apply`, and in some cases `undo`."""
    held = case.rng.choice(case.world.versions)
    asked = case.target()
    state = case.world.held(held)
    if case.rng.random() < 0.2:
        state.version = state.chain = None  # a state that remembers nothing
    before = bits(state)
    try:
        update = case.open().prepare(state, asked)
    except td.TensorDeltaError:
        if bits(state) != before:
            raise Wrong("the held state was changed by a prepare that failed") from None
        raise
    if bits(state) != before:
        raise Wrong("the held state was changed by prepare")
    update.apply()
    verdict = case.judge(asked, state.version, lambda model: is_state(state, model))
    if case.rng.random() < 0.3:
        update.undo()
        if bits(state) != before:
            raise Wrong("undo did not restore the held state")
    return verdict


def prepare_arrays(case: Case) -> str:
    """`prepare` from arrays of the user's own, and `apply`."""
    held, asked = case.rng.choice(case.world.versions), case.target()
    arrays = {name: each.copy() for name, each in as_state(case.world.models[held]).items()}
    if not arrays:
        return load(case)
    before = {name: each.tobytes() for name, each in arrays.items()}
    try:
        update = case.open().prepare(arrays, asked)
    except td.TensorDeltaError:
        if {name: each.tobytes() for name, each in arrays.items()} != before:
            raise Wrong("the held arrays were changed by a prepare that failed") from None
        raise
    update.apply()
    return case.judge(asked, update.version, lambda model: is_state(arrays, model))


def follow(case: Case) -> str:
    """`Chain.follow` to the newest version."""
    state = case.world.held(case.rng.choice(case.world.versions))
    chain = case.open()
    before = bits(state)
    how: dict[str, Any] = {"poll": 0.001, "timeout": 0, "until": case.world.newest}
    how["one_by_one"] = case.rng.random() < 0.3
    for _ in range(len(case.world.versions) + 2):
        try:
            update = next(chain.follow(state, **how), None)
        except (td.TensorDeltaError, TimeoutError) as error:
            if bits(state) != before:
                raise Wrong("the held state was changed by a step that failed") from None
            if isinstance(error, TimeoutError):
                break  # nothing newer was seen
            raise
        if update is None:
            break
        update.apply()
        case.judge(None, state.version, lambda model: is_state(state, model), fell=True)
        before = bits(state)
    # Whether a newer version was withheld is known of signed chains with a maximal age only.
    return case.judge(None, state.version, lambda model: is_state(state, model), fell=case.lost)


def load_part(case: Case) -> str:
    """`Chain.load_part` of some tensors, from nothing or from what is held."""
    asked = case.target()
    wanted = case.world.models[case.world.newest if asked is None else asked]
    names = [name for name in wanted if case.rng.random() < 0.5] or [*wanted][:1]
    held: td.State | None = None
    before: tuple[Any, ...] = ()
    if case.rng.random() < 0.5:
        held = _part(case.world, case.rng.choice(case.world.versions), names)
        before = bits(held)
    try:
        state = case.open().load_part(names, asked, held=held)
    finally:
        if held is not None and bits(held) != before:
            raise Wrong("the held part was changed")
    if not case.is_whole(state.version):  # a reader of some tensors believes the layout that lacks one of them
        names = [*state]
    return case.judge(
        asked, state.version, lambda model: is_state(state, {name: model[name] for name in names if name in model})
    )


def _part(world: World, version: int, names: list[str]) -> td.State:
    model = world.models[version]
    state = as_state({name: model[name] for name in names if name in model})
    state.version, state.chain = version, world.open(world.objects).id
    return state


# -- whole chains ------------------------------------------------------------------------------------------------------


def verify(case: Case) -> str:
    """`Chain.verify`; where it finds nothing, every version can be read and is right."""
    deep = case.rng.random() < 0.7
    if not case.world.clean:
        deep = True
    chain = case.open()
    found = chain.verify(deep=deep)
    if not found.ok:
        return DETECTED
    if deep:
        fresh = case.world.open(case.objects)
        for version in found.versions:
            if case.world.signed and version not in fresh.versions():
                raise Wrong(f"verify passed over version {version}, which is not signed")
            if version in case.world.models:
                try:
                    state = fresh.load(version)
                except td.TensorDeltaError as fault:
                    raise Wrong(f"verify found nothing, but version {version} cannot be read: {fault}") from None
                case.judge(version, state.version, lambda model, state=state: is_state(state, model))
    return OLDER if case.lost else HARMLESS


def publish(case: Case) -> str:
    """`Chain.publish`, with a snapshot of the newest version or without one; what was there stays."""
    following = case.world.next
    if following is None:
        return load(case)
    cache = case.work / "cache"
    if case.rng.random() < 0.6:
        shutil.copytree(case.world.cache, cache)
    else:
        cache.mkdir(0o700)
    os.environ["TENSORDELTA_CACHE"] = str(cache)
    store = MemoryStore(dict(case.objects))
    return published(case, store, following)


def published(case: Case, store: MemoryStore, following: td.State) -> str:
    """Publish a state to a store, and judge what came of it."""
    full = case.rng.random() < 0.2
    try:
        done = case.world.open(store, writes=True).publish(following, full=full)
    except td.TensorDeltaError:
        made = {name for name in store.objects.keys() - case.objects.keys() if parse_manifest_name(name) is not None}
        changed = [name for name, data in case.objects.items() if store.objects.get(name) != data]
        if changed and set(changed) - {"latest.json"}:
            raise Wrong(f"a publish that failed changed {changed}") from None
        if made:
            # It is committed: what cannot be read back is said so, and no reader may take it for something else.
            _as_published(case, store, following, None)
        raise
    lost = [name for name, data in case.objects.items() if store.objects.get(name) != data and name != "latest.json"]
    # Objects that are named by their digest are put again where their bytes were lost.
    if any(name.startswith(("manifests/", "shortcuts/", "chain.json")) for name in lost):
        raise Wrong(f"a publish changed {lost}")
    return _as_published(case, store, following, done.version)


def _as_published(case: Case, store: MemoryStore, following: td.State, version: int | None) -> str:
    try:
        state = case.world.open(store.objects).load(version)
    except td.TensorDeltaError:
        return DETECTED
    if version is not None and not is_state(state, as_model(following)):
        raise Wrong(f"version {version} is not what was published")
    if version is None and not any(
        is_state(state, each) for each in [as_model(following), *case.world.models.values()]
    ):
        raise Wrong("the newest version is none that was published")
    return HARMLESS


# -- folders -----------------------------------------------------------------------------------------------------------


def weights(folder: Path) -> dict[str, Any]:
    """The tensors of a pulled folder, whatever the file."""
    return {name: each for tensors in all_tensors(folder).values() for name, each in tensors.items()}


def pulled_right(world: World, folder: Path, version: int, *, files: bool) -> None:
    """Check that a folder holds a version: its words bit for bit, and with `files` the files beside them."""
    good = world.folder(version)
    if weights(folder) != weights(good):
        raise Wrong(f"the folder has other words than version {version}")
    mine, theirs = (_beside(each) for each in (folder, good))
    if files and mine != theirs:
        raise Wrong(f"the folder has other files than version {version}: {sorted(mine)}, {sorted(theirs)}")
    found, faults = Checkout(folder).verify(threads=1)
    if faults or found != version:
        raise Wrong(f"a pulled folder of version {found} does not verify: {faults}")


def _beside(folder: Path) -> dict[str, bytes | None]:
    return {name: data for name, data in contents(folder).items() if not name.endswith(".safetensors")}


def pull(case: Case) -> str:
    """`Checkout.pull` from a damaged chain into a new folder, or into one that holds a version."""
    folder = case.work / "folder"
    held = case.rng.choice([None, *case.world.versions])
    if held is not None:
        shutil.copytree(case.world.folder(held), folder)
    before = contents(folder)
    asked = case.target()
    try:
        pulled = case.open().pull(folder, asked)
    except td.TensorDeltaError:
        after = contents(folder)
        if after != before and not (held is None and not after):
            raise Wrong("a pull that failed changed the folder") from None
        if held is not None:
            found, faults = Checkout(folder).verify(threads=1)
            if faults or found != held:
                raise Wrong(f"a pull that failed left a folder that does not verify: {faults}") from None
        raise
    whole = case.is_whole(pulled.version)

    def right(_: Model) -> bool:
        pulled_right(case.world, folder, pulled.version, files=whole)
        return True

    return case.judge(asked, pulled.version, right)


def leftovers(folder: Path) -> list[str]:
    """What an interrupted pull leaves in a folder."""
    private = folder / PRIVATE
    return [name for name in ("undo", "next.json", "next") if (private / name).exists()]


#: What is done, and how often beside the others.
OPERATIONS: dict[Operation, int] = {
    load: 30,
    prepare: 25,
    prepare_arrays: 6,
    follow: 8,
    load_part: 8,
    pull: 12,
    verify: 8,
    publish: 6,
}
