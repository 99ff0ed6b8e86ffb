"""The examples in the docstrings of questions run as they stand, over a chain of two versions."""

from __future__ import annotations

import doctest
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import tensordelta as td
from tensordelta import tables
from tensordelta.explore import bisection, diff, pictures, questions, stats, tensor_history, version, walk

MODULES = [bisection, diff, pictures, questions, stats, tables, tensor_history, version, walk]


@pytest.fixture(autouse=True)
def _figures() -> Iterator[None]:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__.rpartition(".")[2])
def test_examples_run(module: ModuleType, tmp_path: Path) -> None:
    chain = td.open(tmp_path, create=True)
    chain.publish({"w": np.array([0, 1, 2])}, annotations={"step": "10"})
    chain.publish({"w": np.array([0, 5, 2])}, annotations={"step": "20"})
    outcome = doctest.testmod(module, extraglobs={"chain": chain, "np": np, "td": td})
    assert outcome.failed == 0


def test_every_question_has_an_example() -> None:
    asked = "__getitem__ read diff history stats bisect states plot"
    for name in asked.split():
        assert ">>> " in (getattr(td.Chain, name).__doc__ or ""), name
