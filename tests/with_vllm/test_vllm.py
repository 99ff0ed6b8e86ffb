"""vLLM follows a chain: after each update it answers bit for bit as an engine that was started on the version.

Engines take long to start, so each test has one that is updated and one that is started on the version to compare with.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from engine import Engine, EngineError
from runs import Run

pytestmark = pytest.mark.slow

PROMPTS = [[1, 2, 3, 4, 5], [7, 8, 9], [100, 200, 300, 400, 500, 600, 700]]


def answers(engine: Engine) -> tuple[Any, Any]:
    """What an engine has and says: the hash of each parameter of each rank, and greedy tokens with logprobs."""
    return engine.checksums(), engine.generate(prompts=PROMPTS)


def wait_prepared(engine: Engine, version: int, *, ranks: int) -> None:
    """Wait until all ranks have prepared a version."""
    for _ in range(600):
        if engine.rpc(name="tensordelta_prepared") == [version] * ranks:
            return
        time.sleep(0.1)
    raise AssertionError(f"version {version} was not prepared")


def follow_versions(run: Run, engine: Engine, ranks: int) -> dict[int, tuple[Any, Any]]:
    """Take an engine through the versions; what it answered at each."""
    found = {0: answers(engine)}
    engine.init(chain=str(run.chain.address), poll=0.2)
    assert answers(engine) == found[0]
    for version in (1, 3, 4):
        assert engine.update(version=version) == str(version)
        assert engine.rpc(name="tensordelta_version") == [version] * ranks
        found[version] = answers(engine)
    assert len({str(tokens) for _, tokens in found.values()}) == 3
    assert found[4] == found[0]

    engine.send("generate", prompts=PROMPTS, tokens=100)
    version = run.publish(run.weights[3])
    engine.receive()
    wait_prepared(engine, version, ranks=ranks)
    assert engine.update() == str(version)
    assert answers(engine) == found[3]
    assert engine.update(version=version, name="a name of one's own") == "a name of one's own"
    return found


def refuse(engine: Engine, version: int, match: str, **fault: Any) -> None:
    """Check that an update fails of a fault, and leaves everything as it was."""
    before = answers(engine)
    if fault:
        engine.rpc(name="fault", **fault)
    with pytest.raises(EngineError, match=match):
        engine.update(version=version)
    # The answer to a question is the answer to that question, not another rank's to the one before.
    assert isinstance(engine.rpc(name="tensordelta_version")[0], int | None)
    assert answers(engine) == before


def test_packed_weights_of_one_rank(tmp_path: Path) -> None:
    """Compiled; tied, one head of keys and values, and the tied weight under both names."""
    run = Run.of("llama-twice", tmp_path)
    with run.engine() as engine:
        found = follow_versions(run, engine, 1)
        refuse(engine, run.flip_words("lm_head.weight"), "the engine has both as one")
    with run.engine(3) as fresh:
        assert answers(fresh) == found[3]


def test_plain_weights_of_two_ranks_and_their_faults(tmp_path: Path) -> None:
    run = Run.of("qwen2", tmp_path)
    options: dict[str, Any] = {"tensor_parallel_size": 2, "enforce_eager": True, "unpacked": True}
    with run.engine(**options) as engine:
        found = follow_versions(run, engine, 2)
        chain = str(run.chain.address)

        # Without a thread, so that each update is prepared when it is asked for.
        assert engine.init(chain=chain, follow=False) == "5"
        version = run.publish(run.weights[1])
        for rank in (0, 1):
            refuse(engine, version, "no such object", kind="missing", rank=rank)
        refuse(engine, version, "would be", kind="sum", rank=1)
        for rank in (0, 1):
            refuse(engine, version, "amid the scatter", kind="scatter", rank=rank)
        refuse(engine, version, "different updates", kind="other", rank=1)
        engine.rpc(name="healed", rank=1)
        refuse(engine, 77, "77")
        refuse(engine, run.publish_without("model.norm.weight"), "has another layout")
        version = run.publish(run.weights[1], full=True)
        assert engine.update(version=version) == str(version)
        assert answers(engine) == found[1]

        # A second driver's session is refused on all ranks, and the first one's goes on.
        engine.start()
        with pytest.raises(EngineError, match="already active"):
            engine.start()
        engine.finish()

        # A flipped word: where it is listed, of an owner and of a replica; anywhere, by a pass over all words.
        tensors = "model.layers.0.self_attn.o_proj.weight", "model.norm.weight"
        for parameter, values, match in zip(tensors, ("replace", "step"), ("would be", "not the same"), strict=True):
            version = run.flip_words(*tensors, values=values)
            engine.rpc(name="flip", parameter=parameter, word=5, rank=1)
            refuse(engine, version, match)
            engine.rpc(name="flip", parameter=parameter, word=5, rank=1)
            assert engine.update(version=version) == str(version)
        engine.init(chain=chain, follow=False, scan_every=1)
        before, version = version, run.flip_words(*tensors)
        flip = {"name": "flip", "parameter": "model.layers.1.mlp.down_proj.weight", "word": 9, "rank": 1}
        engine.rpc(**flip)
        refuse(engine, version, f"are those of version {before} no more")
        engine.rpc(**flip)
        assert engine.update(version=version) == str(version)

        # Weights that something else has changed are proven anew.
        engine.rpc(name="reset_weights")
        with pytest.raises(EngineError, match="no version"):
            engine.update(version=version)
        engine.rpc(name="reload_weights", weights_path=str(run.folder / "model"))
        assert engine.update(version=version) == str(version)
        assert engine.rpc(name="tensordelta_version") == [version] * 2

        # A rank that hangs before anything is written: the old version is served on, and nothing is updated any more.
        engine.init(chain=chain, follow=False, timeout=3)
        version = run.publish(run.weights[3])
        refuse(engine, version, "has died, or hangs", kind="slow", rank=1, seconds=8)
        refuse(engine, version, "start the engine again")
        engine.init(chain=chain, follow=False, timeout=30)
        assert engine.update(version=version) == str(version)
        assert answers(engine) == found[3]

        # A rank that dies while it writes: nothing is served any more.
        version = run.publish(run.weights[0])
        engine.rpc(name="fault", kind="die", rank=1)
        with pytest.raises(EngineError):
            engine.update(version=version)
        with pytest.raises(EngineError, match="Engine"):
            engine.generate(prompts=PROMPTS, anew=False)
    with run.engine(3, **options) as fresh:
        assert answers(fresh) == found[3]


def test_packed_weights_of_two_ranks_and_their_faults(tmp_path: Path) -> None:
    run = Run.of("llama", tmp_path)
    options: dict[str, Any] = {"tensor_parallel_size": 2, "enforce_eager": True}
    with run.engine(**options) as engine:
        engine.init(chain=str(run.chain.address), follow=False)
        for rank in (0, 1):
            refuse(engine, 1, "amid the load", kind="load", rank=rank)
        found = follow_versions(run, engine, 2)
        engine.init(chain=str(run.chain.address), follow=False, timeout=5)
        assert engine.update(version=5) == "5"
        version = run.publish(run.weights[1])
        refuse(engine, version, "no such object", kind="missing", rank=1)
        refuse(engine, run.publish_without("model.norm.weight"), r"no weights for model\.norm\.weight")
        version = run.publish(run.weights[1])
        for rank in (0, 1):
            refuse(engine, version, "amid the load", kind="load", rank=rank)
        assert engine.update(version=version) == str(version)
        assert answers(engine) == found[1]

        # A rank that hangs when it has written: nobody knows what it has, and nothing is served any more.
        version = run.publish(run.weights[0])
        engine.rpc(name="fault", kind="hang", rank=1, seconds=12)
        with pytest.raises(EngineError):
            engine.update(version=version)
        with pytest.raises(EngineError, match="Engine"):
            engine.generate(prompts=PROMPTS, anew=False)
    with run.engine(3, **options) as fresh:
        assert answers(fresh) == found[3]
