"""`PublishCallback` under TRL's GRPOTrainer: each version is the trainer's weights, bit for bit."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from hub_server import Hub
from peft import LoraConfig
from small_trainer import Snapshots, grpo, llama, same, served, steps_of, tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

import tensordelta as td
from tensordelta.trl import PublishCallback

LORA = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")


class Reader(threading.Thread):
    """Follows a chain until a version, from another chain object, as an engine does.

    Attributes:
        seen: the versions that it got, with their states.
    """

    def __init__(self, chain: td.Chain, until: int) -> None:
        super().__init__()
        self.seen: dict[int, td.State] = {}
        self._chain, self._until = chain, until

    def run(self) -> None:
        state = td.State.empty()
        for update in self._chain.follow(state, poll=0.02, timeout=60, until=self._until):
            update.apply()
            self.seen[update.version] = state.copy()


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_six_steps_to_the_hub(hub: Hub, bucket: str, tied: bool, tmp_path: Path) -> None:
    options = {"endpoint": hub.address, "token": "token"}
    snapshots = Snapshots()
    publishing = PublishCallback(bucket, opening={"store_options": options}, queue=10)
    trainer = grpo(llama(tied=tied), tmp_path, [publishing, snapshots])
    reader = Reader(td.open(bucket, store_options=options, create=True), until=6)
    reader.start()
    trainer.train()
    reader.join()

    chain = td.open(bucket, store_options=options)
    assert steps_of(chain) == list(range(7)) and chain.verify(deep=True).ok
    for version in chain.versions():
        assert same(chain.load(version), snapshots.taken[version])
    assert 6 in reader.seen
    for version, state in reader.seen.items():
        assert same(state, snapshots.taken[version])
    assert ("lm_head.weight" in chain.layout().index) is not tied


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_an_adapter_is_merged_in_a_copy(dtype: torch.dtype, tmp_path: Path) -> None:
    """The base keeps its bits, which merging and unmerging in place would change in bfloat16."""
    address, snapshots = tmp_path / "chain", Snapshots()
    model = llama(dtype=dtype)
    before = served(model)
    callbacks = [PublishCallback(address, queue=10), snapshots]
    trainer = grpo(model, tmp_path / "out", callbacks, peft=LORA, learning_rate=1e-2)
    trainer.train()

    chain = td.open(address)
    assert chain.versions() == list(range(7)) and chain.layout(0) == chain.layout(6)
    for version in chain.versions():
        assert same(chain.load(version), snapshots.taken[version])
    assert not same(chain.load(6), snapshots.taken[0])
    with trainer.model.disable_adapter():
        base = trainer.model.unload()
    assert all(torch.equal(tensor, before[name]) for name, tensor in served(base).items())


def test_modules_that_are_trained_beside_an_adapter(tmp_path: Path) -> None:
    """PEFT keeps the original of such a module, and trains a copy: the copy is what counts."""
    address, snapshots = tmp_path / "chain", Snapshots()
    config = LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["lm_head"], task_type="CAUSAL_LM")
    grpo(llama(tied=False), tmp_path / "out", [PublishCallback(address), snapshots], steps=2, peft=config).train()
    chain = td.open(address)
    assert same(chain.load(), snapshots.taken[2]) and "lm_head.weight" in chain.layout().index


def test_every_second_step_and_the_last(tmp_path: Path) -> None:
    """Losses are annotated where the trainer logs them with the step: here with each fourth."""
    address, snapshots = tmp_path / "chain", Snapshots()
    callbacks = [PublishCallback(address, 2, queue=10), snapshots]
    grpo(llama(), tmp_path / "out", callbacks, steps=5, logging_steps=4).train()
    chain = td.open(address)
    assert steps_of(chain) == [0, 2, 4, 5]
    assert all(same(chain.load(version), snapshots.taken[step]) for version, step in enumerate(steps_of(chain)))
    notes = [chain.manifest(version).annotations for version in chain.versions()]
    assert ["loss" in each for each in notes] == [False, False, True, False]
    assert float(notes[2]["loss"]) < 1e6 and all(each["time"].endswith("Z") for each in notes)


def test_a_pulled_folder_is_a_checkpoint(tmp_path: Path) -> None:
    """An engine loads it: configuration, dtype and tokenizer lie beside the weights."""
    grpo(llama(), tmp_path / "out", [PublishCallback(tmp_path / "chain")], steps=1).train()
    chain = td.open(tmp_path / "chain")
    chain.pull(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"] and config["dtype"] == "bfloat16"
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert model.dtype == torch.bfloat16 and same(chain.load(), served(model))
    text = "A chain is whole."
    assert AutoTokenizer.from_pretrained(tmp_path / "model")(text).input_ids == tokenizer()(text).input_ids


def test_a_trainer_that_starts_again_where_the_chain_ends(tmp_path: Path) -> None:
    """Weights that are the newest version already are not published again."""
    address, model = tmp_path / "chain", llama()
    for _ in range(2):
        grpo(model, tmp_path / "out", [PublishCallback(address, queue=10)], steps=2).train()
    assert steps_of(td.open(address)) == [0, 1, 2, 1, 2]


def test_a_trainer_that_is_resumed_from_an_older_checkpoint(tmp_path: Path) -> None:
    """It goes on in the same chain: a next version whose step has gone back, and nothing is rewritten."""
    address, out = tmp_path / "chain", tmp_path / "out"
    config: dict[str, Any] = {"save_strategy": "steps", "save_steps": 2}
    grpo(llama(), out, [PublishCallback(address, queue=10)], steps=5, **config).train()
    before = {path: path.read_bytes() for path in address.rglob("*.json") if path.name != "latest.json"}

    snapshots = Snapshots()
    trainer = grpo(llama(), out, [PublishCallback(address, queue=10), snapshots], steps=5, **config)
    trainer.train(resume_from_checkpoint=str(out / "checkpoint-2"))
    chain = td.open(address)
    assert steps_of(chain) == [0, 1, 2, 3, 4, 5, 2, 3, 4, 5]
    assert chain.load(6).equals(chain.load(2))
    for version in range(6, 10):
        assert same(chain.load(version), snapshots.taken[version - 4])
    assert all(path.read_bytes() == data for path, data in before.items()) and chain.verify(deep=True).ok


def test_a_trainer_that_starts_with_another_model(tmp_path: Path) -> None:
    """It fails before its first step, and nothing of the other model is published, unless that is asked for."""
    address, snapshots = tmp_path / "chain", Snapshots()
    grpo(llama(), tmp_path / "out", [PublishCallback(address, queue=10)], steps=1).train()
    other = grpo(llama(tied=False), tmp_path / "out", [PublishCallback(address, queue=10), snapshots], steps=1)
    with pytest.raises(td.ConflictError, match=r"1 tensor added \(lm_head\.weight\)"):
        other.train()
    assert steps_of(td.open(address)) == [0, 1] and other.state.global_step == 0
    asked = PublishCallback(address, queue=10, layout_change=True)
    grpo(llama(tied=False), tmp_path / "out", [asked, snapshots], steps=1).train()
    chain = td.open(address)
    assert steps_of(chain) == [0, 1, 0, 1] and same(chain.load(), snapshots.taken[1])
    assert [row.layout_change is not None for row in chain.log()] == [False, False, True, False]


def test_any_trainer(tmp_path: Path) -> None:
    """transformers' own, with two micro-batches to a step."""
    address, snapshots = tmp_path / "chain", Snapshots()
    ids = tokenizer()("A chain is whole, and a pack holds words.").input_ids
    Trainer(
        model=llama(),
        args=TrainingArguments(
            output_dir=str(tmp_path / "out"),
            max_steps=3,
            per_device_train_batch_size=2,
            gradient_accumulation_steps=2,
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list([{"input_ids": ids, "labels": ids}] * 16),
        callbacks=[PublishCallback(address, queue=10), snapshots],
    ).train()
    chain = td.open(address)
    assert steps_of(chain) == [0, 1, 2, 3]
    assert all(same(chain.load(step), snapshots.taken[step]) for step in range(4))


def test_no_steps_between_versions() -> None:
    with pytest.raises(ValueError, match="every is 0"):
        PublishCallback("run", every=0)
