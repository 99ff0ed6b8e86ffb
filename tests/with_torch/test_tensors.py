"""Torch tensors wherever arrays go: in, out, and updated in place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

torch = pytest.importorskip("torch", reason="torch is not installed")

import tensordelta as td  # noqa: E402
import tensordelta.torch as tdt  # noqa: E402
from tensordelta.codecs.words import DTYPES  # noqa: E402
from tensordelta.torch.tensors import _TORCH  # noqa: E402


def tensor_of(dtype: str, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """A tensor of random bits."""
    kind, rng = DTYPES[dtype], np.random.default_rng(seed)
    count = int(np.prod(shape))
    if dtype == "BOOL":
        return torch.from_numpy(rng.integers(0, 2, count).astype(bool)).reshape(shape)
    words = rng.integers(0, 256, count * kind.word.itemsize, dtype=np.uint8).view(kind.word)
    return torch.from_numpy(words).view(_TORCH[dtype]).reshape(shape)


def bits(tensor: torch.Tensor) -> bytes:
    whole = torch.empty(tensor.numel(), dtype=tensor.dtype).copy_(tensor.detach().reshape(-1))
    return whole.view(torch.uint8).numpy().tobytes() if len(whole) else b""


def changed(tensor: torch.Tensor, seed: int) -> torch.Tensor:
    """A copy with some other words."""
    copy = tensor.detach().clone(memory_format=torch.contiguous_format)
    words = copy.reshape(-1).view(torch.uint8)
    if len(words):
        at = torch.from_numpy(np.random.default_rng(seed).integers(0, len(words), max(1, len(words) // 50)))
        words[at] ^= 1
    return copy


def arranged(tensor: torch.Tensor, how: str) -> torch.Tensor:
    """The same values, stored in another way."""
    match how:
        case "transposed" if tensor.ndim >= 2:
            return tensor.transpose(0, 1).contiguous().transpose(0, 1)
        case "strided" if tensor.ndim >= 1:
            wide = torch.zeros((*tensor.shape[:-1], tensor.shape[-1] * 2), dtype=torch.uint8).to(tensor.dtype)
            wide[..., ::2].view(tensor.dtype).copy_(tensor)
            return wide[..., ::2]
        case "parameter" if tensor.is_floating_point():
            return torch.nn.Parameter(tensor.clone())
    return tensor.clone()


DTYPE = st.sampled_from([name for name in _TORCH if not DTYPES[name].packed])
SHAPE = st.lists(st.integers(0, 7), max_size=3).map(tuple)
HOW = st.sampled_from(["plain", "transposed", "strided", "parameter"])


@given(dtype=DTYPE, shape=SHAPE, how=HOW, seed=st.integers(0, 99))
@examples(300)
def test_a_tensor_as_an_array_and_back(dtype: str, shape: tuple[int, ...], how: str, seed: int) -> None:
    tensor = tensor_of(dtype, shape, seed)
    other = arranged(tensor, how)
    array = tdt.as_array(other)
    assert array.dtype == DTYPES[dtype].array and array.shape == shape
    assert np.ascontiguousarray(array).tobytes() == bits(tensor)
    back = tdt.from_array(array)
    assert back.dtype == tensor.dtype and bits(back) == bits(tensor) and back.shape == tensor.shape
    if other.is_contiguous() and other.numel():
        assert back.data_ptr() == other.data_ptr()


def model(seed: int) -> dict[str, torch.Tensor]:
    """Tensors of every dtype, stored in every way; `tied` is `bf16.plain` again."""
    made: dict[str, torch.Tensor] = {}
    for name in _TORCH:
        if DTYPES[name].packed or name in ("U16", "U32", "U64"):
            continue
        for how in ("plain", "transposed", "strided", "parameter"):
            made[f"{name}.{how}"] = arranged(tensor_of(name, (6, 40), seed), how)
    made["tied"] = made["BF16.plain"]
    return made


def test_states_of_tensors_and_of_arrays_are_one(tmp_path: Path) -> None:
    packs = []
    for convert in (lambda tensor: tensor, tdt.as_array):
        chain = td.open(tmp_path / str(len(packs)), create=True, chain="00000000-0000-0000-0000-000000000000")
        first = model(1)
        chain.publish({name: convert(each) for name, each in first.items()})
        chain.publish({name: convert(changed(each, 3)) for name, each in first.items()})
        assert chain.verify(deep=True).ok
        packs.append([entry.sha256 for version in (0, 1) for entry in chain.manifest(version).packs])
    assert packs[0] == packs[1]


def test_a_version_as_tensors(tmp_path: Path) -> None:
    chain = td.open(tmp_path / "chain", create=True)
    weights = model(2)
    chain.publish(weights)
    loaded = tdt.load(chain)
    assert loaded.keys() == weights.keys()
    for name, each in loaded.items():
        assert each.dtype == weights[name].dtype and each.shape == weights[name].shape and not each.requires_grad
        assert bits(each) == bits(weights[name])
    loaded["BF16.plain"].zero_()  # memory of its own
    assert bits(tdt.load(chain)["BF16.plain"]) == bits(weights["BF16.plain"])


def test_an_update_is_written_into_tensors(tmp_path: Path) -> None:
    chain = td.open(tmp_path / "chain", create=True)
    weights = model(3)
    following = {name: changed(each, 4) for name, each in weights.items() if name != "tied"}
    following["tied"] = following["BF16.plain"]
    chain.publish(weights)
    chain.publish(following)
    addresses = {name: each.data_ptr() for name, each in weights.items()}
    before = {name: bits(each) for name, each in weights.items()}
    update = chain.prepare(weights)
    assert update.base is None or update.route == ("manifests/000000000001.json",)
    assert len(update.route) == 1
    update.apply()
    assert {name: each.data_ptr() for name, each in weights.items()} == addresses
    assert all(bits(each) == bits(following[name]) for name, each in weights.items())
    update.undo()
    assert {name: bits(each) for name, each in weights.items()} == before
    chain.prepare(weights, 1).apply()
    assert all(bits(each) == bits(following[name]) for name, each in weights.items())
    assert not chain.prepare(weights).changed


def test_tensors_that_were_written_to_meanwhile(tmp_path: Path) -> None:
    chain = td.open(tmp_path / "chain", create=True)
    for how in ("plain", "transposed"):
        weights = {"w": arranged(tensor_of("BF16", (8, 8), 1), how)}
        following = {"w": weights["w"].clone()}
        following["w"][3, 5] += 1
        base = chain.publish(weights, full=True).version
        chain.publish(following)
        update = chain.prepare(weights)
        with torch.no_grad():
            weights["w"][3, 5] = 7
        with pytest.raises(td.WrongBaseError, match="written to"):
            update.apply()
        assert float(weights["w"][3, 5]) == 7
        assert base < chain.newest()


def test_tied_tensors_that_part(tmp_path: Path) -> None:
    chain = td.open(tmp_path / "chain", create=True)
    tied = torch.zeros(4, dtype=torch.bfloat16)
    chain.publish({"embed": tied, "head": tied})
    chain.publish({"embed": tied + 1, "head": tied + 2})
    update = chain.prepare({"embed": tied, "head": tied})
    with pytest.raises(ValueError, match="'embed' and 'head' are one tensor here, and differ in version 1"):
        update.apply()
    assert not tied.any()


def test_tensors_that_share_a_part_of_their_memory(tmp_path: Path) -> None:
    chain = td.open(tmp_path / "chain", create=True)
    whole = torch.zeros(8, dtype=torch.bfloat16)
    chain.publish({"a": whole[:6], "b": whole[2:]})
    with pytest.raises(ValueError, match="share memory"):
        chain.prepare({"a": whole[:6], "b": whole[2:]})


def test_a_layout_that_changes_puts_tensors_into_the_mapping(tmp_path: Path) -> None:
    chain = td.open(tmp_path / "chain", create=True)
    one = torch.ones(4, dtype=torch.bfloat16)
    chain.publish({"a": one, "b": one.clone()})
    chain.publish({"a": one, "c": torch.full((2, 2), 3, dtype=torch.float8_e4m3fn)}, layout_change=True)
    weights = {"a": one.clone(), "b": one.clone()}
    chain.prepare(weights).apply()
    assert weights.keys() == {"a", "c"}
    assert weights["c"].dtype == torch.float8_e4m3fn and weights["c"].shape == (2, 2)
    assert weights["c"].float().eq(3).all()


@pytest.mark.parametrize("numpy", [False, True])
def test_words_of_a_tensor_do_not_silently_lose_their_dtype(tmp_path: Path, numpy: bool) -> None:
    chain = td.open(tmp_path / "chain", create=True)
    weights = torch.ones(4, dtype=torch.bfloat16)
    words = weights.view(torch.uint16)
    seen = words.numpy()[:2] if numpy else words
    with pytest.raises(ValueError, match="tensor 'w' is a view of a tensor as uint16"):
        chain.publish({"w": seen})
    assert chain.versions() == []
    chain.publish(td.State.from_arrays({"w": seen}, dtypes={"w": "BF16"}))
    assert chain.layout().tensors[0].dtype == "BF16" and float(chain.load()["w"][0]) == 1


def test_packed_tensors(tmp_path: Path) -> None:
    chain = td.open(tmp_path / "chain", create=True)
    four = torch.arange(12, dtype=torch.uint8).reshape(2, 6).view(torch.float4_e2m1fn_x2)
    chain.publish({"w": four})
    assert (chain.layout().tensors[0].dtype, chain.layout().tensors[0].shape) == ("F4", (2, 12))
    loaded = tdt.load(chain)["w"]
    assert loaded.dtype == torch.float4_e2m1fn_x2 and loaded.shape == four.shape and bits(loaded) == bits(four)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.zeros(2, dtype=torch.bfloat16, device="meta"), "tensor 'w': .* `meta`"),
        (torch.zeros(2, dtype=torch.complex128), "tensor 'w': torch.complex128 has no counterpart"),
        ("text", "tensor 'w'"),
        (None, "tensor 'w' is a NoneType, no array"),
    ],
)
def test_what_is_no_tensor_of_the_format(tmp_path: Path, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        td.State.from_arrays({"w": value})


@pytest.mark.parametrize("model", [torch.nn.Linear(2, 3), torch.nn.Sequential(torch.nn.Linear(2, 3))], ids=str)
def test_a_model_instead_of_its_weights(tmp_path: Path, model: torch.nn.Module) -> None:
    chain = td.open(tmp_path / "chain", create=True)
    with pytest.raises(TypeError, match=r"is a model: .*, tensordelta\.torch\.named_weights\(model\)"):
        chain.publish(model)
    with chain.publisher() as publisher, pytest.raises(TypeError, match=r"named_weights\(model\)"):
        publisher.submit(model)
    assert chain.versions() == []
    chain.publish(model.state_dict())
    with pytest.raises(TypeError, match=r"model\.state_dict\(\)"):
        chain.prepare(model)


def test_a_dictionary_of_parameters(tmp_path: Path) -> None:
    chain = td.open(tmp_path / "chain", create=True)
    chain.publish(torch.nn.ParameterDict({"w": torch.nn.Parameter(torch.ones(3))}))
    assert chain.load()["w"].tolist() == [1, 1, 1]


def test_ranks_encode_tensors(tmp_path: Path) -> None:
    """A draft takes tensors wherever it takes arrays; where it cannot, the message names the tensor."""
    chain = td.open(tmp_path / "chain", create=True)
    whole = torch.arange(6, dtype=torch.bfloat16).reshape(2, 3)
    draft = chain.draft({"lm_head.weight": ("BF16", (2, 3))})
    found = [draft.encode({"lm_head.weight": td.Slice(whole[row], 3 * row)}) for row in range(2)]
    draft.commit(found)
    assert chain.load() == {"lm_head.weight": whole}
    assert chain.draft().encode({"lm_head.weight": whole}, {"lm_head.weight": whole})["packs"] == []
    with pytest.raises(ValueError, match=r"'lm_head\.weight'.*a pair such as"):
        chain.draft({"lm_head.weight": whole})
