"""A state whose words lie in tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed")

import torch

import tensordelta as td
import tensordelta.torch as tdt
from tensordelta.torch.device_state import TensorMemory

WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
DTYPES = [
    torch.bfloat16,
    torch.float16,
    torch.float32,
    torch.float64,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.int8,
    torch.uint8,
    torch.int64,
    torch.bool,
]


def words(tensor: Any) -> Any:
    return tensor.contiguous().view(WORDS[tensor.element_size()])


def model(seed: int = 0) -> dict[str, Any]:
    """A tensor of each dtype, any bit pattern of which NaN is one, with shapes that are odd."""
    rng = np.random.default_rng(seed)
    made = {}
    for number, dtype in enumerate(DTYPES):
        shape = [(7, 9), (33,), (), (3, 4, 5), (1, 6)][number % 5]
        high = 2 if dtype == torch.bool else 256
        size = int(np.prod(shape)) * dtype.itemsize
        raw = torch.from_numpy(rng.integers(0, high, size, np.uint8))
        made[str(dtype).removeprefix("torch.")] = raw.view(dtype).reshape(shape)
    return made


def changed(tensors: dict[str, Any], seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    after = {name: tensor.clone() for name, tensor in tensors.items()}
    for tensor in after.values():
        flat = tensor.reshape(-1).view(torch.uint8)
        flat[rng.integers(len(flat))] ^= 1
    return after


def chain_of(folder: Path, first: dict[str, Any], versions: int = 3) -> tuple[td.Chain, list[dict[str, Any]]]:
    chain = td.open(folder / "chain", create=True, threads=1)
    states = [first]
    chain.publish(first)
    for seed in range(versions):
        states.append(changed(states[-1], seed))
        chain.publish(states[-1], values="replace" if seed % 2 else "step")
    return chain, states


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(torch.equal(words(one[name]), words(other[name])) for name in other)


def test_tensors_of_every_dtype_follow_a_chain(tmp_path: Path) -> None:
    chain, states = chain_of(tmp_path, model())
    held = {name: tensor.clone() for name, tensor in states[0].items()}
    held["float32"] = torch.nn.Parameter(held["float32"])
    # Not contiguous, with another storage offset, inside a larger tensor.
    column = torch.zeros(9, 20, dtype=torch.bfloat16)
    column[:, 5:12] = states[0]["bfloat16"].T
    held["bfloat16"] = column[:, 5:12].T
    state = tdt.DeviceState.of(held)
    assert chain.identify(state) == 0
    for version in (1, 3, 0, 2):
        update = chain.prepare(state, version)
        update.apply()
        assert same(held, states[version])
        assert (state.version, state.fingerprint) == (version, chain.manifest(version).fingerprint)
    update.undo()
    assert same(held, states[0])
    assert column[:, :5].count_nonzero() == 0
    assert column[:, 12:].count_nonzero() == 0


def test_what_it_makes_is_what_an_update_of_arrays_makes(tmp_path: Path) -> None:
    chain, states = chain_of(tmp_path, model())
    held = {name: tensor.clone() for name, tensor in states[0].items()}
    state = tdt.DeviceState.of(held)
    chain.identify(state)
    chain.prepare(state, 3).apply()
    arrays = chain.load(3)
    for name, tensor in held.items():
        assert tdt.as_array(tensor).tobytes() == arrays[name].tobytes()


def test_tied_tensors_are_updated_once(tmp_path: Path) -> None:
    embed = torch.randn(11, 4).bfloat16()
    chain = td.open(tmp_path / "chain", create=True)
    chain.publish({"embed": embed.clone(), "head": embed.clone()})
    after = embed.clone()
    after[3] += 1
    chain.publish({"embed": after, "head": after.clone()})
    held = embed.clone()
    state = tdt.DeviceState.of({"embed": held, "head": held})
    assert chain.identify(state) == 0
    chain.prepare(state).apply()
    assert torch.equal(held, after)
    assert chain.identify(state) == 1


def test_tied_tensors_that_part_are_refused(tmp_path: Path) -> None:
    embed = torch.randn(11, 4).bfloat16()
    chain = td.open(tmp_path / "chain", create=True)
    chain.publish({"embed": embed.clone(), "head": embed.clone()})
    after = embed.clone()
    after[3] += 1
    chain.publish({"embed": after, "head": embed.clone()})
    held = embed.clone()
    state = tdt.DeviceState.of({"embed": held, "head": held})
    chain.identify(state)
    with pytest.raises(ValueError, match="'embed' and 'head' are one tensor here"):
        chain.prepare(state)
    assert torch.equal(held, embed)


def test_rows_and_columns_are_parts(tmp_path: Path) -> None:
    first = {"matrix": torch.randn(6, 8).bfloat16(), "bias": torch.randn(6)}
    chain, states = chain_of(tmp_path, first, 2)
    fused = torch.zeros(10, 8, dtype=torch.bfloat16)  # the matrix's rows lie in another tensor, in two places
    fused[1:4], fused[6:9] = first["matrix"][:3], first["matrix"][3:]
    bias = first["bias"].clone()
    state = tdt.DeviceState(
        chain.layout(0),
        {
            "matrix": [tdt.part_of(fused[1:4], 0, (8, 1)), tdt.part_of(fused[6:9], 24, (8, 1))],
            "bias": [tdt.whole(bias)],
        },
    )
    assert chain.identify(state) == 0
    chain.prepare(state, 2).apply()
    assert torch.equal(torch.cat([fused[1:4], fused[6:9]]), states[2]["matrix"])
    assert torch.equal(bias, states[2]["bias"])


def test_the_host_has_the_changes_only(tmp_path: Path) -> None:
    held = {"w": torch.zeros(1 << 22, dtype=torch.bfloat16)}
    chain = td.open(tmp_path / "chain", create=True)
    chain.publish(held)
    after = held["w"].clone()
    after[::1000] = 1
    chain.publish({"w": after})
    state = tdt.DeviceState.of(held)
    chain.identify(state)
    update = chain.prepare(state)
    assert update.changed == len(after[::1000])
    assert update.memory == update.changed * (8 + 2 + 2)
    update.apply()
    assert torch.equal(held["w"], after)


def test_a_shard_of_a_tensor_is_no_whole_tensor() -> None:
    class Sharded(torch.Tensor):
        def full_tensor(self) -> Any:
            raise AssertionError

    with pytest.raises(ValueError, match="'w' is a DTensor"):
        tdt.DeviceState.of({"w": torch.zeros(2).as_subclass(Sharded)})


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_memory_reads_and_writes_words_anywhere_in_a_storage(dtype: Any) -> None:
    tensor = torch.zeros(40, dtype=torch.uint8).view(dtype)[1:]
    memory = TensorMemory(tensor)
    places = np.array([1, 2])
    old = memory.take(places)
    new = old ^ old.dtype.type(1)
    write = memory.write(places, old, new)
    write.do()
    assert memory.take(places).tolist() == new.tolist()
    write.take_back()
    assert memory.take(places).tolist() == old.tolist()
