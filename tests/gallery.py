"""Chains of every kind for the tests of the reference: the builders of the conformance suite, opened in memory.

`GOOD` has chains that a reader accepts, `BROKEN` the invalid cases of the suite that are one fault of one chain.
Nothing that makes them uses the package's own codecs, fingerprints, JSON or containers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from generate import areas
from generate.builder import (
    Builder,
    Pack,
    digest,
    dumps,
    manifest_name,
    of_chunks,
    of_plain,
    safetensors,
    shortcut_name,
)
from generate.cases import Case
from generate.chains import contents, encodings, paths
from generate.codecs import chunk_for, delta_chunks, full_chunks
from generate.fingerprint import fingerprint, tensor_fingerprint
from generate.good import GOOD, Good, good_chain
from generate.model import (
    CHAIN,
    CREATED,
    DTYPES,
    FOREIGN,
    Model,
    Random,
    Tensor,
    changed,
    fit,
    ordered,
    random_tensor,
    small,
    stepped,
    tensor,
    weights,
)
from generate.standard import flipped, setting, standard

__all__ = [
    "BROKEN",
    "CHAIN",
    "CREATED",
    "DTYPES",
    "FOREIGN",
    "GOOD",
    "Broken",
    "Builder",
    "Good",
    "MemoryBlob",
    "MemoryStore",
    "Model",
    "Random",
    "Tensor",
    "arrays_of",
    "as_model",
    "as_state",
    "assert_arrays",
    "broken_chain",
    "changed",
    "chunk_for",
    "contents",
    "delta_chunks",
    "digest",
    "dumps",
    "encodings",
    "fingerprint",
    "fit",
    "flipped",
    "full_chunks",
    "good_chain",
    "manifest_name",
    "of_chunks",
    "of_plain",
    "open_chain",
    "ordered",
    "paths",
    "random_tensor",
    "safetensors",
    "setting",
    "shortcut_name",
    "small",
    "standard",
    "stepped",
    "tensor",
    "tensor_fingerprint",
    "weights",
]


# -- a store for tests -------------------------------------------------------------------------------------------------


class MemoryBlob:
    """An object of a `MemoryStore`, opened; what is read of it is counted, and cannot be written to."""

    def __init__(self, store: MemoryStore, name: str, data: bytes) -> None:
        self._store, self._name, self._data = store, name, data
        self.size = len(data)

    def read(self, offset: int, length: int) -> memoryview:
        data = memoryview(self._data)[offset : offset + length]
        assert len(data) == length, f"{self._name}: read past the end"
        self._store.fetched[self._name] = self._store.fetched.get(self._name, 0) + length
        return data

    def __enter__(self) -> MemoryBlob:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class MemoryStore:
    """A chain's objects in memory, under the protocol of the package's stores.

    Attributes:
        objects: bytes by name.
        reads: names read, in order.
        fetched: for each object that was opened, how many bytes of it were read.
    """

    address = "memory"
    exclusive = True
    remote = False
    lists = True

    def __init__(self, objects: dict[str, bytes]) -> None:
        self.objects = objects
        self.reads: list[str] = []
        self.fetched: dict[str, int] = {}

    def _get(self, name: str) -> bytes:
        from tensordelta.errors import MissingError

        if name not in self.objects:
            raise MissingError("is not there", object=name, rule="TD-MAN-014")
        self.reads.append(name)
        return self.objects[name]

    def read(self, name: str) -> bytes:
        return self._get(name)

    def open(self, name: str) -> MemoryBlob:
        return MemoryBlob(self, name, self._get(name))

    def size(self, name: str) -> int | None:
        return len(self.objects[name]) if name in self.objects else None

    def names(self, prefix: str, after: str | None = None) -> Iterator[str]:
        return (name for name in [*self.objects] if name.startswith(prefix) and (after is None or name > after))

    def entries(self, prefix: str) -> Iterator[Any]:
        from tensordelta.stores import StoredObject

        return (StoredObject(name, len(self.objects[name]), None) for name in self.names(prefix))

    def put(self, name: str, parts: Iterable[bytes | memoryview]) -> None:
        self.objects[name] = b"".join(parts)

    def create(self, name: str, data: bytes) -> bool:
        return self.objects.setdefault(name, data) is data

    def batch(self) -> Any:
        from tensordelta.stores import DirectBatch

        return DirectBatch(self)

    def delete(self, name: str) -> None:
        self.objects.pop(name, None)


def open_chain(builder: Builder, **options: Any) -> Any:
    """The package's Chain over a copy of a builder's objects; its store is `chain.store`."""
    import tensordelta

    store = MemoryStore(dict(builder.objects))
    chain = tensordelta.open(store, **{"threads": 1, "memory": 1 << 30, **options})
    chain.store = store
    return chain


def as_state(model: Model) -> Any:
    """The package's State of the same tensors, in memory of its own."""
    from tensordelta.format.layout import Layout
    from tensordelta.format.layout import Tensor as Entry
    from tensordelta.state.state import State

    names = ordered(model)
    layout = Layout([Entry(name, model[name].dtype, model[name].shape) for name in names])
    return State(layout, [model[name].words.copy() for name in names])


def arrays_of(model: Model) -> dict[str, Any]:
    """Arrays of one's own with the words of a state, in an order that is not the layout's."""
    state = as_state(model)
    return {name: state[name].copy() for name in reversed(list(state))}


def assert_arrays(arrays: dict[str, Any], model: Model) -> None:
    """Check that arrays have the words of a state."""
    state = as_state(model)
    assert set(arrays) == set(state)
    for name, array in arrays.items():
        assert array.dtype == state[name].dtype and array.shape == state[name].shape, name
        assert array.tobytes() == state[name].tobytes(), name


def as_model(state: Any) -> Model:
    """The tensors of the package's State."""
    return {
        tensor.name: Tensor(tensor.dtype, tensor.shape, state.words(index))
        for index, tensor in enumerate(state.layout.tensors)
    }


# -- good chains by the package's own encoder --------------------------------------------------------------------------


def _reference(order: str) -> Callable[[], Builder]:
    def build() -> Builder:
        from tensordelta.state.state import State
        from tensordelta.write.encoder import Codecs, Comparison, Encoder

        rng = Random(26)
        builder = Builder()
        model = small(rng) | {"e.weight": weights(rng, (300, 200)), "f": random_tensor(rng, "F4", (4, 6))}
        last: State | None = None
        for version in range(4):
            layout = builder.layout(model)
            state = as_state(model)
            sums = None if last is None else last.sums()
            encoder = Encoder(Comparison.of_states(last, state, layout, sums), Codecs(order=order))
            packs = [
                Pack(b"".join(built.parts), "chunks", built.entry.tensors, built.entry.changed)
                for built in encoder.packs()
            ]
            builder.edge(version, model, packs, base=version - 1 if version else None, features=encoder.features)
            last = state
            model = stepped(rng, model, 0.05)
            if version == 1:
                model["g.added"] = weights(rng, (3, 50))
        return builder

    return build


GOOD += [Good(f"reference-encoder-{order}", _reference(order)) for order in ("natural", "exponent")]


# -- broken chains -----------------------------------------------------------------------------------------------------

#: Areas of the suite with faults that one chain has by itself, whatever a reader holds.
_AREAS = "json objects layout manifest entries files shortcuts packs plain chunks order positions values frames".split()


#: Requirements that one fault breaks alike: the one that a case names, and those that the package may name.
_ALIKE = {
    "TD-CHK-002": {"TD-CHK-013", "TD-JSN-012"},
    "TD-CHK-020": {"TD-PCK-013"},
    "TD-CHK-021": {"TD-PCK-013"},
    "TD-CHK-022": {"TD-VAL-006"},
    "TD-JSN-009": {"TD-CHK-013", "TD-PCK-008"},
    "TD-LAY-001": {"TD-LAY-007"},
    "TD-MAN-001": {"TD-JSN-012"},
    "TD-OBJ-006": {"TD-OBJ-008"},
    "TD-OBJ-015": {"TD-JSN-011", "TD-JSN-012", "TD-JSN-015", "TD-LIM-004"},
    "TD-ORD-004": {"TD-CHK-013"},
    "TD-PCK-004": {"TD-PCK-014"},
    "TD-PCK-008": {"TD-PCK-004"},
    "TD-PCK-014": {"TD-PCK-004"},
    "TD-VER-001": {"TD-VER-002"},
    "TD-ZST-001": {"TD-ZST-006", "TD-ZST-009"},
}


@dataclass(frozen=True)
class Broken:
    """A chain with one fault.

    Attributes:
        name, area: of the case.
        build: makes the chain.
        errors: names of the errors that a reader, or a verifier, may report.
        version: the version whose read fails; None for the newest.
        held: the version that a reader holds before.
        rules: requirement ids that name the fault.
        reader: a reader of whole states sees it; else a verifier only.
    """

    name: str
    area: str
    build: Callable[[], Builder]
    errors: tuple[str, ...]
    version: int | None
    held: int | None
    rules: frozenset[str]
    reader: bool

    @property
    def builder(self) -> Builder:
        """The chain, made anew."""
        return self.build()


def _broken(case: Case) -> Broken:
    step = case.one_read
    assert step is not None and case.chain is not None
    rules = {each for name in case.requirements for each in {name, *_ALIKE.get(name, ())}}
    return Broken(
        case.id, case.area, case.chain, case.errors, step.to, step.held, frozenset(rules), case.role == "reader"
    )


#: Cases with two faults of two objects, for a verifier.
_TWO_FAULTS = {"pack-altered-above-a-broken-manifest"}
BROKEN = [
    _broken(each)
    for each in areas.load().values()
    if each.area in _AREAS and not each.valid and each.one_read and each.one_read.plain
    if not each.needs and not each.flags and each.id not in _TWO_FAULTS
]


def broken_chain(name: str) -> Builder:
    """A broken chain by its name."""
    return next(each for each in BROKEN if each.name == name).builder
