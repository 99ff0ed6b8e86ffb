"""States: what a user holds, and what files make of it."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import threading
from collections.abc import Callable
from pathlib import Path

import gallery
import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from gallery import as_state

import tensordelta as td
from tensordelta.state.state import State

#: numpy's dtypes, by the format's names; packed dtypes have none.
NUMPY = {
    "F64": np.float64,
    "C64": np.complex64,
    "I64": np.int64,
    "U64": np.uint64,
    "F32": np.float32,
    "I32": np.int32,
    "U32": np.uint32,
    "BF16": ml_dtypes.bfloat16,
    "F16": np.float16,
    "I16": np.int16,
    "U16": np.uint16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
    "F8_E8M0": ml_dtypes.float8_e8m0fnu,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
PACKED = {"F4": 2, "F6_E2M3": 4, "F6_E3M2": 4}
#: What the loader of the safetensors package gives to numpy.
LOADED = ("F64", "C64", "I64", "U64", "F32", "I32", "U32", "F16", "I16", "U16", "I8", "U8", "BOOL")


def random_array(dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    kind = np.dtype(NUMPY[dtype])
    count = int(np.prod(shape)) * kind.itemsize
    return np.random.default_rng(1).integers(0, 256, count, np.uint8).view(kind).reshape(shape)


def every_dtype() -> State:
    rng = gallery.Random(2)
    return as_state({f"t.{dtype}": gallery.random_tensor(rng, dtype, (3, 5, 8)) for dtype in gallery.DTYPES})


# -- arrays ---------------------------------------------------------------------------------------------------------


def test_every_dtype_has_its_array() -> None:
    assert NUMPY.keys() | PACKED.keys() == gallery.DTYPES.keys()


@pytest.mark.parametrize("dtype", NUMPY)
def test_arrays_of_every_dtype(dtype: str) -> None:
    for shape in ((4, 3), (), (0,), (2, 0, 3), (1, 1)):
        array = random_array(dtype, shape)
        state = State.from_arrays({"x": array})
        tensor = state.layout.tensors[0]
        assert (tensor.dtype, tensor.shape, tensor.words, tensor.nbytes) == (dtype, shape, array.size, array.nbytes)
        assert state["x"].dtype == array.dtype and state["x"].shape == shape
        assert state["x"].tobytes() == array.tobytes() == state.words(0).tobytes()
        assert np.shares_memory(state["x"], array) or not array.size
        assert state.fingerprint() == f"{gallery.tensor_fingerprint('x', state.words(0)):016x}"


@pytest.mark.parametrize("dtype", PACKED)
def test_packed_dtypes_lie_in_bytes(dtype: str) -> None:
    bits = gallery.DTYPES[dtype][0]
    rows = np.arange(24, dtype=np.uint8).reshape(4, 6)
    state = State.from_arrays({"x": rows}, dtypes={"x": dtype})
    assert state.layout.tensors[0].shape == (4, 6 * 8 // bits)
    assert state["x"].dtype == np.uint8 and state["x"].shape == (4, 6)
    assert np.shares_memory(state["x"], rows)
    assert state.fingerprint() == State.from_arrays({"x": rows}).fingerprint(), "words are the bytes"
    odd = gallery.Tensor(dtype, (8, 3), np.arange(24 * bits // 8, dtype=np.uint8))
    assert as_state({"x": odd})["x"].tobytes() == odd.words.tobytes(), "rows that end within a byte are seen flat"


@pytest.mark.parametrize(
    ("array", "dtype"),
    [
        (np.zeros((2, 4), np.uint8), "F5"),
        (np.zeros((2, 4), np.uint8), "U16"),
        (np.zeros((2, 4), np.int8), "F4"),
        (np.zeros((2, 4), np.uint8), "F6_E2M3"),
        (np.zeros((), np.uint8), "F4"),
    ],
)
def test_packed_dtypes_of_other_arrays(array: np.ndarray, dtype: str) -> None:
    with pytest.raises(ValueError, match=dtype):
        State.from_arrays({"x": array}, dtypes={"x": dtype})


@pytest.mark.parametrize("dtype", ["complex128", "object", "datetime64[s]", "S4", ml_dtypes.int4])
def test_dtypes_that_the_format_lacks(dtype: object) -> None:
    with pytest.raises(ValueError, match="no counterpart"):
        State.from_arrays({"x": np.zeros(2, dtype)})  # type: ignore[call-overload]


def test_names_and_shapes_that_the_format_lacks() -> None:
    array = np.zeros(2, np.float32)
    for name in ("", "__metadata__", "x" * 1025, "é" * 513):
        with pytest.raises(td.MalformedError):
            State.from_arrays({name: array})
    with pytest.raises(td.LimitError):
        State.from_arrays({"x": np.zeros((1,) * 17, np.float32)})


def test_tensors_are_in_the_order_of_their_bytes() -> None:
    names = ["\U00010000", "\uffff", "é", "e\u0301", "b", "a.b", "a"]
    state = State.from_arrays({name: np.zeros(1, np.uint8) for name in names})
    assert list(state) == [tensor.name for tensor in state.layout.tensors] == sorted(names, key=str.encode)
    assert len(state) == len(names) and "é" in state and "E" not in state
    with pytest.raises(KeyError):
        state["E"]


def test_arrays_that_are_not_contiguous_are_copied() -> None:
    array = np.arange(12, dtype=np.int32).reshape(3, 4)
    for view in (array.T, array[:, ::2], array.astype(">i4")):
        state = State.from_arrays({"x": view})
        assert state["x"].tolist() == view.tolist() and state["x"].dtype == np.int32
        assert not np.shares_memory(state["x"], array)


def test_arrays_stay_the_users_to_write() -> None:
    array = np.zeros(4, np.float32)
    state = State.from_arrays({"x": array})
    assert not state.known
    assert state.fingerprint() == "0" * 16
    array[1] = -0.0
    assert state.fingerprint() != "0" * 16, "a fingerprint of arrays is never remembered"
    state["x"][1] = 0.0
    assert array.tobytes() == bytes(16) and state.fingerprint() == "0" * 16


def test_what_a_chain_gave_is_read_only() -> None:
    chain = gallery.open_chain(gallery.good_chain("dtypes"))
    for state in (chain.load(1), chain.load(1).copy(), as_state(gallery.good_chain("dtypes").models[1])):
        assert state.known or state.fingerprint()
        for array in state.values():
            with pytest.raises(ValueError, match="read-only"):
                array[...] = array
    state = chain.load(1)
    state["t.f32"].copy()[...] = 1  # a copy is one's own
    assert state.equals(chain.load(1))


def test_copies_are_states_of_their_own() -> None:
    chain = gallery.open_chain(gallery.good_chain("shortcuts"))
    state = chain.load(1)
    other = state.copy()
    assert other.equals(state) and (other.version, other.chain, other.known) == (1, chain.id, True)
    assert not any(np.shares_memory(state[name], other[name]) for name in state)
    chain.prepare(other, 3).apply()
    assert state.equals(chain.load(1)) and other.equals(chain.load(3))
    array = np.zeros(3, np.uint8)
    copied = State.from_arrays({"x": array}).copy()
    array[:] = 1
    assert copied["x"].tolist() == [0, 0, 0]


# -- equality and fingerprints --------------------------------------------------------------------------------------


def test_equality_is_of_bits() -> None:
    def of(value: float, dtype: object = np.float32) -> State:
        return State.from_arrays({"x": np.array([value, 1.0], dtype)})  # type: ignore[call-overload]

    assert of(np.nan).equals(of(np.nan))
    assert not of(0.0).equals(of(-0.0))
    assert not of(1.0).equals(of(1.0, np.float16))
    assert not of(1.0).equals(State.from_arrays({"y": np.ones(2, np.float32)}))
    assert not of(1.0).equals(State.from_arrays({"x": np.ones((2, 1), np.float32)}))
    assert not of(1.0).equals(State.empty())
    assert State.empty().equals(State.from_arrays({}))
    quiet, other = np.array([0x7FC00000, 0x7FC00001], np.uint32).view(np.float32)
    assert not of(quiet).equals(of(other)), "payloads of NaN are words"


def _words(dtype: str, *words: int, shape: tuple[int, ...] | None = None) -> gallery.Tensor:
    return gallery.tensor(dtype, shape or (len(words),), list(words))


def _one_at(dtype: str, count: int, place: int, word: int) -> gallery.Tensor:
    made = gallery.tensor(dtype, (count,))
    made.words[place] = word
    return made


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ({}, "0000000000000000"),
        ({"w": _words("U8", 1)}, "06b0e25fa27a0ddf"),
        ({"w": _words("U16", 1)}, "06b0e25fa27a0ddf"),
        ({"w": _words("U16", 0, 1)}, "e4582d4b0bbbb791"),
        ({"w": _words("U32", 0x10000)}, "e4582d4b0bbbb791"),
        ({"w": _words("U8", 0, 0, 0xFF)}, "22c5a6a86cb03e01"),
        ({"w": _words("F8_E4M3", 0x38, 0xB8)}, "961212dbf99ef900"),
        ({"w": _words("F4", 0x21, 0x43, shape=(4,))}, "9fe108f803dcd4b2"),
        ({"w": _words("U64", 0x0001000200030004)}, "e03d6fa0563506aa"),
        ({"w": _one_at("U8", 65537, 65536, 1)}, "20ccf4e39b5c78e7"),
        ({"w": _words("BF16", 0x3F80, 0, 0xBF80)}, "1838f607cecf9100"),
        ({"w": _words("F32", 0x3F800000, 0x80000000)}, "3960cde52346f780"),
        ({"é": _words("U8", 1, 0xFF)}, "3cce9ccab0fc774a"),
        (
            {
                "a": _words("BF16", 0x3F80, 0, 0xBF80),
                "b": _words("F32", 0x3F800000, 0x80000000),
                "é": _words("U8", 1, 0xFF),
            },
            "f87480fe356892ca",
        ),
        ({"w": _one_at("U64", 16385, 16384, 0x0001000200030004)}, "a151bb2508fc8d5a"),
    ],
)
def test_fingerprints_of_the_specification(model: gallery.Model, expected: str) -> None:
    """The table of appendix A.8; the gallery's own arithmetic is held to it as well."""
    assert as_state(model).fingerprint() == expected
    assert gallery.fingerprint(model) == expected


def test_threads_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tensordelta.state.state._SCAN", 1000)  # parts that end within a block of coefficients
    model = gallery.good_chain("sparse-and-long").models[0]
    for threads in (1, 4):
        assert as_state(model).fingerprint(threads=threads) == gallery.fingerprint(model)


# -- files ----------------------------------------------------------------------------------------------------------


def test_a_state_goes_through_a_file(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    for state in (
        every_dtype(),
        State.empty(),
        as_state(gallery.good_chain("scalars-and-zero-sizes").models[0]),
        as_state(gallery.good_chain("fitting").models[6]),
    ):
        state.save(path, metadata={"format": "pt", "é": "\n"})
        again = td.read_state(path)
        assert again.equals(state) and again.fingerprint() == state.fingerprint()
        with safetensors.safe_open(path, "np") as file:
            assert sorted(file.keys()) == sorted(state)
            assert file.metadata() == {"format": "pt", "é": "\n"}
            for tensor in state.layout.tensors:
                part = file.get_slice(tensor.name)
                assert (part.get_dtype(), tuple(part.get_shape())) == (tensor.dtype, tensor.shape)
                if tensor.dtype in LOADED:
                    array = file.get_tensor(tensor.name)
                    assert array.dtype == NUMPY[tensor.dtype] and array.tobytes() == state[tensor.name].tobytes()
    assert [each.name for each in tmp_path.iterdir()] == ["state.safetensors"], "nothing else is left beside it"


def test_a_saved_state_is_aligned(tmp_path: Path) -> None:
    """Every tensor begins where its dtype may be mapped, whatever the names."""
    path = tmp_path / "state.safetensors"
    rng = gallery.Random(3)
    model = {f"{i:02d}": gallery.random_tensor(rng, dtype, (4, 1)) for i, dtype in enumerate(gallery.DTYPES)}
    as_state(model).save(path)
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    assert start % 8 == 0
    mapped = td.read_state(path)
    for index in range(len(mapped.layout)):
        assert mapped.words(index).flags.aligned


def test_the_same_state_makes_the_same_file(tmp_path: Path) -> None:
    one, two = tmp_path / "1", tmp_path / "2"
    arrays = {"b": np.ones(3, np.float32), "a": np.zeros((2, 2), np.int8), "c": np.ones(1, np.float64)}
    State.from_arrays(arrays).save(one)
    State.from_arrays(dict(reversed(arrays.items()))).save(two)
    assert one.read_bytes() == two.read_bytes()


def test_files_of_the_safetensors_package_are_read(tmp_path: Path) -> None:
    arrays = {dtype: random_array(dtype, (3, 2)) for dtype in LOADED}
    safetensors.numpy.save_file(arrays, tmp_path / "x.safetensors", metadata={"format": "np"})
    assert td.read_state(tmp_path / "x.safetensors").equals(State.from_arrays(arrays))


def test_a_state_that_fails_to_be_saved_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.safetensors"
    first = State.from_arrays({"x": np.ones(3, np.uint8)})
    first.save(path)

    def fail(*_: object) -> None:
        raise OSError(28, "no space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="no space"):
        State.from_arrays({"x": np.zeros(9, np.uint8)}).save(path)
    assert td.read_state(path).equals(first)
    assert [each.name for each in tmp_path.iterdir()] == ["x.safetensors"]


@pytest.mark.parametrize(
    "start",
    [threading.Thread, pytest.param(multiprocessing.get_context("spawn").Process, marks=pytest.mark.slow)],
    ids=["threads", "processes"],
)
def test_savers_of_one_path(tmp_path: Path, start: Callable[..., threading.Thread]) -> None:
    """Threads have one process id, and so may processes of two containers: none takes another one's temporary file."""
    path = tmp_path / "out.safetensors"
    savers = [start(target=_save_often, args=(path, value)) for value in (1, 2)]
    for saver in savers:
        saver.start()
    found = set()
    while any(saver.is_alive() for saver in savers):
        if path.exists():
            state = td.read_state(path)
            found.add(tuple({float(array[at]) for array in state.values() for at in (0, -1)}))
    for saver in savers:
        saver.join()
    assert found <= {(1.0,), (2.0,)}, found
    assert not (tmp_path / "error").exists(), (tmp_path / "error").read_text()
    assert [each.name for each in tmp_path.iterdir()] == ["out.safetensors"]


def _save_often(path: Path, value: int) -> None:
    state = td.State.from_arrays({f"t{index}": np.full(50_000, value, np.float32) for index in range(20)})
    try:
        for _ in range(15):
            state.save(path)
    except Exception as error:
        path.with_name("error").write_text(repr(error))


def test_a_state_of_mapped_files_is_not_written_to(tmp_path: Path) -> None:
    builder = gallery.good_chain("shortcuts")
    chain = gallery.open_chain(builder)
    path = tmp_path / "0.safetensors"
    chain.load(0).save(path)
    data = path.read_bytes()
    state = td.read_state(path)
    update = chain.prepare(state, 1)
    with pytest.raises(ValueError, match="read-only"):
        update.apply()
    assert path.read_bytes() == data and state.equals(as_state(builder.models[0]))
    mine = state.copy()
    chain.prepare(mine, 1).apply()
    assert mine.equals(as_state(builder.models[1])) and path.read_bytes() == data


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", td.MalformedError),
        (b"1234567", td.MalformedError),
        (bytes(8), td.MalformedError),
        (b"\xff" * 8, td.LimitError),
        (gallery.safetensors(b"[]", b""), td.MalformedError),
        (
            gallery.safetensors({"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, bytes(4)),
            td.MalformedError,
        ),
        (
            gallery.safetensors({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, bytes(5)),
            td.MalformedError,
        ),
        (
            gallery.safetensors({"x": {"dtype": "Q4", "shape": [4], "data_offsets": [0, 4]}}, bytes(4)),
            td.UnsupportedError,
        ),
    ],
)
def test_files_that_are_no_checkpoint(data: bytes, error: type[td.TensorDeltaError], tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    with pytest.raises(error) as caught:
        td.read_state(path)
    assert caught.value.object == str(path)


def test_no_file_at_all(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.safetensors", tmp_path):
        with pytest.raises(td.MissingError):
            td.read_state(path)


# -- states that travel ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("travel", [copy.deepcopy, lambda state: pickle.loads(pickle.dumps(state))])
def test_a_state_travels_with_what_it_knows(travel: Callable[[State], State]) -> None:
    """To another process, for instance: it is still the version that it was, and updates go on from there."""
    chain = gallery.open_chain(gallery.good_chain("packs"))
    held = chain.load(0)
    other = travel(held)
    assert other.equals(held) and (other.version, other.chain) == (held.version, held.chain)
    chain.prepare(other, 1).apply()
    assert other.equals(chain.load(1)) and held.equals(chain.load(0))


# -- how a state shows itself ---------------------------------------------------------------------------------------


def test_a_state_shows_itself() -> None:
    state = State.from_arrays({"<b>": np.zeros((2, 3), np.float32)})
    assert repr(state) == "State(1 tensors, 6 words, 24 bytes)"
    assert "&lt;b&gt;" in state._repr_html_() and "<b>" not in state._repr_html_()
    many = State.from_arrays({f"{i:03d}": np.zeros(1, np.uint8) for i in range(60)})
    assert "… 40 more" in many._repr_html_() and "059" in many._repr_html_()
    assert "version 1" in repr(gallery.open_chain(gallery.good_chain("packs")).load(1))
