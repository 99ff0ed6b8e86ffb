"""Words that are held and that changed in memory, and what an update says of them (SPEC.md section 8.3)."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import tensordelta as td
from tensordelta.codecs.words import Words
from tensordelta.write.encoder import Values

_LISTED = np.arange(0, 4096, 5)


def held_words(state: td.State) -> Words:
    """The words of the only tensor of a state, to write into as a fault of the memory does."""
    words = state.words(0)
    return words if words.flags.writeable else words.base  # type: ignore[return-value]


@pytest.fixture(params=["bfloat16", "float32", "uint8", "float64"])
def before(request: pytest.FixtureRequest) -> np.ndarray:
    dtype = np.dtype(ml_dtypes.bfloat16 if request.param == "bfloat16" else request.param)
    return (100 * np.random.default_rng(0).standard_normal(4096)).astype(np.int64).astype(dtype)


@pytest.mark.parametrize("values", ["step", "replace"])
def test_a_listed_word_that_changed_in_memory_is_noticed(tmp_path: Path, before: np.ndarray, values: Values) -> None:
    chain = td.open(tmp_path / "chain", create=True)
    chain.publish({"w": before})
    after = before.copy()
    after.view(f"u{after.itemsize}")[_LISTED] += 1
    chain.publish({"w": after}, values=values)
    rng = np.random.default_rng(1)
    for bit in range(8 * before.itemsize):
        state = chain.load(0)
        words = held_words(state)
        flipped = int(rng.choice(_LISTED))
        words[flipped] ^= words.dtype.type(1 << bit)
        with pytest.raises((td.WrongBaseError, td.IntegrityError)) as fault:
            chain.prepare(state, 1)
        # What steps make of the word is wrong as well, and only its chunk tells; a carry moves the other sum too.
        assert values == "replace" or fault.value.rule == "TD-CHK-024"
        assert values == "step" or fault.value.rule == "TD-RDR-007"
        words[flipped] ^= words.dtype.type(1 << bit)
        chain.prepare(state, 1).apply()
        assert state.equals(td.State.from_arrays({"w": after}))


def test_the_error_names_the_chunk_and_says_what_to_do(tmp_path: Path) -> None:
    chain = td.open(tmp_path / "chain", create=True)
    chain.publish({"w": np.arange(100, dtype=np.uint16)})
    chain.publish({"w": np.arange(1, 101, dtype=np.uint16)})
    state = chain.load(0)
    held_words(state)[5] = 77
    with pytest.raises(td.WrongBaseError, match="chunk 0") as fault:
        chain.prepare(state, 1)
    assert "load the version again" in str(fault.value)
