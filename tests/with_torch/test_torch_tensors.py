"""Tensors as arrays and back, and versions as tensors, bit by bit."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from strategies import CHAIN, MemoryStore, examples, generators, random_words, states, tensors  # noqa: E402

import tensordelta as td  # noqa: E402
import tensordelta.torch as tdt  # noqa: E402
from tensordelta.codecs.words import DTYPES, to_array  # noqa: E402
from tensordelta.format.layout import Tensor  # noqa: E402
from tensordelta.torch.tensors import _TORCH  # noqa: E402

#: Torch has no dtype for the two of six bits.
KNOWN = tuple(_TORCH)


def test_torch_knows_all_dtypes_but_those_of_six_bits() -> None:
    assert set(DTYPES) - set(KNOWN) == {"F6_E2M3", "F6_E3M2"}


@examples(150)
@given(st.data(), generators)
def test_arrays_are_tensors_and_tensors_arrays(data: st.DataObject, rng: np.random.Generator) -> None:
    info: Tensor = data.draw(tensors("w", dtypes=KNOWN).filter(lambda each: not each.kind.packed or each.shape))
    words = random_words(rng, info.dtype, info.words)
    array = to_array(words, info.kind, info.shape)
    tensor = tdt.from_array(array, info.dtype)
    assert tensor.dtype == _TORCH[info.dtype] and tuple(tensor.shape) == array.shape
    back = tdt.as_array(tensor)
    assert back.dtype == array.dtype and back.shape == array.shape
    assert back.tobytes() == array.tobytes()
    if words.size:  # both are the same memory
        assert np.shares_memory(back, words)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float8_e4m3fn, torch.int64, torch.bool])
def test_any_tensor_is_an_array(dtype: object) -> None:
    plain = torch.randint(0, 2, (4, 6)).to(dtype)
    expected = tdt.as_array(plain)
    for tensor in (plain.t().contiguous().t(), plain.repeat(2, 1)[::2].repeat(1, 1)):
        assert tdt.as_array(tensor).shape == (4, 6)
    assert np.array_equal(tdt.as_array(plain.t()).view(np.uint8), np.ascontiguousarray(expected.T).view(np.uint8))


def test_gradients_and_views_are_seen_through() -> None:
    parameter = torch.nn.Parameter(torch.randn(3, 4))
    assert np.array_equal(tdt.as_array(parameter), parameter.detach().numpy())
    complex_ = torch.view_as_complex(torch.randn(3, 2))
    assert np.array_equal(tdt.as_array(complex_.conj()), complex_.numpy().conj())


def test_what_is_no_array_is_refused() -> None:
    with pytest.raises(ValueError, match="no memory"):
        tdt.as_array(torch.empty(3, device="meta"))
    with pytest.raises(ValueError, match="no counterpart"):
        tdt.as_array(torch.zeros(3, dtype=torch.complex128))


@examples(40)
@given(states(dtypes=KNOWN))
def test_versions_are_loaded_as_tensors(state: td.State) -> None:
    packed = [each for each in state.layout.tensors if each.kind.packed and (not each.shape or each.shape[-1] % 2)]
    if packed:
        return
    chain = td.open(MemoryStore(), create=True, chain=CHAIN, threads=1)
    chain.publish(state)
    loaded = tdt.load(chain)
    assert list(loaded) == [each.name for each in state.layout.tensors]
    for index, info in enumerate(state.layout.tensors):
        tensor = loaded[info.name]
        assert tensor.dtype == _TORCH[info.dtype]
        assert tdt.as_array(tensor).tobytes() == state.words(index).tobytes()
