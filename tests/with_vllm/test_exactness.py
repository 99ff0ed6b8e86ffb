"""Engines that cannot be updated exactly are refused, each with a sentence that says why."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn
from vllm.config import OffloadConfig, ParallelConfig
from vllm.model_executor.layers.linear import UnquantizedLinearMethod

from tensordelta.vllm.engine import init_info
from tensordelta.vllm.exactness import check_engine, check_model


def config(**different: Any) -> SimpleNamespace:
    parallel = ParallelConfig()
    for name, value in different.pop("parallel", {}).items():
        setattr(parallel, name, value)
    usual = {
        "parallel_config": parallel,
        "model_config": SimpleNamespace(quantization=different.pop("quantization", None)),
        "lora_config": None,
        "offload_config": OffloadConfig(),
    }
    return SimpleNamespace(**(usual | different))


def test_a_plain_engine_is_not_refused() -> None:
    check_engine(config())
    check_engine(config(parallel={"tensor_parallel_size": 8}))


@pytest.mark.parametrize(
    ("different", "reason"),
    [
        ({"quantization": "fp8"}, r"quantised weights \(fp8\)"),
        ({"parallel": {"pipeline_parallel_size": 2}}, "pipeline parallelism"),
        ({"parallel": {"data_parallel_size": 2}}, "data parallelism"),
        ({"parallel": {"enable_expert_parallel": True}}, "expert parallelism"),
        ({"lora_config": object()}, "adapters"),
        ({"offload_config": OffloadConfig(uva={"cpu_offload_gb": 1})}, "offloads weights"),
    ],
)
def test_engines_that_were_never_tried(different: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        check_engine(config(**different))


class _Layer(nn.Module):
    def __init__(self, method: Any) -> None:
        super().__init__()
        self.quant_method = method


class _Derives(nn.Module):
    def process_weights_after_loading(self) -> None:
        """As layers do that compute weights from those that are loaded."""


def test_layers_that_answer_from_other_words_than_those_loaded() -> None:
    model = nn.Module()
    model.plain = _Layer(UnquantizedLinearMethod())
    check_model(model)
    model.experts = _Layer(object())
    with pytest.raises(ValueError, match=r"experts is processed after loading \(object\)"):
        check_model(model)
    del model.experts
    model.latent = _Derives()
    with pytest.raises(ValueError, match=r"latent \(_Derives\) derives weights"):
        check_model(model)


def test_what_is_given_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="no chain is named"):
        init_info({})
    monkeypatch.setenv("TENSORDELTA_CHAIN", "a")
    monkeypatch.setenv("TENSORDELTA_OPTIONS", '{"poll": 3, "scan_every": 7}')
    info = init_info({"poll": 4})
    assert (info.chain, info.poll, info.scan_every) == ("a", 4, 7)
    assert init_info({"chain": "b"}).chain == "b"
    for wrong in ({"strange": 1}, {"timeout": "long"}, {"timeout": 0}, {"scan_every": -1}, {"chain": 7}):
        with pytest.raises(ValueError, match="is not valid"):
            init_info(wrong)
    monkeypatch.setenv("TENSORDELTA_OPTIONS", "{")
    with pytest.raises(ValueError, match="TENSORDELTA_OPTIONS"):
        init_info({})
