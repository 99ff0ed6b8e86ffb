"""Chains of small models, and engines that serve them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from engine import Engine
from models import Weights, changed, make_model, publish

import tensordelta as td


@dataclass
class Run:
    """A chain, and the model that its version 0 is; version 4 has the weights of version 0."""

    folder: Path
    chain: td.Chain
    weights: list[Weights]

    @classmethod
    def of(cls, kind: str, folder: Path, versions: int = 5) -> Run:
        run = cls(folder, td.open(folder / "chain", create=True), [])
        first = make_model(kind, folder / "model")
        run.publish(first)
        while len(run.weights) < versions:
            run.publish_next()
        return run

    def publish(self, weights: Weights, **options: Any) -> int:
        self.weights.append(weights)
        return publish(self.chain, weights, self.folder / "model", **options)

    def publish_next(self) -> int:
        """Publish what comes next: some words of all tensors, of both kinds of values; of some tensors; version 0."""
        number = len(self.weights)
        if number == 4:
            return self.publish(self.weights[0])
        besides = ("model.embed_tokens.weight",) if number == 3 else ()
        after = changed(self.weights[-1], number, besides=besides)
        return self.publish(after, values="replace" if number == 2 else "step")

    def flip_words(self, *names: str, **options: Any) -> int:
        """Publish a version in which every word of some tensors differs."""
        after = dict(self.weights[-1])
        for name in names:
            after[name] = (after[name].view(torch.int16) ^ 2).view(torch.bfloat16)
        return self.publish(after, **options)

    def publish_without(self, name: str) -> int:
        """Publish a version that lacks a tensor."""
        return publish(
            self.chain,
            {each: self.weights[-1][each] for each in self.weights[-1] if each != name},
            self.folder / "model",
        )

    def folder_of(self, version: int) -> Path:
        """A version, pulled."""
        self.chain.pull(self.folder / f"pulled-{version}", version)
        return self.folder / f"pulled-{version}"

    def engine(self, version: int | None = None, **options: Any) -> Engine:
        """An engine on the model, or on a version that was pulled."""
        model = self.folder / "model" if version is None else self.folder_of(version)
        environment = {"TENSORDELTA_UNPACKED": str(int(options.pop("unpacked", False)))}
        return Engine(model, self.folder / f"engine-{version}.log", environment, **options)
