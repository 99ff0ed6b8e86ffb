"""`WeightTransfer`: the five methods that TRL's AsyncGRPOTrainer calls, in its order, with what it sends."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from peft import LoraConfig, get_peft_model
from small_trainer import llama, same, served, tokenizer
from test_failures import Full
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl.experimental.async_grpo.async_grpo_trainer import WeightTransferProtocol, _iter_vllm_named_params
from vllm_server import VllmRoutes

import tensordelta as td
from tensordelta.engines import ServerError, VllmServer
from tensordelta.trl import WeightTransfer


def sync(transfer: WeightTransferProtocol, model: torch.nn.Module) -> None:
    """As `AsyncGRPOTrainer._sync_weight_merged` does it on the main process."""
    transfer.pause()
    adapted = hasattr(model, "merge_adapter")
    if adapted:
        model.merge_adapter()
    try:
        transfer.send_weights((name, tensor.detach()) for name, tensor in _iter_vllm_named_params(model))
    finally:
        if adapted:
            model.unmerge_adapter()
    transfer.resume()


def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    ids = torch.tensor([tokenizer()("A chain is whole, and a pack holds words.").input_ids])
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def trained(model: torch.nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=1e-3)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_frozen_and_tied_parameters(tied: bool, tmp_path: Path) -> None:
    """TRL sends what is trained; a version has the frozen parameters and the persistent buffers as well."""
    model = llama(tied=tied)
    model.model.layers[0].requires_grad_(False)
    model.model.embed_tokens.requires_grad_(not tied)
    model.register_buffer("scale", torch.full((3,), 0.1))
    model.register_buffer("scratch", torch.zeros(3), persistent=False)
    sent = {name for name, _ in _iter_vllm_named_params(model)}
    assert "model.layers.0.mlp.up_proj.weight" not in sent

    published: list[td.Published] = []
    transfer: WeightTransferProtocol = WeightTransfer(tmp_path / "chain", model=model, on_published=published.append)
    optimizer, expected = trained(model), []
    transfer.init_weight_transfer()
    try:
        for _ in range(3):
            sync(transfer, model)
            expected.append(served(model))
            # The trainer waits for the version: it is there when `resume` returns.
            assert td.open(tmp_path / "chain").newest() == len(expected) - 1 == published[-1].version
            step(model, optimizer)
    finally:
        transfer.destroy()

    chain = td.open(tmp_path / "chain")
    assert all(same(chain.load(version), each) for version, each in enumerate(expected))
    assert "scale" in chain.layout().index and "scratch" not in chain.layout().index
    assert [chain.manifest(version).annotations["sync"] for version in range(3)] == ["1", "2", "3"]
    assert 0 < chain.log()[1].changed < chain.layout().words


def test_an_adapter_that_trl_merges_in_place(tmp_path: Path) -> None:
    """What TRL sends is merged already, and is not merged once more."""
    model = get_peft_model(llama(), LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    optimizer = trained(model)
    step(model, optimizer)
    transfer = WeightTransfer(tmp_path / "chain", model=model)
    transfer.init_weight_transfer()
    sync(transfer, model)
    transfer.destroy()
    assert same(td.open(tmp_path / "chain").load(), served(model))


def test_a_version_that_cannot_be_published(tmp_path: Path) -> None:
    """`resume` says so, once; nothing is left to raise when TRL ends the transfer."""
    model, store = llama(), Full(tmp_path / "chain")
    transfer = WeightTransfer(td.open(store, create=True), model=model)
    transfer.init_weight_transfer()
    with pytest.raises(td.StoreError, match="no space left"):
        sync(transfer, model)
    store.full = False
    sync(transfer, model)
    transfer.destroy()
    assert same(td.open(tmp_path / "chain").load(), served(model))


def test_an_iterator_that_fails(tmp_path: Path) -> None:
    """As where a rank dies while it gathers: nothing of it is published, and the next weights are whole."""
    model = llama()
    before = served(model)
    transfer = WeightTransfer(tmp_path / "chain", model=model)
    transfer.init_weight_transfer()
    sync(transfer, model)

    def failing() -> Iterator[tuple[str, torch.Tensor]]:
        name, tensor = next(_iter_vllm_named_params(model))
        yield name, tensor.detach() + 1
        raise RuntimeError("a rank has died")

    with pytest.raises(RuntimeError, match="a rank has died"):
        transfer.send_weights(failing())
    transfer.resume()
    step(model, trained(model))
    sync(transfer, model)
    transfer.destroy()
    chain = td.open(tmp_path / "chain")
    assert chain.versions() == [0, 1] and same(chain.load(0), before) and same(chain.load(1), served(model))


def test_no_second_copy_of_all_weights(tmp_path: Path) -> None:
    """What TRL gathers is given up, tensor by tensor."""
    model = llama()
    transfer = WeightTransfer(tmp_path / "chain", model=model, opening={"threads": 1})
    transfer.init_weight_transfer()
    gathered: list[weakref.ref[np.ndarray]] = []
    most = 0

    def gathering() -> Iterator[tuple[str, torch.Tensor]]:
        nonlocal most
        for name, tensor in _iter_vllm_named_params(model):
            array = tensor.detach().bfloat16().view(torch.int16).numpy().copy()
            gathered.append(weakref.ref(array))
            whole = torch.from_numpy(array).view(torch.bfloat16)
            most = max(most, sum(each() is not None for each in gathered))
            del array
            yield name, whole
            del whole

    transfer.send_weights(gathering())
    transfer.resume()
    transfer.destroy()
    assert most <= 3 < len(gathered) and same(td.open(tmp_path / "chain").load(), served(model))


def test_a_model_by_its_path(tmp_path: Path) -> None:
    """As `AsyncGRPOTrainer` is given it; what is pulled can be loaded, tokenizer included."""
    model = llama()
    model.model.layers[0].requires_grad_(False)
    model.save_pretrained(tmp_path / "model")
    transfer = WeightTransfer(tmp_path / "chain", model=tmp_path / "model", tokenizer=tokenizer())
    transfer.init_weight_transfer()
    sync(transfer, model)
    transfer.destroy()
    chain = td.open(tmp_path / "chain")
    assert same(chain.load(), served(model))
    chain.pull(tmp_path / "pulled")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "pulled")
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight.bfloat16())
    text = AutoTokenizer.from_pretrained(tmp_path / "pulled").decode(tokenizer()("A chain").input_ids)
    assert text == "A chain"


def test_servers_that_take_each_version(tmp_path: Path) -> None:
    """They generate until a version is published, and serve it when TRL goes on."""
    model = llama()
    loaded = served(model)
    with VllmRoutes(loaded) as first, VllmRoutes(loaded) as second:
        seen: list[str] = []
        transfer = WeightTransfer(
            tmp_path / "chain",
            model=model,
            server=[first.url, VllmServer(second.url, tmp_path / "chain")],
            on_published=lambda published: seen.append(first.name),
        )
        transfer.init_weight_transfer()
        optimizer = trained(model)
        try:
            for version in range(3):
                transfer.pause()
                assert not first.paused
                sync(transfer, model)
                for vllm in (first, second):
                    assert vllm.name == str(version) and not vllm.paused
                    assert same(vllm.weights.state, served(model))
                step(model, optimizer)
        finally:
            transfer.destroy()
    assert seen == ["0", "1", "2"]


def test_a_server_that_refuses_a_version(tmp_path: Path) -> None:
    """Training hears of it; the version is published all the same, and the server takes a later one."""
    model = llama()
    with VllmRoutes(served(model)) as vllm:
        transfer = WeightTransfer(tmp_path / "chain", model=model, server=vllm.url, within=0)
        transfer.init_weight_transfer()
        optimizer = trained(model)
        sync(transfer, model)
        step(model, optimizer)
        vllm.fail("update_weights", lambda: vllm.update_failing(RuntimeError("no")))
        with pytest.raises(ServerError, match="the update to version 1 failed"):
            sync(transfer, model)
        assert vllm.name == "0" and not vllm.paused
        sync(transfer, model)
        transfer.destroy()
        assert vllm.name == "2"
        assert same(vllm.weights.state, served(model))


@pytest.fixture
def mesh() -> Iterator[DeviceMesh]:
    """A group of one rank, in which FSDP shards parameters all the same."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def test_frozen_parameters_that_are_sharded(mesh: DeviceMesh, tmp_path: Path) -> None:
    """The other ranks are not there to gather them, so that it would wait for ever."""
    model = llama()
    model.model.layers[0].requires_grad_(False)
    fully_shard(model, mesh=mesh)
    transfer = WeightTransfer(tmp_path / "chain", model=model)
    transfer.init_weight_transfer()
    sent = [(name, tensor.full_tensor()) for name, tensor in _iter_vllm_named_params(model)]
    with pytest.raises(ValueError, match=r"'model.layers.0\..*' is sharded"):
        transfer.send_weights(iter(sent))
    transfer.destroy()


def test_calls_out_of_order(tmp_path: Path) -> None:
    transfer = WeightTransfer(tmp_path / "chain", model=llama())
    with pytest.raises(RuntimeError, match="init_weight_transfer"):
        transfer.send_weights(iter(()))
    transfer.destroy()
    assert not (tmp_path / "chain").exists()
