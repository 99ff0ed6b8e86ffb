"""The chains that are damaged: those of the gallery, signed ones, and one that the package's own writer made."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from random import Random as Chance
from typing import Any

import numpy as np
from gallery import CHAIN, GOOD, MemoryStore, Model, Random, as_model, as_state, random_tensor, small, stepped, weights
from signed_chains import PUBLIC, SECRET, sign_all

import tensordelta as td
from generate.scenes import line, move, walk

#: Bytes that a reader may use, and beyond which no object of these chains goes.
MEMORY = 64 << 20
#: Chains of the gallery that are too large for many damages a second, or cannot be pulled without a source.
_LEFT_OUT = {"at-the-limits", "sparse-and-long", "plain-with-sources"}


@dataclass(eq=False)
class World:
    """A chain without a fault, and what its versions are.

    Attributes:
        name: of the chain.
        objects: bytes by name.
        models: the versions that can be read, and their states.
        signed: every member is signed, and readers trust that key alone.
        root: an empty folder for pulled folders.
    """

    name: str
    objects: Mapping[str, bytes]
    models: dict[int, Model]
    root: Path
    signed: bool = False
    _held: dict[int, td.State] = field(default_factory=dict)

    def open(self, objects: Mapping[str, bytes] | MemoryStore, *, writes: bool = False) -> td.Chain:
        """Open a chain of these objects as a reader, or a writer, of this chain does."""
        store = objects if isinstance(objects, MemoryStore) else MemoryStore(dict(objects))
        options: dict[str, Any] = {"threads": 1, "memory": MEMORY}
        if self.signed:
            options |= {"key": SECRET} if writes else {"trusted_keys": [PUBLIC], "allow_rollback": True}
        return td.open(store, chain=CHAIN, **options)

    @cached_property
    def versions(self) -> list[int]:
        """The versions that a reader without fault can load, ascending."""
        return sorted(self.models)

    @cached_property
    def needed(self) -> frozenset[str]:
        """The objects that are read where the newest version is loaded, or reached from another one."""
        store = MemoryStore(dict(self.objects))
        self.open(store).load()
        for version in self.versions[-2:]:
            self.open(store).prepare(self.held(version), self.newest)
        return frozenset(store.reads)

    @cached_property
    def newest(self) -> int:
        """The version that is read where none is named."""
        found = self.open(self.objects).newest()
        assert found is not None
        return found

    def held(self, version: int) -> td.State:
        """A state that a reader holds; its own copy."""
        if version not in self._held:
            self._held[version] = self.open(self.objects).load(version)
        return self._held[version].copy()

    def folder(self, version: int) -> Path:
        """A folder with this version pulled; not to be changed."""
        path = self.root / self.name / str(version)
        if not path.exists():
            self.open(self.objects).pull(path, version)
        return path

    @cached_property
    def clean(self) -> bool:
        """True if a verifier finds no fault."""
        return self.open(self.objects).verify(deep=True).ok

    @cached_property
    def next(self) -> td.State | None:
        """A state to publish after the newest version; None where that cannot be done."""
        if self.newest not in self.models or self.newest >= 10**12 - 1:
            return None
        return as_state(stepped(Random(f"next of {self.name}"), self.models[self.newest], 0.2))

    @cached_property
    def cache(self) -> Path:
        """A cache folder with the writer's snapshot of the newest version; not to be changed."""
        path = self.root / self.name / "cache"
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o700)
        shutil.copytree(self.folder(self.newest), path / CHAIN, dirs_exist_ok=True)
        return path


def is_state(state: td.State | Mapping[str, np.ndarray[Any, Any]], model: Model) -> bool:
    """True if a state is a model, bit for bit."""
    if set(state) != set(model):
        return False
    right = as_state(model)
    return all(
        state[name].dtype == right[name].dtype
        and state[name].shape == right[name].shape
        and state[name].tobytes() == right[name].tobytes()
        for name in right
    )


def _written(*, signed: bool) -> tuple[dict[str, bytes], dict[int, Model]]:
    """A chain by the package's own writer: shortcuts of both kinds, files, another layout, packs of a checkpoint."""
    store = MemoryStore({})
    chain = td.open(store, create=True, chain=CHAIN, threads=1, key=SECRET if signed else None)
    rng = Random(41)
    model = small(rng) | {"e.weight": weights(rng, (60, 20)), "f": random_tensor(rng, "F4", (4, 6))}
    models: dict[int, Model] = {}
    for version in range(6):
        if version == 3:
            model["g.added"] = weights(rng, (3, 50))
        files = {"config.json": b"{}", "a/tokenizer.json": b"x" * version}
        chain.publish(
            as_state(model),
            files=files,
            full=version == 4,
            layout_change=version == 3,
            values="replace" if version == 2 else "step",
            order="exponent" if version == 5 else "natural",
        )
        models[version] = model
        model = stepped(rng, model, 0.1)
    chain.shortcut(0, 2)
    chain.shortcut(2, 5)
    chain.shortcut(None, 3)
    chain.shortcut(None, 5, tag="again")
    for version in models:
        models[version] = as_model(chain.load(version))
    return store.objects, models


def worlds(root: Path) -> list[World]:
    """Every chain of the campaign.

    Args:
        root: an empty folder for what readers keep.
    """
    made = [
        World(each.name, each.builder.objects, dict(each.builder.models), root)
        for each in GOOD
        if each.name not in _LEFT_OUT
    ]
    for signed in (False, True):
        made.append(World(f"written{'-signed' * signed}", *_written(signed=signed), root, signed))
    builder = line(walk(4))
    move(builder, 2, walk(4)[2], 0, shortcut="")
    move(builder, 3, walk(4)[3], None, shortcut="")
    sign_all(builder.objects)
    made.append(World("signed-with-shortcuts", builder.objects, dict(builder.models), root, True))
    return [each for each in made if _only_readable(each)]


def _only_readable(world: World) -> bool:
    """Leave out the versions that even a chain without damage does not give; True if any are left."""
    chain = world.open(world.objects)
    for version, model in [*world.models.items()]:
        try:
            state = chain.load(version)
        except td.TensorDeltaError:
            del world.models[version]
            continue
        if not is_state(state, model):
            raise AssertionError(f"{world.name}: version {version} is wrong without any damage")
    return bool(world.models) and world.newest in world.models


def pick(rng: Chance, world: World) -> int:
    """A version to go to, the newest more often than others."""
    return world.newest if rng.random() < 0.6 else rng.choice(world.versions)
