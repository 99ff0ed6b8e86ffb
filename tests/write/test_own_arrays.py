"""What a user gives: errors speak of it, name the tensor, and say what to do; and states compare by their bits."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import tensordelta as td

W = np.ones(2, np.float32)


class Tensor:
    """A framework's tensor that numpy gets no array from; each framework raises an error of its own."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __array__(self, *arguments: object, **keywords: object) -> np.ndarray:
        raise self.error


ERRORS = [
    TypeError("Got unsupported ScalarType BFloat16"),
    RuntimeError("Can't call numpy() on Tensor that requires grad"),
    BufferError("no buffer"),
    NotImplementedError("not on this device"),
]

Give = Callable[[td.Chain, Any], object]


def publish(chain: td.Chain, arrays: Any) -> object:
    return chain.publish(arrays)


def submit(chain: td.Chain, arrays: Any) -> object:
    with chain.publisher(skip=()) as publisher:
        return publisher.submit(arrays)


def compare(chain: td.Chain, arrays: Any) -> object:
    return td.diff(arrays, {"w": W})


def prepare(chain: td.Chain, arrays: Any) -> object:
    return chain.prepare(arrays)


def draft(chain: td.Chain, arrays: Any) -> object:
    return chain.draft(arrays)


GIVEN: list[Give] = [publish, submit, compare, prepare]


@pytest.mark.parametrize("give", [*GIVEN, draft], ids=lambda give: give.__name__)
@pytest.mark.parametrize("name", ["", "__metadata__", "x" * 2000, "\ud800", 0, ("a", "b"), None, b"w"])
def test_a_name_that_the_format_does_not_have(chain: td.Chain, name: Any, give: Give) -> None:
    with pytest.raises(ValueError) as caught:
        give(chain, {name: W, "w": W})
    text = str(caught.value)
    assert repr(name)[1:40] in text or "__metadata__" in text or "has 0 bytes" in text
    assert "report it" not in text and chain.versions() == []


@pytest.mark.parametrize("shape", [(1,) * 17, (0, 2**50)])
def test_a_shape_that_the_format_does_not_have(chain: td.Chain, shape: tuple[int, ...]) -> None:
    with pytest.raises(td.LimitError) as caught:
        chain.publish({"w": np.zeros(shape, np.float32)})
    assert "'w'" in caught.value.reason and "memory budget" not in caught.value.advice


@pytest.mark.parametrize("give", GIVEN, ids=lambda give: give.__name__)
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_tensor_that_gives_no_array_is_named(chain: td.Chain, error: Exception, give: Give) -> None:
    with pytest.raises(ValueError, match=r"'lm_head\.weight': numpy gets no array of a Tensor") as caught:
        give(chain, {"w": W, "lm_head.weight": Tensor(error)})
    assert str(error) in str(caught.value)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_tensor_that_gives_no_array_is_named_in_a_draft(chain: td.Chain, error: Exception) -> None:
    opened = chain.draft({"lm_head.weight": W})
    for given in (Tensor(error), td.Slice(Tensor(error), 0), [td.Slice(Tensor(error), 0)]):
        with pytest.raises(ValueError, match=r"'lm_head\.weight'"):
            opened.encode({"lm_head.weight": given})
    with pytest.raises(ValueError, match=r"'lm_head\.weight'"):
        chain.draft({"lm_head.weight": Tensor(error)})


@pytest.mark.parametrize("give", [publish, submit, compare], ids=lambda give: give.__name__)
@pytest.mark.parametrize("what", [None, 3, W, [W, W], ["w"], [("w", W, W)], object()], ids=lambda what: repr(what)[:20])
def test_what_has_no_names(chain: td.Chain, what: Any, give: Give) -> None:
    with pytest.raises(ValueError, match="by name"):
        give(chain, what)


def test_two_arrays_of_one_name(chain: td.Chain) -> None:
    with pytest.raises(ValueError, match="two arrays are named 'w'"):
        chain.publish([("w", W), ("w", W + 1)])


def test_an_error_of_a_generator_stays_what_it_is(chain: td.Chain) -> None:
    def weights() -> Any:
        yield "w", W
        raise TypeError("of the trainer")

    with pytest.raises(TypeError, match="of the trainer"):
        chain.publish(weights())


@pytest.mark.parametrize(
    "given",
    [
        {"annotations": {"k": "x" * 5000}},
        {"annotations": {str(number): "" for number in range(65)}},
        {"annotations": {"k": "\ud800"}},
        {"files": {"../config.json": b""}},
        {"files": {"a b": b""}},
        {"files": {"x" * 201: b""}},
    ],
    ids=repr,
)
def test_a_description_that_the_format_does_not_have(chain: td.Chain, given: dict[str, Any]) -> None:
    """It is refused before anything is put, and nobody else is to blame."""
    opened = chain.draft({"w": W})
    found = opened.encode({"w": W})
    before = sorted(Path(chain.address).rglob("*"))
    for act in (lambda: chain.publish({"w": W}, **given), lambda: opened.commit([found], **given)):
        with pytest.raises((td.MalformedError, td.LimitError)) as caught:
            act()
        assert caught.value.advice.startswith("Give other ")
    assert sorted(Path(chain.address).rglob("*")) == before


# -- equality ----------------------------------------------------------------------------------------------------------


def test_states_are_equal_where_their_bits_are(chain: td.Chain, tmp_path: Path) -> None:
    nan = np.array([np.nan, -0.0, 1], ml_dtypes.bfloat16)
    arrays = {"w": nan, "e": np.zeros((0, 3), np.int8)}
    state = td.State.from_arrays(arrays)
    chain.publish(state)
    state.save(tmp_path / "x.safetensors")
    mapped = td.read_state(tmp_path / "x.safetensors")
    for other in (chain.load(), state, state.copy(), copy.deepcopy(mapped), mapped, arrays):
        assert state == other and other == state and mapped == other
        assert not (state != other), "the other operator agrees"  # noqa: SIM202
    others = [
        {**arrays, "w": np.array([np.nan, 0.0, 1], ml_dtypes.bfloat16)},
        {**arrays, "w": nan.astype(np.float16)},
        {**arrays, "w": nan.reshape(3, 1)},
        {"w": nan},
        {**arrays, "more": nan},
        {},
        {"w": "text"},
        {0: nan},
    ]
    for unequal in others:
        assert state != unequal and unequal != state and mapped != unequal
    assert state != 3 and state is not None and state != "w"
    assert state in [None, mapped] and td.State.empty() == {}


def test_patches_and_pieces_are_equal_where_their_bits_are(chain: td.Chain) -> None:
    chain.publish({"w": np.zeros(3, np.float32)})
    chain.publish({"w": np.array([0, np.nan, -0.0], np.float32)})
    one, two = (next(iter(chain.prepare(chain.load(0)).patches())) for _ in range(2))
    other = td.Patch(one.name, one.shape, one.dtype, one.indices, np.array([np.nan, 0.0], np.float32))
    assert one == two and one != other and one != "w"
    new = np.array([1, 2], np.uint32)
    piece = td.Piece(0, 0, 2, None, None, new)
    assert piece == td.Piece(0, 0, 2, None, None, new.copy())
    for unequal in (
        td.Piece(0, 0, 2, np.arange(2), None, new),
        td.Piece(0, 0, 2, None, new, new),
        td.Piece(0, 0, 2, None, None, new + 1),
        td.Piece(1, 0, 2, None, None, new),
        None,
    ):
        assert piece != unequal
