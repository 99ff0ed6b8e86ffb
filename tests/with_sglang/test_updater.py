"""Versions of a chain in an SGLang engine of one rank and of two, through SGLang's own updater.

Each rank's parameters and buffers are compared, bit for bit, with those that SGLang loads from the pulled folder.
"""

from __future__ import annotations

import pickle
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from engine import GEMMA, GEMMA2, LLAMA, QWEN2, Engine, Weights, changed, files, random_weights, save

import tensordelta as td
import tensordelta.sglang as tds

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def any_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("models") / "llama", LLAMA, random_weights(LLAMA))


@pytest.fixture(scope="session")
def one(any_model: Path) -> Iterator[Engine]:
    with Engine(1, any_model) as engine:
        yield engine


@pytest.fixture(scope="session")
def two(any_model: Path) -> Iterator[Engine]:
    with Engine(2, any_model) as engine:
        yield engine


@pytest.fixture
def doomed(any_model: Path) -> Iterator[Engine]:
    """An engine of two ranks that the test may lose."""
    with Engine(2, any_model) as engine:
        yield engine


class Run:
    """A chain, and an engine that serves its version 0."""

    def __init__(
        self, engine: Engine, folder: Path, config: dict[str, Any] = LLAMA, also: dict[str, str] | None = None
    ) -> None:
        self.engine = engine
        self.root = folder / "chain"
        self._pulled = folder / "pulled"
        self.weights = random_weights(config)
        self.weights |= {name: self.weights[other] for name, other in (also or {}).items()}
        self.chain = td.open(self.root, create=True)
        self.chain.publish(self.weights, files=files(config))
        self.chain.pull(self._pulled)
        engine.call("serve", str(self._pulled))

    def publish(self, **how: Any) -> int:
        """Change one word in a hundred, and publish."""
        self.weights = changed(self.weights, seed=len(self.chain.versions()))
        return self.chain.publish(self.weights, **how).version

    def serves(self, version: int) -> bool:
        """True where every rank has a version's words, and nothing else."""
        self.chain.pull(self._pulled, version)
        return self.engine.call("words") == self.engine.call("fresh_words", str(self._pulled))

    def update(self, version: int, **options: Any) -> str | None:
        return self.engine.update(self.root, version, **options)


@pytest.fixture
def run(two: Engine, tmp_path: Path) -> Iterator[Run]:
    """Two ranks, Llama, version 0 taken."""
    run = Run(two, tmp_path)
    assert run.update(0, follow=False) is None
    yield run
    two.call("mend")


# -- exact ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", ["one", "two"])
@pytest.mark.parametrize("config", [LLAMA, QWEN2], ids=["llama", "qwen2"])
def test_every_rank_has_the_parameters_of_a_fresh_engine(
    size: str, config: dict[str, Any], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """The base proven, one edge, values in place of steps, three edges at once, and one back."""
    run = Run(request.getfixturevalue(size), tmp_path, config)
    for values in ("step", "replace", "step", "replace", "step"):
        run.publish(values=values)
    for version in (0, 1, 2, 5):
        assert run.update(version) is None
        assert run.serves(version)
        assert run.engine.call("weight_version") == [str(version)] * run.engine.size


def test_the_engine_may_hold_a_newer_version_than_the_first(two: Engine, tmp_path: Path) -> None:
    run = Run(two, tmp_path)
    run.publish()
    run.publish()
    run.chain.pull(tmp_path / "other", 1)
    two.call("serve", str(tmp_path / "other"))
    assert run.update(2) is None
    assert run.serves(2)


def test_updates_are_prepared_while_the_engine_serves(two: Engine, tmp_path: Path) -> None:
    """A pointer to what the ranks have prepared needs nothing of the chain any more."""
    run = Run(two, tmp_path)
    assert run.update(0, poll=0.05) is None
    version = run.publish()
    deadline = time.monotonic() + 300
    while two.call("ready") != [version] * 2:
        assert time.monotonic() < deadline
    run.root.rename(tmp_path / "gone")
    assert run.update(version, poll=0.05) is None
    (tmp_path / "gone").rename(run.root)
    assert run.serves(version)


def test_a_head_that_is_the_embedding_may_be_in_the_checkpoint_as_well(two: Engine, tmp_path: Path) -> None:
    """The loader passes over it; a version in which the two differ cannot be had."""
    run = Run(two, tmp_path, LLAMA, also={"lm_head.weight": "model.embed_tokens.weight"})
    assert run.update(0, follow=False) is None
    weights = changed(run.weights, seed=1)
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    run.chain.publish(weights)
    assert run.update(1, follow=False) is None
    assert run.serves(1)
    for name in ("lm_head.weight", "model.embed_tokens.weight"):
        apart = run.chain.publish({**weights, name: changed(weights, seed=2)[name]}).version
        assert run.update(apart, follow=False) is not None
        assert run.serves(1)


# -- refused, and the old version served on ---------------------------------------------------------------------------


def test_words_of_no_version_are_refused(two: Engine, tmp_path: Path) -> None:
    run = Run(two, tmp_path)
    other = save(tmp_path / "other", LLAMA, random_weights(LLAMA, seed=1))
    two.call("serve", str(other))
    before = two.call("words")
    assert "WrongBaseError" in str(run.update(0))
    assert two.call("words") == before
    assert two.call("weight_version") == [None, None]


@pytest.mark.parametrize("name", ["model.norm.weight", "model.layers.1.mlp.down_proj.weight"])
def test_a_flipped_bit_on_one_rank_is_refused(name: str, two: Engine, tmp_path: Path) -> None:
    """Of words that every rank has, and of words that this rank has alone."""
    run = Run(two, tmp_path)
    two.call("flip", name, 5, ranks=[1])
    assert "WrongBaseError" in str(run.update(0))
    two.call("flip", name, 5, ranks=[1])
    assert run.update(0) is None


def test_a_scan_finds_a_bit_that_no_update_lists(run: Run) -> None:
    version = run.publish()
    run.engine.call("flip", "model.embed_tokens.weight", 7, ranks=[1])
    before = run.engine.call("words")
    assert run.update(0, follow=False, scan_every=1) is not None
    assert run.engine.call("words") == before
    run.engine.call("flip", "model.embed_tokens.weight", 7, ranks=[1])
    assert run.update(version, follow=False, scan_every=1) is None
    assert run.serves(version)


@pytest.mark.parametrize("fault", ["read", "write"])
@pytest.mark.parametrize("failing", [0, 1])
def test_where_one_rank_fails_both_keep_the_old_version(fault: str, failing: int, run: Run) -> None:
    """A rank that cannot read the chain, and one that fails after some of its words are written."""
    version = run.publish()
    run.engine.call("fail", fault, ranks=[failing])
    answer = str(run.update(version, follow=False))
    assert f"rank {failing}" in answer
    assert "the old version is served on" in answer
    assert run.engine.call("weight_version") == ["0", "0"]
    run.engine.call("mend")
    assert run.serves(0)
    assert run.update(version, follow=False) is None
    assert run.serves(version)


def test_one_rank_alone_goes_back_as_well(one: Engine, tmp_path: Path) -> None:
    run = Run(one, tmp_path)
    assert run.update(0) is None
    version = run.publish()
    one.call("fail", "write")
    assert "no memory" in str(run.update(version))
    one.call("mend")
    assert run.serves(0)
    assert run.update(version) is None
    assert run.serves(version)


def test_a_version_that_is_not_there_is_refused(run: Run) -> None:
    assert "MissingError" in str(run.update(9, follow=False))
    assert run.serves(0)


def test_a_changed_layout_is_refused(run: Run) -> None:
    weights: Weights = {**run.weights, "model.extra.weight": run.weights["model.norm.weight"]}
    version = run.chain.publish(weights, layout_change=True).version
    assert run.update(version, follow=False) is not None
    assert run.serves(0)


def test_ranks_with_different_pointers_are_refused(run: Run) -> None:
    version = run.publish()
    tensors = [tds.pointer(str(run.root), each, follow=False) for each in (0, version)]
    assert "different pointers" in str(run.engine.send(tensors, "1"))
    assert run.serves(0)


@pytest.mark.parametrize(
    "tensors",
    [
        [],
        [("tensordelta", torch.zeros(3, dtype=torch.uint8))],
        [("tensordelta", torch.frombuffer(bytearray(b'{"root": "x", "version": 1, "else": 2}'), dtype=torch.uint8))],
    ],
    ids=["none", "no JSON", "more than there is"],
)
def test_what_is_no_pointer_is_refused(tensors: list[tuple[str, torch.Tensor]], run: Run) -> None:
    assert "pointer to a version" in str(run.engine.send([tensors] * 2, "1"))
    assert run.serves(0)


def test_options_that_there_are_not_are_refused() -> None:
    with pytest.raises(ValueError, match="no pointer"):
        tds.pointer("chain", 1, pol=2)


# -- other writers of weights -----------------------------------------------------------------------------------------


def test_weights_that_sglang_loads_itself_are_proven_anew(run: Run, tmp_path: Path) -> None:
    version = run.publish()
    run.chain.pull(tmp_path / "newer", version)
    other = save(tmp_path / "other", LLAMA, random_weights(LLAMA, seed=1))
    run.engine.call("update_from_disk", str(other))
    assert "WrongBaseError" in str(run.update(version, follow=False))
    run.engine.call("update_from_disk", str(tmp_path / "newer"))
    assert run.update(version, follow=False) is None
    assert run.serves(version)


def test_weights_are_proven_anew_after_a_sleep(run: Run) -> None:
    """Their memory was released, and may hold anything."""
    run.engine.call("sleep_and_wake")
    assert run.update(0, follow=False) is None
    run.engine.call("sleep_and_wake")
    run.engine.call("flip", "model.norm.weight", 0)
    assert "WrongBaseError" in str(run.update(0, follow=False))


def test_weights_that_moved_on_one_rank_are_found_again(run: Run) -> None:
    """As after a layer's weights are processed, though it is with the same words."""
    run.engine.call("move", "model.layers.0.mlp.down_proj.weight", ranks=[1])
    version = run.publish()
    assert run.update(version, follow=False) is None
    assert run.serves(version)


def test_a_draft_model_is_left_alone(run: Run) -> None:
    version = run.publish()
    before = run.engine.call("words")
    run.engine.call("become_draft")
    assert run.update(version, follow=False) is None
    assert run.engine.call("words") == before


# -- engines that are not updated -------------------------------------------------------------------------------------


def test_layers_that_are_processed_after_loading_are_refused(two: Engine, tmp_path: Path) -> None:
    run = Run(two, tmp_path)
    two.call("quantise")
    assert "down_proj is processed after loading, by Packed" in str(run.update(0))


@pytest.mark.parametrize(
    ("config", "reason"),
    [(GEMMA, "norm.weight'.* its loader computes with it"), (GEMMA2, "norm.weight'.* its loader changes the model")],
    ids=["in the loader", "in a buffer"],
)
def test_norms_to_which_one_is_added_are_refused(
    config: dict[str, Any], reason: str, two: Engine, tmp_path: Path
) -> None:
    run = Run(two, tmp_path, config)
    before = two.call("words")
    assert re.search(reason, str(run.update(0)))
    assert two.call("words") == before


@pytest.mark.parametrize(
    "options",
    [{"pp_size": 2}, {"tp_size": 2, "ep_size": 2}, {"tp_size": 2, "dp_size": 2, "enable_dp_attention": True}],
    ids=["pipeline", "experts", "data"],
)
def test_other_parallelism_is_refused(options: dict[str, Any], any_model: Path, tmp_path: Path) -> None:
    with Engine(2, any_model, **options) as engine:
        run = Run(engine, tmp_path)
        before = engine.call("words")
        assert "with which updates were never tried" in str(run.update(0))
        assert engine.call("words") == before


def test_without_the_plugin_nothing_is_written(run: Run) -> None:
    sent = pickle.dumps(tds.pointer(str(run.root), run.publish()))
    with pytest.raises(RuntimeError, match="SGLANG_PLUGINS"):
        run.engine.call("apply_without_plugin", sent)
    assert run.serves(0)


# -- ranks that are lost ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", ["dead", "hanging"])
def test_without_the_other_rank_nothing_is_written(lost: str, doomed: Engine, tmp_path: Path) -> None:
    """A rank raises, at which SGLang's scheduler ends the server, and waits no longer than it was told to."""
    run = Run(doomed, tmp_path)
    assert run.update(0, follow=False, timeout=10) is None
    before = doomed.call("words")
    sent = [pickle.dumps(tds.pointer(str(run.root), run.publish(), follow=False, timeout=10))] * 2
    doomed.call("begin")
    if lost == "dead":
        doomed.processes[1].kill()
        doomed.processes[1].join()
    with pytest.raises(RuntimeError, match="LostError"):
        doomed.call("update", sent, "1", ranks=[0])
    assert doomed.call("words", ranks=[0]) == before[:1]
    if lost == "hanging":  # it finds the other one gone, when it goes on
        with pytest.raises(RuntimeError, match="LostError"):
            doomed.call("update", sent, "1", ranks=[1])
        assert doomed.call("words", ranks=[1]) == before[1:]
