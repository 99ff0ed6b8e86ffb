"""The chain that the engines of the benchmark follow: a trained one, in parts that two ranks can share."""

from __future__ import annotations

import importlib.util
import json
import sys
from argparse import Namespace
from pathlib import Path
from types import ModuleType

import ml_dtypes
import numpy as np
import pytest

import tensordelta as td

BENCHMARKS = Path(__file__).parents[1] / "reference" / "benchmarks"
WIDTH, SIZE = 48, 16
CONFIG = {"hidden_size": WIDTH, "num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": SIZE}
SHAPES = {"q_proj": (9 * SIZE, WIDTH), "k_proj": (3 * SIZE, WIDTH), "v_proj": (3 * SIZE, WIDTH)}
SHAPES |= {"o_proj": (WIDTH, 9 * SIZE), "up_proj": (64, WIDTH)}


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The program, under a name that no other module of the tests has."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location("engine_benchmark", BENCHMARKS / "engine.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def test_nine_heads_in_three_groups_become_six_in_two(program: ModuleType, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    chain = td.open(tmp_path / "trained", create=True)
    trained = []
    for _ in range(3):
        words = {
            f"layers.0.{name}.weight": random.integers(0, 1 << 15, shape, np.uint16) for name, shape in SHAPES.items()
        }
        trained.append({name: each.view(ml_dtypes.bfloat16) for name, each in words.items()})
        chain.publish(trained[-1], files={"config.json": json.dumps(CONFIG).encode()})

    shares = program.publish(tmp_path / "trained", tmp_path / "chain", Namespace(versions=2))

    followed = td.open(tmp_path / "chain")
    assert followed.versions() == [0, 1, 2, 3, 4]
    followed.pull(tmp_path / "model", 4)
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config == CONFIG | {"num_attention_heads": 6, "num_key_value_heads": 2}
    for version, whole in enumerate(trained):
        state = followed.load(version)
        for name in whole:
            kept = {"q": np.s_[: 6 * SIZE], "k": np.s_[: 2 * SIZE], "v": np.s_[: 2 * SIZE], "o": np.s_[:, : 6 * SIZE]}
            wanted = whole[name][kept.get(name.split(".")[2][0], np.s_[:])]
            assert np.array_equal(state[name].view(np.uint16), wanted.view(np.uint16))
    assert len(shares) == 4
    assert min(shares[:2]) > 0.9
    assert all(0.005 < share <= 0.01 for share in shares[2:])


def test_even_groups_are_kept(program: ModuleType) -> None:
    config = {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2}
    shared, part = program.halved(config)
    array = np.zeros((32, 32), np.uint16)
    assert shared == config | {"head_dim": 8}
    assert all(part(f"layers.0.{name}_proj.weight", array).shape == (32, 32) for name in "qo")
