"""`chain[3]`: versions to look at, whose tensors are read when they are asked for."""

from __future__ import annotations

import pickle
from pathlib import Path

import gallery
import numpy as np
import pytest
from gallery import GOOD, Good, good_chain, open_chain

import tensordelta as td


def test_versions_by_number_and_from_the_end(run: td.Chain) -> None:
    assert len(run) == 6 and [version.version for version in run] == list(range(6))
    assert [version.version for version in reversed(run)] == list(range(6))[::-1]
    assert (run[3].version, run[-1].version, run[-6].version) == (3, 5, 0)
    assert 5 in run and 6 not in run and "5" not in run
    assert run[-1].annotations == {"step": "50"}


def test_numbers_count_where_versions_are_missing() -> None:
    builder = good_chain("retention")
    chain = open_chain(builder)
    versions = chain.versions()
    assert versions[0] > 0 and len(chain) == len(versions)
    assert chain[versions[0]].version == chain[-len(versions)].version == versions[0]
    with pytest.raises(td.MissingError):
        chain[0]


@pytest.mark.parametrize(("index", "error"), [(99, td.MissingError), (-7, td.MissingError), (True, TypeError)])
def test_what_is_no_version(run: td.Chain, index: int, error: type[Exception]) -> None:
    with pytest.raises(error):
        run[index]


@pytest.mark.parametrize("index", ["3", 3.0, slice(3)])
def test_what_is_no_number(run: td.Chain, index: object) -> None:
    with pytest.raises(TypeError, match=r"chain\[-1\]"):
        run[index]  # type: ignore[index]


def test_a_chain_without_versions_is_true_and_has_no_newest(tmp_path: Path) -> None:
    chain = td.open(tmp_path / "empty", create=True)
    assert chain and len(chain) == 0 and list(chain) == [] and 0 not in chain
    for index in (0, -1, -2):
        with pytest.raises(td.MissingError):
            chain[index]


@pytest.mark.parametrize("good", GOOD, ids=lambda good: good.name)
def test_every_tensor_is_that_of_the_state(good: Good) -> None:
    chain = open_chain(good.builder)
    for version in list(chain)[-2:]:
        state = gallery.as_state(good.builder.models[version.version])
        assert list(version) == list(state) and len(version) == len(state)
        for name in state:
            assert version[name].tobytes() == state[name].tobytes() and version[name].shape == state[name].shape
        assert version == state and state == version


def test_one_tensor_costs_what_touches_it() -> None:
    """Nothing but manifest and layout is read before; then only packs that may have words of the tensor."""
    builder = good_chain("plain")
    chain = open_chain(builder)
    version = chain[-1]
    name = next(iter(version))
    assert not [read for read in chain.store.reads if read.startswith("packs/")]
    assert version[name].flags.writeable
    layout, needed = version.layout, set()
    for number in range(version.version + 1):
        for entry in chain.manifest(number).packs:
            if entry.may_hold(chain.layout(number).index.get(name, -1)):
                needed.add(entry.path)
    read = {each for each in chain.store.reads if each.startswith("packs/")}
    assert read and read <= needed and layout is version.layout


def test_a_second_tensor_of_a_large_pack_is_not_a_second_reading(tmp_path: Path) -> None:
    """What was proven once is proven again block by block where it is read, and not as a whole."""
    rng = np.random.default_rng(0)
    stored = td.open(tmp_path / "run", create=True)
    stored.publish({f"w.{index}": rng.integers(0, 2**31, 1 << 20, np.int32) for index in range(4)})
    folder = stored._reader.store
    store = gallery.MemoryStore({name: folder.read(name) for name in folder.names("")})
    chain = td.open(store, threads=1)  # type: ignore[arg-type]
    (pack,) = (entry.path for entry in chain.manifest().packs)
    assert chain[0]["w.0"] is not None
    first = store.fetched[pack]
    assert chain[0]["w.3"].tobytes() == stored.load()["w.3"].tobytes()
    assert store.fetched[pack] - first < first / 2

    data = bytearray(store.objects[pack])
    data[len(data) // 2] ^= 1
    store.objects[pack] = bytes(data)
    with pytest.raises(td.IntegrityError):
        chain.read(0, "w.1"), chain.read(0, "w.2")


def test_versions_compare_by_their_bits(run: td.Chain) -> None:
    assert run[2] == run[2] and run[2] != run[3]
    assert run[2] == run.load(2) and run.load(2) == run[2] and run[2] != run.load(3)
    assert run[2] == dict(run.load(2)) and run[2] != {"embed": run[2]["embed"]} and run[2] != 2
    with pytest.raises(TypeError):
        hash(run[2])


def test_a_version_is_a_mapping(run: td.Chain) -> None:
    version = run[1]
    assert "embed" in version and "head" not in version and version.get("head") is None
    with pytest.raises(KeyError):
        version["head"]
    assert {name: array.tobytes() for name, array in version.items()} == {
        name: version[name].tobytes() for name in version
    }
    assert len(version.values()) == 3 and version.load() == run.load(1)
    assert pickle.loads(pickle.dumps(version)) == version
    assert "3 tensors" in repr(version) and "layers.10.w" in version._repr_html_()


def test_a_version_is_published_as_a_state_is(run: td.Chain, tmp_path: Path) -> None:
    other = td.open(tmp_path / "other", create=True)
    other.publish(run[2])
    assert other[0] == run[2]


def test_signed_versions_alone_are_seen(tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    key = "11" * 32
    td.open(tmp_path / "run", create=True, key=key).publish({"w": np.arange(3)})
    td.open(tmp_path / "run").publish({"w": np.arange(1, 4)})
    signed = td.open(tmp_path / "run", key=key)
    assert len(signed) == 1 and signed[-1].version == 0 and [each.version for each in signed] == [0]
    with pytest.raises(td.UntrustedError):
        signed[1]
