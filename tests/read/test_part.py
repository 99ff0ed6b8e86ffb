"""Reading some tensors of a state only (SPEC.md section 9.4)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import gallery
import numpy as np
import pytest
from gallery import GOOD, Builder, Good, Model, as_state, good_chain, open_chain

import tensordelta as td

PART = ["b", "c"]
EACH = pytest.mark.parametrize("chain", GOOD, ids=lambda each: each.name)


def states() -> list[dict[str, np.ndarray]]:
    """Four tensors of one dtype, small enough to share a chunk; each state differs from the one before in every one."""
    rng = np.random.default_rng(7)
    made = [{name: rng.standard_normal(64).astype(np.float16) for name in "abcd"}]
    for _ in range(2):
        made.append({name: each.copy() for name, each in made[-1].items()})
        for each in made[-1].values():
            each[rng.choice(64, 20, replace=False)] *= np.float16(1.25)
    return made


def chain_of(folder: Path, **how: str) -> td.Chain:
    chain = td.open(folder / "chain", create=True, threads=1)
    for state in states():
        chain.publish(state, **how)  # type: ignore[arg-type]
    return chain


def part(state: dict[str, np.ndarray], names: list[str] = PART) -> td.State:
    return td.State.from_arrays({name: state[name].copy() for name in names})


def bytes_of(state: td.State) -> dict[str, bytes]:
    return {name: state[name].tobytes() for name in state}


def expected(version: int, names: list[str] = PART) -> dict[str, bytes]:
    return {name: states()[version][name].tobytes() for name in names}


def edit(chain: td.Chain, version: int, change: Callable[[dict[str, object]], object]) -> td.Chain:
    path = Path(chain.address, f"manifests/{version:012d}.json")
    document = json.loads(path.read_bytes())
    change(document)
    path.write_text(json.dumps(document))
    return td.open(chain.address, threads=1)


@pytest.mark.parametrize("values", ["step", "replace"])
def test_a_part_follows_deltas_from_what_is_held(tmp_path: Path, values: str) -> None:
    """The chunk is over tensors that are not held as well."""
    chain = chain_of(tmp_path, values=values)
    held = part(states()[0])
    for version in (1, 2):
        after = chain.load_part(PART, version, held=held)
        assert bytes_of(after) == expected(version)
        assert (after.version, after.chain) == (version, chain.id)
        assert bytes_of(held) == expected(version - 1), "what was held stays as it was"
        held = after


def test_a_part_from_nothing_and_the_newest(tmp_path: Path) -> None:
    chain = chain_of(tmp_path)
    assert bytes_of(chain.load_part(PART)) == expected(2)
    assert bytes_of(chain.load_part([*PART, "not there"], 1)) == expected(1)
    assert not chain.load_part(["not there"], 1)


def test_a_part_held_already_needs_no_pack(tmp_path: Path) -> None:
    chain = chain_of(tmp_path)
    for path in Path(chain.address, "packs").iterdir():
        path.unlink()
    assert bytes_of(chain.load_part(PART, 2, held=part(states()[2]))) == expected(2)
    with pytest.raises(td.MissingError):
        chain.load_part(PART, 2, held=part(states()[1]))


def test_a_part_that_is_not_the_version_it_remembers(tmp_path: Path) -> None:
    chain = chain_of(tmp_path)
    for change in (
        lambda state: state["b"].view(np.uint16).__setitem__(3, 1),
        lambda state: state.update(b=state["b"].reshape(8, 8)),
        lambda state: state.update(b=state["b"].view(np.int16)),
    ):
        state = states()[0]
        change(state)
        held = part(state).copy()
        held.version, held.chain = 0, chain.id
        with pytest.raises(td.WrongBaseError) as caught:
            chain.load_part(PART, 1, held=held)
        assert caught.value.rule == "TD-RDR-011"
        held.version = None  # no version has this part, so that the route starts from nothing
        assert bytes_of(chain.load_part(PART, 1, held=held)) == expected(1)


def test_a_part_that_is_widened_starts_from_nothing(tmp_path: Path) -> None:
    chain = chain_of(tmp_path)
    held = part(states()[0], ["b"]).copy()
    held.version, held.chain = 0, chain.id
    assert bytes_of(chain.load_part(PART, 1, held=held)) == expected(1)


def test_order_exponent_over_tensors_that_are_not_held(tmp_path: Path) -> None:
    chain = chain_of(tmp_path, order="exponent")
    with pytest.raises(td.UnsupportedError) as caught:
        chain.load_part(PART, 1, held=part(states()[0]))
    assert caught.value.rule == "TD-RDR-017"
    assert bytes_of(chain.load_part("abcd", 1, held=part(states()[0], list("abcd")))) == expected(1, list("abcd"))
    assert chain.read(1, "b").tobytes() == states()[1]["b"].tobytes(), "one tensor is read with what it needs"


@pytest.mark.parametrize("version", [0, 1])
def test_a_version_that_proves_no_part(tmp_path: Path, version: int) -> None:
    chain = edit(chain_of(tmp_path), version, lambda document: document.pop("tensor_fingerprints"))
    with pytest.raises(td.UnsupportedError) as caught:
        held = part(states()[0]).copy()
        held.version, held.chain = 0, chain.id
        chain.load_part(PART, 1, held=held)
    assert caught.value.rule == "TD-RDR-013"


def test_a_part_keeps_to_the_budget(tmp_path: Path) -> None:
    chain = chain_of(tmp_path)
    with pytest.raises(td.LimitError):
        td.open(chain.address, threads=1, memory=100).load_part(PART, 1)


# -- one tensor -----------------------------------------------------------------------------------------------------


@EACH
def test_every_tensor_can_be_read_alone(chain: Good) -> None:
    opened = open_chain(chain.builder)
    for version, model in list(chain.builder.models.items())[-3:]:
        state = as_state(model)
        for name in list(model)[:8]:
            array = opened.read(version, name)
            assert array.dtype == state[name].dtype and array.shape == state[name].shape
            assert array.tobytes() == state[name].tobytes(), (version, name)


def chain_of_one_pack_a_tensor() -> Builder:
    rng = gallery.Random(3)
    builder = Builder()
    model: Model = {name: gallery.weights(rng, (30, 10)) for name in "abc"}
    layout = builder.layout(model)
    for version in range(3):
        before = builder.models.get(version - 1, {})
        chunks = gallery.delta_chunks(before, model) if version else gallery.full_chunks(model)
        packs = [gallery.of_chunks([each], layout) for each in chunks]
        builder.edge(version, model, packs, base=version - 1 if version else None)
        model = gallery.stepped(rng, model)
    return builder


def test_one_tensor_costs_its_own_packs() -> None:
    builder = chain_of_one_pack_a_tensor()
    chain = open_chain(builder)
    assert chain.read(2, "b").tobytes() == builder.models[2]["b"].words.tobytes()
    wanted = {builder.pack_names(version)[1] for version in range(3)}
    assert {name for name in chain.store.reads if name.startswith("packs/")} == wanted


def test_one_tensor_is_proven_by_its_own_fingerprint() -> None:
    """A pack that makes other words than the version has, under a chunk fingerprint and digest of its own."""
    builder = chain_of_one_pack_a_tensor()
    other = {**builder.models[2], "b": gallery.changed(gallery.Random(9), builder.models[2]["b"])}
    wrong = gallery.chunk_for(builder.models[1], other, "b")
    entries = [dict(entry) for entry in builder.manifests[2]["packs"]]
    entries[1] = builder.store(gallery.of_chunks([wrong], builder.manifests[2]["layout"]))
    builder.put(gallery.manifest_name(2), gallery.dumps({**builder.manifests[2], "packs": entries}))
    chain = open_chain(builder)
    with pytest.raises(td.IntegrityError) as caught:
        chain.read(2, "b")
    assert caught.value.rule == "TD-RDR-012"
    assert chain.read(2, "a").tobytes() == builder.models[2]["a"].words.tobytes()
    with pytest.raises(td.IntegrityError):
        chain.load(2)


def test_one_tensor_without_fingerprints_costs_the_whole_version() -> None:
    builder = good_chain("no-tensor-fingerprints")
    chain = open_chain(builder)
    assert chain.read(3, "c.ids").tobytes() == builder.models[3]["c.ids"].words.tobytes()


def test_one_tensor_is_found_past_a_lost_pack_and_without_fingerprints() -> None:
    """The cheapest route has lost its pack, the other cannot prove a part: the whole version still can be had."""
    builder = Builder()
    rng = gallery.Random(4)
    model = gallery.small(rng)
    builder.full(0, model, fingerprints=False)
    after = gallery.stepped(rng, model, 0.02)
    builder.delta(1, after, 0)
    lost = builder.full(1, after, shortcut="")["packs"][0]
    objects = dict(builder.objects)
    builder.objects.pop(builder.pack_names(1)[0])
    assert open_chain(builder).read(1, "a.weight").tobytes() == after["a.weight"].words.tobytes()
    builder.objects = objects
    builder.objects.pop(lost["path"])
    assert open_chain(builder).read(1, "a.weight").tobytes() == after["a.weight"].words.tobytes()


def test_the_versions_own_manifest_proves_what_a_shortcut_made() -> None:
    """A shortcut that names no fingerprints object is proven by the manifest's."""
    builder = chain_of_one_pack_a_tensor()
    packs = [
        gallery.of_chunks([each], builder.layout(builder.models[2])) for each in gallery.full_chunks(builder.models[2])
    ]
    builder.edge(2, builder.models[2], packs, shortcut="", fingerprints=False)
    for version in (0, 1):
        builder.remove(gallery.manifest_name(version))
    chain = open_chain(builder)
    assert chain.read(2, "c").tobytes() == builder.models[2]["c"].words.tobytes()
    assert len({name for name in chain.store.reads if name.startswith("packs/")}) == 1


def test_a_tensor_that_there_is_not() -> None:
    with pytest.raises(td.MissingError):
        open_chain(good_chain("packs")).read(0, "nothing")


def test_reading_one_tensor_keeps_to_the_budget() -> None:
    builder = Builder()
    builder.full(0, {"w": gallery.tensor("U8", (1,), 1)})
    layout = builder.layout(
        {}, hook=lambda document: document["tensors"].append({"name": "huge", "dtype": "F64", "shape": [2**48]})
    )
    fingerprints = bytes(8)
    builder.put(f"fingerprints/{gallery.digest(fingerprints)}.bin", fingerprints)
    builder.edge(1, {}, [], layout=layout, tensor_fingerprints=gallery.digest(fingerprints))
    with pytest.raises(td.LimitError):
        open_chain(builder).read(1, "huge")
